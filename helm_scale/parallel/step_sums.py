"""Sums of one step: over this rank's micro-batches, then over ranks."""

import torch
from torch import Tensor

from helm_scale.parallel import collectives
from helm_scale.parallel.engine import Sums
from helm_scale.types import GraphBatch


class StepSums:
    """Sums of this rank's micro-batches, and one all-reduce of them in float64."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._totals: list[tuple[Tensor, tuple[str, ...]]] = []

    def add(self, sums: Sums, batch: GraphBatch) -> None:
        """Take in one micro-batch."""
        self._totals.append((sums.total.detach(), batch.keys))
        self._put("total", sums.total.detach())
        self._put("count", sums.count)
        self._put("molecules", torch.tensor(batch.num_molecules / batch.pair_world_size))
        self._put("pairs", torch.tensor(batch.pair_index.shape[1] / batch.pair_world_size))
        for name, (total, count) in sums.metrics.items():
            self._put(f"sum {name}", total)
            self._put(f"terms {name}", count)

    @property
    def own(self) -> float:
        """Sum of this rank alone."""
        return float(self._sums["total"])

    @property
    def suspects(self) -> tuple[str, ...]:
        """Molecules of the micro-batches whose sum is not finite."""
        return tuple(
            key for total, keys in self._totals if not bool(torch.isfinite(total)) for key in keys
        )

    def over_ranks(self) -> tuple[Tensor, Tensor, int, int, dict[str, float]]:
        """Global (total, count, molecules, pairs, means of metrics); a metric without terms is left
        out."""
        names = sorted(self._sums)
        summed = collectives.sum_over_ranks(torch.stack([self._sums[name] for name in names])).cpu()
        by_name = dict(zip(names, summed, strict=True))
        metrics = {
            name.removeprefix("sum "): float(
                by_name[name] / by_name[f"terms {name.removeprefix('sum ')}"]
            )
            for name in names
            if name.startswith("sum ") and by_name[f"terms {name.removeprefix('sum ')}"] > 0
        }
        return (
            by_name["total"],
            by_name["count"],
            round(float(by_name["molecules"])),
            round(float(by_name["pairs"])),
            metrics,
        )

    def _put(self, name: str, value: Tensor) -> None:
        value = value.detach().to(self._device, torch.float64)
        self._sums[name] = self._sums[name] + value if name in self._sums else value
