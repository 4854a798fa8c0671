"""The parallel model of torch's own wrappers: shards share memory with the parameters."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from helm_scale.parallel import flat_shards
from helm_scale.parallel.flat_shards import FlatShard


@dataclass(frozen=True, kw_only=True)
class TorchModel:
    """See spec.ParallelModel.

    Attributes:
        model: inside `module`.
        accumulate: encloses passes whose gradients do not travel.
        reshard: frees gathered weights.
    """

    module: nn.Module
    model: nn.Module
    shards: Mapping[str, FlatShard]
    shard_rank: int = 0
    accumulate: Callable[[], AbstractContextManager[None]] = nullcontext
    reshard: Callable[[], None] = lambda: None

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        """See spec.ParallelModel."""
        return nullcontext() if last else self.accumulate()

    def backward(self, total: Tensor) -> None:
        """See spec.ParallelModel."""
        total.backward()

    def update(self, apply: Callable[[], None]) -> None:
        """See spec.ParallelModel."""
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                gradient = parameter.grad
                local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
                # The shard, a parameter on the same memory, takes the gradient over.
                self.shards[name].local.grad = local.reshape(-1)
                parameter.grad = None
        apply()
        for shard in self.shards.values():
            shard.local.grad = None

    def sync_parameters(self) -> None:
        """See spec.ParallelModel."""

    def running_weights(self) -> list[Tensor]:
        """See spec.ParallelModel."""
        return [shard.local for shard in self.shards.values()]


def shards_of(model: nn.Module, replica: int, replicas: int) -> dict[str, FlatShard]:
    """Shards of parameters and persistent buffers; what is not sharded lies on all ranks."""
    # keep_vars: parameters themselves, which tell whether they are trained.
    return {
        name: flat_shards.from_dtensor(tensor)
        if isinstance(tensor, DTensor)
        else flat_shards.from_replicated(tensor, replica, replicas)
        for name, tensor in model.state_dict(keep_vars=True).items()
    }
