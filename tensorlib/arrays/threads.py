"""A small thread pool for kernels, whose results have the same bits with any number of threads.

NumPy releases the GIL inside ufuncs and products, so plain Python threads compute at the same time. A kernel cuts its
work into pieces that depend on the shapes alone, never on the number of threads, and no two pieces write to the same
memory. So one thread and eight give the same bits. BLAS, however, cuts a product according to the number of its
threads, which changes bits; it is therefore limited to one thread while ours run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

import numpy as np

from tensorlib.messages import shown

__all__ = ["thread_count", "threads"]

Piece = TypeVar("Piece")


# ---- the number of threads ---------------------------------------------------------------------------------------


def threads(number: int | None = None) -> AbstractContextManager[None]:
    """Return a context in which kernels compute on `number` threads, including the calling one.

    The default is the value of TENSORLIB_THREADS in the environment or, without it, the number of processors that this
    process may use; ``threads()`` does not change the number. The number affects speed only, never a result. It holds
    in the calling thread; a thread that is started inside has the default number.

    Inside, BLAS is limited to one thread for the whole process. Outside, each product sets this limit separately, so
    ``with tl.threads(): ...`` around a loop of small steps saves time.

    Raises ValueError if `number` is not an integer of at least 1.

    >>> with tl.threads(2):
    ...     tl.thread_count()
    2
    """
    count = thread_count() if number is None else getattr(number, "__index__", lambda: 0)()
    if count < 1 or isinstance(number, bool):
        raise ValueError(f"threads: the number must be an integer of at least 1, got {shown(number)}")
    return _on_threads(count)


@contextmanager
def _on_threads(number: int) -> Iterator[None]:
    token = _NUMBER.set(number)
    try:
        with BLAS:
            yield
    finally:
        _NUMBER.reset(token)


def thread_count() -> int:
    """Return the number of threads that kernels called from this thread compute on; see `threads`.

    Raises RuntimeError if TENSORLIB_THREADS in the environment is not an integer of at least 1.

    >>> with tl.threads(1):
    ...     tl.thread_count()
    1
    """
    return _NUMBER.get() or _default()


_NUMBER: ContextVar[int] = ContextVar("tensorlib_threads", default=0)


@cache
def _default() -> int:
    given = os.environ.get("TENSORLIB_THREADS", "")
    if not given:
        return _processors()
    if not given.isascii() or not given.isdigit() or not int(given):
        # Not a ValueError: the op that first needs the number would report it as a mistake in the op's arguments.
        raise RuntimeError(
            f"TENSORLIB_THREADS: must be an integer of at least 1, got {given!r}; unset it to use all processors"
        )
    return int(given)


@cache
def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- the workers -------------------------------------------------------------------------------------------------


def share(work: Callable[[Piece], Any], pieces: Sequence[Piece]) -> None:
    """Call ``work(piece)`` for every piece, on up to `thread_count` threads; return when all calls have returned.

    If a piece raises an exception, `share` raises it. Handing a piece to another thread costs 20 to 60 microseconds, so
    pieces should take longer.
    """
    helpers = min(thread_count(), len(pieces)) - 1
    if helpers < 1:
        for piece in pieces:
            work(piece)
        return
    job = _Job(work, pieces)
    for _ in range(_POOL.grow_to(helpers)):
        _POOL.post(job)
    job.take_part()
    job.done.acquire()
    if job.error is not None:
        raise job.error


class _Job:
    """Pieces of work that threads take in turn until none are left."""

    __slots__ = ("_left", "_lock", "_pieces", "_work", "done", "error")

    def __init__(self, work: Callable[[Any], Any], pieces: Sequence[Any]) -> None:
        self._work, self._pieces, self._left = work, list(reversed(pieces)), len(pieces)
        self._lock, self.done, self.error = Lock(), Lock(), None  # type: Lock, Lock, BaseException | None
        self.done.acquire()

    def take_part(self) -> None:
        """Take pieces until none are left. The thread that finishes the last piece signals completion."""
        while True:
            with self._lock:
                if not self._pieces:
                    return
                piece = self._pieces.pop()
            try:
                self._work(piece)
            except BaseException as error:
                with self._lock:
                    self.error = self.error or error
                    self._left -= len(self._pieces)
                    self._pieces.clear()
            finally:
                with self._lock:
                    self._left -= 1
                    if not self._left:
                        self.done.release()


class _Pool:
    """Threads that wait for jobs: asleep or, for a moment after a job, if `stay_awake` was given a function, awake."""

    wait: Callable[[np.ndarray, int], None] | None = None  # also in a forked child, which calls __init__ again

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[_Job, Context]] = SimpleQueue()
        self._posted = np.zeros(1, np.int64)  # the number of jobs so far, which threads that are awake watch
        self._threads: list[Thread] = []
        self._lock = Lock()

    def post(self, job: _Job) -> None:
        """Let one more thread take part in a job."""
        self._queue.put((job, copy_context()))  # so that np.errstate holds in the worker too
        self._posted += 1

    def grow_to(self, number: int) -> int:
        """Start threads until there are `number`; return how many are available, fewer if the system refuses one."""
        if len(self._threads) < number:
            with self._lock:
                while len(self._threads) < number:
                    thread = Thread(target=self._wait, name=f"tensorlib-{len(self._threads) + 1}", daemon=True)
                    try:
                        thread.start()
                    except RuntimeError:
                        break
                    self._threads.append(thread)
        return min(number, len(self._threads))

    def _wait(self) -> None:
        while True:
            job, context = self._queue.get()
            context.run(job.take_part)
            del job, context  # so that its arrays are freed before the next job arrives
            seen = int(self._posted[0])
            if self.wait is not None and self._queue.empty() and len(self._threads) < _processors():
                self.wait(self._posted, seen)


_POOL = _Pool()


def stay_awake(wait: Callable[[np.ndarray, int], None]) -> None:
    """Let idle threads call ``wait(counter, seen)`` before they sleep; it returns when counter[0] is no longer `seen`.

    It must not hold the GIL, and must return within a few milliseconds. Only compiled code can do that.
    """
    _POOL.wait = wait


# ---- BLAS --------------------------------------------------------------------------------------------------------


class _Blas:
    """A context in which NumPy's BLAS uses one thread. The last thread to leave it restores the previous number."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, []  # type: Lock, int, list[int]

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [library.num_threads for library in blas_libraries()]
                for library in blas_libraries():
                    library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside = max(self._inside - 1, 0)  # already 0 if a fork occurred between enter and exit
            if not self._inside:
                self._restore()

    def _restore(self) -> None:
        for library, number in zip(blas_libraries(), self._before, strict=True):
            library.set_num_threads(number)

    def restart(self) -> None:
        """Reset the state in a forked child, which does not have the parent's other threads."""
        if self._inside:
            self._restore()
        self._lock, self._inside = Lock(), 0


BLAS = _Blas()


@cache
def blas_libraries() -> list[Any]:
    """Return handles of the BLAS libraries of this process; an empty list if threadpoolctl is missing or finds none."""
    environment = dict(os.environ)
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    for added in os.environ.keys() - environment.keys():  # importing it sets a variable for OpenMP; undo that
        del os.environ[added]
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _in_child() -> None:
    """Reset pool and BLAS in a forked child, which has only one of its parent's threads: the one that forked."""
    _POOL.__init__()  # type: ignore[misc]
    BLAS.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
