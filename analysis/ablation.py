"""Which parts of a configuration matter: the winner of a study against itself with one part less.

Everything here is computed from scores that the record holds; who is trained is decided in
``trainables.ray.ablation``.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory
from rich.markup import escape
from rich.table import Table

from analysis.statistics import Interval, paired_difference
from analysis.tables import in_points, per_cent, plain

MATTERS, HELPS, NOTHING = "matters", "helps when removed", "no difference shown"
# Okabe & Ito's colours, which people who confuse red and green can tell apart.
COLOURS = {MATTERS: "#D55E00", HELPS: "#0072B2", NOTHING: "#7F7F7F"}
TERM, CHOICE = "loss term", "choice"
HEADINGS = {TERM: "one loss term taken out", CHOICE: "one choice made otherwise"}


class Variant(NamedTuple):
    """The winner with one part changed, on the seeds on which the winner was trained too."""

    name: str  # the change, e.g. "divergence = 0"
    group: str  # TERM or CHOICE
    scores: Sequence[float]  # fractions on validation data, one a seed; 0 where it diverged
    diverged: int = 0  # on how many seeds


class Ablation(NamedTuple):
    """What was measured."""

    study: str
    method: str
    benchmark: str
    metric: str  # name of the score
    winner: Variant  # with no change
    variants: Sequence[Variant]
    off: Sequence[str] = ()  # loss terms that are zero in the winner, so nothing can be taken out


class Effect(NamedTuple):
    """What a change does to the score."""

    variant: Variant
    difference: Interval  # variant − winner, paired over seeds, a fraction
    verdict: str


def effects(winner: Variant, variants: Iterable[Variant]) -> list[Effect]:
    """The changes, the most harmful one first.

    A change matters if the 95 % interval of its paired difference lies below zero, and helps if it
    lies above; one seed shows nothing.

    Raises:
        ValueError: if a variant has other than one score for each of the winner's.
    """
    found = []
    for variant in variants:
        difference = paired_difference(variant.scores, winner.scores)
        verdict = MATTERS if difference.high < 0 else HELPS if difference.low > 0 else NOTHING
        found.append(Effect(variant, difference, verdict))
    return sorted(found, key=lambda effect: effect.difference.mean)


def table(ablation: Ablation) -> Table:
    """The effects as a rich table, in percentage points."""
    found = effects(ablation.winner, ablation.variants)
    shown = plain(f"Ablation of the winner of {escape(ablation.study)}", caption(ablation))
    shown.add_column("change")
    shown.add_column("of a", no_wrap=True)
    shown.add_column("difference, points", justify="right", no_wrap=True)
    shown.add_column("verdict")
    for effect in found:
        variant, interval = effect.variant, effect.difference
        failed = f", diverged on {variant.diverged} of {interval.n} seeds"
        verdict = effect.verdict + (failed if variant.diverged else "")
        cells = (variant.name, variant.group, in_points(interval), verdict)
        shown.add_row(*map(escape, cells))
    return shown


def caption(ablation: Ablation) -> str:
    """What the figures are, and what reading many of them at once is worth."""
    rows, seeds = len(ablation.variants), len(ablation.winner.scores)
    return (
        f"variant − winner in {ablation.metric.replace('_', ' ')} on validation data, in percentage"
        f" points, paired over {seeds} fresh seed{'s' * (seeds != 1)}, on which the winner has"
        f" {per_cent(ablation.winner.scores)} %; each 95 % interval (Student's t) is for its own"
        f" row: of {rows} rows, about {0.05 * rows:.1f} would exclude zero by chance alone"
    )


def sentence(ablation: Ablation) -> str:
    """The answer about the loss terms: of N, these K matter."""
    terms = [e for e in effects(ablation.winner, ablation.variants) if e.variant.group == TERM]
    named = {
        verdict: [
            f"{e.variant.name.partition(' = ')[0]} ({in_points(e.difference).split()[0]} points)"
            for e in terms
            if e.verdict == verdict
        ]
        for verdict in (MATTERS, HELPS)
    }
    count = len(terms) + len(ablation.off)
    if not count:
        return f"{ablation.method} reports no loss term that has a coefficient."
    matter = named[MATTERS]
    are = "matters" if len(matter) == 1 else "matter"
    said = [
        f"Of {count} loss term{'s' * (count != 1)} of {ablation.method}, "
        + (f"{len(matter)} {are}: {', '.join(matter)}" if matter else "none is shown to matter")
    ]
    if named[HELPS]:
        said.append(f"better without: {', '.join(named[HELPS])}")
    if ablation.off:
        said.append(f"off in the winner: {', '.join(ablation.off)}")
    return "; ".join(said) + "."


def plot(ablation: Ablation, file: Path) -> None:
    """Draw the effects with their intervals as a PNG, loss terms above choices.

    Raises:
        OSError: if the file cannot be written.
    """
    found = effects(ablation.winner, ablation.variants)
    off = {TERM: ablation.off}
    lines: list[tuple[str, Effect | None]] = []  # from top to bottom; without an effect, text only
    for group, heading in HEADINGS.items():
        members = [e for e in found if e.variant.group == group]
        if members or off.get(group):
            lines += [("", None)] * bool(lines) + [(heading, None)]
            lines += [(e.variant.name + " †" * (e.variant.diverged > 0), e) for e in members]
            lines += [(f"{name}: off in the winner", None) for name in off.get(group, ())]

    figure = Figure(figsize=(9, 1.8 + 0.26 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    for at, (_, effect) in enumerate(lines):
        if effect:
            mean, low, high, n = effect.difference
            colour = COLOURS[effect.verdict]
            if n > 1:
                ends = 100 * low, 100 * high
                axes.plot(ends, (at, at), color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(100 * mean, at, "o", color=colour, markersize=4.5)
            axes.text(1.02, at, in_points(effect.difference), transform=beside, va="center")
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    for label in axes.get_yticklabels():
        if label.get_text() in HEADINGS.values():
            label.set_fontweight("bold")
        elif label.get_text().endswith(": off in the winner"):
            label.set_color(COLOURS[NOTHING])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -105), min(high, 105))  # two seeds give bounds beyond what can be
    axes.tick_params("y", length=0)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        f"{ablation.metric.replace('_', ' ')} on validation data, variant − winner,"
        " percentage points"
        + "\n† diverged on some seeds, which count as 0"
        * any(e.variant.diverged for e in found)
    )
    seeds = len(ablation.winner.scores)
    axes.set_title(
        f"{ablation.method} on {ablation.benchmark}: what one change does to the winner\n"
        f"mean and 95 % interval of each row, n = {seeds} fresh seed{'s' * (seeds != 1)}",
        fontsize="medium",
    )
    verdicts = [v for v in COLOURS if any(e.verdict == v for e in found)]
    dots = [Line2D([], [], color=COLOURS[v], marker="o", linewidth=2) for v in verdicts]
    figure.legend(dots, verdicts, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(file, dpi=160)
