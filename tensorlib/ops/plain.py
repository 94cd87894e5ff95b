"""Functions of NumPy and CuPy that have no gradient: comparisons, tests, rounding, indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array
from tensorlib.engine.function import Function
from tensorlib.ops.arguments import namespace_among

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor


class Plain(Function):
    """A function of the backend without a gradient; its result is a constant."""

    broadcasts = True
    differentiable = False
    function = ""

    def forward(self, *arrays: Array, function: str, **options: Any) -> Array:
        """Call the function of this name in the arrays' namespace."""
        self.function = function
        return getattr(namespace_among(*arrays), function)(*arrays, **options)

    @property
    def name(self) -> str:
        """The name of the backend's function."""
        return self.function


def plain(function: str, *inputs: TensorLike, **options: Any) -> Tensor:
    """Apply the NumPy or CuPy function of this name, whose result (such as booleans or indices) has no gradient."""
    return Plain.apply(*inputs, function=function, **options)
