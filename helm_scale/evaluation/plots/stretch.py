"""Levels and energy along a stretched bond, model against PySCF."""

from collections.abc import Sequence
from pathlib import Path

from helm_scale.evaluation.plots.figure import (
    ERROR,
    FAINT,
    INK,
    SIZE,
    explain,
    new_figure,
    save,
)
from helm_scale.evaluation.stretch import StretchPoint
from helm_scale.units import HARTREE_IN_EV


def plot_stretch(path: Path, title: str, points: Sequence[StretchPoint]) -> None:
    """Draw HOMO and LUMO, and the energy, over the length of the bond; model against PySCF."""
    figure = new_figure(10.0, 4.2)
    orbital_axis, energy_axis = figure.subplots(1, 2)
    lengths, lowest = [point.length for point in points], points[0].reference.energy
    for whose, style, colour in (("reference", "o-", SIZE), ("predicted", "s--", ERROR)):
        levels = [getattr(point, whose) for point in points]
        label = "PySCF" if whose == "reference" else "model"
        orbital_axis.plot(
            lengths,
            [level.homo * HARTREE_IN_EV for level in levels],
            style,
            color=colour,
            markersize=4.5,
            label=label,
        )
        orbital_axis.plot(  # without label: HOMO and LUMO share one entry of the legend
            lengths,
            [level.lumo * HARTREE_IN_EV for level in levels],
            style,
            color=colour,
            markersize=4.5,
        )
        energy_axis.plot(
            lengths,
            [(level.energy - lowest) * HARTREE_IN_EV for level in levels],
            style,
            color=colour,
            markersize=4.5,
            label=label,
        )
    orbital_axis.set_ylabel("HOMO and LUMO / eV", color=INK)
    energy_axis.set_ylabel("energy, PySCF's first = 0 / eV", color=INK)
    for axis in (orbital_axis, energy_axis):
        axis.set_xlabel("length of the bond / Angstrom", color=INK)
        axis.grid(True, color=FAINT)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    orbital_axis.set_title(title, fontsize=12, color=INK, loc="left")
    explain(figure, "Good: the lines of the model lie on those of PySCF, or run parallel to them.")
    save(figure, path)
