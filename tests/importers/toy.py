"""The smallest importer, as CONTRIBUTING describes one: an npz file that holds one molecule."""

from pathlib import Path

import numpy as np

from helm_scale.config import ImportConfig
from helm_scale.importers import published_splits
from helm_scale.importers.source import Address, Importer, SourceSample, listed_shells
from helm_scale.types import Method, Molecule
from tests.importers.conftest import PLAIN


class Toy:
    """One molecule, its Hamiltonian in PySCF's order."""

    def __init__(self, path: Path, config: ImportConfig) -> None:
        self.method: Method | None = PLAIN
        self._path = path
        with np.load(path) as stored:
            self._arrays = dict(stored)

    def addresses(self) -> list[int]:
        """The one molecule."""
        return [0]

    def read(self, address: Address) -> SourceSample:
        """Read it."""
        numbers = self._arrays["numbers"]
        return SourceSample(
            molecule=Molecule(f"toy-{address}", numbers, self._arrays["positions"]),
            order="pyscf",
            shells=listed_shells("pyscf", PLAIN.basis, numbers, str(self._path)),
            matrices={"hamiltonian": self._arrays["hamiltonian"]},
        )

    def splits(self, name: str) -> np.ndarray:
        """No published division."""
        raise published_splits.unknown(str(self._path), name, [])


TOY = Importer(open=Toy, licence="CC0-1.0", consistency=5e-6)
