# ruff: noqa: E741 - l is the degree, as in the paper
"""The whole network in plain loops: slow, dense, padded; it shares only weights with the model.

Read it as the definition of the model, one molecule and one directed edge at a time. Each edge is
turned by a dense Wigner matrix, each head fills a padded matrix of 64 x 64 orbitals, and constants
are numbers. `p` is always a dict of weights: `part(p, "trunk")` has those whose names begin with
"trunk.". The formulas are those of HELM (arXiv:2510.00224), but for what docs/model.md says: smooth
cutoffs, symmetric edge scalars, and states that are even or odd under exchange of two atoms.

A state is x[s, k, c]. An atom's state has one s, a pair's state has two: x[0] is even and x[1] odd
when the two atoms change places. k = l*l + l + m is degree l, order m.

Axes: S parities, K = (lmax+1)^2 coefficients, C channels.
"""

from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from tests.model.naive_layers import (
    Weights,
    clebsch_gordan,
    degree,
    degree_linear,
    envelope,
    feed_forward,
    gated,
    linear,
    lmax_of,
    mlp,
    norm,
    part,
    parts_of,
    rotation_onto_z,
    sigmoid,
    silu,
    wigner,
)

Slot = tuple[int, int]

# The n-th shell of degree l takes slot (l, n): 7 s, 6 p, 5 d, 2 f hold any element of def2-TZVPD.
SLOTS = [(l, n) for l, count in enumerate((7, 6, 5, 2)) for n in range(count)]
SHELLS = {1: (3, 2, 0, 0), 6: (6, 3, 3, 1), 8: (6, 4, 3, 1), 53: (7, 6, 4, 2)}  # s, p, d, f


# --- the edgewise operator F(a_i, a_j, s_ij) ---


class Edge(NamedTuple):
    """i -> j: distance (Angstrom), Wigner matrix that puts r_j - r_i on z, scalars."""

    i: int
    j: int
    r: float
    D: np.ndarray
    s: np.ndarray


def edge_scalars(
    z_i: int, z_j: int, r: float, p: Weights, *, cutoff: float, count: int
) -> np.ndarray:
    """s_ij = (a(Z_i) + a(Z_j), exp(-((r - c_g) / w)^2 / 2), b(Z_i) b(Z_j)).

    The centres c_g go from 0 to the cutoff; w is twice their spacing.
    """
    spacing = cutoff / (count - 1)
    gaussians = [np.exp(-(((r - g * spacing) / (2 * spacing)) ** 2) / 2) for g in range(count)]
    a, b = p["sum.weight"], p["product.weight"]
    return np.concatenate([a[z_i] + a[z_j], gaussians, b[z_i] * b[z_j]])


