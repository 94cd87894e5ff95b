"""The complete Transformer encoder-decoder, in the order of Vaswani et al. 2017 ("Attention is all you need").

Shape suffixes: B batch, S source length, T target length, D model width, H heads, K head width, V vocabulary.
Masks are called `visible`; True means that a position may be attended to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

import nn
import tensorlib as tl
from models.architectures.decoder_state import DecoderState, KeyValueCache
from models.architectures.encoder_decoder import EncoderDecoder, checked_ids, ids_array, vocabulary_problems
from models.architectures.fixed_decoder import FixedDecoder, FixedDecoders, can_fix
from models.architectures.indexed_state import IndexedState
from models.architectures.layers import LayersConfig, PositionKind, Positions, make_positions, with_positions
from models.architectures.prepared import can_prepare
from nn.layers import run_as_one_op

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["DecoderState", "Encoder", "Transformer", "TransformerConfig"]


@dataclass(frozen=True)
class TransformerConfig(LayersConfig):
    """The configuration of a Transformer. The defaults are the paper's base model (table 3).

    >>> models.TransformerConfig(source_vocabulary=8000, target_vocabulary=8000, width=256, heads=7).check()
    Traceback (most recent call last):
    ValueError: TransformerConfig: heads must divide width, got 7 and 256
    """

    source_vocabulary: Annotated[int, "Number of source subwords; 0 means as many as the tokenizer has."] = 0
    target_vocabulary: Annotated[int, "Number of target subwords; 0 means as many as the tokenizer has."] = 0
    layers: Annotated[int, "Number of layers in the encoder, and in the decoder."] = 6
    width: Annotated[int, "Width D of the vectors between layers."] = 512
    heads: Annotated[int, "Attention heads H; must divide the width."] = 8
    feed_forward: Annotated[int, "Hidden width of the position-wise feed-forward layers."] = 2048
    dropout: Annotated[float, "Dropout on every sub-layer's output, and the default of the three settings below."] = 0.1
    attention_dropout: Annotated[float | None, "Dropout on attention weights; default: --model.dropout."] = None
    feed_forward_dropout: Annotated[
        float | None,
        "Dropout on the hidden values of the feed-forward layers; default: --model.dropout.",
    ] = None
    embedding_dropout: Annotated[
        float | None, "Dropout on the sums of embeddings and positions; default: --model.dropout."
    ] = None
    norm: Annotated[
        Literal["post", "pre"],
        "post: LayerNorm(x + Sublayer(x)) as in the paper; pre: x + Sublayer(LayerNorm(x)), easier to train when deep.",
    ] = "post"
    positions: Annotated[
        PositionKind,
        "How order is seen: sinusoidal or learned encodings are added to embeddings, rotary ones (Su et al. 2021) turn "
        "queries and keys of self-attention; none: an encoder then reads a bag of words. A language model: rotary.",
    ] = "sinusoidal"
    max_length: Annotated[
        int,
        "Longest sentence, in subwords. Training drops longer pairs, translation cuts longer sentences off, and "
        "learned positions end here.",
    ] = 512
    tie_embeddings: Annotated[
        bool,
        "Share one matrix between source embedding, target embedding and output (section 3.4); source and target must "
        "then have one vocabulary.",
    ] = False
    kind: Annotated[Literal["transformer"], "The architecture."] = "transformer"

    def check(self) -> None:
        """Raise ValueError if any field is impossible, naming every such field and its value."""
        problems = self.problems("source_vocabulary", "target_vocabulary")
        problems += vocabulary_problems(self.source_vocabulary, self.target_vocabulary, self.tie_embeddings)
        if problems:
            raise ValueError(f"TransformerConfig: {'; '.join(problems)}")


class Transformer(EncoderDecoder):
    """Figure 1 of the paper: embeddings and positions, encoder, decoder, and the projection to logits.

    >>> config = models.TransformerConfig(9, 9, layers=1, width=8, heads=2, feed_forward=16)
    >>> model = models.Transformer(config).eval()
    >>> source_ids_BS, target_ids_BT = np.array([[5, 6, 3], [7, 3, 0]]), np.array([[2, 4], [2, 8]])
    >>> logits_BTV = model(source_ids_BS, target_ids_BT)     # training: all positions at once, by teacher forcing
    >>> visible_BS = model.visible(source_ids_BS)            # decoding: the source once,
    >>> memory_BSD = model.encode(source_ids_BS, visible_BS)
    >>> state = model.start(memory_BSD, visible_BS)
    >>> for ids_B in target_ids_BT.T:                        # then one token at a time
    ...     logits_BV, state = model.decode_step(ids_B, state)
    >>> np.allclose(logits_BV.numpy(), logits_BTV.numpy()[:, -1], atol=1e-6)
    True
    """

    def __init__(self, config: TransformerConfig, generator: tl.Generator | None = None) -> None:
        config.check()
        self.config = config
        self.make_embeddings(generator)
        self.source_positions = make_positions(config, generator)
        self.target_positions = make_positions(config, generator)
        self.dropout = nn.Dropout(config.dropout_on("embedding"))
        self.encoder = Encoder(config, generator)
        self.decoder = Decoder(config, generator)
        self.make_output(config.target_vocabulary, generator)
        self._fixed_decoders = FixedDecoders()

    # ---- all positions at once ----

    def encode(self, source_ids: TensorLike, source_visible: tl.Tensor | None = None) -> tl.Tensor:
        """Return the encoder's output, the memory (B, S, D), for source ids (B, S).

        `source_visible` is (B, S), or (B, 1, 1, S) as returned by `nn.padding_mask`; by default it hides `PAD`.
        """
        visible_BS = self.visible(source_ids) if source_visible is None else source_visible
        x_BSD = self._embed(self.source_embedding, self.source_positions, source_ids)
        return self.encoder(x_BSD, _for_all_queries(visible_BS))

    def decoder_output(self, target_ids: TensorLike, memory: tl.Tensor, source_visible: tl.Tensor | None) -> tl.Tensor:
        """Return the vectors (B, T, D) that the logits are computed from."""
        x_BTD = self._embed(self.target_embedding, self.target_positions, target_ids)
        visible = None if source_visible is None else _for_all_queries(source_visible)
        return self.decoder(x_BTD, memory, visible)

    # ---- decoding: one token at a time ----

    def start(self, memory: tl.Tensor, source_visible: tl.Tensor | None = None) -> DecoderState | IndexedState:
        """Return the state before the first token: keys and values of the memory (B, S, D), computed only once.

        `source_visible` is as in `decode`. With compiled kernels, without gradients and for several sentences, the
        state is an `IndexedState`, which also holds a copy of the decoder's matrices.
        """
        plain = type(self) is Transformer and type(self.decoder) is Decoder
        if plain and can_prepare(self, memory, source_visible, DecoderLayer, AddNorm):
            return IndexedState.starting(self, memory, source_visible)
        visible = None if source_visible is None else _for_all_queries(source_visible)
        cross = tuple(layer.cross_attention.keys_values(memory) for layer in self.decoder.layers)
        return DecoderState(length=0, visible=visible, cross=cross, own=(), source_B=np.arange(memory.shape[0]))

    def decode_step(
        self, ids: TensorLike, state: DecoderState | IndexedState
    ) -> tuple[tl.Tensor, DecoderState | IndexedState]:
        """Append a token to each sentence, ids (B,); return the logits (B, V) for the next token, and the new state.

        The logits equal those of `decode` at the last position of the whole prefix. A state keeps the keys and values
        of all earlier positions, so a step computes only one position. `state` itself does not change.

        Errors: ValueError unless there is one id for each row of the state.
        """
        ids_B = ids_array(ids)
        if ids_B.shape != (state.rows,):
            raise ValueError(f"decode_step: ids must be ({state.rows},), one for each row; got shape {ids_B.shape}")
        if isinstance(state, IndexedState):
            if state.decoder.is_current():
                return state.next_logits(self, ids_B)
            state = state.as_tensors()
        x_B1D = self._embed(self.target_embedding, self.target_positions, ids_B[:, None], state.length)
        x_B1D, own = self.decoder.step(x_B1D, state)
        return self.logits(x_B1D)[:, 0], replace(state, length=state.length + 1, own=own)

    def fixed_decoder(self, sources: int, beam: int, longest: int, source_length: int) -> FixedDecoder | None:
        """Return a decoder with at least this room, whose shapes never change; None if no step can be recorded."""
        plain = type(self) is Transformer and type(self.decoder) is Decoder
        fits = plain and can_fix(self, DecoderLayer)
        return self._fixed_decoders.get(self, sources, beam, longest, source_length) if fits else None

    @property
    def longest_target(self) -> int | None:
        """The most tokens that can be decoded: the number of learned positions; the others have no limit."""
        return self.config.max_length if self.config.positions == "learned" else None

    def _embed(
        self, embedding: nn.Embedding, positions: Positions | None, ids: TensorLike, start: int = 0
    ) -> tl.Tensor:
        return self.dropout(with_positions(embedding(checked_ids(ids, "Transformer")), positions, start))


class Encoder(nn.Module):
    """N layers, each of self-attention and feed-forward (section 3.1).

    If no position sees later ones, this is a decoder without attention to a memory: the body of a language model.
    """

    def __init__(self, config: LayersConfig, generator: tl.Generator | None) -> None:
        self.layers = nn.ModuleList(EncoderLayer(config, generator) for _ in range(config.layers))
        # With norm="pre" the last layer's output is not normalized yet (Xiong et al. 2020, table 1).
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else None

    def forward(self, x_BSD: tl.Tensor, visible: tl.Tensor | None, causal: bool = False) -> tl.Tensor:
        """Return the memory (B, S, D); `visible` is (B, 1, 1, S), or None for all."""
        for layer in self.layers:
            x_BSD = layer(x_BSD, visible, causal)
        return x_BSD if self.norm is None else self.norm(x_BSD)

    def step(self, x_BTD: tl.Tensor, past: tuple[KeyValueCache, ...]) -> tuple[tl.Tensor, tuple[KeyValueCache, ...]]:
        """Return the causal output for the next positions, and every layer's keys and values including them.

        Without a past, these are the first T positions; with one, T is 1.
        """
        own: list[KeyValueCache] = []
        for i, layer in enumerate(self.layers):
            x_BTD, cache = layer.step(x_BTD, past[i] if past else None)
            own.append(cache)
        return (x_BTD if self.norm is None else self.norm(x_BTD)), tuple(own)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each wrapped in Add & Norm."""

    def __init__(self, config: LayersConfig, generator: tl.Generator | None) -> None:
        self.attention = _self_attention(config, generator)
        self.attention_residual = AddNorm(config)
        self.feed_forward = _feed_forward(config, generator)
        self.feed_forward_residual = AddNorm(config)

    def forward(self, x_BSD: tl.Tensor, visible: tl.Tensor | None, causal: bool = False) -> tl.Tensor:
        """Return the layer's output (B, S, D)."""
        x_BSD = self.attention_residual(x_BSD, self.attention, visible=visible, causal=causal)
        return self.feed_forward_residual(x_BSD, self.feed_forward)

    def step(self, x_BTD: tl.Tensor, past: KeyValueCache | None) -> tuple[tl.Tensor, KeyValueCache]:
        """Return the output for the next positions, and this layer's keys and values including them."""
        x_BTD, own = self.attention_residual(x_BTD, _attend_to_past, self.attention, past)
        return self.feed_forward_residual(x_BTD, self.feed_forward), own


