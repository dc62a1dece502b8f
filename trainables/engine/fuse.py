"""Lanes: many trials of one Shape, trained side by side in one process."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


def stack(trees):
    """K equal trees -> one tree whose leaves have a leading axis K."""
    return tree_map(lambda *leaves: torch.stack(leaves), *trees)


def lane(tree, k: int):
    """The k-th trial of a stacked tree."""
    return tree_map(lambda leaf: leaf[k], tree)


def fuse(function: Callable, shared: tuple[int, ...] = ()) -> Callable:
    """A function of one lane -> the same function of K lanes, stacked along a leading axis.

    Args:
        function: pure; takes and returns trees of tensors. Drawing random numbers inside raises
            in a pack of two or more.
        shared: positions of arguments that all lanes share and that carry no lane axis.

    A pack of one lane runs the function itself on the lane's tensors: the same mathematics
    without the cost of batching.
    """

    def fused(*args):
        own = [i for i in range(len(args)) if i not in shared]
        width = len(tree_flatten(args[own[0]])[0][0])
        if width == 1:
            args = [lane(a, 0) if i in own else a for i, a in enumerate(args)]
            return tree_map(lambda leaf: leaf[None], function(*args))
        dims = tuple(None if i in shared else 0 for i in range(len(args)))
        return vmap(function, dims, randomness="error")(*args)

    return fused


class Flat:
    """A function of trees as a function of their leaves, which is what can be traced and replayed.

    Args:
        function: pure, of trees of tensors.
        structure: of its arguments, from ``tree_flatten`` of their tuple.

    ``result`` is the structure of what it returned last, ``run`` the fastest way to call it.
    """

    def __init__(self, function: Callable, structure):
        self.function, self.structure = function, structure
        self.result: Any = None
        self.run: Callable = self

    def __call__(self, *leaves):
        out, self.result = tree_flatten(self.function(*tree_unflatten(leaves, self.structure)))
        return tuple(out)


def unroll(function: Callable, example: Sequence[Tensor]) -> Callable:
    """``function`` as the flat list of tensor operations that it comes down to.

    ``vmap`` and ``grad`` interpret a step anew each time it runs; at these sizes that costs more
    than the arithmetic. Here the step is traced once, for the widths and shapes of ``example``, and
    from then on only its operations run, on arguments of those same shapes. TorchScript runs the
    list without Python in between, with its optimiser off: the result is the same to the last bit,
    in 0.55 of the time that the Python code made by ``torch.fx`` takes.

    Args:
        function: pure, from tensors to a tuple of tensors (see ``Flat``).
        example: its arguments.
    """
    program = make_fx(function)(*example)
    program.graph.eliminate_dead_code()
    program.recompile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated for models; here it is an interpreter
        script: Any = torch.jit.trace(program, tuple(example), check_trace=False)

    def run(*leaves):
        with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage]
            return script(*leaves)

    return run
