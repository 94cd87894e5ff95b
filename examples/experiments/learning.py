"""What experiments share in training: a loop for small models, and tasks on generated sequences.

The loop has no checkpoints. An experiment trains many small models, each for a minute or less, and keeps the result of
each, so an interruption costs the model in progress.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nn
import tensorlib as tl
from models.text.batching import Batch, make_batch
from models.text.tokens import EOS
from nn import optim, schedules

__all__ = ["FIRST", "TASKS", "fit", "sequences", "smooth", "task_batch"]

FIRST = EOS + 1  # the id of symbol 0; smaller ids are special tokens

TASKS: dict[str, Callable[[list[int]], list[int]]] = {
    "copy": lambda ids: ids,
    "reverse": lambda ids: ids[::-1],
    "sort": sorted,
}


def fit(
    model: nn.Module,
    loss: Callable[[int], tl.Tensor],
    steps: int,
    rate: float = 1e-3,
    warmup: int = 100,
    clip: float = 1.0,
    good_enough: float = 0.0,
    optimizer: type[optim.Optimizer] = optim.Adam,
) -> dict[str, Any]:
    """Train a model; ``loss(step)`` returns the loss of a new batch.

    The rate rises over `warmup` steps, then falls along a cosine. Training ends early if the mean of the last 50 losses
    is below `good_enough`, or if the loss or the gradient is no longer finite. Returns, for each step, the loss and the
    norm of the gradient before clipping, and the seconds in all.
    """
    made, rates = optimizer(model.named_parameters(), rate), schedules.cosine(rate, warmup, steps)
    losses: list[float] = []
    norms: list[float] = []
    began = time.perf_counter()
    model.train()
    with tl.threads(), np.errstate(all="ignore"):
        for step in range(1, steps + 1):
            value = loss(step)
            made.zero_grad()
            value.backward()
            losses.append(float(value.item()))
            squares = [float((p.grad * p.grad).sum().item()) for p in model.parameters() if p.grad is not None]
            norms.append(math.sqrt(sum(squares)) if all(map(math.isfinite, squares)) else math.inf)
            if not (math.isfinite(losses[-1]) and math.isfinite(norms[-1])):
                break
            optim.clip_grad_norm(model.parameters(), clip or math.inf)
            made.learning_rate = rates(step)
            made.step()
            if step % 100 == 0:
                print(f"    step {step}/{steps}  loss {np.mean(losses[-100:]):.4f}", flush=True)
            if np.mean(losses[-50:]) < good_enough and step >= 50:
                break
    model.eval()
    return {"losses": losses, "norms": norms, "seconds": time.perf_counter() - began}


def sequences(count: int, length: int, symbols: int, random: np.random.Generator) -> list[list[int]]:
    """Draw sequences of ids; each has between half and all of `length` symbols."""
    sizes = random.integers((length + 1) // 2, length + 1, size=count)
    return [(FIRST + random.integers(symbols, size=size)).tolist() for size in sizes.tolist()]


def task_batch(task: str, rows: list[list[int]]) -> Batch:
    """Return a batch of a task's sources and targets."""
    return make_batch([([*row, EOS], TASKS[task](row)) for row in rows])


def smooth(values: list[float], window: int = 50) -> np.ndarray:
    """Return the mean of each `window` neighbours."""
    window = min(window, len(values))
    return np.convolve(values, np.full(window, 1 / window), mode="valid")
