"""Writes what a run leaves for people: metrics.jsonl, TensorBoard scalars, a progress bar.

Only rank 0 has a Monitor that writes; the others have a silent one, so that the loop reads the same
everywhere.
"""

import contextlib
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from helm_scale.pretraining.metrics import Board, MetricsFile
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
    """Writes a run's metrics; a full disk does not end it.

    Args:
        run: folder.
        done: steps of the checkpoint that the run resumes from; later lines of metrics.jsonl are
            dropped, so that each step occurs once.
        steps: steps of the whole run. progress: show a bar on standard error.
    """

    def __init__(self, run: Path, done: int, steps: int, progress: bool) -> None:
        self._metrics = MetricsFile(run, done)
        self._board = Board(run / "tensorboard", first=done + 1)
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
        self._metrics.write(line)
        numbers = {
            name.replace("validation_", "validation/"): value
            for name, value in line.items()
            if isinstance(value, int | float) and name not in ("step", "skipped")
        }
        self._board.add(line["step"], numbers)
        shown = {"loss": f"{line['loss']:.3e}"}
        if "h_mae_ueh" in line:
            shown["H MAE"] = f"{line['h_mae_ueh']:.1f} uEh"
        with contextlib.suppress(OSError):  # standard error may go to the full disk, too
            self._bar.set_postfix(shown, refresh=False)  # `update` draws, not oftener than due
            self._bar.update()

    def flush(self) -> None:
        """Put everything on disk."""
        self._metrics.flush()
        self._board.flush()

    def close(self) -> None:
        """Close the files and end the bar."""
        self._metrics.close()
        self._board.close()
        with contextlib.suppress(OSError):
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
