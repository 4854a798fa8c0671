"""500 / 100 / 500 water conformers at PBE/def2-SVP, learned without H0 and with minao H0: test
error of the Hamiltonian.

Makes the conformers (benchmarks/water_conformers.py), labels them (launch/shards.py generate),
trains configs/water.yaml once per baseline and evaluates the test split. Published without H0, on
another water set: 9.33e-6 Eh (HELM, arXiv:2510.00224).

    python benchmarks/water.py [--quick] [--baselines none minao]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from helm_scale import commands
from helm_scale.config import EvaluateConfig, GenerateConfig, PretrainConfig, load


def make_data(root: Path, quick: bool) -> Path:
    """Conformers and labels under root; what is there already is kept."""
    xyz, data = root / "conformers.xyz", root / "data"
    if not xyz.is_file():
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                sys.executable,
                "benchmarks/water_conformers.py",
                "--out",
                str(xyz),
                *["--quick"] * quick,
            ],
            check=True,
        )
    commands.shards_generate(
        load(
            GenerateConfig,
            ["--config", "configs/water_data.yaml", "--xyz", str(xyz), "--out", str(data)],
        )
    )
    return data


def train(root: Path, data: Path, baseline: str, quick: bool) -> dict[str, Any]:
    """Train and evaluate one baseline: training time and the rows of the evaluation, units in their
    names."""
    run = root / f"pretrain-{baseline}"
    steps = ["--training.steps", "20", "--training.warmup_steps", "5"] if quick else []
    arguments = [
        "--config",
        "configs/water.yaml",
        "--out",
        str(run),
        "--data.path",
        str(data),
        "--model.baseline",
        baseline,
        *steps,
    ]
    start = time.perf_counter()
    commands.pretrain(load(PretrainConfig, arguments))
    seconds = time.perf_counter() - start
    out = root / f"evaluation-{baseline}"
    orbitals = ["--orbital_molecules", "2" if quick else "20", "--extras", "[]"]
    print(
        commands.evaluate(
            load(
                EvaluateConfig,
                ["--source", str(run), "--data", str(data), "--out", str(out), *orbitals],
            )
        )
    )
    report = json.loads((out / "report.json").read_text())
    return {"training_seconds": round(seconds, 1), "test": report["rows"]}


def main() -> None:
    """Both baselines in turn; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="60 conformers, 20 steps")
    parser.add_argument("--baselines", nargs="+", default=["none", "minao"])
    arguments = parser.parse_args()
    root = Path("runs/water-quick" if arguments.quick else "runs/water")
    data = make_data(root, arguments.quick)
    rows = {
        baseline: train(root, data, baseline, arguments.quick) for baseline in arguments.baselines
    }
    print(json.dumps({"benchmark": "water", "rows": rows}))


if __name__ == "__main__":
    main()
