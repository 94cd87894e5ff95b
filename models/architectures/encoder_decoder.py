"""What every encoder-decoder has: embeddings, teacher-forced logits and their loss, and the matrix of the logits.

Shape suffixes: B batch, S source length, T target length, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import nn
import tensorlib as tl
from models.text.tokens import PAD
from tensorlib.arrays.backend import is_backend_array
from tensorlib.engine.value import wrap
from tensorlib.ops.crossentropy import check_range
from tensorlib.ops.indexing import check_ids

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["EncoderDecoder", "checked_ids", "ids_array", "joined_ids", "vocabulary_problems"]


class EncoderDecoder(nn.Module):
    """The base of all models that read a source and predict a target.

    A subclass calls `make_embeddings` and `make_output`, and defines `encode` and `decoder_output` for training, and
    `start` and `decode_step` for decoding token by token. Ids are integers: lists and arrays on the host, which are
    checked, or arrays and Tensors on the model's backend, which are not fetched for a check. In sources, id `PAD` is
    padding, which is never read.
    """

    recurrent = False  # whether the decoder's state at one position is computed from its state at the one before
    config: Any  # with width and tie_embeddings; for `make_embeddings` also source_vocabulary and target_vocabulary
    source_embedding: nn.Embedding
    target_embedding: nn.Embedding
    output: nn.Linear

    def encode(self, source_ids: TensorLike, source_visible: tl.Tensor | None = None) -> Any:
        """Return the memory of source ids (B, S), which decoding reads."""
        raise NotImplementedError

    def decoder_output(self, target_ids: TensorLike, memory: Any, source_visible: tl.Tensor | None) -> tl.Tensor:
        """Return the vectors (B, T, D) that the logits are computed from; none depends on later target ids."""
        raise NotImplementedError

    def start(self, memory: Any, source_visible: tl.Tensor | None = None) -> Any:
        """Return the state before the first token."""
        raise NotImplementedError

    def decode_step(self, ids: TensorLike, state: Any) -> tuple[tl.Tensor, Any]:
        """Append a token to each sentence, ids (B,); return the logits (B, V) for the next token, and the new state."""
        raise NotImplementedError

    # ---- training: all positions at once ----

    def forward(self, source_ids: TensorLike, target_ids: TensorLike) -> tl.Tensor:
        """Return logits (B, T, V) for sources (B, S) and targets (B, T) that begin with <s>.

        The logits at position t predict the token after target_ids[:, :t + 1].
        """
        visible_BS = self.visible(source_ids)
        return self.decode(target_ids, self.encode(source_ids, visible_BS), visible_BS)

    def loss(
        self,
        source_ids: TensorLike,
        target_ids: TensorLike,
        next_ids: TensorLike,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> tl.Tensor:
        """Return the cross-entropy of the tokens next_ids (B, T): next_ids[:, t] follows target_ids[:, :t + 1].

        It equals ``tl.cross_entropy(model(source_ids, target_ids), next_ids, ignore_index=PAD, ...)``, but a single op
        computes it from the decoder's output, and never holds the logits of a whole batch.
        """
        visible_BS = self.visible(source_ids)
        x_BTD = self.decoder_output(target_ids, self.encode(source_ids, visible_BS), visible_BS)
        return tl.linear_cross_entropy(x_BTD, self.output_weight(), None, next_ids, PAD, label_smoothing, reduction)

    def decode(self, target_ids: TensorLike, memory: Any, source_visible: tl.Tensor | None = None) -> tl.Tensor:
        """Return logits (B, T, V) for target ids (B, T) and what `encode` returned; no position sees later ones.

        Without `source_visible` (B, S) the whole memory is visible; for padded sources, pass the mask given to
        `encode`. Padding at the end of a target needs no mask, because no position sees later ones.
        """
        return self.logits(self.decoder_output(target_ids, memory, source_visible))

    def check_batch(self, source_ids: TensorLike, target_ids: TensorLike, next_ids: TensorLike) -> None:
        """Raise the IndexError of `loss` for an id outside of the vocabularies, for ids on the host.

        Ids on a device are not checked by `loss`, so a batch is checked before it is moved there.
        """
        reading = self.first_embedding, getattr(self, "target_embedding", self.first_embedding)
        for embedding, ids in zip(reading, (source_ids, target_ids), strict=True):
            check_ids(np.asarray(ids), embedding.weight.shape[0])
        check_range("linear_cross_entropy", np.asarray(next_ids), self.output_size, PAD)

    def visible(self, ids_BS: TensorLike) -> tl.Tensor:
        """Return a mask (B, S) on the model's backend: True for ids that are not padding, which may be anywhere."""
        mask: Any = ids_array(ids_BS) != PAD
        return tl.Tensor(mask, backend=self.backend) if isinstance(mask, np.ndarray) else wrap(mask)

    # ---- the two ends ----

    @property
    def backend(self) -> tl.Backend:
        """The backend of the parameters."""
        return self.first_embedding.weight.backend

    @property
    def first_embedding(self) -> nn.Embedding:
        """The embedding that reads first; if embeddings are tied, its matrix is the output's too."""
        return self.source_embedding

    @property
    def longest_target(self) -> int | None:
        """The most tokens that can be decoded; None if there is no limit."""
        return None

    def make_embeddings(self, generator: tl.Generator | None) -> None:
        """Make the embeddings of source and target, one and the same if they are tied."""
        c = self.config
        self.source_embedding = nn.Embedding(c.source_vocabulary, c.width, generator)
        tied = c.tie_embeddings
        self.target_embedding = self.source_embedding if tied else nn.Embedding(c.target_vocabulary, c.width, generator)

    def make_output(self, vocabulary: int, generator: tl.Generator | None) -> None:
        """Make the projection to logits, unless the embedding's matrix serves for it."""
        if not self.config.tie_embeddings:
            self.output = nn.Linear(self.config.width, vocabulary, bias=False, generator=generator)

    def logits(self, x_BTD: tl.Tensor) -> tl.Tensor:
        """Return logits (B, T, V) for outputs (B, T, D) of the decoder."""
        return tl.linear(x_BTD, self.output_weight()) if self.config.tie_embeddings else self.output(x_BTD)

    @property
    def output_size(self) -> int:
        """The number V of tokens that the logits are for."""
        shape = self.first_embedding.weight.shape if self.config.tie_embeddings else self.output.weight.shape[::-1]
        return shape[0]

    def output_weight(self) -> tl.Tensor:
        """Return the matrix (D, V) that maps the decoder's output to logits."""
        return self.first_embedding.weight.swapaxes(0, 1) if self.config.tie_embeddings else self.output.weight


