"""Labelled molecules that the tests of importers share, each made once per session."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from helm_scale.dft.generate import LabelJob, label
from helm_scale.types import Method, Molecule

PLAIN = Method(
    xc="pbe",
    basis="def2-svp",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-11,
    baseline="none",
    program="PySCF",
)
WATER = (np.array([8, 1, 1]), np.array([[0.1, 0.0, 0.1], [0.76, 0.05, 0.68], [-0.74, 0.0, 0.58]]))
FLUORIDE = (np.array([9, 1]), np.array([[0.1, 0.0, -0.2], [0.3, 0.5, 0.55]]))
HYDRIDE = (np.array([3, 1]), np.array([[0.1, 0.0, -0.2], [0.3, 0.9, 1.15]]))
# An ECP replaces 28 electrons of iodine.
IODIDE = (np.array([53, 1]), np.array([[0.1, 0.0, -0.2], [0.9, 1.1, 0.5]]))
GEOMETRIES = {
    "water": WATER,
    "stretched": (WATER[0], 1.05 * WATER[1]),
    "fluoride": FLUORIDE,
    "hydride": HYDRIDE,
    "iodide": IODIDE,
}
Labels = Callable[..., Molecule]


@cache
def _label(name: str, xc: str, basis: str) -> Molecule:
    numbers, positions = GEOMETRIES[name]
    job = LabelJob(
        molecule=Molecule(name, numbers, positions),
        method=replace(PLAIN, xc=xc, basis=basis),
        forces=basis == "def2-svp",
        overlap=True,
        max_cycle=50,
    )
    return label(job)


@pytest.fixture(scope="session")
def labels() -> Labels:
    """labels(name of the geometry, xc, basis): converged H, S, energy and, in def2-svp, forces."""
    return _label
