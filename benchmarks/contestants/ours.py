"""tensorlib: a training step, attention alone, a short training run; and the peak of NumPy's BLAS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from sizes import DROPOUT, SMOOTHING, Size, batch_of

import tensorlib as tl
from contestants import Contestant
from models.architectures.transformer import Transformer, TransformerConfig
from nn import optim
from tensorlib.kernels import chosen

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # source, target to read, target to predict
KERNELS = {"0": "no kernels", "numpy": "NumPy's kernels", "numba": "kernels compiled by Numba"}[chosen()]
LIBRARY = f"tensorlib {tl.__version__}, NumPy {np.__version__}, {KERNELS}"


def model_of(size: Size, backend: str = "numpy", dropout: float = DROPOUT) -> Transformer:
    """Return the encoder-decoder of this size."""
    config = TransformerConfig(
        size.vocabulary,
        size.vocabulary,
        size.layers,
        size.width,
        size.heads,
        size.feed_forward,
        dropout,
        max_length=max(512, size.length + 1),
    )
    return Transformer(config, tl.Generator(0)).to(backend)


def training_step(
    model: Transformer, learning_rate: float, batch: Callable[[], Batch], precision: str = "float32"
) -> Callable[[], float]:
    """Return a function that runs forward, backward and Adam on the next result of `batch`."""
    try:
        tl.precision(precision)
    except RuntimeError as error:
        raise ImportError(str(error)) from None  # so that it is left out, as where a library is missing
    optimizer = optim.Adam(model.named_parameters(), learning_rate)

    def step() -> float:
        optimizer.zero_grad()
        with tl.precision(precision):
            loss = model.loss(*batch(), label_smoothing=SMOOTHING)
        loss.backward()
        optimizer.step()
        return loss.item()  # waits for the GPU

    return step


def step(size: list[int], backend: str = "numpy", precision: str = "float32") -> Contestant:
    tl.seed(0)
    ids = batch_of(Size(*size))
    library = LIBRARY
    if backend != "numpy":
        import cupy

        library += f", CuPy {cupy.__version__}"
    return Contestant(library, {"step": training_step(model_of(Size(*size), backend), 1e-4, lambda: ids, precision)})


def attention(heads: int, length: int, width: int, dropout: float = DROPOUT) -> Contestant:
    """Causal self-attention of one sentence, forward and backward."""
    rng = np.random.default_rng(0)
    q, k, v = (tl.Tensor(rng.normal(size=(1, heads, length, width)).astype("f"), requires_grad=True) for _ in range(3))
    dy = tl.Tensor(rng.normal(size=(1, heads, length, width)).astype("f"))

    def step() -> None:
        q.grad = k.grad = v.grad = None
        tl.scaled_dot_product_attention(q, k, v, causal=True, dropout=dropout).backward(dy)

    return Contestant(LIBRARY, {"step": step})


def copying(size: list[int], seed: int = 0, learning_rate: float = 1e-3) -> Contestant:
    """Train on fresh batches of a learnable task: the source reversed. `finish` returns a hash of all weights."""
    shape = Size(*size)
    tl.seed(seed)
    rng = np.random.default_rng(seed)
    model = model_of(shape)

    def batch() -> Batch:
        source = rng.integers(4, min(shape.vocabulary, 40), (shape.batch, shape.length))
        target = source[:, ::-1]
        begin = np.full((shape.batch, 1), 2)
        return source, np.concatenate([begin, target[:, :-1]], axis=1), target

    def finish() -> dict[str, Any]:
        digest = hashlib.sha256()
        for name, weights in sorted(model.state_dict().items()):
            digest.update(
                name.encode() + np.asarray(weights.numpy() if hasattr(weights, "numpy") else weights).tobytes()
            )
        return {"hash": digest.hexdigest()}

    return Contestant(LIBRARY, {"step": training_step(model, learning_rate, batch)}, finish)


def blas_peak(width: int = 2048) -> Contestant:
    """Products of two square float32 matrices with NumPy, on all threads; `finish` returns the "flops" of one."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(width, width)).astype("f") for _ in range(2))
    c = np.empty_like(a)

    def step() -> None:
        np.matmul(a, b, out=c)

    return Contestant(f"NumPy {np.__version__}", {"step": step}, lambda: {"flops": 2 * width**3})
