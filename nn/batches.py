"""Several small parameters as one array, which an optimizer updates in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tensorlib as tl

__all__ = ["FlatBatch"]


class FlatBatch:
    """Parameters and their state, each a view of one array per kind: a step copies only the gradients.

    The arrays are those of the last step. Anybody may have replaced one of them since, which `is_current` notices.
    """

    def __init__(
        self,
        parameters: Mapping[str, tl.Tensor],
        state: Mapping[str, dict[str, Any]],
        slots: Sequence[str],
        names: Sequence[str],
    ) -> None:
        self._parameters = [parameters[name] for name in names]
        self._states = [state[name] for name in names]
        self.values = joined([p.data for p in self._parameters])
        self._views = [p.data for p in self._parameters]
        self.slots = {slot: joined([s[slot] for s in self._states]) for slot in slots}
        self._slot_views: dict[str, list[np.ndarray]] = {}
        self._hand_out_slots()

    def is_current(self) -> bool:
        """Return whether all parameters and states are still the arrays of the last step."""
        return all(p.data is view for p, view in zip(self._parameters, self._views, strict=True)) and all(
            own.get(slot) is view
            for slot, views in self._slot_views.items()
            for own, view in zip(self._states, views, strict=True)
        )

    def _hand_out_slots(self) -> None:
        for slot, flat in self.slots.items():
            views = self._slot_views.get(slot)
            if views and views[0].base is flat:  # updated in place
                continue
            self._slot_views[slot] = self._split(flat)
            for own, view in zip(self._states, self._slot_views[slot], strict=True):
                own[slot] = view

    def replace(self, values: Any) -> None:
        """Give each parameter its part of the new values, and its part of `slots` where an update has replaced them."""
        self._hand_out_slots()
        self.values, self._views = values, self._split(values)
        for p, view in zip(self._parameters, self._views, strict=True):
            p.replace(view, copy=False)

    def _split(self, flat: np.ndarray) -> list[np.ndarray]:
        views, start = [], 0
        for p in self._parameters:
            views.append(flat[start : start + p.size].reshape(p.shape))
            start += p.size
        return views


def joined(arrays: Sequence[Any]) -> Any:
    """Return the elements of all arrays in one array."""
    return np.concatenate([array.reshape(-1) for array in arrays])
