"""The backward pass, and its two public forms `backward` and `grad`.

How a gradient is computed::

    b = a + a                # one Add node, two edges to a
    c = b + b                # one Add node, two edges to the node of b
    c.backward()             # dc/da = 4

`backward_pass` visits nodes newest first. In the example the node of b has two consuming edges, both from c, and is
visited only after both edges have delivered: the sum 2 then flows on once, instead of 1 twice. Nothing recurses, so a
chain of a million nodes works. In an ordinary pass the ops' `backward` methods get raw arrays; under ``create_graph``
the same formulas get Tensors, which record a graph of the gradient in turn.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.conversion import new_array
from tensorlib.arrays.shapes import as_dtype, broadcasts_to, sum_to
from tensorlib.arrays.sharing import any_overwritten, read_only
from tensorlib.engine.errors import in_backward, overwritten, replaced_since, require_arrays
from tensorlib.engine.function import Function
from tensorlib.engine.gradients import Gradients
from tensorlib.engine.node import Edge
from tensorlib.engine.recording import STATE, recording
from tensorlib.engine.value import Value, as_array, as_value, edge_of, wrap
from tensorlib.messages import kind_of, shown

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["grad"]


# ---- the backward pass -------------------------------------------------------------------------------------------


def backward_pass(
    outputs: Sequence[Value],
    seeds: Sequence[Any],
    targets: Sequence[Value] | None,
    retain_graph: bool,
    create_graph: bool,
) -> tuple[dict[Edge, Any], list[Value]]:
    """Carry `seeds` (arrays, or Tensors under create_graph) from `outputs` back through the graph.

    Returns the gradient of every target, keyed by `edge_of`, and the Tensors reached that have a ``.grad``: leaves, and
    Tensors that called `retain_grad`. If `targets` is None, these Tensors are the targets. No Tensor is written to, so
    an interrupted pass leaves no partial sum.
    """
    watch = STATE.get().watch
    wanted = None if targets is None else {edge_of(t) for t in targets}
    gradients = Gradients(create_graph, wanted, runs_hooks=watch is None or watch.runs_hooks)
    gradients.start(outputs, seeds)
    order = topological_order([y.node for y in outputs if y.node is not None])
    useful = None if wanted is None else _leading_to(wanted, order)
    order.reverse()
    while order:
        node = order.pop()  # popped, so that a node can be freed as soon as it has run
        if wanted or node.gradient_hooks or node.retained:
            gradients.finish(node)
        dys = gradients.pop(node)
        if dys is not None and (useful is None or node in useful):
            dxs = _run_backward(node, dys, create_graph)
            if watch is not None:
                dxs = _conformed(node, dxs)
                watch.backward(node, dys, dxs)
            _deliver(node, dxs, gradients)
        if not retain_graph:
            node.release()
    gradients.finish_leaves(watch)
    return gradients.found, list(gradients.reached.values())


def topological_order(roots: Sequence[Any]) -> list[Function]:
    """Return `roots` and all nodes that they were computed from, each before its inputs. Nothing recurses.

    A node is always recorded after its inputs, so newest-first is a valid order.
    """
    found = set(roots)
    stack = list(found)
    while stack:
        node = stack.pop()
        if node.edges is None:
            raise RuntimeError(
                f"backward: the graph behind {node.name} was already released by an earlier backward pass; "
                "pass retain_graph=True to that pass, or compute the value again"
            )
        for edge in node.edges:
            if edge is not None and isinstance(below := edge[0], Function) and below not in found:
                found.add(below)
                stack.append(below)
    return sorted(found, key=attrgetter("serial"), reverse=True)


def _leading_to(wanted: set[Edge], order: Sequence[Function]) -> set[Function]:
    """Return the nodes from which a wanted edge can be reached: only these need to run."""
    useful: set[Any] = set()
    for node in reversed(order):
        for edge in node.edges or ():
            if edge is not None and (edge in wanted or edge[0] in useful):
                useful.add(node)
                break
    return useful


def _run_backward(node: Function, dys: list[Any], create_graph: bool) -> tuple[Any, ...]:
    """Run one node's `backward`; return one gradient for each input, as the op gave it."""
    for leaf, version in node.leaf_versions:
        if leaf.version != version:
            raise replaced_since(node.name, leaf, version)
    if any_overwritten() and node.was_overwritten():
        raise overwritten(node)
    while node.region is not None:  # a checkpoint, which may be inside another
        node.region.restore()
    if node.guarded:
        node.saved, dys = tuple([read_only(x) for x in node.saved]), [_guarded(dy) for dy in dys]
    try:
        dxs = _gradients_of(node, dys, create_graph)
    except Exception as error:
        raise in_backward(node, error) from error
    if not isinstance(dxs, tuple):
        dxs = (dxs,)
    if node.guarded:
        require_arrays(node, "backward", dxs, create_graph)
        if create_graph:
            dxs = tuple([as_value(dx) if hasattr(dx, "dtype") else dx for dx in dxs])
    if len(dxs) != len(node.input_types):
        raise RuntimeError(
            f"{node.name}: backward must return {len(node.input_types)} gradients, got {len(dxs)}; "
            f"the op is {node.origin()}"
        )
    return dxs


