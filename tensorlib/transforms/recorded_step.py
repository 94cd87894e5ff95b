"""A step that was recorded on a device for arguments of certain shapes, with everything that a replay needs.

A replay starts the kernels that were recorded, with the same addresses. So what the step reads lies at the addresses
of recording: arguments are copied into the step's own inputs, and what else it reads is held, and compared by identity
before each replay. What Python did while recording is repeated: gradients appear in ``.grad``, versions rise,
generators advance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import is_
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.backend import Backend, backend_of
from tensorlib.arrays.capturing import WORDS, Capture, capturing
from tensorlib.arrays.recorder import Recorder, Replayable
from tensorlib.arrays.sharing import note_overwritten
from tensorlib.engine.node import next_serial
from tensorlib.engine.recording import recording
from tensorlib.engine.value import wrap
from tensorlib.tensor import Tensor
from tensorlib.transforms.nesting import mapped

__all__: list[str] = []

ALIGNED = 256  # bytes, as CUDA aligns arrays of their own


class LeafTape:
    """Lists the Tensors without history that ops read, in the place of `checkpoint`'s tape."""

    def __init__(self, reads: Callable[[Any], None]) -> None:
        self.reads = reads

    def ran(self, node: Any, inputs: Sequence[Any]) -> None:
        """List the inputs of an op that has run in this thread, recorded or not."""
        for x in inputs:
            if isinstance(x, Tensor) and x.node is None:
                self.reads(x)

    def extend(self, inner: Any) -> None:
        """List the leaves that the region of a `checkpoint` has read."""
        for reference in inner.leaves.values():
            if (leaf := reference()) is not None:
                self.reads(leaf)


