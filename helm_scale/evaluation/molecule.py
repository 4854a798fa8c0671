"""Judges the predicted Hamiltonian of one molecule by its orbitals, energy, forces and SCF.

Every row goes through the same code:

    prediction   the Hamiltonian to judge
    rebuilt      one Fock build from its density
    kohn_sham    the Kohn-Sham matrix nearest to the prediction (dft/potential.py), without overlap
                 threshold; kohn_sham_rebuilt: one Fock build from its density; kohn_sham_truth: the
                 true H through the same projection, which is what it costs
    truth        the true H against its stored labels (energy, forces) and the Fock matrix of its
                 own density
    projected    the true H in the projected space, against the true H: what the overlap threshold
                 alone costs
    truncated    the true H without the pairs beyond the model's range
    minao, sad   baselines: one Fock build from the minao density, or from isolated atoms

All rows but `truth`, `projected` and those of Kohn-Sham matrices, which keep the whole space, are
compared with the true H under the same projector, so `truth` and `projected` hold the error of the
pipeline and the others that of a Hamiltonian. Rows that would repeat another are left out.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helm_scale.data.format.compatibility import check_same_labels
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.processes import run_parallel
from helm_scale.evaluation import orbitals, results
from helm_scale.evaluation.error_sums import ErrorSums, mean_errors, sum_errors
from helm_scale.evaluation.errors import hamiltonian_errors
from helm_scale.evaluation.geometry import distances, truncate
from helm_scale.evaluation.orbitals import Projector
from helm_scale.evaluation.results import MoleculeResult
from helm_scale.evaluation.states import ElectronicState, compare_states
from helm_scale.types import Method, Molecule

# In the order of the report's tables.
ROWS = (
    *("prediction", "rebuilt", "kohn_sham", "kohn_sham_rebuilt", "truth", "kohn_sham_truth"),
    *("projected", "truncated", "minao", "sad"),
)
_IN_WHOLE_SPACE = {"projected", "kohn_sham", "kohn_sham_rebuilt", "kohn_sham_truth"}
_REBUILT = {"prediction": "rebuilt", "kohn_sham": "kohn_sham_rebuilt"}  # row -> row of its rebuild
DEPTHS = ("matrix", "orbitals", "energies", "forces", "scf")
_GUESSES = {"minao": "minao", "sad": "atom"}  # row -> PySCF's name of the density
_ROW_OF = {"minao": "minao", "atoms": "sad"}  # kind of H0 -> row


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """One molecule to judge.

    Attributes:
        molecule: with hamiltonian; energy, forces and baseline_hamiltonian where the dataset has
            them.
        residual: predicted H - H0 [nao, nao] float64, Hartree, canonical order.
        method: of the labels. baseline: H0 of the model, "none", "atoms" or "minao". pair_cutoff:
            range of the model, Angstrom.
        overlap_threshold: of the canonical orthogonalisation; None: chosen from the error of H.
        projected: with the Kohn-Sham matrices nearest to prediction and label.
        depth: one of DEPTHS; each includes those before it and costs more.
        inference_seconds: what the prediction took.
        record: file that keeps the findings; the same job is not done twice.
    """

    molecule: Molecule
    residual: np.ndarray
    method: Method
    baseline: str
    pair_cutoff: float
    overlap_threshold: float | None = None
    projected: bool = False
    depth: str = "forces"
    inference_seconds: float = 0.0
    record: Path | None = None

    def reaches(self, depth: str) -> bool:
        """Whether the job goes as deep as this."""
        return DEPTHS.index(self.depth) >= DEPTHS.index(depth)


def check_method(model: Method, data: Method, where: str) -> None:
    """Raise ValueError naming every difference if the model learned labels of another method."""
    # SCF threshold, stored H0 and program may differ: they do not change what H is to be.
    of_data, of_model = (
        {name: getattr(method, name) for name in ("xc", "basis", "ecp", "grid_level", "auxbasis")}
        for method in (data, model)
    )
    check_same_labels(
        f"labels in {where}",
        of_data,
        other="those that the model learned",
        wanted=of_model,
        remedy="evaluate on data of the model's method",
    )


def evaluate_molecules(
    jobs: Iterable[EvaluationJob], processes: int, total: int
) -> Iterator[MoleculeResult]:
    """Judge molecules in parallel processes; records come in order of completion.

    Raises:
        ValueError: as evaluate_molecule.
    """
    for _, record in run_parallel(
        evaluate_molecule, jobs, processes, total=total, label="evaluate"
    ):
        yield record


def evaluate_molecule(job: EvaluationJob) -> MoleculeResult:
    """Judge one molecule, or read its record if the same job was done before.

    Raises:
        ValueError: no label, a label of another size than the prediction, or not a closed shell.
    """
    truth = _label(job)
    # The time of the prediction differs at every run and does not make a job another one.
    mark = (
        results.fingerprint(replace(job, record=None, inference_seconds=0.0)) if job.record else ""
    )
    earlier = results.load(job.record, mark) if job.record else None
    if earlier is not None:
        return earlier
    record = _judge(job, truth)
    if job.record:
        results.save(record, job.record, mark)
    return record


def _label(job: EvaluationJob) -> np.ndarray:
    truth = job.molecule.hamiltonian
    if truth is None:
        raise ValueError(
            f"{job.molecule.key}: no hamiltonian to compare with; wanted a labelled molecule"
        )
    if truth.shape != job.residual.shape:
        raise ValueError(
            f"{job.molecule.key}: predicted H has shape {job.residual.shape}, wanted {truth.shape}"
            " as the label"
        )
    return truth


def _judge(job: EvaluationJob, truth: np.ndarray) -> MoleculeResult:
    molecule, basis = job.molecule, job.method.basis
    start = time.perf_counter()
    functional = EnergyFunctional(molecule, job.method)
    if job.reaches("orbitals"):
        functional.prepare()  # here, so that the first energy is not charged for the grid
    facts = {
        "seconds_inference": job.inference_seconds,
        "seconds_setup": time.perf_counter() - start,
    }
    far = distances(molecule) >= job.pair_cutoff
    facts |= {"nao": len(truth), "far_pairs": int(far.sum()) // 2}  # each pair is there twice
    matrices = _matrices(job, functional, truth, bool(far.any()))
    rows = {
        name: hamiltonian_errors(matrix - truth, truth, molecule, basis)
        for name, matrix in matrices.items()
    }
    if job.reaches("orbitals"):
        facts |= _judge_states(job, functional, truth=truth, matrices=matrices, rows=rows)
    return MoleculeResult(molecule.key, molecule.atomic_numbers, rows, facts)


def _matrices(
    job: EvaluationJob, functional: EnergyFunctional, truth: np.ndarray, truncated: bool
) -> dict[str, np.ndarray]:
    """Collect the Hamiltonians to judge by row: the prediction, the truncated truth, baselines.

    A baseline that the dataset has is free; others are computed only if orbitals are judged, or if
    the prediction is incomplete without them.
    """
    molecule = job.molecule
    bases = (
        {_ROW_OF[job.method.baseline]: molecule.baseline_hamiltonian}
        if molecule.baseline_hamiltonian is not None
        else {}
    )
    for density, row in _ROW_OF.items():
        if row not in bases and (job.reaches("orbitals") or density == job.baseline):
            bases[row] = functional.baseline(density)
    below = np.zeros_like(truth) if job.baseline == "none" else bases[_ROW_OF[job.baseline]]
    matrices = {"prediction": job.residual + below}
    if truncated:
        # Only what is learned is cut off: H0 is added in full, to distant pairs too.
        matrices["truncated"] = (
            truncate(truth - below, molecule, job.method.basis, job.pair_cutoff) + below
        )
    if job.projected and job.reaches("orbitals"):
        for row, matrix in (("kohn_sham", matrices["prediction"]), ("kohn_sham_truth", truth)):
            matrices[row] = functional.kohn_sham_matrix(matrix)
    return matrices | bases


def _judge_states(
    job: EvaluationJob,
    functional: EnergyFunctional,
    truth: np.ndarray,
    matrices: dict[str, np.ndarray],
    rows: dict[str, ErrorSums],
) -> dict[str, float]:
    """Add errors of orbitals, energies and forces to the rows, and return the other facts."""
    molecule, basis = job.molecule, job.method.basis
    # Never below PySCF's own threshold: labels say nothing about the directions that it drops.
    threshold = max(
        job.overlap_threshold or orbitals.chosen_threshold(mean_errors(rows["prediction"])["all"]),
        orbitals.PYSCF_THRESHOLD,
    )
    projector, whole = orbitals.canonical_projectors(
        overlap(molecule, basis), (threshold, orbitals.PYSCF_THRESHOLD)
    )
    occupied = orbitals.occupied_count(molecule, basis)
    states = {"truth": ElectronicState(orbitals.solve(truth, whole, occupied))}
    # Where both projectors are the same one, the row would repeat `truth`.
    if projector.dropped > whole.dropped:
        states["projected"] = ElectronicState(orbitals.solve(truth, projector, occupied))
    spaces = {name: whole if name in _IN_WHOLE_SPACE else projector for name in ROWS}
    states |= {
        name: ElectronicState(orbitals.solve(matrix, spaces[name], occupied))
        for name, matrix in matrices.items()
    }
    facts: dict[str, float] = {
        "occupied": occupied,
        "overlap_smallest": projector.smallest,
        "overlap_threshold": threshold,
        "orbitals_dropped": projector.dropped,
        "ghosts_unprojected": _ghosts(matrices["prediction"], whole, states["truth"]),
    }
    if job.reaches("energies"):
        facts["seconds_energy"], focks = _add_energies(functional, spaces, states)
        for name, row in {"truth": "truth", **_REBUILT}.items():
            if name in focks:
                rows[row] = hamiltonian_errors(focks[name] - truth, truth, molecule, basis)
        facts["label_gradient_Eh"] = orbitals.gradient_norm(
            states["truth"].orbitals, focks["truth"]
        )
        # A converged H is the Fock matrix of its own density, so this is the error of the labels.
        again = ElectronicState(orbitals.solve(focks["truth"], whole, occupied))
        rows["truth"] |= compare_states(again, states["truth"], whole.overlap)
    if job.reaches("forces"):
        facts["seconds_forces"] = _add_forces(functional, states)
    rows["truth"] = rows.get("truth", {}) | _against_labels(molecule, states["truth"])
    # Predictions are compared within their own projector, so that they do not pay its cost; the
    # row `projected` shows that cost alone.
    reference = states.get("projected", states["truth"])
    for name, state in states.items():
        if name != "truth":
            target = states["truth"] if name in _IN_WHOLE_SPACE else reference
            rows[name] = rows.get(name, {}) | compare_states(state, target, whole.overlap)
    if job.reaches("scf"):
        facts |= _scf(functional, states)
    return facts


def _ghosts(hamiltonian: np.ndarray, whole: Projector, truth: ElectronicState) -> int:
    """Count ghosts among the occupied orbitals of a matrix that is not projected."""
    solution = orbitals.solve(hamiltonian, whole, truth.orbitals.occupied)
    return orbitals.ghost_count(orbitals.occupied_weights(solution, truth.orbitals, whole.overlap))


def _add_energies(
    functional: EnergyFunctional, spaces: dict[str, Projector], states: dict[str, ElectronicState]
) -> tuple[float, dict[str, np.ndarray]]:
    """Add energies and dipoles to all states and the rebuilt states; return seconds and Focks.

    Returns:
        (seconds per density, Fock matrix of each state's density by name).
    """
    start = time.perf_counter()
    focks = {}
    for name in states:
        states[name], focks[name] = _with_energy(functional, states[name])
    occupied = states["truth"].orbitals.occupied
    for name, row in _REBUILT.items():
        if name in focks:
            rebuilt = orbitals.solve(focks[name], spaces[name], occupied)
            states[row], _ = _with_energy(functional, ElectronicState(rebuilt))
    return (time.perf_counter() - start) / len(states), focks


def _with_energy(
    functional: EnergyFunctional, state: ElectronicState
) -> tuple[ElectronicState, np.ndarray]:
    density = state.orbitals.density_matrix()
    energy, fock = functional.energy_and_fock(density)
    return replace(state, energy=energy, dipole=functional.dipole(density)), fock


def _add_forces(functional: EnergyFunctional, states: dict[str, ElectronicState]) -> float:
    """Add forces to every state, and return seconds per density."""
    start = time.perf_counter()
    solutions = [state.orbitals for state in states.values()]
    # All densities in one call: they share derivative integrals and orbitals on the grid.
    forces = functional.forces(
        [solution.density_matrix() for solution in solutions],
        [solution.energy_weighted_density() for solution in solutions],
    )
    states.update(
        {
            name: replace(state, forces=force)
            for (name, state), force in zip(states.items(), forces, strict=True)
        }
    )
    return (time.perf_counter() - start) / len(solutions)


def _against_labels(molecule: Molecule, truth: ElectronicState) -> ErrorSums:
    errors: ErrorSums = {}
    if molecule.energy is not None and truth.energy is not None:
        errors["energy"] = sum_errors(truth.energy - molecule.energy)
    if molecule.forces is not None and truth.forces is not None:
        errors["forces"] = sum_errors(truth.forces - molecule.forces)
    return errors


def _scf(functional: EnergyFunctional, states: dict[str, ElectronicState]) -> dict[str, float]:
    """Run the SCF from predicted, projected and true density and PySCF's guesses; return what it
    took."""
    names: list[str] = [name for name in ("prediction", "kohn_sham", "truth") if name in states]
    guesses = {name: states[name].orbitals.density_matrix() for name in names}
    guesses |= {row: functional.guess(key) for row, key in _GUESSES.items()}
    runs = {name: functional.scf(density) for name, density in guesses.items()}
    # A start that ends in another SCF solution saves no cycles; the spread of energies shows it.
    energies = [run.energy for run in runs.values() if run.converged]
    facts = {
        "scf_energy_spread_Eh": max(energies) - min(energies) if energies else 0.0,
        "scf_gradient_limit_Eh": functional.gradient_limit,
    }
    for name, run in runs.items():
        facts |= {
            f"scf_cycles_{name}": run.cycles,
            f"scf_seconds_{name}": run.seconds,
            f"scf_converged_{name}": float(run.converged),
        }
    return facts
