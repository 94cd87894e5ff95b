"""gradcheck: analytic gradients against finite differences, to first and second order, naming op and element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorlib.autograd import grad
from tensorlib.tensor import Tensor

__all__ = ["GradcheckError", "GradcheckResult", "gradcheck"]


class GradcheckError(AssertionError):
    """A gradient differs from its finite difference. Names function, order, input, element and both numbers."""


class GradcheckResult(NamedTuple):
    """The worst error of each order, relative to the largest element of the gradient (second: None if not asked)."""

    first: float
    second: float | None


def gradcheck(
    f: Callable[..., Any],
    *arrays: Any,
    order: int = 2,
    tolerance: float = 1e-6,
    step: float = 1e-4,
    seed: int = 0,
    name: str | None = None,
    backend: Any = "numpy",
) -> GradcheckResult:
    """Check the gradients of `f`, a function of Tensors, at `arrays`, in float64.

    With a random cotangent c (a sum would hide a softmax whose gradient is wrong), L(x) = <c, f(x)>, and each element
    of dL/dx is compared with the central difference of fourth order,

        (8 L(x+h) - 8 L(x-h) - L(x+2h) + L(x-2h)) / 12 h,    whose error is of order h^4,

    relative to the largest element of the gradient. For `order` 2 the gradient is itself taken for a function, of x
    and c, and its gradient checked in the same way. `f` must be smooth around `arrays`.

    Raises GradcheckError, naming `name` (by default the function's), the order, input and element.
    """
    if order not in (1, 2):
        raise ValueError(f"gradcheck: order must be 1 or 2, got {order}")
    name = name or getattr(f, "__name__", "function")
    points = [np.array(a, np.float64) for a in arrays]
    settings = _Settings(name, tolerance, step, backend)
    rng = np.random.default_rng(seed)
    cotangents = [_random_like(y, rng) for y in _values(f, points, backend)]

    def first_gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
        xs, cs = inputs[: len(points)], inputs[len(points) :]
        ys = [y for y in _as_tuple(f(*xs)) if y.requires_grad]
        return tuple(
            Tensor(np.zeros(x.shape), backend=x.backend) if dx is None else dx
            for x, dx in zip(
                xs, grad(ys, xs, list(cs), create_graph=True, allow_unused=True) if ys else xs, strict=True
            )
        )

    first = _compare(settings, "first", f, points, cotangents)
    if order == 1:
        return GradcheckResult(first, None)
    slopes = [_random_like(p, rng) for p in points]
    return GradcheckResult(first, _compare(settings, "second", first_gradient, [*points, *cotangents], slopes))


class _Settings(NamedTuple):
    name: str
    tolerance: float
    step: float
    backend: Any


def _random_like(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return numbers of both signs and of magnitude 0.5 to 1.5: none so small that an element goes unseen."""
    return np.asarray(rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1, 1], x.shape))


def _as_tuple(ys: Any) -> tuple[Tensor, ...]:
    return tuple(ys) if isinstance(ys, tuple | list) else (ys,)


def _values(f: Callable[..., Any], points: Sequence[np.ndarray], backend: Any) -> list[np.ndarray]:
    """Return the values of f's outputs that depend on its inputs."""
    xs = [Tensor(p, requires_grad=True, backend=backend) for p in points]
    return [y.numpy() for y in _as_tuple(f(*xs)) if y.requires_grad]


def _compare(
    settings: _Settings, order: str, f: Callable[..., Any], points: Sequence[np.ndarray], cotangents: Sequence[np.ndarray]
) -> float:
    """Compare grad of <cotangents, f> with central differences at every element; return the worst relative error."""
    xs = [Tensor(p, requires_grad=True, backend=settings.backend) for p in points]
    ys = [y for y in _as_tuple(f(*xs)) if y.requires_grad]
    if len(ys) != len(cotangents):
        raise GradcheckError(
            f"{settings.name}: {order} order: {len(cotangents)} outputs should depend on the inputs, {len(ys)} do"
        )
    seeds = [Tensor(c, backend=settings.backend) for c in cotangents]
    gradients = grad(ys, xs, seeds, allow_unused=True)
    worst = 0.0
    for i, (x, dx) in enumerate(zip(xs, gradients, strict=True)):
        analytic = np.zeros(x.shape) if dx is None else dx.numpy()
        if analytic.shape != x.shape:
            raise GradcheckError(
                f"{settings.name}: {order} order: the gradient of input {i} must have shape {x.shape}, "
                f"got {analytic.shape}"
            )
        numeric = _differences(settings, f, points, cotangents, i)
        worst = max(worst, _error(settings, order, i, analytic, numeric))
    return worst


def _differences(
    settings: _Settings, f: Callable[..., Any], points: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], i: int
) -> np.ndarray:
    """Return d<cotangents, f>/d(points[i]) by central differences of fourth order, element by element."""

    def loss(place: tuple[int, ...], offset: float) -> float:
        moved = [p.copy() if k == i else p for k, p in enumerate(points)]
        moved[i][place] += offset
        return sum(
            float(np.vdot(c, y)) for c, y in zip(cotangents, _values(f, moved, settings.backend), strict=True)
        )

    numeric = np.zeros(points[i].shape)
    for place in np.ndindex(points[i].shape):
        h = settings.step * max(1.0, abs(float(points[i][place])))
        near = loss(place, h) - loss(place, -h)
        far = loss(place, 2 * h) - loss(place, -2 * h)
        numeric[place] = (8 * near - far) / (12 * h)
    return numeric


def _error(settings: _Settings, order: str, i: int, analytic: np.ndarray, numeric: np.ndarray) -> float:
    if analytic.size == 0:
        return 0.0
    scale = max(float(np.abs(numeric).max()), float(np.abs(analytic).max()), 1e-3)
    differences = np.abs(analytic - numeric) / scale
    place = tuple(int(k) for k in np.unravel_index(np.argmax(np.nan_to_num(differences, nan=np.inf)), differences.shape))
    worst = float(differences[place])
    if not worst <= settings.tolerance:  # NaN fails too
        raise GradcheckError(
            f"{settings.name}: {order} order: gradient of input {i} at element {place} is {analytic[place]:.10g}, "
            f"finite differences give {numeric[place]:.10g} (relative error {worst:.1e}, allowed {settings.tolerance:.0e})"
        )
    return worst
