"""What a bundle says of itself: config.json for programs and README.md, the model card, for people."""

import importlib.metadata
from dataclasses import asdict
from typing import Any

import torch

from helm_scale.basis.elements import supported, symbol
from helm_scale.batch import Method
from helm_scale.config import ModelConfig
from helm_scale.export import golden
from helm_scale.model.helm import Helm

AO_CONVENTION = (
    "per atom the shells of the basis sorted by l, inside a shell m = -l..l, real solid harmonics without"
    " Condon-Shortley sign, polar axis z (PySCF's order but for p, which is y, z, x)"
)


def describe(model: Helm, method: Method, provenance: dict[str, Any]) -> dict[str, Any]:
    """The record in config.json; keys `model` and `method` rebuild the model."""
    config = model.config
    return {
        "format": "helm_scale bundle 1",
        "model": config.model_dump(mode="json"),
        "method": asdict(method),
        "inputs": {
            "positions": "float64 [N, 3], Angstrom",
            "atomic_numbers": "int64 [N]",
            "edge_index": "int64 [2, E], the two atoms of every pair of one molecule within the trunk cutoff, once, in either order",
            "molecule": "int64 [N], index of an atom's molecule, from 0",
            "charge": "int64 [B], one per molecule",
            "spin_multiplicity": "int64 [B], 2S+1",
        },
        "features": _features(config),
        "trunk_cutoff_angstrom": config.trunk_cutoff,
        "pair_cutoff_angstrom": config.pair_cutoff,
        "elements": list(supported(config.basis)),
        # elements of the molecules from which the on-site references were fitted
        "elements_in_training": [z for z, row in enumerate(model.reference) if bool(row.any())],
        "charge_range": [-config.max_charge, config.max_charge],
        "spin_multiplicity_range": [1, config.max_multiplicity],
        "units": {"length": "Angstrom", "energy": "Hartree"},
        "ao_convention": AO_CONVENTION,
        "parameters": {"trunk": _count(model.trunk), "all": _count(model)},
        "versions": {name: importlib.metadata.version(name) for name in ("helm_scale", "torch", "safetensors", "numpy")},
        "provenance": provenance,
    }


def _features(config: ModelConfig) -> dict[str, Any]:
    terms = [f"{config.channels}x{degree}{'eo'[degree % 2]}" for degree in range(config.lmax + 1)]
    return {
        "irreps": "+".join(terms),
        "parity": "of the harmonics; the network turns with the molecule (SO(3)) and does not promise how it mirrors",
        "shape": ["N atoms", (config.lmax + 1) ** 2, config.channels],
        "axes": "[atom, degree and order, channel]; degree l, order m = -l..l at row l*l + l + m; channel last, unlike e3nn",
        "polar_axis": "z; e3nn's Wigner matrices apply to coordinates cycled to (y, z, x)",
        "dtype": config.dtype,
    }


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def readme(record: dict[str, Any]) -> str:
    """The model card."""
    facts = {
        **record, "config": record["model"], "inputs_csv": ", ".join(golden.INPUTS), "tolerance": f"{golden.TOLERANCE:.0e}",
        "rows": "\n".join(f"| `{name}` | {text} |" for name, text in record["inputs"].items()),
        "seen": _symbols(record["elements_in_training"]), "embedded": _symbols(record["elements"]),
        "labels": "\n".join(_bullets(record["method"])),
        "origin": "\n".join(_bullets(record["provenance"])) or "- unknown",
    }  # fmt: skip
    return CARD.format(**facts)


def _symbols(numbers: list[int]) -> str:
    return " ".join(symbol(z) for z in numbers) or "none"


def _bullets(record: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key, value in record.items():
        lines += _bullets(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"- {prefix}{key}: {value}"]
    return lines


CARD = """# Backbone pretrained on Kohn-Sham Hamiltonians

Molecule in, one feature tensor out: {features[irreps]}, shape [N, {features[shape][1]}, {features[shape][2]}], {features[dtype]}.
{parameters[trunk]:,} weights (with the Hamiltonian heads {parameters[all]:,}).

## Load
With torch and safetensors alone, in this folder:
```python
import torch
from safetensors.torch import load_file
golden = load_file("golden.safetensors")
trunk = torch.export.load("model.pt2").module()
names = "{inputs_csv}".split(", ")
features = trunk(*(golden["methanol." + name] for name in names))
```
Edges of one molecule, from `positions` [N, 3] (float64, Angstrom):
```python
near = (positions[:, None] - positions).norm(dim=-1) < {trunk_cutoff_angstrom:g}
edge_index = near.triu(diagonal=1).nonzero().T
```
Gradients with respect to `positions` (kept in float64 inside) and to the weights pass through. The program is made for
the CPU; torch's `torch.export.passes.move_to_device_pass` is the way to another device, not tested here.
`model.safetensors` holds the same weights, under `trunk.`. Unlike it, model.pt2 is a program: load only what you trust.

| input | meaning |
|---|---|
{rows}

Axes of the features: {features[axes]}.
Polar axis: {features[polar_axis]}.
Parity: {features[parity]}.

## Data
{origin}

Labels:
{labels}

## Limits
- elements seen in training: {seen}; embedded: {embedded}
- charge {charge_range[0]} to {charge_range[1]}, spin multiplicity {spin_multiplicity_range[0]} to {spin_multiplicity_range[1]}
- elements, charges and multiplicities that training did not show have untrained embeddings
- messages reach {trunk_cutoff_angstrom:g} Angstrom, Hamiltonian pairs {pair_cutoff_angstrom:g} Angstrom
- no accuracy is stated here: `python launch/evaluate.py --source FOLDER` of helm_scale measures it on your data

## Units and conventions
Angstrom, Hartree. Atomic orbitals: {ao_convention}.

## Check
`sha256sum -c SHA256SUMS`, and `python launch/export.py --verify --out FOLDER` of helm_scale, which recomputes the golden
features to {tolerance} of their largest entry.
"""
