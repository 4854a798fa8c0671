"""Labelled molecules that several tests of data share."""

import numpy as np
import pytest

from helm_scale.dft.generate import LabelJob, label
from helm_scale.types import Molecule
from tests.data.labels import TZVPD


@pytest.fixture(scope="session")
def hydrogen_iodide() -> Molecule:
    """Converged labels of tilted HI, with the overlap: an ECP, s to f shells."""
    molecule = Molecule("hi", np.array([53, 1]), np.array([[0.1, 0.0, -0.2], [0.9, 1.1, 0.5]]))
    return label(
        LabelJob(molecule=molecule, method=TZVPD, forces=False, overlap=True, max_cycle=50)
    )
