"""The attributes of a Module: which values may be assigned, and the error for a name that does not exist."""

from __future__ import annotations

import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

import tensorlib as tl
from nn.parameter import Buffer, Parameter
from tensorlib.messages import kind_of, unknown_name

__all__ = ["CheckedAttributes"]

_PYTORCH_NAMES = {  # from PyTorch's name to what to write instead
    "cuda": "model.to('cupy')", "cpu": "model.to('numpy')", "half": "model.astype('float16')",
    "float": "model.astype('float32')", "double": "model.astype('float64')",
    "children": "[module for name, module in model.named_children()]", "append": "nn.ModuleList",
    "register_parameter": "model.name = nn.Parameter(x)", "register_buffer": "model.name = nn.Buffer(x)",
    "add_module": "model.name = module", "apply": "for module in model.modules()",
    "in_features": "layer.weight.shape[0]", "out_features": "layer.weight.shape[1]", "num_heads": "layer.heads",
    "num_embeddings": "layer.weight.shape[0]", "embedding_dim": "layer.weight.shape[1]",
    "normalized_shape": "layer.weight.shape", "type": "model.astype(dtype)",
    "get_submodule": "dict(model.named_modules())[path]", "get_parameter": "dict(model.named_parameters())[path]",
    "get_buffer": "dict(model.named_buffers())[path]", "register_module": "model.name = module",
    "register_full_backward_hook": "register_hook of the output, in a forward hook",
    "register_backward_hook": "register_hook of the output, in a forward hook",
    "bfloat16": "tl.precision, as in `with tl.precision('bf16'):`; weights stay float32",
    "compile": "tl.capture, which records a step on a GPU and replays it without Python",
    "requires_grad_": "p.requires_grad = False for each of model.parameters()",
}  # fmt: skip

_SWITCHES = {  # attributes of one module that look like switches for all that is in it
    "requires_grad": "would freeze nothing; set p.requires_grad for each p of model.parameters()",
    "training": "would not reach the modules below; write model.train() or model.eval()",
}


class CheckedAttributes:
    """Base of Module; it refuses assignments that would silently lose a parameter or a module."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Python calls this if the attribute does not exist, or if a property raises AttributeError. The first
            # branch repeats the lookup, so the property's own error reaches the caller.
            if name.startswith("_") or hasattr(type(self), name):
                return object.__getattribute__(self, name)
            known = {*dir(type(self)), *vars(self)}
            raise AttributeError(unknown_name(type(self).__name__, name, known, _PYTORCH_NAMES))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SWITCHES and not isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"{type(self).__name__}.{name} = ...: {_SWITCHES[name]}")
        self._refuse_hidden(name, value)
        self._refuse_loss(name, value)
        if _is_stray_state(value):
            warnings.warn(f"{type(self).__name__}.{name}: {_remedy(value)}", stacklevel=3)
        object.__setattr__(self, name, value)

    def _refuse_loss(self, name: str, value: Any) -> None:
        """Raise TypeError if a value that is neither None nor of the same kind would replace a module or parameter."""
        held = vars(self).get(name)
        if isinstance(held, Parameter) and not isinstance(value, Parameter | None):
            kind, remedy = "Parameter", "use nn.Parameter(x), or .replace(array)"
            if getattr(value, "node", None) is not None:
                remedy = "a computed weight belongs in forward, as in tl.linear(x, embedding.weight.T)"
        elif isinstance(held, Buffer) and not isinstance(value, Buffer | None):
            kind, remedy = "Buffer", "use .replace(x.data), or nn.Buffer(x)"
        elif isinstance(held, CheckedAttributes) and not isinstance(value, CheckedAttributes | None):
            kind, remedy = "Module", "del it first"
        else:
            return
        raise TypeError(f"{type(self).__name__}.{name}: must stay a {kind}, got {kind_of(value)}; {remedy}")

    def _refuse_hidden(self, name: str, value: Any, every: bool = True) -> None:
        """Raise TypeError if `value` is a plain container of modules, parameters or buffers.

        With `every`, all items of the container are checked, otherwise only the first.
        """
        if isinstance(value, list | tuple | dict | set):
            items = value.values() if isinstance(value, dict) else value
            for item in items if every else islice(items, 1):
                if isinstance(item, CheckedAttributes | Parameter | Buffer):
                    raise TypeError(
                        f"{type(self).__name__}.{name}: modules, parameters and buffers in a plain "
                        f"{type(value).__name__} would not be found by parameters(); use nn.ModuleList, and an "
                        "attribute for each parameter"
                    )
                self._refuse_hidden(name, item, every)


def _is_stray_state(value: Any) -> bool:
    """Return whether `value` is a floating array, or a Tensor without history, that no `state_dict` would hold.

    A Tensor with history is the result of this forward pass, kept to look at; integers are mostly settings.
    """
    if isinstance(value, tl.Tensor):
        return value.dtype.kind == "f" and value.node is None and not isinstance(value, Parameter | Buffer)
    is_array = hasattr(value, "shape") and not isinstance(value, np.generic)
    return is_array and getattr(getattr(value, "dtype", None), "kind", "") == "f"


def _remedy(value: Any) -> str:
    """Return the warning for a value that is stray state."""
    if getattr(value, "requires_grad", False):
        return "a Tensor that requires a gradient is not found by parameters(); assign nn.Parameter(x)"
    return (
        f"a floating {kind_of(value)} is not part of the module's state: it is missing from state_dict() and from "
        "checkpoints; assign nn.Buffer(x), or nn.Buffer(x, persistent=False) if it may be missing there"
    )
