"""tensorlib: a reverse-mode tensor autograd engine on NumPy and CuPy."""

import sys as _sys
from typing import TYPE_CHECKING

from tensorlib.arrays.backend import *  # noqa: F403
from tensorlib.arrays.memory import *  # noqa: F403
from tensorlib.arrays.random import *  # noqa: F403
from tensorlib.arrays.threads import *  # noqa: F403
from tensorlib.debugging.debug import *  # noqa: F403
from tensorlib.debugging.explain import *  # noqa: F403
from tensorlib.engine.backward import *  # noqa: F403
from tensorlib.engine.function import *  # noqa: F403
from tensorlib.engine.hooks import *  # noqa: F403
from tensorlib.engine.recording import *  # noqa: F403
from tensorlib.exchange.interop import *  # noqa: F403
from tensorlib.exchange.safetensors import *  # noqa: F403
from tensorlib.graphs.building import *  # noqa: F403
from tensorlib.graphs.derivation import *  # noqa: F403
from tensorlib.graphs.drawing import *  # noqa: F403
from tensorlib.graphs.graph import *  # noqa: F403
from tensorlib.graphs.notebook import *  # noqa: F403
from tensorlib.graphs.stepping import *  # noqa: F403
from tensorlib.kernels import register_kernels
from tensorlib.kernels.precision import *  # noqa: F403
from tensorlib.messages import unknown_name as _unknown_name
from tensorlib.ops.activations import *  # noqa: F403
from tensorlib.ops.add_norm import *  # noqa: F403
from tensorlib.ops.arithmetic import *  # noqa: F403
from tensorlib.ops.attention import *  # noqa: F403
from tensorlib.ops.convolution import *  # noqa: F403
from tensorlib.ops.creation import *  # noqa: F403
from tensorlib.ops.crossentropy import *  # noqa: F403
from tensorlib.ops.cumulative import *  # noqa: F403
from tensorlib.ops.dropout import *  # noqa: F403
from tensorlib.ops.einsum import *  # noqa: F403
from tensorlib.ops.elementwise import *  # noqa: F403
from tensorlib.ops.exponential import *  # noqa: F403
from tensorlib.ops.extremes import *  # noqa: F403
from tensorlib.ops.feed_forward import *  # noqa: F403
from tensorlib.ops.gathering import *  # noqa: F403
from tensorlib.ops.indexing import *  # noqa: F403
from tensorlib.ops.linalg import *  # noqa: F403
from tensorlib.ops.linear import *  # noqa: F403
from tensorlib.ops.linear_cross_entropy import *  # noqa: F403
from tensorlib.ops.logic import *  # noqa: F403
from tensorlib.ops.losses import *  # noqa: F403
from tensorlib.ops.multi_head_attention import *  # noqa: F403
from tensorlib.ops.normalize import *  # noqa: F403
from tensorlib.ops.rearrange import *  # noqa: F403
from tensorlib.ops.recurrent import *  # noqa: F403
from tensorlib.ops.reduce import *  # noqa: F403
from tensorlib.ops.sampled_linear import *  # noqa: F403
from tensorlib.ops.sampling import *  # noqa: F403
from tensorlib.ops.shape import *  # noqa: F403
from tensorlib.ops.softmax import *  # noqa: F403
from tensorlib.ops.sorting import *  # noqa: F403
from tensorlib.ops.trigonometric import *  # noqa: F403
from tensorlib.pytorch_words import FUNCTION_NAMES as _FUNCTION_NAMES
from tensorlib.pytorch_words import answer_keywords as _answer_keywords
from tensorlib.shadowing import warn_if_shadowed as _warn_if_shadowed
from tensorlib.tensor import *  # noqa: F403
from tensorlib.transforms.capture import *  # noqa: F403
from tensorlib.transforms.dependence import *  # noqa: F403
from tensorlib.transforms.derivatives import *  # noqa: F403
from tensorlib.transforms.gradcheck import *  # noqa: F403
from tensorlib.transforms.recompute import *  # noqa: F403

try:
    register_kernels()
except RuntimeError as _error:
    if _sys.argv[:1] != ["-m"]:  # what Python sets while `python -m tensorlib` imports this package
        raise
    print(f"tensorlib: {_error}", file=_sys.stderr)
    _sys.exit(2)
_answer_keywords(globals(), Tensor)  # noqa: F405
_warn_if_shadowed()
globals().pop("tensor", None)  # the module tensor.py, which PyTorch's tl.tensor([1.0]) would try to call

__version__ = "0.1.0"


if not TYPE_CHECKING:  # otherwise an editor would accept every name

    def __getattr__(name: str) -> object:
        """Raise AttributeError; if `name` is PyTorch's, the message gives our name."""
        raise AttributeError(_unknown_name("tensorlib", name, globals(), _FUNCTION_NAMES))
