// Attention over long sequences without a matrix of all weights (Milakov and Gimelshein 2018; Dao 2023): a block of
// threads holds 64 rows, queries or keys, and goes over the other side in tiles. Scores and weights of one tile exist at
// a time; the softmax is corrected as larger scores appear. Backward computes the weights again from the kept top and
// total of each query, for dq in one kernel, and for dk and dv in another, so that each sum has one order.
//
// A file for each width of heads, because a compiler needs seconds for each; a run needs one. Include philox.cuh, rows.cuh
// and attention.cuh first.
//
// Bounded by arithmetic: 4 T S K operations a head forward and 14 backward (18 where y was not kept), half of it if
// causal. With 4 x 4 sums a thread, shared memory feeds about half of the card's rate; by this estimate (25 TFLOP/s in
// float32), 16,384 positions, 8 heads of 64, causal: 11 ms forward and 38 backward, where a matrix would take 8.6 GB.

constexpr int SIDE = 16, THREADS = SIDE * SIDE;  // threads (y, x) of a block hold rows R y + i and columns C x + j
constexpr int ROWS = 64;                          // equals ROWS in attention.py
constexpr int COLUMNS = sizeof(real) == 4 ? 64 : 32;
constexpr int R = ROWS / SIDE, C = COLUMNS / SIDE;
constexpr int DEPTH = 16;  // how much of a sum is in shared memory at a time
constexpr int PAD = 4;     // elements, against conflicts of banks

// 128 registers a thread, so that two blocks fit a multiprocessor.
#define TILE_KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 2)

// N neighbors in memory, read in as few instructions as possible.
template <int N>
struct alignas(N * sizeof(real) < 16 ? N * sizeof(real) : 16) Group {
    real v[N];
};

typedef real Tile[COLUMNS][ROWS + PAD];  // a tile of weights, one column after the other

// Shared memory for DEPTH columns of both operands of `dots`, or DEPTH rows of an operand of `add_product`.
template <int W>
struct Chunk {
    static constexpr int OF_DOTS = DEPTH * (ROWS + COLUMNS + 2 * PAD), SIZE = OF_DOTS > DEPTH * W ? OF_DOTS : DEPTH * W;
};

__device__ inline int thread_x() { return threadIdx.x % SIDE; }
__device__ inline int thread_y() { return threadIdx.x / SIDE; }
__device__ inline int at_most(int n, long long rest) { return rest < n ? (int)rest : n; }

// sums_ij = <a_i, b_j> for `a_rows` rows of a and `b_rows` of b, all of them `width` wide; 0 beyond.
__device__ inline void dots(const real* a, int a_rows, const real* b, int b_rows, int width, real* chunk,
                            real (&sums)[R][C]) {
    real(*as)[ROWS + PAD] = (real(*)[ROWS + PAD])chunk;
    real(*bs)[COLUMNS + PAD] = (real(*)[COLUMNS + PAD])(chunk + DEPTH * (ROWS + PAD));
    const int d = threadIdx.x % DEPTH;
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) sums[i][j] = 0;
    for (int first = 0; first < width; first += DEPTH) {
        __syncthreads();  // until all have read what was here before
        const bool inside = first + d < width;
#pragma unroll
        for (int i = threadIdx.x / DEPTH; i < ROWS; i += THREADS / DEPTH)
            as[d][i] = inside && i < a_rows ? a[i * width + first + d] : 0;
#pragma unroll
        for (int j = threadIdx.x / DEPTH; j < COLUMNS; j += THREADS / DEPTH)
            bs[d][j] = inside && j < b_rows ? b[j * width + first + d] : 0;
        __syncthreads();
#pragma unroll
        for (int e = 0; e < DEPTH; ++e) {
            const Group<R> x = *(const Group<R>*)&as[e][R * thread_y()];
            const Group<C> y = *(const Group<C>*)&bs[e][C * thread_x()];
#pragma unroll
            for (int i = 0; i < R; ++i)
#pragma unroll
                for (int j = 0; j < C; ++j) sums[i][j] = fma(x.v[i], y.v[j], sums[i][j]);
        }
    }
}

// The columns of an output W wide that a thread holds: groups of up to four neighbors.
template <int W>
__device__ inline int column_of(int j) {
    constexpr int G = W / SIDE < 4 ? W / SIDE : 4;
    return j / G * (SIDE * G) + thread_x() * G + j % G;
}

