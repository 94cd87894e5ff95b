"""tensorlib: a reverse-mode tensor autograd engine on NumPy and CuPy."""

from tensorlib.autograd import *  # noqa: F403
from tensorlib.backend import *  # noqa: F403
from tensorlib.checking import *  # noqa: F403
from tensorlib.checkpointing import *  # noqa: F403
from tensorlib.function import *  # noqa: F403
from tensorlib.hooks import *  # noqa: F403
from tensorlib.insight.debug import *  # noqa: F403
from tensorlib.insight.draw import *  # noqa: F403
from tensorlib.insight.explain import *  # noqa: F403
from tensorlib.insight.graph import *  # noqa: F403
from tensorlib.interop import *  # noqa: F403
from tensorlib.io import *  # noqa: F403
from tensorlib.kernels import register_kernels
from tensorlib.memory import *  # noqa: F403
from tensorlib.messages import FUNCTION_NAMES as _FUNCTION_NAMES
from tensorlib.messages import unknown_name as _unknown_name
from tensorlib.ops.activations import *  # noqa: F403
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
from tensorlib.ops.gathering import *  # noqa: F403
from tensorlib.ops.indexing import *  # noqa: F403
from tensorlib.ops.linalg import *  # noqa: F403
from tensorlib.ops.linear import *  # noqa: F403
from tensorlib.ops.linear_cross_entropy import *  # noqa: F403
from tensorlib.ops.logic import *  # noqa: F403
from tensorlib.ops.losses import *  # noqa: F403
from tensorlib.ops.normalize import *  # noqa: F403
from tensorlib.ops.rearrange import *  # noqa: F403
from tensorlib.ops.reduce import *  # noqa: F403
from tensorlib.ops.sampling import *  # noqa: F403
from tensorlib.ops.shape import *  # noqa: F403
from tensorlib.ops.softmax import *  # noqa: F403
from tensorlib.ops.sorting import *  # noqa: F403
from tensorlib.ops.trigonometric import *  # noqa: F403
from tensorlib.random import *  # noqa: F403
from tensorlib.recording import *  # noqa: F403
from tensorlib.tensor import *  # noqa: F403
from tensorlib.threads import *  # noqa: F403
from tensorlib.transforms import *  # noqa: F403

register_kernels()

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Raise AttributeError with the word that is used here for what others call `name`."""
    raise AttributeError(_unknown_name("tensorlib", name, globals(), _FUNCTION_NAMES))
