"""The evaluation as report.json, as tables and as pictures. Units stand in every name and every table head."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.basis import elements
from helm_scale.evaluation import pictures
from helm_scale.evaluation.protocol import ROWS, Record
from helm_scale.evaluation.tally import Tally, add, means
from helm_scale.units import HARTREE_IN_MEV, MICROHARTREE

_TITLES = {
    "prediction": "prediction",
    "rebuilt": "prediction, one Fock rebuild",
    "truth": "true H (against stored labels)",
    "truncated": "true H within the cutoff",
    "baseline": "H0 alone",
}
_QUANTITIES = {  # name in the tally -> (name in the report, head in the table, factor from Hartree)
    "all": ("hamiltonian_mae_over_elements_uEh", "H MAE over elements / uEh", 1 / MICROHARTREE),
    "onsite": ("hamiltonian_onsite_mae_uEh", "on-site / uEh", 1 / MICROHARTREE),
    "offsite": ("hamiltonian_offsite_mae_uEh", "off-site / uEh", 1 / MICROHARTREE),
    "occupied": ("occupied_energy_mae_uEh", "occupied e / uEh", 1 / MICROHARTREE),
    "homo": ("homo_mae_uEh", "HOMO / uEh", 1 / MICROHARTREE),
    "lumo": ("lumo_mae_uEh", "LUMO / uEh", 1 / MICROHARTREE),
    "gap": ("gap_mae_uEh", "gap / uEh", 1 / MICROHARTREE),
    "energy": ("energy_mae_meV", "E / meV", HARTREE_IN_MEV),
    "lost_occupied": ("lost_occupied_per_molecule", "lost occupied per molecule", 1.0),
    "ghosts": ("ghosts_per_molecule", "ghosts per molecule", 1.0),
    "subspace_overlap": ("occupied_subspace_overlap", "occupied overlap", 1.0),
}
_OVER_MOLECULES = ("hamiltonian_mae_over_molecules_uEh", "H MAE over molecules / uEh")
_MEDIAN = ("hamiltonian_mae_median_uEh", "median molecule / uEh")
_PARTS = {"element": "by_element_onsite", "pair": "by_element_pair_offsite", "degree": "by_irrep_degree", "distance": "by_distance_offsite"}
_PART_HEADS = {
    "by_irrep_degree": "irrep degree L of dH",
    "by_element_onsite": "element, on-site",
    "by_element_pair_offsite": "element pair, off-site",
}
_LARGEST_THRESHOLD = 1e-2  # projection alone then costs benzene 98 meV and 79 uEh (occupied orbital energies)
_ONLY_IN_JSON = ("lost_occupied", "subspace_overlap")
NOTE = (
    "H MAE: mean of |dH| over all nao^2 elements, averaged over molecules or over all elements of all molecules. Energies: E[P] of the"
    " density (energy_tot). Every row but the true H's is compared with the true H through the same projector; the true H with the stored"
    " energy, and with its own orbitals without projection. Ghosts: occupied orbitals that lie for less than half in the occupied space"
    " compared with."
)


def build_report(records: Sequence[Record], about: dict[str, Any]) -> dict[str, Any]:
    """Reduce records to the report.

    Args:
        about: what was evaluated and how (source, data, split, method, overlap_threshold ...); copied in front.
    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError(f"evaluation of {about}: no molecules; wanted at least one in the split")
    ordered = sorted(records, key=lambda record: record.key)
    rows = {row: [record.rows[row] for record in ordered if row in record.rows] for row in ROWS}
    prediction = add(rows["prediction"])
    return {
        **about,
        "molecules": len(ordered),
        "molecules_with_orbitals": sum("occupied" in record.facts for record in ordered),
        "pairs_beyond_cutoff": sum(int(record.facts["far_pairs"]) for record in ordered),
        "orbitals_dropped_by_projection": sum(int(record.facts.get("orbitals_dropped", 0)) for record in ordered),
        "overlap_smallest_eigenvalue": min((r.facts["overlap_smallest"] for r in ordered if "occupied" in r.facts), default=None),
        "rows": {row: _quantities(tallies) for row, tallies in rows.items() if tallies},
        **{title: _part(prediction, part) for part, title in _PARTS.items()},
        "by_molecule": {
            r.key: {"atoms": len(r.atomic_numbers)} | r.facts | {row: _quantities([one]) for row, one in r.rows.items()} for r in ordered
        },
        "note": NOTE,
    }


def _quantities(tallies: Sequence[Tally]) -> dict[str, float]:
    """Means of one row, in the report's units."""
    averaged = means(add(tallies))
    found = {name: averaged[key] * factor for key, (name, _, factor) in _QUANTITIES.items() if key in averaged}
    each = np.array([means(one)["all"] for one in tallies if "all" in one])
    if not len(each):
        return found
    return {_OVER_MOLECULES[0]: float(each.mean()) / MICROHARTREE, _MEDIAN[0]: float(np.median(each)) / MICROHARTREE} | found


