"""What a person sees while a study runs: a live table, or lines where there is no terminal."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainables.ray.recorder import status_of

LINE_EVERY = 15.0  # seconds between plain lines at most


class Screen(tune.Callback):
    """Best so far, running trials with their tasks, counts, time left. One for each search.

    Args:
        console: where to; a live table if it is a terminal, else lines.
        title: first line.
        footer: last lines (where to watch the run).
        total: number of trials when the study is complete.
        tasks: number of tasks of the stream.
        metric: name of the score, on which higher is better.
        finished: rows of trials that ended in earlier runs of this study.
        level: "quiet" shows nothing, "normal" the table, "verbose" also a line for each trial.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        footer: list[str],
        total: int,
        tasks: int,
        metric: str,
        finished: list[dict[str, Any]],
        level: str = "normal",
    ):
        self.console, self.title, self.footer = console, title, footer
        self.total, self.tasks, self.metric, self.level = total, tasks, metric, level
        self.counts = Counter(row["status"] for row in finished)
        self.best: tuple[float, int] | None = None
        for row in finished:
            if row["score"] is not None:
                self._challenge(row["score"], row["trial_id"])
        self.running: dict[int, int] = {}  # number -> tasks learned
        self.before = sum(self.counts.values())
        self.began = self.last_line = time.monotonic()
        self.live: Live | None = None
        self.warned: set[str] = set()

    def __getstate__(self) -> dict:
        """Tune pickles its callbacks for a restore that we do not use."""
        return {}

    def __enter__(self) -> "Screen":
        if self.level != "quiet" and self.console.is_terminal:
            self.live = Live(
                get_renderable=self.table,
                console=self.console,
                refresh_per_second=2,
                transient=True,
            )
            self.live.start()
        elif self.level != "quiet":
            for line in (self.title, *self.footer):
                self._print(line)
        return self

    def __exit__(self, *error) -> None:
        if self.live:
            self.live.stop()
            self.console.print(self.table())
        elif self.level != "quiet":
            self._line()

    def on_trial_start(self, iteration, trials, trial, **info) -> None:
        if not self.running and self.done == self.before:
            self.began = time.monotonic()  # starting Ray's workers is no trial's time
        self.running[trial.config["number"]] = 0

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        number = trial.config["number"]
        self.running[number] = result["tasks_learned"]
        if "unsaved" in result:
            self._warn(
                "unsaved", f"{result['unsaved']}: after a crash its trial starts further back"
            )
        if "narrowed" in result:
            self._warn(result["narrowed"], result["narrowed"])
        if result.get("done"):
            self._end(number, result)

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        self._end(trial.config["number"], {"failure": "its process died"})

    def _end(self, number: int, result: Mapping[str, Any]) -> None:
        self.running.pop(number, None)
        status = status_of(result, self.tasks)
        self.counts[status] += 1
        better = status == "completed" and self._challenge(result[self.metric], number)
        if self.level == "verbose":
            score = result.get(self.metric)
            shown = "" if score is None else f", {score:.1%} after task {result['tasks_learned']}"
            detail = f": {result['failure']}" if status == "failed" else ""
            self._print(f"trial {number} {status}{shown}{detail}")
        elif status == "failed":
            self._print(f"trial {number} failed: {result['failure']}")
        if not self.live and (better or time.monotonic() - self.last_line > LINE_EVERY):
            self._line()

    def _warn(self, cause: str, line: str) -> None:
        """Say it, once."""
        if cause not in self.warned:
            self.warned.add(cause)
            self._print(line)

    def _challenge(self, score: float, number: int) -> bool:
        if self.best is None or score > self.best[0]:
            self.best = score, number
            return True
        return False

    def _print(self, line: str) -> None:
        if self.level != "quiet":
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _line(self) -> None:
        self.last_line = time.monotonic()
        self._print(f"{self.done}/{self.total} trials  {self.tally()}  best: {self.best_so_far()}")

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def tally(self) -> str:
        """Counts of ended trials, and the time."""
        names = {"completed": "completed", "stopped": "stopped early", "failed": "failed"}
        counts = ", ".join(f"{self.counts[k]} {name}" for k, name in names.items())
        return f"{counts}  {self.time()}"

    def time(self) -> str:
        """Elapsed and, once trials have ended, what is left."""
        elapsed, ended = time.monotonic() - self.began, self.done - self.before
        left = ""
        if ended and self.done < self.total:
            left = f", about {clock(elapsed / ended * (self.total - self.done))} left"
        return f"{clock(elapsed)} elapsed{left}"

    def best_so_far(self) -> str:
        if self.best is None:
            return "no trial has completed yet"
        score, number = self.best
        return f"{self.metric.replace('_', ' ')} {score:.1%} (trial {number}, validation)"

    def table(self) -> Group:
        """The live table."""
        rows = Table.grid(padding=(0, 2))
        rows.add_row("best", self.best_so_far())
        running = [f"{n} (task {k + 1}/{self.tasks})" for n, k in sorted(self.running.items())]
        shown = ", ".join(running[:8]) + (f" and {len(running) - 8} more" if running[8:] else "")
        idle = "none" if self.done else "none yet: starting workers ..."
        rows.add_row("running", f"trial {shown}" if running else idle)
        rows.add_row("ended", self.tally())
        for line in self.footer:
            name, _, rest = line.partition(" ")
            rows.add_row(name, Text(rest.strip(), overflow="fold"))
        bar = ProgressBar(total=self.total, completed=self.done, width=40)
        head = Table.grid(padding=(0, 2))
        head.add_row(bar, f"{self.done}/{self.total} trials")
        return Group(Text(self.title, style="bold"), head, rows)


def clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
