"""Sentences as vectors of length 1: a bag of subwords, and what the Transformer's encoder adds to it.

Shape suffixes: B batch, S length in subwords, D width, N sentences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

import nn
import tensorlib as tl
from models.architectures.encoder_decoder import checked_ids
from models.architectures.transformer import Encoder, TransformerConfig
from models.system.digests import digest
from models.system.errors import CheckpointError, UserError
from models.system.files import require_file
from models.text.batching import Ids, group_by_length, pad
from models.text.subwords import Subwords, Tokenizer
from models.text.tokens import BOS, EOS, PAD
from tensorlib.exchange.safetensors import load_with_metadata
from tensorlib.messages import shown

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["SentenceEncoder", "SentenceEncoderConfig", "Side"]

Side = Literal["source", "target"]
SIDES = ("source", "target")

FORMAT = 1
LONGEST = 2**20  # positions that a file may ask for
POSITIONS = 2048  # subwords, padding included, that are encoded at once


@dataclass(frozen=True)
class SentenceEncoderConfig:
    """The configuration of a sentence encoder. With ``layers=0`` it is a bag of subwords.

    >>> models.SentenceEncoderConfig(width=64, heads=3).check()
    Traceback (most recent call last):
    ValueError: SentenceEncoderConfig: heads must divide width, got 3 and 64
    """

    layers: Annotated[int, "Number of layers; 0: the mean of the embeddings alone, a bag of subwords."] = 2
    width: Annotated[int, "Width D of the embeddings and between layers."] = 256
    heads: Annotated[int, "Attention heads; must divide the width."] = 4
    feed_forward: Annotated[int, "Hidden width of the position-wise feed-forward layers."] = 512
    dropout: Annotated[float, "Dropout on embeddings, attention weights, hidden values and sub-layers' outputs."] = 0.1
    norm: Annotated[Literal["post", "pre"], "Where a layer normalizes, as in TransformerConfig."] = "pre"
    pooling: Annotated[
        Literal["mean", "max", "first"],
        "How the layers' output becomes one vector: its mean, its largest elements, or the first, that of <s>.",
    ] = "mean"
    projection: Annotated[int, "Width of a linear map of the pooled vector; 0: none."] = 0
    towers: Annotated[
        Literal["shared", "separate"],
        "shared: one encoder for both languages, which needs one vocabulary; separate: one for each.",
    ] = "shared"
    max_length: Annotated[int, "Subwords of a sentence that are read; further ones are cut off."] = 256

    def check(self) -> None:
        """Raise ValueError if any field is impossible, naming every such field and its value."""
        least = {"layers": 0, "projection": 0, "max_length": 2}
        problems = [
            f"{n} must be at least {k}, got {getattr(self, n)}" for n, k in least.items() if getattr(self, n) < k
        ]
        choices = {"pooling": ("mean", "max", "first"), "towers": ("shared", "separate")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                problems.append(f"{name} must be {' or '.join(map(repr, allowed))}, got {shown(getattr(self, name))}")
        if self.layers == 0 and self.pooling != "mean":
            problems.append(f"pooling {self.pooling!r} needs layers, for it is their output that is pooled")
        try:
            self.transformer().check()
        except ValueError as error:
            problems.append(str(error).removeprefix("TransformerConfig: "))
        if problems:
            raise ValueError(f"SentenceEncoderConfig: {'; '.join(problems)}")

    def transformer(self) -> TransformerConfig:
        """Return the config of the Transformer whose encoder is used."""
        return TransformerConfig(
            1, 1, max(self.layers, 1), self.width, self.heads, self.feed_forward, self.dropout, norm=self.norm
        )  # fmt: skip


class SentenceEncoder(nn.Module):
    """y = (mean(x) + pooled(encoder(x + positions))) W, divided by its length, with x = sqrt(D) embeddings.

    The dot product of two vectors is the cosine of the angle between them. Trained by a contrastive loss, it is large
    for translations (Yang et al. 2019; Feng et al. 2022, LaBSE). With ``layers=0`` only the bag is left,
    mean(x), in which word order does not count. The sum lets the layers learn what a bag lacks: without mean(x) a small
    encoder is worse than a bag. W is left out unless there is a `projection`.

    Ids are integers on the host; id `PAD` is padding, which changes nothing: a sentence gets the same vector alone and
    in a batch, but for rounding.

    >>> tokenizer = models.Tokenizer.train([("ein Hund", "a dog"), ("zwei Katzen", "two cats")], vocabulary_size=290)
    >>> encoder = models.SentenceEncoder(models.SentenceEncoderConfig(width=16), tokenizer)
    >>> sources_ND, targets_ND = encoder.embed(["ein Hund", "zwei Katzen"]), encoder.embed(["a dog"], "target")
    >>> (sources_ND @ targets_ND.T).shape  # the cosines; before training they mean nothing
    (2, 1)
    >>> np.allclose(encoder.embed(["zwei Katzen"]), sources_ND[1:], atol=1e-6)
    True

    Raises ValueError for an impossible config, or if one tower is to read two vocabularies.
    """

    def __init__(
        self, config: SentenceEncoderConfig, tokenizer: Tokenizer, generator: tl.Generator | None = None
    ) -> None:
        config.check()
        if config.towers == "shared" and not tokenizer.shared:
            raise ValueError(
                "SentenceEncoder: one tower needs one vocabulary for both languages, got two; train the tokenizer with "
                "shared=True, or use towers='separate'"
            )
        self.config, self.tokenizer = config, tokenizer
        sizes = [tokenizer.source_size, tokenizer.target_size]
        count = 1 if config.towers == "shared" else 2
        self.towers = nn.ModuleList(Tower(config, size, generator) for size in sizes[:count])

    @property
    def width(self) -> int:
        """The width of the vectors."""
        return self.config.projection or self.config.width

    def forward(self, ids: TensorLike, side: Side = "source") -> tl.Tensor:
        """Return the vectors (B, D) of sentences (B, S); a sentence of nothing but `PAD` gives zeros."""
        tower = self.towers[SIDES.index(side) if self.config.towers == "separate" else 0]
        return tl.normalize(tower(checked_ids(ids, "SentenceEncoder")))

    def forward_rows(self, rows: Sequence[Ids], side: Side = "source", positions: int = POSITIONS) -> tl.Tensor:
        """Return the vectors (N, D) of sentences of different lengths, as `encode_texts` returns them.

        Sentences of similar length are encoded together, so there is little padding.
        """
        groups = group_by_length([len(row) for row in rows], positions)
        parts = [self(pad([rows[i] for i in group])[0], side) for group in groups]
        if len(parts) == 1 and groups[0] == list(range(len(rows))):
            return parts[0]
        return tl.concatenate(parts)[np.argsort([i for group in groups for i in group])]

    # ---- text ----

    def encode_texts(self, texts: Sequence[str], side: Side = "source") -> list[NDArray[np.int32]]:
        """Return the ids of each text, at most `max_length`: with </s> at the end and, to pool the first, <s> before.

        So even an empty text has a position.
        """
        subwords = self.tokenizer.source if side == "source" else self.tokenizer.target
        head = [BOS] if self.config.pooling == "first" else []
        room = self.config.max_length - len(head) - 1
        return [np.array([*head, *ids[:room], EOS], np.int32) for ids in subwords.encode(texts)]

    def embed(self, texts: Sequence[str], side: Side = "source") -> NDArray[np.floating]:
        """Return the vectors (N, D) of texts as an array on the host, without dropout and without a graph.

        side: the language, which decides the vocabulary and, if there are two, the tower.
        """
        if isinstance(texts, str):
            raise TypeError(f"embed: a list of texts is required, got {shown(texts)}; pass [text]")
        if side not in SIDES:
            raise ValueError(f"embed: side must be 'source' or 'target', got {shown(side)}")
        return self.embed_rows(self.encode_texts(texts, side), side)

    def embed_rows(self, rows: Sequence[Ids], side: Side = "source") -> NDArray[np.floating]:
        """Return the same for texts that are encoded already."""
        weight = self.towers[0].embedding.weight
        vectors_ND = np.zeros((len(rows), self.width), weight.dtype)
        with self.evaluating(), tl.no_grad():
            for group in group_by_length([len(row) for row in rows], POSITIONS):
                vectors_ND[group] = self(pad([rows[i] for i in group])[0], side).numpy()
        return vectors_ND

    # ---- files ----

    def save(self, path: str | Path) -> None:
        """Write one safetensors file atomically: the weights, the config, and the tokenizer with its checksum.

        Errors: ValueError if a weight is not finite.
        """
        tensors = {f"model.{name}": np.asarray(array) for name, array in self.state_dict().items()}
        if bad := [name for name, array in tensors.items() if not np.isfinite(array).all()]:
            raise ValueError(f"SentenceEncoder: finite weights are required to save; {bad[0]} is not")
        sides = SIDES[:1] if self.tokenizer.shared else SIDES
        for side in sides:
            data = getattr(self.tokenizer, side).to_bytes()
            tensors[f"tokenizer.{side}"] = np.frombuffer(data, np.uint8)
        metadata = {"format": FORMAT, "config": asdict(self.config)}
        tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})

    @classmethod
    def load(cls, path: str | Path) -> SentenceEncoder:
        """Return the encoder that `save` wrote, in evaluation mode.

        Errors: `CheckpointError`, which names the file, if it is missing, damaged, forged or of something else.

        >>> import os, tempfile
        >>> tokenizer = models.Tokenizer.train([("ein Hund", "a dog")], vocabulary_size=290)
        >>> encoder = models.SentenceEncoder(models.SentenceEncoderConfig(layers=0, width=8), tokenizer)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     encoder.save(os.path.join(folder, "encoder.safetensors"))
        ...     loaded = models.SentenceEncoder.load(os.path.join(folder, "encoder.safetensors"))
        >>> bool((loaded.embed(["ein Hund"]) == encoder.embed(["ein Hund"])).all())
        True
        """
        try:
            require_file(str(path), "checkpoint")
            tensors, metadata = load_with_metadata(path)
            if metadata.pop("digest", None) != digest(tensors, metadata) or metadata.get("format") != FORMAT:
                raise UserError("it does not match its own digest, or is of another format")
            return _from_parts(tensors, metadata, str(path))
        except (UserError, OSError, ValueError, RecursionError) as error:
            why = str(error).removeprefix(f"checkpoint {path}: ")
            raise CheckpointError(
                f"checkpoint {path}: a file that SentenceEncoder.save wrote is required; {why}; restore it"
            ) from None


def _from_parts(tensors: dict[str, np.ndarray], metadata: dict[str, Any], name: str) -> SentenceEncoder:
    """Check every part before anything is built from it. Errors: `UserError` or ValueError."""
    values, defaults = metadata.get("config"), asdict(SentenceEncoderConfig())
    if sorted(metadata) != ["config", "format"] or not isinstance(values, dict) or sorted(values) != sorted(defaults):
        raise UserError(f"the settings {', '.join(defaults)} are required, and a format")
    for key, default in defaults.items():
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if type(values[key]) not in kinds:
            raise UserError(f"{key} of type {type(default).__name__} is required; got {shown(values[key])}")
    config = SentenceEncoderConfig(**values)
    config.check()
    weights = {key.removeprefix("model."): array for key, array in tensors.items() if key.startswith("model.")}
    numbers = sum(array.size for array in weights.values())
    if config.width * max(config.projection, config.layers * config.feed_forward, 1) > numbers:
        raise UserError(f"a config that fits the {numbers:,} numbers of the file is required")
    if config.max_length > LONGEST:
        raise UserError(f"max_length of at most {LONGEST:,} is required; got {config.max_length:,}")
    sides = [side for side in SIDES if f"tokenizer.{side}" in tensors]
    if not sides or len(sides) + len(weights) != len(tensors) or sides[0] != SIDES[0]:
        raise UserError("weights and a tokenizer are required, and nothing else")
    subwords = [Subwords.from_bytes(tensors[f"tokenizer.{side}"].tobytes(), name) for side in sides]
    encoder = SentenceEncoder(config, Tokenizer(subwords[0], subwords[-1]))
    dtypes = {array.dtype for array in weights.values()}
    if len(dtypes) != 1 or not all(a.dtype.kind == "f" and np.isfinite(a).all() for a in weights.values()):
        raise UserError("finite weights of one dtype are required")
    encoder.astype(str(dtypes.pop()))
    encoder.load_state_dict(weights)
    return encoder.eval()


class Tower(nn.Module):
    """The encoder of one language, or of both."""

    def __init__(self, config: SentenceEncoderConfig, vocabulary: int, generator: tl.Generator | None) -> None:
        self.embedding = nn.Embedding(vocabulary, config.width, generator)
        self.dropout = nn.Dropout(config.dropout)
        bag = config.layers == 0
        self.positions = None if bag else nn.SinusoidalPositions(config.width, config.max_length)
        self.encoder = None if bag else Encoder(config.transformer(), generator)
        self.pooling = config.pooling
        self.projection = None
        if config.projection:
            self.projection = nn.Linear(config.width, config.projection, bias=False, generator=generator)

    def forward(self, ids_BS: np.ndarray) -> tl.Tensor:
        """Return the vectors (B, D) of sentences (B, S), of any length."""
        visible_BS = tl.Tensor(ids_BS != PAD, backend=self.embedding.weight.backend)
        x_BSD = self.dropout(self.embedding(ids_BS) * math.sqrt(self.embedding.weight.shape[1]))
        x_BD = pooled(x_BSD, visible_BS, "mean")
        if self.encoder is not None and self.positions is not None:
            y_BSD = self.encoder(self.positions(x_BSD), visible_BS.reshape(len(ids_BS), 1, 1, -1))
            x_BD = x_BD + pooled(y_BSD, visible_BS, self.pooling)
        return x_BD if self.projection is None else self.projection(x_BD)


def pooled(x_BSD: tl.Tensor, visible_BS: tl.Tensor, how: Literal["mean", "max", "first"]) -> tl.Tensor:
    """Return one vector (B, D) for each row: mean or maximum over what is visible, zeros if nothing is; or the first.

    >>> x_BSD, visible_BS = tl.Tensor([[[1.0], [5.0], [9.0]]]), tl.Tensor([[True, True, False]])
    >>> [pooled(x_BSD, visible_BS, how).item() for how in ("mean", "max", "first")]
    [3.0, 5.0, 1.0]
    """
    if how == "first":
        return x_BSD[:, 0]
    visible_BS1 = tl.expand_dims(visible_BS, 2)
    if how == "mean":
        count_B1 = tl.maximum(visible_BS1.sum(axis=1), 1).astype(x_BSD.dtype)
        return tl.where(visible_BS1, x_BSD, 0.0).sum(axis=1) / count_B1
    largest_BD = tl.where(visible_BS1, x_BSD, -math.inf).max(axis=1)
    return tl.where(visible_BS1.any(axis=1), largest_BD, 0.0)
