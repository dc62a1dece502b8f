"""Figures: frames of numbers -> Plotly figures, one function each.

Every figure says in its title what it shows and, below it, how many trials and seeds stand behind
it. Accuracies arrive as fractions and are drawn in per cent. Colours of text and ground come from a
template (``look.template``), so the same figure is drawn in light and in dark.
"""

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution, IntDistribution

from analysis import look
from analysis.comparison import Entry
from analysis.importance import Slice
from analysis.parameters import Distribution, bounds, codes
from analysis.ranks import Ranks
from analysis.statistics import mean_interval

if TYPE_CHECKING:  # with matplotlib and scikit-learn's manifolds it takes a second
    from analysis.pictures import Generated

HEAD, TOP = 84, 12  # pixels for title and evidence, where a figure stands alone; and above the plot
LINE = 110  # characters of a line of evidence
MOST = 1000  # points of a scatter or lines of parallel coordinates; more only make a page slow
ABOUT_IMPORTANCE = {  # title, axis
    "ped_anova": ("What the best tenth of the trials have in common (PED-ANOVA)",
                  "share of importance, %"),
    "fanova": ("What moves the score over the whole space (fANOVA)",
               "share of variance explained, %"),
}  # fmt: skip
MAPPED = 600  # examples of a t-SNE map, which takes about a second
BEST = 200  # of these, the trials with the best scores; the others are drawn at random


def drawn(
    title: str,
    behind: str,
    traces: Sequence[Any],
    height: int = 360,
    margin: Mapping[str, int] = MappingProxyType({}),
    **layout: Any,
) -> go.Figure:
    """A figure with its title, and in the line below it how much evidence it shows.

    Args:
        title, behind: in these words.
        traces: what it shows.
        height, margin: in pixels without title and evidence, which take ``HEAD`` more.
        layout: what else Plotly shall know.
    """
    words = "<br>".join(textwrap.wrap(behind, LINE, break_on_hyphens=False))
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"l": 12, "t": 10}}
    shared = {
        "template": look.template(look.LIGHT),
        "title": {"text": title, "subtitle": {"text": words}, "font": {"size": 16}, **place},
        "height": height + HEAD,
        "margin": {**margin, "t": margin.get("t", TOP) + HEAD},
    }
    return go.Figure(list(traces), {**shared, **layout})


def band(x: Any, low: Any, high: Any, colour: str) -> go.Scatter:
    """The area between two lines, numbers as the x; no area where a bound is not finite."""
    at, bottom, top = (np.asarray(values, dtype=float) for values in (x, low, high))
    kept = np.isfinite(bottom) & np.isfinite(top)
    return go.Scatter(
        x=single(np.concatenate([at[kept], at[kept][::-1]])),
        y=single(np.concatenate([bottom[kept], top[kept][::-1]])),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=look.shade(colour, 0.2),
        hoverinfo="skip",
        showlegend=False,
    )


def single(values: Any) -> np.ndarray:
    """Numbers in single precision, half as many bytes in a page; what is no number as it is."""
    values = np.asarray(values)
    return values.astype(np.float32) if values.dtype.kind in "iuf" else values


def sample(trials: pd.DataFrame, most: int = MOST) -> tuple[pd.DataFrame, str]:
    """Trials that can be drawn one by one, and how they were taken from all of them.

    Args:
        trials: with a column ``score``.
        most: how many at most.

    Returns:
        All of them, or the ``BEST`` ones and others at random, in the order given; and the words.
    """
    if len(trials) <= most:
        return trials, look.count(len(trials), "trial")
    ranked = trials.sort_values("score", ascending=False, kind="stable")
    best, rest = ranked.iloc[:BEST], ranked.iloc[BEST:]
    kept = pd.concat([best, rest.sample(most - BEST, random_state=0)])
    words = f"{most:,} of {len(trials):,} trials: the best {BEST} and {most - BEST} at random"
    return trials.loc[trials.index.isin(kept.index)], words


# ---- the search ----------------------------------------------------------------------------------