class Decoder(nn.Module):
    """N layers, each of masked self-attention, attention to the memory, and feed-forward (section 3.1)."""

    def __init__(self, config: TransformerConfig, generator: tl.Generator | None) -> None:
        self.layers = nn.ModuleList(DecoderLayer(config, generator) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else None

    def forward(self, x_BTD: tl.Tensor, memory_BSD: tl.Tensor, visible: tl.Tensor | None) -> tl.Tensor:
        """Return the vectors (B, T, D) that the logits are computed from."""
        for layer in self.layers:
            x_BTD = layer(x_BTD, memory_BSD, visible)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def step(self, x_B1D: tl.Tensor, state: DecoderState) -> tuple[tl.Tensor, tuple[KeyValueCache, ...]]:
        """Return the output for one more position, and every layer's keys and values including it."""
        own: list[KeyValueCache] = []
        for i, layer in enumerate(self.layers):
            past = state.own[i] if state.own else None
            x_B1D, cache = layer.step(x_B1D, past, state.cross[i], state.visible)
            own.append(cache)
        return (x_B1D if self.norm is None else self.norm(x_B1D)), tuple(own)


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder's output, feed-forward, each wrapped in Add & Norm."""

    def __init__(self, config: TransformerConfig, generator: tl.Generator | None) -> None:
        dropout = config.dropout_on("attention")
        self.attention = _self_attention(config, generator)
        self.attention_residual = AddNorm(config)
        self.cross_attention = nn.MultiHeadAttention(config.width, config.heads, dropout, generator)
        self.cross_attention_residual = AddNorm(config)
        self.feed_forward = _feed_forward(config, generator)
        self.feed_forward_residual = AddNorm(config)

    def forward(self, x_BTD: tl.Tensor, memory_BSD: tl.Tensor, visible: tl.Tensor | None) -> tl.Tensor:
        """Return the layer's output (B, T, D)."""
        x_BTD = self.attention_residual(x_BTD, self.attention, causal=True)
        x_BTD = self.cross_attention_residual(x_BTD, self.cross_attention, memory_BSD, visible)
        return self.feed_forward_residual(x_BTD, self.feed_forward)

    def step(
        self,
        x_B1D: tl.Tensor,
        past: KeyValueCache | None,
        cross: tuple[tl.Tensor, tl.Tensor],
        visible: tl.Tensor | None,
    ) -> tuple[tl.Tensor, KeyValueCache]:
        """Return the output for one more position, and this layer's keys and values (B, H, t + 1, K) including it."""
        x_B1D, own = self.attention_residual(x_B1D, _attend_to_past, self.attention, past)
        x_B1D = self.cross_attention_residual(x_B1D, self._attend_to_memory, cross, visible)
        return self.feed_forward_residual(x_B1D, self.feed_forward), own

    def _attend_to_memory(
        self, x_B1D: tl.Tensor, cross: tuple[tl.Tensor, tl.Tensor], visible: tl.Tensor | None
    ) -> tl.Tensor:
        return self.cross_attention.attend(self.cross_attention.queries(x_B1D), *cross, visible)


def _self_attention(config: LayersConfig, generator: tl.Generator | None) -> nn.MultiHeadAttention:
    rotary = nn.RotaryPositions(config.width // config.heads) if config.positions == "rotary" else None
    return nn.MultiHeadAttention(config.width, config.heads, config.dropout_on("attention"), generator, rotary)


def _feed_forward(config: LayersConfig, generator: tl.Generator | None) -> nn.FeedForward:
    return nn.FeedForward(config.width, config.feed_forward, config.dropout_on("feed_forward"), generator)


def _attend_to_past(
    x_BTD: tl.Tensor, attention: nn.MultiHeadAttention, past: KeyValueCache | None
) -> tuple[tl.Tensor, KeyValueCache]:
    """Return causal self-attention for the next positions, and the keys and values of these and all earlier ones."""
    q_BHTK, k_BHTK, v_BHTK = attention.queries_keys_values(x_BTD, 0 if past is None else past.keys.shape[2])
    if past is None:
        return attention.attend(q_BHTK, k_BHTK, v_BHTK, None, causal=True), KeyValueCache(k_BHTK, v_BHTK)
    cache = past.append(k_BHTK, v_BHTK)
    # No mask: the cache holds only this position and earlier ones.
    return attention.attend(q_BHTK, cache.keys, cache.values, visible=None), cache


class AddNorm(nn.Module):
    """The residual connection around a sub-layer, and its normalization (sections 3.1 and 5.4).

    post: LayerNorm(x + Dropout(Sublayer(x)));  pre: x + Dropout(Sublayer(LayerNorm(x))).
    """

    def __init__(self, config: LayersConfig) -> None:
        self.order = config.norm
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: tl.Tensor, sublayer: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return the formula's value for the sub-layer ``sublayer(x, *args, **options)``.

        If the sub-layer returns (output, cache), return (the formula's value, cache).
        """
        y = sublayer(x if self.order == "post" else self.norm(x), *args, **options)
        if isinstance(y, tuple):
            output, cache = y
            return self._sum(x, output), cache
        return self._sum(x, y)

    def _sum(self, x: tl.Tensor, y: tl.Tensor) -> tl.Tensor:
        p, norm = self.dropout.p if self.dropout.training else 0.0, self.norm
        if self.order == "post" and run_as_one_op(norm, self.dropout):
            return tl.add_norm(x, y, norm.weight, norm.bias, p, self.dropout.generator, norm.eps)
        z = tl.add_dropout(x, y, p, self.dropout.generator)
        return norm(z) if self.order == "post" else z

    def extra_repr(self) -> str:
        """Return "post" or "pre"."""
        return self.order


def _for_all_queries(visible_BS: tl.Tensor) -> tl.Tensor:
    """Reshape a mask (B, S) to (B, 1, 1, S), for all heads and queries; a mask of that shape stays as it is."""
    if visible_BS.ndim != 2 and visible_BS.shape[1:-1] != (1, 1):
        raise ValueError(f"Transformer: source_visible must be (B, S) or (B, 1, 1, S), got {visible_BS.shape}")
    return visible_BS.reshape(visible_BS.shape[0], 1, 1, visible_BS.shape[-1])
