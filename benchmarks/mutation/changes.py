"""Small changes to a formula, each of which some test should notice.

A mutant is a range of source bytes and the text that replaces it. The kinds are: gradients scaled by 1.001; sums, means
and reshapes dropped; a saved value, or a value computed from it, taken for a constant (detached, which only a second
derivative notices); axes, signs, operators, comparisons, constants, branches and saved values exchanged; and statements
left out.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mutation.formulas import ENGINE, Derivatives, Formula, Module, called_name, find_formulas, targets


@dataclass(frozen=True)
class Mutant:
    """One change to one formula: bytes `start` to `end` of the file at `path` become `text`."""

    path: str
    where: str  # "Softmax.backward", "softmax_gradient"
    kind: str
    change: str  # "dy * y -> dy / y"
    lines: tuple[int, int]  # of the statement: a test that executes none of them cannot notice
    start: int
    end: int
    text: str
    digest: str  # of the formula's source: when the formula changes, earlier results no longer hold

    @property
    def key(self) -> str:
        """A name that does not change when other parts of the file do."""
        return f"{self.path} {self.where} {self.kind}: {self.change}"

    def apply(self, source: bytes) -> bytes:
        """Return the source of the whole file with this change."""
        return source[: self.start] + self.text.encode() + source[self.end :]


# ---- the changes -------------------------------------------------------------------------------------------------

Change = tuple[ast.AST, str, str]  # the node to replace, the kind of change, the new text

DROPPED = {  # calls that are replaced by their receiver, or by their first argument
    "abs", "as_array", "astype", "broadcast_to", "conj", "copy", "cumprod", "cumsum", "expand_dims", "flip",
    "mean", "moveaxis", "product", "reshape", "roll", "rows", "sqrt", "squeeze", "sum", "sum_to", "swapaxes",
    "transpose", "tril", "triu", "with_kept_axes", "without_axes",
}  # fmt: skip
EXCHANGED = {
    "sin": "cos", "cos": "sin", "sinh": "cosh", "cosh": "sinh", "tanh": "sin", "exp": "square", "log": "sqrt",
    "zeros": "ones", "ones": "zeros", "zeros_like": "ones_like", "ones_like": "zeros_like", "maximum": "minimum",
    "minimum": "maximum", "max": "min", "min": "max", "tril": "triu", "triu": "tril", "any": "all", "all": "any",
}  # fmt: skip
OPERATORS: dict[type, tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.Pow: ("**", "*"),
    ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "//"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
COMPARISONS: dict[type, str] = {
    ast.Gt: ">=", ast.GtE: ">", ast.Lt: "<=", ast.LtE: "<", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip


class Changes:
    """Lists the changes to one formula."""

    def __init__(self, formula: Formula, module: Module, gradients: set[str], derivatives: Derivatives) -> None:
        self.formula, self.gradients, self.derivatives = formula, gradients, derivatives
        self.source = module.source
        self.starts = [0]
        for line in module.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def _span(self, node: ast.AST) -> tuple[int, int]:
        """Return the start and end of a node in the file, in bytes, as the columns of `ast` are."""
        start = self.starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _text(self, node: ast.AST) -> str:
        """Return a node's source text, in parentheses if it may need them."""
        start, end = self._span(node)
        text = self.source[start:end].decode()
        simple = isinstance(node, ast.Name | ast.Constant | ast.Call | ast.Attribute | ast.Subscript | ast.Starred)
        return text if simple else f"({text})"

    def all(self) -> Iterator[tuple[ast.stmt, Change]]:
        """Yield each change with the statement that contains it."""
        flowing = self.derivatives.names(self.formula)
        self.reaching = self.derivatives.leading_on(self.formula, flowing)
        self.nullable: set[str] = set()  # names that may be None
        for node in ast.walk(self.formula.node):
            if isinstance(node, ast.Assign):
                values = getattr(node.value, "elts", [node.value])
                if any(isinstance(v, ast.Constant) and v.value is None for v in values):
                    self.nullable |= targets(node.targets)
        for statement, numbers in statements(self.formula.node.body):
            for change in self._of_statement(statement, flowing - numbers):
                yield statement, change

    def _of_statement(self, statement: ast.stmt, flowing: set[str]) -> Iterator[Change]:
        """Yield the changes to one statement, except those to statements nested in it."""
        if isinstance(statement, ast.Raise | ast.Assert) or is_docstring(statement):
            return
        if self.formula.scaled:
            yield from self._scaled(statement)
        if isinstance(statement, ast.Assign) and ast.unparse(statement.value) == "self.saved":
            yield from self._saved_in_another_order(statement)
            return
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            yield statement, "statement left out", "pass"
        if isinstance(statement, ast.AugAssign) and type(statement.op) in OPERATORS:
            old, new = OPERATORS[type(statement.op)]
            text = f"{self._text(statement.target)} {new}= {self._text(statement.value)}"
            yield statement, f"{old}= to {new}=", text
        given = targets(statement.targets) if isinstance(statement, ast.Assign) else set()
        if given and not given & self.reaching:
            flowing = set()  # values that are only compared may be constants
        for expression in own_expressions(statement):
            yield from self._of_expression(expression)
            for use in self.derivatives.uses(expression, flowing):
                yield use, "taken for a constant", self._detached(use.id)
        if isinstance(statement, ast.If | ast.While) and not negated_anyway(statement.test):
            yield statement.test, "condition turned", f"not {self._text(statement.test)}"

    def _detached(self, name: str) -> str:
        """Return an expression that detaches a Tensor and leaves other values unchanged."""
        several = self.formula.node.args.vararg
        if several is not None and several.arg == name:
            return f'[getattr(each, "detach", each.copy)() for each in {name}]'
        return f'getattr({name}, "detach", lambda: {name})()'

    # ---- gradients scaled

    def _scaled(self, statement: ast.stmt) -> Iterator[Change]:
        if isinstance(statement, ast.Return) and statement.value is not None:
            values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
            for value in values:
                yield from self._scaled_value(value)
        elif isinstance(statement, ast.Assign) and targets(statement.targets) & self.nullable:
            yield from self._scaled_value(statement.value)

    def _scaled_value(self, value: ast.expr) -> Iterator[Change]:
        """Scale an expression, unless it may be None or is scaled where it is computed."""
        if isinstance(value, ast.IfExp):
            yield from self._scaled_value(value.body)
            yield from self._scaled_value(value.orelse)
        elif isinstance(value, ast.Call) and getattr(value.func, "id", "") in ("tuple", "list"):
            each = "g if g is None else 1.001 * g"
            yield value, "scaled", f"tuple([{each} for g in {self._text(value)}])"
        elif not self._scaled_elsewhere(value):
            yield value, "scaled", f"(1.001 * {self._text(value)})"

    def _scaled_elsewhere(self, value: ast.expr) -> bool:
        """Return whether the value is None, or comes from an assignment or a formula that is itself scaled."""
        if isinstance(value, ast.Name):
            return value.id in self.nullable
        if isinstance(value, ast.Call):
            return getattr(value.func, "id", "") in self.gradients
        return isinstance(value, ast.Starred) or (isinstance(value, ast.Constant) and value.value is None)

    # ---- saved values in another order

    def _saved_in_another_order(self, statement: ast.Assign) -> Iterator[Change]:
        target = statement.targets[0]
        if not isinstance(target, ast.Tuple):
            return
        for i in range(len(target.elts) - 1):
            names = [ast.unparse(e) for e in target.elts]  # parentheses around *rest would be invalid
            names[i], names[i + 1] = names[i + 1], names[i]
            yield target, "saved values exchanged", ", ".join(names)

    # ---- expressions

    def _of_expression(self, node: ast.AST) -> Iterator[Change]:
        skipped: list[ast.AST] = []
        if isinstance(node, ast.BinOp):
            yield from self._operator(node)
        elif isinstance(node, ast.UnaryOp):
            word = {ast.USub: "sign dropped", ast.Not: "not dropped", ast.Invert: "~ dropped"}.get(type(node.op))
            if word:
                yield node, word, self._text(node.operand)
        elif isinstance(node, ast.BoolOp):
            word = " or " if isinstance(node.op, ast.And) else " and "
            yield node, f"to{word.rstrip()}", f"({word.join(self._text(v) for v in node.values)})"
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            new = COMPARISONS[type(node.ops[0])]
            yield node, f"to {new}", f"({self._text(node.left)} {new} {self._text(node.comparators[0])})"
        elif isinstance(node, ast.IfExp):
            if not negated_anyway(node.test):
                yield node.test, "condition turned", f"(not {self._text(node.test)})"
        elif isinstance(node, ast.Constant):
            yield from self._constant(node)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("self.needs", "needs"):
            yield from self._other_need(node)
            return
        elif isinstance(node, ast.Call):
            yield from self._call(node)
            skipped = [k.value for k in node.keywords if k.arg in ("axis", "strict")]
            if called_name(node) in ("swapaxes", "reshape", "isinstance"):
                skipped += node.args
        elif isinstance(node, ast.Subscript) and self.formula.path in ENGINE:
            skipped = [node.slice]  # edge[1] for edge[0] fails at once and shows nothing about the tests
        for child in ast.iter_child_nodes(node):
            inner = child.value if isinstance(child, ast.keyword) else child
            if inner not in skipped:
                yield from self._of_expression(inner)

    def _operator(self, node: ast.BinOp) -> Iterator[Change]:
        left, right = self._text(node.left), self._text(node.right)
        if isinstance(node.op, ast.MatMult):
            yield node, "operands exchanged", f"({right} @ {left})"
        elif type(node.op) in OPERATORS:
            old, new = OPERATORS[type(node.op)]
            yield node, f"{old} to {new}", f"({left} {new} {right})"

    def _constant(self, node: ast.Constant) -> Iterator[Change]:
        if isinstance(node.value, bool):
            yield node, "constant", str(not node.value)
        elif isinstance(node.value, int):
            yield node, "constant", str(node.value + 1)
        elif isinstance(node.value, float):
            yield node, "constant", repr(node.value * 1.001 or 1.0)

    def _other_need(self, node: ast.Subscript) -> Iterator[Change]:
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
            yield node, "another need", f"{ast.unparse(node.value)}[{0 if node.slice.value else 1}]"

    def _call(self, node: ast.Call) -> Iterator[Change]:
        name, method = called_name(node), isinstance(node.func, ast.Attribute)
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if name in DROPPED:
            of_namespace = owner in ("", "xp", "np", "math") or owner.startswith("namespace_of(")
            yield node, f"{name} dropped", self._text(node.args[0] if of_namespace else node.func.value)  # type: ignore
        if name in EXCHANGED and method:
            start, end = self._span(node)
            at = self._span(node.func)[1] - start
            text = self.source[start:end].decode()
            head = self.source[start : start + at].decode()
            yield node, f"to {EXCHANGED[name]}", head.removesuffix(name) + EXCHANGED[name] + text[len(head) :]
        if name == "where" and len(node.args) == 3:
            condition, x, y = map(self._text, node.args)
            yield node, "branches exchanged", f"{self._text(node.func)}({condition}, {y}, {x})"
        for keyword in node.keywords:
            if keyword.arg == "axis" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is None):
                text = ast.unparse(keyword.value)
                yield keyword.value, "axis", "-1" if text == "0" else "0"


