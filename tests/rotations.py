"""Rotations and their Wigner matrices from e3nn, in float64: the tests' independent reference.

e3nn's polar axis is y and ours is z: coordinates (y, z, x) go in, and no sign or order changes.
"""

import numpy as np
import torch
from e3nn import o3
from torch import Tensor

from helm_scale.basis.shells import shells_of

_CYCLE = (1, 2, 0)


def random_rotation(seed: int) -> Tensor:
    """A proper rotation [3, 3], uniformly distributed."""
    generator = torch.Generator().manual_seed(seed)
    orthogonal, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    return orthogonal * torch.linalg.det(orthogonal)


def harmonics(points: Tensor, degree: int) -> Tensor:
    """Real harmonics [E, 2l+1] of directions of points [E, 3]: m = -l..l, polar axis z, norm 1."""
    return o3.spherical_harmonics(degree, points[:, _CYCLE], normalize=True, normalization="norm")


def wigner(rotation: Tensor, degree: int) -> Tensor:
    """D^l [2l+1, 2l+1] of a rotation: harmonics(R x) = D harmonics(x)."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # e3nn builds its tables in the default dtype
    try:
        return o3.Irrep(degree, 1).D_from_matrix(rotation[_CYCLE, :][:, _CYCLE])
    finally:
        torch.set_default_dtype(default)


def wigner_up_to(rotation: Tensor, lmax: int) -> Tensor:
    """Block-diagonal D [K, K] of the degrees 0..lmax, K = (lmax+1)^2."""
    return torch.block_diag(*[wigner(rotation, degree) for degree in range(lmax + 1)])


def ao_rotation(rotation: Tensor, basis: str, atomic_numbers: np.ndarray) -> np.ndarray:
    """Block-diagonal D [nao, nao] in the canonical AO order: H(R x) = D H(x) D^T."""
    degrees = [degree for z in atomic_numbers for degree in shells_of(basis, int(z))]
    return torch.block_diag(*[wigner(rotation, degree) for degree in degrees]).numpy()
