"""The ablation: which variants a winner has, and that nothing is trained twice."""

import contextlib
import json

import pytest
import yaml

import search_spaces
from analysis import schema
from analysis.ablation import CHOICE, TERM
from analysis.log import RecordError
from tests.trainables.ray.fake_engines import TASKS, report
from trainables.ray import ablation
from trainables.ray.ablation import lineup_of
from trainables.ray.reruns import Contender, fresh_seeds
from trainables.ray.settings import Study, StudyError

ACGAN = search_spaces.load("lgm_acgan").DEFAULT
VAE = search_spaces.load("lgm_vae").DEFAULT
ACGAN_TERMS = (
    "generator_adversarial", "generator_classification", "critic_adversarial",
    "critic_classification", "gradient_penalty", "generator_prototype", "generator_rehearsal",
    "classifier_rehearsal",
)  # fmt: skip
ACGAN_ON = dict.fromkeys(("classifier", *ACGAN_TERMS), True)
VAE_TERMS = ("divergence", "encoder_rehearsal", "decoder_rehearsal", "classifier_rehearsal")
VAE_ON = dict.fromkeys(("reconstruction", "classifier", *VAE_TERMS), True)


def variants(method, config, on):
    """Label -> what a variant has other than the winner, None where it has nothing."""
    found = lineup_of(Study("s", method), Contender("winner", method, config), on)
    changed = {}
    for one in [*found.terms, *found.choices]:
        names = sorted(config.keys() | one.config.keys())
        changed[one.label] = {
            name: one.config.get(name) for name in names if one.config.get(name) != config.get(name)
        }
    return changed, found


def test_variants_of_the_vae():
    changed, found = variants("lgm_vae", VAE, VAE_ON)
    replay = {"replay_seen": False}  # exists where the classifier does not come first
    assert changed == {f"{name} = 0": {name: 0.0} for name in VAE_TERMS} | {
        "order = vae_first": {"order": "vae_first"} | replay,
        "order = interleaved": {"order": "interleaved"} | replay,
        "learn_prior = True": {"learn_prior": True},
        "reset_classifier = True": {"reset_classifier": True},
    }
    assert [len(found.terms), len(found.choices), found.off] == [4, 4, []]
    assert "replay_seen" in found.choices[0].config  # though its value is the one that it had


def test_variants_of_the_acgan_with_prototypes():
    config = ACGAN | {"use_prototypes": True, "generator_prototype": 2.0}
    changed, found = variants("lgm_acgan", config, ACGAN_ON)
    assert [one.label for one in found.terms] == [f"{name} = 0" for name in ACGAN_TERMS]
    assert changed["generator_adversarial = 0"] == {"generator_adversarial": 0.0}  # not searched
    assert {label: change for label, change in changed.items() if "= 0" not in label} == {
        "order = classifier_first": {"order": "classifier_first", "replay_seen": None},
        "order = interleaved": {"order": "interleaved"},
        # Not "use_prototypes = False": that is "generator_prototype = 0".
        "replay_seen = True": {"replay_seen": True},
        "reset_critic = True": {"reset_critic": True},
        "reset_classifier = True": {"reset_classifier": True},
    }


def test_what_is_off_is_listed_and_not_taken_out():
    changed, found = variants("lgm_acgan", ACGAN, ACGAN_ON | {"generator_prototype": False})
    assert found.off == ["generator_prototype"] and len(found.terms) == 7
    assert changed["use_prototypes = True"] == {
        "use_prototypes": True, "generator_prototype": 1.0  # the method's default
    }  # fmt: skip
    _, found = variants("lgm_acgan", ACGAN | {"critic_adversarial": 0.0}, ACGAN_ON)
    assert found.off == ["critic_adversarial"] and len(found.terms) == 7


def test_a_method_without_parts_has_no_variants():
    config = search_spaces.load("sequential").DEFAULT
    assert not variants("sequential", config, {"classifier": True})[0]


# ---- on engines that answer at once --------------------------------------------------------------


def enter_winner(one, config=ACGAN, trial_id=7) -> None:
    """What the final phase leaves: the winner's row and losses, and best.yaml."""
    losses = ACGAN_ON | {"generator_prototype": False}
    for t in range(TASKS):
        accuracy, examples = {"validation": [0.5] * (t + 1)}, {"validation": [20] * (t + 1)}
        told = {name: float(value) for name, value in losses.items()}
        one.record.task(trial_id, 1, t, accuracy, examples, told)
    about = {"benchmark": "gaussian", "scenario": "class", "protocol": "end_of_stream"}
    about |= {"method": one.study.method, "role": "final", "label": "default", "score": 0.5}
    one.record.finish(trial_id, config, seed=1, status="completed", tasks_learned=TASKS, **about)
    (one.directory / "best.yaml").write_text(yaml.safe_dump({"trial": None, "config": config}))