def best_so_far(
    curve: pd.DataFrame, trials: pd.DataFrame, reference: pd.DataFrame | None, x: str, metric: str
) -> go.Figure:
    """The best score so far, against what it cost.

    Args:
        curve: ``anytime.best_so_far``.
        trials: of the search, with ``trial_id`` and ``score``; each is a dot.
        reference: ``anytime.random_reference``, if there is one.
        x: "trials", "tasks_trained", "seconds" or "hours".
        metric: what the score is.
    """
    rises = curve.score.ne(curve.score.shift()) & curve.score.notna()
    corners = curve[rises | (curve.index == curve.index[-1])]
    dots, words = sample(trials.dropna(subset="score"))
    dots = dots.merge(curve[["trial_id", x]], on="trial_id", suffixes=("_", ""))
    traces: list[Any] = [
        go.Scatter(
            x=single(dots[x]),
            y=single(100 * dots.score),
            customdata=dots.trial_id.astype(np.int32),
            mode="markers",
            marker={"size": 5, "color": look.GREY, "opacity": 0.45},
            name="a trial",
            hovertemplate="trial %{customdata}: %{y:.1f} %<extra></extra>",
        )
    ]
    if reference is not None and x in reference:
        traces.append(
            band(reference[x], 100 * reference.low, 100 * reference.high, look.VERMILLION)
        )
        traces.append(
            go.Scatter(
                x=single(reference[x]),
                y=single(100 * reference.score),
                mode="lines",
                line={"color": look.VERMILLION, "dash": "dash"},
                name="random search, expected",
                hovertemplate="random search: %{y:.1f} %<extra></extra>",
            )
        )
    traces.append(
        go.Scatter(
            x=single(corners[x]),
            y=single(100 * corners.score),
            mode="lines",
            line={"color": look.BLUE, "shape": "hv", "width": 2.5},
            name="best so far",
            hovertemplate="best so far: %{y:.1f} %<extra></extra>",
        )
    )
    lowest = np.nanquantile(dots.score, 0.1) if len(dots) else 0.0
    first = corners.score.dropna().min()
    bottom = 100 * min(lowest, first if np.isfinite(first) else lowest)
    top = 100 * dots.score.max() if len(dots) else 100.0
    return drawn(
        f"Best {look.name(metric)} on validation data so far",
        f"{words} with a score, of {len(curve):,} that ended; one seed each, so the best is partly"
        " luck",
        traces,
        xaxis={"title": {"text": look.axis(x)}, "rangemode": "tozero"},
        yaxis={
            "title": {"text": look.axis(metric)},
            "range": [bottom - 2, top + 0.08 * (top - bottom) + 0.5],
        },
    )


# ---- accuracy, task by task ----------------------------------------------------------------------


def accuracy_matrix(cells: pd.DataFrame, title: str, behind: str) -> go.Figure:
    """The accuracy matrix as a heat map.

    Args:
        cells: ``after_task, on_task, mean, low, high`` with fractions.
        title: whose it is.
        behind: how many seeds stand behind it.
    """
    wide = cells.pivot_table(["mean", "low", "high"], "after_task", "on_task", dropna=False)
    mean, low, high = (100 * wide[part].to_numpy() for part in ("mean", "low", "high"))
    tasks = len(mean)
    few = tasks <= 10
    text = np.where(np.isnan(mean), "", np.vectorize("{:.0f}".format)(np.nan_to_num(mean)))
    ranges = np.vectorize(lambda a, b: f"{a:.1f} to {b:.1f}")(low, high)
    sure = np.where(np.isfinite(low) & np.isfinite(high), ranges, "n/a")
    heat = go.Heatmap(
        x=np.arange(tasks),
        y=np.arange(tasks),
        z=single(mean),
        zmin=0,
        zmax=100,
        customdata=sure,
        text=text if few else None,
        texttemplate="%{text}" if few else None,
        hoverongaps=False,
        colorscale=look.SEQUENTIAL,
        colorbar={"title": {"text": "%"}, "thickness": 10},
        hovertemplate="accuracy on task %{x} after task %{y}:<br>%{z:.1f} % (95 % interval"
        " %{customdata})<extra></extra>",
    )
    whole = {"dtick": 1 if few else None, "showgrid": False, "zeroline": False}
    return drawn(
        title,
        behind,
        [heat],
        height=360,
        xaxis={"title": {"text": "on task"}, **whole},
        yaxis={"title": {"text": "after task"}, "autorange": "reversed", **whole},
    )


