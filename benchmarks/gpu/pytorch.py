"""PyTorch as its users write it: fused Adam, nn.Transformer, scaled_dot_product_attention, autocast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from contestants.torch_step import LIBRARY, Translator
from sizes import DROPOUT, SMOOTHING, Size, batch_of

from gpu.worker import Timed

__all__ = ["attention", "ceilings", "step"]

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def step(size: Sequence[int], precisions: Sequence[str], device: str, compiled: bool = False, warm: int = 5) -> Timed:
    """Return training steps, eager or compiled, named by their precision; the batch lies on the device."""
    steps = {name: partial(training_step, Size(*size), name, device, compiled) for name in precisions}
    return Timed(LIBRARY, steps, partial(wait, device), partial(peak, device), warm, partial(free, device))


def training_step(size: Size, precision: str, device: str, compiled: bool) -> Callable[[], Any]:
    torch.manual_seed(0)
    model = Translator(size).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    scaler = torch.amp.GradScaler(device) if precision == "fp16" else None
    batch = [torch.tensor(ids, device=device) for ids in batch_of(size)]

    def loss_of(source: torch.Tensor, target_in: torch.Tensor, target_out: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, HALF.get(precision, torch.bfloat16), enabled=precision in HALF):
            logits = model(source, target_in)
            return F.cross_entropy(logits.flatten(0, 1), target_out.flatten(), label_smoothing=SMOOTHING)

    if compiled:  # the rehearsal's stand-in needs no C++ compiler
        loss_of = torch.compile(loss_of, **({"mode": "reduce-overhead"} if device == "cuda" else {"backend": "eager"}))

    def run() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(*batch)
        if scaler:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            optimizer.step()
        return loss.detach()

    return in_precision(precision, run)


def in_precision(precision: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """Return the step with the setting for float32 products that belongs to its precision."""

    def step() -> Any:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        return run()

    return step


def attention(lengths: Sequence[int], heads: int, width: int, device: str, precision: str) -> Timed:
    """Causal self-attention of one sentence, forward and backward, with dropout."""

    def build(length: int) -> Callable[[], None]:
        dtype = HALF.get(precision, torch.float32)
        q, k, v, dy = (torch.randn(1, heads, length, width, device=device, dtype=dtype) for _ in range(4))
        for x in (q, k, v):
            x.requires_grad_()

        def run() -> None:
            F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT, is_causal=True).backward(dy)
            q.grad = k.grad = v.grad = None

        return in_precision(precision, run)

    steps = {str(length): partial(build, length) for length in lengths}
    return Timed(LIBRARY, steps, partial(wait, device), partial(peak, device), warm=1)


def ceilings(device: str, width: int, copied: int) -> Timed:
    """Products of two square matrices by precision, and a copy of `copied` bytes."""

    def product(precision: str) -> Callable[[], None]:
        dtype = HALF.get(precision, torch.float32)
        a, b = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)

        def run() -> None:
            torch.mm(a, b, out=out)

        return in_precision(precision, run)

    def copy() -> Callable[[], None]:
        a = torch.randn(copied // 4, device=device)
        b = torch.empty_like(a)

        def run() -> None:
            b.copy_(a)

        return run

    steps = {name: partial(product, name) for name in ("float32", "tf32", "bf16", "fp16")}
    return Timed(LIBRARY, {"copy": copy, **steps}, partial(wait, device), partial(peak, device), warm=2)


def wait(device: str) -> None:
    """Wait for the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak(device: str, step: Callable[[], Any]) -> dict[str, int]:
    """Return the most bytes of tensors that a step holds in addition to those before it."""
    if device != "cuda":
        step()
        return {"bytes": 0}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return {"bytes": torch.cuda.max_memory_allocated() - before}


def free(device: str) -> int:
    """Return the free bytes of the card."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else 0
