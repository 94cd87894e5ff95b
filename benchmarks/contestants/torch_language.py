"""The language model of models/architectures/language.py in PyTorch, with weights under the same names.

Written from the papers' formulas with PyTorch's functions: pre- or post-norm layers, rotary positions by rotating
halves, sinusoidal or learned positions, one matrix for embedding and output or two.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.architectures.language import LanguageConfig

__all__ = ["TorchLanguageModel"]

Cache = list[tuple[Tensor, Tensor]]


class TorchLanguageModel(nn.Module):
    """The model with these weights, as `state_dict` of the model in tensorlib returns them."""

    def __init__(self, config: LanguageConfig, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.config = config
        self.names = {name.replace(".", "/"): name for name in weights}
        self.weights = nn.ParameterDict({key: torch.tensor(weights[name]) for key, name in self.names.items()})

    def weight(self, name: str) -> Tensor:
        """Return a weight by its name in tensorlib."""
        return self.weights[name.replace(".", "/")]

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the gradient of each weight by its name in tensorlib."""
        return {name: self.weights[key].grad.numpy() for key, name in self.names.items()}

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Return logits (B, T, V) for ids (B, T). A cache has keys and values of earlier ids, and gets those of ids."""
        c, start = self.config, cache[0][0].shape[2] if cache else 0
        table = self.weight("embedding.weight")
        x = self.dropout(table[ids] * math.sqrt(c.width) + self.positions(start, ids.shape[1], table), "embedding")
        for i in range(c.layers):
            x = self.layer(f"decoder.layers.{i}", i, x, start, cache)
        if c.norm == "pre":
            x = self.norm("decoder.norm", x)
        return x @ (table.T if c.tie_embeddings else self.weight("output.weight"))

    def layer(self, path: str, i: int, x: Tensor, start: int, cache: Cache | None) -> Tensor:
        """Return the output of a layer: attention, then feed-forward, each with its residual and norm."""

        def attend(x: Tensor) -> Tensor:
            return self.attention(f"{path}.attention", i, x, start, cache)

        def feed_forward(x: Tensor) -> Tensor:
            hidden = F.relu(self.linear(f"{path}.feed_forward.hidden", x))
            return self.linear(f"{path}.feed_forward.output", self.dropout(hidden, "feed_forward"))

        for name, sublayer in (("attention", attend), ("feed_forward", feed_forward)):
            norm = f"{path}.{name}_residual.norm"
            if self.config.norm == "pre":
                x = x + self.dropout(sublayer(self.norm(norm, x)))
            else:
                x = self.norm(norm, x + self.dropout(sublayer(x)))
        return x

    def attention(self, path: str, i: int, x: Tensor, start: int, cache: Cache | None) -> Tensor:
        """Return causal self-attention."""
        batch, length, width = x.shape
        heads = self.linear(f"{path}.projection", x).view(batch, length, 3, self.config.heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        if self.config.positions == "rotary":
            q, k = rotated(q, start), rotated(k, start)
        if cache is not None:
            if start:
                k, v = torch.cat([cache[i][0], k], dim=2), torch.cat([cache[i][1], v], dim=2)
            cache[i : i + 1] = [(k, v)]
        p = self.config.dropout_on("attention") if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=start == 0)
        return self.linear(f"{path}.output", y.transpose(1, 2).reshape(batch, length, width))

    def positions(self, start: int, length: int, like: Tensor) -> Tensor | float:
        """Return what is added to the embeddings."""
        c = self.config
        if c.positions == "learned":
            return self.weight("positions.weight")[start : start + length]
        if c.positions != "sinusoidal":
            return 0.0
        angles = torch.arange(start, start + length, dtype=torch.float64)[:, None] * frequencies(c.width)
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float().to(like.dtype)

    def linear(self, path: str, x: Tensor) -> Tensor:
        """Return x W + b."""
        return F.linear(x, self.weight(f"{path}.weight").T, self.weight(f"{path}.bias"))

    def norm(self, path: str, x: Tensor) -> Tensor:
        """Return the layer norm of x."""
        return F.layer_norm(x, x.shape[-1:], self.weight(f"{path}.weight"), self.weight(f"{path}.bias"))

    def dropout(self, x: Tensor, part: str = "") -> Tensor:
        """Return x with the dropout of a part of the model, or that of residuals."""
        return F.dropout(x, self.config.dropout_on(part) if part else self.config.dropout, self.training)


def rotated(x: Tensor, start: int) -> Tensor:
    """Return x (B, H, T, K) turned by its positions: x cos + rotate_half(x) sin, as in GPT-NeoX and LLaMA."""
    angles = torch.arange(start, start + x.shape[2], dtype=torch.float64)[:, None] * frequencies(x.shape[3])
    angles = torch.cat([angles, angles], dim=-1)
    first, second = x.chunk(2, dim=-1)
    half = torch.cat([-second, first], dim=-1)
    return x * angles.cos().to(x.dtype) + half * angles.sin().to(x.dtype)


def frequencies(width: int) -> Tensor:
    """Return 1 / 10000^(2i / width)."""
    return 1 / 10_000.0 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
