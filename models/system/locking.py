"""Files that one process at a time has locked. The system releases a lock when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

import portalocker

__all__ = ["LocksUnsupported", "locked_file"]


class LocksUnsupported(OSError):
    """The file system has no locks, as some network file systems."""


def locked_file(path: Path) -> BinaryIO | None:
    """Create or open a file and lock it until it is closed; return None if it is locked already.

    Raises `LocksUnsupported` if the file system has no locks, and OSError if the file can't be written.
    """
    while True:
        file = path.open("ab")
        try:
            portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
            if _is_at(path, file):
                return file
            file.close()  # between opening and locking it, its last holder removed it: nobody else would find this lock
        except portalocker.AlreadyLocked:
            file.close()
            return None
        except portalocker.LockException as error:
            file.close()
            raise LocksUnsupported(errno.ENOLCK, f"no locks on this file system ({error})", str(path)) from None
        except BaseException:
            file.close()
            raise


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
