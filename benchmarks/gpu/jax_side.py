"""JAX: the jitted training step of `contestants/jax_step.py`, with a set precision of products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from contestants.jax_step import parameters_of, train
from sizes import Size, batch_of

from gpu.worker import Timed

__all__ = ["step"]

MATMUL = {"float32": "float32", "tf32": "tensorfloat32", "bf16": "bfloat16"}


def step(size: Sequence[int], precision: str, warm: int = 4) -> Timed:
    """Return a training step, jitted as a whole. JAX multiplies float32 in TF32 by default, so its precision is set."""
    jax.config.update("jax_default_matmul_precision", MATMUL[precision])
    shape, last = Size(*size), [jnp.zeros(())]

    def build() -> Callable[[], Any]:
        p = parameters_of(shape)
        state = (p, jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), jnp.zeros((), jnp.int32))
        batch = tuple(jnp.asarray(ids) for ids in batch_of(shape))

        def run() -> Any:
            nonlocal state
            state, last[0] = train(state, batch, shape.heads)
            return last[0]

        return run

    def peak(step: Callable[[], Any]) -> dict[str, int]:
        step()
        found = jax.local_devices()[0].memory_stats() or {}
        return {"bytes": found.get("peak_bytes_in_use", 0)}

    library = f"JAX {jax.__version__} on {jax.default_backend()}"
    return Timed(library, {precision: build}, lambda: jax.block_until_ready(last[0]), peak, warm)
