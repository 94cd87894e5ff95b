r"""Text files, read as lines and as sentence pairs.

Lines end at "\n" and nowhere else. `str.splitlines` and text mode would also split at U+2028, VT, FF, NEL
or a lone "\r"; one such character in a sentence would then shift every later pair of a parallel corpus.
"""

from __future__ import annotations

import codecs
import os
import shlex
from collections.abc import Sequence

from models.system.errors import UserError
from models.system.files import read_bytes
from tensorlib.messages import plural

__all__ = ["FilePath", "Pair", "read_lines", "read_parallel", "read_tsv", "without_empty"]

FilePath = str | os.PathLike[str]
Pair = tuple[str, str]  # a sentence and its translation

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_WIDE_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32"}
_WIDE_MARKS |= {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def read_lines(path: FilePath) -> list[str]:
    r"""Read the lines of a UTF-8 file, without their line endings.

    A "\r" directly before "\n" or the end of the file belongs to the line ending; a leading byte-order mark is
    dropped. A last line without "\n" counts, and a "\n" at the very end starts no further line.

    Errors: `UserError` unless `path` is a readable, non-empty, regular file of UTF-8 text without NUL bytes. The
    message names the file and, where possible, the line and the byte column, both counted from 1.
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
        raise UserError(f"reading text {name}: at least one line is required; the file is empty; write it again")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def read_parallel(source: FilePath, target: FilePath) -> list[Pair]:
    """Pair line i of `source` with line i of `target`; empty lines are kept, so that pairs stay aligned.

    Errors: `UserError` if the numbers of lines differ, and the errors of `read_lines`.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise UserError(
            "reading parallel text: both files must have the same number of lines, and the lines of one must translate "
            f"those of the other; {os.fspath(source)} has {len(sources)} lines and {os.fspath(target)} has "
            f"{len(targets)}; find the line that one file lacks"
        )
    return list(zip(sources, targets, strict=True))


def read_tsv(path: FilePath) -> list[Pair]:
    """Read the first two tab-separated columns of each line; quotes are plain text, and further columns are ignored.

    A line that is empty or has only spaces gives a pair of empty sentences, like an empty line in two parallel files.

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
    return [(row[0], row[1]) for row in rows]


def without_empty(pairs: Sequence[Pair]) -> tuple[list[Pair], int]:
    """Return the pairs with text on both sides, and the number of other pairs, which are left out.

    A pair with an empty translation would only teach the model to end a translation at once.
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
    # In UTF-16 and UTF-32 every newline and every ASCII character contains a NUL byte; UTF-8 text has none.
    at = data.find(b"\0")
    if at >= 0:
        line, column = _position(data, at)
        encoding = "UTF-16LE" if at % 2 else "UTF-16BE"  # "a" is 61 00 in little-endian and 00 61 in big-endian
        raise UserError(
            f"reading text {name}:{line}: UTF-8 is required; found a NUL byte at byte column {column}, as in "
            f"UTF-16 or binary data; if it is UTF-16, run {_iconv(encoding, name)}"
        )


def _position(data: bytes, offset: int) -> tuple[int, int]:
    """Return the line and the byte column of an offset, both counted from 1."""
    return data.count(b"\n", 0, offset) + 1, offset - data.rfind(b"\n", 0, offset)


def _iconv(encoding: str, name: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(name)} > {shlex.quote(name + '.utf8')}"
