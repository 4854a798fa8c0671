"""Finetuning in every mode, side by side: the table, the record and the weights in one folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helm_scale.batch import Method
from helm_scale.config import FinetuneConfig
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.model.weights import save_weights
from helm_scale.training import finetune
from helm_scale.training.finetune import EnergyLabels, Errors, TensorCounts
from helm_scale.units import HARTREE_IN_MEV


@dataclass(frozen=True)
class Row:
    """Errors of one mode; `tensors` is None for the reference energies alone."""

    mode: str
    test: Errors
    train: Errors
    tensors: TensorCounts | None


def compare(backbone: Helm, labels: EnergyLabels, config: FinetuneConfig, method: Method) -> str:
    """Train every mode of the config and write `out`: table.md, report.json, and MODE/{model.safetensors, model.json}.

    Args:
        method: how the energies were made; recorded.
    Returns:
        the table, Markdown.
    """
    out = Path(config.out)
    rows = [_row("reference energies only", finetune.start("direct", backbone, labels, config.seed)[0], labels, None)]
    for mode in config.modes:
        model, tensors = finetune.start(mode, backbone, labels, config.seed)
        finetune.train(model, mode, labels, config)
        rows.append(_row(mode, model.eval(), labels, tensors))
        (out / mode).mkdir(parents=True, exist_ok=True)
        save_weights(model.state_dict(), out / mode / "model.safetensors")
        about = {
            "model": model.config.model_dump(mode="json"), "head": model.head_config.model_dump(mode="json"),
            "method": asdict(method), "training": {"mode": mode},
        }  # fmt: skip
        (out / mode / "model.json").write_text(json.dumps(about, indent=1) + "\n")
    text = table(rows, labels, method)
    (out / "table.md").write_text(text)
    (out / "report.json").write_text(json.dumps(_record(rows, labels, config, method), indent=1) + "\n")
    return text


def _row(mode: str, model: EnergyModel, labels: EnergyLabels, tensors: TensorCounts | None) -> Row:
    return Row(mode, finetune.errors(model, labels.test), finetune.errors(model, labels.train), tensors)


def table(rows: Sequence[Row], labels: EnergyLabels, method: Method) -> str:
    """Markdown table of the modes, and what the numbers rest on."""
    lines = [
        "| mode | test MAE, meV | test MAE, meV/atom | train MAE, meV | tensors kept and trained / kept and frozen / new |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        tensors = f"{row.tensors.kept} / {row.tensors.frozen} / {row.tensors.new}" if row.tensors else "-"
        numbers = " | ".join(f"{value * HARTREE_IN_MEV:.1f}" for value in (row.test.mae, row.test.mae_per_atom, row.train.mae))
        lines.append(f"| {row.mode} | {numbers} | {tensors} |")
    skipped = f"; left out of the test, because training defines no reference energy for them: {', '.join(labels.skipped)}"
    return "\n".join([
        *lines, "",
        f"Total energies at {method.xc}/{method.basis}, {len(labels.train)} training and {len(labels.test)} test"
        f" molecules{skipped if labels.skipped else ''}. References: least squares per element on the training molecules.", "",
    ])  # fmt: skip


def _record(rows: Sequence[Row], labels: EnergyLabels, config: FinetuneConfig, method: Method) -> dict[str, Any]:
    return {
        "units": "Hartree",
        "rows": [asdict(row) for row in rows],
        "train_molecules": len(labels.train),
        "test_molecules": len(labels.test),
        "skipped_test_molecules": labels.skipped,
        "output_scale": labels.scale,
        "reference_energies": {str(z): float(energy) for z, energy in enumerate(labels.reference) if energy},
        "method": asdict(method),
        "config": config.model_dump(mode="json"),
    }
