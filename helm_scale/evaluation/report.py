"""Reduces the results of an evaluation to report.json, with units in all names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from helm_scale.basis import elements
from helm_scale.evaluation.error_sums import ErrorSums, add_sums, mean_errors
from helm_scale.evaluation.molecule import ROWS
from helm_scale.evaluation.results import MoleculeResult
from helm_scale.units import HARTREE_IN_MEV, MICROHARTREE

# (name in the sums, name in the report, head of the column, factor to the report's unit)
Quantity = tuple[str, str, str, float]
MATRIX: tuple[Quantity, ...] = (
    ("all", "hamiltonian_mae_over_elements_uEh", "H MAE over elements / uEh", 1 / MICROHARTREE),
    ("onsite", "hamiltonian_onsite_mae_uEh", "on-site / uEh", 1 / MICROHARTREE),
    ("offsite", "hamiltonian_offsite_mae_uEh", "off-site / uEh", 1 / MICROHARTREE),
)
ORBITALS: tuple[Quantity, ...] = (
    ("occupied", "occupied_energy_mae_uEh", "occupied e / uEh", 1 / MICROHARTREE),
    ("homo", "homo_mae_uEh", "HOMO / uEh", 1 / MICROHARTREE),
    ("lumo", "lumo_mae_uEh", "LUMO / uEh", 1 / MICROHARTREE),
    ("gap", "gap_mae_uEh", "gap / uEh", 1 / MICROHARTREE),
    ("coefficients", "coefficient_similarity_percent", "C similarity / %", 100.0),
    ("subspace_overlap", "occupied_subspace_overlap_percent", "occupied overlap / %", 100.0),
    ("density", "density_matrix_mae_1e-6", "P MAE / 1e-6", 1e6),
    ("ghosts", "ghosts_per_molecule", "ghosts per molecule", 1.0),
)
ENERGIES: tuple[Quantity, ...] = (
    ("energy", "energy_mae_meV", "E / meV", HARTREE_IN_MEV),
    ("forces", "forces_mae_meV_per_angstrom", "F / meV/A", HARTREE_IN_MEV),
    ("dipole", "dipole_error_mD", "dipole / mD", 1000.0),
)
# Ghosts say the same in whole orbitals, so tables have no column for it.
_ONLY_IN_JSON: Quantity = ("lost_occupied", "lost_occupied_per_molecule", "", 1.0)
# Papers differ in which of the two means they report, so both stand beside each other.
OVER_MOLECULES = ("hamiltonian_mae_over_molecules_uEh", "H MAE over molecules / uEh")
MEDIAN = ("hamiltonian_mae_median_uEh", "median molecule / uEh")
_PARTS = {
    "element": "by_element_onsite",
    "pair": "by_element_pair_offsite",
    "degree": "by_irrep_degree",
    "distance": "by_distance_offsite",
}
SECONDS = ("inference", "setup", "energy", "forces")
GUESSES = {
    "truth": "true density",
    "prediction": "predicted density",
    "kohn_sham": "density of the Kohn-Sham matrix",
    "minao": "minao",
    "sad": "isolated atoms",
}
# Hartree: a hundred times PySCF's default threshold on the energy, far below the distance of two
# SCF solutions.
SAME_ENERGY = 1e-7
# A label whose orbital gradient is so many times below the SCF's limit counts as tight: started
# from its density, the SCF needs only the cycles that it takes to notice convergence.
TIGHTER = 10.0
NOTE = (
    "H MAE: mean of |dH| over all nao^2 elements, averaged over molecules or over all elements of"
    " all molecules. E: `energy_tot` of the"
    " density, second order in dH; F: analytic gradient with the row's own orbitals and orbital"
    " energies, first order in dH. Rows are"
    " compared with the true H through the same projector. Ghosts: occupied orbitals that lie for"
    " less than half in the occupied space"
    " compared with. C similarity means nothing where orbitals are degenerate; the occupied"
    " overlap does."
)


def build_report(records: Sequence[MoleculeResult], about: dict[str, Any]) -> dict[str, Any]:
    """Reduce the results of all molecules to the report.

    Args:
        about: what was evaluated and how (source, data, split, method ...); copied in front.
    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError(f"evaluation of {about}: no molecules; wanted at least one in the split")
    # Records come in order of completion; by key, two runs give the same file.
    ordered = sorted(records, key=lambda record: record.key)
    rows = {row: [record.rows[row] for record in ordered if record.rows.get(row)] for row in ROWS}
    prediction = add_sums(rows["prediction"])
    return {
        **about,
        "molecules": len(ordered),
        **{
            f"molecules_with_{what}": sum(name in r.facts for r in ordered)
            for what, name in COUNTED.items()
        },
        "pairs_beyond_cutoff": sum(int(record.facts["far_pairs"]) for record in ordered),
        "projection": _projection(ordered),
        "rows": {row: _quantities(tallies) for row, tallies in rows.items() if tallies},
        "seconds_per_molecule": {name: _mean_fact(ordered, f"seconds_{name}") for name in SECONDS},
        "scf": _scf(ordered),
        **{title: _part(prediction, part) for part, title in _PARTS.items()},
        "by_molecule": {
            r.key: {"atoms": len(r.atomic_numbers)}
            | r.facts
            | {row: _quantities([sums]) for row, sums in r.rows.items() if sums}
            for r in ordered
        },
        "note": NOTE,
    }


