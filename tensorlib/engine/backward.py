"""The backward pass and grad.

How a gradient comes about::

    b = a + a                # one Add node, two edges to a
    c = b + b                # one Add node, two edges to the node of b
    c.backward()             # dc/da = 4

``backward_pass`` visits the nodes in the reverse of the order in which they were recorded. Above, node b has two
consuming edges (both from c) and is visited only when both have delivered: its gradient 2 then flows once, not twice.
Nothing recurses, so a chain of a million nodes works. In ordinary passes the ops' ``backward`` get raw arrays; under
``create_graph`` the very same formulas get Tensors, which record a graph of the gradient in turn.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.engine.function import Function, as_array, replaced_since
from tensorlib.engine.gradients import Edge, Gradients, edge_of
from tensorlib.engine.recording import current_state, recording
from tensorlib.messages import shown
from tensorlib.ops.arguments import sum_to

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["grad"]


# ---- the backward pass ---------------------------------------------------------------------------------------


def topological_order(roots: Sequence[Function]) -> list[Function]:
    """Return all nodes below `roots`, every node before those that it consumed, without recursion.

    A node is recorded after all that it was made of. So the latest first is such an order.
    """
    found = set(roots)
    stack = list(found)
    while stack:
        node = stack.pop()
        if node._edges is None:
            raise RuntimeError(
                f"backward: the graph behind {node.name} was already released by an earlier backward pass; "
                "pass retain_graph=True to that pass, or compute the value again"
            )
        for edge in node._edges:
            if edge is not None and isinstance(below := edge[0], Function) and below not in found:
                found.add(below)
                stack.append(below)
    return sorted(found, key=attrgetter("_number"), reverse=True)


def _call_backward(node: Function, dys: list[Any], create_graph: bool) -> tuple[Any, ...]:
    """Run one node's backward; return one gradient for each input, as the op gave it."""
    for leaf, version in node._versions:
        if leaf.version != version:
            raise replaced_since(node.name, leaf, version)
    while node._region is not None:  # a checkpoint, and then perhaps one within it
        node._region.restore()
    try:
        if create_graph:
            twin = copy.copy(node)  # the node itself stays as it is: another pass may want arrays from it
            twin.saved, twin.statistics = node.saved_tensors(), None
            with recording(path=node.path, watch=None):  # the gradients are watched, not the steps towards them
                dxs = twin.backward(*dys)
        else:
            dxs = node.backward(*dys)
    except Exception as error:
        raise _located(node, error) from error
    if not isinstance(dxs, tuple):
        dxs = (dxs,)
    if len(dxs) != len(node._inputs):
        raise RuntimeError(
            f"{node.name}: backward must return {len(node._inputs)} gradients, got {len(dxs)}; "
            f"the op is {node.origin()}"
        )
    return dxs


def _located(node: Function, error: Exception) -> Exception:
    """Return the error of an op's backward with the op's name and origin in its message, of the same type if it can."""
    message = f"{node.name}: backward failed: {type(error).__name__}: {error}; the op is {node.origin()}"
    return type(error)(message) if type(error) in _PLAIN_ERRORS else RuntimeError(message)


_PLAIN_ERRORS = {
    ArithmeticError, AttributeError, FloatingPointError, IndexError, KeyError, MemoryError, NotImplementedError,
    RuntimeError, TypeError, ValueError, ZeroDivisionError,
}  # fmt: skip


def _conform(node: Function, i: int, dx: Any) -> Any:
    """Give a gradient the shape and dtype of the input it belongs to: the one place that un-broadcasts."""
    shape, dtype = node._inputs[i]
    try:
        fits = dx.shape == shape
    except AttributeError:
        raise TypeError(
            f"{node.name}: backward must return arrays, got {type(dx).__name__} for input {i}; "
            f"the op is {node.origin()}"
        ) from None
    if not fits:
        if not node.broadcasts or not _broadcasts_to(shape, dx.shape):
            raise RuntimeError(
                f"{node.name}: gradient for input {i} must have the input's shape {shape}, got {tuple(dx.shape)}; "
                f"the op is {node.origin()}"
            )
        dx = sum_to(dx, shape)
    if dx.dtype is not dtype and dx.dtype != dtype:
        dx = dx.astype(dtype)
    return np.asarray(dx) if isinstance(dx, np.generic) else dx


