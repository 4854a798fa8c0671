"""What one molecule's predicted Hamiltonian is worth: its error, its orbitals, its energy, beside the true Hamiltonian.

Every row goes through the same code. `prediction`, `rebuilt` (one Fock build from the predicted density), `baseline`
(H0 alone) and `truncated` (the true H without the pairs beyond the model's range) are compared with the true H under
the same projector. `truth`, the true H itself, is compared with the stored energy and with its own orbitals without
projection: that row is the error of the pipeline, not of a model.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from helm_scale.batch import Method, Molecule
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.processes import run_parallel
from helm_scale.evaluation import orbitals
from helm_scale.evaluation.assemble import distances, truncate
from helm_scale.evaluation.errors import hamiltonian_errors
from helm_scale.evaluation.orbitals import Orbitals, Projector
from helm_scale.evaluation.tally import Tally, tally

ROWS = ("prediction", "rebuilt", "truth", "truncated", "baseline")
_NO_PROJECTION = 1e-12  # below the smallest overlap eigenvalue of any molecule here


@dataclass(frozen=True)
class Job:
    """One molecule to judge.

    Attributes:
        molecule: with hamiltonian; energy and baseline_hamiltonian where the dataset has them.
        residual: predicted H - H0 [nao, nao] float64, Hartree, canonical order.
        method: of the labels. baseline: H0 of the model, "none" or "minao". pair_cutoff: range of the model, Angstrom.
        overlap_threshold: of the canonical orthogonalisation.
        with_orbitals: also orbitals and energies, by PySCF. keep_matrices: hand H and its prediction back, for a picture.
    """

    molecule: Molecule
    residual: np.ndarray
    method: Method
    baseline: str
    pair_cutoff: float
    overlap_threshold: float
    with_orbitals: bool = True
    keep_matrices: bool = False


@dataclass(frozen=True)
class Record:
    """Findings on one molecule.

    Attributes:
        rows: sums and counts, Hartree, by row and name (errors.hamiltonian_errors, _compare).
        facts: nao, far_pairs; with orbitals also occupied, overlap_smallest, orbitals_dropped.
        matrices: (H, predicted H) [nao, nao] Hartree if asked for.
    """

    key: str
    atomic_numbers: np.ndarray
    rows: dict[str, Tally]
    facts: dict[str, float]
    matrices: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class _State:
    """Orbitals, the energy of their density (Hartree), the Kohn-Sham matrix of that density."""

    orbitals: Orbitals
    energy: float
    fock: np.ndarray


def check_method(model: Method, data: Method, where: str) -> None:
    """Raise ValueError naming `where` and both methods if the model learned the labels of another method than the data's."""
    for name in ("xc", "basis", "ecp", "grid_level", "auxbasis"):
        if getattr(model, name) != getattr(data, name):
            raise ValueError(
                f"{where}: labels of another method: {name} is {getattr(data, name)!r}, the model learned {getattr(model, name)!r};"
                f" wanted data of {model}, got {data}"
            )


def pictured(atoms: np.ndarray) -> int:
    """Place of the molecule to draw: the largest of at most 12 atoms, else the smallest."""
    return int(np.argmax(np.where(atoms <= 12, atoms, -atoms)))


def evaluate_molecules(jobs: Iterable[Job], processes: int, total: int) -> Iterator[Record]:
    """Judge molecules in parallel processes; records come in order of completion.

    Raises:
        ValueError: as evaluate_molecule.
    """
    for _, record in run_parallel(evaluate_molecule, jobs, processes, total, "evaluate"):
        yield record


