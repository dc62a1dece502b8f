"""Figures of hyperparameters and the score, as in ``figures``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution, IntDistribution

from analysis import look
from analysis.figures import decades, drawn, sample, single
from analysis.importance import Slice
from analysis.parameters import Distribution, bounds, codes

ABOUT_IMPORTANCE = {  # title, axis
    "ped_anova": ("What the best tenth of the trials have in common (PED-ANOVA)",
                  "share of importance, %"),
    "fanova": ("What moves the score over the whole space (fANOVA)",
               "share of variance explained, %"),
}  # fmt: skip


def ticks(distribution: Distribution, most: int = 5) -> tuple[list[float], list[str]]:
    """Where a hyperparameter's axis has marks, on the scale of ``parameters.codes``, and texts."""
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return [float(i) for i in range(len(choices))], [look.value(one) for one in choices]
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution) and high - low < most:
        marks = np.arange(low, high + 1)
    else:
        marks = decades(low, high) if distribution.log else np.linspace(low, high, most)
        marks = marks.round() if isinstance(distribution, IntDistribution) else marks
    places = np.log(marks) if distribution.log else marks
    return places.tolist(), [f"{mark:.3g}" for mark in marks]


def importances(frame: pd.DataFrame, method: str, behind: str) -> go.Figure:
    """How much each hyperparameter mattered, with its interval, and what chance alone reaches.

    Args:
        frame: ``importance.importances``.
        method: "ped_anova" or "fanova".
        behind: how many trials stand behind it.
    """
    rows = frame.query("method == @method").sort_values("mean", ascending=False)
    shown = rows["mean"] > rows.noise
    label = np.where(rows.trials < rows.of, rows.name + " *", rows.name)
    traces: list[Any] = []
    for name, part, colour in (
        ("more than chance", shown, look.BLUE),
        ("no effect shown", ~shown, look.GREY),
    ):
        own = rows[part]
        traces.append(
            go.Scatter(
                x=single(100 * own["mean"]),
                y=label[part],
                error_x={
                    "array": single(100 * (own.high - own["mean"])),
                    "arrayminus": single(100 * (own["mean"] - own.low)),
                    "thickness": 1.5,
                },
                customdata=np.stack([own.trials, own.of], axis=1),
                mode="markers",
                marker={"size": 9, "color": colour},
                name=name,
                hovertemplate="%{y}: %{x:.1f} %, from %{customdata[0]} of %{customdata[1]}"
                " trials<extra></extra>",
            )
        )
    traces.append(
        go.Scatter(
            x=single(100 * rows.noise),
            y=label,
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 12, "color": look.VERMILLION},
            name="chance",
            hovertemplate="%{y}: 95 of 100 shuffled searches stay below %{x:.1f} %<extra></extra>",
        )
    )
    what, unit = ABOUT_IMPORTANCE[method]
    end = 105 * min(1.0, max(rows.high.max(), rows.noise.max()))
    return drawn(
        what,
        behind,
        traces,
        height=110 + 24 * len(rows),
        xaxis={"title": {"text": unit}, "range": [-1, end]},
        yaxis={"categoryorder": "array", "categoryarray": label[::-1], "showgrid": True},
    )


def slice_of(
    found: Slice, name: str, distribution: Distribution, metric: str, total: int
) -> go.Figure:
    """One hyperparameter against the score.

    Args:
        found: ``importance.slices``.
        name: of the hyperparameter.
        distribution: its range.
        metric: what the score is.
        total: completed trials of the search.
    """
    points, words = sample(found.points)
    bins = found.bins
    choices = isinstance(distribution, CategoricalDistribution)
    values = codes(points.value, distribution)
    low, high = (codes(bins[end], distribution) for end in ("low", "high"))
    middle = (low + high) / 2
    apart = np.random.default_rng(0).uniform(-0.15, 0.15, len(values)) if choices else 0.0
    dots = go.Scatter(
        x=single(values + apart),
        y=single(100 * points.score),
        customdata=points.trial_id.astype(np.int32),
        text=[look.value(value) for value in points.value],
        mode="markers",
        marker={"size": 5, "color": look.GREY, "opacity": 0.5},
        name="a trial",
        hovertemplate="trial %{customdata}: %{text}, %{y:.1f} %<extra></extra>",
    )
    line = go.Scatter(
        x=single(middle),
        y=single(100 * bins["median"]),
        error_y={
            "array": single(100 * (bins.q75 - bins["median"])),
            "arrayminus": single(100 * (bins["median"] - bins.q25)),
            "thickness": 1.5,
        },
        customdata=bins.trials,
        mode="markers" if choices else "lines+markers",
        line={"color": look.BLUE},
        marker={"size": 8, "color": look.BLUE},
        name="median and quartiles",
        hovertemplate="median of %{customdata} trials: %{y:.1f} %<extra></extra>",
    )
    within = f" of {total:,}: the others do not have it" if len(found.points) < total else ""
    (bottom, top), lowest = spread(100 * points.score), 100 * float(bins.q25.min()) - 1
    return drawn(
        f"{name} against {look.name(metric)}",
        f"{words}{within}; completed trials, one seed each",
        [dots, line],
        xaxis={"title": {"text": scaled(name, distribution)}, **marks(distribution)},
        yaxis={"title": {"text": look.axis(metric)}, "range": [min(bottom, lowest), top]},
    )


