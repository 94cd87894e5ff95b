"""The options of `tl.draw` about the look of a picture, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorlib.graphs.labels import SHOWN, Look

__all__ = ["SIZES", "look_of"]

SIZES = {"page": (7.3, 10.7), "slide": (12.6, 6.8)}  # inches: A4 upright and 16:9, each within narrow margins


def look_of(show: str | Sequence[str], color: str, direction: str, size: Any) -> Look:
    """Return the look that these options of `draw` describe. Raises ValueError for an unknown one."""
    if not isinstance(show, str | Sequence):
        raise TypeError(f"draw: show must be some of {', '.join(SHOWN)}, or () for none; got {show!r}")
    shown = frozenset([show] if isinstance(show, str) else show)
    if unknown := sorted(shown - set(SHOWN)):
        raise ValueError(f"draw: show must be some of {', '.join(SHOWN)}; got {', '.join(map(repr, unknown))}")
    for name, value, known in (("color", color, ("kind", "gradient")), ("direction", direction, ("down", "right"))):
        if value not in known:
            raise ValueError(f"draw: {name} must be {' or '.join(map(repr, known))}; got {value!r}")
    return Look(shown, color, direction, _inches(size))


def _inches(size: Any) -> tuple[float, float] | None:
    if size is None:
        return None
    if isinstance(size, str) and size in SIZES:
        return SIZES[size]
    if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(x, int | float) and x > 0 for x in size):
        return (float(size[0]), float(size[1]))
    raise ValueError(f"draw: size must be 'page', 'slide' or (width, height) in inches; got {size!r}")