def _guarded(dy: Any) -> Any:
    """Return the gradient, an array or a Tensor, as the op of a user gets it: others may share its memory."""
    return read_only(dy) if not isinstance(dy, Value) else dy if dy.needs_grad else wrap(read_only(dy.array))


def _gradients_of(node: Function, dys: list[Any], create_graph: bool) -> Any:
    """Run `backward` in the precision in which `forward` ran."""
    if node.precision != STATE.get().precision:
        with recording(precision=node.precision):
            return _gradients_of(node, dys, create_graph)
    if not create_graph:
        return node.backward(*dys)
    twin = copy.copy(node)  # because another pass may need the arrays in the node itself
    twin.saved, twin.statistics = node.saved_with_history(), None
    with recording(path=node.path, watch=None):  # the gradients are watched, not the ops that compute them
        return twin.backward(*dys)


def _deliver(node: Function, dxs: Sequence[Any], gradients: Gradients) -> None:
    """Add each gradient to the sum at the end of its edge."""
    edges, types, sums = node.edges or (), node.input_types, gradients.sums
    for i, dx in enumerate(dxs):
        if dx is None or (edge := edges[i]) is None:
            continue
        shape, dtype = types[i]
        if getattr(dx, "shape", None) != shape or dx.dtype is not dtype:
            dx = _conform(node, i, dx)
        if isinstance(leaf := edge[0], Value):
            gradients.reach(leaf, node.fresh)
        if edge in sums:
            gradients.add(edge, dx)
        else:
            sums[edge] = dx  # the first contribution, without a function call


def _conform(node: Function, i: int, dx: Any) -> Any:
    """Return a gradient with the shape and dtype of its input. Un-broadcasting happens only here."""
    shape, dtype = node.input_types[i]
    try:
        fits = dx.shape == shape
    except AttributeError:
        raise TypeError(
            f"{node.name}: backward must return arrays, got {type(dx).__name__} for input {i}; "
            f"the op is {node.origin()}"
        ) from None
    if not fits:
        if not node.broadcasts or not broadcasts_to(shape, dx.shape):
            remedy = "" if node.broadcasts or not broadcasts_to(shape, dx.shape) else _UNBROADCAST
            raise RuntimeError(
                f"{node.name}: gradient for input {i} must have the input's shape {shape}, got {tuple(dx.shape)}; "
                f"{remedy}the op is {node.origin()}"
            )
        dx = sum_to(dx, shape)
    if dx.dtype is not dtype and dx.dtype != dtype:
        dx = dx.astype(dtype)
    return as_array(dx)


_UNBROADCAST = "if its inputs broadcast, set broadcasts = True in the class; "


def _conformed(node: Function, dxs: Sequence[Any]) -> tuple[Any, ...]:
    """Return `dxs` with the shapes and dtypes of the inputs; None for each gradient that does not flow on."""
    pairs = enumerate(zip(node.edges or (), dxs, strict=True))
    return tuple([None if edge is None or dx is None else _conform(node, i, dx) for i, (edge, dx) in pairs])


# ---- the public functions ----------------------------------------------------------------------------------------


