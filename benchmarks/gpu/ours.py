"""tensorlib: a training step, captured or not, attention over long sequences, and decoding, on an array backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from contestants.ours import model_of
from sizes import DROPOUT, SMOOTHING, Size, batch_of

import tensorlib as tl
from gpu.device import open_backend
from gpu.worker import Timed
from models.text.tokens import EOS
from nn import optim

__all__ = ["attention", "captured", "decoding", "in_precision", "step", "train"]

LIBRARY = f"tensorlib {tl.__version__}"
Step = Callable[..., tl.Tensor]


def captured(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step, recorded by `tl.capture`; ImportError where there is none."""
    from tensorlib import capture

    return capture(step)


def in_precision(name: str) -> Any:
    """Return `tl.precision`; ImportError if this machine does not multiply in this precision."""
    try:
        return tl.precision(name)
    except (RuntimeError, ValueError) as error:
        raise ImportError(str(error)) from None


def train(optimizer: Any, model: Any, precision: str, capture: bool, clip: float | None = None) -> Step:
    """Return a training step as one writes it: forward, backward, update; the loss stays on the device.

    With `clip` and in fp16, whose gradients may overflow, the update is guarded.
    """
    in_precision(precision)
    scale = loss_scale(model) if precision == "fp16" else None
    if clip or scale:
        from nn.optim import guarded_step

    def step(source: Any, target_in: Any, target_out: Any) -> tl.Tensor:
        optimizer.zero_grad()
        with tl.precision(precision):
            loss = model.loss(source, target_in, target_out, label_smoothing=SMOOTHING)
        if scale:
            scale(loss).backward()
            guarded_step(optimizer, loss, clip, scale.value)
            scale.update(optimizer.skipped)
            return loss.detach()
        loss.backward()
        if clip:
            guarded_step(optimizer, loss, clip)
        else:
            optimizer.step()
        return loss.detach()

    return captured(step) if capture else step


def loss_scale(model: Any) -> Any:
    """Return a dynamic loss scale on the model's backend; ImportError where there is none."""
    from nn.optim import LossScale

    return LossScale(backend=next(iter(model.parameters())).backend)


def step(size: Sequence[int], backend: str, precision: str, capture: bool, warm: int = 4) -> Timed:
    """Return a training step of the encoder-decoder, whose ids come from the host in each step."""
    wait, peak, free = open_backend(backend)
    ids = batch_of(Size(*size))
    model = model_of(Size(*size))  # on the host, which takes a while for a large one

    def build() -> Callable[[], Loss]:
        tl.seed(0)
        model.to(backend)
        run = train(optim.Adam(model.named_parameters(), 1e-4), model, precision, capture)
        return lambda: Loss(run(*ids))

    return Timed(LIBRARY, {precision: build}, wait, peak, warm, free)


class Loss:
    """A loss that leaves the device when it is read."""

    def __init__(self, tensor: tl.Tensor) -> None:
        self.tensor = tensor

    def __float__(self) -> float:
        return self.tensor.item()


def attention(lengths: Sequence[int], heads: int, width: int, backend: str, precision: str) -> Timed:
    """Causal self-attention of one sentence, forward and backward, with dropout."""
    wait, peak, free = open_backend(backend)

    def build(length: int) -> Callable[[], None]:
        in_precision(precision)
        rng = np.random.default_rng(0)
        shape = (1, heads, length, width)
        q, k, v, dy = (tl.Tensor(rng.standard_normal(shape, "float32")).to(backend) for _ in range(4))
        q, k, v = (tl.Tensor(x.data, requires_grad=True) for x in (q, k, v))

        def run() -> None:
            with tl.precision(precision):
                y = tl.scaled_dot_product_attention(q, k, v, causal=True, dropout=DROPOUT)
            y.backward(dy)
            q.grad = k.grad = v.grad = None

        return run

    return Timed(LIBRARY, {str(length): partial(build, length) for length in lengths}, wait, peak, 1, free)


def decoding(
    size: Sequence[int], batches: dict[str, list[list[list[int]]]], beams: Sequence[int], backend: str
) -> Timed:
    """Decode batches of sources, each target as long as its batch's longest source; steps are named "beam 1, 50"."""
    from models.decoding.beam import beam_search  # imports portalocker, which training does not need
    from models.decoding.token_by_token import greedy

    wait, peak, free = open_backend(backend)
    model = model_of(Size(*size), dropout=0.0).eval()
    weight = model.output.weight.numpy().copy()
    weight[:, EOS] = 0  # the logit of </s> is 0, and some other is larger: no target ends
    model.output.weight.replace(weight)
    model.to(backend)

    def build(beam: int, given: list[list[list[int]]]) -> Callable[[], int]:
        def run() -> int:
            count = 0
            for sources in given:
                limit = max(map(len, sources))
                if beam == 1:
                    count += sum(map(len, greedy(model, sources, max_length=limit)))
                else:
                    count += sum(len(found[0].tokens) for found in beam_search(model, sources, beam, max_length=limit))
            return count

        return run

    steps = {f"beam {beam}, {name}": partial(build, beam, given) for name, given in batches.items() for beam in beams}
    return Timed(LIBRARY, steps, wait, peak, 3, free)
