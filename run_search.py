"""Search the hyperparameters of a continual-learning method.

python run_search.py --method lgm_acgan --trials 200
"""

import argparse
import contextlib
import os
import re
import secrets
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import search_spaces
from trainables.engine.errors import unknown
from trainables.ray.command_line import (
    EXIT_USAGE,
    Parser,
    Usage,
    add_engines,
    carried_out,
    complain,
    positive,
    study_in,
)
from trainables.ray.names import (
    ATTRIBUTES,
    FIRST_K_TASKS,
    METRICS,
    OTHER_STREAM,
    PROTOCOLS,
    SAMPLERS,
    SCENARIOS,
    SCHEDULERS,
)

BATCHES_OF = 4  # configurations an engine, asked together by --reproducible
PROGRAM = "run_search.py"
EXAMPLES = """examples:
  run_search.py --method lgm_acgan --trials 200    everything else has a default
  run_search.py --list                             methods, benchmarks, samplers, ...
  run_search.py --method lgm_acgan --show-space    what is searched, and between which values
  run_search.py --method lgm_vae --metric cas      the best generator, not the best classifier
  run_search.py --method lgm_acgan --dry-run       check everything, show the plan, run nothing
  run_search.py --compare ewc,er,lgm_vae,joint --trials 40    each searched alike, one table
  run_search.py --resume runs/lgm_acgan-split_digits --trials 300    go on, to 300 in all

The search sees training and validation data only. At its end the best configurations and the
default are trained again on fresh seeds, a winner is chosen on validation data, and test data is
opened once, for the winner, the default, the floor (sequential) and the ceiling (joint).
exit codes: 0 done, 1 failed, 2 usage, 130 interrupted (what is done is saved)
"""


def whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def held(text: str) -> tuple[str, int | float | bool | str]:
    """A name and a value: a number, true or false, or a word."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return name, kind(value)
    return name, {"true": True, "false": False}.get(value.lower(), value)


def methods(text: str) -> list[str]:
    """Several different names."""
    names = [name.strip() for name in text.split(",")]
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise argparse.ArgumentTypeError(
            f"expected two or more different methods, ewc,er,joint say, got {text!r}"
        )
    return names


def lanes(text: str) -> int | str:
    return text if text == "auto" else positive(text)


def duration(text: str) -> float:
    """Seconds in "90s", "30m", "2h" or "1h30m"."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    hours, minutes, seconds = (int(p or 0) for p in parts.groups()) if parts else (0, 0, 0)
    total = 3600.0 * hours + 60 * minutes + seconds
    if not total:
        raise argparse.ArgumentTypeError(f"expected 90s, 30m, 2h or 1h30m, got {text!r}")
    return total