// sums_ij += sum over n of tile[n][i] b_nj, for `b_rows` rows of b, `width` wide; the others count as 0.
template <int W>
__device__ inline void add_product(const Tile& tile, const real* b, int b_rows, int width, real* chunk,
                                   real (&sums)[R][W / SIDE]) {
    constexpr int G = W / SIDE < 4 ? W / SIDE : 4;
    real(*bs)[W] = (real(*)[W])chunk;
    for (int first = 0; first < b_rows; first += DEPTH) {
        __syncthreads();  // also until the tile is written
#pragma unroll
        for (int e = threadIdx.x; e < DEPTH * W; e += THREADS) {
            const int n = first + e / W, j = e % W;
            bs[e / W][j] = n < b_rows && j < width ? b[n * width + j] : 0;
        }
        __syncthreads();
#pragma unroll 4
        for (int n = 0; n < DEPTH; ++n) {
            const Group<R> x = *(const Group<R>*)&tile[first + n][R * thread_y()];
#pragma unroll
            for (int g = 0; g < W / SIDE / G; ++g) {
                const Group<G> y = *(const Group<G>*)&bs[n][g * SIDE * G + thread_x() * G];
#pragma unroll
                for (int i = 0; i < R; ++i)
#pragma unroll
                    for (int j = 0; j < G; ++j) sums[i][g * G + j] = fma(x.v[i], y.v[j], sums[i][g * G + j]);
            }
        }
    }
}

__device__ inline void write_tile(const real (&x)[R][C], Tile& tile) {
#pragma unroll
    for (int j = 0; j < C; ++j) {
        Group<R> column;
#pragma unroll
        for (int i = 0; i < R; ++i) column.v[i] = x[i][j];
        *(Group<R>*)&tile[C * thread_x() + j][R * thread_y()] = column;
    }
}

template <int W>
__device__ inline void write_rows(const real (&sums)[R][W / SIDE], real scale, int rows, int width, real* y) {
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < W / SIDE; ++j)
            if (R * thread_y() + i < rows && column_of<W>(j) < width)
                y[(R * thread_y() + i) * width + column_of<W>(j)] = sums[i][j] * scale;
}

// The bits of dropout for a tile of Q queries from t0 and K keys from s0, a multiple of 16. Weights are counted through
// all heads, so the bits of a row begin within a block of Philox.
template <int Q, int K>
struct Kept {
    unsigned short bits[Q][K / 16 + 1];

    __device__ void draw(const Pattern& p, long long head, long long t0, long long s0) {
        if (!p.dropped_levels) return;
#pragma unroll 1
        for (int i = threadIdx.x; i < Q * (K / 16 + 1); i += THREADS) {
            const int q = i / (K / 16 + 1), block = i % (K / 16 + 1);
            const long long first = (head * p.queries + t0 + q) * p.keys + s0;
            if (t0 + q < p.queries) bits[q][block] = kept_of_block(p, first / 16 + block);
        }
    }

    // x after dropout, for query q and key k of the tile.
    __device__ real drop(real x, const Pattern& p, long long head, long long t0, int q, int k) const {
        if (!p.dropped_levels) return x;
        const unsigned n = ((unsigned)(head * p.queries + t0 + q) * (unsigned)p.keys & 15) + k;
        return bits[q][n >> 4] >> (n & 15) & 1 ? x * (real)p.dropout_scale : 0;
    }
};

typedef Kept<ROWS, COLUMNS> KeptOfQueries;  // where a block holds queries
typedef Kept<COLUMNS, ROWS> KeptOfKeys;     // where it holds keys

// Sums and maxima over the 16 threads that share rows.
template <class Operation>
__device__ inline real over_side(real value) {
    for (int step = SIDE / 2; step; step /= 2) value = Operation::join(value, __shfl_xor_sync(ALL, value, step));
    return value;
}

// A block's head and the first of its rows. The last rows come first, because they see most if attention is causal.
struct Place {
    long long head, row;
    __device__ Place(long long length) {
        const unsigned tiles = (length + ROWS - 1) / ROWS;
        head = blockIdx.x / tiles;
        row = (tiles - 1 - blockIdx.x % tiles) * (long long)ROWS;
    }
};

// The keys that at least one of 64 queries from t0 sees.
__device__ inline long long seen_keys(const Pattern& p, long long t0) {
    return p.causal && t0 + ROWS < p.keys ? t0 + ROWS : p.keys;
}