class Inputs:
    """The arrays from which a recorded step reads its arguments.

    Slots and arguments that come from the host lie in one block of memory, so that one upload fills them all.
    """

    def __init__(self, recorder: Recorder, backend: Backend, arguments: Sequence[Any]) -> None:
        self.recorder = recorder
        arrays = [raw(x) for x in arguments]
        self.from_host = [isinstance(array, np.ndarray) for array in arrays]
        self.offsets, size = [], WORDS * 8
        for array, host in zip(arrays, self.from_host, strict=True):
            self.offsets.append(size)
            size += -(-array.nbytes // ALIGNED) * ALIGNED if host else 0
        xp = backend.xp
        with recorder.memory():
            self.block = xp.empty(size, "uint8")
            self.arrays = [
                self.block[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
                if host and a.size
                else xp.empty(a.shape, a.dtype)
                for a, host, start in zip(arrays, self.from_host, self.offsets, strict=True)
            ]
        self.slots = self.block[: WORDS * 8].view("uint64")

    def fill(self, arguments: Sequence[Any], words: np.ndarray, more: Sequence[tuple[Array, Array]]) -> None:
        """Copy the arguments of a call and the words of the slots to the device, and `more` pairs (target, source)."""
        given = [raw(x) for x in arguments]

        def write(host: np.ndarray) -> None:
            host[: words.nbytes] = words.view(np.uint8)
            for array, start, from_host in zip(given, self.offsets, self.from_host, strict=True):
                if from_host:
                    place = host[start : start + array.nbytes]
                    place.view(array.dtype).reshape(array.shape)[...] = array

        if any(self.from_host):
            self.recorder.upload(self.block, write)
        elif words.size:
            self.recorder.upload(self.block[: words.nbytes], write)
        own = zip(self.arrays, given, self.from_host, strict=True)
        self.recorder.copy([*[(array, x) for array, x, from_host in own if not from_host], *more])


class Leaf:
    """A Tensor without history that a recorded step reads, as it was when the step first read it.

    `final` is its gradient after the step.
    """

    __slots__ = ("array", "final", "grad", "needs_grad", "tensor")

    def __init__(self, tensor: Tensor, array: Array) -> None:
        self.tensor, self.array, self.needs_grad = tensor, array, tensor.needs_grad
        self.grad = self.final = tensor.grad


class RecordedStep(Capture):
    """A step, recorded for arguments like `arguments`.

    Args:
        known: Tensors that earlier runs of the step have read.
    """

    def __init__(self, recorder: Recorder, backend: Backend, arguments: Sequence[Any], known: Iterable[Tensor]) -> None:
        self.recorder, self.backend = recorder, backend
        self.inputs = Inputs(recorder, backend, arguments)
        super().__init__(self.inputs.slots)
        self.leaves: dict[int, Leaf] = {}
        self._before = [(leaf, leaf.grad) for leaf in known]
        self._replaced: dict[int, tuple[Any, Array]] = {}
        self._rises: dict[int, tuple[Any, int]] = {}  # by how much the step raises the version of a Tensor
        self._held: dict[int, Any] = {}
        self._trained: list[Leaf] = []
        self._sensitive: list[Leaf] = []  # those for which it matters whether a gradient is there before the step
        self._present: list[bool] = []  # whether it is
        self._given: list[Tensor | None] = []
        self._graph: Replayable | None = None
        self._result: Any = None

    # ---- while recording ----

    def record(self, run: Callable[[Callable[[Any], Any]], Any], arguments: Sequence[Any]) -> None:
        """Record ``run(place)``, where ``place(argument)`` is what takes the place of the next argument.

        If that fails, Tensors and generators are as before.
        """
        inputs = iter(zip(arguments, self.inputs.arrays, strict=True))

        def place(_: Any) -> Any:
            given, array = next(inputs)
            inner = None
            if isinstance(given, Tensor):
                inner = wrap(array)
                inner.needs_grad = given.needs_grad
            self._given.append(inner if inner is not None and inner.needs_grad else None)
            return array if inner is None else inner

        def step() -> Any:
            result = mapped(run(place), without_history)
            self._finish()
            return result

        try:
            with capturing(self), recording(tape=_HoldingTape(self)):
                self._graph, self._result = self.recorder.record(step)
        except BaseException:
            self._restore()
            raise
        finally:
            self.rewind()
            self._before.clear()  # gradients are large
            self._replaced.clear()

    def reads(self, leaf: Any) -> None:
        """Note a Tensor that the step reads, unless it was computed in it."""
        if id(leaf) not in self.leaves and not self.recorder.owns(leaf.array):
            _, array = self._replaced.get(id(leaf), (leaf, leaf.array))
            self.leaves[id(leaf)] = Leaf(leaf, array)
            self.hold(leaf.array)

    def hold(self, array: Any) -> None:
        """Keep an array alive that the step reads, because another one could get its memory."""
        if not self.recorder.owns(array):
            self._held[id(array)] = array

    def replaces(self, leaf: Any) -> None:
        """Note the array and the version that a Tensor had before the step first changed its value."""
        if id(leaf) not in self._replaced and not self.recorder.owns(leaf.array):  # else it was made in this step
            self._replaced[id(leaf)] = leaf, leaf.array
            self._rises[id(leaf)] = leaf, -leaf.version

    def _finish(self) -> None:
        """Let the results of this step be the starting point of the next, at the same addresses.

        A Tensor whose array was replaced gets its old array back, with the new values; likewise a gradient to which the
        step has added.
        """
        pairs = []
        for key, (tensor, array) in self._replaced.items():
            self._rises[key] = tensor, self._rises[key][1] + tensor.version
            if tensor.array is not array:
                pairs.append(_alike(array, tensor.array, "a Tensor's array"))
                self.hold(tensor.array)
                tensor.array = array
        had_gradient = {id(tensor) for tensor, grad in self._before if grad is not None}
        for key, leaf in self.leaves.items():
            grad = leaf.tensor.grad
            if leaf.grad is not None and grad is not None and grad is not leaf.grad:
                pairs.append(_alike(leaf.grad.array, grad.array, "a gradient"))
                leaf.tensor.grad = leaf.grad
            leaf.final = leaf.tensor.grad
            if leaf.needs_grad:
                self._trained.append(leaf)
                if leaf.grad is not None or key not in had_gradient:  # otherwise the step sets it to None first
                    self._sensitive.append(leaf)
                    self._present.append(leaf.grad is not None)
        self.recorder.copy(pairs)

    def _restore(self) -> None:
        """Give Tensors back what they had before a recording that failed."""
        for tensor, array in self._replaced.values():
            tensor.array = array
        for leaf in self.leaves.values():
            leaf.tensor.grad = leaf.grad
        for tensor, grad in self._before:
            tensor.grad = grad

    # ---- replaying ----

    def fits(self) -> bool:
        """Return whether gradients are there, or not, as when the step was recorded."""
        return [leaf.tensor.grad is not None for leaf in self._sensitive] == self._present

    def is_current(self) -> bool:
        """Return whether everything that the step reads is still at its address."""
        leaves = self.leaves.values()
        have = [x for leaf in leaves for x in (leaf.tensor.array, leaf.tensor.needs_grad)]
        had = [x for leaf in leaves for x in (leaf.array, leaf.needs_grad)]
        return all(map(is_, have, had)) and super().is_current()

    def launch(self, arguments: Sequence[Any], again: bool) -> Any:
        """Run the step on the device; return copies of its results. again: whether to repeat Python's side effects."""
        assert self._graph is not None
        self.recorder.begin()
        self.inputs.fill(arguments, self.words(), self._moved_gradients())
        self._graph.launch()
        self.advance()
        if again:
            self.repeat()
            now = next_serial()
            for tensor, rise in self._rises.values():
                tensor.version += rise
                note_overwritten(tensor.array, now)
        for leaf in self._trained:
            leaf.tensor.grad = leaf.final
        for given, inner in zip(arguments, self._given, strict=True):
            if inner is not None and inner.grad is not None:
                add_gradient(given, inner.grad.array)
        return mapped(self._result, self._copied)

    def _moved_gradients(self) -> list[tuple[Array, Array]]:
        """Return pairs (address of recording, array) of the gradients that the step reads, but which lie elsewhere."""
        pairs = []
        for leaf in self._sensitive:
            if leaf.grad is not None:
                grad = leaf.tensor.grad
                if grad is not None and grad.array is not leaf.grad.array:
                    pairs.append(_alike(leaf.grad.array, grad.array, "a gradient"))
        return pairs

    def _copied(self, x: Any) -> Any:
        """Return a result for the caller: a copy if the next replay writes over it."""
        array = raw(x)
        if not self.recorder.owns(array):
            return x
        return wrap(array.copy()) if isinstance(x, Tensor) else array.copy()


class _HoldingTape(LeafTape):
    """Also holds the other arrays that recorded ops read."""

    def __init__(self, step: RecordedStep) -> None:
        super().__init__(step.reads)
        self._hold = step.hold

    def ran(self, node: Any, inputs: Sequence[Any]) -> None:
        super().ran(node, inputs)
        waiting = [*vars(node).values(), *inputs]
        while waiting:
            item = waiting.pop()
            if isinstance(item, Tensor):
                item = item.array
            if isinstance(item, tuple | list):
                waiting.extend(item)
            elif isinstance(item, dict):
                waiting.extend(item.values())
            elif hasattr(item, "dtype"):
                self._hold(item)


def raw(x: Any) -> Any:
    """Return the array of a Tensor, or an array as it is."""
    return x.array if isinstance(x, Tensor) else x


def without_history(x: Any) -> Any:
    """Return a Tensor that was computed in a graph without it; anything else as it is."""
    return wrap(x.array) if isinstance(x, Tensor) and x.node is not None else x


def add_gradient(x: Tensor, dx: Array) -> None:
    """Add a gradient that was computed on a device to ``x.grad``, as ``backward`` does."""
    if backend_of(dx) is not x.backend:
        dx = x.backend.asarray(backend_of(dx).to_numpy(dx))
    x.grad = wrap(dx.copy() if x.grad is None else x.grad.array + dx)


def _alike(target: Any, source: Any, what: str) -> tuple[Any, Any]:
    """Return the pair for a copy; raise RuntimeError if one cannot take the place of the other."""
    if type(target) is not type(source) or target.shape != source.shape or target.dtype != source.dtype:
        raise RuntimeError(
            f"capture: {what} must keep its type in a captured step, got {source.shape} {source.dtype} in place of "
            f"{target.shape} {target.dtype}; convert it outside of the step"
        )
    return target, source
