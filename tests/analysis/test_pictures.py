"""Pictures of replay, from files made by hand."""

import json

import matplotlib.image
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from analysis import __main__ as command
from analysis import pictures
from analysis.log import RecordError
from analysis.store import Record
from trainables.ray import settings
from trainables.ray.settings import Study

MEASURES = ("cas", "nearest_distance")
NAMES = ["ant", "bee", "cow"]
IMAGE, VECTOR = (1, 4, 5), (6,)
ABOUT = {"method": "lgm_vae", "benchmark": "b", "scenario": "class", "protocol": "p"}


def examples(classes, shape, level=0.0, each=5):
    """Examples of classes, each a constant that names its class and level, and a little noise."""
    y = np.repeat(classes, each)
    noise = np.random.default_rng(0).normal(size=(len(y), *shape)) * 1e-3
    return (0.3 * y - 0.5 + level).reshape(-1, *[1] * len(shape)) + noise, y


def write(file, shape):
    """Class 2 is learned in task 0, classes 0 and 1 in task 1."""
    groups = {
        "real": examples([0, 1, 2], shape),
        "task_00": examples([2], shape, 0.1),
        "task_01": examples([0, 1, 2], shape, 0.2, each=2),
    }
    tensors = {f"{name}.x": x.astype(np.float32) for name, (x, _) in groups.items()}
    tensors |= {f"{name}.y": y for name, (_, y) in groups.items()}
    file.parent.mkdir(exist_ok=True)
    save_file(tensors, file, {"class_names": json.dumps(NAMES), "label": "default"})


@pytest.fixture
def study(tmp_path):
    """A study with a winner and a default on two seeds each; no examples yet."""
    settings.write(tmp_path, Study("s", "lgm_vae", "gaussian"))
    with Record(tmp_path, "s") as record:
        for trial_id, label in enumerate(("trial 3", "trial 3", "default", "default"), 1_000_000):
            record.finish(
                trial_id, {}, role="final", label=label, seed=trial_id % 2, status="completed",
                tasks_learned=0, **ABOUT,
            )  # fmt: skip
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({"trial": 3, "config": {}}))
    return tmp_path


def test_a_grid_has_a_row_for_each_class_in_the_order_learned(tmp_path):
    write(tmp_path / "g.safetensors", IMAGE)
    found = pictures.load(tmp_path / "g.safetensors")
    assert found.learned_in == {2: 0, 0: 1, 1: 1} and found.class_names == NAMES
    tiles = pictures.canvas(found)
    assert tiles.shape == (3, 3, pictures.COLUMNS, 4, 5, 3)
    levels = tiles.mean((3, 4, 5))  # (class, group, example), in [0, 1]
    shade = lambda c, level: (0.3 * c - 0.5 + level + 1) / 2  # noqa: E731
    for row, c in enumerate([2, 0, 1]):
        np.testing.assert_allclose(levels[row, 0], shade(c, 0), atol=2e-3)
        np.testing.assert_allclose(levels[row, 1], shade(2, 0.1) if c == 2 else 1, atol=2e-3)
        np.testing.assert_allclose(levels[row, 2, :2], shade(c, 0.2), atol=2e-3)
        np.testing.assert_array_equal(levels[row, 2, 2:], 1)  # there are only two: white


def test_black_is_zero_where_pixels_lie_between_zero_and_one(tmp_path):
    write(tmp_path / "g.safetensors", IMAGE)
    found = pictures.load(tmp_path / "g.safetensors")
    half = [pictures.Examples((part.x + 1) / 2, part.y) for part in (found.real, *found.tasks)]
    unit = found._replace(real=half[0], tasks=half[1:])
    np.testing.assert_allclose(pictures.canvas(unit), pictures.canvas(found), atol=1e-6)


