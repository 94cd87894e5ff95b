// delta = <dw, w> of each query, for the gradient of long attention; see attention_tiles.cuh.
#include "philox.cuh"
#include "masks.cuh"
#include "rows.cuh"
#include "attention.cuh"
#include "attention_tiles.cuh"

// delta = sum over s of w_s dw_s,  dw_s = m_s <dy, v_s>; 0 where w_s is 0, even if dw_s is infinite or NaN.
TILE_KERNEL deltas_of_weights(const real* dy, const real* q, const real* k, const real* v, int width, int value_width,
                              const Pattern p, const real* tops, const real* totals, real* deltas) {
    alignas(16) __shared__ real chunk[Chunk<0>::SIZE];
    __shared__ KeptOfQueries kept;
    const Place at(p.queries);
    const long long t0 = at.row, t_mine = t0 + R * thread_y();
    const int rows = at_most(ROWS, p.queries - t0);
    q += (at.head * p.queries + t0) * width;
    dy += (at.head * p.queries + t0) * value_width;
    k += at.head * p.keys * width;
    v += at.head * p.keys * value_width;
    real sums[R], x[R][C], d[R][C];
    for (int i = 0; i < R; ++i) sums[i] = 0;
    const long long end = seen_keys(p, t0);
    for (long long s0 = 0; s0 < end; s0 += COLUMNS) {
        const int columns = at_most(COLUMNS, p.keys - s0);
        __syncthreads();  // until all have read the bits of the tile before
        kept.draw(p, at.head, t0, s0);
        dots(q, rows, k + s0 * width, columns, width, chunk, x);
        dots(dy, rows, v + s0 * value_width, columns, value_width, chunk, d);
#pragma unroll
        for (int i = 0; i < R; ++i) {
            const Query query(p, at.head, t_mine + i, tops, totals, nullptr);
#pragma unroll
            for (int j = 0; j < C; ++j) {
                const real w = query.weight(x[i][j], p, t_mine + i, s0 + C * thread_x() + j);
                if (w != 0)
                    sums[i] += w * kept.drop(d[i][j], p, at.head, t0, R * thread_y() + i, C * thread_x() + j);
            }
        }
    }
    for (int i = 0; i < R; ++i) {
        const real sum = over_side<Sum>(sums[i]);
        if (thread_x() == 0 && t_mine + i < p.queries) deltas[at.head * p.queries + t_mine + i] = sum;
    }
}

// delta = <dy, y>, where y was kept: a warp for each query. y has strides.
extern "C" __global__ void deltas_of_outputs(const real* dy, const real* y, long long rows, int value_width,
                                             const Pattern p, long long y_batch, long long y_head, long long y_query,
                                             real* deltas) {
    const long long row = blockIdx.x * (long long)(THREADS / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;  // the whole warp
    const long long head = row / p.queries;
    y += head / p.heads * y_batch + head % p.heads * y_head + row % p.queries * y_query;
    real sum = 0;
    for (int j = threadIdx.x % WARP; j < value_width; j += WARP) sum += dy[row * value_width + j] * y[j];
    for (int step = WARP / 2; step; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
    if (threadIdx.x % WARP == 0) deltas[row] = sum;
}
