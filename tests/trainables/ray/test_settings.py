"""A study's settings and directory, and the environment that Ray is started in."""

import math
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

import search_spaces
import trainables
from search_spaces._tree import check_configuration, explore
from trainables.engine.method import configure
from trainables.ray import environment, names, settings
from trainables.ray.scheduler import make_scheduler
from trainables.ray.searcher import make_sampler
from trainables.ray.settings import Study, StudyError

STUDY = Study(
    "digits-ab12", "lgm_acgan", "gaussian", "task", data_dir="/data", trials=7, batch=2, lanes=4,
    top=1, tasks=2, attributes="both", fixed={"order": "gan_first", "gan_steps": 300},
)  # fmt: skip


def test_settings_come_back_as_they_were_written(tmp_path):
    for study in (STUDY, Study("s", "joint")):
        settings.write(tmp_path, study)
        assert settings.read(tmp_path) == study
    assert [f.name for f in tmp_path.iterdir()] == ["study.yaml"]
    assert set(yaml.safe_load((tmp_path / "study.yaml").read_text())) == set(Study._fields)


def refused(directory) -> str:
    with pytest.raises(StudyError) as error:
        settings.read(directory)
    assert "\n" not in str(error.value) and str(directory) in str(error.value)
    return str(error.value)


def test_a_missing_study_is_refused(tmp_path):
    assert "an empty folder where study.yaml was expected" in refused(tmp_path)
    assert "no such folder" in refused(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "not the settings" in refused(tmp_path / "file")


GOOD = yaml.safe_dump(STUDY._asdict())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must be a mapping"),
        (b"just text", "must be a mapping"),
        (b"{: [\n}}", "not the settings"),
        (b"\xff\xfe\x00", "not the settings"),
        (b"name: x", "missing 1 required positional argument: 'method'"),
        (GOOD.encode() + b"workers: 3\n", "unexpected keyword argument 'workers'"),
        (GOOD.encode() + b"lanes: auto\n", "expected lanes of type int | None, found 'auto'"),
        (GOOD.encode() + b"trials: many\n", "expected trials of type int, found 'many'"),
        (GOOD.encode() + b"seed: true\n", "expected seed of type int, found True"),
        (GOOD.encode() + b"method: lgm_acgn\n", "did you mean 'lgm_acgan'?"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path, content, reason):
    (tmp_path / "study.yaml").write_bytes(content)
    assert reason in refused(tmp_path)


def test_a_study_of_before_engines_had_lanes_is_read(tmp_path):
    known = {name: value for name, value in STUDY._asdict().items() if name != "lanes"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(known))
    assert settings.read(tmp_path) == STUDY._replace(lanes=None)


def test_the_first_free_folder(tmp_path):
    wanted = tmp_path / "runs" / "a.b"
    assert settings.free(wanted) == wanted
    for name in ("a.b", "a.b-2", "a.b-4"):
        wanted.with_name(name).mkdir(parents=True)
    assert settings.free(wanted) == wanted.with_name("a.b-3")


def test_the_default_has_a_value_for_every_shape_that_is_searched():
    study = Study("s", "lgm_acgan")
    default = search_spaces.load("lgm_acgan").DEFAULT
    assert study.default() == default
    wide = study._replace(search_shapes=True).default()
    shape = trainables.load("lgm_acgan").Shape()._asdict()
    assert wide.items() > default.items()
    assert {k: v for k, v in wide.items() if k not in default}.items() <= shape.items()


def test_what_is_held_is_not_asked_for_and_stands_in_every_configuration():
    fixed = {"order": "gan_first", "network": "convolutional", "gan_steps": 1000}
    study = Study("s", "lgm_acgan", fixed=fixed)
    searched = {parameter.name for parameter in explore(study.space())}
    free = {parameter.name for parameter in explore(study._replace(fixed={}).space())}
    assert searched == free - fixed.keys()
    asked = optuna.create_study().ask()
    assert study.space()(asked).items() >= fixed.items()
    assert study.default() == search_spaces.load("lgm_acgan").DEFAULT | fixed
    check_configuration(study.space(), study.default())
    settings.check_fixed(study)


@pytest.mark.parametrize(("fixed", "message"), [
    ({"gan_step": 3}, "no hyperparameter 'gan_step': did you mean 'gan_steps'"),
    ({"gan_steps": "many"}, "expected a number for gan_steps, got 'many'"),
    ({"gan_steps": True}, "expected a number for gan_steps, got True"),
    ({"reset_critic": 1}, "expected true or false for reset_critic, got 1"),
    ({"order": 3}, "expected a name for order, got 3"),
    ({"critic_lr": math.inf}, "expected a finite number for critic_lr, got inf"),
])  # fmt: skip
def test_what_is_held_must_be_a_value_of_the_method(fixed, message):
    with pytest.raises(ValueError, match=message):
        settings.check_fixed(Study("s", "lgm_acgan", fixed=fixed))


def test_options_bring_parameters_of_their_own():
    def names(**options):
        study = Study("s", "lgm_cgan", **options)
        check_configuration(study.space(), study.default())
        configure(study.module, study.default())
        return {parameter.name for parameter in explore(study.space())}

    plain = names()
    creative = {"use_creativity", "creativity_adversarial", "creativity_entropy"}
    for attributes in ("none", "generator", "classifier", "both"):
        more = creative if attributes in ("generator", "both") else set()
        assert names(attributes=attributes) == plain | more
    held = {"embedder_lr"} | {f"{use}embedder_{k}" for use in ("", "use_") for k in ("ewc", "mas")}
    assert names(embedder="trainable") == plain | held


# ---- one process a study -------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from trainables.ray import settings
with settings.in_use(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_study_is_held_by_one_process_until_it_ends(tmp_path):
    folder = tmp_path / "new" / "study"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(settings.__file__).parents[2],
    ) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        with (
            pytest.raises(StudyError, match="another search is running in"),
            settings.in_use(folder),
        ):
            pass
        other.kill()  # whatever ends it frees the study
        other.wait()
        with settings.in_use(folder):
            pass
    with settings.in_use(folder):
        pass


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StudyError, match=r"cannot write to .*file/study \(.+\): choose another"),
        settings.in_use(tmp_path / "file" / "study"),
    ):
        pass


