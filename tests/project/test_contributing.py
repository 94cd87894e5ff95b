"""CONTRIBUTING.md is true: its example op, added in the three places, passes the tests of every op."""

import doctest
import importlib.util
import re
from textwrap import dedent

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.optable.check import check_sample
from tests import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
OP, ROW = (dedent(block) for block in re.findall(r" *```python\n(.*?) *```", TEXT, re.DOTALL))


def module_of(file, code, tmp_path):
    """Import a module that begins as `file` does, up to its list of names, and continues with `code`."""
    head = (ROOT / "tensorlib" / file).read_text(encoding="utf-8").partition("__all__")[0]
    path = tmp_path / f"example_{file.replace('/', '_')}"
    path.write_text(f"{head}\n{code}", encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Return the example's name and its row, after adding it in all three places."""
    line = re.search(r"^ +`(\w+) = (\w+)\.(\w+)`\.$", TEXT, re.MULTILINE)
    name, family, function = line.groups()
    assert name == function
    assert not hasattr(tl, name), f"{name} exists now: CONTRIBUTING.md needs another example"
    op = getattr(module_of(f"ops/{family}.py", OP, tmp_path), name)
    monkeypatch.setattr(tl, name, op, raising=False)
    monkeypatch.setattr(tl.Tensor, name, op, raising=False)
    return name, module_of(f"optable/{family}.py", f"EXAMPLE = (\n{ROW})", tmp_path).EXAMPLE


def test_the_example_op_passes_what_every_op_passes(example, backend):
    name, row = example
    assert row.name == name and row.function is getattr(tl, name) and len(row.samples) >= 5
    for sample in row.samples:
        arrays = row.arrays(sample)
        check_sample(row, sample, backend)
        y = row.bound(sample, backend)(*[tl.Tensor(a, backend=backend) for a in arrays])
        np.testing.assert_allclose(y.numpy(), row.bound(sample, None)(*arrays), rtol=1e-14)


def test_the_example_op_is_a_method_and_has_a_name(example):
    name, _ = example
    y = getattr(tl.Tensor([0.0], requires_grad=True), name)()
    assert f"from={name}" in repr(y) and y.item() == 0


def test_the_example_op_has_help_with_its_derivation_and_an_example_that_runs(example):
    name, row = example
    assert "=>  dx = " in row.function.__doc__ and "Keeps " in row.function.__doc__
    (found,) = doctest.DocTestFinder().find(row.function, name, globs={"tl": tl})
    assert doctest.DocTestRunner().run(found) == (0, 1)


def test_the_commands_name_the_example(example):
    name, _ = example
    assert f"-k {name} " in TEXT and f"tensorlib check {name} " in TEXT
