"""Degree-wise layers on spherical-harmonic coefficients: linear map, RMS norm, gated feed-forward.

They treat all orders m of a degree alike, so they act the same in any frame and any row order: each
is built with the degree of every row. Where a state has even and odd halves (irreps/so2.py), an odd
degree l counts as degree lmax+1+l.

Axes: N atoms or edges, K rows (coefficients), C channels.
"""

import torch
from torch import Tensor, nn


class DegreeLinear(nn.Module):
    """One linear map per degree; a bias for degree 0 only, which alone is invariant."""

    degree: Tensor

    def __init__(self, degree_of_row: Tensor, channels_in: int, channels_out: int) -> None:
        super().__init__()
        # A buffer follows the model to its device; not persistent, as it follows from the config.
        self.register_buffer("degree", degree_of_row, persistent=False)
        bound = channels_in**-0.5  # as nn.Linear
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(channels_out, channels_in).uniform_(-bound, bound))
            for _ in range(int(degree_of_row.max()) + 1)
        )
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x_NKC: Tensor) -> Tensor:
        """[N, K, C_in] -> [N, K, C_out]."""
        # One batched product over all rows, each with the weight of its degree.
        weight_KOC = torch.stack(list(self.weights)).index_select(0, self.degree)
        y = torch.bmm(x_NKC.transpose(0, 1), weight_KOC.mT).transpose(0, 1)
        scalar, higher = y.split([1, y.shape[1] - 1], dim=1)
        return torch.cat([scalar + self.bias, higher], dim=1)


class DegreeNorm(nn.Module):
    """RMS norm over all coefficients, every degree with equal weight.

    Affine per (l, channel); of l = 0 the mean over channels is taken off first.
    """

    degree: Tensor
    balance: Tensor

    def __init__(self, degree_of_row: Tensor, channels: int) -> None:
        super().__init__()
        degrees = int(degree_of_row.max()) + 1
        rows_of_degree = torch.bincount(degree_of_row, minlength=degrees)
        self.register_buffer("degree", degree_of_row, persistent=False)
        # A degree has 2l+1 rows; without this weight the high ones would drown the scalars.
        balance = 1.0 / (degrees * rows_of_degree[degree_of_row]).double()
        self.register_buffer("balance", balance, persistent=False)
        self.weight = nn.Parameter(torch.ones(degrees, channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_NKC: Tensor) -> Tensor:
        """[N, K, C] -> [N, K, C] with unit root mean square before the affine map."""
        # Only scalars have a mean over channels that is the same in every frame.
        scalar, higher = x_NKC.split([1, x_NKC.shape[1] - 1], dim=1)
        centred = torch.cat([scalar - scalar.mean(dim=-1, keepdim=True), higher], dim=1)
        total = torch.einsum("nkc,k->n", centred.square(), self.balance.to(centred))
        square = total / centred.shape[-1]
        weight = self.weight.index_select(0, self.degree)
        scale = torch.rsqrt(square + 1e-12)[:, None, None] * weight
        scalar, higher = (centred * scale).split([1, x_NKC.shape[1] - 1], dim=1)
        return torch.cat([scalar + self.bias, higher], dim=1)


class FeedForward(nn.Module):
    """Degree-wise linear, gated by scalars, degree-wise linear."""

    gate_of_row: Tensor

    def __init__(self, degree_of_row: Tensor, channels: int, hidden: int) -> None:
        super().__init__()
        degrees = int(degree_of_row.max()) + 1
        self.register_buffer("gate_of_row", degree_of_row[1:] - 1, persistent=False)
        self.gates = nn.Linear(channels, (degrees - 1) * hidden)
        self.first = DegreeLinear(degree_of_row, channels, hidden)
        self.second = DegreeLinear(degree_of_row, hidden, channels)

    def forward(self, x_NKC: Tensor) -> Tensor:
        """[N, K, C] -> [N, K, C]; row 0 is degree 0."""
        hidden = self.first(x_NKC)
        scalar, higher = hidden.split([1, hidden.shape[1] - 1], dim=1)
        # Only scalars may pass a nonlinearity: it would not turn with the molecule otherwise.
        gates = torch.sigmoid(self.gates(x_NKC[:, 0])).unflatten(-1, (-1, hidden.shape[-1]))
        gated = higher * gates.index_select(1, self.gate_of_row)
        return self.second(torch.cat([nn.functional.silu(scalar), gated], dim=1))
