// Rows summed by id, the gradient of an embedding: the positions sorted by id, then sums over runs of equal ids, in an
// order that depends on the ids alone. No count is needed on the host.
//
// Cost for 2,048 ids and rows of 256 float32 (small): sorting 2 us, since 4 million comparisons are little work for all
// threads together; the sums read 2 MB and write the rows found, 2 us; filling the table of 8,000 rows with zeros before
// is another 8 MB, 3 us. Long runs, as those of padding, are cut into chunks, so no block sums more than CHUNK rows.
#include "rows.cuh"

constexpr int EACH = 4;      // positions whose rank a warp computes
constexpr int CHUNK = 16;    // sorted positions of a block
constexpr int COLUMNS = 128; // threads of a block, one for each column

// An id outside [0, rows) wraps around, as in CuPy's own indexing, by which the rows were read.
__device__ inline long long wrapped(long long id, long long rows) {
    if (id >= 0 && id < rows) return id;
    id %= rows;
    return id < 0 ? id + rows : id;
}

// order = stable argsort(ids), sorted = ids[order]: a position's rank is the number of positions with a smaller id, or
// with the same id and before it. A block has 4 warps.
extern "C" __global__ void sort_ids(const long long* ids, long long count, long long rows, long long* order,
                                    long long* sorted) {
    const int lane = threadIdx.x % WARP;
    const long long first = (blockIdx.x * (long long)(blockDim.x / WARP) + threadIdx.x / WARP) * EACH;
    long long mine[EACH];
    int rank[EACH];
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        mine[k] = first + k < count ? wrapped(ids[first + k], rows) : 0;
        rank[k] = 0;
    }
#pragma unroll 4
    for (long long j = lane; j < count; j += WARP) {
        const long long other = wrapped(ids[j], rows);
#pragma unroll
        for (int k = 0; k < EACH; ++k) rank[k] += other < mine[k] || (other == mine[k] && j < first + k);
    }
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        for (int offset = WARP / 2; offset; offset /= 2) rank[k] += __shfl_xor_sync(ALL, rank[k], offset);
        if (lane == 0 && first + k < count) {
            order[rank[k]] = first + k;
            sorted[rank[k]] = mine[k];
        }
    }
}

// y[id] = sum of the rows of x at the sorted positions of id, for each run of equal ids within a chunk of CHUNK sorted
// positions. Of a run that began in an earlier chunk the sum goes to parts[chunk, 0]; of one that begins here and goes on
// in the next to parts[chunk, 1].
extern "C" __global__ void sum_chunks(const real* x, const long long* order, const long long* sorted, long long count,
                                      long long width, real* y, real* parts) {
    const long long begin = blockIdx.x * (long long)CHUNK, column = blockIdx.y * (long long)COLUMNS + threadIdx.x;
    if (column >= width) return;  // there is no barrier
    real value[CHUNK];
#pragma unroll
    for (int k = 0; k < CHUNK; ++k)
        if (begin + k < count) value[k] = x[order[begin + k] * width + column];
    bool began_before = begin > 0 && sorted[begin - 1] == sorted[begin];
    real total = 0;
#pragma unroll
    for (int k = 0; k < CHUNK; ++k) {
        if (begin + k >= count) break;
        const long long id = sorted[begin + k];
        const bool ends = begin + k + 1 == count || sorted[begin + k + 1] != id;
        total += value[k];
        if (!ends && k < CHUNK - 1) continue;
        if (ends && !began_before)
            y[id * width + column] = total;
        else
            parts[(2 * blockIdx.x + !began_before) * width + column] = total;
        began_before = false;
        total = 0;
    }
}

// y[id] = the parts of a run of several chunks, added up by the block of the chunk in which it begins. A block has 32 x 8
// threads: 32 columns, and 8 chunks at a time.
extern "C" __global__ void join_chunks(const real* parts, const long long* sorted, long long count, long long width,
                                       real* y) {
    __shared__ real of_row[8][WARP];
    const long long begin = blockIdx.x * (long long)CHUNK, next = begin + CHUNK;
    if (next >= count) return;
    const long long id = sorted[next - 1];
    if (sorted[next] != id || (begin > 0 && sorted[begin - 1] == id)) return;  // the same for all threads of the block
    const long long column = blockIdx.y * (long long)WARP + threadIdx.x;
    real total = 0;
    if (column < width) {
        if (threadIdx.y == 0) total = parts[(2 * blockIdx.x + 1) * width + column];
        for (long long n = blockIdx.x + 1 + threadIdx.y; n * CHUNK < count && sorted[n * CHUNK] == id; n += 8)
            total += parts[2 * n * width + column];
    }
    of_row[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y || column >= width) return;
    for (int i = 1; i < 8; ++i) total += of_row[i][threadIdx.x];
    y[id * width + column] = total;
}
