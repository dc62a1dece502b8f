"""Importance against Optuna's own evaluators, closed forms, and repeated searches."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from analysis import importance
from analysis.importance import (
    Data,
    fanova,
    forest,
    grow,
    importances,
    interactions,
    slices,
    surface,
)
from analysis.parameters import bounds, codes, configurations, scored, searched
from tests.analysis.studies import study

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "momentum": FloatDistribution(0.0, 0.9),
    "kind": CategoricalDistribution(["a", "b", "c"]),
    "extra": FloatDistribution(0.1, 30.0, log=True),
    "flag": CategoricalDistribution([True, False]),
    "steps": IntDistribution(1, 300),
    "width": IntDistribution(1, 100, log=True),
}


def objective(trial):
    """``extra`` exists where ``kind`` is not c; ``flag`` and ``steps`` do nothing."""
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    momentum = trial.suggest_float("momentum", 0.0, 0.9)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    extra = trial.suggest_float("extra", 0.1, 30.0, log=True) if kind != "c" else 1.0
    trial.suggest_categorical("flag", [True, False])
    trial.suggest_int("steps", 1, 300)
    width = trial.suggest_int("width", 1, 100, log=True)
    score = -((np.log10(lr) + 2) ** 2) + momentum**2 + 0.3 * np.log10(extra) * (kind == "a")
    return score + 0.1 * np.log(width)


@pytest.fixture(scope="module")
def by_optuna():
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(objective, n_trials=120)
    return made


@pytest.fixture(scope="module")
def by_us(by_optuna):
    """The same study from its record, where other trials and roles must not count."""
    trials = [{"config": t.params, "score": t.value} for t in by_optuna.trials]
    stopped = {"status": "stopped", "config": {"lr": 0.05, "kind": "b"}}
    final = {"role": "final", "score": 9.0, "config": {"lr": 0.05, "beta": 3.0}}
    return study([*trials, stopped, final])


@pytest.fixture(scope="module")
def frame(by_us):
    return importances(by_us, SPACE)


def test_ped_anova_is_optunas(by_optuna, by_us, frame):
    for top in (0.1, 0.25):
        found = importance.ped_anova(importance.data(by_us, SPACE), top)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=top)
        expected = evaluator.evaluate(by_optuna)
        assert dict(zip(SPACE, found, strict=True)) == pytest.approx(expected, rel=1e-9)
    frame = frame.query("method == 'ped_anova'").set_index("name")
    shares = optuna.importance.get_param_importances(by_optuna)
    assert frame["mean"].to_dict() == pytest.approx(shares)
    assert frame["mean"].is_monotonic_decreasing
    has = sum("extra" in t.params for t in by_optuna.trials)
    assert frame.trials["extra"] == has < 120 == frame.trials["lr"] == frame["of"].max()


def test_fanova_is_optunas_on_the_scale_that_is_searched():
    """Optuna's takes the variance over the raw value, so it is given the logarithm."""
    ranges = {"a": FloatDistribution(-3, 2), "b": FloatDistribution(0, 1),
              "c": FloatDistribution(5, 9)}  # fmt: skip
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    made.optimize(lambda t: t.suggest_float("a", -3, 2) * t.suggest_float("b", 0, 1)
                  + np.sin(t.suggest_float("c", 5, 9)), n_trials=40)  # fmt: skip
    x = np.array([[t.params[name] for name in ranges] for t in made.trials])
    y = np.array([t.value for t in made.trials])
    ends = np.array([bounds(one) for one in ranges.values()])
    expected = FanovaImportanceEvaluator(n_trees=6, seed=3).evaluate(made)
    found = dict(zip(ranges, fanova(x, y, ends, trees=6, seed=3), strict=True))
    assert found == pytest.approx(expected, rel=1e-9)

    logs = [{"score": v, "config": {"a": 10**a, "b": b, "c": c}}
            for v, (a, b, c) in zip(y, x.tolist(), strict=True)]  # fmt: skip
    space = ranges | {"a": FloatDistribution(1e-3, 1e2, log=True)}
    known = importance.data(study(logs), space)
    again = fanova(known.x, y, np.array([bounds(one) for one in space.values()]), 6, 3)
    assert list(again) == pytest.approx([expected[name] for name in ranges], rel=1e-6)


