"""Kernels for CuPy arrays, registered when CuPy's backend is first used.

At the sizes of a translation model a GPU's step costs launches, not arithmetic: a formula of ten NumPy calls is ten
launches, a kernel is one. The kernels compute in the dtype of their arrays, float32 or float64; anything else goes to
the formula.
"""

from tensorlib.kernels.cuda import crossentropy, dropout, normalize, softmax, update

__all__ = ["crossentropy", "dropout", "normalize", "softmax", "update"]
