"""gradcheck: analytic gradients against finite differences, to first and second order, naming op and element.

``check`` does so for every op in the table (optable/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import Array, Backend, get_backend
from tensorlib.engine.backward import grad
from tensorlib.ops.creation import zeros_like
from tensorlib.tensor import Tensor

if TYPE_CHECKING:
    from tensorlib.optable import Row, Sample

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

    relative to the largest element of the gradient. For `order` 2 that is done under create_graph too, and the gradient
    is itself taken for a function, of x and c, and its gradient checked in the same way. `f` must be smooth around
    `arrays`.

    Raises GradcheckError, naming `name` (by default the function's), the order, input and element.
    """
    if order not in (1, 2):
        raise ValueError(f"gradcheck: order must be 1 or 2, got {order}")
    settings = _Settings(name or str(getattr(f, "__name__", "function")), tolerance, step, backend, _input_names(f))
    points = [np.array(a, np.float64) for a in arrays]
    rng = np.random.default_rng(seed)
    cotangents = [_random_like(y, rng) for y in _values(f, points, backend)]

    def first_gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
        xs, cs = inputs[: len(points)], inputs[len(points) :]
        return _gradients(_floating(f(*xs)), xs, cs, create_graph=True)

    first = _compare(settings, "first order", f, points, cotangents, recorded=order == 2)
    if order == 1:
        return GradcheckResult(first, None)
    slopes = [_random_like(p, rng) for p in points]
    return GradcheckResult(first, _compare(settings, "second order", first_gradient, [*points, *cotangents], slopes))


class _Settings(NamedTuple):
    name: str
    tolerance: float
    step: float
    backend: Any
    inputs: list[str]  # the names of the function's arguments, as far as they are known


def _input_names(f: Callable[..., Any]) -> list[str]:
    """Return the names of the positional arguments of `f`; none where it takes any number of them."""
    try:
        parameters = signature(f).parameters.values()
    except (TypeError, ValueError):  # a builtin may have no signature
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _random_like(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return numbers of both signs and of magnitude 0.5 to 1.5: none so small that an element goes unseen."""
    return np.asarray(rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1, 1], x.shape))


def _floating(ys: Any) -> list[Tensor]:
    """Return the outputs that have derivatives: of indices and booleans there are none."""
    return [y for y in (ys if isinstance(ys, tuple | list) else (ys,)) if y.dtype.kind == "f"]


def _values(f: Callable[..., Any], points: Sequence[np.ndarray], backend: Any) -> list[np.ndarray]:
    xs = [Tensor(p, requires_grad=True, backend=backend) for p in points]
    return [y.numpy() for y in _floating(f(*xs))]


def _gradients(
    ys: Sequence[Tensor], xs: Sequence[Tensor], cotangents: Sequence[Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Return the gradient of <cotangents, ys> with respect to each x, zeros where no path leads to it."""
    reached = [(y, c) for y, c in zip(ys, cotangents, strict=True) if y.requires_grad]
    if not reached:
        return tuple(zeros_like(x) for x in xs)
    outputs, seeds = zip(*reached, strict=True)
    found = grad(outputs, xs, seeds, create_graph=create_graph, allow_unused=True)
    return tuple(zeros_like(x) if dx is None else dx for x, dx in zip(xs, found, strict=True))


def _compare(
    settings: _Settings,
    order: str,
    f: Callable[..., Any],
    points: Sequence[np.ndarray],
    cotangents: Sequence[np.ndarray],
    recorded: bool = False,
) -> float:
    """Compare grad of <cotangents, f> with central differences at every element; return the worst relative error."""
    xs = [Tensor(p, requires_grad=True, backend=settings.backend) for p in points]
    seeds = [Tensor(c, backend=settings.backend) for c in cotangents]
    # The same formula, once on arrays and once on Tensors; where a kernel overrides it for arrays, they may differ.
    found = {order: _gradients(_floating(f(*xs)), xs, seeds)}
    if recorded:
        found[f"{order} under create_graph"] = _gradients(_floating(f(*xs)), xs, seeds, create_graph=True)
    worst = 0.0
    for i in range(len(xs)):
        numeric = _differences(settings, f, points, cotangents, i)
        for way, gradients in found.items():
            worst = max(worst, _error(settings, way, i, gradients[i].numpy(), numeric))
    return worst


def _differences(
    settings: _Settings,
    f: Callable[..., Any],
    points: Sequence[np.ndarray],
    cotangents: Sequence[np.ndarray],
    i: int,
) -> np.ndarray:
    """Return d<cotangents, f>/d(points[i]) by central differences of fourth order, element by element."""

    def loss(place: tuple[int, ...], offset: float) -> float:
        moved = [p.copy() if k == i else p for k, p in enumerate(points)]
        moved[i][place] += offset
        return sum(float(np.vdot(c, y)) for c, y in zip(cotangents, _values(f, moved, settings.backend), strict=True))

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
    both = np.abs([analytic, numeric])
    scale = max(float(both.max(where=np.isfinite(both), initial=0)), 1e-5)  # below it differences are rounding
    with np.errstate(invalid="ignore"):
        differences = np.nan_to_num(np.abs(analytic - numeric) / scale, nan=np.inf)
    place = tuple(int(k) for k in np.unravel_index(np.argmax(differences), differences.shape))
    worst = float(differences[place])
    if worst > settings.tolerance:
        name = f" ({settings.inputs[i]})" if i < len(settings.inputs) else ""
        raise GradcheckError(
            f"{settings.name}: {order}: gradient of input {i}{name} at element {place} is {analytic[place]:.10g}, "
            f"finite differences give {numeric[place]:.10g} "
            f"(relative error {worst:.1e}, allowed {settings.tolerance:.0e})"
        )
    return worst


# ---- every op in the table -----------------------------------------------------------------------------------------


class Report(NamedTuple):
    """What `check` found for one op: the worst errors relative to the largest element of the gradient."""

    op: str
    samples: int
    first: float
    second: float
    dtype: str
    backend: str
    failure: str | None


def check(names: Sequence[str] = (), backend: str | Backend = "numpy", tolerance: float = 1e-6) -> Iterator[Report]:
    """Gradient-check the ops called `names` (by default all) at all their samples, and yield one report an op.

    A failure is reported, not raised. Raises ValueError for a name that is in no row.
    """
    from tensorlib.optable import ROWS  # it stands on everything, and only checks need it

    rows = [row for row in ROWS if row.differentiable]
    known = [row.name for row in rows]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"check: no differentiable op is called {', '.join(unknown)}; there are {', '.join(known)}")
    home = get_backend(backend)
    return (_report(row, home, tolerance) for row in rows if not names or row.name in names)


