"""What a folder says beside the record: the studies of a comparison, the space of a study."""

from collections.abc import Sequence
from pathlib import Path

from analysis.parameters import Space
from search_spaces._tree import explore
from trainables.ray import settings
from trainables.ray.command_line import Usage, study_in


def studies_in(folders: Sequence[Path]) -> list[Path]:
    """The folders of studies, where that of a comparison stands for those in it."""
    try:
        found = [inside for one in folders for inside in settings.compared(one) or [one]]
    except settings.StudyError as error:
        raise Usage(error) from error
    for one in found:
        if not (one / "study.yaml").exists():
            study_in(one)  # says what is there instead
    return list(dict.fromkeys(found))


def space_of(run: Path) -> Space | None:
    """The range of every hyperparameter of a study; None if its settings are of another version."""
    try:
        return {one.name: one.distribution for one in explore(settings.read(run).space())}
    except (settings.StudyError, ValueError, TypeError):
        return None
