"""The process's standard streams, and the command that a user types to call it again."""

from __future__ import annotations

import errno
import io
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TextIO

__all__ = ["WINDOWS", "command", "is_broken_pipe", "prepare_streams", "printable", "quoted", "shows_colors", "silence"]

WINDOWS = os.name == "nt"


def prepare_streams() -> None:
    """Replace missing standard streams with the null device, and make stdout accept any text.

    Stdout is UTF-8 whatever the locale, because translations are.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # open until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def printable(text: str) -> str:
    """Return text with its newlines, terminal escapes, undecodable bytes and other unprintable characters escaped.

    Unescaped, they could break a line, control the terminal, or make printing fail.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def is_broken_pipe(error: BaseException) -> bool:
    """Return whether an error says that the reader of our output has quit. Windows reports this as EINVAL."""
    refused = WINDOWS and isinstance(error, OSError) and error.errno == errno.EINVAL and error.filename is None
    return refused or isinstance(error, BrokenPipeError)


def shows_colors(stream: TextIO) -> bool:
    """Return whether to color text. The old console of Windows would print the escape sequences themselves."""
    return stream.isatty() and "NO_COLOR" not in os.environ and (not WINDOWS or "WT_SESSION" in os.environ)


def quoted(word: str) -> str:
    """Return a word quoted for the shell; only double quotes work in each shell of Windows."""
    if not WINDOWS:
        return shlex.quote(word)
    from subprocess import list2cmdline  # here, because importing it would delay --help

    return list2cmdline([word])


def silence(stream: TextIO) -> None:
    """Redirect a stream whose reader has quit, as `head` does, to the null device; closing it would raise an error."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def command() -> str:
    """Return the shell command that calls this program from here: `tensorlib`, its path, or `PYTHON -m tensorlib`."""
    called = sys.argv[0] if sys.argv else ""
    if Path(called).parts[-2:] == ("tensorlib", "__main__.py"):
        return f"{quoted(_shortest_path(sys.executable))} -m tensorlib"
    called = shutil.which(called) or called  # on Windows, pip's script leaves out ".exe"
    if Path(called).stem != "tensorlib" or not os.path.exists(called):
        return "tensorlib"  # inside another program
    found = shutil.which("tensorlib")
    if found and os.path.samefile(found, called):
        return "tensorlib"
    return quoted(_shortest_path(called))


def _shortest_path(file: str) -> str:
    """Return the shorter of the absolute and the relative path; both contain a "/", so that a shell runs the file."""
    try:
        relative = os.path.relpath(file)
    except ValueError:  # on Windows, from one drive to another
        return os.path.abspath(file)
    if not os.path.dirname(relative):
        relative = os.path.join(os.curdir, relative)
    return min(relative, os.path.abspath(file), key=len)
