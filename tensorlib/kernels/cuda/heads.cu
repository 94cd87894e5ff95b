// Heads of attention laid out for products, and joined again, with the bias and its gradient on the way.
//
// Columns part · H K + h K + k of a projection (B, L, parts · H K) are element k of head h of queries, keys or values, which
// lie at (part, b, h, l, k). Threads (32, 8) of a block have 32 columns, and 8 rows at a time of `chunk` rows.
//
// Bounded by memory, 8 bytes an element in float32: 3.1 million elements of queries, keys and values at base take 8
// microseconds at 3 TB/s, at small (1.6 million) 4.
#include "rows.cuh"

constexpr int SIDE = 8;

struct Heads {
    long long batch, length, heads, width, columns, rows;

    // The address in `split` of a column's elements in sentence 0, position 0.
    template <class Number>
    __device__ Number* at(Number* split, long long column) const {
        const long long all = heads * width, part = column / all, head = column % all / width;
        return split + (part * batch * heads + head) * length * width + column % width;
    }
};

// Calls f(row, offset) for the rows of this thread; offset is the distance of the row's elements from `Heads::at`.
template <class F>
__device__ inline void over_rows(const Heads& h, long long chunk, F f) {
    const long long begin = blockIdx.y * chunk + threadIdx.y;
    const long long end = (blockIdx.y + 1) * chunk < h.rows ? (blockIdx.y + 1) * chunk : h.rows;
    long long b = begin / h.length, t = begin % h.length;  // once; later positions are counted on, not divided
    for (long long row = begin; row < end; row += SIDE) {
        f(row, (b * h.heads * h.length + t) * h.width);
        for (t += SIDE; t >= h.length; t -= h.length) ++b;
    }
}

// split = z + bias, laid out by heads; no bias if null.
extern "C" __global__ void split_heads(const real* z, const real* bias, long long batch, long long length,
                                       long long heads, long long width, long long columns, long long chunk,
                                       real* split) {
    const Heads h = {batch, length, heads, width, columns, batch * length};
    const long long column = blockIdx.x * WARP + threadIdx.x;
    if (column >= columns) return;
    real* to = h.at(split, column);
    const real* from = z + column;
    if (!bias) {
        over_rows(h, chunk, [&](long long row, long long offset) { to[offset] = from[row * columns]; });
        return;
    }
    const real added = bias[column];
    over_rows(h, chunk, [&](long long row, long long offset) { to[offset] = from[row * columns] + added; });
}

// z = the heads side by side again. Sums of its columns over each chunk are written to `sums` (chunks, columns), if given.
extern "C" __global__ void join_heads(const real* split, long long batch, long long length, long long heads,
                                      long long width, long long columns, long long chunk, real* z, real* sums) {
    const Heads h = {batch, length, heads, width, columns, batch * length};
    const long long column = blockIdx.x * WARP + threadIdx.x;
    real sum = 0;
    if (column < columns) {
        const real* from = h.at(split, column);
        over_rows(h, chunk, [&](long long row, long long offset) {
            const real value = from[offset];
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
