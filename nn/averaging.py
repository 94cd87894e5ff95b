"""Averages of weights, over training steps or over checkpoints; they often translate better than the last weights.

Late in training the weights move around the minimum of the loss; their mean is closer to it (Polyak and Juditsky 1992;
for Transformers, Vaswani et al. 2017, section 6.1, and Popel and Bojar 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

import tensorlib as tl
from nn.checks import check_fraction, check_size, flag_on
from nn.device_updates import depend_all
from nn.parameter_lists import named_tensors
from nn.states import fitting_arrays, shape_mismatches
from tensorlib.arrays.backend import Array, backend_of
from tensorlib.arrays.capturing import current_capture, note_read
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.messages import kind_of
from tensorlib.ops.update import average_update
from tensorlib.ops.update_in_place import average_steps

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["ExponentialMovingAverage", "average"]


class ExponentialMovingAverage:
    """e <- d e + (1 - d) w after each step, with d = min(decay, (1 + t) / (10 + t)) at step t.

    The bound (1 + t) / (10 + t), as in TensorFlow's ExponentialMovingAverage with `num_updates`, lets the average
    forget the random initial weights: at step t the average covers about the last t / 9 steps, and in the end the last
    1 / (1 - decay). Adam's correction (start at zero, divide by 1 - decay^t) would also work, but with the bound, `e`
    itself is a usable set of weights at any time, and nothing else has to be stored.

    >>> model = nn.Linear(2, 1)
    >>> average = nn.averaging.ExponentialMovingAverage(model.named_parameters(), decay=0.999)
    >>> model.bias.replace(np.ones(1, "float32"))  # a training step
    >>> average.update(step=1)
    >>> with average.applied():  # the model has the averaged weights within the block
    ...     model.bias.numpy()
    array([0.8181818], dtype=float32)
    >>> model.bias.numpy()
    array([1.], dtype=float32)

    The average starts as a copy of the parameters and stays on the backend that they have then, so move the model
    first. That of float16 parameters is float32, because a step of (1 - d) (w - e) is too small for float16. Buffers
    are not averaged. `parameters` is ``model.parameters()`` or ``model.named_parameters()``, with the checks of
    `nn.optim.Optimizer`. Raises ValueError unless the decay is in [0, 1).
    """

    def __init__(self, parameters: Iterable[tl.Tensor | tuple[str, tl.Tensor]], decay: float) -> None:
        check_fraction("ExponentialMovingAverage", decay=decay)
        self.parameters, self.decay = named_tensors("ExponentialMovingAverage", parameters), decay
        self.begin()

    def begin(self) -> None:
        """Start again from a copy of the current parameters."""
        self.arrays: dict[str, Array] = {name: p.data.astype(sum_dtype(p)) for name, p in self.parameters.items()}

    def update(self, step: int | Callable[[], int], unless: bool | Array | tl.Tensor | None = None) -> None:
        """Include the parameters as they are after step number `step`, counted from 1.

        unless: ``optimizer.skipped``, or another bool of shape (), on their backend; if it is true, nothing changes.
        In a captured step, `step` must be a function, which is called at each replay.

        Raises ValueError for a number below 1, also of a function, and TypeError for a number in a captured step, for
        another `unless`, and for one on another backend.
        """
        if not callable(step):
            if current_capture() is not None:
                raise TypeError(
                    "ExponentialMovingAverage: in a captured step the number of the step must be a function, which is "
                    f"called at each replay, got {step}; use average.update(lambda: progress.step)"
                )
            check_size("ExponentialMovingAverage", step=step)
        on_host = [name for name, array in self.arrays.items() if isinstance(array, np.ndarray)]
        on_device = [name for name in self.arrays if name not in on_host]
        there = backend_of(self.arrays[on_device[0]]) if on_device else None
        flag = False if unless is None else flag_on("ExponentialMovingAverage", "unless", unless, there)
        if flag is True:
            return
        if on_device:
            self._update_on_device(on_device, step, None if flag is False else flag)
        if on_host and not bool(flag):
            decay = self._decay_at(step)
            for name in on_host:
                average_update(self.arrays[name], self.parameters[name].data, decay)

    def _decay_at(self, step: int | Callable[[], int]) -> float:
        t = step() if callable(step) else step
        check_size("ExponentialMovingAverage", step=t)
        return min(self.decay, (1 + t) / (10 + t))

    def _update_on_device(self, names: list[str], step: int | Callable[[], int], unless: Array | None) -> None:
        """Update these averages in a few launches, without waiting for the device."""
        averages, weights = [self.arrays[name] for name in names], [self.parameters[name].array for name in names]
        kind = type(averages[0])
        moved = [name for name, w in zip(names, weights, strict=True) if type(w) is not kind]
        if moved:
            raise TypeError(
                f"ExponentialMovingAverage: the average is on another backend than {moved[0]}; make it after model.to"
            )
        average_steps(averages, weights, unless, lambda: self._decay_at(step))
        depend_all(lambda: [self.arrays[name] for name in names])
        for name in names:
            note_read(self.parameters[name])

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the average on the host, by the names of the parameters, for `load_state_dict`."""
        return {name: np.array(p.backend.to_numpy(self.arrays[name])) for name, p in self.parameters.items()}

    def load_state_dict(self, arrays: Mapping[str, TensorLike]) -> None:
        """Replace the average by a copy of `arrays`, as returned by `state_dict`.

        Raises ValueError with *all* names that are missing, unexpected, of the wrong shape, or of values that the
        average cannot hold, and then changes nothing.
        """
        types = {name: (array.shape, array.dtype) for name, array in self.arrays.items()}
        converted, problems = fitting_arrays("ExponentialMovingAverage", arrays, types)
        if problems:
            raise ValueError(f"ExponentialMovingAverage: the state does not fit: {'; '.join(problems)}")
        self.arrays = {name: p.backend.asarray(converted[name]) for name, p in self.parameters.items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the parameters the averaged values within a ``with`` block, then restore their previous values."""
        own = {name: p.data for name, p in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.replace(as_dtype(self.arrays[name], parameter.dtype))
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.replace(own[name], copy=False)


def average(states: Iterable[Mapping[str, TensorLike]]) -> dict[str, np.ndarray]:
    """Return the mean of state_dicts, name by name, summed in float64 and converted to the dtypes of the first.

    Integers, such as a buffer that counts steps, are those of the last state. Only one state is held at a time, so
    `states` may be a generator. Raises ValueError if there is no state, or if the names or shapes of a state differ
    from those of the first.

    >>> nn.averaging.average([{"w": np.array([1.0, 2.0])}, {"w": np.array([3.0, 6.0])}])
    {'w': array([2., 4.])}
    """
    totals: dict[str, np.ndarray] = {}
    dtypes: dict[str, np.dtype] = {}
    count = 0
    for count, state in enumerate(states, start=1):
        if not isinstance(state, Mapping):
            raise TypeError(f"average: needs an iterable of state_dicts, got {kind_of(state)}; pass model.state_dict()")
        arrays = {name: a.numpy() if isinstance(a, tl.Tensor) else np.asarray(a) for name, a in state.items()}
        if count == 1:
            totals = {name: np.zeros(array.shape, np.float64) for name, array in arrays.items()}
            dtypes = {name: array.dtype for name, array in arrays.items()}
        problems = shape_mismatches({n: a.shape for n, a in totals.items()}, {n: a.shape for n, a in arrays.items()})
        if problems:
            raise ValueError(f"average: state {count} does not fit the first: {'; '.join(problems)}")
        for name, array in arrays.items():
            if dtypes[name].kind == "f":
                totals[name] += array
            else:
                totals[name] = array
    if not count:
        raise ValueError("average: one or more state_dicts are required, got none")
    return {
        name: (total / count if dtypes[name].kind == "f" else total).astype(dtypes[name])
        for name, total in totals.items()
    }
