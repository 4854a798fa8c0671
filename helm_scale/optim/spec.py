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
        kept_numbers: how many numbers it keeps beside a tensor of that shape.
        whole_states: it keeps those of a matrix whole on one rank, where others cut them.
        period: steps after which its work repeats.
    """

    make: Callable[[Sequence[FlatShard], TrainingConfig], Optimizer]
    matrices_only: bool = True
    kept_numbers: Callable[[Sequence[int], TrainingConfig], int]
    whole_states: bool = False
    period: Callable[[TrainingConfig], int] = lambda config: 1
