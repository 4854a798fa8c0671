"""Writes what a run leaves for people: metrics.jsonl, TensorBoard scalars, a progress bar.

Only rank 0 has a Monitor that writes; the others have a silent one, so that the loop reads the same
everywhere.
"""

import json
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from helm_scale.files import write_atomically
from helm_scale.units import MICROHARTREE


class SilentMonitor:
    """Writes nothing."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Take one step's line."""

    def flush(self) -> None:
        """Put everything on disk."""

    def close(self) -> None:
        """End."""

    def __enter__(self) -> "SilentMonitor":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Monitor(SilentMonitor):
    """Writes a run's metrics.

    Args:
        run: folder.
        done: steps of the checkpoint that the run resumes from; later lines of metrics.jsonl are
            dropped, so that each step occurs once.
        steps: steps of the whole run. progress: show a bar on standard error.
    """

    def __init__(self, run: Path, done: int, steps: int, progress: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter  # seconds, which rank 0 alone pays

        path = run / "metrics.jsonl"
        _truncate(path, done)
        self._file = path.open("a")
        # purge_step hides the points of steps that a killed run took after its last checkpoint
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=done + 1)
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc="pretrain",
            unit="step",
            dynamic_ncols=True,
            disable=not progress,
        )

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line and scalars, and move the bar."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()  # for whoever reads along; to the disk it goes before a save
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("step", "skipped"):
                self._board.add_scalar(
                    name.replace("validation_", "validation/"), value, line["step"]
                )
        shown = {"loss": f"{line['loss']:.3e}"}
        if "h_mae_ueh" in line:
            shown["H MAE"] = f"{line['h_mae_ueh']:.1f} uEh"
        self._bar.set_postfix(shown, refresh=False)  # `update` draws, not oftener than it should
        self._bar.update()

    def flush(self) -> None:
        """Put everything on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Close the files and end the bar."""
        self.flush()
        self._file.close()
        self._board.close()
        self._bar.close()


def in_microhartree(metrics: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """Metrics named *_mae* (Hartree) as *_ueh (1e-6 Hartree), the others as they are."""
    return {
        (f"{prefix}{name}_ueh" if "mae" in name else f"{prefix}{name}"): (
            value / MICROHARTREE if "mae" in name else value
        )
        for name, value in metrics.items()
    }


def peak_memory_mb() -> float:
    """Largest memory so far, MB: allocated on the GPU if one is in use, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    # ru_maxrss counts kB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _truncate(path: Path, done: int) -> None:
    """Keep the lines of steps up to `done`; a line that a kill has torn is dropped."""
    if not path.is_file():
        return
    lines = []
    for text in path.read_text().splitlines():
        try:
            step = json.loads(text)["step"]
        except json.JSONDecodeError:  # the last line before a kill; nothing of worth follows
            break
        if step > done:
            break
        lines.append(text + "\n")
    write_atomically(path, "".join(lines))