def test_shares_of_an_additive_and_of_a_multiplied_score():
    """Var x = 1/12; of x y on the unit square V = 7/144, V_x = V_y = 3/144, and 1/144 is left."""
    rng = np.random.default_rng(0)
    x = rng.random((400, 3))
    ends = np.array([[0.0, 1.0]] * 3)
    added = fanova(x, 2 * x[:, 0] + x[:, 1], ends, 16, 0)
    assert added == pytest.approx([0.8, 0.2, 0.0], abs=0.03)
    times = fanova(x, x[:, 0] * x[:, 1], ends, 16, 0)
    assert times == pytest.approx([3 / 7, 3 / 7, 0.0], abs=0.04)

    trials = [{"score": a * b, "config": {"a": a, "b": b, "c": c}} for a, b, c in x.tolist()]
    space = dict.fromkeys("abc", FloatDistribution(0.0, 1.0))
    grown = forest(study(trials), space)
    pairs = interactions(grown)
    assert tuple(pairs.iloc[0][["first", "second"]]) == ("a", "b") and len(pairs) == 3
    assert pairs.share[0] == pytest.approx(1 / 7, abs=0.04) and (pairs.share[1:] < 0.01).all()
    map_ = surface(grown, "a", "b", points=5)
    error = map_.score - map_["first"] * map_["second"]
    assert len(map_) == 25 and np.abs(error).max() < 0.16 and np.abs(error).mean() < 0.04


def test_a_trees_boxes_predict_what_the_tree_does():
    rng = np.random.default_rng(0)
    x, y, ends = rng.random((50, 2)), rng.random(50), np.array([[0.0, 1.0]] * 2)
    (boxes,) = grow(x, y, ends, 1, 0)
    inside = ((boxes.low <= x[:, None]) & (x[:, None] <= boxes.high)).all(axis=2)  # (50, L)
    assert (inside.sum(axis=1) == 1).all()
    tree = importance.RandomForestRegressor(1, max_depth=64, random_state=0).fit(x, y)
    assert boxes.value[inside.argmax(axis=1)] == pytest.approx(tree.predict(x))


