"""Seeded, counter-based generators: a random number is a pure function of (seed, number of the draw, position).

So the whole state is two integers, a mask can be drawn again instead of kept, and a checkpoint can say exactly where
the stream was.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

__all__ = ["Generator", "default_generator", "seed"]


_LOCK = Lock()  # two threads on one generator never get the same draw


class Generator:
    """A stream of draws. `state` is (seed, draws so far) and may be set to go back to any point.

    Philox-4x64 (Salmon et al. 2011) keyed by the seed; each draw owns a stretch of 2^128 blocks of the counter.
    """

    def __init__(self, seed: int = 0) -> None:
        if not 0 <= seed < 2**128:
            raise ValueError(f"Generator: seed must lie in [0, 2**128), got {seed}")
        self.state: tuple[int, int] = (seed, 0)

    def next_draw(self) -> tuple[int, int]:
        """Return (key, draw) of the next draw, and move on. What a kernel needs to draw the numbers itself."""
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
