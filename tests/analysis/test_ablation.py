"""The ablation's table, sentence and picture, from scores made by hand."""

import io
from pathlib import Path

import matplotlib.image
import pytest
from matplotlib.colors import to_rgb
from rich.console import Console

from analysis import ablation
from analysis.ablation import CHOICE, HELPS, MATTERS, NOTHING, TERM, Ablation, Variant

WINNER = Variant("winner", "winner", [0.90, 0.80, 0.85])
VARIANTS = [
    Variant("divergence = 0", TERM, [0.91, 0.80, 0.84]),
    Variant("rehearsal = 0", TERM, [0.50, 0.42, 0.43], diverged=1),
    Variant("penalty = 0", TERM, [0.93, 0.84, 0.89]),
    Variant("order = other", CHOICE, [0.80, 0.71, 0.74]),
]
FOUND = Ablation("s", "lgm", "split_digits", "joint_accuracy", WINNER, VARIANTS, ["prototype"])


def rendered(found: Ablation) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(ablation.table(found))
    return text.getvalue()


def test_effects_are_paired_sorted_and_judged_by_their_intervals():
    found = ablation.effects(WINNER, VARIANTS)
    assert [e.variant.name.split()[0] for e in found] == [
        "rehearsal", "order", "divergence", "penalty"
    ]  # fmt: skip
    assert [e.verdict for e in found] == [MATTERS, MATTERS, NOTHING, HELPS]
    # Differences −10, −9, −11 points: mean −10, s = 1, and t(2) = 4.302653 at 97.5 %.
    mean, low, high, n = found[1].difference
    assert (mean, n) == (pytest.approx(-0.10), 3)
    assert (low, high) == pytest.approx((-0.10 - 0.04302653 / 3**0.5, -0.10 + 0.04302653 / 3**0.5))


def test_what_touches_zero_or_has_one_seed_shows_nothing():
    same, worse = Variant("a = 0", TERM, WINNER.scores), Variant("b = 0", TERM, [0.1])
    assert ablation.effects(WINNER, [same])[0].verdict == NOTHING
    assert ablation.effects(Variant("winner", "", [0.9]), [worse])[0].verdict == NOTHING
    with pytest.raises(ValueError, match="as many values in both"):
        ablation.effects(WINNER, [worse])


def test_the_sentence_counts_all_terms():
    assert ablation.sentence(FOUND) == (
        "Of 4 loss terms of lgm, 1 matters: rehearsal (−40.0 points); better without:"
        " penalty (+3.7 points); off in the winner: prototype."
    )
    none = FOUND._replace(variants=VARIANTS[:1], off=[])
    assert ablation.sentence(none) == "Of 1 loss term of lgm, none is shown to matter."
    assert "no loss term that has a coefficient" in ablation.sentence(
        FOUND._replace(variants=VARIANTS[3:], off=[])
    )


def test_the_table_has_every_row_and_says_what_many_rows_are_worth():
    text = rendered(FOUND)
    names = [line.split()[0] for line in text.splitlines() if " = " in line]
    assert names == ["rehearsal", "order", "divergence", "penalty"]
    assert "−10.0 (−12.5 to −7.5)" in text and "matters, diverged on 1 of 3 seeds" in text
    words = " ".join(text.split())
    assert "over 3 fresh seeds, on which the winner has 85.0 ± 12.4 %" in words
    assert "of 4 rows, about 0.2 would exclude zero by chance" in words
    one = FOUND._replace(
        winner=WINNER._replace(scores=[0.9]), variants=[VARIANTS[0]._replace(scores=[0.8])]
    )
    assert "−10.0 (n/a)" in rendered(one) and "over 1 fresh seed," in rendered(one)


def colours_in(file: Path) -> set[str]:
    """Which verdicts' colours a picture has; grey is also that of blurred text."""
    pixels = matplotlib.image.imread(file)[..., :3].round(2)
    return {
        verdict
        for verdict, colour in ablation.COLOURS.items()
        if verdict != NOTHING and (abs(pixels - to_rgb(colour)) < 0.01).all(-1).any()
    }


def test_the_picture_shows_the_verdicts_that_there_are(tmp_path):
    ablation.plot(FOUND, tmp_path / "all.png")
    assert colours_in(tmp_path / "all.png") == {MATTERS, HELPS}
    ablation.plot(FOUND._replace(variants=VARIANTS[1:2], off=[]), tmp_path / "one.png")
    assert colours_in(tmp_path / "one.png") == {MATTERS}
    single = FOUND._replace(
        winner=WINNER._replace(scores=[0.9]),
        variants=[v._replace(scores=v.scores[:1]) for v in VARIANTS],
    )
    ablation.plot(single, tmp_path / "seed.png")  # intervals without end
    assert colours_in(tmp_path / "seed.png") == set()
