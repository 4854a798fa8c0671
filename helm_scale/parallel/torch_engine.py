"""The engine of plain torch: micro-batches, global sums, one scale, clip, step; alone, under DDP or under FSDP2.

For a loss L(S, N) of a global sum S and count N the gradient is dL/dS times that of S. The backward passes gather the
gradient of S over micro-batches and ranks; S and N are summed once; then one factor is applied, then clipping, then the
step. So neither micro-batches nor ranks change the numbers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from helm_scale.batch import GraphBatch
from helm_scale.parallel import collectives, snapshot
from helm_scale.parallel.engine import Objective, StepResult, Sums
from helm_scale.parallel.mesh import Processes
from helm_scale.parallel.wrapping import Wrapped


class TorchEngine:
    """See engine.Engine."""

    def __init__(
        self,
        model: nn.Module,
        wrapped: Wrapped,
        objective: Objective,
        optimizers: Sequence[Optimizer],
        processes: Processes,
        clip_norm: float,
    ) -> None:
        self.rank, self.world_size, self._device = processes.rank, processes.world_size, processes.device
        self._model, self._wrapped, self._objective, self._optimizers = model, wrapped, objective, list(optimizers)
        self._clip_norm = clip_norm
        self._peak_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self._optimizers]

    def warm_up(self, empty: GraphBatch) -> None:
        """Run one backward pass that changes nothing, so that the first step runs like all others.

        DDP rearranges its buckets after the first backward pass of every start. From four ranks on that changes the order
        of sums, and a resumed run would differ from an uninterrupted one in the last bit.
        """
        self._objective(self._wrapped.module, empty.to(self._device)).total.backward()
        self._forget_gradients()

    def step(self, micro_batches: Sequence[GraphBatch], rate: float) -> StepResult:
        """See engine.Engine."""
        self._model.train()
        tally = _Tally(self._device)
        for number, batch in enumerate(micro_batches, start=1):
            with nullcontext() if number == len(micro_batches) else self._wrapped.accumulate():
                sums = self._objective(self._wrapped.module, batch.to(self._device))
                sums.total.backward()
            tally.add(sums, batch)
        total, count, molecules, pairs, metrics = tally.over_ranks()
        loss, slope = self._loss_and_slope(total, count)
        grad_norm = abs(slope) * float(collectives.norm(self._gradients()))
        stepped = math.isfinite(loss) and math.isfinite(grad_norm)
        if stepped:
            clipped = self._clip_norm / grad_norm if 0 < self._clip_norm < grad_norm else 1.0
            torch._foreach_mul_([collectives.local(gradient) for gradient in self._gradients()], slope * clipped)
            self._apply(rate)
        self._forget_gradients()
        suspects = () if stepped else tuple(key for keys in collectives.gather(tally.suspects) for key in keys)
        return StepResult(loss, grad_norm, metrics, molecules, pairs, suspects, stepped)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[GraphBatch]) -> dict[str, float]:
        """See engine.Engine."""
        self._model.eval()
        tally = _Tally(self._device)
        for batch in batches:
            tally.add(self._objective(self._wrapped.module, batch.to(self._device)), batch)
        self._wrapped.reshard()
        total, count, _, _, metrics = tally.over_ranks()
        return {"loss": float(self._objective.loss(total, count)), **metrics}

    def parameters(self) -> dict[str, Tensor]:
        """See engine.Engine."""
        return {name: parameter.detach() for name, parameter in self._model.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def full_state(self) -> dict[str, Tensor]:
        """See engine.Engine."""
        state = {}
        for name, tensor in self._model.state_dict().items():
            whole = collectives.whole(tensor)
            if self.rank == 0:
                state[name] = whole.to("cpu", copy=True)
        return state

    def save(self, folder: Path, extra: Mapping[str, Tensor]) -> None:
        """See engine.Engine."""
        snapshot.save(folder, self._model, self._optimizers, extra)

    def load(self, folder: Path, extra: Mapping[str, Tensor]) -> None:
        """See engine.Engine."""
        snapshot.load(folder, self._model, self._optimizers, extra)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]

    def _forget_gradients(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _loss_and_slope(self, total: Tensor, count: Tensor) -> tuple[float, float]:
        """L(S, N) and dL/dS."""
        total = total.detach().requires_grad_()
        loss = self._objective.loss(total, count)
        (slope,) = torch.autograd.grad(loss, total)
        return float(loss.detach()), float(slope)

    def _apply(self, rate: float) -> None:
        for optimizer, peaks in zip(self._optimizers, self._peak_rates, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate
            optimizer.step()


class _Tally:
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
        self._put("molecules", torch.tensor(float(batch.num_molecules)))
        self._put("pairs", torch.tensor(float(batch.pair_index.shape[1])))
        for name, (total, count) in sums.metrics.items():
            self._put(f"sum {name}", total)
            self._put(f"terms {name}", count)

    @property
    def suspects(self) -> tuple[str, ...]:
        """Molecules of the micro-batches whose sum is not finite."""
        return tuple(key for total, keys in self._totals if not bool(torch.isfinite(total)) for key in keys)

    def over_ranks(self) -> tuple[Tensor, Tensor, int, int, dict[str, float]]:
        """Global (total, count, molecules, pairs, means of metrics); a metric without terms is left out."""
        names = sorted(self._sums)
        summed = collectives.sum_over_ranks(torch.stack([self._sums[name] for name in names])).cpu()
        by_name = dict(zip(names, summed, strict=True))
        metrics = {
            name.removeprefix("sum "): float(by_name[name] / by_name[f"terms {name.removeprefix('sum ')}"])
            for name in names
            if name.startswith("sum ") and by_name[f"terms {name.removeprefix('sum ')}"] > 0
        }
        return by_name["total"], by_name["count"], int(by_name["molecules"]), int(by_name["pairs"]), metrics

    def _put(self, name: str, value: Tensor) -> None:
        value = value.detach().to(self._device, torch.float64)
        self._sums[name] = self._sums[name] + value if name in self._sums else value
