"""Read QH9 (Yu et al., arXiv:2306.09549): stable molecules, and trajectories.

sqlite, B3LYP/def2-SVP, PySCF's AO order, float64, without overlap, energy or forces. PySCF 2.3
changed what "b3lyp" means; labels made before it are "b3lyp5".
"""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helm_scale.basis.shells import nao
from helm_scale.config import ImportConfig
from helm_scale.importers import published_splits
from helm_scale.importers.source import Address, Importer, SourceSample, listed_shells
from helm_scale.importers.sqlite import SqliteTable, array, table_columns
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

METHOD = Method(
    xc="b3lyp5",
    basis="def2-svp",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-13,
    baseline="none",
    program="PySCF 2.2.1",
)
# Of train, validation and test, by the name of the division.
STABLE_SIZES = {"id": (104664, 13083, 13084), "ood": (104001, 17495, 9335)}
# Editions of QH9Dynamic: number of geometries of all molecules -> of each molecule.
GEOMETRIES_PER_MOLECULE = {99900: 100, 269800: 100, 299800: 100, 143940: 60}
COLUMNS = (0, 1, 2, 3, 4, 9)  # of QH9Dynamic: molecule, geometry, N, Z, positions, Hamiltonian
# Of each trajectory: geometries for train, validation and test, by its length.
SHARES_OF_GEOMETRIES = {100: (80, 10, 10), 60: (50, 5, 5)}


class Qh9Stable:
    """QH9Stable.db: table data(id, N, Z, pos in Angstrom, Ham)."""

    def __init__(self, path: Path, config: ImportConfig) -> None:
        self.method: Method | None = METHOD
        self._path = path
        self._table = SqliteTable(path, "data", ("id", "N", "Z", "pos", "Ham"))

    def addresses(self) -> list[int]:
        """Row numbers."""
        return self._table.numbers()

    def read(self, address: Address) -> SourceSample:
        """Read one molecule."""
        number, atoms, *blobs = self._table.row(int(address))
        return _sample(
            f"qh9-{int(number):06d}",
            int(atoms),
            blobs=blobs,
            angstrom=1.0,
            where=f"{self._path}, row {address}",
        )

    def splits(self, name: str) -> np.ndarray:
        """Division "id" (a permutation) or "ood" (by atoms: to 20, 21 and 22, from 23)."""
        where = f"{self._path}, split {name}"
        if name not in STABLE_SIZES:
            raise published_splits.unknown(str(self._path), name, list(STABLE_SIZES))
        rows = self._table.query("SELECT N FROM data ORDER BY rowid")
        atoms = np.array([row[0] for row in rows])
        published_splits.check_count(where, len(atoms), sum(STABLE_SIZES[name]))
        division = divide_by_permutation(len(atoms)) if name == "id" else divide_by_size(atoms)
        published_splits.check_sizes(where, division, STABLE_SIZES[name])
        return division


class Qh9Dynamic:
    """QH9Dynamic.db: columns molecule, geometry, N, Z, pos in bohr, four more, Ham, by position."""

    def __init__(self, path: Path, config: ImportConfig) -> None:
        self.method: Method | None = METHOD
        columns = table_columns(path, "data")
        if len(columns) < 10:
            raise ValueError(
                f"{path}: table 'data' has {len(columns)} columns, wanted 10 of QH9Dynamic;"
                " is it QH9Stable?"
            )
        self._path = path
        self._table = SqliteTable(path, "data", [columns[place] for place in COLUMNS])

    def addresses(self) -> list[int]:
        """Row numbers."""
        return self._table.numbers()

    def read(self, address: Address) -> SourceSample:
        """Read one geometry."""
        molecule, geometry, atoms, *blobs = self._table.row(int(address))
        return _sample(
            f"qh9d-{_integer(molecule):06d}-{_integer(geometry):04d}",
            _integer(atoms),
            blobs=blobs,
            angstrom=BOHR_IN_ANGSTROM,
            where=f"{self._path}, row {address}",
        )

    def splits(self, name: str) -> np.ndarray:
        """Division "geometry" (within every trajectory) or "molecule" (whole trajectories)."""
        count = len(self.addresses())
        if name not in ("geometry", "molecule"):
            raise published_splits.unknown(str(self._path), name, ["geometry", "molecule"])
        if count not in GEOMETRIES_PER_MOLECULE:
            known = ", ".join(map(str, sorted(GEOMETRIES_PER_MOLECULE)))
            raise ValueError(
                f"{self._path}: {count} geometries, published editions have {known};"
                " take --split none"
            )
        per_molecule = GEOMETRIES_PER_MOLECULE[count]
        divide = divide_geometries if name == "geometry" else divide_molecules
        return divide(count // per_molecule, per_molecule)


# The random generators below are those of the published scripts: another one, or another order of
# calls, gives other splits than those that results are reported on.


def divide_by_permutation(count: int) -> np.ndarray:
    """Division "id" of QH9Stable, by the random numbers that its authors used."""
    return published_splits.divide(
        np.random.RandomState(43).permutation(count), published_splits.shares(count)
    )


def divide_by_size(atoms: np.ndarray) -> np.ndarray:
    """Division "ood" of QH9Stable."""
    return np.array(published_splits.NAMES, dtype=object)[np.digitize(atoms, [21, 23])]


def divide_geometries(molecules: int, per_molecule: int) -> np.ndarray:
    """Division "geometry" of QH9Dynamic: each trajectory by RandomState(number of its last row)."""
    sizes = SHARES_OF_GEOMETRIES[per_molecule]
    ends = range(per_molecule - 1, molecules * per_molecule, per_molecule)
    orders = (np.random.RandomState(end).permutation(per_molecule) for end in ends)
    return np.concatenate([published_splits.divide(order, sizes) for order in orders])


def divide_molecules(molecules: int, per_molecule: int) -> np.ndarray:
    """Division "molecule" of QH9Dynamic: trajectories shuffled by Python's Random(43)."""
    order = list(range(molecules))
    random.Random(43).shuffle(order)
    splits = published_splits.divide(np.array(order), published_splits.shares(molecules))
    return np.repeat(splits, per_molecule)


def _integer(value: int | bytes) -> int:
    """A number stored as such or as the bytes of a numpy integer."""
    # Python's sqlite3 writes an int64 of numpy as a blob, as it does not know the type.
    return int.from_bytes(value, "little", signed=True) if isinstance(value, bytes) else int(value)


def _sample(
    key: str, atoms: int, *, blobs: Sequence[bytes], angstrom: float, where: str
) -> SourceSample:
    """Make a sample of the blobs Z, positions and Hamiltonian; angstrom: per unit of length."""
    numbers, positions, matrix = blobs
    z = array(numbers, "int32", (atoms,), f"{where}, Z").astype(np.int64)
    shells = listed_shells("pyscf", METHOD.basis, z, where)
    size = sum(nao(METHOD.basis, int(number)) for number in z)
    lengths = array(positions, "float64", (atoms, 3), f"{where}, pos")
    return SourceSample(
        molecule=Molecule(key, z, angstrom * lengths),
        order="pyscf",
        shells=shells,
        matrices={"hamiltonian": array(matrix, "float64", (size, size), f"{where}, Ham")},
    )


# PySCF's own float64 matrices, so that only version and grid can differ.
QH9_STABLE = Importer(open=Qh9Stable, licence="CC-BY-NC-SA-4.0", consistency=5e-6)
QH9_DYNAMIC = Importer(open=Qh9Dynamic, licence="CC-BY-NC-SA-4.0", consistency=5e-6)
