"""The backbone for those who have this package: the loader's interface on the package's modules.

Unlike the loader, it starts at once, moves with `.to(device)`, and checks the files of the bundle.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helm_scale.config import read_record
from helm_scale.export import bundle, loader
from helm_scale.export.atoms import molecule_of
from helm_scale.export.program import LayerFeatures


class Backbone(loader.Backbone):
    """Node features of molecules; export/loader.py has axes, arguments and errors."""

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "Backbone":
        """Load a bundle, in evaluation mode, with trainable weights.

        Raises:
            ValueError: no bundle, or one with a missing or changed file.
        """
        folder = Path(path)
        bundle.check_sums(folder)
        record = read_record(folder / "config.json")
        return cls(LayerFeatures(bundle.trunk(folder)), record).eval()

    def read_atoms(self, atoms: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions, atomic numbers, charge and multiplicity of ASE Atoms, by all known names."""
        molecule = molecule_of(atoms)
        return (
            torch.from_numpy(molecule.positions),
            torch.from_numpy(molecule.atomic_numbers),
            torch.tensor([molecule.charge]),
            torch.tensor([molecule.spin_multiplicity]),
        )