// y = sum over s of m_s w_s v_s,  w_s = exp(x_s - top) / total,  x = scale <q, k_s> of the keys that are seen. A larger top
// multiplies what was summed before by exp(old - new). y may have strides between sentences, heads and queries.
template <int W>
__device__ inline void attend_by_tiles(const real* q, const real* k, const real* v, int width, int value_width, const Pattern& p,
                              real* y, long long y_batch, long long y_head, long long y_query, real* tops,
                              real* totals) {
    alignas(16) __shared__ Tile tile;
    alignas(16) __shared__ real chunk[Chunk<W>::SIZE];
    __shared__ KeptOfQueries kept;
    const Place at(p.queries);
    const long long t0 = at.row, t_mine = t0 + R * thread_y();
    const int rows = at_most(ROWS, p.queries - t0);
    q += (at.head * p.queries + t0) * width;
    k += at.head * p.keys * width;
    v += at.head * p.keys * value_width;
    real best[R], total[R], sums[R][W / SIDE], x[R][C];
    for (int i = 0; i < R; ++i) {
        best[i] = Largest::start();
        total[i] = 0;
        for (int j = 0; j < W / SIDE; ++j) sums[i][j] = 0;
    }
    const long long end = seen_keys(p, t0);
    for (long long s0 = 0; s0 < end; s0 += COLUMNS) {
        const int columns = at_most(COLUMNS, p.keys - s0);
        kept.draw(p, at.head, t0, s0);
        dots(q, rows, k + s0 * width, columns, width, chunk, x);
#pragma unroll
        for (int i = 0; i < R; ++i) {
            const bool* seen = p.row(at.head, t_mine + i < p.queries ? t_mine + i : 0);
            real top = best[i], sum = 0;
#pragma unroll
            for (int j = 0; j < C; ++j) {
                const int column = C * thread_x() + j;
                const bool sees = column < columns && t_mine + i < p.queries && p.sees(seen, t_mine + i, s0 + column);
                x[i][j] = sees ? x[i][j] * (real)p.scale : Largest::start();
                top = Largest::join(x[i][j], top);
            }
            top = over_side<Largest>(top);
            const real base = top == Largest::start() ? 0 : top;  // nothing seen yet, and -inf - -inf would be NaN
            const real fade = exp(best[i] - base);
            best[i] = top;
#pragma unroll
            for (int j = 0; j < C; ++j) {
                const real e = exp(x[i][j] - base);
                sum += e;
                x[i][j] = kept.drop(e, p, at.head, t0, R * thread_y() + i, C * thread_x() + j);
            }
            total[i] = total[i] * fade + over_side<Sum>(sum);
#pragma unroll
            for (int j = 0; j < W / SIDE; ++j) sums[i][j] *= fade;
        }
        write_tile(x, tile);
        add_product<W>(tile, v + s0 * value_width, columns, value_width, chunk, sums);
    }
    y += at.head / p.heads * y_batch + at.head % p.heads * y_head;
    for (int i = 0; i < R; ++i) {
        if (t_mine + i >= p.queries) continue;
        const real all = total[i] == 0 ? 1 : total[i];  // 0 if no key is seen
        for (int j = 0; j < W / SIDE; ++j)
            if (column_of<W>(j) < value_width) y[(t_mine + i) * y_query + column_of<W>(j)] = sums[i][j] / all;
        if (thread_x()) continue;
        tops[at.head * p.queries + t_mine + i] = best[i] == Largest::start() ? 0 : best[i];
        totals[at.head * p.queries + t_mine + i] = all;
    }
}

// What backward knows about a query, besides the operands: top and total of its scores, and delta = <dw, w>.
struct Query {
    real top, inverse, delta;
    const bool* seen;

    __device__ Query(const Pattern& p, long long head, long long t, const real* tops, const real* totals,
                     const real* deltas)
        : top(0), inverse(0), delta(0), seen(nullptr) {
        if (t >= p.queries) return;
        top = tops[head * p.queries + t];
        inverse = 1 / totals[head * p.queries + t];
        delta = deltas ? deltas[head * p.queries + t] : 0;
        seen = p.row(head, t);
    }

    // The weight of key s, where x = <q, k>.
    __device__ real weight(real x, const Pattern& p, long long t, long long s) const {
        const bool sees = s < p.keys && t < p.queries && p.sees(seen, t, s);
        return sees ? exp(x * (real)p.scale - top) * inverse : 0;
    }
};

