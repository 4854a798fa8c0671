"""Runs Fock builds, energies and SCF on the GPU if the labels were made by gpu4pyscf.

A method record says so by its program, such as "gpu4pyscf 1.4". Where gpu4pyscf or a GPU is
missing, PySCF does the same on the CPU, and a warning says so. Forces stay on the CPU.
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
    """Return the solver that builds Fock matrices: the given one, or its copy on the GPU.

    Args:
        program: of the method record; the GPU is used only where it names gpu4pyscf.
    """
    return (
        solver.to_gpu() if program.lower().startswith("gpu4pyscf") and _ready(program) else solver
    )


def send(matrix: np.ndarray, to: Any) -> Any:
    """Copy the matrix to the GPU if the solver computes there."""
    # cupy is imported by name at run time, because most machines lack it.
    return matrix if isinstance(to, RKS) else importlib.import_module("cupy").asarray(matrix)


def fetch(matrix: Any) -> np.ndarray:
    """Copy the matrix back to numpy."""
    # numpy refuses cupy arrays: they cross over by their own `get` only.
    return np.asarray(matrix.get() if hasattr(matrix, "get") else matrix)


@functools.cache
def _ready(program: str) -> bool:
    """Whether gpu4pyscf and a GPU are there; a warning names what is missing, once."""
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
