// Sums over all rows, for the gradients of biases. Cost: one pass over the matrix, at the speed of memory: 2,048 x 1,024
// numbers of float32 take 3 us at 3 TB/s. The chunks are chosen (columns.py) so that about 528 blocks of 8 warps run, four
// for each of an H100's 132 multiprocessors.
#include "rows.cuh"
#include "columns.cuh"

struct Plain {
    const real* x;
    real value[COLUMNS];
    __device__ void column(long long, int) {}
    __device__ void load(long long e, int k) { value[k] = x[e]; }
    __device__ void row(long long) {}
    __device__ real at(long long, long long, int k) { return value[k]; }
};

// sums[chunk, c] = sum of x[r, c] over the rows of a chunk.
extern "C" __global__ void column_sums(const real* x, long long rows, long long width, long long chunk, real* sums) {
    over_columns(Plain{x}, rows, width, chunk, sums);
}

struct ReluGradient {
    const real* dy;
    const real* y;
    real scale;
    real* dz;
    real value[COLUMNS], output[COLUMNS];
    __device__ void column(long long, int) {}
    __device__ void load(long long e, int k) {
        value[k] = dy[e];
        output[k] = y[e];
    }
    __device__ void row(long long) {}
    __device__ real at(long long e, long long, int k) {
        return dz[e] = output[k] <= 0 ? 0 : value[k] * scale;  // dy flows to a NaN
    }
};

// dz = dy * scale where y > 0, else 0, and its sums over chunks of rows. dz may be dy. Three passes over memory: 8 us for
// 2,048 x 1,024 (small), 8 us for 1,024 x 2,048 (base).
extern "C" __global__ void relu_gradient(const real* dy, const real* y, double scale, long long rows, long long width,
                                         long long chunk, real* dz, real* sums) {
    over_columns(ReluGradient{dy, y, (real)scale, dz}, rows, width, chunk, sums);
}

// out[c] = sum of parts[i, c] over the `count` parts, added to what is there if `more`. A block of 32 x 32 threads has 32
// columns.
ROW_KERNEL sum_parts(const real* parts, long long count, long long width, bool more, real* out) {
    __shared__ real of_row[WARP][WARP];
    const long long column = blockIdx.x * (long long)WARP + threadIdx.x;
    real total = 0;
    if (column < width)
#pragma unroll 4
        for (long long i = threadIdx.y; i < count; i += WARP) total += parts[i * width + column];
    of_row[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y || column >= width) return;
    for (int i = 1; i < WARP; ++i) total += of_row[i][threadIdx.x];
    out[column] = more ? out[column] + total : total;
}
