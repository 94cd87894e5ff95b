"""The README is true: its commands and programs run, and its counts are those of the repository."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

from models import Transformer, TransformerConfig
from models.text.corpora.phrasebook import phrasebook
from tensorlib.optable import ROWS
from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ENGINE = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_it_has_the_two_promised_commands():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/tensorlib train",
        'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]" && .venv/bin/python -m pytest',
    ]


def test_it_is_short():
    assert len(README.splitlines()) <= 130, "move what a first reader does not need to docs/"


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_block_runs(number, tmp_path):
    program = tmp_path / "block.py"
    program.write_text("import numpy as np\nimport tensorlib as tl\n" + BLOCKS[number], encoding="utf-8")
    only_what_pip_installs = {**os.environ, "PATH": str(tmp_path)}  # such as no `dot` of the machine
    run = subprocess.run(
        [sys.executable, program], cwd=tmp_path, env=only_what_pip_installs, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    for picture in re.findall(r'tl\.draw\(.*"(.*)"\)', BLOCKS[number]):
        assert "<svg" in (tmp_path / picture).read_text(encoding="utf-8")


def test_the_first_command_installs_what_its_programs_need():
    """The tests run with the extra `dev`; a renderer from there would not be on a reader's machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]]
    assert {"numpy", "graphviz", "graphviz-pure"} <= set(names)


def test_the_engine_fits_twenty_lines():
    code = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(code) <= 20


def test_every_page_of_docs_is_linked():
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages and pages <= set(re.findall(r"\]\((docs/\w+\.md)\)", README))


def rows_of(text):
    """Return the (what, figure, command) rows of tables with these three columns."""
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    rows = [tuple(cell.strip() for cell in line.split(" | ")) for line in lines]
    return [row for row in rows if len(row) == 3 and row[0] != "what"]


def test_its_six_figures_are_those_of_the_page_with_all_figures():
    figures = [row[1:] for row in rows_of(README)]
    assert len(figures) == 6
    assert set(figures) <= {row[1:] for row in rows_of(PERFORMANCE)}


def test_counts():
    book = phrasebook()
    assert f"{sum(map(len, (book.train, book.valid, book.test))):,} everyday sentences" in README
    rows = [row for row in ROWS if row.differentiable]
    assert f"{len(ROWS)} functions on arrays" in ENGINE and f"{len(rows)} of them are differentiable" in ENGINE
    samples = f"every differentiable op, {sum(len(row.samples) for row in rows):,} samples"
    assert samples in README and samples in PERFORMANCE
    base = Transformer(TransformerConfig(source_vocabulary=1, target_vocabulary=1))
    ends = (base.source_embedding, base.target_embedding, base.output)
    body = base.parameter_count() - sum(m.parameter_count() for m in ends)
    assert f"{body:,} parameters" in PERFORMANCE
