"""Evidence of a doubtful step, and its replay on one CPU: the weights before the step and the names
of its samples, in one file."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helm_scale.parallel.engine import Engine, StepResult
from helm_scale.parallel.objective import Objective
from helm_scale.parallel.snapshot import write_tensors
from helm_scale.types import GraphBatch

_log = logging.getLogger(__name__)


class FailureDump:
    """Collects weights when a batch is doubted and writes them with what came of it.

    Args:
        run: folder. record: what model.json says. data: folder of the dataset.
    """

    def __init__(
        self, run: Path, engine: Engine, record: Mapping[str, Any], data: str | Sequence[str]
    ) -> None:
        self._run, self._engine, self._record, self._data = run, engine, record, data
        self._weights: dict[str, Tensor] | None = None

    def capture_weights(self) -> None:
        """Copy the weights; called by all ranks before the doubted step."""
        self._weights = self._engine.full_state()

    def write(
        self, step: int, result: StepResult, samples: Mapping[str, int], suspects: Sequence[str]
    ) -> str:
        """Write the file (rank 0) and forget the weights; returns how to replay it, one clause."""
        weights = self._engine.full_state() if self._weights is None else self._weights
        self._weights = None
        path = self._run / "replay" / f"step-{step:08d}.safetensors"
        about = {
            **self._record, "step": step, "loss": result.loss, "first_loss": result.first_loss, "grad_norm": result.grad_norm,
            "samples": dict(samples), "suspects": list(suspects), "unsteady": list(result.unsteady), "data_path": self._data,
        }  # fmt: skip
        if self._engine.rank == 0:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_tensors(path, weights, {"about": json.dumps(about)})
            except OSError as error:
                _log.error("%s: could not be written: %s", path, error)
        return f"Replay on a CPU: helm-scale replay --file {path}"


def replay(
    model: nn.Module,
    objective: Objective,
    about: Mapping[str, Any],
    load: Callable[[int], GraphBatch],
) -> str:
    """Loss and gradient norm of every sample alone, the worst first.

    Args:
        about: what the file says. load: sample index -> batch of it alone.
    Returns:
        a table, Markdown.
    """
    rows, totals = [], []
    for key, index in about["samples"].items():
        try:
            sums = objective(model, replace(load(int(index)), noise_seed=about["step"]))
        except ValueError as error:
            rows.append((math.inf, f"| {key} | cannot be read | {error} |"))
            continue
        model.zero_grad()
        loss = objective.loss(sums.total, sums.count)
        loss.backward()
        gradients = [
            parameter.grad.double().norm()
            for parameter in model.parameters()
            if parameter.grad is not None
        ]
        norm = float(torch.stack(gradients).norm())
        totals.append((sums.total.detach().double(), sums.count))
        value = float(loss.detach())
        rows.append(
            (value if math.isfinite(value) else math.inf, f"| {key} | {value:.6e} | {norm:.6e} |")
        )
    rows.sort(key=lambda row: -row[0])
    head = [
        f"step {about['step']}: loss in the run {about['loss']}, before that {about['first_loss']}"
    ]
    if len(totals) == len(about["samples"]):
        total, count = (torch.stack([pair[i] for pair in totals]).sum() for i in (0, 1))
        head.append(f"all samples together, here: {float(objective.loss(total, count)):.6e}")
    return "\n".join(
        [
            *head,
            "",
            "| sample | loss | gradient norm |",
            "|---|---|---|",
            *(text for _, text in rows),
        ]
    )
