"""Energies and forces of predicted Hamiltonians: the evaluation against a serial PySCF script.

Both do the whole protocol per molecule: energy and analytic forces of the true H, of a prediction
(the true H with white noise of 5e-6 Eh), of one Fock rebuild from it, of minao and of isolated-atom
H0. The script calls PySCF's `energy_tot` and `nuc_grad_method` density by density,
with grid and integrals kept per molecule; the evaluation runs molecules in processes of one thread
each and makes the forces of all densities of a molecule at once. Both give the same numbers, which
is checked.

    python benchmarks/protocol.py [--quick] [--processes 2]
"""

import os
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
from report import command_line, report

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
    """Test molecules of up to five atoms (quick: three), each with a made-up prediction."""
    manifest = Manifest.load(DATA)
    reader, jobs = ShardReader(manifest), []
    most_atoms = 3 if quick else 5
    for index in [i for i in manifest.split("test") if manifest.atoms[i] <= most_atoms]:
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


def plain(jobs: list[EvaluationJob]) -> dict[str, float]:
    """The script: one molecule after another; mean |F - F_true| of every prediction."""
    return {
        job.molecule.key: _plain_molecule(job.molecule, job.residual, job.method) for job in jobs
    }


def _plain_molecule(molecule: Molecule, predicted: np.ndarray, method: Method) -> float:
    """The whole protocol of a molecule; mean |F - F_true| of the prediction, Hartree/Angstrom."""
    mf = kohn_sham(build_mol(molecule, method.basis), method)
    core, overlap = mf.get_hcore(), mf.get_ovlp()

    def judge(fock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies, coefficients = mf.eig(fock, overlap)
        occupations = mf.get_occ(energies, coefficients)
        density = mf.make_rdm1(coefficients, occupations)
        potential = mf.get_veff(dm=density)
        mf.energy_tot(density, core, potential)
        gradient = mf.nuc_grad_method().kernel(energies, coefficients, occupations)
        return gradient, core + np.asarray(potential)

    assert molecule.hamiltonian is not None
    numbers = molecule.atomic_numbers
    truth, _ = judge(from_canonical(molecule.hamiltonian, method.basis, numbers))
    gradient, rebuilt = judge(from_canonical(predicted, method.basis, numbers))
    judge(rebuilt)
    for guess in ("minao", "atom"):
        judge(core + np.asarray(mf.get_veff(dm=mf.get_init_guess(key=guess))))
    return float(np.abs(gradient - truth).mean() / BOHR_IN_ANGSTROM)


def evaluation(jobs: list[EvaluationJob], processes: int) -> dict[str, float]:
    """The same by the evaluation."""
    return {
        result.key: mean_errors(result.rows["prediction"])["forces"]
        for result in evaluate_molecules(iter(jobs), processes, len(jobs))
    }


def timed(
    run: Callable[[list[EvaluationJob]], dict[str, float]], jobs: list[EvaluationJob]
) -> tuple[dict[str, float], dict[str, float]]:
    """Results, and seconds per molecule: on the clock and of all processors."""
    cpu_start, start = _cpu(), time.perf_counter()
    errors = run(jobs)
    wall, cpu = time.perf_counter() - start, _cpu() - cpu_start
    return errors, {
        "seconds_per_molecule": wall / len(jobs),
        "cpu_seconds_per_molecule": cpu / len(jobs),
    }


def _cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Both in turn; the last line is one JSON object."""
    parser = command_line(__doc__, quick="molecules of up to three atoms")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    jobs = jobs_of(arguments.quick)
    wanted, script = timed(plain, jobs)
    errors, own = timed(lambda jobs: evaluation(jobs, arguments.processes), jobs)
    ratio = {name: script[name] / own[name] for name in script}
    report(
        "protocol",
        molecules=len(jobs),
        densities_per_molecule=5,
        processes=arguments.processes,
        script=script,
        evaluation=own,
        molecules_per_second_ratio=ratio["seconds_per_molecule"],
        cpu_ratio=ratio["cpu_seconds_per_molecule"],
        largest_relative_difference=max(abs(errors[key] / wanted[key] - 1) for key in wanted),
        pyscf=pyscf.__version__,
    )


if __name__ == "__main__":
    main()
