"""Sentences become subwords and the same sentences again."""

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
from models.text.lines import Pair
from models.text.subwords import Subwords, Tokenizer
from models.text.tokens import BOS, EOS, PAD, UNK
from tests import ROOT

PAIRS = [
    ("ich habe eine katze", "i have a cat"),
    ("du hast einen hund", "you have a dog"),
    ("wir haben zwei katzen", "we have two cats"),
    ("sie haben zwei hunde", "they have two dogs"),
]
PLENTY = 2000  # far more pieces than eight short sentences yield


# --- subwords -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(PAIRS, vocabulary_size=PLENTY, model_type=request.param)


# Text with a special meaning for SentencePiece, for the escaping before it, or as a special symbol.
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


def test_any_text_can_be_trained_on(capfd: pytest.CaptureFixture[str]) -> None:
    pairs = [(piece, f"cat {piece} cat{piece}") for piece in MEANINGFUL] * 20
    trained = Tokenizer.train(pairs, vocabulary_size=PLENTY)
    assert capfd.readouterr() == ("", "")  # SentencePiece's log is silent
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


def test_vocabulary_size_is_a_maximum_and_both_sides_count_when_shared() -> None:
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
    ("pairs", "options", "message"),
    [
        ([], {}, "every sentence is empty"),
        ([("", "")], {}, "every sentence is empty"),
        (PAIRS, {"vocabulary_size": 270}, r"size 270, .* make 28\d; raise the size"),
        (PAIRS, {"vocabulary_size": -1}, "size -1"),
        (PAIRS, {"vocabulary_size": 10**12}, "size 1000000000000"),
        (PAIRS, {"model_type": "word2"}, "type word2"),
        (PAIRS, {"character_coverage": 3.0}, "coverage 3.0"),
    ],
)
def test_impossible_training_is_one_error_with_the_value(
    pairs: list[Pair], options: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=message):
        Tokenizer.train(pairs, **options)
    assert capfd.readouterr() == ("", "")  # SentencePiece's log is silent here, too


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
    Tokenizer.train(PAIRS, vocabulary_size=280, shared=not shared).save(tmp_path)  # an earlier one, to be replaced
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
    with pytest.raises(UserError, match=rf"damaged\.model: .* the {len(damaged)} bytes of this one"):
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
