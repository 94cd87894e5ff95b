"""What the README says is so: its programs run, and its names, paths and counts are those of the repository."""

import re
import subprocess
import sys

import pytest

from models import Transformer, TransformerConfig
from models.cli.main import COMMANDS
from models.text.corpora.phrasebook import phrasebook
from tensorlib.optable import ROWS
from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_stand_there_as_promised():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/tensorlib train",
        'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]" && .venv/bin/python -m pytest',
    ]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_block_runs(number, tmp_path):
    program = tmp_path / "block.py"
    program.write_text("import numpy as np\nimport tensorlib as tl\n" + BLOCKS[number], encoding="utf-8")
    run = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_engine_fits_twenty_lines():
    code = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(code) <= 20


def test_paths_exist():
    linked = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    quoted = re.findall(r"`((?:tensorlib|nn|models|examples|benchmarks|ops)/[\w/.]+)`", README)
    missing = [p for p in linked + quoted if not (ROOT / p).exists() and not (ROOT / "tensorlib" / p).exists()]
    assert linked and quoted and not missing


def test_commands_are_all_there_and_no_other():
    assert set(re.findall(r"^\| `tensorlib (\w+)`", README, re.MULTILINE)) == set(COMMANDS)


def test_counts():
    book = phrasebook()
    assert f"{sum(map(len, (book.train, book.valid, book.test))):,} everyday sentences" in README
    rows = [row for row in ROWS if row.differentiable]
    assert f"{len(ROWS)} functions on arrays" in README and f"{len(rows)} of them differentiable" in README
    assert f"every differentiable op, {sum(len(row.samples) for row in rows):,} samples" in README
    base = Transformer(TransformerConfig(source_vocabulary=1, target_vocabulary=1))
    ends = (base.source_embedding, base.target_embedding, base.output)
    body = base.parameter_count() - sum(m.parameter_count() for m in ends)
    assert f"{body:,} parameters" in README
