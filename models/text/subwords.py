r"""Files to pairs of sentences, and sentences to subwords and back.

Lines end at "\n" and nowhere else. `str.splitlines` and text mode would also end them at U+2028, VT, FF, NEL
or a lone "\r"; one such character in a sentence would then shift every later pair of a parallel corpus.
"""

import codecs
import hashlib
import io
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import sentencepiece

from models.system.errors import UserError
from models.system.files import read_bytes
from models.text import bpe_dropout
from models.text.tokens import BOS, EOS, PAD, UNK
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["BOS", "EOS", "PAD", "UNK", "Pair", "Subwords", "Tokenizer"]
__all__ += ["read_lines", "read_parallel", "read_tsv", "without_empty"]

Pair = tuple[str, str]  # a sentence and its translation
FilePath = str | os.PathLike[str]

# --- files to pairs -----------------------------------------------------------------------------------------

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_WIDE_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32"}
_WIDE_MARKS |= {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def read_lines(path: FilePath) -> list[str]:
    r"""Read the lines of a UTF-8 file, without their ends.

    A "\r" right before "\n" or the end of the file is part of the line's end; a byte-order mark is no text. A
    last line without "\n" counts, and a "\n" at the very end begins no further line.

    Errors: `UserError` naming the file, and where it can the line and byte column (both from 1), for whatever
    is not a readable, non-empty, regular file of UTF-8 without NUL bytes.
    """
    name = os.fspath(path)
    data = read_bytes(name, "reading text")
    _refuse_wide_encodings(name, data)
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line, column = _position(data, error.start)
        raise UserError(
            f"reading text {name}:{line}: UTF-8 is required; found byte 0x{data[error.start]:02x} at byte "
            f"column {column} ({error.reason}); if the file is Latin-1, run {_iconv('LATIN1', name)}"
        ) from None
    if not text:
        raise UserError(f"reading text {name}: at least one line is required; it is empty; write it again")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def read_parallel(source: FilePath, target: FilePath) -> list[Pair]:
    """Pair line i of `source` with line i of `target`, empty lines too, so that nothing is ever misaligned.

    Errors: `UserError` for different numbers of lines, and those of `read_lines`.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise UserError(
            f"reading parallel text: equally many lines are required, each the other's translation; "
            f"{os.fspath(source)} has {len(sources)} lines and {os.fspath(target)} has "
            f"{len(targets)}; find the line that one of them lacks"
        )
    return list(zip(sources, targets, strict=True))


def read_tsv(path: FilePath) -> list[Pair]:
    """Read the first two tab-separated columns of each line; quotes are text, further columns are ignored.

    A line of nothing or only spaces is a pair of empty sentences, as it would be in two parallel files.

    Errors: `UserError` naming the first line with a single column, and those of `read_lines`.
    """
    rows = [line.split("\t") if line.strip(" ") else ["", ""] for line in read_lines(path)]
    narrow = [number for number, row in enumerate(rows, start=1) if len(row) < 2]
    if narrow:
        others = f" (and in {len(narrow) - 1} more lines)" if len(narrow) > 1 else ""
        raise UserError(
            f"reading text {os.fspath(path)}:{narrow[0]}: two tab-separated columns are required, source and "
            f"target; found 1 column{others}; put a tab between the two, not spaces or commas"
        )
    return [(row[0], row[1]) for row in rows]


def without_empty(pairs: Sequence[Pair]) -> tuple[list[Pair], int]:
    """Return the pairs with something on both sides, and how many were left out: those with a blank side.

    Training learns nothing true from these: an empty translation only teaches the model to stop at once.
    """
    kept = [pair for pair in pairs if pair[0].strip() and pair[1].strip()]
    return kept, len(pairs) - len(kept)


def _refuse_wide_encodings(name: str, data: bytes) -> None:
    for mark, encoding in _WIDE_MARKS.items():
        if data.startswith(mark):
            raise UserError(
                f"reading text {name}:1: UTF-8 is required; the file begins with the byte-order mark of "
                f"{encoding}; run {_iconv(encoding, name)}"
            )
    # In UTF-16 and UTF-32 every newline and every ASCII character has a NUL byte; in UTF-8 text nothing has.
    at = data.find(b"\0")
    if at >= 0:
        line, column = _position(data, at)
        encoding = "UTF-16LE" if at % 2 else "UTF-16BE"  # "a" is 61 00 in the one and 00 61 in the other
        raise UserError(
            f"reading text {name}:{line}: UTF-8 is required; found a NUL byte at byte column {column}, as in "
            f"UTF-16 or binary data; if it is UTF-16, run {_iconv(encoding, name)}"
        )


def _position(data: bytes, offset: int) -> tuple[int, int]:
    return data.count(b"\n", 0, offset) + 1, offset - data.rfind(b"\n", 0, offset)


def _iconv(encoding: str, name: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(name)} > {shlex.quote(name + '.utf8')}"


# --- sentences to subwords ----------------------------------------------------------------------------------

# SentencePiece writes a space as U+2581, so it can't tell the two apart, and learns from no line with U+2585.
# Both are written as ESC and a digit before it sees them, as is ESC itself to make the writing reversible.
_ESCAPES = {"\x1b": "\x1b0", "\u2581": "\x1b1", "\u2585": "\x1b2"}
_UNESCAPES = {escaped: char for char, escaped in _ESCAPES.items()}
_TO_ESCAPE = re.compile("[\x1b\u2581\u2585\ud800-\udfff]")
_ESCAPED = re.compile("\x1b[012]")

# A model file ends in the SHA-256 of what is before it, as one more protobuf field (number 1000, 32 bytes)
# that other readers of SentencePiece models skip. So a torn or flipped file is told before the C++ parser
# sees it, and can't quietly change what a sentence means.
_DIGEST_FIELD = b"\xc2\x3e\x20"
_DIGEST_BYTES = len(_DIGEST_FIELD) + hashlib.sha256().digest_size

# SentencePiece learns from no line of more than 4,192 bytes; a UTF-8 character has up to four.
_TRAINING_CHARS = 1000


class Subwords:
    """One vocabulary of subwords: `decode(encode([s])[0]) == s` for every s without lone surrogates.

    What the training text did not have is spelled in bytes: nothing is lost, and `UNK` never produced. Text
    that looks like a special symbol ("</s>", "<pad>") is text.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model  # a serialised SentencePiece ModelProto
        self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = int(self._processor.get_piece_size())  # how many ids, special ones included

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, none of them special; a lone surrogate, having no UTF-8, is U+FFFD."""
        encoded: list[list[int]] = self._processor.encode([_escape(text) for text in texts])
        return encoded

    def sample(self, texts: Sequence[str], dropout: float, seed: int) -> list[list[int]]:
        """Return the ids of each text as `encode` does, but with BPE-dropout: see `bpe_dropout.sample`."""
        return bpe_dropout.sample(self._processor, [_escape(text) for text in texts], dropout, seed)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` up to the first EOS, without other special ids; IndexError if unknown."""
        return _unescape(self._processor.decode(list(_words_only(ids))))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Show each id to people: "▁" begins a word, "<0x0A>" is a byte, "</s>" is the end."""
        return [_unescape(self._processor.id_to_piece(int(i))) for i in ids]

    @classmethod
    def load(cls, path: FilePath) -> "Subwords":
        """Load what `save` wrote. Errors: `UserError` naming the file when it is missing or not whole."""
        name = os.fspath(path)
        data = read_bytes(name, "loading tokenizer")
        model, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if digest != _digest(model):
            raise UserError(
                f"loading tokenizer {name}: a whole file as training writes it is required; its {len(data)} "
                "bytes don't end in their checksum; copy the file again, or train anew"
            )
        return cls(model)

    def save(self, path: FilePath) -> None:
        """Write one file, whole or not at all. Errors: OSError (a full disk); then an old file stands."""
        write_atomically(path, self.model + _digest(self.model))


class Tokenizer:
    """The vocabularies of both languages: one that they share, or one each."""

    def __init__(self, source: Subwords, target: Subwords) -> None:
        self.source = source
        self.target = target
        self.shared = source is target  # then ids mean the same on both sides; models may share embeddings
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
    ) -> "Tokenizer":
        """Learn subwords from both sides of `pairs` together when `shared`, else from each side for itself.

        vocabulary_size: the most ids that a vocabulary may have. It holds 4 special symbols, 256 bytes and
            every character of the text; the rest are the pieces learned, fewer when the text has no more.
        character_coverage: the part of the text, in characters, whose characters get an id; rarer ones are
            spelled in bytes. 0.9995 is usual for Chinese and Japanese.

        Nothing is drawn at random: the same pairs and arguments give the same bytes.
        Errors: `UserError` when there is no text, or the vocabulary is too small for the characters.
        """
        sides = list(zip(*pairs, strict=True)) or [(), ()]
        texts = [[*sides[0], *sides[1]]] if shared else sides
        learned = [_learn(side, vocabulary_size, model_type, character_coverage) for side in texts]
        return cls(learned[0], learned[-1])

    def encode_source(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what the encoder reads: the ids of each text, then EOS, so that even "" has a position."""
        return [[*ids, EOS] for ids in self.source.encode(texts)]

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text alone: `batching.teacher_forcing` adds BOS and EOS, one a side."""
        return self.target.encode(texts)

    def decode_target(self, ids: Iterable[int]) -> str:
        """Return one line of text: the ids up to the first EOS, other special ids left out.

        A model may spell a newline, which no training line has; it becomes a space, so that N lines stay N.
        """
        return self.target.decode(ids).replace("\n", " ")

    def save(self, directory: FilePath) -> None:
        """Write `tokenizer.model` when shared, else `tokenizer.source.model` and `tokenizer.target.model`."""
        shared, source, target = _files(directory)
        written = {shared: self.source} if self.shared else {source: self.source, target: self.target}
        for path, subwords in written.items():
            subwords.save(path)
        for stale in {shared, source, target} - written.keys():  # load would not know which to take
            stale.unlink(missing_ok=True)

    @classmethod
    def load(cls, directory: FilePath) -> "Tokenizer":
        """Load what `save` wrote. Errors: `UserError` naming the file that is missing or not whole."""
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
            num_threads=1,  # sums in one order, so the same text gives the same bytes
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        needed = re.search(r"smaller than required_chars\. -?\d+ vs (\d+)", str(error))
        why = f"specials, bytes and the text's characters make {needed[1]}" if needed else str(error)
        raise UserError(
            f"training the tokenizer: a vocabulary that the text fits is required; size {size}, type "
            f"{model_type} and character coverage {coverage} don't do: {why}; ask for more or cover less"
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
