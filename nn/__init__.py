"""Modules, layers, attention, losses, initialisers, optimizers and schedules, on tensorlib."""

from nn import init, optim, schedules
from nn.attention import MultiHeadAttention, causal_mask, padding_mask
from nn.functional import functional_call
from nn.layers import Dropout, Embedding, FeedForward, LayerNorm, Linear
from nn.losses import CrossEntropyLoss
from nn.module import Module, ModuleList, Parameter, Sequential
from nn.positions import LearnedPositions, SinusoidalPositions

__all__ = [
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "FeedForward",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "Module",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "Sequential",
    "SinusoidalPositions",
    "causal_mask",
    "functional_call",
    "init",
    "optim",
    "padding_mask",
    "schedules",
]
