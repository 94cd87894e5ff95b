"""checkpoint: drop the arrays that a part of the computation saved, and recompute them for the backward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from tensorlib.arrays.array import Array
from tensorlib.arrays.random import DrawTape
from tensorlib.arrays.sharing import kept
from tensorlib.engine.errors import replaced_since
from tensorlib.engine.function import Function
from tensorlib.engine.node import op_name
from tensorlib.engine.recording import STATE, recording
from tensorlib.engine.value import wrap
from tensorlib.messages import shown
from tensorlib.tensor import Tensor

__all__ = ["checkpoint"]

P = ParamSpec("P")
R = TypeVar("R")


def checkpoint(f: Callable[P, R], *inputs: P.args, **options: P.kwargs) -> R:
    """Return ``f(*inputs, **options)``, keeping its inputs for the backward pass but nothing computed inside.

    When the backward pass reaches the first op inside, it runs `f` once more, with the same dropout masks: memory for
    the arrays inside is traded for the time of one more forward pass (Chen et al. 2016, "Training deep nets with
    sublinear memory cost"). Gradients of any order have the same bits as without it, with respect to `inputs` and to
    everything else that `f` uses, such as the parameters of modules.

    The second run of `f` must run the same ops on the same values. Draws from generators of tensorlib are repeated.
    It gets copies of the arrays, lists and dicts among the arguments, as they were before the first run: the caller
    sees once what f writes into them. Other state that f changes is not restored: running statistics are updated twice.
    An array that f reaches in another way must not be written to before the backward pass. It is an error if the value
    of a Tensor that f read was replaced in between, as by an optimizer, or if the second run has other ops or shapes.

    >>> x = tl.Tensor([1.0, 2.0], requires_grad=True)
    >>> y = tl.checkpoint(lambda x: tl.tanh(x) * x, x)  # keeps x, but not tanh(x)
    >>> y.sum().backward()
    >>> x.grad.shape
    (2,)
    """
    if not callable(f):
        raise TypeError(f"checkpoint: the first argument must be a function, as in checkpoint(f, x); got {shown(f)}")
    state = STATE.get()
    if not state.record:
        return f(*inputs, **options)
    kept_inputs, kept_options = _copied((inputs, options), {})  # before f can write into them
    tape, draws = _Tape(), DrawTape()
    with draws.recording(), recording(tape=tape):
        outputs = f(*inputs, **options)
    region = _Region(f, kept_inputs, kept_options, draws, tape)
    for node in tape.nodes:
        node.saved, node.statistics, node.region = (), None, region
    if state.tape is not None:  # a checkpoint within a checkpoint
        state.tape.extend(tape)
    return outputs


def _copied(given: Any, memo: dict[int, Any]) -> Any:
    """Return arguments for one of the later runs: lists, dicts and arrays of the caller are copied, each once.

    memo: the copies so far, by the ids of what they are copies of.
    """
    if id(given) in memo:
        return memo[id(given)]
    copy: Any = given
    if isinstance(given, Tensor):
        own = kept(given.array)
        if own is not given.array:
            copy = wrap(own, given.node, given.output_index)
            copy.needs_grad = given.needs_grad
    elif type(given) is tuple:
        return tuple([_copied(one, memo) for one in given])
    elif type(given) is list:
        copy = memo[id(given)] = []
        copy.extend([_copied(one, memo) for one in given])
    elif type(given) is dict:
        copy = memo[id(given)] = {}
        copy.update({key: _copied(value, memo) for key, value in given.items()})
    elif hasattr(given, "dtype") and hasattr(given, "copy") and not isinstance(given, type):
        copy = given.copy()
    memo[id(given)] = copy
    return copy


class _Tape:
    """Lists the nodes recorded in a region, and, by weak references, the leaves that it reads, including constants."""

    def __init__(self) -> None:
        self.nodes: list[Function] = []
        self.leaves: dict[int, weakref.ref[Tensor]] = {}

    def ran(self, node: Function, inputs: Sequence[Any]) -> None:
        """List an op that has run in this thread, recorded or not."""
        if node.edges is not None:
            self.nodes.append(node)
        for x in inputs:
            if isinstance(x, Tensor) and x.node is None:
                self.leaves[id(x)] = weakref.ref(x)

    def extend(self, inner: _Tape) -> None:
        """Add the nodes and leaves of a region inside this one."""
        self.nodes += inner.nodes
        self.leaves |= inner.leaves


class _Region:
    """Everything needed to run a region again. References to its nodes are weak, because the nodes refer to it."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        options: dict[str, Any],
        draws: DrawTape,
        tape: _Tape,
    ) -> None:
        self.function, self.inputs, self.options, self.draws = function, inputs, options, draws
        self.nodes = [weakref.ref(node) for node in tape.nodes]
        self.ops = _ops_in(tape)
        self.precision = STATE.get().precision
        # The versions after the first run: values that it replaces itself, such as a running mean, are not an error.
        self.versions = [(leaf, x.version) for leaf in tape.leaves.values() if (x := leaf()) is not None]

    def held(self) -> list[Array]:
        """Return the arrays of the inputs, which are kept for the second run."""
        return [x.data for x in (*self.inputs, *self.options.values()) if isinstance(x, Tensor)]

    def restore(self) -> None:
        """Run the function again, and give the arrays that each op saves to the original node of that op."""
        for reference, version in self.versions:
            if (leaf := reference()) is not None and leaf.version != version:
                raise replaced_since("a checkpoint", leaf, version)
        tape = _Tape()
        with self.draws.repeating(), recording(record=True, tape=tape, watch=None, precision=self.precision):
            inputs, options = _copied((self.inputs, self.options), {})  # f may write into them in each run
            self.function(*inputs, **options)
        if (again := _ops_in(tape)) != self.ops:
            raise RuntimeError(
                f"checkpoint: the function must run the same ops again; it ran {_difference(self.ops, again)}; "
                "does it depend on state that has changed since the forward pass?"
            )
        originals = {id(new): old() for new, old in zip(tape.nodes, self.nodes, strict=True)}
        for new in tape.nodes:
            old = originals[id(new)]
            if old is not None and old.region is self:
                old.saved, old.statistics, old.region = new.saved, new.statistics, new.region
        for inner in {id(new.region): new.region for new in tape.nodes if new.region is not None}.values():
            inner.nodes = [_original_of(ref, originals) for ref in inner.nodes]


def _original_of(reference: Callable[[], Function | None], originals: dict[int, Function | None]) -> Any:
    """Return a weak reference to the original of the node that `reference` refers to."""
    original = originals.get(id(reference()))
    return weakref.ref(original) if original is not None else lambda: None


def _ops_in(tape: _Tape) -> list[tuple[Any, ...]]:
    """Return the class of each op with the shapes and dtypes of its outputs."""
    return [(type(node), *node.output_types) for node in tape.nodes]


def _difference(before: Sequence[tuple[Any, ...]], again: Sequence[tuple[Any, ...]]) -> str:
    for i, (old, new) in enumerate(zip(before, again, strict=False)):
        if old != new:
            of_old, of_new = (" and ".join(f"{shape} {dtype}" for shape, dtype in op[1:]) for op in (old, new))
            same_op = new[0] is old[0]
            return (
                f"{op_name(new[0])}{f' to {of_new}' if same_op else ''} where it ran "
                f"{op_name(old[0])}{f' to {of_old}' if same_op else ''} before (op {i} of {len(before)})"
            )
    return f"{len(again)} ops where it ran {len(before)} before"
