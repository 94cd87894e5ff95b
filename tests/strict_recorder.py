"""Recording for the strict stand-in: `capture` runs on it as on CuPy, kernels aside.

While a step is recorded, its calls compute values that are of no use, as no kernel runs while a CUDA stream captures;
whatever writes into an array waits for the replay. A replay repeats the calls, and puts each result where the first
one was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests import strict

__all__ = ["StrictRecorder", "RecordingBackend"]


class StrictRecorder:
    """See `tensorlib.arrays.recorder.Recorder`."""

    def __init__(self) -> None:
        self.made: list[np.ndarray] = []
        self.launches = self.uploads = 0
        self.closed = False

    @contextmanager
    def memory(self) -> Iterator[None]:
        strict.MADE = self.made
        try:
            yield
        finally:
            strict.MADE = None

    def owns(self, array: Any) -> bool:
        return isinstance(array, strict.StrictArray) and any(strict.owner_of(array._host) is own for own in self.made)

    def record(self, run: Callable[[], Any]) -> tuple[Any, Any]:
        strict.TAPE = tape = []
        try:
            with self.memory():
                result = run()
        finally:
            strict.TAPE = None
        return _Replay(self, tape), result

    def refusal(self, error: BaseException) -> str:
        text = str(error)
        return "upload" if "H2D transfers" in text else "fetch" if "D2H transfers" in text else ""

    def begin(self) -> None:
        pass

    def upload(self, target: Any, fill: Callable[[np.ndarray], None]) -> None:
        self.uploads += 1
        fill(target._host)

    def copy(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        for target, source in pairs:
            target[...] = source

    def close(self) -> None:
        self.closed = True
        self.made.clear()


class _Replay:
    def __init__(self, recorder: StrictRecorder, tape: list[Callable[[], object]]) -> None:
        self.recorder, self.tape = recorder, tape

    def launch(self) -> None:
        self.recorder.launches += 1
        for call in self.tape:
            call()


class RecordingBackend(strict.StrictBackend):
    """The strict stand-in, whose work is recorded; `made` lists its recorders."""

    records = True

    def __init__(self) -> None:
        self.made: list[StrictRecorder] = []

    def recorder(self) -> StrictRecorder:
        self.made.append(StrictRecorder())
        return self.made[-1]