def _conformed(node: Function, dxs: Sequence[Any]) -> tuple[Any, ...]:
    """Return what of these gradients flows on: those that are wanted, each of the shape of its input."""
    return tuple(
        [
            None if edge is None or dx is None else _conform(node, i, dx)
            for i, (edge, dx) in enumerate(zip(node._edges or (), dxs, strict=True))
        ]
    )


def _broadcasts_to(shape: tuple[int, ...], wider: tuple[int, ...]) -> bool:
    return len(shape) <= len(wider) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(wider), strict=False))


def backward_pass(
    outputs: Sequence[Tensor],
    seeds: Sequence[Any],
    targets: Sequence[Tensor] | None,
    retain_graph: bool,
    create_graph: bool,
) -> tuple[dict[Edge, Any], list[Tensor]]:
    """Carry `seeds` (arrays, or Tensors under create_graph) from `outputs` back through the graph.

    Returns the gradient for every target, or for every leaf where `targets` is None, keyed by `edge_of`; and the
    Tensors that were reached and want it in ``.grad``: leaves, and those that called ``retain_grad``. Nothing is
    written into any Tensor, so that an interrupted pass leaves no half of a sum.
    """
    watch = current_state().watch
    wanted = None if targets is None else {edge_of(t) for t in targets}
    gradients = Gradients(create_graph, wanted, runs_hooks=watch is None or watch.runs_hooks)
    gradients.start(outputs, seeds)
    order = topological_order([y._node for y in outputs if y._node is not None])
    useful = None if wanted is None else _on_the_way(order, wanted)
    order.reverse()
    sums = gradients.sums
    while order:
        node = order.pop()  # popped, so that a node dies as soon as it is done
        if wanted or node._hooks or node._retained:
            gradients.finish(node)
        dys = gradients.pop(node)
        if dys is not None and (useful is None or node in useful):
            dxs = _call_backward(node, dys, create_graph)
            if watch is not None:  # it sees gradients as they flow on; without it a list for each node is saved
                dxs = _conformed(node, dxs)
                watch.backward(node, dys, dxs)
            edges, inputs = node._edges or (), node._inputs
            for i, dx in enumerate(dxs):
                if dx is None or (edge := edges[i]) is None:
                    continue
                shape, dtype = inputs[i]
                if getattr(dx, "shape", None) != shape or dx.dtype is not dtype:
                    dx = _conform(node, i, dx)
                if not isinstance(below := edge[0], Function):
                    gradients.reach(below, node.fresh)
                if edge in sums:
                    gradients.add(edge, dx)
                else:
                    sums[edge] = dx  # the first is kept as it came
        if not retain_graph:
            node.release()
    gradients.finish_leaves(watch)
    return gradients.found, list(gradients.reached.values())


def _on_the_way(order: Sequence[Function], wanted: set[Edge]) -> set[Function]:
    """Return the nodes from which some wanted edge can be reached, so that only these run."""
    useful: set[Function] = set()
    for node in reversed(order):
        for edge in node._edges or ():
            if edge is not None and (edge in wanted or edge[0] in useful):
                useful.add(node)
                break
    return useful


# ---- what users call -----------------------------------------------------------------------------------------


