"""iCaRL: herding, nearest means and the loss, each against its definition written out."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import EXACTLY, F64, first_tasks, generator, tiny
from trainables import icarl
from trainables.engine import classifier
from trainables.engine.checkpoint import size_in_bytes
from trainables.engine.learn import learn
from trainables.engine.optim import flatten
from trainables.engine.packs import in_lane

SHAPE = tiny(icarl)
HYPER = icarl.Hyper(steps=20, lr=0.02, beta1=0.8, distillation=0.3, rehearsal=0.7)


def drawn(method, phase, task, seed=4):
    noise = method.draw(generator(seed), phase, 1, task, HYPER)
    return {name: leaf[0] for name, leaf in noise.items()}


def minibatch(task, seed):
    rows = torch.randint(len(task.y), (SHAPE.batch_size,), generator=generator(seed))
    return task._replace(x=task.x[rows], y=task.y[rows])


def after_tasks(stream, tasks, steps=10):
    """The method, its states at the end of each task."""
    method, hyper, states = icarl.build(stream.problem, SHAPE), in_lane(HYPER, F64), []
    state = method.init(generator(0))
    for t in range(tasks):
        task = stream.batch(t)
        state = method.begin_task(state, method.init(generator(9)), task, hyper)
        for s in range(steps):
            noise = drawn(method, "train", task, s)
            state, _ = method.steps["train"](state, minibatch(task, s), hyper, noise)
        state = method.end_task(state, task, hyper, drawn(method, "end_task", task, t))
        states.append(state)
    return method, states


def unit(net, params, x):
    features = net.features(params, x)
    return features / features.norm(dim=-1, keepdim=True).clamp_min(1e-12)


# ---- herding -------------------------------------------------------------------------------------


def herded(phi, count):
    """Eq. (3) as it stands."""
    mean, chosen = phi.mean(0), []
    for _ in range(count):
        rest = [i for i in range(len(phi)) if i not in chosen]
        far = [(mean - phi[[*chosen, i]].mean(0)).norm() for i in rest]
        chosen.append(rest[int(torch.stack(far).argmin())])
    return chosen


@pytest.mark.parametrize("count", [1, 5, 30])
def test_herding_takes_what_brings_the_running_mean_closest(count):
    phi = F.normalize(torch.randn(30, 4, generator=generator(0), dtype=F64).abs())
    position = icarl.herding(phi, count)
    assert position.argsort()[:count].tolist() == herded(phi, count)
    assert position.sort().values[:count].tolist() == list(range(count))
    assert len(position.unique()) == 30


def test_herding_is_closer_to_the_mean_than_chance():
    phi = F.normalize(torch.randn(200, 8, generator=generator(1), dtype=F64).abs())
    far = lambda rows: float((phi[rows].mean(0) - phi.mean(0)).norm())  # noqa: E731
    ours = far(icarl.herding(phi, 10).argsort()[:10])
    g = generator(2)
    assert ours < min(far(torch.randperm(200, generator=g)[:10]) for _ in range(100))


def test_a_class_takes_at_most_what_it_has():
    phi = F.normalize(torch.randn(3, 4, generator=generator(0), dtype=F64))
    assert sorted(icarl.herding(phi, 5).tolist()) == [0, 1, 2]


def test_what_is_left_of_a_class_are_the_first_of_its_herding(blobs):
    """Of the network at the end of the class's own task."""
    _, states = after_tasks(blobs, 3)
    net = classifier.network(blobs.problem, SHAPE)
    for t, state in enumerate(states):
        quota = 20 // (2 * (t + 1))
        for own in range(t + 1):
            task = blobs.batch(own)
            for c in task.current.nonzero()[:, 0]:
                x = task.x[task.y == c]
                first = x[herded(unit(net, states[own].params, x), quota + 1)]
                stored = state.memory.x[state.memory.y == c]
                assert quota <= len(stored) <= quota + 1
                torch.testing.assert_close(stored, first[: len(stored)], **EXACTLY)


# ---- answers -------------------------------------------------------------------------------------


def test_answers_are_those_of_the_nearest_mean_of_what_is_stored(blobs):
    method, states = after_tasks(blobs, 2)
    state, net, x = states[-1], classifier.network(blobs.problem, SHAPE), blobs.batch(0).x[:30]
    classes = blobs.batch(1).seen.nonzero()[:, 0].tolist()
    distance = torch.full((30, 6), torch.inf, dtype=F64)
    for c in classes:
        mean = unit(net, state.params, state.memory.x[state.memory.y == c]).mean(0)
        mean = mean / mean.norm()
        torch.testing.assert_close(state.means[c], mean)
        distance[:, c] = (unit(net, state.params, x) - mean).norm(dim=-1)
    found = method.predict(state, x)
    torch.testing.assert_close(found[:, classes], -distance[:, classes].square())
    assert found[:, classes].argmax(-1).tolist() == distance[:, classes].argmin(-1).tolist()
    assert not state.means[[c for c in range(6) if c not in classes]].any()


