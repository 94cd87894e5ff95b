"""Recorder: what a captured step needs from a device that can record its work and replay it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import numpy as np

from tensorlib.arrays.array import Array

__all__ = ["Recorder", "Replayable"]

R = TypeVar("R")


class Replayable(Protocol):
    """Recorded work. It does not keep the arrays alive that it reads and writes."""

    def launch(self) -> None:
        """Start the work on the current stream; does not wait for it."""
        ...


class Recorder(Protocol):
    """Records work on a device, in memory that recorded work shares; see `Backend.recorder`.

    Works of one recorder run one after the other, also if they are launched on several streams, so they use the same
    memory for what does not outlive them. The memory is kept until `close`.
    """

    def memory(self) -> AbstractContextManager[None]:
        """Return a context in which arrays of this thread are made in the memory of recorded work."""
        ...

    def owns(self, array: Any) -> bool:
        """Return whether an array, or what it is a view of, was made in `memory` or in `record`."""
        ...

    def record(self, run: Callable[[], R]) -> tuple[Replayable, R]:
        """Record what ``run()`` starts on the device, without running it there; return that, and the result."""
        ...

    def refusal(self, error: BaseException) -> str:
        """Return what the device refused while recording: "fetch", "upload", "wait" or "library"; otherwise ""."""
        ...

    def begin(self) -> None:
        """Let what is started from here on, on the current stream, wait for works launched on other streams."""
        ...

    def upload(self, target: Array, fill: Callable[[np.ndarray], None]) -> None:
        """Start filling `target`, an array of bytes, with what `fill` writes into host memory; does not wait."""
        ...

    def copy(self, pairs: Sequence[tuple[Array, Array]]) -> None:
        """Start copying, for each pair (target, source) of equal shapes and dtypes, the source into the target."""
        ...

    def close(self) -> None:
        """Let go of the memory, when no work will be launched any more."""
        ...
