"""Errors of H that know S: in the Loewdin basis, and of orbital energies to first order in the
basis of the true coefficients.

With d = H_pred - H, S = U s U^T and X = U s^-1/2 over the eigenvalues s above a threshold:
|S^-1/2 d S^-1/2|^2 = |X^T d X|^2, and e_k = C_k^T d C_k with H C = S C E in the span of X (QHFlow2, arXiv:2602.16897, finetunes
on orbital energies). Where S is nearly singular, d that looks small moves orbitals by a lot.

Both need the whole matrix of a molecule, which the fused pass over pairs never holds. So a first
pass without gradients predicts it, and gives the value and its slope with respect to every
predicted irrep; the second pass, chunk by chunk, adds slope times prediction, whose gradient is
that of the value. Memory is that of one dense matrix, engines need not know.

Axes: N atoms, P pairs, n blocks a x b, nao AOs of a molecule, k kept orthonormal functions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helm_scale.basis.assembly import assemble
from helm_scale.basis.eigen import canonical_orthogonalizers, solve_roothaan_hall
from helm_scale.basis.electrons import occupied_orbitals
from helm_scale.types import GraphBatch

Reference = Callable[[GraphBatch], Tensor]


@dataclass(frozen=True)
class Slopes:
    """Value of the terms (float64 scalar, Hartree squared), its slope for every packed irrep, and
    sums for metrics."""

    value: Tensor
    onsite: Tensor
    offsite: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class SpectralTerms:
    """Weighted sums of squares that join the sum over matrix elements.

    Attributes:
        basis, parity: layout of the blocks.
        loewdin: weight of |S^-1/2 d S^-1/2|^2. orbitals: weight of the mean of e_k^2 over the
            occupied orbitals and `virtuals` empty ones, times the number of matrix elements.
        threshold: eigenvalues of S below it are dropped.
        baseline: whether labels are H - H0.
    """

    basis: str
    parity: str
    loewdin: float
    orbitals: float
    virtuals: int
    threshold: float
    baseline: bool

    def slopes(self, model: nn.Module, batch: GraphBatch, reference: Reference) -> Slopes:
        """Predict without gradients, and differentiate the terms.

        Raises:
            ValueError: pairs beyond the Hamiltonian cutoff, of which nothing is known; names the
                molecule.
        """
        self._check_whole(batch)
        assert batch.onsite_target is not None and batch.offsite_target is not None
        assert batch.onsite_overlap is not None and batch.offsite_overlap is not None
        with torch.no_grad():
            prediction = model(batch)
        packed = (
            (
                prediction.onsite.double() - (batch.onsite_target - reference(batch))
            ).requires_grad_(),
            (prediction.offsite.double() - batch.offsite_target.double()).requires_grad_(),
        )
        overlaps, labels = (
            self.dense(batch, batch.onsite_overlap, batch.offsite_overlap),
            self._labels(batch),
        )
        with torch.enable_grad():
            errors = self.dense(batch, *packed)
            found = [
                self._of_molecule(*one)
                for one in zip(errors, overlaps, labels, self._occupied(batch), strict=True)
            ]
            products = [
                packed[0].sum() * 0,
                *((error * one[1]).sum() for error, one in zip(errors, found, strict=True)),
            ]
            slopes = torch.autograd.grad(
                torch.stack(products).sum(), packed, allow_unused=True, materialize_grads=True
            )
        value = torch.stack([batch.onsite_target.new_zeros(()), *(one[0] for one in found)]).sum()
        energies = torch.cat([batch.onsite_target.new_zeros(0), *(one[2] for one in found)])
        metrics = {
            "orbital_energy_mae": (energies.abs().sum(), energies.new_tensor(float(len(energies))))
        }
        return Slopes(value, slopes[0], slopes[1], metrics)

    def _of_molecule(
        self, error: Tensor, overlap: Tensor, label: Tensor, occupied: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value, slope [nao, nao] and first-order errors of orbital energies of one molecule."""
        d = error.detach()
        _, (x,) = canonical_orthogonalizers(overlap, (self.threshold,))
        c = solve_roothaan_hall(label, x)[1][:, : occupied + self.virtuals]
        reduced, energies = x.T @ d @ x, ((d @ c) * c).sum(0)
        share = self.orbitals * d.numel() / max(len(energies), 1)
        value = self.loewdin * reduced.square().sum() + share * energies.square().sum()
        return (
            value,
            2 * self.loewdin * (x @ reduced @ x.T) + 2 * share * (c * energies) @ c.T,
            energies,
        )

    def _labels(self, batch: GraphBatch) -> list[Tensor]:
        """The true H of every molecule."""
        onsite, offsite = batch.onsite_target, batch.offsite_target
        assert onsite is not None and offsite is not None
        if self.baseline:
            assert (
                batch.onsite_baseline_hamiltonian is not None
                and batch.offsite_baseline_hamiltonian is not None
            )
            onsite, offsite = (
                onsite + batch.onsite_baseline_hamiltonian,
                offsite.double() + batch.offsite_baseline_hamiltonian,
            )
        return self.dense(batch, onsite, offsite)

    def dense(self, batch: GraphBatch, onsite: Tensor, offsite: Tensor) -> list[Tensor]:
        """Packed irreps -> matrices [nao, nao], float64, differentiable."""
        return assemble(batch, onsite, offsite, basis=self.basis, parity=self.parity)

    def _occupied(self, batch: GraphBatch) -> list[int]:
        """Occupied orbitals of every molecule; open shells are refused by name."""
        atoms = torch.bincount(batch.molecule, minlength=batch.num_molecules).tolist()
        numbers = batch.atomic_numbers.cpu().split(atoms)
        return [
            occupied_orbitals(
                self.basis,
                numbers[place].tolist(),
                charge=int(batch.charge[place]),
                multiplicity=int(batch.spin_multiplicity[place]),
                where=f"molecule '{key}'",
            )
            for place, key in enumerate(batch.keys)
        ]

    @staticmethod
    def _check_whole(batch: GraphBatch) -> None:
        atoms = torch.bincount(batch.molecule, minlength=batch.num_molecules)
        pairs = torch.bincount(batch.molecule[batch.pair_index[0]], minlength=batch.num_molecules)
        for key, n, found in zip(batch.keys, atoms.tolist(), pairs.tolist(), strict=True):
            if found != n * (n - 1) // 2:
                raise ValueError(
                    f"molecule '{key}': {n * (n - 1) // 2 - found} pairs lie beyond model.pair_cutoff; errors that know S need the whole"
                    " matrix: raise it, or set training.loewdin_weight and training.orbital_weight to 0"
                )
