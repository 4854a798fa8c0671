"""Pictures of finetuning: predictions over labels, and errors over training sizes.

PNG, no display.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from helm_scale.extras import needs
from helm_scale.finetuning.train import FinetuneRun, parity
from helm_scale.types import Quantity

with needs("plots"):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter

COLOURS = {"direct": "#64748b", "frozen": "#2563eb", "finetuned": "#c2410c"}
GREY = "#cbd5e1"


def draw_parity(path: Path, run: FinetuneRun, test: str) -> None:
    """Draw what is predicted of a test over its labels, both without the reference."""
    quantity = run.splits.head.quantity
    true, predicted = parity(run, run.splits.tests[test]) * quantity.in_report_unit
    figure = _figure(4.6, 4.4)
    axes = figure.subplots()
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    axes.plot(ends, ends, color=GREY, linewidth=1)
    axes.scatter(true, predicted, s=14, color=COLOURS[run.mode], alpha=0.7, linewidths=0)
    without = "" if run.splits.head.reference == "none" else " without reference"
    axes.set_xlabel(f"{quantity.name}{without}, {quantity.report_unit}")
    axes.set_ylabel(f"prediction, {quantity.report_unit}")
    mae = np.abs(predicted - true).mean()
    title = f"{run.mode}, {test}: MAE {mae:.0f} {quantity.report_unit}"
    axes.set_title(f"{title}, {len(run.splits.train)} training molecules", fontsize=9)
    figure.savefig(path, dpi=140)


def draw_curves(
    path: Path,
    curves: Mapping[tuple[str, str], Sequence[tuple[int, float, float]]],
    quantity: Quantity,
) -> None:
    """Draw test errors with their confidence intervals over training sizes, one panel per test."""
    tests = list(dict.fromkeys(test for test, _ in curves))
    figure = _figure(4.6 * len(tests), 3.8)
    panels = figure.subplots(1, len(tests), sharey=True, squeeze=False)[0]
    for axes, test in zip(panels, tests, strict=True):
        for (which, mode), points in curves.items():
            if which == test:
                size, mean, half = np.array(points).T
                axes.errorbar(
                    size,
                    mean,
                    yerr=np.nan_to_num(half),
                    color=COLOURS.get(mode, GREY),
                    label=mode,
                    marker="o",
                    capsize=3,
                )
        axes.set(xscale="log", yscale="log", xlabel="training molecules", title=test)
        axes.set_xticks(sorted({size for points in curves.values() for size, _, _ in points}))
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.grid(True, alpha=0.2)
    figure.axes[0].set_ylabel(f"{quantity.name} MAE, {quantity.report_unit}")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=140)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="compressed")
    FigureCanvasAgg(figure)  # matplotlib would otherwise look for a display
    return figure