def run(one, seeds):
    """The ablation of a session, and how often engines were asked for."""
    asked = []

    @contextlib.contextmanager
    def opened():
        asked.append(1)
        yield one, None

    return ablation.run(one.study, one.directory, one.record, seeds, opened), len(asked)


def answer(trained):
    def call(config):
        trained.append((json.dumps(config["hyper"], sort_keys=True), config["seed"]))
        lost = config["hyper"].get("gradient_penalty") == 0
        failed = {"failure": "diverged"} if lost else {}
        return report(config, joint_accuracy=0.75 - 0.5 * (config["hyper"]["order"] != "gan_first"),
                      **failed)  # fmt: skip

    return call


def test_everyone_trains_once_on_the_same_fresh_seeds(session, fake_ray):
    trained = []
    one = session(answer(trained))
    enter_winner(one)
    found, asked = run(one, 2)
    everyone = 1 + 7 + 6
    assert asked == 1 and len(set(trained)) == len(trained) == 2 * everyone
    assert {seed for _, seed in trained} == set(fresh_seeds("ablation", one.study.seed, 2))
    rows = [row for row in one.record.trials() if row["role"] == "ablation"]
    first = schema.FIRST_ABLATION
    assert [row["trial_id"] for row in rows] == list(range(first, first + 2 * everyone))
    assert {row["label"] for row in rows} >= {"winner", "generator_adversarial = 0"}
    assert one.record.rows(first) == [[0.25], [0.5] * 2, [0.75] * 3]

    by_name = {variant.name: variant for variant in found.variants}
    assert found.winner.scores == [0.75, 0.75] and found.off == ["generator_prototype"]
    assert by_name["gradient_penalty = 0"].scores == [0.0, 0.0]
    assert by_name["gradient_penalty = 0"].diverged == 2
    assert by_name["order = interleaved"].scores == [0.25, 0.25]
    assert [v.group for v in found.variants] == [TERM] * 7 + [CHOICE] * 6

    again, asked = run(one, 2)
    assert (again, asked, len(trained)) == (found, 0, 2 * everyone)
    more, asked = run(one, 3)  # the first seeds stay
    assert asked == 1 and len(set(trained)) == len(trained) == 3 * everyone
    assert len(more.winner.scores) == 3
    fewer, asked = run(one, 1)
    assert asked == 0 and len(fewer.winner.scores) == 1


def test_generators_are_measured_where_that_is_the_score(session, fake_ray):
    plans = []

    def call(config):
        plans.append(config["plan"]["quality"])
        return report(config, cas=0.5)

    one = session(call)
    enter_winner(one)
    run(one, 1)
    found, _ = run(one._replace(study=one.study._replace(metric="cas")), 2)
    assert plans == [False] * 14 + [True] * 14
    assert found.winner.scores[1] == 0.5


def test_an_interrupted_ablation_goes_on_where_it_was(session, fake_ray):
    trained, ends = [], answer([])

    def interrupted(config):
        if len(trained) == 5:
            raise KeyboardInterrupt
        trained.append((json.dumps(config["hyper"], sort_keys=True), config["seed"]))
        return ends(config)

    one = session(interrupted)
    enter_winner(one)
    with pytest.raises(KeyboardInterrupt):
        run(one, 1)
    assert len(trained) == 5
    run(session(answer(trained)), 1)
    assert len(set(trained)) == len(trained) == 14
    assert not list((one.directory / "checkpoints").glob("ablation"))


def test_another_winner_is_another_ablation(session, fake_ray):
    trained = []
    one = session(answer(trained))
    enter_winner(one)
    run(one, 1)
    other = ACGAN | {"gan_steps": 123}
    enter_winner(one, other, 8)
    assert run(one, 1)[1] == 1 and len(set(trained)) == len(trained) == 28
    labels = [row["label"] for row in one.record.trials() if row["role"] == "ablation"]
    assert len(labels) == 28 and len(set(labels)) == 14


def test_a_study_without_a_winner_or_parts_says_so(session):
    one = session(report)
    with pytest.raises(RecordError, match=r"no winner yet \(no best.yaml\).*--resume "):
        run(one, 1)
    (one.directory / "best.yaml").write_text("- 1")
    with pytest.raises(RecordError, match=r"best.yaml names no winner"):
        run(one, 1)
    (one.directory / "best.yaml").write_text("{: [")
    with pytest.raises(RecordError, match=r"best.yaml cannot be read"):
        run(one, 1)
    (one.directory / "best.yaml").write_text(yaml.safe_dump({"trial": 1, "config": ACGAN}))
    with pytest.raises(StudyError, match=r"no losses of the winner.*--resume "):
        run(one, 1)


def test_a_method_without_parts_cannot_be_taken_apart(session):
    one = session(report)
    one = one._replace(study=one.study._replace(method="sequential"))
    enter_winner(one, search_spaces.load("sequential").DEFAULT)
    with pytest.raises(StudyError, match="nothing to take out"):
        run(one, 1)
