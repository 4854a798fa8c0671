"""The results of an evaluation as report.json and as tables, with units in all names and heads."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from helm_scale.basis import elements
from helm_scale.evaluation.error_sums import ErrorSums, add_sums, mean_errors
from helm_scale.evaluation.molecule import ROWS
from helm_scale.evaluation.orbitals import LARGEST_THRESHOLD
from helm_scale.evaluation.results import MoleculeResult
from helm_scale.units import HARTREE_IN_MEV, MICROHARTREE

_TITLES = {
    "prediction": "prediction",
    "rebuilt": "prediction, one Fock rebuild",
    "kohn_sham": "prediction as Kohn-Sham matrix",
    "kohn_sham_rebuilt": "prediction as Kohn-Sham matrix, one Fock rebuild",
    "truth": "true H, against stored labels and its own Fock matrix",
    "kohn_sham_truth": "true H as Kohn-Sham matrix: cost of the auxiliary basis",
    "projected": "true H, projected: cost of the overlap threshold",
    "truncated": "true H within the cutoff",
    "minao": "minao H0",
    "sad": "isolated atoms (SAD) H0",
}
# (name in the sums, name in the report, head of the column, factor to the report's unit)
Quantity = tuple[str, str, str, float]
_MATRIX: tuple[Quantity, ...] = (
    ("all", "hamiltonian_mae_over_elements_uEh", "H MAE over elements / uEh", 1 / MICROHARTREE),
    ("onsite", "hamiltonian_onsite_mae_uEh", "on-site / uEh", 1 / MICROHARTREE),
    ("offsite", "hamiltonian_offsite_mae_uEh", "off-site / uEh", 1 / MICROHARTREE),
)
_ORBITALS: tuple[Quantity, ...] = (
    ("occupied", "occupied_energy_mae_uEh", "occupied e / uEh", 1 / MICROHARTREE),
    ("homo", "homo_mae_uEh", "HOMO / uEh", 1 / MICROHARTREE),
    ("lumo", "lumo_mae_uEh", "LUMO / uEh", 1 / MICROHARTREE),
    ("gap", "gap_mae_uEh", "gap / uEh", 1 / MICROHARTREE),
    ("coefficients", "coefficient_similarity_percent", "C similarity / %", 100.0),
    ("subspace_overlap", "occupied_subspace_overlap_percent", "occupied overlap / %", 100.0),
    ("density", "density_matrix_mae_1e-6", "P MAE / 1e-6", 1e6),
    ("ghosts", "ghosts_per_molecule", "ghosts per molecule", 1.0),
)
_ENERGIES: tuple[Quantity, ...] = (
    ("energy", "energy_mae_meV", "E / meV", HARTREE_IN_MEV),
    ("forces", "forces_mae_meV_per_angstrom", "F / meV/A", HARTREE_IN_MEV),
    ("dipole", "dipole_error_mD", "dipole / mD", 1000.0),
)
# Ghosts say the same in whole orbitals, so tables have no column for it.
_ONLY_IN_JSON: Quantity = ("lost_occupied", "lost_occupied_per_molecule", "", 1.0)
# Papers differ in which of the two means they report, so both stand beside each other.
_OVER_MOLECULES = ("hamiltonian_mae_over_molecules_uEh", "H MAE over molecules / uEh")
_MEDIAN = ("hamiltonian_mae_median_uEh", "median molecule / uEh")
_PARTS = {
    "element": "by_element_onsite",
    "pair": "by_element_pair_offsite",
    "degree": "by_irrep_degree",
    "distance": "by_distance_offsite",
}
_PART_HEADS = {
    "by_irrep_degree": "irrep degree L of dH",
    "by_element_onsite": "element, on-site",
    "by_element_pair_offsite": "element pair, off-site",
}
_SECONDS = ("inference", "setup", "energy", "forces")
_GUESSES = {
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
            for what, name in _COUNTED.items()
        },
        "pairs_beyond_cutoff": sum(int(record.facts["far_pairs"]) for record in ordered),
        "projection": _projection(ordered),
        "rows": {row: _quantities(tallies) for row, tallies in rows.items() if tallies},
        "seconds_per_molecule": {name: _mean_fact(ordered, f"seconds_{name}") for name in _SECONDS},
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
_COUNTED = {
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
        if all(record.facts.get(f"scf_converged_{name}", 1.0) for name in _GUESSES)
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
        "cycles": {name: _mean_fact(fine, f"scf_cycles_{name}") for name in _GUESSES},
        "seconds": {name: _mean_fact(fine, f"scf_seconds_{name}") for name in _GUESSES},
        "gradient_limit_Eh": _mean_fact(ran, "scf_gradient_limit_Eh"),
        "tight_labels": len(tight),
        "cycles_from_tight_labels": _mean_fact(tight, "scf_cycles_truth"),
    }


def _quantities(tallies: Sequence[ErrorSums]) -> dict[str, float]:
    """Means of one row, in the report's units."""
    averaged = mean_errors(add_sums(tallies))
    every = (*_MATRIX, *_ORBITALS, *_ENERGIES, _ONLY_IN_JSON)
    means = {name: averaged[key] * factor for key, name, _, factor in every if key in averaged}
    by_molecule = np.array([mean_errors(sums)["all"] for sums in tallies if "all" in sums])
    if not len(by_molecule):  # `projected` and, without a rebuild, `truth` have no matrix errors
        return means
    return {
        _OVER_MOLECULES[0]: float(by_molecule.mean()) / MICROHARTREE,
        _MEDIAN[0]: float(np.median(by_molecule)) / MICROHARTREE,
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


def tables(report: dict[str, Any]) -> str:
    """Render the report as Markdown tables: errors by row, SCF, irrep degrees, elements, pairs."""
    matrix = [_OVER_MOLECULES, _MEDIAN, *[(name, head) for _, name, head, _ in _MATRIX]]
    lines = _by_row(report, matrix)
    for block in (_ORBITALS, _ENERGIES):
        lines += _by_row(report, [(name, head) for _, name, head, _ in block])
    lines += _scf_table(report["scf"])
    lines += [
        *_matrix_line(report),
        _counts(report),
        *_projection_line(report),
        _seconds_line(report),
        _worst(report),
        report["note"],
        *_ghost_warning(report),
    ]
    for title, head in _PART_HEADS.items():
        lines += [
            "",
            *grid(
                [head, "H MAE / uEh", "matrix elements"],
                [_part_row(*item) for item in report[title].items()],
            ),
        ]
    return "\n".join(lines) + "\n"


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, numbers to the right."""
    return [
        _line(heads),
        _line(["---"] + ["---:"] * (len(heads) - 1)),
        *[_line(row) for row in rows],
    ]


def _part_row(name: str, part: dict[str, float]) -> list[str]:
    return [name, number(part["mae_uEh"]), f"{part['matrix_elements']:.0f}"]


def _by_row(report: dict[str, Any], columns: Sequence[tuple[str, str]]) -> list[str]:
    """Render one table over the rows that have any of the columns, or nothing if none has."""
    rows = {
        row: values
        for row, values in report["rows"].items()
        if any(name in values for name, _ in columns)
    }
    if not rows:
        return []
    cells = [
        [_TITLES[row], *[number(values.get(name)) for name, _ in columns]]
        for row, values in rows.items()
    ]
    return [*grid(["Hamiltonian", *[head for _, head in columns]], cells), ""]


def _scf_table(scf: dict[str, Any] | None) -> list[str]:
    if scf is None:
        return []
    default = scf["cycles"]["minao"]
    rows = [
        [
            title,
            number(scf["cycles"][name]),
            number(scf["cycles"][name] / default if default else None),
            number(scf["seconds"][name]),
        ]
        for name, title in _GUESSES.items()
        if scf["cycles"][name] is not None
    ]  # fmt: skip
    lines = [*grid(["SCF from", "cycles", "cycles / minao's", "seconds"], rows), ""]
    lines.append(
        f"{scf['molecules']} molecules; final energies differ by at most"
        f" {number(scf['largest_energy_spread_Eh'])} Eh."
    )
    lines.append(
        f"The SCF stops at an orbital gradient of {scf['gradient_limit_Eh']:.1e} Eh;"
        f" {scf['tight_labels']} of the labels are converged"
        f" {TIGHTER:g} times tighter; cycles from the true density of these:"
        f" {number(scf['cycles_from_tight_labels']) or 'none'}."
    )
    for what, keys in (
        ("did not converge from every density", scf["not_converged"]),
        ("WARNING: other final energy", scf["other_energy"]),
    ):
        lines += [f"{what}: {', '.join(keys)}."] if keys else []
    return [*lines, ""]


def _counts(report: dict[str, Any]) -> str:
    counted = ", ".join(f"{report[f'molecules_with_{what}']} with {what}" for what in _COUNTED)
    far = report["pairs_beyond_cutoff"]
    return f"{report['molecules']} molecules: {counted}. Pairs beyond the model's range: {far}."


def _matrix_line(report: dict[str, Any]) -> list[str]:
    """Which matrix is used, why, and for how many molecules."""
    if "matrix" not in report:
        return []
    count = sum("kohn_sham" in found for found in report["by_molecule"].values())
    return [f"{report['matrix']} Molecules projected: {count}."]


def _projection_line(report: dict[str, Any]) -> list[str]:
    projection = report["projection"]
    if projection is None:
        return []
    low, high = projection["threshold_smallest"], projection["threshold_largest"]
    threshold = f"{low:.1e}" if low == high else f"{low:.1e} to {high:.1e} (by molecule)"
    return [
        f"Overlap eigenvalues below {threshold} were projected out:"
        f" {projection['orbitals_dropped']:.0f} orbitals (smallest eigenvalue"
        f" {projection['overlap_smallest_eigenvalue']:.1e}). Ghosts among the predicted occupied"
        " orbitals without it:"
        f" {projection['ghosts_without_projection']:.0f}."
    ]


def _seconds_line(report: dict[str, Any]) -> str:
    spent = [
        f"{name} {number(value)}"
        for name, value in report["seconds_per_molecule"].items()
        if value is not None
    ]
    return f"Seconds per molecule, energy and forces per density: {', '.join(spent)}."


def _worst(report: dict[str, Any]) -> str:
    """Name the three molecules with the largest errors: a mean may hang on a few of them."""
    errors = {
        key: molecule["prediction"][_OVER_MOLECULES[0]]
        for key, molecule in report["by_molecule"].items()
    }
    # Ties are broken by key, so that equal results give equal files.
    worst = sorted(errors, key=lambda key: (-errors[key], key))[:3]
    return f"Largest H MAE / uEh: {', '.join(f'{key} {number(errors[key])}' for key in worst)}."


def _ghost_warning(report: dict[str, Any]) -> list[str]:
    """Say what to do about ghosts that are left after the projection."""
    if not report["rows"]["prediction"].get("ghosts_per_molecule"):
        return []
    judged = [found for found in report["by_molecule"].values() if "occupied" in found]
    if all(found.get("kohn_sham", {}).get("ghosts_per_molecule") == 0 for found in judged):
        return ["The raw prediction has ghosts, and its rows of orbitals, E and F mean little."]
    threshold = report["projection"]["threshold_largest"]
    remedy = (
        f"raise overlap_threshold above {threshold:.1e}, or leave it out to have it chosen from the"
        " error of H"
    )
    if threshold >= LARGEST_THRESHOLD:
        remedy = "the error of H is too large to tell which orbitals are occupied"
    return [
        "WARNING: ghosts among the predicted occupied orbitals: orbital energies, E and F of"
        f" these molecules mean little; {remedy}."
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float | None) -> str:
    """Three digits; an empty cell where nothing was measured."""
    if value is None:
        return ""
    if 99.5 <= value < 100:  # percent of overlap, where the distance from 100 is what counts
        return f"{value:.4f}"
    # "#" keeps trailing zeros, which are digits too; the point that it leaves in "123." goes.
    return f"{value:.2e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:#.3g}".rstrip(".")
