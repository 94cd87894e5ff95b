// Heads of attention laid out for products, and joined again, with the bias and its gradient on the way.
//
// Columns part · H K + h K + k of a projection (B, L, parts · H K) are element k of head h of queries, keys or values, which
// lie at (part, b, h, l, k). Threads (32, 8) of a block have 32 columns, and 8 rows at a time of `chunk` rows.
//
// Bounded by memory, 8 bytes an element in float32: 3.1 million elements of queries, keys and values at base take 8
// microseconds at 3 TB/s, at small (1.6 million) 4.
#include "rows.cuh"

constexpr int SIDE = 8;
constexpr int AT_ONCE = 4;  // rows that a thread reads before it writes one: all its rows of a chunk of 32

struct Heads {
    long long batch, length, heads, width, columns, rows;

    // The address in `split` of a column's elements in sentence 0, position 0.
    template <class Number>
    __device__ Number* at(Number* split, long long column) const {
        const long long all = heads * width, part = column / all, head = column % all / width;
        return split + (part * batch * heads + head) * length * width + column % width;
    }
};

// For the rows of this thread: value = load(row, offset) of AT_ONCE rows, then store(row, offset, value) of each. `offset`
// is the distance of the row's elements from `Heads::at`. The compiler moves no read above a write, and a thread that waits
// for each element would use a fraction of the memory's speed.
template <class Load, class Store>
__device__ inline void over_rows(const Heads& h, long long chunk, Load load, Store store) {
    const long long begin = blockIdx.y * chunk + threadIdx.y;
    const long long end = (blockIdx.y + 1) * chunk < h.rows ? (blockIdx.y + 1) * chunk : h.rows;
    long long b = begin / h.length, t = begin % h.length;  // once; later positions are counted on, not divided
    for (long long row = begin; row < end; row += AT_ONCE * SIDE) {
        long long offset[AT_ONCE];
        real value[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            offset[k] = (b * h.heads * h.length + t) * h.width;
            if (row + k * SIDE < end) value[k] = load(row + k * SIDE, offset[k]);
            for (t += SIDE; t >= h.length; t -= h.length) ++b;
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k)
            if (row + k * SIDE < end) store(row + k * SIDE, offset[k], value[k]);
    }
}

// split = z + bias, laid out by heads; no bias if null.
extern "C" __global__ void split_heads(const real* __restrict__ z, const real* __restrict__ bias, long long batch,
                                       long long length, long long heads, long long width, long long columns,
                                       long long chunk, real* __restrict__ split) {
    const Heads h = {batch, length, heads, width, columns, batch * length};
    const long long column = blockIdx.x * WARP + threadIdx.x;
    if (column >= columns) return;
    real* __restrict__ to = h.at(split, column);
    const real* __restrict__ from = z + column;
    const auto load = [&](long long row, long long) { return from[row * columns]; };
    if (!bias) {
        over_rows(h, chunk, load, [&](long long, long long offset, real value) { to[offset] = value; });
        return;
    }
    const real added = bias[column];
    over_rows(h, chunk, load, [&](long long, long long offset, real value) { to[offset] = value + added; });
}

// z = the heads side by side again. Sums of its columns over each chunk are written to `sums` (chunks, columns), if given.
extern "C" __global__ void join_heads(const real* __restrict__ split, long long batch, long long length,
                                      long long heads, long long width, long long columns, long long chunk,
                                      real* __restrict__ z, real* __restrict__ sums) {
    const Heads h = {batch, length, heads, width, columns, batch * length};
    const long long column = blockIdx.x * WARP + threadIdx.x;
    real sum = 0;
    if (column < columns) {
        const real* __restrict__ from = h.at(split, column);
        over_rows(
            h, chunk, [&](long long, long long offset) { return from[offset]; },
            [&](long long row, long long, real value) {
                z[row * columns + column] = value;
                sum += value;
            });
    }
    if (!sums) return;  // all threads
    __shared__ real parts[SIDE][WARP];
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= columns) return;
    for (int i = 1; i < SIDE; ++i) sum += parts[i][threadIdx.x];
    sums[blockIdx.y * columns + column] = sum;
}
