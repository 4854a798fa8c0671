"""Finetuning in every mode, size and seed, side by side.

Tables, pictures, the record and the models go to one folder.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helm_scale.config import FORMAT, FinetuneConfig
from helm_scale.finetuning import plots, tables, train
from helm_scale.finetuning.features import GraphCache, cached_features, from_cache
from helm_scale.finetuning.labels import LabelledSplits, ReferencedSplits, fit_reference
from helm_scale.finetuning.modes import ParameterGroup, parameter_groups, start_model
from helm_scale.finetuning.tables import REFERENCE_ONLY, RunResult
from helm_scale.finetuning.train import REFERENCES, FinetuneRun, Start
from helm_scale.model.helm import Helm
from helm_scale.model.weights import save_weights
from helm_scale.reading.domain import DOMAIN, TrainingDomain


def study(backbone: Helm, labelled: LabelledSplits, config: FinetuneConfig) -> str:
    """Run every mode for every size and seed and write `out`.

    In `out`: table.md, report.json, learning_curve.png where there are several sizes, and per mode
    a folder with the model of the first seed and largest size (model.json, model.safetensors) and
    its parity.png.

    Returns:
        the tables, Markdown.
    """
    results, groups = list[RunResult](), dict[str, list[ParameterGroup]]()
    sizes = config.sizes or (len(labelled.train),)
    skipped: set[str] = set()
    factory = _RunFactory(backbone, labelled, config)
    for size in sizes:
        for seed in config.seeds:
            splits = fit_reference(labelled.draw(size, seed))
            skipped.update(splits.skipped)
            # Before its first step a head adds nothing, whatever the backbone
            untrained = factory.start("direct", splits, seed=seed)
            results.append(_test(untrained, REFERENCE_ONLY, seed, config=config))
            for mode in config.modes:
                run = factory.start(mode, splits, seed=seed)
                groups[mode] = parameter_groups(run.model, mode, config)
                results.append(_train_and_test(run, groups[mode], seed, config=config))
                if seed == config.seeds[0] and size == max(sizes):
                    _write_run(run, results[-1], Path(config.out) / mode)
    text = "\n".join([
        *tables.parameter_table(groups), "",
        *tables.error_table(results, labelled.head), "",
        tables.caption(labelled, skipped, config), "",
    ])  # fmt: skip
    _write_report(text, results, labelled, skipped=skipped, config=config)
    return text


class _RunFactory:
    """Makes runs; graphs of all molecules are made once, features of the frozen backbone too."""

    def __init__(self, backbone: Helm, labelled: LabelledSplits, config: FinetuneConfig) -> None:
        self._backbone, self._config = backbone, config
        molecules = labelled.all_molecules()
        model = start_model("frozen", backbone, fit_reference(labelled), config, seed=0)
        self._graphs = GraphCache(molecules, model)
        self._features: dict[str, Tensor] = {}
        # Forces need the gradient of the trunk, which features on disk have not
        if "frozen" in config.modes and not config.weight_of_forces:
            folder = Path(config.cache or Path(config.out) / "features")
            self._features = cached_features(model, molecules, folder)

    def start(self, mode: str, splits: ReferencedSplits, *, seed: int) -> FinetuneRun:
        """A run before its first step."""
        model = start_model(mode, self._backbone, splits, self._config, seed=seed)
        kept = mode == "frozen" and self._features
        return FinetuneRun(
            mode=mode,
            model=model,
            splits=splits,
            graphs=self._graphs,
            features=from_cache(self._features) if kept else model.select,
        )


def _train_and_test(
    run: FinetuneRun, groups: Sequence[ParameterGroup], seed: int, *, config: FinetuneConfig
) -> RunResult:
    """Train one model and measure its errors."""
    begin, step = time.perf_counter(), 0
    start = train.start_head(run, config)
    if not _is_fitted(run, config):
        step = train.train(run, groups, config, seed=seed)
    run.model.eval()
    return _test(run, run.mode, seed, config=config, start=start, step=step, begin=begin)


def _is_fitted(run: FinetuneRun, config: FinetuneConfig) -> bool:
    """Whether the fitted linear readout is all that learns, so that steps would add nothing."""
    linear = (config.head.kind, config.head_start) == ("linear", "fit")
    return run.mode == "frozen" and linear and not config.weight_of_forces


def _test(
    run: FinetuneRun,
    mode: str,
    seed: int,
    *,
    config: FinetuneConfig,
    start: Start = REFERENCES,
    step: int = 0,
    begin: float | None = None,
) -> RunResult:
    seconds = 0.0 if begin is None else time.perf_counter() - begin
    forces, validation = config.weight_of_forces > 0, run.splits.validation
    return RunResult(
        mode=mode,
        size=len(run.splits.train),
        seed=seed,
        start=start,
        step=step,
        seconds=seconds,
        train=train.errors(run, run.splits.train, forces=forces),
        validation=train.errors(run, validation, forces=forces) if validation else None,
        tests={
            name: train.errors(run, molecules, forces=forces)
            for name, molecules in run.splits.tests.items()
        },
    )


def _write_run(run: FinetuneRun, result: RunResult, folder: Path) -> None:
    """Write the parity plot of the first test, and what commands.load_property_model reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(run.model.state_dict(), folder / "model.safetensors")
    quantity = run.splits.head.quantity
    record = {
        "format": FORMAT,
        "model": run.model.config.model_dump(mode="json"),
        "head": run.model.head_config.model_dump(mode="json"),
        "target": quantity.name,
        "method": run.splits.method,
        "training": asdict(result),
        DOMAIN: TrainingDomain.of(run.splits.train, free_atoms=run.splits.atoms).record(),
        "units": f"{quantity.unit}, Angstrom",
    }
    (folder / "model.json").write_text(json.dumps(record, indent=1) + "\n")
    plots.draw_parity(folder / "parity.png", run, next(iter(run.splits.tests)))


def _write_report(
    text: str,
    results: Sequence[RunResult],
    labelled: LabelledSplits,
    *,
    skipped: set[str],
    config: FinetuneConfig,
) -> None:
    """Write table.md, report.json and the learning curve."""
    out, quantity = Path(config.out), labelled.head.quantity
    record: dict[str, Any] = {
        "target": quantity.name,
        "units": f"{quantity.unit}, Angstrom",
        "report_unit": quantity.report_unit,
        "in_report_unit": quantity.in_report_unit,
        "rows": [asdict(result) for result in results],
        "train_molecules": len(labelled.train),
        "validation_molecules": len(labelled.validation),
        "test_molecules": {name: len(molecules) for name, molecules in labelled.tests.items()},
        "skipped": sorted(skipped),
        "method": labelled.method,
        "torch": torch.__version__,
        "config": config.model_dump(mode="json"),
    }
    (out / "table.md").write_text(text)
    (out / "report.json").write_text(json.dumps(record, indent=1) + "\n")
    if len({result.size for result in results}) > 1:
        curves = tables.learning_curves(results, quantity)
        plots.draw_curves(out / "learning_curve.png", curves, quantity)
