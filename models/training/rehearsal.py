"""How long a run will take, estimated by timing its first steps."""

from __future__ import annotations

import statistics
import time
from itertools import cycle, islice

import numpy as np

import tensorlib as tl
from models.training.device_step import DeviceStep, ladder_for
from models.training.epochs import Epochs
from models.training.feeding import make_feeding
from models.training.optimizer import make_optimizer
from models.training.start import Prepared
from nn import optim

__all__ = ["rehearsed_seconds"]

STEPS = 3


def rehearsed_seconds(run: Prepared) -> float:
    """Return the seconds that a step takes on this machine; the weights are changed, nothing is written.

    The first step is not counted, because it also allocates the memory that later steps use again.
    """
    if run.model.backend.xp is not np:
        return _rehearsed_on_device(run)
    optimizer, accumulate = make_optimizer(run.config, run.model), run.config.optim.accumulate
    batches = cycle(Epochs(run).batches(0, 0, (STEPS + 1) * accumulate))
    feeding, times = make_feeding(run.config, STEPS), []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        with np.errstate(all="ignore"):  # whether training diverges is not measured here
            for batch in islice(batches, accumulate):
                inputs_BT = feeding.inputs(run.model, batch, 1)
                with tl.precision(run.config.precision):
                    loss = run.model.loss(batch.source_BS, inputs_BT, batch.target_out_BT, 0.1)
                loss.backward()
            optim.clip_grad_norm(run.model.parameters(), 1.0)
            optimizer.step()
        optimizer.zero_grad()
        loss.item()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _rehearsed_on_device(run: Prepared) -> float:
    """Return the same for a device: of steps with one batch, which is recorded in the first two."""
    epochs, optimizer = Epochs(run), make_optimizer(run.config, run.model)
    optimizer.learning_rate = run.config.optim.learning_rate
    ladder = ladder_for(run.config, epochs)
    step, times = DeviceStep(run.config, run.model, optimizer, None, ladder), []
    batches = epochs.batches(0, 0, run.config.optim.accumulate)
    tokens = sum(batch.tokens for batch in batches)
    for number in range(1, STEPS + 3):
        began = time.perf_counter()
        step(batches, tokens, number).value()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])
