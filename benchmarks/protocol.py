"""Energies and forces of predicted Hamiltonians: the evaluation against a plain serial script that
does the same with PySCF.

"The same" is the whole protocol per molecule: energy and analytic forces of the true H, of a
prediction (the true H with white noise of 5e-6 Eh), of one Fock rebuild from it, of minao and of
isolated-atom H0. The script calls PySCF's `energy_tot` and `nuc_grad_method` density by density,
with grid and integrals kept per molecule; the evaluation runs molecules in processes of one thread
each and makes the forces of all densities of a molecule at once. Both give the same numbers, which
is checked.

    python benchmarks/protocol.py [--quick] [--processes 2]
"""

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
)

import numpy as np
import pyscf

from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.dft.molecule import build_mol, from_canonical, kohn_sham
from helm_scale.evaluation.error_sums import mean_errors
from helm_scale.evaluation.molecule import EvaluationJob, evaluate_molecules
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

DATA, NOISE = Path("data_shards/quickstart"), 5e-6
KEEP_EVERYTHING = 1e-6  # PySCF's own overlap threshold: the script knows no other


def jobs_of(quick: bool) -> list[EvaluationJob]:
    """Test molecules of the quickstart set of up to five atoms (quick: three), with a made-up
    prediction each."""
    manifest = Manifest.load(DATA)
    reader, jobs = ShardReader(manifest), []
    for index in [i for i in manifest.split("test") if manifest.atoms[i] <= (3 if quick else 5)]:
        molecule = reader.read(int(index))
        assert molecule.hamiltonian is not None
        noise = np.random.default_rng(index).normal(scale=NOISE, size=molecule.hamiltonian.shape)
        residual = molecule.hamiltonian + np.triu(noise) + np.triu(noise, 1).T
        jobs.append(
            EvaluationJob(
                molecule=replace(molecule, baseline_hamiltonian=None),
                residual=residual,
                method=manifest.method,
                baseline="none",
                pair_cutoff=50.0,
                overlap_threshold=KEEP_EVERYTHING,
            )
        )
    return jobs


def plain(jobs: list[EvaluationJob], processes: int) -> dict[str, float]:
    """The script: one molecule after another; mean |F - F_true| of every prediction."""
    return {
        job.molecule.key: _plain_molecule(job.molecule, job.residual, job.method) for job in jobs
    }


def _plain_molecule(molecule: Molecule, predicted: np.ndarray, method: Method) -> float:
    mf = kohn_sham(build_mol(molecule, method.basis), method)
    core, overlap = mf.get_hcore(), mf.get_ovlp()

    def judge(fock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies, coefficients = mf.eig(fock, overlap)
        occupations = mf.get_occ(energies, coefficients)
        density = mf.make_rdm1(coefficients, occupations)
        potential = mf.get_veff(dm=density)
        mf.energy_tot(density, core, potential)
        return mf.nuc_grad_method().kernel(energies, coefficients, occupations), core + np.asarray(
            potential
        )

    assert molecule.hamiltonian is not None
    numbers = molecule.atomic_numbers
    truth, _ = judge(from_canonical(molecule.hamiltonian, method.basis, numbers))
    found, rebuilt = judge(from_canonical(predicted, method.basis, numbers))
    judge(rebuilt)
    for guess in ("minao", "atom"):
        judge(core + np.asarray(mf.get_veff(dm=mf.get_init_guess(key=guess))))
    return float(np.abs(found - truth).mean() / BOHR_IN_ANGSTROM)


def evaluation(jobs: list[EvaluationJob], processes: int) -> dict[str, float]:
    """The same by the evaluation."""
    return {
        one.key: mean_errors(one.rows["prediction"])["forces"]
        for one in evaluate_molecules(iter(jobs), processes, len(jobs))
    }


def timed(
    run: Callable[[list[EvaluationJob], int], dict[str, float]],
    jobs: list[EvaluationJob],
    processes: int,
) -> tuple[dict[str, float], dict[str, float]]:
    """Results, and seconds per molecule: on the clock and of all processors."""
    spent = [_cpu(), time.perf_counter()]
    found = run(jobs, processes)
    wall, cpu = time.perf_counter() - spent[1], _cpu() - spent[0]
    return found, {
        "seconds_per_molecule": wall / len(jobs),
        "cpu_seconds_per_molecule": cpu / len(jobs),
    }


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Both in turn; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="molecules of up to three atoms")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    jobs = jobs_of(arguments.quick)
    found, script = timed(plain, jobs, 1)
    own, evaluated = timed(evaluation, jobs, arguments.processes)
    result = {
        "benchmark": "protocol",
        "molecules": len(jobs),
        "densities_per_molecule": 5,
        "processes": arguments.processes,
        "script": script,
        "evaluation": evaluated,
        "molecules_per_second_ratio": script["seconds_per_molecule"]
        / evaluated["seconds_per_molecule"],
        "cpu_ratio": script["cpu_seconds_per_molecule"] / evaluated["cpu_seconds_per_molecule"],
        "largest_relative_difference": max(abs(own[key] / found[key] - 1) for key in found),
        "command": f"python benchmarks/protocol.py{' --quick' * arguments.quick} --processes "
        f"{arguments.processes}",
        "hardware": f"{os.cpu_count()} CPU cores",
        "pyscf": pyscf.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
