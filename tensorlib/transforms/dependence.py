"""depends: which elements of a result can depend on which elements of an input, proved from the recorded graph.

Every group of elements of the input gets a label, a bit in a set of bits. The sets flow forward through the recorded
ops, each by its rule in `dependence_rules.py`, all labels at once: one pass, where gradients need one for each element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from tensorlib.engine.node import Edge
from tensorlib.engine.value import edge_of
from tensorlib.messages import kind_of, shown
from tensorlib.tensor import Tensor
from tensorlib.transforms.label_sets import Known, Labels, over, single_labels
from tensorlib.transforms.label_spread import DependenceStep, Spread

__all__ = ["Dependence", "DependenceStep", "depends"]

Axes = Sequence[int] | None


class Dependence:
    """Which positions of a result can depend on which positions of an input, as returned by `depends`.

    ``np.asarray(dependence)`` is `array`. The object keeps the recorded graph alive.

    Attributes:
        array: booleans (*positions of y, *positions of x): whether y there can depend on x there.
        without_rule: the ops that have no rule, so that all of their outputs were taken to depend on all of their
            inputs, each with its place.
    """

    def __init__(self, array: np.ndarray, spread: Spread, target: _Target, first_label: int) -> None:
        self.array = array
        self.without_rule = tuple(dict.fromkeys(spread.without_rule))
        self._spread, self._target, self._first = spread, target, first_label

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype=dtype) if copy or dtype is not None else self.array

    def __getitem__(self, index: Any) -> Any:
        """Return ``array[index]``."""
        return self.array[index]

    def __repr__(self) -> str:
        unknown = f", without a rule: {', '.join(self.without_rule)}" if self.without_rule else ""
        return f"Dependence({self.array.sum()} of {self.array.size} pairs, shape={self.array.shape}{unknown})"

    def path(self, *position: int) -> list[DependenceStep]:
        """Return the ops by which y depends on x, where ``array[position]`` is True, beginning with x.

        It is a short path, not always the only one. Raises ValueError where y does not depend on x.

        >>> x = tl.Tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> dependence = tl.depends(tl.exp(x)[1:] * 2, on=x)
        >>> [(step.op, step.element) for step in dependence.path(0, 1)]
        [('leaf', (1,)), ('exp', (1,)), ('getitem', (0,)), ('multiply', (0,))]
        """
        if len(position) != self.array.ndim or not self.array[position]:
            raise ValueError(
                f"path: needs a position where the array of shape {self.array.shape} is True, got {position}"
            )
        sizes, split = self.array.shape, len(self._target.axes)
        of, on = position[:split], position[split:]
        label = self._first + (int(np.ravel_multi_index(on, sizes[split:])) if on else 0)
        element = self._target.first_element(of, self._spread.carrying(self._target.edge, label))
        return self._spread.path(self._target.edge, element, label)


@overload
def depends(y: Tensor, on: Tensor, *, axes: Axes = None, axes_of_y: Axes = None) -> Dependence: ...


@overload
def depends(
    y: Tensor, on: Sequence[Tensor], *, axes: Axes = None, axes_of_y: Axes = None
) -> list[Dependence]: ...  # fmt: skip


def depends(y: Tensor, on: Any, *, axes: Axes = None, axes_of_y: Axes = None) -> Any:
    """Return which elements of `y` can depend on which elements of `on`, proved from the recorded graph.

    on: a Tensor that y was computed from, or several of them, for which a list is returned. It may be a leaf or an
        intermediate result: for token ids, the output of their embedding.
    axes: the axes of `on` that tell positions apart; all elements of one position count as one. By default all axes.
    axes_of_y: the same for y.

    >>> x = tl.Tensor(np.ones((3, 2)), requires_grad=True)
    >>> past = np.tri(3, dtype=bool)
    >>> y = tl.softmax(tl.where(past, x @ x.swapaxes(0, 1), -np.inf)) @ x
    >>> tl.depends(y, on=x, axes=[0], axes_of_y=[0]).array.astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])

    **What is proved.** Where the result is False, no change of that part of `on` changes that part of y, if what was
    recorded is computed again: with the same ops, shapes, masks, indices and constants, but for any values of `on`
    and of all other leaves that require a gradient, such as weights, and for any draw of dropout. Where it is True, a
    rule did not exclude it. Two things are assumed: the values that depend on `on` or on other leaves are finite, and
    none is divided by zero. Then 0 times such a value is 0, and -inf plus such a value is -inf. A large negative
    number in place of -inf proves nothing, because its exponential is not 0.

    **What is not seen.** Dependence through what has no gradient: `detach`, `no_grad`, arrays, comparisons, and indices
    such as those of `argmax` and `sort`. They count as constants, as they do for gradients.

    Call it before ``y.backward()``. An op without a rule, such as one's own, counts as one whose outputs depend on all
    of its inputs; `Dependence.without_rule` names it. Memory is that of the values, plus one bit for each element of a
    value and each position of `on`.

    Raises ValueError for a Tensor without history, and on a GPU; RuntimeError for a graph that was released.
    """
    if not isinstance(on, Tensor | list | tuple):
        raise TypeError(f"depends: on must be a Tensor or a list of Tensors, got {kind_of(on)}")
    sources = [on] if isinstance(on, Tensor) else list(on)
    for name, x in [("y", y), *[("on", x) for x in sources]]:
        _check_recorded(name, x)
    target = _Target(edge_of(y), y.shape, _positions("axes_of_y", axes_of_y, y))
    groups, first = [], 1  # label 0 stands for everything unknown
    for x in sources:
        kept = _positions("axes", axes, x)
        sizes = tuple(x.shape[a] for a in kept)
        groups.append((_group_numbers(x.shape, kept) + first, sizes))
        first += int(np.prod(sizes))
    words = -(-first // 64)
    given: dict[Edge, Known] = {}
    for x, (numbers, _) in zip(sources, groups, strict=True):
        labels = single_labels(words)[numbers]
        before = given.get(edge_of(x))
        given[edge_of(x)] = Known.of(labels if before is None else labels | before.labels, x.array)
    spread = Spread(given, words)
    try:
        spread.run(target.edge)
    except RuntimeError as error:
        if "released" not in str(error):
            raise
        raise RuntimeError(
            "depends: the graph of y was released by an earlier backward pass; call depends before backward(), or pass "
            "retain_graph=True to it"
        ) from None
    bits = np.unpackbits(target.sets(spread.known[target.edge].labels).view(np.uint8), axis=-1, bitorder="little")
    found = []
    for numbers, sizes in groups:
        start, count = int(numbers.min(initial=first)), int(np.prod(sizes))
        array = bits[..., start : start + count].astype(bool).reshape((*bits.shape[:-1], *sizes))
        found.append(Dependence(array, spread, target, start))
    return found[0] if isinstance(on, Tensor) else found


def _check_recorded(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"depends: {name} must be a Tensor, got {shown(x)}")
    if not x.requires_grad:
        raise ValueError(
            f"depends: {name}, a Tensor of shape {x.shape}, must be recorded or have requires_grad=True; got a "
            "constant: nothing about it is in the graph"
        )
    if not isinstance(x.array, np.ndarray):
        raise ValueError(
            f"depends: {name} must be on the backend numpy, got {x.backend.name}; compute it there, with a small model"
        )


def _positions(name: str, axes: Axes, x: Tensor) -> tuple[int, ...]:
    """Return the axes that tell positions apart, in the given order."""
    if axes is None:
        return tuple(range(x.ndim))
    given = [axes] if isinstance(axes, int) else list(axes)
    if any(not isinstance(a, int | np.integer) or not -x.ndim <= a < x.ndim for a in given):
        raise ValueError(f"depends: {name} must be axes of a Tensor of shape {x.shape}, got {shown(axes)}")
    kept = tuple(int(a) % x.ndim for a in given)
    if len(set(kept)) < len(kept):
        raise ValueError(f"depends: {name} must not repeat an axis, got {shown(axes)}")
    return kept


def _group_numbers(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """Return for each element the number of its position, counted along the given axes."""
    places, numbers = np.indices(shape, sparse=True), np.zeros((1,) * len(shape), np.int64)
    for a in axes:
        numbers = numbers * shape[a] + places[a]
    return np.broadcast_to(numbers, shape)


class _Target(NamedTuple):
    """The result whose dependence is asked for, and the axes that tell its positions apart."""

    edge: Edge
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def sets(self, labels: Labels) -> Labels:
        """Return the union of the sets of each position, (*positions, words)."""
        others = tuple(a for a in range(len(self.shape)) if a not in self.axes)
        order = [sorted(self.axes).index(a) for a in self.axes]
        return np.ascontiguousarray(over(labels, others).transpose(*order, len(order)))

    def first_element(self, position: tuple[int, ...], carrying: np.ndarray) -> tuple[int, ...]:
        """Return the first element of a position at which `carrying` is True."""
        here = carrying.copy()
        for a, i in zip(self.axes, position, strict=True):
            here &= (np.arange(self.shape[a]) == i).reshape([-1 if b == a else 1 for b in range(len(self.shape))])
        return tuple(int(i) for i in np.argwhere(here)[0])
