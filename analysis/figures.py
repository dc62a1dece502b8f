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

from analysis import look

if TYPE_CHECKING:  # with matplotlib and scikit-learn's manifolds it takes a second
    from analysis.pictures import Generated

HEAD, TOP = 84, 12  # pixels for title and evidence, where a figure stands alone; and above the plot
LINE = 110  # characters of a line of evidence
MOST = 1000  # points of a scatter or lines of parallel coordinates; more only make a page slow
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
