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
    return array.copy() if is_shared(array) else array


def is_shared(array: Any) -> bool:
    """Return whether the caller can write to the memory of `array`; a number has none."""
    return bool(SHARED) and hasattr(array, "base") and id(_owner(array)) in SHARED


SMALL = 1 << 18  # bytes


class Given:
    """A constant that an op was given, for who looks at the graph later; the backward pass does not need it.

    A small one is held, as a copy if the caller can write to it. A large one is held weakly, so that memory is freed as
    if it were not noted; not at all if the caller can write to it.
    """

    __slots__ = ("_held", "_weak", "shape")

    def __init__(self, array: Any, of_caller: bool) -> None:
        of_caller = of_caller or is_shared(array)
        self.shape, self._held, self._weak = array.shape, None, lambda: None  # type: tuple[int, ...], Any, Any
        if array.nbytes <= SMALL:
            self._held = _copy(array) if of_caller else array
        elif not of_caller:
            self._weak = weakref.ref(array)

    def array(self, serial: int) -> Array | None:
        """Return the constant as it was at the time `serial`; None if it no longer exists so."""
        found = self._held if self._held is not None else self._weak()
        return None if found is None or overwritten_since(found, serial) else found


def _copy(array: Any) -> Any:
    """Return a copy; of an array of NumPy with its memory layout, on which the rounding of a product may depend."""
    return array.copy(order="K") if isinstance(array, np.ndarray) else array.copy()


def value_of(given: Any, serial: int, whose: str) -> Any:
    """Return the number or array that `noted` noted, as it was at the time `serial`.

    Raises RuntimeError, whose message begins with `whose`, for a large array that no longer exists so.
    """
    if not isinstance(given, Given):
        return given
    if (array := given.array(serial)) is None:
        raise RuntimeError(
            f"{whose}: its constant input of shape {given.shape} is needed, which is no longer there; of over "
            f"{SMALL // 1024} kB, keep it as a Tensor in a variable of yours or in a module, and do not write to it"
        )
    return array


def noted(x: Any, given: Any) -> Any:
    """Return what a node notes of an input without an edge: `Given`, or a number as it is.

    x is the argument of ``forward``, made from `given`: itself if that is an array of the caller.
    """
    return Given(x, x is given) if hasattr(x, "nbytes") else x


def read_only(array: Any) -> Any:
    """Return a view of an array of NumPy that cannot be written to; return anything else as it is."""
    if isinstance(array, np.ndarray):
        array = array.view()
        array.flags.writeable = False
    return array


def note_overwritten(array: Array, time: int) -> None:
    """Note that the memory of `array` was written to at this `time`, a number on the scale of `Node.serial`."""
    owner = _owner(array)
    reference, _ = _OVERWRITTEN.get(id(owner)) or (_weak(owner, _OVERWRITTEN), 0)  # entries end with their owner
    _OVERWRITTEN[id(owner)] = (reference, time)


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
