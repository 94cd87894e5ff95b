"""How messages show values, types, counts and sizes, and what they suggest for an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__: list[str] = []


def shown(value: Any) -> str:
    """Return a value as a message shows it: on one line, an array by its shape and dtype."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type):  # such as np.float32
        return f"a {type(value).__name__} of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, tuple | list) and any(hasattr(part, "dtype") for part in value):
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        return f"{opening}{', '.join([shown(part) for part in value])}{closing}"
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits, or nested too deeply
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"


def unknown_name(owner: str, name: str, known: Iterable[str], elsewhere: dict[str, str]) -> str:
    """Return the message for a name that `owner` does not have, which suggests our name for it, or close matches."""
    text = f"{owner} has no attribute {name!r}"
    if name in elsewhere:
        return f"{text}; use {elsewhere[name]}"
    if name.endswith("_") and not name.startswith("_"):
        return f"{text}; a Tensor is never changed in place: write x = x.{name.rstrip('_')}(...), if that exists"
    close = get_close_matches(name, [k for k in known if not k.startswith("_")], 3, cutoff=0.7)  # of solve, not save
    return f"{text}; did you mean {' or '.join(close)}?" if close else text


def broadcast_remedy(shapes: list[tuple[int, ...]]) -> str:
    """Return what to do about shapes that do not broadcast; two of them are called x and y."""
    if len(shapes) == 2:
        x, y = shapes
        if len(x) == len(y) == 2 and x == y[::-1]:
            return "did you mean y.T?"
        shorter, longer = ("y", x) if len(y) < len(x) else ("x", y)
        axes = min(shapes, key=len)
        if 0 < len(axes) < len(longer) and axes == longer[: len(axes)]:
            ones = (1,) * (len(longer) - len(axes))
            return f"did you mean {shorter}.reshape{(*axes, *ones)}?"
    return "sizes, from the last axis on, must be equal or 1"


def kind_of(x: Any) -> str:
    """Return the name of x's type for a message: "list", "torch.Tensor"; if x is a class, "the class list"."""
    kind = x if isinstance(x, type) else type(x)
    module = kind.__module__.partition(".")[0]
    name = kind.__qualname__ if module in ("builtins", "nn", "tensorlib", "__main__") else f"{module}.{kind.__name__}"
    return f"the class {name}" if isinstance(x, type) else name


def plural(n: int, noun: str) -> str:
    """Return "1 op", "2,000 ops"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def shown_bytes(n: float) -> str:
    """Return "0 B", "1.5 kB", "20 MB"."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} GB" if n < 1000 else f"{n:,.0f} GB"
