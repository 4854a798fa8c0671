"""The linear readout that fits best, in closed form: ridge regression of the property on features.

Finetuning starts from it, so that the first steps do not spoil the backbone for a head that knows
nothing (Kumar et al., arXiv:2202.10054); a frozen backbone under a linear readout needs nothing
else. Its strength is chosen by leave-one-out.

Axes: M molecules, D components of one value, F features that the linear maps read, Z atomic
numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from helm_scale.model.heads.head import Irreps
from helm_scale.model.properties import PropertyModel
from helm_scale.types import GraphBatch

# Strengths of the ridge, relative to the mean square of a feature; weaker ones amplify the rounding
# of float32 features.
# The last one leaves the references alone.
STRENGTHS = (*(10.0 ** (half / 2) for half in range(-12, 6)), math.inf)
# Features are brought to one scale, but none is enlarged more than one of this share of the mean
# scale: a feature that is zero but for rounding stays small.
FAINT = 1e-3
# Of strengths whose errors differ by less than this share the strongest is taken.
TIE = 0.02
# A sample whose composition no other one has: its reference is undefined once it is left out.
UNIQUE = 1e-9


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


@dataclass(frozen=True, kw_only=True)
class RidgeFit:
    """What `ridge` found.

    Attributes:
        weight: w [F]. change: r [Z], of the values per element, of least norm.
        strength: of the ridge; inf: the references alone, w = 0.
        left_out, alone: mean absolute error of samples that were left out, of this fit and of the
            references alone, in the unit of the target; nan where no sample can be left out.
    """

    weight: Tensor
    change: Tensor
    strength: float
    left_out: float
    alone: float


def ridge(features_MF: Tensor, target: Tensor, counts_MZ: Tensor) -> RidgeFit:
    """Minimise |X w + N r - y|^2 + a |S w|^2, with the strength a of least leave-one-out error.

    That error is the mean absolute one, which the tables report: squared, one odd molecule of few
    would decide alone, and rounding with it. Of errors that are nearly equal (TIE) the strongest
    counts.
    S is the scale of every feature beside what compositions explain: norms of high degrees are
    small, and count no less. Where no strength beats the references alone, w is zero.

    Args:
        features_MF: X, one row for every component of every molecule. target: y, as many.
        counts_MZ: N, how the reference of the elements that may change enters, not penalised. All
            float64.
    Property: the leave-one-out error is that of as many fits to all samples but one, also where
        the features outnumber the samples.
    """
    free = _span(counts_MZ)
    x, y = (value - free @ (free.T @ value) for value in (features_MF, target))
    scale = x.square().mean(0).sqrt() + FAINT * x.square().mean().sqrt() + 1e-150
    x = x / scale
    u, singular, v = _svd(x)
    projected = u.T @ y
    # What no weight explains, and the leverage it leaves: as small numbers, not as differences of
    # large ones, since both vanish where the features outnumber the samples
    beyond, rest = y - u @ projected, (1 - free.square().sum(1) - u.square().sum(1)).clamp(min=0)
    defined = 1 - free.square().sum(1) > UNIQUE

    def kept(strength: float) -> Tensor:
        """Share of every component of y that the penalty keeps from being explained."""
        if math.isinf(strength):
            return torch.ones_like(singular)
        penalty = strength * float(x.square().mean()) * len(x) + 1e-300
        return 1 / (1 + singular.square() / penalty)

    def left_out_error(strength: float) -> float:
        # The residual of a sample that was left out is its own over one minus its leverage
        residual = beyond + u @ (kept(strength) * projected)
        leverage_left = rest + u.square() @ kept(strength)
        return float((residual / leverage_left)[defined].abs().mean())

    errors = {strength: left_out_error(strength) for strength in STRENGTHS}
    bar = (1 + TIE) * min(errors.values()) if bool(defined.any()) else math.inf
    best = max(strength for strength in STRENGTHS if errors[strength] <= bar or bar == math.inf)
    weight = v.T @ ((1 - kept(best)) * projected / singular) / scale
    left = (target - features_MF @ weight).unsqueeze(1)
    # gelsd: the compositions are rank-deficient, and the change of least norm is wanted
    change = torch.linalg.lstsq(counts_MZ, left, driver="gelsd").solution.squeeze(1)
    return RidgeFit(
        weight=weight,
        change=change,
        strength=best,
        left_out=errors[best],
        alone=errors[math.inf],
    )


def _span(counts_MZ: Tensor) -> Tensor:
    """Orthonormal columns that span those of the counts."""
    return _svd(counts_MZ)[0]


def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition without the values that are zero but for rounding."""
    u, singular, v = torch.linalg.svd(x, full_matrices=False)
    used = singular > 1e-9 * singular.max().clamp(min=1e-150)
    return u[:, used], singular[used], v[used]
