"""The architectures, their data, training and decoding."""

from models.transformer import Transformer, TransformerConfig

__all__ = ["Transformer", "TransformerConfig"]
