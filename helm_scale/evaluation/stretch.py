"""Stretches a bond to 1.5 times its length and compares HOMO, LUMO and energy with PySCF's.

The bond lies outside rings; the atoms behind it move along it as a rigid group.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from helm_scale.basis import elements
from helm_scale.dft import generate
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import bonded
from helm_scale.dft.processes import run_parallel
from helm_scale.evaluation import orbitals
from helm_scale.evaluation.geometry import distances
from helm_scale.evaluation.tables import grid
from helm_scale.evaluation.verdict import number
from helm_scale.types import Method, Molecule
from helm_scale.units import HARTREE_IN_EV, HARTREE_IN_MEV

# Beyond 1.5, closed-shell DFT itself no longer describes a bond that breaks.
FACTORS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
MAX_CYCLE = 200  # stretched bonds converge slowly


@dataclass(frozen=True, kw_only=True)
class StretchJob:
    """One geometry. residual, method, baseline, overlap_threshold, projected: as
    molecule.EvaluationJob."""

    molecule: Molecule
    residual: np.ndarray
    method: Method
    baseline: str
    overlap_threshold: float | None
    projected: bool = False


@dataclass(frozen=True)
class Levels:
    """Frontier orbitals and energy of one Hamiltonian, Hartree."""

    homo: float
    lumo: float
    energy: float


@dataclass(frozen=True)
class StretchPoint:
    """Levels at one bond length (Angstrom), which is `factor` times that at the start."""

    factor: float
    length: float
    reference: Levels
    predicted: Levels


def longest_bond(molecule: Molecule) -> tuple[int, int] | None:
    """The longest bond outside rings, lower index first; None where there is none."""
    near = bonded(molecule)  # symmetric: its upper triangle has every bond once
    chain_bonds = [
        (int(i), int(j))
        for i, j in zip(*np.nonzero(np.triu(near)), strict=True)
        if not _behind(near, (int(i), int(j)))[i]
    ]
    return max(chain_bonds, key=lambda bond: float(distances(molecule)[bond]), default=None)


def _behind(near: np.ndarray, bond: tuple[int, int]) -> np.ndarray:
    """Find the atoms connected to the second atom once the bond is cut: [N] bool.

    The first atom is among them exactly if the bond is part of a ring.
    """
    cut = near.copy()
    cut[bond] = cut[bond[::-1]] = False
    fragment = connected_components(cut, directed=False)[1]
    return fragment == fragment[bond[1]]


def stretched(molecule: Molecule, bond: tuple[int, int], factor: float) -> Molecule:
    """The molecule, without labels, with the bond (atom indices from 0) `factor` times as long.

    Raises:
        ValueError: no such atoms, not bonded, or a bond of a ring.
    """
    first, second = bond
    if not 0 <= min(bond) < max(bond) < len(molecule.atomic_numbers):
        raise ValueError(
            f"{molecule.key}: bond: got {list(bond)}, wanted two atoms from 0 to"
            f" {len(molecule.atomic_numbers) - 1}"
        )
    near = bonded(molecule)
    behind = _behind(near, bond)
    if not near[bond] or behind[first]:
        raise ValueError(
            f"{molecule.key}: bond: atoms {first} and {second} are not bonded or in a ring; wanted"
            " a bond that holds two parts"
        )
    vector = molecule.positions[second] - molecule.positions[first]
    # All atoms behind the bond move by one vector, so no other bond length changes.
    moved = molecule.positions + behind[:, None] * (factor - 1) * vector
    return Molecule(
        f"{molecule.key}-{factor:.2f}",
        molecule.atomic_numbers,
        moved,
        charge=molecule.charge,
        spin_multiplicity=molecule.spin_multiplicity,
    )


def follow(
    molecule: Molecule,
    bond: tuple[int, int],
    residual: Callable[[Molecule], np.ndarray],
    job: StretchJob,
    processes: int,
) -> tuple[list[StretchPoint], list[str]]:
    """Compute the levels at every length of the bond; `job` holds what all lengths share.

    Returns:
        (points, lengths at which PySCF did not converge and why).
    """
    geometries = [stretched(molecule, bond, factor) for factor in FACTORS]
    # Predicted here, as workers ask: the processes have no model and no GPU.
    jobs = (replace(job, molecule=geometry, residual=residual(geometry)) for geometry in geometries)
    levels = dict(run_parallel(label_point, jobs, processes, total=len(FACTORS), label="stretch"))
    points, failed = [], []
    for place, (factor, geometry) in enumerate(zip(FACTORS, geometries, strict=True)):
        result = levels[place]
        if isinstance(result, str):
            failed.append(f"{factor:.1f}: {result}")
        else:
            points.append(StretchPoint(factor, float(distances(geometry)[bond]), *result))
    return points, failed


def label_point(job: StretchJob) -> tuple[Levels, Levels] | str:
    """Compute PySCF's levels and those of the prediction, or say why PySCF failed."""
    truth = generate.label_or_reason(
        generate.LabelJob(
            molecule=job.molecule,
            method=job.method,
            forces=False,
            overlap=False,
            max_cycle=MAX_CYCLE,
        )
    )
    if isinstance(truth, str):
        return truth
    assert truth.hamiltonian is not None and truth.energy is not None
    functional, basis = EnergyFunctional(job.molecule, job.method), job.method.basis
    hamiltonian = (
        job.residual if job.baseline == "none" else job.residual + functional.baseline(job.baseline)
    )
    threshold = job.overlap_threshold or orbitals.chosen_threshold(
        float(np.abs(hamiltonian - truth.hamiltonian).mean())
    )
    if job.projected:
        hamiltonian = functional.kohn_sham_matrix(hamiltonian)
        threshold = orbitals.PYSCF_THRESHOLD
    projector = orbitals.canonical_projectors(overlap(job.molecule, basis), (threshold,))[0]
    occupied = orbitals.occupied_count(job.molecule, basis)
    # Both through one projector; the energy of the truth is the SCF's own.
    reference, predicted = (
        orbitals.solve(matrix, projector, occupied) for matrix in (truth.hamiltonian, hamiltonian)
    )
    energy = functional.energy_and_fock(predicted.density_matrix())[0]
    return Levels(reference.homo, reference.lumo, truth.energy), Levels(
        predicted.homo, predicted.lumo, energy
    )


