"""A module as a function of its parameters, which is what gradient checks, Jacobians and meta-learning need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorlib as tl
from nn.checks import shape_mismatches
from nn.module import Module, Parameter
from tensorlib.messages import kind_of, unknown_name

__all__ = ["functional_call"]


def functional_call(module: Module, tensors: Mapping[str, tl.Tensor], *args: Any, **kwargs: Any) -> Any:
    """Return ``module(*args, **kwargs)`` computed with `tensors` in place of the parameters of these names.

    ::

        names = [name for name, _ in model.named_parameters()]
        f = lambda *arrays: nn.functional_call(model, dict(zip(names, arrays)), source, target)
        tl.gradcheck(f, *model.state_dict().values())

    Other parameters are used as they are. A parameter that is held twice (tied) is replaced in both places. The module
    is as before afterwards, also after an exception; meanwhile no other thread should call it.
    """
    with _replaced(module, tensors):
        return module(*args, **kwargs)


@contextmanager
def _replaced(module: Module, tensors: Mapping[str, tl.Tensor]) -> Iterator[None]:
    own = dict(module.named_parameters())
    wrong = (
        [tensors] if not isinstance(tensors, Mapping) else [x for x in tensors.values() if not isinstance(x, tl.Tensor)]
    )
    if wrong:
        raise TypeError(f"functional_call: needs a mapping of names to Tensors, got {kind_of(wrong[0])}")
    given = {name: x.shape for name, x in tensors.items()}
    problems = shape_mismatches({name: own[name].shape for name in own if name in given}, given)
    if problems:
        raise ValueError(f"functional_call: {type(module).__name__} does not fit: {'; '.join(problems)}")
    instead = {id(own[name]): x for name, x in tensors.items()}
    places = [
        (holder, attribute, value)
        for holder in module.modules()
        for attribute, value in vars(holder).items()
        if isinstance(value, Parameter) and id(value) in instead
    ]
    try:
        for holder, attribute, parameter in places:
            object.__setattr__(holder, attribute, instead[id(parameter)])  # not a registration: names stay
        yield
    finally:
        for holder, attribute, parameter in places:
            object.__setattr__(holder, attribute, parameter)


def __getattr__(name: str) -> object:
    """Raise AttributeError: whoever comes from PyTorch looks here for what stands in tensorlib."""
    here = {name: f"tl.{name}(...), with axis= for dim="} if hasattr(tl, name) else {}
    raise AttributeError(unknown_name("nn.functional", name, __all__, here))
