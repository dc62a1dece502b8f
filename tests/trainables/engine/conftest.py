"""What the tests of packs share."""

import pytest

from trainables.engine.packs import Engine


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, int, int]]:
    """(phase, steps, width) of every pack that steps from here on."""
    found, run = [], Engine._run

    def _run(self, phase, steps, seats):
        run(self, phase, steps, seats)
        found.append((phase, steps, len(seats)))

    monkeypatch.setattr(Engine, "_run", _run)
    return found
