"""Docstrings of ops tell the truth: examples run, and an op keeps the arrays and has the kernels that it names."""

import ast
import doctest
import importlib
import inspect
import re
import sys

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim
from tensorlib.engine.function import Function
from tensorlib.graphs.held_arrays import arrays_in, held_arrays, own_attributes
from tensorlib.kernels import chosen, enabled, numba, overridable
from tensorlib.ops.exponential import Exp
from tensorlib.optable import ROWS, function_names
from tests import ROOT
from tests.conftest import with_kernels

ROWS_BY_NAME = {row.name: row for row in ROWS}


# ---- public functions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", function_names())
def test_a_public_function_has_an_example_and_its_gradient(name):
    text = inspect.getdoc(getattr(tl, name))
    assert ">>>" in text
    if ROWS_BY_NAME[name].differentiable:
        assert "=>" in text or "gradient" in text


METHODS = [name for name in dir(tl.Tensor) if not name.startswith("_") and callable(getattr(tl.Tensor, name))]


@pytest.mark.parametrize("name", [*METHODS, "requires_grad"])
def test_a_method_of_a_tensor_has_an_example(name):
    assert ">>>" in inspect.getdoc(getattr(tl.Tensor, name))


# ---- examples ----------------------------------------------------------------------------------------------------

NEEDS_CUPY = (
    "tensorlib/arrays/cuda.py", "tensorlib/arrays/cupy.py", "tensorlib/arrays/cupy_graphs.py", "tensorlib/kernels/cuda/"
)  # fmt: skip
FILES = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "tensorlib").rglob("*.py"))]
MODULES = [
    file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for file in FILES
    if not file.startswith(NEEDS_CUPY) and not file.endswith("__main__.py")
    if chosen() == "numba" or not file.startswith("tensorlib/kernels/numba/") or file.endswith("__init__.py")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name, capsys):
    results = doctest.testmod(importlib.import_module(name), extraglobs={"tl": tl, "np": np, "nn": nn, "optim": optim})
    assert results.failed == 0, capsys.readouterr().out


# ---- what an op keeps until backward -----------------------------------------------------------------------------


class Kept:
    """The arrays kept by the nodes of one class: names of arguments and attributes, outputs, most statistics."""

    def __init__(self):
        self.arguments, self.outputs, self.others, self.statistics, self.nodes = set(), set(), set(), 0, 0

    def add(self, node, arguments):
        """Add what a graph counts of `node`; `arguments` are those of `forward`, as (name, value)."""
        self.nodes += 1
        outputs = {id(array): role for role, array in node.saved_by_role() if role < 0}
        statistics = {id(array) for array in arrays_in(node.statistics)}
        held = {id(array): array for array in held_arrays(node)}
        for array in held.values():
            if id(array) in outputs:
                self.outputs.add(outputs[id(array)])
            elif id(array) not in statistics:
                given = names_of(array, arguments)
                self.arguments |= given
                self.others |= set() if given else names_of(array, own_attributes(node).items())
        self.statistics = max(self.statistics, len(statistics & held.keys()))


def names_of(array, pairs):
    """Return the names of the (name, value) pairs whose value is or contains this very array."""
    return {name for name, value in pairs if any(array is part for part in arrays_in(value))}


def classes():
    """Return every op of tensorlib.ops that is recorded."""
    found, waiting = [], [Function]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.__module__.startswith("tensorlib.ops.") and cls.differentiable:
            found.append(cls)
    return sorted(found, key=lambda cls: cls.__name__)


CLASSES = [pytest.param(cls, id=cls.__name__) for cls in classes()]


@pytest.fixture(scope="module")
def kept():
    """Record all samples of the op table that are not empty, and their gradients; return what each class keeps."""
    found = {cls: Kept() for cls in classes()}
    with pytest.MonkeyPatch.context() as patch:
        calls = {}
        for cls in found:
            if "forward" in vars(cls):
                patch.setattr(cls, "forward", noted(cls.forward, calls))
        for row in ROWS:
            for sample in row.samples if row.differentiable else ():
                if all(0 not in a for a in sample.arguments if isinstance(a, tuple)):
                    for node in recorded(row, sample):
                        found[type(node)].add(node, calls[id(node)])
                    calls.clear()
    return found


def noted(forward, calls):
    """Return `forward`, noting the arguments of each call by the node as (name, value)."""
    parameters = inspect.signature(forward).parameters

    def run(self, *inputs, **options):
        names = [name for name, p in list(parameters.items())[1:] if p.kind is not p.KEYWORD_ONLY]
        names += names[-1:] * len(inputs)  # *bias
        calls[id(self)] = [*zip(names, inputs, strict=False), *options.items()]
        return forward(self, *inputs, **options)

    return run


def recorded(row, sample):
    """Return the nodes of a sample's graph, and those of its gradients."""
    xs = [tl.Tensor(a, requires_grad=a.dtype.kind == "f") for a in row.arrays(sample)]
    ys = row.bound(sample, tl.get_backend("numpy"))(*xs)
    ys = [y for y in (ys if isinstance(ys, tuple | list) else [ys]) if y.requires_grad]
    ones = [tl.Tensor(np.ones(y.shape), requires_grad=True) for y in ys]
    dxs = tl.grad(ys, [x for x in xs if x.requires_grad], ones, create_graph=True, allow_unused=True) if ys else []
    nodes, waiting = {}, [y.node for y in [*ys, *dxs] if y is not None]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function) and node not in nodes:
            nodes[node] = None
            waiting += [edge[0] for edge in node.edges if edge is not None]
    return list(nodes)


