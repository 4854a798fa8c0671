"""H C = S C E in float64, with directions in which S is nearly singular left out."""

import pytest
import scipy.linalg
import torch
from torch import Tensor

from helm_scale.basis.eigen import canonical_orthogonalizers, solve_roothaan_hall

SMALLEST = 1e-6  # eigenvalues of S run from here to 10, as in a diffuse basis


def problem(size: int = 30) -> tuple[Tensor, Tensor]:
    """A random H, and a random S with known eigenvalues."""
    generator = torch.Generator().manual_seed(5)
    raw, frame = torch.randn(2, size, size, dtype=torch.float64, generator=generator)
    vectors = torch.linalg.qr(frame)[0]
    values = torch.logspace(-6, 1, size, dtype=torch.float64)
    return raw + raw.T, (vectors * values) @ vectors.T


def test_solutions_are_those_of_the_generalised_problem() -> None:
    hamiltonian, overlap = problem()
    values, (x,) = canonical_orthogonalizers(overlap, (0.0,))
    energies, coefficients = solve_roothaan_hall(hamiltonian, x)
    reference = scipy.linalg.eigh(hamiltonian.numpy(), overlap.numpy(), eigvals_only=True)
    assert float(values[0]) == pytest.approx(SMALLEST, rel=1e-6)
    assert energies.numpy() == pytest.approx(reference, rel=1e-6, abs=1e-6)
    residual = hamiltonian @ coefficients - overlap @ coefficients * energies
    assert residual.abs().max() < 1e-6 * energies.abs().max()
    unit = coefficients.T @ overlap @ coefficients
    assert (unit - torch.eye(len(unit), dtype=torch.float64)).abs().max() < 1e-8


def test_directions_below_the_threshold_are_dropped_and_nothing_else() -> None:
    hamiltonian, overlap = problem()
    values, bases = canonical_orthogonalizers(overlap, (1e-5, 1e-3, 20.0))
    s, u = torch.linalg.eigh(overlap)
    for threshold, x in zip((1e-5, 1e-3, 20.0), bases, strict=True):
        kept = int((values >= threshold).sum())
        assert x.shape == (len(overlap), kept)
        assert not kept or (u[:, s < threshold].T @ x).abs().max() < 1e-6
    energies = [solve_roothaan_hall(hamiltonian, x)[0] for x in bases[:2]]
    # the smaller space lies in the larger one: by Cauchy's theorem the energies interlace
    dropped = len(energies[0]) - len(energies[1])
    assert (energies[1] >= energies[0][:-dropped] - 1e-9).all()
    assert (energies[1] <= energies[0][dropped:] + 1e-9).all()


def test_a_float32_matrix_is_solved_in_float64() -> None:
    hamiltonian, overlap = problem()
    _, (x,) = canonical_orthogonalizers(overlap.float(), (1e-3,))
    energies, coefficients = solve_roothaan_hall(hamiltonian.float(), x)
    assert x.dtype == energies.dtype == coefficients.dtype == torch.float64
