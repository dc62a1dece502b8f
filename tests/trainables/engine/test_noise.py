"""Random numbers of a trial: reproducible, and as balanced as promised."""

import pytest
import torch

from tests.conftest import generator
from trainables.engine import noise

KNOWN = torch.tensor([False, True, True, False, True, True, False, True])  # classes 1, 2, 4, 5, 7


def test_seed_is_the_same_on_every_machine():
    # printf '[3, "init", 0]' | sha256sum | head -c16, then shifted right by one
    assert noise.seed_of(3, "init", 0) == 779425518877241223


def test_seed_depends_on_every_part_and_fits_a_generator():
    seeds = [
        noise.seed_of(*parts)
        for parts in [(0, "gan", 1), (1, "gan", 1), (0, "init", 1), (0, "gan", 2), (0, "gan")]
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_trial_seed_is_that_of_the_configuration():
    assert noise.trial_seed(0, {"a": 1, "b": 2.5}) == noise.trial_seed(0, {"b": 2.5, "a": 1})
    assert noise.trial_seed(0, {"a": 1}) != noise.trial_seed(1, {"a": 1})
    assert noise.trial_seed(0, {"a": 1}) != noise.trial_seed(0, {"a": 2})


def test_generators_of_two_purposes_or_tasks_differ():
    def first(*about):
        return torch.rand((), generator=noise.generator(*about)).item()

    draws = [first(0, "gan"), first(0, "init"), first(1, "gan"), first(0, "gan", 1)]
    assert len(set(draws)) == 4
    assert first(0, "gan", 0) == draws[0]


@pytest.mark.parametrize("size", [1, 3, 5, 8, 10, 64])
def test_labels_are_balanced_over_the_known_classes(size):
    labels = noise.labels(generator(0), KNOWN, 40, size)
    assert labels.shape == (40, size)
    assert labels.dtype == torch.int64
    counts = (labels[:, :, None] == torch.arange(8)).sum(1)  # (S, C)
    assert not counts[:, ~KNOWN].any()
    assert (counts[:, KNOWN] >= size // 5).all()
    assert (counts[:, KNOWN] <= -(-size // 5)).all()


@pytest.mark.parametrize("size", [2, 8])  # fewer examples than classes; more, and not a multiple
def test_labels_have_equal_chances(size):
    steps = 4000
    labels = noise.labels(generator(0), KNOWN, steps, size)
    shares = (labels[:, :, None] == torch.arange(8)).double().mean((0, 1))[KNOWN]
    # The standard error of a share is below √(p(1−p)/N) of independent draws.
    assert (shares - 1 / 5).abs().max() < 4 * (0.2 * 0.8 / (steps * size)) ** 0.5


def test_labels_are_a_function_of_the_generator():
    first, again = (noise.labels(generator(5), KNOWN, 6, 4) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, noise.labels(generator(6), KNOWN, 6, 4))
