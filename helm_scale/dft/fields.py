"""Evaluates orbitals and densities on a grid around a molecule and writes them as cube files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyscf.tools import cubegen

from helm_scale.basis import conventions
from helm_scale.basis.shells import shells_of
from helm_scale.dft.molecule import build_mol, from_canonical
from helm_scale.types import Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

MARGIN = 3.0  # Angstrom around the outermost nuclei


@dataclass(frozen=True)
class Fields:
    """Values on a rectangular grid.

    Attributes:
        values: [X, Y, Z] by name; orbitals in bohr^-3/2, densities in electrons/bohr^3.
        origin, step: corner of the grid and its spacings, [3] each, Angstrom.
    """

    values: dict[str, np.ndarray]
    origin: np.ndarray
    step: np.ndarray


def write_cubes(
    molecule: Molecule,
    basis: str,
    *,
    orbitals: Mapping[str, np.ndarray],
    densities: Mapping[str, np.ndarray],
    folder: Path,
    spacing: float,
) -> Fields:
    """Evaluate orbitals and densities around a molecule; write each as `folder/<name>.cube`.

    Args:
        orbitals: coefficients [nao] by name. densities: matrices [nao, nao] by name. Canonical
            order.
        spacing: of the grid, Angstrom.
    """
    mol = build_mol(molecule, basis)
    shells = [shells_of(basis, int(z)) for z in molecule.atomic_numbers]
    size = np.ptp(molecule.positions, axis=0) + 2 * MARGIN
    points = np.maximum(np.ceil(size / spacing).astype(int), 2)
    # PySCF takes the margin in bohr, whatever the unit of the molecule.
    cube = cubegen.Cube(mol, *points.tolist(), margin=MARGIN / BOHR_IN_ANGSTROM)
    rows = {
        name: conventions.rows_from_canonical(c[:, None], "pyscf", shells)[:, 0]
        for name, c in orbitals.items()
    }
    matrices = {
        name: from_canonical(matrix, basis, molecule.atomic_numbers)
        for name, matrix in densities.items()
    }
    slices: dict[str, list[np.ndarray]] = {name: [] for name in (*rows, *matrices)}
    # 20,000 points at a time: 20,000 x 1,000 AOs are 160 MB.
    for block in np.array_split(cube.get_coords(), max(1, cube.get_ngrids() // 20000)):
        ao = mol.eval_gto("GTOval", block)
        for name, row in rows.items():
            slices[name].append(ao @ row)
        for name, matrix in matrices.items():
            slices[name].append(np.einsum("gi,gi->g", ao @ matrix, ao))
    values = {name: np.concatenate(blocks).reshape(points) for name, blocks in slices.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        cube.write(value, str(folder / f"{name}.cube"), comment=f"{molecule.key}: {name}")
    step = np.diag(cube.box) / (points - 1)  # points lie on both ends of the box
    return Fields(values, np.asarray(cube.boxorig) * BOHR_IN_ANGSTROM, step * BOHR_IN_ANGSTROM)
