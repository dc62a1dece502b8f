"""Command lines that go on from a study, or search again like it."""

import shlex

from analysis.reading import Study

# What run_search.py takes where nothing is said.
USUAL = {
    "benchmark": "split_digits",
    "scenario": "class",
    "embedder": "identity",
    "attributes": "none",
    "metric": "joint_accuracy",
}


def resume(study: Study, options: str = "") -> str:
    """The command that brings a study to its end.

    Example:
        >>> resume(study, " --trials 80")
        'python run_search.py --resume runs/lgm_vae-split_digits --trials 80'
    """
    return f"python run_search.py --resume {shlex.quote(str(study.directory))}{options}"


def search_again(study: Study, options: str = "", method: str | None = None) -> str:
    """The command of a search like this one, with these options; a later option holds.

    Example:
        >>> search_again(study, " --scheduler none")
        'python run_search.py --method lgm_vae --scheduler none'
    """
    given = {"method": method or study.settings.get("method")}
    for name in ("benchmark", "scenario", "embedder", "tasks", "attributes", "memory", "metric"):
        value = study.settings.get(name)
        if value is not None and value != USUAL.get(name):
            given[name] = value
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in given.items()]
    return " ".join(["python run_search.py", *words]) + options
