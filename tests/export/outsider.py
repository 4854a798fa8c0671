"""A program that only has torch, safetensors, numpy and the standard library; run in a bundle's folder by test_bundle.py.

It runs the code blocks of the model card and compares with the golden features.
"""

import importlib.abc
import re
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from types import ModuleType
from typing import Any

OWNERS = {module: {plain.replace("-", "_").lower() for plain in names} for module, names in packages_distributions().items()}
FORBIDDEN = ("helm_scale", "e3nn", "pyscf", "webdataset", "pydantic", "yaml", "ase", "scipy", "tqdm")


def with_requirements(package: str) -> set[str]:
    """A package and all it declares to need, extras left out."""
    if not any(package in names for names in OWNERS.values()):
        return {package}
    lines = [line for line in requires(package) or () if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line)[0].replace("-", "_").lower() for line in lines]
    return {package}.union(*(with_requirements(name) for name in names))


class OnlyTorch(importlib.abc.MetaPathFinder):
    """Finds what the finders before it find, but no other package: those look as if not installed."""

    def __init__(self) -> None:
        self.allowed = with_requirements("torch") | {"safetensors", "numpy"}
        self.finders = list(sys.meta_path)

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        top = fullname.partition(".")[0]
        stranger = top in OWNERS and not OWNERS[top] & self.allowed
        if top == "helm_scale" or (stranger and top not in sys.stdlib_module_names):
            return None
        return next(filter(None, (finder.find_spec(fullname, path, target) for finder in self.finders)), None)


def main() -> None:
    """Reproduce the golden features by the card's own code."""
    sys.meta_path[:] = [OnlyTorch()]
    for name in FORBIDDEN:
        try:
            __import__(name)
        except ImportError:
            continue
        raise SystemExit(f"{name} was in reach")
    load, edges = (block.split("```")[0] for block in Path("README.md").read_text().split("```python\n")[1:])
    scope: dict[str, Any] = {}
    exec(load, scope)
    golden, trunk = scope["golden"], scope["trunk"]
    keys = {name.partition(".")[0] for name in golden}
    assert len(keys) == 5
    for key in keys:
        wanted = golden[f"{key}.features"]
        error = float((trunk(*(golden[f"{key}.{name}"] for name in scope["names"])) - wanted).abs().max() / wanted.abs().max())
        assert error <= 1e-5, (key, error)
        scope["positions"] = golden[f"{key}.positions"]
        exec(edges, scope)
        assert sorted(scope["edge_index"].T.tolist()) == sorted(golden[f"{key}.edge_index"].T.tolist()), key
    assert not set(FORBIDDEN) & set(sys.modules)


if __name__ == "__main__":
    main()
