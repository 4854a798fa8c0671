"""A dataset of ragged molecules with made-up labels, and real launches of pretraining on it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale import commands, config
from helm_scale.basis.shells import shells_of
from helm_scale.data.format.shards import ShardWriter
from helm_scale.pretraining import checkpoint
from helm_scale.types import Method, Molecule

ROOT = Path(__file__).parent.parent.parent
METHOD = Method(
    xc="pbe",
    basis="def2-svp",
    ecp="def2",
    grid_level=1,
    auxbasis=None,
    conv_tol=1e-10,
    baseline="none",
    program="none: made-up labels",
)
CLOCK = {
    "molecules_per_second", "pairs_per_second", "peak_memory_mb", "seconds_by_rank",
    "seconds_mean", "seconds_max", "slowest_rank", "ranks",
}  # fmt: skip
TINY = {
    "model.basis": "def2-svp", "model.parity": "full", "model.lmax": 4, "model.mmax": 4,
    "model.channels": 4, "model.hidden_channels": 4, "model.edge_channels": 8,
    "model.num_layers": 1, "model.radial_functions": 6,
    "training.steps": 10, "training.batch_molecules": 6, "training.micro_batches": 4,
    "training.warmup_steps": 2, "training.learning_rate": 1e-3,
    "training.muon_learning_rate": 1e-3,
    "execution.progress": False, "execution.device": "cpu",
    "execution.metrics_details": True,
}  # fmt: skip


def molecule(key: str, numbers: Sequence[int], seed: int) -> Molecule:
    """Atoms on a bent chain, with a made-up Hamiltonian.

    Between s shells it is a matrix that a model can learn, elsewhere a little noise, Hartree.
    """
    rng = np.random.default_rng(seed)
    positions = np.cumsum(rng.uniform(0.6, 1.1, size=(len(numbers), 3)), axis=0)
    shells = [
        [degree for degree in shells_of("def2-svp", z) for _ in range(2 * degree + 1)]
        for z in numbers
    ]
    owner = np.repeat(np.arange(len(numbers)), [len(of_atom) for of_atom in shells])
    is_s = np.concatenate(shells) == 0
    distance = np.linalg.norm(positions[owner][:, None] - positions[owner][None], axis=-1)
    matrix = np.exp(-distance) * is_s * is_s[:, None] + 0.002 * rng.normal(size=distance.shape)
    return Molecule(
        key, np.array(numbers), positions, hamiltonian=(matrix + matrix.T) / 2, method=METHOD
    )


def write_dataset(folder: Path, seed: int = 7) -> Path:
    """Write 11 training and 3 validation molecules of 1 to 6 atoms, in two shards."""
    rng = np.random.default_rng(seed)
    writer = ShardWriter(folder, METHOD, licence="CC0-1.0", source="made up", molecules_per_shard=9)
    for number in range(14):
        numbers = rng.choice([1, 1, 6, 7, 8, 17], size=1 + number % 6).tolist()
        writer.write(
            molecule(f"mol-{number}", numbers, number), "train" if number < 11 else "validation"
        )
    writer.close()
    return folder


def flags(data: Path, run: Path, **changes: Any) -> list[str]:
    """The flags of a launch; in keys of changes, __ stands for the dot."""
    settings = {
        **TINY,
        "data.path": data,
        "out": run,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return [f"--{key}={value}" for key, value in settings.items()]


def python(ranks: int) -> list[str]:
    """How a script is started: by python, or by torchrun for several ranks."""
    if ranks == 1:
        return [sys.executable]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [sys.executable, *torchrun]


def command(data: Path, run: Path, ranks: int = 1, **changes: Any) -> list[str]:
    """The command line of a launch."""
    return [*python(ranks), "launch/pretrain.py", *flags(data, run, **changes)]


def environment() -> dict[str, str]:
    """One thread per process, and this code."""
    # shell scripts find this `python` first
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": path}


def start(arguments: list[str]) -> "subprocess.Popen[str]":
    """Start a launch."""
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", seconds: float = 240) -> tuple[int, str, str]:
    """Wait for a launch: (exit code, standard output, standard error); none is left behind."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        out, err = process.communicate()
        raise AssertionError(f"still running after {seconds} s:\n{out}\n{err}") from None
    return process.returncode, out, err


def launch(data: Path, run: Path, ranks: int = 1, **changes: Any) -> tuple[int, str, str]:
    """Run a launch to its end."""
    return finish(start(command(data, run, ranks, **changes)))


def pretrain(data: Path, run: Path, **changes: Any) -> str:
    """Train in this process; what the command says."""
    return commands.pretrain(config.load(config.PretrainConfig, flags(data, run, **changes)))


def trained(data: Path, run: Path, ranks: int = 1, **changes: Any) -> list[dict[str, Any]]:
    """Run a launch that must succeed; the lines of its metrics.jsonl."""
    code, out, err = launch(data, run, ranks, **changes)
    assert code == 0, f"{out}\n{err}"
    return lines(run)


def kill(process: "subprocess.Popen[str]") -> None:
    """SIGKILL a launch: first its ranks, which torchrun gives sessions of their own, then it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in [*map(int, children), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def lines(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; a torn last one is left out."""
    text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").is_file() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def numbers(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what a clock or the operating system says."""
    return [
        {name: value for name, value in line.items() if name not in CLOCK} for line in lines(run)
    ]


def assert_same_to_the_last_bit(run: Path, other: Path, steps: int = 12) -> None:
    """Same lines, each step once, and the same last weights."""
    assert [line["step"] for line in numbers(run)] == list(range(1, steps + 1))
    assert numbers(run) == numbers(other)
    files = [checkpoint.committed(folder)[-1] / "model.safetensors" for folder in (run, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
