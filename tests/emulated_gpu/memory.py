"""The memory of the emulated device: one large range of addresses, with guards around every allocation.

A fresh or freed allocation is filled with a pattern whose floating-point numbers are NaN. Pools keep freed blocks for
later allocations on the same stream, like CuPy's, so that work which uses memory that it does not own goes wrong here
too.
"""

from __future__ import annotations

import bisect
import ctypes
import math
import mmap
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from tests.emulated_gpu.device import CUDARuntimeError, capturing, fetches, get_current_stream, submit, uploads

POISON = 0xFF  # NaN in every format of floating-point numbers, -1 in integers
GUARD = np.frombuffer(b"\xf7\xff" * 256, np.uint8)  # NaN too, and bits that no computation gives
ALIGNMENT = 512
SPACE = 1 << 36  # addresses, not memory: a page exists when it is first written

_MAP = mmap.mmap(
    -1, SPACE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
)  # fmt: skip
BYTES = np.frombuffer(_MAP, np.uint8)
START = BYTES.ctypes.data
DEVICE_BYTES = 80 * 2**30  # what memGetInfo tells


class OutOfMemoryError(MemoryError):
    """CuPy's error for an allocation that does not fit."""


def rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


# ---- allocations: what cudaMalloc does ------------------------------------------------------------------------------


class _Heap:
    """The range of addresses. An allocation of n bytes takes n rounded up, with a guard before and after it."""

    def __init__(self) -> None:
        self.next, self.lock = ALIGNMENT, threading.RLock()
        self.free: dict[int, list[int]] = {}
        self.live: dict[int, int] = {}  # sizes by offset
        self.offsets: list[int] = []
        self.limit: int | None = None
        self.used = 0

    def allocate(self, size: int) -> int:
        with self.lock:
            room = rounded(size) + ALIGNMENT
            limit = DEVICE_BYTES if self.limit is None else self.limit
            if self.used + size > limit:
                raise OutOfMemoryError(
                    f"Out of memory allocating {size:,} bytes (allocated so far: {self.used:,} bytes)."
                )
            kept = self.free.get(room)
            if kept:
                offset = kept.pop(0)
            else:
                offset, self.next = self.next, self.next + room
                if self.next > SPACE:
                    raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes: no addresses are left.")
            self.live[offset] = size
            bisect.insort(self.offsets, offset)
            self.used += size
            BYTES[offset - ALIGNMENT : offset] = GUARD
            BYTES[offset : offset + rounded(size)] = POISON
            BYTES[offset + rounded(size) : offset + room] = GUARD
            return START + offset

    def release(self, address: int) -> None:
        with self.lock:
            offset = address - START
            size = self.live.pop(offset)
            del self.offsets[bisect.bisect_left(self.offsets, offset)]
            self.used -= size
            BYTES[offset : offset + rounded(size)] = POISON
            self.free.setdefault(rounded(size) + ALIGNMENT, []).append(offset)

    def allocation(self, address: int) -> tuple[int, int] | None:
        """Return (address, size) of the live allocation around an address, or None."""
        with self.lock:
            offset = address - START
            i = bisect.bisect_right(self.offsets, offset) - 1
            if i < 0 or offset > self.offsets[i] + rounded(self.live[self.offsets[i]]):
                return None
            return START + self.offsets[i], self.live[self.offsets[i]]


heap = _Heap()


def is_device_address(address: int) -> bool:
    return START <= address < START + SPACE


class BaseMemory:
    """Memory of the device: `ptr`, `size`, `device_id`."""

    ptr, size, device_id = 0, 0, 0

    @property
    def device(self) -> Any:
        from tests.emulated_gpu.runtime import Device

        return Device(self.device_id)


class Memory(BaseMemory):
    """An allocation by cudaMalloc, freed with this object."""

    def __init__(self, size: int) -> None:
        self.size, self.ptr = size, 0
        self.ptr = heap.allocate(size) if size else 0

    def __del__(self) -> None:
        if self.ptr and heap is not None:  # at the end of the process it may be gone
            heap.release(self.ptr)


