"""The sentences that a config names, and their encoding as ids: everything training reads before it begins."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from models.runs.config import TrainConfig
from models.system.errors import UserError
from models.text.batching import Example, encode_pairs, lengths
from models.text.corpora.phrasebook import phrasebook
from models.text.lines import Pair, read_parallel, read_tsv, without_empty
from models.text.subwords import Tokenizer
from models.training.language_corpus import LanguageCorpus, Streams, encode_streams, read_language_corpus
from tensorlib.messages import plural

__all__ = ["Corpus", "Examples", "encode_corpus", "read_corpus", "train_tokenizer"]

LOOKED_AT = 10_000  # pairs of a part, to compare its sides with those of another part
CLEARLY = 0.2  # nats for each two characters; German and English differ by 0.9 to 2, parts of one German text by 0.05


@dataclass(frozen=True)
class Corpus:
    """The pairs to train on, to validate with, and to test with; only the phrasebook has test pairs."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    notes: list[str]  # messages for the user, such as how many pairs with an empty side were left out

    def digest(self) -> str:
        """Return a digest of the text to train on and validate with; a run resumes only if its text has not changed."""
        hasher = hashlib.sha256()
        for part in (self.train, self.valid):
            for pair in part:
                hasher.update("\t".join(pair).encode("utf-8", "surrogatepass") + b"\n")
            hasher.update(b"\0")
        return hasher.hexdigest()


@dataclass(frozen=True)
class Examples:
    """The encoded training and validation parts, without pairs too long for the model."""

    train: list[Example]
    train_pairs: list[Pair]  # the text of each training example
    valid: list[Example]
    notes: list[str]


def read_corpus(config: TrainConfig) -> Corpus | LanguageCorpus:
    """Read the text that the config names. Errors: `UserError` naming an unreadable file or one without full pairs."""
    if config.model.kind == "language":
        return read_language_corpus(config)
    if config.data == "phrasebook":
        book = phrasebook()
        return Corpus(book.train, book.valid, book.test, [])
    notes: list[str] = []
    parts = {}
    for part in ("train", "valid"):
        source, target, tsv = (getattr(config, f"{part}_{side}") for side in ("source", "target", "tsv"))
        parts[part], dropped = without_empty(
            read_tsv(tsv, notes.append) if tsv else read_parallel(source, target, notes.append)
        )
        if not parts[part]:
            raise UserError(f"reading text {tsv or source}: a sentence with a translation is required; there is none")
        if dropped:
            notes.append(f"{part}: left out {plural(dropped, 'pair')} with an empty side")
    return Corpus(parts["train"], parts["valid"], [], notes + _suspicions(parts["train"], parts["valid"]))


def _suspicions(train: list[Pair], valid: list[Pair]) -> list[str]:
    """Return messages about text that can be trained on but is probably not what the user meant."""
    notes = []
    for name, part in (("train", train), ("valid", valid)):
        if 2 * sum(source == target for source, target in part) > len(part):
            notes.append(f"{name}: in most pairs the translation is the sentence itself; check the names of the files")
    if _is_swapped(train, valid):
        notes.append(
            "valid: the source looks like the target of the training text, and the target like its source; check "
            "whether the validation files are swapped"
        )
    known = set(train)
    leaked = sum(pair in known for pair in valid)
    if 2 * leaked > len(valid):
        verb = "is" if leaked == 1 else "are"
        notes.append(
            f"valid: {leaked:,} of {plural(len(valid), 'pair')} {verb} also in the training text, so the validation "
            "does not show how well other text is translated; keep them apart"
        )
    return notes


def _is_swapped(train: Sequence[Pair], valid: Sequence[Pair]) -> bool:
    """Return whether each side of `valid` is clearly more like the other side of `train` than like the same one.

    The measure is the mean log-probability of two adjacent characters, by their frequency in the first `LOOKED_AT`
    training pairs. It needs no words, which some languages don't separate.
    """
    sides = [_adjacent(pair[side] for pair in train) for side in (0, 1)]
    known = len(sides[0] | sides[1])

    def likelier_in_other(side: int) -> bool:
        text, same, other = _adjacent(pair[side] for pair in valid), sides[side], sides[1 - side]
        gain = sum(n * math.log((other[two] + 1) / (same[two] + 1)) for two, n in text.items())
        total = math.log((other.total() + known) / (same.total() + known))
        return gain / max(text.total(), 1) - total > CLEARLY

    return likelier_in_other(0) and likelier_in_other(1)


def _adjacent(sentences: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for sentence in islice(sentences, LOOKED_AT):
        counts.update(map("".join, pairwise(f" {sentence} ")))
    return counts


def train_tokenizer(config: TrainConfig, corpus: Corpus | LanguageCorpus) -> Tokenizer:
    """Learn subwords from the training part. Errors: `UserError` if the vocabulary is too small."""
    settings = config.tokenizer
    return Tokenizer.train(
        corpus.train if isinstance(corpus, Corpus) else [(line, "") for line in corpus.train],
        vocabulary_size=settings.vocabulary,
        shared=settings.shared,
        model_type=settings.type,
        character_coverage=settings.coverage,
    )


def encode_corpus(config: TrainConfig, corpus: Corpus | LanguageCorpus, tokenizer: Tokenizer) -> Examples | Streams:
    """Encode both parts. Errors: `UserError` if all pairs of a part are too long."""
    if isinstance(corpus, LanguageCorpus):
        return encode_streams(corpus, tokenizer)
    notes: list[str] = []
    longest = config.model.max_length
    train, train_pairs = _encode("train", corpus.train, tokenizer, longest, notes)
    valid, _ = _encode("valid", corpus.valid, tokenizer, longest, notes)
    return Examples(train, train_pairs, valid, notes)


def _encode(
    part: str, pairs: Sequence[Pair], tokenizer: Tokenizer, longest: int, notes: list[str]
) -> tuple[list[Example], list[Pair]]:
    """Return the examples of at most `longest` positions on both sides, and their pairs.

    Longer examples are dropped, never truncated, because a truncated pair teaches a wrong translation.
    """
    encoded = encode_pairs(tokenizer, pairs)
    fits = lengths(encoded).max(axis=1) <= longest
    kept = [(example, pair) for example, pair, short in zip(encoded, pairs, fits, strict=True) if short]
    dropped = len(pairs) - len(kept)
    if not kept:
        raise UserError(
            f"reading text: {part} pairs of at most {longest} subwords are required; all {dropped:,} are longer; "
            "raise --model.max-length"
        )
    if dropped:
        notes.append(f"{part}: left out {plural(dropped, 'pair')} longer than {longest} subwords (--model.max-length)")
    return [example for example, _ in kept], [pair for _, pair in kept]
