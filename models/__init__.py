"""The architectures, their data, training and decoding."""

__project__ = "tensorlib"  # distinguishes this package from others of its name, see tensorlib.shadowing

from typing import TYPE_CHECKING, Any

from models.system.shadowing import require_own_nn

if TYPE_CHECKING:
    from models.architectures.transformer import Transformer, TransformerConfig

__all__ = ["Transformer", "TransformerConfig"]

require_own_nn()


def __getattr__(name: str) -> Any:
    """Import the models when they are first asked for: `tensorlib --help` needs none, and is to come at once."""
    if name not in __all__:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    from models.architectures import transformer

    return getattr(transformer, name)
