"""Proves that a sample was read as it was meant: units, AO order, basis, charge and functional.

1. Overlap: where one is stored, max |S - S_PySCF| < 1e-5 after reordering; units, order and phases
   at once.
2. Levels: HC = SCe has an eigenvalue near the 1s level of every all-electron atom from boron on,
   and none below the lowest; with a stored S also Tr(PS) = number of electrons.
3. Consistency: mean |F[P(H)] - H|, with P from H and F built by PySCF in the declared method; a
   wrong functional, charge or order shows here.
4. Labels: the stored energy against E[P], and forces against the gradient (label_proofs.py).

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
from helm_scale.importers import label_proofs
from helm_scale.importers.label_proofs import Failure
from helm_scale.importers.source import SourceSample, canonical
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

OVERLAP_LIMIT = 1e-5  # float32 and printed digits lose 1e-6; one wrong sign or place is above 1e-3
TRACE_LIMIT = 1e-3  # electrons
LEVEL_TOLERANCE = 0.2  # relative; functionals, charges and the formula differ by up to 0.15
# Of S: along combinations below it the noise of float32 matrices would be amplified.
SMALLEST_EIGENVALUE = 1e-5
FIRST_LEVEL = 5  # boron; lighter atoms have no core well below the valence
# Functionals that one program or version writes with the name of another.
OTHER_FUNCTIONALS = {
    "b3lyp": "b3lyp5",
    "b3lyp5": "b3lyp",
    "wb97m-v": "wb97m-v" + WITHOUT_VV10,
    "wb97m-v" + WITHOUT_VV10: "wb97m-v",
}
Reading = tuple[str, SourceSample, Method]  # what would have to be so; the sample read that way


@dataclass(frozen=True)
class ProofLimits:
    """What the proof of consistency allows.

    Attributes:
        consistency: largest mean |F[P(H)] - H|, Hartree.
        atoms: larger molecules go without this proof, which builds a Fock matrix.
        gradient: forces are proven, too, which takes as long as some Fock matrices.
    """

    consistency: float
    atoms: int
    gradient: bool = False


def prove(sample: SourceSample, method: Method, limits: ProofLimits, where: str) -> bool:
    """Run every proof on one sample.

    Returns:
        Whether the molecule was small enough for the proof of consistency.
    Raises:
        ValueError: a proof failed; names it, the sample, what was got and wanted, and the cause
            where one is found.
    """
    failure = first_failure(sample, method, limits)
    if failure is not None:
        remedy = failure.remedy or _cause_among_readings(sample, method, limits)
        raise ValueError(f"{where} ({sample.molecule.key}): {failure.text}; {remedy}")
    return len(sample.molecule.atomic_numbers) <= limits.atoms


def _cause_among_readings(sample: SourceSample, method: Method, limits: ProofLimits) -> str:
    """Which other readings pass; each of them costs as much as the proofs."""
    causes = [
        cause
        for cause, other, other_method in _other_readings(sample, method)
        if first_failure(other, other_method, limits) is None
    ]
    if causes:
        return f"every proof holds if {' or '.join(causes)}"
    return "units, AO order, basis, charge or functional are others"


def first_failure(sample: SourceSample, method: Method, limits: ProofLimits) -> Failure | None:
    """Run the proofs; return what the first failing one found, or None if all hold."""
    try:
        molecule = canonical(sample, method)
        check_electrons(molecule, method.basis, molecule.key)
    except ValueError as error:
        return Failure(f"proof 'form': {error}")
    assert molecule.hamiltonian is not None
    overlap = pyscf_overlap(molecule, method.basis)
    if molecule.overlap is not None:
        difference = float(np.abs(molecule.overlap - overlap).max())
        if difference > OVERLAP_LIMIT:
            return Failure(
                f"proof 'overlap': max |S - S_PySCF| = {difference:.1e}, limit {OVERLAP_LIMIT:.0e}"
            )
    # Cheap proofs first: the last ones build Fock matrices.
    energies, density, weighted = _solve(molecule, method, overlap)
    failure = _level_failure(molecule, energies)
    if failure is None and molecule.overlap is not None:
        failure = _trace_failure(molecule, method, density)
    if failure is not None:
        return failure
    if len(molecule.atomic_numbers) > limits.atoms:
        return label_proofs.coarse_failure(molecule)
    functional = EnergyFunctional(molecule, method)
    energy, fock = functional.energy_and_fock(density)
    mean = float(np.abs(fock - molecule.hamiltonian).mean())
    if mean >= limits.consistency:
        return Failure(
            f"proof 'consistency': mean |F[P(H)] - H| = {1e6 * mean:.1f} uEh with {method.xc},"
            f" limit {1e6 * limits.consistency:.1f} uEh"
        )
    failure = label_proofs.energy_failure(molecule, method, energy, density)
    if failure is None and limits.gradient:
        failure = label_proofs.forces_failure(
            molecule, method, functional, density=density, weighted=weighted
        )
    return failure


def level(atomic_number: int) -> float:
    """Estimate the 1s level of an all-electron atom, Hartree: -(Z - 0.62 sqrt(Z))^2 / 2.

    Fitted to PBE and Hartree-Fock, B to Kr, within 15 %.
    """
    return -((atomic_number - 0.62 * atomic_number**0.5) ** 2) / 2


def _solve(
    molecule: Molecule, method: Method, overlap: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues, density and energy-weighted density of HC = SCe, a closed shell.

    Nearly dependent combinations are left out.
    """
    _, (x,) = canonical_orthogonalizers(torch.tensor(overlap), (SMALLEST_EIGENVALUE,))
    energies, coefficients = solve_roothaan_hall(torch.tensor(molecule.hamiltonian), x)
    pairs = _electrons(molecule, method) // 2
    occupied, levels = coefficients[:, :pairs].numpy(), energies.numpy()
    return levels, 2 * occupied @ occupied.T, 2 * (occupied * levels[:pairs]) @ occupied.T