def forgetting_curves(
    cells: pd.DataFrame, title: str, behind: str, metric: str = "accuracy"
) -> go.Figure:
    """The accuracy on each task from when it was learned to the end, with its intervals.

    Args:
        cells, title, behind: as for ``accuracy_matrix``.
        metric: what the cells hold.
    """
    tasks = sorted(set(cells.on_task))
    traces = []
    for shade, task in zip(look.gradient(len(tasks)), tasks, strict=True):
        own = cells.query("on_task == @task").sort_values("after_task")
        spread = 100 * (own.high - own.low) / 2
        traces.append(
            go.Scatter(
                x=own.after_task,
                y=single(100 * own["mean"]),
                error_y={"array": single(spread.where(np.isfinite(spread), 0)), "thickness": 1},
                mode="lines+markers",
                name=f"task {task}",
                line={"color": shade},
                hovertemplate=f"task {task} after task %{{x}}: %{{y:.1f}} %<extra></extra>",
                showlegend=len(tasks) <= 12,
            )
        )
    return drawn(
        title,
        behind,
        traces,
        height=380,
        xaxis={"title": {"text": "after task"}, "dtick": 1 if len(tasks) <= 10 else None},
        yaxis={"title": {"text": f"{look.name(metric)} on the task, %"}, "range": [-2, 102]},
    )


# ---- early stopping ------------------------------------------------------------------------------


