"""The final table: what a person reads at the end of a study."""

import io

import pytest
from rich.console import Console

from analysis.tables import CAPTION, QUALITY, Contender, final_markdown, final_table, per_cent

ROWS = [
    Contender(
        "winner (trial 17)", [0.86, 0.88], [0.87, 0.87], [0.05, 0.07], [4_200_000] * 2, [3.0, 4.0]
    ),
    Contender("sequential [floor]", [0.2] * 2, [0.2] * 2, [0.9, 1.0], [0, 0], [1.0, 1.0]),
    Contender("joint | ceiling", [0.97], [0.97], [], [1500], [12.34]),
]


def rendered(width: int) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(final_table(ROWS))
    return text.getvalue()


def test_per_cent():
    # 87 ± t(1) · 1: the 97.5 % point with one degree of freedom is 12.7062.
    assert per_cent([0.86, 0.88]) == "87.0 ± 12.7"
    assert per_cent([0.87, 0.87]) == "87.0 ± 0.0"
    assert per_cent([0.8734]) == "87.3 ± n/a"
    assert per_cent([-0.0001, -0.0001]) == "0.0 ± 0.0"
    assert per_cent([]) == "n/a"


def test_markdown():
    assert final_markdown(ROWS[1:]).splitlines() == [
        "|                    | joint accuracy, % | average accuracy, % | forgetting, % "
        "| seeds |  memory | seconds |",
        "| ------------------ | ----------------: | ------------------: | ------------: "
        "| ----: | ------: | ------: |",
        "| sequential [floor] |        20.0 ± 0.0 |          20.0 ± 0.0 |   95.0 ± 63.5 "
        "|     2 | 0 bytes |     1.0 |",
        "| joint \\| ceiling   |        97.0 ± n/a |          97.0 ± n/a |           n/a "
        "|     1 |  1.5 kB |    12.3 |",
        "",
        CAPTION,
    ]


def test_cas_has_a_column_where_a_contender_generates():
    rows = [ROWS[0]._replace(quality={"cas": [0.5, 0.75]}), ROWS[1]]
    header, _, winner, floor, _, caption = final_markdown(rows).splitlines()
    assert [cell.strip() for cell in header.split("|")][4:7] == ["forgetting, %", "CAS, %", "seeds"]
    assert winner.split("|")[5].strip() == "62.5 ± 158.8"  # t(1) · 12.5
    assert floor.split("|")[5].strip() == "n/a"
    assert caption == f"{CAPTION}; {QUALITY['cas'][1]}"
    text = io.StringIO()
    Console(file=text, width=120).print(final_table(rows))
    assert "CAS, %" in text.getvalue() and "62.5 ± 158.8" in text.getvalue()


def test_an_autoencoder_has_a_column_too():
    both = {"cas": [0.5, 0.5], "explained_variance": [0.9, 0.9]}
    rows = [ROWS[0]._replace(quality={"explained_variance": [0.8, 0.8]}), ROWS[0]]
    rows[1] = rows[1]._replace(quality=both)
    header, _, first, second, _, caption = final_markdown(rows).splitlines()
    names = [cell.strip() for cell in header.split("|")]
    assert names[5:7] == ["CAS, %", "explained variance, %"]
    assert [cell.strip() for cell in first.split("|")][5:7] == ["n/a", "80.0 ± 0.0"]
    assert [cell.strip() for cell in second.split("|")][5:7] == ["50.0 ± 0.0", "90.0 ± 0.0"]
    assert caption.endswith("their reconstructions keep") and "CAS: accuracy" in caption


def test_terminal_shows_the_same_cells():
    shown = rendered(width=110)
    for line in final_markdown(ROWS).splitlines()[2:5]:
        for cell in line.replace(r"\|", "¦").strip("| ").split("|"):
            assert cell.strip().replace("¦", "|") in shown
    assert "87.0 ± 12.7" in shown
    assert "4.2 MB" in shown
    assert "sequential [floor]" in shown  # not taken for markup
    assert "mean ± 95 %" in shown


def test_table_fits_a_narrow_terminal():
    text = rendered(width=80)
    assert max(map(len, text.splitlines())) <= 80
    for numbers in ("87.0 ± 12.7", "95.0 ± 63.5", "4.2 MB", "0 bytes"):
        assert numbers in text


@pytest.mark.parametrize(
    "change",
    [
        {"joint_accuracy": []},
        {"average_accuracy": [0.5]},
        {"seconds": []},
        {"forgetting": [0.1]},
        {"quality": {"cas": [0.1]}},
    ],
)
def test_values_must_be_one_a_seed(change):
    with pytest.raises(ValueError, match=r"one value a seed.*'winner"):
        final_table([ROWS[0]._replace(**change)])
