"""Module: something with parameters that can be called. Attributes are the registry; there is no second one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Self

import numpy as np

import tensorlib as tl
from nn.checks import shape_mismatches
from nn.hooks import Hooks, call_with_hooks
from tensorlib.engine.recording import STATE
from tensorlib.messages import kind_of, unknown_name

__all__ = ["Module", "ModuleList", "Parameter", "Sequential"]


_OTHER_NAMES = {  # what PyTorch calls it, and what to write here
    "cuda": "model.to('cupy')", "cpu": "model.to('numpy')", "half": "model.astype('float16')",
    "float": "model.astype('float32')", "double": "model.astype('float64')", "buffers": "model.parameters()",
    "children": "[module for name, module in model.named_children()]", "append": "nn.ModuleList",
    "register_parameter": "model.name = nn.Parameter(x)", "register_buffer": "model.name = x, an array or Tensor",
    "add_module": "model.name = module", "apply": "for module in model.modules()",
    "requires_grad_": "p.requires_grad = False for each of model.parameters()",
}  # fmt: skip


class Parameter(tl.Tensor):
    """A leaf Tensor that requires a gradient. As an attribute of a Module it is one of the module's parameters."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, backend: Any = None) -> None:
        super().__init__(data, requires_grad=True, dtype=dtype, backend=backend)


