"""Module: the base class of everything with parameters. A module's attributes are the only registry of its contents."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike

import tensorlib as tl
from nn.attributes import CheckedAttributes
from nn.hooks import ForwardHook, ForwardPreHook, Hooks, call_with_hooks
from nn.parameter import Buffer, Parameter
from nn.states import IncompatibleKeys, by_first_name, converted_arrays, every_name, host_arrays, shape_mismatches
from tensorlib.arrays.backend import Array
from tensorlib.arrays.capturing import current_capture, note_read
from tensorlib.arrays.conversion import numeric_dtype
from tensorlib.engine.recording import STATE
from tensorlib.messages import kind_of
from tensorlib.ops.arguments import check_flag
from tensorlib.pytorch_words import check_keywords, with_our_keyword

__all__ = ["Module"]

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

    P = ParamSpec("P")
    R = TypeVar("R", covariant=True)

    class HasForward(Protocol[P, R]):
        @property
        def forward(self) -> Callable[P, R]: ...


class Module(CheckedAttributes):
    """Base class of layers and models: subclass it, set attributes, write ``forward``.

    Every attribute that is a Parameter, a Buffer or a Module is registered, in the order of assignment. Nodes recorded
    while a module is called carry its path from the root, such as "decoder.layers.1.cross_attention".

    >>> class Affine(nn.Module):
    ...     def __init__(self, in_width, out_width):
    ...         self.weight = nn.Parameter(np.ones((in_width, out_width), "float32"))
    ...         self.bias = nn.Parameter(np.zeros(out_width, "float32"))
    ...
    ...     def forward(self, x):
    ...         return x @ self.weight + self.bias
    >>> affine = Affine(3, 2)
    >>> affine(tl.Tensor([[1.0, 2.0, 3.0]])).numpy()
    array([[6., 6.]], dtype=float32)
    >>> [(name, parameter.shape) for name, parameter in affine.named_parameters()]
    [('weight', (3, 2)), ('bias', (2,))]
    >>> affine(tl.Tensor([[1.0, 2.0, 3.0]])).sum().backward()
    >>> affine.weight.grad.numpy().tolist()
    [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]

    Raises TypeError for modules, parameters or buffers in a plain list, tuple, dict or set. Raises TypeError if an
    assignment would replace one by a value that is neither None nor of the same kind. Warns if a floating array or a
    constant Tensor is assigned that is no Parameter or Buffer, because `state_dict` would not save it.
    """

    training: bool = True
    _path: str = ""  # from the root of the tree that this module was last attached to
    _root: weakref.ref[Module] | None = None  # that root, by a weak reference, because a cycle would keep memory alive
    _hooks: Hooks | None = None
    _pre_hooks: Hooks | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output."""
        raise NotImplementedError(f"{type(self).__name__}: forward is missing")

    if TYPE_CHECKING:  # a call has the argument types and the result type of forward

        def __call__(self: HasForward[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...  # noqa: D102

    else:

        def __new__(cls, *_, **options):
            """Make a module; raise TypeError for PyTorch's name of an argument, with ours."""
            if options:
                check_keywords(cls, options)
            return object.__new__(cls)

        def __call__(self, *args, **kwargs):
            """Return the result of ``forward`` and the hooks, and record this module's path in the nodes."""
            # This is `with tl.module_scope(self._path)`, written out because that halves its cost for each call.
            state = STATE.get()
            token = STATE.set(state._replace(path=self._path))
            if state.tape is not None and (capture := current_capture()) is not None:
                capture.depends_on(lambda: self.training)  # a captured step is recorded anew for the other mode
            try:
                if self._hooks or self._pre_hooks:
                    return call_with_hooks(self, args, kwargs)
                return self.forward(*args, **kwargs)
            except TypeError as error:
                better = with_our_keyword(error, self.forward)
                if better is error:
                    raise
                raise better from None
            finally:
                STATE.reset(token)

    def register_forward_hook(self, hook: ForwardHook) -> tl.HookHandle:
        """Call ``hook(module, args, output)`` after ``forward``; a result other than None replaces the output.

        Hooks run in the order of registration, each with the output that the previous one returned. A hook is removed
        by ``handle.remove()`` or at the end of a ``with`` block:

        >>> linear, outputs = nn.Linear(2, 3), []
        >>> with linear.register_forward_hook(lambda module, args, output: outputs.append(output)):
        ...     y = linear(tl.zeros((4, 2)))
        >>> outputs[0] is y
        True
        """
        return self._register("_hooks", hook)

    def register_forward_pre_hook(self, hook: ForwardPreHook) -> tl.HookHandle:
        """Call ``hook(module, args)`` before ``forward``; a tuple that it returns replaces the arguments.

        If it returns any other value except None, that value becomes the only argument. Keyword arguments are not
        passed to the hook and do not change.
        """
        return self._register("_pre_hooks", hook)

    def _register(self, kind: str, hook: Callable[..., Any]) -> tl.HookHandle:
        if not callable(hook):
            raise TypeError(f"{type(self).__name__}: a hook must be callable, got {kind_of(hook)}")
        if getattr(self, kind) is None:
            object.__setattr__(self, kind, {})
        return tl.HookHandle(getattr(self, kind), hook)

    def label(self) -> str:
        """Return the name of this module in messages: its class and its path, as in "Linear encoder.0.hidden"."""
        return f"{type(self).__name__} {self._path}".rstrip()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, Module | Parameter | Buffer):
            self._set_paths()

    def _set_paths(self) -> None:
        """Give each module, parameter and buffer of the tree its path from the root, the first if it has several."""
        root = None if self._root is None else self._root()
        path = "" if root else self._path
        root = root or self
        for module_path, module in root.named_modules(path):
            object.__setattr__(module, "_path", module_path)
            object.__setattr__(module, "_root", weakref.ref(root))
        for tensor_path, tensor in root._named_tensors((Parameter, Buffer), path):
            tensor.name = tensor_path

    def __getstate__(self) -> dict[str, Any]:
        # For copy and pickle: a copied module must not belong to the root of the original.
        return {name: value for name, value in vars(self).items() if name != "_root"}

    # ---- contents ----

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for every module that is an attribute of this one."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module and all modules below it, each once."""
        stack: list[tuple[str, Module]] = [(prefix, self)]
        seen: set[int] = set()
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all modules below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter); a parameter that several modules share (tied) comes once, under its first path."""
        return self._named_tensors((Parameter,), prefix)

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Buffer]]:
        """Yield (path, buffer); a buffer that several modules share comes once, under its first path."""
        return self._named_tensors((Buffer,), prefix)

    def _named_tensors(self, kinds: tuple[type, ...], prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield (path, Tensor) for each attribute of these types, once, in the order of assignment."""
        seen = set()
        for path, module in self.named_modules(prefix):
            for name, value in vars(module).items():
                module._refuse_hidden(name, value, every=False)  # the list may have been filled after its assignment
                if isinstance(value, kinds) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def buffers(self) -> Iterator[Buffer]:
        """Yield every buffer once, persistent or not."""
        return (buffer for _, buffer in self.named_buffers())

    def parameter_count(self) -> int:
        """Return the total number of elements of all parameters."""
        return sum(parameter.size for parameter in self.parameters())

    # ---- values ----

    def _state(self) -> dict[str, Parameter | Buffer]:
        """Return what `state_dict` holds: all parameters and the persistent buffers, by path."""
        tensors = self._named_tensors((Parameter, Buffer))
        return {name: x for name, x in tensors if isinstance(x, Parameter) or x.persistent}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter and persistent buffer on the host, as a dict from path to array."""
        return {name: np.array(x.numpy()) for name, x in self._state().items()}

    def load_state_dict(self, state: Mapping[str, TensorLike], strict: bool = True) -> IncompatibleKeys:
        """Replace parameters and persistent buffers by the arrays (or Tensors) in `state`.

        Each keeps its dtype and backend. Raises ValueError with *all* names that are missing, unexpected, of the wrong
        shape or of a dtype whose values would be lost, and then changes nothing. With strict=False, missing and
        unexpected names are no error, but shapes must still agree. Returns these names, as two lists.

        A parameter that several modules share (tied) has one name in `state_dict`; `state` may hold it under any of its
        names, or under several with equal values, as in PyTorch.

        The weight of a Linear is (in, out), the transpose of PyTorch's, so torch.Tensors raise TypeError: convert each
        by ``.numpy()``, and those weights also by ``.T``.

        >>> linear = nn.Linear(2, 1)
        >>> linear.load_state_dict({"weight": [[3.0], [4.0]], "bias": [0.5]})
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        >>> linear(tl.Tensor([1.0, 2.0])).numpy()
        array([11.5], dtype=float32)
        """
        if not isinstance(state, Mapping):
            remedy = "; tl.load(path) reads a file" if isinstance(state, str) else "; give its state_dict()"
            raise TypeError(f"load_state_dict: needs a mapping of names to arrays, got {kind_of(state)}{remedy}")
        own = self._state()
        first = {id(x): name for name, x in own.items()}
        names = {name: first[id(x)] for name, x in every_name(self) if id(x) in first}
        remedy = "pass x.numpy(), or x.numpy().T for the weights of Linear: (in, out) here, (out, in) in PyTorch"
        arrays, differing = by_first_name(host_arrays("load_state_dict", state, remedy), names)
        shapes = {name: x.shape for name, x in own.items()}
        problems = differing + shape_mismatches(shapes, {name: array.shape for name, array in arrays.items()}, strict)
        fitting = {name: array for name, array in arrays.items() if name in own and array.shape == shapes[name]}
        converted, lost = converted_arrays({name: (array, own[name].dtype) for name, array in fitting.items()})
        if problems or lost:
            raise ValueError(f"load_state_dict: {type(self).__name__} does not fit: {'; '.join([*problems, *lost])}")
        moved = {name: own[name].backend.asarray(array) for name, array in converted.items()}
        for name, array in moved.items():  # all are on their backend before the first is replaced
            own[name].replace(array, copy=False)
        return IncompatibleKeys([name for name in own if name not in arrays], [n for n in arrays if n not in own])

    def to(self, backend: str | tl.Backend) -> Self:
        """Move all parameters, buffers and other Tensors that modules hold to a backend, in place; return self.

        A Tensor with history, which a forward pass may have kept to look at, stays as it is.
        """
        target = tl.get_backend(backend)
        return self._convert(lambda x: target.asarray(x.numpy()) if x.backend is not target else x.data)

    def astype(self, dtype: DTypeLike) -> Self:
        """Convert all parameters, floating buffers and other floating Tensors of modules to `dtype`; return self.

        A Tensor with history, which a forward pass may have kept to look at, stays as it is. Raises TypeError unless
        `dtype` is a real floating-point dtype of at most 64 bits.
        """
        kind = numeric_dtype("astype", dtype)
        if kind.kind != "f":
            raise TypeError(f"astype: parameters need a floating dtype, got {kind}")
        return self._convert(lambda x: x.data.astype(kind, copy=False) if x.dtype.kind == "f" else x.data)

    def _convert(self, convert: Callable[[tl.Tensor], Array]) -> Self:
        held = [x for module in self.modules() for x in vars(module).values() if isinstance(x, tl.Tensor) and x.is_leaf]
        converted = {id(x): (x, convert(x)) for x in held}
        for x, array in converted.values():  # in a second loop, so that an error in the first changes nothing
            if array is not x.data:
                x.replace(array, copy=False)
                x.grad = None  # the gradient has the old dtype or backend
        return self

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for parameter in self.parameters():
            parameter.grad = None
            note_read(parameter)

    def train(self, mode: bool = True) -> Self:
        """Switch this module and all modules below it to training mode, in which dropout acts; return self.

        With ``mode=False``, switch them to evaluation mode instead.
        """
        check_flag("train", "mode", mode, "; train() only switches the mode")
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Self:
        """Switch this module and all modules below it to evaluation mode, without dropout; return self."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[Self]:
        """Switch to evaluation mode within a ``with`` block, then restore the mode of each module.

        >>> model = nn.Dropout(0.5)
        >>> with model.evaluating():
        ...     model.training
        False
        >>> model.training
        True
        """
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            yield self
        finally:
            for module, mode in modes:
                object.__setattr__(module, "training", mode)

    # ---- display ----

    def extra_repr(self) -> str:
        """Return the text that the repr shows in parentheses after the class name."""
        return ""

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self.extra_repr()})"
        elsewhere = sum(buffer.size for buffer in self.buffers() if buffer.persistent)
        buffers = f", {elsewhere:,} numbers in buffers" if elsewhere else ""
        lines = [f"{head}  # {self.parameter_count():,} parameters{buffers}"]
        for name, child in self.named_children():
            first, *rest = repr(child).split("\n")
            lines += [f"  {name}: {first}", *[f"  {line}" for line in rest]]
        return "\n".join(lines)
