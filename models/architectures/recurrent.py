"""The encoder-decoders that came before the Transformer: recurrent, without and with attention.

Shape suffixes: B batch, S source length, T target length, D model width, L layers, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

import nn
import tensorlib as tl
from models.architectures.encoder_decoder import EncoderDecoder, checked_ids, ids_array, vocabulary_problems

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["RecurrentConfig", "RecurrentMemory", "RecurrentState", "RecurrentTranslator"]

LAYERS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class RecurrentConfig:
    """The configuration of a recurrent encoder-decoder.

    >>> models.RecurrentConfig(source_vocabulary=8000, target_vocabulary=8000, width=255).check()
    Traceback (most recent call last):
    ValueError: RecurrentConfig: width must be even, for the encoder reads in two directions, got 255
    """

    source_vocabulary: Annotated[int, "Number of source subwords; 0 means as many as the tokenizer has."] = 0
    target_vocabulary: Annotated[int, "Number of target subwords; 0 means as many as the tokenizer has."] = 0
    layers: Annotated[int, "Number of layers in the encoder, and in the decoder."] = 2
    width: Annotated[int, "Width D of embeddings, states and memory; even."] = 512
    attention: Annotated[
        Literal["additive", "dot", "none"],
        "How the decoder looks at the source: additive attention (Bahdanau et al. 2015), dot-product attention (the "
        "general form of Luong et al. 2015), or none: it starts from the encoder's last state, and sees nothing else "
        "(Sutskever et al. 2014).",
    ] = "dot"
    dropout: Annotated[float, "Dropout on embeddings, between layers, and on the decoder's output."] = 0.3
    max_length: Annotated[
        int, "Longest sentence, in subwords. Training drops longer pairs, translation cuts longer sentences off."
    ] = 512
    tie_embeddings: Annotated[
        bool,
        "Share one matrix between source embedding, target embedding and output; source and target must then have one "
        "vocabulary.",
    ] = False
    kind: Annotated[Literal["lstm", "gru", "rnn"], "The architecture, by its layers."] = "lstm"

    def check(self) -> None:
        """Raise ValueError if any field is impossible, naming every such field and its value."""
        sizes = ["source_vocabulary", "target_vocabulary", "layers", "width", "max_length"]
        problems = [f"{n} must be at least 1, got {getattr(self, n)}" for n in sizes if getattr(self, n) < 1]
        if self.kind not in LAYERS:
            problems.append(f"kind must be 'lstm', 'gru' or 'rnn', got {self.kind!r}")
        if self.width % 2:
            problems.append(f"width must be even, for the encoder reads in two directions, got {self.width}")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.attention not in ("additive", "dot", "none"):
            problems.append(f"attention must be 'additive', 'dot' or 'none', got {self.attention!r}")
        problems += vocabulary_problems(self.source_vocabulary, self.target_vocabulary, self.tie_embeddings)
        if problems:
            raise ValueError(f"RecurrentConfig: {'; '.join(problems)}")


@dataclass(frozen=True)
class RecurrentMemory:
    """What the encoder hands to the decoder."""

    states_BSD: tl.Tensor
    """The states of the last layer at every source position, those of both directions side by side."""
    last: Any
    """The last states of all layers, (L, B, D), with which the decoder starts; for an LSTM a pair, h and c."""


@dataclass(frozen=True)
class RecurrentState:
    """The state between decoding steps. It is immutable: a step returns a new state."""

    layers: Any
    """The states of all layers, (L, B, D); for an LSTM a pair, h and c."""
    seen: tuple[tl.Tensor, ...]
    """What attention reads: keys and values (B, S, D) and, unless all is visible, the mask (B, S); empty without it."""

    def select(self, rows: ArrayLike) -> RecurrentState:
        """Return the state of the given rows (indices or booleans), which may drop, repeat or reorder sentences."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        layers = self.layers if isinstance(self.layers, tuple) else (self.layers,)
        if np.array_equal(rows, np.arange(layers[0].shape[1])):
            return self
        index = rows if layers[0].backend.xp is np else layers[0].backend.asarray(rows)
        chosen = tuple(x[:, index] for x in layers)
        return RecurrentState(
            chosen if isinstance(self.layers, tuple) else chosen[0], tuple(x[index] for x in self.seen)
        )


