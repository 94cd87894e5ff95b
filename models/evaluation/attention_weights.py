"""The attention weights of a Transformer's heads for one sentence.

Shape suffixes: L layers, H heads, S source length, T target length, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

import nn
import tensorlib as tl
from models.architectures.transformer import Transformer, TransformerConfig

__all__ = ["AttentionWeights", "attention_weights", "weight_count"]


@dataclass(frozen=True)
class AttentionWeights:
    """softmax(q k^T / sqrt(K)) of every layer and head (Vaswani et al. 2017, section 3.2): each row sums to 1."""

    encoder_LHSS: np.ndarray
    """From each source token (row) to all source tokens (columns)."""
    decoder_LHTT: np.ndarray
    """From each target token (row) to target tokens (columns); zero for later ones."""
    cross_LHTS: np.ndarray
    """From each target token (row) to all source tokens (columns)."""


def weight_count(config: TransformerConfig, source_length: int, target_length: int) -> int:
    """Return the number of weights for one sentence and its target: L H (S S + T T + T S)."""
    s, t = source_length, target_length
    return config.layers * config.heads * (s * s + t * t + t * s)


def attention_weights(model: Transformer, source_ids: Sequence[int], target_ids: Sequence[int]) -> AttentionWeights:
    """Return the attention weights of `model` for one source and its target, on the host, without dropout.

    source_ids: S ids as for `encode`, </s> included.
    target_ids: T ids as the decoder reads them, <s> first; row t belongs to the step that predicts token t + 1.

    The forward pass itself keeps no weights, so temporary hooks on the attention modules compute them again.
    """
    seen: dict[str, list[np.ndarray]] = {"encoder": [], "decoder": [], "cross": []}
    with model.evaluating(), tl.no_grad(), ExitStack() as hooks:
        for encoder_layer in model.encoder.layers:
            hooks.enter_context(encoder_layer.attention.register_forward_hook(_keeper(seen["encoder"])))
        for layer in model.decoder.layers:
            hooks.enter_context(layer.attention.register_forward_hook(_keeper(seen["decoder"], causal=True)))
            hooks.enter_context(layer.cross_attention.register_forward_hook(_keeper(seen["cross"])))
        model(np.array([source_ids]), np.array([target_ids]))
    return AttentionWeights(*(np.stack(seen[name]) for name in ("encoder", "decoder", "cross")))


def _keeper(kept: list[np.ndarray], causal: bool = False) -> Callable[..., None]:
    """Return a hook that appends weights (H, T, S) to `kept`; a single sentence has no padding and needs no mask."""

    def keep(module: nn.Module, args: tuple[tl.Tensor, ...], output: Any) -> None:
        memory = args[1] if len(args) > 1 else None
        _, weights_1HTS = module.forward(args[0], memory, return_weights=True, causal=causal)
        kept.append(weights_1HTS.numpy()[0])

    return keep
