"""Adds up the sums of one step over this rank's micro-batches, then over ranks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from helm_scale.parallel import collectives
from helm_scale.parallel.objective import Sums
from helm_scale.types import GraphBatch


@dataclass(frozen=True, kw_only=True)
class GlobalSums:
    """Sums over all ranks; `metrics` are means, and one without terms is left out."""

    total: Tensor
    count: Tensor
    molecules: int
    pairs: int
    metrics: dict[str, float]


class StepSums:
    """Sums of this rank's micro-batches, and one all-reduce of them in float64."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._totals: list[tuple[Tensor, tuple[str, ...]]] = []

    def add(self, sums: Sums, batch: GraphBatch) -> None:
        """Take in one micro-batch."""
        ranks = batch.pair_world_size  # that count the same molecules
        self._totals.append((sums.total.detach(), batch.keys))
        self._put("total", sums.total.detach())
        self._put("count", sums.count)
        self._put("molecules", torch.tensor(batch.num_molecules / ranks))
        self._put("pairs", torch.tensor(batch.pair_index.shape[1] / ranks))
        for name, (total, count) in sums.metrics.items():
            self._put(f"sum {name}", total)
            self._put(f"terms {name}", count)

    @property
    def local(self) -> float:
        """Sum of this rank alone."""
        return float(self._sums["total"])

    @property
    def suspects(self) -> tuple[str, ...]:
        """Molecules of the micro-batches whose sum is not finite."""
        broken = [keys for total, keys in self._totals if not bool(torch.isfinite(total))]
        return tuple(key for keys in broken for key in keys)

    def over_ranks(self) -> GlobalSums:
        """The sums over all ranks."""
        names = sorted(self._sums)  # the same order on every rank
        summed = collectives.sum_over_ranks(torch.stack([self._sums[name] for name in names])).cpu()
        by_name = dict(zip(names, summed, strict=True))
        metrics = {}
        for name in names:
            metric = name.removeprefix("sum ")
            if metric != name and by_name[f"terms {metric}"] > 0:
                metrics[metric] = float(by_name[name] / by_name[f"terms {metric}"])
        return GlobalSums(
            total=by_name["total"],
            count=by_name["count"],
            molecules=round(float(by_name["molecules"])),
            pairs=round(float(by_name["pairs"])),
            metrics=metrics,
        )

    def _put(self, name: str, value: Tensor) -> None:
        # float64: counts of matrix elements exceed the 2^24 up to which float32 counts by ones.
        value = value.detach().to(self._device, torch.float64)
        self._sums[name] = self._sums[name] + value if name in self._sums else value
