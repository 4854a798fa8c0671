"""An evaluation as report.md: a verdict, warnings, then tables with units in all heads."""

from collections.abc import Sequence
from typing import Any

from helm_scale.evaluation import verdict
from helm_scale.evaluation.report import (
    COUNTED,
    ENERGIES,
    GUESSES,
    MATRIX,
    MEDIAN,
    ORBITALS,
    OVER_MOLECULES,
    TIGHTER,
)
from helm_scale.evaluation.verdict import number

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
# Keys of a model's config -> how their values are written
_SIZES = {
    "num_layers": "{} layers",
    "channels": "{} channels",
    "lmax": "lmax {}",
    "baseline": "H0 {}",
}
_PART_HEADS = {
    "by_irrep_degree": "irrep degree L of dH",
    "by_element_onsite": "element, on-site",
    "by_element_pair_offsite": "element pair, off-site",
}


def tables(report: dict[str, Any]) -> str:
    """Render the report as Markdown: what was judged, verdict, warnings, tables, notes."""
    matrix = [OVER_MOLECULES, MEDIAN, *[(name, head) for _, name, head, _ in MATRIX]]
    lines = [*_heading(report), f"**Verdict.** {verdict.verdict(report)}", ""]
    for warning in verdict.warnings(report):
        lines += [warning, ""]
    lines += _by_row("Hamiltonian", report, matrix)
    for title, block in (("Orbitals", ORBITALS), ("Energies and forces", ENERGIES)):
        lines += _by_row(title, report, [(name, head) for _, name, head, _ in block])
    lines += _scf_table(report["scf"])
    for title, head in _PART_HEADS.items():
        rows = [_part_row(*item) for item in report[title].items()]
        table = grid([head, "H MAE / uEh", "matrix elements"], rows)
        lines += [f"## Error of H by {head}", "", *table, ""]
    notes = (
        *_matrix_line(report),
        _counts(report),
        *_projection_line(report),
        _seconds_line(report),
        _worst(report),
        report["note"],
    )
    lines += ["## Notes", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _heading(report: dict[str, Any]) -> list[str]:
    """Title, and what was judged on what, as far as the report says."""
    model, method = report.get("model", {}), report.get("method", {})
    size = [text.format(model[key]) for key, text in _SIZES.items() if key in model]
    files = [f"{key}: {model[key]}" for key in ("files", "ao_order") if model.get(key)]
    facts = {
        "model": ", ".join([*size, *files]),
        "data": f"{report['data']}, split {report['split']}, {report['molecules']} molecules"
        if "data" in report
        else "",
        "method": ", ".join(f"{name} {value}" for name, value in method.items()),
    }
    lines = [f"- {name}: {text}" for name, text in facts.items() if text]
    return [f"# Evaluation of {report.get('source', 'Hamiltonians')}", "", *lines, ""]


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, numbers to the right."""
    return [
        _line(heads),
        _line(["---"] + ["---:"] * (len(heads) - 1)),
        *[_line(row) for row in rows],
    ]


def _part_row(name: str, part: dict[str, float]) -> list[str]:
    return [name, number(part["mae_uEh"]), f"{part['matrix_elements']:,.0f}"]


def _by_row(title: str, report: dict[str, Any], columns: Sequence[tuple[str, str]]) -> list[str]:
    """Render one table over the rows that have any of the columns, or nothing if none has.

    Its last row is chemical accuracy, where that is a number for any column.
    """
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
    limits = [number(verdict.CHEMICAL_ACCURACY.get(name)) for name, _ in columns]
    if any(limits):
        cells.append(["chemical accuracy: 1 kcal/mol (per A)", *limits])
    table = grid(["Hamiltonian", *[head for _, head in columns]], cells)
    return [f"## {title}", "", *table, ""]


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
        for name, title in GUESSES.items()
        if scf["cycles"][name] is not None
    ]  # fmt: skip
    table = grid(["SCF from", "cycles", "cycles / minao's", "seconds"], rows)
    lines = ["## SCF", "", *table, ""]
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
    return [*lines, ""]


def _counts(report: dict[str, Any]) -> str:
    counted = ", ".join(f"{report[f'molecules_with_{what}']} with {what}" for what in COUNTED)
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
        key: molecule["prediction"][OVER_MOLECULES[0]]
        for key, molecule in report["by_molecule"].items()
    }
    # Ties are broken by key, so that equal results give equal files.
    worst = sorted(errors, key=lambda key: (-errors[key], key))[:3]
    return f"Largest H MAE / uEh: {', '.join(f'{key} {number(errors[key])}' for key in worst)}."


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
