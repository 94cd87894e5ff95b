"""The mutation run: what it finds to change, what it leaves alone, and a whole run in small."""

import json
import sys

import pytest

from tests import ROOT

OPS = b'''
from tensorlib.arrays.shapes import sum_to

class Smooth(Function):
    """y = x^2 / 2 + x z  =>  dx = dy (x + z), dz = dy x."""

    def forward(self, x, z):
        self.save(x, z)
        return x * x / 2 + x * z

    def backward(self, dy):
        x, z = self.saved
        where = {"\xc2\xb7": x > 0.5}
        slope = x + z
        return sum_to(dy * slope, x.shape), dy.sum(axis=-1, keepdims=True) * x if self.needs[1] else None

def public(x):
    return x * 3

@singledispatch
def soft_gradient(dy, y, axis):
    return y * (dy - (dy * y).sum(axis=axis))

class Soft(Function):
    def backward(self, dy):
        (y,) = self.saved
        return soft_gradient(dy, y, self.axis)

class Picked(Function):
    def backward(self, dy):
        return Placed.run(dy, index=self.index)

class Placed(Function):
    def forward(self, x, index):
        y = zeros(x.shape)
        y[index] = x
        return y
'''
COMMON = b"""
def sum_to(x, shape):
    return x.sum(axis=0).reshape(shape)
"""
SOURCES = {"tensorlib/ops/some.py": OPS, "tensorlib/ops/arguments.py": COMMON}


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import mutants

    yield mutants
    for name in [n for n in sys.modules if n == "mutants" or n.partition(".")[0] == "mutation"]:
        del sys.modules[name]


def keys(mutants, where, sources=SOURCES):
    return [f"{m.kind}: {m.change}" for m in mutants.find_mutants(sources) if m.where == where]


def test_every_formula_is_found_with_its_helpers_and_adjoints_and_nothing_else(mutants):
    found = {m.where for m in mutants.find_mutants(SOURCES)}
    assert found == {"Smooth.backward", "sum_to", "soft_gradient", "Soft.backward", "Picked.backward", "Placed.forward"}


def test_the_changes_to_a_formula(mutants):
    changes = keys(mutants, "Smooth.backward")
    for expected in (
        "saved values exchanged: x, z -> z, x",
        "scaled: sum_to(dy * slope, x.shape) -> (1.001 * sum_to(dy * slope, x.shape))",
        "scaled: dy.sum(axis=-1, keepdims=True) * x -> (1.001 * (dy.sum(axis=-1, keepdims=True) * x))",
        "sum_to dropped: sum_to(dy * slope, x.shape) -> (dy * slope)",
        "sum dropped: dy.sum(axis=-1, keepdims=True) -> dy",
        "axis: -1 -> 0",
        "constant: True -> False",
        "* to /: dy * slope -> (dy / slope)",
        "+ to -: x + z -> (x - z)",
        "to >=: x > 0.5 -> (x >= 0.5)",
        "constant: 0.5 -> 0.5005",
        "another need: self.needs[1] -> self.needs[0]",
        "condition turned: self.needs[1] -> (not self.needs[1])",
        "taken for a constant: slope",
        "taken for a constant: dy",
    ):
        assert expected in changes
    assert len(changes) == len(set(changes))


def test_a_value_counts_as_constant_where_it_has_no_derivative_anyway(mutants):
    changes = keys(mutants, "Smooth.backward")
    assert "taken for a constant: x" in changes  # in x + z ...
    assert "taken for a constant: x (no. 2)" in changes  # ... and in the second gradient, not in x > 0.5 or x.shape
    assert "taken for a constant: x (no. 3)" not in changes
    assert not any("constant: axis" in change for change in keys(mutants, "soft_gradient"))


def test_a_gradient_is_scaled_once_where_it_is_made(mutants):
    assert not any(change.startswith("scaled") for change in keys(mutants, "Soft.backward"))
    assert any(change.startswith("scaled") for change in keys(mutants, "soft_gradient"))


