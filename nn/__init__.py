"""Modules, layers, attention, losses, initializers, optimizers and schedules, built on tensorlib."""

from typing import TYPE_CHECKING

__project__ = "tensorlib"  # distinguishes this package from others of its name, see tensorlib.shadowing

from nn import functional, init, optim, schedules
from nn.attention import MultiHeadAttention, causal_mask, padding_mask
from nn.containers import ModuleList, Sequential
from nn.functional import functional_call
from nn.layers import Dropout, Embedding, FeedForward, LayerNorm, Linear, LinearRelu
from nn.losses import CrossEntropyLoss
from nn.module import Module
from nn.parameter import Buffer, Parameter
from nn.positions import LearnedPositions, SinusoidalPositions
from tensorlib.messages import unknown_name

__all__ = [
    "Buffer",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "FeedForward",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "LinearRelu",
    "Module",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "Sequential",
    "SinusoidalPositions",
    "causal_mask",
    "functional",
    "functional_call",
    "init",
    "optim",
    "padding_mask",
    "schedules",
]

_PYTORCH_NAMES = {  # from PyTorch's name to what to write instead
    "ReLU": "tl.relu in forward", "GELU": "tl.gelu in forward", "Tanh": "tl.tanh in forward",
    "Sigmoid": "tl.sigmoid in forward", "SiLU": "tl.silu in forward", "Softmax": "tl.softmax in forward",
    "MSELoss": "tl.mse_loss(x, targets)", "L1Loss": "tl.l1_loss(x, targets)", "KLDivLoss": "tl.kl_div(log_probs, p)",
    "NLLLoss": "tl.nll_loss(log_probs, targets)", "HuberLoss": "tl.huber_loss(x, targets)",
    "BCEWithLogitsLoss": "tl.binary_cross_entropy_with_logits(logits, targets)",
    "Conv1d": "tl.conv1d, with Parameters", "Conv2d": "tl.conv2d, with Parameters", "MaxPool2d": "tl.max_pool",
    "AvgPool2d": "tl.avg_pool", "MultiheadAttention": "nn.MultiHeadAttention", "utils": "nn.optim.clip_grad_norm",
    "Flatten": "x.reshape in forward", "F": "tl itself: tl.softmax(x, axis=-1)",
}  # fmt: skip

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Raise AttributeError; if `name` is PyTorch's, the message gives its equivalent here."""
        raise AttributeError(unknown_name("nn", name, __all__, _PYTORCH_NAMES))
