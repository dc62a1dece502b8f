"""What a person reads when a name or a file is wrong: one line each."""

import difflib
from collections.abc import Iterable

SHOWN = 10  # names in a message


class DataError(ValueError):
    """Data or weights that are missing, unreadable or not what they should be; one line."""


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that nothing has: ``unknown benchmark 'x': did you mean 'y'? ...``."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    more = ", ..." if len(known) > SHOWN else ""
    return ValueError(f"unknown {what} {name!r}: {hint}(known: {', '.join(known[:SHOWN])}{more})")
