"""A decoder-only language model: the Transformer's layers, each position of which sees only itself and earlier ones.

Shape suffixes: B batch, S prompt length, T target length, t tokens so far, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

import nn
import tensorlib as tl
from models.architectures.decoder_state import KeyValueCache
from models.architectures.encoder_decoder import EncoderDecoder, checked_ids, ids_array, joined_ids
from models.architectures.layers import LayersConfig, PositionKind, make_positions, with_positions
from models.architectures.transformer import Encoder
from models.text.tokens import PAD

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["LanguageConfig", "LanguageModel", "LanguageState"]


@dataclass(frozen=True)
class LanguageConfig(LayersConfig):
    """The configuration of a language model.

    >>> models.LanguageConfig(vocabulary=8000, width=256, heads=7).check()
    Traceback (most recent call last):
    ValueError: LanguageConfig: heads must divide width, got 7 and 256
    """

    vocabulary: Annotated[int, "Number of subwords; 0 means as many as the tokenizer has."] = 0
    layers: Annotated[int, "Number of layers."] = 6
    width: Annotated[int, "Width D of the vectors between layers."] = 512
    heads: Annotated[int, "Attention heads H; must divide the width."] = 8
    feed_forward: Annotated[int, "Hidden width of the position-wise feed-forward layers."] = 2048
    dropout: Annotated[float, "Dropout on every sub-layer's output, and the default of the three settings below."] = 0.1
    attention_dropout: Annotated[float | None, "Dropout on attention weights; default: --model.dropout."] = None
    feed_forward_dropout: Annotated[
        float | None, "Dropout on the hidden values of the feed-forward layers; default: --model.dropout."
    ] = None
    embedding_dropout: Annotated[
        float | None, "Dropout on the sums of embeddings and positions; default: --model.dropout."
    ] = None
    norm: Annotated[
        Literal["post", "pre"], "post: LayerNorm(x + Sublayer(x)); pre: x + Sublayer(LayerNorm(x)), easier to train."
    ] = "pre"
    positions: Annotated[PositionKind, "How order is seen; rotary positions are those of the distance."] = "rotary"
    max_length: Annotated[int, "The context: how many positions the model reads at once."] = 256
    tie_embeddings: Annotated[bool, "Share one matrix between embedding and output."] = True
    kind: Annotated[Literal["language"], "The architecture."] = "language"

    def check(self) -> None:
        """Raise ValueError if any field is impossible, naming every such field and its value."""
        problems = self.problems("vocabulary")
        if self.max_length == 1:
            problems.append("max_length must be at least 2, for <s> and a token, got 1")
        if problems:
            raise ValueError(f"LanguageConfig: {'; '.join(problems)}")


@dataclass(frozen=True)
class LanguageState:
    """The state between decoding steps. It is immutable: a step returns a new state."""

    ids_BT: Any
    """An array: before the first token the prompts (B, S); then <s>, prompt and the tokens so far, (B, t)."""
    own: tuple[KeyValueCache, ...]
    """For each layer, keys and values (B, H, t, K) of these tokens; empty before the first token."""

    def select(self, rows: ArrayLike) -> LanguageState:
        """Return the state of the given rows (indices or booleans), which may drop, repeat or reorder texts."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if np.array_equal(rows, np.arange(len(self.ids_BT))):
            return self
        home = tl.backend_of(self.ids_BT)
        chosen_BT = self.ids_BT[rows if home.xp is np else home.asarray(rows)]
        return LanguageState(chosen_BT, tuple(cache.select(rows) for cache in self.own))


