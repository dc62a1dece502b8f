"""What a trial generates after every task, in one safetensors file that pictures are made of.

- ``real.x`` (N, *input), ``real.y`` (N,): validation examples, at most ``REAL`` of each class of
  the stream, class by class; where an embedder is trained with the method, their latest features.
- ``task_00.x``, ``task_00.y``, after the first task, and so on: ``GENERATED`` samples of each class
  seen, class by class. A class is drawn from the same z after every task, so that what differs
  between two tasks is what was forgotten.
- ``reconstructed_00.x``, ``reconstructed_00.y``: what becomes of the first ``RECONSTRUCTED``
  examples in ``real`` of each class seen.

Metadata: ``label`` (of the contender), ``class_names`` (a JSON list, one for each value of y).
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainables.benchmarks import Stream
from trainables.engine import noise
from trainables.engine.checkpoint import CheckpointError, write
from trainables.ray.trial import Trial

REAL, GENERATED, RECONSTRUCTED = 40, 10, 5  # examples a class


@torch.no_grad()
def keep(trial: Trial, file: str, label: str) -> None:
    """Add what a trial makes after its last task to its file.

    A method that neither generates nor reconstructs has no file.

    Args:
        trial: that has learned a task.
        file: where to; what it holds of earlier tasks stays. After the first task it is new.
        label: of the contender.

    Raises:
        CheckpointError: if the file cannot be written, or not be read after the first task.
    """
    path, stream, t = Path(file), trial.stream, trial.tasks_learned - 1
    method, state, device = trial.engine.method, trial.lane.state, trial.engine.device
    if method.sample is None and method.reconstruct is None:
        return
    seen = stream.seen(t).nonzero()[:, 0]
    x, y = real(stream)
    tensors = {} if t == 0 else read(path)
    shown = x if method.features is None else method.features(state, x.to(device)).cpu()
    tensors |= {"real.x": shown, "real.y": y}
    if method.sample is not None:
        own, size = noise.generator(trial.seed, "pictures"), (len(stream.class_names), GENERATED)
        z = torch.randn(*size, method.latent, generator=own, dtype=x.dtype)[seen].flatten(0, 1)
        labels = seen.repeat_interleave(GENERATED)
        samples = method.sample(state, labels.to(device), z.to(device))
        tensors |= {f"task_{t:02d}.x": samples.cpu(), f"task_{t:02d}.y": labels}
    if method.reconstruct is not None:
        rows = torch.cat([(y == c).nonzero()[:RECONSTRUCTED, 0] for c in seen])
        back = method.reconstruct(state, x[rows].to(device)).cpu()
        tensors |= {f"reconstructed_{t:02d}.x": back, f"reconstructed_{t:02d}.y": y[rows]}
    names = json.dumps(stream.class_names)
    write(
        path,
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        {"label": label, "class_names": names},
    )


def real(stream: Stream) -> tuple[Tensor, Tensor]:
    """The first ``REAL`` validation examples of each class, class by class."""
    x = torch.cat([task.validation.x for task in stream.tasks])
    y = torch.cat([task.validation.y for task in stream.tasks])
    rows = torch.cat([(y == c).nonzero()[:REAL, 0] for c in y.unique()])
    return x[rows], y[rows]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot add to {path}: {error}") from error
