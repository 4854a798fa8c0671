"""Orbitals and densities in space, seen along one axis."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from helm_scale.basis import elements
from helm_scale.dft.fields import Fields
from helm_scale.evaluation.plots.figure import FAINT, INK, new_figure, save
from helm_scale.types import Molecule


def plot_fields(
    path: Path, molecule: Molecule, fields: Fields, titles: Sequence[Sequence[tuple[str, str]]]
) -> None:
    """Draw orbitals and densities as seen along the shortest axis of their box.

    Each point shows the value of largest magnitude on its line of sight above the molecule's
    middle plane.

    Args:
        titles: panels by row: (name of the field, title).
    """
    shape = next(iter(fields.values.values())).shape
    axis = int(np.argmin(np.array(shape) * fields.step))
    across, up = (direction for direction in range(3) if direction != axis)
    # Only the upper half: a p orbital's lower lobe would compete with the upper one, sign by sign.
    middle = int(
        np.clip(
            (molecule.positions[:, axis].mean() - fields.origin[axis]) / fields.step[axis],
            0,
            shape[axis] - 2,
        )
    )
    figure = new_figure(4.3 * len(titles[0]), 4.2 * len(titles))
    panels = figure.subplots(len(titles), len(titles[0]), squeeze=False)
    for row, names in zip(panels, titles, strict=True):
        for panel in row[len(names) :]:
            panel.set_axis_off()
        for panel, (name, title) in zip(row, names, strict=False):
            projection = _largest_magnitude(np.moveaxis(fields.values[name], axis, 0)[middle:])
            # A quantile, because core orbitals and nuclei have peaks that would hide the rest.
            largest = float(np.quantile(np.abs(projection), 0.998)) or 1.0
            edges = [fields.origin[k] + fields.step[k] * np.arange(shape[k]) for k in (across, up)]
            # Halved from level to level: orbitals decay exponentially.
            levels = largest * np.array(
                [-0.64, -0.32, -0.16, -0.08, -0.04, 0.04, 0.08, 0.16, 0.32, 0.64]
            )
            panel.contourf(
                *edges,
                np.clip(projection.T, levels[0], levels[-1]),
                levels=levels,
                cmap="RdBu_r",
                extend="both",
            )
            panel.contour(*edges, projection.T, levels=levels, colors=INK, linewidths=0.3)
            _draw_atoms(panel, molecule, across, up)
            panel.set_title(title, fontsize=11, color=INK)
    save(figure, path)


def _largest_magnitude(stack: np.ndarray) -> np.ndarray:
    """Take the value of largest magnitude along the first axis, with its sign."""
    place = np.abs(stack).argmax(axis=0)
    return np.take_along_axis(stack, place[None], axis=0)[0]


def _draw_atoms(panel: Axes, molecule: Molecule, across: int, up: int) -> None:
    for number, xyz in zip(molecule.atomic_numbers, molecule.positions, strict=True):
        panel.plot(xyz[across], xyz[up], "o", color="white", markeredgecolor=INK, markersize=11)
        panel.text(
            xyz[across],
            xyz[up],
            elements.symbol(int(number)),
            ha="center",
            va="center",
            fontsize=7,
            color=INK,
        )
    panel.set_aspect("equal")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color(FAINT)
