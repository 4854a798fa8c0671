"""Pictures of chemistry: orbitals in space, a stretched bond, the embedding map. Written as PNG, no
display."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from helm_scale.basis import elements
from helm_scale.dft.fields import Fields
from helm_scale.evaluation.embedding import EmbeddingMap
from helm_scale.evaluation.plots.matrices import ERROR, FAINT, INK, SIZE, new_figure, save
from helm_scale.evaluation.stretch import Point
from helm_scale.types import Molecule
from helm_scale.units import HARTREE_IN_EV

_COLOURS = {
    1: "#9aa5b1",
    6: "#3b4252",
    7: "#2f6fde",
    8: "#d03b3b",
    9: "#2e9e5b",
    16: "#d7a514",
    17: "#3fae49",
}
_OTHER = "#8b5cf6"


def draw_fields(
    path: Path, molecule: Molecule, fields: Fields, titles: Sequence[Sequence[tuple[str, str]]]
) -> None:
    """Draw fields seen along the flattest axis of their box: of every line of sight the largest
    value above the middle.

    Args:
        titles: panels by row: (name of the field, title).
    """
    shape = next(iter(fields.values.values())).shape
    axis = int(np.argmin(np.array(shape) * fields.step))
    across, up = (other for other in range(3) if other != axis)
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
            seen = _seen(np.moveaxis(fields.values[name], axis, 0)[middle:])
            largest = float(np.quantile(np.abs(seen), 0.998)) or 1.0
            edges = [fields.origin[k] + fields.step[k] * np.arange(shape[k]) for k in (across, up)]
            levels = largest * np.array(
                [-0.64, -0.32, -0.16, -0.08, -0.04, 0.04, 0.08, 0.16, 0.32, 0.64]
            )
            panel.contourf(
                *edges,
                np.clip(seen.T, levels[0], levels[-1]),
                levels=levels,
                cmap="RdBu_r",
                extend="both",
            )
            panel.contour(*edges, seen.T, levels=levels, colors=INK, linewidths=0.3)
            _draw_atoms(panel, molecule, across, up)
            panel.set_title(title, fontsize=11, color=INK)
    save(figure, path)


def _seen(stack: np.ndarray) -> np.ndarray:
    """The value of largest magnitude along the first axis, with its sign."""
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


def draw_stretch(path: Path, title: str, points: Sequence[Point]) -> None:
    """Draw HOMO and LUMO, and the energy, over the length of the bond; model against PySCF."""
    figure = new_figure(10.0, 4.2)
    left, right = figure.subplots(1, 2)
    lengths, lowest = [point.length for point in points], points[0].reference.energy
    for whose, style, colour in (("reference", "o-", SIZE), ("predicted", "s--", ERROR)):
        levels = [getattr(point, whose) for point in points]
        label = "PySCF" if whose == "reference" else "model"
        left.plot(
            lengths,
            [one.homo * HARTREE_IN_EV for one in levels],
            style,
            color=colour,
            markersize=4.5,
            label=label,
        )
        left.plot(
            lengths,
            [one.lumo * HARTREE_IN_EV for one in levels],
            style,
            color=colour,
            markersize=4.5,
        )
        right.plot(
            lengths,
            [(one.energy - lowest) * HARTREE_IN_EV for one in levels],
            style,
            color=colour,
            markersize=4.5,
            label=label,
        )
    left.set_ylabel("HOMO and LUMO / eV", color=INK)
    right.set_ylabel("energy above the first point of PySCF / eV", color=INK)
    for axis in (left, right):
        axis.set_xlabel("length of the bond / Angstrom", color=INK)
        axis.grid(True, color=FAINT)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    left.set_title(title, fontsize=12, color=INK, loc="left")
    save(figure, path)


def draw_embedding(
    path: Path, maps: Mapping[str, EmbeddingMap], numbers: np.ndarray, names: Sequence[str]
) -> None:
    """Draw the map of every backbone side by side, coloured by element, frequent environments
    named; UMAP below."""
    methods = ["components", *["umap"] * all(one.umap is not None for one in maps.values())]
    figure = new_figure(6.2 * len(maps), 5.6 * len(methods))
    panels = figure.subplots(len(methods), len(maps), squeeze=False)
    for row, method in zip(panels, methods, strict=True):
        for panel, (title, one) in zip(row, maps.items(), strict=True):
            _draw_map(panel, getattr(one, method), numbers, names)
            shares = " and ".join(f"{100 * share:.0f} %" for share in one.explained)
            panel.set_title(
                f"{title}, {'UMAP' if method == 'umap' else f'PCA ({shares})'}",
                fontsize=11,
                color=INK,
            )
    save(figure, path)


def _draw_map(panel: Axes, points: np.ndarray, numbers: np.ndarray, names: Sequence[str]) -> None:
    for number in sorted(set(_COLOURS) & set(numbers.tolist())):
        mine = points[numbers == number]
        panel.plot(
            mine[:, 0],
            mine[:, 1],
            "o",
            color=_COLOURS[number],
            markersize=5,
            alpha=0.75,
            label=elements.symbol(number),
        )
    other = ~np.isin(numbers, list(_COLOURS))
    if other.any():
        panel.plot(
            points[other, 0],
            points[other, 1],
            ".",
            color=_OTHER,
            markersize=5,
            alpha=0.6,
            label="others",
        )
    kinds, counts = np.unique(np.array(names), return_counts=True)
    for kind in kinds[np.argsort(-counts)][:8]:
        x, y = points[np.array(names) == kind].mean(axis=0)
        panel.annotate(
            kind,
            (x, y),
            fontsize=8,
            color=INK,
            ha="center",
            va="bottom",
            xytext=(0, 4),
            textcoords="offset points",
        )
    panel.legend(frameon=False, fontsize=8)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color(FAINT)
