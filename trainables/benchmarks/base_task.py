"""Features that the first task of a stream teaches: a small classifier of its classes, frozen.

It is trained on the training examples of the first task only, so nothing of later tasks and no
validation example is in the features that all tasks are seen through.

Images pass two 3 × 3 convolutions of stride 2 (16 and 32 channels) and a linear layer, vectors two
linear layers; every layer ends in a ReLU, and the last one's 128 outputs, ≥ 0, are the features. A
linear layer on top of them, thrown away, is trained with them: 300 steps of Adam (learning rate
0.001) on the cross-entropy of 64 examples, drawn with replacement. Initial weights and draws are a
function of the examples, which the stream's seed chooses.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.benchmarks.cache import digest, kept
from trainables.engine import noise

FEATURES, STEPS, BATCH, RATE = 128, 300, 64, 1e-3
VERSION = 1  # of all that the weights depend on beside the examples


@torch.no_grad()
def features(x: Tensor, first_x: Tensor, first_y: Tensor) -> Tensor:
    """Features (N, 128) float32 of some examples.

    The weights are kept in the cache folder, so that all processes and `load_test` share them.

    Args:
        x: ``(N, channels, height, width)`` or ``(N, D)`` float32, on the CPU.
        first_x: the training examples of the first task, of the same shape but for N.
        first_y: their labels, of at least two classes.

    Raises:
        DataError: the cache folder cannot be written.
    """
    key = digest(VERSION, first_x, first_y)
    weights = kept("base_task", key, lambda: learn(first_x, first_y, noise.seed_of(key)))
    with torch.device("meta"):  # no weights are drawn
        network = trunk(x.shape[1:])
    network.load_state_dict(weights, assign=True)
    return torch.cat([network(part) for part in x.split(1024)])


def trunk(shape: torch.Size) -> nn.Sequential:
    """The network from an input of this shape to the features."""
    if len(shape) == 1:
        first = [nn.Linear(shape[0], FEATURES), nn.ReLU()]
        return nn.Sequential(*first, nn.Linear(FEATURES, FEATURES), nn.ReLU())
    channels, height, width = shape
    places = -(height // -4) * -(width // -4)  # rounded up
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * places, FEATURES),
        nn.ReLU(),
    )


def learn(x: Tensor, y: Tensor, seed: int) -> dict[str, Tensor]:
    """The trunk's weights after training; see `features` for x and y."""
    classes, targets = y.unique(return_inverse=True)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        network = trunk(x.shape[1:])
        head = nn.Linear(FEATURES, len(classes))
        optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=RATE)
        for rows in torch.randint(len(x), (STEPS, BATCH)):
            optimizer.zero_grad()
            F.cross_entropy(head(network(x[rows])), targets[rows]).backward()
            optimizer.step()
    return network.state_dict()
