"""Engines by name: what `execution.engine: NAME` stands for is ENGINE in strategies/NAME.py.

A new engine is one such file, and its name among those that config.ExecutionConfig.engine allows:
so --help lists it, and a misspelt name is refused before anything starts.
"""

from importlib import import_module
from typing import cast, get_args

from helm_scale.config import ExecutionConfig
from helm_scale.parallel.strategies.spec import EngineSpec

NAMES: tuple[str, ...] = tuple(
    name
    for name in get_args(ExecutionConfig.model_fields["engine"].annotation)
    if name != "auto"  # stands for one of the others
)


def spec_of(name: str) -> EngineSpec:
    """The engine of that name."""
    # Imported when asked for, so that a file of an engine may import what only it needs.
    return cast(EngineSpec, import_module(f"{__name__}.{name}").ENGINE)


def names_with(capability: str) -> str:
    """Names of the engines with a capability (a field of EngineSpec), for messages."""
    return " or ".join(name for name in NAMES if getattr(spec_of(name), capability))
