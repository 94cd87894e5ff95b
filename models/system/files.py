"""Access to files and directories that a user names; each error says in one line what is wrong."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from models.system.errors import UserError
from models.system.locking import LocksUnsupported, locked_file

__all__ = ["new_directory", "read_bytes", "remove_unfinished", "require_file", "require_replaceable"]
__all__ += ["require_creatable", "require_writable"]

_NEW = ".new-"  # begins the names of temporary directories


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


def require_creatable(directory: Path, operation: str) -> None:
    """Raise `UserError` if a new directory, whose parents may be missing, can't be created; for use before any work."""
    parent = next(parent for parent in directory.absolute().parents if os.path.lexists(parent))
    problem = "" if parent.is_dir() else "which is no directory"
    if not problem and not os.access(parent, os.W_OK | os.X_OK):
        problem = "which can't be written to: permission denied"
    if problem:
        raise UserError(
            f"{operation} {directory}: a place for a new directory is required; this is in {parent}, {problem}; name "
            "another"
        )


@contextmanager
def new_directory(parent: Path, operation: str) -> Iterator[Path]:
    """Yield a temporary directory in `parent`, to be filled and then renamed, so that it is never visible half-written.

    It is removed if the `with` block raises. If this process is killed, `remove_unfinished` finds it: a locked file is
    beside it, not in it, because Windows does not rename a directory with an open file. Errors: `UserError` naming the
    operation if `parent` can't be written.
    """
    try:
        temporary, held = _begin(parent)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{operation}: a directory to write to is required; {parent}: {reason}") from None
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        _release(_lock_of(temporary), held)


def remove_unfinished(parent: Path) -> list[Path]:
    """Remove the temporary directories of `new_directory` that killed processes left in `parent`; return their paths.

    Versions of this program that locked no file left directories without one, with nothing but the files of a new run.
    """
    found = {path.with_name(path.name.removesuffix(".lock")) for path in parent.glob(f"{_NEW}*")}
    removed = []
    for temporary in sorted(path for path in found if re.fullmatch(_NEW + r"[a-z0-9_]{8}", path.name)):
        with suppress(OSError):  # without permission, or without locks that tell whether its process lives
            held = locked_file(_lock_of(temporary)) if _lock_of(temporary).exists() else None
            if held or _is_of_older_version(temporary):
                removed += [temporary] * temporary.exists()
                shutil.rmtree(temporary, ignore_errors=True)
                _release(_lock_of(temporary), held)
    return removed


def _begin(parent: Path) -> tuple[Path, BinaryIO | None]:
    """Create a temporary directory and, before it, the locked file that says that it is in use.

    Between creating that file and locking it, `remove_unfinished` of another process may lock it, and would then remove
    the directory; so another name is taken.
    """
    parent.mkdir(parents=True, exist_ok=True)
    temporary, held = parent / f"{_NEW}{secrets.token_hex(4)}", None
    with suppress(LocksUnsupported):
        while (held := locked_file(_lock_of(temporary))) is None:
            temporary = parent / f"{_NEW}{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
        temporary.chmod(0o755)
    except BaseException:
        _release(_lock_of(temporary), held)
        raise
    return temporary, held


def _release(lock: Path, held: BinaryIO | None) -> None:
    if held:
        held.close()
    with suppress(OSError):
        lock.unlink()


def _lock_of(temporary: Path) -> Path:
    return temporary.with_name(f"{temporary.name}.lock")


def _is_of_older_version(temporary: Path) -> bool:
    if not temporary.is_dir() or _lock_of(temporary).exists():
        return False
    files = r"\.?(tokenizer(\.\w+)?\.model|config\.toml)(\.\w{8})?"
    return all(re.fullmatch(files, path.name) for path in temporary.iterdir())
