"""`precision`: how exact the operands of matrix products are. Everything else stays float32."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from tensorlib.arrays.backend import get_backend
from tensorlib.engine.recording import Scope, recording
from tensorlib.kernels import chosen
from tensorlib.messages import shown

__all__ = ["precision"]

# The compute capability of the first GPUs that multiply numbers of this format.
CAPABILITY = {"tf32": 80, "bf16": 80, "fp16": 70}
NAMES = ("float32", *CAPABILITY)
GPU_ONLY = ("tf32", "fp16")
OTHER_NAMES = {  # of other libraries, in lower case; the last three are those of PyTorch's float32_matmul_precision
    **dict.fromkeys(("fp32", "f32", "float", "single", "full", "32", "highest"), "float32"),
    **dict.fromkeys(("tfloat32", "tensorfloat32", "tf-32", "tensorfloat-32", "high"), "tf32"),
    **dict.fromkeys(("bfloat16", "bf-16", "bfp16", "medium"), "bf16"),
    **dict.fromkeys(("float16", "half", "f16", "16"), "fp16"),
}


def precision(name: str) -> Scope:
    """Let the matrix products inside compute with operands of less precision, which is faster.

    name: "float32", the default, changes nothing. The others round both float32 operands of a product; the products
    are added up in float32:

    - "tf32": 10 bits of fraction, a relative error of at most 2^-11 = 0.05 %; on a GPU.
    - "bf16": 7 bits, an error of at most 2^-8 = 0.4 %, and the range of float32; on a GPU, and on a CPU that has it.
    - "fp16": 10 bits, but no numbers beyond 65,504, and few below 6e-5; on a GPU. Small gradients vanish in it, and
      large ones become infinite, so training scales the loss: `nn.optim.LossScale`.

    Tensors, weights, statistics, softmax, losses and the optimizer stay float32, and so do float64 Tensors. The
    gradient of an op is computed in the precision in which the op ran. On a GPU every product is rounded, those inside
    attention too; on a CPU those within attention, and products of few rows, stay exact. Use it as a context manager or
    a decorator.

    TF32 and bf16 require a GPU of compute capability 8.0, as the A100, fp16 one of 7.0. On a CPU, bf16 requires a
    processor that multiplies bf16 numbers (AVX512_BF16), oneDNN and Numba; see docs/kernels.md.

    Raises ValueError for any other name, and ValueError or RuntimeError, with the reason, if neither a GPU nor the CPU
    has it. What only the GPU has raises RuntimeError when a layer multiplies NumPy's arrays inside.

    >>> x = tl.ones((2, 3))
    >>> with tl.precision("float32"):
    ...     y = x @ x.T
    """
    if (problem := refusal(name)) is not None:
        raise problem
    return recording(precision=name)


def refusal(name: Any, backend: str | None = None) -> Exception | None:
    """Return the error for a precision that is unknown, or that products on a backend don't have.

    backend: "numpy" or "cupy"; None accepts what either has, and names what the CPU lacks if no GPU answers.
    """
    if not isinstance(name, str) or name not in NAMES:
        meant = _meant(name)
        remedy = f"; did you mean {meant!r}?" if meant else ""
        return ValueError(f"precision: must be {', '.join(NAMES[:-1])} or {NAMES[-1]}, got {shown(name)}{remedy}")
    if name == "float32":
        return None
    if backend == "cupy":
        return _refused_by_gpu(name)
    by_cpu = _refused_by_cpu(name)
    if by_cpu is None or backend == "numpy":
        return by_cpu
    try:
        get_backend("cupy")
    except RuntimeError:
        return by_cpu
    return _refused_by_gpu(name)


def _meant(name: Any) -> str:
    """Return the precision that a name of another library, or a dtype, probably means; "" if it is unclear."""
    word = str(name.__name__ if isinstance(name, type) else name).lower().rpartition(".")[2]  # torch.bfloat16
    close = get_close_matches(word, NAMES, 1, cutoff=0.75)
    return word if word in NAMES else OTHER_NAMES.get(word) or (close[0] if close else "")


def _refused_by_cpu(name: str) -> Exception | None:
    if name in GPU_ONLY:
        return ValueError(f"precision: {name} requires a GPU, because CPUs do not multiply it; use float32 or bf16")
    if chosen() != "numba":
        return RuntimeError(
            'precision: bf16 requires kernels compiled by Numba; pip install -e ".[bf16]" and unset TENSORLIB_KERNELS'
        )
    from tensorlib.kernels.numba import bf16_ready

    missing = bf16_ready()
    return None if missing is None else RuntimeError(f"precision: bf16 {missing}")


def _refused_by_gpu(name: str) -> Exception | None:
    if chosen() == "0":
        return RuntimeError(f"precision: {name} requires kernels on a GPU; unset TENSORLIB_KERNELS")
    try:
        device = get_backend("cupy").xp.cuda.Device()
    except RuntimeError as error:
        return error
    found, least = int(device.compute_capability), CAPABILITY[name]
    if found >= least:
        return None
    return RuntimeError(
        f"precision: {name} requires a GPU of compute capability {least / 10}, got {found / 10}; use float32"
    )
