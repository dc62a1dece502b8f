"""From a source's examples to what a method sees.

``identity``: pixels scaled by fixed constants to [-1, 1].

``unit``: pixels in [0, 1], as most papers have them. Black is 0 then and moves no weight of a first
layer, so tasks that differ in where they are black disturb each other less: SI on permuted MNIST is
ten points better for it (docs/methods.md).

``trainable``: the same; what learns along with the method is a part of it (engine/embedder.py).

``base_task``: 128 features of a network that the stream's first task has taught.

``resnet18``, or another classification network of torchvision: what enters its last layer, under
its default (ImageNet) weights. Such features are left as they are: not standardised, of no fixed
range, and ≥ 0 where the network ends in a ReLU (squeezenet, vgg, resnet, ...). A generator for them
must not end in a tanh.

``resnet18.layer3``: the feature map of that network at a node, as
``torchvision.models.feature_extraction`` names it. Maps are large (resnet18.layer3: 256 × 14 × 14,
200 kB an image) and are held in memory, all of them.
"""

import http.client
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from trainables.benchmarks import base_task
from trainables.benchmarks.cache import digest, kept
from trainables.benchmarks.sources import Examples
from trainables.engine.errors import DataError, unknown

OWN = IDENTITY, UNIT, BASE_TASK, TRAINABLE = "identity", "unit", "base_task", "trainable"
PIXELS = {IDENTITY: -1.0, TRAINABLE: -1.0, UNIT: 0.0}  # those that leave images as they are: black
BATCH = 64  # images that pass a backbone at once


def names() -> list[str]:
    """Embedders of our own, and every classification network of the installed torchvision."""
    return [*OWN, *networks()]


def networks() -> list[str]:
    """Every classification network of the installed torchvision."""
    from torchvision import models  # takes seconds to import, and identity needs none of it

    return models.list_models(module=models)


def check(embedder: str) -> None:
    """Raise a ValueError with the nearest match if no embedder, or no network, has this name.

    Whether a network has a node is known only once its weights are there: `embed` says so.
    """
    if embedder not in OWN and embedder.partition(".")[0] not in networks():
        raise unknown("embedder", embedder, names())


def embed(
    examples: Examples, embedder: str, dtype: torch.dtype, first: Callable[[], Examples]
) -> Tensor:
    """The inputs of a method: images and maps ``(N, C, H, W)``, vectors ``(N, D)``.

    Args:
        examples: of one part, training or test.
        embedder: one that `check` lets pass.
        dtype: of the result.
        first: returns the training examples of the stream's first task, called by ``base_task``.

    Raises:
        ValueError: a network for examples that are not images; a node that it does not have.
        DataError: the network's weights are neither on disk nor to be downloaded.
    """
    if embedder in PIXELS:
        return pixels(examples, dtype, PIXELS[embedder])
    if embedder == BASE_TASK:
        taught = first()
        x, first_x = (pixels(part, torch.float32) for part in (examples, taught))
        return base_task.features(x, first_x, taught.y).to(dtype)
    if examples.x.dim() < 3:
        raise ValueError(
            f"embedder {embedder!r} needs images: use 'identity' or 'base_task' on vectors"
        )
    return features(examples, embedder).to(dtype)


def pixels(examples: Examples, dtype: torch.dtype, black: float = -1.0) -> Tensor:
    """Images ``(N, C, H, W)``, white at 1; vectors ``(N, D)`` as they are."""
    if examples.x.dim() < 3:
        return examples.x.to(dtype)
    return with_channels(examples.x).to(dtype).div_(examples.white / (1 - black)).add_(black)


def with_channels(images: Tensor) -> Tensor:
    """Grey images ``(N, H, W)`` as ``(N, 1, H, W)``; colour images ``(N, 3, H, W)`` as they are."""
    return images[:, None] if images.dim() == 3 else images


def features(examples: Examples, embedder: str) -> Tensor:
    """Features ``(N, F)``, or maps ``(N, C, H, W)`` at a node, of all images, float32.

    They are kept in the cache folder, a file for each (images, network, node, weights).
    """
    from torchvision import models

    network, dot, node = embedder.partition(".")
    weights = models.get_model_weights(network).DEFAULT  # pyright: ignore

    def extract() -> dict[str, Tensor]:
        model = _pretrained(network, weights).eval()
        model = up_to(model, embedder) if dot else behead(model)
        return {"features": _run(model, weights.transforms(), examples, embedder)}

    key = digest(2, str(weights), dot, node, examples.x, examples.white)
    return kept("features", f"{network}-{key}", extract)["features"]


def up_to(model: nn.Module, embedder: str) -> nn.Module:
    """A network in evaluation mode, up to the node that ``network.node`` names.

    Returns:
        A network that gives ``{node: its output}``.

    Raises:
        ValueError: it has no such node.
    """
    from torchvision.models import feature_extraction

    network, _, node = embedder.partition(".")
    _, names = feature_extraction.get_graph_node_names(model, suppress_diff_warning=True)
    parts = [name.split(".") for name in names]  # a module, too, stands for its last node
    known = {".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)}
    if node not in known:
        shallow_first = sorted(known, key=lambda name: (name.count("."), name))
        raise unknown(f"node of {network}", node, shallow_first)
    return feature_extraction.create_feature_extractor(model, [node], suppress_diff_warning=True)


def behead(model: nn.Module) -> nn.Module:
    """Put the identity in the place of a network's last linear (SqueezeNet: 1 × 1) layer."""
    last = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    model.set_submodule(last, nn.Identity())
    return model


def _pretrained(backbone: str, weights) -> nn.Module:
    """The network under its weights, from torch.hub's folder or downloaded to it."""
    from torchvision import models

    try:
        with torch.random.fork_rng(devices=[]):  # building a network draws weights to throw away
            return models.get_model(backbone, weights=weights)
    except (
        OSError,
        RuntimeError,
        EOFError,
        pickle.PickleError,
        http.client.HTTPException,
    ) as error:
        checkpoint = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"embedder {backbone!r}: expected its weights in {checkpoint} or from {weights.url}, "
            f"got {type(error).__name__}: {reason}; put the file there, or use 'identity'"
        ) from error


@torch.no_grad()
def _run(model: nn.Module, transform, examples: Examples, embedder: str) -> Tensor:
    """Features of images, resized as the weights expect; grey ones are repeated to 3 channels."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    found = []
    batches = track(
        examples.x.split(BATCH),
        embedder,
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    # Full float32: a GPU would round convolutions to TF32 unasked.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for images in batches:
            seen = with_channels(images).to(device, torch.float32).div_(examples.white)
            out = model(transform(seen.expand(-1, 3, -1, -1)))
            out = feature_map(out, embedder) if isinstance(out, dict) else out
            found.append(out.cpu())
    return torch.cat(found)


def feature_map(output: dict, embedder: str) -> Tensor:
    """What a network gives at its node.

    Raises:
        ValueError: that is no map ``(N, C, H, W)``.
    """
    (found,) = output.values()
    if not isinstance(found, Tensor) or found.dim() != 4:
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"embedder {embedder!r}: expected a node with a feature map (N, C, H, W), "
            f"found {what}; use a convolutional one"
        )
    return found
