"""The edgewise operator F(a_i, a_j, s_ij): SO(2) convolution, gate, SO(2) convolution, all in the edge frame.

For order m > 0, with u the +m and v the -m coefficients: u' = W_r u - W_i v, v' = W_r v + W_i u, one real block product
per m. Rows are m-major (irreps/so2.py), so a layer cuts them into contiguous pieces once and joins them once.

Axes: E edges, R rows of the edge frame, C channels, n = lmax-m+1 degrees of order m.
"""

import torch
from torch import Tensor, nn

from helm_scale.irreps.so2 import So2Layout
from helm_scale.model.radial import RadialMLP


class So2Convolution(nn.Module):
    """SO(2)-equivariant linear map C_in -> C_out per order m, with extra m = 0 outputs."""

    def __init__(self, layout: So2Layout, channels_in: int, channels_out: int, extra: int = 0) -> None:
        super().__init__()
        self.channels_out, self.extra = channels_out, extra
        degrees = [layout.lmax - m + 1 for m in range(layout.mmax + 1)]
        self.zero = nn.Linear(degrees[0] * channels_in, degrees[0] * channels_out + extra)
        self.real, self.imaginary = nn.ParameterList(), nn.ParameterList()
        for n in degrees[1:]:
            bound = (2 * n * channels_in) ** -0.5
            for weights in (self.real, self.imaginary):
                weights.append(nn.Parameter(torch.empty(n * channels_out, n * channels_in).uniform_(-bound, bound)))

    def forward(self, orders: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Pieces per order, [E, n, C_in] for m = 0 and [E, 2n, C_in] else -> the same with C_out, and extras [E, extra]."""
        scalars = self.zero(orders[0].flatten(1))
        scalars, extra = scalars.split([scalars.shape[1] - self.extra, self.extra], dim=1)
        outputs = [scalars.unflatten(1, (-1, self.channels_out))]
        for piece, real, imaginary in zip(orders[1:], self.real, self.imaginary, strict=True):
            block = torch.cat([torch.cat([real, -imaginary], dim=1), torch.cat([imaginary, real], dim=1)])
            outputs.append((piece.flatten(1) @ block.T).unflatten(1, (-1, self.channels_out)))
        return outputs, extra


class EdgewiseOperator(nn.Module):
    """F(a_i, a_j, s_ij) of HELM (arXiv:2510.00224), without the rotations.

    Inputs are multiplied per (m, l, channel) by radial weights from an MLP of the edge scalars; the first convolution
    also gives the gates of the degrees l > 0.
    """

    def __init__(self, layout: So2Layout, channels: int, hidden: int, scalars: int, edge_channels: int) -> None:
        super().__init__()
        self.layout, self.hidden = layout, hidden
        self.degrees = [layout.lmax - m + 1 for m in range(layout.mmax + 1)]
        self.radial = RadialMLP(scalars, edge_channels, sum(self.degrees) * 2 * channels)
        self.first = So2Convolution(layout, 2 * channels, hidden, extra=layout.lmax * hidden)
        self.second = So2Convolution(layout, hidden, channels)

    def forward(self, x_ERC: Tensor, scalars_ES: Tensor) -> Tensor:
        """Concatenated source and target features [E, R, 2C] in the edge frame and s_ij [E, S] -> [E, R, C]."""
        weights = self.radial(scalars_ES).unflatten(1, (-1, x_ERC.shape[-1])).split(self.degrees, dim=1)
        pieces = x_ERC.split(self.layout.sizes, dim=1)
        weighted = [pieces[0] * weights[0]] + [_twice(piece, weight) for piece, weight in zip(pieces[1:], weights[1:], strict=True)]
        hidden, gates = self.first(weighted)
        outputs, _ = self.second(self._gate(hidden, gates))
        return torch.cat(outputs, dim=1)

    def _gate(self, hidden: list[Tensor], gates: Tensor) -> list[Tensor]:
        """SiLU on degree 0, a sigmoid gate per (l, channel) on the rest."""
        gate = torch.sigmoid(gates).unflatten(1, (-1, self.hidden))
        scalar, rest = hidden[0].split([1, self.layout.lmax], dim=1)
        gated = [torch.cat([nn.functional.silu(scalar), rest * gate], dim=1)]
        for m, piece in enumerate(hidden[1:], start=1):
            gated.append(_twice(piece, gate.split([m - 1, self.layout.lmax - m + 1], dim=1)[1]))
        return gated


def _twice(piece: Tensor, factor: Tensor) -> Tensor:
    """Multiply the +m and the -m half of a piece [E, 2n, C] by the same factor [E, n, C]."""
    return (piece.unflatten(1, (2, -1)) * factor.unsqueeze(1)).flatten(1, 2)
