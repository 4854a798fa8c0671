"""Finetuning in every mode, size and seed, side by side: tables, pictures, the record and the
models in one folder."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from helm_scale.config import FORMAT, FinetuneConfig
from helm_scale.finetuning import plots, train
from helm_scale.finetuning.features import Samples, kept_features, reading
from helm_scale.finetuning.labels import EnergyLabels, Labelled, gather_labels
from helm_scale.finetuning.train import Errors, Part, Run
from helm_scale.model.helm import Helm
from helm_scale.model.weights import save_weights
from helm_scale.units import HARTREE_IN_MEV

REFERENCES = "reference energies only"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Result:
    """Errors of one run; `step` is the one whose weights are judged, of `steps` that the run was
    allowed."""

    mode: str
    size: int
    seed: int
    step: int
    seconds: float
    train: Errors
    tests: dict[str, Errors]


def study(backbone: Helm, labelled: Labelled, config: FinetuneConfig) -> str:
    """Run every mode for every size and seed and write `out`.

    In `out`: table.md, report.json, learning_curve.png where there are several sizes, and per mode
    a folder with the model of the first seed and largest size (model.json, model.safetensors) and
    its parity.png.

    Returns:
        the tables, Markdown.
    """
    out, results, found = Path(config.out), list[Result](), dict[str, list[Part]]()
    sizes = config.sizes or (len(labelled.train),)
    skipped: set[str] = set()
    runs = _Runs(backbone, labelled, config)
    for size in sizes:
        for seed in config.seeds:
            labels = gather_labels(labelled.drawn(size, seed))
            skipped.update(labels.skipped)
            results.append(
                _judged(
                    REFERENCES,
                    runs.start("direct", labels, seed),
                    0,
                    time.perf_counter(),
                    seed,
                    config,
                )
            )
            for mode in config.modes:
                run, found[mode], result = _one(mode, runs, labels, seed, config)
                results.append(result)
                if seed == config.seeds[0] and size == max(sizes):
                    _write_model(run, result, labelled.method, out / mode)
                    plots.draw_parity(
                        out / mode / "parity.png", mode, run, next(iter(labels.tests))
                    )
    text = "\n".join(
        [*_tensors(found), "", *table(results), "", _basis(labelled, skipped, config), ""]
    )
    (out / "table.md").write_text(text)
    (out / "report.json").write_text(
        json.dumps(_record(results, labelled, skipped, config), indent=1) + "\n"
    )
    if len(sizes) > 1:
        plots.draw_curves(out / "learning_curve.png", curves(results))
    return text


class _Runs:
    """Makes runs; graphs of all molecules are made once, features of the frozen backbone too."""

    def __init__(self, backbone: Helm, labelled: Labelled, config: FinetuneConfig) -> None:
        self._backbone, self._config, everything = backbone, config, labelled.everything()
        model = train.start("frozen", backbone, gather_labels(labelled), config, 0)
        self._samples = Samples(everything, model)
        keep = (
            "frozen" in config.modes and not config.force_weight
        )  # forces need the trunk's gradient
        folder = Path(config.cache or Path(config.out) / "features")
        self._features: dict[str, Tensor] = kept_features(model, everything, folder) if keep else {}

    def start(self, mode: str, labels: EnergyLabels, seed: int) -> Run:
        model = train.start(mode, self._backbone, labels, self._config, seed)
        read = reading(self._features) if mode == "frozen" and self._features else model.select
        return Run(mode, model, labels, self._samples, read)


def _one(
    mode: str, runs: _Runs, labels: EnergyLabels, seed: int, config: FinetuneConfig
) -> tuple[Run, list[Part], Result]:
    """Train one model and judge it."""
    begin, run = time.perf_counter(), runs.start(mode, labels, seed)
    parts = train.parts_of(run.model, mode, config)
    if config.head_start == "fit":
        train.fit_linear(run)
    fitted = (
        mode == "frozen"
        and (config.head.kind, config.head_start) == ("linear", "fit")
        and not config.force_weight
    )
    step = (
        0 if fitted else train.train(run, parts, config, seed)
    )  # steps would add nothing to such a fit
    run.model.eval()
    return run, parts, _judged(mode, run, step, begin, seed, config)


def _judged(
    mode: str, run: Run, step: int, begin: float, seed: int, config: FinetuneConfig
) -> Result:
    seconds, forces = time.perf_counter() - begin, config.force_weight > 0
    tests = {name: train.errors(run, part, forces) for name, part in run.labels.tests.items()}
    return Result(
        mode, len(run.labels.train), seed, step, seconds, train.errors(run, run.labels.train), tests
    )


def _write_model(run: Run, result: Result, method: dict[str, Any], folder: Path) -> None:
    """Write what commands.load_energy_model reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(run.model.state_dict(), folder / "model.safetensors")
    about = {
        "format": FORMAT, "model": run.model.config.model_dump(mode="json"), "head": run.model.head_config.model_dump(mode="json"),
        "method": method, "training": asdict(result), "units": "Hartree, Angstrom",
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(about, indent=1) + "\n")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval (Student's t; nan for a single
    value)."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, float("nan")
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    return mean, quantile * float(np.std(values, ddof=1)) / count**0.5


