"""The linear readout that fits best, in closed form: ridge regression of the property on features.

Finetuning starts from it, so that the first steps do not spoil the backbone for a head that knows
nothing (Kumar et al., arXiv:2202.10054); a frozen backbone under a linear readout needs nothing
else. Its strength is chosen by leave-one-out.

Axes: M molecules, D components of one value, F features that the linear maps read, Z atomic
numbers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from helm_scale.model.heads.head import Irreps
from helm_scale.model.properties import PropertyModel
from helm_scale.types import GraphBatch

# Strengths of the ridge, relative to the mean square of a feature; weaker ones amplify the rounding
# of float32 features.
STRENGTHS = 10.0 ** torch.arange(-6.0, 3.0, 0.5, dtype=torch.float64)
# Features are brought to one scale, but none is enlarged more than one of this share of the mean
# scale: a feature that is zero but for rounding stays small.
FAINT = 1e-3


def linear_design(model: PropertyModel, selected: Tensor, batch: GraphBatch) -> Tensor:
    """Derivative of the property by the weights of the readout's linear maps: [M*D, F], float64.

    The property is linear in the irreps, these in the weights: so this is what a ridge regression
    needs, whatever the head.
    """
    features = {degree: x.double() for degree, x in model.head.features(selected).items()}
    cutoff = model.config.trunk_cutoff

    def property_of(weights: Mapping[int, Tensor]) -> Tensor:
        irreps: Irreps = {degree: x @ weights[degree].T for degree, x in features.items()}
        return model.definition.combine(irreps, batch, cutoff).flatten()

    weights = {degree: w.detach().double() for degree, w in model.head.linear_weights().items()}
    by_degree = torch.func.jacrev(property_of)(weights)
    return torch.cat([by_degree[degree].flatten(1) for degree in weights], dim=1).detach()


def set_linear_weights(model: PropertyModel, solution: Tensor) -> None:
    """Write a solution [F], laid out as the columns of `linear_design`, into the linear maps."""
    weights = list(model.head.linear_weights().values())
    for weight, values in zip(weights, solution.split([w.numel() for w in weights]), strict=True):
        weight.copy_(values.view_as(weight))


def ridge(features_MF: Tensor, target: Tensor, counts_MZ: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise |X w + N r - y|^2 + a |S w|^2, with the strength a of least leave-one-out error.

    S is the scale of every feature beside what compositions explain: norms of high degrees are
    small, and count no less.

    Args:
        features_MF: X, one row for every component of every molecule. target: y, as many.
        counts_MZ: N, how the reference of the elements that may change enters, not penalised. All
            float64.
    Returns:
        (w [F], r [Z]: the change of the energies per element, of least norm).
    """
    free = _span(counts_MZ)
    x, y = (value - free @ (free.T @ value) for value in (features_MF, target))
    scale = x.square().mean(0).sqrt() + FAINT * x.square().mean().sqrt() + 1e-150
    x = x / scale
    u, singular, v = torch.linalg.svd(x, full_matrices=False)
    projected, leverage_free = u.T @ y, free.square().sum(dim=1)

    def shrinkage(strength: Tensor) -> Tensor:
        penalty = strength * x.square().mean() * len(x)
        return singular.square() / (singular.square() + penalty + 1e-300)

    def left_out_error(strength: Tensor) -> float:
        # The residual of a sample that was left out is its own over one minus its leverage
        factor = shrinkage(strength)
        leverage = leverage_free + u.square() @ factor
        residual = (y - u @ (factor * projected)) / (1 - leverage).clamp(min=1e-3)
        return float(residual.square().mean())

    best = min(STRENGTHS, key=left_out_error)
    weight = v.T @ (shrinkage(best) * projected / singular.clamp(min=1e-150)) / scale
    rest = (target - features_MF @ weight).unsqueeze(1)
    # gelsd: the compositions are rank-deficient, and the change of least norm is wanted
    change = torch.linalg.lstsq(counts_MZ, rest, driver="gelsd").solution.squeeze(1)
    return weight, change


def _span(counts_MZ: Tensor) -> Tensor:
    """Orthonormal columns that span those of the counts."""
    u, singular, _ = torch.linalg.svd(counts_MZ, full_matrices=False)
    return u[:, singular > 1e-9 * singular.max().clamp(min=1e-9)]
