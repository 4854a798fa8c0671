# ruff: noqa: E741 - l is the degree, as in the paper
"""Functions, rotations and degree-wise layers of the naive reference (naive_reference.py).

Axes: S parities, K = (lmax+1)^2 coefficients, C channels.
"""

from functools import cache

import numpy as np
import torch
from e3nn import o3

Weights = dict[str, np.ndarray]


def part(p: Weights, prefix: str) -> Weights:
    """Weights of one submodule."""
    start = prefix + "."
    return {name.removeprefix(start): w for name, w in p.items() if name.startswith(start)}


# --- elementary functions ---


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def silu(x: np.ndarray) -> np.ndarray:
    """x / (1 + exp(-x))."""
    return x * sigmoid(x)


def linear(x: np.ndarray, p: Weights) -> np.ndarray:
    """W x + b."""
    return p["weight"] @ x + p["bias"]


def layer_norm(x: np.ndarray, p: Weights) -> np.ndarray:
    """(x - mean) / deviation, then an affine map."""
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p["weight"] + p["bias"]


def mlp(x: np.ndarray, p: Weights) -> np.ndarray:
    """Linear, LayerNorm, SiLU, Linear, LayerNorm, SiLU, Linear."""
    x = silu(layer_norm(linear(x, part(p, "0")), part(p, "1")))
    x = silu(layer_norm(linear(x, part(p, "3")), part(p, "4")))
    return linear(x, part(p, "6"))


def envelope(r: float, cutoff: float) -> float:
    """1 - 28 x^6 + 48 x^7 - 21 x^8 with x = r / cutoff, and zero beyond the cutoff."""
    x = r / cutoff
    return 1 - 28 * x**6 + 48 * x**7 - 21 * x**8 if x < 1 else 0.0


# --- degrees and rotations ---


def degree(l: int) -> slice:
    """Rows k of degree l."""
    return slice(l * l, (l + 1) ** 2)


def lmax_of(x: np.ndarray) -> int:
    """Highest degree of a state [S, K, C]."""
    return round(x.shape[1] ** 0.5) - 1


def parts_of(x: np.ndarray) -> list[tuple[int, int]]:
    """(s, l) of every part of a state, in the order of its weights; (0, 0) is invariant."""
    return [(s, l) for s in range(len(x)) for l in range(lmax_of(x) + 1)]


def harmonics(points: np.ndarray, l: int) -> np.ndarray:
    """Real spherical harmonics of degree l, polar axis z; e3nn's is y, so it is given (y, z, x)."""
    x, y, z = points.T
    cycled = torch.from_numpy(np.stack([y, z, x], axis=1))
    return o3.spherical_harmonics(l, cycled, normalize=True).numpy()


def wigner(rotation: np.ndarray, lmax: int) -> np.ndarray:
    """Dense [K, K] matrix D that turns harmonics, Y(R x) = D Y(x), fitted at some points."""
    points = np.random.default_rng(0).normal(size=(100, 3))
    D = np.zeros(((lmax + 1) ** 2, (lmax + 1) ** 2))
    for l in range(lmax + 1):
        before, after = harmonics(points, l), harmonics(points @ rotation.T, l)
        D[degree(l), degree(l)] = np.linalg.lstsq(before, after, rcond=None)[0].T
    return D


def rotation_onto_z(vector: np.ndarray) -> np.ndarray:
    """A rotation R with R v = |v| z. The angle about z is arbitrary: nothing depends on it."""
    n = vector / np.linalg.norm(vector)
    across = np.cross(n, np.eye(3)[np.argmin(np.abs(n))])
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(n, across), n])


@cache
def clebsch_gordan(l1: int, l2: int, L: int) -> np.ndarray:
    """sqrt(2L+1) w3j(l1, l2, L): [2*l1+1, 2*l2+1, 2L+1], an isometry from degree L into l1 x l2."""
    return np.sqrt(2 * L + 1) * o3.wigner_3j(l1, l2, L, dtype=torch.float64).numpy()


# --- layers that treat all m of a degree alike ---


def norm(x: np.ndarray, p: Weights) -> np.ndarray:
    """x / rms * weight[s, l, c]; of the part (0, 0) the mean is removed before, a bias added after.

    rms^2 is the mean over (s, l, c) of the mean over m of x^2.
    """
    x = x.copy()
    x[0, 0] -= x[0, 0].mean()
    x /= np.sqrt(np.mean([(x[s, degree(l)] ** 2).mean() for s, l in parts_of(x)]) + 1e-12)
    for n, (s, l) in enumerate(parts_of(x)):
        x[s, degree(l)] *= p["weight"][n]
    x[0, 0] += p["bias"]
    return x


def degree_linear(x: np.ndarray, p: Weights) -> np.ndarray:
    """W[s, l] x[s, l, m] for every s, l, m; a bias for the part (0, 0)."""
    y = np.zeros((*x.shape[:2], len(p["bias"])))
    for n, (s, l) in enumerate(parts_of(x)):
        y[s, degree(l)] = x[s, degree(l)] @ p[f"weights.{n}"].T
    y[0, 0] += p["bias"]
    return y


def gated(x: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """SiLU of the part (0, 0), every other (s, l, c) times the sigmoid of its own gate."""
    y = x.copy()
    y[0, 0] = silu(x[0, 0])
    gates = gates.reshape(-1, x.shape[2])
    for n, (s, l) in enumerate(parts_of(x)[1:]):
        y[s, degree(l)] *= sigmoid(gates[n])
    return y


def feed_forward(x: np.ndarray, p: Weights) -> np.ndarray:
    """Degree-wise linear; gate, linear in the part (0, 0) of x; degree-wise linear."""
    gates = linear(x[0, 0], part(p, "gates"))
    return degree_linear(gated(degree_linear(x, part(p, "first")), gates), part(p, "second"))
