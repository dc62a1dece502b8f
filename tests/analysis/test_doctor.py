"""Each finding on a small study that has exactly that trouble, and none on a clean one."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from analysis import doctor, importance
from analysis.doctor import failures, findings, seed_spread
from tests.analysis.studies import study

SPACE = {"lr": FloatDistribution(1e-9, 1.0), "tau": FloatDistribution(0.0, 1.0)}
SEEDS = [1, 2, 3, 4, 5]
BEGAN = datetime(2026, 11, 20, tzinfo=UTC)


def search(count=60, seed=0, spread=1.0):
    """The score depends on both parameters, is best in the middle, and found before the end."""
    x = np.random.default_rng(seed).random((count, 2))
    scores = 0.9 - spread * ((x[:, 0] - 0.5) ** 2 + (x[:, 1] - 0.5) ** 2)
    x, scores = (np.roll(one, 10 - scores.argmax(), axis=0) for one in (x, scores))
    return [
        {"score": s, "config": {"lr": a, "tau": b}, "finished": BEGAN + timedelta(hours=n)}
        for n, (s, (a, b)) in enumerate(zip(scores.tolist(), x.tolist(), strict=True))
    ]


def final(label, scores, method="ewc"):
    return [
        {"role": "final", "label": label, "method": method, "seed": s, "score": v,
         "joint_accuracy": v, "trial_id": 1_000_000 + 10 * len(label) + s}
        for s, v in zip(SEEDS, scores, strict=False)
    ]  # fmt: skip


AROUND = np.array([-0.01, 0.0, 0.01, 0.005, -0.005])
REACHED = {"winner": 0.9, "default": 0.8, "sequential": 0.3, "joint": 0.95}


def ended(trials=None, reached=REACHED, seeds=5, extra=(), best=None, **settings):
    """A study at its end; ``reached`` is joint accuracy on test data."""
    compared = {
        label: {"per_seed_test_joint_accuracy":
                dict(zip(SEEDS[:seeds], (v + AROUND).tolist(), strict=False))}
        for label, v in reached.items()
    }  # fmt: skip
    gain = {"mean": 0.1, "low": 0.08, "high": 0.12, "n": seeds}
    best = {
        "trial": 10, "config": {"lr": 0.5, "tau": 0.5, "idle": 0.5}, "comparison": compared,
        "gain_over_default": gain, "test_opened": 1,
    } | (best or {})  # fmt: skip
    winner = final("trial 10", (0.9 + 0.1 * AROUND).tolist())
    return study(
        [*(search() if trials is None else trials), *winner, *extra], best=best, **settings
    )


def titles(made, space):
    return [one.title for one in findings(made, space, NOT_ASKED)]


def test_a_clean_study_has_nothing():
    assert findings(ended(), SPACE) == []


def trials_at_the_edge(flip=False):
    trials = search()
    for trial in trials:  # the nearer to 1, the better
        trial["score"] = trial["config"]["lr"] - 0.2 * abs(trial["config"]["tau"] - 0.5)
    best = max(range(60), key=lambda n: trials[n]["score"])
    trials[5], trials[best] = trials[best], trials[5]
    for trial in trials if flip else ():
        trial["config"]["lr"] = 1 - trial["config"]["lr"]
    return [t | {"finished": BEGAN + timedelta(hours=n)} for n, t in enumerate(trials)]


def changed(trials, numbers, **columns):
    return [t | columns if n in numbers else t for n, t in enumerate(trials)]


def with_dead():
    rng = np.random.default_rng(2)
    return [t | {"config": t["config"] | {"idle": rng.random()}} for t in search()]


def test_nothing_lies_beyond_zero():
    trials = ended(trials_at_the_edge(flip=True))
    assert any("lower end of lr" in title for title in titles(trials, SPACE))
    assert not titles(trials, SPACE | {"lr": FloatDistribution(0.0, 1.0)})


def doomed_control():
    """Number 3 is a control under seed 0: far behind after two tasks, and best at the end."""
    trials, matrices = search(40), {}
    for n, trial in enumerate(trials):
        retained = 0.1 if n in (20, 27, 35) else trial["score"]
        matrices[n] = [[0.9], [retained, 0.9], [retained, retained, 0.9]]
    stopped = {"status": "stopped", "tasks_learned": 2, "score": None}
    trials = changed(trials, [20, 35], **stopped)
    trials = changed(trials, [27], score=0.99)
    for n in (20, 35):
        matrices[n] = matrices[n][:2]
    return study(trials, matrices)


def lottery():
    """The value after two tasks has nothing to do with the end."""
    rng, trials = np.random.default_rng(3), search(40)
    matrices = {n: [[0.9], [a, 0.9], [a, a, 0.9]] for n, a in enumerate(rng.random(40).tolist())}
    trials = changed(trials, [20], status="stopped", tasks_learned=2, score=None)
    return study(trials, matrices | {20: matrices[20][:2]})


NAN = {"status": "failed", "score": None, "tasks_learned": 1,
       "reason": "ce became nan in task 1, phase classifier"}  # fmt: skip
NOT_ASKED = pd.DataFrame(columns=importance.COLUMNS)  # what takes long
GAIN = {"mean": 0.02, "low": -0.01, "high": 0.05, "n": 5}
CASES = {
    "no trial has ended": lambda: study(),
    "no trial has completed": lambda: study([NAN] * 3),
    "the study is not at its end": lambda: study(search()),
    "trials failed": lambda: ended(changed(search(), range(30, 35), **NAN)),
    "configurations were tried more than once": lambda: ended(
        [*(s := search()), s[3] | {"finished": BEGAN + timedelta(hours=99)}]
    ),
    "much of the search was random": lambda: ended(search(20)),
    "the best trials lie at the upper end of lr": lambda: ended(trials_at_the_edge()),
    "the best trials lie at the lower end of lr": lambda: ended(trials_at_the_edge(flip=True)),
    "of 3 parameters are not shown": lambda: ended(with_dead()),
    "the best trials do not differ by more than chance": lambda: ended(
        extra=final("trial 4", [0.7, 0.9, 0.8, 0.95, 0.6])
    ),
    "the best score was still rising": lambda: ended(
        changed(search(), [58], score=0.99, config={"lr": 0.51, "tau": 0.49})
    ),
    "stopping after task 2 was close to a lottery": lottery,
    "a trial like those that were stopped": doomed_control,
    "few seeds in the final phase": lambda: ended(seeds=3),
    "tuning is not shown to help": lambda: ended(best={"gain_over_default": GAIN}),
    "the default won": lambda: ended(best={"gain_over_default": GAIN, "trial": None}),
    "no better than training in sequence": lambda: ended(reached=REACHED | {"sequential": 0.91}),
    "validation promises more than test": lambda: ended(
        reached=REACHED | {"winner": 0.8}, protocol="end_of_stream"
    ),
    "no reference": lambda: ended(reached={"winner": 0.9, "default": 0.8, "joint": 0.95}),
    "test data was opened more than once": lambda: ended(best={"test_opened": 2}),
    "tuned on the stream that is reported": lambda: ended(protocol="end_of_stream"),
}
ALONGSIDE = {  # what comes with a trouble by its nature
    "validation promises more than test": {"tuned on the stream that is reported"},
    "no trial has completed": {"trials failed"},
    "stopping after task 2 was close to a lottery": {"the study is not at its end"},
    "a trial like those that were stopped": {"the study is not at its end"},
}


@pytest.mark.parametrize("trouble", CASES)
def test_a_trouble_is_found_alone_with_evidence_and_advice(trouble):
    made, space = CASES[trouble](), SPACE | {"idle": FloatDistribution(0.0, 1.0)}
    found = findings(made, space, None if "parameters" in trouble else NOT_ASKED)
    expected = {trouble, *ALONGSIDE.get(trouble, ())}
    assert len(found) == len(expected), [one.title for one in found]
    for one in found:
        assert any(name in one.title for name in expected), one.title
        if not one.title.startswith(("tuned on", "no reference", "the default won")):
            assert any(c.isdigit() for c in one.evidence), one.evidence
        assert one.advice and one.severity in doctor.SEVERITIES


def test_the_worst_comes_first_and_commands_can_be_typed():
    trials = changed(search(20), range(12, 20), **NAN)
    made = ended(trials, protocol="end_of_stream", scenario="task")
    found = findings(made, SPACE, NOT_ASKED)
    order = [doctor.SEVERITIES.index(one.severity) for one in found]
    assert order == sorted(order) and found[0].title == "trials failed"
    assert "`python run_search.py --resume runs/s --trials 40`" in found[1].advice
    assert "--method ewc --benchmark gaussian --scenario task --protocol" in found[-1].advice


def test_failures_are_grouped_by_cause():
    trials = changed(search(20), [1, 4, 7], **NAN)
    trials = changed(trials, [4], reason="ce became nan in task 2, phase gan", tasks_learned=2)
    trials = changed(trials, [9], status="failed", reason=None, score=None)
    trials = changed(trials, [11], status="failed", reason="the engine died\nTraceback", score=None)
    found = failures(study(trials))
    assert found.cause.tolist() == ["ce became nan", "no reason in the record", "the engine died"]
    assert found.trials.tolist() == [3, 1, 1] and found.share[0] == 3 / 20
    assert found.trial_ids[0] == [1, 4, 7] and found.tasks[0] == 1
    assert failures(study()).empty


def test_the_spread_over_seeds_is_pooled_within_configurations():
    made = study([*final("trial 1", [0.1, 0.3]), *final("trial 22", [0.8, 0.9, 1.0]),
                  *final("joint", [0.0, 1.0], method="joint")])  # fmt: skip
    spread, freedom = seed_spread(made)
    assert freedom == 3 and spread == pytest.approx(np.sqrt((0.02 + 0.02) / 3))
    assert seed_spread(study())[1] == 0


def test_an_edge_of_few_whole_numbers_is_no_surprise():
    trials = [t | {"config": {"n": 1 + k % 2}} for k, t in enumerate(search())]
    assert not any("end of n" in t for t in titles(ended(trials), {"n": IntDistribution(1, 2)}))
