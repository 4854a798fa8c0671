"""Pictures of an evaluation: H beside its prediction, errors by element pair and by distance. Written as PNG, no display."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, SymLogNorm
from matplotlib.figure import Figure

from helm_scale.basis import elements
from helm_scale.basis.layout import ao_offsets
from helm_scale.units import MICROHARTREE

_INK = "#222222"
_ERROR = "#c2410c"
_SIZE = "#64748b"


def draw_hamiltonian(path: Path, title: str, atomic_numbers: np.ndarray, basis: str, truth: np.ndarray, predicted: np.ndarray) -> None:
    """Draw H, its prediction and their difference, atom by atom.

    Args:
        truth, predicted: [nao, nao] Hartree, canonical order.
    """
    figure = _figure(15.5, 5.6)
    axes = figure.subplots(1, 3)
    difference = (predicted - truth) / MICROHARTREE
    largest = max(float(np.quantile(np.abs(truth), 0.999)), 1e-3)
    shared = SymLogNorm(linthresh=1e-3, vmin=-largest, vmax=largest)
    widest = max(float(np.quantile(np.abs(difference), 0.999)), 1e-6)
    own = SymLogNorm(linthresh=widest / 100, vmin=-widest, vmax=widest)
    mean = np.abs(difference).mean()
    panels = (
        ("Hamiltonian", truth, shared, "Hartree"),
        ("prediction", predicted, shared, "Hartree"),
        (f"prediction - Hamiltonian, MAE {mean:.3g} uEh", difference, own, "microhartree (uEh)"),
    )
    for axis, (name, matrix, norm, unit) in zip(axes, panels, strict=True):
        image = axis.imshow(matrix, norm=norm, cmap="RdBu_r", interpolation="nearest")
        _mark_atoms(axis, atomic_numbers, basis)
        axis.set_title(name, fontsize=12, color=_INK)
        bar = figure.colorbar(image, ax=axis, shrink=0.8, pad=0.02)
        bar.set_label(unit, color=_INK)
        bar.outline.set_visible(False)
    figure.suptitle(f"{title} ({len(truth)} atomic orbitals)", fontsize=13, color=_INK)
    _save(figure, path)


def _mark_atoms(axis: Axes, atomic_numbers: np.ndarray, basis: str) -> None:
    """Lines between atoms, symbols at the middle of each atom's AOs."""
    offsets = ao_offsets(basis, atomic_numbers)
    for edge in offsets[1:-1] - 0.5:
        axis.axhline(edge, color=_INK, linewidth=0.4, alpha=0.5)
        axis.axvline(edge, color=_INK, linewidth=0.4, alpha=0.5)
    middle = (offsets[:-1] + offsets[1:] - 1) / 2
    names = [elements.symbol(z) for z in atomic_numbers]
    size = 10 if len(names) <= 16 else 6
    axis.set_xticks(middle, names, fontsize=size)
    axis.set_yticks(middle, names, fontsize=size)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def draw_element_pairs(path: Path, onsite: dict[str, Any], pairs: dict[str, Any]) -> None:
    """Draw the mean absolute error (uEh) of every element's on-site blocks and of every element pair's blocks.

    Args:
        onsite, pairs: parts of the report, {"C": {"mae_uEh": ...}} and {"H-C": {"mae_uEh": ...}}.
    """
    symbols = list(onsite)
    grid = np.full((len(symbols), len(symbols) + 2), np.nan)  # the last column is on-site, after an empty one
    for name, part in pairs.items():
        low, high = sorted(symbols.index(symbol) for symbol in name.split("-"))
        grid[high, low] = part["mae_uEh"]
    grid[:, -1] = [onsite[symbol]["mae_uEh"] for symbol in symbols]
    positive = grid[np.isfinite(grid) & (grid > 0)]
    norm = LogNorm(positive.min(), max(positive.max(), positive.min() * 1.01)) if len(positive) else None
    cell = 0.62 if len(symbols) <= 12 else 0.36
    figure = _figure(max(4.5, cell * (len(symbols) + 2) + 2.2), max(3.2, cell * len(symbols) + 1.6))
    axis = figure.subplots()
    image = axis.imshow(grid, norm=norm, cmap="YlOrRd", aspect="auto")
    axis.set_xticks([*range(len(symbols)), len(symbols) + 1], [*symbols, "on-site"])
    axis.set_yticks(range(len(symbols)), symbols)
    _write_cells(axis, grid, norm, 9 if len(symbols) <= 12 else 5.5)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title("mean |dH| by element pair and, right, on-site", fontsize=11, color=_INK)
    figure.colorbar(image, ax=axis, pad=0.02).set_label("microhartree (uEh)", color=_INK)
    _save(figure, path)


def _write_cells(axis: Axes, grid: np.ndarray, norm: LogNorm | None, size: float) -> None:
    for row, column in zip(*np.nonzero(np.isfinite(grid)), strict=True):
        value = grid[row, column]
        dark = norm is not None and value > 0 and norm(value) > 0.6
        text = f"{value:.2g}" if value < 100 else f"{value:.0f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else _INK)


def draw_distances(path: Path, distances: dict[str, Any]) -> None:
    """Draw the mean absolute error (uEh) of off-site blocks over the distance of their atoms, and |H| for comparison.

    Args:
        distances: part of the report, by lower edge of the bin in Angstrom.
    """
    figure = _figure(7.2, 4.4)
    axis = figure.subplots()
    middle = [part["mean_distance_angstrom"] for part in distances.values()]
    for name, label, colour in (("mean_absolute_hamiltonian_uEh", "mean |H|", _SIZE), ("mae_uEh", "mean |dH|", _ERROR)):
        axis.plot(middle, [part[name] for part in distances.values()], "o-", color=colour, markersize=4, linewidth=1.4, label=label)
    axis.set_yscale("log")
    axis.set_xlabel("distance of the two atoms / Angstrom", color=_INK)
    axis.set_ylabel("microhartree (uEh)", color=_INK)
    axis.set_title("off-site blocks by distance", fontsize=11, color=_INK)
    axis.grid(True, which="major", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    """Figure in inches that needs no display and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=160, facecolor="white")
