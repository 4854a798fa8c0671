"""The backbone for those who have this package: the loader's interface on the package's modules.

Unlike the loader, it starts at once, runs no program of the bundle, moves with `.to(device)`,
checks the files of the bundle, and holds molecules against what the model was trained on.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helm_scale.config import read_record
from helm_scale.export import bundle, loader, shipped
from helm_scale.export.atoms import molecule_of
from helm_scale.export.batches import ATOMS, packed, with_progress
from helm_scale.export.program import LayerFeatures
from helm_scale.reading.domain import DomainCheck, TrainingDomain
from helm_scale.types import Molecule


class Backbone(loader.Backbone):
    """Node features of molecules; export/loader.py has axes, arguments and errors.

    Attributes:
        domain_check: refuses elements that training did not show and warns of what is extrapolated.
    """

    def __init__(
        self, network: nn.Module, record: dict[str, Any], *, allow_extrapolation: bool = False
    ) -> None:
        super().__init__(network, record)
        domain = TrainingDomain.read(record, "config.json")
        self.domain_check = DomainCheck(domain, allow_extrapolation)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, allow_extrapolation: bool = False) -> "Backbone":
        """Load a bundle, in evaluation mode, with trainable weights.

        Args:
            allow_extrapolation: take molecules unlike those of training without a word.
        Raises:
            ValueError: no bundle, or one with a missing or changed file.
        """
        folder = shipped.resolve(path)
        bundle.check_sums(folder)
        record = read_record(folder / "config.json")
        network = LayerFeatures(bundle.trunk(folder))
        return cls(network, record, allow_extrapolation=allow_extrapolation).eval()

    def features_of(
        self,
        frames: Iterable[Any],
        layer: int = -1,
        invariants: bool = False,
        *,
        atoms_per_batch: int = ATOMS,
        progress: bool = False,
    ) -> Iterator[Tensor]:
        """Features of many molecules, one tensor each, in their order; as `features` otherwise.

        Small molecules share a batch, which is faster than one after another.

        Args:
            atoms_per_batch: atoms of one batch; a larger molecule is a batch of its own.
            progress: show a progress bar.
        """
        device = next(self.parameters()).device
        for members in packed(with_progress(frames, progress), atoms_per_batch, size=len):
            parts = zip(*(self.read_atoms(atoms) for atoms in members), strict=True)
            positions, numbers, charge, spin = (torch.cat(part).to(device) for part in parts)
            sizes = [len(atoms) for atoms in members]
            batch = torch.repeat_interleave(torch.tensor(sizes, device=device))
            edge_index = loader.neighbours(positions, batch, self.cutoff)
            features = self(positions, numbers, edge_index, batch, charge, spin, layer=layer)
            yield from (features[:, 0] if invariants else features).split(sizes)

    def read_atoms(self, atoms: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions, atomic numbers, charge and multiplicity of ASE Atoms, by all known names."""
        molecule = molecule_of(atoms)
        return (
            torch.from_numpy(molecule.positions),
            torch.from_numpy(molecule.atomic_numbers),
            torch.tensor([molecule.charge]),
            torch.tensor([molecule.spin_multiplicity]),
        )

    def _check_molecules(
        self, atomic_numbers: Tensor, batch: Tensor, charge: Tensor, spin: Tensor
    ) -> None:
        super()._check_molecules(atomic_numbers, batch, charge, spin)
        if self.domain_check.allow_extrapolation:
            return
        order = torch.argsort(batch, stable=True)
        ends = torch.bincount(batch, minlength=len(charge)).cumsum(0)
        elements = np.split(atomic_numbers[order].cpu().numpy(), ends[:-1].tolist())
        self.domain_check(
            [
                Molecule(f"molecule {i}", z, np.zeros((len(z), 3)), charge=q, spin_multiplicity=s)
                for i, (z, q, s) in enumerate(
                    zip(elements, charge.tolist(), spin.tolist(), strict=True)
                )
            ]
        )
