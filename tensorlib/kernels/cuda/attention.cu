// The softmax of attention between two batched products, forward and backward: scale, mask, causality and dropout in one
// pass over the scores. A warp computes a row, the weights of one query of one head.
//
// Bounded by memory. Forward reads the scores and writes the weights after dropout, and those before if they are kept: 8
// or 12 bytes a weight in float32. Backward reads two arrays and writes two, 16 bytes. Estimates at 3 TB/s: small (64
// sentences, 4 heads, 32 x 32) 1 and 1.5 microseconds, base (32, 8 heads) the same, so that a launch costs more than the
// bytes; 64 x 16 heads of 512 x 512: 0.7 to 1.1 and 1.4 ms. A block of Philox costs about 300 instructions for 16 weights.
#include "philox.cuh"
#include "rows.cuh"
#include "attention.cuh"

constexpr int WARPS = 8;         // of a block; equals WARPS in attention.py
// 64 registers a thread in float32, so that four blocks fit a multiprocessor; lanes that hold 16 elements need more.
#define SHORT_ROWS_KERNEL extern "C" __global__ void __launch_bounds__(32 * WARPS, sizeof(real) == 4 ? 4 : 2)
#define LONG_ROWS_KERNEL extern "C" __global__ void __launch_bounds__(32 * WARPS, 2)

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

// What the lanes of a warp know about the rows first to last, of which each lane holds PER elements at a time. Rows of
// more than 32 PER elements are read again in each pass; then a warp has one row.
template <int PER>
struct Rows {
    const Pattern& p;
    long long first, last;
    bool whole;  // whether a row is held at once
    int lane;
    Kept kept;

    __device__ Rows(const Pattern& p, long long rows, int each, unsigned short (*bits)[MOST_DRAWN / 16 + 1]) : p(p) {
        first = (blockIdx.x * (long long)WARPS + threadIdx.x / WARP) * each;
        last = first + each < rows ? first + each : rows;
        whole = p.keys <= WARP * PER;
        lane = threadIdx.x % WARP;
        kept.bits = bits[threadIdx.x / WARP];
        if (p.dropped_levels && whole && first < last) kept.draw(p, first * p.keys, (last - first) * p.keys);
    }

    // Draw the bits for the elements of `row` from `begin` on, if not all are drawn.
    __device__ void draw(long long row, long long begin) {
        if (!p.dropped_levels || whole) return;
        const long long rest = p.keys - begin;
        kept.draw(p, row * p.keys + begin, rest < WARP * PER ? rest : WARP * PER);
    }

    // x after dropout, for element j of `row`, where the pass is at `begin`.
    __device__ real drop(real x, long long row, long long begin, long long j) const {
        if (!p.dropped_levels) return x;
        return kept.has(whole ? (row - first) * p.keys + j : j - begin) ? x * (real)p.dropout_scale : 0;
    }
};

// s = scores where the key is seen, else -inf;  w = exp(s - top) / total, zeros if no key is seen;  scores <- m w.
// w is also written to `weights`, and top and total to `tops` and `totals`, where they are not null.
template <int PER>
__device__ inline void softmax_of_scores(real* scores, long long rows, int each, const Pattern& p, real* weights,
                                         real* tops, real* totals) {
    __shared__ unsigned short bits[WARPS][MOST_DRAWN / 16 + 1];
    Rows<PER> held(p, rows, each, bits);
#pragma unroll 1
    for (long long row = held.first; row < held.last; ++row) {
        const long long t = row % p.queries;
        const bool* seen = p.row(row / p.queries, t);
        real* x = scores + row * p.keys;
        real s[PER], top = Largest::start(), total = 0;
#pragma unroll 1
        for (long long begin = 0; begin < p.keys; begin += WARP * PER) {
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const long long j = begin + WARP * i + held.lane;
                s[i] = j < p.keys && p.sees(seen, t, j) ? x[j] : Largest::start();
                top = Largest::join(s[i], top);
            }
        }
        top = over_warp<Largest>(top);
        if (top == Largest::start()) top = 0;  // no key is seen, and -inf - -inf would be NaN
#pragma unroll 1
        for (long long begin = 0; begin < p.keys; begin += WARP * PER) {
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const long long j = begin + WARP * i + held.lane;
                if (!held.whole) s[i] = j < p.keys && p.sees(seen, t, j) ? x[j] : Largest::start();
                s[i] = exp(s[i] - top);
                total += s[i];
            }
        }
        total = over_warp<Sum>(total);
        if (total == 0) total = 1;
        const real inverse = 1 / total;
