"""Proves energies and forces that lie beside a Hamiltonian: E[P] and its gradient, P from H.

Both belong to one density, so that a wrong unit or sign, a formation energy or a label of another
molecule shows. Molecules too large for a Fock matrix have their energy held against free atoms.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from helm_scale.dft.energies import EnergyFunctional
from helm_scale.dft.molecule import WITHOUT_VV10
from helm_scale.reading import free_atoms
from helm_scale.reading.label_units import (
    ENERGY_UNITS,
    FORCE_UNITS,
    hartree_in,
    hartree_per_angstrom_in,
)
from helm_scale.types import Method, Molecule

# Hartree per atom. Dispersion corrections that programs add after the SCF lower an energy
DISPERSION = 5e-3
NUMERICS = 5e-4  # grids, density fitting and float32 differ by a tenth of it
FORCE_LIMIT = 2e-3  # Hartree/Angstrom; grids, 50 uEh in H and dispersion give up to half of it
OTHER_SIGN = {1: "", -1: " and are gradients, of the other sign"}


@dataclass(frozen=True)
class Failure:
    """What a proof found; remedy: empty where other readings of the sample may tell the cause."""

    text: str
    remedy: str = ""


def coarse_failure(molecule: Molecule) -> Failure | None:
    """Whether an energy is the total of a molecule at all, without a calculation."""
    if molecule.energy is None or not all(map(free_atoms.ground_state, molecule.atomic_numbers)):
        return None
    energy = molecule.energy
    if _is_total(energy, molecule):
        return None
    units = [unit for unit in ENERGY_UNITS if _is_total(energy / hartree_in(unit), molecule)]
    return Failure(
        f"proof 'energy': got {energy:.6g} Eh, no total energy, held against free atoms",
        _cause([f"energies are in {unit}" for unit in units]),
    )


def energy_failure(
    molecule: Molecule, method: Method, energy: float, density: np.ndarray
) -> Failure | None:
    """Compare the stored energy with E[P], Hartree; a correction for dispersion may be in it."""
    if molecule.energy is None:
        return None
    stored = molecule.energy
    references = [energy, *(f.energy_and_fock(density)[0] for f in _with_vv10(molecule, method))]
    units = [
        unit
        for unit in ENERGY_UNITS
        if any(_agrees(stored / hartree_in(unit), e, molecule) for e in references)
    ]
    if "Hartree" in units:
        return None
    return Failure(
        f"proof 'energy': got {stored:.6f} Eh, wanted E[P(H)] = {energy:.6f} Eh within"
        f" {-1e3 * DISPERSION:g} and +{1e3 * NUMERICS:g} mEh per atom",
        _cause([f"energies are in {unit}" for unit in units]),
    )


def forces_failure(
    molecule: Molecule,
    method: Method,
    functional: EnergyFunctional,
    *,
    density: np.ndarray,
    weighted: np.ndarray,
) -> Failure | None:
    """Compare the stored forces with minus the gradient of E[P], Hartree/Angstrom."""
    stored = molecule.forces
    if stored is None:
        return None
    references = [
        f.forces([density], [weighted])[0] for f in (functional, *_with_vv10(molecule, method))
    ]

    def distance(forces: np.ndarray) -> float:
        return float(min(np.abs(forces - reference).max() for reference in references))

    if distance(stored) < FORCE_LIMIT:
        return None
    readings = {
        f"forces are in {unit}{OTHER_SIGN[sign]}": sign * stored / hartree_per_angstrom_in(unit)
        for unit in FORCE_UNITS
        for sign in (1, -1)
    }
    causes = [cause for cause, forces in readings.items() if distance(forces) < FORCE_LIMIT]
    return Failure(
        f"proof 'forces': max |F + dE/dR| = {distance(stored):.1e} Eh/Angstrom, limit"
        f" {FORCE_LIMIT:.0e}, largest force {np.abs(references[0]).max():.1e}",
        _cause(causes),
    )


def _with_vv10(molecule: Molecule, method: Method) -> Iterator[EnergyFunctional]:
    """Programs that leave VV10 out of the matrix add it to the energy afterwards."""
    if method.xc.endswith(WITHOUT_VV10):
        whole = replace(method, xc=method.xc.removesuffix(WITHOUT_VV10))
        yield EnergyFunctional(molecule, whole)


def _agrees(stored: float, energy: float, molecule: Molecule) -> bool:
    atoms = len(molecule.atomic_numbers)
    return -DISPERSION * atoms < stored - energy < NUMERICS * atoms


def _is_total(energy: float, molecule: Molecule) -> bool:
    return any(free_atoms.fits(energy, molecule, family) for family in free_atoms.families())


def _cause(causes: list[str]) -> str:
    if not causes:
        return "no unit fits: the label is of another kind, method or molecule"
    return f"every proof holds if {' or '.join(causes)}"
