"""A training step on a device: recorded once for each shape of its batches, then replayed, and never waited for.

The host only uploads the batch; see `tl.capture`. Loss, norm and whether the step was skipped come back later, while
the next steps already run: see `results`.

Shape suffixes: B batch, S source length, T target length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tensorlib as tl
from models.architectures.encoder_decoder import EncoderDecoder
from models.runs.config import TrainConfig
from models.text.batching import Batch
from models.training.epochs import Epochs
from models.training.ladder import SHAPES, Ladder
from nn import optim
from nn.averaging import ExponentialMovingAverage
from tensorlib.arrays.backend import Array, Pending
from tensorlib.engine.value import wrap

__all__ = ["DeviceStep", "ladder_for"]


def ladder_for(config: TrainConfig, epochs: Epochs) -> Ladder | None:
    """Return the shapes of the batches of a run; None if nothing is recorded, and batches stay as they are."""
    if not config.capture:
        return None
    first = 1 if config.tokenizer.dropout else 3  # with BPE-dropout, each epoch takes as long as encoding the text
    return Ladder.for_batches(np.concatenate([epochs.shapes(epoch) for epoch in range(first)]))


class DeviceStep:
    """Steps of one run: loss, gradients, clipping, update and moving average, all on the device.

    Without a ladder every batch keeps its shape, and nothing is recorded.

    With one batch a step, a step is one recording. With several, one adds up the gradients of a part, and another
    updates the weights from the sums.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: EncoderDecoder,
        optimizer: optim.Optimizer,
        average: ExponentialMovingAverage | None,
        ladder: Ladder | None,
    ) -> None:
        self._config, self._model, self._optimizer, self._average = config.optim, model, optimizer, average
        self._precision, self._ladder, self._number = config.precision, ladder, 0
        self._sums: _Sums | None = None
        self.scale = optim.LossScale(backend=model.backend) if config.precision == "fp16" else None
        self._step, self._part = self._recorded(self._whole), self._recorded(self._add)
        self._finish = self._recorded(self._update)

    def __call__(self, batches: Sequence[Batch], tokens: int, number: int) -> Pending:
        """Take step `number` with batches of so many tokens in all; return [loss, norm, whether it was skipped].

        Errors: IndexError for an id outside of a vocabulary, as on the host.
        """
        self._number = number  # which the moving average reads
        for batch in batches:
            self._model.check_batch(batch.source_BS, batch.target_in_BT, batch.target_out_BT)
        inputs = [self._inputs(batch, tokens) for batch in batches]
        with np.errstate(all="ignore"):  # what is not finite is skipped
            if self._config.accumulate == 1:
                result = self._step(*inputs[0])
            else:
                self._sums = self._sums or _Sums(self._optimizer)
                for arrays in inputs:
                    self._part(*arrays)
                result = self._finish()
        return self._model.backend.fetch_later(result)

    def _recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        backend = self._model.backend
        if self._ladder is None or not backend.records:
            return lambda *arrays: function(*(None if a is None else backend.asarray(a) for a in arrays))
        return tl.capture(function, backend=backend, most=SHAPES + 8)

    def _inputs(self, batch: Batch, tokens: int) -> tuple[Any, ...]:
        """Return a batch's arrays, on the host, and the factor by which its summed loss becomes a part of the mean."""
        padded = batch if self._ladder is None else self._ladder.padded(batch)
        per_token = np.array(1 / tokens, self._model.first_embedding.weight.dtype)
        source_BS = padded.source_BS if padded.source_BS.size else None  # a language model has none
        return source_BS, padded.target_in_BT, padded.target_out_BT, per_token

    # ---- on the device, recorded ----

    def _whole(self, source_BS: Array | None, inputs_BT: Array, targets_BT: Array, per_token: Array) -> Array:
        loss = self._loss(source_BS, inputs_BT, targets_BT, per_token)
        self._scaled(loss).backward()
        return self._updated(loss)

    def _add(self, source_BS: Array | None, inputs_BT: Array, targets_BT: Array, per_token: Array) -> None:
        loss = self._loss(source_BS, inputs_BT, targets_BT, per_token)
        self._scaled(loss).backward()
        assert self._sums is not None
        self._sums.add(loss)

    def _update(self) -> Array:
        assert self._sums is not None
        result = self._updated(self._sums.hand_over())
        self._sums.clear()
        return result

    def _loss(self, source_BS: Any, inputs_BT: Any, targets_BT: Any, per_token: Any) -> tl.Tensor:
        """Return the batch's part of the mean loss of the step, as the host computes it."""
        if source_BS is None:
            source_BS = inputs_BT[:, :0]
        with tl.precision(self._precision):
            summed = self._model.loss(source_BS, inputs_BT, targets_BT, self._config.label_smoothing, "sum")
        return summed * wrap(per_token)

    def _scaled(self, loss: tl.Tensor) -> tl.Tensor:
        return loss if self.scale is None else self.scale(loss)

    def _updated(self, loss: tl.Tensor) -> Array:
        """Update the weights unless the loss or a gradient is not finite; return the step's three results."""
        scale: Any = 1.0 if self.scale is None else self.scale.value
        norm = optim.guarded_step(self._optimizer, loss, self._config.clip or None, scale)
        skipped: Any = self._optimizer.skipped
        if self.scale is not None:
            self.scale.update(skipped)
        if self._average is not None:
            self._average.update(lambda: self._number, unless=skipped)
        self._optimizer.zero_grad()
        results = [loss.data.astype("float64"), norm.data.astype("float64"), skipped.astype("float64")]
        return self._model.backend.xp.stack([array.reshape(()) for array in results])


class _Sums:
    """The gradients and the loss of a step's parts so far, on the device, in arrays that stay the same."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self._parameters = [p for p in optimizer.parameters.values() if p.requires_grad]
        xp = self._parameters[0].backend.xp
        self._arrays: list[Any] = [xp.zeros(p.shape, p.dtype) for p in self._parameters]
        self._loss: Any = xp.zeros((), "float64")

    def add(self, loss: tl.Tensor) -> None:
        """Add the gradients that the parameters have, and take them away; add the loss, in float64 as on the host."""
        for parameter, total in zip(self._parameters, self._arrays, strict=True):
            if parameter.grad is not None:
                total += parameter.grad.data
                parameter.grad = None
        self._loss += loss.data.astype("float64")

    def hand_over(self) -> tl.Tensor:
        """Give the parameters the sums as their gradients; return the loss."""
        for parameter, total in zip(self._parameters, self._arrays, strict=True):
            parameter.grad = wrap(total)
        return wrap(self._loss)

    def clear(self) -> None:
        """Set all sums to zero."""
        for array in [*self._arrays, self._loss]:
            array.fill(0)