// dq = scale sum over s of ds_s k_s,  ds_s = w_s (dw_s - delta).
template <int W>
__device__ inline void gradient_of_queries_by_tiles(const real* dy, const real* q, const real* k, const real* v, int width,
                                           int value_width, const Pattern& p, const real* tops, const real* totals,
                                           const real* deltas, real* dq) {
    alignas(16) __shared__ Tile tile;
    alignas(16) __shared__ real chunk[Chunk<W>::SIZE];
    __shared__ KeptOfQueries kept;
    const Place at(p.queries);
    const long long t0 = at.row, t_mine = t0 + R * thread_y();
    const int rows = at_most(ROWS, p.queries - t0);
    q += (at.head * p.queries + t0) * width;
    dy += (at.head * p.queries + t0) * value_width;
    k += at.head * p.keys * width;
    v += at.head * p.keys * value_width;
    real sums[R][W / SIDE], x[R][C], d[R][C];
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < W / SIDE; ++j) sums[i][j] = 0;
    const long long end = seen_keys(p, t0);
    for (long long s0 = 0; s0 < end; s0 += COLUMNS) {
        const int columns = at_most(COLUMNS, p.keys - s0);
        kept.draw(p, at.head, t0, s0);
        dots(q, rows, k + s0 * width, columns, width, chunk, x);
        dots(dy, rows, v + s0 * value_width, columns, value_width, chunk, d);
#pragma unroll
        for (int i = 0; i < R; ++i) {
            const Query query(p, at.head, t_mine + i, tops, totals, deltas);
#pragma unroll
            for (int j = 0; j < C; ++j) {
                const real w = query.weight(x[i][j], p, t_mine + i, s0 + C * thread_x() + j);
                const real dw = kept.drop(d[i][j], p, at.head, t0, R * thread_y() + i, C * thread_x() + j);
                x[i][j] = w * ((w == 0 ? 0 : dw) - query.delta);
            }
        }
        write_tile(x, tile);
        add_product<W>(tile, k + s0 * width, columns, width, chunk, sums);
    }
    write_rows<W>(sums, p.scale, rows, width, dq + (at.head * p.queries + t0) * width);
}

// dv = sum over t of m_t w_t dy_t,  dk = scale sum over t of ds_t q_t; for key s, w_t is the weight of s for query t.
template <int W>
__device__ inline void gradient_of_keys_by_tiles(const real* dy, const real* q, const real* k, const real* v, int width,
                                        int value_width, const Pattern& p, const real* tops, const real* totals,
                                        const real* deltas, real* dk, real* dv) {
    alignas(16) __shared__ Tile tile;
    alignas(16) __shared__ real chunk[Chunk<W>::SIZE];
    __shared__ KeptOfKeys kept;
    const Place at(p.keys);
    const long long s0 = at.row, s_mine = s0 + R * thread_y();
    const int rows = at_most(ROWS, p.keys - s0);
    k += (at.head * p.keys + s0) * width;
    v += (at.head * p.keys + s0) * value_width;
    q += at.head * p.queries * width;
    dy += at.head * p.queries * value_width;
    real dk_sums[R][W / SIDE], dv_sums[R][W / SIDE], w[R][C], x[R][C];
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < W / SIDE; ++j) dk_sums[i][j] = dv_sums[i][j] = 0;
    for (long long t0 = p.causal ? s0 / COLUMNS * COLUMNS : 0; t0 < p.queries; t0 += COLUMNS) {
        const int columns = at_most(COLUMNS, p.queries - t0);
        kept.draw(p, at.head, t0, s0);
        dots(k, rows, q + t0 * width, columns, width, chunk, w);
#pragma unroll
        for (int j = 0; j < C; ++j) {
            const long long t = t0 + C * thread_x() + j;
            const Query query(p, at.head, t, tops, totals, nullptr);
#pragma unroll
            for (int i = 0; i < R; ++i) {
                w[i][j] = query.weight(w[i][j], p, t, s_mine + i);
                x[i][j] = kept.drop(w[i][j], p, at.head, t0, C * thread_x() + j, R * thread_y() + i);
            }
        }
        write_tile(x, tile);
        add_product<W>(tile, dy + t0 * value_width, columns, value_width, chunk, dv_sums);
        dots(v, rows, dy + t0 * value_width, columns, value_width, chunk, x);
#pragma unroll
        for (int j = 0; j < C; ++j) {
            const long long t = t0 + C * thread_x() + j;
            const real delta = t < p.queries ? deltas[at.head * p.queries + t] : 0;
#pragma unroll
            for (int i = 0; i < R; ++i) {
                const real dw = kept.drop(x[i][j], p, at.head, t0, C * thread_x() + j, R * thread_y() + i);
                x[i][j] = w[i][j] * ((w[i][j] == 0 ? 0 : dw) - delta);
            }
        }
        write_tile(x, tile);
        add_product<W>(tile, q + t0 * width, columns, width, chunk, dk_sums);
    }
    write_rows<W>(dv_sums, 1, rows, value_width, dv + (at.head * p.keys + s0) * value_width);
    write_rows<W>(dk_sums, p.scale, rows, width, dk + (at.head * p.keys + s0) * width);
}
