"""`tensorlib translate` and `generate` at a terminal: a prompt that answers each line once it is typed."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

from models.system.terminal import WINDOWS

__all__ = ["typed_lines"]

PROMPT = "> "


def typed_lines(what: str = "a sentence") -> Iterator[str]:
    """Ask for `what`, and yield each line typed at the terminal until Ctrl-D.

    Bytes that are not UTF-8 become surrogates. If Python has readline, the arrow keys edit the line and recall earlier
    lines. If standard output is redirected, the arrow keys do nothing and the prompt goes to standard error.
    """
    end = "Ctrl-Z and Enter end" if WINDOWS else "Ctrl-D ends"
    print(f"Type {what} and press Enter; {end}.", file=sys.stderr)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):  # Windows has no readline
            import readline  # noqa: F401  # input() uses readline once it is imported
    try:
        while (line := _read_line()) is not None:
            yield line
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the next message starts on a new line
        raise
    print(file=sys.stderr)


def _read_line() -> str | None:
    """Return the next line without its newline, or None at the end of input."""
    if sys.stdout.isatty():
        try:
            return input(PROMPT)
        except EOFError:
            return None
    print(PROMPT, end="", file=sys.stderr, flush=True)  # input() would write the prompt to standard output
    line = sys.stdin.readline()
    return line.removesuffix("\n") if line else None
