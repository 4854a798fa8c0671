"""Which matrix orbitals and densities come from: the predicted one, or the Kohn-Sham matrix nearest
to it (dft/potential.py).

The rule, here alone: a model whose error on validation molecules lies above FLOOR is projected, one
below is not. Where that error is unknown, nearly singular basis sets are projected, others not.
"""

import logging
from dataclasses import dataclass
from typing import Literal

from helm_scale.dft import potential
from helm_scale.dft.molecule import build_mol, kohn_sham
from helm_scale.types import Method, Molecule
from helm_scale.units import MICROHARTREE

_log = logging.getLogger(__name__)

Setting = Literal["auto", "on", "off"]
# Hartree: the projection leaves 6e-6 to 30e-6 on a true matrix (docs/potential.md).
FLOOR = 30e-6
NEARLY_SINGULAR = ("def2-tzvpd",)


@dataclass(frozen=True)
class Choice:
    """Whether predictions are projected, and why; forced: by a setting, whatever it costs."""

    projected: bool
    reason: str
    forced: bool = False

    def covers(self, molecule: Molecule, method: Method) -> bool:
        """Whether this molecule is projected: one too large for the memory is not, unless that is
        forced, and the log says so."""
        if not self.projected or self.forced:
            return self.projected
        solver = kohn_sham(build_mol(molecule, method.basis), method)
        needed = potential.integral_bytes(solver.mol, gradients=potential.is_meta_gga(solver))
        if needed <= potential.MEMORY_LIMIT:
            return True
        _log.warning(
            "%s: used as predicted: its projection needs %.1f GiB, limit %.1f GiB",
            molecule.key,
            needed / 2**30,
            potential.MEMORY_LIMIT / 2**30,
        )
        return False

    def __str__(self) -> str:
        used = (
            "the Kohn-Sham matrix nearest to the prediction" if self.projected else "as predicted"
        )
        return f"Matrix in use: {used} ({self.reason})."


def choose(setting: Setting, *, error: float | None, basis: str) -> Choice:
    """Apply the rule.

    Args:
        setting: "on" and "off" force either. error: mean |dH| on validation molecules, Hartree;
            None: unknown.
    """
    if setting != "auto":
        return Choice(setting == "on", f"projection: {setting}", forced=True)
    if error is None:
        singular = basis in NEARLY_SINGULAR
        return Choice(
            singular,
            "error of the model unknown; overlaps of"
            f" {basis} are {'' if singular else 'not '}nearly singular",
        )
    above = error > FLOOR
    return Choice(
        above,
        f"error on validation molecules {error / MICROHARTREE:.3g} uEh,"
        f" {'above' if above else 'below'} the {FLOOR / MICROHARTREE:.3g} uEh that the projection"
        " costs",
    )