class RecurrentTranslator(EncoderDecoder):
    """An encoder that reads the source in both directions, and a decoder that starts from its last state.

    h = decoder(embeddings of the target); without attention the logits are W h. With attention the decoder's output is
    tanh([c; h] W_c + b_c), where the context c is the mean of the encoder's states m, weighted by softmax(score(h, m))
    (Luong et al. 2015, section 3):

        dot:       score(h, m) = h . (m W)                      Luong et al. 2015, section 3.1, "general"
        additive:  score(h, m) = v . tanh(h U + b + m W)        Bahdanau et al. 2015, appendix A.1.2

    Two things are simpler than in these papers. No state depends on an earlier context (Luong's input feeding, and
    Bahdanau's decoder), so all target positions are computed at once. And without attention the encoder reads in both
    directions too, where Sutskever et al. 2014 read the source backwards.

    >>> config = models.RecurrentConfig(9, 9, layers=1, width=8, kind="lstm")
    >>> model = models.RecurrentTranslator(config).eval()
    >>> source_ids_BS, target_ids_BT = np.array([[5, 6, 3], [7, 3, 0]]), np.array([[2, 4], [2, 8]])
    >>> logits_BTV = model(source_ids_BS, target_ids_BT)
    >>> visible_BS = model.visible(source_ids_BS)
    >>> state = model.start(model.encode(source_ids_BS, visible_BS), visible_BS)
    >>> for ids_B in target_ids_BT.T:
    ...     logits_BV, state = model.decode_step(ids_B, state)
    >>> np.allclose(logits_BV.numpy(), logits_BTV.numpy()[:, -1], atol=1e-6)
    True
    """

    recurrent = True
    config: RecurrentConfig

    def __init__(self, config: RecurrentConfig, generator: tl.Generator | None = None) -> None:
        config.check()
        self.config = config
        self.make_embeddings(generator)
        layers, width = LAYERS[config.kind], config.width
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = layers(width, width // 2, config.layers, True, config.dropout, generator=generator)
        self.decoder = layers(width, width, config.layers, False, config.dropout, generator=generator)
        self.attention = None if config.attention == "none" else Attention(config, generator)
        self.make_output(config.target_vocabulary, generator)

    def encode(self, source_ids: TensorLike, source_visible: tl.Tensor | None = None) -> RecurrentMemory:
        """Return the memory of source ids (B, S); `source_visible` (B, S) by default hides `PAD`."""
        visible_BS = self.visible(source_ids) if source_visible is None else source_visible
        x_BSD = self._embed(self.source_embedding, source_ids)
        states_BSD, last = self.encoder(x_BSD, visible_BT=visible_BS)
        return RecurrentMemory(states_BSD, _directions_joined(last))

    def decoder_output(
        self, target_ids: TensorLike, memory: RecurrentMemory, source_visible: tl.Tensor | None
    ) -> tl.Tensor:
        """Return the vectors (B, T, D) that the logits are computed from."""
        return self._advance(target_ids, self.start(memory, source_visible))[0]

    def start(self, memory: RecurrentMemory, source_visible: tl.Tensor | None = None) -> RecurrentState:
        """Return the state before the first token."""
        if self.attention is None:
            return RecurrentState(memory.last, ())
        mask = () if source_visible is None else (source_visible,)
        return RecurrentState(memory.last, (self.attention.keys(memory.states_BSD), memory.states_BSD, *mask))

    def decode_step(self, ids: TensorLike, state: RecurrentState) -> tuple[tl.Tensor, RecurrentState]:
        """Append a token to each sentence, ids (B,); return the logits (B, V) for the next token, and the new state.

        The logits equal those of `decode` at the last position of the whole prefix. `state` itself does not change.
        """
        x_B1D, state = self._advance(ids_array(ids)[:, None], state)
        return self.logits(x_B1D)[:, 0], state

    def _advance(self, target_ids: TensorLike, state: RecurrentState) -> tuple[tl.Tensor, RecurrentState]:
        """Return the decoder's output (B, T, D) for the next target ids (B, T), and the state after them."""
        h_BTD, layers = self.decoder(self.embed_target(target_ids), state.layers)
        if self.attention is not None:
            h_BTD = self.attention(h_BTD, *state.seen)
        return self.dropout(h_BTD), replace(state, layers=layers)

    def embed_target(self, target_ids: TensorLike) -> tl.Tensor:
        """Return what the decoder reads, (B, T, D)."""
        return self._embed(self.target_embedding, target_ids)

    def _embed(self, embedding: nn.Embedding, ids: TensorLike) -> tl.Tensor:
        return self.dropout(embedding(checked_ids(ids, "RecurrentTranslator")))


class Attention(nn.Module):
    """tanh([c; h] W_c): the decoder's state h beside a weighted mean c of the encoder's states.

    The formulas are those of `RecurrentTranslator`.
    """

    def __init__(self, config: RecurrentConfig, generator: tl.Generator | None) -> None:
        width = config.width
        self.key = nn.Linear(width, width, bias=False, generator=generator)
        if config.attention == "additive":
            self.query = nn.Linear(width, width, generator=generator)
            self.score = nn.Linear(width, 1, bias=False, generator=generator)
        self.kind = config.attention
        self.output = nn.Linear(2 * width, width, generator=generator)

    def keys(self, memory_BSD: tl.Tensor) -> tl.Tensor:
        """Return m W for the encoder's states, which is the same in every step."""
        return self.key(memory_BSD)

    def weights(self, h_BTD: tl.Tensor, keys_BSD: tl.Tensor, visible_BS: tl.Tensor | None = None) -> tl.Tensor:
        """Return the weights (B, T, S) with which each target position sees the source; each row sums to 1."""
        if self.kind == "dot":
            scores_BTS = h_BTD @ keys_BSD.swapaxes(1, 2)
        else:
            sums_BTSD = tl.expand_dims(self.query(h_BTD), 2) + tl.expand_dims(keys_BSD, 1)
            scores_BTS = tl.squeeze(self.score(tl.tanh(sums_BTSD)), -1)
        return tl.softmax(scores_BTS, -1, None if visible_BS is None else tl.expand_dims(visible_BS, 1))

    def forward(
        self, h_BTD: tl.Tensor, keys_BSD: tl.Tensor, memory_BSD: tl.Tensor, visible_BS: tl.Tensor | None = None
    ) -> tl.Tensor:
        """Return the decoder's output (B, T, D)."""
        context_BTD = self.weights(h_BTD, keys_BSD, visible_BS) @ memory_BSD
        return tl.tanh(self.output(tl.concatenate([context_BTD, h_BTD], axis=-1)))

    def extra_repr(self) -> str:
        """Return the kind."""
        return self.kind


def _directions_joined(last: Any) -> Any:
    """Return the last states (L, B, D) of a bidirectional encoder, whose directions are separate: (2L, B, D / 2)."""
    if isinstance(last, tuple):
        return tuple(_directions_joined(one) for one in last)
    forward, backward = last[0::2], last[1::2]
    return tl.concatenate([forward, backward], axis=-1)
