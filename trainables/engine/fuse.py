"""Lanes: many trials of one Shape, trained side by side in one process."""

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap
from torch.fx import Graph, GraphModule
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten

# A matrix product with fewer columns than this takes the time of one with many (MKL, measured:
# 128 × 128 times 128 × 11 in 28 µs, the same transposed in 7 µs).
NARROW = 16

PRODUCTS = (aten.mm.default, aten.bmm.default)
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default)
TIMES_OR_TO_THE = (aten.mul.Scalar, aten.mul.Tensor, aten.pow.Tensor_Scalar)
VIEWS = (aten.expand.default, aten.view.default, aten._unsafe_view.default)


def stack(trees):
    """K equal trees -> one tree whose leaves have a leading axis K."""
    return tree_map(lambda *leaves: torch.stack(leaves), *trees)


def fuse(function: Callable, shared: tuple[int, ...] = ()) -> Callable:
    """A function of one lane -> the same function of K lanes, stacked along a leading axis.

    Args:
        function: pure; takes and returns trees of tensors. Drawing random numbers inside raises
            in a pack of two or more.
        shared: positions of arguments that all lanes share and that carry no lane axis.

    On a CPU and in float32 the numbers of a lane were the same to the last bit at every width, one
    included, wherever that was tried; in float64 they differed by up to 5e-14.
    """

    def fused(*args):
        dims = tuple(None if i in shared else 0 for i in range(len(args)))
        return vmap(function, dims, randomness="error")(*args)

    return fused


class Program(NamedTuple):
    """What a function of tensors comes down to."""

    run: Callable[..., Sequence[Tensor]]
    reads: frozenset[int]  # arguments that matter; for the others any tensor will do
    writes: frozenset[int]  # results that are not the argument of the same number


def unroll(function: Callable, example: Sequence[Tensor]) -> Program:
    """``function`` as the flat list of tensor operations that it comes down to.

    ``vmap`` and ``grad`` interpret a step anew each time it runs; at these sizes that costs more
    than the arithmetic. Here the step is traced once, for the widths and shapes of ``example``, and
    from then on only its operations run, on arguments of those same shapes. TorchScript runs the
    list without Python in between, with its optimiser off, in 0.55 of the time that the Python code
    made by ``torch.fx`` takes.

    Args:
        function: pure, from tensors to a tuple of tensors.
        example: its arguments.
    """
    example = [leaf.detach() for leaf in example]  # one tensor given twice is two arguments
    graph, constants = trace(function, example)
    tidy(graph)
    arguments = [node for node in graph.nodes if node.op == "placeholder"]
    output = graph.output_node()
    results: Any = output.args[0]
    writes = [i for i, node in enumerate(results) if node not in arguments[i : i + 1]]
    used = [results[i] for i in writes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated for models; here it is an interpreter
        module = GraphModule(constants, graph)
        script: Any = torch.jit.trace(module, tuple(example), check_trace=False)

    def run(*leaves):
        with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage]
            return script(*leaves)

    reads = [i for i, node in enumerate(arguments) if set(node.users) - {output} or node in used]
    return Program(run, frozenset(reads), frozenset(writes))


