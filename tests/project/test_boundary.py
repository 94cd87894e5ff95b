"""Only two rooms import CuPy, `import tensorlib` loads only NumPy, and no input is ever executed."""

import ast
import subprocess
import sys

import pytest

from tests import ROOT

PACKAGES = ("tensorlib", "nn", "models")
FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
IDS = [str(file.relative_to(ROOT)) for file in FILES]

STARTS_THE_COMMAND_LINE = "tensorlib/__main__.py"  # `python -m tensorlib`, which is models.cli.main
MAY_IMPORT_CUPY = (
    "tensorlib/arrays/cupy.py", "tensorlib/arrays/cuda.py", "tensorlib/arrays/cupy_graphs.py", "tensorlib/kernels/cuda/"
)  # fmt: skip


def imported(file):
    """Return the top-level names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and name_of(node.func) in ("__import__", "import_module") and node.args:
            names.add(ast.unparse(node.args[0]).strip("'\"f").partition(".")[0])
    return names


def name_of(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_cupy_is_imported_in_two_places(file):
    if not str(file.relative_to(ROOT)).startswith(MAY_IMPORT_CUPY):
        assert not imported(file) & {"cupy", "cupyx"}


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_nothing_read_is_ever_run(file):
    assert not imported(file) & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        where = f"{file.name}:{node.lineno}"
        if isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__"), where
        called = ast.unparse(node.func)
        assert called not in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"), where
        for keyword in node.keywords:
            assert keyword.arg != "shell" or ast.unparse(keyword.value) == "False", where
            assert keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False", where


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_a_package_imports_only_those_below_it(file):
    package = file.relative_to(ROOT).parts[0]
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    if str(file.relative_to(ROOT)) == STARTS_THE_COMMAND_LINE:
        above -= {"models"}
    assert not imported(file) & {*above, "tests", "benchmarks", "examples", "torch", "jax"}


@pytest.mark.parametrize("file", sorted((ROOT / "tensorlib/ops").glob("*.py")), ids=lambda file: file.stem)
def test_ops_import_from_the_engine_only_what_a_users_op_needs(file):
    """Ops get Tensors from `Function` and `as_tensor`, so that tensor.py can import every op as a method of Tensor."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and name_of(node.test) == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            known = name.startswith(("tensorlib.ops.", "tensorlib.arrays.")) or name in (
                "tensorlib.engine.function",
                "tensorlib.engine.errors",
                "tensorlib.messages",
            )
            assert known or not name.startswith(("tensorlib", "nn", "models")), f"{file.name}:{node.lineno}: {name}"


def test_messages_import_nothing_of_ours():
    """Every file, also a backend, can therefore use them for its errors."""
    assert not imported(ROOT / "tensorlib/messages.py") & {"numpy", *PACKAGES}


def loaded_by(code):
    """Return the modules that are loaded in a fresh interpreter after `code` has run."""
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if name}


def test_importing_tensorlib_imports_numpy_and_nothing_else_of_others():
    before = loaded_by("pass")  # not counted: what .pth files of the environment load
    tops = {name.partition(".")[0] for name in loaded_by("import tensorlib") - before}
    foreign = {top for top in tops if top not in sys.stdlib_module_names and not top.startswith("_")}
    assert foreign == {"numpy", "tensorlib"}


def test_importing_tensorlib_leaves_the_op_table_alone():
    modules = loaded_by("import tensorlib")
    assert "tensorlib.optable" not in modules
    assert "unittest" not in modules and "numpy.testing" not in modules


def test_importing_tensorlib_changes_no_setting_of_the_process():
    code = (
        "import os, signal, warnings, numpy as np, locale, threading\n"
        "def state():\n"
        "    return (dict(os.environ), np.geterr(), list(warnings.filters), os.getcwd(), threading.active_count(),\n"
        "            [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], np.random.get_state()[2])\n"
        "before = state()\nimport tensorlib\nassert state() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_public_names_are_those_that_modules_list():
    import tensorlib as tl

    for file in sorted((ROOT / "tensorlib").glob("ops/*.py")):
        if file.stem not in (
            "__init__",
            "arguments",
            "loss_scale",
            "next_position",
            "plain",
            "update",
            "update_in_place",
        ):
            module = sys.modules[f"tensorlib.ops.{file.stem}"]
            for name in module.__all__:
                assert getattr(tl, name) is getattr(module, name), f"tl.{name} is hidden by another module's"
