"""The experiments: what they share, and a small run of each."""

import json
import os
import re
import subprocess
import sys

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


# ---- a small run of each -------------------------------------------------------------------------------------------


def run(name, out, *options):
    """Run an experiment as a user does; return its page and what it printed."""
    command = [sys.executable, str(EXPERIMENTS / f"{name}.py"), "--out", str(out), *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    ran = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return (out / "index.html").read_text("utf-8"), ran.stdout


def test_negatives(tmp_path):
    colours, things = ["rot", "grün", "blau", "gelb", "weiß"], ["Hund", "Katze", "Haus", "Auto", "Baum"]
    pairs = [f"{colour} {thing}\t{thing.lower()} {colour.upper()}\n" for colour in colours for thing in things]
    for part, lines in (("train", pairs), ("valid", pairs[::2]), ("test", pairs[1::3])):
        (tmp_path / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")
    small = ["--steps", 6, "--long-steps", 8, "--batch", 8, "--numbers", 1, 3, "--hard", 1, "--width", 16]
    small += [
        "--vocabulary",
        320,
        *[x for part in ("train", "valid", "test") for x in (f"--{part}-tsv", f"{part}.tsv")],
    ]
    page, printed = run("negatives", tmp_path / "out", *small)
    assert "After 8 steps the encoder finds" in page[: page.index("<p>")] and page.count("<svg") == 2
    for name in ("in batch 7", "uniform 3", "hard 1", "triplet hard 1", "margin in batch 7", "long bag"):
        assert f"<td>{name}</td>" in page and f"{name} ..." in printed
    again, printed = run("negatives", tmp_path / "out", *small)
    assert again == page and "..." not in printed


def test_negatives_needs_all_parts_of_the_text(tmp_path):
    with pytest.raises(AssertionError, match="are required together; got only some"):
        run("negatives", tmp_path / "out", "--train-tsv", "train.tsv")
