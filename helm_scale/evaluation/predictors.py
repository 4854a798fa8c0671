"""Sources of predicted Hamiltonians: a model of this package, or a folder of npz files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.basis import conventions
from helm_scale.basis.shells import shells_of
from helm_scale.evaluation.prediction import predict_residual
from helm_scale.model.helm import Helm
from helm_scale.types import Method, Molecule

# Hartree: above what float32 and text files lose, below any error that matters.
SYMMETRY = 1e-6
# Angstrom: what coordinates lose in an xyz file of four decimals.
SAME_PLACE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Predicts H - H0 of a molecule.

    Attributes:
        residual: molecule -> [nao, nao] float64, Hartree, canonical order.
        baseline: H0 that completes it, "none", "atoms" or "minao". pair_cutoff: range of the pairs,
            Angstrom.
        error: mean |dH| on validation molecules, Hartree; None: unknown.
        about: for the report. model: where it is one of this package.
    """

    residual: Callable[[Molecule], np.ndarray]
    baseline: str
    pair_cutoff: float
    about: dict[str, Any]
    model: Helm | None = None
    error: float | None = None


def of_model(model: Helm, method: Method | None = None, *, error: float | None = None) -> Predictor:
    """A model of this package; method: of its labels, for a model that reads H0; error: on
    validation molecules, Hartree, where known."""
    config = model.config
    return Predictor(
        residual=lambda molecule: predict_residual(model, molecule, method),
        baseline=config.baseline,
        pair_cutoff=config.pair_cutoff,
        about=config.model_dump(mode="json"),
        model=model,
        error=error,
    )


def is_folder(path: Path) -> bool:
    """Whether the folder holds npz files."""
    return path.is_dir() and any(path.glob("*.npz"))


def of_folder(folder: Path, basis: str, ao_order: str | None) -> Predictor:
    """Hamiltonians in files `<key>.npz`, one per molecule of the split.

    A file holds `hamiltonian` [nao, nao], Hartree, and names its AO order in `ao_order` unless
    `ao_order` here names that of all files: canonical, pyscf, orca or psi4. Shells of the last two
    come in an order of their own, which the file states: `shells_per_atom` [N] and `shell_degrees`,
    the degree of every shell. `atomic_numbers` and `positions` (Angstrom) are compared with the
    dataset's where the file has them.
    """
    about = {"files": str(folder), "ao_order": ao_order}
    # Files hold whole Hamiltonians of any range, so no H0 is added and no pair is out of reach.
    return Predictor(
        residual=lambda molecule: read_hamiltonian(folder, molecule, basis, ao_order),
        baseline="none",
        pair_cutoff=float("inf"),
        about=about,
    )


def read_hamiltonian(
    folder: Path, molecule: Molecule, basis: str, ao_order: str | None
) -> np.ndarray:
    """Read one file of `of_folder` into canonical order.

    Raises:
        ValueError: no file, no matrix, an AO order that is not named, another molecule, size or
            shells, or not symmetric.
    """
    path = folder / f"{molecule.key}.npz"
    if not path.is_file():
        raise ValueError(
            f"{path}: not found; wanted one npz file per molecule of the split, named by its key"
        )
    # Files may come from anybody, and a pickle runs code.
    with np.load(path, allow_pickle=False) as file:
        fields = {name: file[name] for name in file.files}
    if "hamiltonian" not in fields:
        raise ValueError(f"{path}: no 'hamiltonian'; found: {', '.join(sorted(fields))}")
    _check_molecule(path, fields, molecule)
    order = str(fields.get("ao_order", ao_order or ""))
    if order not in conventions.SOURCES:
        raise ValueError(
            f"{path}: ao_order: got '{order}', wanted one of {', '.join(conventions.SOURCES)}, in"
            " the file or as --ao_order"
        )
    shells = _shells(path, fields, order=order, molecule=molecule, basis=basis)
    hamiltonian = np.asarray(fields["hamiltonian"], dtype=np.float64)
    nao = sum(2 * degree + 1 for atom in shells for degree in atom)
    if hamiltonian.shape != (nao, nao):
        raise ValueError(
            f"{path}: hamiltonian: got shape {hamiltonian.shape}, wanted {(nao, nao)} in {basis}"
        )
    ordered = conventions.to_canonical(hamiltonian, order, shells)
    skew = float(np.abs(ordered - ordered.T).max())
    if not skew <= SYMMETRY:  # written so that NaN fails too
        raise ValueError(
            f"{path}: hamiltonian is not symmetric (max |H-H^T| = {skew:.1e} Eh, limit"
            f" {SYMMETRY:.0e})"
        )
    return (ordered + ordered.T) / 2


def _check_molecule(path: Path, fields: dict[str, np.ndarray], molecule: Molecule) -> None:
    numbers, positions = fields.get("atomic_numbers"), fields.get("positions")
    if numbers is not None and not np.array_equal(numbers, molecule.atomic_numbers):
        raise ValueError(
            f"{path}: atomic_numbers: got {numbers.tolist()}, wanted"
            f" {molecule.atomic_numbers.tolist()} as the dataset"
        )
    if positions is not None and (
        positions.shape != molecule.positions.shape
        or np.abs(positions - molecule.positions).max() > SAME_PLACE
    ):
        raise ValueError(
            f"{path}: positions: not those of molecule '{molecule.key}' of the dataset to"
            f" {SAME_PLACE:g} Angstrom"
        )


def _shells(
    path: Path, fields: dict[str, np.ndarray], order: str, molecule: Molecule, basis: str
) -> list[list[int]]:
    """Degrees of every atom's shells in the file's order, checked against the basis."""
    table = [list(shells_of(basis, int(z))) for z in molecule.atomic_numbers]
    if order in ("canonical", "pyscf"):
        return table
    if "shell_degrees" not in fields or "shells_per_atom" not in fields:
        raise ValueError(
            f"{path}: {order} lists shells in its own order; wanted it in 'shells_per_atom' and"
            " 'shell_degrees'"
        )
    ends = np.cumsum(fields["shells_per_atom"])
    listed = [degrees.tolist() for degrees in np.split(fields["shell_degrees"], ends[:-1])]
    # Tables list shells by degree, so sorting is all that an equal set needs.
    if [sorted(atom) for atom in listed] != table:
        raise ValueError(
            f"{path}: shell_degrees: not the shells of {basis} for the {len(table)} atoms of"
            f" '{molecule.key}'"
        )
    return listed
