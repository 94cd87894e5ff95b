"""Memory that changes outside of the engine's ops: memory shared with the caller, and memory that was overwritten.

What a graph keeps for its backward pass must keep its value. Views share memory, so both facts are noted of the array
that owns the memory, which every view names as its `base`:

- *shared*: the caller can write to it at any time, as after `from_numpy`. A graph therefore keeps a copy.
- *overwritten*: ``x.data -= y`` has written into it. Graphs recorded before can no longer use what they kept.

The notes are weak: they do not keep an array alive, and end with it.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array

__all__: list[str] = []

SHARED: dict[int, weakref.ref[Array]] = {}  # by the id of the owner
_OVERWRITTEN: dict[int, tuple[weakref.ref[Array], int]] = {}  # likewise, each with the time of the last write


def note_shared(array: Array) -> None:
    """Note that the caller can write to the memory of `array`."""
    owner = _owner(array)
    SHARED[id(owner)] = _weak(owner, SHARED)


def kept(array: Any) -> Any:
    """Return `array` as a graph may keep it: a copy if the caller can write to its memory. A number is returned."""
    return array.copy() if SHARED and hasattr(array, "base") and id(_owner(array)) in SHARED else array


def read_only(array: Any) -> Any:
    """Return a view of an array of NumPy that cannot be written to; return anything else as it is."""
    if isinstance(array, np.ndarray):
        array = array.view()
        array.flags.writeable = False
    return array


def note_overwritten(array: Array, time: int) -> None:
    """Note that the memory of `array` was written to at this `time`, a number on the scale of `Node.serial`."""
    owner = _owner(array)
    _OVERWRITTEN[id(owner)] = (_weak(owner, _OVERWRITTEN), time)


def any_overwritten() -> bool:
    """Return whether the memory of any array that still exists was overwritten."""
    return bool(_OVERWRITTEN)


def overwritten_since(array: Array, time: int) -> bool:
    """Return whether the memory of `array` was written to after this `time`."""
    _, last = _OVERWRITTEN.get(id(_owner(array)), (None, time))
    return last > time


def _owner(array: Any) -> Any:
    """Return the array that owns the memory of `array`, which may be a view."""
    base = array.base
    return base if type(base) is type(array) else array  # the base may be a file or a buffer of another library


def _weak(owner: Array, table: dict[int, Any]) -> weakref.ref[Array]:
    """Return a weak reference to `owner` that removes its entry from `table` when `owner` is freed."""
    key = id(owner)
    return weakref.ref(owner, lambda _: table.pop(key, None))
