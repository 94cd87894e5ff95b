"""`tensorlib translate`: one reader for text from anywhere, files in and out, and weights that are spoilt."""

import dataclasses
import gzip
import io
import os
import shutil
import subprocess

import numpy as np
import pytest

from models.cli.main import main
from models.decoding.beam import beam_search
from models.runs.checkpoint import read_checkpoint, write_checkpoint
from models.runs.loading import load_run
from tests.models.cli.test_commands import TENSORLIB, refusal, train_command, write_pairs

LINES = ["a b 1", "", "caf\u00e9 \u2028 c", "d e 7"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the directory of a small run, trained with BPE-dropout."""
    folder = tmp_path_factory.mktemp("translate")
    write_pairs(folder)
    text = {"train_tsv": folder / "train.tsv", "valid_tsv": folder / "valid.tsv"}
    learning = {"optim__learning_rate": 0.01, "optim__warmup": 5, "tokenizer__dropout": 0.3}
    assert main(train_command(60, out=folder / "run", **learning, **text)) == 0
    return folder / "run"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def translated(run, *arguments, stdin=b"", status=0):
    """Return standard output and standard error, as lines, of the command in a process of its own."""
    command = [*TENSORLIB, "translate", "--run", str(run), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120)
    assert done.returncode == status, done.stderr
    return done.stdout.decode().split("\n")[:-1], done.stderr.decode().splitlines()


# ---- one reader ----


def test_text_is_read_in_one_way_wherever_it_comes_from(run, here):
    plain = "\n".join(LINES).encode()
    windows = b"\xef\xbb\xbf" + b"".join(line.encode() + b"\r\n" for line in LINES)
    (here / "plain").write_bytes(plain)
    (here / "windows").write_bytes(windows)
    expected = translated(run, stdin=plain)
    assert len(expected[0]) == len(LINES) and expected[0][1] == "" and expected[1] == []
    assert translated(run, stdin=windows) == expected
    assert translated(run, *LINES) == translated(run, windows.decode()) == expected
    for name, data in (("plain", plain), ("windows", windows)):
        assert translated(run, "--input", name) == expected
        for standard_input in ("-", "/dev/stdin"):
            assert translated(run, "--input", standard_input, stdin=data) == expected


def test_a_process_substitution_is_a_file(run, here):
    (here / "text.gz").write_bytes(gzip.compress("\n".join(LINES).encode()))
    command = [*TENSORLIB, "translate", "--run", str(run), "--input"]
    shell = ["bash", "-c", '"$@" <(gunzip -c text.gz)', "bash", *command]
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    assert (
        subprocess.run(shell, capture_output=True, timeout=120).stdout.decode().split("\n")[:-1]
        == (translated(run, stdin="\n".join(LINES).encode())[0])
    )


def test_bytes_that_are_not_utf8_are_named_ten_times_and_cost_no_line(run):
    data = b"a b 1\n" + b"caf\xe9\n" * 30
    out, err = translated(run, stdin=data)
    assert len(out) == 31
    assert err[0] == "tensorlib: standard input, line 2: byte 0xe9 at byte column 4 is not UTF-8; read as U+FFFD"
    assert (
        len(err) == 11
        and err[-1] == "tensorlib: standard input: more lines are not UTF-8; only the first 10 are listed"
    )
    assert "the arguments, line 1: byte 0xe9" in translated(run, os.fsdecode(b"caf\xe9"))[1][0]
    assert translated(run, "caf\ufffd")[0] == translated(run, os.fsdecode(b"caf\xe9"))[0] == out[1:2]


@pytest.mark.parametrize(
    "data, said",
    [
        (
            "a b\n".encode("utf-16"),
            "byte-order mark of UTF-16; run iconv -f UTF-16 -t UTF-8 {} | tensorlib translate",
        ),
        ("a b\n".encode("utf-16-le"), "found NUL bytes, as in UTF-16; run iconv -f UTF-16LE -t UTF-8 {} |"),
        (gzip.compress(b"a b\n", mtime=0), "compressed (gzip); run gunzip -c {} | tensorlib translate"),
        (b"a\rb\rc", r"these end in '\r'; run tr '\r' '\n' < {} | tensorlib translate".replace("'\\r';", '"\\r";')),
    ],
)
def test_other_formats_are_refused_before_the_first_line(run, here, data, said):
    (here / "text").write_bytes(data)
    for arguments, name, converted in (((), "standard input", "FILE"), (("--input", "text"), "text", "text")):
        out, (err,) = translated(run, *arguments, stdin=data, status=2)
        assert out == [] and err.startswith(f"tensorlib: {name}, line 1: ") and said.format(converted) in err


# ---- files ----


def test_the_name_of_a_file_is_no_text(run, here, capsys):
    (here / "test.fr").write_text("a b 1\n")
    said = "test.fr is the name of a file; to translate its lines, use --input test.fr; to translate the name, write it"
    assert said in refusal(capsys, "translate", "--run", str(run), "a", "test.fr")
    assert len(translated(run, stdin=b"test.fr\n")[0]) == 1
    (here / "tests").mkdir()
    assert len(translated(run, "tests", "no.such", "a" * 5000)[0]) == 3


@pytest.mark.parametrize(
    "text, warned",
    [
        ("./nosuch.de", True),
        ("data/test", True),
        ("/no/such", True),
        ("corpus.txt", True),
        ("newstest-2014.de", True),
        ("der hund ./nosuch.de", False),
        ("mehr/weniger als 3", False),
        ("etc.", False),
        ("Hund.", False),
        ("3.14", False),
        ("z.B.", False),
        ("Hallo", False),
    ],
)
def test_a_text_that_looks_like_the_name_of_a_file_is_translated_with_a_warning(run, here, capfdbinary, text, warned):
    assert main(["translate", "--run", str(run), text]) == 0
    out, err = capfdbinary.readouterr()
    assert out.count(b"\n") == 1
    said = f"tensorlib: there is no file {text}; the name is translated as a sentence; to translate a file, use --input"
    assert err.decode().startswith(said) if warned else err == b""


def test_an_output_holds_all_translations_and_replaces_what_was_there(run, here):
    expected, _ = translated(run, *LINES)
    (here / "in").write_text("\n".join(LINES))
    (here / "out").write_text("old\n" * 99)
    for arguments in (("--input", "in", "--output", "out"), ("--output", "out", *LINES)):
        assert translated(run, *arguments) == ([], [])
        assert (here / "out").read_text() == "".join(f"{line}\n" for line in expected)
    assert translated(run, "--output", "-", "--input", "in")[0] == expected
    assert sorted(path.name for path in here.iterdir()) == ["in", "out"]
    (here / "empty").write_bytes(b"")
    translated(run, "--input", "empty", "--output", "nothing")
    assert (here / "nothing").read_bytes() == b""


@pytest.mark.parametrize("failure", ["text", "disk", "interrupt"])
def test_an_output_is_never_half_made(run, here, monkeypatch, capsys, failure):
    (here / "in").write_bytes(b"a\n" * 600 if failure != "text" else gzip.compress(b"a\n", mtime=0))
    (here / "out").write_text("old\n")
    if failure == "disk":
        monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    if failure == "interrupt":
        from models.evaluation.translator import Translator

        calls, hypotheses = [], Translator.hypotheses

        def interrupted(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return hypotheses(*arguments)

        monkeypatch.setattr(Translator, "hypotheses", interrupted)
    status = {"text": 2, "disk": 1, "interrupt": 130}[failure]
    refusal(capsys, "translate", "--run", str(run), "--input", "in", "--output", "out", status=status)
    assert (here / "out").read_text() == "old\n"
    assert sorted(path.name for path in here.iterdir()) == ["in", "out"]


BAD = {
    "two texts": ("--input in a", "text from one place is required; got 'a' and --input in; give one"),
    "standard input and text": ("--input - a", "text from one place is required; got 'a' and --input -"),
    "no such file": ("--input none", "translate --input none: a readable file is required; no such file"),
    "a directory": ("--input there", "--input there: a readable file is required; it is a directory"),
    "a fifo": ("--input fifo", "--input fifo: a readable file is required; it is a fifo"),
    "no place": ("--output none/out a", "translate --output none/out: a directory to write to is required"),
    "a directory to write": ("--output there a", "--output there: a file to write is required; it is a directory"),
    "a device to write": ("--output /dev/null a", "--output /dev/null: a regular file is required"),
    "a link to write": ("--output link a", "--output link: a regular file is required"),
    "the input": ("--input in --output in", "translate --output in: a file other than in is required"),
    "the input by another name": ("--input in --output there/../in", "a file other than in is required"),
    "the input by a hard link": ("--input in --output same", "a file other than in is required"),
    "the page": ("--attention a.html --output a.html a", "--output a.html: a file other than the page is required"),
}


@pytest.mark.parametrize("arguments, said", BAD.values(), ids=BAD)
def test_files_that_do_not_fit_are_refused_before_the_model_is_read(here, capsys, arguments, said):
    (here / "in").write_text("a\n")
    (here / "there").mkdir()
    (here / "link").symlink_to("in")
    (here / "same").hardlink_to("in")
    os.mkfifo(here / "fifo")
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    assert said in refusal(capsys, "translate", "--run", "none", *arguments.split())
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_evaluate_writes_its_output_whole_or_not_at_all(run, here, monkeypatch, capsys):
    (here / "out").write_text("old\n")
    (here / "text.tsv").write_text("a\tb\n" * 3)
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    arguments = ["evaluate", "--run", str(run), "--tsv", "text.tsv", "--output", "out"]
    assert "no space left" in refusal(capsys, *arguments, status=1).lower()
    assert (here / "out").read_text() == "old\n" and len(list(here.iterdir())) == 2


# ---- n best ----


def test_the_n_best_of_a_line_are_different_texts(run):
    texts = ["a b 1", "c d e 7", "b c d 12", "a 3"]
    loaded = load_run(run, "numpy")
    held = beam_search(loaded.model, loaded.tokenizer.encode_source(texts), beam=8, n_best=8, max_length=24)
    spelled = [[loaded.tokenizer.decode_target(hypothesis.tokens) for hypothesis in found] for found in held]
    assert any(len(set(found)) < 8 for found in spelled)  # otherwise the test shows nothing

    rows = [line.split("\t") for line in translated(run, "--beam", "8", "--n-best", "8", "--scores", *texts)[0]]
    assert [line for line, *_ in rows] == [str(i) for i in range(1, 5) for _ in range(8)]
    for start, found in zip(range(0, 32, 8), held, strict=True):
        several = rows[start : start + 8]
        assert len({" ".join(text.split()) for _, _, text, _ in several}) == 8
        scores = [float(score) for _, score, _, _ in several]
        assert scores == sorted(scores, reverse=True) and scores[0] >= round(found[0].score, 4)
        for (_, score, text, tokens), _ in zip(several, found, strict=True):
            log_probs = [float(token.rpartition("=")[2]) for token in tokens.split()]
            assert sum(log_probs) / ((5 + len(log_probs)) / 6) ** 0.6 == pytest.approx(float(score), abs=2e-3)
            best = {s: h.score for s, h in zip(reversed(spelled[start // 8]), reversed(found), strict=True)}
            assert float(score) >= round(best.get(text, -np.inf), 4)  # of its best-scoring segmentation


# ---- spoilt weights ----


def spoilt(run, folder, change):
    """Return a copy of the run, in which `change(name, array)` has made new weights."""
    shutil.copytree(run, folder)
    for path in folder.glob("*.safetensors"):
        checkpoint = read_checkpoint(path)
        weights = {name: change(name, array.copy()) for name, array in checkpoint.model.items()}
        write_checkpoint(path, dataclasses.replace(checkpoint, model=weights))
    return folder


def huge(name, array):
    rng = np.random.default_rng(len(name))
    return np.where(rng.random(array.shape) < 0.5, 1e20, -1e20).astype(np.float32)


METHODS = ["", "--beam 1", "--n-best 4", "--scores", "--sample", "--sample --top-k 3", "--sample --top-p 0.5"]
METHODS += ["--min-length 3", "--attention page.html", "--output out", "--input four"]


@pytest.mark.parametrize("kind", ["huge", "nan", "inf"])
def test_spoilt_weights_are_refused_before_the_first_line(run, here, capsys, monkeypatch, kind):
    changes = {"huge": huge, "nan": lambda name, array: array * np.nan, "inf": lambda name, array: array + np.inf}
    folder = spoilt(run, here / "run", changes[kind])
    (here / "four").write_text("a\nb\nc\nd\n")
    (here / "two.tsv").write_text("a\tb\n\t\n")
    says = "decoding: usable logits are required" if kind == "huge" else "best.safetensors: finite weights are required"
    before = sorted(here.rglob("*"))
    for arguments in METHODS:
        four = [] if "--input" in arguments else ["a", "", "c", "d"]
        assert says in refusal(capsys, "translate", "--run", str(folder), *arguments.split(), *four)
    for arguments in ("", "--errors", "--output out"):
        assert says in refusal(capsys, "evaluate", "--run", str(folder), "--tsv", "two.tsv", *arguments.split())
    assert sorted(here.rglob("*")) == before


def unreadable_z(run, folder):
    """Return a copy of the run whose model overflows on texts with a "z" and on no other."""
    source = load_run(run, "numpy").tokenizer.source
    (ids,) = source.encode(["z"])

    def change(name, array):
        if name == "source_embedding.weight":
            array[ids[-1]] = 1e30
        return array

    return spoilt(run, folder, change)


def test_a_line_that_fails_later_is_empty_and_the_exit_status_says_so(run, here):
    folder = unreadable_z(run, here / "run")
    lines = [f"a {i % 9}" for i in range(700)]
    lines[500] = lines[600] = "z"
    data = "\n".join(lines).encode()
    out, err = translated(folder, stdin=data, status=1)
    healthy, _ = translated(run, stdin=data)
    assert healthy[500] == healthy[600] != "" and out == [*healthy[:500], "", *healthy[501:600], "", *healthy[601:]]
    says = "the model's logits are NaN or infinite; the translation is empty"
    assert err == [f"tensorlib: standard input, line {number}: {says}" for number in (501, 601)]
    assert translated(folder, "z", "a", status=2)[0] == []
    out, (err,) = translated(folder, "a", "z", status=2)
    assert out == [] and "those for line 2 are NaN or infinite" in err
    assert translated(folder, stdin=b"a\nb\n")[1] == []


def test_evaluate_refuses_a_loss_that_is_not_finite(run, here, capsys):
    shared = load_run(run, "numpy").tokenizer.target
    (ids,) = shared.encode(["z"])

    def change(name, array):
        if name == "target_embedding.weight":
            array[ids[-1]] = 1e30
        return array

    folder = spoilt(run, here / "run", change)
    (here / "t.tsv").write_text("a\tzz\n")
    arguments = ["evaluate", "--run", str(folder), "--tsv", "t.tsv", "--max-length", "1"]
    assert "evaluate: a finite loss is required, got nan; the weights of " in refusal(capsys, *arguments)


def test_typed_lines_pass_the_same_reader(run, capfdbinary, monkeypatch):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(io.BytesIO(b"\xef\xbb\xbfa b 1\r\ncaf\xe9\n")))
    assert main(["translate", "--run", str(run)]) == 0
    captured = capfdbinary.readouterr()
    assert b"standard input, line 2: byte 0xe9 at byte column 4 is not UTF-8" in captured.err
    assert captured.out.decode().split("\n")[:-1] == translated(run, "a b 1", "caf\ufffd")[0]