def _part(prediction: Tally, part: str) -> dict[str, dict[str, float]]:
    """Errors by element, pair, degree or distance."""
    found: dict[str, dict[str, float]] = {}
    averaged = means(prediction)
    for key, mean in averaged.items():
        kind, _, name = key.partition("/")
        if kind != part:
            continue
        found[name] = {"mae_uEh": mean / MICROHARTREE, "matrix_elements": prediction[key][1]}
        if part == "distance":
            found[name]["mean_distance_angstrom"] = averaged[f"apart/{name}"]
            found[name]["mean_absolute_hamiltonian_uEh"] = averaged[f"magnitude/{name}"] / MICROHARTREE
        if part == "degree":
            found[name]["rms_uEh"] = averaged[f"degree_square/{name}"] ** 0.5 / MICROHARTREE
    return dict(sorted(found.items(), key=lambda item: _order(part, item[0])))


def _order(part: str, name: str) -> tuple[float, ...]:
    """Elements by atomic number, degrees and distances by value."""
    if part in ("degree", "distance"):
        return (float(name),)
    return tuple(elements.atomic_number(symbol) for symbol in name.split("-"))


def tables(report: dict[str, Any]) -> str:
    """Markdown: the rows; then irrep degrees, elements and element pairs of the prediction."""
    heads = [_OVER_MOLECULES, _MEDIAN, *[(name, head) for key, (name, head, _) in _QUANTITIES.items() if key not in _ONLY_IN_JSON]]
    lines = [_line(["Hamiltonian", *[head for _, head in heads]]), _line(["---"] + ["---:"] * len(heads))]
    for row, values in report["rows"].items():
        lines.append(_line([_TITLES[row], *[_number(values.get(name)) for name, _ in heads]]))
    smallest = report["overlap_smallest_eigenvalue"]
    lines += ["", f"{report['molecules']} molecules, {report['molecules_with_orbitals']} of them with orbitals and energies."]
    if smallest is not None:
        lines[-1] += (
            f" Overlap eigenvalues below {report['overlap_threshold']:g} were projected out: {report['orbitals_dropped_by_projection']}"
            f" (smallest {smallest:.1e})."
        )
    lines += [f"Pairs beyond the model's range: {report['pairs_beyond_cutoff']}.", _worst(report), report["note"], *_ghost_warning(report)]
    for title, head in _PART_HEADS.items():
        lines += ["", _line([head, "H MAE / uEh", "matrix elements"]), _line(["---", "---:", "---:"])]
        lines += [_line([name, _number(part["mae_uEh"]), f"{part['matrix_elements']:.0f}"]) for name, part in report[title].items()]
    return "\n".join(lines) + "\n"


def _worst(report: dict[str, Any]) -> str:
    """The molecules with the largest errors, by name: a mean may hang on a few of them."""
    errors = {key: found["prediction"][_OVER_MOLECULES[0]] for key, found in report["by_molecule"].items()}
    worst = sorted(errors, key=lambda key: (-errors[key], key))[:3]
    return f"Largest H MAE / uEh: {', '.join(f'{key} {_number(errors[key])}' for key in worst)}."


def _ghost_warning(report: dict[str, Any]) -> list[str]:
    """What to do about ghosts: white noise on benzene makes none from a threshold of ten times the noise on."""
    prediction, threshold = report["rows"]["prediction"], report["overlap_threshold"]
    if not prediction.get("ghosts_per_molecule"):
        return []
    better = min(10 * prediction[_OVER_MOLECULES[0]] * MICROHARTREE, _LARGEST_THRESHOLD)
    remedy = f"raise overlap_threshold from {threshold:g} to about ten times the error of H, {better:.0e}"
    if better <= threshold:
        remedy = "the error of H is too large to tell which orbitals are occupied"
    return [f"WARNING: ghosts among the predicted occupied orbitals: orbital energies and E of these molecules mean little; {remedy}."]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    """Three digits; an empty cell where nothing was measured."""
    if value is None:
        return ""
    return f"{value:.2e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:#.3g}".rstrip(".")


def write_report(folder: Path, records: Sequence[Record], about: dict[str, Any]) -> str:
    """Write report.json, report.md and the pictures (H of the record that kept its matrices); return the tables.

    Args:
        about: as in build_report, with the method record under "method".
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = build_report(records, about)
    text = tables(report)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "report.md").write_text(text)
    for record in records:
        if record.matrices is not None:
            truth, predicted = record.matrices
            pictures.draw_hamiltonian(
                folder / "hamiltonian.png", record.key, record.atomic_numbers, about["method"]["basis"], truth, predicted
            )
    pictures.draw_element_pairs(folder / "error_by_element_pair.png", report["by_element_onsite"], report["by_element_pair_offsite"])
    pictures.draw_distances(folder / "error_by_distance.png", report["by_distance_offsite"])
    return text
