"""Predicts Hamiltonians of molecules without labels and writes them as npz files for PySCF."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from helm_scale.basis import conventions
from helm_scale.basis.assembly import assemble
from helm_scale.basis.shells import shells_of
from helm_scale.data.format.shards import check_key
from helm_scale.data.graphs.collate import collate
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import check_electrons, from_canonical
from helm_scale.dft.processes import run_parallel
from helm_scale.evaluation import orbitals
from helm_scale.files import atomic_path
from helm_scale.model.helm import Helm
from helm_scale.types import Method, Molecule

ABOUT = (
    "Units: Hartree, Angstrom. Closed shell. 'hamiltonian' is in canonical AO order: atoms in"
    " input order, shells by l, m = -l..l."
    " Names that end in '_pyscf' are in PySCF's AO order (the same but for p: x, y, z):"
    " hamiltonian = hamiltonian_pyscf[canonical_from_pyscf][:, canonical_from_pyscf]."
    " 'hamiltonian_kohn_sham', where it is there, is the Kohn-Sham matrix nearest to it, and"
    " orbitals and density are of that."
    " Start an SCF with mf.kernel(dm0=density_matrix_pyscf); the mole needs the ECP of 'method'"
    " (JSON)."
)


@dataclass(frozen=True, kw_only=True)
class PredictJob:
    """One molecule to write.

    Attributes:
        residual: predicted H - H0 [nao, nao], Hartree, canonical order. method: of the training
            labels.
        baseline: H0 of the model, "none", "atoms" or "minao". overlap_threshold: of the canonical
            orthogonalisation of a matrix that is not projected.
        projected: whether orbitals and density are those of the nearest Kohn-Sham matrix.
        path: npz file to write.
    """

    molecule: Molecule
    residual: np.ndarray
    method: Method
    baseline: str
    overlap_threshold: float
    path: Path
    projected: bool = False


def predict_residual(model: Helm, molecule: Molecule, method: Method | None = None) -> np.ndarray:
    """Predict H - H0 of one molecule, Hartree, in canonical order.

    Args:
        method: of the model's labels; needed where the model reads H0 and the molecule has none.
    Returns:
        [nao, nao] float64, symmetric to the last bit.
    Raises:
        ValueError: element, charge or multiplicity outside the model's range, or coincident atoms.
    """
    batch = collate([_with_inputs(model, molecule, method)], model.config).to(
        model.reference.device
    )
    with torch.no_grad():
        onsite, offsite = model(batch)
        # Reference irreps of an element reach 20 Hartree; in float32 the sum would be rounded by
        # a microhartree.
        complete = onsite.double() + model.reference_onsite(batch)
    config = model.config
    (dense,) = assemble(batch, complete, offsite, basis=config.basis, parity=config.parity)
    return dense.cpu().numpy()


def predict_hamiltonian(
    model: Helm, molecule: Molecule, functional: EnergyFunctional
) -> np.ndarray:
    """Predict H of one molecule, H0 added: [nao, nao] float64, Hartree, canonical order.

    Args:
        functional: of the molecule, which keeps H0 for whoever needs it next.
    Raises:
        ValueError: as `predict_residual`.
    """
    residual = predict_residual(model, molecule, functional.method)
    if model.config.baseline == "none":
        return residual
    return residual + functional.baseline(model.config.baseline)


def _with_inputs(model: Helm, molecule: Molecule, method: Method | None) -> Molecule:
    """Drop the label and add the matrices that the model reads, computed unless stored."""
    config, overlaps, baseline = model.config, molecule.overlap, molecule.baseline_hamiltonian
    if "overlap" in config.conditions and overlaps is None:
        overlaps = overlap(molecule, config.basis)
    stored, method = molecule.method, method or molecule.method
    # A stored H0 of another density is no input that the model has seen.
    if "baseline_hamiltonian" in config.conditions and (
        baseline is None or stored is None or stored.baseline != config.baseline
    ):
        assert method is not None, "callers of models that read H0 know their method"
        baseline = EnergyFunctional(molecule, method).baseline(config.baseline)
    return replace(molecule, hamiltonian=None, overlap=overlaps, baseline_hamiltonian=baseline)


def check_molecules(molecules: Sequence[Molecule], basis: str) -> None:
    """Raise ValueError naming the first molecule that cannot be predicted, and why.

    Reasons are its key, its elements, its charge and its multiplicity.
    """
    for molecule in molecules:
        check_key(molecule.key)
        check_electrons(molecule, basis, f"molecule '{molecule.key}'")
        orbitals.occupied_count(molecule, basis)


def write_predictions(jobs: Iterable[PredictJob], processes: int, total: int) -> Iterator[Path]:
    """Complete, diagonalise and write predictions in parallel; yield files as they are done."""
    for _, path in run_parallel(write_prediction, jobs, processes, total=total, label="predict"):
        yield path


def write_prediction(job: PredictJob) -> Path:
    """Add H0, solve for the orbitals and write the npz file; its field `about` explains it."""
    molecule, basis, numbers = job.molecule, job.method.basis, job.molecule.atomic_numbers
    functional, hamiltonian = EnergyFunctional(molecule, job.method), job.residual
    if job.baseline != "none":
        hamiltonian = hamiltonian + functional.baseline(job.baseline)
    used, threshold = hamiltonian, job.overlap_threshold
    if job.projected:
        used, threshold = functional.kohn_sham_matrix(hamiltonian), orbitals.PYSCF_THRESHOLD
    projector = orbitals.canonical_projectors(overlap(molecule, basis), (threshold,))[0]
    solution = orbitals.solve(used, projector, orbitals.occupied_count(molecule, basis))
    shells = [shells_of(basis, int(z)) for z in numbers]
    index, _ = conventions.ao_order("pyscf", shells)
    fields = {
        "about": np.array(ABOUT),
        "method": np.array(json.dumps(asdict(job.method), sort_keys=True)),
        "atomic_numbers": numbers,
        "positions": molecule.positions,
        "charge": np.array(molecule.charge),
        "spin_multiplicity": np.array(molecule.spin_multiplicity),
        "canonical_from_pyscf": index,
        "ao_order": np.array("canonical"),
        "hamiltonian": hamiltonian,
        "hamiltonian_pyscf": from_canonical(hamiltonian, basis, numbers),
        "density_matrix_pyscf": from_canonical(solution.density_matrix(), basis, numbers),
        "mo_energy": solution.energies,
        "mo_coeff_pyscf": conventions.rows_from_canonical(solution.coefficients, "pyscf", shells),
        # A closed shell: two electrons in each occupied orbital, as PySCF writes it.
        "mo_occ": 2.0 * (np.arange(len(solution.energies)) < solution.occupied),
        "overlap_threshold": np.array(threshold),
        "orbitals_dropped": np.array(projector.dropped),
    }
    if job.projected:
        fields["hamiltonian_kohn_sham"] = used
        fields["hamiltonian_kohn_sham_pyscf"] = from_canonical(used, basis, numbers)
    job.path.parent.mkdir(parents=True, exist_ok=True)
    # An open file, because np.savez appends ".npz" to a path that ends otherwise.
    with atomic_path(job.path) as partial, partial.open("wb") as file:
        np.savez(file, **fields)  # type: ignore[arg-type]
    return job.path