def judged(values: pd.Series, trials: pd.DataFrame, tasks: int, compared: str) -> go.Figure:
    """Who went on at a rung and who was stopped.

    Args:
        values: of ``stopping.rung_values`` after this number of tasks, by trial.
        trials: of the search.
        tasks: learned at this rung.
        compared: what the values are, of ``stopping.compared``.
    """
    known = trials.set_index("trial_id").assign(value=values).dropna(subset="value")
    ended = (known.status == "stopped") & (known.tasks_learned == tasks)
    traces = []
    drawn_by = []
    for name, part, colour, symbol in (
        ("went on", ~ended, look.BLUE, "circle"),
        ("stopped here", ended, look.ORANGE, "x"),
    ):
        own, _ = sample(known[part].assign(score=known.value), MOST // 2)
        drawn_by.append(f"{int(part.sum()):,} {name}")
        traces.append(
            go.Scatter(
                x=own.index.to_numpy(np.int32),
                y=single(100 * own.value),
                text=own.reason.fillna(""),
                mode="markers",
                marker={"size": 6, "color": colour, "symbol": symbol},
                name=name,
                hovertemplate="trial %{x}: %{y:.1f} %<br>%{text}<extra></extra>",
            )
        )
    few = f"; {MOST // 2} of each at most are drawn" if len(known) > MOST // 2 else ""
    return drawn(
        f"After {look.count(tasks, 'task')}: {' and '.join(drawn_by)}",
        f"{look.count(len(known), 'trial')}, one seed each, validation data{few}",
        traces,
        xaxis={"title": {"text": "number of the trial"}},
        yaxis={"title": {"text": f"{compared}, %"}},
    )


def rank_correlations(rungs: pd.DataFrame) -> go.Figure:
    """What a trial's value at each task boundary says of its score at the end.

    Args:
        rungs: ``stopping.rungs``.
    """
    known = rungs.dropna(subset="correlation")
    line = go.Scatter(
        x=known.tasks,
        y=single(known.correlation),
        error_y={
            "array": single((known.high - known.correlation).fillna(0)),
            "arrayminus": single((known.correlation - known.low).fillna(0)),
        },
        customdata=known.completed,
        mode="lines+markers",
        line={"color": look.BLUE},
        hovertemplate="after %{x} tasks: ρ = %{y:.2f}, %{customdata} trials<extra></extra>",
    )
    n = int(known.completed.max()) if len(known) else 0
    return drawn(
        "Does an early value order trials as the end does?",
        f"Spearman's ρ and 95 % interval over {look.count(n, 'completed trial')}, one seed each",
        [line],
        height=320,
        xaxis={"title": {"text": "tasks learned"}, "dtick": 1 if len(rungs) <= 10 else None},
        yaxis={"title": {"text": "rank correlation with the score"}, "range": [-1.05, 1.05]},
    )


# ---- losses --------------------------------------------------------------------------------------


def loss_curves(curves: Mapping[str, pd.DataFrame], term: str, behind: str) -> go.Figure:
    """One loss term over the tasks.

    Args:
        curves: who -> ``task, mean, low, high``.
        term: its name.
        behind: how many seeds and trials stand behind it.
    """
    most = max(int(curve.task.max()) for curve in curves.values())
    traces = []
    for place, (who, curve) in enumerate(curves.items()):
        shade = look.CONTENDERS.get(who, look.GREY)
        traces.append(band(curve.task, curve.low, curve.high, shade))
        traces.append(
            go.Scatter(
                x=curve.task,
                y=single(curve["mean"]),
                mode="lines+markers",
                name=who,
                line={"color": shade, "dash": look.DASHES[place % len(look.DASHES)]},
                hovertemplate=f"{who}, task %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )
    return drawn(
        f"{look.name(term)}: mean over a task's steps",
        behind,
        traces,
        xaxis={"title": {"text": "task"}, "dtick": 1 if most < 10 else None},
        yaxis={"title": {"text": f"{look.name(term)} (loss, no unit)"}},
    )


# ---- hyperparameters -----------------------------------------------------------------------------


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


def decades(low: float, high: float) -> np.ndarray:
    """Round numbers to mark between two positive ones on a logarithmic axis, three if there are.

    Example:
        >>> decades(0.1, 30).tolist(), decades(1, 20).tolist()
        ([0.1, 1.0, 10.0], [1.0, 2.0, 5.0, 10.0, 20.0])
    """
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 2, 5)):
        marks = np.array([float(f"{step}e{power}") for power in powers for step in steps])
        marks = marks[(marks >= low * (1 - 1e-9)) & (marks <= high * (1 + 1e-9))]
        if len(marks) > 2:
            return marks
    return np.geomspace(low, high, 3)


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """An axis on a logarithmic scale, which its title says."""
    return {
        "title": {"text": f"{title}, logarithmic"},
        "type": "log",
        "range": np.log10([low, high]).tolist(),
        "tickvals": decades(low, high).tolist(),
        "tickformat": "~s",
    }


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


# ---- generators ----------------------------------------------------------------------------------


def sample_grid(generated: "Generated", title: str) -> go.Figure:
    """Replayed examples of each class after each task.

    Args:
        generated: what one trial replays, images.
        title: whose they are.
    """
    from analysis import pictures

    image, rows, groups = pictures.mosaic(generated)
    classes, names = pictures.names_of(generated)
    bare = {"showgrid": False, "zeroline": False, "ticks": "", "constrain": "domain"}
    wide = 130 * len(names)
    return drawn(
        title,
        "one seed; each column is made from the same noise after every task",
        [go.Image(source=png(image), hoverinfo="skip")],
        height=int(90 + wide * image.shape[0] / image.shape[1]),
        xaxis={"tickvals": groups, "ticktext": names, "side": "top", **bare},
        yaxis={
            "tickvals": rows,
            "ticktext": classes,
            "title": {"text": "class, in the order learned"},
            **bare,
        },
        margin={"t": 40},
        meta={"min_width": wide},
    )


def feature_map(generated: "Generated", points: Sequence[np.ndarray], title: str) -> go.Figure:
    """Real and replayed examples in the plane.

    Args:
        generated: what one trial replays.
        points: of ``pictures.mapped`` for the groups of ``pictures.groups_of``: real ones, replayed
            when learned, replayed at the end.
        title: whose they are.
    """
    from analysis import pictures

    order = list(generated.learned_in)
    shades = dict(zip(order, look.gradient(len(order)), strict=True))
    groups = pictures.groups_of(generated, MAPPED)
    last = len(generated.tasks) - 1
    kinds = (
        ("real (validation data)", "circle", 0.4, True),
        ("replayed when learned", "x-thin", 1.0, "legendonly"),
        (f"replayed after task {last}", "triangle-up-open", 1.0, True),
    )
    traces = []
    for (name, symbol, opacity, visible), group, plane in zip(kinds, groups, points, strict=True):
        shade = [shades[label] for label in group.y.tolist()]
        marker = {"symbol": symbol, "size": 6, "opacity": opacity, "color": shade}
        marker["line"] = {"color": shade, "width": 1.2}
        traces.append(
            go.Scatter(
                x=single(plane[:, 0]),
                y=single(plane[:, 1]),
                text=[generated.class_names[label] for label in group.y],
                mode="markers",
                marker=marker,
                name=name,
                visible=visible,
                hovertemplate=f"class %{{text}}, {name}<extra></extra>",
            )
        )
    at, real = points[0], groups[0]
    middles = {c: np.median(at[real.y == c], axis=0) for c in order if (real.y == c).any()}
    if len(order) <= 20:
        traces.append(
            go.Scatter(
                x=[middle[0] for middle in middles.values()],
                y=[middle[1] for middle in middles.values()],
                text=[f"<b>{generated.class_names[c]}</b>" for c in middles],
                mode="text",
                textfont={"size": 15},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    bare = {"showgrid": False, "zeroline": False, "showticklabels": False}
    return drawn(
        title,
        f"t-SNE of {sum(map(len, points))} examples of one seed; darker colours were learned"
        " earlier; what lies near is alike, distances far apart mean nothing",
        traces,
        height=460,
        xaxis={"title": {"text": "t-SNE, no unit"}, **bare},
        yaxis={"title": {"text": "t-SNE, no unit"}, **bare},
    )


# ---- comparison ----------------------------------------------------------------------------------


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


# ---- resources -----------------------------------------------------------------------------------


def time_by_phase(trials: pd.DataFrame) -> go.Figure:
    """Seconds of training in each phase, by what became of the trials.

    Args:
        trials: of the record.
    """
    spent = trials.groupby(["role", "status"], sort=False).seconds.agg(["sum", "size"])
    spent = spent.reset_index()
    traces = [
        go.Bar(
            y=part.role,
            x=single(part["sum"]),
            customdata=part["size"],
            name=str(status),
            orientation="h",
            marker={"color": look.STATUSES[str(status)]},
            hovertemplate=f"{status}: %{{customdata}} trials, %{{x:.0f}} s<extra></extra>",
        )
        for status, part in spent.groupby("status", sort=False)
    ]
    return drawn(
        "Training time in each phase",
        f"{look.count(len(trials), 'trial')}; trials side by side count one by one",
        traces,
        height=120 + 40 * spent.role.nunique(),
        barmode="stack",
        xaxis={"title": {"text": "seconds of training"}},
        yaxis={"title": {"text": "phase"}, "autorange": "reversed"},
    )


def packs(trials: pd.DataFrame) -> go.Figure:
    """How many trials stepped together.

    Args:
        trials: of the record.
    """
    known = trials.dropna(subset="lanes")
    counts = known.lanes.astype(int).value_counts().sort_index()
    bars = go.Bar(
        x=counts.index.to_numpy(),
        y=counts.to_numpy(),
        marker={"color": look.BLUE},
        hovertemplate="%{y} trials trained %{x} at a time<extra></extra>",
    )
    return drawn(
        "Trials that stepped together, on average over a trial",
        look.count(len(known), "trial"),
        [bars],
        height=260,
        xaxis={
            "title": {"text": "trials in a pack"},
            "dtick": 1 if counts.index.max() < 20 else None,
        },
        yaxis={"title": {"text": "trials"}},
        bargap=0.3,
    )


def png(image: np.ndarray) -> str:
    """An image as the address of its own data."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, image, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
