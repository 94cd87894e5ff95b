"""capture: record a step once on a device, then replay it without Python."""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import update_wrapper
from threading import RLock
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar

from tensorlib.arrays.backend import Backend, backend_of, get_backend
from tensorlib.arrays.capturing import current_capture
from tensorlib.arrays.recorder import Recorder
from tensorlib.engine.recording import STATE, State, recording
from tensorlib.engine.value import wrap
from tensorlib.messages import shown
from tensorlib.tensor import Tensor
from tensorlib.transforms.nesting import Signature, mapped
from tensorlib.transforms.recorded_step import LeafTape, RecordedStep, add_gradient, raw, without_history
from tensorlib.transforms.refusals import explained_refusal

__all__ = ["capture"]

P = ParamSpec("P")
R = TypeVar("R")

_RUNNING: ContextVar[bool] = ContextVar("tensorlib_captured_step", default=False)  # within one, on any backend

MANY = 4  # recordings that differ in a number only, after which a warning says so


def capture(step: Callable[P, R], *, backend: str | Backend | None = None, most: int = 16) -> Captured[P, R]:
    """Return a function that does what `step` does, and on a GPU records it once and then replays it without Python.

    On CuPy, the first call with arrays of given shapes and dtypes runs `step`. The second records a CUDA graph, and
    launches it. Later ones copy the arguments into the graph, launch it, and return copies of the results: a training
    step then costs what its kernels cost. All give the same bits as `step`. On NumPy every call runs `step`.

    >>> w = nn.Parameter([1.0, 2.0])
    >>> optimizer = optim.SGD([w], learning_rate=0.25)
    >>> @tl.capture
    ... def step(x):
    ...     optimizer.zero_grad()
    ...     loss = (w * x).sum()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> step(np.ones(2, "float32")).item(), step(np.ones(2, "float32")).item()
    (3.0, 2.5)

    Arrays may be arguments themselves, or be in lists, tuples, dicts and dataclasses. On CuPy, `step` gets arrays of
    NumPy as arrays of CuPy, and Tensors on the host as Tensors on the GPU. All other arguments, Python's numbers
    among them, are constants of a recording: another value is recorded anew. So pass a number that changes as a 0-d
    array. Returned Tensors have no history, on any backend; what is neither Tensor nor array is what it was when
    recorded.

    `step` must not write into its arguments, which are copies in a replay.

    A recording is made anew if the array of a parameter, or of another Tensor that `step` reads, was replaced by
    another, as by ``load_state_dict``. What changes from step to step and goes right all the same: draws of generators,
    learning rates, step counts and versions, gradients in ``.grad`` and their accumulation. A ``.grad`` after a
    captured step lies in the memory of the recording: the next call may write over it. Everything else that Python
    does in `step`, such as printing or appending to a list, happens only when it runs or is recorded.

    Within `step`, nothing may wait for the GPU, or copy from or to the host: no ``item()``, ``float(x)``, ``if x:``,
    ``x.numpy()``, ``print(x)``, and no Tensor from a list or an array of NumPy. Return what you want to read, and pass
    arrays as arguments.

    backend: where `step` computes; by default where its array arguments are or, if all of those are on the host, where
    the Tensors are that its ops read in the first call, which then gets the arrays on the host as they are.
    most: how many recordings are kept, each with its memory; the one that was used the longest ago is dropped first.
    ``step.clear()`` drops all. Shapes share memory best if the largest is recorded first.

    Raises RuntimeError within another captured step, and ValueError for an argument with history, through which no
    gradient could flow. Only a GPU raises RuntimeError for something that cannot be recorded, naming the line, and
    within `debug`, which needs all values; and only there calls that differ in a number are warned of. On NumPy a step
    that waits, such as one with ``item()``, runs.
    """
    if not callable(step):
        raise TypeError(f"capture: needs a function, as in capture(step); got {shown(step)}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValueError(f"capture: most must be an integer of at least 1, got {shown(most)}")
    return Captured(step, None if backend is None else get_backend(backend), most)


class Captured(Generic[P, R]):
    """What `capture` returns; call it as the step itself."""

    def __init__(self, step: Callable[P, R], backend: Backend | None, most: int) -> None:
        self._step, self._backend, self._most = step, backend, most
        self._inferred: Backend | None = None  # where the ops of the first call computed
        self._lock = RLock()
        self._recorder: Recorder | None = None
        self._recordings: OrderedDict[Any, list[RecordedStep]] = OrderedDict()  # by key: none yet, if it ran once
        self._known: dict[int, weakref.ref[Tensor]] = {}  # the Tensors without history that the step has read
        self._numbers: dict[Any, list[list[tuple[str, Any]]]] = defaultdict(list)
        update_wrapper(self, step, updated=())  # the attributes of a module are not those of this object

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind to an instance, so that a method can be captured; each instance is recorded separately."""
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run, record or replay the step."""
        state = STATE.get()
        if current_capture() is not None or _RUNNING.get():
            raise RuntimeError("capture: a captured step cannot call another; capture only the outer one")
        if state.tape is not None:  # within `checkpoint`, which repeats ops and draws itself
            return self._step(*args, **kwargs)
        signature = Signature(args, kwargs)
        _check_arguments(signature.arrays)
        token = _RUNNING.set(True)
        try:
            return self._run(state, signature, args, kwargs)
        finally:
            _RUNNING.reset(token)

    def _run(self, state: State, signature: Signature, args: Any, kwargs: Any) -> Any:
        backend = self._home(signature.arrays)
        if not backend.records:
            return self._on_host(backend, signature, args, kwargs)
        if state.watch is not None:
            raise RuntimeError("capture: a replay shows no values to tl.debug() or tl.explain(); call the step itself")
        with self._lock:
            return self._on_device(backend, signature, args, kwargs)

    def clear(self) -> None:
        """Drop all recordings, and free their memory. Gradients in it are copied."""
        with self._lock:
            recorder, self._recorder = self._recorder, None
            self._recordings.clear()
            if recorder is not None:
                for leaf in self._leaves():
                    if leaf.grad is not None and recorder.owns(leaf.grad.array):
                        leaf.grad = wrap(leaf.grad.array.copy())
                recorder.close()

    def __del__(self) -> None:
        if getattr(self, "_recorder", None) is not None:
            with suppress(Exception):  # the interpreter may be about to end
                self.clear()

    def _leaves(self) -> list[Tensor]:
        """Return the Tensors without history that the step has read, and that still exist."""
        return [leaf for reference in self._known.values() if (leaf := reference()) is not None]

    def _note(self, leaf: Tensor) -> None:
        self._known[id(leaf)] = weakref.ref(leaf)

    # ---- where ----

    def _home(self, arrays: Sequence[Any]) -> Backend:
        """Return the backend on which the step computes."""
        if self._backend is not None:
            return self._backend
        host = get_backend("numpy")
        for x in arrays:
            if (own := backend_of(raw(x))) is not host:
                return own
        return self._inferred or host

    def _on_host(self, backend: Backend, signature: Signature, args: Any, kwargs: Any) -> Any:
        """Run the step; in the first call, find out whether its ops compute elsewhere."""
        if self._backend is not None or self._inferred is not None:
            return mapped(self._step(*args, **kwargs), without_history)
        with recording(tape=LeafTape(self._note)):
            result = mapped(self._step(*args, **kwargs), without_history)
        self._inferred = next((b for leaf in self._leaves() if (b := leaf.backend) is not backend), backend)
        if not signature.arrays:  # with arrays on the host, the next call is the first that gets them on the device
            self._recordings[self._key(signature, self._inferred)] = []
        return result

    def _key(self, signature: Signature, backend: Backend) -> Any:
        state = STATE.get()
        return (*signature.key, backend, state.record, state.precision, state.formulas)

    # ---- on a device ----

    def _on_device(self, backend: Backend, signature: Signature, args: Any, kwargs: Any) -> Any:
        key = self._key(signature, backend)
        steps = self._recordings.get(key)
        if steps is None:
            self._warn_of_numbers(signature)
            result = self._plain(backend, args, kwargs)
            self._recordings[key] = []
            self._drop_oldest()
            return result
        self._recordings.move_to_end(key)
        steps[:] = [step for step in steps if step.is_current()]
        fitting = next((step for step in steps if step.fits()), None)
        if fitting is not None:
            return fitting.launch(signature.arrays, again=True)
        step = self._recorded(backend, signature.arrays, args, kwargs)
        steps.append(step)
        self._drop_oldest()
        return step.launch(signature.arrays, again=False)

    def _plain(self, backend: Backend, args: Any, kwargs: Any) -> Any:
        """Run the step with its arguments on the device, and note which Tensors it reads."""
        moved: list[tuple[Tensor, Tensor]] = []

        def place(x: Any) -> Any:
            if backend_of(raw(x)) is backend:
                return x
            array = backend.asarray(raw(x))
            if not isinstance(x, Tensor):
                return array
            inner = wrap(array)
            inner.needs_grad = x.needs_grad
            moved.append((x, inner))
            return inner

        with recording(tape=LeafTape(self._note)):
            args, kwargs = mapped((args, kwargs), place)
            result = mapped(self._step(*args, **kwargs), without_history)
        for x, inner in moved:
            if inner.grad is not None:
                add_gradient(x, inner.grad.array)
        return result

    def _recorded(self, backend: Backend, arrays: Sequence[Any], args: Any, kwargs: Any) -> RecordedStep:
        if self._recorder is None:
            self._recorder = backend.recorder()
        assert self._recorder is not None
        step = RecordedStep(self._recorder, backend, arrays, self._leaves())

        def run(place: Callable[[Any], Any]) -> Any:
            own_args, own_kwargs = mapped((args, kwargs), place)
            return self._step(*own_args, **own_kwargs)

        try:
            step.record(run, arrays)
        except Exception as error:
            if (refused := explained_refusal(error, self._recorder)) is not None:
                raise refused from error
            raise
        for leaf in step.leaves.values():
            self._note(leaf.tensor)
        return step

    def _drop_oldest(self) -> None:
        """Drop the recordings used the longest ago, beyond `most`; forget calls of old that were never recorded."""
        count = sum(len(steps) for steps in self._recordings.values())
        for key in list(self._recordings):
            steps = self._recordings[key]
            while steps and count > self._most:
                steps.pop(0)
                count -= 1
            if not steps and len(self._recordings) > 8 * self._most:
                del self._recordings[key]

    def _warn_of_numbers(self, signature: Signature) -> None:
        """Warn, once for each pattern of arguments, if calls differ in a number again and again."""
        seen = self._numbers[signature.pattern]
        if len(seen) < MANY:
            seen.append(signature.numbers)
            if len(seen) == MANY and (found := _differing(seen)):
                place, values = found
                warnings.warn(
                    f"capture: {MANY} calls of {getattr(self._step, '__name__', 'the step')} cannot share a recording, "
                    f"because {place} was {values}; pass a number that changes as a 0-d array, such as np.asarray(x)",
                    stacklevel=5,
                )


def _check_arguments(arrays: Sequence[Any]) -> None:
    for x in arrays:
        if isinstance(x, Tensor) and x.node is not None:
            raise ValueError(
                f"capture: arguments must have no history, got a Tensor computed by {x.node.name}, to which no "
                "gradient would flow back; pass x.detach(), or compute it in the step"
            )


def _differing(seen: Sequence[Sequence[tuple[str, Any]]]) -> tuple[str, str] | None:
    """Return the place of the first number that differs between calls, and its values."""
    for numbers in zip(*seen, strict=True):
        values = list(dict.fromkeys(repr(value) for _, value in numbers))
        if len(values) > 1:
            return numbers[0][0], ", ".join(values)
    return None
