"""Proofs that a sample was read as it was meant: right units, AO order, basis, charge and
functional.

1. overlap: where one is stored, max |S - S_PySCF| < 1e-5 after reordering: units, order and phases
at once; 2. levels: HC = SCe has an eigenvalue near the 1s level of every all-electron atom from
boron on and none below the
   lowest; with a stored S also Tr(PS) = number of electrons;
3. consistency: mean |F[P(H)] - H|, with P from H and F built by PySCF in the declared method; a
wrong functional, charge
   or order shows here.
A sample that fails is read in other ways, one change at a time; if one of them passes, the message
names it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from helm_scale.basis.eigen import canonical_orthogonalizers, solve_roothaan_hall
from helm_scale.basis.electrons import valence_electrons
from helm_scale.basis.elements import FIRST_ECP_ELEMENT
from helm_scale.dft.energies import EnergyFunctional
from helm_scale.dft.energies import overlap as pyscf_overlap
from helm_scale.dft.molecule import WITHOUT_VV10, check_electrons
from helm_scale.importers.source import SourceSample, canonical
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

OVERLAP_LIMIT = 1e-5
TRACE_LIMIT = 1e-3  # electrons
LEVEL_TOLERANCE = 0.2  # relative; functionals, charges and the formula differ by up to 0.15
SMALLEST_EIGENVALUE = (
    1e-5  # of S; combinations below it are left out, where float32 noise would be amplified
)
FIRST_LEVEL = 5  # boron; lighter atoms have no core well below the valence
OTHER_FUNCTIONALS = {
    "b3lyp": ("b3lyp5",), "b3lyp5": ("b3lyp",), "wb97m-v": ("wb97m-v" + WITHOUT_VV10,), "wb97m-v" + WITHOUT_VV10: ("wb97m-v",),
}  # fmt: skip


@dataclass(frozen=True)
class ProofLimits:
    """consistency: largest mean |F[P(H)] - H|, Hartree. atoms: larger molecules go without this
    proof."""

    consistency: float
    atoms: int


def prove(foreign: SourceSample, method: Method, limits: ProofLimits, where: str) -> bool:
    """Run every proof on one sample.

    Returns:
        Whether the molecule was small enough for the proof of consistency.
    Raises:
        ValueError: a proof failed; names it, the sample, what was got and wanted, and the cause
            where one is found.
    """
    failure = first_failure(foreign, method, limits)
    if failure is not None:
        causes = [
            cause
            for cause, sample, other in _other_readings(foreign, method)
            if first_failure(sample, other, limits) is None
        ]
        remedy = (
            f"; every proof holds if {' or '.join(causes)}"
            if causes
            else "; units, AO order, basis, charge or functional are others"
        )
        raise ValueError(f"{where} ({foreign.molecule.key}): {failure}{remedy}")
    return len(foreign.molecule.atomic_numbers) <= limits.atoms


def first_failure(foreign: SourceSample, method: Method, limits: ProofLimits) -> str | None:
    """What the first failing proof found, or None if all hold."""
    try:
        molecule = canonical(foreign, method)
        check_electrons(molecule, method.basis, molecule.key)
    except ValueError as error:
        return f"proof 'form': {error}"
    assert molecule.hamiltonian is not None
    overlap = pyscf_overlap(molecule, method.basis)
    if molecule.overlap is not None:
        difference = float(np.abs(molecule.overlap - overlap).max())
        if difference > OVERLAP_LIMIT:
            return (
                f"proof 'overlap': max |S - S_PySCF| = {difference:.1e}, limit {OVERLAP_LIMIT:.0e}"
            )
    energies, density = _solve(molecule, method, overlap)
    failure = _level_failure(molecule, energies)
    if failure is None and molecule.overlap is not None:
        failure = _trace_failure(molecule, method, density)
    if failure is not None or len(molecule.atomic_numbers) > limits.atoms:
        return failure
    mean = float(
        np.abs(
            EnergyFunctional(molecule, method).energy_and_fock(density)[1] - molecule.hamiltonian
        ).mean()
    )
    if mean < limits.consistency:
        return None
    return f"proof 'consistency': mean |F[P(H)] - H| = {1e6 * mean:.1f} uEh with {method.xc}, limit {1e6 * limits.consistency:.1f} uEh"


def level(atomic_number: int) -> float:
    """1s level of an all-electron atom, Hartree: -(Z - 0.62 sqrt(Z))^2 / 2, fitted to PBE and
    Hartree-Fock, B to Kr, within 15 %."""
    return -((atomic_number - 0.62 * atomic_number**0.5) ** 2) / 2


def _solve(
    molecule: Molecule, method: Method, overlap: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and closed-shell density of HC = SCe, nearly dependent combinations left out."""
    _, (x,) = canonical_orthogonalizers(torch.tensor(overlap), (SMALLEST_EIGENVALUE,))
    energies, coefficients = solve_roothaan_hall(torch.tensor(molecule.hamiltonian), x)
    occupied = coefficients[:, : _electrons(molecule, method) // 2].numpy()
    return energies.numpy(), 2 * occupied @ occupied.T


def _electrons(molecule: Molecule, method: Method) -> int:
    return valence_electrons(method.basis, molecule.atomic_numbers, molecule.charge)


def _level_failure(molecule: Molecule, energies: np.ndarray) -> str | None:
    """Whether the core levels are where the atoms have them."""
    cores = [int(z) for z in molecule.atomic_numbers if FIRST_LEVEL <= z < FIRST_ECP_ELEMENT]
    for z in sorted(set(cores), reverse=True):
        wanted = level(z)
        found = int((np.abs(energies - wanted) < LEVEL_TOLERANCE * abs(wanted)).sum())
        if found < cores.count(z):
            return f"proof 'levels': {found} eigenvalues near {wanted:.1f} Eh, the 1s level of Z = {z}, wanted {cores.count(z)}"
    lowest = (1 + LEVEL_TOLERANCE) * level(max(cores, default=FIRST_LEVEL * 2))
    if energies[0] < lowest:
        return f"proof 'levels': lowest eigenvalue {energies[0]:.1f} Eh, wanted none below {lowest:.1f} Eh"
    return None


def _trace_failure(molecule: Molecule, method: Method, density: np.ndarray) -> str | None:
    """Whether the density holds the electrons in the stored overlap."""
    found, wanted = float((density * molecule.overlap).sum()), _electrons(molecule, method)
    return (
        None
        if abs(found - wanted) < TRACE_LIMIT
        else f"proof 'electrons': Tr(PS) = {found:.4f}, wanted {wanted}"
    )


def _other_readings(
    foreign: SourceSample, method: Method
) -> Iterator[tuple[str, SourceSample, Method]]:
    """The same numbers read otherwise: (what would have to be so, sample, method)."""
    if foreign.other_reading is not None:
        yield *foreign.other_reading, method
    molecule, matrices = foreign.molecule, foreign.matrices
    for unit, factor in (
        ("bohr", BOHR_IN_ANGSTROM),
        ("Angstrom taken for bohr", 1 / BOHR_IN_ANGSTROM),
    ):
        yield (
            f"positions are in {unit}",
            replace(foreign, molecule=replace(molecule, positions=factor * molecule.positions)),
            method,
        )
    yield (
        "H is in eV",
        replace(
            foreign, matrices={**matrices, "hamiltonian": matrices["hamiltonian"] / HARTREE_IN_EV}
        ),
        method,
    )
    for order in ("pyscf", "orca", "psi4"):
        if order != foreign.order:
            yield (
                f"the AO order is that of {order}, not {foreign.order}",
                replace(foreign, order=order),
                method,
            )
    for xc in OTHER_FUNCTIONALS.get(method.xc, ()):
        yield (
            f"the functional is {xc}, not {method.xc}: --xc '{xc}'",
            foreign,
            replace(method, xc=xc),
        )
    for auxbasis in ("def2-universal-jfit", "def2-universal-jkfit"):
        if method.auxbasis is None:
            yield (
                f"the Coulomb integrals are fitted: --auxbasis {auxbasis}",
                foreign,
                replace(method, auxbasis=auxbasis),
            )
    for charge in (molecule.charge - 2, molecule.charge + 2):
        yield (
            f"the charge is {charge:+d}, not {molecule.charge:+d}",
            replace(foreign, molecule=replace(molecule, charge=charge)),
            method,
        )