class UnownedMemory(BaseMemory):
    """Memory that someone else owns, whom this keeps alive."""

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        self.ptr, self.size, self._owner = ptr, size, owner


class PooledMemory(BaseMemory):
    """A block of a pool, to which it returns."""

    def __init__(self, pool: MemoryPool, chunk: MemoryPointer, size: int, stream: int) -> None:
        self.pool, self.chunk, self.size, self.stream = pool, chunk, rounded(size), stream
        self.ptr = chunk.ptr
        BYTES[self.ptr - START : self.ptr - START + self.size] = POISON
        _BLOCKS[self.ptr] = size

    def free(self) -> None:
        if self.ptr:
            _BLOCKS.pop(self.ptr, None)
            self.pool._put_back(self.chunk, self.size, self.stream)
            self.ptr = 0

    def __del__(self) -> None:
        self.free()


_BLOCKS: dict[int, int] = {}  # sizes of the blocks of pools that are in use, by address


class MemoryPointer:
    """An address in memory of the device, which it keeps alive."""

    def __init__(self, mem: BaseMemory, offset: int) -> None:
        self.mem, self.ptr = mem, mem.ptr + offset

    device_id = property(lambda self: self.mem.device_id)
    device = property(lambda self: self.mem.device)

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    __radd__ = __add__

    def __sub__(self, offset: int) -> MemoryPointer:
        return self + -offset

    def copy_from_device(self, src: MemoryPointer, size: int) -> None:
        if capturing():
            raise RuntimeError("the current stream is capturing, so synchronous API calls are disallowed")
        copy(self.ptr, src.ptr, size)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        copy(self.ptr, src.ptr, size, stream)

    def copy_from_host(self, mem: Any, size: int) -> None:
        uploads()
        ctypes.memmove(self.ptr, _address(mem), size)

    def copy_from_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        with stream or get_current_stream():
            uploads()
        copy_with_host(self.ptr, _address(mem), size, stream)

    def copy_to_host(self, mem: Any, size: int) -> None:
        fetches()
        ctypes.memmove(_address(mem), self.ptr, size)

    def copy_to_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        with stream or get_current_stream():
            fetches(waits=False)
        copy_with_host(_address(mem), self.ptr, size, stream)

    def memset(self, value: int, size: int) -> None:
        address = self.ptr
        submit(lambda: _set(address, value, size))

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        address = self.ptr
        submit(lambda: _set(address, value, size), stream=stream)


def _address(mem: Any) -> int:
    return mem if isinstance(mem, int) else mem.value


def _set(address: int, value: int, size: int) -> None:
    ctypes.memset(address, value, size)


def copy(to: int, source: int, size: int, stream: Any = None) -> None:
    """Copy within the device, at once or when the graph being recorded is launched."""
    submit(lambda: ctypes.memmove(to, source, size) and None, stream=stream)


def copy_with_host(to: int, source: int, size: int, stream: Any = None) -> None:
    """Copy between the device and the host, now. If the host's memory is pinned, the copy ends only when waited for."""
    stream, fetched = stream or get_current_stream(), is_device_address(source)
    host = to if fetched else source
    if size and is_pinned_address(host):
        values = ctypes.string_at(source, size)
        stream._copy(memoryview((ctypes.c_char * size).from_address(host)).cast("B"), values, fetched)
        if fetched:
            return
    ctypes.memmove(to, source, size)


def require_live(addresses: Any, what: str) -> None:
    """Raise CUDARuntimeError if memory was given back to the device that recorded work uses."""
    if any(heap.allocation(address) is None for address in addresses):
        raise CUDARuntimeError(
            f"cudaErrorIllegalAddress: an illegal memory access was encountered ({what}: the memory of an argument was "
            "given back to the device)"
        )


# ---- pools ----------------------------------------------------------------------------------------------------------


def _malloc(size: int) -> MemoryPointer:
    return MemoryPointer(Memory(size), 0)


