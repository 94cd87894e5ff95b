"""`tensorlib translate` at a terminal: a prompt, and an answer to each line that is typed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["typed_lines"]

PROMPT = "> "


def typed_lines() -> Iterator[list[str]]:
    """Yield each line that is typed on the terminal of standard input, alone in a list, until Ctrl-D.

    Lines are edited and recalled with the arrow keys where Python has readline. The prompt goes to the terminal and
    never into a file that standard output leads to.
    """
    print("Type a sentence and press Enter; Ctrl-D ends.", file=sys.stderr)
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # input() uses it when it is there
    try:
        while (line := _ask()) is not None:
            yield [line]
    except KeyboardInterrupt:
        print(file=sys.stderr)  # what is said next begins a line of its own
        raise
    print(file=sys.stderr)


def _ask() -> str | None:
    """Return the next line without its end; None at the end of input."""
    if sys.stdout.isatty():
        try:
            return input(PROMPT)
        except EOFError:
            return None
    print(PROMPT, end="", file=sys.stderr, flush=True)  # input() would write it to standard output
    line = sys.stdin.readline()
    return line.removesuffix("\n") if line else None