# ---- environment ---------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder and an environment without settings of Ray's."""
    copy = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    monkeypatch.setattr(os, "environ", copy | {"HOME": str(tmp_path)})
    monkeypatch.setattr(Path, "expanduser", lambda path: tmp_path / str(path).removeprefix("~/"))
    return tmp_path


def test_a_token_is_made_for_its_owner_only_and_kept(home):
    environment.prepare(None)
    file = home / ".ray" / "auth_token"
    token = file.read_text()
    assert len(token) == 64 and file.stat().st_mode & 0o777 == 0o600
    environment.prepare(None)
    assert file.read_text() == token
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_what_the_user_has_set_wins(home):
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "1"}
    environment.prepare(None)
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert not list(home.iterdir())


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_the_users_own_token_is_used(home, name):
    os.environ[name] = "x"
    environment.prepare(None)
    assert os.environ["RAY_AUTH_MODE"] == "token" and not list(home.iterdir())


def test_a_cluster_keeps_its_own_way_of_listening_and_asking_for_tokens(home):
    environment.prepare("auto")
    assert not set(environment.LOCAL) & set(os.environ)
    assert set(environment.ALWAYS) <= set(os.environ)
    assert not list(home.iterdir())


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names.SAMPLERS)
def test_every_sampler_that_is_offered_exists(name):
    assert make_sampler(name, 0, 50, ["lr"])


@pytest.mark.parametrize("name", names.SCHEDULERS)
def test_every_scheduler_that_is_offered_exists(name):
    assert make_scheduler(name, metric="m", tasks=5)