def parser() -> Parser:
    p = Parser(
        prog=PROGRAM,
        description="Search the hyperparameters of a continual-learning method.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(group, name, metavar, text, **options):
        group.add_argument(f"--{name}", metavar=metavar, help=text, **options)

    def names(known):
        return f"{', '.join(known)} (default: {known[0]})"

    # Settings of the study: None means "not typed", and the study's own default holds.
    what = p.add_argument_group("what to search")
    add(what, "method", "NAME", "continual-learning method (see --list)")
    add(what, "compare", "NAME,NAME", "several methods instead, with the same budget each, and one "
        "table of all", type=methods)  # fmt: skip
    add(what, "benchmark", "NAME", "task stream (see --list; default: split_digits)")
    add(what, "scenario", "NAME", f"which classes compete: {names(SCENARIOS)}")
    add(what, "tasks", "N", "tasks to cut the classes into, 1 trains jointly; or of permuted "
        "and rotated images (default: the benchmark's own number)", type=positive)  # fmt: skip
    add(what, "embedder", "NAME", "what a method sees: identity (default: pixels in [-1, 1]), unit "
        "(in [0, 1]), base_task (features that the first task teaches), a network of torchvision, "
        "or one of its nodes (resnet18.layer3)")  # fmt: skip
    add(what, "attributes", "WHO", f"who is told the class attributes: {names(ATTRIBUTES)}")
    add(what, "memory", "N", "examples that a method may store in all, where it stores any; the "
        "same for all that are compared (default: its own)", type=positive)  # fmt: skip
    add(what, "metric", "NAME", f"validation score after the last task: {names(METRICS)}")
    add(what, "fix", "NAME=VALUE", "hold a hyperparameter or a shape, e.g. network=convolutional; "
        "repeatable", type=held, action="append")  # fmt: skip
    what.add_argument(
        "--search-shapes", action="store_true", default=None, help="search widths and batches too"
    )
    budget = p.add_argument_group("budget")
    add(budget, "trials", "N", "configurations in all, a resumed study's included (default: 200)",
        type=positive)  # fmt: skip
    add(budget, "time-budget", "T", "start no trial after 30m, 2h, ...; the final phase follows",
        type=duration)  # fmt: skip
    add(budget, "top", "N", "configurations that reach the final phase (default: 3)", type=positive)
    add(budget, "final-seeds", "N", "fresh seeds of the final phase (default: 5)", type=positive)
    how = p.add_argument_group("how to search")
    add(how, "sampler", "NAME", names(SAMPLERS))
    add(how, "scheduler", "NAME", f"early stopping at task boundaries: {names(SCHEDULERS)}")
    add(how, "protocol", "NAME", f"what the search may see: {names(PROTOCOLS)}; first_k_tasks "
        "keeps its tasks out of the report, other_stream reports --report-on, or the next class "
        "order",
    )  # fmt: skip
    add(how, "tuning-tasks", "K", "of first_k_tasks (default: 3)", type=positive)
    add(how, "report-on", "NAME", "of other_stream: the benchmark to report")
    add(how, "seed", "N", "of class order, splits, suggestions, trials (default: 0)", type=whole)
    how.add_argument(
        "--reproducible",
        action="store_true",
        default=None,
        help="ask in batches, judge in a fixed order: the same study twice, a little slower",
    )
    where = p.add_argument_group("where")
    add(
        where, "study-dir", "DIR", "folder of the study (default: a new one under runs/)", type=Path
    )
    add(where, "resume", "DIR", "go on with the study in this folder", type=Path)
    add(where, "data-dir", "DIR", "folder with MNIST/raw/* and the like (default: download)")
    add(where, "lanes", "N", "trials that an engine trains at once, or auto: as many as a short "
        "measurement at the start says (default: auto)", type=lanes)  # fmt: skip
    add_engines(where)
    show = p.add_argument_group("what to show")
    show.add_argument("--list", action="store_true", help="everything that has a name, and stop")
    show.add_argument("--show-space", action="store_true", help="the search space, and stop")
    show.add_argument("--dry-run", action="store_true", help="check, show the plan, and stop")
    level = show.add_mutually_exclusive_group()
    level.add_argument("--quiet", action="store_true", help="nothing but the final table")
    level.add_argument("--verbose", action="store_true", help="a line for every trial")
    return p


SETTINGS = (
    "method", "benchmark", "scenario", "tasks", "embedder", "attributes", "metric", "memory",
    "search_shapes", "sampler", "scheduler", "seed", "reproducible", "protocol", "tuning_tasks",
    "report_on",
)  # fmt: skip
ADJUSTABLE = ("trials", "final_seeds", "top")  # on resume too


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        args = parser().parse_args(arguments)
        if args.list:
            return show_list()
        if args.resume is None and args.method is None and args.compare is None:
            raise Usage(
                "name a method, e.g. --method lgm_acgan (--list shows all), or --resume DIR"
            )
        if args.method is not None and args.compare is not None:
            raise Usage("--compare names the methods: leave --method out")
        return show_space(args) if args.show_space else run(args)
    except Usage as error:
        return complain(PROGRAM, error, EXIT_USAGE)


def show_list() -> int:
    """``--list``."""
    from trainables import benchmarks

    print("methods     ", ", ".join(search_spaces.names()))
    print("benchmarks")
    for name, b in benchmarks.BENCHMARKS.items():
        print(f"  {name:28}{sizes_of(b.classes):29}{b.description}")
    for what, known in (
        ("scenarios", SCENARIOS),
        ("samplers", SAMPLERS),
        ("schedulers", SCHEDULERS),
        ("metrics", METRICS),
        ("protocols", PROTOCOLS),
    ):
        print(f"{what:12}", ", ".join(known))
    return 0


def sizes_of(tasks) -> str:
    """The numbers of classes of some tasks in words: "5 tasks × 2 classes"."""
    if callable(tasks):
        return "tasks × 2 classes"
    first, *rest = tasks
    if len(set(rest)) > 1:
        return f"{len(tasks)} tasks × {min(tasks)} to {max(tasks)} classes"
    if rest and rest[0] != first:
        return f"{first} + {len(rest)} × {rest[0]} classes"
    words = "task" if not rest else "tasks", "class" if first == 1 else "classes"
    return f"{len(tasks)} {words[0]} × {first} {words[1]}"


def show_space(args) -> int:
    """``--show-space``."""
    from rich.console import Console

    from search_spaces._tree import show

    if args.compare is not None:
        raise Usage("--show-space shows one method's space: name it by --method")
    study = new_study(args, args.method) if args.resume is None else old_study(args, args.resume)
    Console(highlight=False).print(show(study.space(), study.default()), soft_wrap=True)
    return 0


def new_study(args, method: str):
    """The settings that were typed, for one method, every name checked."""
    from trainables.ray.settings import Study, check_fixed

    for what, known in (
        ("method", search_spaces.names()),
        ("scenario", SCENARIOS),
        ("attributes", ATTRIBUTES),
        ("sampler", SAMPLERS),
        ("scheduler", SCHEDULERS),
        ("metric", METRICS),
        ("protocol", PROTOCOLS),
    ):
        value = method if what == "method" else getattr(args, what)
        if value is not None and value not in known:
            raise Usage(unknown(what, value, known))
    for option, protocol in (("tuning_tasks", FIRST_K_TASKS), ("report_on", OTHER_STREAM)):
        if getattr(args, option) is not None and args.protocol != protocol:
            name = option.replace("_", "-")
            raise Usage(f"--{name} is of --protocol {protocol}: add that, or leave it out")
    typed = {k: getattr(args, k) for k in (*SETTINGS, *ADJUSTABLE)}
    typed["method"] = method
    if typed.pop("reproducible"):
        typed["batch"] = BATCHES_OF * (args.engines or os.cpu_count() or 1)
    typed["fixed"] = dict(args.fix) if args.fix else None
    typed["data_dir"] = args.data_dir and str(Path(args.data_dir).absolute())
    study = Study(name="", **{k: v for k, v in typed.items() if v is not None})
    try:
        check_fixed(study)
    except ValueError as error:
        raise Usage(error) from error
    return study


def old_study(args, directory: Path):
    """The study to go on with, as it was adjusted.

    Raises:
        Usage: if the arguments contradict the study, or there is none.
    """
    if args.study_dir is not None:
        raise Usage("--resume DIR names the study's folder: leave --study-dir out")
    for name in (*SETTINGS, "compare", "fix"):
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            raise Usage(f"--resume takes the study's own settings: leave {option} out")
    study = study_in(directory)
    changed = {k: getattr(args, k) for k in ADJUSTABLE if getattr(args, k) is not None}
    if args.data_dir is not None:
        changed["data_dir"] = str(Path(args.data_dir).absolute())
    return study._replace(**changed)


def resolve(args) -> tuple[Path, dict[Path, Any]]:
    """The folder of what is to be done, and each study with its own folder.

    A study alone is in that folder, the studies of a comparison are in folders in it.

    Raises:
        Usage: if the arguments contradict the study, or the folder is taken.
    """
    from trainables.ray import settings

    if (folder := args.resume) is not None:
        inside = settings.compared(folder) or [folder]
        return folder, {directory: old_study(args, directory) for directory in inside}
    studies = [new_study(args, method) for method in args.compare or [args.method]]
    what = "compare" if args.compare else args.method
    folder = args.study_dir or settings.free(Path("runs") / f"{what}-{studies[0].benchmark}")
    if (folder / "study.yaml").exists() or settings.compared(folder):
        raise Usage(
            f"{folder} holds a study: go on with it by --resume {folder}, "
            "or choose another --study-dir"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Usage(f"{folder} is not an empty folder: choose another --study-dir")
    name = f"{folder.name}-{secrets.token_hex(3)}"
    if not args.compare:
        return folder, {folder: studies[0]._replace(name=name)}
    # Who wants floor and ceiling in a comparison names them.
    return folder, {
        folder / one.method: one._replace(name=f"{name}-{one.method}", references=False)
        for one in studies
    }


def run(args) -> int:
    """Search, choose, print. What can be wrong is looked for before anything starts."""
    folder = None

    def work() -> int:
        nonlocal folder
        from rich.console import Console

        from trainables.ray import settings
        from trainables.ray.study import check, stream_of_study

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
        folder, studies = resolve(args)
        try:
            for study in studies.values():
                stream = stream_of_study(study)
                check(study, stream.problem)
        except ValueError as error:  # unknown benchmark or embedder, missing or damaged data, ...
            raise Usage(error) from error
        if args.dry_run:
            for directory, study in studies.items():
                show_plan(study, directory, stream, console)
            return 0
        if folder in studies:
            search_and_choose(args, studies[folder], folder, console)
            return 0
        settings.write_comparison(folder, studies)
        for directory, study in studies.items():
            if not settings.is_over(directory, study):
                search_and_choose(args, study, directory, console)
        compare(folder, list(studies), console)
        return 0

    def go_on() -> str | None:
        files = ("study.yaml", "comparison.yaml")
        begun = folder and any((folder / name).exists() for name in files)
        return f"python run_search.py --resume {shlex.quote(str(folder))}" if begun else None

    return carried_out(PROGRAM, args.address, work, go_on)


def compare(folder: Path, directories: list[Path], console) -> None:
    """The table of several studies that have ended, shown and kept, and a page of pictures."""
    from analysis import load, report_comparison
    from analysis.comparison import comparison_markdown, comparison_table, read
    from analysis.log import writing

    entries, trials = read(directories)
    with writing(folder / "comparison.md"):
        (folder / "comparison.md").write_text(comparison_markdown(entries, trials))
    console.print(comparison_table(entries, trials))
    console.print(f"Table: {folder / 'comparison.md'}", soft_wrap=True, markup=False)
    page = folder / "report.html"
    with writing(page):
        page.write_text(report_comparison.report([load(d) for d in directories]), "utf-8")
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


def search_and_choose(args, study, directory: Path, console) -> None:
    """The search, the final phase, the table."""
    from analysis.store import Record
    from analysis.tables import final_table
    from trainables.ray import final, settings
    from trainables.ray.study import Place, on_engines, search

    level = "quiet" if args.quiet else "verbose" if args.verbose else "normal"
    place = Place(args.address, args.engines, args.gpus_per_engine, args.lanes)
    with contextlib.ExitStack() as stack:
        stack.enter_context(settings.in_use(directory))
        settings.write(directory, study)
        record = stack.enter_context(Record(directory, study.name))
        opened = on_engines(study, directory, record, place, console, level)
        session, dashboard = stack.enter_context(opened)
        deadline = time.monotonic() + args.time_budget if args.time_budget else None
        search(session, dashboard, deadline)
        try:
            rows, answer = final.run(session)
        except final.NothingCompleted as error:
            raise settings.StudyError(f"{error} (see {directory / 'trials.parquet'})") from error
    console.print(final_table(rows))
    console.print(answer, soft_wrap=True, markup=False)
    report = f"python -m analysis report {shlex.quote(str(directory))}"
    console.print(f"In pictures: {report}", soft_wrap=True, markup=False)


def show_plan(study, directory: Path, stream, console) -> None:
    """``--dry-run``: what would be run."""
    from search_spaces._tree import show
    from trainables.ray.study import rungs

    sizes = ", ".join(str(len(task.train.y)) for task in stream.tasks)
    for name, text in (
        ("study", f"{directory} ({study.trials} trials)"),
        ("stream", f"{len(stream.tasks)} tasks, {study.scenario}-incremental; training: {sizes}"),
        ("score", f"{study.metric.replace('_', ' ')} on validation data after the last task"),
        ("sampler", f"{study.sampler}, seed {study.seed}"),
        ("stopping", f"{study.scheduler}, after {rungs(study, len(stream.tasks))}"),
        ("final", f"{study.top} configurations and the default on {study.final_seeds} fresh seeds"),
    ):
        console.print(f"{name:10}{text}", soft_wrap=True, markup=False)
    console.print("space")
    console.print(show(study.space(), study.default()), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
