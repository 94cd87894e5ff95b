"""Finds the gradient formulas of the engine, and which names in them carry derivatives. Nothing is executed.

A formula is recognized by its form, so that a new op is covered as soon as it exists: the ``backward`` of a Function, a
``*_gradient`` under singledispatch, a kernel registered for one, the helpers that these call, and the forward of an op
that another op's ``backward`` runs (its adjoint). The engine's backward pass is covered as a whole.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENGINE = ("tensorlib/engine/backward.py", "tensorlib/engine/gradients.py")  # every function of these carries gradients
ENGINE_HELPERS = ("tensorlib/engine/value.py",)  # of these, only the functions that ENGINE calls
SHAPES = "tensorlib/arrays/shapes.py"
SCALED_IN_ENGINE = {"_conform", "_seed"}  # the functions of ENGINE through which each gradient passes once


@dataclass
class Formula:
    """A function to mutate, and which of its values carry gradients."""

    path: str
    where: str
    node: ast.FunctionDef
    scaled: bool  # whether it returns gradients
    flows: set[str] = field(default_factory=set)  # parameters that are Tensors under create_graph


@dataclass
class Module:
    """A parsed file: its functions and methods by qualified name, and the origins of the names that it imports."""

    path: str
    source: bytes
    tree: ast.Module
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, path: str, source: bytes) -> Module:
        """Read one file; `path` is relative to the repository."""
        module = cls(path, source, ast.parse(source))
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef):
                formula = registered_for(node)
                module.functions[f"{formula} (kernel)" if formula else node.name] = node
            elif isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef):
                        module.functions[f"{node.name}.{method.name}"] = method
            elif isinstance(node, ast.ImportFrom):
                origin = f"{(node.module or '').replace('.', '/')}.py"
                if not origin.startswith("tensorlib/ops/") and origin not in (SHAPES, *ENGINE_HELPERS):
                    continue  # block sizes and threads change only the speed
                module.imported.update({a.asname or a.name: (origin, a.name) for a in node.names})
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                module.public = {str(e.value) for e in ast.walk(node.value) if isinstance(e, ast.Constant)}
        return module


def registered_for(node: ast.FunctionDef) -> str:
    """Return the name of the formula that a kernel overrides, from ``@softmax_gradient.register(np.ndarray)``."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute):
            return getattr(decorator.func.value, "id", "") if decorator.func.attr == "register" else ""
    return ""


def engine_files(root: Path) -> list[str]:
    """Return the files that hold gradient formulas, relative to `root`."""
    found = [
        *root.glob("tensorlib/ops/*.py"),
        *root.glob("tensorlib/kernels/numpy/*.py"),
        *[root / path for path in (SHAPES, *ENGINE, *ENGINE_HELPERS) if (root / path).exists()],
    ]
    return sorted(p.relative_to(root).as_posix() for p in found if p.name != "__init__.py")


def find_formulas(modules: dict[str, Module], derivatives: Derivatives) -> list[Formula]:
    """Return every gradient formula and, transitively, the helpers and adjoint ops that it calls."""
    found: dict[tuple[str, str], Formula] = {}
    pending: list[Formula] = []

    def add(module: Module, where: str, scaled: bool) -> Formula | None:
        node = module.functions.get(where)
        if node is None:
            return None
        key = (module.path, where)
        if key not in found:
            found[key] = Formula(module.path, where, node, scaled)
            pending.append(found[key])
        return found[key]

    for module in modules.values():
        for where, node in module.functions.items():
            if module.path in ENGINE:
                add(module, where, where in SCALED_IN_ENGINE)
            elif where.endswith((".backward", "_gradient", "_gradient (kernel)")):
                formula = add(module, where, True)
                if formula and where.endswith(".backward"):
                    formula.flows |= {a.arg for a in [*node.args.args[1:], node.args.vararg] if a}
    while pending:
        formula = pending.pop()
        if formula.where.endswith(".forward"):
            continue  # its helpers check arguments and keep exp from overflowing
        module = modules[formula.path]
        flowing = derivatives.names(formula)
        for call in (n for n in ast.walk(formula.node) if isinstance(n, ast.Call)):
            home, name = called(module, call)
            if home not in modules or (formula.path in ENGINE and home not in ENGINE_HELPERS):
                continue
            if home.startswith("tensorlib/ops/") and name.partition(".")[0] in modules[home].public:
                continue  # another public op has its own formula
            callee = add(modules[home], name, scaled=name.endswith(".forward"))
            if callee is None or name.endswith(".forward"):
                continue
            for parameter, argument in zip(callee.node.args.args, call.args, strict=False):
                if parameter.arg not in callee.flows and derivatives.any_use(argument, flowing):
                    callee.flows.add(parameter.arg)
                    pending.append(callee)
    return sorted(found.values(), key=lambda f: (f.path, f.node.lineno))