def _electrons(molecule: Molecule, method: Method) -> int:
    return valence_electrons(method.basis, molecule.atomic_numbers, molecule.charge)


def _level_failure(molecule: Molecule, energies: np.ndarray) -> Failure | None:
    """Whether the core levels are where the atoms have them."""
    cores = [int(z) for z in molecule.atomic_numbers if FIRST_LEVEL <= z < FIRST_ECP_ELEMENT]
    for z in sorted(set(cores), reverse=True):
        wanted = level(z)
        count = int((np.abs(energies - wanted) < LEVEL_TOLERANCE * abs(wanted)).sum())
        if count < cores.count(z):
            return Failure(
                f"proof 'levels': {count} eigenvalues near {wanted:.1f} Eh, the 1s level of"
                f" Z = {z}, wanted {cores.count(z)}"
            )
    # Without a core that counts, as in H2 or LiH, nothing lies below neon's 1s level.
    lowest = (1 + LEVEL_TOLERANCE) * level(max(cores, default=FIRST_LEVEL * 2))
    if energies[0] < lowest:
        return Failure(
            f"proof 'levels': lowest eigenvalue {energies[0]:.1f} Eh,"
            f" wanted none below {lowest:.1f} Eh"
        )
    return None


def _trace_failure(molecule: Molecule, method: Method, density: np.ndarray) -> Failure | None:
    """Whether the density holds the electrons in the stored overlap."""
    trace, wanted = float((density * molecule.overlap).sum()), _electrons(molecule, method)
    if abs(trace - wanted) < TRACE_LIMIT:
        return None
    return Failure(f"proof 'electrons': Tr(PS) = {trace:.4f}, wanted {wanted}")


def _other_readings(sample: SourceSample, method: Method) -> Iterator[Reading]:
    """Read the same numbers otherwise, one change at a time."""
    if sample.other_reading is not None:
        yield *sample.other_reading, method
    yield from _other_units(sample, method)
    # Shells stay as listed: a wrong list of shells is refused before any proof.
    for order in ("pyscf", "orca", "psi4"):
        if order != sample.order:
            cause = f"the AO order is that of {order}, not {sample.order}"
            yield cause, replace(sample, order=order), method
    if (xc := OTHER_FUNCTIONALS.get(method.xc)) is not None:
        cause = f"the functional is {xc}, not {method.xc}: --xc '{xc}'"
        yield cause, sample, replace(method, xc=xc)
    if method.auxbasis is None:
        for auxbasis in ("def2-universal-jfit", "def2-universal-jkfit"):
            cause = f"the Coulomb integrals are fitted: --auxbasis {auxbasis}"
            yield cause, sample, replace(method, auxbasis=auxbasis)
    charge = sample.molecule.charge
    for other in (charge - 2, charge + 2):  # an even change keeps the shell closed
        molecule = replace(sample.molecule, charge=other)
        cause = f"the charge is {other:+d}, not {charge:+d}"
        yield cause, replace(sample, molecule=molecule), method


def _other_units(sample: SourceSample, method: Method) -> Iterator[Reading]:
    """Lengths in bohr, or taken for bohr, and energies in eV."""
    units = {"bohr": BOHR_IN_ANGSTROM, "Angstrom taken for bohr": 1 / BOHR_IN_ANGSTROM}
    for unit, factor in units.items():
        molecule = replace(sample.molecule, positions=factor * sample.molecule.positions)
        yield f"positions are in {unit}", replace(sample, molecule=molecule), method
    matrices = dict(sample.matrices)
    matrices["hamiltonian"] = matrices["hamiltonian"] / HARTREE_IN_EV
    yield "H is in eV", replace(sample, matrices=matrices), method
