"""Seeded, counter-based generators: a random number is a pure function of (seed, number of the draw, position).

So the whole state is two integers, a mask can be drawn again instead of being kept, and a checkpoint file records the
exact position in the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Protocol

import numpy as np

__all__ = ["Generator", "default_generator", "seed"]


_LOCK = Lock()  # so that two threads never get the same draw from one generator


class Generator:
    """A seeded stream of random draws, passed as ``generator=`` to every function that draws.

    `state` is (seed, number of draws so far); set it to continue from any point. The numbers are those of Philox-4x64
    (Salmon et al. 2011) with the seed as the key; each draw has 2^128 blocks of the counter to itself.

    Raises TypeError if the seed is not an integer, ValueError if it is outside [0, 2**128).

    >>> generator = tl.Generator(7)
    >>> x = tl.uniform((2, 3), generator=generator)
    >>> generator
    Generator(seed=7, draws=1)
    >>> generator.state = (7, 0)
    >>> bool((tl.uniform((2, 3), generator=generator) == x).all())
    True
    """

    def __init__(self, seed: int = 0) -> None:
        if not isinstance(seed, int | np.integer):
            raise TypeError(f"Generator: seed must be an integer, got {seed!r}")
        if not 0 <= seed < 2**128:
            raise ValueError(f"Generator: seed must lie in [0, 2**128), got {seed}")
        self.state: tuple[int, int] = (int(seed), 0)

    def next_draw(self) -> tuple[int, int]:
        """Return (key, draw) of the next draw and advance the stream. A kernel computes the numbers from this pair."""
        tape = _TAPE.get()
        return self._advance() if tape is None else tape.next_draw(self)

    def _advance(self, draws: int = 1) -> tuple[int, int]:
        with _LOCK:
            key, draw = self.state
            self.state = (key, draw + draws)
        return key, draw

    def numpy(self) -> np.random.Generator:
        """Return a NumPy generator for the next draw: ``g.numpy().normal(size=(3, 4))``, on the host."""
        key, draw = self.next_draw()
        refuse_recorded(draw)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, draw, 0]))

    def __repr__(self) -> str:
        return f"Generator(seed={self.state[0]}, draws={self.state[1]})"


def refuse_recorded(draw: int) -> None:
    """Raise RuntimeError for a draw of a step that is being recorded, if it is made on the host."""
    if type(draw) is not int:
        raise RuntimeError(
            "Generator: numbers drawn on the host would be the same in each call of a captured step; draw them before "
            "the call, and pass them as an argument"
        )


class DrawTape:
    """Records the draws made in this thread inside `recording`, and repeats them inside `repeating`.

    So `checkpoint` computes a part of the graph twice with the same dropout masks, whichever generators they come
    from, and no generator advances the second time.
    """

    def __init__(self) -> None:
        self.draws: list[tuple[int, int]] = []
        self._outer: DrawSource | None = None

    def next_draw(self, generator: Generator) -> tuple[int, int]:
        draw = generator._advance() if self._outer is None else self._outer.next_draw(generator)
        self.draws.append(draw)
        return draw

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the draws made inside the ``with`` block."""
        self._outer = _TAPE.get()
        with draws_from(self):
            yield

    @contextmanager
    def repeating(self) -> Iterator[None]:
        """Repeat the recorded draws in their order inside the ``with`` block, whichever generator is used."""
        with draws_from(_Repeat(self.draws)):
            yield


class _Repeat:
    def __init__(self, draws: list[tuple[int, int]]) -> None:
        self._draws = iter(draws)

    def next_draw(self, generator: Generator) -> tuple[int, int]:
        return next(self._draws, None) or generator._advance()  # more draws than recorded: checkpoint raises an error


class DrawSource(Protocol):
    """Whatever makes the draws of this thread in place of the generators themselves."""

    def next_draw(self, generator: Generator) -> tuple[int, int]:
        """Return (key, draw) for a function that draws from `generator`."""
        ...


_TAPE: ContextVar[DrawSource | None] = ContextVar("tensorlib_draws", default=None)


@contextmanager
def draws_from(source: DrawSource) -> Iterator[None]:
    """Let `source` make the draws of this thread inside the ``with`` block."""
    token = _TAPE.set(source)
    try:
        yield
    finally:
        _TAPE.reset(token)


_DEFAULT = Generator(0)


def default_generator() -> Generator:
    """Return the default generator of the process, which serves every function that is called without ``generator=``.

    >>> tl.seed(3)
    >>> tl.default_generator()
    Generator(seed=3, draws=0)
    """
    return _DEFAULT


def seed(value: int) -> None:
    """Restart the default generator from a seed: two runs with equal seeds draw equal numbers.

    All threads draw from this one stream. No draw is used twice, but which thread gets which draw depends on timing, so
    give each thread its own `Generator` if its draws must be reproducible.

    Raises TypeError if the seed is not an integer, ValueError if it is outside [0, 2**128).

    >>> tl.seed(0)
    >>> x = tl.normal((2, 3))
    >>> tl.seed(0)
    >>> bool((tl.normal((2, 3)) == x).all())
    True
    """
    default_generator().state = Generator(value).state
