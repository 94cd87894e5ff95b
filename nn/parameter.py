"""Parameter: a Tensor that a module learns. Buffer: a Tensor that it keeps without learning it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import DTypeLike

import tensorlib as tl
from tensorlib.ops.arguments import check_flag
from tensorlib.pytorch_words import answering

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["Buffer", "Parameter"]


class Parameter(tl.Tensor):
    """A leaf Tensor that requires a gradient. Assigned to an attribute of a Module, it joins the module's parameters.

    `data` is copied, as by `tl.Tensor`. Raises TypeError unless the dtype is a real floating-point dtype.

    >>> nn.Parameter([1.0, 2.0])
    Parameter([1. 2.], shape=(2,), dtype=float32, requires_grad=True)
    """

    __slots__ = ()

    @answering
    def __init__(
        self, data: TensorLike, dtype: DTypeLike | None = None, backend: str | tl.Backend | None = None
    ) -> None:
        super().__init__(data, requires_grad=True, dtype=dtype, backend=backend)


class Buffer(tl.Tensor):
    """A constant Tensor that belongs to the state of a module, such as a running mean. No gradient flows to it.

    An attribute of a Module that is a Buffer is moved by `to`, converted by `astype` if it is floating, and listed by
    `buffers`. If it is `persistent`, it is also in `state_dict`, and so in checkpoints; pass ``persistent=False`` for
    what is computed again when the module is built, such as a table of sines. `data` is copied, as by `tl.Tensor`.

    >>> class BatchNorm(nn.Module):
    ...     def __init__(self, width):
    ...         self.weight, self.bias = nn.Parameter(tl.ones(width)), nn.Parameter(tl.zeros(width))
    ...         self.mean, self.var = nn.Buffer(tl.zeros(width)), nn.Buffer(tl.ones(width))
    ...
    ...     def forward(self, x):
    ...         if not self.training:
    ...             return tl.batch_norm(x, self.weight, self.bias, self.mean, self.var)
    ...         y, mean, var = tl.batch_norm(x, self.weight, self.bias, return_statistics=True)
    ...         self.mean.replace(0.9 * self.mean.data + 0.1 * mean.data)
    ...         self.var.replace(0.9 * self.var.data + 0.1 * var.data)
    ...         return y
    >>> norm = BatchNorm(2)
    >>> y = norm(tl.Tensor([[1.0, 10.0], [3.0, 30.0]]))
    >>> norm.state_dict()["mean"]
    array([0.2, 2. ], dtype=float32)
    """

    persistent: bool

    @answering
    def __init__(
        self,
        data: TensorLike,
        persistent: bool = True,
        dtype: DTypeLike | None = None,
        backend: str | tl.Backend | None = None,
    ) -> None:
        check_flag("Buffer", "persistent", persistent, "; name your arguments")
        super().__init__(data, dtype=dtype, backend=backend)
        self.persistent = persistent
