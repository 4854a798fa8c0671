"""The loss in packed irreps is that in matrix elements; references are means over the labels."""

from functools import partial

import numpy as np
import pytest
import torch

from helm_scale.data.graphs.collate import collate
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.losses.references import fit_atomic_energies, fit_hamiltonian_reference
from helm_scale.types import Molecule
from tests.model.test_physics import SMALL, build, hamiltonians


def labelled(seed: int, numbers: list[int], symmetric: bool = True) -> Molecule:
    """Random symmetric matrix without what a semilocal functional never has."""
    rng = np.random.default_rng(seed)
    z = np.array(numbers)
    x = rng.normal(size=(len(z), 3)) * 2
    bare = Molecule(f"m{seed}", z, x)
    (model_matrix,) = hamiltonians(build(SMALL(dtype="float64")), [bare])
    return Molecule(
        f"m{seed}",
        z,
        x,
        charge=0,
        spin_multiplicity=1,
        hamiltonian=model_matrix * rng.uniform(0.5, 2.0),
        energy=float(rng.normal()),
    )


def test_loss_and_mae_are_those_of_the_dense_matrices() -> None:
    model = build(SMALL(dtype="float64"))
    molecules = [labelled(1, [6, 1, 6, 53]), labelled(2, [8, 1, 1])]
    batch = collate(molecules, model.config)
    sums = HamiltonianObjective("def2-tzvpd", "semilocal", model.reference_onsite)(model, batch)
    errors = [
        h - m.hamiltonian for h, m in zip(hamiltonians(model, molecules), molecules, strict=True)
    ]
    elements = sum(e.size for e in errors)
    assert float(sums.count) == elements
    assert float(sums.total.detach()) == pytest.approx(
        sum(float((e**2).sum()) for e in errors), rel=1e-10
    )
    total, count = sums.metrics["h_mae"]
    assert float(count) == elements
    assert float(total) == pytest.approx(sum(float(np.abs(e).sum()) for e in errors), rel=1e-10)
    near, far = sums.metrics["h_mae_onsite"], sums.metrics["h_mae_offsite"]
    assert (
        float(near[0] + far[0]) == pytest.approx(float(total))
        and float(near[1] + far[1]) == elements
    )


def test_the_reference_is_the_mean_over_atoms_of_an_element() -> None:
    model = build(SMALL(dtype="float64"))
    config = model.config
    molecules = [labelled(1, [6, 1, 6]), labelled(2, [8, 1, 1])]
    fit = partial(
        fit_hamiltonian_reference,
        basis=config.basis,
        parity=config.parity,
        rows=84,
        width=model.reference.shape[1],
    )
    table, scale = fit([collate(molecules, config)])
    again, scale_again = fit([collate([m], config) for m in molecules])
    torch.testing.assert_close(table, again)
    model.set_reference(table, scale)
    batch = collate(molecules, config)
    residual = batch.onsite_target - model.reference_onsite(batch)
    squares = float(residual.square().sum() + batch.offsite_target.square().sum())
    assert scale == pytest.approx((squares / float(batch.matrix_elements.sum())) ** 0.5)
    assert scale == pytest.approx(scale_again)
    table_of_residual, _ = fit([collate([m], config) for m in molecules[:1]])
    assert not torch.allclose(table, table_of_residual)


def test_atomic_energies_are_recovered() -> None:
    atomic = {1: -0.5, 6: -37.8, 8: -75.0}
    shapes = [[1, 1], [6, 1, 1, 1, 1], [8, 1, 1], [6, 8]]
    compositions = torch.stack(
        [torch.bincount(torch.tensor(z), minlength=84) for z in shapes]
    ).double()
    energies = torch.tensor([sum(atomic[k] for k in z) for z in shapes], dtype=torch.float64)
    table, residual = fit_atomic_energies(compositions, energies)
    assert {z: float(table[z]) for z in atomic} == pytest.approx(atomic, abs=1e-9)
    assert residual < 2e-6
    table, residual = fit_atomic_energies(compositions, energies, known={1: -0.4})
    assert float(table[1]) == -0.4 and residual > 1e-2


def test_an_exact_fit_has_a_finite_loss_and_no_gradient() -> None:
    total = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss = HamiltonianObjective.loss(total, torch.tensor(10.0, dtype=torch.float64))
    (slope,) = torch.autograd.grad(loss, total)
    assert float(loss.detach()) < 1e-14 and float(slope) == 0.0
