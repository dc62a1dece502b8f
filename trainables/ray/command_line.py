"""What our command lines share: options, refusals in one line, exit codes.

Nothing here imports Ray before ``carried_out`` has set what Ray reads at its import.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class Usage(Exception):
    """What was typed cannot be run; one line that says what to type instead."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Usage(f"{message} (see --help)")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value < 1 or (value >= 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(
            f"expected 0, a share of a GPU such as 0.5, or a whole number, got {text!r}"
        )
    return value


def add_engines(group) -> None:
    """The options that say what to train on, to a parser or a group of one."""
    group.add_argument(
        "--engines",
        metavar="N",
        type=positive,
        help="processes that train (default: one a GPU, else one a CPU)",
    )
    group.add_argument(
        "--gpus-per-engine",
        metavar="N",
        type=share,
        help="GPUs, or a share of one (default: 1 if there are any)",
    )
    group.add_argument(
        "--address",
        metavar="ADDR",
        help="a running Ray cluster, e.g. auto (default: this machine)",
    )


def study_in(directory: Path):
    """The settings of a study that was named on the command line.

    Raises:
        Usage: if there is none.
    """
    from trainables.ray import settings

    try:
        return settings.read(directory)
    except settings.StudyError as error:
        raise Usage(error) from error


def complain(program: str, error: Exception, code: int) -> int:
    print(f"{program}: {error}", file=sys.stderr)
    return code


def carried_out(
    program: str, address: str | None, work: Callable[[], int], go_on: Callable[[], str | None]
) -> int:
    """Do the work of a command that may train; returns its exit code.

    Args:
        program: what its complaints begin with.
        address: of a running cluster, or None.
        work: what to do; it may import Ray.
        go_on: the command that goes on with it after an interrupt, or None if nothing has begun.
    """
    from trainables.ray import environment

    try:
        environment.prepare(address)  # before Ray is imported
    except OSError as error:
        reason = f"cannot write Ray's token: {error}: "
        hint = "make your home folder writable, or set RAY_AUTH_TOKEN"
        return complain(program, OSError(reason + hint), EXIT_FAILED)
    from analysis.log import RecordError
    from trainables.ray.cluster import ClusterError
    from trainables.ray.settings import StudyError

    try:
        return work()
    except Usage as error:
        return complain(program, error, EXIT_USAGE)
    except (StudyError, ClusterError, RecordError) as error:
        return complain(program, error, EXIT_FAILED)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if command := go_on():
            said = f"\ninterrupted; what is done is saved. Go on with:\n  {command}"
        else:
            said = "\ninterrupted before the study began"
        print(said, file=sys.stderr)
        return EXIT_INTERRUPTED
