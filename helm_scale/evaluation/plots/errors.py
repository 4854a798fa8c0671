"""Errors of a Hamiltonian by element, by element pair and by distance."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from helm_scale.evaluation.plots.figure import (
    ERROR,
    FAINT,
    INK,
    MICROHARTREE_LABEL,
    SIZE,
    explain,
    new_figure,
    save,
)


def plot_element_pairs(path: Path, onsite: dict[str, Any], pairs: dict[str, Any]) -> None:
    """Draw the mean absolute error (uEh) by element (on-site) and by element pair (off-site).

    Args:
        onsite, pairs: parts of the report, {"C": {"mae_uEh": ...}} and {"H-C": {"mae_uEh": ...}}.
    """
    symbols = list(onsite)
    count = len(symbols)
    grid = np.full((count, count + 2), np.nan)  # first column: on-site; the second stays empty
    grid[:, 0] = [onsite[symbol]["mae_uEh"] for symbol in symbols]
    for name, pair in pairs.items():
        low, high = sorted(symbols.index(symbol) for symbol in name.split("-"))
        grid[high, low + 2] = pair["mae_uEh"]
    # A logarithmic scale has no place for the zero error of a perfect prediction.
    positive = grid[np.isfinite(grid) & (grid > 0)]
    smallest, largest = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    norm = LogNorm(smallest / 1.05, largest * 1.05)  # never empty, also for one value
    cell = 0.6 if count <= 14 else 0.36
    figure = new_figure(max(5.0, cell * (count + 2) + 1.8), max(3.4, cell * count + 1.5))
    axis = figure.subplots()
    # Grey below: pairs of the triangle that the data lack show as grey, not as white.
    absent = np.where(np.tri(count, count, dtype=bool), 1.0, np.nan)
    axis.imshow(
        absent, extent=(1.5, count + 1.5, count - 0.5, -0.5), cmap="Greys", vmin=0.94, vmax=1.9
    )
    axis.imshow(grid, norm=norm, cmap="YlOrRd")
    axis.set_xlim(-0.5, count + 1.5)
    axis.set_xticks([0, *range(2, count + 2)], ["on-site", *symbols])
    axis.set_yticks(range(count), symbols)
    axis.tick_params(length=0, colors=INK, labelsize=10 if count <= 14 else 7)
    axis.spines[:].set_visible(False)
    _write_cells(axis, grid, norm, 9.0 if count <= 14 else 5.5)
    axis.set_title("mean |dH| by element and element pair", fontsize=12, color=INK, loc="left")
    bar = figure.colorbar(ScalarMappable(norm, "YlOrRd"), ax=axis, shrink=0.85, aspect=30, pad=0.02)
    bar.locator = LogLocator(subs=(1.0, 2.0, 5.0))
    bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.update_ticks()
    bar.set_label(MICROHARTREE_LABEL, color=INK)
    bar.outline.set_visible(False)
    explain(figure, "Good: everywhere alike and small; a dark row is an element to add data for.")
    save(figure, path)


def _write_cells(axis: Axes, grid: np.ndarray, norm: LogNorm, size: float) -> None:
    """Write every number into its cell, white on dark."""
    for row, column in zip(*np.nonzero(np.isfinite(grid)), strict=True):
        value = grid[row, column]
        text = (
            f"{value:#.2g}"
            if value < 10
            else f"{value:.0f}"
            if value < 1e4
            else f"{value / 1000:.0f}k"
        )
        dark = value > 0 and norm(value) > 0.55  # where YlOrRd is too dark for ink
        axis.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=size,
            color="white" if dark else INK,
        )


def plot_distances(path: Path, distances: dict[str, Any]) -> None:
    """Draw the mean absolute error (uEh) of off-site blocks, and |H|, over interatomic distance.

    Args:
        distances: part of the report, by lower edge of the bin in Angstrom.
    """
    figure = new_figure(7.2, 4.4)
    axis = figure.subplots()
    # The mean of the distances in a bin, not its middle: bonds fill only an edge of theirs.
    middle = [bin_["mean_distance_angstrom"] for bin_ in distances.values()]
    for name, label, colour in (
        ("mean_absolute_hamiltonian_uEh", "mean |H|", SIZE),
        ("mae_uEh", "mean |dH|", ERROR),
    ):
        values = [bin_[name] for bin_ in distances.values()]
        axis.plot(middle, values, "o-", color=colour, markersize=4.5, linewidth=1.6, label=label)
    axis.set_yscale("log")
    axis.set_xlabel("distance between the two atoms / Angstrom", color=INK)
    axis.set_ylabel(MICROHARTREE_LABEL, color=INK)
    axis.set_title(
        "matrix elements between two atoms, by their distance", fontsize=12, color=INK, loc="left"
    )
    axis.grid(True, which="major", color=FAINT)
    axis.set_axisbelow(True)
    axis.tick_params(colors=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    explain(figure, "Good: |dH| far below |H| at every distance.")
    save(figure, path)
