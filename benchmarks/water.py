"""Test error of the Hamiltonian of water conformers, learned without H0 and with minao H0.

Makes 500 / 100 / 500 conformers at PBE/def2-SVP (benchmarks/water_conformers.py), labels them
(launch/shards.py generate), trains configs/water.yaml once per baseline and evaluates the test
split. Published without H0, on another water set: 9.33e-6 Eh (HELM, arXiv:2510.00224).

    python benchmarks/water.py [--quick] [--baselines none minao]
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from report import command_line, report

from helm_scale import commands
from helm_scale.config import EvaluateConfig, GenerateConfig, PretrainConfig, load


def make_data(root: Path, quick: bool) -> Path:
    """Conformers and labels under root; what is there already is kept."""
    xyz, data = root / "conformers.xyz", root / "data"
    if not xyz.is_file():
        root.mkdir(parents=True, exist_ok=True)
        script = [sys.executable, "benchmarks/water_conformers.py", f"--out={xyz}"]
        subprocess.run([*script, *["--quick"] * quick], check=True)
    flags = ["--config=configs/water_data.yaml", f"--xyz={xyz}", f"--out={data}"]
    commands.shards_generate(load(GenerateConfig, flags))
    return data


def train(run: Path, data: Path, baseline: str, quick: bool) -> float:
    """Train one baseline; seconds."""
    flags = [
        "--config=configs/water.yaml",
        f"--out={run}",
        f"--data.path={data}",
        f"--model.baseline={baseline}",
    ]
    few = ["--training.steps=20", "--training.warmup_steps=5"] if quick else []
    start = time.perf_counter()
    commands.pretrain(load(PretrainConfig, [*flags, *few]))
    return time.perf_counter() - start


def evaluate(run: Path, data: Path, out: Path, quick: bool) -> dict[str, Any]:
    """Rows of the evaluation of a run, units in their names."""
    flags = [f"--source={run}", f"--data={data}", f"--out={out}"]
    few = [f"--orbital_molecules={2 if quick else 20}", "--extras=[]"]
    print(commands.evaluate(load(EvaluateConfig, [*flags, *few])))
    rows: dict[str, Any] = json.loads((out / "report.json").read_text())["rows"]
    return rows


def main() -> None:
    """Both baselines in turn; the last line is one JSON object."""
    parser = command_line(__doc__, quick="60 conformers, 20 steps")
    parser.add_argument("--baselines", nargs="+", default=["none", "minao"])
    arguments = parser.parse_args()
    root = Path("runs/water-quick" if arguments.quick else "runs/water")
    data = make_data(root, arguments.quick)
    rows = {}
    for baseline in arguments.baselines:
        run, out = root / f"pretrain-{baseline}", root / f"evaluation-{baseline}"
        seconds = train(run, data, baseline, arguments.quick)
        test = evaluate(run, data, out, arguments.quick)
        rows[baseline] = {"training_seconds": round(seconds, 1), "test": test}
    report("water", rows=rows)


if __name__ == "__main__":
    main()
