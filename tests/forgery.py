"""Forged files: values that are wrong in every way, files whose digest fits, and limits of time and memory."""

import json
import math
import os
import signal
import threading
from contextlib import contextmanager

from models.runs.checkpoint import digest

SECONDS, MEMORY = 10, 2**30  # more than any variant may take

DEEP = json.loads("[" * 300 + "]" * 300)
HOSTILE = [
    None, True, False, -1, 0, 1, 3, 1001, 2**20 + 1, 10**9, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(10**400),
    0.0, 0.5, -0.5, 1.5, 2.0, 1e30, 1e308, -1e308, math.nan, math.inf, -math.inf,
    "", "x", "1", "nan", "../../etc/passwd", "a\nb\r\0", "\x1b[31mred\x1b[0m", "\ud800", "\u2028", "x" * 10_000,
    [], [1], [1, 2], [-1, 2], [0.5, True], [None], DEEP, list(range(1000)), {}, {"os": 1}, {"step": 1}, {"": DEEP},
]  # fmt: skip
STRANGE_KEYS = ["", "os", "__class__", "__init__", "digest", "kind", "step", "a\nb", "\x1b[31m", "x" * 10_000, "\ud800"]


@contextmanager
def bounded_memory():
    """Limit the memory that the block may add to the process, so that one without bound fails instead of swapping."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
    except (ImportError, OSError):
        yield  # not Linux
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def deadline():
    """Raise TimeoutError in the block if it takes longer than SECONDS; do nothing where there is no such timer."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _too_late(*_):
    raise TimeoutError(f"more than {SECONDS} s")


def write_forged(path, tensors, metadata):
    """Write a file whose digest fits, whatever it holds; `tl.save` would refuse some of it."""
    written = {**metadata, "digest": digest(tensors, metadata)} if isinstance(metadata, dict) else metadata
    rewrite(path, serialized(tensors, json.dumps(written)))


DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8"}
DTYPES |= {"bool": "BOOL", "complex64": "C64"}


def serialized(tensors, text):
    """Return the bytes of a safetensors file; the package's own function takes half of the time of this test."""
    header, end = {"__metadata__": {"tensorlib": text}}, 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + b"".join(array.tobytes() for array in tensors.values())


def rewrite(path, data):
    path.unlink(missing_ok=True)  # some file systems wait for the disk when a file is truncated
    path.write_bytes(data)


def check_message(text, path):
    assert str(path) in text and text.isprintable() and len(text) < 1500, text[:3000]
