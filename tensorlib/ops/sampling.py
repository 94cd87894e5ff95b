"""Random Tensors. They are constants: to get gradients of mean and std, write mean + std * tl.normal(shape).

Each call makes one draw from a generator, by default the one that ``tl.seed`` sets. The result is a pure function of
(seed, number of the draw, position): NumPy and CuPy draw the same numbers, up to the rounding of logarithm and cosine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, Backend, get_backend
from tensorlib.arrays.random import Generator, default_generator
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import as_tensor, constant
from tensorlib.messages import shown
from tensorlib.ops.arguments import (
    Shape,
    checked_dtype,
    checked_floating,
    checked_real,
    checked_shape,
    checked_size,
    normalized_axis,
)
from tensorlib.ops.indexing import getitem
from tensorlib.ops.shape import broadcast_to

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["bernoulli", "categorical", "gumbel", "normal", "permutation", "uniform"]

_MANTISSA = {2: 11, 4: 24, 8: 53}  # bits of the mantissa, by bytes of the floating number


def uniform(
    shape: Shape,
    low: float = 0.0,
    high: float = 1.0,
    dtype: DTypeLike = "float32",
    generator: Generator | None = None,
    backend: str | Backend = "numpy",
) -> Tensor:
    """Return random numbers uniform over [low, high), without gradient.

    They are low + (high - low) u, where u is a multiple of 2^-24 (float64: 2^-53).

    >>> tl.uniform(3, -1.0, 1.0, generator=tl.Generator(0))
    Tensor([-0.9305 -0.9769  0.2239], shape=(3,), dtype=float32)
    """
    sizes, kind = checked_shape("uniform", shape), _checked_float_dtype("uniform", dtype)
    low, high = float(checked_real("uniform", "low", low)), float(checked_real("uniform", "high", high))
    if not 0 <= high - low <= float(np.finfo(kind).max):
        raise ValueError(
            f"uniform: low must not exceed high, and high - low must fit into {kind}; got {low} and {high}"
        )
    kept = _MANTISSA[kind.itemsize]
    bits, home = _random_bits("uniform", math.prod(sizes), kind.itemsize, generator, backend)
    u = (bits >> (8 * kind.itemsize - kept)).astype(kind) * 2.0**-kept
    below = float(np.nextafter(kind.type(high), kind.type(low)))  # rounding must not reach high
    return constant(home.xp.minimum(low + (high - low) * u, below).reshape(sizes))


def normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: DTypeLike = "float32",
    generator: Generator | None = None,
    backend: str | Backend = "numpy",
) -> Tensor:
    """Return random numbers from the normal distribution with this mean and standard deviation, without gradient.

    They follow Box and Muller (1958): u and v, uniform in (0, 1], give two independent standard normal numbers,
    r cos(2 pi v) and r sin(2 pi v) with r = sqrt(-2 log u). The smallest u, 2^-33 (float64: 2^-65), limits the numbers
    to 6.8 (9.5) standard deviations.

    >>> tl.normal(3, generator=tl.Generator(0))
    Tensor([2.5854 0.1879 0.0526], shape=(3,), dtype=float32)
    """
    sizes, kind = checked_shape("normal", shape), _checked_float_dtype("normal", dtype)
    mean, std = float(checked_real("normal", "mean", mean)), float(checked_real("normal", "std", std))
    if not std >= 0:
        raise ValueError(f"normal: std must be at least 0, got {std}")
    count = math.prod(sizes)
    u, home = _open_uniform("normal", count + count % 2, kind, generator, backend)
    xp, pairs = home.xp, u.reshape((-1, 2))
    radius, angle = xp.sqrt(-2 * xp.log(pairs[:, :1])), 2 * math.pi * pairs[:, 1:]
    z = xp.concatenate((radius * xp.cos(angle), radius * xp.sin(angle)), axis=1).reshape(-1)[:count]
    return constant((mean + std * z).astype(kind).reshape(sizes))


def gumbel(
    shape: Shape,
    dtype: DTypeLike = "float32",
    generator: Generator | None = None,
    backend: str | Backend = "numpy",
) -> Tensor:
    """Return random numbers from the standard Gumbel distribution, -log(-log(1 - u)), without gradient.

    P(g <= x) = exp(-exp(-x)). u has a fine resolution near 0, where g is large, so the long tail reaches 22.8
    (float64: 45).

    >>> tl.gumbel(3, generator=tl.Generator(0))
    Tensor([3.3422 4.4555 0.0549], shape=(3,), dtype=float32)
    """
    sizes, kind = checked_shape("gumbel", shape), _checked_float_dtype("gumbel", dtype)
    u, home = _open_uniform("gumbel", math.prod(sizes), kind, generator, backend)
    xp = home.xp
    u = xp.minimum(u, 1 - 2.0 ** -_MANTISSA[u.dtype.itemsize])  # a u rounded to 1 would give -inf
    return constant((-xp.log(-xp.log1p(-u))).astype(kind).reshape(sizes))


def bernoulli(
    p: TensorLike,
    shape: Shape | None = None,
    dtype: DTypeLike = "float32",
    generator: Generator | None = None,
    backend: str | Backend | None = None,
) -> Tensor:
    """Return ones with probability `p`, otherwise zeros, without a gradient.

    A Tensor `p` broadcasts to `shape`, which is by default the shape of `p`. Raises ValueError for a `p` outside [0, 1]
    on the host; a `p` on a GPU is not fetched for a check.

    >>> tl.bernoulli(0.5, 4, generator=tl.Generator(0))
    Tensor([1. 1. 1. 0.], shape=(4,), dtype=float32)
    """
    kind = checked_dtype("bernoulli", dtype)
    given = as_tensor(p).detach() if hasattr(p, "dtype") or not isinstance(p, float) else as_tensor(np.array(p))
    if isinstance(given.data, np.ndarray):  # the check is free here; a p on a GPU is not fetched for it
        within = (given.data >= 0) & (given.data <= 1)
        if not within.all():
            raise ValueError(f"bernoulli: p must lie in [0, 1], got {given.data[~within][0]}")
    home = given.backend if backend is None else get_backend(backend)
    sizes = checked_shape("bernoulli", given.shape if shape is None else shape)
    likely = broadcast_to(constant(home.asarray(p)) if isinstance(p, int | float) else given.to(home), sizes)
    bits, _ = _random_bits("bernoulli", math.prod(sizes), 8, generator, home)
    u = (bits >> 11).astype("float64").reshape(sizes) * 2.0**-53
    return constant((u < likely.data).astype(kind))


def categorical(logits: TensorLike, axis: int = -1, generator: Generator | None = None) -> Tensor:
    """Return one index drawn from each distribution softmax(logits) along `axis`, which is removed; int64, no gradient.

    The index of the largest of logits + Gumbel noise has this distribution (Gumbel 1954; Maddison et al. 2014). Classes
    with logits of -inf are never drawn, unless all logits are -inf.

    >>> tl.categorical([[0.0, 0.0], [0.0, -np.inf]], generator=tl.Generator(0))
    Tensor([1 0], shape=(2,), dtype=int64)
    """
    x = checked_floating("categorical", "logits", logits).detach()
    axis = normalized_axis(axis, x.ndim, "categorical")
    if not x.shape[axis]:
        raise ValueError(f"categorical: needs at least one class along axis {axis}, got shape {x.shape}")
    wide = x.astype("float32") if x.dtype.itemsize == 2 else x
    return (wide + gumbel(x.shape, wide.dtype, generator, x.backend)).argmax(axis=axis)


def permutation(x: int | TensorLike, generator: Generator | None = None, backend: str | Backend = "numpy") -> Tensor:
    """Return in random order the integers from 0 to x - 1 or, if x is a Tensor, its slices along axis 0.

    For a Tensor the op is differentiable: y = x[order]  =>  dx[order] = dy.

    >>> tl.permutation(5, generator=tl.Generator(0))
    Tensor([0 2 1 4 3], shape=(5,), dtype=int64)
    """
    if not isinstance(x, (int, np.integer)):
        x = as_tensor(x)
        if not x.ndim:
            raise TypeError("permutation: x must be an integer or have an axis to permute, got a 0-d Tensor")
        return getitem(x, permutation(x.shape[0], generator, x.backend))
    count = checked_size("permutation", "x", x)
    bits, home = _random_bits("permutation", count, 8, generator, backend)
    return constant(home.xp.argsort(bits, kind="stable").astype("int64"))


# ---- from bits to numbers ----------------------------------------------------------------------------------------


def _random_bits(
    name: str, count: int, size: int, generator: Generator | None, backend: str | Backend
) -> tuple[Any, Backend]:
    """Make one draw: return `count` random unsigned integers of `size` bytes, and the backend that holds them."""
    stream = default_generator() if generator is None else generator
    if not isinstance(stream, Generator):
        raise TypeError(
            f"{called_op(name)}: generator must be a tl.Generator, such as tl.Generator(seed); got {shown(generator)}"
        )
    home = get_backend(backend)
    key, draw = stream.next_draw()
    return home.random_bits(key, draw, count, f"uint{8 * size}"), home


def _open_uniform(
    name: str, count: int, dtype: np.dtype, generator: Generator | None, backend: str | Backend
) -> tuple[Array, Backend]:
    """Return random numbers in (0, 1], more finely spaced near 0, with finite logarithms; for float16, float32."""
    size = max(dtype.itemsize, 4)
    bits, home = _random_bits(name, count, size, generator, backend)
    return (bits.astype(f"float{8 * size}") + 0.5) * 2.0 ** (-8 * size), home


def _checked_float_dtype(name: str, dtype: Any) -> np.dtype:
    kind = checked_dtype(name, dtype)
    if kind.kind != "f" or kind.itemsize not in _MANTISSA:
        raise TypeError(f"{name}: dtype must be 'float16', 'float32' or 'float64', got {kind}")
    return kind
