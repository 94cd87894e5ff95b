"""The attention weights of a model for one sentence: of all heads of a Transformer, or of a recurrent decoder.

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
from models.architectures.build import Config
from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.language import LanguageConfig, LanguageModel
from models.architectures.recurrent import RecurrentConfig, RecurrentTranslator
from models.architectures.transformer import Transformer

__all__ = ["AttentionWeights", "attention_weights", "weight_count"]


@dataclass(frozen=True)
class AttentionWeights:
    """softmax(q k^T / sqrt(K)) of every layer and head (Vaswani et al. 2017, section 3.2): each row sums to 1.

    A recurrent model has only `cross_LHTS`, of one layer and one head, and a language model only `decoder_LHTT`, whose
    tokens are <s>, the prompt and the target; the others then have no layers.
    """

    encoder_LHSS: np.ndarray
    """From each source token (row) to all source tokens (columns)."""
    decoder_LHTT: np.ndarray
    """From each target token (row) to target tokens (columns); zero for later ones."""
    cross_LHTS: np.ndarray
    """From each target token (row) to all source tokens (columns)."""


def weight_count(config: Config, source_length: int, target_length: int) -> int:
    """Return the number of weights for one sentence and its target: L H (S S + T T + T S) for a Transformer."""
    s, t = source_length, target_length
    if isinstance(config, RecurrentConfig):
        return t * s
    if isinstance(config, LanguageConfig):
        return config.layers * config.heads * (s + t) ** 2
    return config.layers * config.heads * (s * s + t * t + t * s)


def attention_weights(model: EncoderDecoder, source_ids: Sequence[int], target_ids: Sequence[int]) -> AttentionWeights:
    """Return the attention weights of `model` for one source and its target, on the host, without dropout.

    source_ids: S ids as for `encode`, </s> included.
    target_ids: T ids as the decoder reads them, <s> first; row t belongs to the step that predicts token t + 1.

    Errors: ValueError for a model without attention.
    """
    with model.evaluating(), tl.no_grad():
        if isinstance(model, RecurrentTranslator):
            return _recurrent_weights(model, np.array([source_ids]), np.array([target_ids]))
        if isinstance(model, LanguageModel):
            return _language_weights(model, np.array([source_ids]), np.array([target_ids]))
        if isinstance(model, Transformer):
            return _transformer_weights(model, np.array([source_ids]), np.array([target_ids]))
    raise ValueError(f"attention_weights: a model of models.architectures is required, got {type(model).__name__}")


def _recurrent_weights(model: RecurrentTranslator, source_1S: np.ndarray, target_1T: np.ndarray) -> AttentionWeights:
    if model.attention is None:
        raise ValueError("attention_weights: a model with attention is required; this one has attention 'none'")
    state = model.start(model.encode(source_1S))
    h_1TD, _ = model.decoder(model.embed_target(target_1T), state.layers)
    cross_TS = model.attention.weights(h_1TD, state.seen[0]).numpy()[0]
    (t, s), dtype = cross_TS.shape, cross_TS.dtype
    return AttentionWeights(np.zeros((0, 1, s, s), dtype), np.zeros((0, 1, t, t), dtype), cross_TS[None, None])


def _transformer_weights(model: Transformer, source_1S: np.ndarray, target_1T: np.ndarray) -> AttentionWeights:
    """Return all weights. The forward pass keeps none, so hooks on the attention modules compute them again."""
    seen: dict[str, list[np.ndarray]] = {"encoder": [], "decoder": [], "cross": []}
    with ExitStack() as hooks:
        for encoder_layer in model.encoder.layers:
            hooks.enter_context(encoder_layer.attention.register_forward_hook(_keeper(seen["encoder"])))
        for layer in model.decoder.layers:
            hooks.enter_context(layer.attention.register_forward_hook(_keeper(seen["decoder"], causal=True)))
            hooks.enter_context(layer.cross_attention.register_forward_hook(_keeper(seen["cross"])))
        model(source_1S, target_1T)
    return AttentionWeights(*(np.stack(seen[name]) for name in ("encoder", "decoder", "cross")))


def _language_weights(model: LanguageModel, prompt_1S: np.ndarray, target_1T: np.ndarray) -> AttentionWeights:
    seen: list[np.ndarray] = []
    with ExitStack() as hooks:
        for layer in model.decoder.layers:
            hooks.enter_context(layer.attention.register_forward_hook(_keeper(seen, causal=True)))
        model(prompt_1S, target_1T)
    none = np.zeros((0, 1, 0, 0), seen[0].dtype)
    return AttentionWeights(none, np.stack(seen), none)


def _keeper(kept: list[np.ndarray], causal: bool = False) -> Callable[..., None]:
    """Return a hook that appends weights (H, T, S) to `kept`; a single sentence has no padding and needs no mask."""

    def keep(module: nn.Module, args: tuple[tl.Tensor, ...], output: Any) -> None:
        memory = args[1] if len(args) > 1 else None
        _, weights_1HTS = module.forward(args[0], memory, return_weights=True, causal=causal)
        kept.append(weights_1HTS.numpy()[0])

    return keep
