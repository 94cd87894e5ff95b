// bf16 in memory: the upper half of a float, with 8 bits of exponent and 7 of fraction. Arithmetic is in float.

// Rounds to the nearest number, of two equally near ones to the even one; beyond the largest number: infinity.
__device__ inline unsigned short float_to_bf16(float value) {
    const unsigned bits = __float_as_uint(value);
    if (value != value) return bits >> 16 | 64;  // a NaN stays one
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

__device__ inline float bf16_to_float(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }
