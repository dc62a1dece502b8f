"""A memorizing network: an LSTM that stores a sequence of vectors in its weights.

The N examples x_1..x_N of a task, in the order in which they come, are what is to be remembered.
Given all that came before, the network says what comes next,

    x̂_i = W h_i + b,   (h_i, c_i) = LSTM(x_{i−1}; h_{i−1}, c_{i−1}),   x_0 = h_0 = c_0 = 0     (1)

and every update is a step of Adam on the error of the whole sequence,

    E mean_d (x̂_i − x_i)²                                           error                       (2)

at the rate lr ½ (1 + cos(π s/S)) in update s of S. ``reconstruct`` is (1) on any rows: what the
network expects at each place, given the true rows before it. On the rows of the task, in their
order, that is what it recalls. The weights, its memory, are larger than what they hold: 1.2 MB for
128 kB at the default on 1,000 vectors of 32 numbers. It knows no labels: its logits are all zero,
and its accuracy says nothing. A new task is a new sequence, learned over the old one.

Source: I. Skorokhodov's notebook of 2020 (universome/class-norm, commit 9418c23); no paper. The
cell: Gers et al. 2000, https://doi.org/10.1162/089976600300015015, as in ``torch.nn.LSTM``.
Differs from the source:
- Time is cut into pieces of ``chunk`` vectors that are computed side by side. A piece starts from
  the state in which the piece before it ended one update ago (in the first one, from 0), and
  gradients end where it starts. So an update takes ``chunk`` steps of time in place of N; a start
  is that of (1) only as far as the weights stand still. ``reconstruct`` knows no pieces.
- A cosine in place of a rate cut to a fifth whenever the error stays: it is a function of s alone.
- 256 hidden units and a rate of 1e-2 for 1,000 vectors; the source had 2,048, 1e-3 and 10,000.
- The sequence ends at x_N; the source's ends at a zero that follows.
- One bias a gate, where ``torch.nn.LSTM`` adds two.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from trainables.engine.method import Method, Params, Problem, Scalar
from trainables.engine.optim import Moments, adam, moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    hidden: int = 256  # H
    chunk: int = 10  # vectors of a piece: how far back gradients go


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 1000  # updates a task, S
    lr: Scalar = 1e-2


class Carry(NamedTuple):
    """What an LSTM hands from one time to the next, of K sequences."""

    h: Tensor  # (K, H)
    c: Tensor  # (K, H)


class State(NamedTuple):
    params: Params
    moments: Moments
    starts: Carry  # of the pieces, from the last update
    sequence: Tensor  # (K, chunk, D), the task's examples in K pieces, then zeros
    known: Tensor  # (K, chunk) bool, where there is an example


def lstm(params: Params, x: Tensor, start: Carry) -> tuple[Tensor, Carry]:
    """Eq. (1) over the T rows of K sequences.

    Args:
        params: ``w_x (D, 4H)``, ``w_h (H, 4H)`` and ``b (4H,)`` of the gates, input, forget, cell
            and output in this order; ``w_out (H, D)`` and ``b_out (D,)``.
        x: ``(K, T, D)``, at each time the vector that was true before.
        start: of each sequence.

    Returns:
        ``(K, T, D)`` predictions, and what the next time starts from.
    """
    (h, c), hidden = start, []
    for driven in (x @ params["w_x"] + params["b"]).unbind(1):
        i, f, g, o = torch.addmm(driven, h, params["w_h"]).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        hidden.append(h)
    return torch.stack(hidden, 1) @ params["w_out"] + params["b_out"], Carry(h, c)


def before(x: Tensor) -> Tensor:
    """``(N, D)`` rows, each in the place of the next one; the first is zero."""
    return F.pad(x[:-1], (0, 0, 1, 0))


def loss(params: Params, state: State):
    """Eq. (2), with the terms and what each piece ended in."""
    driving = before(state.sequence.flatten(0, 1)).view_as(state.sequence)
    predicted, ends = lstm(params, driving, state.starts)
    errors = (predicted - state.sequence).square().mean(-1)
    error = torch.where(state.known, errors, 0).sum() / state.known.sum()
    return error, ({"error": error}, ends)


def build(problem: Problem, shape: Shape) -> Method:
    size, hidden, chunk = torch.Size(problem.input_shape).numel(), shape.hidden, shape.chunk
    pieces = math.ceil(problem.examples / chunk)
    sizes = {
        "w_x": (size, 4 * hidden),
        "w_h": (hidden, 4 * hidden),
        "b": (4 * hidden,),
        "w_out": (hidden, size),
        "b_out": (size,),
    }

    def nothing(*axes):
        return torch.zeros(axes, dtype=problem.dtype)

    def init(generator):
        # U(−1/√H, 1/√H), as in torch.nn.LSTM and in a torch.nn.Linear of H inputs.
        params = {
            name: (2 * torch.rand(axes, generator=generator, dtype=problem.dtype) - 1) / hidden**0.5
            for name, axes in sizes.items()
        }
        starts = Carry(nothing(pieces, hidden), nothing(pieces, hidden))
        known = torch.zeros(pieces, chunk, dtype=torch.bool)
        return State(params, moments(params), starts, nothing(pieces, chunk, size), known)

    def begin_task(state, fresh, task, hyper):
        rows, places = task.x.flatten(1), pieces * chunk
        if len(rows) > problem.examples:
            raise ValueError(
                f"expected at most {problem.examples} examples a task, as the problem says, "
                f"got {len(rows)}"
            )
        sequence = F.pad(rows, (0, 0, 0, places - len(rows))).view_as(fresh.sequence)
        known = (torch.arange(places, device=rows.device) < len(rows)).view_as(fresh.known)
        return fresh._replace(params=state.params, sequence=sequence, known=known)

    def step(state, batch, hyper, noise):
        grads, (terms, ends) = grad(loss, has_aux=True)(state.params, state)
        rate = hyper.lr * 0.5 * (1 + torch.cos(math.pi * state.moments.step / hyper.steps))
        params, past = adam(state.params, grads, state.moments, rate)
        starts = Carry(*map(before, ends))
        return state._replace(params=params, moments=past, starts=starts), terms

    def reconstruct(state, x):
        rows, start = x.flatten(1), Carry(nothing(1, hidden), nothing(1, hidden))
        recalled, _ = lstm(state.params, before(rows)[None], start)
        return recalled[0].reshape(x.shape)

    return Method(
        init=init,
        schedule=lambda hyper, t: [("train", int(hyper.steps))],
        steps={"train": step},
        predict=lambda state, x: x.new_zeros(len(x), problem.classes),
        begin_task=begin_task,
        reconstruct=reconstruct,
        carried=lambda state: state.params,
        batch_size=1,  # whose examples are not read: an update is on the whole sequence
    )