def test_a_map_keeps_apart_what_is_apart():
    near, far = examples([0], VECTOR, each=20), examples([2], VECTOR, 50.0, each=20)
    a, b = pictures.mapped([pictures.Examples(*near), pictures.Examples(*far)])
    assert a.shape == b.shape == (20, 2)
    within = np.linalg.norm(a - a.mean(0), axis=1).max()
    assert np.linalg.norm(a.mean(0) - b.mean(0)) > 2 * within
    again = pictures.mapped([pictures.Examples(*near), pictures.Examples(*far)])
    np.testing.assert_array_equal(again[0], a)


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def test_images_have_a_grid_and_a_map_for_the_winner_and_the_default(study, capsys):
    write(study / "generated" / "1000001.safetensors", IMAGE)  # of the second seed only
    write(study / "generated" / "1000002.safetensors", IMAGE)
    assert command.main(["pictures", str(study)]) == 0
    expected = [f"{who}-{what}.png" for who in ("default", "winner") for what in ("map", "samples")]
    assert names_in(study / "pictures") == expected
    said = capsys.readouterr().out.split()
    assert sorted(said) == [str(study / "pictures" / name) for name in expected]
    for file in (study / "pictures").iterdir():
        assert np.ptp(matplotlib.image.imread(file)) > 0.9  # something is drawn


def test_features_have_a_map_only_and_one_contender_may_be_asked_for(study, capsys):
    write(study / "generated" / "1000000.safetensors", VECTOR)
    for asked, name in (("trial 3", "trial_3-map.png"), ("winner", "winner-map.png")):
        assert command.main(["pictures", str(study), "--trial", asked]) == 0
        assert name in names_in(study / "pictures")
    assert names_in(study / "pictures") == ["trial_3-map.png", "winner-map.png"]
    capsys.readouterr()
    assert command.main(["pictures", str(study), "--trial", "default"]) == 1
    said = capsys.readouterr().err
    assert "no generated examples of 'default'" in said and "--method lgm_vae" in said
    assert command.main(["pictures", str(study), "--trial", "trial 4"]) == 1
    assert "expected winner or one of default, trial 3" in capsys.readouterr().err


def test_a_default_that_won_is_drawn_once(study):
    (study / "best.yaml").write_text(yaml.safe_dump({"trial": None, "config": {}}))
    write(study / "generated" / "1000002.safetensors", VECTOR)
    assert [file.name for file in pictures.draw(study)] == ["default-map.png"]


def test_quality_is_drawn_where_it_was_measured(study):
    for trial_id in (1_000_000, 1_000_002):
        write(study / "generated" / f"{trial_id}.safetensors", VECTOR)
    with Record(study, "s") as record:
        for trial_id in range(1_000_000, 1_000_003):  # the default has one seed
            for t in range(2):
                cells = {name: [0.5 + 0.1 * j for j in range(t + 1)] for name in MEASURES}
                bad = {"nearest_distance": [np.nan] * (t + 1)} if trial_id == 1_000_000 else {}
                accuracy, sizes = {"validation": [0.5] * (t + 1)}, {"validation": [9] * (t + 1)}
                quality = {"validation": cells | bad}
                record.task(trial_id, trial_id % 2, t, accuracy, sizes, quality=quality)
            label = "default" if trial_id == 1_000_002 else "trial 3"
            record.finish(
                trial_id, {}, role="final", label=label, seed=trial_id % 2, status="completed",
                tasks_learned=2, **ABOUT,
            )  # fmt: skip
    drawn = [file.name for file in pictures.draw(study)]
    assert drawn == ["winner-map.png", "default-map.png", "cas.png", "nearest_distance.png"]


def test_a_file_that_is_none_of_ours_says_so(tmp_path):
    file = tmp_path / "g.safetensors"
    file.write_bytes(b"no tensors")
    with pytest.raises(RecordError, match="cannot be read as generated examples"):
        pictures.load(file)
    save_file({"x": np.zeros(1)}, file)
    with pytest.raises(RecordError, match=r"lacks 'task_00.x'"):
        pictures.load(file)
