"""Which sentences a config means, and their way to ids: everything that training reads, before it begins."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from models.runs.config import TrainConfig
from models.system.errors import UserError
from models.text.batching import Example, encode_pairs
from models.text.corpora.phrasebook import phrasebook
from models.text.lines import Pair, read_parallel, read_tsv, without_empty
from models.text.subwords import Tokenizer

__all__ = ["Corpus", "Examples", "encode_corpus", "read_corpus", "train_tokenizer"]


@dataclass(frozen=True)
class Corpus:
    """Pairs of sentences. Only the phrasebook brings a test part."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    notes: list[str]
    """What a user should know about the reading, such as how many empty lines were left out."""

    def digest(self) -> str:
        """Return what tells this text from any other; a run goes on only with the text it began with."""
        hasher = hashlib.sha256()
        for part in (self.train, self.valid):
            for pair in part:
                hasher.update("\t".join(pair).encode("utf-8", "surrogatepass") + b"\n")
            hasher.update(b"\0")
        return hasher.hexdigest()


@dataclass(frozen=True)
class Examples:
    """The encoded training and validation parts, without what is too long."""

    train: list[Example]
    valid: list[Example]
    notes: list[str]


def read_corpus(config: TrainConfig) -> Corpus:
    """Read what the config names. Errors: `UserError` naming the file, or the part that has no sentence."""
    if config.data == "phrasebook":
        book = phrasebook()
        return Corpus(book.train, book.valid, book.test, [])
    notes = []
    parts = {}
    for part in ("train", "valid"):
        source, target, tsv = (getattr(config, f"{part}_{side}") for side in ("source", "target", "tsv"))
        parts[part], dropped = without_empty(read_tsv(tsv) if tsv else read_parallel(source, target))
        if not parts[part]:
            raise UserError(f"reading text {tsv or source}: a sentence with a translation is required; all are empty")
        if dropped:
            notes.append(f"{part}: left out {dropped:,} pairs with an empty side")
    return Corpus(parts["train"], parts["valid"], [], notes)


def train_tokenizer(config: TrainConfig, corpus: Corpus) -> Tokenizer:
    """Learn subwords from the training part. Errors: `UserError` where the vocabulary is too small."""
    settings = config.tokenizer
    return Tokenizer.train(
        corpus.train,
        vocabulary_size=settings.vocabulary,
        shared=settings.shared,
        model_type=settings.type,
        character_coverage=settings.coverage,
    )


def encode_corpus(config: TrainConfig, corpus: Corpus, tokenizer: Tokenizer) -> Examples:
    """Encode both parts. Errors: `UserError` where nothing is short enough."""
    notes: list[str] = []
    train = _encode("train", corpus.train, config, tokenizer, notes)
    valid = _encode("valid", corpus.valid, config, tokenizer, notes)
    return Examples(train, valid, notes)


def _encode(
    part: str, pairs: Sequence[Pair], config: TrainConfig, tokenizer: Tokenizer, notes: list[str]
) -> list[Example]:
    longest = config.model.max_length
    examples, dropped = encode_pairs(tokenizer, pairs, max_length=longest)
    if not examples:
        raise UserError(
            f"reading text: {part} pairs of at most {longest} subwords are required; all {dropped:,} are longer; "
            "raise --model.max-length"
        )
    if dropped:
        notes.append(f"{part}: left out {dropped:,} pairs longer than {longest} subwords (--model.max-length)")
    return examples