class Module:
    """Base class of everything with parameters. Subclass it, set attributes, write ``forward``.

    ::

        class Affine(nn.Module):
            def __init__(self, n, m):
                self.weight = nn.Parameter(np.zeros((n, m), "float32"))

            def forward(self, x):
                return x @ self.weight

    Every attribute that is a Parameter or a Module counts, in the order of assignment. What is recorded while a module
    is called bears its path from the root, such as "decoder.layers.1.cross_attention".
    """

    training: bool = True
    _path: str = ""  # from the root module that this one was last attached to
    _root: weakref.ref[Module] | None = None  # that root; weak, so that no cycle holds memory
    _hooks: Hooks | None = None
    _pre_hooks: Hooks | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output."""
        raise NotImplementedError(f"{type(self).__name__}: forward is missing")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what ``forward`` returns; what is recorded meanwhile bears this module's path."""
        # `module_scope` says the same; written out it costs half of it, at each call of each module.
        token = STATE.set(STATE.get()._replace(path=self._path))
        try:
            if self._hooks or self._pre_hooks:
                return call_with_hooks(self, args, kwargs)
            return self.forward(*args, **kwargs)
        finally:
            STATE.reset(token)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> tl.HookHandle:
        """Have ``hook(module, args, output)`` called after ``forward``; what it returns replaces the output.

        None changes nothing. Hooks run in the order of registration, each with what the one before made of the
        output. ``handle.remove()`` takes the hook out again, and so does the end of ``with``::

            with model.encoder.register_forward_hook(lambda module, args, output: seen.append(output)):
                model(source, target)
        """
        return self._register("_hooks", hook)

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> tl.HookHandle:
        """Have ``hook(module, args)`` called before ``forward``; a tuple that it returns replaces the arguments.

        A single value stands for a tuple of one, None changes nothing. Arguments by keyword pass the hooks by.
        """
        return self._register("_pre_hooks", hook)

    def _register(self, kind: str, hook: Any) -> tl.HookHandle:
        if not callable(hook):
            raise TypeError(f"{type(self).__name__}: a hook must be callable, got {kind_of(hook)}")
        if getattr(self, kind) is None:
            object.__setattr__(self, kind, {})
        return tl.HookHandle(getattr(self, kind), hook)

    def label(self) -> str:
        """Return how messages call this module: its class, and its path if it has one: "Linear encoder.0.hidden"."""
        return f"{type(self).__name__} {self._path}".rstrip()

    def __getattr__(self, name: str) -> Any:
        # Only for names that there are not. A property that raised AttributeError speaks for itself.
        if name.startswith("_") or hasattr(type(self), name):
            return object.__getattribute__(self, name)
        known = {*dir(type(self)), *vars(self)}
        raise AttributeError(unknown_name(type(self).__name__, name, known, _OTHER_NAMES))

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_hidden(name, value)
        held = vars(self).get(name)
        if isinstance(held, Module | Parameter) and value is not None:
            kind = Module if isinstance(held, Module) else Parameter
            if not isinstance(value, kind):
                raise TypeError(
                    f"{type(self).__name__}.{name}: holds a {kind.__name__} and would lose it to a {kind_of(value)}; "
                    + ("use nn.Parameter(x), or .replace(array)" if kind is Parameter else "del it first")
                )
        object.__setattr__(self, name, value)
        if isinstance(value, Module | Parameter):
            self._spread_names()

    def _refuse_hidden(self, name: str, value: Any, every: bool = True) -> None:
        """Raise TypeError if `value` is a plain container that hides modules or parameters (as its first, or any)."""
        if isinstance(value, list | tuple | dict | set):
            items = value.values() if isinstance(value, dict) else value
            for item in items if every else islice(items, 1):
                if isinstance(item, Module | Parameter):
                    raise TypeError(
                        f"{type(self).__name__}.{name}: modules and parameters in a plain {type(value).__name__} "
                        "would not be found by parameters(); use nn.ModuleList"
                    )
                self._refuse_hidden(name, item, every)

    def _spread_names(self) -> None:
        """Tell every module and parameter its path from the root; what is held twice keeps its first."""
        root = None if self._root is None else self._root()
        path = "" if root else self._path
        root = root or self
        for below, module in root.named_modules(path):
            object.__setattr__(module, "_path", below)
            object.__setattr__(module, "_root", weakref.ref(root))
        for below, parameter in root.named_parameters(path):
            parameter.name = below

    def __getstate__(self) -> dict[str, Any]:
        # What copy and pickle take. A copied module belongs to the copied root, not to the old one.
        return {name: value for name, value in vars(self).items() if name != "_root"}

    # ---- what is inside ----

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for every module that is an attribute of this one."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module and all below it, each once."""
        stack, seen = [(prefix, self)], set()
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter), a parameter that is held twice (tied) once, under its first name."""
        seen = set()
        for path, module in self.named_modules(prefix):
            for name, value in vars(module).items():
                module._refuse_hidden(name, value, every=False)  # it may have been put into the list later
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def parameter_count(self) -> int:
        """Return the number of trainable numbers."""
        return sum(parameter.size for parameter in self.parameters())

    # ---- values ----

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter, on the host, by name."""
        return {name: np.array(parameter.numpy()) for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Replace parameters by the arrays (or Tensors) in `state`, keeping dtype and backend of each.

        Raises ValueError with *all* names that are missing, unexpected or of another shape, and then changes nothing.
        With strict=False, missing and unexpected names are passed over; shapes must agree all the same.
        """
        if not isinstance(state, Mapping):
            remedy = "; tl.load(path) reads a file" if isinstance(state, str) else "; give its state_dict()"
            raise TypeError(f"load_state_dict: needs a mapping of names to arrays, got {kind_of(state)}{remedy}")
        own = dict(self.named_parameters())
        arrays = {k: v.numpy() if isinstance(v, tl.Tensor) else np.asarray(v) for k, v in state.items()}
        shapes = {name: p.shape for name, p in own.items()}
        problems = shape_mismatches(shapes, {name: array.shape for name, array in arrays.items()}, strict)
        if problems:
            raise ValueError(f"load_state_dict: {type(self).__name__} does not fit: {'; '.join(problems)}")
        fitting = [(own[name], array) for name, array in arrays.items() if name in own]
        converted = [p.backend.asarray(array, p.dtype) for p, array in fitting]  # all, before any is replaced
        for (p, _), array in zip(fitting, converted, strict=True):
            p.replace(array)

    def to(self, backend: Any) -> Self:
        """Move every parameter and every other Tensor held by a module to a backend, in place; return self."""
        wanted = tl.get_backend(backend)
        return self._convert(lambda x: wanted.asarray(x.numpy()) if x.backend is not wanted else x.data)

    def astype(self, dtype: Any) -> Self:
        """Convert every parameter and other floating Tensor to `dtype`, in place; return self."""
        if np.dtype(dtype).kind != "f":
            raise TypeError(f"astype: parameters need a floating dtype, got {np.dtype(dtype)}")
        return self._convert(lambda x: x.data.astype(dtype, copy=False) if x.dtype.kind == "f" else x.data)

    def _convert(self, convert: Any) -> Self:
        for module in self.modules():
            for value in vars(module).values():
                if isinstance(value, tl.Tensor):
                    array = convert(value)
                    if array is not value.data:
                        value.replace(array)
                        value.grad = None  # it was on the other side
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Self:
        """Switch to training (dropout acts); return self."""
        if not isinstance(mode, bool):
            raise TypeError(f"train: mode must be True or False, got {kind_of(mode)}; this trains nothing by itself")
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Self:
        """Switch to evaluation (dropout does nothing); return self."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[Self]:
        """Be in evaluation mode inside: ``with model.evaluating(): ...``. After it every module is in its own again."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            yield self
        finally:
            for module, mode in modes:
                object.__setattr__(module, "training", mode)

    # ---- as text ----

    def extra_repr(self) -> str:
        """Return what the repr shows in this module's own brackets."""
        return ""

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"{head}  # {self.parameter_count():,} parameters"]
        for name, child in self.named_children():
            first, *rest = repr(child).split("\n")
            lines += [f"  {name}: {first}", *[f"  {line}" for line in rest]]
        return "\n".join(lines)


class ModuleList(Module):
    """A list of modules, whose names are their numbers."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        """Add a module at the end; return self."""
        if not isinstance(module, Module):
            remedy = ""
            if isinstance(module, list | tuple):
                remedy = f"; write {type(self).__name__}(*modules)"
            elif isinstance(module, type):
                remedy = "; call it"
            raise TypeError(f"{type(self).__name__}: holds modules, got {kind_of(module)}{remedy}")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.named_children())

    def __iter__(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def __getitem__(self, index: int) -> Module:
        held = list(self)
        try:
            return held[index]
        except IndexError:
            message = f"{type(self).__name__}: index {index} is out of range, for it holds {len(held)} modules"
            raise IndexError(message) from None


class Sequential(ModuleList):
    """Modules called one after the other: ``Sequential(a, b)(x)`` is ``b(a(x))``."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        """Return the last module's output."""
        for module in self:
            x = module(x)
        return x
