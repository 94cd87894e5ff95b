// Sums over the rows of a matrix (rows, width), in two steps whose order depends on the shape alone, so that all runs and
// all cards give the same bits: first sums over chunks of rows, then, by `sum_parts` in columns.cu, over the chunks.
// Include rows.cuh first.

constexpr int COLUMNS = 4;              // of a thread, 32 apart
constexpr int TILE = COLUMNS * WARP;    // columns of a block of 32 x 8 threads

// Compute all elements of the block's columns in the block's chunk of rows, and write the sums of what they return to
// `sums` (chunks, width), unless it is null. An Element has
//   column(c, k)    called once for each of a thread's columns, c, with k < COLUMNS
//   load(e, k)      reads element e = r * width + c
//   row(r)          called once the elements of row r are requested
//   at(e, c, k)     computes the element that `load` has read, and returns what is to be added up
// All elements of a row are requested before one is written: the compiler moves no read above a write, since both may be
// to the same array, and a thread that waits for each element would use a fraction of the memory's speed.
template <class Element>
__device__ inline void over_columns(Element element, long long rows, long long width, long long chunk, real* sums) {
    __shared__ real of_row[8][TILE];
    const long long begin = blockIdx.y * chunk, end = begin + chunk < rows ? begin + chunk : rows;
    const long long column = blockIdx.x * (long long)TILE + threadIdx.x;
    real total[COLUMNS];
#pragma unroll
    for (int k = 0; k < COLUMNS; ++k) {
        total[k] = 0;
        if (column + k * WARP < width) element.column(column + k * WARP, k);
    }
    for (long long r = begin + threadIdx.y; r < end; r += 16) {
        Element next = element;  // two rows at a time
        const bool two = r + 8 < end;
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) {
            const long long c = column + k * WARP;
            if (c < width) element.load(r * width + c, k);
            if (c < width && two) next.load((r + 8) * width + c, k);
        }
        element.row(r);
        if (two) next.row(r + 8);
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) {
            const long long c = column + k * WARP;
            if (c < width) total[k] += element.at(r * width + c, c, k);
            if (c < width && two) total[k] += next.at((r + 8) * width + c, c, k);
        }
    }
    if (!sums) return;  // the same for all threads
#pragma unroll
    for (int k = 0; k < COLUMNS; ++k) of_row[threadIdx.y][k * WARP + threadIdx.x] = total[k];
    __syncthreads();
    const int mine = threadIdx.y * WARP + threadIdx.x;
    const long long c = blockIdx.x * (long long)TILE + mine;
    if (mine >= TILE || c >= width) return;
    real sum = 0;
    for (int i = 0; i < 8; ++i) sum += of_row[i][mine];
    sums[blockIdx.y * width + c] = sum;
}
