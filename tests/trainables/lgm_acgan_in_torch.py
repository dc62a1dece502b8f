"""LGM-AC-GAN once more, with ``torch.autograd`` and ``torch.optim``, and a lane to try it on."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_map

from tests.conftest import F64, generator, tiny
from trainables import lgm_acgan
from trainables.engine.gan import Nets, State
from trainables.engine.method import Batch, Method, Problem
from trainables.engine.packs import in_lane

GENERATOR_TERMS = (
    "generator_adversarial",
    "generator_classification",
    "generator_prototype",
    "generator_rehearsal",
)
CRITIC_TERMS = ("critic_adversarial", "critic_classification", "gradient_penalty")
TERMS = (*GENERATOR_TERMS, *CRITIC_TERMS, "classifier_rehearsal")
PLAYERS = {"D": "critic", "G": "generator", "c": "classifier"}
SHAPE = tiny(lgm_acgan)
# Every term on, every coefficient and rate different from the others.
HYPER = lgm_acgan.Hyper(
    generator_lr=0.011,
    generator_beta1=0.3,
    critic_lr=0.013,
    critic_beta1=0.1,
    critic_beta2=0.95,
    classifier_lr=0.017,
    classifier_beta1=0.5,
    classifier_beta2=0.99,
    generator_adversarial=0.9,
    generator_classification=0.7,
    critic_adversarial=1.1,
    critic_classification=0.8,
    gradient_penalty=3.0,
    use_prototypes=True,
    generator_prototype=1.7,
    generator_rehearsal=5.0,
    classifier_rehearsal=0.6,
    label_smoothing=0.1,
)


class Scene(NamedTuple):
    """A lane in the middle of the second task: two classes learned, two current, two to come."""

    problem: Problem
    method: Method
    nets: Nets
    state: State
    steps: list[tuple[str, Batch, dict[str, torch.Tensor]]]  # phase, minibatch, noise

    def first(self, phase: str) -> tuple[Batch, dict[str, torch.Tensor]]:
        return next(step[1:] for step in self.steps if step[0] == phase)


def scene(stream, turns="DGc", t=1, shape=SHAPE, variant=lgm_acgan) -> Scene:
    method, problem = variant.build(stream.problem, shape), stream.problem
    task, hyper = stream.batch(t), variant.Hyper()
    state = method.begin_task(
        method.init(generator(0)), method.init(generator(1)), task, lane(hyper)
    )
    state = state._replace(frozen=method.init(generator(2)).generator)  # as if G had moved since
    rows = torch.randint(len(task.y), (len(turns), shape.batch_size), generator=generator(3))
    g, steps = generator(4), []
    for phase, i in zip(map(PLAYERS.get, turns), rows, strict=True):
        noise = tree_map(lambda leaf: leaf[0], method.draw(g, phase, 1, task, hyper))
        steps.append((phase, task._replace(x=task.x[i], y=task.y[i]), noise))
    return Scene(problem, method, variant.networks(problem, shape), state, steps)


def lane(hyper):
    return in_lane(hyper, F64)


def forward(params, x, slope):
    layers = len(params) // 2
    for i in range(layers):
        x = F.linear(x, params[f"w{i}"].T, params[f"b{i}"])
        x = F.leaky_relu(x, slope) if i < layers - 1 else x
    return x


def g_of(params, z, y):
    return forward(params, torch.cat([z, F.one_hot(y, 6).to(z.dtype)], 1), 0.01)


def masked_cross_entropy(logits, y, rows, smoothing=0.0):
    """One example at a time, on the columns that compete."""
    losses = []
    for example, label, row in zip(logits, y.tolist(), rows, strict=True):
        columns = row.nonzero()[:, 0].tolist()
        share = smoothing / (len(columns) - 1) if len(columns) > 1 else 0.0
        target = torch.full((len(columns),), share, dtype=F64)
        target[columns.index(label)] = 1 - share * (len(columns) - 1)
        losses.append(F.cross_entropy(example[columns], target))
    return torch.stack(losses).mean()


def critic_terms(critic, state, batch, hyper, noise):
    x = batch.x.flatten(1)
    fake = g_of(state.generator, noise["z_critic"], batch.y).detach()
    real_out, fake_out = forward(critic, x, 0.0), forward(critic, fake, 0.0)
    between = (x + noise["mix"] * (fake - x)).requires_grad_()
    (slope,) = torch.autograd.grad(
        forward(critic, between, 0.0)[:, 0].sum(), between, create_graph=True
    )
    current = batch.current.repeat(len(batch.y), 1)
    return {
        "critic_adversarial": fake_out[:, 0].mean() - real_out[:, 0].mean(),
        "critic_classification": masked_cross_entropy(real_out[:, 1:], batch.y, current),
        "gradient_penalty": (slope.norm(dim=1) - 1).square().mean(),
    }


def generator_terms(params, state, batch, hyper, noise):
    fake = g_of(params, noise["z"], batch.y)
    out = forward(state.critic, fake, 0.0)
    of_class = [
        F.mse_loss(fake[batch.y == c].mean(0), state.prototypes[c]) for c in batch.y.unique()
    ]
    current = batch.current.repeat(len(batch.y), 1)
    now = g_of(params, noise["z_old"], noise["y_old"])
    then = g_of(state.frozen, noise["z_old"], noise["y_old"])
    return {
        "generator_adversarial": -out[:, 0].mean(),
        "generator_classification": masked_cross_entropy(out[:, 1:], batch.y, current),
        "generator_prototype": torch.stack(of_class).mean(),
        "generator_rehearsal": F.mse_loss(now, then.detach()),
    }


def classifier_terms(params, state, batch, hyper, noise):
    y = noise["y_replay"]
    replayed = g_of(state.generator, noise["z_replay"], y).detach()
    on_real, on_replay = forward(params, batch.x, 0.0), forward(params, replayed, 0.0)
    s = hyper.label_smoothing
    return {
        "classifier": masked_cross_entropy(on_real, batch.y, batch.rivals[batch.y], s),
        "classifier_rehearsal": masked_cross_entropy(on_replay, y, batch.rivals[y], s),
    }


TERMS_OF = {"critic": critic_terms, "generator": generator_terms, "classifier": classifier_terms}


def in_plain_torch(at: Scene, hyper, without=(), terms_of=None):
    """The players after the scene's steps, with ``torch.optim.Adam``.

    A term named in ``without`` is not in the loss at all; ``terms_of`` are another variant's.
    """
    leaves, optimizers = {}, {}
    for player in PLAYERS.values():
        params = {k: p.clone().requires_grad_() for k, p in getattr(at.state, player).items()}
        lr, b1, b2 = (getattr(hyper, f"{player}_{n}") for n in ("lr", "beta1", "beta2"))
        leaves[player] = params
        optimizers[player] = torch.optim.Adam(params.values(), lr=lr, betas=(b1, b2))
    state = at.state._replace(**leaves)
    for phase, batch, noise in at.steps:
        terms = (terms_of or TERMS_OF)[phase](leaves[phase], state, batch, hyper, noise)
        loss = total(hyper, {k: term for k, term in terms.items() if k not in without})
        params = list(leaves[phase].values())
        slopes = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
        for p, slope in zip(params, slopes, strict=True):
            p.grad = slope
        optimizers[phase].step()
    return {player: {k: p.detach() for k, p in leaves[player].items()} for player in leaves}


def total(hyper, terms):
    weights = hyper._asdict() | {"classifier": 1.0}
    return sum((weights[name] * term for name, term in terms.items()), torch.zeros(()))


def by_method(at: Scene, hyper):
    state, logs = at.state, []
    for phase, batch, noise in at.steps:
        state, log = at.method.steps[phase](state, batch, lane(hyper), noise)
        logs.append(log)
    return state, logs


def players(state):
    return {name: getattr(state, name) for name in PLAYERS.values()}
