"""Small files in the exact layout of each public dataset, from PySCF's matrices.

AOs are carried into the foreign order by the names that PySCF gives its functions, not by the
tables of the package.
"""

import sqlite3
from pathlib import Path

import ase.db
import h5py
import numpy as np

from helm_scale.dft.molecule import build_mol, from_canonical
from helm_scale.types import Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

SVP_SHELLS = {
    1: (0, 0, 1),
    6: (0, 0, 0, 1, 1, 2),
    7: (0, 0, 0, 1, 1, 2),
    8: (0, 0, 0, 1, 1, 2),
    9: (0, 0, 0, 1, 1, 2),
}
OXYGEN = (0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 0, 1, 2)  # its diffuse s, p and d come last
IODINE = (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 0, 1, 2)
TZVPD_SHELLS = {
    1: (0, 0, 0, 1, 1),
    3: (0, 0, 0, 0, 0, 1, 1, 1, 1),
    8: OXYGEN,
    9: OXYGEN,
    53: IODINE,
}
ORDER_OF_NAME = {
    "": 0,
    "x": 1,
    "y": -1,
    "z": 0,
    "xy": -2,
    "yz": -1,
    "z^2": 0,
    "xz": 1,
    "x2-y2": 2,
} | {f"{m:+d}": m for m in range(-3, 4)}
ORCA_ORDERS = (0, 1, -1, 2, -2, 3, -3)


def functions(molecule: Molecule, basis: str) -> list[tuple[int, int, int, int]]:
    """(atom, degree, number of the shell within its degree, m) of PySCF's functions, by name."""
    found, seen = [], {}
    for atom, _, shell, name in build_mol(molecule, basis).ao_labels(fmt=None):
        degree = "spdf".index(shell[-1])
        order = ORDER_OF_NAME[name]
        number = seen[atom, degree, order] = seen.get((atom, degree, order), -1) + 1
        found.append((atom, degree, number, order))
    return found


def foreign(
    molecule: Molecule, matrix: np.ndarray, program: str, shells: dict[int, tuple[int, ...]]
) -> np.ndarray:
    """A canonical matrix in the AO order of ORCA or Psi4, the atoms' shells as listed."""
    assert molecule.method is not None
    basis = molecule.method.basis
    place = {function: number for number, function in enumerate(functions(molecule, basis))}
    index, sign = [], []
    for atom, z in enumerate(molecule.atomic_numbers):
        seen: dict[int, int] = {}
        for degree in shells[int(z)]:
            orders = [m for m in ORCA_ORDERS if abs(m) <= degree]
            for order in orders:
                index.append(place[atom, degree, seen.get(degree, 0), order])
                sign.append(-1.0 if program == "orca" and abs(order) == 3 else 1.0)
            seen[degree] = seen.get(degree, 0) + 1
    return from_canonical(matrix, basis, molecule.atomic_numbers)[np.ix_(index, index)] * np.outer(
        sign, sign
    )


def pyscf_order(molecule: Molecule) -> np.ndarray:
    """The Hamiltonian in PySCF's AO order."""
    assert molecule.method is not None and molecule.hamiltonian is not None
    return from_canonical(molecule.hamiltonian, molecule.method.basis, molecule.atomic_numbers)


def write_md17(
    path: Path, molecules: list[Molecule], program: str = "orca", unit: float = 1.0
) -> Path:
    """SchNOrb's ASE database; unit: multiplies positions."""
    with ase.db.connect(str(path), type="db") as database:
        for molecule in molecules:
            matrices = {
                name: (
                    pyscf_order(molecule)
                    if program == "pyscf"
                    else foreign(molecule, matrix, program, SVP_SHELLS)
                ).astype(np.float32)
                for name, matrix in (
                    ("hamiltonian", molecule.hamiltonian),
                    ("overlap", molecule.overlap),
                )
            }
            if program == "pyscf":
                matrices["overlap"] = (
                    build_mol(molecule, "def2-svp").intor("int1e_ovlp").astype(np.float32)
                )
            atoms = ase.Atoms(numbers=molecule.atomic_numbers, positions=unit * molecule.positions)
            database.write(
                atoms,
                data={"energy": np.array([molecule.energy]), "forces": molecule.forces, **matrices},
            )
    return path


def write_qh9_stable(path: Path, molecules: list[Molecule], unit: float = 1.0) -> Path:
    """QH9Stable.db."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE data (id INTEGER, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)")
        for number, m in enumerate(molecules):
            numbers, positions = (
                m.atomic_numbers.astype(np.int32),
                (unit * m.positions).astype(np.float64),
            )
            row = (
                number,
                len(numbers),
                numbers.tobytes(),
                positions.tobytes(),
                pyscf_order(m).tobytes(),
            )
            database.execute("INSERT INTO data VALUES (?, ?, ?, ?, ?)", row)
    return path


def write_qh9_dynamic(path: Path, molecules: list[Molecule]) -> Path:
    """QH9Dynamic.db: ids are the bytes of an int64, lengths in bohr, H in column 9."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE data (id, geo_id, N, Z, pos, energy, forces, mo, occ, Ham)")
        for number, m in enumerate(molecules):
            numbers, positions = m.atomic_numbers.astype(np.int32), m.positions / BOHR_IN_ANGSTROM
            row = (
                np.int64(7).tobytes(),
                number,
                len(numbers),
                numbers.tobytes(),
                positions.tobytes(),
                0.0,
                b"",
                b"",
                b"",
            )
            database.execute(
                f"INSERT INTO data VALUES ({', '.join('?' * 10)})", (*row, pyscf_order(m).tobytes())
            )
    return path


