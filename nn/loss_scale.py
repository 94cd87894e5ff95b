"""The dynamic loss scale of training in fp16, which follows the steps without waiting for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import tensorlib as tl
from nn.checks import check_number, check_size, flag_on
from nn.states import fitting_arrays
from tensorlib.arrays.backend import Array, Backend, get_backend
from tensorlib.engine.value import wrap
from tensorlib.messages import kind_of
from tensorlib.ops.loss_scale import loss_scale_update

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["LossScale"]

MOST = 2.0**24


class LossScale:
    """A number by which the loss is multiplied before its backward pass (Micikevicius et al. 2018, section 3.2).

    fp16 has no numbers below 6e-8 and none beyond 65,504. The scale moves small gradients into that range. It starts
    large; a gradient that is not finite says that it is too large. Then the step is skipped and the scale halved, and
    after `grow_after` steps without one it is doubled. All scales are powers of 2 if the first one is, so that scaling
    rounds nothing. bf16 and TF32 have the range of float32 and need no scale.

        with tl.precision("fp16"):
            loss = model.loss(...)
        scale(loss).backward()
        optim.guarded_step(optimizer, loss, max_norm=1.0, loss_scale=scale)
        scale.update(optimizer.skipped)

    `guarded_step` divides the gradients by the scale, and changes nothing if one of them is not finite. Where losses
    are accumulated, scale each part, and update once after the step.

    On a GPU scale and count lie on the device and nothing waits: the same lines may be captured (`tl.capture`), and
    each replay uses and changes them. At the beginning, or when the scale has just been doubled, a few skipped steps
    are normal. Only many in a row say that training diverges, after the scale has fallen to 1.

    first: the scale of the first step. grow_after: the number of steps after which it is doubled; it never exceeds
    2^24. backend: that of the model. Raises TypeError or ValueError for numbers below 1.

    >>> scale = optim.LossScale(1024.0, grow_after=2)
    >>> scale(tl.Tensor(0.5)).item()
    512.0
    >>> for skipped in (False, False, True, True):
    ...     scale.update(skipped)
    ...     print(scale.value.item())
    1024.0
    2048.0
    1024.0
    512.0
    """

    def __init__(self, first: float = 2.0**16, grow_after: int = 2000, backend: str | Backend = "numpy") -> None:
        check_number("LossScale", above=True, first=first)
        check_size("LossScale", grow_after=grow_after)
        if not 1 <= first <= MOST:
            raise ValueError(f"LossScale: first must lie between 1 and 2^24, got {first}; 65536 is usual")
        self.grow_after, self.backend = grow_after, get_backend(backend)
        self._scale: Any = self.backend.asarray(np.array(first, np.float32))
        self._good: Any = self.backend.asarray(np.array(0, np.int64))

    @property
    def value(self) -> tl.Tensor:
        """The current scale, float32 of shape (), on the backend; `update` writes into its array."""
        return wrap(self._scale)

    def __call__(self, loss: tl.Tensor) -> tl.Tensor:
        """Return the loss times the scale, for `backward`."""
        if not isinstance(loss, tl.Tensor):
            raise TypeError(f"LossScale: the loss must be a Tensor, got {kind_of(loss)}; call scale(loss).backward()")
        return loss * self.value

    def update(self, skipped: bool | Array | tl.Tensor) -> None:
        """Adjust the scale after a step. skipped: ``optimizer.skipped``, or a bool: whether the step was skipped.

        Raises TypeError for anything else, and for a flag on another backend.
        """
        flag = flag_on("LossScale", "skipped", skipped, self.backend)
        loss_scale_update(self._scale, self._good, flag, self.grow_after, MOST)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the scale and the count of good steps on the host, for a checkpoint; this waits for the GPU."""
        return {
            "scale": np.array(self.backend.to_numpy(self._scale)), "good": np.array(self.backend.to_numpy(self._good)),
        }  # fmt: skip

    def load_state_dict(self, arrays: Mapping[str, TensorLike]) -> None:
        """Set the scale and the count, in place, to those that `state_dict` returned, also on another backend.

        Raises ValueError with all that is missing, unexpected or out of range, and then changes nothing.
        """
        types: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            "scale": ((), np.dtype(np.float32)), "good": ((), np.dtype(np.int64)),
        }  # fmt: skip
        converted, problems = fitting_arrays("LossScale", arrays, types)
        if not problems:
            ranges = {"scale": (1, MOST), "good": (0, np.inf)}
            problems = [
                f"{name} must lie between {low} and {high}, got {converted[name]}"
                for name, (low, high) in ranges.items()
                if not low <= converted[name] <= high
            ]
        if problems:
            raise ValueError(f"LossScale: the state does not fit: {'; '.join(problems)}")
        self._scale[...] = self.backend.asarray(converted["scale"])
        self._good[...] = self.backend.asarray(converted["good"])

    def __repr__(self) -> str:
        return f"LossScale(grow_after={self.grow_after}, backend={self.backend.name!r})"
