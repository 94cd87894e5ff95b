"""The program of a `Derivation`, which needs NumPy alone: values that were given, sources of ops, and both passes."""

from __future__ import annotations

import base64
import builtins
import inspect
import json
import keyword
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.engine.value import Value
from tensorlib.graphs import script_runtime
from tensorlib.graphs.sources import Sources
from tensorlib.graphs.steps import Held, Step

if TYPE_CHECKING:
    from tensorlib.graphs.derivation import Derivation

__all__: list[str] = []


def script_of(derivation: Derivation) -> str:
    """Return the program as text."""
    return _Script(derivation).text()


class _Script:
    """Writes a program. `identifiers` gives each symbol a name that nothing else in the program has."""

    def __init__(self, derivation: Derivation) -> None:
        self.derivation = derivation
        self.sources = Sources(provided=_STAND_INS, used=_RUNTIME_NAMES | {"base64", "hashlib", *_LOCALS})
        self.sources.owners |= {"np": ("import numpy", "np"), "Any": ("from typing import Any", "Any")}
        self.constants: dict[str, str] = {}  # arrays among the attributes: name -> expression
        self.constant_of: dict[int, str] = {}
        self.classes = {step.op: self.sources.need_class(step.op) for step in derivation.steps}
        for module, names in _USED_BY_RUNTIME.items():
            for name in names:
                self.sources.need(module, name)
        self._refuse_hooks()
        self.calls = [self._call(step) for step in derivation.steps]  # these find the last sources that are needed
        self.identifiers = self._identifiers()

    def text(self) -> str:
        # Imports come first and each definition after those that it needs, so all lines run in the order of the file.
        definitions, module = [], ""
        for definition in self.sources.ordered():
            if definition.module != module:
                module = definition.module
                definitions.append(f"# ---- {module} {'-' * (100 - len(module))}")
            definitions.append(definition.text)
        imports = sorted({*_RUNTIME_IMPORTS, *self.sources.imports.values()})
        return "\n\n\n".join(
            [
                f'"""{self._docstring()}"""\n\nfrom __future__ import annotations',
                "\n".join(imports),
                _RUNTIME,
                *definitions,
                f"{_ruler('what was given')}\n\n{self._given()}",
                f"{_ruler('the computation')}\n\n{self._run()}",
                'if __name__ == "__main__":\n    values, gradients = run()\n'
                "    report({RESULT: values[RESULT]}, {x: gradients[x] for x in INPUTS if x in gradients}, NAMES)\n"
                '    print("the value has", "the" if checksum(values[RESULT]) == EXPECTED else "NOT the", '
                '"bits that tensorlib computed")\n',
            ]
        )

    def _docstring(self) -> str:
        return (
            f"The value and the gradients of {self.derivation.output}: {self.derivation.headline()}.\n\n"
            "Written by tensorlib.derive; it needs NumPy alone. `run` returns (values, gradients). Each line of the\n"
            "forward pass applies an op; the backward pass runs the ops from the last to the first, each with the sum\n"
            "of the gradients that its results got. Sources are those of tensorlib, for arrays of NumPy.\n"
            f"NumPy was {np.__version__}.\n"
        )

    def _refuse_hooks(self) -> None:
        hooked = [s.name for s in self.derivation.steps if s.hooked] + [
            g.symbol for g in self.derivation.given if g.hooked
        ]
        if hooked:
            raise ValueError(
                f"derive: a script has gradients that ops alone compute, but a hook may change that of {hooked[0]}; "
                "remove the hook before the forward pass"
            )

    def _identifiers(self) -> dict[str, str]:
        """Return a name for each symbol: itself unless the program, Python or a built-in function uses it."""
        used = {*_RUNTIME_NAMES, *self.sources.owners, *self.sources.imports, *self.constants, *vars(builtins)}
        used |= {*keyword.kwlist, *keyword.softkwlist, *_LOCALS}
        used |= {f"n{step.number}" for step in self.derivation.steps}
        symbols = [g.symbol for g in self.derivation.given] + [y for s in self.derivation.steps for y in s.outputs]
        found: dict[str, str] = {}
        for symbol in symbols:
            name = symbol
            while name in used:
                name += "_"
            used.add(name)
            found[symbol] = name
        return found

    # ---- what was given ----------------------------------------------------------------------------------------------

    def _given(self) -> str:
        lines = [f"{name} = {expression}" for name, expression in self.constants.items()]
        for given in self.derivation.given:
            comment = f"  # {given.name[:60]!a}" if given.name and given.name != given.symbol else ""
            lines.append(f"{self.identifiers[given.symbol]} = {_array(given.held)}{comment}")
        seed = "None" if self.derivation.seed is None else _array(self.derivation.seed)
        inputs = [given.symbol for given in self.derivation.given if given.needs_gradient]
        titles = {g.symbol: g.name for g in self.derivation.given if g.needs_gradient and g.name not in ("", g.symbol)}
        return "\n".join(
            [
                *lines,
                f"SEED = {seed}  # the gradient of the result; None: ones",
                f'RESULT = "{self.derivation.output}"',
                f"INPUTS = {_strings(inputs)}",
                f"NAMES = {_named(titles)}  # as the user or a module named them",
                f'EXPECTED = "{script_runtime.checksum(self.derivation.value)}"  # the checksum of tensorlib\'s result',
            ]
        )

    # ---- the computation ---------------------------------------------------------------------------------------------

    def _run(self) -> str:
        steps, output, names = self.derivation.steps, self.derivation.output, self.identifiers
        forward = [line for step, call in zip(steps, self.calls, strict=True) for line in self._forward(step, call)]
        values = "\n".join([f'        "{y}": {names[y]},' for step in steps for y in step.outputs])
        seed = f"np.ones({names[output]}.shape, {names[output]}.dtype) if SEED is None else SEED"
        backward = [
            f"pull(n{step.number}, sums, owned, {_strings(step.outputs)}, {_strings(_receivers(step))})  # {step.name}"
            for step in reversed(steps)
        ]
        if not steps:
            values = f'        "{output}": {names[output]},'
        body = [
            '    """Return the value of every op and the gradients of all values and inputs, by name."""',
            *[f"    {line}" for line in forward],
            f"    values = {{\n{values}\n    }}",
            f'    sums, owned = {{"{output}": {seed}}}, set()',
            *[f"    {line}" for line in backward],
            '    STATE.precision = "float32"',
            "    return values, {name: as_array(dx) for name, dx in sums.items()}",
        ]
        return "def run():\n" + "\n".join(body)

    def _call(self, step: Step) -> tuple[str, str]:
        attributes = "".join([f", {name}={self._literal(value)}" for name, value in step.attributes.items()])
        return f"computed({self.classes[step.op]}, {step.needs}", attributes

    def _forward(self, step: Step, call: tuple[str, str]) -> list[str]:
        inputs = [self.identifiers[x] if isinstance(x, str) else self._literal(x) for x in step.inputs]
        outputs = ", ".join([self.identifiers[y] for y in step.outputs])
        shapes = " ".join([str(shape) for shape, _ in step.output_types])
        lines = [] if step.precision == "float32" else [f'STATE.precision = "{step.precision}"']
        lines.append(f"n{step.number}, {outputs} = {call[0]}, {', '.join(inputs)}{call[1]})  # {shapes}")
        lines += ['STATE.precision = "float32"'] if step.precision != "float32" else []
        for position in step.copied:
            before, after = f"n{step.number}.saved[:{position}]", f"n{step.number}.saved[{position + 1}:]"
            copy = f"n{step.number}.saved[{position}].copy()"
            lines.append(
                f"n{step.number}.saved = (*{before}, {copy}, *{after})  # as the engine copies a caller's array"
            )
        return lines

    # ---- literals ----------------------------------------------------------------------------------------------------

    def _literal(self, value: Any) -> str:
        """Return an expression whose value equals `value`: a number, an array, a dtype, or containers of such."""
        if isinstance(value, Value):
            value = value.array
        if isinstance(value, float) and not isinstance(value, np.generic):
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        if value is None or value is Ellipsis or type(value) in (bool, int):
            return "..." if value is Ellipsis else repr(value)
        if isinstance(value, str):
            return ascii(value)
        if isinstance(value, slice):
            return f"slice({self._literal(value.start)}, {self._literal(value.stop)}, {self._literal(value.step)})"
        if isinstance(value, np.dtype):
            return f"np.dtype({value.str!a})"
        if isinstance(value, type) and issubclass(value, np.generic):
            return f"np.{value.__name__}"
        if isinstance(value, type) and value in (bool, int, float):
            return value.__name__
        if isinstance(value, list | tuple | dict):
            return self._container(value)
        if isinstance(value, np.generic) or hasattr(value, "nbytes"):
            return self._constant(value)
        raise ValueError(
            f"derive: a script can hold numbers, arrays and containers of them, not a {type(value).__name__}"
        )

    def _container(self, value: Any) -> str:
        if isinstance(value, dict):
            return f"{{{', '.join([f'{self._literal(k)}: {self._literal(v)}' for k, v in value.items()])}}}"
        parts = [self._literal(part) for part in value]
        if hasattr(value, "_fields"):  # a NamedTuple of an op, such as AttentionPattern
            fields = ", ".join([f"{name}={part}" for name, part in zip(value._fields, parts, strict=True)])
            return f"{self.sources.need_class(type(value))}({fields})"
        if isinstance(value, list):
            return f"[{', '.join(parts)}]"
        return f"({', '.join(parts)}{',' * (len(parts) == 1)})"

    def _constant(self, array: Any) -> str:
        if isinstance(array, np.generic):
            return f"{_array(Held.of(np.asarray(array)))}[()]"
        if id(array) not in self.constant_of:
            name = f"ATTRIBUTE_{len(self.constants) + 1}"
            self.constants[name], self.constant_of[id(array)] = _array(Held.of(array)), name
        return self.constant_of[id(array)]