def write_nabla_dft(
    path: Path, molecules: list[Molecule], forces: bool = True, factor: float = 1.0
) -> Path:
    """A Hamiltonian database of nablaDFT.

    forces: all zero if not wanted. factor: multiplies the Hamiltonian.
    """

    def blob(values: np.ndarray, kind: type = np.float32) -> bytes:
        return np.ascontiguousarray(values, dtype=kind).tobytes()

    with sqlite3.connect(path) as database:
        number = "id INTEGER NOT NULL PRIMARY KEY"
        database.execute(f"CREATE TABLE dataset_ids ({number}, MOSES_ID INT, CONFORMER_ID INT)")
        database.execute(
            f"CREATE TABLE data ({number}, Z BLOB, R BLOB, E FLOAT, F BLOB, H BLOB, S BLOB, C BLOB)"
        )
        database.execute(f"CREATE TABLE nuclear_charges ({number}, N INTEGER, Z BLOB)")
        database.execute("CREATE TABLE basisset (Z INTEGER NOT NULL PRIMARY KEY, orbitals BLOB)")
        database.execute("CREATE TABLE metadata (id INTEGER PRIMARY KEY, N INTEGER)")
        database.executemany(
            "INSERT INTO basisset VALUES (?, ?)",
            [(z, blob(shells, np.int32)) for z, shells in SVP_SHELLS.items()],
        )
        database.execute("INSERT INTO metadata VALUES (0, ?)", (len(molecules),))
        for number, m in enumerate(molecules):
            assert (
                m.hamiltonian is not None
                and m.overlap is not None
                and m.energy is not None
                and m.forces is not None
            )
            pull = blob(m.forces * BOHR_IN_ANGSTROM * forces)
            h, s = (
                blob(foreign(m, matrix, "psi4", SVP_SHELLS))
                for matrix in (factor * m.hamiltonian, m.overlap)
            )
            row = (
                number,
                blob(m.atomic_numbers, np.int32),
                blob(m.positions / BOHR_IN_ANGSTROM),
                float(np.float32(m.energy)),
                pull,
                h,
                s,
            )
            database.execute(
                "INSERT INTO data VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, blob(np.zeros_like(m.hamiltonian))),
            )
            database.execute("INSERT INTO dataset_ids VALUES (?, ?, ?)", (number, 1000, number))
    return path


def write_omol(path: Path, molecules: list[Molecule], defect: bool = True) -> Path:
    """OMol_CSH HDF5: nested groups, packed upper triangles.

    With the release's defect, or reordered with the true list.
    """
    with h5py.File(path, "w") as file:
        for number, m in enumerate(molecules):
            assert m.hamiltonian is not None
            printed = foreign(m, m.hamiltonian, "orca", TZVPD_SHELLS)
            ascending = _release(printed, m, sort=defect)
            group = file.create_group(
                f"batch_{number % 2}/{m.key}.sub/mol{number}_{m.charge}_{m.spin_multiplicity}"
            )
            group["fock"] = ascending[np.triu_indices(len(ascending))]
            group["elements"], group["coords"] = m.atomic_numbers.astype(np.int32), m.positions
            group.attrs["charge"], group.attrs["spin"] = m.charge, m.spin_multiplicity
    return path


def _release(printed: np.ndarray, molecule: Molecule, sort: bool) -> np.ndarray:
    """What the release did with ORCA's matrix.

    Every shell of a list is m-ascending with its signs; the list is sorted or true.
    """
    index, sign, start = [], [], 0
    for z in molecule.atomic_numbers:
        for degree in sorted(TZVPD_SHELLS[int(z)]) if sort else TZVPD_SHELLS[int(z)]:
            orders = [m for m in ORCA_ORDERS if abs(m) <= degree]
            index += [start + orders.index(m) for m in sorted(orders)]
            sign += [-1.0 if abs(m) == 3 else 1.0 for m in sorted(orders)]
            start += 2 * degree + 1
    return printed[np.ix_(index, index)] * np.outer(sign, sign)


def write_npz(
    folder: Path,
    molecules: list[Molecule],
    program: str = "pyscf",
    triangle: bool = False,
    **more: object,
) -> Path:
    """A user's folder of npz files."""
    folder.mkdir()
    for m in molecules:
        assert m.hamiltonian is not None and m.overlap is not None and m.method is not None
        shells = SVP_SHELLS if m.method.basis == "def2-svp" else TZVPD_SHELLS
        arrays = {"hamiltonian": m.hamiltonian, "overlap": m.overlap}
        for name, matrix in arrays.items():
            if program == "pyscf":
                arrays[name] = from_canonical(matrix, m.method.basis, m.atomic_numbers)
            else:
                arrays[name] = foreign(m, matrix, program, shells)
        if triangle:
            arrays = {name: matrix[np.triu_indices(len(matrix))] for name, matrix in arrays.items()}
        np.savez(
            folder / f"{m.key}.npz",
            atomic_numbers=m.atomic_numbers,
            positions=m.positions,
            energy=m.energy,
            **arrays,
            **more,
        )
    return folder
