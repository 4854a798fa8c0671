"""Write molecules.xyz: conformers of water, formaldehyde and hypoiodous acid at 400 K.

Every molecule is brought to its PBE/def2-SVP minimum; its vibrations there are sampled
classically, each normal coordinate from its harmonic Boltzmann distribution, a Gaussian of variance
kT / w^2 (w: angular frequency, mass-weighted coordinate). Each conformer is turned at random.

Run from the repository root, some minutes: python data_shards/conformers/make_xyz.py
"""

from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np
from pyscf import dft, gto
from pyscf.data import nist
from pyscf.hessian import thermo
from scipy.spatial.transform import Rotation

TEMPERATURE = 400.0  # Kelvin
KT = TEMPERATURE * nist.BOLTZMANN / nist.HARTREE2J  # Hartree
SAMPLED = 60  # conformers of each molecule; the first ones are taken
SPLITS = {"train": 20, "validation": 2, "test": 6}
SEED = 400


def start_geometries() -> dict[str, ase.Atoms]:
    """Geometries near the minima, by name."""
    hypoiodous_acid = ase.Atoms("OIH", [[0.0, 0.0, 0.0], [1.99, 0.0, 0.0], [-0.25, 0.93, 0.0]])
    light = {name: ase.build.molecule(name) for name in ("H2O", "H2CO")}
    return light | {"HOI": hypoiodous_acid}


def solver_of(symbols: list[str], positions: np.ndarray) -> dft.rks.RKS:
    """Converged PBE/def2-SVP; positions [N, 3], Bohr."""
    atoms = list(zip(symbols, positions, strict=True))
    mol = gto.M(atom=atoms, unit="Bohr", basis="def2-svp", ecp={"I": "def2-svp"}, verbose=0)
    solver = dft.RKS(mol, xc="pbe").set(conv_tol=1e-10)
    solver.grids.level = 4
    return solver.run()


def minimum(symbols: list[str], positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton steps to the minimum: positions [N, 3] (Bohr) and Hessian [3N, 3N] there."""
    while True:
        solver = solver_of(symbols, positions)
        gradient = solver.nuc_grad_method().kernel()
        hessian = solver.Hessian().kernel().transpose(0, 2, 1, 3).reshape(2 * (positions.size,))
        if np.abs(gradient).max() < 1e-4:  # Hartree/Bohr
            return positions, hessian
        step = np.linalg.pinv(hessian, rcond=1e-3, hermitian=True) @ gradient.ravel()
        positions = positions - step.reshape(-1, 3)


def conformers(generator: np.random.Generator, atoms: ase.Atoms, count: int) -> list[np.ndarray]:
    """Positions [N, 3] (Angstrom) of `count` conformers."""
    symbols = atoms.get_chemical_symbols()
    positions, hessian = minimum(symbols, atoms.positions / nist.BOHR)
    mol = solver_of(symbols, positions).mol
    blocks = hessian.reshape(len(atoms), 3, len(atoms), 3).transpose(0, 2, 1, 3)
    modes = thermo.harmonic_analysis(mol, blocks)
    frequencies = modes["freq_au"].real  # sqrt(Hartree / Bohr^2 / amu)
    amplitudes = generator.normal(size=(count, len(frequencies))) * np.sqrt(KT) / frequencies
    # norm_mode is a displacement in Bohr per mass-weighted unit, sqrt(amu) Bohr
    displaced = positions + np.einsum("kv,vax->kax", amplitudes, modes["norm_mode"])
    turns = Rotation.random(count, random_state=generator)
    return [turn.apply(p) * nist.BOHR for turn, p in zip(turns, displaced, strict=True)]


def frames() -> list[ase.Atoms]:
    """All conformers, with key, charge, multiplicity and split; molecules take turns."""
    generator = np.random.default_rng(SEED)
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    sampled = [
        [(name, atoms.numbers, positions) for positions in conformers(generator, atoms, SAMPLED)]
        for name, atoms in start_geometries().items()
    ]
    made = []
    for number, (split, turn) in enumerate(zip(splits, zip(*sampled, strict=True), strict=False)):
        for name, numbers, positions in turn:
            info = {"key": f"{name}-{number:03d}", "charge": 0, "multiplicity": 1, "split": split}
            made.append(ase.Atoms(numbers, positions.round(6), info=info))
    return made


if __name__ == "__main__":
    ase.io.write(Path(__file__).parent / "molecules.xyz", frames(), format="extxyz")
