"""How many steps an optimizer has taken with each parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import tensorlib as tl
from nn.device_updates import require_no_capture
from tensorlib.arrays.backend import Array, backend_of

__all__ = ["StepCounts"]


class StepCounts:
    """The number of steps of each parameter: on the host, or on the device that updates the parameter in place.

    The device counts for itself because the host does not know, without waiting, whether a step was skipped. There the
    counts of all parameters are one array, fetched at once, of which each parameter has a view.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.host = dict.fromkeys(names, 0)
        self.array: Array | None = None
        self._views: dict[str, Any] = {}

    def numbers(self) -> dict[str, int]:
        """Return the number of steps by the name of the parameter. Waits for the device if it counts any."""
        if self.array is None:
            return self.host
        fetched = backend_of(self.array).to_numpy(self.array).tolist()
        return self.host | dict(zip(self._views, fetched, strict=True))

    def on_host(self, names: Iterable[str]) -> dict[str, int]:
        """Return the numbers for these parameters, which the host counts from now on."""
        names = list(names)
        if any(name in self._views for name in names):
            self.load(self.numbers(), {})
        return {name: self.host[name] for name in names}

    def on_device(self, names: Iterable[str], all_there: Mapping[str, tl.Tensor]) -> list[Any]:
        """Return a view of shape (1,) of the count of each parameter. all_there: every parameter on the device."""
        names = list(names)
        kind = type(next(iter(all_there.values())).array)
        if type(self.array) is not kind or not all(name in self._views for name in names):
            require_no_capture("optimizer: the counts of its steps")
            self.load(self.numbers(), all_there)
        return [self._views[name] for name in names]

    def load(self, numbers: Mapping[str, int], all_there: Mapping[str, tl.Tensor]) -> None:
        """Set all numbers; those of `all_there` are put on the device of these parameters."""
        self.host, self.array, self._views = dict(numbers), None, {}
        if all_there:
            backend = next(iter(all_there.values())).backend
            self.array = backend.asarray(np.array([numbers[name] for name in all_there], np.int64))
            self._views = {name: self.array[i : i + 1] for i, name in enumerate(all_there)}
