"""What a Transformer's heads look at in one sentence.

Shape suffixes: L layers, H heads, S source length, T target length, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorlib as tl
from models.architectures.transformer import Transformer, TransformerConfig

__all__ = ["AttentionWeights", "attention_weights", "weight_count"]


@dataclass(frozen=True)
class AttentionWeights:
    """softmax(q k^T / sqrt(K)) of every layer and head (Vaswani et al. 2017, section 3.2): each row sums to 1."""

    encoder_LHSS: np.ndarray
    """Source token (row) to source tokens (columns)."""
    decoder_LHTT: np.ndarray
    """Target token to the target tokens up to it; zero after it."""
    cross_LHTS: np.ndarray
    """Target token to source tokens."""


def weight_count(config: TransformerConfig, source_length: int, target_length: int) -> int:
    """Return how many weights there are of a sentence: L H (S S + T T + T S)."""
    s, t = source_length, target_length
    return config.layers * config.heads * (s * s + t * t + t * s)


def attention_weights(model: Transformer, source_ids: Sequence[int], target_ids: Sequence[int]) -> AttentionWeights:
    """Return the weights with which `model` reads one sentence and what it has written of its translation.

    source_ids: S ids as `encode` takes them, </s> included.
    target_ids: T ids as the decoder reads them, <s> first: row t belongs to the step that writes the token after it.

    Without dropout or gradients; on the host, wherever the model is. The forward pass itself keeps no weights, so hooks
    on the attention modules compute them beside it, for as long as this takes.
    """
    seen: dict[str, list[np.ndarray]] = {"encoder": [], "decoder": [], "cross": []}
    with model.evaluating(), tl.no_grad(), ExitStack() as hooks:
        for layer in model.encoder.layers:
            hooks.enter_context(layer.attention.register_forward_hook(_keeper(seen["encoder"])))
        for layer in model.decoder.layers:
            hooks.enter_context(layer.attention.register_forward_hook(_keeper(seen["decoder"], causal=True)))
            hooks.enter_context(layer.cross_attention.register_forward_hook(_keeper(seen["cross"])))
        model(np.array([source_ids]), np.array([target_ids]))
    return AttentionWeights(*(np.stack(seen[name]) for name in ("encoder", "decoder", "cross")))


def _keeper(kept: list[np.ndarray], causal: bool = False) -> Callable[..., None]:
    """Return a hook that appends the weights (H, T, S) to `kept`; of one sentence nothing is padding, so no mask."""

    def keep(module: Any, args: tuple[Any, ...], output: Any) -> None:
        memory = args[1] if len(args) > 1 else None
        _, weights_1HTS = module.forward(args[0], memory, return_weights=True, causal=causal)
        kept.append(weights_1HTS.numpy()[0])

    return keep
