"""The Transformer encoder-decoder, whole, in the order of Vaswani et al. 2017 ("Attention is all you need").

Shape suffixes: B batch, S source length, T target length, D model width, H heads, K head width, V vocabulary.
Masks are called `visible`; True means: may be attended to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np

import nn
import tensorlib as tl
from models.architectures.decoder_state import DecoderState, KeyValueCache
from models.text.tokens import PAD

__all__ = ["DecoderState", "Transformer", "TransformerConfig"]


@dataclass(frozen=True)
class TransformerConfig:
    """What a Transformer is built from. The defaults are the paper's base model (table 3)."""

    source_vocabulary: Annotated[int, "Number of source subwords; 0 means as many as the tokenizer has."] = 0
    target_vocabulary: Annotated[int, "Number of target subwords; 0 means as many as the tokenizer has."] = 0
    layers: Annotated[int, "Layers of the encoder, and of the decoder."] = 6
    width: Annotated[int, "Width D of the vectors between layers."] = 512
    heads: Annotated[int, "Attention heads H; must divide the width."] = 8
    feed_forward: Annotated[int, "Hidden width of the position-wise feed-forward layers."] = 2048
    dropout: Annotated[float, "Dropout on every sub-layer's output, and the default of the three settings below."] = 0.1
    attention_dropout: Annotated[float | None, "Dropout on attention weights; by default as --model.dropout."] = None
    feed_forward_dropout: Annotated[
        float | None,
        "Dropout on the hidden values of the feed-forward layers; by default as --model.dropout.",
    ] = None
    embedding_dropout: Annotated[
        float | None, "Dropout on the sums of embeddings and positions; by default as --model.dropout."
    ] = None
    norm: Annotated[
        Literal["post", "pre"],
        "post: LayerNorm(x + Sublayer(x)) as in the paper; pre: x + Sublayer(LayerNorm(x)), easier to train when deep.",
    ] = "post"
    positions: Annotated[Literal["sinusoidal", "learned"], "sinusoidal or learned."] = "sinusoidal"
    max_length: Annotated[
        int,
        "Longest sentence in subwords: learned positions end here, training drops longer pairs, translation truncates.",
    ] = 512
    tie_embeddings: Annotated[
        bool,
        "Share one matrix between source embedding, target embedding and output (section 3.4); needs one vocabulary.",
    ] = False

    def check(self) -> None:
        """Raise ValueError, naming every field that cannot be, with its value."""
        sizes = ["source_vocabulary", "target_vocabulary", "layers", "width", "heads", "feed_forward", "max_length"]
        problems = [f"{n} must be at least 1, got {getattr(self, n)}" for n in sizes if getattr(self, n) < 1]
        if self.heads > 0 and self.width % self.heads:
            problems.append(f"heads must divide width, got {self.heads} and {self.width}")
        if self.positions == "sinusoidal" and self.width % 2:
            problems.append(f"width must be even for sinusoidal positions, got {self.width}")
        for name in ("dropout", "attention_dropout", "feed_forward_dropout", "embedding_dropout"):
            p = getattr(self, name)
            if not (p is None and name != "dropout") and not 0 <= p < 1:
                problems.append(f"{name} must lie in [0, 1), got {p}")
        if self.norm not in ("post", "pre"):
            problems.append(f"norm must be 'post' or 'pre', got {self.norm!r}")
        if self.positions not in ("sinusoidal", "learned"):
            problems.append(f"positions must be 'sinusoidal' or 'learned', got {self.positions!r}")
        if self.tie_embeddings and self.source_vocabulary != self.target_vocabulary:
            problems.append(
                f"tie_embeddings needs one vocabulary, got {self.source_vocabulary} and {self.target_vocabulary}"
            )
        if problems:
            raise ValueError(f"TransformerConfig: {'; '.join(problems)}")

    def dropout_on(self, place: Literal["attention", "feed_forward", "embedding"]) -> float:
        """Return the dropout of a place that may have a setting of its own."""
        own = getattr(self, f"{place}_dropout")
        return self.dropout if own is None else own


