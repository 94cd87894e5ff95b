"""Parameter: a Tensor that a module learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import DTypeLike

import tensorlib as tl

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["Parameter"]


class Parameter(tl.Tensor):
    """A leaf Tensor that requires a gradient. Assigned to an attribute of a Module, it joins the module's parameters.

    `data` is copied, as by `tl.Tensor`. Raises TypeError unless the dtype is a real floating-point dtype.

    >>> nn.Parameter([1.0, 2.0])
    Parameter([1. 2.], shape=(2,), dtype=float32, requires_grad=True)
    """

    __slots__ = ()

    def __init__(
        self, data: TensorLike, dtype: DTypeLike | None = None, backend: str | tl.Backend | None = None
    ) -> None:
        super().__init__(data, requires_grad=True, dtype=dtype, backend=backend)
