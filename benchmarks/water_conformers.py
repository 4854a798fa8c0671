"""Write the XYZ of 500 / 100 / 500 water conformers at 500 K, for configs/water_data.yaml.

Sampling: the classical Boltzmann distribution exp(-E/kT) of the PBE/def2-SVP energy in the three
normal coordinates (a molecule that vibrates and does not rotate; no zero-point motion), by
rejection. At the minimum every mode, of angular frequency w, gets a mass-weighted amplitude from
the harmonic distribution of a higher temperature T', a Gaussian of variance kT' / w^2; the
conformer is kept with probability exp(-E/kT + E_harmonic/kT'), then turned at random. Harmonic
sampling alone overpopulates short bonds. Seeded; no two conformers agree in their three distances
to 1e-6 Angstrom.

    python benchmarks/water_conformers.py [--out runs/water/conformers.xyz] [--quick]
"""

from pathlib import Path

import ase
import ase.io
import numpy as np
from pyscf import dft, gto
from pyscf.data import nist
from report import command_line

from helm_scale.dft.processes import run_parallel

TEMPERATURE = 500.0  # Kelvin
PROPOSAL = 700.0 / 500.0  # T'/T
SPLITS = {"train": 500, "validation": 100, "test": 500}
QUICK_SPLITS = {"train": 40, "validation": 10, "test": 10}
SEED = 500
SYMBOLS = ["O", "H", "H"]
START = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])  # Angstrom
KT = TEMPERATURE * nist.BOLTZMANN / nist.HARTREE2J  # Hartree


def gradient_and_hessian(positions_bohr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PBE/def2-SVP gradient [9] (Hartree/Bohr) and Hessian [9, 9] (Hartree/Bohr^2)."""
    mol = gto.M(
        atom=list(zip(SYMBOLS, positions_bohr, strict=True)),
        unit="Bohr",
        basis="def2-svp",
        verbose=0,
    )
    solver = dft.RKS(mol, xc="pbe").set(conv_tol=1e-11)
    solver.grids.level = 5
    solver.kernel()
    gradient = solver.nuc_grad_method().set(grid_response=True).kernel()
    return gradient.ravel(), solver.Hessian().kernel().transpose(0, 2, 1, 3).reshape(9, 9)


def minimum() -> tuple[np.ndarray, np.ndarray]:
    """Newton steps to the minimum: positions [3, 3] (Bohr) and Hessian there."""
    positions = START / nist.BOHR
    while True:
        gradient, hessian = gradient_and_hessian(positions)
        if np.abs(gradient).max() < 1e-6:
            return positions, hessian
        positions = positions - (
            np.linalg.pinv(hessian, rcond=1e-3, hermitian=True) @ gradient
        ).reshape(3, 3)


def vibrations(hessian: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angular frequencies [3] (atomic units) and mass-weighted modes [9, 3] of the vibrations.

    masses: [3], electron masses.
    """
    root = np.sqrt(np.repeat(masses, 3))
    squares, modes = np.linalg.eigh(hessian / root[:, None] / root)
    return np.sqrt(squares[-3:]), modes[:, -3:]


def random_rotation(generator: np.random.Generator) -> np.ndarray:
    """Uniformly distributed rotation matrix, from a random unit quaternion."""
    quaternion = generator.normal(size=4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def energy(positions_bohr: np.ndarray) -> float:
    """PBE/def2-SVP energy (Hartree)."""
    mol = gto.M(
        atom=list(zip(SYMBOLS, positions_bohr, strict=True)),
        unit="Bohr",
        basis="def2-svp",
        verbose=0,
    )
    return float(dft.RKS(mol, xc="pbe").run(conv_tol=1e-9).e_tot)


def proposals(
    generator: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The minimum [3, 3], displaced positions [count, 3, 3] (Bohr) and their harmonic energies.

    The energies [count] are in kT'.
    """
    positions, hessian = minimum()
    masses = ase.Atoms(SYMBOLS).get_masses() * nist.AMU2AU
    frequencies, modes = vibrations(hessian, masses)
    print(f"harmonic wavenumbers: {np.round(frequencies * nist.HARTREE2WAVENUMBER, 1)} 1/cm")
    reduced = generator.normal(size=(count, 3))
    amplitudes = reduced * np.sqrt(KT * PROPOSAL) / frequencies
    displaced = positions + (amplitudes @ modes.T).reshape(count, 3, 3) / np.sqrt(masses)[:, None]
    return positions, displaced, 0.5 * (reduced**2).sum(axis=1)


def boltzmann(generator: np.random.Generator, count: int, processes: int) -> np.ndarray:
    """Count positions [count, 3, 3] (Bohr) of the Boltzmann distribution at TEMPERATURE.

    Raises:
        RuntimeError: more than one proposal in a hundred would need a probability above one, or too
            few are kept.
    """
    bottom, displaced, harmonic = proposals(generator, 2 * count + 20)
    jobs = [bottom, *displaced]
    energies = np.empty(len(jobs))
    for number, value in run_parallel(energy, jobs, processes, total=len(jobs), label="energies"):
        energies[number] = value
    probability = np.exp(harmonic - (energies[1:] - energies[0]) / KT)
    kept = displaced[generator.uniform(size=len(displaced)) < probability]
    above = (probability > 1).sum()
    print(f"kept {len(kept)} of {len(displaced)}; probability above one: {above}")
    if (probability > 1).mean() > 0.01 or len(kept) < count:
        raise RuntimeError(
            "the proposals do not cover the Boltzmann distribution; raise PROPOSAL or their number"
        )
    return kept[:count]


def conformers(splits: dict[str, int], processes: int) -> list[ase.Atoms]:
    """Conformers with key, charge, multiplicity and split; splits: how many of each."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    names = [name for name, count in splits.items() for _ in range(count)]
    frames = []
    for number, positions in enumerate(boltzmann(generator, len(names), processes)):
        turned = positions @ random_rotation(generator).T * nist.BOHR
        info = {
            "key": f"water-{number:04d}",
            "charge": 0,
            "multiplicity": 1,
            "split": names[number],
        }
        frames.append(ase.Atoms(SYMBOLS, turned, info=info))
    check_distinct(frames)
    return frames


def check_distinct(frames: list[ase.Atoms]) -> None:
    """Check that no two conformers are the same up to motion and exchange of the hydrogens.

    Raises:
        RuntimeError: two are.
    """
    distances = np.array(
        [[*sorted(frame.get_distances(0, [1, 2])), frame.get_distance(1, 2)] for frame in frames]
    )
    gaps = np.abs(distances[:, None] - distances).max(axis=-1) + np.eye(len(frames))
    if gaps.min() < 1e-6:
        raise RuntimeError(
            f"two conformers differ by {gaps.min():.1e} Angstrom only; choose another SEED"
        )


def main() -> None:
    """Write the file."""
    parser = command_line(__doc__, quick="60 conformers")
    parser.add_argument("--out", type=Path, default=Path("runs/water/conformers.xyz"))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    frames = conformers(QUICK_SPLITS if arguments.quick else SPLITS, arguments.processes)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(arguments.out, frames, format="extxyz")
    print(f"{arguments.out}: {len(frames)} conformers")


if __name__ == "__main__":
    main()
