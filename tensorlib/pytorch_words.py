"""PyTorch's names of methods, attributes, functions and keywords, with what to write here instead.

No signature accepts a keyword of PyTorch, so that an editor marks it. Python's own error for it is raised before the
called function runs, so the functions that users call with such keywords are wrapped once, by `answer_keywords`; ops
with nothing but operands, such as `add`, and those that models call most, such as `linear`, stay as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, isfunction, signature
from typing import Any, TypeVar, cast

__all__ = [
    "ACTIVATIONS", "CONTEXT_NAMES", "EXPRESSIONS", "FUNCTION_NAMES", "LAYER_EXPRESSIONS", "LAYER_NAMES", "TENSOR_NAMES",
    "answer_keywords", "answering", "check_keywords", "with_our_keyword",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

_CLEAR = "x.grad = None, or optimizer.zero_grad()"
_ON_GPU = "x.to('cupy')"

_BF16 = "tl.precision, as in `with tl.precision('bf16'):`"
_TF32 = "tl.precision, as in `with tl.precision('tf32'):`"
_CAPTURE = "tl.capture, which records a step on a GPU and replays it without Python"

_NO_GRADIENT = "which has no gradient"

_DIAGONAL = "tl.diagonal(x), or tl.where(tl.eye(len(x), dtype='bool'), x, 0.0) for a vector"

_TRUNCATED = "tl.sign(x) * tl.floor(tl.abs(x))"
_ARCSINH = (
    "s * tl.log1p(s * x + x * x / (1 + tl.sqrt(x * x + 1))), with s = tl.where(x < 0, -1.0, 1.0), where x * x is finite"
)
_ARCCOSH = "tl.log1p(x - 1 + tl.sqrt(x - 1) * tl.sqrt(x + 1))"
_ARCTANH = "0.5 * (tl.log1p(x) - tl.log1p(-x))"

# Functions and methods that are one expression of ops. A test computes each, and compares it with PyTorch's function.
EXPRESSIONS = {
    "hypot": "tl.norm(tl.stack([x, y]), axis=0)", "lerp": "x + weight * (y - x)", "addmm": "x + y @ z",
    "addmv": "x + y @ z", "baddbmm": "x + y @ z", "addcmul": "x + y * z", "addcdiv": "x + y / z",
    "dist": "tl.norm(x - y)", "clamp_min": "tl.maximum(x, low)", "clamp_max": "tl.minimum(x, high)",
    "inner": "tl.tensordot(x, y, axes=(-1, -1))", "fmod": "tl.sign(x) * tl.remainder(tl.abs(x), tl.abs(y))",
    "trunc": _TRUNCATED, "fix": _TRUNCATED, "frac": f"x - {_TRUNCATED}",
    "erfc": "1 - tl.erf(x), which is 0 where it is below 1e-7 (1e-16 in float64)",
    "logit": "tl.log(x / (1 - x))", "xlogy": "x * tl.log(tl.where((x == 0) & (y <= 0), 1.0, y))",
    "sgn": "tl.sign(x)", "arcsinh": _ARCSINH, "asinh": _ARCSINH, "arccosh": _ARCCOSH, "acosh": _ARCCOSH,
    "arctanh": _ARCTANH, "atanh": _ARCTANH, "deg2rad": "x * (numpy.pi / 180)", "rad2deg": "x * (180 / numpy.pi)",
    "float_power": "x.astype('float64') ** y",
    "copysign": "tl.abs(x) * tl.where(tl.arctan2(y, -1.0) < 0, -1.0, 1.0)",  # y < 0 would be False for -0
    "nan_to_num": "tl.where(tl.isnan(x), 0.0, x).clip(numpy.finfo(x.dtype).min, numpy.finfo(x.dtype).max)",
    "nansum": "tl.where(tl.isnan(x), 0.0, x).sum()", "bitwise_not": "tl.invert(x)", "absolute": "tl.abs(x)",
    "swapdims": "tl.swapaxes(x, axis1, axis2)", "movedim": "tl.moveaxis(x, source, destination)",
    "vdot": "tl.dot(x.flatten(), y.flatten())", "take_along_dim": "tl.take_along_axis(x, indices, axis)",
    "ger": "tl.outer(x, y)", "mv": "x @ y",
    "diag_embed": "tl.where(tl.eye(x.shape[-1], dtype='bool'), x[..., None], 0.0)",
    "fliplr": "tl.flip(x, 1)", "flipud": "tl.flip(x, 0)", "kthvalue": "tl.sort(x)[..., k - 1]",
    "median": "tl.where(tl.isnan(x).any(), numpy.nan, tl.sort(x.flatten())[(x.size - 1) // 2])",
    "detach": "x.detach()", "expand": "tl.broadcast_to(x, shape)", "expand_as": "tl.broadcast_to(x, y.shape)",
    "ravel": "x.flatten()", "rand_like": "tl.uniform(x.shape, dtype=x.dtype)",
    "randn_like": "tl.normal(x.shape, dtype=x.dtype)", "isclose": "numpy.isclose(x.numpy(), y.numpy())",
    "equal": "numpy.array_equal(x.numpy(), y.numpy())", "allclose": "numpy.allclose(x.numpy(), y.numpy())",
    "unflatten": "x.reshape(shape)", "narrow": "x[start : start + length]", "select": "x[i]",
    "masked_select": "x[mask]",
}  # fmt: skip

# Functions of torch.nn.functional, and layers of the same formula.
ACTIVATIONS = {
    "relu6": "tl.hardtanh(x, 0, 6)", "selu": "1.0507009873554805 * tl.elu(x, 1.6732632423543772)",
    "celu": "tl.elu(x)", "hardswish": "x * (tl.hardtanh(x + 3, 0, 6) / 6)",
    "hardsigmoid": "tl.hardtanh(x + 3, 0, 6) / 6",
    "softmin": "tl.softmax(-x, axis)", "logsigmoid": "tl.log_sigmoid(x)", "tanhshrink": "x - tl.tanh(x)",
    "hardshrink": "tl.where(tl.abs(x) <= 0.5, 0.0, x)", "softshrink": "tl.sign(x) * tl.relu(tl.abs(x) - 0.5)",
    "prelu": "tl.where(x > 0, x, weight * x)", "threshold": "tl.where(x <= threshold, value, x)",
}  # fmt: skip

# The same for layers and losses that normalize over other axes, or compare.
LAYER_EXPRESSIONS = {
    "group_norm": "tl.layer_norm(x.reshape((len(x), groups, -1))).reshape(x.shape)",
    "instance_norm": "tl.layer_norm(x.reshape((*x.shape[:2], -1))).reshape(x.shape)",
    "pairwise_distance": "tl.norm(x - y, axis=-1)", "margin_ranking_loss": "tl.relu(margin - targets * (x - y)).mean()",
    "adaptive_avg_pool1d": "x.mean(axis=2, keepdims=True)", "adaptive_avg_pool2d": "x.mean(axis=(2, 3), keepdims=True)",
    "adaptive_max_pool2d": "x.max(axis=(2, 3), keepdims=True)",
}  # fmt: skip

# Layers that are one of these functions.
LAYER_NAMES = {
    "ReLU6": "relu6", "SELU": "selu", "CELU": "celu", "Hardswish": "hardswish", "Hardsigmoid": "hardsigmoid",
    "Softmin": "softmin", "Tanhshrink": "tanhshrink", "Hardshrink": "hardshrink", "Softshrink": "softshrink",
    "PReLU": "prelu", "Threshold": "threshold", "GroupNorm": "group_norm", "InstanceNorm1d": "instance_norm",
    "InstanceNorm2d": "instance_norm", "InstanceNorm3d": "instance_norm", "PairwiseDistance": "pairwise_distance",
    "MarginRankingLoss": "margin_ranking_loss", "AdaptiveAvgPool1d": "adaptive_avg_pool1d",
    "AdaptiveAvgPool2d": "adaptive_avg_pool2d", "AdaptiveMaxPool2d": "adaptive_max_pool2d",
}  # fmt: skip

_ON_THE_HOST = {
    name: f"numpy.{call}, {_NO_GRADIENT}"
    for name, call in {
        "inverse": "linalg.inv(x.numpy())", "pinverse": "linalg.pinv(x.numpy())", "det": "linalg.det(x.numpy())",
        "slogdet": "linalg.slogdet(x.numpy())",
        "logdet": "linalg.slogdet(x.numpy())[1] for a determinant above 0", "qr": "linalg.qr(x.numpy())",
        "svd": "linalg.svd(x.numpy())", "cholesky": "linalg.cholesky(x.numpy())", "cov": "cov(x.numpy())",
        "solve": "linalg.solve(x.numpy(), y.numpy())", "lstsq": "linalg.lstsq(x.numpy(), y.numpy())",
        "matrix_power": "linalg.matrix_power(x.numpy(), n)", "matrix_rank": "linalg.matrix_rank(x.numpy())",
        "corrcoef": "corrcoef(x.numpy())", "cross": "cross(x.numpy(), y.numpy())", "kron": "kron(x.numpy(), y.numpy())",
        "quantile": "quantile(x.numpy(), q)", "unique": "unique(x.numpy())", "isin": "isin(x.numpy(), y.numpy())",
        "bincount": "bincount(ids.numpy())", "histc": "histogram(x.numpy(), 100)[0]",
        "histogram": "histogram(x.numpy(), bins)",
        "cummax": "maximum.accumulate(x.numpy())", "cummin": "minimum.accumulate(x.numpy())",
    }.items()
}  # fmt: skip

# Methods and attributes of Tensor.
TENSOR_NAMES = EXPRESSIONS | _ON_THE_HOST | {
    "view": "x.reshape(shape)", "view_as": "x.reshape(y.shape)", "reshape_as": "x.reshape(y.shape)",
    "permute": "x.transpose(axes)", "t": "x.T", "mT": "x.swapaxes(-1, -2)", "contiguous": "x itself, or x.copy()",
    "unsqueeze": "tl.expand_dims(x, axis)", "expand_dims": "tl.expand_dims(x, axis)", "clone": "x.copy()",
    "unbind": "tl.unstack(x, axis)", "unstack": "tl.unstack(x, axis)", "chunk": "x.split(parts, axis)",
    "index_select": "x.take(indices, axis)", "take_along_axis": "tl.take_along_axis(x, indices, axis)",
    "dim": "x.ndim", "ndimension": "x.ndim", "numel": "x.size", "nelement": "x.size", "tolist": "x.numpy().tolist()",
    "device": "x.backend", "cuda": _ON_GPU, "cpu": "x.to('numpy')", "is_cuda": "x.backend.name == 'cupy'",
    "float": "x.astype('float32')", "double": "x.astype('float64')", "half": "x.astype('float16')",
    "long": "x.astype('int64')", "int": "x.astype('int32')", "bool": "x.astype('bool')", "type": "x.astype(dtype)",
    "type_as": "x.astype(y.dtype)", "grad_fn": "tl.graph(x), which shows how x was computed",
    "requires_grad_": "x.requires_grad = True", "detach_": "x = x.detach()", "zero_": _CLEAR,
    "clamp": "x.clip(low, high)", "pow": "x ** y", "power": "x ** y", "sub": "x - y", "mul": "x * y", "div": "x / y",
    "true_divide": "x / y", "neg": "-x", "mm": "x @ y", "bmm": "x @ y", "eq": "x == y", "ne": "x != y",
    "lt": "x < y", "le": "x <= y", "gt": "x > y", "ge": "x >= y", "acos": "x.arccos()", "asin": "x.arcsin()",
    "atan": "x.arctan()", "atan2": "x.arctan2(y)",
    "where": "tl.where(condition, x, y)", "einsum": "tl.einsum(formula, x, y)", "nonzero": "numpy.argwhere(x.numpy())",
    "fill_": "tl.full_like(x, value)", "copy_": "x.data = value, for a leaf", "index_add_": "x.index_add(...)",
    "scatter_": "x.scatter(...)", "scatter_add_": "x.scatter_add(...)", "masked_fill_": "x.masked_fill(mask, value)",
    "normal_": "x.data = tl.normal(x.shape), or nn.init", "uniform_": "x.data = tl.uniform(x.shape), or nn.init",
    "new_zeros": "tl.zeros(shape, x.dtype)", "new_ones": "tl.ones(shape, x.dtype)",
    "new_full": "tl.full(shape, value, x.dtype)", "new_empty": "tl.zeros(shape, x.dtype)",
    "new_tensor": "tl.Tensor(data, dtype=x.dtype)", "repeat_interleave": "x.repeat(repeats, axis)",
    "index_fill": "tl.where(mask, value, x)", "index_put": "tl.where(mask, value, x)",
    "short": "x.astype('int16')", "is_floating_point": "x.dtype.kind == 'f'", "element_size": "x.dtype.itemsize",
    "diag": _DIAGONAL, "tensor_split": "x.split(parts, axis)",
    "data_ptr": "x.data", "multinomial": "tl.categorical(logits)", "bernoulli": "tl.bernoulli(x, x.shape)",
    "bernoulli_": "tl.bernoulli(p, x.shape)",
    "retains_grad": "x.grad after the backward pass, which is None unless x is a leaf or was told to retain it",
    "register_post_accumulate_grad_hook": "x.grad after the backward pass; x.register_hook runs before it is added",
    "split_with_sizes": "x.split(ends, axis)",
    "bfloat16": f"{_BF16}; Tensors stay float32",
    "gelu": "tl.gelu(x)", "silu": "tl.silu(x)", "nbytes": "x.data.nbytes", "itemsize": "x.dtype.itemsize",
}  # fmt: skip

# Attributes of PyTorch's ctx, for authors of ops.
CONTEXT_NAMES = {
    "save_for_backward": "self.save(...)", "saved_tensor": "self.saved", "needs_input_grad": "self.needs",
    "mark_non_differentiable": "differentiable = False in the class", "ctx": "self", "saved_tensors": "self.saved",
}  # fmt: skip

# Functions.
FUNCTION_NAMES = EXPRESSIONS | ACTIVATIONS | LAYER_EXPRESSIONS | _ON_THE_HOST | {
    "cat": "tl.concatenate", "concat": "tl.concatenate", "unsqueeze": "tl.expand_dims", "permute": "tl.transpose",
    "view": "tl.reshape", "clamp": "tl.clip", "randn": "tl.normal(shape)", "rand": "tl.uniform(shape)",
    "randperm": "tl.permutation(n)", "randint": "tl.Tensor(numpy.random.default_rng(seed).integers(low, high, shape))",
    "multinomial": "tl.categorical(logits)", "manual_seed": "tl.seed", "as_tensor": "tl.Tensor, or tl.from_numpy",
    "asarray": "tl.Tensor, or tl.from_numpy", "array": "tl.Tensor", "FloatTensor": "tl.Tensor",
    "LongTensor": "tl.Tensor(data, dtype='int64')", "from_torch": "tl.from_dlpack", "mm": "tl.matmul",
    "bmm": "tl.matmul", "mul": "tl.multiply", "sub": "tl.subtract", "div": "tl.divide", "pow": "tl.power",
    "neg": "tl.negative", "unbind": "tl.unstack", "chunk": "tl.split", "index_select": "tl.take", "clone": "tl.copy",
    "repeat_interleave": "tl.repeat", "eq": "tl.equal", "ne": "tl.not_equal", "lt": "tl.less", "le": "tl.less_equal",
    "gt": "tl.greater", "ge": "tl.greater_equal", "acos": "tl.arccos", "asin": "tl.arcsin", "atan": "tl.arctan",
    "atan2": "tl.arctan2", "smooth_l1_loss": "tl.huber_loss", "max_pool1d": "tl.max_pool", "max_pool2d": "tl.max_pool",
    "avg_pool1d": "tl.avg_pool", "avg_pool2d": "tl.avg_pool",
    "enable_grad": "tl.no_grad, and put code that needs gradients outside its block",
    "cuda": "backend='cupy'", "device": "backend='cupy' or 'numpy'", "functional": "tl itself: tl.softmax(x, axis)",
    "tensor": "tl.Tensor",
    "float16": "dtype='float16'", "float32": "dtype='float32'", "float64": "dtype='float64'", "int64": "dtype='int64'",
    "int32": "dtype='int32'", "long": "dtype='int64'", "set_grad_enabled": "tl.no_grad", "inference_mode": "tl.no_grad",
    "outer_product": "tl.outer", "var_mean": "tl.var(x, ddof=1) and tl.mean(x)",
    "std_mean": "tl.std(x, ddof=1) and tl.mean(x)", "aminmax": "tl.amin(x) and tl.amax(x)",
    "hstack": "tl.concatenate(xs, axis=1), or axis=0 for vectors", "dstack": "tl.stack(xs, axis=-1)",
    "vstack": "tl.concatenate(xs, axis=0), or tl.stack(xs) for vectors", "column_stack": "tl.stack(xs, axis=1)",
    "row_stack": "tl.concatenate(xs, axis=0), or tl.stack(xs) for vectors", "true_divide": "tl.divide",
    "tensor_split": "tl.split(x, parts, axis)", "hsplit": "tl.split(x, parts, 1)", "vsplit": "tl.split(x, parts, 0)",
    "diag": _DIAGONAL, "range": "tl.arange", "msort": "tl.sort(x, 0)",
    "logspace": "10.0 ** tl.linspace(start, stop, num)", "bucketize": "tl.searchsorted(boundaries, x)",
    "randint_like": "tl.Tensor(numpy.random.default_rng(seed).integers(low, high, x.shape))",
    "is_floating_point": "x.dtype.kind == 'f'", "Variable": "tl.Tensor(data, requires_grad=True)",
    "BoolTensor": "tl.Tensor(data, dtype='bool')", "IntTensor": "tl.Tensor(data, dtype='int32')",
    "DoubleTensor": "tl.Tensor(data, dtype='float64')", "HalfTensor": "tl.Tensor(data, dtype='float16')",
    "double": "dtype='float64'", "half": "dtype='float16'", "float": "dtype='float32'", "bool": "dtype='bool'",
    "int": "dtype='int32'", "uint8": "dtype='uint8'", "int8": "dtype='int8'", "int16": "dtype='int16'",
    "pi": "numpy.pi", "inf": "numpy.inf", "nan": "numpy.nan", "e": "numpy.e", "newaxis": "None",
    "set_default_dtype": "dtype= of each Tensor, and model.astype(dtype)",
    "vmap": "the function itself, on arrays with an axis in front for the batch",
    "tril_indices": "numpy.tril_indices",
    "func": "tl.grad, tl.vjp, tl.jvp, tl.jacobian, tl.hessian", "triu_indices": "numpy.triu_indices",
    "set_num_threads": "tl.threads(number), in a with statement", "get_num_threads": "tl.thread_count()",
    "detect_anomaly": "tl.debug(), in a with statement", "set_detect_anomaly": "tl.debug(), in a with statement",
    "linalg": "tl.norm, tl.matmul, or numpy.linalg on x.numpy(), without a gradient", "jacrev": "tl.jacobian(f, x)",
    "embedding_bag": "tl.embedding(weight, ids).mean(axis=-2)", "from_file": "tl.load", "to_dlpack": "x.__dlpack__()",
    "GradScaler": "nn.optim.LossScale, which products in fp16 need", "autocast": _BF16, "is_autocast_enabled": _BF16,
    "amp": f"{_BF16}; for fp16 also nn.optim.LossScale", "set_autocast_dtype": _BF16,
    "bfloat16": f"{_BF16}; Tensors stay float32", "BFloat16Tensor": f"{_BF16}; Tensors stay float32",
    "set_float32_matmul_precision": _TF32, "get_float32_matmul_precision": _TF32,
    "backends": f"{_TF32}; tl.get_backend for devices", "jit": _CAPTURE, "CUDAGraph": _CAPTURE,
    "make_graphed_callables": _CAPTURE,
    "bilinear": "tl.einsum('...i,ijk,...j->...k', x, weight, y)", "atleast_1d": "x.reshape((1,)) for a number",
    "interpolate": "x.repeat(2, axis=2).repeat(2, axis=3), for a scale of 2 by nearest neighbours",
    "utils": "nn.optim, tl.checkpoint",
    "broadcast_tensors": "tl.broadcast_to(x, shape)", "result_type": "numpy.result_type(x.dtype, y.dtype)",
    "nn": "the package next to it: import nn", "optim": "from nn import optim",
    "empty": "tl.zeros(shape)", "empty_like": "tl.zeros_like", "numel": "x.size",
    "t": "x.T", "argwhere": "numpy.argwhere(x.numpy())", "nonzero": "numpy.argwhere(x.numpy())",
    "masked_select": "x[mask]", "meshgrid": "numpy.meshgrid", "cdist": "tl.norm(x[:, None] - y, axis=-1)",
    "is_tensor": "isinstance(x, tl.Tensor)",
    "autograd": "tl.grad, tl.jacobian, tl.hessian, tl.Function; tl.debug() for its detect_anomaly",
    "Size": "a tuple", "binary_cross_entropy": "tl.binary_cross_entropy_with_logits, on logits",
    "gumbel_softmax": "tl.softmax(logits + tl.gumbel(logits.shape))",
    "multi_head_attention_forward": "nn.MultiHeadAttention", "compile": f"{_CAPTURE}; there is no compiler",
    "dtype": "a name such as 'float32', or numpy's dtypes",
}  # fmt: skip

# Keywords of functions, layers and optimizers, with our names for them. Which one is meant is seen from the signature.
_KEYWORDS = {
    "dim": "axis axes", "dims": "axis axes", "keepdim": "keepdims", "unbiased": "ddof", "correction": "ddof",
    "start_dim": "start_axis", "end_dim": "end_axis", "shifts": "shift", "src": "source", "num_classes": "classes",
    "input": "x logits log_probs q outputs", "other": "y", "target": "targets", "attn_mask": "visible",
    "src_mask": "visible", "mask": "visible", "dropout_p": "dropout p", "is_causal": "causal", "query": "q x_BTD",
    "key": "k memory_BSD", "value": "v", "need_weights": "return_weights", "device": "backend", "size": "shape",
    "tensors": "xs", "beta": "delta", "split_size_or_sections": "indices_or_sections",
    "p": "ord", "steps": "num", "end": "stop", "exponent": "y",
    "in_features": "in_width", "out_features": "out_width", "num_embeddings": "vocabulary", "embedding_dim": "width",
    "embed_dim": "width", "d_model": "width", "num_heads": "heads", "nhead": "heads", "dim_feedforward": "hidden_width",
    "eps": "step", "atol": "tolerance",
    "normalized_shape": "width", "max_len": "longest", "params": "parameters", "lr": "learning_rate",
    "init_scale": "first", "growth_interval": "grow_after",
}  # fmt: skip

# Keywords with no counterpart, or with one elsewhere.
_ADVICE = {
    "key_padding_mask": "pass visible=, where True marks what may be seen: ~mask, from nn.padding_mask(lengths)",
    "src_key_padding_mask": "pass visible=, where True marks what may be seen: ~mask, from nn.padding_mask(lengths)",
    "average_attn_weights": "average the returned weights (B, H, T, S) by .mean(axis=1)",
    "batch_first": "leave it out: the batch is the first axis",
    "inplace": "leave it out: a Tensor is never changed in place", "out": "leave it out, and write out = ...",
    "training": "leave it out: tl.dropout always drops, nn.Dropout only in training mode",
    "normalized_shape": "leave it out: the last axis is normalized", "bias_k": "leave it out",
    "requires_grad": "set x.requires_grad = True (or False) afterwards; nn.Buffer(x) is not trained",
    "device": "leave it out, and call .to('cupy')", "dtype": "leave it out, and call .astype(dtype)",
    "weight": "multiply the losses of reduction='none' by the weights of their classes",
    "size_average": "use reduction='mean' or 'sum'", "reduce": "use reduction='none', 'mean' or 'sum'",
    "memory_format": "leave it out", "elementwise_affine": "leave it out, or use tl.layer_norm(x) without weights",
    "create_graph": "call tl.grad(y, xs, create_graph=True), which returns the gradients",
    "inputs": "call tl.grad(y, inputs), which returns the gradients", "only_inputs": "leave it out",
    "is_grads_batched": "call tl.grad for each", "rtol": "leave it out: the tolerance is relative",
    "raise_exception": "leave it out: it always raises", "nondet_tol": "leave it out",
    "padding_idx": "leave it out; ignore_index of the loss and `visible` of attention leave out padding",
    "amsgrad": "leave it out", "foreach": "leave it out", "fused": "leave it out", "maximize": "negate the loss",
    "growth_factor": "leave it out: the scale is doubled", "backoff_factor": "leave it out: the scale is halved",
    "enabled": "leave it out", "capturable": "leave it out: each optimizer may be captured",
    "differentiable": "leave it out", "non_blocking": "leave it out", "fullgraph": "leave it out: there is no compiler",
    "mode": "leave it out", "dynamic": "leave it out: each shape is recorded by itself",
    "dampening": "leave it out", "set_to_none": "leave it out: gradients become None", "scale": "scale q instead",
}  # fmt: skip

_UNEXPECTED = re.compile(r"(.*)\(\) got an unexpected keyword argument '(\w+)'")


def with_our_keyword(error: TypeError, function: Callable[..., Any]) -> TypeError:
    """Return Python's error for an unexpected keyword of `function` with our word for it; other errors unchanged."""
    match = _UNEXPECTED.match(str(error))
    if match is None or match[1] != function.__qualname__:  # raised deeper inside
        return error
    advice = _advice(match[2], function)
    return TypeError(f"{match[0]}; {advice}") if advice else error


