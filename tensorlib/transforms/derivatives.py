"""Products with Jacobians and Hessians, and the matrices themselves, computed by `grad`.

Each takes `f`, a function of Tensors that returns a Tensor or a tuple of Tensors, and `inputs`: one Tensor or array,
or a tuple of them. A result for one input (or output) is a Tensor, a result for several is a tuple of Tensors. With
``create_graph=True`` results are differentiable with respect to the inputs that require a gradient, and to everything
else that `f` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from tensorlib.engine.backward import grad
from tensorlib.engine.function import as_tensor
from tensorlib.engine.recording import recording
from tensorlib.engine.value import wrap
from tensorlib.messages import shown
from tensorlib.ops.arguments import checked_floating
from tensorlib.ops.creation import ones_like, zeros_like
from tensorlib.ops.shape import copy, reshape, stack
from tensorlib.tensor import Tensor

if TYPE_CHECKING:
    import numpy as np

    from tensorlib.arrays.array import Array
    from tensorlib.engine.value import TensorLike

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vjp"]

Y = TypeVar("Y", bound="Tensor | Sequence[Tensor]")
One: TypeAlias = "Tensor | np.ndarray | Array | float"
Several: TypeAlias = "tuple[TensorLike, ...] | list[TensorLike]"
Tensors: TypeAlias = "tuple[Tensor, ...]"


@overload
def vjp(f: Callable[..., Y], inputs: One, v: Any = ..., *, create_graph: bool = ...) -> tuple[Y, Tensor]: ...
@overload
def vjp(f: Callable[..., Y], inputs: Several, v: Any = ..., *, create_graph: bool = ...) -> tuple[Y, Tensors]: ...
def vjp(f: Callable[..., Any], inputs: Any, v: Any = None, *, create_graph: bool = False) -> tuple[Any, Any]:
    """Return (y, v^T J): the output y = f(x), and its vector-Jacobian product, of the shape of `inputs`.

    J = dy/dx; `v` has the shape of y and may be omitted if y is a scalar. This is reverse mode itself: one
    backward pass, whatever the size of x.

    Raises ValueError if `v` is required but missing, or does not have the shape of y.

    >>> y, product = tl.vjp(lambda x: x * x, tl.Tensor([1.0, 2.0]), [1.0, 10.0])
    >>> y.numpy().tolist(), product.numpy().tolist()
    ([1.0, 4.0], [2.0, 40.0])
    """
    xs, y, ys = _evaluated("vjp", f, inputs, create_graph)
    products = vector_jacobian_products(ys, xs, _vectors("vjp", v, ys, "the output"), create_graph)
    return _arranged_as(y, ys, create_graph), _arranged_as(inputs, products, create_graph)


def jvp(f: Callable[..., Y], inputs: One | Several, v: Any = None, *, create_graph: bool = False) -> tuple[Y, Y]:
    """Return (y, J v): the output y = f(x), and its Jacobian-vector product, of the shape of y.

    J = dy/dx; `v` has the shape of `inputs` and may be omitted if x is a scalar. u^T J is linear in u, so its
    gradient with respect to u, with v as the cotangent, is J v: two backward passes instead of a forward mode with a
    separate rule for every op (Townsend 2017, "A new trick for calculating Jacobian vector products").

    Raises ValueError if `v` is required but missing, or does not have the shape of `inputs`.

    >>> y, product = tl.jvp(lambda x: x * x, tl.Tensor([1.0, 2.0]), [1.0, 10.0])
    >>> product.numpy().tolist()
    [2.0, 40.0]
    """
    xs, y, ys = _evaluated("jvp", f, inputs, create_graph)
    vs, us = _vectors("jvp", v, xs, "the input"), [zeros_like(y) for y in ys]
    for u in us:
        u.requires_grad = True
    transposed = vector_jacobian_products(ys, xs, us, create_graph=True)
    products = vector_jacobian_products(transposed, us, vs, create_graph)
    return _arranged_as(y, ys, create_graph), _arranged_as(y, products, create_graph)


@overload
def hvp(f: Callable[..., Y], inputs: One, v: Any = ..., *, create_graph: bool = ...) -> tuple[Y, Tensor]: ...
@overload
def hvp(f: Callable[..., Y], inputs: Several, v: Any = ..., *, create_graph: bool = ...) -> tuple[Y, Tensors]: ...
def hvp(f: Callable[..., Any], inputs: Any, v: Any = None, *, create_graph: bool = False) -> tuple[Any, Any]:
    """Return (y, H v): the scalar y = f(x), and the product of its Hessian with `v`, of the shape of `inputs`.

    `v` has the shape of `inputs` and may be omitted if x is a scalar. H v is the gradient of
    <dy/dx, v> (Pearlmutter 1994): two backward passes, and no matrix.

    Raises ValueError if f does not return one scalar, or `v` does not have the shape of `inputs`.

    >>> y, product = tl.hvp(lambda x: (x**3).sum(), tl.Tensor([1.0, 2.0]), [1.0, 10.0])
    >>> y.item(), product.numpy().tolist()
    (9.0, [6.0, 120.0])
    """
    xs, y, ys = _evaluated("hvp", f, inputs, create_graph, scalar=True)
    slopes = vector_jacobian_products(ys, xs, [ones_like(ys[0])], create_graph=True)
    products = vector_jacobian_products(slopes, xs, _vectors("hvp", v, xs, "the input"), create_graph)
    return _arranged_as(y, ys, create_graph), _arranged_as(inputs, products, create_graph)


@overload
def jacobian(f: Callable[..., Tensor], inputs: One, *, create_graph: bool = ...) -> Tensor: ...
@overload
def jacobian(f: Callable[..., Tensor], inputs: Several, *, create_graph: bool = ...) -> Tensors: ...
@overload
def jacobian(f: Callable[..., Sequence[Tensor]], inputs: One, *, create_graph: bool = ...) -> Tensors: ...
@overload
def jacobian(
    f: Callable[..., Sequence[Tensor]], inputs: Several, *, create_graph: bool = ...
) -> tuple[Tensors, ...]: ...
def jacobian(f: Callable[..., Any], inputs: Any, *, create_graph: bool = False) -> Any:
    """Return J = dy/dx of y = f(x), of shape (*y.shape, *x.shape): one backward pass for each element of y.

    With several outputs the result is a tuple over the outputs. With several inputs each entry is a tuple over the
    inputs, as in PyTorch.

    >>> tl.jacobian(lambda x: x * x, tl.Tensor([1.0, 2.0])).numpy()
    array([[2., 0.],
           [0., 4.]], dtype=float32)
    """
    xs, y, ys = _evaluated("jacobian", f, inputs, create_graph)
    blocks = [_arranged_as(inputs, _jacobians(one, xs, create_graph), create_graph) for one in ys]
    return tuple(blocks) if _is_several(y) else blocks[0]


@overload
def hessian(f: Callable[..., Any], inputs: One, *, create_graph: bool = ...) -> Tensor: ...
@overload
def hessian(f: Callable[..., Any], inputs: Several, *, create_graph: bool = ...) -> tuple[Tensors, ...]: ...
def hessian(f: Callable[..., Any], inputs: Any, *, create_graph: bool = False) -> Any:
    """Return H = d2y/dx2 of the scalar y = f(x), of shape (*x.shape, *x.shape): the Jacobian of the gradient.

    It takes one backward pass for the gradient, and one for each element of x. For several inputs the result is a tuple
    of tuples, H[i][j] = d2y / dx_i dx_j.

    Raises ValueError if f does not return one scalar.

    >>> tl.hessian(lambda x: (x**3).sum(), tl.Tensor([1.0, 2.0])).numpy()
    array([[ 6.,  0.],
           [ 0., 12.]], dtype=float32)
    """
    xs, _, ys = _evaluated("hessian", f, inputs, create_graph, scalar=True)
    slopes = vector_jacobian_products(ys, xs, [ones_like(ys[0])], create_graph=True)
    blocks = [_arranged_as(inputs, _jacobians(slope, xs, create_graph), create_graph) for slope in slopes]
    return tuple(blocks) if _is_several(inputs) else blocks[0]


# ---- shared parts ------------------------------------------------------------------------------------------------


def vector_jacobian_products(
    ys: Sequence[Tensor], xs: Sequence[Tensor], vs: Sequence[Tensor], create_graph: bool
) -> list[Tensor]:
    """Return the gradient of <vs, ys> with respect to each x: zeros if no path leads to x. Retains the graph."""
    reached = [(y, v) for y, v in zip(ys, vs, strict=True) if y.requires_grad]
    if not reached:
        return [zeros_like(x) for x in xs]
    outputs, seeds = zip(*reached, strict=True)
    found = grad(outputs, xs, seeds, retain_graph=True, create_graph=create_graph, allow_unused=True)
    return [zeros_like(x) if dx is None else dx for x, dx in zip(xs, found, strict=True)]


def _jacobians(y: Tensor, xs: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    """Return dy/dx for each x, (*y.shape, *x.shape): one backward pass for each element of y."""
    rows: list[list[Tensor]] = []
    for i in range(y.size):
        unit = y.backend.xp.zeros(y.size, y.dtype)
        unit[i] = 1
        rows.append(vector_jacobian_products([y], xs, [wrap(unit.reshape(y.shape))], create_graph))
    if not rows:
        return [wrap(x.backend.xp.zeros((*y.shape, *x.shape), x.dtype)) for x in xs]
    with recording(record=create_graph):  # so that create_graph also works within no_grad
        return [reshape(stack([row[k] for row in rows]), (*y.shape, *x.shape)) for k, x in enumerate(xs)]


def _is_several(x: Any) -> bool:
    return isinstance(x, tuple | list)


def _arranged_as(pattern: Any, tensors: Sequence[Tensor], create_graph: bool) -> Any:
    """Return `tensors` in the structure of `pattern`, one Tensor or a tuple; without history unless `create_graph`."""
    results = tuple(tensors if create_graph else [x.detach() for x in tensors])
    return results if _is_several(pattern) else results[0]


def _evaluated(
    name: str, f: Callable[..., Any], inputs: Any, create_graph: bool, scalar: bool = False
) -> tuple[list[Tensor], Any, list[Tensor]]:
    """Call f at `inputs`. Return the Tensors that f was given, its result, and the result as a list.

    f gets new Tensors. So if f also uses the original inputs directly, these count as constants.
    """
    if not callable(f):
        raise TypeError(f"{name}: the first argument must be a function, as in {name}(f, x); got {shown(f)}")
    given = inputs if _is_several(inputs) else [inputs]
    xs = [checked_floating(name, f"input {i}", x) for i, x in enumerate(given)]
    with recording(record=True):
        xs = [copy(x) if create_graph and x.requires_grad else wrap(x.data) for x in xs]
        for x in xs:
            x.requires_grad = True
        _check_takes(name, f, xs, inputs)
        y = f(*xs)
    ys = list(y) if _is_several(y) else [y]
    for one in ys:
        if not isinstance(one, Tensor) or one.dtype.kind != "f":
            kind = f"{one.dtype} Tensor" if isinstance(one, Tensor) else type(one).__name__
            raise TypeError(f"{name}: f must return a Tensor of a floating dtype, or several; it returned a {kind}")
    if scalar and (len(ys) != 1 or ys[0].size != 1):
        raise ValueError(
            f"{name}: f must return one scalar, but it returned shape {', '.join(str(y.shape) for y in ys)}"
        )
    return xs, y, ys


def _check_takes(name: str, f: Callable[..., Any], xs: Sequence[Tensor], inputs: Any) -> None:
    """Raise TypeError unless f takes one argument for each of several inputs, as far as its signature is known."""
    if not _is_several(inputs):
        return
    try:
        parameters = signature(f)
    except (TypeError, ValueError):  # a builtin may have no signature
        return
    try:
        parameters.bind(*xs)
    except TypeError as error:
        kind = type(inputs).__name__
        raise TypeError(
            f"{name}: a {kind} holds several inputs, and f must take each of {len(xs)} as an argument, but: {error}; "
            f"for one input pass a Tensor or an array"
        ) from None


def _vectors(name: str, v: Any, likes: Sequence[Tensor], what: str) -> list[Tensor]:
    """Return the caller's vectors as Tensors with the shapes and dtypes of `likes`; a missing v is 1 for a scalar."""
    if v is None:
        if len(likes) != 1 or likes[0].size != 1:
            raise ValueError(f"{name}: v is required unless {what} is a scalar; its shape is {likes[0].shape}")
        return [ones_like(likes[0])]
    vs = list(v) if _is_several(v) and (len(likes) > 1 or any(isinstance(x, Tensor) for x in v)) else [v]
    if len(vs) != len(likes):
        raise ValueError(f"{name}: v must hold {len(likes)} vectors, one for each Tensor of {what}; got {len(vs)}")
    vectors = []
    for given, like in zip(vs, likes, strict=True):
        one = as_tensor(given, like=like)
        if one.shape != like.shape:
            raise ValueError(f"{name}: v must have the shape of {what}, {like.shape}; got {one.shape}")
        vectors.append(one if one.dtype == like.dtype else one.astype(like.dtype))
    return vectors