# What a molecule was judged by -> a fact that only such molecules have.
COUNTED = {
    "orbitals": "occupied",
    "energies": "seconds_energy",
    "forces": "seconds_forces",
    "scf": "scf_energy_spread_Eh",
}


def _mean_fact(records: Sequence[MoleculeResult], name: str) -> float | None:
    """Mean over the molecules that have it."""
    values = [record.facts[name] for record in records if name in record.facts]
    return sum(values) / len(values) if values else None


def _projection(records: Sequence[MoleculeResult]) -> dict[str, float] | None:
    """Summarise what canonical orthogonalisation dropped, over the molecules with orbitals."""
    facts = [record.facts for record in records if "occupied" in record.facts]
    if not facts:
        return None
    return {
        "threshold_smallest": min(fact["overlap_threshold"] for fact in facts),
        "threshold_largest": max(fact["overlap_threshold"] for fact in facts),
        "overlap_smallest_eigenvalue": min(fact["overlap_smallest"] for fact in facts),
        "orbitals_dropped": sum(fact["orbitals_dropped"] for fact in facts),
        "ghosts_without_projection": sum(fact["ghosts_unprojected"] for fact in facts),
    }


def _scf(records: Sequence[MoleculeResult]) -> dict[str, Any] | None:
    """Average SCF cycles and seconds by initial density, over molecules that always converged."""
    ran = [record for record in records if "scf_energy_spread_Eh" in record.facts]
    # Only molecules that converge from every density: means over different sets do not compare.
    fine = [
        record
        for record in ran
        if all(record.facts.get(f"scf_converged_{name}", 1.0) for name in GUESSES)
    ]
    tight = [
        record
        for record in fine
        if TIGHTER * record.facts["label_gradient_Eh"] < record.facts["scf_gradient_limit_Eh"]
    ]
    if not ran:
        return None
    return {
        "molecules": len(fine),
        "not_converged": sorted(record.key for record in ran if record not in fine),
        "other_energy": sorted(
            record.key for record in fine if record.facts["scf_energy_spread_Eh"] > SAME_ENERGY
        ),
        "largest_energy_spread_Eh": max(
            (record.facts["scf_energy_spread_Eh"] for record in fine), default=None
        ),
        "cycles": {name: _mean_fact(fine, f"scf_cycles_{name}") for name in GUESSES},
        "seconds": {name: _mean_fact(fine, f"scf_seconds_{name}") for name in GUESSES},
        "gradient_limit_Eh": _mean_fact(ran, "scf_gradient_limit_Eh"),
        "tight_labels": len(tight),
        "cycles_from_tight_labels": _mean_fact(tight, "scf_cycles_truth"),
    }


def _quantities(tallies: Sequence[ErrorSums]) -> dict[str, float]:
    """Means of one row, in the report's units."""
    averaged = mean_errors(add_sums(tallies))
    every = (*MATRIX, *ORBITALS, *ENERGIES, _ONLY_IN_JSON)
    means = {name: averaged[key] * factor for key, name, _, factor in every if key in averaged}
    by_molecule = np.array([mean_errors(sums)["all"] for sums in tallies if "all" in sums])
    if not len(by_molecule):  # `projected` and, without a rebuild, `truth` have no matrix errors
        return means
    return {
        OVER_MOLECULES[0]: float(by_molecule.mean()) / MICROHARTREE,
        MEDIAN[0]: float(np.median(by_molecule)) / MICROHARTREE,
    } | means


def _part(prediction: ErrorSums, part: str) -> dict[str, dict[str, float]]:
    """Errors of one part: "element", "pair", "degree" or "distance"."""
    errors: dict[str, dict[str, float]] = {}
    averaged = mean_errors(prediction)
    for key, mean in averaged.items():
        prefix, _, name = key.partition("/")
        if prefix != part:
            continue
        errors[name] = {"mae_uEh": mean / MICROHARTREE, "matrix_elements": prediction[key][1]}
        if part == "distance":
            errors[name]["mean_distance_angstrom"] = averaged[f"apart/{name}"]
            errors[name]["mean_absolute_hamiltonian_uEh"] = (
                averaged[f"magnitude/{name}"] / MICROHARTREE
            )
        if part == "degree":
            errors[name]["rms_uEh"] = averaged[f"degree_square/{name}"] ** 0.5 / MICROHARTREE
    # As text, degree 10 would come before degree 2 and bromine before hydrogen.
    return dict(sorted(errors.items(), key=lambda item: _order(part, item[0])))


def _order(part: str, name: str) -> tuple[float, ...]:
    """Key that sorts elements by atomic number, degrees and distances by value."""
    if part in ("degree", "distance"):
        return (float(name),)
    return tuple(elements.atomic_number(symbol) for symbol in name.split("-"))
