"""Evaluates both directions of HELM's edgewise operator F(a_i, a_j, s_ij) at once.

F(a_i, a_j) = E + O and F(a_j, a_i) = E - O, where E is even and O is odd under exchange of the two
atoms. Even and odd features are made from the sum and the difference of the atoms' states, and
irreps/so2.py puts both in rows on which every SO(2)-equivariant map that respects the exchange is
one real matrix per order. So a pair costs the products of one direction, and nothing has to be
symmetrised afterwards.

Axes: P pairs, R rows of a feature in the edge frame, C channels in, H hidden channels (half even,
half odd), n rows of one order in p or q.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from helm_scale.irreps.so2 import So2Layout
from helm_scale.model.radial import RadialMLP


class So2Linear(nn.Module):
    """SO(2)- and exchange-equivariant linear map of (even, odd) features, C_in each -> C_out each.

    The p rows of order 0 are invariant: they have a bias where wanted, and extra invariant outputs.
    """

    def __init__(
        self,
        layout: So2Layout,
        channels_in: int,
        channels_out: int,
        extra: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        p_even, p_odd, q_even, q_odd = layout.sizes[0]
        p = p_even + p_odd
        self.split_zero = (p * channels_out, extra)
        # One matrix mixes degrees as well as channels: in the edge frame they may mix per order.
        self.invariant = nn.Linear(p * channels_in, p * channels_out + extra, bias=bias)
        # The q rows of order 0, then for every m > 0 one matrix, which p and q share.
        rows = [q_even + q_odd, *(even + odd for even, odd, _, _ in layout.sizes[1:])]
        self.orders = nn.ModuleList(
            nn.Linear(n * channels_in, n * channels_out, bias=False) for n in rows
        )

    def forward(self, p_zero: Tensor, orders: list[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Map the rows of every order.

        Args:
            p_zero: p rows of order 0 [P, n*C_in].
            orders: its q rows [P, n*C_in], then p and q of every m > 0 [P, 2, n*C_in].
        Returns:
            The same with C_out, and the extra invariants [P, extra].
        """
        invariant, extra = self.invariant(p_zero).split(self.split_zero, dim=1)
        mapped = [linear(rows) for linear, rows in zip(self.orders, orders, strict=True)]
        return invariant, mapped, extra


class EdgewiseOperator(nn.Module):
    """Even and odd features of pairs from the sums and differences of their atoms' states.

    Inputs are multiplied per (m, l, channel) by radial weights from an MLP of the pair scalars; the
    first map also gives the gates of all degrees but the even l = 0, which passes a SiLU.
    """

    gate_of_row: Tensor

    def __init__(
        self,
        layout: So2Layout,
        channels_in: int,
        hidden: int,
        channels_out: int,
        scalars: int,
        edge_channels: int,
    ) -> None:
        super().__init__()
        self.layout, self.hidden = layout, hidden // 2
        self.rows_p = [even + odd for even, odd, _, _ in layout.sizes]
        self.rows_q = [even + odd for _, _, even, odd in layout.sizes]
        self.radial = RadialMLP(
            scalars, edge_channels, (self.rows_q[0] + sum(self.rows_p)) * channels_in
        )
        self.first = So2Linear(
            layout, channels_in, self.hidden, extra=(2 * layout.lmax + 1) * self.hidden
        )
        self.second = So2Linear(layout, self.hidden, channels_out, bias=False)
        self.channels_out = channels_out
        self.register_buffer("gate_of_row", _gate_of_row(layout), persistent=False)

    def forward(self, even_PRC: Tensor, odd_PRC: Tensor, scalars_PS: Tensor) -> list[Tensor]:
        """Features [P, R, C] in the edge frame and s_ij [P, S] -> parts [P, n, C_out].

        The parts are cut and ordered as So2Layout.split_sizes.
        """
        weights = self.radial(scalars_PS).unflatten(1, (-1, even_PRC.shape[-1]))
        hidden_p, hidden, gates = self.first(*self._weighted(even_PRC, odd_PRC, weights))
        gates = torch.sigmoid(gates).unflatten(1, (-1, self.hidden))
        out_p, out, _ = self.second(*self._gated(hidden_p, hidden, gates))
        orders = [x.flatten(1).unflatten(1, (-1, self.channels_out)) for x in [out_p, *out]]
        sizes = [self.layout.sizes[0][:2], self.layout.sizes[0][2:], *self.layout.sizes[1:]]
        return [part for x, cut in zip(orders, sizes, strict=True) for part in x.split(cut, dim=1)]

    def _weighted(self, even: Tensor, odd: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Join even and odd rows of every order and multiply by the radial weights.

        For m > 0 p and q share them.
        """
        sizes = self.layout.sizes
        e = even.split([size for p_even, _, q_even, _ in sizes for size in (p_even, q_even)], dim=1)
        o = odd.split([size for _, p_odd, _, q_odd in sizes for size in (p_odd, q_odd)], dim=1)
        w = weights.split([self.rows_p[0], self.rows_q[0], *self.rows_p[1:]], dim=1)
        p_zero = (torch.cat([e[0], o[0]], dim=1) * w[0]).flatten(1)
        orders = [(torch.cat([e[1], o[1]], dim=1) * w[1]).flatten(1)]
        for m in range(1, len(sizes)):
            p_and_q = torch.cat([e[2 * m], o[2 * m], e[2 * m + 1], o[2 * m + 1]], dim=1)
            orders.append((p_and_q.unflatten(1, (2, -1)) * w[m + 1].unsqueeze(1)).flatten(2))
        return p_zero, orders

    def _gated(
        self, p_zero: Tensor, orders: list[Tensor], gates_PGH: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """SiLU on the even scalars, a sigmoid gate per (parity, l, channel) on the rest."""
        g = gates_PGH.index_select(1, self.gate_of_row).split(
            [self.rows_p[0] - 1, self.rows_q[0], *self.rows_p[1:]], dim=1
        )
        # The first p row of order 0 is the even l = 0; all others are gated.
        scalar, gated_zero = p_zero.split([self.hidden, p_zero.shape[1] - self.hidden], dim=1)
        gated = [orders[0] * g[1].flatten(1)]
        gated += [
            rows * gate.flatten(1).unsqueeze(1)
            for rows, gate in zip(orders[1:], g[2:], strict=True)
        ]
        return torch.cat([nn.functional.silu(scalar), gated_zero * g[0].flatten(1)], dim=1), gated


def _gate_of_row(layout: So2Layout) -> Tensor:
    """Number of the gate of every gated row: one gate for each parity and degree.

    The rows are p of order 0 but the first, q of order 0, and p of every m > 0, whose q share them.
    """
    p_even, p_odd, q_even, q_odd = layout.orders[0]
    degrees = [(p_even, p_odd), (q_even, q_odd), *[order[:2] for order in layout.orders[1:]]]
    gates = [
        degree
        for even, odd in degrees
        for degree in [*even, *[layout.lmax + 1 + odd_degree for odd_degree in odd]]
    ]
    return torch.tensor(gates[1:]) - 1


def halves(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Even and odd features [P, R, C] from the parts (p even, p odd, q even, q odd, ...).

    Rows are those of So2Layout.even and .odd.
    """
    return torch.cat(list(parts[0::2]), dim=1), torch.cat(list(parts[1::2]), dim=1)
