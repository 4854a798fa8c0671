"""gpu4pyscf, where a method record names it: Fock matrices, energies and SCF on the GPU, if there
is one; forces stay on the CPU.

A record names it by its program, such as "gpu4pyscf 1.4". Where it or a GPU is missing, PySCF does
the same on the CPU, and says so.
"""

import functools
import importlib
import importlib.util
import logging
from typing import Any

import numpy as np
from pyscf.dft.rks import RKS

_log = logging.getLogger(__name__)


def builder(solver: RKS, program: str) -> Any:
    """The solver that builds Fock matrices: the given one, or its copy on the GPU where the record
    names gpu4pyscf and it is there."""
    return (
        solver.to_gpu() if program.lower().startswith("gpu4pyscf") and _ready(program) else solver
    )


def send(matrix: np.ndarray, to: Any) -> Any:
    """The matrix where a solver wants it."""
    return matrix if isinstance(to, RKS) else importlib.import_module("cupy").asarray(matrix)


def fetch(matrix: Any) -> np.ndarray:
    """The matrix as numpy's, wherever it is."""
    return np.asarray(matrix.get() if hasattr(matrix, "get") else matrix)


@functools.cache
def _ready(program: str) -> bool:
    """Whether gpu4pyscf and a GPU are there; what is missing is said once."""
    missing = [name for name in ("gpu4pyscf", "cupy") if importlib.util.find_spec(name) is None]
    if not missing and not importlib.import_module("cupy").cuda.is_available():
        missing = ["a CUDA device"]
    if missing:
        _log.warning(
            "labels by %s; missing here: %s. PySCF on the CPU does the same, more slowly",
            program,
            ", ".join(missing),
        )
    return not missing
