"""gradcheck: compare analytic gradients with finite differences, to first and second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import Backend
from tensorlib.tensor import Tensor
from tensorlib.transforms.derivatives import vector_jacobian_products

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["GradcheckError", "GradcheckResult", "gradcheck"]


class GradcheckError(AssertionError):
    """A gradient differs from its finite difference. The message gives both, and the element.

    >>> try:
    ...     tl.gradcheck(lambda x: x * x.detach(), [2.0], order=1, name="square")
    ... except tl.GradcheckError as error:
    ...     print(str(error)[:60])
    square: first order: gradient of input 0 (x) at element (0,)
    """


class GradcheckResult(NamedTuple):
    """The worst error of each order, relative to the largest element of the gradient; `second` is None for order 1.

    >>> tl.GradcheckResult(first=1e-11, second=None).first
    1e-11
    """

    first: float
    second: float | None


def gradcheck(
    f: Callable[..., Any],
    *arrays: ArrayLike,
    order: int = 2,
    tolerance: float = 1e-6,
    step: float = 1e-4,
    seed: int = 0,
    name: str | None = None,
    backend: str | Backend = "numpy",
) -> GradcheckResult:
    """Check the gradients of `f`, a function of Tensors, at `arrays`, in float64.

    Let L(x) = <c, f(x)> with a random cotangent c (a plain sum would hide a wrong gradient of softmax). Each element
    of dL/dx is compared with the central difference of fourth order,

        (8 L(x+h) - 8 L(x-h) - L(x+2h) + L(x-2h)) / 12 h,    whose error is of order h^4,

    relative to the largest element of the gradient. With `order` 2 the gradient under create_graph is compared too,
    and its own gradients, as a function of x and c, are checked in the same way. `f` must be smooth around `arrays`.

    Args:
        f: a function that returns a Tensor or several; Tensors of integers and booleans are ignored.
        arrays: the inputs of f, of any shape; Tensors are taken by their values.
        order: 1 or 2, the highest order of derivatives to check.
        tolerance: the largest error allowed, relative to the largest element of the gradient.
        step: h, relative to x where |x| > 1.
        seed: the seed of the random cotangents.
        name: the name of f in messages; by default ``f.__name__``.
        backend: the backend on which f is computed.

    Raises GradcheckError, naming the order, input, element and both numbers; ValueError for any other order.

    >>> tl.gradcheck(tl.tanh, np.linspace(-1, 1, 6).reshape(2, 3)).first < 1e-9
    True
    """
    if order not in (1, 2):
        raise ValueError(f"gradcheck: order must be 1 or 2, got {order}")
    settings = _Settings(name or str(getattr(f, "__name__", "function")), tolerance, step, backend, _input_names(f))
    points = [_point(i, a) for i, a in enumerate(arrays)]
    rng = np.random.default_rng(seed)
    cotangents = [_random_like(y, rng) for y in _values(f, points, backend)]

    def first_gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
        xs, cs = inputs[: len(points)], inputs[len(points) :]
        return tuple(vector_jacobian_products(_floating(f(*xs)), xs, cs, create_graph=True))

    first = _compare(settings, "first order", f, points, cotangents, under_create_graph=order == 2)
    if order == 1:
        return GradcheckResult(first, None)
    slopes = [_random_like(p, rng) for p in points]
    return GradcheckResult(first, _compare(settings, "second order", first_gradient, [*points, *cotangents], slopes))


class _Settings(NamedTuple):
    name: str
    tolerance: float
    step: float
    backend: str | Backend
    input_names: list[str]  # of the function's first arguments, as far as they are known


def _point(i: int, x: Any) -> np.ndarray:
    """Return an input, which may be a Tensor, as a new array in float64."""
    if isinstance(x, tuple | list) and any(hasattr(one, "dtype") for one in x):
        raise TypeError(
            f"gradcheck: input {i} must be one array, got a {type(x).__name__} of {len(x)}; "
            "pass the inputs one by one, as gradcheck(f, x, y)"
        )
    return np.array(x.numpy() if isinstance(x, Tensor) else x, np.float64)


def _input_names(f: Callable[..., Any]) -> list[str]:
    """Return the names of the positional arguments of `f`, up to a variadic one."""
    try:
        parameters = signature(f).parameters.values()
    except (TypeError, ValueError):  # a builtin may have no signature
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _random_like(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return numbers of both signs and of magnitude 0.5 to 1.5: large enough for every element to matter."""
    return np.asarray(rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1, 1], x.shape))


