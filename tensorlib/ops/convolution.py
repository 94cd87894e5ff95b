"""Convolution and pooling: one operation on every window of the trailing axes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.engine.function import Function, as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import checked_integer
from tensorlib.ops.linalg import matmul

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["avg_pool", "conv1d", "conv2d", "max_pool"]

PerAxis: TypeAlias = int | tuple[int, ...] | list[int]
"""One integer for all axes, or one integer for each."""

# In shapes: B batch, C channels in, O channels out, G groups, K positions in a window, N windows.


# ---- windows -----------------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """The layout of windows along the trailing axes of an array; every field has one entry per axis."""

    sizes: tuple[int, ...]  # of the unpadded array
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """The sizes with padding on both sides."""
        return tuple([n + 2 * p for n, p in zip(self.sizes, self.padding, strict=True)])

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of windows along each axis; 0 or less where the window is larger than the padded array."""
        axes = zip(self.padded, self.kernel, self.stride, self.dilation, strict=True)
        return tuple([(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in axes])

    @property
    def inner(self) -> tuple[Any, ...]:
        """The index that selects the original array from the padded one."""
        return (..., *[slice(p, p + n) for n, p in zip(self.sizes, self.padding, strict=True)])

    def positions(self) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
        """Yield each position within the window, and the index that selects this position of every window."""
        for position in product(*map(range, self.kernel)):
            starts = [i * d for i, d in zip(position, self.dilation, strict=True)]
            spans = zip(starts, self.counts, self.stride, strict=True)
            yield position, (..., *[slice(i, i + (n - 1) * s + 1, s) for i, n, s in spans])


class Windows(Function):
    """y[position, ..., window] = the element of x (..., *sizes) at that position of that window, or `fill` in padding.

    y is (*kernel, ..., *counts): positions come first, so that copies and reductions run over long stretches of memory.
    An element that belongs to several windows gets the sum of their gradients  =>  dx = SumWindows(dy).

    Keeps nothing.
    """

    def forward(self, x: Array, grid: Grid, fill: float = 0) -> Array:
        self.grid = grid
        xp, lead = namespace_of(x), x.shape[: x.ndim - len(grid.sizes)]
        padded = x
        if any(grid.padding):
            padded = xp.full((*lead, *grid.padded), fill, x.dtype)
            padded[grid.inner] = x
        y = xp.empty((*grid.kernel, *lead, *grid.counts), x.dtype)
        for position, everywhere in grid.positions():
            y[position] = padded[everywhere]
        return y

    def backward(self, dy: Array) -> Any:
        return SumWindows.run(dy, grid=self.grid)


class SumWindows(Function):
    """y = zeros (..., *sizes) to which each window of x (*kernel, ..., *counts) is added: the adjoint of Windows.

    =>  dx = Windows(dy). The windows are always added in the same order, so that every run gives the same bits.

    Keeps nothing.
    """

    def forward(self, x: Array, grid: Grid) -> Array:
        self.grid = grid
        n = len(grid.sizes)
        shape = (*x.shape[n : x.ndim - n], *grid.padded)
        y = namespace_of(x).zeros(shape, sum_dtype(x))  # an element may belong to thousands of windows
        for position, everywhere in grid.positions():
            y[everywhere] += x[position]
        return as_dtype(y[grid.inner], x.dtype)

    def backward(self, dy: Array) -> Any:
        return Windows.run(dy, grid=self.grid)


# ---- convolution -------------------------------------------------------------------------------------------------


def conv1d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of x (B, C, L) with weight (O, C / groups, K), plus bias (O,): (B, O, L').

    This is `conv2d` along one axis: arguments, errors and gradient are described there.

    >>> tl.conv1d([[[1.0, 2.0, 3.0, 4.0]]], [[[1.0, 10.0]]])
    Tensor([[[21. 32. 43.]]], shape=(1, 1, 3), dtype=float32)
    """
    return _convolution("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of x (B, C, H, W) with weight (O, C / groups, kh, kw), plus bias (O,): (B, O, H', W').

    y[b, o, i, j] = bias[o] + sum over c, p, q of weight[o, c, p, q] x[b, c, i s + p d, j s + q d], with stride s,
    dilation d and `padding` zeros around x; H' = (H + 2 padding - dilation (kh - 1) - 1) // stride + 1. `stride`,
    `padding` and `dilation` are each an integer, or a pair for height and width. `groups` splits the channels into that
    many groups; an output channel sees only the input channels of its group.

    Raises ValueError if the shapes or `groups` do not fit, or if the window is larger than the padded x.

    >>> tl.conv2d(tl.ones((1, 1, 3, 3)), tl.ones((1, 1, 2, 2)), padding=1)
    Tensor([[[[1. 2. 2. 1.]
              [2. 4. 4. 2.]
              [2. 4. 4. 2.]
              [1. 2. 2. 1.]]]], shape=(1, 1, 4, 4), dtype=float32)

    Composed of windows, reshaping and one matrix product y = w z of the weights w (O, C K) with the windows z (C K, N)
    of x (Chellapilla et al. 2006)  =>  dw = dy z^T, and dx = the columns of w^T dy, added back into their windows.
    """
    return _convolution("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def _convolution(
    name: str,
    n: int,
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None,
    stride: PerAxis,
    padding: PerAxis,
    dilation: PerAxis,
    groups: int,
) -> Tensor:
    x = as_tensor(x)
    weight = as_tensor(weight, like=x)
    bias = None if bias is None else as_tensor(bias, like=x)
    _check_channels(name, n, x, weight, bias, groups)
    grid = _grid(name, x.shape[2:], weight.shape[2:], stride, padding, dilation)
    batch, outputs, within, positions = x.shape[0], weight.shape[0], weight.shape[1], math.prod(weight.shape[2:])
    windows = batch * math.prod(grid.counts)

    # Channels before batch, positions before channels: for one group, the reshaping below then copies nothing.
    x_KCBN = Windows.apply(x.swapaxes(0, 1), grid=grid)
    x_KGCN = x_KCBN.reshape(positions, groups, within, windows)
    x_GKN = x_KGCN.swapaxes(0, 1).reshape(groups, positions * within, windows)
    w_GOCK = weight.reshape(groups, outputs // groups, within, positions)
    w_GOK = w_GOCK.swapaxes(2, 3).reshape(groups, outputs // groups, positions * within)
    y = matmul(w_GOK, x_GKN).reshape(outputs, batch, *grid.counts).swapaxes(0, 1)
    return y if bias is None else y + bias.reshape(outputs, *(1,) * n)


def _check_channels(name: str, n: int, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    axes = "L" if n == 1 else "H, W"
    if x.ndim != n + 2 or weight.ndim != n + 2:
        raise ValueError(
            f"{name}: x must be (B, C, {axes}) and weight (O, C / groups, {'K' if n == 1 else 'kh, kw'}), "
            f"got {x.shape} and {weight.shape}"
        )
    if checked_integer(name, "groups", groups) < 1 or x.shape[1] % groups or weight.shape[0] % groups:
        raise ValueError(
            f"{name}: groups must divide the channels in and out, {x.shape[1]} and {weight.shape[0]}; got {groups}"
        )
    if weight.shape[1] * groups != x.shape[1]:
        raise ValueError(
            f"{name}: weight must have {x.shape[1] // groups} channels in axis 1 for x {x.shape} and groups={groups}, "
            f"got {weight.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"{name}: bias must have shape {weight.shape[:1]}, the channels out; got {bias.shape}")


# ---- pooling -----------------------------------------------------------------------------------------------------


def max_pool(x: TensorLike, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0) -> Tensor:
    """Return the largest element of each window of x (B, C, ...), over any number of trailing axes.

    `kernel_size` is an integer for all axes after the first two, or a tuple with one size for each trailing axis to
    pool. `stride` defaults to the kernel size. Padding is never the maximum. Raises ValueError if the window is larger
    than the padded x, or if the padding is more than half of the window.

    >>> tl.max_pool([[[1.0, 3.0, 2.0, 4.0]]], 2)
    Tensor([[[3. 4.]]], shape=(1, 1, 2), dtype=float32)

    Composed of windows and `max`  =>  the maximum of each window gets its dy; tied maxima share that dy evenly.
    """
    x = as_tensor(x)
    grid = _pool_grid("max_pool", x, kernel_size, stride, padding)
    lowest = -math.inf if x.dtype.kind == "f" else x.backend.xp.iinfo(x.dtype).min
    return Windows.apply(x, grid=grid, fill=lowest).max(axis=tuple(range(len(grid.kernel))))


def avg_pool(x: TensorLike, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0) -> Tensor:
    """Return the mean of each window of x (B, C, ...), over any number of trailing axes.

    `kernel_size` is an integer for all axes after the first two, or a tuple with one size for each trailing axis to
    pool. `stride` defaults to the kernel size. The zeros of the padding count as elements, as in PyTorch. Raises
    ValueError if the window is larger than the padded x, or if the padding is more than half of the window.

    >>> tl.avg_pool([[[1.0, 3.0, 2.0, 4.0]]], 2)
    Tensor([[[2. 3.]]], shape=(1, 1, 2), dtype=float32)

    Composed of windows and `mean`  =>  each of the K elements of a window gets dy / K from that window.
    """
    x = as_tensor(x)
    grid = _pool_grid("avg_pool", x, kernel_size, stride, padding)
    return Windows.apply(x, grid=grid).mean(axis=tuple(range(len(grid.kernel))))


def _pool_grid(name: str, x: Tensor, kernel_size: PerAxis, stride: PerAxis | None, padding: PerAxis) -> Grid:
    n = len(kernel_size) if isinstance(kernel_size, tuple | list) else x.ndim - 2
    if not 1 <= n <= x.ndim:
        raise ValueError(
            f"{name}: kernel_size must be a tuple of 1 to {x.ndim} sizes, for as many last axes of x, or an integer if "
            f"x has more than two axes; got {kernel_size} for x {x.shape}"
        )
    kernel = _per_axis(name, "kernel_size", kernel_size, n, 1)
    grid = _grid(name, x.shape[x.ndim - n :], kernel, kernel if stride is None else stride, padding, 1)
    if any(2 * p > k for p, k in zip(grid.padding, kernel, strict=True)):
        raise ValueError(f"{name}: padding must be at most half of kernel_size {kernel}, got {grid.padding}")
    return grid


# ---- checks of arguments -----------------------------------------------------------------------------------------


def _grid(
    name: str, sizes: tuple[int, ...], kernel: tuple[int, ...], stride: PerAxis, padding: PerAxis, dilation: PerAxis
) -> Grid:
    n = len(sizes)
    stride, dilation = _per_axis(name, "stride", stride, n, 1), _per_axis(name, "dilation", dilation, n, 1)
    grid = Grid(tuple(sizes), tuple(kernel), stride, _per_axis(name, "padding", padding, n, 0), dilation)
    if min(grid.counts) < 1 or min(kernel) < 1:
        raise ValueError(
            f"{name}: the window must not be empty and must fit into the padded x, got kernel {grid.kernel} "
            f"with dilation {dilation} for sizes {grid.padded}"
        )
    return grid


def _per_axis(name: str, argument: str, value: PerAxis, n: int, least: int) -> tuple[int, ...]:
    """Return a tuple of n integers, one for each axis, from one integer or a tuple of n."""
    try:
        values = tuple(map(index, value)) if isinstance(value, tuple | list) else (index(value),) * n
    except TypeError:
        raise TypeError(f"{name}: {argument} must be an integer or a tuple of {n}, got {shown(value)}") from None
    if len(values) != n or min(values) < least:
        raise ValueError(
            f"{name}: {argument} must be an integer or a tuple of {n}, each {least} or more; got {shown(value)}"
        )
    return values
