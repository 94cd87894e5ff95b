"""Mutation testing: the changes that it finds, the code that it leaves alone, and a whole run on a small package."""

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
SHAPES = b"""
__all__ = ["sum_to"]

def sum_to(x, shape):
    return x.sum(axis=0).reshape(shape)
"""
SOURCES = {"tensorlib/ops/some.py": OPS, "tensorlib/arrays/shapes.py": SHAPES}


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
    assert "taken for a constant: x" in changes  # in x + z
    assert "taken for a constant: x (no. 2)" in changes  # in the second gradient; x > 0.5 and x.shape do not count
    assert "taken for a constant: x (no. 3)" not in changes
    assert not any("constant: axis" in change for change in keys(mutants, "soft_gradient"))


def test_a_gradient_is_scaled_once_where_it_is_computed(mutants):
    assert not any(change.startswith("scaled") for change in keys(mutants, "Soft.backward"))
    assert any(change.startswith("scaled") for change in keys(mutants, "soft_gradient"))


def engine_sources(mutants):
    return {path: (ROOT / path).read_bytes() for path in mutants.engine_files(ROOT)}


def test_every_mutant_of_the_engine_is_valid_python_under_a_unique_name(mutants):
    sources = engine_sources(mutants)
    found = mutants.find_mutants(sources)
    assert len(found) == len({m.key for m in found}) > 500
    assert {m.path for m in found} >= {"tensorlib/engine/backward.py", "tensorlib/ops/softmax.py"}
    for mutant in found[::3]:
        changed = mutant.apply(sources[mutant.path])
        assert changed != sources[mutant.path], mutant.key
        compile(changed, mutant.path, "exec")  # without running it


def test_the_formulas_of_all_rooms_are_found(mutants):
    from mutation.formulas import ENGINE, SCALED_IN_ENGINE

    found = mutants.find_mutants(engine_sources(mutants))
    where = {m.where for m in found}
    for name in ("sum_to", "edge_of", "Gradients.add", "topological_order", "Softmax.backward", "product"):
        assert name in where, f"{name} was renamed, or mutation/formulas.py does not look into its file"
    assert {m.where for m in found if m.path in ENGINE and m.kind == "scaled"} == SCALED_IN_ENGINE
    assert "softmax_gradient (kernel)" in where


def test_every_explanation_belongs_to_a_mutant(mutants):
    outdated = mutants.outdated(mutants.find_mutants(engine_sources(mutants)))
    assert not outdated, f"benchmarks/mutation/survivors.toml explains mutants that no longer exist: {outdated}"


def test_an_outdated_explanation_is_found(mutants, monkeypatch, tmp_path):
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


# ---- which tests run -------------------------------------------------------------------------------------------------


def test_the_tests_of_the_engine_are_those_of_its_rooms(mutants):
    tests = mutants.engine_tests()
    rooms = {name.split("/")[1] for name in tests}
    assert rooms >= {"engine", "ops", "kernels", "transforms", "nn"} and not rooms & {"models", "project"}
    assert all((ROOT / name).exists() for name in mutants.LEFT_OUT) and not mutants.LEFT_OUT & set(tests)
    files = mutants.relevant_files()
    assert {"tests/conftest.py", "tests/strict.py", "tests/edges.py", "tensorlib/ops/softmax.py"} <= set(files)
    assert not any(name.startswith(("models/", "tests/models/", "tests/project/")) for name in files)


@pytest.mark.parametrize(
    "path, near, far",
    [
        ("tensorlib/ops/softmax.py", "tests/ops/test_softmax.py::test_a", "tests/ops/test_linalg.py::test_a"),
        ("tensorlib/ops/extremes.py", "tests/ops/test_table.py::test_gradient[max]", "tests/nn/test_optim.py::test_a"),
        ("tensorlib/arrays/shapes.py", "tests/ops/test_table.py::test_a", "tests/engine/test_engine.py::test_a"),
        ("tensorlib/engine/backward.py", "tests/engine/test_engine.py::test_a", "tests/ops/test_table.py::test_a"),
        ("tensorlib/kernels/numpy/softmax.py", "tests/kernels/test_kernels.py::a", "tests/ops/test_softmax.py::test_a"),
    ],
)  # fmt: skip
def test_the_tests_near_a_formula_run_first(mutants, path, near, far):
    mutant = mutants.Mutant(path, "f", "kind", "change", (3, 4), 0, 0, "", "")
    tests = {
        name: {"lines": {path: lines}, "seconds": seconds}
        for name, lines, seconds in (
            (far, [4], 0.0),
            (near, [1, 3], 2.0),
            ("tests/ops/test_other.py::test_b", [5], 0.0),
        )
    }
    assert mutants.tests_through(mutant, tests) == [{near: 30.0}, {far: 10.0}]


# ---- a whole run, of a package with one formula ----------------------------------------------------------------------

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
        "tests/__init__.py": "",
        "tests/conftest.py": "",
        "tests/ops/__init__.py": "",
        "tests/ops/test_formula.py": TEST,
        "pyproject.toml": "[tool.pytest.ini_options]\nmarkers = ['peers']\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "WORK", tmp_path / "build")
    return tmp_path


def test_a_run_lists_the_mutants_that_no_test_notices_and_continues_where_it_was(project, mutants, capsys):
    assert mutants.main(["--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    outcomes = {e["key"].partition(".py ")[2]: e for e in map(json.loads, (project / "build/log.jsonl").open())}
    killed = outcomes["Tripled.backward scaled: 3 * dy -> (1.001 * (3 * dy))"]
    assert (killed["outcome"], killed["by"]) == ("killed", "tests/ops/test_formula.py::test_it")
    survivor = "Tripled.backward scaled: dy -> (1.001 * dy)"
    assert outcomes[survivor]["outcome"] == "survived"
    assert f"tensorlib/ops/formula.py:5 {survivor}" in printed
    assert f"survived: tensorlib/ops/formula.py {survivor}" in printed, "also while the run lasts"
    assert (project / "tensorlib/ops/formula.py").read_text() == f"Function = object\n{FORMULA}"

    log = project / "build/log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    mutants.main(["--jobs", "1", "Tripled"])
    assert log.read_text().splitlines(keepends=True) == lines, "known results are not computed again"
    log.write_text("".join(lines[1:]) + lines[0][:20])  # as if the run had been stopped while it wrote the first
    mutants.main(["--jobs", "1"])
    again = log.read_text().splitlines(keepends=True)[-1]
    assert json.loads(again)["key"] == json.loads(lines[0])["key"]
