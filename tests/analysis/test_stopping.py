"""Rungs and control trials of hand-made searches, and the scheduler itself."""

import inspect

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import stopping
from tests.analysis.studies import study
from trainables.engine import metrics
from trainables.ray import scheduler
from trainables.ray.scheduler import make_scheduler


def walk(rng, quality, tasks=4):
    a = quality + 0.05 * rng.normal(size=(tasks, tasks))
    return np.tril(a).tolist()


def searched(count=40, seed=0, **settings):
    """A search as the scheduler leads it, one trial after the other."""
    rng = np.random.default_rng(0)
    led = make_scheduler("median", metric="m", tasks=4, seed=seed)
    trials, matrices = [], {}
    for n in range(count):
        matrix = walk(rng, rng.random())
        trial = {"tasks_learned": 4, "score": float(np.mean(matrix[3]))}
        for task in range(2, 4):
            value = float(metrics.retained_accuracy(np.array(matrix)[:task, :task]))
            if reason := led.judge(n, task, value):
                trial = {"tasks_learned": task, "status": "stopped", "reason": reason}
                break
        trials.append(trial)
        matrices[n] = matrix[: trial["tasks_learned"]]
    return study(trials, matrices, seed=seed, **settings), led


def test_values_are_what_the_scheduler_compares():
    made, _ = searched()
    values = stopping.rung_values(made)
    assert values.columns.tolist() == [1, 2, 3, 4] and values[1].isna().all()
    for n, row in made.trials.set_index("trial_id").iterrows():
        a = np.zeros((4, 4))
        own = made.accuracy.query("trial_id == @n")
        a[own.after_task, own.on_task] = own.accuracy
        for k in range(2, 5):
            expected = metrics.retained_accuracy(a[:k, :k]) if k <= row.tasks_learned else np.nan
            assert values.loc[n, k] == pytest.approx(float(expected), nan_ok=True)


def test_of_generators_it_is_the_metric_with_every_example_counted_once():
    made = study([{"score": 0.5, "tasks_learned": 2}], {0: [[0.1], [0.2, 0.3]]}, metric="cas")
    made.accuracy.loc[made.accuracy.on_task == 1, "examples"] = 30
    cells = [(0, 7, "validation", i, j, "cas", v) for i, j, v in
             [(0, 0, 0.9), (1, 0, 0.4), (1, 1, 0.8)]]  # fmt: skip
    quality = made.quality.reindex(range(3))
    quality[:] = cells
    quality = quality.astype({"trial_id": int, "after_task": int, "on_task": int, "value": float})
    values = stopping.rung_values(made._replace(quality=quality))
    assert values.loc[0].tolist() == pytest.approx([0.9, (10 * 0.4 + 30 * 0.8) / 40])


def test_rungs_count_trials_and_correlate_as_scipy_does():
    made, _ = searched()
    found = stopping.rungs(made).set_index("tasks")
    assert found.index.tolist() == [1, 2, 3]
    stopped = made.trials.query("status == 'stopped'")
    assert found.stopped.sum() == len(stopped) > 10
    assert found.reached.tolist() == [40, 40, 40 - found.stopped[2]]
    ended = made.trials.query("status == 'completed'").set_index("trial_id").score
    values = stopping.rung_values(made).loc[ended.index]
    for tasks in (2, 3):
        rho = stats.spearmanr(values[tasks], ended).statistic
        assert found.correlation[tasks] == pytest.approx(rho)
        assert found.low[tasks] < rho < found.high[tasks] and found.completed[tasks] == len(ended)
    assert np.isnan(found.correlation[1])  # nothing is retained after one task
    assert stopping.rungs(study()).empty


def test_the_interval_of_a_correlation_covers():
    rng, covered, true = np.random.default_rng(0), 0, 6 / np.pi * np.arcsin(0.7 / 2)
    for _ in range(300):
        x, e = rng.normal(size=(2, 30))
        y = 0.7 * x + np.sqrt(1 - 0.49) * e
        low, high = stopping._fisher(stats.spearmanr(x, y).statistic, 30, 0.95)
        covered += low <= true <= high
    assert 0.91 <= covered / 300 <= 0.99


def test_controls_are_those_of_the_scheduler():
    defaults = inspect.signature(make_scheduler).parameters
    assert defaults["control_share"].default == stopping.CONTROL_SHARE
    assert 1 / defaults["reduction_factor"].default == stopping.KEEP
    assert (scheduler.PEERS, scheduler.CONTROL) == (stopping.PEERS, stopping.CONTROL)
    for seed in (0, 3):
        made, led = searched(60, seed)
        controls = [n for n in range(60) if led.is_control(n)]
        assert [n for n in range(60) if stopping.is_control(made, n)] == controls != []
        assert stopping.regret(made).controls == controls


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_regret_is_what_the_doomed_controls_reached(seed):
    """Trials arrive by number here, so that the rule is the scheduler's own."""
    made, led = searched(60, seed)
    judged = make_scheduler("median", metric="m", tasks=4, seed=seed, control_share=0.0)
    values, doomed = stopping.rung_values(made), set()
    for n in range(60):
        for task in (2, 3):
            value = values.loc[n, task]
            if np.isfinite(value) and judged.judge(n, task, value) and led.is_control(n):
                doomed.add(n)
    found = stopping.regret(made)
    assert found.doomed == sorted(doomed) != []
    assert (found.beat, found.loss, found.low) == (0, 0.0, 0.0)
    m = len(doomed)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / m))  # Clopper and Pearson with none of m

    lucky = found.doomed[0]
    best = made.trials.query("trial_id not in @found.doomed").score.max()
    made.trials.loc[made.trials.trial_id == lucky, "score"] = best + 0.1
    again = stopping.regret(made)
    assert (again.beat, again.share) == (1, 1 / m) and again.loss == pytest.approx(0.1)


def test_a_trial_falls_behind_below_the_median_of_five_before_it():
    values = pd.DataFrame({2: [0.1, 0.2, 0.3, 0.4, 0.5, 0.29, 0.3, 0.9, np.nan]})
    below = [n for n in range(9) if stopping._below(values, 2, n)]
    assert below == [5]
    assert not stopping._below(values.iloc[1:], 2, 5)  # of four nothing is said


def test_without_controls_nothing_is_claimed():
    found = stopping.regret(study([{"score": 0.5}] * 3))
    assert (found.stopped, found.doomed, found.low, found.high) == (0, [], 0.0, 1.0)
    assert np.isnan(found.loss) and np.isnan(found.share)
