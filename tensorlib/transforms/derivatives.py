"""Functions of functions: products with Jacobians and Hessians, and these themselves.

All are made of `grad`. They take `f`, a function of Tensors that returns a Tensor or a tuple of Tensors, and `inputs`,
a Tensor (or array) or a tuple of them; what belongs to one input comes back alone, what belongs to several in a tuple.
With ``create_graph=True`` results are differentiable with respect to the inputs, if these require a gradient, and to
whatever else `f` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tensorlib.engine.backward import grad
from tensorlib.engine.function import as_tensor
from tensorlib.engine.recording import recording
from tensorlib.engine.value import wrap
from tensorlib.messages import shown
from tensorlib.ops.creation import ones_like, zeros_like
from tensorlib.ops.shape import copy, reshape, stack
from tensorlib.tensor import Tensor

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vjp"]

Map: TypeAlias = Callable[..., Any]
"""A function of Tensors that returns a Tensor or several."""


def vjp(f: Map, inputs: Any, v: Any = None, *, create_graph: bool = False) -> tuple[Any, Any]:
    """Return (y, v^T J): the output y = f(x), and its vector-Jacobian product, of the shape of `inputs`.

    J = dy/dx; `v` has the shape of y and may be left out where y is a scalar. This is reverse mode itself: one
    backward pass, whatever the size of x.
    """
    xs, y, ys = _run("vjp", f, inputs, create_graph)
    found = _pull(ys, xs, _vectors("vjp", v, ys, "the output"), create_graph)
    return _as(y, ys, create_graph), _as(inputs, found, create_graph)


def jvp(f: Map, inputs: Any, v: Any = None, *, create_graph: bool = False) -> tuple[Any, Any]:
    """Return (y, J v): the output y = f(x), and its Jacobian-vector product, of the shape of y.

    J = dy/dx; `v` has the shape of `inputs` and may be left out where x is a scalar. u^T J is linear in u, so its own
    gradient with respect to u, with v as the cotangent, is J v: two backward passes instead of a forward mode with a
    rule of its own for every op (Townsend 2017, "A new trick for calculating Jacobian vector products").
    """
    xs, y, ys = _run("jvp", f, inputs, create_graph)
    vs, us = _vectors("jvp", v, xs, "the input"), [zeros_like(y) for y in ys]
    for u in us:
        u.requires_grad = True
    products = _pull(ys, xs, us, create_graph=True)
    found = _pull(products, us, vs, create_graph)
    return _as(y, ys, create_graph), _as(y, found, create_graph)


def hvp(f: Map, inputs: Any, v: Any = None, *, create_graph: bool = False) -> tuple[Any, Any]:
    """Return (y, H v): the scalar y = f(x), and the product of its Hessian with `v`, both of the shape of `inputs`.

    H v is the gradient of <dy/dx, v> (Pearlmutter 1994): two backward passes, and no matrix.
    """
    xs, y, ys = _run("hvp", f, inputs, create_graph, scalar=True)
    slopes = _pull(ys, xs, [ones_like(ys[0])], create_graph=True)
    found = _pull(slopes, xs, _vectors("hvp", v, xs, "the input"), create_graph)
    return _as(y, ys, create_graph), _as(inputs, found, create_graph)


def jacobian(f: Map, inputs: Any, *, create_graph: bool = False) -> Any:
    """Return J = dy/dx of y = f(x), of shape (*y.shape, *x.shape): one backward pass for each element of y.

    Nested as PyTorch nests it: a tuple over the outputs, if f returns several, of tuples over the inputs, if there are
    several.
    """
    xs, y, ys = _run("jacobian", f, inputs, create_graph)
    each = [_as(inputs, _rows(one, xs, create_graph), create_graph) for one in ys]
    return tuple(each) if _is_many(y) else each[0]


def hessian(f: Map, inputs: Any, *, create_graph: bool = False) -> Any:
    """Return H = d2y/dx2 of the scalar y = f(x), of shape (*x.shape, *x.shape): the Jacobian of the gradient.

    For several inputs a tuple of tuples, H[i][j] = d2y / dx_i dx_j.
    """
    xs, _, ys = _run("hessian", f, inputs, create_graph, scalar=True)
    slopes = _pull(ys, xs, [ones_like(ys[0])], create_graph=True)
    blocks = [_as(inputs, _rows(slope, xs, create_graph), create_graph) for slope in slopes]
    return tuple(blocks) if _is_many(inputs) else blocks[0]


# ---- what they share ---------------------------------------------------------------------------------------------


def _is_many(x: Any) -> bool:
    return isinstance(x, tuple | list)


def _as(pattern: Any, found: Sequence[Tensor], create_graph: bool) -> Any:
    """Return `found` as `pattern` is: alone or in a tuple; without history unless it is wanted."""
    results = tuple(found if create_graph else [x.detach() for x in found])
    return results if _is_many(pattern) else results[0]


def _run(
    name: str, f: Map, inputs: Any, create_graph: bool, scalar: bool = False
) -> tuple[list[Tensor], Any, list[Any]]:
    """Call f at `inputs`; return what it was differentiated at, what it returned, and that as a list.

    It gets Tensors of its own, so that what else f may hold of the inputs does not count as the input.
    """
    if not callable(f):
        raise TypeError(f"{name}: a function and then its inputs are required, as {name}(f, x); got {shown(f)} first")
    xs = [as_tensor(x) for x in (inputs if _is_many(inputs) else [inputs])]
    for i, x in enumerate(xs):
        if x.dtype.kind != "f":
            raise TypeError(f"{name}: inputs of a floating dtype are required, input {i} is {x.dtype}; use .astype")
    with recording(record=True):
        xs = [copy(x) if create_graph and x.requires_grad else wrap(x.data) for x in xs]
        for x in xs:
            x.requires_grad = True
        y = f(*xs)
    ys = list(y) if _is_many(y) else [y]
    for one in ys:
        if not isinstance(one, Tensor) or one.dtype.kind != "f":
            what = f"{one.dtype} Tensor" if isinstance(one, Tensor) else type(one).__name__
            raise TypeError(f"{name}: f must return a Tensor of a floating dtype, or several; it returned a {what}")
    if scalar and (len(ys) != 1 or ys[0].size != 1):
        raise ValueError(f"{name}: f must return one scalar, it returned shape {', '.join(str(y.shape) for y in ys)}")
    return xs, y, ys


def _vectors(name: str, v: Any, likes: Sequence[Tensor], what: str) -> list[Tensor]:
    """Return the vector(s) that the caller gave, beside what they must fit; 1 for a scalar when none is given."""
    if v is None:
        if len(likes) != 1 or likes[0].size != 1:
            raise ValueError(f"{name}: v is required where {what} is no scalar; its shape is {likes[0].shape}")
        return [ones_like(likes[0])]
    vs = list(v) if _is_many(v) and (len(likes) > 1 or any(isinstance(x, Tensor) for x in v)) else [v]
    if len(vs) != len(likes):
        raise ValueError(f"{name}: one v for each of {len(likes)} is required, as {what} is; got {len(vs)}")
    found = []
    for given, like in zip(vs, likes, strict=True):
        one = as_tensor(given, like=like)
        if one.shape != like.shape:
            raise ValueError(f"{name}: v must have the shape of {what}, {like.shape}; got {one.shape}")
        found.append(one if one.dtype == like.dtype else one.astype(like.dtype))
    return found


def _pull(ys: Sequence[Tensor], xs: Sequence[Tensor], vs: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    """Return the gradient of <vs, ys> with respect to each x; zeros where nothing leads there."""
    reached = [(y, v) for y, v in zip(ys, vs, strict=True) if y.requires_grad]
    if not reached:
        return [zeros_like(x) for x in xs]
    outputs, seeds = zip(*reached, strict=True)
    found = grad(outputs, xs, seeds, retain_graph=True, create_graph=create_graph, allow_unused=True)
    return [zeros_like(x) if dx is None else dx for x, dx in zip(xs, found, strict=True)]


def _rows(y: Tensor, xs: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    """Return dy/dx for each x, (*y.shape, *x.shape), one backward pass for each element of y."""
    rows: list[list[Tensor]] = []
    for i in range(y.size):
        unit = y.backend.xp.zeros(y.size, y.dtype)
        unit[i] = 1
        rows.append(_pull([y], xs, [wrap(unit.reshape(y.shape))], create_graph))
    if not rows:
        return [wrap(x.backend.xp.zeros((*y.shape, *x.shape), x.dtype)) for x in xs]
    with recording(record=create_graph):  # wanted, it is there also within no_grad
        return [reshape(stack([row[k] for row in rows]), (*y.shape, *x.shape)) for k, x in enumerate(xs)]
