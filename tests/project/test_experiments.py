"""The experiments: what they share, and a small run of each."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import pytest
import threadpoolctl  # noqa: F401  # sets an environment variable when it is imported

from tests import ROOT

EXPERIMENTS = ROOT / "examples" / "experiments"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    module = __import__("page")
    monkeypatch.delitem(sys.modules, "page")
    return module


def test_a_result_is_measured_once(page, tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    assert page.Results(path, {"width": 8}).measure("lstm", lambda: {"loss": 1.5}) == {"loss": 1.5}
    assert page.Results(path, {"width": 8}).measure("lstm", lambda: pytest.fail("again")) == {"loss": 1.5}
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"settings": {"width": 8}},
        {"name": "lstm", "value": {"loss": 1.5}},
    ]


def test_results_of_other_settings_are_refused(page, tmp_path):
    page.Results(tmp_path / "results.jsonl", {"width": 8}).measure("lstm", lambda: 1)
    with pytest.raises(SystemExit, match=r'same settings are required.*"width": 8.*"width": 16.*another --out'):
        page.Results(tmp_path / "results.jsonl", {"width": 16})


def test_results_with_any_separators_are_read_again(page, tmp_path):
    text = "a\u2028b\x85c\x0bd\r"
    page.Results(tmp_path / "results.jsonl", {}).measure(text, lambda: [text])
    assert page.Results(tmp_path / "results.jsonl", {}).measure(text, lambda: pytest.fail("again")) == [text]


@pytest.mark.parametrize("damage", [b'{"name": "a', b"\xff\n", b"5\n", b'{"name": "a"}\n', b"[" * 100_000])
def test_damaged_results_are_refused_in_one_line(page, tmp_path, damage):
    path = tmp_path / "results.jsonl"
    page.Results(path, {"width": 8}).measure("lstm", lambda: 1)
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(SystemExit, match=r"^\S+results\.jsonl: .*damaged; delete it, or choose another --out$"):
        page.Results(path, {"width": 8})
    path.write_bytes(b"")
    with pytest.raises(SystemExit, match="damaged"):
        page.Results(path, {"width": 8})


def experiment(name, *options, cwd):
    environment = {**os.environ, "PYTHONUTF8": "1", "TENSORLIB_THREADS": "1"}
    command = [sys.executable, EXPERIMENTS / f"{name}.py", "--out", cwd / "out", *options]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gradients", ["--lengths", "1"], "--lengths: a whole number of at least 2 is required; got '1'"),
        ("positions", ["--longest", "1"], "--longest: a whole number of at least 2 is required; got '1'"),
        (
            "parts",
            ["--width", "0"],
            "--width: a whole number of at least 8 that is a multiple of 8 is required; got '0'",
        ),
        ("feeding", ["--lengths", "256"], "--lengths: at least one of at most 128 is required; got [256]"),
        ("ladder", ["--train-tsv", "a"], "ladder: either --train-tsv, --valid-tsv and --test-tsv or none of them"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(tmp_path, name, options, message):
    run = experiment(name, *options, cwd=tmp_path)
    assert run.returncode == 2 and message in run.stderr.splitlines()[-1] and "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["parts", "feeding", "ladder", "negatives"])
@pytest.mark.parametrize("content", [None, b"\xff\t\xff\n"])
def test_text_that_cannot_be_read_is_refused_before_anything_is_measured(tmp_path, text, name, content):
    (tmp_path / "test.tsv").unlink()
    if content:
        (tmp_path / "test.tsv").write_bytes(content)
    run = experiment(name, *text, cwd=tmp_path)
    assert run.returncode == 2 and "test.tsv" in run.stderr and len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_text_that_changed_is_refused(tmp_path, text):
    assert experiment("parts", *TINY["parts"], *text, cwd=tmp_path).returncode == 0
    (tmp_path / "train.tsv").write_text("one two .\ttwo one .\n")
    run = experiment("parts", *TINY["parts"], *text, cwd=tmp_path)
    assert run.returncode == 1 and "same settings are required" in run.stderr and len(run.stderr.splitlines()) == 1


def test_a_page_is_self_contained_and_escaped(page, tmp_path):
    made = page.Page("a < b")
    made.findings(["1 < 2 & 3"])
    made.text("one\nparagraph\n\nanother")
    made.table(["<i>", "n"], [["<b>", 1]])
    figure, (axes,) = page.figure()
    axes.plot([1, 2, 3])
    made.figure(figure, "a line")
    made.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<h1>a &lt; b</h1>" in text and "<li>1 &lt; 2 &amp; 3</li>" in text and "<td>&lt;b&gt;</td>" in text
    assert text.index('findings"') < text.index("<p>one paragraph</p>\n<p>another</p>") < text.index("<svg")
    assert not re.search(r'(?:src|href)="(?!#)', text)  # nothing is loaded from elsewhere
    assert "Made by <code>python " in text and "NumPy" in text


TINY = {
    "gradients": ["--steps", "3", "--lengths", "4", "6", "--blanks", "3", "--width", "8", "--batch", "4"],
    "positions": ["--steps", "3", "--longest", "4", "--width", "8", "--batch", "4"],
    "parts": ["--steps", "2", "--layers", "1", "--width", "8", "--batch-tokens", "64"],
    "feeding": ["--steps", "2", "--width", "8", "--lengths", "4", "6", "--sentences", "2", "--repeats", "1"],
    "negatives": [
        *[
            "--steps",
            "6",
            "--long-steps",
            "8",
            "--long-width",
            "8",
            "--batch",
            "4",
            "--width",
            "8",
            "--vocabulary",
            "300",
        ],
        *["--numbers", "1", "2", "--hard", "1"],
    ],
    "ladder": ["--epochs", "1", "--width", "8", "--batch-tokens", "256", "--warmup", "1", "--vocabulary", "300"],
}
WITH_TEXT = ("parts", "feeding", "ladder", "negatives")


@pytest.fixture
def text(tmp_path):
    """Return the options that name small files of text."""
    pairs = list(pairwise(["one", "two", "three", "four", "five", "six", "seven", "eight"]))
    lines = [f"{a} {b} .\t{b} {a} .\n" for a, b in pairs] * 5
    options = []
    for part, count in (("train", 32), ("valid", 5), ("test", 5)):
        (tmp_path / f"{part}.tsv").write_text("".join(lines[:count]))
        options += [f"--{part}-tsv", str(tmp_path / f"{part}.tsv")]
    return options


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.py")))
def test_an_experiment_writes_its_page_and_measures_nothing_twice(name, tmp_path, text):
    if name in ("page", "runs", "learning"):
        pytest.skip("shared by the experiments")
    out = tmp_path / "out"
    command = [sys.executable, EXPERIMENTS / f"{name}.py", "--out", out, *TINY[name]]
    command += text if name in WITH_TEXT else []
    environment = {**os.environ, "PYTHONUTF8": "1", "TENSORLIB_THREADS": "1"}
    for expected in ("...", "wrote"):
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert expected in run.stdout
    assert "..." not in run.stdout  # the second time, all results are known
    page = (out / "page.html").read_text()
    assert page.index("<h1>") < page.index('class="findings"') < page.index("<svg")
    assert "<table>" in page
    assert f"examples/experiments/{name}.py" in page