def made_up(n, seed):
    """One parameter matters, one a little, two do not."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, 4))
    ranges = {name: FloatDistribution(0.0, 1.0) for name in "abcd"}
    return Data(x, x[:, 0] + 0.4 * x[:, 1] + 0.1 * rng.normal(size=n), ranges)


@pytest.mark.slow
def test_intervals_cover_and_noise_is_told_from_effects():
    """The truth of an interval is the mean over repeated searches of its size."""
    found = [importance.of_data(made_up(40, seed), seed) for seed in range(6)]
    found = [one.set_index(["method", "name"]).sort_index() for one in found]
    truth = np.mean([one["mean"] for one in found], axis=0)
    covered = np.array([(one.low <= truth) & (truth <= one.high) for one in found])
    assert covered.mean() >= 0.9 and covered.mean(axis=0).min() >= 4 / 6
    spread = np.std([one["mean"] for one in found], axis=0)
    wide = np.mean([one.high - one.low for one in found], axis=0) / spread
    assert (wide.reshape(2, 4)[:, :2] > 2.2).all()  # about 4; less where a share ends at 0 or 1
    above = np.mean([one["mean"] > one.noise for one in found], axis=0).reshape(2, 4)
    assert (above[:, 0] == 1).all() and (above[:, 2:] <= 1 / 6).all()  # a; c and d


def test_conditional_parameters_are_judged_where_they_exist(by_us, frame):
    frame = frame.query("method == 'fanova'").set_index("name")
    here = scored(by_us.trials)
    values = configurations(here)
    has = values.extra.notna().to_numpy()
    assert frame.trials["extra"] == has.sum() and frame.trials["lr"] == len(here)
    names = ["lr", "momentum", "kind", "extra", "flag", "steps", "width"]
    x = np.column_stack([codes(values[n][has], SPACE[n]) for n in names])
    ends = np.array([bounds(SPACE[n]) for n in names])
    alone = fanova(x, here.score.to_numpy()[has], ends, 64, 5)
    assert frame["mean"]["extra"] == pytest.approx(alone[3], abs=0.05)


def test_a_parameter_that_few_trials_have_is_left_out(by_us, monkeypatch):
    for name in ("TREES", "RESAMPLES", "REGROWN", "SHUFFLES"):
        monkeypatch.setattr(importance, name, 2)
    rare = by_us.trials.assign(**{"config.extra": by_us.trials["config.extra"].where(
        by_us.trials.trial_id < 8)})  # fmt: skip
    found = importances(by_us._replace(trials=rare.head(40)), SPACE)
    assert 2 < rare["config.extra"].notna().sum() < importance.FEWEST
    assert "extra" not in set(found.name) and {"lr", "kind"} < set(found.name)


def test_what_cannot_be_answered_is_empty(by_us):
    few, equal = by_us._replace(trials=by_us.trials.head(9)), by_us.trials.assign(score=0.5)
    for none in (study(), few, by_us._replace(trials=equal), study([{"score": 0.1}] * 30)):
        assert importances(none, SPACE).empty and interactions(forest(none, SPACE)).empty
        with pytest.raises(ValueError, match="expected two parameters"):
            surface(forest(none, SPACE), "lr", "momentum")
    assert list(importances(study()).columns) == importance.COLUMNS
    with pytest.raises(ValueError, match=r"expected one of .*lr.*got beta"):
        slices(by_us, "beta", SPACE)


def test_slices_hold_every_trial_once_and_medians_of_bins(by_us):
    lr = slices(by_us, "lr", SPACE)
    assert len(lr.points) == lr.bins.trials.sum() == 120 and len(lr.bins) == importance.BINS
    first = lr.points[lr.points.value <= lr.bins.high[0]].score
    assert lr.bins["median"][0] == first.median() and lr.bins.q75[0] == first.quantile(0.75)
    assert (lr.bins.low[1:].to_numpy() > lr.bins.high[:-1].to_numpy()).all()
    kind = slices(by_us, "kind", SPACE)
    assert kind.bins.low.tolist() == kind.bins.high.tolist() == ["a", "b", "c"]
    extra = slices(by_us, "extra", SPACE)
    assert len(extra.points) == kind.bins.trials[:2].sum()


def test_ranges_are_guessed_where_the_space_is_unknown(by_us):
    guessed = searched(by_us.trials)
    assert {name: type(one) for name, one in guessed.items()} == {
        name: type(one) for name, one in SPACE.items()
    }
    assert guessed["lr"].log and not guessed["momentum"].log
    assert importance.data(by_us).ranges.keys() == SPACE.keys()


def test_the_ends_of_a_range_are_those_of_uniform_draws():
    assert bounds(IntDistribution(1, 300)) == (0.5, 300.5)
    assert bounds(SPACE["width"]) == pytest.approx((np.log(0.5), np.log(100.5)))
    assert bounds(SPACE["kind"]) == (-0.5, 2.5) and bounds(SPACE["momentum"]) == (0.0, 0.9)


def test_a_range_is_widened_to_what_trials_had():
    trials = [{"config": {"lr": v, "kind": k, "n": n}} for v, k, n in
              [(0.5, "a", 7), (1e-3, "z", 2)]]  # fmt: skip
    space = SPACE | {"n": IntDistribution(1, 5)}
    found = searched(study(trials).trials, space)
    assert (found["lr"].low, found["lr"].high, found["lr"].log) == (1e-4, 0.5, True)
    assert found["kind"].choices == ("a", "b", "c", "z") and found["n"] == IntDistribution(1, 7)
    assert codes(["z", None, "a"], found["kind"]).tolist() == pytest.approx(
        [3, np.nan, 0], nan_ok=True
    )
    mixed = CategoricalDistribution([None, True, 0.5, "a"])  # in the record: JSON
    assert codes(["true", "a", "0.5"], mixed).tolist() == [1, 3, 2]
    assert codes([True, False], SPACE["flag"]).tolist() == [0, 1]