def test_scenarios_and_metrics_are_those_of_benchmarks_and_engine():
    from trainables.benchmarks import ATTRIBUTES, SCENARIOS
    from trainables.engine.method import Method
    from trainables.engine.metrics import SUMMARY

    assert set(names.SCENARIOS) == set(SCENARIOS)
    assert set(names.ATTRIBUTES) == set(ATTRIBUTES)
    assert set(names.METRICS) - set(names.OF_GENERATORS) <= set(SUMMARY)
    assert set(names.OF_GENERATORS.values()) <= set(Method._fields)


def test_a_plan_has_every_setting_that_a_stream_depends_on():
    from trainables.ray.study import columns, plan_of

    plan = plan_of(STUDY)
    assert all(
        getattr(plan, f) == getattr(STUDY, f) for f in set(Study._fields) & set(plan._fields)
    )
    assert plan.benchmark_options() == {
        "scenario": "task", "seed": 0, "data_dir": "/data", "embedder": "identity", "tasks": 2,
        "attributes": "both",
    }  # fmt: skip
    assert columns(STUDY)["attributes"] == "both"


def test_a_memory_is_a_budget_of_those_that_store_examples():
    for name in trainables.names():
        config = Study("s", name, memory=77).default()
        stores = "memory_size" in trainables.load(name).Shape._fields
        assert config.get("memory_size") == (77 if stores else None)
        assert "memory_size" not in Study("s", name).default()
    assert Study("s", "er", memory=77, fixed={"memory_size": 5}).default()["memory_size"] == 5


def test_protocols_differ_in_the_stream_that_is_reported():
    from trainables.ray.study import plan_of, report_plan

    ours = {name: Study("s", "joint", seed=4, protocol=name) for name in names.PROTOCOLS}
    whole, first, other = ours.values()
    assert report_plan(whole) == plan_of(whole)
    k = plan_of(first)
    assert (k.begin, k.end) == (0, 3) and report_plan(first) == k._replace(begin=3, end=None)
    assert plan_of(other) == plan_of(whole)
    assert report_plan(other) == plan_of(whole)._replace(seed=5)
    elsewhere = report_plan(other._replace(report_on="split_fashion"))
    assert elsewhere == plan_of(whole)._replace(benchmark="split_fashion")


def test_defaults_of_a_study_are_what_the_command_line_says():
    study = Study("s", "m")
    assert (study.scenario, study.sampler) == (names.SCENARIOS[0], names.SAMPLERS[0])
    assert (study.attributes, study.protocol) == (names.ATTRIBUTES[0], names.PROTOCOLS[0])
    assert (study.scheduler, study.metric) == (names.SCHEDULERS[0], names.METRICS[0])


# ---- comparisons ---------------------------------------------------------------------------------


def test_a_comparison_names_its_studies_in_order(tmp_path):
    studies = {tmp_path / "c" / name: Study(name, name) for name in ("joint", "sequential")}
    assert settings.compared(tmp_path / "c") == []
    settings.write_comparison(tmp_path / "c", studies)
    assert settings.compared(tmp_path / "c") == list(studies)
    assert {folder: settings.read(folder) for folder in studies} == studies
    with pytest.raises(StudyError, match="holds 2 studies that are compared: name one of them, "):
        settings.read(tmp_path / "c")
    with pytest.raises(
        StudyError, match=r"a folder of other things where study\.yaml was expected"
    ):
        settings.read(tmp_path)


def test_a_study_is_over_when_it_has_a_winner_of_its_budget(tmp_path):
    study = Study("s", "joint", trials=40, final_seeds=3)
    assert not settings.is_over(tmp_path, study)
    reached = {"winner": {"test_joint_accuracy": {"n": 3}}}
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({"trials": 40, "comparison": reached}))
    assert settings.is_over(tmp_path, study)
    assert not settings.is_over(tmp_path, study._replace(trials=50))
    assert not settings.is_over(tmp_path, study._replace(final_seeds=5))
    (tmp_path / "best.yaml").write_text("broken: [")
    assert not settings.is_over(tmp_path, study)