def test_free_places_have_no_say_in_the_means(blobs):
    method, hyper = icarl.build(blobs.problem, SHAPE._replace(memory_size=300)), in_lane(HYPER, F64)
    state, task = method.init(generator(0)), blobs.batch(2)
    task = task._replace(y=task.y - task.y.min() + 1, current=torch.arange(6) < 6)
    params = state.params | {"b0": state.params["b0"] + 1}  # what is not there has features too
    state = state._replace(params=params)
    state = method.end_task(state, task, hyper, drawn(method, "end_task", task))
    assert state.memory.taken == len(task.y) < 300
    net, present = classifier.network(blobs.problem, SHAPE), task.y.unique()
    for c in present:
        mean = unit(net, params, task.x[task.y == c]).mean(0)
        torch.testing.assert_close(state.means[c], mean / mean.norm())
    assert 0 not in present
    assert not state.means[0].any()


# ---- the loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_steps_are_those_of_plain_torch(scenario, request):
    stream = request.getfixturevalue(scenario)
    method, states = after_tasks(stream, 2)
    hyper, task = in_lane(HYPER, F64), stream.batch(2)
    state = method.begin_task(states[-1], method.init(generator(9)), task, hyper)
    before = state.params
    net = classifier.network(stream.problem, SHAPE)
    leaves = {k: p.clone().requires_grad_() for k, p in state.params.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.02, betas=(0.8, 0.999))

    def binary(x, y):
        """By class: of new classes, and of old ones."""
        parts = torch.zeros(2, dtype=F64)
        for row, kept, c in zip(
            net.apply(leaves, x).sigmoid(), net.apply(before, x).sigmoid(), y.tolist(), strict=True
        ):
            competing = task.rivals[c].nonzero()[:, 0].tolist()
            for k in competing:
                old = bool(task.learned[k])
                q = kept[k] if old else torch.tensor(float(k == c), dtype=F64)
                value = F.binary_cross_entropy(row[k], q) / len(competing) / len(y)
                parts = parts + torch.stack([value * (not old), 0.3 * value * old])
        return parts

    for s in range(7):
        batch, noise = minibatch(task, s), drawn(method, "train", task, 10 + s)
        rows = [int(20 * u) for u in noise["chance"]]
        assert task.learned[state.memory.y[rows]].all()
        new, distilled = binary(batch.x, batch.y)
        replayed = binary(state.memory.x[rows], state.memory.y[rows]).sum()
        adam.zero_grad()
        (new + distilled + 0.7 * replayed).backward()
        adam.step()
        state, terms = method.steps["train"](state, batch, hyper, noise)
        expected = {"cross_entropy": new, "distillation": distilled, "rehearsal": replayed}
        torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()})
        assert (distilled > 0) == (scenario == "blobs")
        torch.testing.assert_close(state.old, before, **EXACTLY)
    found = {k: p.detach() for k, p in leaves.items()}
    torch.testing.assert_close(state.params, found, rtol=1e-9, atol=1e-9)


def test_classes_that_come_again_are_taught_by_their_labels(blobs):
    """As where all tasks have the same classes."""
    method, states = after_tasks(blobs, 1)
    task = blobs.batch(0)
    again = minibatch(task._replace(learned=task.current), 0)
    net, noise = classifier.network(blobs.problem, SHAPE), drawn(method, "train", task)
    _, terms = icarl.loss(states[0].params, states[0], again, in_lane(HYPER, F64), noise, net)
    assert terms["distillation"] == 0
    assert terms["cross_entropy"] > 0


def test_stored_examples_take_part_in_training(blobs):
    method, states = after_tasks(blobs, 1)
    task, hyper = blobs.batch(1), in_lane(HYPER, F64)
    state = method.begin_task(states[0], method.init(generator(9)), task, hyper)
    batch, noise = minibatch(task, 0), drawn(method, "train", task)
    other = state._replace(memory=state.memory._replace(x=-state.memory.x))
    off = in_lane(HYPER._replace(rehearsal=0.0), F64)
    moved = [
        flatten(method.steps["train"](one, batch, h, noise)[0].params)
        for one, h in [(state, hyper), (other, hyper), (state, off), (other, off)]
    ]
    assert not torch.equal(moved[0], moved[1])
    torch.testing.assert_close(moved[2], moved[3], **EXACTLY)


def test_nothing_is_stored_or_old_in_the_first_task(blobs):
    own = {"steps": 15, "lr": 0.02}
    trials = [(icarl.Hyper(**own), 0), (icarl.Hyper(distillation=9.0, rehearsal=9.0, **own), 0)]
    walks = learn(icarl.build(blobs.problem, SHAPE), first_tasks(blobs, 1), trials)
    torch.testing.assert_close(walks[0].state.params, walks[1].state.params)
    assert walks[0].losses[0]["distillation"] == walks[0].losses[0]["rehearsal"] == 0


def test_its_memory_counts(blobs):
    method = icarl.build(blobs.problem, SHAPE)
    weights = 8 * ((8 + 1) * 8 + (8 + 1) * 6)
    # The means of six classes beside the memory. The weights before a task are those after another.
    expected = weights + 20 * 8 * (8 + 1 + 1) + 8 + 6 * 8 * 8
    assert size_in_bytes(method.carried(method.init(generator(0)))) == expected


def test_it_keeps_what_fine_tuning_forgets(blobs):
    shape = icarl.Shape(hidden=32, batch_size=16, replay_batch_size=16, memory_size=30)
    (walk,) = learn(icarl.build(blobs.problem, shape), blobs, [(icarl.Hyper(steps=80), 0)])
    assert walk.accuracy[2].min() > 0.9
