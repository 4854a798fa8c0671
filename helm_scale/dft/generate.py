"""Labels molecules with their converged Kohn-Sham matrix, energy and forces, by PySCF."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyscf
from pyscf.dft.rks import RKS

from helm_scale.config import GenerateConfig
from helm_scale.dft.convergence import converge
from helm_scale.dft.molecule import (
    baseline_hamiltonian,
    build_mol,
    centre_of_nuclear_charge,
    check_functional,
    kohn_sham,
    to_canonical,
)
from helm_scale.dft.processes import run_parallel
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """One molecule to label.

    Attributes:
        max_cycle: SCF cycles before it is given up. scf_retries: names of convergence.RETRIES.
    """

    molecule: Molecule
    method: Method
    forces: bool
    overlap: bool
    max_cycle: int
    dipole: bool = False
    scf_retries: tuple[str, ...] = ()


def method_of(config: GenerateConfig) -> Method:
    """The method record of the labels that a config asks for, with this PySCF's version.

    Raises:
        ValueError: a functional that PySCF does not have.
    """
    check_functional(config.xc)
    return Method(
        xc=config.xc,
        basis=config.basis,
        ecp="def2",
        grid_level=config.grid_level,
        auxbasis=config.auxbasis,
        conv_tol=config.conv_tol,
        baseline=config.baseline,
        program=f"PySCF {pyscf.__version__}",
    )


def labels_of(config: GenerateConfig) -> tuple[str, ...]:
    """Names of the labels that a config asks for, as Molecule names them."""
    requested = {
        "hamiltonian": True,
        "baseline_hamiltonian": config.baseline != "none",
        "overlap": config.overlap,
        "energy": True,
        "forces": config.forces,
        "dipole": config.dipole,
    }
    return tuple(name for name, is_requested in requested.items() if is_requested)


def label(job: LabelJob) -> Molecule:
    """Run the SCF and return the molecule with its labels.

    The Hamiltonian is the Kohn-Sham matrix rebuilt from the final density, without DIIS or level
    shift; energy is that of the same density. Forces are the analytic ones, without the response of
    the grid.

    Raises:
        ValueError: element not covered, impossible charge or multiplicity, open shell.
        RuntimeError: the SCF did not converge.
    """
    molecule, method = job.molecule, job.method
    solver = kohn_sham(build_mol(molecule, method.basis), method)
    solver.max_cycle = job.max_cycle
    if method.auxbasis:
        solver.with_df.build()  # else a pure functional computes its integrals in every cycle
    solver, scf_retry = converge(solver, job.scf_retries)

    def stored(matrix: np.ndarray) -> np.ndarray:
        ordered = to_canonical(np.asarray(matrix), method.basis, molecule.atomic_numbers)
        return (ordered + ordered.T) / 2  # shards store one triangle

    return replace(
        molecule,
        # Rebuilt: the last matrix that the SCF diagonalised is extrapolated by DIIS.
        hamiltonian=stored(solver.get_fock(dm=solver.make_rdm1())),
        baseline_hamiltonian=stored(baseline_hamiltonian(solver, method.baseline))
        if method.baseline != "none"
        else None,
        overlap=stored(solver.get_ovlp()) if job.overlap else None,
        energy=float(solver.e_tot),
        forces=-solver.nuc_grad_method().kernel() / BOHR_IN_ANGSTROM if job.forces else None,
        method=method,
        scf_retry=scf_retry,
        properties={"dipole": dipole(solver, molecule)} if job.dipole else {},
    )


def dipole(solver: RKS, molecule: Molecule) -> np.ndarray:
    """Dipole moment [3] of a converged density, e*Angstrom, about the centre of nuclear charge."""
    centre = centre_of_nuclear_charge(molecule) / BOHR_IN_ANGSTROM
    return np.asarray(solver.dip_moment(unit="AU", origin=centre, verbose=0)) * BOHR_IN_ANGSTROM


def label_or_reason(job: LabelJob) -> Molecule | str:
    """Label a molecule, or say why that failed; one molecule must not stop a worker process."""
    try:
        return label(job)
    # Whatever PySCF raises concerns this molecule alone and is reported by its name.
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def label_all(jobs: Sequence[LabelJob], processes: int) -> Iterator[tuple[int, Molecule | str]]:
    """Label molecules in parallel processes, with a progress bar.

    Yields:
        (number of the job, labelled molecule or why it failed), in order of completion.
    Raises:
        ChildProcessError: a process died.
    """
    for number, result in run_parallel(
        label_or_reason, jobs, processes, total=len(jobs), label="labels"
    ):
        if isinstance(result, str):
            log.warning("rejected %s: %s", jobs[number].molecule.key, result)
        elif result.scf_retry:
            log.info("%s: the SCF converged by %s", result.key, result.scf_retry)
        yield number, result
