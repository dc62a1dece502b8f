"""The memorizing network against ``torch.nn.LSTM``, and what it remembers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad

from tests.conftest import EXACTLY, F64, generator, tiny
from trainables import benchmarks, lstm_memorizer
from trainables.benchmarks import Split
from trainables.engine.learn import learn
from trainables.engine.method import Batch, Problem
from trainables.engine.packs import in_lane
from trainables.lstm_memorizer import Carry

SHAPE = tiny(lstm_memorizer)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def lane(**hyper):
    return in_lane(lstm_memorizer.Hyper(**hyper), F64)


def task_of(x) -> Batch:
    one = torch.ones(1, dtype=torch.bool)
    return Batch(x, torch.zeros(len(x), dtype=torch.int64), one, ~one, one[None])


def begun(method, task, seed=0):
    """A state at the start of a first task."""
    start = method.init(generator(seed))
    return method.begin_task(start, method.init(generator(seed + 1)), task, lane())


def still():
    """What a sequence starts from."""
    return Carry(*torch.zeros(2, 1, 8, dtype=F64))


def normal(*shape, seed=9):
    return torch.randn(shape, generator=generator(seed), dtype=F64)


class InTorch(nn.Module):
    """The network of ``params`` in modules of ``torch.nn``."""

    def __init__(self, params):
        super().__init__()
        (size, gates), (hidden, _) = params["w_x"].shape, params["w_h"].shape
        self.lstm = nn.LSTM(size, hidden, batch_first=True, dtype=F64)
        self.out = nn.Linear(hidden, size, dtype=F64)
        weights = {"weight_ih_l0": params["w_x"].T, "weight_hh_l0": params["w_h"].T}
        biases = {"bias_ih_l0": params["b"], "bias_hh_l0": torch.zeros(gates)}
        self.lstm.load_state_dict(weights | biases)
        self.lstm.bias_hh_l0.requires_grad_(False)
        self.out.load_state_dict({"weight": params["w_out"].T, "bias": params["b_out"]})

    def forward(self, x, start):
        hidden, ends = self.lstm(x, tuple(part[None] for part in start))
        return self.out(hidden), Carry(*(part[0] for part in ends))

    def named(self, of=lambda parameter: parameter.detach()):
        """Its parameters (or what ``of`` makes of them) under our names."""
        return {
            "w_x": of(self.lstm.weight_ih_l0).T,
            "w_h": of(self.lstm.weight_hh_l0).T,
            "b": of(self.lstm.bias_ih_l0),
            "w_out": of(self.out.weight).T,
            "b_out": of(self.out.bias),
        }


# ---- the network ---------------------------------------------------------------------------------


def test_outputs_and_gradients_are_those_of_torch(blobs):
    params = lstm_memorizer.build(blobs.problem, SHAPE).init(generator(0)).params
    x, start = normal(3, 7, 8), Carry(normal(3, 8, seed=1), normal(3, 8, seed=2))
    weigh = normal(3, 7, 8, seed=3)
    net = InTorch(params)
    predicted, ends = net(x, start)
    ours = lstm_memorizer.lstm(params, x, start)
    torch.testing.assert_close(ours, (predicted.detach(), Carry(*(e.detach() for e in ends))))

    (predicted * weigh).sum().backward()
    grads = grad(lambda p: (lstm_memorizer.lstm(p, x, start)[0] * weigh).sum())(params)
    torch.testing.assert_close(grads, net.named(lambda parameter: parameter.grad), **CLOSE)


def test_it_starts_as_in_torch():
    problem = Problem((32,), 1, F64, examples=10)
    params = lstm_memorizer.build(problem, lstm_memorizer.Shape()).init(generator(0)).params
    torch.manual_seed(0)
    for ours, theirs in zip(
        (params["w_x"], params["w_h"], params["b"], params["w_out"]),
        (*nn.LSTM(32, 256).all_weights[0][:3], nn.Linear(256, 32).weight),
        strict=True,
    ):
        assert ours.numel() == theirs.numel()
        assert ours.abs().max() <= 1 / 16
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)


# ---- learning ------------------------------------------------------------------------------------


def test_updates_are_those_of_torch_where_the_sequence_is_one_piece():
    """Teacher forcing, the error of the sequence, Adam and the cosine: full backpropagation."""
    x = normal(9, 4)
    method = lstm_memorizer.build(Problem((4,), 1, F64, examples=9), SHAPE._replace(chunk=12))
    state = begun(method, task_of(x))
    net = InTorch(state.params)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.02)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    driving = torch.cat([torch.zeros(1, 4), x[:-1]])[None]
    for _ in range(6):
        state, terms = method.steps["train"](state, task_of(x), lane(steps=6, lr=0.02), {})
        error = F.mse_loss(net(driving, still())[0][0], x)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        cosine.step()
        torch.testing.assert_close(terms, {"error": error.detach()}, **CLOSE)
    torch.testing.assert_close(state.params, net.named(), **CLOSE)
    torch.testing.assert_close(method.reconstruct(state, x), net(driving, still())[0][0].detach())


def test_pieces_start_where_the_ones_before_them_ended_an_update_ago():
    x = normal(8, 4)
    method = lstm_memorizer.build(Problem((4,), 1, F64, examples=8), SHAPE)
    task, hyper = task_of(x), lane(lr=0.0)  # the weights stand still
    state = begun(method, task)
    driving = lstm_memorizer.before(x)
    pieces = driving[None, :3], driving[None, 3:6], driving[None, 6:]
    exact = method.reconstruct(state, x)
    errors = []
    for _ in range(4):
        state, terms = method.steps["train"](state, task, hyper, {})
        errors.append(terms["error"])
    from_zero = torch.cat([lstm_memorizer.lstm(state.params, p, still())[0][0] for p in pieces])
    torch.testing.assert_close(errors[0], F.mse_loss(from_zero, x))
    assert errors[1] != errors[0]
    torch.testing.assert_close(errors[2:], [F.mse_loss(exact, x)] * 2)  # three pieces: two updates


def test_a_shorter_sequence_is_learned_as_if_there_were_no_room_left():
    x = normal(7, 4)
    problems = (Problem((4,), 1, F64, examples=n) for n in (7, 30))
    tight, roomy = (lstm_memorizer.build(p, SHAPE) for p in problems)
    results = []
    for method in (tight, roomy):
        state = begun(method, task_of(x))
        for _ in range(5):
            state, terms = method.steps["train"](state, task_of(x), lane(), {})
        results.append((state.params, terms))
    torch.testing.assert_close(*results, **CLOSE)


def test_a_task_starts_from_the_last_weights_with_nothing_else(blobs):
    method, task = lstm_memorizer.build(blobs.problem, SHAPE), blobs.batch(0)
    state, _ = method.steps["train"](begun(method, task), task, lane(), {})
    after = method.begin_task(state, method.init(generator(1)), blobs.batch(1), lane())
    torch.testing.assert_close(after.params, state.params, **EXACTLY)
    assert not any(leaf.any() for leaf in (*after.moments, *after.starts))
    torch.testing.assert_close(after.sequence.flatten(0, 1)[:80], blobs.batch(1).x, **EXACTLY)


def test_more_examples_than_the_problem_says_are_refused():
    method = lstm_memorizer.build(Problem((4,), 1, F64, examples=20), SHAPE)
    with pytest.raises(ValueError, match="at most 20 examples a task, as the problem says, got 21"):
        begun(method, task_of(normal(21, 4)))


# ---- what it remembers ---------------------------------------------------------------------------


def test_it_memorises_a_sequence():
    """To the source's error of 1e-3; and it is the sequence that it knows, not the vectors."""
    stream = benchmarks.load("memorize_1000")
    (whole,) = stream.tasks
    x = whole.train.x[:100]
    few = replace(whole, train=Split(x, whole.train.y[:100]), validation=whole.validation)
    stream = replace(stream, tasks=(few,), problem=stream.problem._replace(examples=100))
    method = lstm_memorizer.build(stream.problem, lstm_memorizer.Shape(hidden=64))
    (walked,) = learn(method, stream, [(lstm_memorizer.Hyper(steps=300, lr=0.02), 0)])
    assert F.mse_loss(method.reconstruct(walked.state, x), x) < 1e-3
    other = x[torch.randperm(100, generator=generator(0))]
    assert F.mse_loss(method.reconstruct(walked.state, other), other) > 0.5


def test_it_knows_no_labels_and_carries_its_weights_only(blobs):
    method = lstm_memorizer.build(blobs.problem, SHAPE)
    state = begun(method, blobs.batch(0))
    assert not method.predict(state, blobs.batch(0).x).any()
    assert method.carried(state) is state.params