def backward(output: Value, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add d(output)/d(leaf) to ``leaf.grad`` for every leaf that requires a gradient.

    `output` must be a scalar unless `gradient`, of the same shape, gives the weight of each of its elements. The graph
    is released unless `retain_graph` is True. No new graph is recorded: ``.grad`` has no history.
    """
    _check_differentiable(output, "backward")
    seed = _seed(output, gradient, "backward", create_graph=False)
    found, reached = backward_pass([output], [seed], None, retain_graph, create_graph=False)
    sums = []
    for x in reached:
        dx = found[edge_of(x)]
        sums.append(dx if x.grad is None else as_array(as_dtype(_own_gradient(x).array + dx, x.dtype)))
    for x, total in zip(reached, sums, strict=True):  # in a second loop, so that an error in the first changes no .grad
        x.grad = wrap(total)


def _own_gradient(x: Value) -> Value:
    """Return ``x.grad``, to which a gradient will be added, after checking what the user may have assigned to it."""
    own: Any = x.grad
    if not isinstance(own, Value) or own.shape != x.shape:
        given = f"shape {own.shape}" if isinstance(own, Value) else kind_of(own)
        raise (ValueError if isinstance(own, Value) else TypeError)(
            f"backward: x.grad must be None or a Tensor of the shape of x, {x.shape}; got {given}; write x.grad = None"
        )
    return own


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Iterable[Tensor],
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor, ...]:
    """Return the gradients of `outputs` with respect to `inputs`, one for each input, without touching ``.grad``.

    This is the vector-Jacobian product: dx = sum over outputs of grad_output · d(output)/dx. `grad_outputs` may be
    omitted for scalar outputs. With `create_graph` the results are differentiable in turn, and by default the graph is
    retained. If no output depends on an input, its gradient is None with `allow_unused`, otherwise an error is raised.

    >>> x = tl.Tensor(2.0, requires_grad=True)
    >>> (first,) = tl.grad(x**3, [x], create_graph=True)
    >>> (second,) = tl.grad(first, [x])
    >>> first.item(), second.item()
    (12.0, 12.0)
    """
    ys, xs = _listed(outputs), _listed(inputs)
    given = _grad_outputs(outputs, grad_outputs, len(ys))
    _check_arguments(ys, xs)
    with recording(record=create_graph):
        seeds = [_seed(y, g, "grad", create_graph) for y, g in zip(ys, given, strict=True)]
        found, _ = backward_pass(ys, seeds, xs, create_graph if retain_graph is None else retain_graph, create_graph)
        results: list[Any] = [found.get(edge_of(x)) for x in xs]
        for i, dx in enumerate(results):
            if dx is not None and any(xs[i] is other for other in xs[:i]):
                results[i] = dx.copy()  # the same input was given twice, but no two gradients may share memory
    missing = [i for i, dx in enumerate(results) if dx is None]
    if missing and not allow_unused:
        raise ValueError(
            f"grad: the outputs do not depend on input {missing[0]} of shape {xs[missing[0]].shape}; "
            "pass allow_unused=True to get None for it"
        )
    return tuple(dx if dx is None or create_graph else wrap(dx) for dx in results)


def _listed(x: Any) -> list[Any]:
    """Return one Tensor, or several (also from a generator such as parameters()), as a list."""
    return [x] if hasattr(x, "shape") or not isinstance(x, Iterable) else list(x)


def _grad_outputs(outputs: Any, given: Any, count: int) -> list[Any]:
    """Return one grad_output for each output, None where none was given."""
    if isinstance(outputs, Value) and not isinstance(given, list | tuple):
        given = [given]
    found = [None] * count if given is None else list(given)
    if len(found) != count:
        raise ValueError(f"grad: needs one grad_output for each of {count} outputs, got {len(found)}")
    return found


def _check_arguments(ys: Sequence[Any], xs: Sequence[Any]) -> None:
    for what, one in [("output", y) for y in ys] + [("input", x) for x in xs]:
        if not isinstance(one, Value):
            raise TypeError(f"grad: every {what} must be a Tensor, got {shown(one)}; call grad(outputs, inputs)")
    for x in xs:
        if not x.needs_grad:
            raise ValueError(f"grad: every input must require a gradient, but one of shape {x.shape} does not")
    for y in ys:
        _check_differentiable(y, "grad")


def _check_differentiable(y: Value, operation: str) -> None:
    if not y.needs_grad:
        raise RuntimeError(
            f"{operation}: the output of shape {y.shape} does not require a gradient: none of its inputs did, "
            "or it was computed inside no_grad() or after detach()"
        )


def _seed(y: Value, gradient: Any, operation: str, create_graph: bool) -> Any:
    """Return the gradient that the pass starts with at `y`: 1 for a scalar, otherwise the caller's, after checks."""
    if gradient is None:
        if y.size != 1:
            raise ValueError(
                f"{operation}: the output must be a scalar, got shape {y.shape}; "
                "sum it, or give the gradient of the loss with respect to it"
            )
        seed = y.backend.xp.ones(y.shape, y.dtype)
        return wrap(seed) if create_graph else seed
    if not isinstance(gradient, Value):
        gradient = wrap(new_array(gradient, y.dtype, y.backend))
    if gradient.backend is not y.backend:
        raise TypeError(
            f"{operation}: the gradient must be on the output's backend {y.backend.name}, got {gradient.backend.name}"
        )
    if gradient.shape != y.shape:
        raise ValueError(f"{operation}: the gradient must have the output's shape {y.shape}, got {gradient.shape}")
    if gradient.dtype != y.dtype:
        gradient = gradient.astype(y.dtype)
    return gradient if create_graph else gradient.array