def table(results: Sequence[Result]) -> list[str]:
    """Markdown rows: mean over seeds with 95 % confidence intervals, meV, and the factor over
    direct."""
    with_forces = any(
        errors.force_mae is not None for result in results for errors in result.tests.values()
    )
    force_head = ("F MAE, meV/Angstrom | ", "---:|") if with_forces else ("", "")
    lines = [
        f"| test | training molecules | mode | MAE, meV | meV/atom | {force_head[0]}direct / this |",
        f"|---|---:|---|---:|---:|{force_head[1]}---:|",
    ]
    for test, size, mode, group in _groups(results):
        errors = [result.tests[test] for result in group]
        direct = [r.tests[test].mae for r in results if (r.mode, r.size) == ("direct", size)]
        factor = (
            f"{np.mean(direct) / np.mean([e.mae for e in errors]):.2f}"
            if direct and mode not in ("direct", REFERENCES)
            else ""
        )
        force = f"{_written([e.force_mae or 0.0 for e in errors])} | " if with_forces else ""
        energies = (
            f"{_written([e.mae for e in errors])} | {_written([e.mae_per_atom for e in errors])}"
        )
        lines.append(f"| {test} | {size} | {mode} | {energies} | {force}{factor} |")
    return lines


def curves(results: Sequence[Result]) -> dict[tuple[str, str], list[tuple[int, float, float]]]:
    """By test and mode: size, mean MAE and half of its confidence interval, meV."""
    found: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for test, size, mode, group in _groups(results):
        mean, half = interval([result.tests[test].mae * HARTREE_IN_MEV for result in group])
        found.setdefault((test, mode), []).append((size, mean, half))
    return found


def _groups(results: Sequence[Result]) -> Iterator[tuple[str, int, str, list[Result]]]:
    """Runs that differ in the seed alone, in order of test, size and mode."""
    for test in results[0].tests:
        for size in sorted({result.size for result in results}):
            for mode in dict.fromkeys(result.mode for result in results):
                yield (
                    test,
                    size,
                    mode,
                    [result for result in results if (result.mode, result.size) == (mode, size)],
                )


def _written(values: Sequence[float]) -> str:
    mean, half = interval([value * HARTREE_IN_MEV for value in values])
    digits = 1 if mean >= 10 else 3
    return f"{mean:.{digits}f}" if np.isnan(half) else f"{mean:.{digits}f} +- {half:.{digits}f}"


def _tensors(found: dict[str, list[Part]]) -> list[str]:
    """Markdown rows: where the tensors of every part come from and at which peak rate they learn,
    mode by mode."""
    lines = [
        f"| part | tensors | parameters | {' | '.join(found)} |",
        f"|---|---:|---:|{'---|' * len(found)}",
    ]
    for parts in zip(*found.values(), strict=True):
        fates = [
            f"{part.origin}, {f'rate {part.rate:.1e}' if part.rate else 'frozen'}" for part in parts
        ]
        lines.append(
            f"| {parts[0].name} | {len(parts[0].tensors)} | {sum(p.numel() for p in parts[0].tensors):,} | {' | '.join(fates)} |"
        )
    return lines


def _basis(labelled: Labelled, skipped: set[str], config: FinetuneConfig) -> str:
    """What the numbers rest on."""
    method = labelled.method
    made = (
        f"at {method['xc']}/{method['basis']}"
        if "xc" in method
        else f"of {method.get('source', 'unknown origin')}"
    )
    tests = ", ".join(f"{len(part)} in '{name}'" for name, part in labelled.tests.items())
    left_out = (
        f" Left out, because training defines no reference energy for them: {', '.join(sorted(skipped))}."
        if skipped
        else ""
    )
    given = f", {len(labelled.atoms)} of them given by free atoms" if labelled.atoms else ""
    return (
        f"Total energies {made}; test molecules: {tests}; {len(labelled.validation)} validation molecules choose the step."
        f" {len(config.seeds)} seeds; +-: 95 % confidence interval of the mean over seeds. Reference energies per element{given}:"
        f" least squares on the training molecules.{left_out}"
    )


def _record(
    results: Sequence[Result], labelled: Labelled, skipped: set[str], config: FinetuneConfig
) -> dict[str, Any]:
    return {
        "units": "Hartree, Angstrom",
        "rows": [asdict(result) for result in results],
        "train_molecules": len(labelled.train),
        "validation_molecules": len(labelled.validation),
        "test_molecules": {name: len(part) for name, part in labelled.tests.items()},
        "skipped": sorted(skipped),
        "method": labelled.method,
        "torch": torch.__version__,
        "config": config.model_dump(mode="json"),
    }
