"""What all pictures of an evaluation share: colours, an empty figure, the PNG file."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#1f2933"
FAINT = "#eef1f4"
ERROR = "#c2410c"
SIZE = "#64748b"
MICROHARTREE_LABEL = "microhartree (uEh)"


def new_figure(width: float, height: float) -> Figure:
    """Figure in inches that needs no display and no global state."""
    # pyplot would keep every figure alive and choose a backend by the environment.
    figure = Figure(figsize=(width, height), layout="compressed")
    FigureCanvasAgg(figure)
    return figure


def explain(figure: Figure, text: str) -> None:
    """Write below a figure what a good model looks like."""
    figure.supxlabel(text, fontsize=10, color=SIZE)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    figure.savefig(path, dpi=160, facecolor="white")
