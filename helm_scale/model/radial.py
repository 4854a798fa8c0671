"""Scalars of an edge: Gaussians of its length, element embeddings, a smooth cutoff.

Axes: E edges, G Gaussians, C channels.
"""

import torch
from torch import Tensor, nn


def envelope(distance: Tensor, cutoff: float) -> Tensor:
    """Polynomial 1 - 28 x^6 + 48 x^7 - 21 x^8 of x = distance/cutoff.

    Its value and two derivatives vanish at the cutoff.
    """
    # The DimeNet polynomial (arXiv:2003.03123) for p = 6. Clamped: it rises again beyond x = 1.
    x = (distance / cutoff).clamp(max=1.0)
    return 1 - x**6 * (28 - 48 * x + 21 * x * x)


class GaussianBasis(nn.Module):
    """exp(-((r - c_g)/w)^2 / 2): centres c_g up to the cutoff, w twice their spacing, Angstrom."""

    def __init__(self, cutoff: float, count: int) -> None:
        super().__init__()
        self.spacing = cutoff / (count - 1)  # the last centre lies on the cutoff
        self.count = count

    def forward(self, distance: Tensor) -> Tensor:
        """[E] Angstrom -> [E, G]."""
        centres = (
            torch.arange(self.count, device=distance.device, dtype=distance.dtype) * self.spacing
        )
        return torch.exp(-0.5 * ((distance.unsqueeze(-1) - centres) / (2 * self.spacing)) ** 2)


class PairScalars(nn.Module):
    """s_ij = s_ji: sum and product of element embeddings, and Gaussians of the length between them.

    The paper (HELM, arXiv:2510.00224) joins the embeddings of source and target; here the direction
    is left to the features, so that one evaluation serves both.
    """

    def __init__(self, num_elements: int, channels: int, cutoff: float, count: int) -> None:
        super().__init__()
        self.sum = nn.Embedding(num_elements, channels)
        self.product = nn.Embedding(num_elements, channels)
        self.basis = GaussianBasis(cutoff, count)
        self.width = 2 * channels + count

    def forward(self, first_number: Tensor, second_number: Tensor, distance: Tensor) -> Tensor:
        """Atomic numbers [E] and distances [E] (Angstrom) -> [E, 2C+G]."""
        # Distances are float64: the cutoff stays smooth whatever the dtype of the weights.
        gaussians = self.basis(distance).to(self.sum.weight.dtype)
        total = self.sum(first_number) + self.sum(second_number)
        product = self.product(first_number) * self.product(second_number)
        return torch.cat([total, gaussians, product], dim=-1)


class RadialMLP(nn.Sequential):
    """Linear, LayerNorm, SiLU, Linear, LayerNorm, SiLU, Linear."""

    def __init__(self, width_in: int, hidden: int, width_out: int) -> None:
        first = (nn.Linear(width_in, hidden), nn.LayerNorm(hidden), nn.SiLU())
        second = (nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.SiLU())
        super().__init__(*first, *second, nn.Linear(hidden, width_out))
