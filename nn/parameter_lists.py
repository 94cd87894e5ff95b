"""Checks of parameters that a caller passes: different leaves with different names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import tensorlib as tl
from nn.module import Module
from tensorlib.messages import kind_of

__all__ = ["named_tensors", "parameter_list", "require_one_to_train"]


def named_tensors(kind: str, parameters: Iterable[Any]) -> dict[str, tl.Tensor]:
    """Return parameters by name: the given name, otherwise the one set by a module, otherwise the index.

    Raises TypeError or ValueError, in the name of the class `kind`, unless they are different leaves with different
    names, and at least one.
    """
    pairs: list[tuple[str, Any]] = []
    for i, p in enumerate(parameter_list(kind, parameters)):
        pairs.append(p if isinstance(p, tuple) and len(p) == 2 else (getattr(p, "name", "") or str(i), p))
    first: dict[int, str] = {}
    for name, p in pairs:
        if not isinstance(p, tl.Tensor):
            remedy = "make one optimizer for each group" if isinstance(p, dict) else "pass model.parameters()"
            raise TypeError(f"{kind}: needs parameters, got {kind_of(p)} among them; {remedy}")
        if not p.is_leaf:
            raise ValueError(
                f"{kind}: needs leaves that require a gradient, but {name} of shape {p.shape} was computed by "
                f"{p.node.name if p.node else ''}; make the result a leaf: nn.Parameter(x)"
            )
        if id(p) in first:
            raise ValueError(f"{kind}: {name} is given twice, first as {first[id(p)]}; each step would update it twice")
        first[id(p)] = name
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{kind}: parameters must have different names, got {repeated[0]} twice; for several models pass "
            '[*a.named_parameters("a"), *b.named_parameters("b")]'
        )
    if not pairs:
        raise ValueError(f"{kind}: needs one or more parameters, got none; a generator is empty once it is used up")
    return dict(pairs)


def parameter_list(operation: str, parameters: Any) -> list[Any]:
    """Return the parameters as a list; raise TypeError, saying what to pass instead, unless they are an iterable."""
    if isinstance(parameters, Module | tl.Tensor | Mapping | str) or not isinstance(parameters, Iterable):
        remedy = "[x]" if isinstance(parameters, tl.Tensor) else "model.parameters()"
        raise TypeError(
            f"{operation}: needs an iterable of one or more parameters, got {kind_of(parameters)}; pass {remedy}"
        )
    return list(parameters)


def require_one_to_train(kind: str, parameters: Mapping[str, tl.Tensor]) -> None:
    """Raise ValueError, in the name of the class `kind`, if every parameter is frozen."""
    if not any(p.requires_grad for p in parameters.values()):
        name, p = next(iter(parameters.items()))
        others = ", nor does any other" if len(parameters) > 1 else ""
        raise ValueError(
            f"{kind}: needs a parameter that requires a gradient, but {name} of shape {p.shape} "
            f"requires no gradient{others}; set p.requires_grad = True for those to train"
        )
