"""Does flow matching help, and do two stages of pairs?

Learned is H - H0(minao) of water conformers at PBE/def2-SVP, in equal steps. Per seed five models
of configs/water_flow.yaml, all of about 0.7 M parameters: without a flow's network ("plain"), and
with it, regression (X_t = 0, t = 0) and flow, each with one stage of pairs (two SO(2) layers) and
two (one SO(2) layer, wider inside, and the product of node states). A flow is judged with one and
with three Euler steps. Errors are those of the test split by the evaluation protocol; seconds are
of one prediction on one thread.

    python benchmarks/water_flow.py --data runs/water/data [--seeds 0 1 2] [--quick]
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import command_line, report

from helm_scale import commands
from helm_scale.config import EvaluateConfig, GenerateConfig, PretrainConfig, load
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.evaluation.prediction import predict_residual
from helm_scale.model.helm import Helm

STAGES = {
    "one stage": ["--model.tensor_product_stage=false", "--model.pair_layers=2"],
    "two stages": [
        "--model.tensor_product_stage=true",
        "--model.pair_layers=1",
        "--model.hidden_channels=44",
    ],
}
MODELS = [("plain", "off", "one stage")] + [
    (name, prior, s) for s in STAGES for name, prior in (("regression", "zero"), ("flow", "irreps"))
]
WATER = np.array([[0.0, 0.0, 0.1], [0.76, 0.0, 0.68], [-0.76, 0.0, 0.68]])


def make_few(root: Path) -> Path:
    """Eight displaced waters, labelled."""
    rng, frames = np.random.default_rng(0), []
    for number, split in enumerate(["train"] * 5 + ["validation"] + ["test"] * 2):
        rows = "\n".join(
            f"{s} {x:.6f} {y:.6f} {z:.6f}"
            for s, (x, y, z) in zip("OHH", WATER + 0.05 * rng.normal(size=(3, 3)), strict=True)
        )
        frames.append(
            f"3\nProperties=species:S:1:pos:R:3 key=water-{number} split={split}\n{rows}\n"
        )
    root.mkdir(parents=True, exist_ok=True)
    (root / "conformers.xyz").write_text("".join(frames))
    flags = [
        "--config=configs/water_data.yaml",
        f"--xyz={root / 'conformers.xyz'}",
        f"--out={root / 'data'}",
        "--grid_level=0",
        "--conv_tol=1e-8",
    ]
    commands.shards_generate(load(GenerateConfig, flags))
    return root / "data"


def judge(run: Path, data: Path, steps: int, molecules: int) -> dict[str, Any]:
    """Errors on the test split: H and orbitals 1e-6 Eh, energy meV, forces meV/Angstrom."""
    out = run.with_name(f"{run.name}-K{steps}")
    flags = [f"--source={run}", f"--data={data}", f"--out={out}", f"--flow_steps={steps}"]
    few = [f"--{name}_molecules={molecules}" for name in ("orbital", "energy", "force")]
    commands.evaluate(load(EvaluateConfig, [*flags, *few, "--scf_molecules=1", "--extras=[]"]))
    rows: dict[str, dict[str, Any]] = json.loads((out / "report.json").read_text())["rows"]
    return rows["prediction"]


def seconds(model: Helm, data: Path, steps: int) -> float:
    """Median time of one prediction."""
    manifest, times = Manifest.load(data), []
    reader, model.flow_steps = ShardReader(manifest), steps
    for index in np.resize(manifest.split("test"), 20):
        molecule, start = reader.read(int(index)), time.perf_counter()
        predict_residual(model, molecule)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times), 5)


def train(run: Path, data: Path, *, seed: int, prior: str, stages: str, quick: bool) -> float:
    """Train one model; seconds."""
    flags = [
        "--config=configs/water_flow.yaml",
        f"--out={run}",
        f"--data.path={data}",
        f"--training.seed={seed}",
        f"--model.prior={prior}",
        *STAGES[stages],
    ]
    few = ["--training.steps=3", "--training.batch_molecules=2", "--training.warmup_steps=1"]
    start = time.perf_counter()
    commands.pretrain(load(PretrainConfig, [*flags, *(few if quick else [])]))
    return time.perf_counter() - start


def train_and_judge(root: Path, data: Path, seed: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Figures of every model of a seed, with every number of Euler steps."""
    for name, prior, stages in MODELS:
        run = root / f"{name}-{stages.replace(' ', '-')}-{seed}"
        training = train(run, data, seed=seed, prior=prior, stages=stages, quick=quick)
        model, _ = commands.load_model(run)
        for steps in (1, 3) if name == "flow" else (1,):
            yield {
                "seed": seed,
                "model": name,
                "pairs": stages,
                "parameters": sum(p.numel() for p in model.parameters()),
                "training_seconds": round(training, 1),
                "euler_steps": steps,
                "seconds_per_prediction": seconds(model, data, steps),
                **judge(run, data, steps, 2 if quick else 20),
            }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, quick="eight conformers, one seed, 3 steps")
    parser.add_argument("--data", default="runs/water/data", help="dataset of benchmarks/water.py")
    parser.add_argument("--out", default="", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args()


def main() -> None:
    """All models of all seeds in turn; the last line is one JSON object."""
    arguments = parse()
    torch.set_num_threads(1)
    if arguments.quick:
        root, seeds = Path(arguments.out or "runs/water_flow-quick"), [0]
        data = make_few(root)
    else:
        root, seeds = Path(arguments.out or "runs/water_flow"), arguments.seeds
        data = Path(arguments.data)
    rows = []
    for seed in seeds:
        for row in train_and_judge(root, data, seed, arguments.quick):
            rows.append(row)
            print(json.dumps(row), flush=True)
    report("water_flow", rows=rows)


if __name__ == "__main__":
    main()
