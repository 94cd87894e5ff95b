// Decoding: the largest logits of each row with the logarithm of its sum of exponentials, and rows in another order.
#include "rows.cuh"

constexpr int HELD = 8;  // numbers that a thread holds in registers

// Integers in the order of the numbers: -0 as 0, a NaN above all, and 0 below all.
__device__ inline unsigned in_order(float x) {
    const unsigned bits = __float_as_uint(x);
    if (bits << 1 > 0xFF000000u) return 0xFFFFFFFFu;  // NaN
    if (bits << 1 == 0) return 0x80000000u;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline unsigned long long in_order(double x) {
    const unsigned long long bits = __double_as_longlong(x), sign = 1ull << 63;
    if (bits << 1 > 0xFFE0000000000000ull) return ~0ull;  // NaN
    if (bits << 1 == 0) return sign;
    return bits >> 63 ? ~bits : bits | sign;
}

typedef decltype(in_order(real(0))) Key;

struct Place {
    Key key;  // 0: nothing
    int column;

    // Of equal numbers the first comes first.
    __device__ bool precedes(const Place& other) const {
        return key > other.key || (key == other.key && column < other.column);
    }
};

// The first of the places that all threads give; the same in all threads.
__device__ inline Place first_of_block(Place place) {
    __shared__ Place of_warp[WARP];
    for (int offset = WARP / 2; offset; offset /= 2) {
        const Place other = {__shfl_xor_sync(ALL, place.key, offset), __shfl_xor_sync(ALL, place.column, offset)};
        if (other.precedes(place)) place = other;
    }
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = place;
    __syncthreads();
    place = of_warp[0];
    for (int i = 1; i < blockDim.x / WARP; ++i)
        if (of_warp[i].precedes(place)) place = of_warp[i];
    __syncthreads();
    return place;
}

// best_k, columns_k: the k-th largest x_j and its j, for k < count <= width; total = log sum_j exp(x_j), which is the
// largest x_j if that is not finite. Each thread holds the first of the numbers that it reads, then the block takes the
// first of all, `count` times; more than HELD need another pass. Up to HELD, a row is read twice, the second time from
// the cache: (R, V) = (800, 8000) float32 has 26 MB, 9 microseconds at 3 TB/s.
ROW_KERNEL largest_and_total(const real* x, long long width, long long count, real* best, long long* columns,
                             real* total) {
    x += blockIdx.x * width;
    best += blockIdx.x * count;
    columns += blockIdx.x * count;
    Place last = {0, -1};
    real top = 0;
    for (long long found = 0; found < count; found += HELD) {
        const int wanted = count - found < HELD ? count - found : HELD;
        Place held[HELD];
#pragma unroll
        for (int i = 0; i < HELD; ++i) held[i] = {0, 0};
        Key least = 0;  // of those that are wanted
        for (int j = threadIdx.x; j < width; j += blockDim.x) {
            Place place = {in_order(x[j]), j};
            if (place.key <= least || (found && !last.precedes(place))) continue;
#pragma unroll
            for (int i = 0; i < HELD; ++i) {
                const Place before = held[i];
                const bool moves = place.precedes(before);
                held[i] = moves ? place : before;
                place = moves ? before : place;
                if (i == wanted - 1) least = held[i].key;
            }
        }
        for (int k = 0; k < wanted; ++k) {
            last = first_of_block(held[0]);
            if (found + k == 0) top = x[last.column];
            if (held[0].key == last.key && held[0].column == last.column) {  // this thread's own
                best[found + k] = x[last.column];
                columns[found + k] = last.column;
#pragma unroll
                for (int i = 0; i + 1 < HELD; ++i) held[i] = held[i + 1];
                held[HELD - 1] = {0, 0};
            }
        }
    }
    real sum = 0;
    if (isfinite(top))  // the same in all threads
        for (int j = threadIdx.x; j < width; j += blockDim.x) sum += exp(x[j] - top);
    sum = over_block<Sum>(sum);
    if (threadIdx.x == 0) *(total + blockIdx.x) = isfinite(top) ? top + log(sum) : top;
}

constexpr int BEAM = 16;  // rows of a source

// kept_r,e = kept_rows[r],e in place, for r in the rows of source blockIdx.y and the elements e of positions below
// length. A thread has one e: it reads those of all rows before it writes them. Reads and writes 8 bytes for each
// element of a row that moves: bound by bandwidth.
extern "C" __global__ void reorder_rows(real* kept, const long long* rows, const long long* length, long long beam,
                                        long long positions, long long width, long long inner) {
    const long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x, first = blockIdx.y * beam;
    if (e >= inner || e / width % positions >= *length) return;
    kept += first * inner + e;
    rows += first;
    real held[BEAM];
#pragma unroll
    for (int i = 0; i < BEAM; ++i)
        if (i < beam && rows[i] != first + i) held[i] = kept[(rows[i] - first) * inner];
#pragma unroll
    for (int i = 0; i < BEAM; ++i)
        if (i < beam && rows[i] != first + i) kept[i * inner] = held[i];
}
