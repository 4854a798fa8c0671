"""Which model settings cost least at an equal error: the same number of steps, three seeds, two sets of molecules.

Sets: the committed molecules of 58 elements (def2-TZVPD, H - H0) and 500 water conformers (def2-SVP, no H0; made by
benchmarks/water.py). Models are narrow ones with two node layers. Operations are those of one step on a synthetic molecule of 40
atoms, without recomputation.

    python benchmarks/settings.py [--quick] [--sets quickstart water] [--seeds 0 1 2]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from synthetic import Step
from torch.utils.flop_counter import FlopCounterMode

from helm_scale.config import PretrainConfig, load

REFERENCE = {"num_layers": 2, "pair_layers": 2, "pair_reads": "each", "trunk_cutoff": 12.0, "pair_cutoff": 15.0}
LAST = {"pair_reads": "last"}
VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "two pair layers read the last states": LAST,
    "one pair layer": {**LAST, "pair_layers": 1},
    "one pair layer, trunk 6 A": {**LAST, "pair_layers": 1, "trunk_cutoff": 6.0},
    "one pair layer, trunk 6 A, mmax 2": {**LAST, "pair_layers": 1, "trunk_cutoff": 6.0, "mmax": 2},
}
SETS = {
    "quickstart": ("configs/quickstart.yaml", "data_shards/quickstart", 400),
    "water": ("configs/water.yaml", "runs/water/data", 1000),
}


def arguments_of(name: str, variant: str, seed: int, quick: bool) -> list[str]:
    """Command line of one training run; its validation is the test split, once, at the end."""
    file, data, steps = SETS[name]
    steps = 4 if quick else steps
    out = Path("runs/settings-quick" if quick else "runs/settings") / name / f"{list(VARIANTS).index(variant)}-{seed}"
    model = [item for key, value in {**REFERENCE, **VARIANTS[variant]}.items() for item in (f"--model.{key}", str(value))]
    training = ["--training.steps", str(steps), "--training.warmup_steps", str(steps // 10), "--training.seed", str(seed)]
    once = ["--execution.validate_every", str(steps), "--execution.checkpoint_every", str(steps), "--execution.progress", "false"]
    return ["--config", file, "--data.path", data, "--data.validation_split", "test", "--out", str(out), *model, *training, *once]


def train(name: str, variant: str, seed: int, quick: bool) -> dict[str, float]:
    """Test error after the last step, and seconds per step."""
    arguments = arguments_of(name, variant, seed, quick)
    start = time.perf_counter()
    subprocess.run([sys.executable, "launch/pretrain.py", *arguments], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    config = load(PretrainConfig, arguments)
    last = json.loads((Path(config.out) / "metrics.jsonl").read_text().splitlines()[-1])
    return {"h_mae_ueh": last["validation_h_mae_ueh"], "seconds_per_step": seconds / config.training.steps}


def flops(name: str, variant: str) -> int:
    """Operations of one step on a synthetic molecule of 40 atoms."""
    step = Step(40, load(PretrainConfig, arguments_of(name, variant, 0, quick=False)).model)
    step.model.set_memory(pair_chunk=0, recompute="none", message_chunk=1)
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def main() -> None:
    """All variants, seed by seed; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 steps on the committed molecules, one seed")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    rows = []
    for name in ["quickstart"] if arguments.quick else arguments.sets:
        found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
        for seed in arguments.seeds[: 1 if arguments.quick else None]:
            for variant, runs in found.items():
                runs.append(train(name, variant, seed, arguments.quick))
                print(f"{name}, seed {seed}, {variant}: {runs[-1]['h_mae_ueh']:.1f} uEh, {runs[-1]['seconds_per_step']:.3f} s", flush=True)
        cost = {variant: flops(name, variant) for variant in VARIANTS}
        for variant, runs in found.items():
            errors = [run["h_mae_ueh"] for run in runs]
            rows.append({
                "set": name, "variant": variant, "h_mae_ueh": errors, "mean_h_mae_ueh": statistics.mean(errors),
                "seconds_per_step": statistics.median(run["seconds_per_step"] for run in runs),
                "flops_of_reference": cost[variant] / cost["reference"],
            })  # fmt: skip
    for row in rows:
        print("{set:10s} {variant:36s} {mean_h_mae_ueh:9.1f} uEh, operations {flops_of_reference:.2f}".format(**row))
    print(json.dumps({"benchmark": "settings", "steps": {name: steps for name, (_, _, steps) in SETS.items()}, "rows": rows}))


if __name__ == "__main__":
    main()
