"""Assembly: packed irreps become the matrix they came from, Hermitian to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helm_scale.evaluation.assemble import assemble, distances, truncate
from helm_scale.types import Molecule
from tests.evaluation.labels import TZVPD, batch_of
from tests.tolerances import ALGEBRA

LABELLED = tuple[Molecule, np.ndarray]
BASIS = TZVPD.basis


def test_packed_labels_assemble_to_the_matrices_they_came_from(
    hydrogen_iodide: LABELLED, nitroxyl: LABELLED
) -> None:
    molecules = [hydrogen_iodide[0], nitroxyl[0]]
    for parity in ("semilocal", "full"):
        batch = batch_of(molecules, parity)
        assert batch.onsite_target is not None and batch.offsite_target is not None
        dense = assemble(batch, batch.onsite_target, batch.offsite_target, BASIS, parity)
        for molecule, matrix in zip(molecules, dense, strict=True):
            assert molecule.hamiltonian is not None
            assert (
                np.abs(matrix - molecule.hamiltonian).max()
                < ALGEBRA[torch.float64] * np.abs(molecule.hamiltonian).max()
            )


def test_any_packed_vector_assembles_to_a_matrix_that_equals_its_transpose_to_the_last_bit(
    nitroxyl: LABELLED,
) -> None:
    batch = batch_of([nitroxyl[0]], "full")
    assert batch.onsite_target is not None and batch.offsite_target is not None
    generator = torch.Generator().manual_seed(3)
    onsite, offsite = (
        torch.randn(len(x), generator=generator)
        for x in (batch.onsite_target, batch.offsite_target)
    )
    matrix = assemble(batch, onsite, offsite, BASIS, "full")[0]
    assert matrix.dtype == np.float64
    assert np.array_equal(matrix, matrix.T)
    packed_norm = float(onsite.double().square().sum() + offsite.double().square().sum())
    assert np.square(matrix).sum() == pytest.approx(
        packed_norm, rel=1e-10
    )  # every component was placed once


def test_pairs_beyond_the_cutoff_stay_zero(nitroxyl: LABELLED) -> None:
    molecule = nitroxyl[0]
    assert molecule.hamiltonian is not None
    cutoff = (
        float(np.sort(distances(molecule)[np.triu_indices(3, 1)])[1]) + 0.1
    )  # drops the farthest of three pairs
    batch = batch_of([molecule], pair_cutoff=cutoff)
    assert batch.onsite_target is not None and batch.offsite_target is not None
    matrix = assemble(batch, batch.onsite_target, batch.offsite_target, BASIS, "semilocal")[0]
    expected = truncate(molecule.hamiltonian, molecule, BASIS, cutoff)
    assert np.abs(matrix - expected).max() < ALGEBRA[torch.float64] * np.abs(expected).max()
    assert (expected == 0).sum() >= 2 * 9 * 40  # the block of H and O, twice


def test_a_vector_of_the_wrong_length_is_named(water: LABELLED) -> None:
    batch = batch_of([water[0]])
    assert batch.onsite_target is not None and batch.offsite_target is not None
    with pytest.raises(ValueError, match=r"offsite: got packed irreps of shape .* wanted"):
        assemble(batch, batch.onsite_target, batch.offsite_target[1:], "def2-svp", "semilocal")


def test_molecules_of_one_batch_do_not_mix(water: LABELLED) -> None:
    molecule = water[0]
    assert molecule.hamiltonian is not None
    second = replace(molecule, key="twice", hamiltonian=2 * molecule.hamiltonian)
    batch = batch_of([molecule, second])
    assert batch.onsite_target is not None and batch.offsite_target is not None
    first_matrix, second_matrix = assemble(
        batch, batch.onsite_target, batch.offsite_target, "def2-svp", "semilocal"
    )
    assert np.abs(first_matrix - molecule.hamiltonian).max() < 1e-10
    assert np.abs(second_matrix - 2 * molecule.hamiltonian).max() < 1e-10
