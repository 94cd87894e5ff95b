"""How wide a text may become in a viewer. Graphviz measures in Helvetica, which most viewers replace by another font.

The widths are those of DejaVu Sans and its bold face, the widest fonts that browsers and renderers usually fall back to
(Arial and Liberation Sans are as wide as Helvetica). A box as wide as this holds its text in any of them.
"""

from __future__ import annotations

import unicodedata

__all__ = ["width_of"]

# Percent of the size of the font, for the printable ASCII characters from the space on.
_REGULAR = (
    (32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34)  # punctuation
    + (64,) * 10
    + (34, 34, 84, 84, 84, 53, 100)
    + (68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68, 99, 69, 61, 69)
    + (39, 34, 39, 84, 50, 50)
    + (61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59, 82, 59, 59, 52)
    + (64, 34, 64, 84)
)
_BOLD = (
    (35, 46, 52, 84, 70, 100, 87, 31, 46, 46, 52, 84, 38, 42, 38, 37)
    + (70,) * 10
    + (40, 40, 84, 84, 84, 58, 100)
    + (77, 76, 73, 83, 68, 68, 82, 84, 37, 37, 77, 64, 100, 84, 85, 73, 85, 77, 72, 68, 81, 77, 110, 77, 72, 73)
    + (46, 37, 46, 84, 50, 50)
    + (67, 72, 59, 72, 68, 44, 72, 71, 34, 34, 67, 34, 104, 71, 69, 72, 72, 49, 60, 48, 71, 65, 92, 65, 65, 58)
    + (71, 37, 71, 84)
)
_LETTER, _WIDE = 70, 100  # other alphabets and signs; characters of East Asian scripts, and emoji


def width_of(text: str, size: float, bold: bool = False) -> float:
    """Return the width of a text in points, for a font of `size` points.

    >>> from tensorlib.graphs.text_width import width_of
    >>> width_of("add", 10), width_of("我有", 10)
    (18.7, 20.0)
    """
    table = _BOLD if bold else _REGULAR
    return sum(table[ord(c) - 32] if " " <= c <= "~" else _other(c) for c in text) * size / 100


def _other(c: str) -> int:
    if unicodedata.combining(c):
        return 0
    return _WIDE if unicodedata.east_asian_width(c) in "WF" else _LETTER if c != "…" else _WIDE
