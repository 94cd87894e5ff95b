"""The emulated device: work that runs now or is recorded, streams, events, graphs, and counts of what was done.

Work runs at once, in the order of its submission, on whatever stream. While a stream captures, work that is submitted
on it is recorded instead and runs when the graph is launched. Asynchronous copies from and to pinned memory end only
when they are waited for: until then the host sees garbage, and must not change what a copy reads.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

Action = Callable[[], None]


@dataclass
class Counts:
    """What was done: `launches` counts kernels, NumPy calls, copies on the device and memsets, also inside a graph."""

    launches: int = 0
    graph_launches: int = 0
    fetches: int = 0
    uploads: int = 0
    synchronisations: int = 0

    def since(self, before: Counts) -> Counts:
        return Counts(**{name: n - getattr(before, name) for name, n in vars(self).items()})


counts = Counts()


@contextmanager
def counted() -> Iterator[Counts]:
    """Yield an object that afterwards holds the counts of what happened inside."""
    before, inside = replace(counts), Counts()
    try:
        yield inside
    finally:
        vars(inside).update(vars(counts.since(before)))


class CUDARuntimeError(RuntimeError):
    """An error of CUDA, with its name as CuPy shows it."""


class HostRace(RuntimeError):
    """The host wrote into pinned memory that a copy may still have been reading."""


def capture_error(name: str, text: str) -> CUDARuntimeError:
    return CUDARuntimeError(f"{name}: {text}")


# ---- streams --------------------------------------------------------------------------------------------------------


class _Current(threading.local):
    def __init__(self) -> None:
        self.stack: list[Any] = []


_CURRENT = _Current()


def get_current_stream(device_id: int = -1) -> Stream:
    """Return the stream on which this thread's work is submitted."""
    return _CURRENT.stack[-1] if _CURRENT.stack else Stream.null


@dataclass
class _Copy:
    """A copy between the device and pinned memory that has been submitted and may not have ended."""

    host: Any  # the pinned memory, as bytes
    values: bytes
    fetches: bool

    def end(self) -> None:
        if self.fetches:
            self.host[:] = self.values
        elif bytes(self.host) != self.values:
            raise HostRace("pinned memory was changed before the copy that reads it had ended; wait for an event first")


ALL: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()


