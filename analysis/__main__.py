"""What a study found: a report, tables, and what mattered.

python -m analysis report runs/lgm_acgan-split_digits
"""

import argparse
import contextlib
import functools
import gc
import os
import shlex
import sys
from pathlib import Path

from analysis import load
from analysis.log import RecordError
from trainables.ray.command_line import (
    EXIT_FAILED,
    EXIT_USAGE,
    Parser,
    Usage,
    add_engines,
    carried_out,
    complain,
    positive,
    study_in,
)
from trainables.ray.folders import space_of, studies_in

PROGRAM = "python -m analysis"
COMMANDS = """RUN is the folder that a search printed when it started, e.g.
runs/lgm_acgan-split_digits.

examples:
  python -m analysis report RUN                    one page: the answer, and whether to believe it
  python -m analysis report RUN RUN RUN            the same for several studies, compared
  python -m analysis export RUN --csv tables       every table of the record as CSV
  python -m analysis ablate RUN                    which loss terms and choices matter
  python -m analysis ablate RUN --seeds 10         narrower intervals; what is done is kept
  python -m analysis facil RUN                     against choosing task by task
  python -m analysis metrics RUN                   every metric, with intervals
  python -m analysis pictures RUN                  what the winner and the default replay
  python -m analysis pictures RUN --trial "trial 17"

exit codes: 0 done, 1 failed, 2 usage, 130 interrupted (what is done is saved)
"""
REPORT = """One HTML page that says what a search found, and whether to believe it.

The answer in three sentences; the final table; how the search went, against what random search
would have reached; accuracy and forgetting, task by task; which three knobs to fix, and at what;
early stopping and what it may have cost; losses, samples, time and memory, failures; and what may
be wrong with the search, each with what to do. Works while a search runs, with what there is.

With several RUNs, or the folder of a comparison, they are compared first: a table at an equal
budget, ranks and which differences are more than chance, what tuning buys, at what price.

The page is one file. It opens offline, in a phone's browser as well, in light and in dark.
"""
EXPORT = """The tables of a study for other programs.

--csv writes every frame of the record (trials, accuracy, losses, quality) and the final table;
--latex and --markdown write the final table, of several RUNs the comparison at an equal budget.
"""
ABLATE = """Which parts of a study's winner matter.

Sets the coefficient of each of the winner's loss terms to zero in turn, and makes each of its
choices (text, true or false) otherwise; trains all of these and the winner itself on the same fresh
seeds, and compares them pair by pair. Trains on training data, scores on validation data; test data
stays closed. Prints a table and the answer, draws RUN/ablation.png, and enters every rerun in
RUN/trials.parquet under the role "ablation". What is trained already is not trained again, so a
second call only reads and draws.
"""
PICTURES = """Draw what generative replay remembers, from the examples in RUN/generated.

Writes into RUN/pictures, for the winner and the default: what each class looks like after every
task (images only), and a t-SNE map of real and replayed examples. If the study has measured the
quality of its replay, also a curve over the tasks for each measure.
"""
FACIL = """What choosing task by task would have come to, as FACIL does it.

Before each task: the learning rate that learns it best, then the strongest coefficient that loses
no more than a fifth of that, looking at no other task. Walks the stream so on the fresh seeds of
the final phase, in this process, and compares with the winner's and the default's scores on them,
on validation data. For methods with one coefficient: ewc, icarl, lwf, lwm, mas, rwalk, si. Writes
RUN/facil.yaml.
"""
METRICS = """Every metric of the final phase, with its interval over the fresh seeds.

Accuracy, forgetting, transfer, intransigence against joint training, what not knowing the task
costs, and, where the classifier is told attributes, accuracy on classes to come. On validation
data: of the test data only what the search ended with is known.
"""


def seeds(text: str) -> int:
    """Two differences are equal by chance too often to speak of an interval."""
    if (count := positive(text)) < 3:
        raise argparse.ArgumentTypeError(f"expected at least 3 seeds, got {count}")
    return count


