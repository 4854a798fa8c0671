"""Maps of the atoms in the feature space of a backbone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from helm_scale.basis import elements
from helm_scale.evaluation.embedding import EmbeddingMap
from helm_scale.evaluation.plots.figure import FAINT, INK, explain, new_figure, save

# Close to the colours that molecule viewers give the elements; all others share one.
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
NAMED = 8  # environments at most
# Of a letter and a line, in units of a panel
LETTER_WIDTH, LINE_HEIGHT = 0.016, 0.04


def plot_embedding(
    path: Path, maps: Mapping[str, EmbeddingMap], numbers: np.ndarray, names: Sequence[str]
) -> None:
    """Draw the maps of several backbones side by side: principal components above, UMAP below.

    Colours are elements; the most frequent environments are named.
    """
    methods = ["components"]
    if all(embedded.umap is not None for embedded in maps.values()):
        methods.append("umap")
    figure = new_figure(6.2 * len(maps), 5.6 * len(methods))
    panels = figure.subplots(len(methods), len(maps), squeeze=False)
    for row, method in zip(panels, methods, strict=True):
        for panel, (title, embedded) in zip(row, maps.items(), strict=True):
            _draw_map(panel, getattr(embedded, method), numbers, names)
            shares = " and ".join(f"{100 * share:.0f} %" for share in embedded.explained)
            panel.set_title(
                f"{title}, {'UMAP' if method == 'umap' else f'PCA ({shares})'}",
                fontsize=11,
                color=INK,
            )
    explain(figure, "Good: atoms of one environment lie together, apart from other environments.")
    save(figure, path)


def _draw_map(panel: Axes, points: np.ndarray, numbers: np.ndarray, names: Sequence[str]) -> None:
    for number in sorted(set(_COLOURS) & set(numbers.tolist())):
        atoms = points[numbers == number]
        panel.plot(
            atoms[:, 0],
            atoms[:, 1],
            "o",
            color=_COLOURS[number],
            markersize=5,
            alpha=0.75,
            label=elements.symbol(number),
        )
    uncoloured = ~np.isin(numbers, list(_COLOURS))
    if uncoloured.any():
        panel.plot(
            points[uncoloured, 0],
            points[uncoloured, 1],
            ".",
            color=_OTHER,
            markersize=5,
            alpha=0.6,
            label="others",
        )
    _name_environments(panel, points, np.array(names))
    panel.legend(frameon=False, fontsize=8)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color(FAINT)


def _name_environments(panel: Axes, points: np.ndarray, names: np.ndarray) -> None:
    """Write the most frequent environments where they lie; one that finds no room is left out."""
    low, size = points.min(axis=0), np.ptp(points, axis=0) + 1e-12
    environments, counts = np.unique(names, return_counts=True)
    taken: list[tuple[np.ndarray, float]] = []
    for environment in environments[np.argsort(-counts)][:NAMED]:
        own = points[names == environment]
        # The atom nearest to the middle: the middle of two groups is none of their places.
        place = own[np.linalg.norm((own - own.mean(axis=0)) / size, axis=1).argmin()]
        width = LETTER_WIDTH * len(environment)
        for shift in (0.0, 0.05, -0.05, 0.1, -0.1, 0.15, -0.15):
            spot = (place - low) / size + [0.0, shift]
            if all(
                abs(spot[0] - other[0]) > (width + other_width) / 2
                or abs(spot[1] - other[1]) > LINE_HEIGHT
                for other, other_width in taken
            ):
                taken.append((spot, width))
                x, y = low + size * spot
                panel.text(x, y, environment, fontsize=8, color=INK, ha="center", va="bottom")
                break