class MemoryPool:
    """Keeps freed blocks for later allocations of the same size on the same stream."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None) -> None:
        self._allocator = allocator or _malloc
        self._free: dict[tuple[int, int], list[MemoryPointer]] = {}
        self._used = self._total = 0
        self._limit = 0
        self._lock = threading.RLock()

    def malloc(self, size: int) -> MemoryPointer:
        with self._lock:
            if not size:
                return MemoryPointer(Memory(0), 0)
            room, stream = rounded(size), get_current_stream().ptr
            kept = self._free.get((room, stream))
            if kept:
                chunk = kept.pop()
            else:
                if self._limit and self._total + room > self._limit:
                    raise OutOfMemoryError(
                        f"Out of memory allocating {room:,} bytes (allocated so far: {self._total:,} bytes, limit set "
                        f"to: {self._limit:,} bytes)."
                    )
                try:
                    chunk = self._allocator(room)
                except OutOfMemoryError:
                    self.free_all_blocks()
                    chunk = self._allocator(room)
                self._total += room
            self._used += room
            return MemoryPointer(PooledMemory(self, chunk, size, stream), 0)

    def _put_back(self, chunk: MemoryPointer, room: int, stream: int) -> None:
        with self._lock:
            self._used -= room
            self._free.setdefault((room, stream), []).append(chunk)

    def free_all_blocks(self, stream: Any = None) -> None:
        with self._lock:
            for key in list(self._free):
                if stream is None or key[1] == stream.ptr:
                    self._total -= key[0] * len(self._free.pop(key))

    def n_free_blocks(self) -> int:
        return sum(map(len, self._free.values()))

    def used_bytes(self) -> int:
        return self._used

    def free_bytes(self) -> int:
        return self._total - self._used

    def total_bytes(self) -> int:
        return self._total

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        self._limit = int(fraction * DEVICE_BYTES) if fraction is not None else size or 0

    def get_limit(self) -> int:
        return self._limit


default_pool = MemoryPool()


class _Allocators(threading.local):
    def __init__(self) -> None:
        self.stack: list[Callable[[int], MemoryPointer]] = []


_ALLOCATORS = _Allocators()
_common: list[Callable[[int], MemoryPointer]] = [default_pool.malloc]


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    """Allocate by `allocator` inside, on this thread."""
    _ALLOCATORS.stack.append(allocator or _malloc)
    try:
        yield
    finally:
        _ALLOCATORS.stack.pop()


def set_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> None:
    if _ALLOCATORS.stack:
        raise ValueError("Thread-local allocator must be disabled to change the global allocator")
    _common[0] = allocator or _malloc


def get_allocator() -> Callable[[int], MemoryPointer]:
    return _ALLOCATORS.stack[-1] if _ALLOCATORS.stack else _common[0]


def alloc(size: int) -> MemoryPointer:
    """Allocate by the current allocator."""
    return get_allocator()(size)


# ---- NumPy's view of it ---------------------------------------------------------------------------------------------


class Window:
    """What NumPy needs to see memory of the device as an array. As the array's base it keeps the memory alive."""

    __slots__ = ("__array_interface__", "pointer")

    def __init__(self, pointer: MemoryPointer | None, address: int, shape: Any, dtype: np.dtype, strides: Any) -> None:
        self.pointer = pointer
        self.__array_interface__ = {
            "version": 3, "data": (address or START, False), "shape": shape, "typestr": _typestr(dtype),
            "strides": strides,
        }  # fmt: skip


def _typestr(dtype: np.dtype) -> str:
    return dtype.str if dtype.kind != "V" else f"|V{dtype.itemsize}"


def seen(pointer: MemoryPointer | None, address: int, shape: Any, dtype: Any, strides: Any = None) -> np.ndarray:
    """Return memory of the device as an array of NumPy."""
    dtype = np.dtype(dtype)
    array = np.asarray(Window(pointer, address, tuple(shape), dtype, strides))
    return array if array.dtype == dtype else array.view(dtype)


def new(shape: Any, dtype: Any, order: str = "C") -> np.ndarray:
    """Return a new array in memory of the device, from the current allocator."""
    dtype, strides = np.dtype(dtype), None
    shape = tuple(int(n) for n in shape)
    count = math.prod(shape)
    if order == "F":
        steps = np.cumprod([dtype.itemsize, *shape[:-1]]) if shape else []
        strides = tuple(int(s) for s in steps)
    pointer = alloc(count * dtype.itemsize)
    return seen(pointer, pointer.ptr, shape, dtype, strides)


