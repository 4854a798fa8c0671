"""A bond stretched from 1.0 to 1.5 times its length: HOMO, LUMO, gap and energy of the model against PySCF.

The bond is an edge of the minimum spanning tree of the interatomic distances; the atoms behind it move along it as one.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from helm_scale.basis import elements
from helm_scale.batch import Method, Molecule
from helm_scale.dft import generate
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.processes import run_parallel
from helm_scale.evaluation import orbitals
from helm_scale.evaluation.assemble import distances
from helm_scale.evaluation.report import grid, number
from helm_scale.units import HARTREE_IN_EV, HARTREE_IN_MEV

FACTORS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
MAX_CYCLE = 200  # stretched bonds converge slowly


@dataclass(frozen=True)
class PointJob:
    """One geometry. residual, method, baseline, overlap_threshold: as protocol.Job."""

    molecule: Molecule
    residual: np.ndarray
    method: Method
    baseline: str
    overlap_threshold: float | None


@dataclass(frozen=True)
class Levels:
    """Frontier orbitals and energy of one Hamiltonian, Hartree."""

    homo: float
    lumo: float
    energy: float


@dataclass(frozen=True)
class Point:
    """One geometry, twice. length: of the bond, Angstrom; factor: over that at the start."""

    factor: float
    length: float
    reference: Levels
    predicted: Levels


def longest_bond(molecule: Molecule) -> tuple[int, int]:
    """The longest edge of the minimum spanning tree of the distances, lower index first."""
    tree = minimum_spanning_tree(distances(molecule)).toarray()
    first, second = np.unravel_index(int(np.argmax(tree)), tree.shape)
    return (int(min(first, second)), int(max(first, second)))


def stretched(molecule: Molecule, bond: tuple[int, int], factor: float) -> Molecule:
    """The molecule, without labels, with the bond (atom indices from 0) `factor` times as long.

    Raises:
        ValueError: no such atoms, or the bond is no edge of the minimum spanning tree, as in a ring.
    """
    first, second = bond
    if not 0 <= min(bond) < max(bond) < len(molecule.atomic_numbers):
        raise ValueError(f"{molecule.key}: bond: got {list(bond)}, wanted two atoms from 0 to {len(molecule.atomic_numbers) - 1}")
    tree = minimum_spanning_tree(distances(molecule)).toarray()
    tree = np.maximum(tree, tree.T)
    if not tree[first, second]:
        raise ValueError(
            f"{molecule.key}: bond: atoms {first} and {second} do not hold two parts together; choose neighbours outside rings"
        )
    tree[first, second] = tree[second, first] = 0
    behind = connected_components(tree, directed=False)[1]
    vector = molecule.positions[second] - molecule.positions[first]
    moved = molecule.positions + (behind == behind[second])[:, None] * (factor - 1) * vector
    return Molecule(
        f"{molecule.key}-{factor:.2f}", molecule.atomic_numbers, moved, molecule.charge, molecule.spin_multiplicity
    )  # fmt: skip


def follow(
    molecule: Molecule, bond: tuple[int, int], residual: Callable[[Molecule], np.ndarray], job: PointJob, processes: int
) -> list[Point]:
    """Walk along the bond; `job` holds the settings that all points share."""
    geometries = [stretched(molecule, bond, factor) for factor in FACTORS]
    jobs = (replace(job, molecule=one, residual=residual(one)) for one in geometries)
    levels = dict(run_parallel(judge_point, jobs, processes, len(FACTORS), "stretch"))
    lengths = [float(distances(one)[bond]) for one in geometries]
    return [Point(factor, lengths[i], *levels[i]) for i, factor in enumerate(FACTORS)]


def judge_point(job: PointJob) -> tuple[Levels, Levels]:
    """PySCF's own levels, and those of the prediction.

    Raises:
        RuntimeError: the SCF did not converge.
    """
    truth = generate.label(generate.Job(job.molecule, job.method, forces=False, overlap=False, max_cycle=MAX_CYCLE))
    assert truth.hamiltonian is not None and truth.energy is not None
    functional, basis = EnergyFunctional(job.molecule, job.method), job.method.basis
    hamiltonian = job.residual if job.baseline == "none" else job.residual + functional.baseline(job.baseline)
    threshold = job.overlap_threshold or orbitals.chosen_threshold(float(np.abs(hamiltonian - truth.hamiltonian).mean()))
    projector = orbitals.canonical_projectors(overlap(job.molecule, basis), (threshold,))[0]
    occupied = orbitals.occupied_count(job.molecule, basis)
    reference, found = (orbitals.solve(matrix, projector, occupied) for matrix in (truth.hamiltonian, hamiltonian))
    energy = functional.energy_and_fock(found.density_matrix())[0]
    return Levels(reference.homo, reference.lumo, truth.energy), Levels(found.homo, found.lumo, energy)


def title(molecule: Molecule, bond: tuple[int, int]) -> str:
    """Which bond of which molecule."""
    names = "-".join(f"{elements.symbol(int(molecule.atomic_numbers[atom]))}{atom}" for atom in bond)
    return f"{molecule.key}, bond {names}"


def table(points: Sequence[Point]) -> str:
    """Markdown: levels in eV, and energies in meV above PySCF's first point."""
    lowest = points[0].reference.energy
    heads = ["length / start", "length / A"]
    heads += [f"{what} / eV, {whose}" for what in ("HOMO", "LUMO", "gap") for whose in ("PySCF", "model")]
    heads += [f"E / meV, {whose}" for whose in ("PySCF", "model")]
    rows = []
    for point in points:
        pair = (point.reference, point.predicted)
        row = [f"{point.factor:.1f}", f"{point.length:.3f}"]
        row += [f"{getattr(one, level) * HARTREE_IN_EV:.3f}" for level in ("homo", "lumo") for one in pair]
        row += [f"{(one.lumo - one.homo) * HARTREE_IN_EV:.3f}" for one in pair]
        rows.append(row + [number((one.energy - lowest) * HARTREE_IN_MEV) for one in pair])
    return "\n".join(grid(heads, rows)) + "\n"


def as_dict(points: Sequence[Point]) -> list[dict[str, Any]]:
    """For JSON, Hartree and Angstrom."""
    return [asdict(point) for point in points]
