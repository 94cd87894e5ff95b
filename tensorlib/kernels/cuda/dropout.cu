// The steps after a sum or a product in one pass: bias, ReLU, dropout and addition of a residual, each of them optional.
// Each thread computes 16 elements, because a block of Philox holds the bits for 16. Neighboring threads compute
// neighboring elements, so that memory accesses coalesce; all reads are requested before the random bits are computed,
// and before anything is written, because the compiler moves no read above a write.
//
// Cost: a read and a write of every element, at the speed of memory: 6 us at 3 TB/s for the hidden layer of a step of
// small (2,048 x 1,024 float32) or base (1,024 x 2,048), in 512 blocks; the random bits take 3 us of the same time.
#include "philox.cuh"
#include "rows.cuh"
#include "masks.cuh"

constexpr int THREADS = 256;  // in a block; equals THREADS in arrays/cuda.py
constexpr int EACH = 16;      // elements of a thread

// At most 128 registers (255 for double): two blocks of 8 warps share a multiprocessor, with 16 KB of reads on their way.
#define PASS_KERNEL extern "C" __global__ void __launch_bounds__(THREADS, sizeof(real) == 4 ? 2 : 1)

// y = residual + dropout(relu(x + bias)); y may be x. `step` is THREADS % width.
PASS_KERNEL dropout(const real* x, long long size, const real* bias, long long width, long long step, bool relu,
                    unsigned dropped_levels, double scale, const unsigned long long* slot, unsigned long long key0,
                    unsigned long long key1, unsigned long long draw, const real* residual, real* y) {
    __shared__ unsigned short kept[THREADS];
    const long long start = blockIdx.x * (long long)(EACH * THREADS), first = start + threadIdx.x;
    real value[EACH], rest[EACH];
    long long column = 0;  // a division for each thread, not for each element
    if (bias) column = size <= 0x7FFFFFFF ? (int)first % (int)width : first % width;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const long long e = first + i * THREADS;
        if (e >= size) continue;
        value[i] = x[e];
        if (residual) rest[i] = residual[e];
        if (bias) value[i] += bias[column];
        column += step;
        if (column >= width) column -= width;
    }
    if (dropped_levels) {
        draw_kept(draw_at(slot, key0, key1, draw), dropped_levels, start, start + EACH * THREADS, kept);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const long long e = first + i * THREADS;
        if (e >= size) return;
        real v = value[i];
        if (relu && v <= 0) v = 0;  // a NaN stays NaN
        if (dropped_levels) v = is_kept(kept, start >> 4, e) ? v * (real)scale : 0;
        y[e] = residual ? rest[i] + v : v;
    }
}
