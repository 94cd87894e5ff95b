"""Errors for what a device refuses while a step is recorded: what happened, in which line, and what to do."""

from __future__ import annotations

from types import TracebackType

from tensorlib.arrays.recorder import Recorder
from tensorlib.engine.recording import shown_line

__all__: list[str] = []

LIBRARIES = ("tensorlib", "nn", "cupy", "cupyx", "cupy_backends", "numpy", "functools", "contextlib")

_REMEDIES = {
    "fetch": "reads a value on the host, which a replay cannot do; return the Tensor from the step and read it after "
    "the call, or compute with tl.where",
    "upload": "copies numbers from the host, which a replay would not do again; pass the array as an argument of the "
    "step, or make it before the step",
    "wait": "waits for the GPU or copies between it and the host, which cannot be recorded; pass arrays as arguments, "
    "return what you read, and synchronize after the call",
    "library": "calls a library that CuPy does not record; compute it before the step, or without the library",
}


def explained_refusal(error: BaseException, recorder: Recorder) -> RuntimeError | None:
    """Return the error for something that cannot be recorded, which names the user's line; None for another error."""
    cause: BaseException | None = error
    while cause is not None:
        if kind := recorder.refusal(cause):
            return RuntimeError(f"capture: {users_line(error.__traceback__)} {_REMEDIES[kind]}")
        cause = cause.__cause__ or cause.__context__
    return None


def users_line(traceback: TracebackType | None) -> str:
    """Return ``file:line`` of the innermost frame of a traceback that belongs to the user."""
    line = "the step"
    while traceback is not None:
        frame = traceback.tb_frame
        name = frame.f_globals.get("__name__", "") + "."
        if not any(name.startswith(library + ".") for library in LIBRARIES):
            line = shown_line(f"{frame.f_code.co_filename}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return line
