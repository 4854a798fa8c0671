"""What an optimiser is: how it is made, which parameters it takes, and what it keeps of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.optim import Optimizer

from helm_scale.config import TrainingConfig
from helm_scale.parallel.flat_shards import FlatShard


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """An optimiser. Whoever needs to know what it does asks these fields, never its name.

    Attributes:
        make: optimiser of shards, by the settings of a run.
        matrices_only: it takes the matrices between hidden features, and AdamW the rest.
        moments: tensors of the size of a weight that it keeps beside it.
    """

    make: Callable[[Sequence[FlatShard], TrainingConfig], Optimizer]
    matrices_only: bool = True
    moments: int
