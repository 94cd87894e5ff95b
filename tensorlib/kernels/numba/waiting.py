"""How an idle thread waits for the next piece of work: for some two milliseconds without sleeping, and without the GIL.

A thread that sleeps needs 20 to 150 microseconds to wake up, and on a virtual machine its processor is slow for a
while after that. In a training step the next piece comes sooner, so that OpenMP's threads wait like this, too.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tensorlib.kernels.numba.compiling import compiled

__all__ = ["can_wait", "wait_for_change"]

PAUSES = 1 << 16  # of 30 to 40 nanoseconds each


def can_wait() -> bool:
    """Return whether the processor has the instruction for waiting that is used here."""
    return platform.machine() in ("x86_64", "AMD64")


@intrinsic
def _current(context, numbers):  # type: ignore[no-untyped-def]  # Numba calls it
    """Return the first element of an array, which another thread may change, read from memory each time."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(array.data, ordering="acquire", align=8)

    return types.int64(numbers), build


@intrinsic
def _pause(context):  # type: ignore[no-untyped-def]
    """Execute the instruction that lets a waiting core save power."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), build


@compiled
def wait_for_change(counter: Any, seen: int) -> None:
    """Return when counter[0] is no longer `seen`, or after some two milliseconds."""
    for _ in range(PAUSES):
        if _current(counter) != seen:
            return
        _pause()
