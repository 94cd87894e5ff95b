"""The shape of the code: no circular imports, an engine that can be read in an afternoon, short functions and files."""

import ast

import pytest

from tests import ROOT

PACKAGES = ("tensorlib", "nn", "models")


# ---- circles of imports ----------------------------------------------------------------------------------------------


def modules_in(root, packages):
    """Return the files of these packages by the name under which Python imports them."""
    files = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def import_graph(root, packages):
    """Return for each module the modules of these packages that importing or using it may import."""
    modules = modules_in(root, packages)
    return {name: imported_by(name, path, modules) - {name} for name, path in modules.items()}


def imported_by(importer, path, modules):
    """Return the modules that one file imports, at its top or inside functions, but not for type checkers alone.

    Importing a.b.c also runs a/__init__.py and a/b/__init__.py. The `__init__.py` files of the importer's own packages
    have started before it does, so they count only if it imports them by name.
    """
    found = set()
    for statement in imports(ast.parse(path.read_text(encoding="utf-8"))):
        for target in targets(statement, importer, path.name == "__init__.py", modules):
            parts = target.split(".")
            parents = {".".join(parts[:n]) for n in range(1, len(parts))}
            found |= {target} | {p for p in parents if not f"{importer}.".startswith(f"{p}.")}
    return found & modules.keys()


def imports(node):
    """Yield the import statements below a node, except those under `if TYPE_CHECKING:`, which never run."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    only_for_types = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    for child in node.orelse if only_for_types else ast.iter_child_nodes(node):
        yield from imports(child)


def targets(statement, importer, is_package, modules):
    """Yield the modules that a statement names: ``from a.b import c`` names a.b.c if it is a module, or else a.b."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    base = statement.module or ""
    if statement.level:
        parts = importer.split(".") + [""] * is_package
        base = ".".join([*parts[: -statement.level], *([base] if base else [])])
    for alias in statement.names:
        name = f"{base}.{alias.name}"
        yield name if name in modules else base


def circles(graph):
    """Return the groups of modules that all import each other, directly or through others."""
    below = {module: reachable(module, graph) for module in graph}
    groups = {frozenset([m, *(n for n in below[m] if m in below[n])]) for m in graph if m in below[m]}
    return sorted(map(sorted, groups))


def reachable(module, graph):
    """Return all modules that a module imports, directly or through others; also itself if it is on a circle."""
    found, pending = set(), [module]
    while pending:
        new = graph[pending.pop()] - found
        found |= new
        pending += new
    return found


def described(circle, graph):
    """Return lines that say which modules of a circle import which."""
    lines = [f"    {module} imports {', '.join(sorted(graph[module] & set(circle)))}" for module in circle]
    return "\n".join([f"a circle of {len(circle)} files:", *lines])


def test_no_file_imports_itself_through_others():
    graph = import_graph(ROOT, PACKAGES)
    assert len(graph) > 100
    found = circles(graph)
    assert not found, "\n".join(described(circle, graph) for circle in found)


PLANTED = {
    "plant/__init__.py": "",
    "plant/root.py": "from plant.stem import branch\n",
    "plant/stem/__init__.py": "from plant.stem.branch import grow\n",
    "plant/stem/branch.py": "def grow():\n    from .. import leaf\n",
    "plant/leaf.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import plant.root\n",
    "soil/__init__.py": "import soil.water\n",
    "soil/water.py": "from soil import air\n",
    "soil/air.py": "",
}