def orders(lmax: int, mmax: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """Parts that an SO(2) map mixes: [(m, [(s, l), ...]), ...].

    They are all that have the order m. For m = 0 there are two sets that do not mix: parts that are
    the same when the atoms change places, s + l even, and parts that change sign, s + l odd.
    """
    parts = [(s, l) for s in (0, 1) for l in range(lmax + 1)]
    zero = [(0, [(s, l) for s, l in parts if (s + l) % 2 == change]) for change in (0, 1)]
    return zero + [(m, [(s, l) for s, l in parts if l >= m]) for m in range(1, mmax + 1)]


def phase(s: int, l: int, m: int) -> complex:
    """Makes the exchange of two atoms the complex conjugation of c = phase * (x_m + i x_-m).

    The exchange turns the edge by 180 degrees about an axis across it and changes the sign of odd
    parts. Linear maps that commute with turns about the edge are complex matrices on c; those that
    also commute with the exchange are real.
    """
    turned = 1 if (l + m) % 2 == 0 else 1j if m == 0 else -1j
    return turned * (-1j) ** s


def to_complex(x: np.ndarray, m: int, parts: list[tuple[int, int]]) -> np.ndarray:
    """c [parts, C] of order m; for m = 0 real in the first set of parts, else imaginary."""
    c = []
    for s, l in parts:
        plus, minus = x[s, l * l + l + m], x[s, l * l + l - m]
        c.append(phase(s, l, m) * (plus + 1j * minus if m > 0 else plus))
    return np.array(c)


def from_complex(c: list[np.ndarray], lmax: int, mmax: int) -> np.ndarray:
    """State [2, K, C] from the c of every set of `orders`; rows with |m| > mmax are zero."""
    x = np.zeros((2, (lmax + 1) ** 2, c[0].shape[1]))
    for (m, parts), c_m in zip(orders(lmax, mmax), c, strict=True):
        for (s, l), value in zip(parts, c_m, strict=True):
            x_m = value / phase(s, l, m)
            x[s, l * l + l - m] = x_m.imag
            x[s, l * l + l + m] = x_m.real  # for m = 0 this is the same row, and real
    return x


def so2_linear(x: np.ndarray, p: Weights, mmax: int, extra: int) -> tuple[np.ndarray, np.ndarray]:
    """c -> W_m c with real W_m; the first set of m = 0 also has a bias and `extra` outputs."""
    sets = orders(lmax_of(x), mmax)
    c = [to_complex(x, m, parts).ravel() for m, parts in sets]
    invariant = p["invariant.weight"] @ c[0].real + p.get("invariant.bias", 0)
    count = len(invariant) - extra
    mapped = [invariant[:count], *(p[f"orders.{n}.weight"] @ c_m for n, c_m in enumerate(c[1:]))]
    shaped = [y.reshape(len(parts), -1) for y, (_, parts) in zip(mapped, sets, strict=True)]
    return from_complex(shaped, lmax_of(x), mmax), invariant[count:]


def edgewise(y_i: np.ndarray, y_j: np.ndarray, edge: Edge, p: Weights, mmax: int) -> np.ndarray:
    """F(y_i, y_j, s_ij) in the edge's frame as its even and odd part [2, K, C]: F = x[0] + x[1].

    Sum and difference of both states turned by D; times radial weights per (|m|, s, l, c); SO(2)
    map with the gates as extra outputs; gate; SO(2) map.
    """
    x = edge.D @ np.concatenate([y_i + y_j, y_i - y_j])
    radial = mlp(edge.s, part(p, "radial")).reshape(-1, x.shape[2])
    weighted = np.zeros_like(x)
    n = 0
    for m, parts in orders(lmax_of(x), mmax):
        for s, l in parts:
            for k in {l * l + l + m, l * l + l - m}:
                weighted[s, k] = radial[n] * x[s, k]
            n += 1
    hidden_channels = p["second.invariant.weight"].shape[1] // (lmax_of(x) + 1)
    gate_count = (len(parts_of(x)) - 1) * hidden_channels
    hidden, gates = so2_linear(weighted, part(p, "first"), mmax, gate_count)
    return so2_linear(gated(hidden, gates), part(p, "second"), mmax, 0)[0]


# --- node trunk ---


def directed_edges(molecule: Any, cutoff: float, p: Weights, config: Any) -> list[Edge]:
    """All i -> j within the cutoff."""
    x, z, count = molecule.positions, molecule.atomic_numbers, config.radial_functions
    edges = []
    for i in range(len(z)):
        for j in range(len(z)):
            r = float(np.linalg.norm(x[j] - x[i]))
            if i != j and r < cutoff:
                D = wigner(rotation_onto_z(x[j] - x[i]), config.lmax)
                s = edge_scalars(z[i], z[j], r, p, cutoff=cutoff, count=count)
                edges.append(Edge(i=i, j=j, r=r, D=D, s=s))
    return edges


def axial(values: np.ndarray, lmax: int) -> np.ndarray:
    """State with values in the rows that no turn about the edge and no exchange changes."""
    _, parts = orders(lmax, 0)[0]
    x = np.zeros((2, (lmax + 1) ** 2, len(values) // len(parts)))
    for (s, l), value in zip(parts, values.reshape(len(parts), -1), strict=True):
        x[s, l * l + l] = value
    return x


def node_states(molecule: Any, p: Weights, config: Any) -> list[np.ndarray]:
    """States [N, 1, K, C] after every layer, normalised.

    y_j,00 = element + charge + spin embedding
    y_j += sum_i D^-1 MLP(s_ij)_(m=0) / 5
    for every layer:  y_j += sum_i D^-1 F(norm(y_i), norm(y_j), s_ij);  y_j += FFN(norm(y_j))

    All sums are over i within the cutoff and weighted by the envelope.
    """
    cutoff = config.trunk_cutoff
    edges = directed_edges(molecule, cutoff, part(p, "edge_scalars"), config)
    y = np.zeros((len(molecule.atomic_numbers), 1, (config.lmax + 1) ** 2, config.channels))
    y[:, 0, 0] = p["element.weight"][molecule.atomic_numbers]
    y[:, 0, 0] += p["charge.weight"][config.max_charge + molecule.charge]
    y[:, 0, 0] += p["spin.weight"][molecule.spin_multiplicity]
    for edge in edges:
        start = axial(mlp(edge.s, part(p, "edge_degree")), config.lmax).sum(axis=0)
        y[edge.j] += envelope(edge.r, cutoff) * (edge.D.T @ start) / 5.0
    states = []
    for n in range(config.num_layers):
        layer = part(p, f"layers.{n}")
        normed = [norm(y_j, part(layer, "norm_messages")) for y_j in y]
        for edge in edges:
            y_i, y_j = normed[edge.i], normed[edge.j]
            message = edgewise(y_i, y_j, edge, part(layer, "messages"), mmax=config.mmax)
            y[edge.j] += envelope(edge.r, cutoff) * (edge.D.T @ message.sum(axis=0))
        for y_j in y:
            y_j += feed_forward(norm(y_j, part(layer, "norm_update")), part(layer, "update"))
        states.append(np.array([norm(y_j, part(p, "norm")) for y_j in y]))
    return states


# --- pair tower ---


def pair_state(edge: Edge, states: list[np.ndarray], p: Weights, config: Any) -> np.ndarray:
    """State [2, K, C] of the directed pair i -> j, in the molecule's frame.

    z = MLP(s_ij)_(m=0)
    for every layer:  z += norm(F'(y_i, y_j, s_ij));  z += FFN'(norm(z))
    with two stages:  z = z envelope + D product(y_i, y_j, s_ij);  z += FFN''(z)
    D^-1 norm(z) is the result; F' has all orders m.
    """
    z = axial(mlp(edge.s, part(p, "start")), config.lmax)
    for n in range(config.pair_layers):
        layer, y = part(p, f"layers.{n}"), states[n if config.pair_inputs == "each" else -1]
        update = edgewise(y[edge.i], y[edge.j], edge, part(layer, "operator"), mmax=config.lmax)
        z = z + norm(update, part(layer, "norm_operator"))
        z = z + feed_forward(norm(z, part(layer, "norm_update")), part(layer, "update"))
    if config.tensor_product_stage:
        y = states[-1]
        far = pair_product(y[edge.i], y[edge.j], edge.s, part(p, "product"))
        z = z * envelope(edge.r, config.stage_cutoff) + edge.D @ far
        z = z + feed_forward(z, part(p, "merge"))
    return edge.D.T @ norm(z, part(p, "norm"))


def pair_product(y_i: np.ndarray, y_j: np.ndarray, s_ij: np.ndarray, p: Weights) -> np.ndarray:
    """norm(u + v, u - v) with u = product of A y_i and B y_j, v = product of A y_j and B y_i.

    The second stage of QHFlow2 (arXiv:2602.16897).
    """
    left, right, weights = part(p, "left"), part(p, "right"), mlp(s_ij, part(p, "weights"))
    u = tensor_product(degree_linear(y_i, left), degree_linear(y_j, right), weights)
    v = tensor_product(degree_linear(y_j, left), degree_linear(y_i, right), weights)
    return norm(np.concatenate([u + v, u - v]), part(p, "norm"))


def tensor_product(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum over (l1, l2, L) of w[l1, l2, L, c] CG(a_l1, b_l2), channel by channel: [1, K, C]."""
    lmax, total = lmax_of(a), np.zeros_like(a)
    paths = iter(weights.reshape(-1, a.shape[2]))
    for l1 in range(lmax + 1):
        for l2 in range(lmax + 1):
            outer = np.einsum("pc,qc->pqc", a[0, degree(l1)], b[0, degree(l2)])
            for L in range(abs(l1 - l2), min(l1 + l2, lmax) + 1):
                coupled = np.einsum("pqM,pqc->Mc", clebsch_gordan(l1, l2, L), outer)
                total[0, degree(L)] += next(paths) * coupled
    return total


# --- Hamiltonian head ---


def orbitals(slot: Slot) -> slice:
    """Where the shell of a slot lies among the 64 orbitals."""
    start = sum(2 * l + 1 for l, n in SLOTS if (l, n) < slot)
    return slice(start, start + 2 * slot[0] + 1)


def has(z: int, slot: Slot) -> bool:
    """Whether an element has a shell there."""
    return slot[1] < SHELLS[z][slot[0]]


@cache
def head_rows(onsite: bool) -> dict[tuple[int, Slot, Slot], int]:
    """Row of (L, a, b) in the head's weights of degree L: pairs in order, on-site those a <= b."""
    rows: dict[tuple[int, Slot, Slot], int] = {}
    count = [0] * 7
    for a, b in product(SLOTS, SLOTS):
        if a <= b or not onsite:
            for L in range(abs(a[0] - b[0]), a[0] + b[0] + 1):
                rows[L, a, b] = count[L]
                count[L] += 1
    return rows


def head_features(x: np.ndarray, p: Weights) -> np.ndarray:
    """x + SiLU(g) of the part (0, 0), which gives all g; x sigmoid(g) of every other (s, l, c)."""
    g = linear(x[0, 0], part(p, "gate")).reshape(lmax_of(x) + 1, len(x), x.shape[2])
    y = x.copy()
    y[0, 0] += silu(g[0, 0])
    for s, l in parts_of(x)[1:]:
        y[s, degree(l)] *= sigmoid(g[l, s])
    return y


def offsite_block(z: np.ndarray, p: Weights) -> np.ndarray:
    """Padded block [64, 64] of i -> j: H_ab = sum_L CG^L_ab h^L / sqrt(2), h^L = sum_s w_s z_s^L.

    A block has h^L(a, b) = (-1)^(l_a + l_b + L) h^L(b, a) of the transposed one. So with that sign
    rows of (a, b) and (b, a) are made symmetric for the even part and antisymmetric for the odd.
    The head's h has the norm of both blocks together, hence sqrt(2).
    """
    x, block, rows = head_features(z, p), np.zeros((64, 64)), head_rows(onsite=False)
    for (L, a, b), row in rows.items():
        sign = (-1) ** (a[0] + b[0] + L)
        even, odd = np.split(p[f"weights.{L}"][row], 2)
        even_ba, odd_ba = np.split(p[f"weights.{L}"][rows[L, b, a]], 2)
        h = x[0, degree(L)] @ (even + sign * even_ba) / 2
        h += x[1, degree(L)] @ (odd - sign * odd_ba) / 2
        block[orbitals(a), orbitals(b)] += clebsch_gordan(a[0], b[0], L) @ h / np.sqrt(2)
    return block


def onsite_block(y: np.ndarray, p: Weights, parity: str) -> np.ndarray:
    """Padded symmetric block [64, 64] of an atom: H_ab = sum_L CG^L_ab h^L for a <= b.

    A shell with itself has even L only; under "semilocal" any two have even l_a + l_b + L only.
    """
    x, block = head_features(y, p), np.zeros((64, 64))
    for (L, a, b), row in head_rows(onsite=True).items():
        odd = (a[0] + b[0] + L) % 2 == 1
        if not (odd and (a == b or parity == "semilocal")):
            h = x[0, degree(L)] @ p[f"weights.{L}"][row]
            add_symmetric(block, a, b, clebsch_gordan(a[0], b[0], L) @ h)
    return block


def add_symmetric(block: np.ndarray, a: Slot, b: Slot, values: np.ndarray) -> None:
    """Add what couples to two shells: to their own block, or to two, which then share the norm."""
    scale = 1 if a == b else np.sqrt(2)
    block[orbitals(a), orbitals(b)] += values / scale
    if a != b:
        block[orbitals(b), orbitals(a)] += values.T / scale


def reference_block(z: int, reference: np.ndarray) -> np.ndarray:
    """Padded block of an element's mean h^0, listed for the pairs of shells a <= b that it has."""
    block = np.zeros((64, 64))
    own = [slot for slot in SLOTS if has(z, slot)]
    pairs = [(a, b) for a, b in product(own, own) if a <= b and a[0] == b[0]]
    for (a, b), mean in zip(pairs, reference[z], strict=False):  # as wide as the widest element
        add_symmetric(block, a, b, clebsch_gordan(a[0], b[0], 0)[:, :, 0] * mean)
    return block


# --- whole models ---


def hamiltonian(molecule: Any, p: Weights, config: Any) -> np.ndarray:
    """H [nao, nao], Hartree: scale * heads, and the reference; zero beyond the pair cutoff."""
    numbers, states = molecule.atomic_numbers, node_states(molecule, part(p, "trunk"), config)
    tower, head = part(p, "pairs.tower"), part(p, "pairs.head")
    padded = np.zeros((len(numbers), 64, len(numbers), 64))
    for i, z in enumerate(numbers):
        block = onsite_block(states[-1][i], part(p, "onsite_head"), config.parity)
        padded[i, :, i] = p["output_scale"] * block + reference_block(z, p["reference"])
    for edge in directed_edges(molecule, config.pair_cutoff, part(tower, "edge_scalars"), config):
        block = offsite_block(pair_state(edge, states, tower, config), head)
        smooth = envelope(edge.r, config.pair_cutoff)
        padded[edge.i, :, edge.j] = p["output_scale"] * smooth * block
    mask = [has(z, (l, n)) for z in numbers for l, n in SLOTS for _ in range(2 * l + 1)]
    return padded.reshape(len(mask), len(mask))[mask][:, mask]


def energy(molecule: Any, p: Weights, config: Any, head: Any) -> float:
    """E = sum_i scale * w^T x_i + reference[Z_i], Hartree.

    x_i: the part (0, 0) of the node states that are read, and with "norms" the mean squares over m
    of every degree and channel.
    """
    states = node_states(molecule, part(p, "trunk"), config)
    total = 0.0
    for i, z in enumerate(molecule.atomic_numbers):
        x = []
        for state in states if head.reads == "each" else states[-1:]:
            x.append(state[i, 0, 0])
            if head.invariants == "norms":
                x += [(state[i, 0, degree(l)] ** 2).mean(axis=0) for l in range(config.lmax + 1)]
        total += p["output_scale"] * (p["head.linear.weight"][0] @ np.concatenate(x))
        total += p["reference"][z]
    return total