def called(module: Module, call: ast.Call) -> tuple[str, str]:
    """Return the file and name of the function called: of ``helper``, or of ``Op.forward`` for ``Op.run(...)``."""
    function = call.func
    run = isinstance(function, ast.Attribute) and function.attr == "run" and isinstance(function.value, ast.Name)
    name = function.value.id if run else getattr(function, "id", "")  # type: ignore[attr-defined]
    home, name = module.imported.get(name, (module.path, name))
    return home, f"{name}.forward" if run else name


# ---- which names carry derivatives -------------------------------------------------------------------------------

CONSTANT_ATTRIBUTES = {"shape", "dtype", "ndim", "size"}
CONSTANT_FUNCTIONS = {
    "namespace_of", "backend_of", "hasattr", "isinstance", "len", "range", "type", "sign", "isfinite", "isinf", "isnan",
    "zeros_like", "ones_like", "argsort", "argmax", "argmin", "floor", "ceil", "nonzero", "flatnonzero",
}  # fmt: skip


class Derivatives:
    """Knows which names in a formula are Tensors with a history under create_graph."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.constant = set(CONSTANT_FUNCTIONS)
        for module in modules:
            for where, node in module.functions.items():
                if "." not in where and not self.returned(Formula(module.path, where, node, False)):
                    self.constant.add(where)

    def returned(self, helper: Formula) -> bool:
        """Return whether a helper's result has a derivative if its arguments do; masks, shares and axes have none."""
        helper.flows = {a.arg for a in helper.node.args.args}
        names = self.names(helper)
        results = [n.value for n in ast.walk(helper.node) if isinstance(n, ast.Return) and n.value is not None]
        return any(self.any_use(result, names) for result in results)

    def uses(self, node: ast.AST, names: set[str]) -> Iterator[ast.Name]:
        """Yield the uses of `names` below `node` that carry a derivative: not x.shape, not x > 0."""
        if isinstance(node, ast.Name):
            if node.id in names and isinstance(node.ctx, ast.Load):
                yield node
            return
        if isinstance(node, ast.Compare) or (isinstance(node, ast.Attribute) and node.attr in CONSTANT_ATTRIBUTES):
            return
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv):
            return
        if isinstance(node, ast.Call) and called_name(node) in self.constant:
            return
        children: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.IfExp):
            children = (node.body, node.orelse)
        elif isinstance(node, ast.Subscript):
            children = (node.value,)
        for child in children:
            yield from self.uses(child, names)

    def any_use(self, node: ast.AST, names: set[str]) -> bool:
        """Return whether there is a use of `names` below `node` that carries a derivative."""
        return next(self.uses(node, names), None) is not None

    def names(self, formula: Formula) -> set[str]:
        """Return the parameters, the saved values and everything that is computed from them."""
        if formula.where.endswith((".forward", "(kernel)")):
            return set()  # raw arrays only
        names = set(formula.flows)
        given: list[tuple[list[ast.expr], ast.expr]] = []  # targets of assignments and loops, and the value assigned
        for node in ast.walk(formula.node):
            if isinstance(node, ast.Assign):
                given.append((node.targets, node.value))
            elif isinstance(node, ast.For | ast.comprehension):
                given.append(([node.target], node.iter))
        before = -1
        while len(names) != before:
            before = len(names)
            for assigned, value in given:
                if "self.saved" in ast.unparse(value) or self.any_use(value, names):
                    names |= targets(assigned)
        return names

    def leading_on(self, formula: Formula, names: set[str]) -> set[str]:
        """Return the names that reach the result with their derivative, not only through comparisons."""
        assigned = [n for n in ast.walk(formula.node) if isinstance(n, ast.Assign) and targets(n.targets)]
        others: list[Any] = [
            n for n in ast.walk(formula.node)
            if isinstance(n, ast.Return | ast.Expr | ast.AugAssign | ast.For | ast.Assign) and n not in assigned
        ]  # fmt: skip
        ends = [n.iter if isinstance(n, ast.For) else n.value for n in others]
        reaching = {use.id for end in ends if end is not None for use in self.uses(end, names)}
        before = -1
        while len(reaching) != before:
            before = len(reaching)
            for node in assigned:
                if targets(node.targets) & reaching:
                    reaching |= {use.id for use in self.uses(node.value, names)}
        return reaching


def called_name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def targets(assigned: Iterable[ast.expr]) -> set[str]:
    """Return the names that the targets of an assignment bind."""
    return {n.id for e in assigned for n in ast.walk(e) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