class Transformer(nn.Module):
    """Figure 1 of the paper: embeddings and positions, encoder, decoder, and the projection to logits.

    ::

        logits_BTV = model(source_ids_BS, target_ids_BT)     # training: all positions at once, by teacher forcing
        memory_BSD = model.encode(source_ids_BS)             # decoding: the source once,
        state = model.start(memory_BSD, source_visible_BS)
        logits_BV, state = model.decode_step(ids_B, state)   # then a token at a time

    Ids are integers on the host (NumPy or lists); id `PAD` is padding, which nothing attends to.
    """

    def __init__(self, config: TransformerConfig, generator: tl.Generator | None = None) -> None:
        config.check()
        self.config = config
        self.source_embedding = nn.Embedding(config.source_vocabulary, config.width, generator)
        if config.tie_embeddings:
            self.target_embedding = self.source_embedding
        else:
            self.target_embedding = nn.Embedding(config.target_vocabulary, config.width, generator)
        if config.positions == "learned":
            self.source_positions = nn.LearnedPositions(config.width, config.max_length, generator)
            self.target_positions = nn.LearnedPositions(config.width, config.max_length, generator)
        else:
            self.source_positions = nn.SinusoidalPositions(config.width, config.max_length)
            self.target_positions = nn.SinusoidalPositions(config.width, config.max_length)
        self.dropout = nn.Dropout(config.dropout_on("embedding"))
        self.encoder = Encoder(config, generator)
        self.decoder = Decoder(config, generator)
        if not config.tie_embeddings:
            self.output = nn.Linear(config.width, config.target_vocabulary, bias=False, generator=generator)

    # ---- training: everything at once ----

    def forward(self, source_ids: Any, target_ids: Any) -> Any:
        """Return logits (B, T, V): at t for the token after target_ids[:, :t + 1], which begin with <s>."""
        visible_BS = self.visible(source_ids)
        return self.decode(target_ids, self.encode(source_ids, visible_BS), visible_BS)

    def loss(
        self,
        source_ids: Any,
        target_ids: Any,
        next_ids: Any,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> Any:
        """Return the cross-entropy of the tokens next_ids (B, T), each of which follows target_ids[:, :t + 1].

        The same as ``tl.cross_entropy(model(source_ids, target_ids), next_ids, ignore_index=PAD, ...)``, in one op from
        the decoder's output to the loss, which never holds the logits of a whole batch.
        """
        visible_BS = self.visible(source_ids)
        x_BTD = self._decode(target_ids, self.encode(source_ids, visible_BS), visible_BS)
        return tl.linear_cross_entropy(x_BTD, self._output_weight(), None, next_ids, PAD, label_smoothing, reduction)

    def visible(self, ids_BS: Any) -> tl.Tensor:
        """Return which ids are not padding, (B, S), where the model is."""
        return tl.Tensor(np.asarray(ids_BS) != PAD, backend=self.backend)

    def encode(self, source_ids: Any, source_visible: Any = None) -> Any:
        """Return the encoder's output, the memory (B, S, D)."""
        visible_BS = self.visible(source_ids) if source_visible is None else source_visible
        x_BSD = self._embed(self.source_embedding, self.source_positions, source_ids)
        return self.encoder(x_BSD, _for_all_queries(visible_BS))

    def decode(self, target_ids: Any, memory: Any, source_visible: Any = None) -> Any:
        """Return logits (B, T, V) for target ids (B, T) and a memory (B, S, D). Each position sees what came before.

        Without `source_visible` (B, S) the whole memory is seen; give the mask that `encode` used if there is padding.

        Padding at the end of a target needs no mask of its own: what comes later is hidden already.
        """
        return self._logits(self._decode(target_ids, memory, source_visible))

    def _decode(self, target_ids: Any, memory: Any, source_visible: Any) -> Any:
        """Return the decoder's output (B, T, D), from which the logits are made."""
        x_BTD = self._embed(self.target_embedding, self.target_positions, target_ids)
        visible = None if source_visible is None else _for_all_queries(source_visible)
        return self.decoder(x_BTD, memory, visible)

    # ---- decoding: a token at a time ----

    def start(self, memory: Any, source_visible: Any = None) -> DecoderState:
        """Return the state before the first token: keys and values of the memory, computed once for all steps."""
        visible = None if source_visible is None else _for_all_queries(source_visible)
        cross = tuple(layer.cross_attention.keys_values(memory) for layer in self.decoder.layers)
        return DecoderState(length=0, visible=visible, cross=cross, own=(), source_B=np.arange(memory.shape[0]))

    def decode_step(self, ids: Any, state: DecoderState) -> tuple[Any, DecoderState]:
        """Return the logits (B, V) that follow one more token for each sentence, and the state after it.

        Equal to the last position of `decode` on the whole prefix; the state keeps every earlier position's keys and
        values, so a step costs the same work as one position. `state` itself stays as it was.
        """
        ids_B1 = np.asarray(ids)[:, None]
        x_B1D = self._embed(self.target_embedding, self.target_positions, ids_B1, state.length)
        x_B1D, own = self.decoder.step(x_B1D, state)
        return self._logits(x_B1D)[:, 0], replace(state, length=state.length + 1, own=own)

    # ---- the two ends ----

    @property
    def backend(self) -> tl.Backend:
        """The backend that the parameters are on."""
        return self.source_embedding.weight.backend

    def _embed(self, embedding: Any, positions: Any, ids_BT: Any, start: int = 0) -> Any:
        """Embeddings times sqrt(D) (section 3.4), so that positions do not drown them, plus positions."""
        ids_BT = np.asarray(ids_BT)
        if ids_BT.ndim != 2:
            raise ValueError(f"Transformer: ids must be (sentences, length), got shape {ids_BT.shape}")
        x_BTD = embedding(ids_BT) * math.sqrt(self.config.width)
        return self.dropout(positions(x_BTD, start))

    def _logits(self, x_BTD: Any) -> Any:
        return tl.linear(x_BTD, self._output_weight()) if self.config.tie_embeddings else self.output(x_BTD)

    def _output_weight(self) -> Any:
        """Return the matrix (D, V) from the decoder's output to the logits."""
        return self.source_embedding.weight.swapaxes(0, 1) if self.config.tie_embeddings else self.output.weight


class Encoder(nn.Module):
    """N layers, each of self-attention and feed-forward (section 3.1)."""

    def __init__(self, config: TransformerConfig, generator: tl.Generator | None) -> None:
        self.layers = nn.ModuleList(EncoderLayer(config, generator) for _ in range(config.layers))
        # With norm="pre" nothing has normalised the last layer's output yet (Xiong et al. 2020, table 1).
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else None

    def forward(self, x_BSD: Any, visible: Any) -> Any:
        """Return the memory (B, S, D)."""
        for layer in self.layers:
            x_BSD = layer(x_BSD, visible)
        return x_BSD if self.norm is None else self.norm(x_BSD)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each within Add & Norm."""

    def __init__(self, config: TransformerConfig, generator: tl.Generator | None) -> None:
        width, dropout = config.width, config.dropout_on("attention")
        self.attention = nn.MultiHeadAttention(width, config.heads, dropout, generator)
        self.attention_residual = AddNorm(config)
        self.feed_forward = nn.FeedForward(width, config.feed_forward, config.dropout_on("feed_forward"), generator)
        self.feed_forward_residual = AddNorm(config)

    def forward(self, x_BSD: Any, visible: Any) -> Any:
        """Return the layer's output (B, S, D)."""
        x_BSD = self.attention_residual(x_BSD, lambda x: self.attention(x, visible=visible))
        return self.feed_forward_residual(x_BSD, self.feed_forward)


class Decoder(nn.Module):
    """N layers, each of masked self-attention, attention to the memory, and feed-forward (section 3.1)."""

    def __init__(self, config: TransformerConfig, generator: tl.Generator | None) -> None:
        self.layers = nn.ModuleList(DecoderLayer(config, generator) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else None

    def forward(self, x_BTD: Any, memory_BSD: Any, visible: Any) -> Any:
        """Return the vectors (B, T, D) from which the logits are made."""
        for layer in self.layers:
            x_BTD = layer(x_BTD, memory_BSD, visible)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def step(self, x_B1D: Any, state: DecoderState) -> tuple[Any, tuple[KeyValueCache, ...]]:
        """Return the output for one more position, and every layer's keys and values with it appended."""
        own: list[KeyValueCache] = []
        for i, layer in enumerate(self.layers):
            past = state.own[i] if state.own else None
            x_B1D, kept = layer.step(x_B1D, past, state.cross[i], state.visible)
            own.append(kept)
        return (x_B1D if self.norm is None else self.norm(x_B1D)), tuple(own)


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder's output, feed-forward, each within Add & Norm."""

    def __init__(self, config: TransformerConfig, generator: tl.Generator | None) -> None:
        width, dropout = config.width, config.dropout_on("attention")
        self.attention = nn.MultiHeadAttention(width, config.heads, dropout, generator)
        self.attention_residual = AddNorm(config)
        self.cross_attention = nn.MultiHeadAttention(width, config.heads, dropout, generator)
        self.cross_attention_residual = AddNorm(config)
        self.feed_forward = nn.FeedForward(width, config.feed_forward, config.dropout_on("feed_forward"), generator)
        self.feed_forward_residual = AddNorm(config)

    def forward(self, x_BTD: Any, memory_BSD: Any, visible: Any) -> Any:
        """Return the layer's output (B, T, D)."""
        x_BTD = self.attention_residual(x_BTD, lambda x: self.attention(x, causal=True))
        x_BTD = self.cross_attention_residual(x_BTD, lambda x: self.cross_attention(x, memory_BSD, visible))
        return self.feed_forward_residual(x_BTD, self.feed_forward)

    def step(
        self, x_B1D: Any, past: KeyValueCache | None, cross: tuple[Any, Any], visible: Any
    ) -> tuple[Any, KeyValueCache]:
        """Return the output for one more position, and this layer's keys and values (B, H, t + 1, K) up to it."""
        kept = past

        def attend_to_past(x_B1D: Any) -> Any:
            nonlocal kept
            q_BH1K, k_BH1K, v_BH1K = self.attention.queries_keys_values(x_B1D)
            kept = KeyValueCache(k_BH1K, v_BH1K) if past is None else past.append(k_BH1K, v_BH1K)
            return self.attention.attend(q_BH1K, *kept, visible=None)  # all that is there came before

        def attend_to_memory(x_B1D: Any) -> Any:
            return self.cross_attention.attend(self.cross_attention.queries(x_B1D), *cross, visible)

        x_B1D = self.attention_residual(x_B1D, attend_to_past)
        x_B1D = self.cross_attention_residual(x_B1D, attend_to_memory)
        assert kept is not None
        return self.feed_forward_residual(x_B1D, self.feed_forward), kept


class AddNorm(nn.Module):
    """The residual connection around a sub-layer, and its normalisation (section 3.1 and 5.4).

    post: LayerNorm(x + Dropout(Sublayer(x)));  pre: x + Dropout(Sublayer(LayerNorm(x))).
    """

    def __init__(self, config: TransformerConfig) -> None:
        self.order = config.norm
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Any, sublayer: Callable[[Any], Any]) -> Any:
        """Return x with the sub-layer's output added."""
        if self.order == "post":
            return self.norm(self._added(x, sublayer(x)))
        return self._added(x, sublayer(self.norm(x)))

    def _added(self, x: Any, y: Any) -> Any:
        return tl.add_dropout(x, y, self.dropout.p if self.dropout.training else 0.0, self.dropout.generator)

    def extra_repr(self) -> str:
        """Return the order."""
        return self.order


def _for_all_queries(visible_BS: Any) -> Any:
    """Shape a mask (B, S) for all heads and queries alike: (B, 1, 1, S), as `nn.padding_mask` has it already."""
    return visible_BS.reshape(visible_BS.shape[0], 1, 1, visible_BS.shape[-1])