def title(molecule: Molecule, bond: tuple[int, int]) -> str:
    """Name the molecule and the bond's atoms, as in "ethanol, bond C0-C1"."""
    names = "-".join(
        f"{elements.symbol(int(molecule.atomic_numbers[atom]))}{atom}" for atom in bond
    )
    return f"{molecule.key}, bond {names}"


def table(points: Sequence[StretchPoint], failed: Sequence[str]) -> str:
    """Render levels (eV), energies (meV above PySCF's first point) and failures as Markdown."""
    lowest = points[0].reference.energy if points else 0.0
    heads = ["length / start", "length / A"]
    heads += [
        f"{what} / eV, {whose}" for what in ("HOMO", "LUMO", "gap") for whose in ("PySCF", "model")
    ]
    heads += [f"E / meV, {whose}" for whose in ("PySCF", "model")]
    rows = []
    for point in points:
        pair = (point.reference, point.predicted)
        row = [f"{point.factor:.1f}", f"{point.length:.3f}"]
        row += [
            f"{getattr(levels, name) * HARTREE_IN_EV:.3f}"
            for name in ("homo", "lumo")
            for levels in pair
        ]
        row += [f"{(levels.lumo - levels.homo) * HARTREE_IN_EV:.3f}" for levels in pair]
        rows.append(row + [number((levels.energy - lowest) * HARTREE_IN_MEV) for levels in pair])
    return "\n".join([*grid(heads, rows), *["", *failed] * bool(failed)]) + "\n"


def as_dict(points: Sequence[StretchPoint]) -> list[dict[str, Any]]:
    """For JSON, Hartree and Angstrom."""
    return [asdict(point) for point in points]
