// float16 in memory: 1 sign bit, 5 bits of exponent, 10 of mantissa. Arithmetic is in float.

struct float16 {
    unsigned short bits;
};

__device__ inline float half_to_float(unsigned short bits) {
    const unsigned sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31, mantissa = bits & 0x3FFu;
    if (exponent == 31) return __uint_as_float(sign | 0x7F800000u | mantissa << 13);  // infinite or NaN
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    const float small = mantissa * 5.9604644775390625e-8f;  // 2^-24, the spacing of the smallest numbers
    return sign ? -small : small;
}

// Rounds to the nearest number, of two equally near ones to the even one.
__device__ inline unsigned short float_to_half(float value) {
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
    if (size > 0x7F800000u) return sign | 0x7E00u;    // NaN
    if (size >= 0x477FF000u) return sign | 0x7C00u;   // 65520 and more are infinite
    if (size < 0x38800000u) {                         // below 2^-14: a multiple of 2^-24, which the addition rounds to
        const float shifted = __uint_as_float(size) + 0.5f;  // from 0.5 on, floats have the spacing 2^-24
        return sign | (__float_as_uint(shifted) - 0x3F000000u);
    }
    return sign | ((size - 0x38000000u + 0xFFFu + (size >> 13 & 1)) >> 13);
}
