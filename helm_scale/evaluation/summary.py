"""What evaluations and finetunings found, in a few lines for people: of their report.json files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helm_scale.evaluation.verdict import KCAL_PER_MOL_IN_MEV, number
from helm_scale.units import HARTREE_IN_MEV, MICROHARTREE

WIDTH = 44  # of the first column
_MEV = HARTREE_IN_MEV * MICROHARTREE  # of a microhartree
# (head, name in a row of the report, factor to the unit, unit)
_ERRORS = (
    ("error of the total energy", "energy_mae_meV", 1.0, "meV"),
    ("error of the HOMO energy", "homo_mae_uEh", _MEV, "meV"),
    ("error of the LUMO energy", "lumo_mae_uEh", _MEV, "meV"),
    ("error of the dipole", "dipole_error_mD", 1e-3, "Debye"),
)
_PICTURES = ("hamiltonian.png", "orbitals.png", "stretch.png", "embedding.png")


def summarise(folder: Path) -> str:
    """Summary of all reports in a folder and in the folders directly inside.

    Each evaluation is held against minao, the start that PySCF makes from free atoms: what one has
    without a model. Each finetuning is held against the same network without pretraining.

    Raises:
        FileNotFoundError: no report.json.
    """
    paths = sorted([*folder.glob("report.json"), *folder.glob("*/report.json")])
    if not paths:
        raise FileNotFoundError(
            f"{folder}: no report.json in it or in a folder directly inside; wanted the `out` of"
            " helm-scale evaluate or finetune, or the folder above"
        )
    # Evaluations have rows by name, finetunings a list of runs.
    reports = [(path, json.loads(path.read_text())) for path in paths]
    reports.sort(key=lambda item: isinstance(item[1]["rows"], list))
    lines: list[str] = []
    for path, report in reports:
        is_study = isinstance(report["rows"], list)
        lines += [*(_study(report) if is_study else _evaluation(report)), *_where(path.parent), ""]
    return "\n".join(lines)


def _evaluation(report: dict[str, Any]) -> Iterator[str]:
    """How good the matrices of a model are, beside minao's."""
    method, rows = report["method"], report["rows"]
    yield (
        f"{report['molecules']} molecules of {Path(report['data']).name}, split {report['split']},"
        f" {method['xc'].upper()}/{method['basis']}"
    )
    best = "kohn_sham" if "kohn_sham" in rows else "prediction"
    yield f"  {'':{WIDTH}}{'without (minao)':>18}{'model':>14}"
    for head, name, factor, unit in _ERRORS:
        ours, plain = (rows.get(row, {}).get(name) for row in (best, "minao"))
        if ours is not None and plain is not None:
            yield _row(f"{head} / {unit}", plain * factor, ours * factor)
    if "energy_mae_meV" in rows.get(best, {}):
        yield _row(
            "the same / kcal/mol",
            *(rows[row]["energy_mae_meV"] / KCAL_PER_MOL_IN_MEV for row in ("minao", best)),
        )
    scf = report["scf"]
    if scf and scf["cycles"]["minao"]:
        yield from _scf(scf, best)


def _scf(scf: dict[str, Any], best: str) -> Iterator[str]:
    """Cycles and seconds of SCFs, and what that means."""
    cycles, seconds = scf["cycles"], scf["seconds"]
    yield _row("SCF cycles from this start", cycles["minao"], cycles[best])
    yield _row("SCF seconds from this start", seconds["minao"], seconds[best])
    saved = 100 * (1 - cycles[best] / cycles["minao"])
    more = "fewer" if saved >= 0 else "more"
    yield (
        f"  An SCF that starts from the model needs {abs(saved):.0f} % {more} cycles"
        f" ({scf['molecules']} molecules)."
    )


def _study(report: dict[str, Any]) -> Iterator[str]:
    """Errors of a property with and without a pretrained backbone; means over seeds."""
    runs, unit, factor = report["rows"], report["report_unit"], report["in_report_unit"]
    size = max(run["size"] for run in runs)
    for test, count in report["test_molecules"].items():
        yield (
            f"{report['target']} of {count} molecules, split {test}, learned from {size} labels;"
            f" mean error / {unit}"
        )
        errors: dict[str, list[float]] = {}
        for run in runs:
            if run["size"] == size:
                errors.setdefault(run["mode"], []).append(factor * run["tests"][test]["mae"])
        for mode, values in errors.items():
            yield f"  {_MODES[mode]:{WIDTH + 18}}{number(sum(values) / len(values)):>14}"


_MODES = {
    "reference only": "mean energies of the elements, no network",
    "direct": "network without pretraining",
    "frozen": "pretrained backbone, only a readout learns",
    "finetuned": "pretrained backbone, all of it learns",
}


def _where(folder: Path) -> Iterator[str]:
    """Where the pictures and all numbers are."""
    report = next((folder / name for name in ("report.md", "table.md")), folder)
    pictures = [name for name in _PICTURES if (folder / name).is_file()]
    yield f"  All numbers: {report}" + (f"; pictures: {', '.join(pictures)}" if pictures else "")


def _row(head: str, plain: float, ours: float) -> str:
    return f"  {head:{WIDTH}}{number(plain):>18}{number(ours):>14}"
