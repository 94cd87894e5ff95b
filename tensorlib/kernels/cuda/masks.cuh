// Dropout's decisions, 16 bits for each block of Philox: bit j is 1 if the j-th of its 16 elements is kept. Each block is
// computed once, by one thread, and its bits lie in shared memory: Philox takes as long as 300 additions. Include
// philox.cuh first.

__device__ inline unsigned short kept_bits(const PhiloxBlock block, unsigned dropped_levels) {
    unsigned kept = 0;
#pragma unroll
    for (int j = 0; j < 16; ++j) kept |= (unsigned)(block.bits16(j) >= dropped_levels) << j;
    return (unsigned short)kept;
}

// Write the bits of elements `start` to `end` of a draw to `kept`, which begins with the block of element `start`. All
// threads of a block of threads take part; the caller adds the barrier.
__device__ inline void draw_kept(const Draw draw, unsigned dropped_levels, long long start, long long end,
                                 unsigned short* kept) {
    const long long first = start >> 4;
#pragma unroll 1
    for (long long i = first + threadIdx.y * blockDim.x + threadIdx.x; 16 * i < end; i += blockDim.x * blockDim.y)
        kept[i - first] = kept_bits(philox_block(draw, i), dropped_levels);
}

// Whether element e is kept, where `first` is the number of the first block of Philox in `kept`.
__device__ inline bool is_kept(const unsigned short* kept, long long first, long long e) {
    return kept[(e >> 4) - first] >> (e & 15) & 1;
}