def evaluate_molecule(job: Job) -> Record:
    """Judge one molecule.

    Raises:
        ValueError: no label, a label of another size than the prediction, or not a closed shell.
    """
    molecule, basis = job.molecule, job.method.basis
    truth = _label(job)
    functional = EnergyFunctional(molecule, job.method)
    base = molecule.baseline_hamiltonian
    if job.baseline != "none" and base is None:
        base = functional.baseline()
    below = np.zeros_like(truth) if job.baseline == "none" or base is None else base
    far = distances(molecule) >= job.pair_cutoff
    inside = truncate(truth - below, molecule, basis, job.pair_cutoff) + below if far.any() else truth
    matrices = {"prediction": job.residual + below, "truncated": inside} | ({} if base is None else {"baseline": base})
    rows = {name: hamiltonian_errors(matrix - truth, truth, molecule, basis) for name, matrix in matrices.items()}
    facts: dict[str, float] = {"nao": len(truth), "far_pairs": int(far.sum()) // 2}
    if job.with_orbitals:
        facts |= _judge_orbitals(job, functional, truth, matrices, rows)
    kept = (truth, matrices["prediction"]) if job.keep_matrices else None
    return Record(molecule.key, molecule.atomic_numbers, rows, facts, kept)


def _label(job: Job) -> np.ndarray:
    truth = job.molecule.hamiltonian
    if truth is None:
        raise ValueError(f"{job.molecule.key}: no hamiltonian to compare with; wanted a labelled molecule")
    if truth.shape != job.residual.shape:
        raise ValueError(f"{job.molecule.key}: predicted H has shape {job.residual.shape}, wanted {truth.shape} as the label")
    return truth


def _judge_orbitals(
    job: Job, functional: EnergyFunctional, truth: np.ndarray, matrices: dict[str, np.ndarray], rows: dict[str, Tally]
) -> dict[str, float]:
    """Add orbital and energy errors to the rows; return what the projection did."""
    molecule, basis = job.molecule, job.method.basis
    thresholds = (job.overlap_threshold, _NO_PROJECTION)
    projector, whole = orbitals.canonical_projectors(overlap(molecule, basis), thresholds)
    occupied = orbitals.occupied_count(molecule, basis)
    reference = _solve(truth, projector, occupied, functional)
    rows["truth"] = _compare(reference.orbitals, orbitals.solve(truth, whole, occupied), projector.overlap)
    if molecule.energy is not None:
        rows["truth"]["energy"] = tally(reference.energy - molecule.energy)
    states = {name: reference if matrix is truth else _solve(matrix, projector, occupied, functional) for name, matrix in matrices.items()}
    rebuilt = states["prediction"].fock
    states["rebuilt"] = _solve(rebuilt, projector, occupied, functional)
    rows["rebuilt"] = hamiltonian_errors(rebuilt - truth, truth, molecule, basis)
    for name, state in states.items():
        rows[name] |= _compare(state.orbitals, reference.orbitals, projector.overlap)
        rows[name]["energy"] = tally(state.energy - reference.energy)
    return {"occupied": occupied, "overlap_smallest": projector.smallest, "orbitals_dropped": projector.dropped}


def _solve(hamiltonian: np.ndarray, projector: Projector, occupied: int, functional: EnergyFunctional) -> _State:
    found = orbitals.solve(hamiltonian, projector, occupied)
    return _State(found, *functional.energy_and_fock(found.density_matrix()))


def _compare(found: Orbitals, reference: Orbitals, overlap_: np.ndarray) -> Tally:
    """Errors of orbital energies (Hartree) and of the occupied space; both with the same count of occupied orbitals."""
    filled = slice(0, reference.occupied)
    weights = orbitals.occupied_weights(found, reference, overlap_)
    return {
        "occupied": tally(found.energies[filled] - reference.energies[filled]),
        "homo": tally(found.homo - reference.homo),
        "lumo": tally(found.lumo - reference.lumo),
        "gap": tally(found.gap - reference.gap),
        "subspace_overlap": tally(orbitals.subspace_overlap(weights)),
        "lost_occupied": tally(orbitals.lost_occupied(weights)),
        "ghosts": tally(orbitals.ghost_count(weights)),
    }
