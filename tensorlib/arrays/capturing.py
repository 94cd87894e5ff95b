"""What a captured step needs from Python at each replay: numbers, random draws, and Python's own side effects.

A recorded kernel receives the same arguments at each replay. What changes from step to step (a learning rate, the
position in a random stream) therefore lies in one small array on the device, the slots, and a kernel gets the address
of its slot. The host computes all slots and uploads them before each replay; it remains the authority on learning
rates and generators.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import is_
from typing import Any

import numpy as np

from tensorlib.arrays.philox import WORD
from tensorlib.arrays.random import Generator, draws_from

__all__ = ["Capture", "RecordedDraw", "current_capture", "note_read", "step_value"]

_PLAIN = (bool, int, float, str)  # compared by value in `Capture.is_current`
WORDS = 512  # the slots, of 64 bits each


class RecordedDraw(int):
    """The number of a random draw while a step is recorded.

    As an int it is the number of the draw made when recording. At a replay the kernel reads the key and the
    generator's position from `slot`, three words on the device, and adds `offset` to the position.
    """

    slot: Any
    offset: int


class Capture:
    """A step being recorded: the slots that its kernels read, and what Python repeats at each replay.

    `slots` is an array of `WORDS` uint64 on the device, which lives as long as the recorded step.
    """

    def __init__(self, slots: Any) -> None:
        self.slots, self.used = slots, 0
        self._numbers: list[tuple[int, Callable[[], float]]] = []
        self._streams: dict[int, _Stream] = {}
        self._actions: list[Callable[[], object]] = []
        self._constants: list[Any] = []
        self._lists: list[tuple[Callable[[], list[Any]], list[Any]]] = []
        self._dependencies: list[tuple[Callable[[], object], object]] = []

    def number(self, compute: Callable[[], float]) -> Any:
        """Return a slot of one word that holds ``compute()``, as float64, at each replay."""
        word = self._take(1)
        self._numbers.append((word, compute))
        return self.slots[word : word + 1]

    def at_each_replay(self, action: Callable[[], object]) -> None:
        """Call `action` at each replay: a side effect that Python had while recording, such as raising a version."""
        self._actions.append(action)

    def depends_on(self, get: Callable[[], object]) -> None:
        """Record the step anew when ``get()`` returns another object than now, such as the array of a parameter.

        Numbers and texts are compared by their values.

        Gradients are none of these: `reads` takes care of them.
        """
        self._dependencies.append((get, get()))

    def depends_on_all(self, get: Callable[[], list[Any]]) -> None:
        """Record the step anew when an array in the list that ``get()`` returns is another one than now."""
        self._lists.append((get, get()))

    def is_current(self) -> bool:
        """Return whether everything that the recorded step depends on is still there."""
        for get_all, had in self._lists:
            have = get_all()
            if len(have) != len(had) or not all(map(is_, have, had)):
                return False
        return all((now := get()) is was or (type(now) in _PLAIN and now == was) for get, was in self._dependencies)

    def keep(self, array: Any) -> Any:
        """Keep an array that the recorded step reads as long as the step; return it."""
        self._constants.append(array)
        return array

    def reads(self, leaf: Any) -> None:
        """Note that the step reads the array or the gradient of a Tensor without history, other than by an op.

        Ops note the Tensors that they read. An optimizer calls this for each parameter, before it reads the gradient
        and after it sets it to None.
        """

    def replaces(self, leaf: Any) -> None:
        """Note that the array of a Tensor without history is about to be replaced, and its version to rise."""

    def next_draw(self, generator: Generator) -> tuple[int, int]:
        """Make a draw of a generator whose kernels find its state in a slot; see `Generator.next_draw`."""
        stream = self._streams.get(id(generator))
        if stream is None:
            word = self._take(3)
            stream = self._streams[id(generator)] = _Stream(generator, word, self.slots[word : word + 3])
        key, number = generator._advance()
        draw = RecordedDraw(number)
        draw.slot, draw.offset = stream.slot, stream.draws
        stream.draws += 1
        return key, draw

    def words(self) -> np.ndarray:
        """Return the slots for the next replay, on the host; no generator advances."""
        words = np.zeros(self.used, np.uint64)
        for word, compute in self._numbers:
            words[word : word + 1] = np.array([compute()], np.float64).view(np.uint64)
        for stream in self._streams.values():
            key, draws = stream.state
            words[stream.word : stream.word + 3] = np.array([key & WORD, key >> 64, draws], np.uint64)
        return words

    def replayed(self) -> None:
        """Repeat Python's side effects of the step: generators advance, and every action runs."""
        self.advance()
        self.repeat()

    def repeat(self) -> None:
        """Run every action of `at_each_replay`."""
        for action in self._actions:
            action()

    def advance(self) -> None:
        """Let every generator advance by the draws of one step."""
        for stream in self._streams.values():
            stream.advance(stream.draws)

    def rewind(self) -> None:
        """Take back the draws of recording: the step has been recorded, but it has not run.

        A generator that only the step knew is gone by now: each replay begins where it began.
        """
        for stream in self._streams.values():
            stream.advance(-stream.draws)
            stream.settle()

    def _take(self, count: int) -> int:
        if self.used + count > WORDS:
            raise RuntimeError(f"capture: at most {WORDS} words may change from step to step, got {self.used + count}")
        first, self.used = self.used, self.used + count
        return first


class _Stream:
    """A generator from which a recorded step draws; `draws` counts its draws in one step."""

    def __init__(self, generator: Generator, word: int, slot: Any) -> None:
        self.generator: Generator | None = generator
        self.word, self.slot, self.draws = word, slot, 0
        self._first = generator.state

    @property
    def state(self) -> tuple[int, int]:
        """The state at the beginning of the next replay."""
        return self._first if self.generator is None else self.generator.state

    def advance(self, draws: int) -> None:
        if self.generator is not None:
            self.generator._advance(draws)

    def settle(self) -> None:
        """Let go of the generator if nobody else holds it."""
        reference, self.generator = weakref.ref(self.generator), None
        self.generator = reference()


_CAPTURE: ContextVar[Capture | None] = ContextVar("tensorlib_capture", default=None)


def current_capture() -> Capture | None:
    """Return the step that this thread is recording, or None."""
    return _CAPTURE.get()


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Record into `capture` what changes from step to step."""
    token = _CAPTURE.set(capture)
    try:
        with draws_from(capture):
            yield
    finally:
        _CAPTURE.reset(token)


def note_read(leaf: Any) -> None:
    """Note that array or gradient of a Tensor are read, if a step is being recorded; see `Capture.reads`."""
    if (capture := _CAPTURE.get()) is not None:
        capture.reads(leaf)


def step_value(compute: Callable[[], float]) -> tuple[Any, float]:
    """Return a kernel's two arguments for a number that changes from step to step: its slot and its value.

    In the kernel they are ``const double* slot, double value``, and the number is ``slot ? *slot : value``. Outside a
    capture the slot is the null pointer, 0.
    """
    capture = current_capture()
    return (0, float(compute())) if capture is None else (capture.number(compute), 0.0)
