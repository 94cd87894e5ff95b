"""Seeded, counter-based generators: a random number is a pure function of (seed, number of the draw, position).

So the whole state is two integers, a mask can be drawn again instead of kept, and a checkpoint can say exactly where
the stream was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

import numpy as np

__all__ = ["Generator", "default_generator", "seed"]


_LOCK = Lock()  # two threads on one generator never get the same draw


class Generator:
    """A stream of draws. `state` is (seed, draws so far) and may be set to go back to any point.

    Philox-4x64 (Salmon et al. 2011) keyed by the seed; each draw owns a stretch of 2^128 blocks of the counter.
    """

    def __init__(self, seed: int = 0) -> None:
        if not isinstance(seed, int | np.integer):
            raise TypeError(f"Generator: seed must be an integer, got {seed!r}")
        if not 0 <= seed < 2**128:
            raise ValueError(f"Generator: seed must lie in [0, 2**128), got {seed}")
        self.state: tuple[int, int] = (int(seed), 0)

    def next_draw(self) -> tuple[int, int]:
        """Return (key, draw) of the next draw, and move on. What a kernel needs to draw the numbers itself."""
        tape = _TAPE.get()
        return self._advance() if tape is None else tape.next_draw(self)

    def _advance(self) -> tuple[int, int]:
        with _LOCK:
            key, draw = self.state
            self.state = (key, draw + 1)
        return key, draw

    def numpy(self) -> np.random.Generator:
        """Return a NumPy generator for the next draw: ``g.numpy().normal(size=(3, 4))``, on the host."""
        key, draw = self.next_draw()
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, draw, 0]))

    def __repr__(self) -> str:
        return f"Generator(seed={self.state[0]}, draws={self.state[1]})"


class DrawTape:
    """Notes the draws that are made in this thread while it is set; `repeating` makes them once more.

    That is how `checkpoint` computes a stretch twice with the same dropout masks, whichever generators they come from,
    and without any generator moving the second time.
    """

    def __init__(self) -> None:
        self.draws: list[tuple[int, int]] = []
        self._outer: DrawTape | _Repeat | None = None

    def next_draw(self, generator: Generator) -> tuple[int, int]:
        draw = generator._advance() if self._outer is None else self._outer.next_draw(generator)
        self.draws.append(draw)
        return draw

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the draws made inside."""
        self._outer = _TAPE.get()
        with _tape_set(self):
            yield

    @contextmanager
    def repeating(self) -> Iterator[None]:
        """Make the draws that were noted once more, in their order, whichever generator is asked."""
        with _tape_set(_Repeat(self.draws)):
            yield


class _Repeat:
    def __init__(self, draws: list[tuple[int, int]]) -> None:
        self._draws = iter(draws)

    def next_draw(self, generator: Generator) -> tuple[int, int]:
        return next(self._draws, None) or generator._advance()  # more draws than before: checkpoint will notice


_TAPE: ContextVar[DrawTape | _Repeat | None] = ContextVar("tensorlib_draws", default=None)


@contextmanager
def _tape_set(tape: DrawTape | _Repeat) -> Iterator[None]:
    token = _TAPE.set(tape)
    try:
        yield
    finally:
        _TAPE.reset(token)


_DEFAULT = Generator(0)


def default_generator() -> Generator:
    """Return the process's one default generator, which everything random uses that was given none."""
    return _DEFAULT


def seed(value: int) -> None:
    """Start the default generator anew. Two runs that seed alike draw alike.

    All threads draw from this one stream, no number twice; which thread gets which depends on timing, so threads whose
    draws must repeat need generators of their own.
    """
    default_generator().state = Generator(value).state
