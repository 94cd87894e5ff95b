// Numbers of 16 bits in memory, as unsigned short: bf16, the upper half of a float, and fp16, IEEE's half precision.
// To the nearest; of two equally near to the one whose last bit is 0; beyond the largest number: infinity.

__device__ inline unsigned short to_bf16(float x) {
    const unsigned int bits = __float_as_uint(x);
    if (x != x) return (bits >> 16) | 64;  // a NaN stays one
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

__device__ inline float from_bf16(unsigned short h) { return __uint_as_float((unsigned int)h << 16); }

__device__ inline unsigned short to_fp16(float x) {
#ifdef __CUDA_ARCH__
    unsigned short h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
#else
    const unsigned int bits = __float_as_uint(x), sign = bits >> 16 & 0x8000;
    unsigned int size = bits & 0x7fffffff;
    if (size > 0x7f800000) return 0x7fff;           // NaN
    if (size >= 0x477ff000) return sign | 0x7c00;   // from 65520: infinity
    if (size < 0x38800000)                          // below 2^-14: multiples of 2^-24, as the last place of 0.5
        return sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000);
    size += 0xfff + (size >> 13 & 1) - (112u << 23);  // fp16's exponents are lower by 112
    return sign | size >> 13;
#endif
}

__device__ inline float from_fp16(unsigned short h) {
    const unsigned int sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    return __uint_as_float(sign | __float_as_uint((float)fraction * 5.9604644775390625e-8f));  // fraction / 2^24
}
