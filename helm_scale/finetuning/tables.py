"""Tables of finetuning in Markdown: errors over seeds with confidence intervals, what learned."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from helm_scale.config import FinetuneConfig
from helm_scale.finetuning.labels import LabelledSplits
from helm_scale.finetuning.modes import ParameterGroup
from helm_scale.finetuning.train import Errors, Start
from helm_scale.model.heads import Head
from helm_scale.types import Quantity

REFERENCE_ONLY = "reference only"
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Errors of one run.

    Attributes:
        mode: of the run, or REFERENCE_ONLY. size: training molecules.
        start: of its head. step: the one whose weights are judged; 0: before the first.
    """

    mode: str
    size: int
    seed: int
    start: Start
    step: int
    seconds: float
    train: Errors
    validation: Errors | None
    tests: dict[str, Errors]


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval.

    Student's t; nan for a single value.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, float("nan")
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    return mean, quantile * float(np.std(values, ddof=1)) / count**0.5


def error_table(results: Sequence[RunResult], head: Head) -> list[str]:
    """Rows of mean errors over seeds in the unit of reports, and the factor over direct.

    Beside them the errors on training and validation molecules, the strength of the ridge that the
    head started with, and the best step. An error per atom is given of what is a sum over atoms.
    """
    unit, scale = head.quantity.report_unit, head.quantity.in_report_unit
    columns = {f"MAE, {unit}": lambda errors: errors.mae}
    if head.reference == "sum":
        columns[f"{unit}/atom"] = lambda errors: errors.mae_per_atom
    if any(errors.force_mae is not None for r in results for errors in r.tests.values()):
        columns[f"F MAE, {unit}/Angstrom"] = lambda errors: errors.force_mae or 0.0
    lines = [
        f"| test | training molecules | mode | {' | '.join(columns)} | direct / this"
        f" | train, {unit} | validation, {unit} | ridge | best step |",
        f"|---|---:|---|{'---:|' * len(columns)}---:|---:|---:|---:|---:|",
    ]
    for test, size, mode, group in _by_seed(results):
        errors = [result.tests[test] for result in group]
        cells = [_with_interval([scale * of(e) for e in errors]) for of in columns.values()]
        direct = [r.tests[test].mae for r in results if (r.mode, r.size) == ("direct", size)]
        compared = direct and mode not in ("direct", REFERENCE_ONLY)
        factor = np.mean(direct) / np.mean([e.mae for e in errors]) if compared else None
        cells.append("" if factor is None else f"{factor:.2f}")
        cells += [
            _mean([r.train for r in group], scale),
            _mean([r.validation for r in group], scale),
        ]
        cells += [_ridge(group), _range([f"{result.step}" for result in group])]
        lines.append(f"| {test} | {size} | {mode} | {' | '.join(cells)} |")
    return lines


def learning_curves(
    results: Sequence[RunResult], quantity: Quantity
) -> dict[tuple[str, str], list[tuple[int, float, float]]]:
    """By test and mode: size, mean MAE and half of its confidence interval, unit of reports."""
    curves: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for test, size, mode, group in _by_seed(results):
        errors = [result.tests[test].mae * quantity.in_report_unit for result in group]
        curves.setdefault((test, mode), []).append((size, *confidence_interval(errors)))
    return curves


def parameter_table(groups_of_mode: Mapping[str, Sequence[ParameterGroup]]) -> list[str]:
    """Rows that say, mode by mode, whence the tensors come and at which peak rate they learn."""
    lines = [
        f"| part | tensors | parameters | {' | '.join(groups_of_mode)} |",
        f"|---|---:|---:|{'---|' * len(groups_of_mode)}",
    ]
    for groups in zip(*groups_of_mode.values(), strict=True):
        first = groups[0]
        count = sum(p.numel() for p in first.tensors)
        rates = [f"rate {group.rate:.1e}" if group.rate else "frozen" for group in groups]
        fates = [f"{group.origin}, {rate}" for group, rate in zip(groups, rates, strict=True)]
        lines.append(f"| {first.name} | {len(first.tensors)} | {count:,} | {' | '.join(fates)} |")
    return lines


def caption(splits: LabelledSplits, skipped: set[str], config: FinetuneConfig) -> str:
    """What the numbers rest on."""
    tests = ", ".join(f"{len(molecules)} in '{name}'" for name, molecules in splits.tests.items())
    return (
        f"{splits.head.quantity.name}, {_origin(splits)}; test molecules: {tests};"
        f" {len(splits.validation)} validation molecules choose the step."
        f" {len(config.seeds)} seeds; +-: 95 % confidence interval of the mean over seeds."
        f" {_reference(splits)}{_left_out(skipped)}"
    )


def _origin(splits: LabelledSplits) -> str:
    method = splits.method
    if "xc" in method:
        return f"at {method['xc']}/{method['basis']}"
    return f"of {method.get('source', 'unknown origin')}"


def _reference(splits: LabelledSplits) -> str:
    if splits.head.reference == "none":
        return "Errors are means over components; the reference is zero."
    given = f", {len(splits.atoms)} of them given by free atoms" if splits.atoms else ""
    return f"Reference per element{given}: least squares on the training molecules."


def _left_out(skipped: set[str]) -> str:
    if not skipped:
        return ""
    names = ", ".join(sorted(skipped))
    return f" Left out, because training defines no reference for them: {names}."


def _by_seed(results: Sequence[RunResult]) -> Iterator[tuple[str, int, str, list[RunResult]]]:
    """Runs that differ in the seed alone, in order of test, size and mode."""
    sizes = sorted({result.size for result in results})
    modes = list(dict.fromkeys(result.mode for result in results))
    for test in results[0].tests:
        for size in sizes:
            for mode in modes:
                yield test, size, mode, [r for r in results if (r.mode, r.size) == (mode, size)]


def _with_interval(values: Sequence[float]) -> str:
    mean, half = confidence_interval(values)
    digits = 1 if mean >= 10 else 3
    return f"{mean:.{digits}f}" if np.isnan(half) else f"{mean:.{digits}f} +- {half:.{digits}f}"


def _mean(errors: Sequence[Errors | None], scale: float) -> str:
    """Mean error over seeds; a dash where there are no molecules."""
    known = [scale * error.mae for error in errors if error is not None]
    return f"{np.mean(known):.{1 if np.mean(known) >= 10 else 3}f}" if known else "-"


def _ridge(group: Sequence[RunResult]) -> str:
    """Strengths with which the heads of a group started."""
    strengths = sorted(r.start.strength for r in group if r.start.strength is not None)
    alone = ["none"] if len(strengths) < len(group) else []
    return _range([*(f"{strength:.0e}" for strength in strengths), *alone])


def _range(values: Sequence[str]) -> str:
    """The values of several seeds, each once."""
    return ", ".join(dict.fromkeys(values))
