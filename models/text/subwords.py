"""Conversion between sentences and subword ids, by one learned vocabulary for both languages or one for each."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import sentencepiece

from models.system.errors import UserError
from models.system.files import read_bytes
from models.text import bpe_dropout
from models.text.lines import FilePath, Pair
from models.text.tokens import BOS, EOS, PAD, UNK
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["Subwords", "Tokenizer"]

# SentencePiece writes a space as U+2581, so it cannot distinguish a space from U+2581, and it skips training lines that
# contain U+2585. So U+2581 and U+2585 are first replaced by ESC and a digit, as is ESC itself, so that this can be
# reversed.
_ESCAPES = {"\x1b": "\x1b0", "\u2581": "\x1b1", "\u2585": "\x1b2"}
_UNESCAPES = {escaped: char for char, escaped in _ESCAPES.items()}
_TO_ESCAPE = re.compile("[\x1b\u2581\u2585\ud800-\udfff]")
_ESCAPED = re.compile("\x1b[012]")

# A model file ends in the SHA-256 of everything before it, stored as one more protobuf field (number 1000, 32 bytes)
# that other readers of SentencePiece models skip. A truncated or corrupted file is therefore detected before the C++
# parser sees it, and cannot silently change what a sentence means.
_DIGEST_FIELD = b"\xc2\x3e\x20"
_DIGEST_BYTES = len(_DIGEST_FIELD) + hashlib.sha256().digest_size

# SentencePiece skips training lines of more than 4,192 bytes; a UTF-8 character has up to four bytes.
_TRAINING_CHARS = 1000


# What a model with other normalization, without pieces for all bytes, or with special symbols in the text would change.
_PROBES = (
    "  two  spaces ",
    "\tA\u00c4\u0041\u0308 \ufb01 \uff21 \u6211 \U0001f600",
    "</s> <pad> <unk> <0x41>",
    "\x00\x1b\u2581",
)


class Subwords:
    """One vocabulary of subwords: `decode(encode([s])[0]) == s` for every s without lone surrogates.

    Characters that the training text lacked are spelled in bytes, so nothing is lost, and `UNK` is never produced.
    Text that looks like a special symbol ("</s>", "<pad>") is encoded like other text.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model  # a serialized SentencePiece ModelProto
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = int(self._processor.get_piece_size())  # number of ids, special ones included
        self.line_end = int(self._processor.piece_to_id("<0x0A>"))  # the id of "\n", which no line of text contains

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special ids; a lone surrogate, which UTF-8 lacks, becomes U+FFFD."""
        encoded: list[list[int]] = self._processor.encode([_escape(text) for text in texts])
        return encoded

    def encode_with_dropout(self, texts: Sequence[str], dropout: float, seed: int) -> list[list[int]]:
        """Return the ids of each text as `encode` does, but with BPE-dropout: see `bpe_dropout.py`."""
        return bpe_dropout.encode_with_dropout(self._processor, [_escape(text) for text in texts], dropout, seed)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` up to the first EOS, ignoring special ids. Errors: IndexError for an unknown id."""
        return _unescape(self._processor.decode(list(_words_only(ids))))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return each id as readable text: "▁" starts a word, "<0x0A>" is a byte, "</s>" is the end."""
        return [_unescape(self._processor.id_to_piece(int(i))) for i in ids]

    @classmethod
    def load(cls, path: FilePath) -> Subwords:
        """Load a file that `save` wrote. Errors: `UserError` naming the file if it is missing, damaged or forged."""
        name = os.fspath(path)
        return cls.from_bytes(read_bytes(name, "loading tokenizer"), name)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Subwords:
        """Return what `to_bytes` gave. Errors: as of `load`, with this name of the file."""
        model, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if digest != _digest(model):
            raise UserError(
                f"loading tokenizer {name}: an undamaged tokenizer file is required; the {len(data)} bytes of this one "
                "do not end in their checksum; copy the file again, or train again"
            )
        problem = "it is empty"
        if model:  # SentencePiece accepts none, and answers 0 to every question about it
            try:
                subwords = cls(model)
                problem = subwords._problem()
            except (RuntimeError, ValueError) as error:  # ValueError: a piece that is not UTF-8
                problem = " ".join(str(error).split())
        if problem:
            raise UserError(
                f"loading tokenizer {name}: subwords learned by `tensorlib train` are required; {problem}; train again"
            )
        return subwords

    def _problem(self) -> str:
        """Return in which way this is not a model that `Tokenizer.train` could have made, or ""."""
        ids = tuple(getattr(self._processor, f"{name}_id")() for name in ("pad", "unk", "bos", "eos"))
        if ids != (PAD, UNK, BOS, EOS):
            return f"the ids of <pad>, <unk>, <s> and </s> must be {(PAD, UNK, BOS, EOS)}, got {ids}"
        self.pieces(range(self.size))
        lossy = [text for text in _PROBES if self.decode(self._processor.encode(_escape(text))) != text]
        return f"the text {lossy[0]!r} does not come back from its ids" if lossy else ""

    def save(self, path: FilePath) -> None:
        """Write one file atomically. Errors: OSError, as for a full disk; an existing file is then unchanged."""
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the contents of the file: the model and its checksum."""
        return self.model + _digest(self.model)


