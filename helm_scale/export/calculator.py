"""ASE calculator of energy models: energies, and forces that are their exact negative gradient."""

from collections.abc import Sequence
from typing import Any

import ase
import torch
from ase.calculators.calculator import Calculator, all_changes
from torch import nn

from helm_scale.data.graphs.collate import collate
from helm_scale.export.atoms import molecule_of
from helm_scale.reading.domain import DomainCheck
from helm_scale.reading.identity import identity_names
from helm_scale.units import HARTREE_IN_EV


class EnergyCalculator(Calculator):
    """`atoms.calc = EnergyCalculator(model)`: energy in eV, forces in eV/Angstrom.

    Atoms must not be periodic.
    Charge (0 where absent) and multiplicity (1) stand in atoms.info, as "charge" and "spin" (2S+1)
    or under another name that reading/identity.py knows.
    Property: forces sum to zero and equal finite differences of the energy; the energy does not
    change when atoms are moved together, turned, or put in another order.
    """

    implemented_properties = ["energy", "free_energy", "forces"]

    def __init__(
        self, model: nn.Module, *, allow_extrapolation: bool = False, **keywords: Any
    ) -> None:
        """Take a model GraphBatch -> energies [B], Hartree, whose `config` is its ModelConfig.

        Args:
            allow_extrapolation: take molecules unlike those of training without a word.
            keywords: of ASE's Calculator.
        """
        super().__init__(**keywords)
        self.model = model.eval()
        domain = getattr(model, "training_domain", None)
        self.domain_check = DomainCheck(domain, allow_extrapolation)

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation.

        ASE does not watch charge and multiplicity; a change of them counts as `info`.
        """
        changed = super().check_state(atoms, tol=tol)
        if self.atoms is not None and identity_names(self.atoms.info) != identity_names(atoms.info):
            changed.append("info")
        return changed

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`.

        Raises:
            ValueError: periodic atoms, an element, charge or multiplicity that the model does not
                take or training did not show, or a multiplicity that does not fit the number of
                electrons.
        """
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        device = next(self.model.parameters()).device
        molecule = molecule_of(self.atoms)
        self.domain_check([molecule])
        batch = collate([molecule], self.model.config).to(device)  # type: ignore[arg-type]
        positions = batch.positions.requires_grad_()
        energy = self.model(batch).sum()
        # free_energy is what ASE's optimisers ask for; without smearing the two are one.
        self.results["energy"] = self.results["free_energy"] = (
            float(energy.detach()) * HARTREE_IN_EV
        )
        if "forces" in properties:
            gradient = torch.autograd.grad(energy, positions)[0]
            self.results["forces"] = -gradient.cpu().numpy() * HARTREE_IN_EV
