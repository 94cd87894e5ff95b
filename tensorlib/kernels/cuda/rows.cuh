// Sums and maxima over a row that the threads of a block share. Each result is the same in all threads and in all runs,
// because the order of the additions is fixed.

#ifndef real
#define real float  // or double
#endif

// A kernel with one block of threads for each row. A block has up to 1024 threads, which limits the registers of each.
#define ROW_KERNEL extern "C" __global__ void __launch_bounds__(1024)

constexpr int WARP = 32;
constexpr unsigned ALL = 0xFFFFFFFFu;

struct Sum {
    static __device__ real start() { return 0; }
    static __device__ real join(real a, real b) { return a + b; }
};

struct Largest {
    static __device__ real start() { return -__int_as_float(0x7F800000); }  // minus infinity
    static __device__ real join(real a, real b) { return a > b ? a : b; }
};

// blockDim.x must be a multiple of 32. May be called again immediately: the last barrier frees the shared memory.
template <class Operation>
__device__ inline real over_block(real value) {
    __shared__ real of_warp[WARP];
    for (int offset = WARP / 2; offset; offset /= 2)
        value = Operation::join(value, __shfl_xor_sync(ALL, value, offset));
    if (blockDim.x == WARP) return value;
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = value;
    __syncthreads();
    real total = Operation::start();
    for (int i = 0; i < blockDim.x / WARP; ++i) total = Operation::join(total, of_warp[i]);
    __syncthreads();
    return total;
}
