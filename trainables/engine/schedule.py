"""Programs of a task: the order of its phases."""

from collections.abc import Mapping, Sequence
from itertools import chain, groupby, zip_longest

Turn = tuple[str, ...]  # phases, one step each, in this order


def program(order: str, parts: Mapping[str, Sequence[Turn]]) -> list[tuple[str, int]]:
    """A task of two parts, one after the other or taking turns.

    Args:
        order: "a_first", where a is the name of a part, or "interleaved": a turn of each, the
            first part's ahead, and what is left over at the end.
        parts: by name, two of them.

    Returns:
        (phase, steps) as ``Method.schedule`` has to.

    Raises:
        ValueError: for an unknown order.
    """
    (one, a), (two, b) = parts.items()
    if order == f"{one}_first":
        turns = [*a, *b]
    elif order == f"{two}_first":
        turns = [*b, *a]
    elif order == "interleaved":
        turns = [turn for pair in zip_longest(a, b, fillvalue=()) for turn in pair]
    else:
        known = f"'{one}_first', '{two}_first' or 'interleaved'"
        raise ValueError(f"expected order {known}, got {order!r}")
    return [(phase, len(list(steps))) for phase, steps in groupby(chain.from_iterable(turns))]
