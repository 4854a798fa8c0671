"""Read nablaDFT (Khrabrov et al., PCCP 24, 25853 (2022)): conformers of drug-like molecules.

sqlite, wB97X-D/def2-SVP by Psi4, float32. Blobs carry no shape; the basis of every element is a
table of the file. Forces are all zero in several files and then left out; energies are rounded to
float32 (6e-5 Hartree).
"""

from pathlib import Path

import numpy as np

from helm_scale.basis import elements
from helm_scale.config import ImportConfig
from helm_scale.importers import published_splits
from helm_scale.importers.source import Address, Importer, SourceSample
from helm_scale.importers.sqlite import SqliteTable, array
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

METHOD = Method(
    xc="hyb_gga_xc_wb97x_d",  # libxc's name; the dispersion of wB97X-D is no part of H
    basis="def2-svp",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-8,
    baseline="none",
    program="Psi4",
)
# Samples of the published training files.
SIZES = {"train-2k": 5768, "train-5k": 20349, "train-10k": 38364, "train-100k": 436581}


class NablaDft:
    """A Hamiltonian database: tables data, dataset_ids, nuclear_charges, basisset, metadata."""

    def __init__(self, path: Path, config: ImportConfig) -> None:
        self.method: Method | None = METHOD
        self._path = path
        self._table = SqliteTable(path, "data", ("id", "Z", "R", "E", "F", "H", "S"))
        self._ids = SqliteTable(path, "dataset_ids", ("MOSES_ID", "CONFORMER_ID"))
        # Psi4 lists shells in an order of its own, which the file states element by element.
        basis = SqliteTable(path, "basisset", ("Z", "orbitals"))
        self._shells = {
            int(z): tuple(int(degree) for degree in np.frombuffer(blob, dtype="<i4"))
            for z, blob in basis.query("SELECT Z, orbitals FROM basisset")
        }

    def addresses(self) -> list[int]:
        """Row numbers.

        Raises:
            ValueError: fewer or more rows than the file's own count.
        """
        numbers = self._table.numbers()
        stated = self._table.query("SELECT N FROM metadata WHERE id = 0")
        if stated and stated[0][0] != len(numbers):
            raise ValueError(
                f"{self._path}: {len(numbers)} samples, but its table metadata says"
                f" {stated[0][0]}; get it anew"
            )
        return numbers

    def read(self, address: Address) -> SourceSample:
        """Read one conformer; forces (Hartree/bohr in the file) only if any is not zero."""
        where = f"{self._path}, row {address}"
        _, numbers, positions, energy, forces, hamiltonian, overlap = self._table.row(int(address))
        if numbers is None or len(numbers) % 4 or energy is None:  # int32: four bytes an atom
            raise ValueError(f"{where}: no atomic numbers or no energy; get the file anew")
        shape = (len(numbers) // 4, 3)
        z = array(numbers, "int32", shape[:1], f"{where}, Z").astype(np.int64)
        shells = self._shells_of(z, where)
        nao = sum(2 * degree + 1 for listed in shells for degree in listed)
        blobs = {"hamiltonian": hamiltonian, "overlap": overlap}
        moses, conformer = self._ids.row(int(address))
        molecule = Molecule(
            key=f"nabla-{moses}-{conformer}",
            atomic_numbers=z,
            # Widened before the product: float32 positions would be rounded once more.
            positions=BOHR_IN_ANGSTROM
            * array(positions, "float32", shape, f"{where}, R").astype(np.float64),
            energy=float(energy),
            forces=_forces(forces, shape, f"{where}, F"),
        )
        return SourceSample(
            molecule=molecule,
            order="psi4",
            shells=shells,
            matrices={
                name: array(blob, "float32", (nao, nao), f"{where}, {name}")
                for name, blob in blobs.items()
            },
        )

    def splits(self, name: str) -> np.ndarray:
        """The file as a whole: a published training set, or "test" (published in many parts)."""
        if name not in (*SIZES, "test"):
            raise published_splits.unknown(str(self._path), name, [*SIZES, "test"])
        count = len(self.addresses())
        published_splits.check_count(f"{self._path}, split {name}", count, SIZES.get(name, count))
        return np.full(count, name.split("-")[0], dtype=object)  # "train-2k" is a training split

    def _shells_of(self, atomic_numbers: np.ndarray, where: str) -> tuple[tuple[int, ...], ...]:
        """Degrees of every atom's shells as the file lists them."""
        elements.check_supported(METHOD.basis, atomic_numbers, where)
        strangers = sorted({int(z) for z in atomic_numbers} - set(self._shells))
        if strangers:
            raise ValueError(
                f"{where}: its table basisset lacks element {elements.symbol(strangers[0])};"
                " get the file anew"
            )
        return tuple(self._shells[int(z)] for z in atomic_numbers)


def _forces(blob: bytes | None, shape: tuple[int, ...], where: str) -> np.ndarray | None:
    """Forces in Hartree/Angstrom; None where the file has none, or zeros in their place."""
    if not blob:
        return None
    forces = array(blob, "float32", shape, where).astype(np.float64) / BOHR_IN_ANGSTROM
    # Several files have zeros in their place; no molecule has forces of exactly zero.
    return forces if forces.any() else None


NABLA_DFT = Importer(open=NablaDft, licence="MIT", consistency=50e-6)
