"""The final phase: who takes part, on which seeds, and what is said of the result."""

import ast
import io
import math
from collections import Counter
from pathlib import Path

import pytest
import yaml
from ray.exceptions import ActorDiedError
from rich.console import Console

import search_spaces
from analysis.schema import FIRST_FINAL
from analysis.store import Record
from tests.trainables.ray.fake_engines import TASKS, report
from trainables.ray import final
from trainables.ray.final import OnTest, comparison, contenders, in_words
from trainables.ray.reruns import Contender, Rerun, fresh_seeds
from trainables.ray.settings import Study, StudyError
from trainables.ray.study import columns, plan_of, report_plan
from trainables.ray.trial import Plan

ROOT = Path(__file__).parents[3]
STUDY = Study("s", "lgm_acgan", "gaussian", final_seeds=3, top=2)
DEFAULT = search_spaces.load("lgm_acgan").DEFAULT


def row(trial_id, score, role="search", status="completed", **config):
    config = DEFAULT | {"gan_steps": trial_id} | config
    return {
        "trial_id": trial_id, "role": role, "status": status, "score": score, "config": config
    }  # fmt: skip


def labels(rows, study=STUDY):
    return [c.label for c in contenders(study, rows)]


def test_the_best_completed_trials_take_part_beside_default_floor_and_ceiling():
    rows = [
        row(0, 0.5), row(1, 0.9), row(2, 0.7), row(3, 0.8),
        row(4, None, status="stopped"), row(5, None, status="failed"),
        row(1_000_000, 0.99, role="final"),
    ]  # fmt: skip
    assert labels(rows) == ["default", "trial 1", "trial 3", "sequential", "joint"]
    assert labels(rows, STUDY._replace(top=9))[1:5] == ["trial 1", "trial 3", "trial 2", "trial 0"]
    found = contenders(STUDY, rows)
    assert [c.trial for c in found] == [None, 1, 3, None, None]
    assert [c.config for c in found[:2]] == [DEFAULT, rows[1]["config"]]
    assert [c.method for c in found] == ["lgm_acgan"] * 3 + ["sequential", "joint"]


def test_a_study_may_do_without_floor_and_ceiling():
    assert labels([row(1, 0.9)], STUDY._replace(references=False)) == ["default", "trial 1"]


def test_equal_configurations_take_part_once():
    rows = [row(0, 0.9, gan_steps=DEFAULT["gan_steps"]), row(1, 0.8), row(2, 0.8, gan_steps=1)]
    rows += [row(3, 0.8), row(4, 0.1)]  # a tie goes to the earlier trial
    assert labels(rows) == ["default", "trial 1", "trial 3", "sequential", "joint"]


def test_a_floor_is_also_the_default_of_its_own_study():
    found = contenders(Study("s", "sequential"), [])
    assert [c.label for c in found] == ["default", "sequential", "joint"]
    assert found[0].key == found[1].key


# ---- the answer, from data made by hand ----------------------------------------------------------

WINNER = Contender("trial 3", "lgm_acgan", {"gan_steps": 3}, 3)
OTHER = Contender("default", "lgm_acgan", {"gan_steps": 1})
FLOOR = Contender("sequential", "sequential", {})
SHOWN = {"winner": WINNER, "default": OTHER, "sequential": FLOOR}
TEST = {
    trial_id: OnTest(accuracy, [10, 30], {})
    for trial_id, accuracy in {
        0: [1.0, 0.5], 1: [0.9, 0.9], 3: [0.5, 0.5], 4: [0.3, 0.3], 5: [0.1, 0.1]
    }.items()
}  # fmt: skip


def rerun(contender, trial_id, seed, score=0.5, forgetting: float | None = 0.1):
    about = {"forgetting": forgetting, "memory_bytes": 8, "seconds": 2.0}
    return Rerun(contender, seed, trial_id, score, about)


DONE = [
    rerun(WINNER, 1, seed=20), rerun(WINNER, 0, seed=10),
    rerun(OTHER, 2, seed=10, score=0.0, forgetting=None) , rerun(OTHER, 3, seed=20),
    rerun(FLOOR, 4, seed=10), rerun(FLOOR, 5, seed=20),
]  # fmt: skip


