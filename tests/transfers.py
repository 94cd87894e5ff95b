"""Counting what leaves and enters a device, with the strict stand-in: `counted_transfers`."""

import contextlib
import traceback
from collections.abc import Iterator
from unittest import mock

import numpy as np

from tests import strict


class Transfers:
    """What was copied from and to the stand-in, each as the innermost line of the project that asked for it."""

    def __init__(self) -> None:
        self.fetches: list[str] = []
        self.uploads: list[str] = []


def _asking_line() -> str:
    frames = [f for f in traceback.extract_stack() if "/tests/" not in f.filename and "/unittest/" not in f.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}"


@contextlib.contextmanager
def counted_transfers() -> Iterator[Transfers]:
    """Count fetches and uploads within the block. An index that is a list or a host array is uploaded by CuPy."""
    found = Transfers()

    def note(kind: list[str], function):
        def wrapper(*arguments, **options):
            kind.append(_asking_line())
            return function(*arguments, **options)

        return wrapper

    create, index_of = strict._Function.__call__, strict.index_of

    def created(self, *arguments, **options):
        host = any(isinstance(a, np.ndarray | list | tuple | int | float) for a in arguments)
        if self.name in ("array", "asarray", "ascontiguousarray") and host:
            found.uploads.append(_asking_line())
        return create(self, *arguments, **options)

    def indexed(index):
        if isinstance(index, np.ndarray | list):
            found.uploads.append(_asking_line())
        return index_of(index)

    def uploaded(self, values, dtype=None):
        if not isinstance(values, strict.StrictArray):
            found.uploads.append(_asking_line())
        return asarray(self, values, dtype)

    asarray = strict.StrictBackend.asarray
    with (
        mock.patch.object(strict.StrictArray, "item", note(found.fetches, strict.StrictArray.item)),
        mock.patch.object(strict.StrictArray, "get", note(found.fetches, strict.StrictArray.get)),
        mock.patch.object(strict.StrictBackend, "asarray", uploaded),
        mock.patch.object(strict._Function, "__call__", created),
        mock.patch.object(strict, "index_of", indexed),
    ):
        yield found
