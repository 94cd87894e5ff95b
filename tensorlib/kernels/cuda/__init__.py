"""Kernels for CuPy arrays, registered when CuPy's backend is first used.

At the sizes of a translation model the time of a step on a GPU goes to launches, not to arithmetic: a formula of ten
NumPy calls is ten launches, a kernel is one. The kernels compute in the dtype of their arrays, float32 or float64; for
anything else the formula computes.
"""

from tensorlib.kernels.cuda import crossentropy, dropout, linear, normalize, softmax, update

__all__ = ["crossentropy", "dropout", "linear", "normalize", "softmax", "update"]
