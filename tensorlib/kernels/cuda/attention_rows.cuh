// The softmax of attention between two batched products, forward and backward: scale, mask, causality and dropout in one
// pass over the scores. A warp computes a row, the weights of one query of one head.
//
// Bounded by memory. Forward reads the scores and writes the weights after dropout, and those before if they are kept: 8
// or 12 bytes a weight in float32. Backward reads two arrays and writes two, 16 bytes. Estimates at 3 TB/s: small (64
// sentences, 4 heads, 32 x 32) 1 and 1.5 microseconds, base (32, 8 heads) the same, so that a launch costs more than the
// bytes; 64 x 16 heads of 512 x 512: 0.7 to 1.1 and 1.4 ms. A block of Philox costs about 300 instructions for 16 weights.
//
// A file for each number of elements that a lane holds, because a compiler needs seconds for each; a run needs one or two.
// Include philox.cuh, rows.cuh and attention.cuh first.

constexpr int WARPS = 8;         // of a block; equals WARPS in attention.py
constexpr int MOST_DRAWN = 512;  // weights whose bits a warp draws at a time

// Bits of dropout for consecutive weights, drawn by one warp into its part of shared memory.
struct Kept {
    unsigned short* bits;
    int offset;

    // All lanes call this. `first` is the number of the first weight, counted through all heads.
    __device__ void draw(const Pattern& p, long long first, int count) {
        offset = first % 16;
        __syncwarp();  // until all lanes have read the bits drawn before
#pragma unroll 1
        for (int i = threadIdx.x % WARP; 16 * i < offset + count; i += WARP) bits[i] = kept_of_block(p, first / 16 + i);
        __syncwarp();
    }
    __device__ bool has(int i) const { return bits[(offset + i) >> 4] >> ((offset + i) & 15) & 1; }
};

template <class Operation>
__device__ inline real over_warp(real value) {
    for (int step = WARP / 2; step; step /= 2) value = Operation::join(value, __shfl_xor_sync(ALL, value, step));
    return value;
}

// The rows first to last, which a warp computes one after the other. Each lane holds PER elements of a row at a time; rows
// of more than 32 PER elements are read again in each pass, and then a warp has one row.
template <int PER>
struct Rows {
    const Pattern& p;
    long long first, last;
    bool whole;  // whether a row is held at once
    Kept kept;

    __device__ Rows(const Pattern& p, long long rows, int each, unsigned short (*bits)[MOST_DRAWN / 16 + 1]) : p(p) {
        first = (blockIdx.x * (long long)WARPS + threadIdx.x / WARP) * each;
        last = first + each < rows ? first + each : rows;
        whole = p.keys <= WARP * PER;
        kept.bits = bits[threadIdx.x / WARP];
        if (p.dropped_levels && whole && first < last) kept.draw(p, first * p.keys, (int)(last - first) * p.keys);
    }

    // Prepare the bits for the elements of `row` from `begin` on; return where they begin among those drawn.
    __device__ int draw(long long row, int begin) {
        if (!p.dropped_levels) return 0;
        if (whole) return (int)(row - first) * p.keys;
        const int rest = p.keys - begin;
        kept.draw(p, row * p.keys + begin, rest < WARP * PER ? rest : WARP * PER);
        return 0;
    }

    // x after dropout, for the i-th of the bits drawn.
    __device__ real drop(real x, int i) const {
        return !p.dropped_levels ? x : kept.has(i) ? x * (real)p.dropout_scale : 0;
    }
};

