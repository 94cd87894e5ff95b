"""Numbers of 16 bits with the exponent of float32: bf16, "brain floating point"."""

from __future__ import annotations

from tensorlib.arrays.backend import Array, namespace_of

__all__: list[str] = []


def rounded_to_bf16(x: Array) -> Array:
    """Return float32 numbers rounded to bf16, as float32; arrays of other dtypes are returned as they are.

    bf16 is the upper half of float32: a sign, 8 bits of exponent and 7 of fraction, so the relative error is at most
    2^-8. To the nearest, and of two equally near to the one whose last bit is 0: add just under half of the last place
    that stays, and 1 more if that place is odd; then drop the lower half. Beyond the largest number: infinity.
    """
    if x.dtype != "float32":
        return x
    xp = namespace_of(x)
    bits = xp.ascontiguousarray(x).reshape(x.shape).view("uint32")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) & 0xFFFF0000
    return xp.where(xp.isnan(x), x, rounded.astype("uint32").view("float32"))
