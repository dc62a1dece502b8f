"""LGM with a static memory (LGM-MEM): the perfect generator, of features that never age.

In place of what a generator remembers, the classifier c rehearses stored training examples: m of
every class, chosen at random at the end of the class's task and never refreshed. What this cannot
do, no generator on the same features can. Steps are on

    CE(c(x), y) + w1 E_{y~L, x~M_y} CE(c(x), y)                 classifier rehearsal    (1)

with L the classes of earlier tasks, M_y what is stored of class y, and CE over all classes that
compete (seen, in the class-incremental scenario).

Source: I. Skorokhodov's LGM code of 2019-2020 (universome/class-norm, commit 0e91223); no paper.
Differs from the source: m examples a class where the source kept all; replayed examples compete
with all rivals, in the source with L only; labels are balanced over L, not drawn as stored.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import noise as draws
from trainables.engine.losses import rehearsed_cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, choose, classifier
from trainables.engine.optim import Moments, adam_step, moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    classifier_hidden: int = 128
    classifier_layers: int = 1
    memory_per_class: int = 100  # m
    batch_size: int = 64
    replay_batch_size: int = 64


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    classifier_steps: Scalar = 300  # updates a task
    classifier_lr: Scalar = 1e-3
    classifier_beta1: Scalar = 0.0
    classifier_beta2: Scalar = 0.9
    classifier_rehearsal: Scalar = 1.0  # w1 >= 0
    label_smoothing: Scalar = 0.0  # in [0, 1)
    reset_classifier: Scalar = False  # fresh classifier at the start of a task


class State(NamedTuple):
    classifier: Params  # c
    memory: Tensor  # (C, m, D); of no account where a class has not been learned
    classifier_moments: Moments


def classifier_loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """The classifier's loss on real data and (1), zero in the first task; and both terms."""
    y, slots = noise["y_replay"], state.memory.shape[1]
    replayed = state.memory[y, (noise["slot"] * slots).long()]
    return rehearsed_cross_entropy(
        lambda x: net.apply(params, x), batch, replayed, y,
        hyper.classifier_rehearsal, hyper.label_smoothing,
    )  # fmt: skip


def stored(memory: Tensor, task: Batch, order: Tensor) -> Tensor:
    """The memory with m examples of each class of the task, all of them where there are fewer.

    Args:
        memory: ``(C, m, D)``.
        task: N examples.
        order: ``(N,)``, distinct numbers; the examples with the smallest are kept.
    """
    classes, slots, _ = memory.shape
    of_class = task.y == torch.arange(classes, device=task.y.device)[:, None]  # (C, N)
    first = torch.where(of_class, order, torch.inf).argsort(-1)
    counts = of_class.sum(-1, keepdim=True).clamp_min(1)
    rows = first.gather(-1, torch.arange(slots, device=counts.device) % counts)  # (C, m)
    return torch.where(task.current[:, None, None], task.x.flatten(1)[rows], memory)


def build(problem: Problem, shape: Shape) -> Method:
    size, hidden, layers = problem.input_shape, shape.classifier_hidden, shape.classifier_layers
    net = classifier(shape.network, problem, size, hidden, layers)
    slots = problem.classes, shape.memory_per_class, torch.Size(size).numel()

    def init(generator):
        params = net.init(generator)
        return State(params, torch.zeros(*slots, dtype=problem.dtype), moments(params))

    def begin_task(state, fresh, task, hyper):
        params = choose(hyper.reset_classifier > 0, fresh.classifier, state.classifier)
        return State(params, state.memory, fresh.classifier_moments)

    def end_task(state, task, hyper, noise):
        return state._replace(memory=stored(state.memory, task, noise["order"]))

    def draw(generator, phase, steps, task, hyper):
        if phase == "end_task":
            return {"order": torch.rand(steps, len(task.y), generator=generator)}
        size = shape.replay_batch_size
        return {
            "y_replay": draws.labels(generator, draws.rehearsed(task), steps, size),
            "slot": draws.uniform(generator, steps, size, dtype=problem.dtype),
        }

    loss = partial(classifier_loss, net=net)
    return Method(
        init=init,
        schedule=lambda hyper, t: [("classifier", int(hyper.classifier_steps))],
        steps={"classifier": adam_step("classifier", loss)},
        classifier_loss=loss,
        predict=lambda state, x: net.apply(state.classifier, x.flatten(1)),
        begin_task=begin_task,
        end_task=end_task,
        draw=draw,
        carried=lambda state: (state.classifier, state.memory),
        batch_size=shape.batch_size,
    )
