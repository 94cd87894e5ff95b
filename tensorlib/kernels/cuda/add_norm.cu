// Layer normalization over the last axis, of z = x or z = x + dropout(s), and its gradient, for rows that fit in
// registers.
//
// blockDim.x threads (a multiple of 32) share a row, and each holds up to HELD of its elements; a block has blockDim.y
// rows at a time. So each array is read or written once, and the variance is the mean of (z - mean)^2.
//
// Cost, at the speed of memory: forward reads x and s and writes y, backward reads dy, x and s and writes dx and ds. For
// 2,048 x 256 (small) or 1,024 x 512 (base) float32, 2 MB each, that is 2 us and 3.5 us at 3 TB/s, in 256 blocks of 8
// warps; the random bits take 1 us of the same time.
#include "philox.cuh"
#include "rows.cuh"
#include "masks.cuh"

constexpr int HELD = 8;             // elements of a thread; as in add_norm.py
constexpr int MOST_THREADS = 512;   // in a block, which limits registers to 128

#define NORM_KERNEL extern "C" __global__ void __launch_bounds__(MOST_THREADS)

// Replace each value by its sum over the threads of the same row. All threads of the block call it.
template <int COUNT>
__device__ inline void over_row(real (&values)[COUNT]) {
    __shared__ real of_warp[COUNT][MOST_THREADS / WARP];
#pragma unroll
    for (int k = 0; k < COUNT; ++k)
        for (int offset = WARP / 2; offset; offset /= 2) values[k] += __shfl_xor_sync(ALL, values[k], offset);
    if (blockDim.x == WARP) return;
    const int warps = blockDim.x / WARP, first = threadIdx.y * warps;
    if (threadIdx.x % WARP == 0)
        for (int k = 0; k < COUNT; ++k) of_warp[k][first + threadIdx.x / WARP] = values[k];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
        values[k] = 0;
        for (int i = 0; i < warps; ++i) values[k] += of_warp[k][first + i];
    }
    __syncthreads();
}

// y = (z - mean) rstd weight + bias,  rstd = 1 / sqrt(mean of (z - mean)^2 + eps).  s may be null.
NORM_KERNEL add_norm(const real* x, const real* s, const real* weight, const real* bias, long long rows, long long width,
                     double eps, unsigned dropped_levels, double scale, const unsigned long long* slot,
                     unsigned long long key0, unsigned long long key1, unsigned long long draw, real* y, real* mean,
                     real* rstd) {
    __shared__ unsigned short kept[MOST_THREADS * HELD / 16 + 2];
    const long long first_row = blockIdx.x * (long long)blockDim.y, row = first_row + threadIdx.y;
    const long long start = row * width, first_random = (first_row * width) >> 4;
    const bool inside = row < rows;
    real z[HELD], branch[HELD];
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const long long j = threadIdx.x + i * blockDim.x;
        const bool mine = inside && j < width;
        z[i] = mine ? x[start + j] : 0;
        branch[i] = mine && s ? s[start + j] : 0;
    }
    if (dropped_levels) {
        const long long last_row = first_row + blockDim.y < rows ? first_row + blockDim.y : rows;
        draw_kept(draw_at(slot, key0, key1, draw), dropped_levels, first_row * width, last_row * width, kept);
        __syncthreads();
    }
    real sum[1] = {0};
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const long long j = threadIdx.x + i * blockDim.x;
        if (!inside || j >= width) continue;
        if (dropped_levels) branch[i] = is_kept(kept, first_random, start + j) ? branch[i] * (real)scale : 0;
        z[i] += branch[i];
        sum[0] += z[i];
    }
    over_row(sum);
    const real centre = sum[0] / width;
    sum[0] = 0;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        z[i] -= centre;
        if (threadIdx.x + i * blockDim.x < width) sum[0] += z[i] * z[i];
    }
    over_row(sum);
    const real inverse = 1 / sqrt(sum[0] / width + (real)eps);
    if (!inside) return;  // no barrier follows