def parser() -> Parser:
    p = Parser(
        prog=PROGRAM,
        description="What a study found, taken apart and drawn.",
        epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = p.add_subparsers(metavar="COMMAND", required=True)

    def add(name, function, about, several=False):
        command = commands.add_parser(
            name,
            help=about.partition("\n")[0].rstrip("."),
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if several:
            command.add_argument(
                "runs", metavar="RUN", type=Path, nargs="+", help="folders of studies"
            )
        else:
            command.add_argument("run", metavar="RUN", type=Path, help="folder of the study")
        command.set_defaults(command=function)
        return command

    page = add("report", report, REPORT, several=True)
    page.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the page (default: RUN/report.html; of several, in the folder that they share)",
    )
    tables = add("export", export, EXPORT, several=True)
    tables.add_argument("--csv", metavar="DIR", type=Path, help="folder for CSV files")
    tables.add_argument("--latex", metavar="FILE", type=Path, help="file for LaTeX (booktabs)")
    tables.add_argument("--markdown", metavar="FILE", type=Path, help="file for Markdown")
    ablation = add("ablate", ablate, ABLATE)
    ablation.add_argument(
        "--seeds", metavar="N", type=seeds, default=5, help="fresh seeds, at least 3 (default: 5)"
    )
    add_engines(ablation.add_argument_group("where"))
    add("facil", task_by_task, FACIL)
    add("metrics", show_metrics, METRICS)
    pictures = add("pictures", draw, PICTURES)
    pictures.add_argument(
        "--trial",
        metavar="LABEL",
        help='as in trials.parquet, e.g. "trial 17", "default", or winner (default: both)',
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        args = parser().parse_args(arguments)
        return args.command(args)
    except Usage as error:
        return complain(PROGRAM, error, EXIT_USAGE)
    except RecordError as error:
        return complain(PROGRAM, error, EXIT_FAILED)


@contextlib.contextmanager
def uncollected():
    """No search for garbage: a page is made of very many objects that stay to its end, and looking
    through them again and again takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@uncollected()
def report(args) -> int:
    """``report``."""
    from analysis import report as of_one
    from analysis import report_comparison as of_several
    from analysis.answer import sentences
    from analysis.log import writing

    runs = studies_in(args.runs)
    studies = [load(run) for run in runs]
    file = (
        args.out or Path(os.path.commonpath([run.resolve() for run in args.runs])) / "report.html"
    )
    if len(studies) == 1:
        html, said = of_one.report(studies[0], space_of(runs[0])), sentences(studies[0])
    else:
        html, said = of_several.report(studies), of_several.sentences(studies)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(html, encoding="utf-8")
    for sentence in said:
        print(sentence)
    print(f"Report: {file}")
    return 0


def export(args) -> int:
    """``export``."""
    from analysis import export
    from analysis.log import writing

    texts = {args.latex: export.latex, args.markdown: export.markdown}
    if not args.csv and not any(texts):
        raise Usage("expected at least one of --csv DIR, --latex FILE, --markdown FILE")
    studies = [load(run) for run in studies_in(args.runs)]
    files = export.csv(studies, args.csv) if args.csv else []
    for file, text in texts.items():
        if file:
            content = text(studies)
            with writing(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content, encoding="utf-8")
            files.append(file)
    for file in files:
        print(file)
    return 0


def ablate(args) -> int:
    """``ablate``."""
    study = study_in(args.run)

    def work() -> int:
        from rich.console import Console

        from analysis.ablation import plot, sentence, table
        from analysis.log import writing
        from analysis.store import Record
        from trainables.ray import ablation
        from trainables.ray.settings import in_use
        from trainables.ray.study import Place, on_engines

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
        place = Place(args.address, args.engines, args.gpus_per_engine)
        with in_use(args.run), Record(args.run, study.name) as record:
            opened = functools.partial(
                on_engines, study, args.run, record, place, console, "normal"
            )
            found = ablation.run(study, args.run, record, args.seeds, opened)
        picture = args.run / "ablation.png"
        with writing(picture):
            plot(found, picture)
        console.print(table(found))
        console.print(sentence(found), soft_wrap=True, markup=False)
        console.print(f"Picture: {picture}", soft_wrap=True, markup=False)
        return 0

    again = f"{PROGRAM} ablate {shlex.quote(str(args.run))} --seeds {args.seeds}"
    return carried_out(PROGRAM, args.address, work, lambda: again)


def task_by_task(args) -> int:
    """``facil``."""
    study = study_in(args.run)

    def work() -> int:
        from rich.console import Console

        from analysis.facil import choices, table
        from trainables.ray.facil import run

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
        with console.status("FACIL: walking the stream") as status:
            found = run(study, args.run, lambda n: status.update(f"FACIL: {n} seeds walked"))
        console.print(table(found))
        console.print(choices(found), soft_wrap=True, markup=False)
        return 0

    again = f"{PROGRAM} facil {shlex.quote(str(args.run))}"
    return carried_out(PROGRAM, None, work, lambda: again)


def show_metrics(args) -> int:
    """``metrics``."""
    study_in(args.run)
    from rich.console import Console

    from analysis.measures import measures_table, read

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(measures_table(read(args.run)))
    return 0


def draw(args) -> int:
    """``pictures``."""
    study_in(args.run)
    from analysis import pictures

    for file in pictures.draw(args.run, args.trial):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
