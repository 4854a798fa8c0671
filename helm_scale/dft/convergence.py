"""Converges an SCF, by a level shift or a second-order solver where plain DIIS fails."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pyscf.dft.rks import RKS

# Hartree between occupied and virtual orbitals: more is slower, less leaves small gaps swinging.
LEVEL_SHIFT = 0.3


def converge(solver: RKS, retries: Sequence[str]) -> tuple[Any, str | None]:
    """Run an SCF; where it fails, run it again by each of `retries` until one converges.

    Only a closed shell that fills the lowest orbitals of its own Kohn-Sham matrix counts: the
    density must follow from the matrix that is stored.

    Args:
        retries: names in RETRIES, in the order to try.
    Returns:
        (converged solver, name of the retry that converged it or None).
    Raises:
        RuntimeError: none converged.
    """
    solver.kernel()
    if solver.converged:
        return solver, None
    failures = ""
    for name in retries:
        solver = RETRIES[name](solver)
        if solver.converged and fills_lowest(solver):
            return solver, name
        found = "HOMO above LUMO" if solver.converged else "no convergence"
        failures += f"; {name}: {found}"
    raise RuntimeError(
        f"SCF did not converge to {solver.conv_tol:.0e} Eh in {solver.max_cycle} cycles{failures}"
    )


def fills_lowest(solver: RKS) -> bool:
    """Whether every occupied orbital lies below every virtual one."""
    energies, occupied = np.asarray(solver.mo_energy), np.asarray(solver.mo_occ) > 0
    return bool(occupied.all() or energies[occupied].max() < energies[~occupied].min())


def with_level_shift(solver: RKS) -> RKS:
    """Start anew with virtual orbitals raised, then go on without the shift.

    Where the second part fails, the solver is left with the orbitals of the first.
    """
    solver.level_shift, solver.conv_check = LEVEL_SHIFT, False
    solver.kernel(dm0=solver.get_init_guess())
    orbitals = solver.mo_coeff, solver.mo_occ
    solver.level_shift, solver.conv_check = 0.0, True
    solver.kernel(dm0=solver.make_rdm1())
    if not solver.converged:
        solver.mo_coeff, solver.mo_occ = orbitals
    return solver


def with_second_order(solver: RKS) -> Any:
    """Minimise the energy by PySCF's second-order solver, from the orbitals that there are."""
    second_order = solver.newton()
    # Orbitals, not their density: one diagonalisation may exchange occupied and virtual ones.
    second_order.kernel(solver.mo_coeff, solver.mo_occ)
    return second_order.undo_newton()


RETRIES: dict[str, Callable[[RKS], Any]] = {
    "level_shift": with_level_shift,
    "second_order": with_second_order,
}
