"""Kernels compiled by Numba: the loops of the formulas, written in Python, a row at a time.

They replace the kernels for NumPy where Numba is installed, and serve float32 and float64; for anything else they call
the kernel that they replace. Numba is imported when the first of them is called, which takes half a second, and each
file of this room when one of its own is.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np

from tensorlib.arrays.threads import stay_awake
from tensorlib.ops import linalg

__all__ = ["FILES", "available", "overrides", "register", "replaced"]

FILES = {
    "activations": ("gelu_formula", "gelu_gradient"),
    "add_norm": ("add_norm_formula", "add_norm_gradient"),
    "attention": ("attention_formula", "attention_gradient"),
    "crossentropy": ("cross_entropy_formula", "cross_entropy_gradient"),
    "dropout": ("dropout_formula", "add_dropout_formula"),
    "feed_forward": ("feed_forward_formula", "feed_forward_gradient"),
    "indexing": ("sum_rows_formula",),
    "linear": ("linear_formula", "linear_gradient", "linear_relu_formula", "linear_relu_gradient"),
    "linear_cross_entropy": ("linear_cross_entropy_formula",),
    "multi_head_attention": (
        "cross_attention_formula",
        "cross_attention_gradient",
        "self_attention_formula",
        "self_attention_gradient",
    ),
    "next_position": ("decoder_step", "largest_and_total", "panels_of", "panel_product"),
    "normalize": ("layer_norm_formula", "layer_norm_gradient"),
    "recurrent": (
        "gru_steps",
        "gru_steps_gradient",
        "lstm_steps",
        "lstm_steps_gradient",
        "rnn_steps",
        "rnn_steps_gradient",
    ),
    "softmax": ("softmax_formula", "softmax_gradient"),
    "update": ("adam_update", "average_update", "sgd_update"),
}
_CONNECTING = Lock()
_REPLACED: dict[Any, Callable[..., Any]] = {}  # by formula, the kernel for NumPy


def available() -> bool:
    """Return whether Numba is installed; it is not imported."""
    return find_spec("numba") is not None


def register(formulas: dict[str, Any]) -> None:
    """Register for each formula of `FILES` a function that imports its file and then calls the kernel."""
    for file, names in FILES.items():
        for name in names:
            formula = formulas[name]
            if formula not in _REPLACED:
                _REPLACED[formula] = formula.dispatch(np.ndarray)
                formula.register(np.ndarray, _first_call(formula, file))


def _first_call(formula: Any, file: str) -> Callable[..., Any]:
    def load_and_call(*arguments: Any, **options: Any) -> Any:
        try:
            _import_numba()
            waiting = import_module(f"{__name__}.waiting")
            if waiting.can_wait():
                stay_awake(waiting.wait_for_change)
            import_module(f"{__name__}.{file}")
        except ImportError as error:  # Numba refuses this version of NumPy or Python
            warnings.warn(f"tensorlib: no compiled kernels, because Numba cannot be imported: {error}", stacklevel=2)
            for other, kernel in _REPLACED.items():
                other.register(np.ndarray, kernel)
        return formula(*arguments, **options)

    return load_and_call


def bf16_ready() -> str | None:
    """Prepare products in bf16; return None or, if this machine does not have them, what they require."""
    if linalg.product in _REPLACED:
        return None
    try:
        _import_numba()
        onednn = import_module(f"{__name__}.onednn")
    except ImportError as error:
        return f"requires Numba, which cannot be imported: {error}"
    if not onednn.has_instructions():
        return "requires a processor with AVX512_BF16 instructions, and this one has none; use float32"
    functions = onednn.functions_of_onednn()
    if functions is None:
        return 'requires oneDNN; pip install -e ".[bf16]"'
    if not import_module(f"{__name__}.blas").FOUND:
        return "requires a NumPy that brings its own OpenBLAS, as its wheels do; pip install numpy"
    if not onednn.check(functions.product):
        return "products of the installed oneDNN are wrong on this processor; use float32"
    connect_bf16(functions)
    return None


def connect_bf16(functions: Any) -> None:
    """Let compiled kernels multiply bf16 matrices by these functions (onednn.py); once, the first ones stay."""
    with _CONNECTING:
        if linalg.product in _REPLACED:
            return
        import_module(f"{__name__}.onednn").connect(functions)
        import_module(f"{__name__}.blas").compile_for_bf16()
        kernel, before = import_module(f"{__name__}.product").product_in_bf16, linalg.product.dispatch(np.ndarray)
        linalg.product.register(np.ndarray, partial(kernel, before))
        _REPLACED[linalg.product] = before  # last: another thread takes it for the sign that all is ready


def _import_numba() -> None:
    """Import Numba without colors in its error messages, for which it would change the terminal when a program ends."""
    switch = "NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING"
    if "numba" in sys.modules or switch in os.environ:
        return
    os.environ[switch] = "1"
    try:
        import_module("numba")
    finally:
        os.environ.pop(switch, None)


def replaced(formula: Any) -> Callable[..., Any] | None:
    """Return the kernel for NumPy that a compiled kernel replaces, or None if there is no compiled one."""
    return _REPLACED.get(formula)


def overrides(formula: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that registers a kernel; its first argument is the kernel that it replaces."""
    before = _REPLACED[formula]

    def decorate(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return kernel(before, *arguments, **options)

        call.__name__, call.__doc__, call.__module__ = kernel.__name__, kernel.__doc__, kernel.__module__
        formula.register(np.ndarray, call)
        return kernel

    return decorate
