// The steps after a sum or a product in one pass: bias, ReLU, dropout and addition of a residual, each of them optional.
// Each thread computes 16 elements, because a block of Philox holds the bits for 16. Neighboring threads compute
// neighboring elements, so that memory accesses coalesce.
#include "philox.cuh"
#include "rows.cuh"

constexpr int THREADS = 256;  // in a block; equals THREADS in arrays/cuda.py

extern "C" __global__ void dropout(const real* x, long long size, const real* bias, long long width, bool relu,
                                   unsigned dropped_levels, double scale, const unsigned long long* slot,
                                   unsigned long long key0, unsigned long long key1, unsigned long long draw,
                                   const real* residual, real* y) {
    __shared__ PhiloxBlock random[THREADS];
    const long long first = blockIdx.x * (long long)THREADS;
    if (dropped_levels) random[threadIdx.x] = philox_block(draw_at(slot, key0, key1, draw), first + threadIdx.x);
    __syncthreads();
    for (int i = threadIdx.x; i < 16 * THREADS && 16 * first + i < size; i += THREADS) {
        const long long e = 16 * first + i;
        real value = x[e];
        if (bias) value += bias[e % width];
        if (relu && value <= 0) value = 0;  // a NaN stays NaN
        if (dropped_levels) value = random[i / 16].bits16(i % 16) >= dropped_levels ? value * (real)scale : 0;
        y[e] = residual ? residual[e] + value : value;
    }
}