#pragma unroll
    for (int i = 0; i < HELD; ++i) {  // the compiler moves no read above a write, so first all reads
        const long long j = threadIdx.x + i * blockDim.x;
        if (j < width) z[i] = z[i] * inverse * weight[j] + bias[j];
    }
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const long long j = threadIdx.x + i * blockDim.x;
        if (j < width) y[start + j] = z[i];
    }
    if (threadIdx.x == 0) {
        mean[row] = centre;
        rstd[row] = inverse;
    }
}

// With h = (z - mean) rstd and g = dy weight:  dz = rstd (g - mean(g) - h mean(g h)) = dx,  ds = dz · mask.
// A block has `chunk` rows, a multiple of blockDim.y, and writes the sums over them of dy h and of dy, the gradients of
// weight and bias, to sums (chunks, 2, width). s, dx, ds and sums may be null.
NORM_KERNEL add_norm_gradient(const real* dy, const real* x, const real* s, const real* weight, const real* mean,
                              const real* rstd, long long rows, long long width, long long chunk,
                              unsigned dropped_levels, double scale, const unsigned long long* slot,
                              unsigned long long key0, unsigned long long key1, unsigned long long draw, real* dx,
                              real* ds, real* sums) {
    __shared__ unsigned short kept[MOST_THREADS * HELD / 16 + 2];
    __shared__ real of_thread[2][MOST_THREADS];
    real factor[HELD], products[HELD], plain[HELD];
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const long long j = threadIdx.x + i * blockDim.x;
        factor[i] = j < width ? weight[j] : 0;
        products[i] = plain[i] = 0;
    }
    const long long begin = blockIdx.x * chunk, end = begin + chunk < rows ? begin + chunk : rows;
    for (long long first_row = begin; first_row < end; first_row += blockDim.y) {
        const long long row = first_row + threadIdx.y, start = row * width, first_random = (first_row * width) >> 4;
        const bool inside = row < end;
        const real centre = inside ? mean[row] : 0, inverse = inside ? rstd[row] : 0;
        real g[HELD], h[HELD], branch[HELD];
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const long long j = threadIdx.x + i * blockDim.x;
            const bool mine = inside && j < width;
            g[i] = mine ? dy[start + j] : 0;
            h[i] = mine ? x[start + j] : 0;
            branch[i] = mine && s ? s[start + j] : 0;
        }
        if (dropped_levels) {
            const long long last_row = first_row + blockDim.y < end ? first_row + blockDim.y : end;
            __syncthreads();  // of the rows before, all bits have been read
            draw_kept(draw_at(slot, key0, key1, draw), dropped_levels, first_row * width, last_row * width, kept);
            __syncthreads();
        }
        real total[2] = {0, 0};  // of g, and of g h
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const long long j = threadIdx.x + i * blockDim.x;
            if (!inside || j >= width) continue;
            if (dropped_levels) branch[i] = is_kept(kept, first_random, start + j) ? branch[i] * (real)scale : 0;
            h[i] = (h[i] + branch[i] - centre) * inverse;
            products[i] += g[i] * h[i];
            plain[i] += g[i];
            g[i] *= factor[i];
            total[0] += g[i];
            total[1] += g[i] * h[i];
        }
        if (!dx && !ds) continue;  // the same for all threads
        over_row(total);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const long long j = threadIdx.x + i * blockDim.x;
            if (!inside || j >= width) continue;
            const real dz = inverse * (g[i] - (total[0] + h[i] * total[1]) / width);
            if (dx) dx[start + j] = dz;
            if (ds) ds[start + j] = !dropped_levels || is_kept(kept, first_random, start + j) ? dz * (real)scale : 0;
        }
    }
    if (!sums) return;
    sums += 2 * blockIdx.x * width;
    const int mine = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const long long j = threadIdx.x + i * blockDim.x;
        __syncthreads();
        of_thread[0][mine] = products[i];
        of_thread[1][mine] = plain[i];
        __syncthreads();
        if (threadIdx.y || j >= width) continue;
        real product = 0, sum = 0;
        for (int y = 0; y < blockDim.y; ++y) {
            product += of_thread[0][y * blockDim.x + threadIdx.x];
            sum += of_thread[1][y * blockDim.x + threadIdx.x];
        }
        sums[j] = product;
        sums[width + j] = sum;
    }
}
