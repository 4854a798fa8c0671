"""ASE calculator of energy models: energies, and forces that are their exact negative gradient."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from torch import nn

from helm_scale.data.graphs.collate import collate
from helm_scale.export.atoms import molecule_of
from helm_scale.export.batches import ATOMS, packed, with_progress
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

    def evaluate(
        self, frames: Iterable[ase.Atoms], *, atoms_per_batch: int = ATOMS, progress: bool = False
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Energies (eV) and forces [N, 3] (eV/Angstrom) of many molecules, in their order.

        Small molecules share a batch, which is faster than one after another.

        Args:
            atoms_per_batch: atoms of one batch; a larger molecule is a batch of its own.
            progress: show a progress bar.
        Raises:
            ValueError: as `calculate`.
        """
        device = next(self.model.parameters()).device
        molecules = with_progress((molecule_of(frame) for frame in frames), progress)
        for members in packed(molecules, atoms_per_batch, size=lambda m: len(m.atomic_numbers)):
            self.domain_check(members)
            batch = collate(members, self.model.config).to(device)  # type: ignore[arg-type]
            positions = batch.positions.requires_grad_()
            energies = self.model(batch)
            gradient = torch.autograd.grad(energies.sum(), positions)[0].cpu().numpy()
            ends = np.cumsum([len(m.atomic_numbers) for m in members])[:-1]
            forces = np.split(-gradient * HARTREE_IN_EV, ends)
            yield from zip((energies.detach() * HARTREE_IN_EV).tolist(), forces, strict=True)

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
