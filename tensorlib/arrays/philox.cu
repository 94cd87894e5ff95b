// Random bits: thread i writes block i of a draw.
#include "philox.cuh"

extern "C" __global__ void philox(const unsigned long long* slot, unsigned long long key0, unsigned long long key1,
                                  unsigned long long draw, long long blocks, unsigned long long* words) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= blocks) return;
    const PhiloxBlock block = philox_block(draw_at(slot, key0, key1, draw), i);
    for (int j = 0; j < 4; ++j) words[4 * i + j] = block.words[j];
}