def statements(
    body: list[ast.stmt], numbers: frozenset[str] = frozenset()
) -> Iterator[tuple[ast.stmt, frozenset[str]]]:
    """Yield every statement, also nested ones, with the names that are Python numbers in it."""
    for statement in body:
        yield statement, numbers
        checked = statement.test if isinstance(statement, ast.If) else None
        if isinstance(checked, ast.Call) and ast.unparse(checked).endswith(", int | float)"):
            within = numbers | {ast.unparse(checked.args[0])}
        else:
            within = numbers
        yield from statements(getattr(statement, "body", []), within)
        for name in ("orelse", "finalbody"):
            yield from statements(getattr(statement, name, []), numbers)


def negated_anyway(condition: ast.expr) -> bool:
    """Return whether another change already negates the condition, as == to != does, or dropping a `not`."""
    if isinstance(condition, ast.Compare):
        return isinstance(condition.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn)
    return isinstance(condition, ast.UnaryOp)


def is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def own_expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions that a statement evaluates, without nested statements and annotations."""
    for name, value in ast.iter_fields(statement):
        if name in ("annotation", "body", "orelse", "finalbody", "args", "decorator_list", "type_comment", "op"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.withitem):
                yield part.context_expr
            elif isinstance(part, ast.expr):
                yield part


# ---- all of them -------------------------------------------------------------------------------------------------


def find_mutants(sources: dict[str, bytes]) -> list[Mutant]:
    """Return the mutants of every formula in these files, {path relative to the repository: source}."""
    modules = {path: Module.parse(path, source) for path, source in sources.items()}
    derivatives = Derivatives(modules.values())
    formulas = find_formulas(modules, derivatives)
    gradients = {f.where for f in formulas if f.scaled}
    mutants: list[Mutant] = []
    for formula in formulas:
        changes = Changes(formula, modules[formula.path], gradients, derivatives)
        digest = hashlib.sha256(ast.unparse(formula.node).encode()).hexdigest()[:16]
        times: Counter[str] = Counter()
        for statement, (node, kind, text) in changes.all():
            start, end = changes._span(node)
            old = " ".join(changes.source[start:end].decode().split())
            new = " ".join(text.split())
            change = old if kind in ("statement left out", "taken for a constant") else f"{old} -> {new}"
            times[kind + change] += 1
            if times[kind + change] > 1:
                change += f" (no. {times[kind + change]})"
            last = statement.end_lineno or statement.lineno
            if isinstance(statement, ast.If | ast.While | ast.For | ast.With):
                last = max(statement.lineno, statement.body[0].lineno - 1)
            lines = (statement.lineno, last)
            mutants.append(Mutant(formula.path, formula.where, kind, change, lines, start, end, text, digest))
    return mutants
