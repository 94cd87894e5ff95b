"""CUDA graphs for `capture`: recording on a stream, the memory of graphs, uploads and fetches that do not wait.

This file is imported with CuPy's backend, on first use. What CuPy allows while a stream captures: kernels, memset,
copies on the device, and cudaMalloc. It refuses copies from and to the host with a RuntimeError before CUDA sees
them, so the capture survives and the error can name the line. Waiting for the device reaches CUDA, which invalidates
the capture; ending it then raises an error, and the stream can be used again.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import cupy
import numpy as np

from tensorlib.arrays.backend import Pending
from tensorlib.arrays.cuda import allocate, copy_arrays

__all__ = ["CudaRecorder", "fetch_later", "upload_beside"]

R = TypeVar("R")

MOST_UPLOADS = 8  # uploads on their way; the next one waits for the oldest, so Python is at most this far ahead
SMALLEST = 1 << 14  # bytes of pinned memory for an upload


class CudaRecorder:
    """Records CUDA graphs; see `Recorder`.

    A graph contains addresses, and keeps nothing alive. All its arrays come from a pool of this recorder. Three facts
    about CuPy's pools decide what is kept here:

    - A pool that runs short of memory returns its free blocks to the driver, also those whose addresses are in a graph.
      So `_kept` holds all memory that the pool ever got.
    - A pool that dies with free blocks never returns them. So `close` frees the blocks, then `_kept`.
    - An array of the common pool that dies is reused by others. So whoever records holds the arrays that a graph reads.

    Free blocks belong to a stream, so the stream of this recorder is current whenever its pool is used.
    """

    def __init__(self) -> None:
        self._stream = cupy.cuda.Stream(non_blocking=True)  # next to a blocking one, the null stream cannot be used
        self._kept: list[Any] = []
        self._places: list[tuple[int, int]] = []  # (address, size) of all memory, in order
        self._pool = cupy.cuda.MemoryPool(self._allocate)
        self._uploads = Uploads()
        self._last: Any = None  # the stream of the last launch

    def _allocate(self, size: int) -> Any:
        memory = allocate(size)
        self._kept.append(memory)
        insort(self._places, (memory.ptr, size))
        return cupy.cuda.MemoryPointer(memory, 0)

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Make arrays of this thread in the memory of the graphs; what is started runs on the recorder's stream."""
        with cupy.cuda.using_allocator(self._pool.malloc), self._stream:
            yield

    def owns(self, array: Any) -> bool:
        """Return whether an array lies in the memory of the graphs."""
        if not isinstance(array, cupy.ndarray):
            return False
        address = array.data.ptr
        i = bisect_right(self._places, (address, 1 << 62)) - 1
        return i >= 0 and address < self._places[i][0] + self._places[i][1]

    def record(self, run: Callable[[], R]) -> tuple[Any, R]:
        """Capture what ``run()`` launches; return the graph, and the result.

        Raises what ``run()`` raises, and RuntimeError if something in it waited for the GPU and hid the error.
        """
        with self.memory():
            self._stream.begin_capture()
            try:
                result = run()
            except BaseException:
                with suppress(Exception):  # an invalidated capture ends with an error of its own
                    self._stream.end_capture()
                raise
            return self._stream.end_capture(), result

    def refusal(self, error: BaseException) -> str:
        """Return what CuPy or CUDA refused while capturing; "" for another error."""
        text = str(error)
        if isinstance(error, NotImplementedError) and "stream capture" in text:
            return "library"
        if "stream is capturing, so" in text:  # CuPy's own check
            return "upload" if "H2D" in text else "fetch" if "D2H" in text else "wait"
        return "wait" if "cudaErrorStreamCapture" in text or "CUDA_ERROR_STREAM_CAPTURE" in text else ""

    def begin(self) -> None:
        """Let the current stream wait for the graphs launched on another one."""
        stream = cupy.cuda.get_current_stream()
        if self._last is not None and self._last != stream:
            stream.wait_event(self._last.record())
        self._last = stream

    def upload(self, target: Any, fill: Callable[[np.ndarray], None]) -> None:
        """Start an upload from pinned memory on the current stream."""
        self._uploads.start(target, fill)

    def copy(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Start copies on the device, many in one launch."""
        copy_arrays(pairs)

    def close(self) -> None:
        """Free the memory of the graphs: first the pool's blocks, then what they are parts of."""
        self._uploads.finish()
        with self._stream:
            self._pool.free_all_blocks()
        self._kept.clear()
        self._places.clear()


class Uploads:
    """Pinned buffers for uploads that do not wait. None is written to while an earlier upload may still read it."""

    def __init__(self) -> None:
        self._buffers: deque[tuple[Any, np.ndarray, Any]] = deque()  # the one that was used the longest ago comes first

    def start(self, target: Any, fill: Callable[[np.ndarray], None]) -> None:
        """Start filling `target`, contiguous bytes on the device, with what `fill` writes."""
        size = target.nbytes
        pinned, host, event = self._free(size)
        fill(host[:size])
        stream = cupy.cuda.get_current_stream()
        target.data.copy_from_host_async(pinned.ptr, size, stream)
        event.record(stream)
        self._buffers.append((pinned, host, event))

    def finish(self) -> None:
        """Wait for all uploads, whose buffers others may then get."""
        for _, _, event in self._buffers:
            event.synchronize()
        self._buffers.clear()

    def _free(self, size: int) -> tuple[Any, np.ndarray, Any]:
        """Return a buffer of at least `size` bytes that no upload reads."""
        if self._buffers:
            oldest = self._buffers[0]
            if len(self._buffers) == MOST_UPLOADS:
                oldest[2].synchronize()
            if oldest[2].done:
                self._buffers.popleft()
                if oldest[1].size >= size:
                    return oldest
        room = max(SMALLEST, 1 << (size - 1).bit_length())
        pinned = cupy.cuda.alloc_pinned_memory(room)
        host = np.frombuffer(pinned, np.uint8, room)
        return pinned, host, cupy.cuda.Event(disable_timing=True)


def upload_beside(values: np.ndarray) -> Any:
    """Return an array with these values while the current stream captures: outside of the capture, and at once."""
    with cupy.cuda.using_allocator(cupy.get_default_memory_pool().malloc), cupy.cuda.Stream.null as stream:
        array = cupy.array(values)
        stream.synchronize()
    return array


def fetch_later(array: Any) -> Pending:
    """Start copying an array to pinned memory on the current stream; see `Backend.fetch_later`."""
    shape, array = array.shape, cupy.ascontiguousarray(array)  # which makes a 0-d array 1-d
    pinned = cupy.cuda.alloc_pinned_memory(max(array.nbytes, 1))
    event, stream = cupy.cuda.Event(disable_timing=True), cupy.cuda.get_current_stream()
    if array.nbytes:
        array.data.copy_to_host_async(pinned.ptr, array.nbytes, stream)
    event.record(stream)
    return PendingCopy(np.frombuffer(pinned, array.dtype, array.size).reshape(shape), event, array)


class PendingCopy(Pending):
    """Values on their way from a GPU; the source is held until they have arrived."""

    def __init__(self, host: np.ndarray, event: Any, source: Any) -> None:
        super().__init__(host)
        self._event, self._source = event, source

    def ready(self) -> bool:
        """Return whether the copy has ended."""
        return self._event is None or bool(self._event.done)

    def value(self) -> np.ndarray:
        """Wait for the copy; return the values in ordinary memory, so that the pinned memory is used again."""
        if self._event is not None:
            self._event.synchronize()
            self._host, self._event, self._source = self._host.copy(), None, None
        return self._host

    def __del__(self) -> None:
        if self._event is not None:
            with suppress(Exception):  # CUDA may be gone when the process ends
                self._event.synchronize()  # before the pinned memory is used for something else
