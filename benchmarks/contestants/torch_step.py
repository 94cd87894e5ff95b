"""PyTorch: a training step as its users write it, eager or compiled, and attention alone.

The same architecture as ours: torch.nn.Transformer, batch first, so with its fused attention where there is one, and
without the norm that it adds after the last layers; embeddings are scaled, positions sinusoidal. In PyTorch's favor,
causality is given as a hint, and there are no padding masks, because there is no padding. Adam is the fused one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from sizes import DROPOUT, SMOOTHING, Size, batch_of

from contestants import Contestant

LIBRARY = f"PyTorch {torch.__version__}"


class Translator(torch.nn.Module):
    """Embeddings, encoder, decoder, and logits."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.source = torch.nn.Embedding(size.vocabulary, width)
        self.target = torch.nn.Embedding(size.vocabulary, width)
        self.body = torch.nn.Transformer(
            width, size.heads, size.layers, size.layers, size.feed_forward, DROPOUT, batch_first=True
        )
        self.body.encoder.norm = self.body.decoder.norm = None
        self.dropout = torch.nn.Dropout(DROPOUT)
        self.output = torch.nn.Linear(width, size.vocabulary, bias=False)
        for p in self.parameters():
            if p.ndim > 1:
                torch.nn.init.xavier_uniform_(p)
        for table in (self.source, self.target):
            torch.nn.init.normal_(table.weight, std=width**-0.5)
        angles = torch.arange(size.length)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
        self.register_buffer("positions", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
        mask = torch.nn.Transformer.generate_square_subsequent_mask(size.length)
        self.register_buffer("causal", mask)

    def embed(self, table: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        """Return embeddings and positions."""
        return self.dropout(table(ids) * math.sqrt(table.embedding_dim) + self.positions)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x, y = self.embed(self.source, source), self.embed(self.target, target)
        return self.output(self.body(x, y, tgt_mask=self.causal, tgt_is_causal=True))


def step(size: list[int], compiled: bool = False, device: str = "cpu", bf16: bool = False) -> Contestant:
    """Forward, backward and Adam; with `bf16`, under autocast: products in bfloat16, weights and Adam in float32."""
    torch.manual_seed(0)
    model = Translator(Size(*size)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    source, target_in, target_out = (torch.tensor(ids, device=device) for ids in batch_of(Size(*size)))

    def loss_of(source: torch.Tensor, target_in: torch.Tensor, target_out: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits = model(source, target_in)
            return F.cross_entropy(logits.flatten(0, 1), target_out.flatten(), label_smoothing=SMOOTHING)

    if compiled:
        loss_of = torch.compile(loss_of)

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(source, target_in, target_out)
        loss.backward()
        optimizer.step()
        return loss.item()

    kind = f"{', compiled' if compiled else ''}{', bfloat16 autocast' if bf16 else ''}"
    return Contestant(LIBRARY + kind, {"step": step})


def attention(heads: int, length: int, width: int, dropout: float = DROPOUT) -> Contestant:
    """Causal self-attention of one sentence, forward and backward."""
    q, k, v = (torch.randn(1, heads, length, width, requires_grad=True) for _ in range(3))
    dy = torch.randn(1, heads, length, width)

    def step() -> None:
        q.grad = k.grad = v.grad = None
        F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True).backward(dy)

    return Contestant(LIBRARY, {"step": step})
