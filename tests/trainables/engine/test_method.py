"""Splitting a configuration, and the masks of a batch."""

from types import ModuleType
from typing import NamedTuple

import pytest
import torch

from trainables.engine.method import Batch, Scalar, configure


class Shape(NamedTuple):
    hidden: int = 16


class Hyper(NamedTuple):
    lr: Scalar
    momentum: Scalar = 0.5


METHOD = ModuleType("trainables.some_method")
METHOD.__dict__.update(Shape=Shape, Hyper=Hyper)


def test_configure_splits_by_field_and_keeps_defaults():
    assert configure(METHOD, {"lr": 0.1}) == (Shape(16), Hyper(0.1, 0.5))
    assert configure(METHOD, {"momentum": 0, "hidden": 4, "lr": 2}) == (Shape(4), Hyper(2, 0))


def test_configure_names_the_nearest_field():
    with pytest.raises(ValueError, match=r"some_method.*'momentun'.*did you mean 'momentum'"):
        configure(METHOD, {"lr": 0.1, "momentun": 0.9})
    with pytest.raises(ValueError, match=r"no hyperparameter 'xyz'$"):
        configure(METHOD, {"lr": 0.1, "xyz": 0.9})


def test_configure_names_what_is_missing():
    with pytest.raises(ValueError, match="needs a value for lr"):
        configure(METHOD, {"hidden": 4})


def test_seen_classes_are_the_current_and_the_learned_ones():
    masks = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    batch = Batch(torch.zeros(1, 2), torch.zeros(1).long(), masks[0], masks[1], torch.ones(4, 4))
    assert batch.seen.tolist() == [True, True, True, False]
