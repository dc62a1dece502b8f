"""The tree of a space, and points that lie in it or do not."""

import io

import pytest
from rich.console import Console

import search_spaces
from search_spaces._tree import check_configuration, explore, show


def space(trial):
    config = {
        "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
        "depth": trial.suggest_int("depth", 1, 3),
        "replay": trial.suggest_categorical("replay", [True, False]),
        "width": 64,
    }
    if config["replay"]:
        config["memory"] = trial.suggest_int("memory", 100, 1000, step=100)
        config["draw"] = trial.suggest_categorical("draw", ["seen", "learned", "balanced"])
        if config["draw"] != "seen":
            config["age"] = trial.suggest_float("age", 0.0, 1.0)
    if config["depth"] > 1 and config["replay"]:
        config["skip"] = trial.suggest_categorical("skip", ["add", "concat"])
    return config


DEFAULT = {"lr": 0.01, "depth": 1, "replay": True, "memory": 200, "draw": "seen"}


def test_conditions_are_found_and_are_minimal():
    conditions = {p.name: p.conditions for p in explore(space)}
    assert conditions == {
        "lr": {},
        "depth": {},
        "replay": {},
        "memory": {"replay": (True,)},
        "draw": {"replay": (True,)},
        "age": {"draw": ("learned", "balanced")},  # which implies replay
        "skip": {"depth": (2, 3), "replay": (True,)},
    }
    assert all(p.explained for p in explore(space))


def test_a_condition_on_a_number_is_admitted_not_invented():
    def threshold(trial):
        if trial.suggest_float("momentum", 0.0, 1.0) > 0.5:
            trial.suggest_categorical("nesterov", [True, False])
        return {}

    nesterov = explore(threshold)[1]
    assert nesterov.conditions == {} and not nesterov.explained


def test_one_name_has_one_range():
    def moving(trial):
        high = 1.0 if trial.suggest_categorical("wide", [True, False]) else 0.5
        return {"lr": trial.suggest_float("lr", 0.0, high)}

    with pytest.raises(ValueError, match=r"lr is suggested with two ranges, 0 \.\. "):
        explore(moving)


def test_the_tree_shows_ranges_scale_conditions_and_defaults():
    console = Console(width=100, file=io.StringIO())
    console.print(show(space, DEFAULT))
    text = console.file.getvalue()
    assert "lr  0.0001 .. 1, log  default 0.01" in text
    assert "memory  100 .. 1000, integer, step 100  default 200" in text
    draw, age = text.index("draw = learned | balanced"), text.index("age  0 .. 1")
    assert text.index("replay = True") < draw < age
    assert "skip  add | concat  where depth = 2 | 3" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 2.0}, r"lr = 2.0 is out of range; expected 0.0001 .. 1, log"),
        ({"lr": float("nan")}, "lr = nan is out of range"),
        ({"lr": "fast"}, "lr = 'fast' is out of range"),
        ({"depth": 1.5}, "depth = 1.5 is out of range; expected 1 .. 3, integer"),
        ({"depth": True}, "depth = True is out of range"),
        ({"memory": 150}, "memory = 150 is out of range; expected 100 .. 1000, integer, step 100"),
        ({"draw": "new"}, r"draw = 'new' is out of range; expected seen \| learned \| balanced"),
        ({"age": 0.5}, r"age = 0.5 is inactive; expected 0 .. 1 where draw = learned \| balanced"),
        ({"draw": "learned"}, "age has no value; expected 0 .. 1"),
        ({"width": 128}, "width = 128 contradicts the constant 64"),
        ({"momentum": 0.9}, "momentum = 0.9 is unknown"),
    ],
)
def test_a_configuration_outside_the_space_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_configuration(space, DEFAULT | change)


def test_a_configuration_inside_passes_with_and_without_constants():
    check_configuration(space, DEFAULT)
    check_configuration(space, DEFAULT | {"width": 64})


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_method_has_a_tree_and_a_default_inside(name):
    module = search_spaces.load(name)
    check_configuration(module.space, module.DEFAULT)
    assert all(p.explained for p in explore(module.space))
