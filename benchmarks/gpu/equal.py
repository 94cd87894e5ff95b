"""Whether the GPU computes what it should: as the CPU in float64, the same bits each time, also captured.

Every model has dropout, whose draws are the same on the CPU and on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from contestants.ours import model_of
from sizes import Size, batch_of

import tensorlib as tl
from gpu.device import open_backend
from gpu.ours import train
from gpu.part import Turn, problem
from gpu.step import OURS
from nn import optim

__all__ = ["run"]

SIZE = Size(32, 4, 64, 2, 60, 4, 8)
CLOSE = 1e-9


def run(turn: Turn) -> None:
    open_backend(turn.backend)
    long, short = (4, 3) if turn.rehearse else (100, 12)
    size = Size(8, 2, 12, 1, 20, 2, 4) if turn.rehearse else SIZE

    def trained(**more: Any) -> np.ndarray:
        return weights_after(size, **{"backend": turn.backend, "steps": short, **more})

    def near() -> dict[str, Any]:
        """Compare with the CPU in float64."""
        ours, host = (trained(backend=name, steps=long, dtype="float64") for name in (turn.backend, "numpy"))
        far = float(np.abs(ours - host).max() / np.abs(host).max())
        return {"text": f"farthest {far:.1e} after {long} steps", "value": far} | failure(far > CLOSE, f"{far:.1e}")

    def same(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Compare the bits of several runs."""
        first, *others = (trained(**more) for more in runs)
        different = max(int((first != other).sum()) for other in others)
        text = f"{different:,} of {first.size:,} weights differ" if different else "the same bits"
        return {"text": text, "value": different} | failure(different > 0, text)

    attempt(turn, "GPU and CPU, float64, dropout", near)
    for precision in ("float32", "tf32", "bf16", "fp16"):
        attempt(turn, f"three runs, {precision}", lambda p=precision: same([{"precision": p}] * 3))
        attempt(
            turn,
            f"captured and uncaptured, {precision}",
            lambda p=precision: same([{"precision": p, "capture": True}, {"precision": p}]),
        )
    attempt(
        turn,
        "captured and uncaptured, guarded step with clipping",
        lambda: same([{"clip": 1.0, "capture": True}, {"clip": 1.0}]),
    )


def failure(wrong: bool, text: str) -> dict[str, str]:
    """Return what marks a row as failed, if it is wrong."""
    return {"failed": text} if wrong else {}


def attempt(turn: Turn, case: str, compare: Callable[[], dict[str, Any]]) -> None:
    """Write a row with what a comparison returns, or with the reason why it could not be made."""
    try:
        turn.row(case, OURS, **compare())
    except Exception as error:
        turn.row(case, OURS, **problem(error))


def weights_after(
    size: Size,
    backend: str,
    steps: int,
    dtype: str = "float32",
    precision: str = "float32",
    capture: bool = False,
    clip: float | None = None,
) -> np.ndarray:
    """Return all weights of a model with dropout after some steps, in one array on the host."""
    tl.seed(0)
    model = model_of(size).astype(dtype).to(backend)
    optimizer = optim.Adam(model.named_parameters(), 1e-3)
    step = train(optimizer, model, precision, capture, clip)
    for i in range(steps):
        optimizer.learning_rate = 1e-3 / (1 + i)  # which a captured step has to notice
        step(*batch_of(size))
    return np.concatenate([np.asarray(tl.Tensor(p.data).numpy()).ravel() for p in model.parameters()])