def test_every_mutant_of_the_engine_is_other_python_under_a_name_of_its_own(mutants):
    sources = {path: (ROOT / path).read_bytes() for path in mutants.engine_files(ROOT)}
    found = mutants.find_mutants(sources)
    assert len(found) == len({m.key for m in found}) > 500
    assert {m.path for m in found} >= {"tensorlib/engine/backward.py", "tensorlib/ops/softmax.py"}
    for mutant in found[::3]:
        changed = mutant.apply(sources[mutant.path])
        assert changed != sources[mutant.path], mutant.key
        compile(changed, mutant.path, "exec")  # which is not to run it


def test_an_explanation_that_belongs_to_no_mutant_any_more_is_told(mutants, monkeypatch, tmp_path):
    found = mutants.find_mutants(SOURCES)
    known = next(m for m in found if m.where == "soft_gradient")
    table = f"""
        [[survivors]]
        formula = "{known.path} {known.where}"
        changes = ["{known.kind}: {known.change}", "constant: 1 -> 2"]
        why = "a test of the table"
    """
    monkeypatch.setattr(mutants, "EXPLANATIONS", tmp_path / "survivors.toml")
    assert mutants.outdated(found) == []
    (tmp_path / "survivors.toml").write_text(table)
    assert mutants.explanations()[known.key] == "a test of the table"
    assert mutants.outdated(found) == [f"{known.path} {known.where} constant: 1 -> 2"]


# ---- a whole run, of a package of one formula ------------------------------------------------------------------------

FORMULA = """
class Tripled(Function):
    def backward(self, dy):
        return 3 * dy if self.ready else dy
"""
TEST = """
from tensorlib.ops.formula import Tripled


def test_it():
    node = Tripled()
    node.ready = True
    assert node.backward(5) == 15
"""


@pytest.fixture
def project(mutants, monkeypatch, tmp_path):
    files = {
        "tensorlib/__init__.py": "",
        "tensorlib/engine/backward.py": "",
        "tensorlib/ops/__init__.py": "",
        "tensorlib/ops/formula.py": f"Function = object\n{FORMULA}",
        "tests/conftest.py": "",
        "tests/test_formula.py": TEST,
        "pyproject.toml": "[tool.pytest.ini_options]\nmarkers = ['peers']\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "WORK", tmp_path / "build")
    return tmp_path


def test_a_run_kills_what_a_test_notices_lists_what_none_does_and_goes_on_where_it_was(project, mutants, capsys):
    assert mutants.main(["--jobs", "1"]) == 1
    told = capsys.readouterr().out
    outcomes = {e["key"].partition(".py ")[2]: e for e in map(json.loads, (project / "build/log.jsonl").open())}
    killed = outcomes["Tripled.backward scaled: 3 * dy -> (1.001 * (3 * dy))"]
    assert (killed["outcome"], killed["by"]) == ("killed", "tests/test_formula.py::test_it")
    survivor = "Tripled.backward scaled: dy -> (1.001 * dy)"
    assert outcomes[survivor]["outcome"] == "survived"
    assert f"tensorlib/ops/formula.py:5 {survivor}" in told
    assert (project / "tensorlib/ops/formula.py").read_text() == f"Function = object\n{FORMULA}"

    lines = (project / "build/log.jsonl").read_text()
    mutants.main(["--jobs", "1", "Tripled"])
    assert (project / "build/log.jsonl").read_text() == lines, "what is known is not run again"


def test_every_function_of_the_engine_that_is_to_be_mutated_exists(mutants):
    from mutation.formulas import ENGINE, ENGINE_FUNCTIONS

    sources = {path: (ROOT / path).read_bytes() for path in mutants.engine_files(ROOT)}
    assert {m.where for m in mutants.find_mutants(sources) if m.path in ENGINE} == ENGINE_FUNCTIONS
