"""Describes this process among all that train together."""

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among all.

    Attributes:
        rank, world_size, device: its own.
        store: key-value store that the ranks share, if there are several.
        pair_world_size: ranks that share the same molecules, rank by rank.
        pair_group: the process group of those that share this rank's molecules.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device
    store: dist.Store | None = None
    pair_world_size: int = 1
    pair_group: dist.ProcessGroup | None = None

    @property
    def pair_rank(self) -> int:
        """Which part of its molecules' edges and pairs this rank works on."""
        # Consecutive ranks share molecules: they lie on one node, and sum after every layer.
        return self.rank % self.pair_world_size

    @property
    def data_rank(self) -> int:
        """Number of this rank's molecules among data_size."""
        return self.rank // self.pair_world_size

    @property
    def data_size(self) -> int:
        """Ranks, or groups of them, that hold different molecules."""
        return self.world_size // self.pair_world_size
