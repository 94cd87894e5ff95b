"""Averages of weights: along training, and over several checkpoints. Either often translates better than the last.

The last steps go to and fro around where the loss is lowest; a mean of their weights lies nearer to it (Polyak and
Juditsky 1992; for Transformers, Vaswani et al. 2017, section 6.1, and Popel and Bojar 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorlib as tl
from nn.checks import check_fraction, check_size, shape_mismatches
from nn.module import Parameter
from tensorlib.ops.update import average_update

__all__ = ["ExponentialMovingAverage", "average"]


class ExponentialMovingAverage:
    """e <- d e + (1 - d) w after each step, with d = min(decay, (1 + t) / (10 + t)) at step t.

    The bound, which is that of TensorFlow's ExponentialMovingAverage with `num_updates`, lets the average forget the
    random weights it begins with: at step t it looks back over about t / 9 steps, and over 1 / (1 - decay) in the end.
    Adam's remedy, to begin at zero and divide by 1 - decay^t, would do as well, but so `e` itself is a set of weights
    at any time, and there is nothing else to keep.

    ::

        average = ExponentialMovingAverage(model.named_parameters(), 0.999)
        for step in range(1, steps + 1):
            ...
            optimizer.step()
            average.update(step)
        with average.applied():  # the model has the averaged weights inside
            evaluate(model)

    It begins as a copy of the parameters, and lies where they are when it is made: move the model before.
    """

    def __init__(self, parameters: Iterable[tuple[str, Parameter]], decay: float) -> None:
        check_fraction("ExponentialMovingAverage", decay=decay)
        self.parameters, self.decay = dict(parameters), decay
        self.begin()

    def begin(self) -> None:
        """Begin, once more, with a copy of the parameters as they are."""
        self.arrays: dict[str, Any] = {name: p.data.copy() for name, p in self.parameters.items()}

    def update(self, step: int) -> None:
        """Take in the parameters as they are after step number `step`, counted from 1."""
        check_size("ExponentialMovingAverage", step=step)
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.parameters.items():
            average_update(self.arrays[name], parameter.data, decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the parameters inside; after it they have their own values again."""
        own = {name: p.data for name, p in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.replace(self.arrays[name])
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.replace(own[name])


def average(states: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return the mean of some state_dicts, name by name, added up in float64, each array in its own type again.

    One is held at a time, so `states` may be a generator. Raises ValueError where there is none, or one of other names
    or shapes than the first.
    """
    totals: dict[str, np.ndarray] = {}
    kinds: dict[str, Any] = {}
    count = 0
    for count, state in enumerate(states, start=1):
        arrays = {name: a.numpy() if isinstance(a, tl.Tensor) else np.asarray(a) for name, a in state.items()}
        if count == 1:
            totals = {name: np.zeros(array.shape, np.float64) for name, array in arrays.items()}
            kinds = {name: array.dtype for name, array in arrays.items()}
        problems = shape_mismatches({n: a.shape for n, a in totals.items()}, {n: a.shape for n, a in arrays.items()})
        if problems:
            raise ValueError(f"average: state {count} does not fit the first: {'; '.join(problems)}")
        for name, array in arrays.items():
            totals[name] += array
    if not count:
        raise ValueError("average: one or more state_dicts are required, got none")
    return {name: (total / count).astype(kinds[name]) for name, total in totals.items()}
