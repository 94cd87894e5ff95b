"""PyTorch's names of methods, attributes and functions, with the expressions to write here instead."""

__all__ = ["CONTEXT_NAMES", "FUNCTION_NAMES", "TENSOR_NAMES"]

_CLEAR = "x.grad = None, or optimizer.zero_grad()"
_ON_GPU = "x.to('cupy')"

# Methods and attributes of Tensor.
TENSOR_NAMES = {
    "view": "x.reshape(shape)", "view_as": "x.reshape(y.shape)", "reshape_as": "x.reshape(y.shape)",
    "permute": "x.transpose(axes)", "t": "x.T", "mT": "x.swapaxes(-1, -2)", "contiguous": "x itself, or x.copy()",
    "unsqueeze": "tl.expand_dims(x, axis)", "expand_dims": "tl.expand_dims(x, axis)", "ravel": "x.flatten()",
    "expand": "x.broadcast_to(shape)", "expand_as": "x.broadcast_to(y.shape)", "clone": "x.copy()",
    "unbind": "tl.unstack(x, axis)", "unstack": "tl.unstack(x, axis)", "chunk": "x.split(parts, axis)",
    "index_select": "x.take(indices, axis)", "masked_select": "x[mask]", "narrow": "a slice, x[start:stop]",
    "select": "an index, x[i]", "take_along_axis": "tl.take_along_axis(x, indices, axis)",
    "dim": "x.ndim", "ndimension": "x.ndim", "numel": "x.size", "nelement": "x.size", "tolist": "x.numpy().tolist()",
    "device": "x.backend", "cuda": _ON_GPU, "cpu": "x.to('numpy')", "is_cuda": "x.backend.name",
    "float": "x.astype('float32')", "double": "x.astype('float64')", "half": "x.astype('float16')",
    "long": "x.astype('int64')", "int": "x.astype('int32')", "bool": "x.astype('bool')", "type": "x.astype(dtype)",
    "type_as": "x.astype(y.dtype)", "grad_fn": "tl.graph(x), which shows how x was computed",
    "requires_grad_": "x.requires_grad = True", "detach_": "x = x.detach()", "zero_": _CLEAR,
    "clamp": "x.clip(low, high)", "pow": "x ** y", "power": "x ** y", "sub": "x - y", "mul": "x * y", "div": "x / y",
    "true_divide": "x / y", "neg": "-x", "mm": "x @ y", "bmm": "x @ y", "mv": "x @ y", "eq": "x == y", "ne": "x != y",
    "lt": "x < y", "le": "x <= y", "gt": "x > y", "ge": "x >= y", "acos": "x.arccos()", "asin": "x.arcsin()",
    "atan": "x.arctan()", "atan2": "x.arctan2(y)", "absolute": "x.abs()",
    "fmod": "tl.sign(x) * tl.remainder(tl.abs(x), tl.abs(y))",
    "where": "tl.where(condition, x, y)", "einsum": "tl.einsum(formula, x, y)", "nonzero": "np.nonzero(x.numpy())",
    "fill_": "tl.full_like(x, value)", "copy_": "x.data = value, for a leaf", "index_add_": "x.index_add(...)",
    "scatter_": "x.scatter(...)", "scatter_add_": "x.scatter_add(...)", "masked_fill_": "x.masked_fill(mask, value)",
    "normal_": "x.data = tl.normal(x.shape), or nn.init", "uniform_": "x.data = tl.uniform(x.shape), or nn.init",
    "gelu": "tl.gelu(x)", "silu": "tl.silu(x)", "nbytes": "x.data.nbytes", "itemsize": "x.dtype.itemsize",
}  # fmt: skip

# Attributes of PyTorch's ctx, for authors of ops.
CONTEXT_NAMES = {
    "save_for_backward": "self.save(...)", "saved_tensor": "self.saved", "needs_input_grad": "self.needs",
    "mark_non_differentiable": "differentiable = False in the class", "ctx": "self",
}  # fmt: skip

# Functions.
FUNCTION_NAMES = {
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
    "float16": "dtype='float16'", "float32": "dtype='float32'", "float64": "dtype='float64'", "int64": "dtype='int64'",
    "int32": "dtype='int32'", "long": "dtype='int64'", "set_grad_enabled": "tl.no_grad", "inference_mode": "tl.no_grad",
    "outer_product": "tl.outer", "var_mean": "tl.var(x, ddof=1) and tl.mean(x)", "allclose": "numpy.allclose",
    "fmod": "tl.sign(x) * tl.remainder(tl.abs(x), tl.abs(y))",
    "nn": "the package next to it: import nn", "optim": "from nn import optim",
}  # fmt: skip
