"""The linear head that fits best, in closed form: ridge regression on summed features, strength
chosen by leave-one-out.

Finetuning starts from it, so that the first steps do not spoil the backbone for a head that knows
nothing (Kumar et al., arXiv:2202.10054); a frozen backbone under a linear head needs nothing else.

Axes: M molecules, F features (invariants that the head reads), Z atomic numbers.
"""

import torch
from torch import Tensor

# Strengths of the ridge, relative to the mean square of a feature; weaker ones amplify the rounding
# of float32 features.
STRENGTHS = 10.0 ** torch.arange(-6.0, 3.0, 0.5, dtype=torch.float64)
FAINT = 1e-3  # features are brought to one scale, but none is enlarged more than one of this share of the mean scale


def ridge(features_MF: Tensor, target: Tensor, counts_MZ: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise |X w + N r - y|^2 + a |S w|^2, with the strength a of least leave-one-out error.

    S is the scale of every feature beside what compositions explain: norms of high degrees are
    small, and count no less.

    Args:
        features_MF: X, summed over the atoms of a molecule. target: y [M]. counts_MZ: N, atoms of
            the elements whose energies may change, not penalised. All float64.
    Returns:
        (w [F], r [Z]: the change of the energies per element, of least norm).
    """
    free = _span(counts_MZ)
    x, y = (value - free @ (free.T @ value) for value in (features_MF, target))
    scale = x.square().mean(0).sqrt() + FAINT * x.square().mean().sqrt() + 1e-150
    x = x / scale
    u, singular, v = torch.linalg.svd(x, full_matrices=False)
    projected, taken = u.T @ y, free.square().sum(dim=1)

    def shrunk(strength: Tensor) -> Tensor:
        return singular.square() / (
            singular.square() + strength * x.square().mean() * len(x) + 1e-300
        )

    def left_out(strength: Tensor) -> float:
        kept = shrunk(strength)
        leverage = taken + u.square() @ kept
        return float(
            ((y - u @ (kept * projected)) / (1 - leverage).clamp(min=1e-3)).square().mean()
        )

    best = min(STRENGTHS, key=left_out)
    weight = v.T @ (shrunk(best) * projected / singular.clamp(min=1e-150)) / scale
    change = torch.linalg.lstsq(
        counts_MZ, (target - features_MF @ weight).unsqueeze(1), driver="gelsd"
    ).solution.squeeze(1)
    return weight, change


def _span(counts_MZ: Tensor) -> Tensor:
    """Orthonormal columns that span those of the counts."""
    u, singular, _ = torch.linalg.svd(counts_MZ, full_matrices=False)
    return u[:, singular > 1e-9 * singular.max().clamp(min=1e-9)]
