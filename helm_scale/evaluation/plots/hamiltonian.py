"""A Hamiltonian beside its prediction and their difference."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import SymLogNorm

from helm_scale.basis import elements
from helm_scale.basis.layout import ao_offsets
from helm_scale.evaluation.plots.figure import (
    INK,
    MICROHARTREE_LABEL,
    explain,
    new_figure,
    save,
)
from helm_scale.units import MICROHARTREE


def plot_hamiltonian(
    path: Path,
    title: str,
    atomic_numbers: np.ndarray,
    basis: str,
    truth: np.ndarray,
    predicted: np.ndarray,
) -> None:
    """Draw H, its prediction and their difference, atom by atom.

    Args:
        truth, predicted: [nao, nao] Hartree, canonical order.
    """
    figure = new_figure(15.0, 6.1)
    axes = figure.subplots(1, 3)
    difference = (predicted - truth) / MICROHARTREE
    # Both Hamiltonians share one scale; the difference, a thousand times smaller, has its own.
    shared, fine = _symmetric_scale(truth, 300.0), _symmetric_scale(difference, 100.0)
    mean = np.abs(difference).mean()
    panels = (
        (f"{title}, {basis}: Hamiltonian", truth, shared),
        ("prediction", predicted, shared),
        (f"prediction - Hamiltonian, mean {mean:.3g} uEh", difference, fine),
    )
    for axis, (name, matrix, norm) in zip(axes, panels, strict=True):
        axis.imshow(matrix, norm=norm, cmap="RdBu_r", interpolation="nearest")
        _mark_atoms(axis, atomic_numbers, basis)
        axis.set_title(name, fontsize=13, color=INK, pad=8)
    for where, norm, unit, width in (
        (axes[:2], shared, "Hartree", 70),
        (axes[2], fine, MICROHARTREE_LABEL, 35),
    ):
        bar = figure.colorbar(
            ScalarMappable(norm, "RdBu_r"),
            ax=where,
            location="bottom",
            shrink=0.85,
            fraction=0.05,
            aspect=width,
            pad=0.02,
        )
        bar.set_ticks(_decades(norm), labels=[f"{value:g}" for value in _decades(norm)])
        bar.ax.minorticks_off()
        bar.set_label(unit, color=INK)
        bar.outline.set_visible(False)
    explain(figure, "Good: the first two look the same, and the third has no pattern of atoms.")
    save(figure, path)


def _symmetric_scale(matrix: np.ndarray, range_: float) -> SymLogNorm:
    """Make a colour scale that is logarithmic at both signs and linear through zero.

    Args:
        range_: ratio of the largest elements (99.8 % quantile) to where the linear part begins.
    """
    # The floor keeps the scale valid for a difference that is zero everywhere.
    largest = max(float(np.quantile(np.abs(matrix), 0.998)), 1e-9)
    return SymLogNorm(linthresh=largest / range_, linscale=0.6, vmin=-largest, vmax=largest)


def _decades(norm: SymLogNorm) -> list[float]:
    """Powers of ten on both sides of zero outside the linear part."""
    # 0.9: round-off may have put a limit that is a power of ten just above it.
    powers = 10.0 ** np.arange(
        np.ceil(np.log10(0.9 * norm.linthresh)), np.floor(np.log10(norm.vmax or 1.0)) + 1
    )
    return [*(-powers[::-1]), 0.0, *powers]


def _mark_atoms(axis: Axes, atomic_numbers: np.ndarray, basis: str) -> None:
    """Draw lines between the blocks of atoms, and write the symbols at the blocks' middles."""
    offsets = ao_offsets(basis, atomic_numbers)
    for edge in offsets[1:-1] - 0.5:
        axis.axhline(edge, color=INK, linewidth=0.6, alpha=0.75)
        axis.axvline(edge, color=INK, linewidth=0.6, alpha=0.75)
    middle = (offsets[:-1] + offsets[1:] - 1) / 2
    names = [elements.symbol(z) for z in atomic_numbers]
    size = 11 if len(names) <= 16 else 6
    axis.set_xticks(middle, names, fontsize=size)
    axis.set_yticks(middle, names, fontsize=size)
    axis.tick_params(length=0, colors=INK)
    axis.spines[:].set_color(INK)