class Stream:
    """A stream. Its work has always ended when `submit` returns, unless it captures."""

    null: Stream
    ptds: Stream
    _made = 2

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        if null or ptds:
            self.ptr = 0 if null else 2
        else:
            Stream._made += 1
            self.ptr = 0x5EAE0000 + Stream._made
        self.device_id, self.is_non_blocking, self.priority = 0, non_blocking, priority or 0
        self._recording: list[Action] | None = None
        self._broken = False
        self._copies: list[_Copy] = []  # those that may not have ended
        self._ended = 0
        self._asked = False
        ALL.setdefault(self.ptr, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<Stream {self.ptr} (device 0)>"

    def __enter__(self) -> Stream:
        _CURRENT.stack.append(self)
        return self

    def __exit__(self, *args: object) -> None:
        _CURRENT.stack.pop()

    def use(self) -> Stream:
        if _CURRENT.stack:
            _CURRENT.stack[-1] = self
        else:
            _CURRENT.stack.append(self)
        return self

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr in (0, 1, 2):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._recording is not None:
            raise capture_error("cudaErrorIllegalState", "the operation cannot be performed in the present state")
        self._recording, self._broken = [], False

    def end_capture(self) -> Graph:
        if self._recording is None:
            raise capture_error("cudaErrorIllegalState", "the operation cannot be performed in the present state")
        actions, self._recording = self._recording, None
        if self._broken:
            self._broken = False
            raise capture_error(
                "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"
            )
        return Graph._of(actions)

    def is_capturing(self) -> bool:
        return self._recording is not None

    @property
    def done(self) -> bool:
        """Whether all work has ended: never at the first question after an asynchronous copy."""
        self._unsupported()
        if self._copies and not self._asked:
            self._asked = True
            return False
        self._end(self._ended + len(self._copies))
        return True

    def synchronize(self) -> None:
        self._unsupported()
        self._end(self._ended + len(self._copies))
        counts.synchronisations += 1

    def _end(self, number: int) -> None:
        """End the copies up to a number, counted from the stream's first."""
        ending = self._copies[: max(0, number - self._ended)]
        del self._copies[: len(ending)]
        self._ended += len(ending)
        self._asked = False
        for copy in ending:
            copy.end()

    def _copy(self, host: Any, values: bytes, fetches: bool) -> None:
        """Submit a copy from or to pinned memory. What is fetched arrives when it is waited for."""
        self._copies.append(_Copy(host, values, fetches))
        if fetches:
            host[:] = b"\xff" * len(values)

    def _unsupported(self) -> None:
        """Refuse what breaks a capture."""
        if self._recording is not None:
            self._broken = True
            raise capture_error("cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing")

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        pass

    def launch_host_func(self, callback: Callable[[Any], object], arg: Any) -> None:
        submit(lambda: callback(arg), stream=self, kernel=False)

    def add_callback(self, callback: Callable[..., object], arg: Any) -> None:
        self._unsupported()
        callback(self, 0, arg)


Stream.null, Stream.ptds = Stream(null=True), Stream(ptds=True)


class ExternalStream(Stream):
    """A stream that another library made."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        super().__init__(null=True)
        self.ptr = ptr


class Event:
    """An event: what was submitted before it has ended when it is done."""

    _made = 0

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        Event._made += 1
        self.ptr, self._time, self._timed, self._captured = 0xE7E00000 + Event._made, 0.0, not disable_timing, False
        self._stream, self._number, self._asked = Stream.null, 0, False

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or get_current_stream()
        self._captured = stream._recording is not None
        self._time = time.perf_counter()
        self._stream, self._number, self._asked = stream, stream._ended + len(stream._copies), False

    @property
    def done(self) -> bool:
        """Whether the work before it has ended: not at the first question, if that work includes a copy."""
        self._outside_capture()
        if self._number > self._stream._ended and not self._asked:
            self._asked = True
            return False
        self._stream._end(self._number)
        return True

    def synchronize(self) -> None:
        self._outside_capture()
        self._stream._end(self._number)
        counts.synchronisations += 1

    def _outside_capture(self) -> None:
        if self._captured:
            get_current_stream()._broken = True
            raise capture_error("cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a "
                                "capturing stream")  # fmt: skip


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Return the time between two events, in milliseconds: of this computer, not of a GPU."""
    if not (start_event._timed and end_event._timed):
        raise capture_error("cudaErrorInvalidResourceHandle", "invalid resource handle")
    return 1000 * (end_event._time - start_event._time)


class Graph:
    """Recorded work, which `launch` repeats. It keeps the addresses that it uses, but no array alive."""

    _actions: list[Action]

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            "currently this class cannot be initiated by the user and must be created via stream capture"
        )

    @classmethod
    def _of(cls, actions: list[Action]) -> Graph:
        graph = object.__new__(cls)
        graph._actions = actions
        return graph

    def launch(self, stream: Stream | None = None) -> None:
        stream = stream or get_current_stream()
        counts.graph_launches += 1
        if stream._recording is not None:  # the graph becomes a part of the one being recorded
            stream._recording.extend(self._actions)
            return
        for action in self._actions:
            action()

    def upload(self, stream: Stream | None = None) -> None:
        pass

    def debug_dot_str(self, flags: int = 0) -> str:
        nodes = "\n".join(f'"node_{i}" [label="{i}"];' for i in range(len(self._actions)))
        return f"digraph dot {{\n{nodes}\n}}\n"


# ---- work -----------------------------------------------------------------------------------------------------------


def capturing() -> bool:
    """Return whether the current stream captures."""
    return get_current_stream()._recording is not None


def submit(action: Action, stream: Stream | None = None, kernel: bool = True) -> None:
    """Run `action` now or, while the current stream captures, record it.

    It must read the memory of its inputs when it runs, by address (see `memory.unowned`), and keep no array alive.
    """
    stream = stream or get_current_stream()
    if stream.ptr == 0:
        _beside_captures()

    def work() -> None:
        counts.launches += kernel
        action()

    if stream._recording is None:
        work()
    else:
        stream._recording.append(work)


def uploads() -> None:
    """Count a copy from the host to the device, and refuse it while the current stream captures."""
    if capturing():
        raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
    counts.uploads += 1


def _beside_captures() -> None:
    """Refuse work on the default stream while a stream captures that would wait for it."""
    for other in list(ALL.values()):
        if other._recording is not None and not other.is_non_blocking:
            other._broken = True
            raise capture_error(
                "cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing "
                "blocking stream"
            )  # fmt: skip


def fetches(waits: bool = True) -> None:
    """Count a copy from the device to the host, with its wait, and refuse it while the current stream captures."""
    if capturing():
        raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
    counts.fetches += 1
    counts.synchronisations += waits
    if waits:
        stream = get_current_stream()
        stream._end(stream._ended + len(stream._copies))


def library(name: str) -> None:
    """Refuse a function of cuBLAS or cuRAND that CuPy does not call while the current stream captures."""
    if capturing():
        raise NotImplementedError(f"calling {name} API during stream capture is currently unsupported")