def _floating(ys: Any) -> list[Tensor]:
    """Return the outputs that have derivatives, unlike indices and booleans."""
    return [y for y in (ys if isinstance(ys, tuple | list) else (ys,)) if y.dtype.kind == "f"]


def _values(f: Callable[..., Any], points: Sequence[np.ndarray], backend: str | Backend) -> list[np.ndarray]:
    xs = [Tensor(p, requires_grad=True, backend=backend) for p in points]
    return [y.numpy() for y in _floating(f(*xs))]


def _compare(
    settings: _Settings,
    order: str,
    f: Callable[..., Any],
    points: Sequence[np.ndarray],
    cotangents: Sequence[np.ndarray],
    under_create_graph: bool = False,
) -> float:
    """Compare grad of <cotangents, f> with central differences at every element; return the worst relative error."""
    xs = [Tensor(p, requires_grad=True, backend=settings.backend) for p in points]
    seeds = [Tensor(c, backend=settings.backend) for c in cotangents]
    # The formula runs once on arrays and once on Tensors; if a kernel overrides it for arrays, results may differ.
    analytic = {order: vector_jacobian_products(_floating(f(*xs)), xs, seeds, create_graph=False)}
    if under_create_graph:
        analytic[f"{order} under create_graph"] = vector_jacobian_products(
            _floating(f(*xs)), xs, seeds, create_graph=True
        )
    worst = 0.0
    for i in range(len(xs)):
        numeric = _differences(settings, f, points, cotangents, i)
        for label, gradients in analytic.items():
            worst = max(worst, _error(settings, label, i, gradients[i].numpy(), numeric))
    return worst


def _differences(
    settings: _Settings,
    f: Callable[..., Any],
    points: Sequence[np.ndarray],
    cotangents: Sequence[np.ndarray],
    i: int,
) -> np.ndarray:
    """Return d<cotangents, f>/d(points[i]) by central differences of fourth order, element by element."""

    def loss(element: tuple[int, ...], offset: float) -> float:
        shifted = [p.copy() if k == i else p for k, p in enumerate(points)]
        shifted[i][element] += offset
        ys = _values(f, shifted, settings.backend)
        return sum(float(np.vdot(c, y)) for c, y in zip(cotangents, ys, strict=True))

    numeric = np.zeros(points[i].shape)
    for element in np.ndindex(points[i].shape):
        h = settings.step * max(1.0, abs(float(points[i][element])))
        near = loss(element, h) - loss(element, -h)
        far = loss(element, 2 * h) - loss(element, -2 * h)
        numeric[element] = (8 * near - far) / (12 * h)
    return numeric


def _error(settings: _Settings, order: str, i: int, analytic: np.ndarray, numeric: np.ndarray) -> float:
    """Return the worst relative error of the gradient of input `i`; raise GradcheckError above `tolerance`."""
    if analytic.size == 0:
        return 0.0
    both = np.abs([analytic, numeric])
    scale = max(float(both.max(where=np.isfinite(both), initial=0)), 1e-5)  # differences below it are rounding errors
    with np.errstate(invalid="ignore"):
        differences = np.nan_to_num(np.abs(analytic - numeric) / scale, nan=np.inf)
    element = tuple(int(k) for k in np.unravel_index(np.argmax(differences), differences.shape))
    worst = float(differences[element])
    if worst > settings.tolerance:
        name = f" ({settings.input_names[i]})" if i < len(settings.input_names) else ""
        raise GradcheckError(
            f"{settings.name}: {order}: gradient of input {i}{name} at element {element} is {analytic[element]:.10g}, "
            f"finite differences give {numeric[element]:.10g} "
            f"(relative error {worst:.1e}, allowed {settings.tolerance:.0e})"
        )
    return worst
