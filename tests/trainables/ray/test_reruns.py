"""Training again on fresh seeds: which, by whom, and what is shown meanwhile."""

import io

import pytest
from ray.exceptions import ActorDiedError
from rich.console import Console

import search_spaces
from tests.trainables.ray.fake_engines import FakeEngine
from trainables.engine.noise import trial_seed
from trainables.ray import reruns
from trainables.ray.engines import Engines
from trainables.ray.reruns import fresh_seeds


def test_fresh_seeds_are_those_of_no_trial_and_of_no_other_phase():
    seeds = fresh_seeds("final", 0, 3)
    assert len(set(seeds)) == 3
    assert seeds == fresh_seeds("final", 0, 9)[:3]  # more seeds keep the first
    others = [fresh_seeds("final", 1, 9), fresh_seeds("ablation", 0, 9)]
    assert not set(seeds) & {seed for other in others for seed in other}
    default = search_spaces.load("lgm_acgan").DEFAULT
    assert trial_seed(0, default) not in seeds


def walked(engines, walks, level="normal", terminal=False):
    """What came of the walks, in this order, and what was printed."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=60, color_system=None)
    return list(
        reruns.walked(engines, walks, "final", "the final phase", console, level)
    ), out.getvalue()


def test_walks_fill_the_lanes_of_all_engines(fake_ray, monkeypatch):
    monkeypatch.setattr(reruns, "LANES", 1)
    lasts = [5, 1, 9, 8, 7, 6, 2]
    fake_ray.lasts = lasts.__getitem__
    engines = [FakeEngine(lambda config: {"of": config["number"]}) for _ in range(2)]
    found, _ = walked(Engines(engines, 2), {n: {"number": n} for n in range(7)})
    assert found == [(n, {"of": n}) for n in (1, 0, 5, 6, 4, 3, 2)]
    assert [len(futures) for futures in fake_ray.under_way] == [4, 4, 4, 4, 3, 2, 1]
    for futures in fake_ray.under_way:
        assert all(sum(f.engine is engine for f in futures) <= 2 for engine in engines)
    assert [f.engine for f in fake_ray.under_way[0]] == engines * 2
    names = {f.name for futures in fake_ray.under_way for f in futures}
    assert names == {f"final trial {n}" for n in range(7)}


def test_a_walk_whose_engine_died_too_often_has_failed(fake_ray):
    engine = FakeEngine(lambda config: ActorDiedError() if config["number"] == 1 else {})
    found, _ = walked(Engines([engine], 1), {n: {"number": n} for n in range(3)})
    assert [trial_id for trial_id, _ in found] == [0, 1, 2]
    assert found[1][1]["failure"].startswith("ActorDiedError: ")
    assert found[1][1]["tasks_learned"] == 0 and "\n" not in found[1][1]["failure"]
    broken = FakeEngine(lambda config: KeyError("ours"))
    with pytest.raises(KeyError, match="ours"):
        walked(Engines([broken], 1), {0: {"number": 0}})


def test_progress_is_a_line_or_a_bar_or_nothing(fake_ray):
    engines, walks = Engines([FakeEngine(lambda config: {})], 1), {0: {"number": 0}}
    assert walked(engines, walks)[1] == "the final phase\n"
    assert walked(engines, {}) == ([], "")
    assert "\x1b" in walked(engines, walks, terminal=True)[1]
    assert walked(engines, walks, "quiet")[1] == walked(engines, walks, "quiet", True)[1] == ""