class Tokenizer:
    """The vocabularies of both languages: one that both share, or one for each.

    >>> tokenizer = models.Tokenizer.train([("a b", "b a"), ("c a", "a c")], vocabulary_size=270)
    >>> (ids,) = tokenizer.encode_target(["c b"])
    >>> tokenizer.decode_target(ids)
    'c b'
    >>> tokenizer.encode_source(["c b"]) == [[*ids, 3]]  # the source ends in </s>, id 3
    True
    """

    def __init__(self, source: Subwords, target: Subwords) -> None:
        self.source = source
        self.target = target
        self.shared = source is target  # then an id means the same on both sides, and models may share embeddings
        self.source_size = source.size
        self.target_size = target.size

    @classmethod
    def train(
        cls,
        pairs: Iterable[Pair],
        *,
        vocabulary_size: int = 8000,
        shared: bool = True,
        model_type: Literal["bpe", "unigram"] = "bpe",
        character_coverage: float = 1.0,
    ) -> Tokenizer:
        """Learn subwords from both sides of `pairs` together if `shared`, otherwise from each side separately.

        vocabulary_size: the maximum number of ids in a vocabulary. It includes 4 special symbols, 256 bytes and every
            character of the text; the rest are learned pieces, fewer if the text does not yield enough.
        character_coverage: the fraction of the text that consists of characters with an id; the rarest characters have
            none and are spelled in bytes. 0.9995 is usual for Chinese and Japanese.

        Training is deterministic: the same pairs and arguments give the same bytes.
        Errors: `UserError` if there is no text, or the vocabulary is too small for the characters.
        """
        sides = list(zip(*pairs, strict=True)) or [(), ()]
        texts = [[*sides[0], *sides[1]]] if shared else sides
        learned = [_learn(side, vocabulary_size, model_type, character_coverage) for side in texts]
        return cls(learned[0], learned[-1])

    def encode_source(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the encoder's input: the ids of each text and EOS, so that even "" gives one position."""
        return [[*ids, EOS] for ids in self.source.encode(texts)]

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """Return only the ids of each text; `batching.teacher_forcing` adds BOS to inputs and EOS to outputs."""
        return self.target.encode(texts)

    def decode_target(self, ids: Iterable[int]) -> str:
        """Return one line of text: the ids up to the first EOS, without other special ids.

        A model may produce a newline, although no training line contains one; it becomes a space, so that N targets
        give N lines.
        """
        return self.target.decode(ids).replace("\n", " ")

    def save(self, directory: FilePath) -> None:
        """Write `tokenizer.model` if shared, otherwise `tokenizer.source.model` and `tokenizer.target.model`."""
        shared, source, target = _files(directory)
        written = {shared: self.source} if self.shared else {source: self.source, target: self.target}
        for path, subwords in written.items():
            subwords.save(path)
        for stale in {shared, source, target} - written.keys():  # otherwise load could read the wrong files
            stale.unlink(missing_ok=True)

    @classmethod
    def load(cls, directory: FilePath) -> Tokenizer:
        """Load the files that `save` wrote. Errors: `UserError` naming the file that is missing or damaged."""
        shared, source, target = _files(directory)
        if source.exists() or target.exists():
            return cls(Subwords.load(source), Subwords.load(target))
        both = Subwords.load(shared)
        return cls(both, both)


def _learn(texts: Iterable[str], size: int, model_type: str, coverage: float) -> Subwords:
    lines = list(_training_lines(texts))
    if not lines:
        raise UserError("training the tokenizer: text is required; every sentence is empty; check the files")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            model_type=model_type,
            character_coverage=coverage,
            hard_vocab_limit=False,  # a small corpus gives fewer pieces instead of an error
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            byte_fallback=True,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            num_threads=1,  # one order of summation, so the same text gives the same bytes
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        needed = re.search(r"smaller than required_chars\. -?\d+ vs (\d+)", str(error))
        why = f"specials, bytes and the text's characters make {needed[1]}" if needed else str(error)
        raise UserError(
            f"training the tokenizer: a vocabulary that fits the text is required; size {size}, type {model_type} and "
            f"character coverage {coverage} do not fit: {why}; raise the size or lower the coverage"
        ) from None
    return Subwords(model.getvalue())


def _training_lines(texts: Iterable[str]) -> Iterator[str]:
    for text in map(_escape, texts):
        for start in range(0, len(text), _TRAINING_CHARS):
            yield text[start : start + _TRAINING_CHARS]


def _escape(text: str) -> str:
    return _TO_ESCAPE.sub(lambda match: _ESCAPES.get(match[0], "\ufffd"), text)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: _UNESCAPES[match[0]], text)


def _words_only(ids: Iterable[int]) -> Iterator[int]:
    for i in map(int, ids):
        if i == EOS:
            return
        if i not in (PAD, UNK, BOS):
            yield i


def _digest(model: bytes) -> bytes:
    return _DIGEST_FIELD + hashlib.sha256(model).digest()


def _files(directory: FilePath) -> tuple[Path, Path, Path]:
    folder = Path(directory)
    return folder / "tokenizer.model", folder / "tokenizer.source.model", folder / "tokenizer.target.model"