# ---- the runtime, and texts ------------------------------------------------------------------------------------------

_RUNTIME = inspect.getsource(script_runtime).partition("# ---- copied from here")[2].partition("\n")[2].strip("\n")
_RUNTIME_NAMES = {
    name for name, value in vars(script_runtime).items() if getattr(value, "__module__", "") == script_runtime.__name__
} | {"STATE"}
_STAND_INS = {"Backend", "Function", "STATE", "as_array", "backend_of", "is_tensor", "namespace_of"}
_RUNTIME_IMPORTS = ("import base64", "import hashlib", "import numpy as np", "from typing import Any")
_USED_BY_RUNTIME = {"tensorlib.arrays.philox": ["philox_bits"], "tensorlib.arrays.shapes": ["sum_to"]}
_LOCALS = (
    "run",
    "values",
    "sums",
    "owned",
    "gradients",
    "name",
    "array",
    "SEED",
    "RESULT",
    "INPUTS",
    "NAMES",
    "EXPECTED",
)


def _ruler(title: str) -> str:
    return f"# ---- {title} {'-' * (100 - len(title))}"


def _receivers(step: Step) -> tuple[Any, ...]:
    """Return the symbols of the inputs whose gradients are wanted, None for each other input."""
    return tuple([x if need else None for x, need in zip(step.inputs, step.needs, strict=True)])