def backward(output: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add d(output)/d(leaf) to ``leaf.grad`` for every leaf that requires a gradient.

    `output` must be a scalar unless `gradient`, of the same shape, says how its elements are weighed. The graph is
    released unless `retain_graph`. Never builds a graph itself: ``.grad`` has no history.
    """
    _check_differentiable(output, "backward")
    seed = _seed(output, gradient, "backward", create_graph=False)
    found, reached = backward_pass([output], [seed], None, retain_graph, create_graph=False)
    sums = []
    for x in reached:
        dx = found[edge_of(x)]
        sums.append(dx if x.grad is None else as_array(x.grad._array + dx))
    for x, total in zip(reached, sums, strict=True):  # an error above has changed no .grad
        x.grad = _tensor.wrap(total)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """Return the gradients of `outputs` with respect to `inputs`, one for each input, without touching ``.grad``.

    The vector-Jacobian product: dx = sum over outputs of grad_output · d(output)/dx. `grad_outputs` may be left out
    for scalar outputs. With `create_graph` the results are differentiable in turn (and the graph is retained). An
    input that no output depends on is an error, or None with `allow_unused`.
    """
    ys, xs = _listed(outputs), _listed(inputs)
    given = [grad_outputs] if isinstance(outputs, _tensor.Tensor) and not _is_list(grad_outputs) else grad_outputs
    given = [None] * len(ys) if given is None else list(given)
    if len(given) != len(ys):
        raise ValueError(f"grad: needs one grad_output for each of {len(ys)} outputs, got {len(given)}")
    for what, one in [("output", y) for y in ys] + [("input", x) for x in xs]:
        if not isinstance(one, _tensor.Tensor):
            raise TypeError(f"grad: every {what} must be a Tensor, got {shown(one)}; call grad(outputs, inputs)")
    for x in xs:
        if not x.requires_grad:
            raise ValueError(f"grad: every input must require a gradient, but one of shape {x.shape} does not")
    for y in ys:
        _check_differentiable(y, "grad")
    retain = create_graph if retain_graph is None else retain_graph
    with recording(record=create_graph):
        seeds = [_seed(y, g, "grad", create_graph) for y, g in zip(ys, given, strict=True)]
        found, _ = backward_pass(ys, seeds, xs, retain, create_graph)
        results = [found.get(edge_of(x)) for x in xs]
        for i, dx in enumerate(results):
            if dx is not None and any(xs[i] is other for other in xs[:i]):
                results[i] = dx.copy()  # asked for twice: no two gradients share memory
    missing = [i for i, dx in enumerate(results) if dx is None]
    if missing and not allow_unused:
        raise ValueError(
            f"grad: the outputs do not depend on input {missing[0]} of shape {xs[missing[0]].shape}; "
            "pass allow_unused=True to get None for it"
        )
    return tuple(dx if dx is None or create_graph else _tensor.wrap(dx) for dx in results)


def _listed(x: Any) -> list[Any]:
    """Return one Tensor, or several (of a generator, as parameters() is, too), as a list."""
    return [x] if hasattr(x, "shape") or not isinstance(x, Iterable) else list(x)


def _is_list(x: Any) -> bool:
    return isinstance(x, list | tuple)


def _check_differentiable(y: Tensor, operation: str) -> None:
    if not y.requires_grad:
        raise RuntimeError(
            f"{operation}: the output of shape {y.shape} does not require a gradient: no input of it did, "
            "or it was computed inside no_grad() or after detach()"
        )


def _seed(y: Tensor, gradient: Any, operation: str, create_graph: bool) -> Any:
    """Return the gradient that starts at `y`: one for a scalar, else what the caller gave, checked."""
    if gradient is None:
        if y.size != 1:
            raise ValueError(
                f"{operation}: the output must be a scalar, got shape {y.shape}; "
                "sum it, or give the gradient of the loss with respect to it"
            )
        seed = y.backend.xp.ones(y.shape, y.dtype)
        return _tensor.wrap(seed) if create_graph else seed
    if not isinstance(gradient, _tensor.Tensor):
        gradient = _tensor.Tensor(gradient, dtype=y.dtype, backend=y.backend)
    if gradient.backend is not y.backend:
        raise TypeError(
            f"{operation}: the gradient must be on the output's backend {y.backend.name}, got {gradient.backend.name}"
        )
    if gradient.shape != y.shape:
        raise ValueError(f"{operation}: the gradient must have the output's shape {y.shape}, got {gradient.shape}")
    if gradient.dtype != y.dtype:
        gradient = gradient.astype(y.dtype)
    return gradient if create_graph else gradient._array


# Tensor and the ops stand on this module, so it may import Tensor's only when everything above exists.
import tensorlib.tensor as _tensor  # noqa: E402