def ids_array(ids: TensorLike) -> Any:
    """Return ids as an array where they are: on the device for its arrays and Tensors, otherwise on the host."""
    if isinstance(ids, tl.Tensor):
        return ids.data
    return ids if is_backend_array(ids) else np.asarray(ids)


def checked_ids(ids: TensorLike, name: str) -> Any:
    """Return ids (B, T) as an array where they are. Errors: ValueError for another shape."""
    ids_BT = ids_array(ids)
    if ids_BT.ndim != 2:
        raise ValueError(f"{name}: ids must be (sentences, length), got shape {ids_BT.shape}")
    return ids_BT


def joined_ids(parts: Sequence[Any]) -> Any:
    """Return arrays of ids (B, T), one after the other; on the device if one of them is there."""
    homes = [tl.backend_of(part) for part in parts]
    home = next((h for h in homes if h.xp is not np), homes[0])
    moved = [part if h is home else home.asarray(part) for part, h in zip(parts, homes, strict=True)]
    return home.concatenate(moved, 1)


def vocabulary_problems(source: int, target: int, tied: bool) -> list[str]:
    """Return why these sizes of vocabularies are impossible, if they are."""
    if not tied or source == target:
        return []
    return [f"tie_embeddings needs one vocabulary for source and target, got sizes {source} and {target}"]