def test_comparison_pairs_seeds_and_counts_a_failed_one_as_nothing():
    rows, plain = comparison(SHOWN, DONE, TEST, "joint_accuracy")
    assert [r.name for r in rows] == ["winner (trial 3)", "default", "sequential (floor)"]
    assert list(rows[0].joint_accuracy) == pytest.approx([0.625, 0.9])  # by examples, by seed
    assert list(rows[0].average_accuracy) == pytest.approx([0.75, 0.9])
    assert list(rows[1].joint_accuracy) == pytest.approx([0.0, 0.5])  # seed 10 diverged
    assert (rows[0].forgetting, rows[1].forgetting) == ([0.1, 0.1], [])
    winner = plain["winner"]
    assert winner["per_seed_test_joint_accuracy"] == pytest.approx({10: 0.625, 20: 0.9})
    assert winner["test_joint_accuracy"]["mean"] == pytest.approx(0.7625)
    assert winner["validation_joint_accuracy"]["mean"] == 0.5
    assert (winner["trial"], winner["config"]) == (3, {"gan_steps": 3})
    assert plain["default"]["validation_joint_accuracy"]["n"] == 2


def with_cas(test, but=()):
    """The same results of a method that generates, except the floor's."""
    cas = {0: [0.6, 0.2], 1: [0.8, 0.4], 3: [0.4, 0.4]}
    return {
        k: one._replace(quality={"cas": cas[k]} if k in cas and k not in but else {})
        for k, one in test.items()
    }


def test_cas_counts_every_example_once_and_a_failed_seed_as_nothing():
    rows, plain = comparison(SHOWN, DONE, with_cas(TEST), "cas")
    assert list(rows[0].quality["cas"]) == pytest.approx([0.3, 0.5])
    assert list(rows[1].quality["cas"]) == pytest.approx([0.0, 0.4])
    assert rows[2].quality == {}
    assert plain["winner"]["test_cas"]["mean"] == pytest.approx(0.4)
    assert plain["default"]["per_seed_test_cas"] == pytest.approx({10: 0.0, 20: 0.4})
    assert "validation_cas" in plain["default"]
    assert not {"test_cas", "validation_cas"} & set(plain["sequential"])


def test_a_method_that_was_tested_before_cas_was_measured_has_none():
    rows, plain = comparison(SHOWN, DONE, with_cas(TEST, but=[0]), "joint_accuracy")
    assert not any(row.quality for row in rows)
    assert not any("test_cas" in one for one in plain.values())


def test_a_study_of_generators_is_judged_by_cas(tmp_path):
    _, plain = comparison(SHOWN, DONE, with_cas(TEST), "cas")
    scores = {"trial 3": [0.5, 0.5], "default": [0.0, 0.5]}
    study = STUDY._replace(metric="cas")
    best = final.write_best(study, tmp_path, [OTHER, WINNER], plain, scores, opened=True)
    assert best["judged_by"] == "test_cas"
    assert best["gain_over_default"]["mean"] == pytest.approx((0.3 + 0.1) / 2)
    words = in_words(best, tmp_path)
    assert words.startswith("Best: trial 3, 40.0% CAS on test data, +20.0 points over")
    other = final.write_best(STUDY, tmp_path, [OTHER, WINNER], plain, scores, opened=True)
    assert other["judged_by"] == "test_joint_accuracy"


def test_a_study_of_autoencoders_is_judged_by_explained_variance(tmp_path):
    test = {
        k: one._replace(quality={"explained_variance": one.accuracy, "cas": [0.1, 0.1]})
        for k, one in TEST.items() if k < 4
    }  # fmt: skip
    rows, plain = comparison(SHOWN, DONE, test, "explained_variance")
    assert list(rows[0].quality["explained_variance"]) == pytest.approx([0.625, 0.9])
    assert [list(row.quality) for row in rows] == [["explained_variance"]] * 2 + [[]]
    study, scores = STUDY._replace(metric="explained_variance"), {"default": [0.0], "trial 3": [1]}
    best = final.write_best(study, tmp_path, [OTHER, WINNER], plain, scores, opened=True)
    assert best["judged_by"] == "test_explained_variance"
    assert "trial 3, 76.2% explained variance on test data, +51.2" in in_words(best, tmp_path)


