"""Labelled molecules that several tests of the evaluation share."""

import numpy as np
import pytest

from helm_scale.types import Molecule
from tests.evaluation.labels import SVP, TZVPD, label


@pytest.fixture(scope="session")
def hydrogen_iodide() -> tuple[Molecule, np.ndarray]:
    """HI, tilted: ECP on iodine, s to f shells; with PySCF's orbital energies."""
    return label(
        Molecule("hi", np.array([53, 1]), np.array([[0.1, 0.0, -0.2], [0.9, 1.1, 0.5]])), TZVPD
    )


@pytest.fixture(scope="session")
def nitroxyl() -> tuple[Molecule, np.ndarray]:
    """HNO, asymmetric: f shells on O and N, all electrons; with PySCF's orbital energies."""
    positions = np.array([[0.0, 0.05, 0.0], [1.05, 0.6, 0.1], [-0.9, 0.4, 0.5]])
    return label(Molecule("hno", np.array([7, 8, 1]), positions), TZVPD)


@pytest.fixture(scope="session")
def water() -> tuple[Molecule, np.ndarray]:
    """Distorted water in def2-SVP; with PySCF's orbital energies."""
    positions = np.array([[0.0, 0.0, 0.1], [0.76, 0.1, 0.68], [-0.74, 0.0, 0.58]])
    return label(Molecule("water", np.array([8, 1, 1]), positions), SVP)


@pytest.fixture(scope="session")
def ethanol() -> tuple[Molecule, np.ndarray]:
    """Ethanol in def2-SVP, near its equilibrium; with PySCF's orbital energies."""
    positions = np.array([
        [1.17, -0.40, 0.02], [0.0, 0.56, -0.01], [-1.19, -0.21, 0.03], [-1.94, 0.38, -0.04],
        [2.11, 0.15, 0.0], [1.13, -1.04, -0.88], [1.15, -1.03, 0.91], [0.05, 1.20, 0.88],
        [0.04, 1.21, -0.90],
    ])  # fmt: skip
    return label(Molecule("ethanol", np.array([6, 6, 8, 1, 1, 1, 1, 1, 1]), positions), SVP)