@pytest.mark.parametrize(
    "path, line, expected",
    [
        ("plant/leaf.py", "", []),
        ("plant/leaf.py", "import plant.root", ["plant.leaf", "plant.root", "plant.stem", "plant.stem.branch"]),
        ("plant/leaf.py", "def f():\n    import plant.stem", ["plant.leaf", "plant.stem", "plant.stem.branch"]),
        ("soil/air.py", "from soil import water", ["soil.air", "soil.water"]),
        ("soil/air.py", "from soil import nothing_of_this_name", ["soil", "soil.air", "soil.water"]),
        ("plant/leaf.py", "import soil.air", []),
    ],
)  # fmt: skip
def test_a_planted_circle_is_found_with_its_files(path, line, expected, tmp_path):
    for name, text in PLANTED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + line * (name == path) + "\n")
    graph = import_graph(tmp_path, ["plant", "soil"])
    assert circles(graph) == ([expected] if expected else [])
    for circle in circles(graph):
        assert all(f"    {module} imports " in described(circle, graph) for module in expected)


# ---- lengths ---------------------------------------------------------------------------------------------------------


def test_the_engine_can_be_read_in_an_afternoon():
    files = sorted((ROOT / "tensorlib" / "engine").glob("*.py"))
    lengths = {path.name: code_lines(path) for path in files}
    listed = ", ".join(f"{name} {lines}" for name, lines in lengths.items())
    reason = "the engine promises to be readable in an afternoon; move what is not part of it to another room"
    assert sum(lengths.values()) <= 1150, f"{reason}: {sum(lengths.values())} lines of code and docstrings: {listed}"
    assert max(lengths.values()) <= 350, f"{reason}: a file holds one idea, in at most 350 lines: {listed}"


def code_lines(path):
    """Return the number of lines of code and docstrings, without blank lines and comments."""
    lines = map(str.strip, path.read_text(encoding="utf-8").splitlines())
    return sum(line != "" and not line.startswith("#") for line in lines)


LONG_FUNCTIONS = {  # by file and name, and why each may be longer
    "tensorlib/engine/function.py Function.apply": "the fast path of every op; a call costs 3 % of a small op",
}
LONG_FILES = {
    "tensorlib/ops/arithmetic.py": "13 short ops; half of its lines are docstrings with derivations",
    "tensorlib/ops/indexing.py": "five ops that share the checks of indices; a third of its lines are docstrings",
    "tensorlib/ops/recurrent.py": "three ops that share their steps; half of its lines are docstrings with derivations",
    "tensorlib/ops/shape.py": "15 short ops; half of its lines are docstrings with derivations",
    "tensorlib/tensor.py": "one line for each method and operator of Tensor: a list, not an idea",
    "models/text/sampling.py": "nine short samplers; a third of its lines are docstrings with formulas and examples",
    "models/text/corpora/phrasebook_words.py": "the words of the phrasebook: data",
    "models/text/corpora/phrasebook_frames.py": "the sentences of the phrasebook: mostly data",
}


def lengths_of_functions():
    """Return the number of lines of each function, without its docstring, by file and qualified name."""
    found = {}
    for path in modules_in(ROOT, PACKAGES).values():
        name = path.relative_to(ROOT).as_posix()
        for where, node in functions(ast.parse(path.read_text(encoding="utf-8"))):
            found[f"{name} {where}"] = spanned(node) - (spanned(node.body[0]) if ast.get_docstring(node) else 0)
    return found


def functions(node, prefix=""):
    """Yield the qualified name of each function below a node, nested functions included, and the function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from functions(child, f"{prefix}{child.name}." if named else prefix)


def spanned(node):
    return node.end_lineno - node.lineno + 1


def test_a_long_function_or_file_has_a_reason():
    paths = modules_in(ROOT, PACKAGES).values()
    files = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    check_lengths("function", lengths_of_functions(), 40, LONG_FUNCTIONS)
    check_lengths("file", files, 350, LONG_FILES)


def check_lengths(kind, lengths, most, reasons):
    long = {name: lines for name, lines in lengths.items() if lines > most}
    new = [f"{name}: {long[name]}" for name in sorted(long.keys() - reasons.keys())]
    assert not new, f"more than {most} lines; split each {kind} that holds two ideas, or list it with a reason: {new}"
    outdated = sorted(reasons.keys() - long.keys())
    assert not outdated, f"no {kind} of more than {most} lines, so it needs no reason here: {outdated}"