def _report(row: Row, backend: Backend, tolerance: float) -> Report:
    first, second, failure = 0.0, 0.0, None
    for sample in row.samples:
        try:
            result = check_sample(row, sample, backend, tolerance)
        except Exception as error:  # a gradient that cannot be computed is to be reported like a wrong one
            text = str(error) if isinstance(error, GradcheckError) else f"{row.name}: {type(error).__name__}: {error}"
            failure = f"{text}, at {row.name}({sample})"
            break
        first, second = max(first, result.first), max(second, result.second or 0.0)
    return Report(row.name, len(row.samples), first, second, "float64", backend.name, failure)


def check_sample(row: Row, sample: Sample, backend: Backend, tolerance: float = 1e-6) -> GradcheckResult:
    """Gradient-check one sample: to second order, and to first order with its inputs laid out in other ways."""
    f, arrays = row.bound(sample, backend), row.arrays(sample)
    result = gradcheck(f, *arrays, tolerance=tolerance, name=row.name, backend=backend)
    for layout in LAYOUTS:

        def arranged(*xs: Tensor, layout: Any = layout) -> Any:
            for x in xs:
                x.replace(layout(x.data, backend.xp))
            return f(*xs)

        name = f"{row.name} ({layout.__name__} inputs)"
        gradcheck(arranged, *arrays, order=1, tolerance=tolerance, name=name, backend=backend)
    return result


def transposed(array: Array, xp: Any) -> Array:
    """Return an equal array whose first axis is the contiguous one."""
    return array.transpose().copy().transpose()


def strided(array: Array, xp: Any) -> Array:
    """Return an equal array with gaps between its elements."""
    spaced = xp.zeros((*array.shape, 2), array.dtype)
    spaced[..., 0] = array
    return spaced[..., 0]


def reversed_rows(array: Array, xp: Any) -> Array:
    """Return an equal array whose first axis runs backwards in memory."""
    return array[::-1].copy()[::-1] if array.ndim else array


LAYOUTS = (transposed, strided, reversed_rows)
