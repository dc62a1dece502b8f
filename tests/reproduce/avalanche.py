"""Ours beside Avalanche's: the same methods on the same stream, in accuracy and in seconds.

python3.11 -m venv AVENV
AVENV/bin/pip install avalanche-lib==0.6.0
python -m tests.reproduce.avalanche --data-dir DIR --avalanche-python AVENV/bin/python

The same on both sides: split MNIST (classes, their order, training and test examples, pixels), the
perceptron and its first weights (drawn by ours for each seed), the logits that compete in the loss,
Adam with its rate and a fresh start in every task, batches, updates, how many examples are stored,
one thread. Ours takes those of its options that come closest to theirs.

Not the same: we draw batches with replacement, they walk through a shuffled task again and again;
the random numbers; what the table names. Avalanche has no common unit for λ of EWC and SI: before
each task theirs is set so that the mean importance of the weights is the same in both penalties.

Where the task is not told, methods that store nothing end near 20 %, whatever they do. So the same
networks are also asked to choose among the two classes of each example's task ("task told").

Of twenty intervals of 95 % one misses by chance, and A-GEM ends anywhere between 20 and 45 % after
200 updates a task. Where a row says no, look at other seeds (``--first-seed``) before believing it.

Seconds are of processor time, so that other jobs on the machine count little, and of training
alone: with the tracing of our steps, without imports and the making of data sets. Theirs runs in a
new process each time, where the first steps are slower by some 0.3 s; ours is warmed up once. Each
run is one seed alone: packs, which is how a search trains, are not compared. Test data is opened.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats

import trainables
from analysis.statistics import Interval, mean_interval
from trainables import benchmarks
from trainables.benchmarks import Split, Stream
from trainables.engine.method import configure
from trainables.engine.packs import Engine, hits

SIDE = Path(__file__).with_name("_avalanche_side.py")
BATCH, LR = 128, 1e-3
NETWORK = {"hidden": 128, "layers": 1, "batch_size": BATCH}
MEMORY = 500  # examples in all
TASKS, EXAMPLES = 5, 9600  # examples of a task, about
FISHER = 1024  # examples of a task from which F of EWC is estimated

EWC = {"ewc": 1.0, "online": False, "importance_labels": "true", "importance_examples": FISHER}
STORE = {"memory_size": MEMORY, "replay_batch_size": BATCH}


class Row(NamedTuple):
    """A method on both sides: options of ours, of theirs, and what differs in spite of them."""

    method: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    differs: str
    strength: float = 0.0  # of our penalty: mean importance of a weight, per task learned
    variant: str = ""


ROWS = (
    Row("sequential", {}, {}, "nothing: a control, Avalanche's `Naive`"),
    Row(
        "ewc", EWC, {"mode": "separate"},
        "theirs squares gradients of batches, of the whole task, and tasks count by the size of "
        f"their F; ours squares those of single examples ({FISHER}), and all tasks count the same",
        0.5,
    ),
    Row(
        "ewc", EWC, {"mode": "separate", "examples": FISHER},
        "nothing: theirs is given batches of one to estimate F, which it divides by its mean",
        0.5, "same F",
    ),
    Row(
        "si", {"si": 1.0, "damping": 0.1}, {"eps": 0.1, "si_lambda": 1.0, "copies": True},
        "theirs cuts importances off at 0.001, which is most of them in the end; its path has the "
        "penalty's gradient in it; tasks count by the size of their Ω",
        1.0,
    ),
    Row(
        "si", {"si": 1.0, "damping": 100.0}, {"eps": 100.0, "si_lambda": 1.0, "copies": True},
        "as above, but nothing is cut off where ξ is 100",
        1.0, "ξ = 100",
    ),
    Row(
        "si", {"si": 1.0, "damping": 0.1}, {"eps": 0.1, "si_lambda": 1.0, "copies": False},
        "theirs does nothing on a CPU: what it keeps of the weights is the weights, so they never "
        "seem to move. The two rows above let it copy them, as it does from a GPU",
        0.0, "as shipped",
    ),
    Row(
        "lwf", {"lwf": 0.25, "temperature": 2.0, "per_task": False},
        {"alpha": 1.0, "temperature": 2.0},
        "nothing: one softmax of all old classes, and our λ is theirs / T²",
    ),
    Row(
        "agem", STORE, {"patterns_per_exp": MEMORY // TASKS, "sample_size": BATCH},
        f"theirs stores {MEMORY // TASKS} of each task and draws as many of each; ours stores "
        f"{MEMORY} after every task, as many of each class, and draws at random",
    ),
    Row(
        "er", STORE | {"rehearsal": 1.0, "memory_policy": "balanced"},
        {"mem_size": MEMORY, "batch_size_mem": BATCH},
        "nothing: theirs stores by class (`ClassBalancedBuffer`); it takes the mean over both "
        "batches, ours the sum of their means, which is the same to Adam",
    ),
    Row(
        "icarl", STORE | {"rehearsal": MEMORY / EXAMPLES, "distillation": 1.0},
        {"memory_size": MEMORY},
        "theirs draws one batch from task and memory together, ours one from each, w = M / N; "
        "outputs of classes to come are silenced in theirs; no mirror images, as x is flat",
    ),
)  # fmt: skip


class Outcome(NamedTuple):
    """One run of one side."""

    average: float  # accuracy after the last task, mean over tasks, in per cent
    told: float  # the same among the classes of each example's task
    seconds: float


def ours(row: Row, seed: int, stream: Stream, test: Sequence[Split], steps: int) -> Outcome:
    """A run of our method."""
    method, hyper = built(row.method, row.ours, stream, steps)
    tasks = range(len(stream.tasks))
    batches = [stream.batch(t, method.data) for t in tasks]
    engine = Engine(method, stream.problem)
    lane = engine.start(hyper, seed)
    started = time.process_time()
    for t in tasks:
        engine.join(lane, batches[t], t)
        ended = []
        while not ended:
            ended = engine.advance()
        learned = ended[0][1]
        if learned.diverged:
            raise RuntimeError(f"{row.method}, seed {seed}: {learned.diverged}")
        lane = lane._replace(state=learned.state)
    seconds = time.process_time() - started
    average, told = (
        100 * float(engine.evaluate([lane.state], test, rivals).mean())
        for rivals in (stream.rivals(tasks[-1]), stream.own())
    )
    return Outcome(average, told, seconds)


def built(name: str, options: dict[str, Any], stream: Stream, steps: int):
    """Our method, and its hyperparameters."""
    module = trainables.load(name)
    config = NETWORK | {"lr": LR, "steps": steps} | options
    shape, hyper = configure(module, config)
    return module.build(stream.problem, shape), hyper


def theirs(
    row: Row, seed: int, stream: Stream, test: Sequence[Split], folder: Path, python: str
) -> tuple[Outcome, dict[str, Any]]:
    """A run of Avalanche's method in a process of its own, and what it says beside."""
    command = [python, "-I", str(SIDE), str(folder), str(ROWS.index(row)), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    said = json.loads((folder / "result.json").read_text())
    logits = torch.from_numpy(np.load(folder / "logits.npy"))
    pieces = logits.split([len(split.y) for split in test])
    average, told = (
        100 * np.mean([
            float(hits(piece, split.y, rivals)) / len(split.y)
            for piece, split in zip(pieces, test, strict=True)
        ])
        for rivals in (stream.rivals(len(test) - 1), stream.own())
    )  # fmt: skip
    return Outcome(float(average), float(told), said["seconds"]), said


def hand_over(
    folder: Path, stream: Stream, test: Sequence[Split], steps: int, seeds: range
) -> None:
    """Write what the other side reads."""
    tasks = range(len(stream.tasks))
    train = [task.train for task in stream.tasks]
    arrays = {
        "classes": torch.tensor([task.outputs for task in stream.tasks]),
        "rivals": torch.stack([stream.rivals(t) for t in tasks]),
        "seen": torch.stack([stream.seen(t) for t in tasks]),
    }
    for part, splits in (("train", train), ("test", test)):
        arrays[f"x_{part}"] = torch.cat([split.x.flatten(1) for split in splits])
        arrays[f"y_{part}"] = torch.cat([split.y for split in splits])
    save(folder / "stream.npz", arrays)
    method, hyper = built("sequential", {}, stream, steps)
    for seed in seeds:
        lane = Engine(method, stream.problem).start(hyper, seed)
        save(folder / f"init-{seed}.npz", lane.state.params)
    rows = [{"method": row.method, "own": row.theirs, "strength": row.strength} for row in ROWS]
    settings = {"batch_size": BATCH, "lr": LR, "steps": steps, "rows": rows}
    (folder / "settings.json").write_text(json.dumps(settings))


def save(path: Path, arrays: dict[str, torch.Tensor]) -> None:
    np.savez(path, **{k: v.numpy() for k, v in arrays.items()})  # pyright: ignore


def welch(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Interval for the difference of two means, from independent values of unequal variances.

    Source: Welch, Biometrika 1947. Where a side has one value, it is the whole line.
    """
    apart, n = float(np.mean(a) - np.mean(b)), min(len(a), len(b))
    if n < 2:
        return Interval(apart, -np.inf, np.inf, n)
    parts = [float(np.var(one, ddof=1)) / len(one) for one in (a, b)]
    half, total = 0.0, sum(parts)
    if total:
        freedom = total**2 / sum(v**2 / (len(x) - 1) for v, x in zip(parts, (a, b), strict=True))
        half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * total**0.5
    return Interval(apart, apart - half, apart + half, n)


def cells(mine: Sequence[float], others: Sequence[float]) -> list[str]:
    """Ours, theirs, and whether they agree within the noise of their seeds."""
    both = [mean_interval(values) for values in (mine, others)]
    apart = welch(mine, others)
    verdict = "yes" if apart.low <= 0 <= apart.high else "**no**"
    if apart.n < 2:
        return [f"{one.mean:.1f}" for one in both] + ["n/a"]
    agree = f"{verdict}, {apart.mean:+.1f} ± {apart.half:.1f}"
    return [f"{one.mean:.1f} ± {one.half:.1f}" for one in both] + [agree]


def line(row: Row, mine: Sequence[Outcome], others: Sequence[Outcome]) -> str:
    """A line of the table."""
    columns = [f"`{row.method}`" + (f", {row.variant}" if row.variant else "")]
    for measure in ("average", "told"):
        columns += cells(*([getattr(run, measure) for run in runs] for runs in (mine, others)))
    seconds = [float(np.mean([run.seconds for run in runs])) for runs in (mine, others)]
    columns += [f"{s:.1f}" for s in seconds]
    columns += [f"{seconds[1] / seconds[0]:.1f}", row.differs]
    return "| " + " | ".join(columns) + " |"


HEAD = """\
| method | ours, % | Avalanche, % | agree | ours, task told | Avalanche, task told | agree | \
ours, s | Avalanche, s | ratio | what differs |
|---|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    methods = list(dict.fromkeys(row.method for row in ROWS))
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--data-dir", required=True, help="where MNIST/raw/* is")
    p.add_argument("--avalanche-python", required=True, help="python that has avalanche-lib")
    p.add_argument("--scenario", default="class", choices=["class", "task"], help="what competes")
    p.add_argument("--steps", type=int, default=300, help="updates a task")
    p.add_argument("--seeds", type=int, default=3, help="runs of each method on each side")
    p.add_argument("--first-seed", type=int, default=0, help="of these runs; others follow it")
    p.add_argument("--only", nargs="+", choices=methods, metavar="METHOD", help="some methods")
    p.add_argument("--out", type=Path, help="Markdown file for the table")
    args = p.parse_args()
    torch.set_num_threads(1)
    where = {"scenario": args.scenario, "data_dir": args.data_dir}
    stream = benchmarks.load("split_mnist", **where)
    test = benchmarks.load_test("split_mnist", **where)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    lines, said = [HEAD], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hand_over(folder, stream, test, args.steps, seeds)
        ours(ROWS[0], 0, stream, test, 1)  # what a process does once, is not counted
        for row in ROWS:
            if args.only and row.method not in args.only:
                continue
            mine, others = [], []
            for seed in seeds:
                mine.append(ours(row, seed, stream, test, args.steps))
                other, said = theirs(row, seed, stream, test, folder, args.avalanche_python)
                others.append(other)
                progress(row, seed, mine[-1], other, said)
            lines.append(line(row, mine, others))
    lines += ["", about(args, said)]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


def progress(row: Row, seed: int, mine: Outcome, other: Outcome, said: dict[str, Any]) -> None:
    """A line for a run of both sides."""
    sides = (
        f"{side} {run.average:.1f} % (task told {run.told:.1f} %) in {run.seconds:.1f} s"
        for side, run in (("ours", mine), ("Avalanche", other))
    )
    text = f"{row.method} {row.variant}".strip() + f", seed {seed}: " + ", ".join(sides)
    if said["penalty"]:
        lams = (f"{one['lambda']:.3g}" for one in said["penalty"])
        text += f"; its λ {' '.join(lams)}, largest importance {said['penalty'][-1]['largest']:.3g}"
    print(text, file=sys.stderr, flush=True)


def about(args: argparse.Namespace, said: dict[str, Any]) -> str:
    """The line under the table."""
    return (
        f"Split MNIST, {args.scenario} scenario, seeds {args.first_seed} to "
        f"{args.first_seed + args.seeds - 1}; a perceptron of "
        f"{NETWORK['layers']} × {NETWORK['hidden']} hidden units, Adam at {LR:g}, "
        f"{said['updates'][-1]} updates a task of {BATCH} examples, {MEMORY} stored. Intervals: "
        f"95 %. Avalanche {said['version']} on PyTorch {said['torch']}, ours on "
        f"{torch.__version__}; one thread each."
    )


if __name__ == "__main__":
    main()