def copied(array: np.ndarray) -> np.ndarray:
    """Return a copy of an array of the host in memory of the device."""
    made = new(array.shape, array.dtype, "C" if array.flags.c_contiguous else "F")
    made[...] = array
    return made


def window_of(array: np.ndarray) -> Window | None:
    """Return the window through which an array sees memory of the device, or None if it is the host's."""
    base: Any = array
    while base is not None:
        if isinstance(base, Window):
            return base
        base = getattr(base, "base", None)
    return None


def unowned(array: np.ndarray) -> np.ndarray:
    """Return the same memory as an array that does not keep it alive, for work that a graph records."""
    return seen(None, array.ctypes.data, array.shape, array.dtype, array.strides)


# ---- checks ---------------------------------------------------------------------------------------------------------


def block_of(address: int) -> tuple[int, int] | None:
    """Return (address, size) of the block or allocation around an address, or None if no live one is there."""
    around = heap.allocation(address)
    if around is None:
        return None
    return around[0], _BLOCKS.get(around[0], around[1])


@contextmanager
def guarded(blocks: Any) -> Iterator[list[str]]:
    """Guard blocks, given as (address, size), during a launch; afterwards the list says where guards were overwritten.

    What a pool rounds up after a block is a guard too, but only now: in a graph, blocks of other sizes may use the same
    memory at other times.
    """
    harm: list[str] = []
    ends = [BYTES[start - START + size : start - START + rounded(size)] for start, size in blocks]
    kept = [end.copy() for end in ends]
    for end in ends:
        end[...] = GUARD[: len(end)]
    try:
        yield harm
    finally:
        for (start, size), end, before in zip(blocks, ends, kept, strict=True):
            harm += _harm(start - START, size)
            end[...] = before


def _harm(offset: int, size: int) -> list[str]:
    """Return where the guards around a block were overwritten, and restore those outside its memory."""
    stop = offset + rounded(size)
    harm = []
    before = BYTES[offset - ALIGNMENT : offset]
    if not np.array_equal(before, GUARD):
        at = ALIGNMENT - int(np.flatnonzero(before != GUARD)[-1])
        harm.append(f"{at} bytes before the start of an array of {size} bytes")
        before[...] = GUARD
    after = BYTES[offset + size : stop + ALIGNMENT]
    expected = np.concatenate([GUARD[: rounded(size) - size], GUARD])
    if not np.array_equal(after, expected):
        at = int(np.flatnonzero(after != expected)[0])
        harm.append(f"{at} bytes after the end of an array of {size} bytes")
        BYTES[stop : stop + ALIGNMENT] = GUARD
    return harm


# ---- pinned memory --------------------------------------------------------------------------------------------------


_PINNED: weakref.WeakSet[Any] = weakref.WeakSet()


class PinnedMemory:
    """Memory of the host that the device can read and write."""

    def __init__(self, size: int, flags: int = 0) -> None:
        self._bytes = ctypes.create_string_buffer(max(1, size))
        self.ptr, self.size = ctypes.addressof(self._bytes), size
        _PINNED.add(self)


class _Pinned:
    """What CuPy's PinnedMemoryPointer has beside the buffer protocol, which ctypes gives here."""

    mem: PinnedMemory

    ptr = property(lambda self: ctypes.addressof(self))

    def size(self) -> int:
        return len(self)

    def __int__(self) -> int:
        return self.ptr


@cache
def _pinned_type(size: int) -> Any:
    return type("PinnedMemoryPointer", (_Pinned, ctypes.c_char * size), {})


def alloc_pinned_memory(size: int) -> Any:
    """Return pinned memory with the buffer protocol, as `np.frombuffer` needs it."""
    mem = PinnedMemory(rounded(max(1, size)))
    pointer = _pinned_type(mem.size).from_address(mem.ptr)
    pointer.mem = mem
    return pointer


def is_pinned_address(address: int) -> bool:
    return any(mem.ptr <= address < mem.ptr + mem.size for mem in list(_PINNED))
