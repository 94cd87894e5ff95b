"""exp, tanh, erf and the logistic function as arithmetic that the compiler turns into vector instructions.

float32: polynomials, with errors of at most 2 units in the last place (ulp) for exp, 2 for tanh, 2 for erf and 4 for
the logistic function, which tests/kernels/test_compiled.py measures. float64: the functions of the C library, one
number at a time. Coefficients are fits by weighted least squares at Chebyshev points, made in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from tensorlib.kernels.numba.compiling import inlined_contracted

__all__ = ["erf", "exp", "in_order", "out_of_order", "sigmoid", "tanh"]

f32, f64, i32, i64 = np.float32, np.float64, np.int32, np.int64

ROUNDER = f32(1.5 * 2**23)  # adding it leaves the nearest integer in the low bits
ROUNDER_BITS = ROUNDER.view(i32)
LOG2_E = f32(1 / math.log(2))
LN2_HIGH = f32(0.693359375)  # few bits, so that n · LN2_HIGH is exact
LN2_LOW = f32(math.log(2) - 0.693359375)
LEAST, MOST = f32(-104.0), f32(89.0)  # beyond these, exp is 0 and infinity
E2, E3, E4, E5, E6 = (
    f32(c) for c in (0.4999999305071229, 0.16666514791278386, 0.04166845678980968, 0.008369418846512409,
                     0.0013813144392936533)
)  # fmt: skip
SMALL = f32(0.625)
T1, T2, T3, T4, T5 = (
    f32(c) for c in (-0.3333324892843379, 0.13330543567727438, -0.053665054843851354, 0.020397979871037555,
                     -0.005439453481986421)
)  # fmt: skip
ONE, TWO, HALF = f32(1), f32(2), f32(0.5)
S0, S1, S2, S3, S4, S5, S6 = (
    f32(c) for c in (0.1283791657279576, -0.37612625827636065, 0.1128358517529284, -0.026853812835504698,
                     0.005188329166885344, -0.0008010205349554406, 7.853897109544317e-05)
)  # fmt: skip  # of erf(x) / x - 1
L0, L1, L2, L3, L4, L5, L6, L7 = (
    f32(c) for c in (-0.00018245943732092215, 1.1295520377443662, 0.6332724212621645, 0.10836154396292791,
                     -0.02517180314433809, 0.004190853603248668, -0.00043852948329570207, 2.144552591976101e-05)
)  # fmt: skip  # of -log(1 - erf(x)) for x from 1 to 4


@inlined_contracted
def _exp32(x: Any) -> Any:
    """e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2, e^r = 1 + r + r^2 q(r)."""
    near = LEAST if x < LEAST else x  # a NaN stays
    near = MOST if near > MOST else near
    shifted = near * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (near - n * LN2_HIGH) - n * LN2_LOW
    q = (((E6 * r + E5) * r + E4) * r + E3) * r + E2
    y = (q * (r * r) + r) + ONE
    exponent = i32(f32(shifted).view(i32) - ROUNDER_BITS)  # n as an integer
    half = i32(exponent >> i32(1))  # 2^n in two factors, because it may exceed the largest number or be denormal
    first = i32((half + i32(127)) << i32(23)).view(f32)
    second = i32((exponent - half + i32(127)) << i32(23)).view(f32)
    return y * first * second


@inlined_contracted
def _tanh32(x: Any) -> Any:
    """Tanh |x| = 1 - 2 / (e^2|x| + 1), and near 0, where that would lose digits, x + x^3 p(x^2)."""
    size = abs(x)
    z = x * x
    near = (((((T5 * z + T4) * z + T3) * z + T2) * z + T1) * z) * x + x
    far = ONE - TWO / (_exp32(size + size) + ONE)
    return near if size < SMALL else (-far if x < 0 else far)


@inlined_contracted
def _erf32(x: Any) -> Any:
    """X (1 + p(x^2)) up to 1, and 1 - exp(-p(|x|)) beyond."""
    size = abs(x)
    z = x * x
    near = ((((((S6 * z + S5) * z + S4) * z + S3) * z + S2) * z + S1) * z + S0) * x + x
    most = f32(4)
    t = most if size > most else size
    logarithm = ((((((L7 * t + L6) * t + L5) * t + L4) * t + L3) * t + L2) * t + L1) * t + L0
    far = ONE - _exp32(-logarithm)
    far = -far if x < 0 else far
    return near if size < ONE else (far if size >= ONE else x)


@inlined_contracted
def _sigmoid32(x: Any) -> Any:
    """1 / (1 + e^-x), written with e^-|x|, which never overflows."""
    e = _exp32(-abs(x))
    return (ONE if x >= 0 else e) / (ONE + e)


@inlined_contracted
def _sigmoid64(x: Any) -> Any:
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


def exp(x: Any) -> Any:
    """Return e^x."""


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""


def erf(x: Any) -> Any:
    """Return the error function."""


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + e^-x)."""


def in_order(x: Any) -> Any:
    """Return an integer that is larger for larger x; a NaN gives the largest or the smallest one.

    Vector instructions find the largest of several integers, but not of numbers, among which there may be a NaN.
    """


def out_of_order(b: Any) -> Any:
    """Return the number x with in_order(x) = b."""


@overload(in_order, jit_options={"forceinline": True})
def _in_order(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: i32(_flipped(f32(x).view(i32), i32(31), i32(2**31 - 1)))
    return lambda x: _flipped(f64(x).view(i64), i64(63), i64(2**63 - 1))


@overload(out_of_order, jit_options={"forceinline": True})
def _out_of_order(b):  # type: ignore[no-untyped-def]
    if b == types.int32:
        return lambda b: i32(_flipped(b, i32(31), i32(2**31 - 1))).view(f32)
    return lambda b: i64(_flipped(b, i64(63), i64(2**63 - 1))).view(f64)


@inlined_contracted
def _flipped(b: Any, sign: Any, magnitude: Any) -> Any:
    """Flip the magnitude bits of negative numbers, for which more bits mean a smaller number."""
    return b ^ ((b >> sign) & magnitude)


def _by_dtype(function: Any, single: Any, double: Any) -> None:
    """Let compiled code that calls `function` compute float32 by `single` and float64 by `double`."""

    @overload(function, jit_options={"forceinline": True})
    def choose(x):  # type: ignore[no-untyped-def]  # Numba compares its signature with that of the lambdas
        if x == types.float32:
            return lambda x: single(x)
        return lambda x: double(x)


_by_dtype(exp, _exp32, math.exp)
_by_dtype(tanh, _tanh32, math.tanh)
_by_dtype(erf, _erf32, math.erf)
_by_dtype(sigmoid, _sigmoid32, _sigmoid64)
