"""From a source's examples to what a method sees: the pixels, or a frozen network's features.

``identity`` gives pixels scaled by fixed constants to [-1, 1]. The name of a torchvision
classification network gives what enters its last layer, under its default (ImageNet) weights. Such
features are left as they are: not standardised, of no fixed range, and ≥ 0 where the network ends
in a ReLU (squeezenet, vgg, resnet, ...). A generator for them must not end in a tanh.
"""

import hashlib
import http.client
import pickle
import sys
import tempfile
from pathlib import Path

import platformdirs
import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainables.benchmarks.sources import Examples
from trainables.engine.errors import DataError, unknown

IDENTITY = "identity"
BATCH = 64  # images that pass a backbone at once


def names() -> list[str]:
    """``identity`` and every classification network of the installed torchvision."""
    from torchvision import models  # takes seconds to import, and identity needs none of it

    return [IDENTITY, *models.list_models(module=models)]


def check(embedder: str) -> None:
    """Raise a ValueError with the nearest match if no embedder has this name."""
    if embedder != IDENTITY and embedder not in names():
        raise unknown("embedder", embedder, names())


def embed(examples: Examples, embedder: str, dtype: torch.dtype) -> Tensor:
    """The inputs of a method: images ``(N, 1, H, W)``, or vectors ``(N, D)``.

    Raises:
        ValueError: unknown embedder; a backbone for examples that are not images.
        DataError: the backbone's weights are neither on disk nor to be downloaded.
    """
    check(embedder)
    if embedder == IDENTITY:
        return pixels(examples, dtype)
    if examples.x.dim() != 3:
        raise ValueError(f"embedder {embedder!r} needs images: use 'identity' on vectors")
    return features(examples, embedder).to(dtype)


def pixels(examples: Examples, dtype: torch.dtype) -> Tensor:
    """Images ``(N, 1, H, W)`` in [-1, 1], black to white; vectors ``(N, D)`` as they are."""
    if examples.x.dim() != 3:
        return examples.x.to(dtype)
    return examples.x.to(dtype).div_(examples.white / 2).sub_(1)[:, None]


def features(examples: Examples, backbone: str) -> Tensor:
    """Features of all images, ``(N, F)`` float32, from the disk's cache if it has them.

    The cache is ``features/*.safetensors`` in the user's cache folder, a file for each (images,
    backbone, weights); deleting it costs time only.
    """
    from torchvision import models

    weights = models.get_model_weights(backbone).DEFAULT  # pyright: ignore
    key = hashlib.sha256(f"1 {weights} {tuple(examples.x.shape)} {examples.white}".encode())
    key.update(examples.x.numpy().tobytes())
    folder = platformdirs.user_cache_path("lgm-search") / "features"
    path = folder / f"{backbone}-{key.hexdigest()[:24]}.safetensors"
    if path.is_file():
        try:
            return load_file(path)["features"]
        except (SafetensorError, KeyError):
            pass  # a damaged file is made anew
    model = behead(_pretrained(backbone, weights)).eval()
    found = _run(model, weights.transforms(), examples, backbone)
    _save(found, path)
    return found


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
def _run(model: nn.Module, transform, examples: Examples, description: str) -> Tensor:
    """Features of grey images, repeated to three channels and resized as the weights expect."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    found = []
    batches = track(
        examples.x.split(BATCH),
        description,
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    # Full float32: a GPU would round convolutions to TF32 unasked.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for images in batches:
            grey = images.to(device, torch.float32).div_(examples.white)[:, None]
            found.append(model(transform(grey.expand(-1, 3, -1, -1))).cpu())
    return torch.cat(found)


def _save(found: Tensor, path: Path) -> None:
    """Write the features so that the file is there whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            save_file({"features": found}, Path(scratch) / path.name)
            (Path(scratch) / path.name).replace(path)
    except OSError as error:
        raise DataError(
            f"cannot keep features in {path.parent} ({error}): make it writable"
        ) from error
