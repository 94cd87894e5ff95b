"""Functions of NumPy and CuPy without a gradient: comparisons, tests, rounding, indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor


class Plain(Function):
    """A function of the backend without a gradient; its result is a constant."""

    broadcasts = True
    differentiable = False
    function = ""

    def forward(self, *arrays: Array, function: str, **options: Any) -> Array:
        """Call `function` of the arrays' namespace."""
        self.function = function
        like = next(x for x in arrays if hasattr(x, "dtype"))
        return getattr(namespace_of(like), function)(*arrays, **options)

    @property
    def name(self) -> str:
        """The name of the backend's function."""
        return self.function


def plain(function: str, *inputs: TensorLike, **options: Any) -> Tensor:
    """Apply the function of NumPy or CuPy of that name, whose result (booleans, indices) has no gradient."""
    return Plain.apply(*inputs, function=function, **options)
