"""Two made-up states, compared: every number is booked under its own name."""

import numpy as np
import pytest

from helm_scale.evaluation.error_sums import mean_errors
from helm_scale.evaluation.orbitals import Orbitals, occupied_weights
from helm_scale.evaluation.states import ElectronicState, compare_states

OVERLAP = np.eye(4)
TURNED = np.eye(4)[:, [0, 2, 1, 3]]  # the second filled and the first empty orbital exchanged


def state(energies: list[float], coefficients: np.ndarray, **properties: object) -> ElectronicState:
    """Two filled and two empty orbitals."""
    orbitals = Orbitals(np.array(energies), coefficients, 2)
    return ElectronicState(orbitals, **properties)  # type: ignore[arg-type]


def test_every_error_has_its_own_name() -> None:
    reference = state([-9.0, -3.0, 1.0, 2.0], OVERLAP, energy=-7.0, dipole=np.array([1.0, 0, 0]),
                      forces=np.zeros((1, 3)))  # fmt: skip
    found = state([-9.1, -3.3, 1.7, 7.0], TURNED, energy=-7.5, dipole=np.array([0, 1.0, 0]),
                  forces=np.array([[0.3, -0.6, 0.0]]))  # fmt: skip
    errors = mean_errors(compare_states(found, reference, OVERLAP))
    assert errors == pytest.approx(
        {
            "occupied": 0.2, "homo": 0.3, "lumo": 0.7, "gap": 1.0, "energy": 0.5, "forces": 0.3,
            "dipole": 2**0.5, "density": 4 / 16, "coefficients": 0.5, "subspace_overlap": 0.5,
            "lost_occupied": 1.0, "ghosts": 1.0,
        }
    )  # fmt: skip


def test_what_either_state_lacks_is_left_out() -> None:
    bare, full = state([-1.0, 0, 1, 2], OVERLAP), state([-1.0, 0, 1, 2], OVERLAP, energy=-1.0)
    assert "energy" not in compare_states(full, bare, OVERLAP)
    assert "energy" not in compare_states(bare, full, OVERLAP)


def test_weights_are_those_of_the_first_state_s_orbitals() -> None:
    reference = Orbitals(np.arange(4.0), OVERLAP, 2)
    mixed = OVERLAP.copy()
    mixed[:, 0] = [0.0, 0.6, 0.8, 0.0]
    mixed[:, 1] = [0.0, 0.0, 0.0, 1.0]
    found = Orbitals(np.arange(4.0), mixed, 2)
    assert occupied_weights(found, reference, OVERLAP) == pytest.approx([0.36, 0.0])
    assert occupied_weights(reference, found, OVERLAP) == pytest.approx([0.0, 0.36])