def test_cas_after_each_task_is_the_mean_of_completed_seeds(tmp_path):
    examples = [10, 30]
    rows = {7: [[1.0], [0.5, 0.9]], 8: [[0.8], [0.7, 0.3]]}  # J: 1, 0.8 and 0.8, 0.4
    reruns = [rerun(WINNER, n, seed=n) for n in (7, 8, 9)]
    for one in reruns:
        one.row.update(status="completed" if one.trial_id in rows else "failed", tasks_learned=2)
    with Record(tmp_path, "s") as record:
        for n, walk in rows.items():
            for t, row in enumerate(walk):
                about = {"validation": [0.5] * (t + 1)}, {"validation": examples[: t + 1]}
                record.task(n, n, t, *about, quality={"validation": {"cas": row}})
        assert final.cas_curve(record, reruns) == pytest.approx([0.9, 0.6])
        assert final.cas_curve(record, []) == []
        record.task(8, 8, 1, {"validation": [0.5] * 2}, {"validation": examples},
                    quality={"validation": {}})  # fmt: skip
        assert final.cas_curve(record, reruns) == []  # a task of which it is not known
    best = best_of(tmp_path, opened=True)
    for label, curve in (("winner", [0.9, 0.6]), ("default", [0.5, 0.404])):
        best["comparison"][label][final.AFTER_EACH] = curve
    said = in_words(best, tmp_path).splitlines()[0]
    assert said == "CAS after each task (validation): winner 90.0 60.0, default 50.0 40.4"
    said = in_words(best | {"trial": None}, tmp_path).splitlines()[0]
    assert said == "CAS after each task (validation): default 50.0 40.4"


def best_of(folder, opened, shown=SHOWN):
    _, plain = comparison(shown, DONE, TEST, "joint_accuracy")
    scores = {"trial 3": [0.5, 0.5], "default": [0.0, 0.5], "sequential": [0.1, 0.1]}
    return final.write_best(STUDY, folder, [OTHER, WINNER, FLOOR], plain, scores, opened)


def test_best_yaml_is_complete_and_counts_how_often_test_data_was_opened(tmp_path):
    best = best_of(tmp_path, opened=True)
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == best
    assert [f.name for f in tmp_path.iterdir()] == ["best.yaml"]
    assert (best["trial"], best["config"], best["test_opened"]) == (3, {"gan_steps": 3}, 1)
    assert best["gain_over_default"]["mean"] == pytest.approx((0.625 + 0.9 - 0.5) / 2)
    assert list(best["candidates"]) == ["default", "trial 3"]
    assert {"study", "method", "benchmark", "scenario", "protocol", "trials"} <= set(best)
    assert "torch" in best["versions"]
    assert best_of(tmp_path, opened=False)["test_opened"] == 1  # all was known
    assert best_of(tmp_path, opened=True)["test_opened"] == 2


def test_the_answer_in_words(tmp_path):
    best = best_of(tmp_path, opened=True)
    words = in_words(best, tmp_path)
    assert words.startswith("Best: trial 3, 76.2% joint accuracy on test data, +51.2 points over")
    assert "paired over 2 seeds" in words and "not shown to be better" in words
    assert "It was chosen by 50.0% on validation data, 26.2 points below test." in words
    assert final.chosen_by(best | {"metric": "average_accuracy"}) == []
    assert "opened" not in words and str(tmp_path / "best.yaml") in words
    best["gain_over_default"] = {"mean": 0.2, "low": 0.1, "high": 0.3, "n": 2}
    words = in_words(best, tmp_path)
    assert "+20.0 points over the default (± 10.0" in words and "not shown" not in words
    assert "Best: the default, " in in_words(best | {"trial": None}, tmp_path)
    assert "Test data was opened 2 times" in in_words(best | {"test_opened": 2}, tmp_path)


def test_one_seed_says_nothing_about_the_spread(tmp_path):
    done = [r for r in DONE if r.seed == 10]
    _, plain = comparison(SHOWN, done, TEST, "joint_accuracy")
    scores = {"trial 3": [0.0]}
    best = final.write_best(STUDY, tmp_path, [WINNER], plain, scores, opened=True)
    assert best["gain_over_default"]["low"] == -math.inf
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == best
    assert "nan" not in in_words(best, tmp_path)


# ---- on engines ----------------------------------------------------------------------------------


def test_reruns_are_entered_with_their_lanes_and_one_that_fails_counts_as_nothing(
    session, fake_ray, tmp_path
):
    configs = []

    def answer(config):
        configs.append(config)
        bad = config["number"] == FIRST_FINAL + 1
        return ActorDiedError() if bad else report(config)

    lineup = [OTHER, WINNER, FLOOR]
    one = session(answer)
    done = final.train(one, lineup)
    assert Counter(r.contender.label for r in done) == {c.label: 3 for c in lineup}
    assert sorted(r.score for r in done) == [0.0] + [0.75] * 8
    rows = one.record.trials()
    assert [row["trial_id"] for row in rows] == list(range(FIRST_FINAL, FIRST_FINAL + 9))
    assert Counter(row["seed"] for row in rows) == Counter(fresh_seeds("final", STUDY.seed, 3) * 3)
    assert [row["lanes"] for row in rows] == [3, 1] + [3] * 7
    assert {row["method"] for row in rows} == {"lgm_acgan", "sequential"}
    assert rows[1]["status"] == "failed" and rows[1]["reason"].startswith("ActorDiedError")
    assert one.record.rows(FIRST_FINAL) == [[0.25], [0.5] * 2, [0.75] * 3]
    for config in configs:
        assert config["checkpoints"] == str(tmp_path / "checkpoints" / "final")
        assert Plan(**config["plan"]).method in {"lgm_acgan", "sequential"}


