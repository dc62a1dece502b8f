"""One look for every figure and page: names with units, colours, light and dark."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Okabe & Ito's colours, which people with any colour vision can tell apart, in an order in which
# the first ones stand out on white and on black alike.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#7F7F7F"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
DASHES = ("solid", "dash", "dot", "dashdot")  # where there are more lines than colours
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
# What the end of a study compares, the same everywhere.
CONTENDERS = {"winner": BLUE, "default": VERMILLION, "joint": GREEN, "sequential": GREY}
STATUSES = {"completed": BLUE, "stopped": ORANGE, "failed": VERMILLION}
SEQUENTIAL = "Viridis"  # its lightness rises evenly, so that it reads in grey as well
PER_CENT = {  # fractions in the record
    "joint_accuracy": "joint accuracy",
    "average_accuracy": "average accuracy",
    "average_incremental_accuracy": "average incremental accuracy",
    "learning_accuracy": "learning accuracy",
    "forgetting": "forgetting",
    "backward_transfer": "backward transfer",
    "accuracy": "accuracy",
    "cas": "CAS",
    "explained_variance": "explained variance",
}
AXES = {  # other columns, as an axis names them
    "trials": "search trials ended",
    "tasks_trained": "tasks trained, all trials",
    "seconds": "seconds of training, all trials",
    "hours": "hours since the search began",
    "memory_bytes": "memory between tasks, bytes",
}


class Theme(NamedTuple):
    """The colours of everything that is not data."""

    ground: str
    text: str
    line: str  # of grids and axes


LIGHT = Theme("#ffffff", "#1f2328", "#d9dee3")
DARK = Theme("#16191d", "#e3e6ea", "#3a4048")


def name(column: str) -> str:
    """What a column is called in a sentence: ``joint accuracy``."""
    return PER_CENT.get(column, AXES.get(column, column.replace("_", " ")))


def axis(column: str) -> str:
    """What a column is called at an axis, with its unit: ``joint accuracy, %``.

    Example:
        >>> axis("forgetting"), axis("trials")
        ('forgetting, %', 'search trials ended')
    """
    return f"{name(column)}, %" if column in PER_CENT else name(column)


def colour(place: int) -> str:
    """The colour of the ``place``-th of several lines."""
    return COLOURS[place % len(COLOURS)]


def dash(place: int) -> str:
    """The dash of the ``place``-th of several lines."""
    return DASHES[place // len(COLOURS) % len(DASHES)]


def symbol(place: int) -> str:
    """The mark of the ``place``-th of several points."""
    return SYMBOLS[place // len(COLOURS) % len(SYMBOLS)]


def shade(colour: str, opacity: float) -> str:
    """A colour that lets what is behind it through, for intervals.

    Example:
        >>> shade(BLUE, 0.2)
        'rgba(0,114,178,0.2)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def gradient(count: int) -> list[str]:
    """Colours of ``count`` lines that have an order, such as tasks."""
    from plotly.colors import sample_colorscale

    # The ends of the scale vanish on a black and on a white ground.
    found = sample_colorscale(SEQUENTIAL, np.linspace(0.12, 0.88, count).tolist())
    return [str(one) for one in found]


def count(n: int, noun: str) -> str:
    """``1 trial``, ``10,000 trials``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def value(x: Any) -> str:
    """A value of a configuration, in as few digits as tell it apart: ``0.00473``, ``true``.

    Example:
        >>> value(0.004731234), value(300.0), value(True)
        ('0.00473', '300', 'true')
    """
    if isinstance(x, bool | np.bool_):
        return "true" if x else "false"
    if isinstance(x, float | np.floating):
        return f"{x:.0f}" if float(x).is_integer() and abs(x) < 1e6 else f"{x:.3g}"
    return str(x)


def points(fraction: float) -> str:
    """A difference of fractions in points, with its sign: ``+3.8``, ``−12.0``.

    Example:
        >>> points(0.0384), points(-0.12)
        ('+3.8', '−12.0')
    """
    return f"{100 * fraction:+z.1f}".replace("-", "−")


def listed(names: Sequence[str]) -> str:
    """``a, b and c``.

    Example:
        >>> listed(["ewc", "er", "joint"])
        'ewc, er and joint'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def template(theme: Theme) -> dict[str, Any]:
    """Plotly's template of a theme, as plain data."""
    line = {"gridcolor": theme.line, "linecolor": theme.line, "zerolinecolor": theme.line}
    flat = line | {
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
        "zerolinewidth": 1,
    }
    box = {"bgcolor": theme.ground, "bordercolor": theme.line, "font": {"color": theme.text}}
    return {
        "layout": {
            "paper_bgcolor": theme.ground,
            "plot_bgcolor": theme.ground,
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": theme.text},
            "colorway": list(COLOURS),
            "colorscale": {"sequential": SEQUENTIAL},
            "xaxis": flat,
            "yaxis": flat,
            "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
            "hoverlabel": box,
            "dragmode": False,  # a finger that scrolls the page must not zoom a figure
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.text},
        },
        "data": {
            "parcoords": [{"labelfont": {"color": theme.text}, "tickfont": {"color": theme.text},
                           "rangefont": {"color": "rgba(0,0,0,0)"}}],
        },
    }  # fmt: skip
