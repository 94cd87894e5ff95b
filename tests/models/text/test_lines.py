"""Files become lines and pairs that are never misaligned."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.system.errors import UserError
from models.text.lines import MOST_LINES, read_lines, read_parallel, read_tsv, stream_lines, without_empty


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# --- lines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),  # a last line without newline counts
        (b"a\n\n", ["a", ""]),  # an empty line is a line
        (b"\n", [""]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\nb\r", ["a", "b"]),
        (b"a\rb\n", ["a\rb"]),  # a lone carriage return ends no line
        (b"a\r\r\n", ["a\r"]),
        (b"\xef\xbb\xbfa\n", ["a"]),  # byte-order mark
        (b"\xef\xbb\xbf\xef\xbb\xbfa\n", ["\ufeffa"]),  # ... only at the very start
        (b"\xef\xbb\xbf\n", [""]),
        ("a\u2028b\x0bc\x0cd\x85e\x1cf\u2029g\n".encode(), ["a\u2028b\x0bc\x0cd\x85e\x1cf\u2029g"]),
    ],
)
def test_lines_end_at_newlines_and_nowhere_else(tmp_path: Path, data: bytes, lines: list[str]) -> None:
    assert read_lines(write(tmp_path, "f", data)) == lines


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0")), min_size=1))
def test_lines_that_were_written_are_read_back(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "f"
    path.write_bytes("".join(line + "\r\n" for line in lines).encode("utf-8-sig"))
    assert read_lines(path) == lines


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", ["empty"]),
        (b"\xef\xbb\xbf", ["empty"]),
        (b"ab\nc\xffd\n", [":2:", "byte 0xff", "column 2", "iconv -f LATIN1"]),
        ("ab\nüd".encode()[:-2], [":2:", "byte 0xc3", "column 1", "unexpected end"]),
        (b"\xef\xbb\xbf\xff", [":1:", "column 4"]),
        (b"\xed\xa0\x80", ["byte 0xed"]),  # half a surrogate pair
        ("hi\n".encode("utf-16"), ["byte-order mark of UTF-16;", "iconv -f UTF-16 -t UTF-8"]),
        (b"\xfe\xff" + "hi\n".encode("utf-16-be"), ["byte-order mark of UTF-16;"]),
        ("hi\n".encode("utf-32"), ["byte-order mark of UTF-32;", "iconv -f UTF-32 -t UTF-8"]),
        (b"\0\0\xfe\xff" + "hi\n".encode("utf-32-be"), ["byte-order mark of UTF-32;"]),
        ("hi\n".encode("utf-16-le"), [":1:", "NUL byte", "column 2", "iconv -f UTF-16LE"]),
        ("hi\n".encode("utf-16-be"), ["NUL byte", "column 1", "iconv -f UTF-16BE"]),
        ("我有\n一只猫\n".encode("utf-16-le"), [":2:", "NUL byte", "iconv -f UTF-16LE"]),
        ("我有\n一只猫\n".encode("utf-16-be"), [":1:", "NUL byte", "iconv -f UTF-16BE"]),
        (b"one\ntwo\nthr\0e", [":3:", "NUL byte", "column 4", "if the file is text, remove it: run tr -d '\\0' <"]),
        (b"a\0\nb\n", [":1:", "column 2", "run tr -d"]),
        (b"a\n\0b\nc\n", [":2:", "column 1", "run tr -d"]),
        (b"a\0b", [":1:", "column 2", "run tr -d"]),
    ],
)
def test_text_that_is_not_utf8_is_refused_with_its_position(tmp_path: Path, data: bytes, message: list[str]) -> None:
    path = write(tmp_path, "corpus.de", data)
    with pytest.raises(UserError) as caught:
        read_lines(path)
    for words in [str(path), *message]:
        assert words in str(caught.value)


def test_the_advised_conversion_works(tmp_path: Path) -> None:
    path = write(tmp_path, "it's here", "ä\nö\n".encode("utf-16"))
    with pytest.raises(UserError) as caught:
        read_lines(path)
    command = str(caught.value).split("; run ")[1]
    subprocess.run(["sh", "-c", command], check=True, timeout=10)
    assert read_lines(f"{path}.utf8") == ["ä", "ö"]


def test_a_nul_byte_is_removed_as_advised(tmp_path: Path) -> None:
    path = write(tmp_path, "it's here", b"eins\nzw\0ei \\0\n")
    with pytest.raises(UserError) as caught:
        read_lines(path)
    assert "UTF-16" not in str(caught.value)
    subprocess.run(["sh", "-c", str(caught.value).split(": run ")[1]], check=True, timeout=10)
    assert read_lines(f"{path}.utf8") == ["eins", "zwei \\0"]


def test_a_path_that_is_not_a_readable_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("loop", tmp_path / "loop")
    for name, message in [
        ("missing", "no such file"),
        (".", "directory"),
        ("fifo", "fifo"),  # opening it would wait forever
        ("/dev/zero", "device"),
        ("loop", "symbolic links"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            read_lines(f"{tmp_path}/{name}" if name[0] != "/" else name)
        assert str(caught.value).isprintable()

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # tests may run as root, which may read everything
    with pytest.raises(UserError, match=r"secret: .*permission denied; check the path and its permissions"):
        read_lines(write(tmp_path, "secret", b"a\n"))


def test_an_error_is_one_printable_line_for_every_file_name() -> None:
    shown = str(UserError("reading text a\nb\x1b[2J\udcff\u2028é"))
    assert shown == r"reading text a\nb\x1b[2J\udcff\u2028é"
    shown.encode("utf-8")


# --- pairs --------------------------------------------------------------------------------------------------


def test_parallel_files_pair_line_by_line_empty_lines_included(tmp_path: Path) -> None:
    source = write(tmp_path, "s", "eins\n\ndrei\u2028x\n".encode())
    target = write(tmp_path, "t", b"one\ntwo\nthree\n")
    pairs = read_parallel(source, target)
    assert pairs == [("eins", "one"), ("", "two"), ("drei\u2028x", "three")]
    assert without_empty(pairs) == ([("eins", "one"), ("drei\u2028x", "three")], 1)
    assert without_empty([("a", " \u3000"), ("\t", "b"), ("", "")]) == ([], 3)


def test_a_file_with_two_languages_is_noticed_among_parallel_ones(tmp_path: Path) -> None:
    source, target = write(tmp_path, "s", b"a\tb\nc\td\n\n"), write(tmp_path, "t", b"a\tb\nc\nd\n")
    notes: list[str] = []
    read_parallel(source, target, notes.append)
    assert notes == [f"{source}: most lines have tabs; if two languages are in it, give it as a TSV file"]


def test_unequal_line_counts_name_both_files_and_counts(tmp_path: Path) -> None:
    source, target = write(tmp_path, "s.de", b"a\nb\nc\n"), write(tmp_path, "t.en", b"a\n")
    with pytest.raises(UserError, match=r"s\.de has 3 lines and .*t\.en has 1;"):
        read_parallel(source, target)


def test_tsv_takes_two_columns_and_names_a_line_with_one(tmp_path: Path) -> None:
    path = write(tmp_path, "f.tsv", '我\tI\t1\t1276\n"a"\t b \n \nx\t\n'.encode())
    assert read_tsv(path) == [("我", "I"), ('"a"', " b "), ("", ""), ("x", "")]
    path = write(tmp_path, "f.tsv", b"a\tb\nc d\ne,f\n")
    with pytest.raises(UserError, match=r"f\.tsv:2: .*found 1 column \(and in 1 more line\)"):
        read_tsv(path)


@pytest.mark.parametrize(
    "data, said",
    [
        ("a\tb\nc\td\n\n", []),
        ("\na\tb\t7\t8\nc\td\t9\t9\n", ["4 columns; only the first two are used, as in a -> b"]),
        ("a\tb\nc\td\t9\ne\tf\t9\t9\t9\n", ["2 to 5 columns; only the first two are used, as in c -> d"]),
        ("1276\tLet's go.\t77\tGehen wir.\n", ["4 columns; only the first two are used, as in 1276 -> Let's go."]),
        (f"{'x' * 99}\ty\t\n", [f"3 columns; only the first two are used, as in {'x' * 40} -> y"]),
    ],
)
def test_columns_that_are_not_used_are_said_once_with_what_is_used(tmp_path: Path, data: str, said: list[str]) -> None:
    path, notes = write(tmp_path, "t.tsv", data.encode()), []
    read_tsv(path, notes.append)
    assert notes == [f"{path}: {text}" for text in said]


# --- other formats ------------------------------------------------------------------------------------------

TEXT = "ä\nö\n".encode()


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("text", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "kind", "command"),
    [
        (gzip.compress(TEXT, mtime=0), "gzip", "gunzip -c"),
        (bz2.compress(TEXT), "bzip2", "bunzip2 -c"),
        (bz2.compress(b""), "bzip2", "bunzip2 -c"),
        (lzma.compress(TEXT), "xz", "xz -dc"),
        (zipped(TEXT), "zip", "unzip -p"),
        (bytes.fromhex("28b52ffd2400"), "Zstandard", "zstd -dc"),
        (bytes.fromhex("04224d186440"), "LZ4", "lz4 -dc"),
        (bytes.fromhex("377abcaf271c0004"), "7-Zip", "7z x -so"),
    ],
)
def test_compressed_text_is_named_with_the_command_that_unpacks_it(
    tmp_path: Path, data: bytes, kind: str, command: str
) -> None:
    path = write(tmp_path, "a corpus", data)
    with pytest.raises(UserError, match=rf"the text is compressed \({kind}\); run {command} '") as caught:
        read_lines(path)
    if kind == "gzip" and shutil.which("gunzip"):
        subprocess.run(["sh", "-c", str(caught.value).split("; run ")[1]], check=True, timeout=10)
        assert Path(f"{path}.utf8").read_bytes() == TEXT
    with pytest.raises(UserError, match=rf"^a pipe, line 1: .*compressed \({kind}\); run {command} FILE \| it$"):
        list(stream_lines([data], "a pipe", unexpected, "FILE | it"))


def test_text_that_begins_like_bzip2_is_text(tmp_path: Path) -> None:
    assert read_lines(write(tmp_path, "f", b"BZh is short for ...\n")) == ["BZh is short for ..."]


def test_text_whose_lines_all_end_in_carriage_returns_is_refused_with_the_conversion(tmp_path: Path) -> None:
    path = write(tmp_path, "mac", b"one\rtwo\rthree\r")
    with pytest.raises(UserError, match=r'mac:1: lines that end in "\\n" are required; these end in "\\r"') as caught:
        read_lines(path)
    subprocess.run(["sh", "-c", str(caught.value).split("; run ")[1]], check=True, timeout=10)
    assert read_lines(f"{path}.utf8") == ["one", "two", "three"]
    with pytest.raises(UserError, match="a pipe, line 1: lines that end in"):
        list(stream_lines([b"one\rtw", b"o\rthree"], "a pipe", unexpected))


# --- streams ------------------------------------------------------------------------------------------------


def unexpected(line: int, problem: str) -> None:
    raise AssertionError(f"line {line}: {problem}")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0")), min_size=1),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, 999)),
)
def test_a_stream_has_the_lines_of_a_file_wherever_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, mark: bool, ended: bool, places: list[int]
) -> None:
    data = end.join([*lines, ""] if ended else ["", *lines]).encode("utf-8-sig" if mark else "utf-8")
    path = tmp_path_factory.mktemp("stream") / "f"
    path.write_bytes(data)
    streamed = stream_lines(cut(data, places), "a pipe", unexpected)
    assert [line for some in streamed for line in some] == read_lines(path)


def test_a_line_of_a_stream_is_there_before_the_next_piece_is_asked_for() -> None:
    asked: list[int] = []

    def pieces() -> Iterator[bytes]:
        for i, piece in enumerate([b"a", b"b\nc", b"d\n\ne"]):
            asked.append(i)
            yield piece

    found = stream_lines(pieces(), "a pipe", unexpected)
    assert (next(found), asked) == (["ab"], [0, 1])
    assert (next(found), asked) == (["cd", ""], [0, 1, 2])
    assert list(found) == [["e"]]


@pytest.mark.parametrize(("data", "lines"), [(b"", 0), (b"\xef\xbb\xbf", 0), (b"\n", 1), (b"\xef\xbb\xbf\n", 1)])
def test_an_empty_stream_has_no_lines(data: bytes, lines: int) -> None:
    assert [line for some in stream_lines([data], "a pipe", unexpected) for line in some] == [""] * lines


def test_a_stream_loses_no_line_for_bytes_that_are_not_utf8() -> None:
    problems: list[tuple[int, str]] = []
    data = b"a\ncaf\xe9\r\nb\0c\n\xff"
    streamed = stream_lines([data], "a pipe", lambda line, problem: problems.append((line, problem)))
    assert [line for some in streamed for line in some] == ["a", "caf\ufffd", "b\0c", "\ufffd"]
    assert problems == [
        (2, "byte 0xe9 at byte column 4 is not UTF-8"),
        (4, "byte 0xff at byte column 1 is not UTF-8"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_a_stream_of_wide_characters_is_refused_before_its_first_line(encoding: str) -> None:
    name = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"}.get(encoding, encoding.upper())
    with pytest.raises(UserError, match=f"^a pipe, line 1: UTF-8 is required; .*; run iconv -f {name} -t UTF-8 FILE"):
        list(stream_lines(["hi\nyou\n".encode(encoding)], "a pipe", unexpected, "FILE | it"))


def test_many_lines_at_once_are_several_lists() -> None:
    lengths = [len(some) for some in stream_lines([b"a\n" * 600], "a pipe", unexpected)]
    assert lengths == [MOST_LINES, MOST_LINES, 600 - 2 * MOST_LINES]
