"""A chemist: labels, training, evaluation, and an SCF that starts from the prediction.

Runs in an empty folder with the installed package alone.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from ase.build import molecule

import helm_scale

SMALL = {
    "basis": "def2-svp",
    "baseline": "minao",
    "lmax": 4,
    "mmax": 4,
    "channels": 8,
    "hidden_channels": 8,
    "edge_channels": 8,
    "num_layers": 1,
}


def helm(command: str, **options: object) -> str:
    """Run a command of the package; its output."""
    program = str(Path(sys.executable).with_name("helm-scale"))
    flags = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run([program, *command.split(), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_molecules() -> None:
    """Waters at several geometries, one of them for tests, and a radical that has no label."""
    frames = ["2\nkey=radical\nO 0 0 0\nH 0 0 0.97\n"]
    for number in range(5):
        split = ("train", "train", "train", "validation", "test")[number]
        place = molecule("H2O").positions
        place = place + np.random.default_rng(number).normal(scale=0.03, size=place.shape)
        rows = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip("OHH", place, strict=True)]
        frames.append(f"3\nkey=water-{number} split={split}\n" + "\n".join(rows) + "\n")
    Path("molecules.xyz").write_text("".join(frames))


def main() -> None:
    write_molecules()
    cheap = {"basis": "def2-svp", "xc": "lda,vwn", "baseline": "minao", "grid_level": 0}
    said = helm("shards generate", xyz="molecules.xyz", out="data", processes=1, **cheap)
    assert "5 molecules" in said and "radical: frame 0" in said, said
    Path("pretrain.yaml").write_text(
        "out: run\ndata: {path: data}\nexecution: {progress: false, threads: 1}\n"
        "training: {steps: 20, batch_molecules: 3, warmup_steps: 2}\nmodel:\n"
        + "".join(f"  {name}: {value}\n" for name, value in SMALL.items())
    )
    helm("pretrain", config="pretrain.yaml")
    report = helm("evaluate", source="run", data="data", out="judged", processes=1, extras="[]")
    assert report.startswith("# Evaluation of run") and "**Verdict.**" in report
    assert "chemical accuracy" in Path("judged/report.md").read_text()
    model, water = helm_scale.load("run"), molecule("H2O")
    ours, plain = model.solver(water), model.solver(water)
    ours.kernel(dm0=model.initial_guess(ours.mol))
    plain.kernel()
    assert ours.converged and plain.converged and abs(ours.e_tot - plain.e_tot) < 1e-7
    assert ours.cycles <= plain.cycles
    print(f"SCF: {ours.cycles} cycles, from minao {plain.cycles}")


if __name__ == "__main__":
    main()
