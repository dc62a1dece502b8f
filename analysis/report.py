"""The report on one study: what it found, whether to believe it, what mattered, what to do next.

A section is a function of the study that gives its blocks: words, tables and figures. What a study
does not have, since it is young or its method cannot have it, leaves its section out or says so.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.filesize import decimal
from scipy import stats

from analysis import figures, figures_knobs, look, tables
from analysis.answer import sentences
from analysis.anytime import best_so_far, random_reference
from analysis.commands import search_again
from analysis.doctor import failures, findings
from analysis.forgetting import mean_matrix, runs_of
from analysis.importance import (
    FANOVA,
    PED_ANOVA,
    forest,
    importances,
    interactions,
    slices,
    surface,
)
from analysis.knobs import Knob, held, knobs
from analysis.log import RecordError
from analysis.page import (
    Answer,
    Block,
    Choice,
    Command,
    Figures,
    Findings,
    Grid,
    Heading,
    Section,
    page,
)
from analysis.parameters import Space, of_search, scored, searched
from analysis.reading import Study, label_of_winner
from analysis.stopping import Regret, compared, regret, rung_values, rungs

AXES = 10  # of parallel coordinates, which a page has room for


class Subject(NamedTuple):
    """What the sections of a study are made of."""

    study: Study
    space: Space | None
    importance: pd.DataFrame  # of ``importances``, which takes the longest


def report(study: Study, space: Space | None = None) -> str:
    """The page about one study.

    Args:
        study: at any moment of its life.
        space: the ranges of its hyperparameters, if known; else they are taken from the trials.
    """
    settings = study.settings
    about = Subject(study, space, importances(study, space))
    made = [section(about) for section in SECTIONS]
    subtitle = (
        f"{settings.get('method')} on {settings.get('benchmark')},"
        f" {settings.get('scenario', 'class')}-incremental; protocol"
        f" {settings.get('protocol', 'end_of_stream')}, sampler {settings.get('sampler')},"
        f" scheduler {settings.get('scheduler')}, seed {settings.get('seed', 0)}"
    )
    return page(f"What {study.name} found", subtitle, [one for one in made if one])


def the_answer(about: Subject) -> Section:
    """What was found, in three sentences."""
    study = about.study
    return Section("answer", "Answer", "The answer", [Answer(sentences(study))])


def final_table(about: Subject) -> Section | None:
    """Winner, default, floor and ceiling on test data."""
    study = about.study
    if study.best is None:
        return None
    header, *rows = tables.grid(found := tables.of_study(study))
    blocks: list[Block] = [Grid(header, rows, tables.caption(found))]
    config = study.best["config"]
    default = study.best["comparison"]["default"]["config"]
    rows = [
        [f"`{name}`", look.value(value), look.value(default.get(name, "none"))]
        for name, value in config.items()
    ]
    blocks.append("The winner's configuration (`best.yaml` has every digit):")
    blocks.append(Grid(("hyperparameter", "winner", "default"), rows))
    return Section("final", "Final table", "Final table", blocks)


def anytime_curve(about: Subject) -> Section | None:
    """The best score against trials, tasks and time, with random search as a reference."""
    study = about.study
    curve = best_so_far(study)
    if scored(study.trials).empty:
        return None
    reference, metric = random_reference(study), study.settings.get("metric", "joint_accuracy")
    axes = {"search trials ended": "trials", "tasks trained": "tasks_trained",
            "seconds of training": "seconds", "hours on the clock": "hours"}  # fmt: skip
    drawn = {
        label: figures.best_so_far(curve, scored(study.trials), reference, x, metric)
        for label, x in axes.items()
        if x in curve.dropna(axis=1, how="all")
    }
    words = "Too few trials were drawn at random to say what random search would have reached."
    if reference is not None:
        n = int(reference.trials.max())
        words = (
            f"The dashed line is what random search is expected to reach, from the {n} trials whose"
            " configuration was drawn at random; it ends where they end, and its band is a 95 %"
            " interval by bootstrap over them."
        )
    return Section("anytime", "Progress", "How the search went", [Choice("against", drawn), words])


def matrices(about: Subject) -> Section | None:
    """The accuracy matrix of winner and default, and what is forgotten of each task."""
    study = about.study
    maps, curves = [], []
    for title, ids in contenders(study).items():
        cells = mean_matrix(study, ids)
        behind = f"validation data, mean over {look.count(len(ids), 'seed')}"
        maps.append(figures.accuracy_matrix(cells, title, behind))
        spread = ", 95 % intervals" if len(ids) > 1 else ", so no intervals"
        curves.append(figures.forgetting_curves(cells, title, behind + spread))
    if not maps:
        return None
    return Section(
        "forgetting",
        "Forgetting",
        "Accuracy and forgetting, task by task",
        [
            "A cell is the accuracy on one task after learning another: down a column one sees a"
            " task being forgotten.",
            Figures(maps),
            Figures(curves),
        ],
    )


def contenders(study: Study) -> dict[str, list[int]]:
    """How winner and default shall read, and the trials that stand for them, if any."""
    if study.best is None:
        own = runs_of(study)
        return {f"Best trial so far (trial {own[0]})": own} if own else {}
    label = label_of_winner(study.best)
    named = {f"Winner ({label})": label, "Default": "default"}
    if label == "default":
        named = {"Default, which won": "default"}
    found = {title: runs_of(study, label) for title, label in named.items()}
    return {title: ids for title, ids in found.items() if ids}


def importance_of(about: Subject) -> Section | None:
    """Which hyperparameters mattered, in words, two charts and a slice of each."""
    study, space, found = about
    trials, metric = scored(study.trials), study.settings.get("metric", "joint_accuracy")
    few = f"{look.count(len(trials), 'trial')} came to the end of the stream"
    if found.empty:
        words = f"{few}: too few to say which hyperparameter mattered (it takes 10)."
        return Section("importance", "Knobs", "Which knobs matter", [words])
    blocks: list[Block] = [*knobs_in_words(study, found)]
    behind = f"{few}, one seed each; 95 % intervals by bootstrap over trials"
    star = "* exists under a condition and is judged within the trials that have it"
    charts = [
        figures_knobs.importances(found, method, f"{behind}; {star}")
        for method in (PED_ANOVA, FANOVA)
        if (found.method == method).any()
    ]
    blocks.append(Figures(charts))
    blocks.append(
        "The two ask different questions: what the best trials share, and what moves the score over"
        " the whole space. Left of the vermillion mark is what chance alone reaches; of 20"
        " hyperparameters without any effect about one passes it. Trials that were stopped early"
        " are not among these, so what ruins a trial at once shows less than it should."
    )
    ranges = searched(study.trials, space)
    names = [name for name in dict.fromkeys(found.name) if name in ranges]
    drawn = {
        name: figures_knobs.slice_of(
            slices(study, name, {name: ranges[name]}), name, ranges[name], metric, len(trials)
        )
        for name in names
    }
    blocks.append(Choice("a slice through", drawn))
    return Section("importance", "Knobs", "Which knobs matter", blocks)


def knobs_in_words(study: Study, found: pd.DataFrame) -> list[Block]:
    """Which knobs to fix, and at what."""
    fixed = knobs(study, found)
    whose = "the winner's" if study.best is not None else "the best trial's so far"
    blocks: list[Block] = [Heading("Which three knobs should I fix, and at what?")]
    sure = [knob for knob in fixed.matter if knob.sure]
    likely = [knob for knob in fixed.matter if not knob.sure]
    if sure:
        blocks.append(f"Set with care what matters most: {at(sure)}.")
    if likely:
        only = "These matter" if sure else "No knob is shown to matter beyond doubt; these matter"
        blocks.append(f"{only} {'as well, ' * bool(sure)}more likely than not: {at(likely)}.")
    if fixed.matter:
        rows = [
            [
                f"`{knob.name}`",
                look.value(knob.value),
                knob.tops,
                f"{100 * knob.ped_anova:.0f} %",
                f"{100 * knob.fanova:.0f} %",
            ]
            for knob in fixed.matter
        ]
        header = ("knob", "set it to", "best tenth, middle half", "PED-ANOVA", "fANOVA")
        blocks.append(
            Grid(
                header,
                rows,
                f"set it to: {whose} values; PED-ANOVA: its share of what the best trials have in"
                " common; fANOVA: of the score's variance",
            )
        )
        blocks.append("To search what is left around them:")
        blocks.append(Command(search_again(study, held(fixed.matter))))
    else:
        blocks.append("No knob is shown to matter by the measures below; more trials may show it.")
    if fixed.idle:
        blocks.append(
            f"Hold what explains next to nothing, so that the next search has fewer knobs to learn:"
            f" {at(fixed.idle)}."
        )
        blocks.append(Command(search_again(study, held(fixed.idle))))
    return blocks


def at(fixed: Sequence[Knob]) -> str:
    """Knobs and their values in words."""
    return look.listed([f"`{knob.name}` at {look.value(knob.value)}" for knob in fixed])


def coordinates(about: Subject) -> Section | None:
    """The hyperparameters that matter most, of all trials at once."""
    study, space, found = about
    trials, ranges = scored(study.trials), searched(study.trials, space)
    if len(trials) < 2 or not ranges:
        return None
    order = [name for name in dict.fromkeys(found.name) if name in ranges] or [*ranges]
    metric = study.settings.get("metric", "joint_accuracy")
    some = {name: ranges[name] for name in order[:AXES]}
    drawn = figures_knobs.parallel_coordinates(trials, some, metric)
    left = len(ranges) - len(some)
    words = f"The {len(some)} that matter most; {left} more are left out." if left else ""
    blocks = [*([words] if words else []), Figures([drawn])]
    return Section("coordinates", "All at once", "Hyperparameters at once", blocks)


def top_pair(about: Subject) -> Section | None:
    """The two hyperparameters that do most together, as a surface."""
    study, grown = about.study, forest(about.study, about.space)
    pairs = interactions(grown)
    if pairs.empty:
        return None
    one, trials = pairs.to_dict("records")[0], scored(study.trials)
    first, second = one["first"], one["second"]
    both = {name: grown.ranges[name] for name in (first, second)}
    behind = f"expected by a random forest, averaged over all other knobs; {one['trials']:,} trials"
    drawn = figures_knobs.contour(
        surface(grown, first, second),
        trials,
        both,
        study.settings.get("metric", "joint_accuracy"),
        behind,
    )
    words = (
        f"Together, beyond what each does alone, they explain {100 * one['share']:.1f} % of the"
        " score's variance over the space, more than any other pair of the six strongest knobs."
    )
    return Section("pair", "Pair", "The pair that interacts most", [words, Figures([drawn])])


def stopping(about: Subject) -> Section | None:
    """Who was stopped where and why, whether early values told, and what it may have cost."""
    study = about.study
    search = of_search(study.trials)
    stops = search[search.status == "stopped"]
    if study.settings.get("scheduler", "asha") == "none":
        words = "This search stopped no trial early (`--scheduler none`)."
        return Section("stopping", "Stopping", "Early stopping", [words])
    values = rung_values(study)
    found = rungs(study, values)
    if found.empty or not len(stops):
        return Section("stopping", "Stopping", "Early stopping", ["No trial was stopped early."])
    saved = int((search.tasks_learned.max() - stops.tasks_learned).sum())
    whole = int(search.tasks_learned.max()) * len(search)
    blocks: list[Block] = [
        f"{len(stops):,} of {look.count(len(search), 'trial')} were stopped, which saved"
        f" {look.count(saved, 'task')} of {whole:,}. A trial is stopped at a task boundary where it"
        " falls behind its peers after the same task; the cross's note says by how much.",
        in_words(regret(study, values)),
    ]
    where = found[found.stopped > 0].tasks.tolist()
    what = compared(study)
    drawn = {f"{n} tasks": figures.judged(pd.Series(values[n]), search, n, what) for n in where}
    charts = figures.rank_correlations(found)
    return Section(
        "stopping",
        "Stopping",
        "Early stopping",
        [*blocks, Choice("at the boundary after", drawn), Figures([charts])],
    )


def in_words(found: Regret) -> str:
    """The estimated regret in two sentences."""
    if not found.doomed:
        return (
            f"What that cost is unknown: {look.count(len(found.controls), 'control trial')} ran on"
            " unconditionally, and none of them would have been stopped."
        )
    ahead = (
        f"{found.beat} of these ended above all other trials, by {100 * found.loss:.1f} points"
        if found.beat
        else "none of these ended above all other trials"
    )
    return (
        f"What that may have cost: {look.count(len(found.controls), 'control trial')} ran on"
        f" unconditionally, {len(found.doomed)} of which would have been stopped; {ahead}. So the"
        f" chance that a given stopped trial would have been the best is {100 * found.share:.0f} %"
        f" (95 % interval {100 * found.low:.0f} to {100 * found.high:.0f})."
    )


def losses(about: Subject) -> Section | None:
    """Every loss term over the tasks: winner, default, and the completed trials of the search."""
    study = about.study
    curves, behind = loss_curves(study)
    if not curves:
        return None
    drawn = {term: figures.loss_curves(by, term, behind) for term, by in curves.items()}
    return Section("losses", "Losses", "Loss curves", [Choice("term", drawn)])


def loss_curves(study: Study) -> tuple[dict[str, dict[str, pd.DataFrame]], str]:
    """Term -> who -> ``task, mean, low, high``, and what stands behind it.

    Of winner and default the mean over seeds and its interval, of the search the median of its
    completed trials and their quartiles. What diverged is left out.
    """
    known = study.losses.query("-inf < value < inf")
    ids = scored(study.trials).trial_id
    who = {"the search": ids.tolist()}
    label = "default" if study.best is None else label_of_winner(study.best)
    if label != "default":
        who["winner"] = runs_of(study, label)
    who["default"] = runs_of(study, "default")
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for name, trials in who.items():
        part = known[known.trial_id.isin(trials)]
        groups = part.groupby(["term", "task"]).value
        if name == "the search":
            frame = groups.agg(
                low=lambda x: x.quantile(0.25), mean="median", high=lambda x: x.quantile(0.75)
            )
        else:
            frame = groups.agg(mean="mean", spread="sem", n="size")
            half = stats.t.ppf(0.975, np.maximum(frame.n - 1, 1)) * frame.spread
            frame = frame.assign(low=frame["mean"] - half, high=frame["mean"] + half)
        for term, curve in frame.reset_index().groupby("term"):
            found.setdefault(str(term), {})[name] = curve
    seeds = [len(trials) for name, trials in who.items() if name != "the search"]
    behind = f"median and quartiles of {look.count(len(ids), 'search trial')}"
    if max(seeds):
        n = look.count(max(seeds), "seed")
        behind += f"; mean and 95 % interval of winner and default over {n}"
    return found, behind


def generators(about: Subject) -> Section | None:
    """What winner and default replay: samples of each class after each task, and a t-SNE map."""
    study = about.study
    if not (study.directory / "generated").exists():
        return None
    from analysis import pictures  # with matplotlib and scikit-learn's manifolds: a second

    grids, maps = [], []
    for title, ids in contenders(study).items():
        files = [study.directory / "generated" / f"{n}.safetensors" for n in ids]
        for file in [file for file in files if file.exists()][:1]:
            try:
                generated = pictures.load(file)
            except RecordError:  # of a method that reconstructs, but does not generate
                continue
            if generated.real.x.ndim == 4:
                grids.append(figures.sample_grid(generated, title))
            points = pictures.mapped(pictures.groups_of(generated, figures.MAPPED))
            maps.append(figures.feature_map(generated, points, title))
    if not maps:
        return None
    blocks: list[Block] = [Figures([grid]) for grid in grids]
    return Section("generator", "Generator", "What is replayed", [*blocks, Figures(maps)])


def resources(about: Subject) -> Section | None:
    """Where time and memory went."""
    study = about.study
    trials = study.trials
    if trials.empty or trials.seconds.isna().all():
        return None
    rows = []
    for role, part in trials.groupby("role", sort=False):
        clock = (part.finished.max() - part.started.min()).total_seconds() / 3600
        vain = part.seconds[part.status != "completed"].sum() / max(part.seconds.sum(), 1e-9)
        lanes = part.lanes.astype(float).mean()
        rows.append(
            [
                str(role),
                f"{len(part):,}",
                f"{part.seconds.sum() / 3600:.2f}",
                "n/a" if np.isnan(clock) else f"{clock:.2f}",
                "n/a" if np.isnan(lanes) else f"{lanes:.1f}",
                f"{100 * vain:.0f}",
                decimal(int(part.memory_bytes.fillna(0).max())),
            ]
        )
    header = ("phase", "trials", "training, h", "clock, h", "pack", "ended early, %", "memory")
    caption = (
        "training: summed over trials, also those side by side; clock: from the first trial's begin"
        " to the last one's end, pauses included; pack: trials that stepped together, on average;"
        " ended early: share of the training time that went into trials stopped or failed; memory:"
        " the most that a trial carries from task to task. No pack waits for its slowest trial, so"
        " none of its time is waste."
    )
    drawn = [figures.time_by_phase(trials)]
    if trials.lanes.notna().any():
        drawn.append(figures.packs(trials))
    blocks = [Grid(header, rows, caption), Figures(drawn)]
    return Section("resources", "Resources", "Time and memory", blocks)


def failed(about: Subject) -> Section:
    """Failed trials of the search, grouped by cause."""
    found, search = failures(about.study), of_search(about.study.trials)
    if found.empty:
        return Section("failed", "Failures", "Failed trials", ["No trial failed."])
    rows = [
        [str(one["trials"]), one["cause"], f"{one['tasks']:g}", which(one["trial_ids"])]
        for one in found.to_dict("records")
    ]
    header = ("trials", "cause", "tasks learned before, median", "which")
    share = f"{found.trials.sum()} of {look.count(len(search), 'trial')} failed."
    return Section("failed", "Failures", "Failed trials", [share, Grid(header, rows, wraps=True)])


def which(trial_ids: Sequence[int], most: int = 5) -> str:
    """The first of some trials."""
    more = ", ..." if len(trial_ids) > most else ""
    return ", ".join(map(str, trial_ids[:most])) + more


def advice(about: Subject) -> Section:
    """What may be wrong, and what to do about it."""
    found = findings(about.study, about.space, about.importance)
    blocks: list[Block] = [Findings(found)] if found else ["Nothing speaks against this search."]
    return Section("doctor", "Doctor", "Doctor: what may be wrong, and what to do", blocks)


SECTIONS: Sequence[Callable[[Subject], Section | None]] = (
    the_answer,
    final_table,
    anytime_curve,
    matrices,
    importance_of,
    coordinates,
    top_pair,
    stopping,
    losses,
    generators,
    resources,
    failed,
    advice,
)