def _advice(word: str, function: Callable[..., Any]) -> str:
    """Return what to write instead of a keyword of PyTorch that `function` does not have, "" if unknown."""
    parameters = signature(function).parameters
    for ours in _KEYWORDS.get(word, "").split():
        if ours in parameters:
            return f"it is called {ours} here"
    return _ADVICE.get(word, "")


def check_keywords(kind: type, keywords: Any) -> None:
    """Raise TypeError for a keyword of PyTorch that the constructor of `kind` does not have, with our word for it."""
    constructor: Callable[..., Any] = kind.__init__  # type: ignore[misc]  # only its signature is read
    for word in keywords:
        if word not in _KEYWORDS and word not in _ADVICE:
            continue
        parameters = signature(constructor).parameters.values()
        accepted = any(p.name == word or p.kind is Parameter.VAR_KEYWORD for p in parameters)
        if not accepted and (advice := _advice(word, constructor)):
            raise TypeError(f"{kind.__name__}() got an unexpected keyword argument {word!r}; {advice}")


def answering(function: F) -> F:
    """Return `function` with `with_our_keyword` around its errors. A call takes one Python call more."""

    @wraps(function)
    def answered(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except TypeError as error:
            better = with_our_keyword(error, function)
            if better is error:
                raise
        raise better

    return cast(F, answered)


def answer_keywords(names: dict[str, Any], tensor: type) -> None:
    """Wrap the functions among `names` that have options of another name in PyTorch, and the methods that they are.

    A function is replaced in its own module too, so that there is only one of it, as pickle requires.
    """
    options = {"axis", "start_axis", "backend", "targets", "visible", "num", "p", "eps", "classes", "source"}
    options |= {"create_graph", "tolerance", "most"}
    wrapped = {}
    for name, function in list(names.items()):
        if isfunction(function) and options & signature(function).parameters.keys() and not name.startswith("_"):
            names[name] = wrapped[function] = answering(function)
            setattr(sys.modules[function.__module__], name, wrapped[function])
    for name, method in list(vars(tensor).items()):
        if isfunction(method) and method in wrapped:
            setattr(tensor, name, wrapped[method])
    tensor.__init__ = answering(tensor.__init__)  # type: ignore[misc]  # Tensor(x, device="cuda")
    tensor.backward = answering(tensor.backward)  # type: ignore[attr-defined]  # loss.backward(create_graph=True)
