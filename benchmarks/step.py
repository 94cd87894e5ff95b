"""One training step of the encoder-decoder (forward, backward, Adam) beside PyTorch eager, in turn, in one run.

    python benchmarks/step.py [tiny|small|base ...] [--backend numpy|cupy] [--rounds 10]

Post-norm, dropout 0.1, label smoothing 0.1, float32. PyTorch is measured where it is installed; its peer is built from
torch.nn's own layers. Prints the median step of each, their ratio, and which BLAS kernel NumPy's products ran on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_info

import tensorlib as tl
from models.preparing import keep_memory
from models.transformer import Transformer, TransformerConfig
from nn import optim


class Size(NamedTuple):
    """A model and a batch, as B sentences of one length."""

    width: int
    heads: int
    feed_forward: int
    layers: int
    vocabulary: int
    batch: int
    length: int


SIZES = {
    "tiny": Size(64, 4, 256, 2, 1000, 32, 16),
    "small": Size(256, 4, 1024, 3, 8000, 64, 32),
    "base": Size(512, 8, 2048, 6, 10000, 32, 32),
}


def ids(size: Size) -> np.ndarray:
    return np.random.default_rng(0).integers(4, size.vocabulary, (size.batch, size.length))


def our_step(size: Size, backend: str) -> Callable[[], Any]:
    config = TransformerConfig(
        size.vocabulary, size.vocabulary, size.layers, size.width, size.heads, size.feed_forward, dropout=0.1
    )
    model = Transformer(config).to(backend)
    optimizer = optim.Adam(model.named_parameters(), 1e-4)
    tokens = ids(size)

    def step() -> float:
        optimizer.zero_grad()
        loss = tl.cross_entropy(model(tokens, tokens), tokens, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss.item()  # waits for the device

    return step


def torch_step(size: Size, device: str) -> Callable[[], Any]:
    import torch

    class Peer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source = torch.nn.Embedding(size.vocabulary, size.width)
            self.target = torch.nn.Embedding(size.vocabulary, size.width)
            self.body = torch.nn.Transformer(
                size.width, size.heads, size.layers, size.layers, size.feed_forward, 0.1, batch_first=True
            )
            self.dropout = torch.nn.Dropout(0.1)
            self.output = torch.nn.Linear(size.width, size.vocabulary, bias=False)

        def forward(self, x: Any) -> Any:
            causal = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
            source, target = self.dropout(self.source(x)), self.dropout(self.target(x))
            return self.output(self.body(source, target, tgt_mask=causal, tgt_is_causal=True))

    model = Peer().to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    tokens = torch.tensor(ids(size), device=device)

    def step() -> float:
        optimizer.zero_grad()
        logits = model(tokens).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, tokens.flatten(), label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measure(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each, taken in turn so that a slow moment of the machine meets all."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(rounds + 2):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if round_number >= 2:  # the first ones warm up
                times[name].append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(t) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    keep_memory()
    for blas in threadpool_info():
        print(f"{blas['internal_api']} {blas.get('architecture', '')}, {blas['num_threads']} threads", end="; ")
    print(f"OPENBLAS_CORETYPE={os.environ.get('OPENBLAS_CORETYPE', 'unset')}")
    for name in options.sizes:
        size = SIZES[name]
        steps = {"tensorlib": our_step(size, options.backend)}
        try:
            steps["PyTorch"] = torch_step(size, "cpu" if options.backend == "numpy" else "cuda")
        except ImportError:
            print("PyTorch is not installed: no peer")
        medians = measure(steps, options.rounds)
        text = ", ".join(f"{peer} {ms:.1f} ms" for peer, ms in medians.items())
        ratio = f"; ratio {medians['PyTorch'] / medians['tensorlib']:.2f}" if "PyTorch" in medians else ""
        tokens = size.batch * size.length / medians["tensorlib"] * 1e3
        print(f"{name}: {text}{ratio}; {tokens:,.0f} target tokens/s")


if __name__ == "__main__":
    main()
