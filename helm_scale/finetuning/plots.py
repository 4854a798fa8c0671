"""Pictures of finetuning: predicted against true energies, and errors against the number of
training molecules. PNG, no display."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from helm_scale.extras import needs
from helm_scale.finetuning.train import Run, parity

with needs("plots"):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter

COLOURS = {"direct": "#64748b", "frozen": "#2563eb", "finetuned": "#c2410c"}
OTHERS = "#cbd5e1"


def draw_parity(path: Path, mode: str, run: Run, test: str) -> None:
    """Draw the energies of a test without reference energies, in eV, predicted over true."""
    true, predicted = parity(run, run.labels.tests[test]) / 1000.0
    figure = _figure(4.6, 4.4)
    axes = figure.subplots()
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    axes.plot(ends, ends, color=OTHERS, linewidth=1)
    axes.scatter(true, predicted, s=14, color=COLOURS[mode], alpha=0.7, linewidths=0)
    axes.set_xlabel("energy without reference energies, eV")
    axes.set_ylabel("prediction, eV")
    axes.set_title(
        f"{mode}, {test}: MAE {np.abs(predicted - true).mean() * 1000:.0f} meV, {len(run.labels.train)} energies",
        fontsize=9,
    )
    figure.savefig(path, dpi=140)


def draw_curves(
    path: Path, curves: Mapping[tuple[str, str], Sequence[tuple[int, float, float]]]
) -> None:
    """Draw test errors (meV) with their confidence intervals against training sizes, one panel per
    test."""
    tests = list(dict.fromkeys(test for test, _ in curves))
    figure = _figure(4.6 * len(tests), 3.8)
    for axes, test in zip(
        figure.subplots(1, len(tests), sharey=True, squeeze=False)[0], tests, strict=True
    ):
        for (which, mode), points in curves.items():
            if which == test:
                size, mean, half = np.array(points).T
                axes.errorbar(
                    size,
                    mean,
                    yerr=np.nan_to_num(half),
                    color=COLOURS.get(mode, OTHERS),
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
    figure.axes[0].set_ylabel("energy MAE, meV")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=140)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="compressed")
    FigureCanvasAgg(figure)
    return figure
