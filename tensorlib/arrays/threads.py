"""A few threads for kernels, and the same bits however many there are.

NumPy lets go of the interpreter inside ufuncs and products, so plain Python threads compute at the same time. A kernel
cuts its work into pieces that depend on the shapes alone, never on the number of threads, and each piece writes what
no other does: so one thread and eight give the same bits. BLAS by itself does not, for its own threads cut a product
elsewhere; while ours are at work it is held to one.
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

from tensorlib.messages import shown

__all__ = ["thread_count", "threads"]

Piece = TypeVar("Piece")


# ---- how many ----------------------------------------------------------------------------------------------------


def threads(number: int | None = None) -> AbstractContextManager[None]:
    """Compute on `number` threads inside, the caller's included: ``with tl.threads(1): ...``.

    Without it the number is that of the processors this process may use, or what TENSORLIB_THREADS in the environment
    says. It changes how long things take, never a result, and holds for the caller's thread: one that is started inside
    has the number from outside. Meanwhile BLAS is held to one thread for the whole process, which spares each product
    from seeing to that by itself: ``with tl.threads(): ...`` around a loop of small steps.
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
    """Return on how many threads kernels compute here."""
    return _NUMBER.get() or _default()


_NUMBER: ContextVar[int] = ContextVar("tensorlib_threads", default=0)


@cache
def _default() -> int:
    given = os.environ.get("TENSORLIB_THREADS", "")
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.isascii() or not given.isdigit() or not int(given):
        # No ValueError, which the op whose product asks first would word as its own.
        raise RuntimeError(f"TENSORLIB_THREADS: must be an integer of at least 1, got {given!r}; unset it for all")
    return int(given)


# ---- the workers -------------------------------------------------------------------------------------------------


def share(work: Callable[[Piece], Any], pieces: Sequence[Piece]) -> None:
    """Call ``work(piece)`` for every piece, on several threads where there are several; return when all is done.

    An exception in one piece is raised here. Handing over costs some 20 to 60 microseconds, so pieces should take
    longer than that.
    """
    helpers = min(thread_count(), len(pieces)) - 1
    if helpers < 1:
        for piece in pieces:
            work(piece)
        return
    job = _Job(work, pieces)
    for _ in range(_POOL.started(helpers)):
        _POOL.queue.put((job, copy_context()))  # so that np.errstate and the like hold there too
    job.take_part()
    job.done.acquire()
    if job.error is not None:
        raise job.error


class _Job:
    """Pieces of work that threads take in turn until there are none."""

    __slots__ = ("_left", "_lock", "_pieces", "_work", "done", "error")

    def __init__(self, work: Callable[[Any], Any], pieces: Sequence[Any]) -> None:
        self._work, self._pieces, self._left = work, list(reversed(pieces)), len(pieces)
        self._lock, self.done, self.error = Lock(), Lock(), None  # type: Lock, Lock, BaseException | None
        self.done.acquire()

    def take_part(self) -> None:
        """Work on pieces while there are any. Who finishes the last one says so."""
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
    """Threads that wait for work."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[tuple[_Job, Context]] = SimpleQueue()
        self._threads: list[Thread] = []
        self._lock = Lock()

    def started(self, number: int) -> int:
        """Start threads until there are `number`; return how many of these there are, if the system gives no more."""
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
            job, context = self.queue.get()
            context.run(job.take_part)
            del job, context  # and not keep its arrays until the next one comes


_POOL = _Pool()


# ---- BLAS --------------------------------------------------------------------------------------------------------


class _Blas:
    """A context in which NumPy's BLAS keeps to one thread; whoever leaves it last gives BLAS its own number back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, []  # type: Lock, int, list[int]

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [library.num_threads for library in _libraries()]
                for library in _libraries():
                    library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside = max(self._inside - 1, 0)  # 0 already where this began before a fork
            if not self._inside:
                self._give_back()

    def _give_back(self) -> None:
        for library, number in zip(_libraries(), self._before, strict=True):
            library.set_num_threads(number)

    def restart(self) -> None:
        """Begin anew in a forked child: whoever was inside in other threads of the parent is not here."""
        if self._inside:
            self._give_back()
        self._lock, self._inside = Lock(), 0


BLAS = _Blas()


@cache
def _libraries() -> list[Any]:
    """Return handles of the BLAS libraries of this process; none where threadpoolctl is missing or knows none."""
    environment = dict(os.environ)
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    for added in os.environ.keys() - environment.keys():  # it sets a variable for OpenMP, which is not ours to set
        del os.environ[added]
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _in_child() -> None:
    """Begin anew in a forked child, which has no thread of its parent's but the one that forked."""
    _POOL.__init__()  # type: ignore[misc]
    BLAS.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
