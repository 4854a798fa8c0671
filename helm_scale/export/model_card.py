"""What a bundle says of itself: config.json for programs, README.md (the model card) for people."""

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from helm_scale.basis.elements import supported, symbol
from helm_scale.config import FORMAT, ModelConfig
from helm_scale.export import golden
from helm_scale.model.helm import Helm
from helm_scale.reading.domain import DOMAIN, TrainingDomain
from helm_scale.types import Method

NOT_OF_ORIGIN = ("format", "model", "method", DOMAIN)  # the bundle has them in their own places
AO_CONVENTION = (
    "per atom the shells of the basis sorted by l, inside a shell m = -l..l, real solid harmonics"
    " without Condon-Shortley sign, polar axis z (PySCF's order but for p, which is y, z, x)"
)


def origin(checkpoint: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Where the weights of a checkpoint come from: data, training, and the run's metrics up to it.

    Args:
        checkpoint: folder RUN/checkpoints/step-N. record: its model.json.
    """
    run = checkpoint.resolve().parents[1]
    decay = record.get("training", {}).get("ema_decay", 0)
    return {
        "run": run.name,
        "checkpoint": checkpoint.name,
        "weights": f"moving average over the steps, decay {decay}" if decay else "of the last step",
        **{key: value for key, value in record.items() if key not in NOT_OF_ORIGIN},
        "metrics": metrics_of(checkpoint),
    }


def metrics_of(checkpoint: Path) -> dict[str, Any]:
    """Errors on training batch and validation split, of the last validation up to a checkpoint
    RUN/checkpoints/step-N; nothing where there is none."""
    run, number = checkpoint.resolve().parents[1], checkpoint.name[-8:]
    if not number.isdigit():
        return {}
    lines = []
    for path in sorted(run.glob("metrics*.jsonl")):  # a long run has several
        with path.open() as file:
            lines += [json.loads(text) for text in file if '"validation_' in text]
    # a run goes on after its best checkpoint; later metrics are not those of these weights
    earlier = [line for line in lines if line["step"] <= int(number)]
    wanted = ("step", "loss", "h_mae", "validation_")
    last = earlier[-1] if earlier else {}
    return {key: value for key, value in last.items() if key.startswith(wanted)}


def describe(model: Helm, method: Method, provenance: dict[str, Any]) -> dict[str, Any]:
    """The record in config.json; its keys `model` and `method` rebuild the model."""
    config = model.config
    return {
        "format": FORMAT,
        "model": config.model_dump(mode="json"),
        "method": asdict(method),
        "inputs": {
            "positions": "float64 [N, 3], Angstrom",
            "atomic_numbers": "int64 [N]",
            "edge_index": "int64 [2, E], the two atoms of every pair of one molecule within the"
            " trunk cutoff, once, in either order",
            "batch": "int64 [N], index of an atom's molecule, from 0",
            "charge": "int64 [B], one per molecule",
            "spin": "int64 [B], multiplicity 2S+1",
        },
        "features": _features(config),
        "trunk_cutoff_angstrom": config.trunk_cutoff,
        "pair_cutoff_angstrom": config.pair_cutoff,
        "elements": list(supported(config.basis)),
        "charge_range": [-config.max_charge, config.max_charge],
        "spin_multiplicity_range": [1, config.max_multiplicity],
        "units": {"length": "Angstrom", "energy": "Hartree"},
        "ao_convention": AO_CONVENTION,
        "parameters": {"trunk": _count(model.trunk), "all": _count(model)},
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("helm_scale", "torch", "safetensors", "numpy")
        },
        DOMAIN: None if model.training_domain is None else model.training_domain.record(),
        "provenance": provenance,
    }


def _features(config: ModelConfig) -> dict[str, Any]:
    terms = [f"{config.channels}x{degree}{'eo'[degree % 2]}" for degree in range(config.lmax + 1)]
    return {
        "irreps": "+".join(terms),
        "parity": "of the harmonics; the network turns with the molecule (SO(3)) and does not"
        " promise how it mirrors",
        "shape": ["N atoms", (config.lmax + 1) ** 2, config.channels],
        "axes": "[atom, degree and order, channel]; degree l, order m = -l..l at row l*l + l + m;"
        " channel last, unlike e3nn",
        "polar_axis": "z; e3nn's Wigner matrices apply to coordinates cycled to (y, z, x)",
        "layers": f"the program gives the features after each of {config.num_layers} layers;"
        " the last is meant where none is named",
        "dtype": config.dtype,
    }


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def readme(record: dict[str, Any]) -> str:
    """The model card."""
    provenance = dict(record["provenance"])
    metrics = provenance.pop("metrics", {})
    facts = {
        **record,
        "tolerance": f"{golden.TOLERANCE:.0e}",
        "licence": provenance.get("data", {}).get("licence", "unknown"),
        "rows": "\n".join(f"| `{name}` | {text} |" for name, text in record["inputs"].items()),
        "domain": "\n".join(_domain(record)),
        "embedded": " ".join(map(symbol, record["elements"])),
        "labels": "\n".join(_bullets(record["method"])),
        "origin": "\n".join(_bullets(provenance)) or "- unknown",
        "metrics": "\n".join(_bullets(metrics)) or "- none recorded",
    }
    return CARD.format(**facts)


def _domain(record: dict[str, Any]) -> list[str]:
    """What the training molecules had, one Markdown line each."""
    domain = TrainingDomain.read(record, "config.json")
    if domain is None:
        return ["- unknown: the record of the run does not say"]
    return [
        f"- {domain.molecules:,} molecules of {domain.atoms[0]} to {domain.atoms[1]} atoms",
        f"- elements (atoms): {_counts(domain.elements)}",
        f"- charges (molecules): {_counts(domain.charges)}",
        f"- multiplicities (molecules): {_counts(domain.multiplicities)}",
    ]


def _counts(counts: Mapping[Any, int] | None) -> str:
    if counts is None:
        return "unknown"
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def _bullets(record: dict[str, Any], prefix: str = "") -> list[str]:
    """The entries of a nested record, one Markdown line each, named by dotted key."""
    lines: list[str] = []
    for key, value in record.items():
        if isinstance(value, dict):
            lines += _bullets(value, f"{prefix}{key}.")
        else:
            lines.append(f"- {prefix}{key}: {value}")
    return lines


CARD = """---
library_name: helm_scale
tags: [chemistry, molecules, equivariant, hamiltonian]
---
# Backbone pretrained on Kohn-Sham Hamiltonians

Molecule in, one feature tensor out: {features[irreps]},
shape [N, {features[shape][1]}, {features[shape][2]}], {features[dtype]}.
{parameters[trunk]:,} weights (with the Hamiltonian heads {parameters[all]:,}).

## Load
With torch ({versions[torch]} wrote this) and safetensors alone, in this folder:
```python
import torch
from helm_backbone import load, neighbours

backbone = load(".")
positions = torch.tensor(
    [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]], dtype=torch.float64
)
atomic_numbers, batch = torch.tensor([8, 1, 1]), torch.zeros(3, dtype=torch.int64)
charge, spin = torch.tensor([0]), torch.tensor([1])
edge_index = neighbours(positions, batch, backbone.cutoff)
features = backbone(positions, atomic_numbers, edge_index, batch, charge, spin)
```
From ASE: `backbone.features(atoms)`, with `atoms.info["charge"]` and `atoms.info["spin"]`
(multiplicity). Gradients with respect to `positions` (float64 inside) and to the weights pass
through. model.pt2 is a program: load only what you trust.

| input | meaning |
|---|---|
{rows}

Axes of the features: {features[axes]}.
Layers: {features[layers]}.
Polar axis: {features[polar_axis]}.
Parity: {features[parity]}.

With helm_scale, `helm_scale.load(FOLDER).hamiltonian(atoms)` gives the Kohn-Sham Hamiltonian.

## Data and training
Licence of the data: {licence}. No licence is stated for the weights here: whoever publishes them
does.
{origin}

Labels, Kohn-Sham Hamiltonians at:
{labels}

## Metrics of the run
Errors of Hamiltonian matrix elements in 1e-6 Hartree (`_ueh`) on its training batch and its
validation split.
{metrics}

`helm-scale evaluate --source FOLDER` measures more, on your data.

## What training showed
{domain}

helm_scale refuses other elements and warns of other sizes, charges, multiplicities and
compositions, unless `allow_extrapolation` is set; the lone loader does not look.

## Limits
- embedded elements: {embedded}
- charge {charge_range[0]} to {charge_range[1]},
  spin multiplicity {spin_multiplicity_range[0]} to {spin_multiplicity_range[1]}
- molecules without periodic images; messages reach {trunk_cutoff_angstrom:g} Angstrom,
  Hamiltonian pairs {pair_cutoff_angstrom:g} Angstrom

## Units and conventions
Angstrom, Hartree. Atomic orbitals: {ao_convention}.

## Check
`sha256sum -c SHA256SUMS`, and `helm-scale export --verify --out FOLDER`, which recomputes the
golden features to {tolerance} of their largest entry.

## Citation
The architecture is that of HELM, with changes that docs/model.md of helm_scale names:
M. Kaniselvan, B. K. Miller, M. Gao, J. Nam, D. S. Levine, "Learning from the electronic structure
of molecules across the periodic table", arXiv:2510.00224 (2025). Cite it, the source of the data,
and helm_scale {versions[helm_scale]}.
"""
