"""Lanes side by side against lanes one by one, and traced steps against steps."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from tests.conftest import EXACTLY, F64, generator
from trainables.engine.fuse import NARROW, aten, fuse, stack, tidy, trace, unroll


def lane(tree, k):
    """Lane k of a stacked tree."""
    return tree_map(lambda leaf: leaf[k], tree)


class Pair(NamedTuple):
    w: Tensor
    more: dict[str, Tensor]


def pair(seed):
    g = generator(seed)
    return Pair(
        torch.randn(4, 3, generator=g, dtype=F64), {"b": torch.randn(3, generator=g, dtype=F64)}
    )


def descend(params, x, rate):
    """A step with a gradient inside, as methods have; returns two trees."""

    def loss(p):
        return (x @ p.w + p.more["b"]).tanh().square().mean()

    grads = grad(loss)(params)
    return Pair(params.w - rate * grads.w, {"b": params.more["b"]}), {"loss": loss(params)}


def arguments(lanes, seed=0):
    trees = [pair(seed + k) for k in range(lanes)]
    x = torch.randn(lanes, 5, 4, generator=generator(seed + 50), dtype=F64)
    return trees, x, torch.rand(lanes, generator=generator(seed + 90), dtype=F64)


def test_lane_undoes_stack():
    trees, _, _ = arguments(3)
    for k in range(3):
        torch.testing.assert_close(lane(stack(trees), k), trees[k], **EXACTLY)


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_fused_is_a_loop_over_lanes(lanes):
    trees, x, rate = arguments(lanes)
    together = fuse(descend)(stack(trees), x, rate)
    for k in range(lanes):
        alone = descend(trees[k], x[k], rate[k])
        torch.testing.assert_close(lane(together, k), alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("lanes", [1, 3])
def test_shared_arguments_have_no_lane_axis(lanes):
    trees, x, rate = arguments(lanes)
    together = fuse(descend, shared=(1,))(stack(trees), x[0], rate)
    for k in range(lanes):
        alone = descend(trees[k], x[0], rate[k])
        torch.testing.assert_close(lane(together, k), alone, rtol=1e-13, atol=1e-13)


def test_random_numbers_inside_a_lane_raise():
    noisy = fuse(lambda x: x + torch.rand_like(x))
    with pytest.raises(RuntimeError, match="random"):
        noisy(torch.zeros(2, 3))


# ---- traced --------------------------------------------------------------------------------------


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=F64)


@pytest.mark.parametrize("lanes", [1, 4])
def test_unrolled_is_the_function_on_new_values_too(lanes):
    trees, x, rate = arguments(lanes)
    leaves, structure = tree_flatten((stack(trees), x, rate))

    def on_leaves(*args):
        return tuple(tree_leaves(descend(*tree_unflatten(args, structure))))

    program = unroll(fuse(on_leaves), leaves)
    for seed in (0, 200, 400):
        trees, x, rate = arguments(lanes, seed)
        args = stack(trees), x, rate
        expected = tree_leaves(fuse(descend)(*args))
        torch.testing.assert_close(list(program.run(*tree_leaves(args))), expected, **EXACTLY)


def test_a_program_knows_what_it_reads_and_what_it_writes():
    def function(a, kept, unused, b):
        return a.view(3) * 2.0, kept, a + b, b.view(b.shape)

    program = unroll(function, [normal(3, seed=k) for k in range(4)])
    assert program.reads == {0, 3}
    assert program.writes == {0, 2}
    a, b, garbage = normal(3, seed=7), normal(3, seed=8), torch.zeros(2, 5, dtype=torch.int64)
    result = program.run(a, garbage, garbage, b)
    torch.testing.assert_close(result[0], 2 * a, **EXACTLY)
    torch.testing.assert_close(result[2], a + b, **EXACTLY)


def test_results_that_are_another_argument_are_written():
    program = unroll(lambda a, b, c: (b, a, c), [normal(3, seed=k) for k in range(3)])
    assert program.reads == {0, 1}
    assert program.writes == {0, 1}


def test_the_example_may_hold_one_tensor_twice():
    """A state may: its snapshot is the generator until that moves."""
    one = normal(3)
    program = unroll(lambda a, b: (a - 2 * b, b), [one, one])
    assert program.writes == {0}
    a, b = normal(3, seed=1), normal(3, seed=2)
    torch.testing.assert_close(program.run(a, b)[0], a - 2 * b, **EXACTLY)


def test_a_step_may_bring_a_tensor_along():
    table = normal(3, 3)
    program = unroll(lambda x: (x @ table, table.sum(0)), [normal(3)])
    x = normal(3, seed=1)
    torch.testing.assert_close(list(program.run(x)), [x @ table, table.sum(0)], **EXACTLY)


def test_a_tensor_brought_along_is_the_same_in_all_lanes():
    table, x = normal(3, 3), normal(4, 3, 3)
    (found,) = unroll(fuse(lambda x: (table.reshape(3, 3) @ x,)), [x]).run(x)
    torch.testing.assert_close(found, table @ x)


def operations(graph):
    return [node.target for node in graph.nodes if node.op == "call_function"]


def changed_in_place(x):
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, :-1]
    y.add_(x).mul_(2)
    return y, y.sum(0), x.sort().values


@pytest.mark.parametrize("function", [changed_in_place, grad(lambda x: (x @ x.T).tanh().sum())])
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_trace_has_the_operations_that_torch_finds(function, lanes):
    x, new = normal(lanes, 4, 4), normal(lanes, 4, 4, seed=1)
    graph, constants = trace(vmap(function), [x])
    theirs = make_fx(vmap(function))(x).graph
    assert operations(graph) == operations(theirs)
    found = GraphModule(constants, graph)(new)
    torch.testing.assert_close(found, vmap(function)(new), **EXACTLY)


@pytest.mark.parametrize("look", [lambda x: x * x.sum().item(), lambda x: x if x.any() else -x])
def test_what_depends_on_values_cannot_be_traced(look):
    with pytest.raises(TypeError, match="values"):
        unroll(lambda x: (look(x),), [normal(3)])


def tidied(function, *example):
    """The graph of a function before and after, in names of operations, and what the tidy does."""
    graph, constants = trace(function, example)
    before = operations(graph)
    tidy(graph)
    graph.lint()
    return before, operations(graph), GraphModule(constants, graph)


def linear(x, w, b):
    return torch.addmm(b, x, w)


ROWS, WIDE = 20, NARROW + 4
X, W, B = normal(3, ROWS, 5), normal(3, 5, WIDE, seed=1), normal(3, WIDE, seed=2)
THIN, FEW = normal(3, 5, NARROW - 1, seed=3), normal(3, NARROW - 1, seed=4)


def test_idle_views_and_products_are_taken_out():
    def function(x, w):
        x = x.view(x.shape).expand(x.shape)
        y = aten.mul.Scalar(torch.mm(x, w), 1).mul(1.0) ** 1
        return aten._unsafe_view(y, y.shape).tanh(), y.view(2, -1), x[None].expand(2, -1, -1)

    before, after, traced = tidied(function, X[0], W[0])
    assert len(after) == len(before) - 6
    assert after[:2] == [aten.mm.default, aten.tanh.default]
    torch.testing.assert_close(traced(X[0], W[0]), function(X[0], W[0]), **EXACTLY)


def test_what_is_split_and_joined_again_is_taken_out():
    def function(x):
        a, b = x.split([8, 12])
        return torch.cat([a.view(2, 4, 5).view(8, 5), b]) * 2, b.sum()

    _, after, traced = tidied(function, X[0])
    assert aten.cat.default not in after
    torch.testing.assert_close(traced(X[1]), function(X[1]), **EXACTLY)


def test_a_product_and_its_bias_are_one_operation_under_vmap():
    before, after, traced = tidied(vmap(linear), X, W, B)
    assert aten.bmm.default in before
    assert aten.baddbmm.default in after
    assert not {aten.bmm.default, aten.add.Tensor} & set(after)
    assert len(after) < len(before)
    new = normal(3, ROWS, 5, seed=9), W, B
    torch.testing.assert_close(traced(*new), vmap(linear)(*new), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
def test_narrow_products_are_computed_transposed(fused):
    def function(x, w):
        y = x @ w
        return y.reshape(-1), y.tanh(), y @ y.T

    args = (X, THIN) if fused else (X[0], THIN[0])
    function = vmap(function) if fused else function
    before, after, traced = tidied(function, *args)
    product = aten.bmm.default if fused else aten.mm.default
    assert (before.count(product), after.count(product)) == (2, 2)
    assert after.count(aten.transpose.int) == 3  # only y is narrow
    torch.testing.assert_close(traced(*args), function(*args), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(64, 128, 1), (1, 128, 64), (1, 50, 1)])
def test_a_lane_has_the_same_bits_at_every_width_whatever_its_products(rows, inner, columns):
    g = generator(5)
    a, b = torch.randn(12, rows, inner, generator=g), torch.randn(12, inner, columns, generator=g)

    def step(a, b):
        slope = torch.func.grad(lambda q: (q @ b).square().sum())(a)
        return a @ b, slope

    found = [unroll(fuse(step), [a[:k], b[:k]]).run(a[:k], b[:k]) for k in (1, 2, 3, 4, 6, 8, 12)]
    for product, slope in found:
        torch.testing.assert_close(
            (product[0], slope[0]), (found[0][0][0], found[0][1][0]), **EXACTLY
        )
        torch.testing.assert_close(product, a[: len(product)] @ b[: len(product)])
        assert product.is_contiguous()


def test_narrow_products_have_no_bias():
    _, after, _ = tidied(vmap(linear), X[:, :5], THIN, FEW)
    assert {aten.bmm.default, aten.add.Tensor} <= set(after)


def biased(x, w, b):
    return aten.add.Tensor(b, aten.bmm.default(x, w))


def twice(x, w, b):
    product = torch.bmm(x, w)
    return b + product, product.sum(1)


TRAPS = {
    "the product has two users": (twice, X, W, B[:, None]),
    "a narrow product has two users": (twice, X, THIN, FEW[:, None]),
    "the product is added to itself": (lambda x, w: (p := torch.bmm(x, w)) + p, X, W),
    "the sum is weighted": (lambda x, w, b: torch.add(b, torch.bmm(x, w), alpha=2), X, W, X @ W),
    "the product has one row": (biased, X[:, :1], W, X @ W),
    "the product has one lane": (biased, X[:1], W[:1], X @ W),
    "the bias has another precision": (biased, X, W, B[:, None].float()),
    "the bias is a mask": (biased, X, W, B[:, None] > 0),
    "a product with 1 makes a number of a mask": (lambda x: aten.mul.Scalar(x > 0, 1.0), X),
    "a power of 1 makes a number of a whole one": (lambda x: (x > 0).long() ** 1.0, X),
    "pieces change places": (lambda x: torch.cat(x.split(10)[::-1]), X[0]),
    "a piece is missing": (lambda x: torch.cat(x.split(5)[:3]), X[0]),
    "a piece is changed": (
        lambda x: torch.cat([p * (2 + i) for i, p in enumerate(x.split(5))]),
        X[0],
    ),
    "pieces are joined along another axis": (
        lambda x: torch.cat([p.view(4, 2) for p in x.split(2)], 1),
        normal(4, 4),
    ),
    "columns become rows": (lambda x: torch.cat([c.view(1, -1) for c in x.unbind(1)]), X[0, :5]),
    "the pieces are no pieces": (lambda x: torch.cat([x.sort().values]), X[0]),
    "what was split is not contiguous": (lambda x: torch.cat(x.T.split(1)).view(-1), X[0]),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_tidying_changes_no_result(trap):
    function, *args = TRAPS[trap]
    _, _, traced = tidied(function, *args)
    torch.testing.assert_close(
        traced(*args), function(*args), rtol=1e-12, atol=1e-12, check_stride=True
    )


def test_a_tidied_gradient_is_the_gradient():
    def slopes(w, b, thin, few, x):
        def loss(p):
            return linear(linear(x, p[0], p[1]).tanh(), p[2], p[3]).square().mean()

        return grad(loss)((w, b, thin, few))

    args = W, B, normal(3, WIDE, NARROW - 1), FEW, X
    before, after, traced = tidied(vmap(slopes), *args)
    assert len(after) < 0.8 * len(before)
    new = [leaf.flip(0) for leaf in args]
    torch.testing.assert_close(traced(*new), vmap(slopes)(*new), rtol=1e-12, atol=1e-12)
