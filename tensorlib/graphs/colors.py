"""Colors for the norms of gradients: blue where they vanish, red where they explode, light between."""

from __future__ import annotations

import itertools
import math

__all__ = ["SCALE", "color_of_norm", "ink_on"]

SCALE = (  # powers of ten, and their colors; between them colors are mixed
    (-8, (30, 64, 175)),
    (-6, (59, 130, 246)),
    (-4, (125, 182, 250)),
    (-2, (214, 231, 253)),
    (-1, (247, 249, 252)),
    (0, (255, 247, 219)),
    (2, (251, 146, 60)),
    (4, (185, 28, 28)),
)
_ZERO, _NOT_FINITE = "#334155", "#c026d3"


def color_of_norm(norm: float) -> str:
    """Return the color of a gradient's norm: a color of its own for 0, and one for NaN and Inf.

    >>> from tensorlib.graphs.colors import color_of_norm
    >>> color_of_norm(1.0), color_of_norm(1e-9), color_of_norm(0.0)
    ('#fff7db', '#1e40af', '#334155')
    """
    if not math.isfinite(norm):
        return _NOT_FINITE
    if norm == 0:
        return _ZERO
    power = min(max(math.log10(norm), SCALE[0][0]), SCALE[-1][0])
    for (low, a), (high, b) in itertools.pairwise(SCALE):
        if power <= high:
            share = (power - low) / (high - low)
            mixed = [round(x + (y - x) * share) for x, y in zip(a, b, strict=True)]
            return "#" + "".join(f"{part:02x}" for part in mixed)
    raise AssertionError(power)


def ink_on(color: str, ink: str) -> str:
    """Return `ink`, or white if text in `ink` could hardly be read on this color."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#ffffff" if 0.3 * red + 0.59 * green + 0.11 * blue < 130 else ink
