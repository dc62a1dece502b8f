"""Pictures of what generative replay remembers, from ``generated/<trial_id>.safetensors``.

Such a file holds, of one trial of the final phase, examples of every class seen so far as the
generator replays them after each task, made from the same noise each time, beside real ones of the
validation data.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from safetensors import SafetensorError, safe_open
from sklearn.manifold import TSNE

from analysis.log import RecordError, writing
from analysis.reading import best, label_of_winner, read
from analysis.statistics import mean_interval

CURVES = ("cas", "explained_variance", "nearest_distance", "reconstruction_error")
COLUMNS = 4  # examples of a class beside each other in a grid
MOST = 3000  # points of a map: t-SNE takes n log n, and more cannot be seen
# Tol's muted colours: ten that people with any colour vision can tell apart.
TEN = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#7F7F7F",
)  # fmt: skip
MEASURES = {
    "cas": "accuracy on real data of a classifier trained on replayed data",
    "nearest_distance": "distance of replayed to the nearest training examples,\n"
    "as a multiple of that of new real ones",
    "reconstruction_error": "mean squared error of reconstructed examples",
}


class Examples(NamedTuple):
    x: np.ndarray  # (n, *input)
    y: np.ndarray  # (n,) int

    def of(self, label: int) -> np.ndarray:
        return self.x[self.y == label]


class Generated(NamedTuple):
    """What one trial replays."""

    class_names: Sequence[str]
    real: Examples
    tasks: list[Examples]  # after each task

    @property
    def learned_in(self) -> dict[int, int]:
        """Class -> the task after which it is first replayed, in the order learned."""
        found: dict[int, int] = {}
        for t, task in enumerate(self.tasks):
            found |= {int(c): t for c in np.unique(task.y) if c not in found}
        return found


def load(file: Path) -> Generated:
    """Read a file of generated examples.

    Raises:
        RecordError: if it is damaged, or not such a file.
    """
    try:
        with safe_open(file, framework="numpy") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            about = stored.metadata() or {}
        count = sum(name.startswith("task_") and name.endswith(".x") for name in tensors)
        if not count:
            raise KeyError("task_00.x")
        pairs = {
            name: Examples(tensors[f"{name}.x"], tensors[f"{name}.y"])
            for name in ("real", *(f"task_{t:02d}" for t in range(count)))
        }
        real, *tasks = pairs.values()
        return Generated(json.loads(about["class_names"]), real, tasks)
    except (OSError, SafetensorError, ValueError) as error:
        raise RecordError(f"{file} cannot be read as generated examples: {error}") from error
    except KeyError as error:
        raise RecordError(f"{file} lacks {error}, so it holds no generated examples") from error


def contenders(trials: pd.DataFrame, best: Mapping[str, Any], asked: str | None) -> dict[str, str]:
    """Name -> label in the record of the contenders to draw: the winner and the default, or one.

    Args:
        trials: of the record.
        best: as ``reading.best``.
        asked: "winner", a label, or None for both.

    Raises:
        RecordError: if no final trial has the label that was asked for.
    """
    winner = label_of_winner(best)
    labels = {"winner": winner, "default": "default"}
    if asked is None:
        return labels if winner != "default" else {"default": "default"}
    known = sorted(set(trials[trials.role == "final"].label))
    label = labels.get(asked, asked)
    if label not in known:
        raise RecordError(
            f"no trial of the final phase is called {asked!r}: expected winner or one of"
            f" {', '.join(known)}"
        )
    return {asked: label}


def file_of(directory: Path, trials: pd.DataFrame, label: str) -> Path:
    """The examples of a contender, of its first seed that has any.

    Raises:
        RecordError: if there are none.
    """
    folder = directory / "generated"
    ids = sorted(trials[(trials.role == "final") & (trials.label == label)].trial_id)
    for trial_id in ids:
        if (file := folder / f"{trial_id}.safetensors").exists():
            return file
    raise RecordError(
        f"no generated examples of {label!r} in {folder}: the final phase leaves them there where"
        " the method generates; search with such a method (python run_search.py --method lgm_vae)"
    )


def draw(directory: Path, asked: str | None = None) -> list[Path]:
    """Draw all there is of a study into ``<directory>/pictures``; returns the files.

    Args:
        directory: of a study that has chosen its winner.
        asked: as ``contenders``.

    Raises:
        RecordError: if there are no generated examples, they are damaged, or there is no such
            contender.
    """
    trials, _, _, quality = read(directory)
    folder, files = directory / "pictures", []
    labels = contenders(trials, best(directory), asked)
    generated = {name: load(file_of(directory, trials, label)) for name, label in labels.items()}
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for name, examples in generated.items():
            title = titled(name, labels[name])
            stem = name.replace(" ", "_")
            files.append(folder / f"{stem}-map.png")
            feature_map(examples, title, files[-1])
            if examples.real.x.ndim == 4:
                files.append(folder / f"{stem}-samples.png")
                sample_grid(examples, title, files[-1])
        for measure in [name for name in CURVES if name in set(quality.measure)]:
            files.append(folder / f"{measure}.png")
            quality_curves(quality, trials, labels, measure, files[-1])
    return files


def canvas(generated: Generated) -> np.ndarray:
    """The tiles of a sample grid: a row for each class in the order learned, ``COLUMNS`` real
    examples, then as many replayed ones after each task; white where there is none.

    Returns:
        ``(rows, groups, COLUMNS, height, width, 3)`` in [0, 1].
    """
    order, groups = list(generated.learned_in), [generated.real, *generated.tasks]
    channels, height, width = generated.real.x.shape[1:]
    tiles = np.ones((len(order), len(groups), COLUMNS, height, width, 3))
    black = 0.0 if generated.real.x.min() >= 0 else -1.0  # of --embedder unit, of identity
    for row, label in enumerate(order):
        for column, examples in enumerate(groups):
            images = examples.of(label)[:COLUMNS].transpose(0, 2, 3, 1)  # channels last
            shown = images if channels == 3 else images[..., :1].repeat(3, -1)
            tiles[row, column, : len(images)] = np.clip((shown - black) / (1 - black), 0, 1)
    return tiles


class Mosaic(NamedTuple):
    """The tiles of a sample grid as one image, and where its rows and groups lie."""

    image: np.ndarray  # (height, width, 3) in [0, 1]
    rows: list[float]  # the middle of each class
    groups: list[float]  # the middle of each group


def mosaic(generated: Generated) -> Mosaic:
    """What each class looks like after each task: ``canvas``, put together."""
    tiles = canvas(generated)
    rows, groups, columns, height, width, _ = tiles.shape
    gap = max(1, width // 8)  # between examples; three times as much between groups
    step, stride = width + gap, columns * (width + gap) + 2 * gap
    image = np.ones((rows * (height + gap) - gap, groups * stride - 3 * gap, 3))
    for row, group, column in np.ndindex(rows, groups, columns):
        top, left = row * (height + gap), group * stride + column * step
        image[top : top + height, left : left + width] = tiles[row, group, column]
    centre = (columns * step - gap) / 2 - 0.5
    return Mosaic(
        image,
        [row * (height + gap) + height / 2 - 0.5 for row in range(rows)],
        [group * stride + centre for group in range(groups)],
    )


def names_of(generated: Generated) -> tuple[list[str], list[str]]:
    """What the rows and the groups of a sample grid are called."""
    tasks = range(len(generated.tasks))
    classes = [generated.class_names[c] for c in generated.learned_in]
    return classes, ["real", *(f"after task {t}" for t in tasks)]


def sample_grid(generated: Generated, title: str, file: Path) -> None:
    """Draw what each class looks like after each task, as a PNG."""
    image, rows, groups = mosaic(generated)
    ratio = image.shape[0] / image.shape[1]
    across = max(6.0, 1.6 * len(groups))
    figure = Figure(figsize=(across, 0.9 * across * ratio + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image, interpolation="nearest")
    classes, titles = names_of(generated)
    axes.set_xticks(groups, titles)
    axes.set_yticks(rows, classes)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("class, in the order learned")
    figure.suptitle(f"{title}: replayed examples, each column from the same noise")
    figure.savefig(file, dpi=160)


def mapped(groups: Sequence[Examples], seed: int = 0) -> list[np.ndarray]:
    """One t-SNE map of several groups of examples.

    Args:
        groups: of equal input shape, three examples or more in all.

    Returns:
        ``(n, 2)`` for each group. The perplexity is 30, or a third of the neighbours where there
        are fewer than 90.

    Source: van der Maaten & Hinton, JMLR 2008; scikit-learn's implementation, started from the
    principal components.
    """
    x = np.concatenate([group.x.reshape(len(group.x), -1) for group in groups])
    perplexity = min(30.0, (len(x) - 1) / 3)
    found = TSNE(perplexity=perplexity, random_state=seed).fit_transform(x.astype(np.float64))
    return np.split(found, np.cumsum([len(group.x) for group in groups])[:-1])


def groups_of(generated: Generated, most: int = MOST) -> list[Examples]:
    """What a map shows: real examples, replayed ones of each class just after it was learned, and
    replayed ones after the last task.

    Args:
        generated: what a trial replays.
        most: examples in all, the first ones of each class.
    """
    born, last = generated.learned_in, generated.tasks[-1]
    each = max(1, most // (3 * len(born)))  # of a class in a group

    def few(examples: Mapping[int, np.ndarray]) -> Examples:
        x = np.concatenate([examples[c][:each] for c in born])
        return Examples(x, np.concatenate([[c] * len(examples[c][:each]) for c in born]))

    return [
        few({c: generated.real.of(c) for c in born}),
        few({c: generated.tasks[t].of(c) for c, t in born.items()}),
        few({c: last.of(c) for c in born}),
    ]


def feature_map(generated: Generated, title: str, file: Path) -> None:
    """Draw real and replayed examples in the plane, replayed when learned and at the end."""
    order, groups = list(generated.learned_in), groups_of(generated)
    points = mapped(groups)
    colours = class_colours(len(order))
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, which, about in (
        (panels[0], 1, "replayed just after its class was learned"),
        (panels[1], 2, f"replayed after the last task, {len(generated.tasks) - 1}"),
    ):
        for colour, c in zip(colours, order, strict=True):
            real, replayed = points[0][groups[0].y == c], points[which][groups[which].y == c]
            panel.scatter(*real.T, s=14, color=colour, alpha=0.35, linewidths=0)
            panel.scatter(*replayed.T, s=22, color=colour, marker="x", linewidths=1)
            if len(real):
                panel.annotate(
                    generated.class_names[c],
                    np.median(real, axis=0),
                    ha="center",
                    va="center",
                    weight="bold",
                    bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": colour, "alpha": 0.7},
                )
        panel.set(title=about, xticks=[], yticks=[])
    marks = [
        Line2D([], [], linestyle="", marker="o", color="0.6", label="real (validation data)"),
        Line2D([], [], linestyle="", marker="x", color="0.3", label="replayed"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{title}: one t-SNE map of all points; colours are classes")
    figure.savefig(file, dpi=160)


def class_colours(count: int) -> Sequence[Any]:
    """A colour for each class in the order learned; neighbours look alike where they are many."""
    if count <= len(TEN):
        return TEN[:count]
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 1, count)))


def quality_curves(
    quality: pd.DataFrame,
    trials: pd.DataFrame,
    labels: Mapping[str, str],
    measure: str,
    file: Path,
) -> None:
    """Draw one measure of replay over the tasks as a PNG: a panel for each contender, a line for
    each task, its mean and 95 % interval over the seeds.

    Args:
        quality: of the record. Where a seed has no finite value, there is no point.
        trials: of the record.
        labels: name -> label of the contenders.
        measure: which one.
        file: where to.
    """
    final = trials.query("role == 'final'")
    tasks = sorted(set(quality.query("measure == @measure").on_task))
    figure = Figure(figsize=(5 * len(labels) + 1, 4.4), layout="constrained")
    panels = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for panel, (name, label) in zip(panels, labels.items(), strict=True):
        trial_ids = final.trial_id[final.label == label]
        mine = quality.query("measure == @measure and split == 'validation'")
        mine = mine[mine.trial_id.isin(trial_ids)]
        for place, (colour, task) in enumerate(zip(class_colours(len(tasks)), tasks, strict=True)):
            told = mine.query("on_task == @task").groupby("after_task").value
            intervals = {
                after: mean_interval(values.to_numpy())
                for after, values in told
                if np.isfinite(values).all()
            }
            panel.errorbar(
                [after + 0.05 * (place - len(tasks) / 2) for after in intervals],  # side by side
                [interval.mean for interval in intervals.values()],
                [interval.half if interval.n > 1 else 0 for interval in intervals.values()],
                fmt="o-",
                color=colour,
                markersize=4,
                capsize=2,
                label=f"{task}",
            )
        panel.set(
            title=f"{titled(name, label)}, n = {len(set(mine.trial_id))}", xlabel="after task"
        )
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="0.9")
    lines, names = panels[-1].get_legend_handles_labels()
    figure.legend(lines, names, title="of task", loc="outside right center", frameon=False)
    what = MEASURES.get(measure, measure.replace("_", " "))
    figure.suptitle(f"{what}\nmean and 95 % interval over n seeds", fontsize="medium")
    figure.savefig(file, dpi=160)


def titled(name: str, label: str) -> str:
    """A contender as it shall read: ``winner (trial 17)``, ``default``."""
    return name if name == label else f"{name} ({label})"
