r"""Text, read as lines and as sentence pairs, from files and from streams.

Lines end at "\n" and nowhere else. `str.splitlines` and text mode would also split at U+2028, VT, FF, NEL
or a lone "\r"; one such character in a sentence would then shift every later pair of a parallel corpus. A "\r"
directly before "\n" or the end of the text belongs to the line ending, and a byte-order mark before the first line is
not part of it.
"""

from __future__ import annotations

import codecs
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence

from models.system.errors import UserError
from models.system.files import read_bytes
from models.system.terminal import printable
from tensorlib.messages import plural

__all__ = ["FilePath", "Pair", "read_lines", "read_parallel", "read_text", "read_tsv", "stream_lines", "without_empty"]

FilePath = str | os.PathLike[str]
Pair = tuple[str, str]  # a sentence and its translation

MOST_LINES = 256  # in one list that `stream_lines` yields

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_WIDE_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32"}
_WIDE_MARKS |= {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_COMPRESSED = {  # how a file begins, its format, and the command that prints what is in it
    b"\x1f\x8b": ("gzip", "gunzip -c"),
    b"BZh": ("bzip2", "bunzip2 -c"),
    b"\xfd7zXZ\0": ("xz", "xz -dc"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "zstd -dc"),
    b"\x04\x22\x4d\x18": ("LZ4", "lz4 -dc"),
    b"7z\xbc\xaf\x27\x1c": ("7-Zip", "7z x -so"),
    b"PK\x03\x04": ("zip", "unzip -p"),
}
_BZIP2 = (b"1AY&SY", b"\x17rE8P\x90")  # what byte 4 of a bzip2 file begins; "BZh" alone may be text


# ---- files -------------------------------------------------------------------------------------------------


def read_text(path: FilePath, operation: str = "reading text") -> str:
    r"""Read a UTF-8 file, without its byte-order mark.

    Errors: `UserError` unless `path` is a readable, regular file of UTF-8 text without NUL bytes whose lines do not all
    end in "\r". The message names the operation, the file and, where possible, the line and the byte column, both
    counted from 1, and a command that converts the file.
    """
    name = os.fspath(path)
    data = read_bytes(name, operation)
    place, converted = f"{operation} {name}", f"{shlex.quote(name)} > {shlex.quote(name + '.utf8')}"
    _refuse_other_formats(data, f"{place}:1", converted)
    if (at := data.find(b"\0")) >= 0:
        line, column = _position(data, at)
        encoding = _utf16(data)
        found = f"found a NUL byte at byte column {column}{', as in UTF-16' if encoding else ''}"
        remedy = f"run {_iconv(encoding)}" if encoding else r"if the file is text, remove it: run tr -d '\0' <"
        raise UserError(f"{place}:{line}: UTF-8 without NUL bytes is required; {found}; {remedy} {converted}")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line, column = _position(data, error.start)
        raise UserError(
            f"{place}:{line}: UTF-8 is required; found byte 0x{data[error.start]:02x} at byte column {column} "
            f"({error.reason}); if the file is Latin-1, run {_iconv('LATIN1')} {converted}"
        ) from None


def read_lines(path: FilePath) -> list[str]:
    r"""Read the lines of a UTF-8 file, without their line endings.

    A last line without "\n" counts, and a "\n" at the very end starts no further line.

    Errors: `UserError` for an empty file, and the errors of `read_text`.
    """
    if not (text := read_text(path)):
        name = os.fspath(path)
        raise UserError(f"reading text {name}: at least one line is required; the file is empty; write it again")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def read_parallel(source: FilePath, target: FilePath, note: Callable[[str], object] = lambda text: None) -> list[Pair]:
    """Pair line i of `source` with line i of `target`; empty lines are kept, so that pairs stay aligned.

    `note` is called with a text about a file that seems to have both languages in it.

    Errors: `UserError` if the numbers of lines differ, and the errors of `read_lines`.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise UserError(
            "reading parallel text: both files must have the same number of lines, and the lines of one must translate "
            f"those of the other; {os.fspath(source)} has {plural(len(sources), 'line')} and {os.fspath(target)} "
            f"has {len(targets):,}; find the line that one file lacks"
        )
    for path, lines in ((source, sources), (target, targets)):
        if 2 * sum("\t" in line for line in lines) > len(lines):
            note(
                printable(f"{os.fspath(path)}: most lines have tabs; if two languages are in it, give it as a TSV file")
            )
    return list(zip(sources, targets, strict=True))


def read_tsv(path: FilePath, note: Callable[[str], object] = lambda text: None) -> list[Pair]:
    """Read the first two tab-separated columns of each line; quotes are plain text.

    Further columns, such as ids, are ignored. `note` is then called once with a text that shows what is used, because
    the sentences may be in other columns. A line that is empty or has only spaces gives a pair of empty sentences, like
    an empty line in two parallel files.

    Errors: `UserError` naming the first line with a single column, and the errors of `read_lines`.
    """
    rows = [line.split("\t") if line.strip(" ") else ["", ""] for line in read_lines(path)]
    narrow = [number for number, row in enumerate(rows, start=1) if len(row) < 2]
    if narrow:
        others = f" (and in {plural(len(narrow) - 1, 'more line')})" if len(narrow) > 1 else ""
        raise UserError(
            f"reading text {os.fspath(path)}:{narrow[0]}: two tab-separated columns are required, source and "
            f"target; found 1 column{others}; put a tab between them, not spaces or commas"
        )
    pairs = [(row[0], row[1]) for row in rows]
    counts = {len(row) for row in rows if any(row)}
    if max(counts, default=0) > 2:
        many = " to ".join(map(str, sorted({min(counts), max(counts)})))
        source, target = next(pair for pair, row in zip(pairs, rows, strict=True) if len(row) > 2)
        used = f"only the first two are used, as in {source[:40]} -> {target[:40]}"
        note(printable(f"{os.fspath(path)}: {many} columns; {used}"))
    return pairs


def without_empty(pairs: Sequence[Pair]) -> tuple[list[Pair], int]:
    """Return the pairs with text on both sides, and the number of other pairs, which are left out.

    A pair with an empty translation would only teach the model to end a translation at once.
    """
    kept = [pair for pair in pairs if pair[0].strip() and pair[1].strip()]
    return kept, len(pairs) - len(kept)


# ---- streams -----------------------------------------------------------------------------------------------


def stream_lines(
    pieces: Iterable[bytes], name: str, replaced: Callable[[int, str], object], converted: str = "FILE"
) -> Iterator[list[str]]:
    r"""Yield the lines of text that arrives in pieces, in lists of at most `MOST_LINES`, each list once its lines end.

    The lines are those that `read_lines` would read, but none is refused, because earlier ones may have been answered:
    bytes that are not UTF-8 become U+FFFD, and `replaced(line, problem)` is called for such a line, counted from 1.

    name: what messages call the text, such as "standard input".
    converted: what follows the command by which a message advises to convert the text.

    Errors: `UserError`, before the first line, for UTF-16, UTF-32, compressed text, and lines that all end in "\r".
    """
    number = 0
    for block in _whole_lines(pieces):
        if number == 0:
            _refuse_other_formats(block, f"{name}, line 1", converted)
            if encoding := _utf16(block):
                raise UserError(
                    f"{name}, line 1: UTF-8 is required; found NUL bytes, as in UTF-16; run {_iconv(encoding)} "
                    f"{converted}"
                )
            block = block.removeprefix(codecs.BOM_UTF8)
        lines = block.removesuffix(b"\n").split(b"\n") if block else []
        for start in range(0, len(lines), MOST_LINES):
            yield [_decoded(line, number := number + 1, replaced) for line in lines[start : start + MOST_LINES]]


def _whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of all pieces, cut after the last newline in each piece."""
    begun: list[bytes] = []  # pieces of the last line; joined once, because a line may be very long
    for piece in pieces:
        end = piece.rfind(b"\n") + 1
        if end:
            yield b"".join([*begun, piece[:end]])
            begun = []
        begun.append(piece[end:])
    if last := b"".join(begun):
        yield last


def _decoded(line: bytes, number: int, replaced: Callable[[int, str], object]) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        text = line.decode("utf-8", "replace")
        replaced(number, f"byte 0x{line[error.start]:02x} at byte column {error.start + 1} is not UTF-8")
    return text.removesuffix("\r")


# ---- other formats -----------------------------------------------------------------------------------------


def _refuse_other_formats(data: bytes, place: str, converted: str) -> None:
    """Raise `UserError` if text with this beginning is of another encoding, compressed, or has no newlines at all."""
    for mark, encoding in _WIDE_MARKS.items():
        if data.startswith(mark):
            raise UserError(
                f"{place}: UTF-8 is required; the text begins with the byte-order mark of {encoding}; "
                f"run {_iconv(encoding)} {converted}"
            )
    for start, (kind, command) in _COMPRESSED.items():
        if data.startswith(start) and (start != b"BZh" or data.startswith(_BZIP2, 4)):
            raise UserError(f"{place}: UTF-8 is required; the text is compressed ({kind}); run {command} {converted}")
    if b"\n" not in data and b"\r" in data.removesuffix(b"\r"):
        raise UserError(
            rf'{place}: lines that end in "\n" are required; these end in "\r"; '
            rf"run tr '\r' '\n' < {converted}"
        )


def _position(data: bytes, offset: int) -> tuple[int, int]:
    """Return the line and the byte column of an offset, both counted from 1."""
    return data.count(b"\n", 0, offset) + 1, offset - data.rfind(b"\n", 0, offset)


def _utf16(data: bytes) -> str:
    """Return which UTF-16 data without a mark looks like, "" if none: a few NUL bytes may be part of other text.

    In UTF-16 most newlines and all ASCII characters have a NUL: "a" is 61 00 in little-endian, 00 61 in big-endian.
    """
    for first, newline, encoding in ((1, b"\n\0", "UTF-16LE"), (0, b"\0\n", "UTF-16BE")):
        others = data[first:16:2]
        if (len(others) > 1 and not any(others)) or 2 * data.count(newline) > max(data.count(b"\n"), 3):
            return encoding
    return ""


def _iconv(encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8"