def trace(function: Callable, example: Sequence[Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """The tensor operations that ``function`` runs on ``example``, and what it brings along.

    The example is computed as ever, and each operation written down. ``make_fx`` of ``torch.fx``
    finds the same operations and takes nine times as long, on shapes alone.
    """
    recorder = Recorder()
    for i, leaf in enumerate(example):
        recorder.keep(leaf, recorder.graph.placeholder(f"argument{i}"))
    with recorder:
        results = function(*example)
    recorder.graph.output(map_aggregate(results, recorder.source))
    return recorder.graph, recorder.constants


class Recorder(TorchDispatchMode):
    """Writes down the operations that run inside it."""

    def __init__(self):
        super().__init__()
        self.graph, self.constants = Graph(), {}
        self.nodes: Any = WeakTensorKeyDictionary()  # tensor -> where it came from

    def __torch_dispatch__(self, func: Any, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        sources: Any = map_aggregate((args, kwargs), self.source)
        result, node = func(*args, **kwargs), self.graph.call_function(func, *sources)
        if isinstance(result, Tensor):
            self.keep(result, node)
        elif isinstance(result, tuple | list):
            for i, piece in enumerate(result):
                if isinstance(piece, Tensor):
                    self.keep(piece, self.graph.call_function(operator.getitem, (node, i)))
        else:
            raise TypeError(f"a step may not look at the values of its tensors: {func}")
        return result

    def keep(self, value: Tensor, node: Any) -> None:
        """Note where a tensor came from, and at the node what it is like."""
        self.nodes[value] = node
        like: Any = {"dtype": value.dtype, "device": "meta"}  # no memory
        node.meta["val"] = torch.empty_strided(value.shape, value.stride(), **like)

    def source(self, value: Any) -> Any:
        """Where a tensor came from; anything else as it is."""
        if not isinstance(value, Tensor):
            return value
        if value not in self.nodes:  # brought along
            name = f"constant{len(self.constants)}"
            self.constants[name] = value
            self.keep(value, self.graph.get_attr(name))
        return self.nodes[value]


def tidy(graph: Graph) -> None:
    """Take out of a traced function what batching left in it: a fifth of the time of a step.

    - Views that change no shape, products with 1 and powers of 1.
    - A sum of a bias and a product of matrices is one operation, as it was before ``vmap``.
    - A product with one column or one row is a sum of products: the routine that is called for one
      matrix rounds otherwise than the one for many, and lanes must not tell (measured on MKL).
    - A product with few columns is computed transposed (see ``NARROW``).
    - What is split, and then joined as it was, is what was split (flat parameters: ``layout``).
    """
    nodes: list[Any] = list(graph.nodes)
    for node in nodes:
        if is_idle(node):
            replace(node, node.args[0])
        elif product := biased_product(node):
            bias, factors = node.args[0], product.args
            replace(node, insert(node, aten.baddbmm.default, bias, *factors))
            graph.erase_node(product)
        elif node.target in PRODUCTS and shape(node)[-1] == 1:
            replace(node, dotted(node, node.args[0], turned(node, node.args[1])))
        elif node.target in PRODUCTS and shape(node)[-2] == 1:
            replace(node, turned_back(node, dotted(node, turned(node, node.args[1]), node.args[0])))
        elif node.target in PRODUCTS and shape(node)[-1] < NARROW < shape(node)[-2]:
            a, b = (turned(node, factor) for factor in node.args)
            replace(node, turned_back(node, insert(node, node.target, b, a)))
        elif whole := joined_again(node):
            replace(node, whole)
    graph.eliminate_dead_code()


def insert(before: Any, target: Callable, *args, **kwargs) -> Any:
    """A new operation in front of another one."""
    with before.graph.inserting_before(before):
        return before.graph.call_function(target, args, kwargs)


def turned(before: Any, matrix: Any) -> Any:
    """The transposed matrix, or matrices."""
    return insert(before, aten.transpose.int, matrix, -2, -1)


def turned_back(before: Any, matrix: Any) -> Any:
    """The transposed of a result, laid out as the result would have been."""
    back = turned(before, matrix)
    return insert(before, aten.clone.default, back, memory_format=torch.contiguous_format)


def dotted(before: Any, rows: Any, row: Any) -> Any:
    """The products of rows with a row, as a column."""
    products = insert(before, aten.mul.Tensor, rows, row)
    return insert(before, aten.sum.dim_IntList, products, [-1], True)


def replace(node: Any, by: Any) -> None:
    by.meta = node.meta | by.meta
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def meta(node: Any) -> Tensor:
    """A tensor that has the shape, the dtype and the layout of a node's result."""
    return node.meta["val"]


def shape(node: Any) -> tuple[int, ...]:
    return tuple(meta(node).shape)


def is_idle(node: Any) -> bool:
    """Whether an operation returns its argument."""
    if node.target in VIEWS:
        return shape(node) == shape(node.args[0])
    one = node.target in TIMES_OR_TO_THE and node.args[1] == 1
    return one and same_dtype(node, node.args[0])


def biased_product(node: Any) -> Any:
    """The batched product of matrices to which an operation adds a bias, if that is its only use.

    A narrow one is not: it is computed transposed.
    """
    if node.target is not aten.add.Tensor or node.kwargs:
        return None
    bias, product = node.args
    if getattr(product, "target", None) is not aten.bmm.default or bias is product:
        return None
    fits = len(shape(bias)) == 3 and shape(node) == shape(product) and shape(product)[-1] >= NARROW
    return product if fits and len(product.users) == 1 and same_dtype(bias, product) else None


def same_dtype(a: Any, b: Any) -> bool:
    return meta(a).dtype == meta(b).dtype


def joined_again(node: Any) -> Any:
    """What was split into pieces that an operation joins again: all of them, in order, in shape."""
    if node.target is not aten.cat.default:
        return None
    pieces, dim = node.args if len(node.args) > 1 else (node.args[0], 0)
    taken = [before_views(piece) for piece in pieces]
    split = taken[0].args[0] if taken[0].target is operator.getitem else None
    if split is None or split.target not in SPLITS:
        return None
    for i, (piece, own) in enumerate(zip(pieces, taken, strict=True)):
        if own.args != (split, i) or shape(own) != shape(piece):
            return None
    whole, axis = split.args[0], split.args[2] if len(split.args) > 2 else 0
    same_axis = (axis - dim) % len(shape(node)) == 0
    contiguous = meta(whole).is_contiguous()
    return whole if same_axis and contiguous and shape(whole) == shape(node) else None


def before_views(node: Any) -> Any:
    while node.target in VIEWS:
        node = node.args[0]
    return node
