"""Basis and method of the matrices that the basis tests turn, and the type that holds them."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from helm_scale.types import Method

BASIS = "def2-tzvpd"
PBE = Method(
    xc="pbe",
    basis=BASIS,
    ecp="def2",
    grid_level=1,
    auxbasis=None,
    conv_tol=1e-10,
    baseline="none",
    program="PySCF",
)


@dataclass(frozen=True, kw_only=True)
class Turned:
    """Matrices {name: [nao, nao]} of a molecule and of its turned copy, and D between them.

    Hartree, canonical order.
    """

    atomic_numbers: np.ndarray
    offsets: np.ndarray
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    rotation: Tensor
    ao_rotation: np.ndarray

    def onsite(self, matrix: np.ndarray, atom: int) -> np.ndarray:
        """Block of one atom."""
        return self.offsite(matrix, atom, atom)

    def offsite(self, matrix: np.ndarray, first: int, second: int) -> np.ndarray:
        """Block of two atoms."""
        starts = self.offsets
        return matrix[starts[first] : starts[first + 1], starts[second] : starts[second + 1]]