def test_reruns_whose_state_waits_for_the_test_data_are_not_trained_again(session, fake_ray):
    one, trained = session(report), []
    first = final.train(one, [OTHER, WINNER])
    for rerun in first[:4]:
        state = final.state_file(one.directory, rerun.trial_id)
        state.parent.mkdir(parents=True, exist_ok=True)
        state.touch()
    again = session(lambda config: trained.append(config["number"]) or report(config))
    second = final.train(again, [OTHER, WINNER])
    assert trained == [rerun.trial_id for rerun in first[4:]]
    assert sorted(r.trial_id for r in second) == sorted(r.trial_id for r in first)


def test_reruns_are_measured_and_one_of_each_contender_keeps_its_samples(session, fake_ray):
    configs = []
    one = session(lambda config: configs.append(config) or report(config))
    final.train(one, [OTHER, WINNER, FLOOR])
    assert all(Plan(**config["plan"]).quality for config in configs)
    kept = {c["number"]: c["generated"] for c in configs if "generated" in c}
    assert [about["label"] for about in kept.values()] == ["trial 3", "default"]
    assert {c["seed"] for c in configs if "generated" in c} == {final.seeds_of(STUDY)[0]}
    for number, about in kept.items():
        assert about["file"] == str(one.directory / "generated" / f"{number}.safetensors")


def test_samples_that_are_missing_are_said_in_one_line(session, fake_ray):
    out = io.StringIO()

    def answer(config):
        lost = {"unkept": "cannot write x: disk full"} if "generated" in config else {}
        return report(config, **lost)

    one = session(answer)._replace(console=Console(file=out, width=200), level="normal")
    assert len(final.train(one, [OTHER])) == 3
    assert out.getvalue().splitlines()[1:] == [
        "cannot write x: disk full: samples of default are missing, nothing else is"
    ]


def test_floor_and_ceiling_have_no_score_where_generators_are_searched(session, fake_ray):
    study = STUDY._replace(metric="cas")
    score = lambda c: {"cas": 0.5} if c["plan"]["method"] == "lgm_acgan" else {}  # noqa: E731
    one = session(lambda config: report(config, **score(config)), study)
    final.train(one, [OTHER, FLOOR])
    scores = {row["method"]: row["score"] for row in one.record.trials()}
    assert scores == {"lgm_acgan": 0.5, "sequential": None}


def test_a_state_that_cannot_be_saved_ends_the_phase_in_one_line(session, fake_ray):
    one = session(lambda config: report(config, unsaved="cannot write checkpoint x: disk full"))
    with pytest.raises(StudyError, match=r"disk full: free space, then --resume ") as error:
        final.train(one, [OTHER])
    assert str(one.directory) in str(error.value) and not one.record.trials()


def test_test_data_is_opened_once_for_those_that_are_shown(session, fake_ray):
    asked = []

    def answer(config):  # the floor has the first three numbers, then comes the winner
        failed = {"failure": "diverged"} if config["number"] == FIRST_FINAL + 4 else {}
        return report(config, **failed)

    done = final.train(session(answer), [OTHER, WINNER, FLOOR])
    for rerun in done:
        state = final.state_file(session(answer).directory, rerun.trial_id)
        state.parent.mkdir(parents=True, exist_ok=True)
        state.touch()

    def row(config):
        asked.append((config["number"], config["seed"], config["plan"]["method"]))
        return [0.5, 0.25, 1.0], [7, 7, 7], {}

    one = session(row)
    shown = {"winner": WINNER, "sequential": FLOOR}
    test, opened = final.open_test(one, shown, done)
    wanted = [r for r in done if r.contender != OTHER and r.row["status"] == "completed"]
    assert opened == len(wanted) == 5
    assert asked == [(r.trial_id, r.seed, r.contender.method) for r in wanted]
    assert test == {r.trial_id: ([0.5, 0.25, 1.0], [7, 7, 7], {}) for r in wanted}
    for rerun in done:
        state = final.state_file(one.directory, rerun.trial_id)
        assert state.exists() == (rerun not in wanted)
        known = one.record.row(rerun.trial_id, TASKS - 1, "test")
        assert bool(known) == (rerun in wanted)

    test, opened = final.open_test(one, {"default": OTHER, **shown}, done)
    assert opened == len(asked) - len(wanted) == 3 and len(test) == len(wanted) + 3


