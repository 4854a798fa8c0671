"""Read the MD17 Hamiltonians of SchNOrb (Schuett et al., Nat. Commun. 10, 5024 (2019)).

An ASE database per molecule, PBE/def2-SVP by ORCA. Matrices are float32 and carry some 0.25
microhartree of ORCA's print.
"""

from pathlib import Path

import ase.db
import numpy as np

from helm_scale.config import ImportConfig
from helm_scale.importers import published_splits
from helm_scale.importers.source import Address, Importer, SourceSample, listed_shells
from helm_scale.importers.sqlite import SqliteTable
from helm_scale.types import Method, Molecule

METHOD = Method(
    xc="pbe",
    basis="def2-svp",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-9,
    baseline="none",
    program="ORCA",
)
LABELS = ("energy", "forces", "hamiltonian", "overlap")
# Of train, validation and test, by formula, as published.
SIZES = {
    "H2O": (500, 500, 3900),
    "C2H6O": (25000, 500, 4500),
    "C3H4O2": (25000, 500, 1478),
    "C4H4N2O2": (25000, 500, 4500),
}


class Md17:
    """One molecule's database.

    Raises:
        ValueError: no ASE database there.
    """

    def __init__(self, path: Path, config: ImportConfig) -> None:
        self.method: Method | None = METHOD
        self._path = path
        # ASE looks at the file only when it reads a row; the table names a wrong one at once.
        self._table = SqliteTable(path, "systems", ("id", "numbers", "positions", "data"))
        self._database = ase.db.connect(str(path), type="db")

    def addresses(self) -> list[int]:
        """The database's own numbers of its systems, ascending."""
        return [row[0] for row in self._table.query("SELECT id FROM systems ORDER BY id")]

    def read(self, address: Address) -> SourceSample:
        """Read one system; forces in Hartree/Angstrom.

        Raises:
            ValueError: a label is missing.
        """
        row = self._database.get(id=address)
        missing = [name for name in LABELS if name not in row.data]
        if missing:
            raise ValueError(
                f"{self._path}, row {address}: no {', '.join(missing)} in its data;"
                " wanted a SchNOrb database"
            )
        data = {name: np.asarray(row.data[name]) for name in LABELS}
        # int64 and float64 as everywhere here; ASE hands out what it has stored.
        numbers = np.asarray(row.numbers, dtype=np.int64)
        molecule = Molecule(
            key=f"md17-{row.formula}-{address}",
            atomic_numbers=numbers,
            positions=np.asarray(row.positions, dtype=np.float64),
            energy=float(data["energy"].reshape(())),
            forces=data["forces"].astype(np.float64),
        )
        return SourceSample(
            molecule=molecule,
            order="orca",
            shells=listed_shells("orca", METHOD.basis, numbers, molecule.key),
            matrices={name: data[name] for name in ("hamiltonian", "overlap")},
        )

    def splits(self, name: str) -> np.ndarray:
        """Division "published": a permutation by numpy's RandomState(42).

        Raises:
            ValueError: another name, another molecule, or another number of frames.
        """
        if name != "published":
            raise published_splits.unknown(str(self._path), name, ["published"])
        addresses = self.addresses()
        formula = self._database.get(id=addresses[0]).formula
        if formula not in SIZES:
            raise ValueError(
                f"{self._path}: no published split of {formula}; known: {', '.join(SIZES)};"
                " take --split none"
            )
        # RandomState and not default_rng: published permutations are those of the old generator.
        published_splits.check_count(str(self._path), len(addresses), sum(SIZES[formula]))
        return published_splits.divide(
            np.random.RandomState(42).permutation(len(addresses)), SIZES[formula]
        )


# ORCA's print rounds H, and F[P(H)] differs by that and by the grids of two programs.
MD17 = Importer(open=Md17, licence="MIT", consistency=20e-6)
