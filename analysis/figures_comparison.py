"""Figures of several studies, as in ``figures``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import look
from analysis.comparison import Entry
from analysis.figures import band, drawn, log_axis, single
from analysis.ranks import Ranks
from analysis.statistics import mean_interval


def equal_budget(entries: Sequence[Entry], behind: str) -> go.Figure:
    """What each method reaches on test data, tuned and by default.

    Args:
        entries: of ``comparison``.
        behind: how many trials and seeds stand behind it.
    """
    names = [one.method for one in entries]
    traces = []
    for label, colour, symbol, size in (
        ("default", look.GREY, "diamond-open", 14),  # below, and around the other where they agree
        ("tuned", look.BLUE, "circle", 8),
    ):
        found = [mean_interval(getattr(one, label)) for one in entries]
        half = np.array([one.half for one in found])
        traces.append(
            go.Scatter(
                x=single([100 * one.mean for one in found]),
                y=names,
                error_x={"array": single(100 * np.where(np.isfinite(half), half, 0))},
                mode="markers",
                marker={"size": size, "color": colour, "symbol": symbol},
                name=label,
                hovertemplate=f"%{{y}}, {label}: %{{x:.1f}} %<extra></extra>",
            )
        )
    return drawn(
        "Tuned and by default, on test data",
        behind,
        traces,
        height=130 + 32 * len(names),
        xaxis={"title": {"text": "joint accuracy, %"}},
        yaxis={"categoryorder": "array", "categoryarray": names[::-1]},
    )


def critical_difference(ranks: Ranks, block: str) -> go.Figure:
    """Average ranks, and bars that join methods which are not shown to differ.

    Args:
        ranks: ``ranks.compare``.
        block: what methods were ranked on, "seed" or "benchmark".
    """
    average, cd = ranks.average, ranks.critical_difference
    names = [*average.index]
    dots = go.Scatter(
        x=single(average),
        y=list(range(len(names))),
        text=names,
        mode="markers",
        marker={"size": 10, "color": look.BLUE},
        hovertemplate="%{text}: average rank %{x:.2f}<extra></extra>",
        showlegend=False,
    )
    traces: list[Any] = [dots]
    bars = [
        (clique, look.VERMILLION, "within Nemenyi's critical difference")
        for clique in ranks.cliques
    ]
    bars += [
        (clique, look.GREEN, "no pair differs by Wilcoxon and Holm")
        for clique in ranks.wilcoxon_cliques
    ]
    for place, (clique, colour, what) in enumerate(bars):
        first = what not in {bar[2] for bar in bars[:place]}
        traces.append(
            go.Scatter(
                x=[average[clique[0]], average[clique[-1]]],
                y=[len(names) + 0.4 * place] * 2,
                mode="lines",
                line={"width": 6, "color": colour},
                name=what,
                legendgroup=what,
                showlegend=first,
                hovertemplate=f"{look.listed(clique)}: {what}<extra></extra>",
            )
        )
    chance = f"p = {ranks.p_f:.2g}" if ranks.p_f >= 0.001 else "p < 0.001"
    return drawn(
        f"Average ranks over {look.count(ranks.blocks, block)}; 1 is best",
        f"critical difference {cd:.2f} (Nemenyi, 5 %); Friedman's test {chance} (Iman and"
        f" Davenport); with {look.count(ranks.blocks, block)} one Wilcoxon test cannot go below"
        f" p = {ranks.smallest_p:.2g}",
        traces,
        height=150 + 26 * (len(names) + len(bars)),
        xaxis={
            "title": {"text": "average rank"},
            "range": [0.8, len(names) + 0.2],
            "tickvals": list(range(1, len(names) + 1)),
        },
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "autorange": "reversed",
            "zeroline": False,
        },
    )


def tunability(
    curves: Mapping[str, pd.DataFrame], metric: str, order: Sequence[str], behind: str
) -> go.Figure:
    """The expected best score of the first n trials of each method.

    Args:
        curves: name -> ``tunability.expected_best``.
        metric: what the score is.
        order: names of all methods of a page, each of which keeps its colour.
        behind: how many trials stand behind it.
    """
    traces: list[Any] = []
    for name, curve in curves.items():
        place = order.index(name)
        shade = look.colour(place)
        traces.append(band(curve.n, 100 * curve.low, 100 * curve.high, shade))
        traces.append(
            go.Scatter(
                x=curve.n,
                y=single(100 * curve["mean"]),
                mode="lines",
                line={"color": shade, "dash": look.dash(place)},
                name=name,
                hovertemplate=f"{name}, best of %{{x}}: %{{y:.1f}} %<extra></extra>",
            )
        )
    longest = max((curve.n.max() for curve in curves.values()), default=1)
    return drawn(
        "What n trials are expected to find",
        behind,
        traces,
        height=400,
        xaxis=log_axis("trials", 1, max(2, longest)),
        yaxis={"title": {"text": f"best {look.axis(metric)}"}},
    )


def pareto(frame: pd.DataFrame, cost: str, order: Sequence[str], behind: str) -> go.Figure:
    """Accuracy against a cost, and the front of those that no other beats in both.

    Args:
        frame: ``method, accuracy, half`` (of the interval), the cost, and ``front`` (booleans).
        cost: "memory_bytes" or "seconds".
        order: as for ``tunability``.
        behind: how many seeds stand behind it.
    """
    front = frame.query("front").sort_values(cost)
    traces: list[Any] = [
        go.Scatter(
            x=front[cost],
            y=single(100 * front.accuracy),
            mode="lines",
            line={"color": look.GREY, "dash": "dot", "shape": "hv"},
            name="front",
            hoverinfo="skip",
        )
    ]
    for one in frame.to_dict("records"):
        half = 100 * one["half"] if np.isfinite(one["half"]) else 0
        where = "on the front" if one["front"] else "beaten"
        place = order.index(one["method"])
        traces.append(
            go.Scatter(
                x=[one[cost]],
                y=[100 * one["accuracy"]],
                error_y={"array": [half]},
                mode="markers",
                marker={
                    "size": 11,
                    "color": look.colour(place),
                    "symbol": look.symbol(place) + "-open" * (not one["front"]),
                },
                name=one["method"],
                hovertemplate=f"{one['method']}, {where}: %{{y:.1f}} %, %{{x:.4s}}<extra></extra>",
            )
        )
    costs = frame[cost].to_numpy(dtype=float)
    wide = bool(costs.max() > 10 * costs.min() > 0)
    unit = {"memory_bytes": "memory between tasks, bytes", "seconds": "seconds of training, a run"}
    across: dict[str, Any] = {"title": {"text": unit[cost]}, "rangemode": "tozero"}
    if wide:
        across = log_axis(unit[cost], costs.min() / 2, costs.max() * 2)
    return drawn(
        f"Joint accuracy against {unit[cost].partition(',')[0].partition(' of ')[0]}",
        f"{behind}; a hollow one is beaten in both by another",
        traces,
        xaxis=across,
        yaxis={"title": {"text": "joint accuracy, %"}},
    )


def methods_by_benchmarks(scores: pd.DataFrame, behind: str) -> go.Figure:
    """Every method on every benchmark.

    Args:
        scores: one row a method, one column a benchmark; fractions, NaN where nothing is known.
        behind: how many seeds stand behind it.
    """
    z = 100 * scores.to_numpy(dtype=float)
    heat = go.Heatmap(
        x=[str(name) for name in scores.columns],
        y=[str(name) for name in scores.index],
        z=single(z),
        texttemplate="%{z:.1f}",
        hoverongaps=False,
        colorscale=look.SEQUENTIAL,
        colorbar={"title": {"text": "%"}, "thickness": 10},
        hovertemplate="%{y} on %{x}: %{z:.1f} %<extra></extra>",
    )
    return drawn(
        "Joint accuracy on test data, %",
        behind,
        [heat],
        height=140 + 34 * len(scores),
        xaxis={"type": "category", "showgrid": False, "side": "top"},
        yaxis={"type": "category", "showgrid": False, "autorange": "reversed"},
        margin={"t": 60},
    )
