"""Distributed pretraining of backbones on Kohn-Sham Hamiltonians."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "Backbone": "helm_scale.export.backbone",
    "EnergyCalculator": "helm_scale.export.calculator",
}


def __getattr__(name: str) -> Any:
    """Import the public classes when they are asked for, so that `import helm_scale` stays
    quick."""
    if name not in _HOMES:
        raise AttributeError(f"helm_scale has no '{name}'; it has {', '.join(_HOMES)}")
    return getattr(import_module(_HOMES[name]), name)
