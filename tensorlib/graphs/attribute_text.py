"""Attributes of ops as short texts, which hold no arrays alive."""

from __future__ import annotations

from typing import Any

__all__ = ["attribute_text"]

_MOST_ITEMS, _MOST_CHARACTERS = 8, 60


def attribute_text(value: Any) -> str:
    """Return a short text about an attribute: numbers and text as Python writes them, arrays by shape and dtype.

    >>> from tensorlib.graphs.attribute_text import attribute_text
    >>> attribute_text((1, slice(None, 2), np.ones((2, 3))))
    '(1, :2, (2, 3) float64)'
    """
    if isinstance(value, tuple | list):
        parts = [attribute_text(item) for item in value[:_MOST_ITEMS]]
        parts += ["…"] if len(value) > _MOST_ITEMS else []
        comma = "," if isinstance(value, tuple) and len(parts) == 1 else ""
        text = f"({', '.join(parts)}{comma})" if isinstance(value, tuple) else f"[{', '.join(parts)}]"
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        text = f"{tuple(value.shape)} {value.dtype}" if value.shape else str(value)
    elif isinstance(value, slice):
        ends = ["" if end is None else str(end) for end in (value.start, value.stop)]
        text = ":".join(ends + ([] if value.step is None else [str(value.step)]))
    elif value is None or value is ... or isinstance(value, int | float | complex | str | bytes):
        text = "..." if value is ... else repr(value)
    else:
        text = getattr(value, "__name__", type(value).__name__)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
