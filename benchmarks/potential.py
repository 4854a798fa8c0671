"""Noise on a Kohn-Sham matrix with and without the projection of dft/potential.py, and what the
projection costs beside one Fock build.

Noise: white, on the converged matrix (def2-TZVPD, density fitting, grids of level 1, VV10 left
out). Both matrices are diagonalised in the whole space of PySCF's SCF. Cost: alkanes with the
matrix of PySCF's minao density, PBE; every size in a process of its own, so that its peak memory is
its own.

    python benchmarks/potential.py [--quick]
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
)

import numpy as np
import pyscf

from helm_scale.dft import potential
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.generate import LabelJob, label
from helm_scale.dft.molecule import build_mol
from helm_scale.evaluation import orbitals
from helm_scale.types import Method, Molecule
from helm_scale.units import HARTREE_IN_MEV

METHOD = Method(
    xc="pbe",
    basis="def2-tzvpd",
    ecp="def2",
    grid_level=1,
    auxbasis=potential.AUXBASIS,
    conv_tol=1e-10,
    baseline="minao",
    program=f"PySCF {pyscf.__version__}",
)
FUNCTIONALS = ("pbe", "pbe0", "wb97m-v without vv10")
SIGMAS = (0.0, 1e-5, 1e-4, 1e-3)  # Hartree
WATER = Molecule(
    "water", np.array([8, 1, 1]), np.array([[0, 0, 0.1], [0.76, 0.1, 0.68], [-0.74, 0, 0.58]])
)
METHANOL = Molecule(
    "methanol",
    np.array([6, 8, 1, 1, 1, 1]),
    np.array(
        [[0, 0, 0], [1.42, 0, 0], [1.75, 0.9, 0], [-0.4, 1.02, 0], [-0.4, -0.5, 0.88],
         [-0.4, -0.5, -0.88]]
    ),
)  # fmt: skip


def noise_rows(molecule: Molecule, method: Method) -> list[dict[str, Any]]:
    """Errors of the true matrix with noise, as it is and projected, for every sigma."""
    job = LabelJob(molecule=molecule, method=method, forces=False, overlap=False, max_cycle=50)
    true = label(job)
    assert true.hamiltonian is not None
    functional, rows = EnergyFunctional(true, method), []
    for sigma in SIGMAS:
        noise = np.random.default_rng(0).normal(scale=sigma, size=true.hamiltonian.shape)
        noisy = true.hamiltonian + np.tril(noise) + np.tril(noise, -1).T
        row = {
            "molecule": true.key,
            "basis": method.basis,
            "xc": method.xc,
            "noise_ueh": sigma * 1e6,
        }
        for name, matrix in (("raw", noisy), ("projected", functional.kohn_sham_matrix(noisy))):
            errors = judge(matrix, true, functional)
            row |= {f"{name}_{key}": value for key, value in errors.items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def judge(matrix: np.ndarray, true: Molecule, functional: EnergyFunctional) -> dict[str, float]:
    """Error of a matrix, weight of its occupied orbitals in the true ones, error of its energy."""
    assert true.hamiltonian is not None and true.energy is not None and true.method is not None
    basis = true.method.basis
    (whole,) = orbitals.canonical_projectors(overlap(true, basis), (orbitals.PYSCF_THRESHOLD,))
    occupied = orbitals.occupied_count(true, basis)
    found, reference = (orbitals.solve(one, whole, occupied) for one in (matrix, true.hamiltonian))
    weights = orbitals.occupied_weights(found, reference, whole.overlap)
    energy = functional.energy_and_fock(found.density_matrix())[0]
    return {
        "h_mae_ueh": float(np.abs(matrix - true.hamiltonian).mean() * 1e6),
        "lost_overlap": 1 - orbitals.subspace_overlap(weights),
        "energy_error_mev": (energy - true.energy) * HARTREE_IN_MEV,
    }


def alkane(carbons: int) -> Molecule:
    """An unbranched alkane, all trans: bonds of 1.53 and 1.09 Angstrom."""
    numbers, positions = [], []
    for i in range(carbons):
        side = 1 if i % 2 else -1
        carbon = np.array([1.25 * i, 0.44 * side, 0.0])
        numbers += [6, 1, 1]
        positions += [carbon, carbon + [0, 0.63 * side, 0.89], carbon + [0, 0.63 * side, -0.89]]
        if i in (0, carbons - 1):
            numbers.append(1)
            positions.append(carbon + [-0.89 if i == 0 else 0.89, -0.63 * side, 0.0])
    return Molecule(f"C{carbons}", np.array(numbers), np.array(positions))


def cost(carbons: int) -> dict[str, float]:
    """Seconds and memory of the projection of one alkane, beside one Fock build."""
    molecule = alkane(carbons)
    mol = build_mol(molecule, METHOD.basis)
    row: dict[str, float] = {"atoms": int(mol.natm), "orbitals": int(mol.nao)}
    row["integrals_gib"] = potential.integral_bytes(mol) / 2**30
    if potential.integral_bytes(mol) > potential.MEMORY_LIMIT:
        return row  # refused, as a user's would be
    functional, seconds = EnergyFunctional(molecule, METHOD), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    matrix = np.random.default_rng(0).normal(size=(mol.nao, mol.nao))
    for _ in range(2):
        start = time.perf_counter()
        functional.kohn_sham_matrix(matrix + matrix.T)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    density = functional.guess("minao")
    functional.prepare()
    start = time.perf_counter()
    functional.energy_and_fock(density)
    return row | {
        "first_projection_seconds": seconds[0],
        "further_projection_seconds": seconds[1],
        "fock_build_seconds": time.perf_counter() - start,
        "peak_gib": peak / 2**20,
    }


def main() -> None:
    """Noise, then cost; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="water alone; 8 atoms")
    parser.add_argument("--carbons", type=int, help="cost of one alkane, in this process")
    arguments = parser.parse_args()
    if arguments.carbons:
        print(json.dumps(cost(arguments.carbons)))
        return
    noise = []
    for molecule in [WATER] if arguments.quick else [WATER, METHANOL]:
        for xc in FUNCTIONALS:
            noise += noise_rows(molecule, replace(METHOD, xc=xc))
    noise += noise_rows(WATER, replace(METHOD, basis="def2-svp"))
    costs = []
    for carbons in (2,) if arguments.quick else (2, 6, 10, 16):
        command = [sys.executable, __file__, "--carbons", str(carbons)]
        costs.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    result = {
        "benchmark": "potential",
        "noise": noise,
        "cost": costs,
        "command": f"python benchmarks/potential.py{' --quick' * arguments.quick}",
        "hardware": f"{os.cpu_count()} CPU cores, one thread",
        "pyscf": pyscf.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