KEEPS = re.compile(r"^Keeps (.+?)\.(?=\s|$)", re.MULTILINE | re.DOTALL)
KERNELS = re.compile(r"^Kernels: (.+?)\.(?=\s|$)", re.MULTILINE | re.DOTALL)


def listed(text):
    """Return the names in "x, y (a remark) and z"."""
    plain = re.sub(r"\s*\([^()]*\)", "", text)
    return [name.strip() for name in re.split(r",|\band\b", plain) if name.strip() not in ("", "nothing")]


def named_as_kept(cls):
    """Return the names in the line "Keeps x and y; statistics: mean, 1/std." of a docstring: both parts."""
    line = KEEPS.search(inspect.cleandoc(cls.__doc__))
    assert line, f"{cls.__name__}: the docstring must say 'Keeps ...', or 'Keeps nothing.'"
    parts = line[1].split(";")
    assert len(parts) == 1 or parts[1].strip().startswith("statistics"), f"{cls.__name__}: {line[0]}"
    return set(listed(parts[0])), listed(parts[1].partition(":")[2]) if len(parts) > 1 else []


@pytest.mark.parametrize("cls", CLASSES)
def test_an_op_keeps_what_its_docstring_says(cls, kept):
    """Inputs by the names of the parameters of `forward`; other names are those of outputs."""
    names, statistics = named_as_kept(cls)
    found = kept[cls]
    parameters = names & set(inspect.signature(cls.forward).parameters)
    assert parameters == found.arguments
    assert len(names - parameters) == len(found.outputs) + len(found.others), f"outputs: {names - parameters}"
    if enabled():  # some statistics are kept by a kernel only
        assert len(statistics) == found.statistics, f"statistics: {statistics}"
    assert found.nodes, "no row of the op table records this op"


# ---- kernels -----------------------------------------------------------------------------------------------------


def formulas_of(cls):
    """Return the formulas that kernels may override and that a class calls, by name.

    `forward` and `backward` call them, or plain functions of the same module do, which these call.
    """
    found, seen, waiting = {}, set(), [cls.forward.__code__, cls.backward.__code__]
    module = vars(sys.modules[cls.__module__])
    while waiting:
        code = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        found |= {name: overridable()[name] for name in code.co_names if name in overridable()}
        waiting += [part for part in code.co_consts if inspect.iscode(part)]
        helpers = [module.get(name) for name in code.co_names if name not in overridable()]
        waiting += [h.__code__ for h in helpers if inspect.isfunction(h) and h.__module__ == cls.__module__]
    return found


def cuda_files():
    """Return the file of each formula's CUDA kernel, read from the sources, because CuPy may be missing."""
    found = {}
    for file in (ROOT / "tensorlib/kernels/cuda").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "overrides":
                    found[ast.unparse(call.args[0])] = f"cuda/{file.name}"
    return found


def host_files(formula):
    """Return the files of a formula's kernels for a CPU: the one for NumPy, and the compiled one that replaces it."""
    name = formula.__name__
    found = {f"numba/{file}.py" for file, names in numba.FILES.items() if name in names}
    kernel = numba.replaced(formula) or formula.registry.get(np.ndarray, formula)
    if kernel is not formula and kernel is not formula.dispatch(object):
        found.add(kernel.__module__.removeprefix("tensorlib.kernels.").replace(".", "/") + ".py")
    return found


@with_kernels
@pytest.mark.parametrize("cls", CLASSES)
def test_an_op_has_the_kernels_that_its_docstring_names(cls):
    line = KERNELS.search(inspect.cleandoc(cls.__doc__))
    formulas = formulas_of(cls)
    files = {file for formula in formulas.values() for file in host_files(formula)}
    files |= {cuda_files().get(name) for name in formulas}
    assert set(listed(line[1]) if line else []) == files - {None}


# ---- the checks themselves ---------------------------------------------------------------------------------------


@with_kernels
def test_a_wrong_line_is_noticed(kept, monkeypatch):
    for wrong in ("Keeps x.", "Keeps nothing.", "Keeps y and x.", "Keeps y; statistics: 1/y."):
        monkeypatch.setattr(Exp, "__doc__", wrong)
        with pytest.raises(AssertionError):
            test_an_op_keeps_what_its_docstring_says(Exp, kept)
    monkeypatch.setattr(Exp, "__doc__", "Kernels: numpy/exp.py.")
    with pytest.raises(AssertionError):
        test_an_op_has_the_kernels_that_its_docstring_names(Exp)


def test_the_lines_are_read():
    assert listed("x, y (only for dz) and weight") == ["x", "y", "weight"]
    assert listed("nothing") == []
    assert KEEPS.search("y = x.\n\nKeeps x;\nstatistics: 1/std.\nKernels: a.py.")[1] == "x;\nstatistics: 1/std"
    assert KERNELS.search("Kernels: numpy/a.py,\ncuda/b.py.")[1] == "numpy/a.py,\ncuda/b.py"
