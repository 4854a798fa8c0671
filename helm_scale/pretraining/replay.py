"""Dumps a doubtful step to a file, and replays it on one CPU.

One file holds the weights before the step, the names of its samples, and what came of it.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helm_scale.files import atomic_path
from helm_scale.parallel.engine import Engine, StepResult
from helm_scale.parallel.objective import Objective
from helm_scale.parallel.snapshot import write_tensors
from helm_scale.types import GraphBatch


class FailureDump:
    """Captures weights when a step is doubted and writes them with what came of it.

    Args:
        run: folder. record: what model.json says. data: folder of the dataset.
        keep: newest files that stay.
    """

    def __init__(
        self,
        run: Path,
        engine: Engine,
        *,
        record: Mapping[str, Any],
        data: str | Sequence[str],
        keep: int,
    ) -> None:
        self._folder, self._engine = run / "replay", engine
        self._record, self._data, self._keep = record, data, keep
        self._weights: dict[str, Tensor] | None = None

    def capture_weights(self) -> None:
        """Copy the weights; called by all ranks before the doubted step."""
        self._weights = self._engine.full_state()

    def write(
        self,
        step: int,
        result: StepResult,
        *,
        samples: Sequence[tuple[str, int]],
        suspects: Sequence[str],
    ) -> str:
        """Write the file (rank 0) and forget the weights; returns how to replay it, one clause.

        Args:
            samples: key and number of every sample of the step. suspects: keys that may be to
                blame.
        """
        weights = self._engine.full_state() if self._weights is None else self._weights
        self._weights = None
        path = self._folder / f"step-{step:08d}.safetensors"
        about = {
            **self._record,
            "step": step,
            "loss": result.loss,
            "first_loss": result.first_loss,
            "grad_norm": result.grad_norm,
            "samples": list(samples),
            "suspects": list(suspects),
            "unsteady": list(result.unsteady),
            "data_path": self._data,
        }
        if self._engine.rank == 0:
            try:
                self._write(path, weights, {"about": json.dumps(about)})
            except OSError as error:  # a full disk must not hide what the dump was about
                return f"{path} could not be written: {error}"
        return f"Replay on a CPU: helm-scale replay --file {path}"

    def _write(self, path: Path, weights: Mapping[str, Tensor], about: dict[str, str]) -> None:
        """Write a file, and remove the oldest ones beyond those to keep."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            write_tensors(partial, weights, about)
        for old in sorted(self._folder.glob("step-*.safetensors"))[: -self._keep]:
            old.unlink()


def replay(
    model: nn.Module,
    objective: Objective,
    *,
    about: Mapping[str, Any],
    load: Callable[[int], GraphBatch],
) -> str:
    """Compute loss and gradient norm of every sample alone.

    Args:
        about: what the file says. load: sample number -> batch of it alone.
    Returns:
        a table, Markdown, the worst sample first.
    """
    rows: list[tuple[float, str]] = []
    totals, counts = [], []
    for key, index in about["samples"]:
        try:
            # the seed of the step: a flow draws the same noise
            sums = objective(model, replace(load(index), noise_seed=about["step"]))
        except ValueError as error:
            rows.append((math.inf, f"| {key} | cannot be read | {error} |"))
            continue
        model.zero_grad()  # or the gradients of all samples would add up
        loss = objective.loss(sums.total, sums.count)
        loss.backward()
        value, norm = float(loss.detach()), _gradient_norm(model)
        rank = value if math.isfinite(value) else math.inf  # not finite counts as worst
        rows.append((rank, f"| {key} | {value:.6e} | {norm:.6e} |"))
        totals.append(sums.total.detach().double())
        counts.append(sums.count)
    lines = [
        f"step {about['step']}: loss in the run {about['loss']}, before that {about['first_loss']}"
    ]
    # The loss is a function of sums, so that of all samples is not the mean of the rows.
    if len(totals) == len(rows):
        together = objective.loss(torch.stack(totals).sum(), torch.stack(counts).sum())
        lines.append(f"all samples together, here: {float(together):.6e}")
    lines += ["", "| sample | loss | gradient norm |", "|---|---|---|"]
    return "\n".join(lines + [text for _, text in sorted(rows, key=lambda row: -row[0])])


def _gradient_norm(model: nn.Module) -> float:
    gradients = [p.grad.double().norm() for p in model.parameters() if p.grad is not None]
    return float(torch.stack(gradients).norm())
