"""Files become pairs that are never misaligned; sentences become subwords and the same sentences again."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from models.system.errors import UserError
from models.text import subwords
from models.text.subwords import BOS, EOS, PAD, UNK, Pair, Subwords, Tokenizer, read_lines, read_parallel, read_tsv
from tests import ROOT

PAIRS = [
    ("ich habe eine katze", "i have a cat"),
    ("du hast einen hund", "you have a dog"),
    ("wir haben zwei katzen", "we have two cats"),
    ("sie haben zwei hunde", "they have two dogs"),
]
PLENTY = 2000  # far more pieces than eight short sentences have: fewer are made


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
        (b"a\rb\n", ["a\rb"]),  # a lone carriage return ends nothing
        (b"a\r\r\n", ["a\r"]),
        (b"\xef\xbb\xbfa\n", ["a"]),  # byte-order mark
        (b"\xef\xbb\xbf\xef\xbb\xbfa\n", ["\ufeffa"]),  # ... which is one only at the very start
        (b"\xef\xbb\xbf\n", [""]),
        ("a\u2028b\x0bc\x0cd\x85e\x1cf\u2029g\n".encode(), ["a\u2028b\x0bc\x0cd\x85e\x1cf\u2029g"]),
    ],
)
def test_lines_end_at_newlines_and_nowhere_else(tmp_path: Path, data: bytes, lines: list[str]) -> None:
    assert read_lines(write(tmp_path, "f", data)) == lines


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0")), min_size=1))
def test_whatever_is_written_line_by_line_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "f"
    path.write_bytes("".join(line + "\r\n" for line in lines).encode("utf-8-sig"))
    assert read_lines(path) == lines


@pytest.mark.parametrize(
    ("data", "told"),
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
def test_text_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path, data: bytes, told: list[str]) -> None:
    path = write(tmp_path, "corpus.de", data)
    with pytest.raises(UserError) as caught:
        read_lines(path)
    for words in [str(path), *told]:
        assert words in str(caught.value)


def test_the_advised_conversion_works(tmp_path: Path) -> None:
    path = write(tmp_path, "it's here", "ä\nö\n".encode("utf-16"))
    with pytest.raises(UserError) as caught:
        read_lines(path)
    command = str(caught.value).split("; run ")[1]
    subprocess.run(["sh", "-c", command], check=True, timeout=10)
    assert read_lines(f"{path}.utf8") == ["ä", "ö"]


def test_what_is_not_a_readable_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("loop", tmp_path / "loop")
    for name, told in [
        ("missing", "no such file"),
        (".", "directory"),
        ("fifo", "fifo"),  # opening it would wait for ever
        ("/dev/zero", "device"),
        ("loop", "symbolic links"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(UserError, match=told) as caught:
            read_lines(f"{tmp_path}/{name}" if name[0] != "/" else name)
        assert str(caught.value).isprintable()

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root, as whom tests may run, is refused nothing
    with pytest.raises(UserError, match=r"secret: .*permission denied; check the path and its permissions"):
        read_lines(write(tmp_path, "secret", b"a\n"))


def test_an_error_is_one_printable_line_whatever_the_file_is_called() -> None:
    shown = str(UserError("reading text a\nb\x1b[2J\udcff\u2028é"))
    assert shown == r"reading text a\nb\x1b[2J\udcff\u2028é"
    shown.encode("utf-8")


# --- pairs --------------------------------------------------------------------------------------------------


def test_parallel_files_pair_line_by_line_empty_lines_included(tmp_path: Path) -> None:
    source = write(tmp_path, "s", "eins\n\ndrei\u2028x\n".encode())
    target = write(tmp_path, "t", b"one\ntwo\nthree\n")
    pairs = read_parallel(source, target)
    assert pairs == [("eins", "one"), ("", "two"), ("drei\u2028x", "three")]
    assert subwords.without_empty(pairs) == ([("eins", "one"), ("drei\u2028x", "three")], 1)
    assert subwords.without_empty([("a", " \u3000"), ("\t", "b"), ("", "")]) == ([], 3)


def test_unequal_line_counts_name_both_files_and_counts(tmp_path: Path) -> None:
    source, target = write(tmp_path, "s.de", b"a\nb\nc\n"), write(tmp_path, "t.en", b"a\n")
    with pytest.raises(UserError, match=r"s\.de has 3 lines and .*t\.en has 1;"):
        read_parallel(source, target)


def test_tsv_takes_two_columns_and_names_a_line_with_one(tmp_path: Path) -> None:
    path = write(tmp_path, "f.tsv", '我\tI\t1\t1276\n"a"\t b \n \nx\t\n'.encode())
    assert read_tsv(path) == [("我", "I"), ('"a"', " b "), ("", ""), ("x", "")]
    path = write(tmp_path, "f.tsv", b"a\tb\nc d\ne,f\n")
    with pytest.raises(UserError, match=r"f\.tsv:2: .*found 1 column \(and in 1 more lines\)"):
        read_tsv(path)


# --- subwords -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(PAIRS, vocabulary_size=PLENTY, model_type=request.param)


# The characters that have a meaning to SentencePiece, to the escaping in front of it, or as a special symbol.
MEANINGFUL = ["\u2581", "\u2585", "\x1b", "\x1b0", "\x1b1", " ", "  ", "\t", "\0", "<s>", "</s>"]
MEANINGFUL += ["<pad>", "<unk>", "<0x0A>", "\u2047", "\ufffd", "\ufeff", "\uffff", "e\u0301", "🙂", "\r"]
MEANINGFUL += ["\x85", "cat"]


@settings(max_examples=300, deadline=None)
@given(
    line=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))
    | st.lists(st.sampled_from(MEANINGFUL)).map("".join)
)
def test_every_line_comes_back_and_is_never_a_special_id(tokenizer: Tokenizer, line: str) -> None:
    (ids,) = tokenizer.encode_target([line])
    assert tokenizer.decode_target(ids) == line
    assert not {PAD, UNK, BOS, EOS} & set(ids)


def test_text_can_be_trained_on_whatever_is_in_it(capfd: pytest.CaptureFixture[str]) -> None:
    pairs = [(piece, f"cat {piece} cat{piece}") for piece in MEANINGFUL] * 20
    trained = Tokenizer.train(pairs, vocabulary_size=PLENTY)
    assert capfd.readouterr() == ("", "")  # SentencePiece's log stays off the terminal
    for ids, (_, line) in zip(trained.encode_target([line for _, line in pairs]), pairs, strict=True):
        assert trained.decode_target(ids) == line
        assert not {PAD, UNK, BOS, EOS} & set(ids)


def test_lone_surrogates_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode_target(tokenizer.encode_target(["a\udcffb"])[0]) == "a\ufffdb"


def test_source_ends_in_eos_and_decoding_stops_there(tokenizer: Tokenizer) -> None:
    (cat,), (dog,) = tokenizer.encode_target(["a cat"]), tokenizer.encode_target(["a dog"])
    assert tokenizer.encode_source(["a cat", ""]) == [[*cat, EOS], [EOS]]
    assert tokenizer.decode_target([BOS, PAD, *cat, UNK, EOS, *dog, EOS, PAD]) == "a cat"
    assert tokenizer.decode_target([]) == tokenizer.decode_target([EOS, *cat]) == ""
    newline = tokenizer.target.pieces(range(tokenizer.target_size)).index("<0x0A>")
    assert tokenizer.decode_target([*cat, newline, *cat]) == "a cat  a cat"  # N lines in are N lines out


def test_pieces_are_shown_one_for_one(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_source(["i have\u2581 Ω"])[0]
    pieces = tokenizer.source.pieces(ids)
    assert len(pieces) == len(ids)
    assert pieces[-1] == "</s>"
    assert "<0xCE>" in pieces  # Ω was not in the training text: U+03A9 is CE A9


def test_common_words_become_single_pieces() -> None:
    trained = Tokenizer.train(PAIRS * 10, vocabulary_size=PLENTY)
    (ids,) = trained.encode_target(["i have a cat"])
    assert trained.target.pieces(ids) == ["▁i", "▁have", "▁a", "▁cat"]


def test_vocabulary_size_is_the_most_and_both_sides_count_when_shared() -> None:
    shared = Tokenizer.train(PAIRS, vocabulary_size=PLENTY)
    assert 260 < shared.source_size == shared.target_size < PLENTY
    assert Tokenizer.train(PAIRS, vocabulary_size=290).source_size == 290
    separate = Tokenizer.train(PAIRS, vocabulary_size=PLENTY, shared=False)
    assert shared.shared and not separate.shared
    german = separate.source.pieces(range(separate.source_size))
    english = separate.target.pieces(range(separate.target_size))
    assert "z" in german and "z" not in english
    assert "y" in english and "y" not in german


@pytest.mark.parametrize(
    ("pairs", "options", "told"),
    [
        ([], {}, "every sentence is empty"),
        ([("", "")], {}, "every sentence is empty"),
        (PAIRS, {"vocabulary_size": 270}, r"size 270, .* make 28\d; ask for more"),
        (PAIRS, {"vocabulary_size": -1}, "size -1"),
        (PAIRS, {"vocabulary_size": 10**12}, "size 1000000000000"),
        (PAIRS, {"model_type": "word2"}, "type word2"),
        (PAIRS, {"character_coverage": 3.0}, "coverage 3.0"),
    ],
)
def test_what_cannot_be_trained_is_one_error_with_the_value(
    pairs: list[Pair], options: Any, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=told):
        Tokenizer.train(pairs, **options)
    assert capfd.readouterr() == ("", "")  # nor does SentencePiece's log reach the terminal


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_the_same_text_gives_the_same_bytes_in_another_process(model_type: str) -> None:
    program = (
        "import sys, hashlib; from models.text.subwords import Tokenizer\n"
        f"tokenizer = Tokenizer.train({PAIRS!r}, vocabulary_size=300, model_type={model_type!r})\n"
        "print(hashlib.sha256(tokenizer.source.model).hexdigest())"
    )
    here = Tokenizer.train(PAIRS, vocabulary_size=300, model_type=model_type)  # type: ignore[arg-type]
    root = str(ROOT)
    other = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    there = subprocess.run([sys.executable, "-c", program], env=other, capture_output=True, timeout=60)
    assert there.stdout.decode().strip() == hashlib.sha256(here.source.model).hexdigest(), there.stderr


def test_a_line_of_ten_megabytes_trains_and_comes_back() -> None:
    line = "一只猫在家里" * 600_000
    assert len(line.encode()) > 10_000_000
    trained = Tokenizer.train([(line, "cat")], vocabulary_size=400)
    assert "一只猫在家里" in trained.source.pieces(range(trained.source_size))  # learned from it, not skipped
    assert trained.decode_target(trained.encode_target([line])[0]) == line


# --- files of subwords --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shared", "names"),
    [(True, {"tokenizer.model"}), (False, {"tokenizer.source.model", "tokenizer.target.model"})],
)
def test_saved_tokenizers_load_the_same(tmp_path: Path, shared: bool, names: set[str]) -> None:
    Tokenizer.train(PAIRS, vocabulary_size=280, shared=not shared).save(tmp_path)  # an earlier one: replaced
    saved = Tokenizer.train(PAIRS, vocabulary_size=300, shared=shared)
    saved.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names
    loaded = Tokenizer.load(tmp_path)
    assert loaded.shared is shared
    assert (loaded.source.model, loaded.target.model) == (saved.source.model, saved.target.model)
    assert loaded.encode_source(["eine katze"]) == saved.encode_source(["eine katze"])


def test_other_sentencepiece_programs_read_the_file(tmp_path: Path) -> None:
    saved = Tokenizer.train(PAIRS)
    saved.save(tmp_path)
    other = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert other.encode("a cat") == saved.encode_target(["a cat"])[0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.model: .*no such file"):
        Tokenizer.load(tmp_path)
    Tokenizer.train(PAIRS, shared=False).save(tmp_path)
    (tmp_path / "tokenizer.target.model").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.target\.model: .*no such file"):
        Tokenizer.load(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    Tokenizer.train(PAIRS, vocabulary_size=300).save(folder)
    return folder / "tokenizer.model"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_one_error_that_names_it(saved: Path, data: st.DataObject) -> None:
    whole = saved.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "random", "longer"]))
    if kind == "cut":
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "flip":
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
    else:
        damaged = (whole if kind == "longer" else b"") + data.draw(st.binary(min_size=1))
    path = saved.parent / "damaged.model"
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=rf"damaged\.model: .* its {len(damaged)} bytes"):
        Subwords.load(path)


def test_a_failed_save_leaves_the_old_file_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Tokenizer.train(PAIRS, vocabulary_size=290)
    old.save(tmp_path)

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        Tokenizer.train(PAIRS, vocabulary_size=300).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.model"]
    assert Tokenizer.load(tmp_path).source.model == old.source.model