#pragma unroll 1
        for (long long begin = 0; begin < p.keys; begin += WARP * PER) {
            held.draw(row, begin);
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const long long j = begin + WARP * i + held.lane;
                if (j >= p.keys) continue;
                if (!held.whole) s[i] = p.sees(seen, t, j) ? exp(x[j] - top) : 0;
                const real w = s[i] * inverse;
                if (weights) weights[row * p.keys + j] = w;
                x[j] = held.drop(w, row, begin, j);
            }
        }
        if (tops && held.lane == 0) {
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
    Rows<PER> held(p, rows, each, bits);
#pragma unroll 1
    for (long long row = held.first; row < held.last; ++row) {
        const long long t = row % p.queries;
        const bool* seen = p.row(row / p.queries, t);
        const real* x = weights + row * p.keys;
        real* d = dw ? dw + row * p.keys : nullptr;
        const real top = tops ? tops[row] : 0, inverse = tops ? 1 / totals[row] : 1;
        real w[PER], g[PER], product = 0;
        const auto read = [&](int i, long long begin) {
            const long long j = begin + WARP * i + held.lane;
            w[i] = g[i] = 0;
            if (j >= p.keys || (tops && !p.sees(seen, t, j))) return;
            w[i] = tops ? exp(x[j] - top) * inverse : x[j];
            if (d && w[i] != 0) g[i] = held.drop(d[j], row, begin, j);
        };
#pragma unroll 1
        for (long long begin = 0; begin < p.keys; begin += WARP * PER) {
            held.draw(row, begin);
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                read(i, begin);
                product += g[i] * w[i];
            }
        }
        product = over_warp<Sum>(product);
#pragma unroll 1
        for (long long begin = 0; begin < p.keys; begin += WARP * PER) {
            held.draw(row, begin);
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const long long j = begin + WARP * i + held.lane;
                if (!held.whole) read(i, begin);
                if (j >= p.keys) continue;
                if (d) d[j] = w[i] * (g[i] - product);
                if (dropped) dropped[row * p.keys + j] = held.drop(w[i], row, begin, j);
            }
        }
    }
}

// Rows of up to 32, up to 128, and any number of elements.

SHORT_ROWS_KERNEL weights_32(real* scores, long long rows, int each, const Pattern p, real* weights, real* tops,
                                      real* totals) {
    softmax_of_scores<1>(scores, rows, each, p, weights, tops, totals);
}

SHORT_ROWS_KERNEL weights_128(real* scores, long long rows, int each, const Pattern p, real* weights,
                                       real* tops, real* totals) {
    softmax_of_scores<4>(scores, rows, each, p, weights, tops, totals);
}

LONG_ROWS_KERNEL weights_512(real* scores, long long rows, int each, const Pattern p, real* weights,
                                       real* tops, real* totals) {
    softmax_of_scores<16>(scores, rows, each, p, weights, tops, totals);
}

SHORT_ROWS_KERNEL weights_gradient_32(const real* weights, long long rows, int each, const Pattern p,
                                               const real* tops, const real* totals, real* dw, real* dropped) {
    softmax_of_scores_gradient<1>(weights, rows, each, p, tops, totals, dw, dropped);
}

SHORT_ROWS_KERNEL weights_gradient_128(const real* weights, long long rows, int each, const Pattern p,
                                                const real* tops, const real* totals, real* dw, real* dropped) {
    softmax_of_scores_gradient<4>(weights, rows, each, p, tops, totals, dw, dropped);
}

LONG_ROWS_KERNEL weights_gradient_512(const real* weights, long long rows, int each, const Pattern p,
                                                const real* tops, const real* totals, real* dw, real* dropped) {
    softmax_of_scores_gradient<16>(weights, rows, each, p, tops, totals, dw, dropped);
}
