"""The order of a task's phases."""

import pytest

from trainables.engine.schedule import program


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("x_first", "aabaabcc"),
        ("c_first", "ccaabaab"),
        ("interleaved", "aabcaabc"),
    ],
)
def test_orders_are_what_their_names_say(order, expected):
    turns = {"x": [("a", "a", "b")] * 2, "c": [("c",)] * 2}
    assert "".join(phase * steps for phase, steps in program(order, turns)) == expected


@pytest.mark.parametrize(
    ("a", "c", "expected"),
    [
        (3, 1, [("a", 1), ("c", 1), ("a", 2)]),
        (1, 3, [("a", 1), ("c", 3)]),
        (0, 2, [("c", 2)]),
        (2, 0, [("a", 2)]),
        (0, 0, []),
    ],
)
def test_what_is_left_over_comes_last(a, c, expected):
    assert program("interleaved", {"x": [("a",)] * a, "c": [("c",)] * c}) == expected


def test_unknown_orders_raise():
    with pytest.raises(ValueError, match=r"'x_first', 'c_first' or 'interleaved', got 'y_first'"):
        program("y_first", {"x": [], "c": []})
