"""Access to files and directories that a user names; each error says in one line what is wrong."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.system.errors import UserError

__all__ = ["new_directory", "read_bytes", "require_file", "require_replaceable", "require_writable"]


def require_file(name: str, operation: str, folder_remedy: str = "name a file in it") -> None:
    """Raise `UserError` unless `name` is a regular file. It is not opened, because opening a fifo would block."""
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISREG(mode):
            return
        given, remedy = "it is a fifo, socket or device", "write its contents to a file first"
        if stat.S_ISDIR(mode):
            given, remedy = "it is a directory", folder_remedy
    except OSError as error:
        given, remedy = (error.strerror or str(error)).lower(), "check the path and its permissions"
    except ValueError as error:  # a NUL in the name
        given, remedy = str(error), "check the path"
    raise UserError(f"{operation} {name}: a readable file is required; {given}; {remedy}")


def read_bytes(name: str, operation: str) -> bytes:
    """Read a regular file. Errors: `UserError` naming the file and the operation."""
    require_file(name, operation)
    try:
        return Path(name).read_bytes()
    except OSError as error:
        given = (error.strerror or str(error)).lower()
        raise UserError(
            f"{operation} {name}: a readable file is required; {given}; check the path and its permissions"
        ) from None


def require_writable(path: Path, operation: str) -> None:
    """Raise `UserError` naming the operation if no file can be written to `path`; for use before work begins."""
    if path.is_dir():
        raise UserError(f"{operation} {path}: a file to write is required; it is a directory; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"{operation} {path}: a directory to write to is required; make {path.parent} first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{operation} {path}: a file that can be written is required; permission denied")


def require_replaceable(path: Path, operation: str) -> None:
    """Raise `UserError` if a file can't be written to `path` atomically, which would replace a link or a device."""
    require_writable(path, operation)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{operation} {path}: a regular file is required; this is a link or a device; name another")


@contextmanager
def new_directory(parent: Path, operation: str) -> Iterator[Path]:
    """Yield a temporary directory in `parent`, to be filled and then renamed, so that it is never visible half-written.

    It is removed if the `with` block raises. Errors: `UserError` naming the operation if `parent` can't be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{operation}: a directory to write to is required; {parent}: {reason}") from None
    try:
        temporary.chmod(0o755)
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
