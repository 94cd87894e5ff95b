"""cupy.cuda.runtime and cupy.cuda.Device of the emulated device."""

from __future__ import annotations

import ctypes
from typing import Any

from tests.emulated_gpu import device, memory
from tests.emulated_gpu.compiler import compiler
from tests.emulated_gpu.device import CUDARuntimeError, Stream, counts, get_current_stream, submit

memcpyHostToHost, memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice, memcpyDefault = range(5)
streamDefault, streamNonBlocking = 0, 1
streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = range(3)
eventDefault, eventBlockingSync, eventDisableTiming, eventInterprocess = 0, 1, 2, 4
is_hip = False

# ruff: noqa: SIM905  # CuPy's names; plain words are easier to read than quoted ones
NAMES = """
    CUDARuntimeError deviceGetAttribute deviceSynchronize driverGetVersion getDevice getDeviceCount getDeviceProperties
    eventBlockingSync eventDefault eventDisableTiming eventInterprocess is_hip memGetInfo memcpy memcpyAsync
    memcpyDefault memcpyDeviceToDevice memcpyDeviceToHost memcpyHostToDevice memcpyHostToHost memset memsetAsync
    runtimeGetVersion setDevice streamCaptureModeGlobal streamCaptureModeRelaxed streamCaptureModeThreadLocal
    streamDefault streamIsCapturing streamNonBlocking streamSynchronize
""".split()


def getDeviceCount() -> int:
    """Return 1. Raises CUDARuntimeError without a compiler for the kernels: tests are then skipped with the reason."""
    if compiler() is None:
        raise CUDARuntimeError("the emulated GPU needs g++ to compile CUDA sources; install it, or set CXX")
    return 1


def getDevice() -> int:
    return 0


def setDevice(number: int) -> None:
    if number:
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")


def getDeviceProperties(number: int) -> dict[str, Any]:
    """Return the properties of an H100 that a program may ask for."""
    setDevice(number)
    return {
        "name": b"emulated GPU (a CPU)", "totalGlobalMem": memory.DEVICE_BYTES, "major": 9, "minor": 0,
        "multiProcessorCount": 132, "warpSize": 32, "maxThreadsPerBlock": 1024, "sharedMemPerBlock": 49152,
        "clockRate": 1980000, "memoryClockRate": 2619000, "memoryBusWidth": 5120, "l2CacheSize": 52428800,
        "regsPerBlock": 65536,
        "maxThreadsPerMultiProcessor": 2048, "sharedMemPerMultiprocessor": 233472, "concurrentKernels": 1,
        "maxGridSize": (2**31 - 1, 65535, 65535), "maxThreadsDim": (1024, 1024, 64), "pciBusID": 0,
    }  # fmt: skip


def deviceGetAttribute(attribute: int, number: int) -> int:
    known = {1: 1024, 10: 32, 16: 132, 75: 9, 76: 0}
    if attribute not in known:
        raise NotImplementedError(f"the emulated device does not know the attribute {attribute}")
    return known[attribute]


def runtimeGetVersion() -> int:
    return 13000


driverGetVersion = runtimeGetVersion


def memGetInfo() -> tuple[int, int]:
    total = memory.heap.limit or memory.DEVICE_BYTES
    return total - memory.heap.used, total


def deviceSynchronize() -> None:
    if get_current_stream().is_capturing():
        get_current_stream()._unsupported()
    for stream in list(device.ALL.values()):
        stream._end(stream._ended + len(stream._copies))
    counts.synchronisations += 1


def _stream(pointer: int) -> Stream:
    """Return the stream with this address: the current one, or one whose work runs at once."""
    current = get_current_stream()
    if current.ptr == pointer:
        return current
    return device.ALL.get(pointer, Stream.null)


def streamSynchronize(pointer: int) -> None:
    _stream(pointer).synchronize()


def streamIsCapturing(pointer: int) -> bool:
    return _stream(pointer).is_capturing()


def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    """Copy. Unlike the methods of arrays, this refuses nothing: a graph records copies from and to the host too."""
    _count_copy(kind, dst, src)
    work, inside = _stream(stream), _on_device(kind, dst, src)
    if inside or work.is_capturing():
        submit(lambda: ctypes.memmove(dst, src, size) and None, stream=work, kernel=inside)
    else:
        memory.copy_with_host(dst, src, size, work)


def memcpy(dst: int, src: int, size: int, kind: int) -> None:
    get_current_stream()._unsupported()
    _count_copy(kind, dst, src)
    counts.synchronisations += 1
    submit(lambda: ctypes.memmove(dst, src, size) and None, kernel=_on_device(kind, dst, src))


def _on_device(kind: int, dst: int, src: int) -> bool:
    return kind == memcpyDeviceToDevice or all(map(memory.is_device_address, (dst, src)))


def _count_copy(kind: int, dst: int, src: int) -> None:
    to, source = memory.is_device_address(dst), memory.is_device_address(src)
    expected = {0: (False, False), 1: (True, False), 2: (False, True), 3: (True, True)}.get(kind, (to, source))
    if expected != (to, source):
        raise CUDARuntimeError("cudaErrorInvalidValue: invalid argument")
    counts.uploads += to and not source
    counts.fetches += source and not to


def memset(address: int, value: int, size: int) -> None:
    submit(lambda: memory._set(address, value, size))


def memsetAsync(address: int, value: int, size: int, stream: int) -> None:
    submit(lambda: memory._set(address, value, size), stream=_stream(stream))


class Device:
    """The one device."""

    def __init__(self, device: int | None = None) -> None:
        setDevice(device or 0)
        self.id = 0

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    def __hash__(self) -> int:
        return 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def __repr__(self) -> str:
        return "<CUDA Device 0>"

    def use(self) -> Device:
        return self

    def synchronize(self) -> None:
        deviceSynchronize()

    compute_capability = "90"
    mem_info = property(lambda self: memGetInfo())
    attributes = property(lambda self: {"MultiProcessorCount": 132, "WarpSize": 32, "MaxThreadsPerBlock": 1024})
    pci_bus_id = "0000:00:00.0"


def get_device_id() -> int:
    return 0
