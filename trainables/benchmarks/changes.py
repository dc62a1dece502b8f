"""One data set seen in a different way in each task: pixels permuted, images rotated.

Each change is a function ``(images, t, tasks, seed) -> images`` of uint8 images (N, H, W), the same
for training, validation and test images of task t.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.engine import noise

AT_ONCE = 4096  # images that are rotated together


def permuted(images: Tensor, t: int, tasks: int, seed: int) -> Tensor:
    """Pixels in an order of the task's own: as they are in task 0, then permuted at random.

    Task t has the same permutation whatever the number of tasks.

    Source: Kirkpatrick et al., PNAS 2017, https://arxiv.org/abs/1612.00796; Goodfellow et al. 2013,
        https://arxiv.org/abs/1312.6211.
    Differs from the source: van de Ven's code (https://github.com/GMvandeVen/continual-learning),
        whose numbers are the usual reference, has the first task as it is or permuted, an option,
        and pads images to 32 × 32 first; A-GEM's permutes all tasks.
    """
    if t == 0:
        return images
    pixels = images.flatten(1)
    order = torch.randperm(pixels.shape[1], generator=noise.generator(seed, "permutation", t))
    return pixels[:, order].view_as(images)


def rotated(images: Tensor, t: int, tasks: int, seed: int) -> Tensor:
    """Images turned by an angle of the task's own, see `angle`."""
    return rotate(images, angle(t, tasks, seed))


def angle(t: int, tasks: int, seed: int) -> float:
    """180 (t + u) / T degrees, with u ~ U(0, 1) drawn for each task.

    Source: Lopez-Paz & Ranzato, NeurIPS 2017, https://arxiv.org/abs/1706.08840.
    Differs from the source: there 20 tasks of 1000 examples each, here all examples in every task.
    """
    u = torch.rand((), generator=noise.generator(seed, "angle", t), dtype=torch.float64)
    return 180 * (t + float(u)) / tasks


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn images about their centre, counter-clockwise; bilinear, 0 where nothing was."""
    a = math.radians(degrees)
    # Where an output pixel comes from, in (x, y) with y down.
    turn = torch.tensor([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]])
    turned = torch.empty_like(images)
    for source, target in zip(images.split(AT_ONCE), turned.split(AT_ONCE), strict=True):
        # All images share the grid, so they are the channels of one.
        grid = F.affine_grid(turn[None], [1, 1, *images.shape[1:]], align_corners=False)
        found = F.grid_sample(source[None].float(), grid, align_corners=False)
        target.copy_(found[0].round_())
    return turned
