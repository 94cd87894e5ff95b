"""Modules, layers, attention, losses, initializers, optimizers and schedules, built on tensorlib."""

from typing import TYPE_CHECKING

__project__ = "tensorlib"  # distinguishes this package from others of its name, see tensorlib.shadowing

from nn import averaging, functional, init, optim, schedules
from nn.attention import MultiHeadAttention, causal_mask, padding_mask
from nn.containers import ModuleList, Sequential
from nn.contrastive import InfoNCELoss, MarginLoss, TripletLoss
from nn.functional import functional_call
from nn.layers import Dropout, Embedding, FeedForward, LayerNorm, Linear, LinearRelu
from nn.losses import CrossEntropyLoss
from nn.module import Module
from nn.parameter import Buffer, Parameter
from nn.positions import LearnedPositions, RotaryPositions, SinusoidalPositions
from nn.pytorch_weights import from_pytorch, to_pytorch
from nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, detached
from tensorlib.messages import unknown_name
from tensorlib.pytorch_words import FUNCTION_NAMES, LAYER_NAMES

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Buffer",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "FeedForward",
    "GRUCell",
    "InfoNCELoss",
    "LSTMCell",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "LinearRelu",
    "MarginLoss",
    "Module",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "RNNCell",
    "RotaryPositions",
    "Sequential",
    "SinusoidalPositions",
    "TripletLoss",
    "averaging",
    "causal_mask",
    "detached",
    "from_pytorch",
    "functional",
    "functional_call",
    "init",
    "optim",
    "padding_mask",
    "schedules",
    "to_pytorch",
]

_PYTORCH_NAMES = {  # from PyTorch's name to what to write instead
    "ReLU": "tl.relu in forward", "GELU": "tl.gelu in forward", "Tanh": "tl.tanh in forward",
    "Sigmoid": "tl.sigmoid in forward", "SiLU": "tl.silu in forward", "Softmax": "tl.softmax in forward",
    "MSELoss": "tl.mse_loss(x, targets)", "L1Loss": "tl.l1_loss(x, targets)", "KLDivLoss": "tl.kl_div(log_probs, p)",
    "NLLLoss": "tl.nll_loss(log_probs, targets)", "HuberLoss": "tl.huber_loss(x, targets)",
    "BCEWithLogitsLoss": "tl.binary_cross_entropy_with_logits(logits, targets)",
    "BCELoss": "tl.binary_cross_entropy_with_logits(logits, targets)", "SmoothL1Loss": "tl.huber_loss(x, targets)",
    "TripletMarginLoss": "nn.TripletLoss, with squared=False",
    "CosineEmbeddingLoss": "nn.MarginLoss(distance='cosine')",
    "CosineSimilarity": "tl.cosine_similarity(x, y)", "LogSoftmax": "tl.log_softmax in forward",
    "LeakyReLU": "tl.leaky_relu in forward", "ELU": "tl.elu in forward", "Softplus": "tl.softplus in forward",
    "Mish": "tl.mish in forward", "GLU": "tl.glu in forward", "Hardtanh": "tl.hardtanh in forward",
    "LogSigmoid": "tl.log_sigmoid in forward", "Identity": "x itself, or nn.Sequential()",
    "Conv1d": "tl.conv1d, with Parameters", "Conv2d": "tl.conv2d, with Parameters", "MaxPool1d": "tl.max_pool",
    "MaxPool2d": "tl.max_pool", "AvgPool1d": "tl.avg_pool", "AvgPool2d": "tl.avg_pool", "LazyLinear": "nn.Linear",
    "Softsign": "tl.softsign in forward", "Bilinear": "tl.einsum('...i,ijk,...j->...k', x, weight, y) in forward",
    **dict.fromkeys(("ConstantPad1d", "ConstantPad2d", "ZeroPad1d", "ZeroPad2d"), "tl.pad(x, pad_width) in forward"),
    **{name: f"{FUNCTION_NAMES[function]} in forward" for name, function in LAYER_NAMES.items()},
    **dict.fromkeys(
        ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "BatchNorm", "SyncBatchNorm"),
        "tl.batch_norm, with an nn.Buffer for each running statistic: help(nn.Buffer) shows the module",
    ),
    **dict.fromkeys(("Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"), "nn.Dropout, which zeros single elements"),
    **dict.fromkeys(
        ("Transformer", "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer",
         "TransformerDecoderLayer"),
        "models.Transformer, or nn.MultiHeadAttention and nn.FeedForward",
    ),
    **{name: f"nn.optim.{name}" for name in optim.__all__},
    "RMSNorm": "tl.rms_norm, with a Parameter", "MultiheadAttention": "nn.MultiHeadAttention",
    "ModuleDict": "an attribute for each module, by setattr", "ParameterList": "an attribute for each Parameter",
    "ParameterDict": "an attribute for each Parameter", "Tensor": "tl.Tensor", "softmax": "tl.softmax",
    "utils": "nn.optim.clip_grad_norm", "DataParallel": "the model itself: one device computes",
    "Flatten": "x.flatten(1) in forward", "Unflatten": "x.reshape in forward", "EmbeddingBag": "nn.Embedding",
    "lr_scheduler": "nn.schedules", "F": "tl itself: tl.softmax(x, axis=-1)",
}  # fmt: skip

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Raise AttributeError; if `name` is PyTorch's, the message gives its equivalent here."""
        raise AttributeError(unknown_name("nn", name, __all__, _PYTORCH_NAMES))