// s = scores where the key is seen, else -inf;  w = exp(s - top) / total, zeros if no key is seen;  scores <- m w.
// w is also written to `weights`, and top and total to `tops` and `totals`, where they are not null.
template <int PER>
__device__ inline void softmax_of_scores(real* scores, long long rows, int each, const Pattern& p, real* weights,
                                         real* tops, real* totals) {
    __shared__ unsigned short bits[WARPS][MOST_DRAWN / 16 + 1];
    Rows<PER> mine(p, rows, each, bits);
    const int lane = threadIdx.x % WARP, keys = p.keys;
#pragma unroll 1
    for (long long row = mine.first; row < mine.last; ++row) {
        const int t = row % p.queries;
        const bool* seen = p.row(row / p.queries, t);
        real* x = scores + row * keys;
        real s[PER], top = Largest::start(), total = 0;
        const auto score = [&](int j) { return j < keys && p.sees(seen, t, j) ? x[j] : Largest::start(); };
#pragma unroll 1
        for (int begin = 0; begin < keys; begin += WARP * PER) {
#pragma unroll
            for (int i = 0; i < PER; ++i) top = Largest::join(s[i] = score(begin + WARP * i + lane), top);
        }
        top = over_warp<Largest>(top);
        if (top == Largest::start()) top = 0;  // no key is seen, and -inf - -inf would be NaN
#pragma unroll 1
        for (int begin = 0; begin < keys; begin += WARP * PER) {
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                if (!mine.whole) s[i] = score(begin + WARP * i + lane);
                total += s[i] = exp(s[i] - top);
            }
        }
        total = over_warp<Sum>(total);
        if (total == 0) total = 1;
        const real inverse = 1 / total;
#pragma unroll 1
        for (int begin = 0; begin < keys; begin += WARP * PER) {
            const int drawn = mine.draw(row, begin);
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const int j = begin + WARP * i + lane;
                if (j >= keys) continue;
                const real w = (mine.whole ? s[i] : exp(score(j) - top)) * inverse;
                if (weights) weights[row * keys + j] = w;
                x[j] = mine.drop(w, drawn + WARP * i + lane);
            }
        }
        if (tops && lane == 0) {
            tops[row] = top;
            totals[row] = total;
        }
    }
}

// With dw = m dw', where dw' is the gradient of m w:  ds = w (dw - <dw, w>). Hidden weights are 0, and there dw counts as
// 0, even if it is infinite or NaN. dw' is replaced by ds, unless it is null; m w is written to `dropped`, unless that is
// null. `weights` holds w, or, if there are `tops`, scores:  w = exp(scores - top) / total; it may be `dropped` itself.
template <int PER>
__device__ inline void softmax_of_scores_gradient(const real* weights, long long rows, int each, const Pattern& p,
                                                  const real* tops, const real* totals, real* dw, real* dropped) {
    __shared__ unsigned short bits[WARPS][MOST_DRAWN / 16 + 1];
    Rows<PER> mine(p, rows, each, bits);
    const int lane = threadIdx.x % WARP, keys = p.keys;
#pragma unroll 1
    for (long long row = mine.first; row < mine.last; ++row) {
        const int t = row % p.queries;
        const bool* seen = tops ? p.row(row / p.queries, t) : nullptr;
        const real* x = weights + row * keys;
        real* d = dw ? dw + row * keys : nullptr;
        const real top = tops ? tops[row] : 0, inverse = tops ? 1 / totals[row] : 1;
        real w[PER], g[PER], product = 0;
        const auto read = [&](int i, int begin, int drawn) {
            const int j = begin + WARP * i + lane;
            w[i] = g[i] = 0;
            if (j >= keys || (tops && !p.sees(seen, t, j))) return;
            w[i] = tops ? exp(x[j] - top) * inverse : x[j];
            if (d && w[i] != 0) g[i] = mine.drop(d[j], drawn + WARP * i + lane);
        };
#pragma unroll 1
        for (int begin = 0; begin < keys; begin += WARP * PER) {
            const int drawn = mine.draw(row, begin);
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                read(i, begin, drawn);
                product += g[i] * w[i];
            }
        }
        product = over_warp<Sum>(product);
#pragma unroll 1
        for (int begin = 0; begin < keys; begin += WARP * PER) {
            const int drawn = mine.draw(row, begin);
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const int j = begin + WARP * i + lane;
                if (!mine.whole) read(i, begin, drawn);
                if (j >= keys) continue;
                if (d) d[j] = w[i] * (g[i] - product);
                if (dropped) dropped[row * keys + j] = mine.drop(w[i], drawn + WARP * i + lane);
            }
        }
    }
}
