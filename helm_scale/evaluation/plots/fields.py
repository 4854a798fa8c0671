"""Orbitals and densities in space, seen along one axis."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.contour import ContourSet
from scipy import ndimage

from helm_scale.basis import elements
from helm_scale.dft.fields import Fields
from helm_scale.evaluation.plots.figure import FAINT, INK, explain, new_figure, save
from helm_scale.types import Molecule

# Contours in units of the largest value; halved from one to the next, as orbitals decay.
LEVELS = np.array([-0.64, -0.32, -0.16, -0.08, -0.04, 0.04, 0.08, 0.16, 0.32, 0.64])
FINER = 3  # grid points of a picture per point of the cube files, along each axis
COVERED = 0.4  # Angstrom between two atoms in the picture whose symbols would collide
ORBITAL_UNIT = "orbital / bohr^-3/2"
DENSITY_UNIT = "difference / electrons per bohr^3"


def plot_fields(
    path: Path, molecule: Molecule, fields: Fields, titles: Sequence[Sequence[tuple[str, str]]]
) -> None:
    """Draw orbitals and densities as seen along the shortest axis of their box.

    Each point shows the value of largest magnitude on its line of sight above the molecule's
    middle plane.

    Args:
        titles: panels by row: (name of the field, title); a column shares one colour scale.
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
    width = 4.3  # inches of a panel
    height = width * shape[up] * fields.step[up] / (shape[across] * fields.step[across])
    figure = new_figure(width * len(titles[0]), (height + 0.3) * len(titles) + 1.0)
    panels = figure.subplots(len(titles), len(titles[0]), squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for column in range(len(titles[0])):
        below = list(zip(titles, panels[:, column], strict=True))
        drawn = [(*row[column], panel) for row, panel in below if column < len(row)]
        seen = [_seen(np.moveaxis(fields.values[name], axis, 0)[middle:]) for name, *_ in drawn]
        # A quantile, because core orbitals and nuclei have peaks that would hide the rest.
        largest = max(float(np.quantile(np.abs(view), 0.998)) for view in seen) or 1.0
        for (_, title, panel), view in zip(drawn, seen, strict=True):
            edges = [
                fields.origin[k] + np.linspace(0, fields.step[k] * (shape[k] - 1), size)
                for k, size in zip((across, up), view.shape, strict=True)
            ]
            shown = _draw_view(panel, edges, view.T, largest * LEVELS)
            _draw_atoms(panel, molecule, (across, up, axis))
            panel.set_title(title, fontsize=11, color=INK)
        bar = figure.colorbar(shown, ax=panels[:, column], location="bottom", aspect=35, pad=0.02)
        ticks = (largest * LEVELS[::2]).tolist()
        bar.set_ticks(ticks, labels=[f"{level:.2g}" for level in ticks])
        bar.set_label(DENSITY_UNIT if "density" in drawn[0][0] else ORBITAL_UNIT, color=INK)
        bar.ax.tick_params(labelsize=8)
    explain(
        figure,
        "Good: model and PySCF look alike, up to the order of orbitals of one energy, and the"
        " density hardly differs.",
    )
    save(figure, path)


def _draw_view(
    panel: Axes, edges: Sequence[np.ndarray], view: np.ndarray, levels: np.ndarray
) -> ContourSet:
    """Fill the contours of one view; returns what a colour scale belongs to."""
    panel.set_axis_on()
    norm = BoundaryNorm(levels, 256, extend="both")
    panel.contour(*edges, view, levels=levels, colors=INK, linewidths=0.3)
    return panel.contourf(*edges, view, levels=levels, cmap="RdBu_r", norm=norm, extend="both")


def _seen(stack: np.ndarray) -> np.ndarray:
    """Project a field along its first axis, interpolated so that contours are smooth."""
    return _largest_magnitude(ndimage.zoom(stack, FINER, order=3))


def _largest_magnitude(stack: np.ndarray) -> np.ndarray:
    """Take the value of largest magnitude along the first axis, with its sign."""
    place = np.abs(stack).argmax(axis=0)
    return np.take_along_axis(stack, place[None], axis=0)[0]


def _draw_atoms(panel: Axes, molecule: Molecule, axes: tuple[int, int, int]) -> None:
    """Draw the atoms, the nearest last; one that another covers has no symbol.

    axes: across, up, and the line of sight.
    """
    places = molecule.positions[:, axes[:2]]
    order = np.argsort(molecule.positions[:, axes[2]])
    for rank, atom in enumerate(order):
        x, y = places[atom]
        panel.plot(x, y, "o", color="white", markeredgecolor=INK, markersize=11)
        nearer = places[order[rank + 1 :]]
        if (np.linalg.norm(nearer - places[atom], axis=1) < COVERED).any():
            continue
        symbol = elements.symbol(int(molecule.atomic_numbers[atom]))
        panel.text(x, y, symbol, ha="center", va="center", fontsize=7, color=INK)
    panel.set_aspect("equal")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color(FAINT)
