"""What a sample keeps: matrices to the last bits that matter, and no damaged label."""

import io
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg

from helm_scale.basis.layout import ao_offsets
from helm_scale.data.format import codec
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.types import Molecule
from tests.data.labels import SVP, TZVPD, random_molecule, same
from tests.tolerances import SHARD_MAX, SHARD_MEAN

SHARD_ENERGY = 1e-6  # Hartree: energy of the density of a Hamiltonian that went through a shard


def repacked(
    members: dict[str, bytes], header: dict | None = None, **arrays: np.ndarray | None
) -> dict[str, bytes]:
    """Members with other header entries and arrays; None removes an array."""
    kept = dict(np.load(io.BytesIO(members["npz"]))) | arrays
    npz = io.BytesIO()
    np.savez(npz, **{name: values for name, values in kept.items() if values is not None})
    return {
        "json": json.dumps(json.loads(members["json"]) | (header or {})).encode(),
        "npz": npz.getvalue(),
    }


def test_matrices_with_bromine_and_iodine_survive_at_four_bytes_per_offsite_element() -> None:
    positions = np.array([[0.0, 0.0, 0.0], [0.9, 1.1, 0.1], [-0.4, 0.6, 3.4], [0.5, -0.6, 4.5]])
    molecule = Molecule("HBr-HI", np.array([35, 1, 53, 1]), positions, method=TZVPD)
    molecule = replace(
        molecule,
        hamiltonian=EnergyFunctional(molecule, TZVPD).baseline(),
        overlap=overlap(molecule, TZVPD.basis),
    )
    offsets = ao_offsets(TZVPD.basis, molecule.atomic_numbers)
    back = codec.decode(codec.encode(molecule), "here")
    for name in ("hamiltonian", "overlap"):
        matrix = getattr(molecule, name)
        error = np.abs(getattr(back, name) - matrix)
        offsite = np.ones_like(matrix, dtype=bool)
        for start, stop in pairwise(offsets):
            offsite[start:stop, start:stop] = False
        assert (
            error.max() < SHARD_MAX
            and error[offsite].mean() < SHARD_MEAN
            and error[~offsite].max() == 0.0
        )
        parts = codec.encode_matrix(matrix, offsets)
        bytes_offsite = sum(
            parts[part].nbytes for part in ("offsite", "remainder", "remainder_index")
        )
        assert bytes_offsite / len(parts["offsite"]) < 4.2


def test_the_hamiltonian_from_a_shard_has_the_energy_of_the_scf(hydrogen_iodide: Molecule) -> None:
    back = codec.decode(codec.encode(hydrogen_iodide), "here")
    _, coefficients = scipy.linalg.eigh(back.hamiltonian, hydrogen_iodide.overlap)
    occupied = coefficients[:, : (53 - 28 + 1) // 2]  # an ECP replaces 28 electrons
    energy, _ = EnergyFunctional(hydrogen_iodide, TZVPD).energy_and_fock(2 * occupied @ occupied.T)
    assert (
        hydrogen_iodide.energy is not None and abs(energy - hydrogen_iodide.energy) < SHARD_ENERGY
    )


def test_every_field_comes_back() -> None:
    molecule = random_molecule("hof", 1)
    back = codec.decode(codec.encode(molecule), "here")
    assert same(molecule, back, SHARD_MAX)
    for matrix in (back.hamiltonian, back.baseline_hamiltonian):
        assert matrix is not None and np.array_equal(matrix, matrix.T)
    assert back.overlap is None


def test_elements_of_any_size_lose_at_most_half_a_float32_step() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(20, 20)) * 10.0 ** rng.integers(-8, 3, size=(20, 20))
    matrix, offsets = raw + raw.T, np.array([0, 7, 8, 20])
    parts = codec.encode_matrix(matrix, offsets)
    back = codec.decode_matrix(parts, offsets)
    assert np.abs(back - matrix).max() < 2**-25 and len(parts["remainder"]) > 0


def test_one_atom_and_unlabelled_matrices_are_samples_too() -> None:
    atom = Molecule("Ne", np.array([10]), np.zeros((1, 3)), energy=-128.0, method=SVP)
    back = codec.decode(codec.encode(atom), "here")
    assert back.energy == -128.0 and back.hamiltonian is None and back.forces is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hamiltonian": np.full((33, 33), np.nan)}, "molecule 'hof': hamiltonian holds NaN"),
        (
            {"hamiltonian": np.triu(np.ones((33, 33)))},
            r"hamiltonian is not symmetric \(max \|M-M\^T\| = 1.0e\+00, limit 1e-06\)",
        ),
        (
            {"baseline_hamiltonian": np.eye(32)},
            r"baseline_hamiltonian has shape \(32, 32\), wanted \(33, 33\)",
        ),
        ({"forces": np.zeros((2, 3))}, r"forces has shape \(2, 3\), wanted \(3, 3\)"),
        ({"forces": np.full((3, 3), np.inf)}, "forces holds NaN or infinity"),
        ({"energy": float("nan")}, "energy holds NaN"),
        ({"method": None}, "molecule 'hof': no method record"),
    ],
)
def test_labels_that_cannot_be_right_are_not_stored(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec.encode(replace(random_molecule("hof", 0), **change))


@pytest.mark.parametrize(
    ("header", "arrays", "message"),
    [
        (
            {},
            {"hamiltonian_onsite": np.full(225, np.nan)},
            "shard.tar, key 'hof': hamiltonian_onsite holds NaN",
        ),
        ({}, {"hamiltonian_onsite": np.zeros(3)}, r"onsite: got \(3,\), wanted \(2..,\)"),
        ({}, {"hamiltonian_offsite": np.zeros(7, np.float32)}, r"offsite: got \(7,\), wanted"),
        ({}, {"hamiltonian_remainder": np.zeros(1, np.float32)}, "remainder_index: got"),
        ({}, {"hamiltonian_offsite": None}, "'hamiltonian_offsite' is missing"),
        ({}, {"forces": np.zeros((4, 3))}, r"forces: got \(4, 3\), wanted \(3, 3\)"),
        (
            {},
            {"nao_per_atom": np.array([14, 14, 9])},
            r"nao_per_atom: got \[14, 14, 9\], wanted \[14, 14, 5\]",
        ),
        ({"version": 2}, {}, "got format version 2, wanted 1"),
        ({"method": {}}, {}, "missing"),
    ],
)
def test_samples_that_cannot_be_right_are_not_read(
    header: dict, arrays: dict, message: str
) -> None:
    members = repacked(codec.encode(random_molecule("hof", 0)), header, **arrays)
    with pytest.raises(ValueError, match=message):
        codec.decode(members, "shard.tar, key 'hof'")


def test_a_remainder_outside_the_matrix_is_refused() -> None:
    members = codec.encode(random_molecule("hof", 0))
    index = np.load(io.BytesIO(members["npz"]))["hamiltonian_remainder_index"].copy()
    index[-1] = 10**6
    with pytest.raises(ValueError, match="key 'hof': remainder_index: points outside"):
        codec.decode(repacked(members, hamiltonian_remainder_index=index), "key 'hof'")