class LanguageModel(EncoderDecoder):
    """P(text) = product over t of P(token t | <s>, earlier tokens), by causal self-attention alone.

    It has no encoder. What other models call the source is the prompt here: text that the model reads after the first
    token, <s>, as if it had written it itself. In training the prompt is empty, (B, 0). All prompts of a batch have one
    length, because padding would be read as text.

    >>> config = models.LanguageConfig(9, layers=1, width=8, heads=2, feed_forward=16)
    >>> model = models.LanguageModel(config).eval()
    >>> prompts_BS, target_ids_BT = np.array([[5, 6], [7, 3]]), np.array([[2, 4], [2, 8]])
    >>> logits_BTV = model(prompts_BS, target_ids_BT)        # reads <s> 5 6 4 and <s> 7 3 8
    >>> state = model.start(model.encode(prompts_BS))
    >>> for ids_B in target_ids_BT.T:                        # the same, one token at a time
    ...     logits_BV, state = model.decode_step(ids_B, state)
    >>> np.allclose(logits_BV.numpy(), logits_BTV.numpy()[:, -1], atol=1e-6)
    True

    **The context.** A text may grow beyond the `max_length` positions that training has shown: `decode_step` then
    begins again, with <s> and the latest half of the context, as `context` says. This reads what a window of the
    training text looks like, works with all kinds of positions, and costs one more position for each token.
    """

    config: LanguageConfig

    def __init__(self, config: LanguageConfig, generator: tl.Generator | None = None) -> None:
        config.check()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width, generator)
        self.positions = make_positions(config, generator)
        self.dropout = nn.Dropout(config.dropout_on("embedding"))
        self.decoder = Encoder(config, generator)
        self.make_output(config.vocabulary, generator)

    # ---- all positions at once ----

    def encode(self, source_ids: TensorLike, source_visible: tl.Tensor | None = None) -> Any:
        """Return the prompts (B, S), which are read in the first step. Errors: ValueError for padding, on the host."""
        ids_BS = checked_ids(source_ids, "LanguageModel")
        if isinstance(ids_BS, np.ndarray) and (ids_BS == PAD).any():
            lengths = sorted({*np.count_nonzero(ids_BS != PAD, axis=1).tolist()})
            raise ValueError(
                f"LanguageModel: the prompts of a batch must have one length, got lengths {lengths}; padding would be "
                "read as text; decode those of each length together"
            )
        return ids_BS if ids_BS.size else ids_BS.astype(np.int64)  # an empty list would be an array of floats

    def decoder_output(self, target_ids: TensorLike, memory: Any, source_visible: tl.Tensor | None = None) -> tl.Tensor:
        """Return the vectors (B, T, D) that the logits are computed from, after the prompts (B, S)."""
        ids_BT, prompt = checked_ids(target_ids, "LanguageModel"), memory.shape[1]
        if prompt:
            ids_BT = joined_ids([ids_BT[:, :1], memory, ids_BT[:, 1:]])
        x_BTD = self.decoder(self._embed(ids_BT), None, causal=True)
        return x_BTD[:, prompt:] if prompt else x_BTD

    # ---- one token at a time ----

    def start(self, memory: Any, source_visible: tl.Tensor | None = None) -> LanguageState:
        """Return the state before the first token, <s>; `memory` is what `encode` returned."""
        return LanguageState(memory, ())

    def decode_step(self, ids: TensorLike, state: LanguageState) -> tuple[tl.Tensor, LanguageState]:
        """Append a token to each text, ids (B,); return the logits (B, V) for the next token, and the new state.

        The first step reads <s> and the prompts. The logits equal those of all positions at once for the ids that
        `context` returns. `state` itself does not change.
        """
        ids_B1, own = ids_array(ids)[:, None], state.own
        ids_BT = joined_ids([state.ids_BT, ids_B1] if own else [ids_B1, state.ids_BT])
        read_BT = self.context(ids_BT)
        if read_BT.shape != ids_BT.shape:
            own = ()
        new_BT = read_BT[:, -1:] if own else read_BT
        x_BTD, own = self.decoder.step(self._embed(new_BT, read_BT.shape[1] - new_BT.shape[1]), own)
        return self.logits(x_BTD[:, -1:])[:, 0], LanguageState(read_BT, own)

    def context(self, ids_BT: Any) -> Any:
        """Return what is read of ids that begin with <s>: all, or if they are too many, <s> and the latest ones.

        These then fill half of the context, so that the next ones need not begin again.
        """
        longest = self.config.max_length
        if ids_BT.shape[1] <= longest:
            return ids_BT
        return joined_ids([ids_BT[:, :1], ids_BT[:, -max(longest // 2, 1) :]])

    # ---- the two ends ----

    @property
    def first_embedding(self) -> nn.Embedding:
        """The embedding; if it is tied, its matrix is the output's too."""
        return self.embedding

    def _embed(self, ids_BT: Any, start: int = 0) -> tl.Tensor:
        return self.dropout(with_positions(self.embedding(ids_BT), self.positions, start))
