"""A module as a function of its parameters, for gradient checks, Jacobians and meta-learning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tensorlib as tl
from nn.module import Module
from nn.parameter import Buffer, Parameter
from nn.states import shape_mismatches
from tensorlib.messages import kind_of, unknown_name
from tensorlib.pytorch_words import FUNCTION_NAMES

__all__ = ["functional_call"]


def functional_call(module: Module, tensors: Mapping[str, tl.Tensor], *args: Any, **kwargs: Any) -> Any:
    """Return ``module(*args, **kwargs)``, computed with `tensors` in place of the parameters of the same names.

    >>> linear, x = nn.Linear(2, 1), tl.Tensor([[1.0, 2.0]])
    >>> def f(weight):
    ...     return nn.functional_call(linear, {"weight": weight, "bias": tl.zeros(1)}, x)
    >>> f(tl.ones((2, 1))).numpy()
    array([[3.]], dtype=float32)
    >>> tl.jacobian(f, tl.ones((2, 1))).shape
    (1, 1, 2, 1)

    The names may also be those of buffers. Other parameters keep their values. A parameter that is shared (tied) is
    replaced wherever it is used. The module is restored afterwards, even after an exception; no other thread should
    call it in the meantime.

    Raises TypeError unless `tensors` is a mapping of names to Tensors. Raises ValueError with *all* names that are
    unexpected or whose Tensors have the wrong shape.
    """
    with _replaced(module, tensors):
        return module(*args, **kwargs)


@contextmanager
def _replaced(module: Module, tensors: Mapping[str, tl.Tensor]) -> Iterator[None]:
    own: dict[str, tl.Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    wrong = (
        [tensors] if not isinstance(tensors, Mapping) else [x for x in tensors.values() if not isinstance(x, tl.Tensor)]
    )
    if wrong:
        raise TypeError(f"functional_call: needs a mapping of names to Tensors, got {kind_of(wrong[0])}")
    given = {name: x.shape for name, x in tensors.items()}
    problems = shape_mismatches({name: own[name].shape for name in own if name in given}, given)
    if problems:
        raise ValueError(f"functional_call: {type(module).__name__} does not fit: {'; '.join(problems)}")
    substitutes = {id(own[name]): x for name, x in tensors.items()}
    replaced = [
        (holder, attribute, value)
        for holder in module.modules()
        for attribute, value in vars(holder).items()
        if isinstance(value, Parameter | Buffer) and id(value) in substitutes
    ]
    try:
        for holder, attribute, parameter in replaced:
            object.__setattr__(holder, attribute, substitutes[id(parameter)])  # without registration, so names stay
        yield
    finally:
        for holder, attribute, parameter in replaced:
            object.__setattr__(holder, attribute, parameter)


_OTHER_ARGUMENTS = {
    "linear": "tl.linear(x, weight, bias), whose weight is (in, out)",
    "embedding": "tl.embedding(weight, ids)",
    "cross_entropy": "tl.cross_entropy(logits, targets), with the classes on the last axis",
    "layer_norm": "tl.layer_norm(x, weight, bias), over the last axis",
    "dropout": "tl.dropout(x, p), only in training: if self.training",
    "scaled_dot_product_attention": "tl.scaled_dot_product_attention(q, k, v, visible=mask)",
    "pad": "tl.pad(x, pad_width), with NumPy's order of the widths",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Raise AttributeError; the functions that PyTorch has in nn.functional are in tensorlib itself."""
        here = {name: f"tl.{name}(...), with axis= for dim="} if hasattr(tl, name) else FUNCTION_NAMES
        raise AttributeError(unknown_name("nn.functional", name, __all__, {**here, **_OTHER_ARGUMENTS}))
