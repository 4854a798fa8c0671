"""Histograms of a dataset's elements, sizes and costs, as text and as a picture."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from helm_scale.data.format.manifest import Manifest
from helm_scale.extras import needs

with needs("plots"):
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

BINS = 10
WIDTH = 40  # characters of the longest bar
QUANTITIES = (
    ("atoms", "atoms per molecule"),
    ("pairs", "pairs of atoms per molecule"),
    ("cost", "cost per molecule"),
)
_INK, _BAR = "#1f2933", "#2f6f9f"


def text(dataset: Manifest) -> str:
    """Write atoms of each element, and histograms of atoms, pairs and cost per molecule."""
    counts = "  ".join(f"{symbol} {count}" for symbol, count in dataset.elements.items())
    blocks = [_text_histogram(title, getattr(dataset, name)) for name, title in QUANTITIES]
    return "\n".join([f"atoms of each element: {counts}", *blocks])


def draw(dataset: Manifest, path: Path) -> None:
    """Draw the same as four panels of a PNG file."""
    figure = Figure(figsize=(12.0, 7.0), layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = figure.subplots(2, 2).ravel()
    symbols, counts = list(dataset.elements), list(dataset.elements.values())
    first.bar(range(len(symbols)), counts, color=_BAR)
    crowded = len(symbols) >= 25
    first.set_xticks(
        range(len(symbols)), symbols, fontsize=6 if crowded else 9, rotation=90 if crowded else 0
    )
    first.set_yscale("log")
    _dress(first, "atoms of each element", "atoms")
    for axis, (name, title) in zip(others, QUANTITIES, strict=True):
        values, edges = getattr(dataset, name), _edges(getattr(dataset, name))
        axis.hist(values, bins=list(edges), color=_BAR, edgecolor="white", linewidth=0.6)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        _dress(axis, title, "molecules")
    splits = ", ".join(
        f"{name} {int((dataset.splits == name).sum())}" for name in dataset.split_names()
    )
    figure.suptitle(f"{dataset.folder.name}: {len(dataset)} molecules ({splits})", color=_INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of equal bins; whole numbers get bins that hold equally many of them."""
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.integer):
        step = max(1, -(-(int(high) - int(low) + 1) // BINS))
        return np.arange(low, high + step + 1, step, dtype=np.float64) - 0.5
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _text_histogram(title: str, values: np.ndarray) -> str:
    """One line of numbers and one line per bin."""
    edges = _edges(values)
    counts = np.histogram(values, bins=edges)[0]
    whole = np.issubdtype(values.dtype, np.integer)
    ranges = [
        (f"{a + 0.5:.0f}", f"{b - 0.5:.0f}") if whole else (f"{a:.1f}", f"{b:.1f}")
        for a, b in pairwise(edges)
    ]
    names = [low if low == high else f"{low} to {high}" for low, high in ranges]
    wide = max(map(len, names))
    lines = [
        f"{title}: min {values.min():g}, median {np.median(values):g},"
        f" mean {values.mean():.1f}, max {values.max():g}"
    ]
    for name, count in zip(names, counts, strict=True):
        bar = "#" * int(np.ceil(WIDTH * count / counts.max()))
        lines.append(f"  {name:>{wide}}  {bar:<{WIDTH}}  {count}".rstrip())
    return "\n".join(lines)


def _dress(axis: Axes, title: str, counted: str) -> None:
    """Title, label of the counts, quiet frame."""
    axis.set_title(title, fontsize=11, color=_INK)
    axis.set_ylabel(counted, color=_INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(colors=_INK)