def _strings(symbols: Any) -> str:
    """Return a tuple of symbols, which are plain identifiers, and of None."""
    return f"({''.join(['None, ' if s is None else json.dumps(s) + ', ' for s in symbols]).rstrip(' ')})"


def _named(names: Mapping[str, str]) -> str:
    return f"{{{', '.join([f'{json.dumps(symbol)}: {name[:200]!a}' for symbol, name in names.items()])}}}"


def _array(held: Held) -> str:
    """Return an expression for an array with exactly these bits and this layout: numbers if it is small."""
    values = held.values
    text = _numbers(values) if values.size <= 64 else None
    if text is None:
        data = base64.encodebytes(values.tobytes()).decode("ascii")
        text = f'stored("{values.dtype.str}", {values.shape}, """\n{data}""")'
    return text if held.strides is None else f"laid_out({text}, {held.strides})"


def _numbers(values: np.ndarray) -> str | None:
    """Return ``np.array([...], "float32")``, or None if that would not have the same bits or shape."""
    if not values.size or not np.isfinite(values).all():
        return None
    short = values.dtype.kind == "f" and values.dtype.itemsize < 8
    shortest = np.vectorize(lambda x: float(str(x)), otypes=[float])(values) if short else values
    again = np.array(shortest.tolist(), values.dtype)
    if again.shape != values.shape or again.tobytes() != values.tobytes():
        return None
    return f'np.array({shortest.tolist()}, "{values.dtype}")'
