"""Packed irreps become the matrix they came from, Hermitian to the last bit, with exact gradients.

HOI has an ECP and s to f shells; hydrogen twice makes runs of equal pairs.
"""

import numpy as np
import pytest
import torch

from helm_scale.basis.assembly import assemble
from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.evaluation.geometry import distances, truncate
from helm_scale.types import GraphBatch, Molecule
from tests.basis.samples import BASIS, Turned
from tests.tolerances import ALGEBRA

NUMBERS = np.array([8, 1, 53, 1])
POSITIONS = np.array([[0.0, 0.0, 0.1], [0.76, 0.1, 0.6], [-1.8, 0.7, -0.4], [0.2, -0.9, 0.5]])


def molecule_of(key: str, matrix: np.ndarray, numbers: np.ndarray = NUMBERS[:3]) -> Molecule:
    return Molecule(key, numbers, POSITIONS[: len(numbers)], hamiltonian=matrix)


def batch_of(molecules: list[Molecule], parity: str, pair_cutoff: float = 50.0) -> GraphBatch:
    """Collate labels of H itself."""
    config = ModelConfig(basis=BASIS, parity=parity, baseline="none", pair_cutoff=pair_cutoff)
    return collate(molecules, config)


def rebuilt(batch: GraphBatch, parity: str) -> list[np.ndarray]:
    """The matrices of the labels."""
    targets = (batch.onsite_target, batch.offsite_target)
    return [matrix.numpy() for matrix in assemble(batch, *targets, basis=BASIS, parity=parity)]


def random_symmetric(seed: int) -> np.ndarray:
    """A matrix of the size of OHIH."""
    raw = np.random.default_rng(seed).normal(size=(117, 117))
    return raw + raw.T


@pytest.mark.parametrize(
    ("name", "parity"), [("pbe", "semilocal"), ("pbe", "full"), ("hartree-fock", "full")]
)
def test_packed_labels_assemble_to_the_matrices_they_came_from(
    turned: Turned, name: str, parity: str
) -> None:
    matrices = [turned.before[name], turned.after[name]]
    batch = batch_of([molecule_of(f"m{n}", m) for n, m in enumerate(matrices)], parity)
    for matrix, wanted in zip(rebuilt(batch, parity), matrices, strict=True):
        assert np.abs(matrix - wanted).max() < ALGEBRA[torch.float64] * np.abs(wanted).max()


def test_molecules_of_one_batch_do_not_mix() -> None:
    wanted = [random_symmetric(seed) for seed in range(3)]
    batch = batch_of([molecule_of(f"m{n}", m, NUMBERS) for n, m in enumerate(wanted)], "full")
    for matrix, expected in zip(rebuilt(batch, "full"), wanted, strict=True):
        assert np.abs(matrix - expected).max() < 1e-11


def test_any_packed_vector_is_a_matrix_that_equals_its_transpose_to_the_last_bit() -> None:
    batch = batch_of([molecule_of("m", random_symmetric(0), NUMBERS)], "full")
    generator = torch.Generator().manual_seed(3)
    onsite, offsite = (
        torch.randn(len(x), generator=generator)
        for x in (batch.onsite_target, batch.offsite_target)
    )
    (matrix,) = assemble(batch, onsite, offsite, basis=BASIS, parity="full")
    assert matrix.dtype == torch.float64 and torch.equal(matrix, matrix.T)
    packed_norm = float(onsite.double().square().sum() + offsite.double().square().sum())
    assert float(matrix.square().sum()) == pytest.approx(packed_norm, rel=1e-10)  # all placed once


def test_gradients_are_those_of_an_isometry() -> None:
    """Packing keeps the norm, so that d(|H|^2)/d(packed) = 2 packed, on both kinds of blocks."""
    batch = batch_of([molecule_of("m", random_symmetric(1), NUMBERS)], "full")
    packed = [x.clone().requires_grad_() for x in (batch.onsite_target, batch.offsite_target)]
    (matrix,) = assemble(batch, *packed, basis=BASIS, parity="full")
    for gradient, part in zip(
        torch.autograd.grad(matrix.square().sum(), packed), packed, strict=True
    ):
        assert (gradient - 2 * part).abs().max() < 1e-11


def test_pairs_beyond_the_cutoff_stay_zero() -> None:
    molecule = molecule_of("m", random_symmetric(2), NUMBERS)
    cutoff = float(np.sort(distances(molecule)[np.triu_indices(4, 1)])[3]) + 0.01  # drops two of 6
    (matrix,) = rebuilt(batch_of([molecule], "full", cutoff), "full")
    expected = truncate(molecule.hamiltonian, molecule, BASIS, cutoff)
    assert np.abs(matrix - expected).max() < 1e-11
    assert (expected == 0).sum() >= 2 * 2 * 9 * 9


def test_an_empty_batch_has_no_matrices() -> None:
    empty = torch.zeros(0, dtype=torch.float64)
    assert assemble(batch_of([], "full"), empty, empty, basis=BASIS, parity="full") == []


def test_a_vector_of_the_wrong_length_is_named() -> None:
    batch = batch_of([molecule_of("m", random_symmetric(4), NUMBERS)], "full")
    with pytest.raises(ValueError, match=r"offsite: got packed irreps of shape .* wanted"):
        assemble(batch, batch.onsite_target, batch.offsite_target[1:], basis=BASIS, parity="full")
