"""The report on several studies: who is ahead at an equal budget, how sure that is, at what price.

Studies are compared where they searched the same stream by the same protocol with the same budget;
the others are shown by themselves, and the page says why.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import figures_comparison, look
from analysis.answer import ranged
from analysis.comparison import HEADER, Stream, blocks, caption, cells, streams
from analysis.page import Answer, Block, Figures, Grid, Section, page
from analysis.parameters import of_search, scored
from analysis.ranks import compare
from analysis.reading import Study
from analysis.report import Subject, anytime_curve, final_table, the_answer
from analysis.statistics import mean_interval, paired_difference
from analysis.tunability import expected_best, pareto_front


def report(studies: Sequence[Study]) -> str:
    """The page about several studies.

    Args:
        studies: two or more; those without a winner are shown by themselves only.
    """
    ended = [study for study in studies if study.best is not None]
    found = streams(ended)
    compared = [stream for stream in found if len(stream.studies) > 1]
    order = sorted({name for stream in found for name in stream.studies})
    sections = [Section("answer", "Answer", "The answer", [Answer(sentences(studies))])]
    for stream in compared:
        sections.append(side_by_side(stream))
    sections += [
        section
        for section in (
            ranked(compared),
            *(tuning(stream, order) for stream in compared),
            *(fronts(stream, order) for stream in compared),
            by_benchmark(found),
        )
        if section
    ]
    sections += [one_study(study) for study in studies]
    names = sorted({str(study.settings["method"]) for study in studies})
    subtitle = f"{look.listed(names)} on {look.listed(sorted(benchmarks(studies)))}"
    return page(f"{len(studies)} studies compared", subtitle, sections)


def benchmarks(studies: Sequence[Study]) -> set[str]:
    """What the studies searched."""
    return {str(study.settings.get("benchmark", "split_digits")) for study in studies}


def sentences(studies: Sequence[Study]) -> list[str]:
    """Who is ahead on each stream, and what is not compared, and why."""
    found = streams([study for study in studies if study.best is not None])
    said = [leader(stream) for stream in found if len(stream.studies) > 1]
    if not said:
        said.append("No two of these studies can be compared.")
    alone = [f"{name} ({stream.name})" for stream in found for name in stream.studies
             if len(stream.studies) == 1]  # fmt: skip
    if alone:
        said.append(
            f"Not compared: {look.listed(alone)}, since no other study here has the same benchmark,"
            " scenario, protocol, embedder, attributes, tasks, memory, number of trials and seeds."
        )
    young = [study.name for study in studies if study.best is None]
    if young:
        said.append(f"No winner yet, so not compared: {look.listed(young)}.")
    return said


def leader(stream: Stream) -> str:
    """Who is ahead on one stream, and of whom for sure."""
    first, *others = stream.entries
    best = mean_interval(first.tuned)
    sure, unsure = [], []
    for other in others:
        gap = paired_difference(first.tuned, other.tuned)
        low, high = (look.points(end) for end in (gap.low, gap.high))
        bounds = f", {low} to {high}" if gap.n > 1 else ""
        text = f"{other.method} (by {100 * gap.mean:z.1f} points{bounds})"
        (sure if gap.low > 0 else unsure).append(text)
    said = f"On {stream.name}, {first.method} is first with {ranged(best)} joint accuracy"
    if sure:
        said += f"; it is ahead of {look.listed(sure)}"
    if unsure:
        said += f"; it is not shown to be ahead of {look.listed(unsure)}"
    if best.n > 1:
        return f"{said}. Intervals of differences are paired over seeds, each for itself."
    return f"{said}. One seed says nothing about chance."


def side_by_side(stream: Stream) -> Section:
    """The table at an equal budget, with intervals."""
    entries, budget = stream.entries, next(iter(stream.studies.values())).settings["trials"]
    ended = [f"{name} {len(of_search(study.trials))}" for name, study in stream.studies.items()]
    told = caption(entries, int(budget))
    blocks: list[Block] = []
    if any(len(of_search(study.trials)) < int(budget) for study in stream.studies.values()):
        blocks.append(
            "Careful: the budgets were equal, what was spent is not. Search trials that ended:"
            f" {', '.join(ended)}."
        )
    blocks.append(Grid(HEADER, cells(entries), told))
    seeds = look.count(len(entries[0].tuned), "fresh seed")
    behind = f"mean and 95 % interval over {seeds}; {budget} trials each"
    blocks.append(Figures([figures_comparison.equal_budget(entries, behind)]))
    return Section(
        f"table-{key(stream)}", f"Table {stream.name}", f"Equal budget on {stream.name}", blocks
    )


def ranked(compared: Sequence[Stream]) -> Section | None:
    """Average ranks and which differences are more than chance."""
    if not compared:
        return None
    scores, block = blocks(compared)
    if scores.shape[1] < 2 or len(scores) < 2:
        return None
    found = compare(scores)
    words = (
        "Ranked on the seeds of one benchmark, so this speaks of that benchmark alone."
        if block == "seed"
        else "Ranked on benchmarks, by the mean over seeds, of the methods that all of them have."
    )
    pairs = [
        [better, worse, f"{difference:.2f}", f"{p:.2g}", f"{p_holm:.2g}"]
        for better, worse, difference, p, p_holm in found.pairs.itertuples(index=False)
    ]
    header = ("better", "worse", "difference of ranks", "p, Wilcoxon", "p, Holm")
    told = "Wilcoxon's signed-rank test of each pair; Holm's correction for testing all of them"
    return Section(
        "ranks",
        "Ranks",
        "Ranks, and what is more than chance",
        [
            words,
            Figures([figures_comparison.critical_difference(found, block)]),
            Grid(header, pairs, told, words=2),
        ],
    )


def tuning(stream: Stream, order: Sequence[str]) -> Section | None:
    """How good a method gets with how many trials."""
    curves, counts = {}, []
    for entry in stream.entries:
        search = of_search(stream.studies[entry.method].trials)
        scores = search.score.astype(float).where(search.status == "completed").to_numpy()
        if np.isfinite(scores).sum() > 1:
            curves[entry.method] = expected_best(scores, max(2, len(scores) // 2))
            counts.append(len(scores))
    metrics = {str(s.settings.get("metric", "joint_accuracy")) for s in stream.studies.values()}
    if not curves or len(metrics) > 1:
        return None
    few, many = min(counts), max(counts)
    trials = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    behind = (
        f"expected best validation score of n of {trials} search trials"
        " drawn at random, up to half of them; 95 % intervals by bootstrap; one seed each"
    )
    drawn = figures_comparison.tunability(curves, metrics.pop(), order, behind)
    words = (
        "A method that needs little tuning is high at the left. These trials were not drawn at"
        " random but suggested, better and better, by the sampler; stopped ones count as trials"
        " without a score."
    )
    return Section(
        f"tuning-{key(stream)}",
        f"Tuning {stream.name}",
        f"What tuning buys on {stream.name}",
        [words, Figures([drawn])],
    )


def fronts(stream: Stream, order: Sequence[str]) -> Section:
    """Accuracy against memory and against time."""
    found = [mean_interval(one.tuned) for one in stream.entries]
    frame = pd.DataFrame(
        {
            "method": [one.method for one in stream.entries],
            "accuracy": [one.mean for one in found],
            "half": [one.half for one in found],
            "memory_bytes": [one.memory_bytes for one in stream.entries],
            "seconds": [one.seconds for one in stream.entries],
        }
    )
    behind = f"winners, mean and 95 % interval over {look.count(found[0].n, 'seed')}"
    drawn = [
        figures_comparison.pareto(
            frame.assign(front=pareto_front(frame, ["accuracy"], [cost])), cost, order, behind
        )
        for cost in ("memory_bytes", "seconds")
    ]
    return Section(
        f"price-{key(stream)}", f"Price {stream.name}", f"At what price on {stream.name}",
        [Figures(drawn)],
    )  # fmt: skip


def by_benchmark(found: Sequence[Stream]) -> Section | None:
    """Every method on every stream."""
    if len(found) < 2:
        return None
    scores = {
        stream.name: {
            str(stream.studies[one.method].settings["method"])
            if len(stream.studies) == 1
            else one.method: float(np.mean(one.tuned))
            for one in stream.entries
        }
        for stream in found
    }
    seeds = sorted({len(one.tuned) for stream in found for one in stream.entries})
    counts = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else look.count(seeds[0], "seed")
    behind = f"winners, mean over {counts}"
    drawn = figures_comparison.methods_by_benchmarks(pd.DataFrame(scores), behind)
    return Section("map", "Map", "Methods and benchmarks", [Figures([drawn])])


def one_study(study: Study) -> Section:
    """A study in short."""
    about = Subject(study, None, pd.DataFrame())
    parts = [the_answer(about), final_table(about), anytime_curve(about)]
    inside = [block for part in parts if part for block in part.blocks]
    ended = f"{len(scored(study.trials))} of {len(of_search(study.trials))} trials completed"
    more = f"`python -m analysis report {study.directory}` has the whole of it ({ended})."
    return Section(f"study-{study.name}", study.name, study.name, [*inside, more])


def key(stream: Stream) -> str:
    """A stream in an address of the page."""
    return "".join(letter if letter.isalnum() else "-" for letter in stream.name)
