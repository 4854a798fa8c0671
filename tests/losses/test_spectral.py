"""Errors that know S: sums of dense matrices, their exact gradients, and perturbation theory.

Overlaps are real ones of an asymmetric molecule; H is random, with and without H0.
"""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch

from helm_scale.basis.layout import ao_offsets
from helm_scale.data.graphs.collate import collate
from helm_scale.dft.energies import overlap
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.losses.spectral import SpectralTerms
from helm_scale.model.helm import Helm
from helm_scale.types import GraphBatch, Molecule
from tests.model.test_conditioning import SMALL
from tests.model.test_physics import build
from tests.tolerances import CHUNKS

TERMS = SpectralTerms(
    basis="def2-svp",
    parity="full",
    loewdin=0.3,
    orbitals=0.7,
    virtuals=2,
    threshold=1e-2,
    baseline=True,
)
CONFIG = SMALL(baseline="minao", pair_layers=2)
OCCUPIED = (9, 5)  # of HOF and water


def molecules() -> list[Molecule]:
    """HOF and water with real S, random H and H0."""
    shapes = [
        ([9, 8, 1], [[0.0, 0.1, 0.0], [1.4, 0.0, 0.2], [1.7, 0.9, 0.1]]),
        ([8, 1, 1], [[0, 0, 0], [0.1, 0.9, 0.1], [0.8, -0.3, 0.2]]),
    ]
    found = []
    for seed, (numbers, x) in enumerate(shapes):
        bare = Molecule(f"m{seed}", np.array(numbers), np.array(x, dtype=float))
        size = int(ao_offsets("def2-svp", bare.atomic_numbers)[-1])
        h, h0 = (raw + raw.T for raw in np.random.default_rng(seed).normal(size=(2, size, size)))
        found.append(
            replace(bare, hamiltonian=h, baseline_hamiltonian=h0, overlap=overlap(bare, "def2-svp"))
        )
    return found


def batch_of(parts: list[Molecule]) -> GraphBatch:
    return collate(parts, CONFIG, ("overlap", "baseline_hamiltonian"))


def orbitals(molecule: Molecule, occupied: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orthogonaliser, energies and coefficients of occupied orbitals and two more, another way."""
    s, u = scipy.linalg.eigh(molecule.overlap)
    x = (u / np.sqrt(s))[:, s > TERMS.threshold]
    energies, v = scipy.linalg.eigh(x.T @ molecule.hamiltonian @ x)
    return x, energies[: occupied + 2], (x @ v)[:, : occupied + 2]


def terms_of(errors: list[torch.Tensor]) -> torch.Tensor:
    """The weighted sums from dense errors."""
    total = torch.zeros((), dtype=torch.float64)
    for d, molecule, occupied in zip(errors, molecules(), OCCUPIED, strict=True):
        x, _, c = (torch.from_numpy(part) for part in orbitals(molecule, occupied))
        energies = torch.einsum("ak,ab,bk->k", c, d, c)
        total = (
            total + 0.3 * (x.T @ d @ x).square().sum() + 0.7 * d.numel() * energies.square().mean()
        )
    return total


@pytest.fixture(scope="module")
def model() -> Helm:
    return build(CONFIG)


def dense_errors(model: Helm, batch: GraphBatch) -> list[torch.Tensor]:
    prediction = model(batch)
    onsite = prediction.onsite + model.reference_onsite(batch) - batch.onsite_target
    return TERMS.dense(batch, onsite, prediction.offsite - batch.offsite_target)


@pytest.mark.parametrize("chunk", [0, 2])
def test_sums_and_gradients_are_those_of_the_dense_matrices(chunk: int, model: Helm) -> None:
    batch, found = batch_of(molecules()), []
    model.set_memory(0, "none", 1)
    errors = dense_errors(model, batch)
    plain = HamiltonianObjective("def2-svp", "full", model.reference_onsite)(model, batch)
    model.set_memory(chunk, "none", 1)
    sums = HamiltonianObjective("def2-svp", "full", model.reference_onsite, TERMS)(model, batch)
    wanted = plain.total + terms_of(errors)
    assert float(sums.total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-10)
    assert float(wanted.detach()) > 1.5 * float(plain.total.detach())
    for total in (wanted, sums.total):
        model.zero_grad()
        total.backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    largest = max(float(gradient.abs().max()) for gradient in found[0])
    assert all(
        (a - b).abs().max() < CHUNKS * max(float(a.abs().max()), 1e-3 * largest)
        for a, b in zip(*found, strict=True)
    )


def test_the_rebuilt_matrices_are_the_labels() -> None:
    parts = molecules()
    batch = batch_of(parts)
    for matrix, molecule in zip(TERMS._labels(batch), parts, strict=True):
        assert np.abs(matrix.numpy() - molecule.hamiltonian).max() < 1e-12
    for matrix, molecule in zip(
        TERMS.dense(batch, batch.onsite_overlap, batch.offsite_overlap), parts, strict=True
    ):
        assert np.abs(matrix.numpy() - molecule.overlap).max() < 1e-12


def test_energies_move_as_first_order_theory_says(model: Helm) -> None:
    molecule, small = molecules()[0], 1e-6
    sums = HamiltonianObjective("def2-svp", "full", model.reference_onsite, TERMS)(
        model, batch_of([molecule])
    )
    (error,) = dense_errors(model, batch_of([molecule]))
    before = orbitals(molecule, 9)[1]
    after = orbitals(
        replace(molecule, hamiltonian=molecule.hamiltonian + small * error.detach().numpy()), 9
    )[1]
    total, count = sums.metrics["orbital_energy_mae"]
    assert float(count) == 11 and float(total) == pytest.approx(
        np.abs(after - before).sum() / small, rel=1e-3
    )


def test_a_molecule_larger_than_the_cutoff_is_refused_by_name(model: Helm) -> None:
    config = CONFIG.model_copy(update={"pair_cutoff": 1.45})
    batch = collate(molecules(), config, ("overlap", "baseline_hamiltonian"))
    with pytest.raises(ValueError, match=r"molecule 'm0': 1 pairs lie beyond model.pair_cutoff"):
        HamiltonianObjective("def2-svp", "full", model.reference_onsite, TERMS)(model, batch)


def test_an_empty_batch_has_no_sums(model: Helm) -> None:
    sums = HamiltonianObjective("def2-svp", "full", model.reference_onsite, TERMS)(
        model, batch_of([])
    )
    assert float(sums.total.detach()) == 0.0 and float(sums.metrics["orbital_energy_mae"][1]) == 0.0
