"""A trained model for those who call it from Python: Hamiltonians, energies, starts of an SCF."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from helm_scale.commands.models import (
    best_device,
    load_energy_model,
    load_predictor,
    validation_error,
)
from helm_scale.export import calculator
from helm_scale.export.atoms import molecule_of
from helm_scale.model.helm import Helm
from helm_scale.reading.domain import DomainCheck
from helm_scale.types import Method, Molecule

if TYPE_CHECKING:
    from helm_scale.evaluation.kohn_sham import Choice

_log = logging.getLogger(__name__)


class HamiltonianModel:
    """Kohn-Sham Hamiltonians of closed-shell molecules, in the method of the training labels.

    Molecules are ASE Atoms, whose charge (0 where absent) and multiplicity (1) stand in atoms.info
    as "charge" and "spin" (2S+1), or Molecule of helm_scale.types.

    Attributes:
        network: the torch module. method: functional, basis, grid and H0 of the labels.
        validation_error: mean |dH| on validation molecules, Hartree; None: unknown.
        projection: "auto", "on" or "off": whether energies and starts of an SCF are those of the
            Kohn-Sham matrix nearest to the predicted one (docs/potential.md).
        domain_check: refuses elements that training did not show, warns of what is extrapolated.
    """

    def __init__(
        self,
        network: Helm,
        method: Method,
        *,
        validation_error: float | None = None,
        projection: Literal["auto", "on", "off"] = "auto",
        allow_extrapolation: bool = False,
    ) -> None:
        self.network, self.method = network, method
        self.validation_error, self.projection = validation_error, projection
        self.domain_check = DomainCheck(network.training_domain, allow_extrapolation)

    def hamiltonian(
        self, atoms: Any, *, ao_order: Literal["canonical", "pyscf"] = "canonical"
    ) -> np.ndarray:
        """Predict the Kohn-Sham matrix: [nao, nao] float64, Hartree, H0 added.

        Args:
            ao_order: "canonical" (docs/conventions.md) or "pyscf", which orders p as x, y, z.
        Raises:
            ValueError: an element, charge or multiplicity outside the model's range.
        Property: symmetric to the last bit, and turns with the molecule: H(Rx) = D(R) H(x) D(R)^T.
        """
        from helm_scale.dft.energies import EnergyFunctional
        from helm_scale.dft.molecule import from_canonical
        from helm_scale.evaluation import prediction

        molecule = self._checked(atoms)
        functional = EnergyFunctional(molecule, self.method)
        hamiltonian = prediction.predict_hamiltonian(self.network, molecule, functional)
        if ao_order == "canonical":
            return hamiltonian
        return from_canonical(hamiltonian, self.method.basis, molecule.atomic_numbers)

    def energy(self, atoms: Any) -> float:
        """Total energy E[P] of the predicted density, Hartree, by one Fock build in PySCF.

        The error is of second order in that of the density.

        Raises:
            ValueError: as `hamiltonian`.
        """
        from helm_scale.dft.energies import EnergyFunctional
        from helm_scale.evaluation import guess

        molecule = self._checked(atoms)
        functional = EnergyFunctional(molecule, self.method)
        density = guess.predict_density(self.network, molecule, functional, choice=self._choice())
        return functional.energy_and_fock(density)[0]

    def solver(self, atoms: Any) -> Any:
        """PySCF's RKS in the method of the labels: functional, basis with its ECP, grid.

        Raises:
            ValueError: as `hamiltonian`.
        """
        from helm_scale.dft.molecule import build_mol, kohn_sham

        return kohn_sham(build_mol(self._checked(atoms), self.method.basis), self.method)

    def initial_guess(self, mol: Any, *, check: bool = True) -> np.ndarray:
        """Density matrix to start an SCF from: `mf.kernel(dm0=model.initial_guess(mf.mol))`.

        Args:
            mol: a PySCF Mole in the basis of the model, with its ECP; closed shell.
            check: give PySCF's minao density, with a warning, where the energy of the predicted
                one lies above what minao's first cycle reaches; takes two Fock builds and H0.
        Returns:
            [nao, nao], PySCF's AO order.
        Raises:
            ValueError: another basis, no ECP, ghost atoms, or elements, charge or multiplicity
                outside the model's range.
        """
        from helm_scale.dft.molecule import from_pyscf
        from helm_scale.evaluation import guess

        molecule = from_pyscf(mol, self.method.basis)
        self.domain_check([molecule])
        density_of = guess.checked_density if check else guess.initial_density
        return density_of(self.network, molecule, self.method, choice=self._choice())

    def _choice(self) -> "Choice":
        """Whether predictions are projected, and why; said in the log."""
        from helm_scale.evaluation import kohn_sham

        choice = kohn_sham.choose(
            self.projection, error=self.validation_error, basis=self.method.basis
        )
        _log.info("%s", choice)
        return choice

    def _checked(self, atoms: Any) -> Molecule:
        """The molecule, if the model can predict it."""
        from helm_scale.evaluation import prediction

        molecule = molecule_of(atoms)
        prediction.check_molecules([molecule], self.method.basis)
        self.domain_check([molecule])
        return molecule


class EnergyCalculator(calculator.EnergyCalculator):
    """ASE calculator of a finetuned model: `EnergyCalculator("runs/finetune/finetuned")`."""

    def __init__(
        self,
        model: nn.Module | str | Path,
        *,
        allow_extrapolation: bool = False,
        **keywords: Any,
    ) -> None:
        """Take a folder that `helm-scale finetune` wrote, or a module GraphBatch -> energies [B].

        Args:
            model: a module gives Hartree and has a `config`, its ModelConfig.
            allow_extrapolation, keywords: as of export/calculator.py.
        Raises:
            ValueError: nothing to load there, or no model of energies.
        """
        if isinstance(model, str | Path):
            model = load_energy_model(model)[0].to(best_device())
        super().__init__(model, allow_extrapolation=allow_extrapolation, **keywords)


def load(
    path: str | Path,
    *,
    projection: Literal["auto", "on", "off"] = "auto",
    allow_extrapolation: bool = False,
) -> HamiltonianModel:
    """Load a Hamiltonian model from a run folder, a checkpoint or a bundle, onto a GPU if any.

    Args:
        projection: as of HamiltonianModel.
        allow_extrapolation: take molecules unlike those of training without a word.
    Raises:
        ValueError: nothing to load there, a changed bundle, or files that do not fit each other.
    """
    network, method = load_predictor(path)
    error = validation_error(path)
    return HamiltonianModel(
        network,
        method,
        validation_error=error,
        projection=projection,
        allow_extrapolation=allow_extrapolation,
    )