def contour(
    surface: pd.DataFrame,
    trials: pd.DataFrame,
    ranges: Mapping[str, Distribution],
    metric: str,
    behind: str,
) -> go.Figure:
    """The expected score over two hyperparameters, and the trials from which it was learned.

    Args:
        surface: ``importance.surface``.
        trials: ``parameters.scored``.
        ranges: of the first and the second hyperparameter.
        metric: what the score is.
        behind: what the surface is.
    """
    (first, on_x), (second, on_y) = ranges.items()
    x, y = codes(surface["first"], on_x), codes(surface["second"], on_y)
    across, up = np.unique(x), np.unique(y)
    z = np.full((len(up), len(across)), np.nan)
    z[np.searchsorted(up, y), np.searchsorted(across, x)] = 100 * surface.score
    shared = {"colorscale": look.SEQUENTIAL, "colorbar": {"title": {"text": "%"}, "thickness": 10}}
    shared["hovertemplate"] = "expected: %{z:.1f} %<extra></extra>"
    choices = any(isinstance(one, CategoricalDistribution) for one in ranges.values())
    kind = go.Heatmap if choices else go.Contour
    shown, words = sample(trials)
    dots = go.Scatter(
        x=single(codes(shown[f"config.{first}"], on_x)),
        y=single(codes(shown[f"config.{second}"], on_y)),
        customdata=np.stack([shown.trial_id, (100 * shown.score).round(1)], axis=1),
        mode="markers",
        marker={"size": 5, "color": "white", "line": {"color": "black", "width": 1}},
        hovertemplate="trial %{customdata[0]}: %{customdata[1]} %<extra></extra>",
        showlegend=False,
    )
    return drawn(
        f"{first} and {second} against {look.name(metric)}",
        f"{behind}; dots are {words}",
        [kind(x=single(across), y=single(up), z=single(z), **shared), dots],
        height=440,
        xaxis={"title": {"text": scaled(first, on_x)}, **marks(on_x)},
        yaxis={"title": {"text": scaled(second, on_y)}, **marks(on_y)},
    )


def marks(distribution: Distribution) -> dict[str, Any]:
    """The axis of a hyperparameter, on the scale of ``parameters.codes``."""
    places, texts = ticks(distribution)
    low, high = bounds(distribution)
    edge = 0.02 * (high - low)
    return {
        "tickvals": places,
        "ticktext": texts,
        "range": [low - edge, high + edge],
        "zeroline": False,
    }


def scaled(name: str, distribution: Distribution) -> str:
    """A hyperparameter at an axis, which has no unit but may have a scale."""
    log = not isinstance(distribution, CategoricalDistribution) and distribution.log
    return f"{name}, logarithmic" if log else name


def spread(values: pd.Series) -> list[float]:
    """A range that shows most values and all good ones: a few ruined trials must not flatten it."""
    low, high = float(values.quantile(0.05)), float(values.max())
    edge = 0.06 * (high - low) + 0.5
    return [max(low - edge, float(values.min()) - edge), high + edge]


def parallel_coordinates(
    trials: pd.DataFrame, ranges: Mapping[str, Distribution], metric: str
) -> go.Figure:
    """Every trial as a line through its hyperparameters, coloured by its score.

    What a configuration does not have lies below the axis, at a mark of its own.

    Args:
        trials: ``parameters.scored``.
        ranges: name -> range, in the order of the axes.
        metric: what the score is.
    """
    shown, words = sample(trials)
    shown = shown.sort_values("score", kind="stable")  # the best on top
    score = single(100 * shown.score)
    dimensions = [{"label": f"{look.name(metric)}, %", "values": score}]
    for name, distribution in ranges.items():
        values = codes(shown[f"config.{name}"], distribution)
        (low, high), (places, texts) = bounds(distribution), ticks(distribution)
        if np.isnan(values).any():
            low -= 0.15 * (high - low)
            values, places, texts = np.nan_to_num(values, nan=low), [low, *places], ["none", *texts]
        axis = {"tickvals": places, "ticktext": texts, "range": [low, high]}
        dimensions.append({"label": name, "values": single(values), **axis})
    line = {
        "color": score,
        "colorscale": look.gradient(9),
        # Most scores lie close together near the best; their colours must not.
        "cmin": float(np.quantile(score, 0.1)),
        "cmax": float(score.max()),
    }
    return drawn(
        "Each line is a trial; drag along an axis to pick out lines",
        f"{words} that came to the end of the stream, one seed each",
        [go.Parcoords(dimensions=dimensions, line=line, labelangle=-25, labelside="top")],
        height=460,
        margin={"l": 60, "r": 60, "t": 110, "b": 24},
        meta={"min_width": 90 * (len(dimensions) + 1)},
    )
