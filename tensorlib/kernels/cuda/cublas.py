"""cuBLAS through ctypes: its product functions, and a handle with a workspace for each thread and device.

CuPy's own wrappers refuse to run while a stream captures, although cuBLAS itself may be captured (cuBLAS manual,
2.1.12): with a workspace of its own a handle allocates nothing, and scalars that lie on the host are captured by value.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import cupy

from tensorlib.arrays.capturing import Capture, current_capture
from tensorlib.arrays.cuda import allocate

__all__ = ["COMPUTE", "TYPES", "Library", "check", "current_handle", "library"]

TYPES = {"f": 0, "d": 1, "e": 2, "H": 14}  # cudaDataType by NumPy's letter; uint16, "H", holds bf16 numbers
COMPUTE = {"float32": 68, "float64": 70, "bf16": 75, "tf32": 77}  # cublasComputeType_t
WORKSPACE = 32 << 20  # bytes: what the manual advises for sm_90 (2.4.8); other devices need less
STATUS = {
    1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED", 16: "LICENSE_ERROR",
}  # fmt: skip


class Library(NamedTuple):
    """The functions of cuBLAS that products call. Each takes its C arguments and returns a status, 0 for success.

    An int is passed as a C int; all else is an object of ctypes: addresses are c_void_p, numbers of 64 bits c_longlong
    or c_size_t. So the types of arguments need not be declared, which would cost another three microseconds a call.
    The names that end in `_64` take sizes of 64 bits. A test puts a stand-in in the place of `library`.
    """

    create: Callable[..., int]
    set_stream: Callable[..., int]
    set_workspace: Callable[..., int]
    gemm: Callable[..., int]
    gemm_strided: Callable[..., int]
    gemm_batched: Callable[..., int]
    gemm_64: Callable[..., int]
    gemm_strided_64: Callable[..., int]
    gemm_batched_64: Callable[..., int]


@cache
def library() -> Library:
    """Return the functions of the cuBLAS that CuPy uses. Raises RuntimeError if there is none."""
    return find_library()


def find_library() -> Library:
    """Load cuBLAS; see `library`."""
    try:
        from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib
    except ImportError:
        raise RuntimeError(
            "products: cuda-pathfinder, which CuPy 14 brings, is required to find cuBLAS; "
            "pip install 'tensorlib[cuda]' again"
        ) from None
    try:
        found = load_nvidia_dynamic_lib("cublas")  # first of all one that is loaded already: CuPy's own
        loaded = ctypes.CDLL(found.abs_path)
    except (DynamicLibNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RuntimeError(
            f"products: cuBLAS is required, and it was not found ({reason}); pip install 'tensorlib[cuda]' again"
        ) from None
    products = ("Gemm", "GemmStridedBatched", "GemmBatched")
    names = ["Create_v2", "SetStream_v2", "SetWorkspace_v2"]
    names += [f"{product}Ex{suffix}" for suffix in ("", "_64") for product in products]
    return Library(*(getattr(loaded, f"cublas{name}") for name in names))


def check(status: int, what: str) -> None:
    """Raise RuntimeError, in one line, if a function of cuBLAS has failed."""
    if status:
        name = STATUS.get(status, str(status))
        remedy = "; free memory of the GPU, or use smaller batches" if name == "ALLOC_FAILED" else ""
        raise RuntimeError(f"{what}: cuBLAS returned {name}{remedy}")


# ---- handles -----------------------------------------------------------------------------------------------------


class _Handle:
    """A handle of one thread and device, with a workspace for each of its streams, because streams run at once.

    It is never destroyed, because that waits for the device and may break a capture in another thread: when its thread
    ends, the next new thread gets it.

    Workspaces are not from CuPy's pool: memory of a pool belongs to the graph that is being captured from it.
    """

    def __init__(self, calls: Library) -> None:
        created = ctypes.c_void_p()
        check(calls.create(ctypes.byref(created)), "products: a handle")
        self.calls, self.value = calls, created
        self.stream: Any = None
        self.workspace: Any = None
        self.workspaces: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # as long as their streams

    def move(self, stream: Any) -> None:
        """Run what follows on a stream. Setting the stream resets the workspace, so it is set again (2.4.7)."""
        workspace = self.workspaces.pop(stream, None)  # a key may be another object for the same stream
        if workspace is None:
            workspace = cupy.cuda.MemoryPointer(allocate(WORKSPACE), 0)
        self.workspaces[stream] = workspace
        self.stream = None  # if one of the calls fails, the next product tries again
        check(self.calls.set_stream(self.value, ctypes.c_void_p(stream.ptr)), "products: a stream")
        given = ctypes.c_void_p(workspace.ptr), ctypes.c_size_t(WORKSPACE)
        check(self.calls.set_workspace(self.value, *given), "products: a workspace")
        self.stream, self.workspace = stream, workspace


class _Owner:
    """A thread, as long as it lives."""


_THREAD = threading.local()
_FREE: dict[tuple[int, Library], list[_Handle]] = {}  # by device: the handles of threads that have ended
_WORKSPACES: weakref.WeakKeyDictionary[Capture, Any] = weakref.WeakKeyDictionary()
"""The workspace of each captured step, which its replays use, even after its stream or thread has ended."""


_device, _stream = cupy.cuda.runtime.getDevice, cupy.cuda.get_current_stream


def current_handle() -> tuple[int, ctypes.c_void_p]:
    """Return the current device, and this thread's handle for it, which runs on the current stream."""
    device, stream = _device(), _stream()
    try:
        handle = _THREAD.handles[device]
    except (AttributeError, KeyError):
        handle = _opened(device)
    if handle.stream is not stream:
        handle.move(stream)
    if (capture := current_capture()) is not None:
        _WORKSPACES[capture] = handle.workspace
    return device, handle.value


def _opened(device: int) -> _Handle:
    if not hasattr(_THREAD, "handles"):
        _THREAD.handles, _THREAD.owner = {}, _Owner()
    free = _FREE.setdefault((device, library()), [])
    try:
        handle = free.pop()  # in one step, because other threads do so too
    except IndexError:
        handle = _Handle(library())
    weakref.finalize(_THREAD.owner, free.append, handle).atexit = False
    _THREAD.handles[device] = handle
    return handle
