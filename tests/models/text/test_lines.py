"""Files become lines and pairs that are never misaligned."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.system.errors import UserError
from models.text.lines import read_lines, read_parallel, read_tsv, without_empty


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
        (b"one\ntwo\nthr\0e", [":3:", "NUL byte", "column 4"]),
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
