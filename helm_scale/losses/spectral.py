"""Errors of H that know the overlap S: in the Loewdin basis, and of orbital energies.

With d = H_pred - H, S = U s U^T and X = U s^-1/2 over the eigenvalues s above a threshold:
|S^-1/2 d S^-1/2|^2 = |X^T d X|^2, and to first order e_k = C_k^T d C_k with H C = S C E in the span
of X (QHFlow2, arXiv:2602.16897, finetunes on orbital energies). Where S is nearly singular, d that
looks small moves orbitals by a lot.

Both need the whole matrix of a molecule, which a loss over chunks of pairs never holds. So a first
pass without gradients predicts it, and gives the value and its slope with respect to every
predicted irrep; the second pass, chunk by chunk, adds slope times prediction, whose gradient is
that of the value. Memory is that of one dense matrix, and engines need not know.

Axes: nao AOs of a molecule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helm_scale.basis.assembly import assemble
from helm_scale.basis.eigen import canonical_orthogonalizers, solve_roothaan_hall
from helm_scale.basis.electrons import occupied_orbitals
from helm_scale.types import GraphBatch

Reference = Callable[[GraphBatch], Tensor]


class _MoleculeTerms(NamedTuple):
    """Of one molecule: value, slope [nao, nao], first-order errors of orbital energies."""

    value: Tensor
    slope: Tensor
    energy_errors: Tensor


@dataclass(frozen=True)
class Slopes:
    """Value of the terms for a batch, and how it changes with the prediction.

    Attributes:
        value: float64 scalar, Hartree squared. onsite, offsite: its slope for every packed irrep.
        metrics: name -> (sum, count).
    """

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
        assert batch.onsite_overlap is not None and batch.offsite_overlap is not None
        packed = self._packed_error(model, batch, reference)
        overlaps = self.dense(batch, batch.onsite_overlap, batch.offsite_overlap)
        molecules = zip(overlaps, self._labels(batch), self._occupied(batch), strict=True)
        with torch.enable_grad():
            errors = self.dense(batch, *packed)
            terms = [
                self._of_molecule(error.detach(), *molecule)
                for error, molecule in zip(errors, molecules, strict=True)
            ]
            # The slope for a matrix becomes that for its irreps by the gradient of their product.
            products = [
                (error * term.slope).sum() for error, term in zip(errors, terms, strict=True)
            ]
            onsite, offsite = torch.autograd.grad(
                torch.stack([packed[0].sum() * 0, *products]).sum(),
                packed,
                allow_unused=True,
                materialize_grads=True,
            )
        none = onsite.new_zeros(0)  # an empty batch has no molecules
        value = torch.cat([none, *(term.value.reshape(1) for term in terms)]).sum()
        energies = torch.cat([none, *(term.energy_errors for term in terms)])
        count = energies.new_tensor(float(len(energies)))
        metrics = {"orbital_energy_mae": (energies.abs().sum(), count)}
        return Slopes(value, onsite, offsite, metrics)

    @staticmethod
    def _packed_error(
        model: nn.Module, batch: GraphBatch, reference: Reference
    ) -> tuple[Tensor, Tensor]:
        """Predicted minus true irreps, on-site and off-site, float64 leaves."""
        assert batch.onsite_target is not None and batch.offsite_target is not None
        with torch.no_grad():
            prediction = model(batch)
        onsite = prediction.onsite.double() - (batch.onsite_target - reference(batch))
        offsite = prediction.offsite.double() - batch.offsite_target.double()
        return onsite.requires_grad_(), offsite.requires_grad_()

    def _of_molecule(
        self, error: Tensor, overlap: Tensor, label: Tensor, occupied: int
    ) -> _MoleculeTerms:
        """The terms of one molecule, from its matrices [nao, nao]."""
        _, (x,) = canonical_orthogonalizers(overlap, (self.threshold,))
        c = solve_roothaan_hall(label, x)[1][:, : occupied + self.virtuals]
        reduced, energies = x.T @ error @ x, ((error @ c) * c).sum(0)
        # The mean over orbitals times the number of matrix elements, by which all sums are divided.
        share = self.orbitals * error.numel() / max(len(energies), 1)
        value = self.loewdin * reduced.square().sum() + share * energies.square().sum()
        slope = 2 * self.loewdin * (x @ reduced @ x.T) + 2 * share * (c * energies) @ c.T
        return _MoleculeTerms(value, slope, energies)

    def _labels(self, batch: GraphBatch) -> list[Tensor]:
        """The true H of every molecule."""
        onsite, offsite = batch.onsite_target, batch.offsite_target
        assert onsite is not None and offsite is not None
        if self.baseline:
            h0 = batch.onsite_baseline_hamiltonian, batch.offsite_baseline_hamiltonian
            assert h0[0] is not None and h0[1] is not None
            onsite, offsite = onsite + h0[0], offsite.double() + h0[1]
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
        missing = atoms * (atoms - 1) // 2 - pairs
        for key, count in zip(batch.keys, missing.tolist(), strict=True):
            if count:
                raise ValueError(
                    f"molecule '{key}': {count} pairs lie beyond model.pair_cutoff; errors that"
                    " know S need the whole matrix: raise it, or set training.loewdin_weight and"
                    " training.orbital_weight to 0"
                )
