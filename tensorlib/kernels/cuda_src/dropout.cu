// What follows a sum or a product, in one pass: bias, ReLU, dropout, and the residual to which it is added, each where
// there is one. Thread i makes elements 16 i to 16 i + 15, for which one block of Philox holds the bits.
#include "philox.cuh"
#include "rows.cuh"

extern "C" __global__ void dropout(const real* x, long long size, const real* bias, long long width, bool relu,
                                   unsigned dropped_levels, double scale, unsigned long long key0,
                                   unsigned long long key1, unsigned long long draw, const real* residual, real* y) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (16 * i >= size) return;
    PhiloxBlock random;
    if (dropped_levels) random = philox_block(key0, key1, draw, i);
    const long long end = 16 * i + 16 < size ? 16 * i + 16 : size;
    for (long long e = 16 * i; e < end; ++e) {
        real value = x[e];
        if (bias) value += bias[e % width];
        if (relu && value <= 0) value = 0;  // a NaN stays one
        if (dropped_levels) value = random.bits16(e - 16 * i) >= dropped_levels ? value * (real)scale : 0;
        y[e] = residual ? residual[e] + value : value;
    }
}