@pytest.mark.parametrize("protocol", ["end_of_stream", "first_k_tasks", "other_stream"])
def test_the_stream_that_is_reported_has_no_say_in_the_choice(
    session, fake_ray, monkeypatch, protocol
):
    """Trial 3 is best on the stream of the search only."""
    study = STUDY._replace(protocol=protocol, tuning_tasks=1, top=1, references=False)
    walks, config = [], DEFAULT | {"gan_steps": 3}

    def answer(asked):
        plan, role = Plan(**asked["plan"])._replace(quality=False), Path(asked["checkpoints"]).name
        walks.append((role, plan, asked["seed"]))
        good = (plan == plan_of(study)) == (asked["hyper"] == config)
        tasks = len(final.stream_of(plan).tasks)
        return report(asked, tasks=tasks, joint_accuracy=0.9 if good else 0.5)

    def test_rows(session, shown, done):
        return {r.trial_id: OnTest([0.5], [7], {}) for r in done}, len(done)

    one = session(answer, study)
    monkeypatch.setattr(final, "open_test", test_rows)
    for t in range(3):
        one.record.task(3, 1, t, {"validation": [0.5] * (t + 1)}, {"validation": [7] * (t + 1)})
    one.record.finish(
        3, config, role="search", status="completed", score=0.9, seed=1, tasks_learned=3,
        **columns(study),
    )  # fmt: skip
    _, words = final.run(one)
    best = yaml.safe_load((one.directory / "best.yaml").read_text())
    assert (best["trial"], best["protocol"]) == (3, protocol)
    assert best["candidates"]["trial 3"]["mean"] == 0.9
    assert best["candidates"]["default"]["mean"] == 0.5
    plans = {
        role: {plan for name, plan, _ in walks if name == role} for role in ("choice", "final")
    }
    assert plans["final"] == {report_plan(study)}
    seeds = {role: {seed for name, _, seed in walks if name == role} for role in plans}
    assert not seeds["choice"] & seeds["final"] and len(seeds["final"]) == 3
    roles = Counter(row["role"] for row in one.record.trials())
    if protocol == "end_of_stream":
        assert not plans["choice"] and roles == {"search": 1, "final": 2 * 3}
        assert "90.0% on validation data, 40.0 points above test" in words
    else:
        assert plans["choice"] == {plan_of(study)}
        assert roles == {"search": 1, "choice": 2 * 3, "final": 2 * 3}
        on = {
            "first_k_tasks": "tasks 1 to 2, class order 0",
            "other_stream": "tasks 0 to 2, class order 1",
        }
        assert f"reported is gaussian, {on[protocol]}, 40.0 points above test" in words


# ---- what a search may see (invariant 3) ---------------------------------------------------------


def names_in(path: Path) -> set[str]:
    """Every identifier, attribute and string of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def functions_with(name: str, path: Path) -> set[str]:
    """The innermost functions of a file in which a name occurs."""
    found = {}
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # outer ones first
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if getattr(node, "id", getattr(node, "attr", None)) == name:
                    found[node.lineno, node.col_offset] = function.name
    return set(found.values())


def test_only_the_final_phase_opens_test_data():
    """From the one door to test data on: who names it, and who names those."""
    ours = [ROOT / "run_search.py"]
    for folder in ("trainables", "analysis", "search_spaces"):
        ours += (ROOT / folder).rglob("*.py")

    def named_in(*names):
        return {str(f.relative_to(ROOT)) for f in ours if names_in(f) & set(names)}

    engine, phase = "trainables/ray/engine.py", "trainables/ray/final.py"
    assert named_in("load_test") == {"trainables/benchmarks/__init__.py", engine}
    assert functions_with("load_test", ROOT / engine) == {"_test_row"}
    assert functions_with("_test_row", ROOT / engine) == {"test_row"}
    assert named_in("_test_row", "test_row") == {engine, phase}
    assert functions_with("test_row", ROOT / phase) == {"open_test"}
    assert functions_with("open_test", ROOT / phase) == {"run"}
    assert named_in("open_test") == {phase}
