// Philox-4x64-10 (Salmon et al. 2011, section 3.3): the numbers of numpy.random.Philox, so that a dropout mask is
// the same on CPU and GPU. Block i is four 64-bit words from the counter (i + 1, 0, draw, 0): NumPy increments the
// counter before it draws.

struct PhiloxBlock {
    unsigned long long words[4];

    // The j-th of the block's 16 numbers of 16 bits: each word is split from its lowest bits upwards.
    __device__ unsigned bits16(int j) const { return (words[j >> 2] >> (16 * (j & 3))) & 0xFFFF; }
};

// A draw of a generator: the arguments that `seeds` in cuda.py passes. In a captured step the key and the generator's
// position are read from `slot`, and `number` counts from that position.
struct Draw {
    unsigned long long key0, key1, number;
};

__device__ inline Draw draw_at(const unsigned long long* slot, unsigned long long key0, unsigned long long key1,
                               unsigned long long number) {
    if (slot) return {slot[0], slot[1], slot[2] + number};
    return {key0, key1, number};
}

__device__ inline PhiloxBlock philox_block(const Draw draw, unsigned long long i) {
    unsigned long long key0 = draw.key0, key1 = draw.key1;
    unsigned long long c0 = i + 1, c1 = 0, c2 = draw.number, c3 = 0;
    for (int round = 0; round < 10; ++round) {
        const unsigned long long low0 = 0xD2E7470EE14C6C93ULL * c0, high0 = __umul64hi(0xD2E7470EE14C6C93ULL, c0);
        const unsigned long long low1 = 0xCA5A826395121157ULL * c2, high1 = __umul64hi(0xCA5A826395121157ULL, c2);
        c0 = high1 ^ c1 ^ key0;
        c1 = low1;
        c2 = high0 ^ c3 ^ key1;
        c3 = low0;
        key0 += 0x9E3779B97F4A7C15ULL;  // Weyl sequences of the key
        key1 += 0xBB67AE8584CAA73BULL;
    }
    return {{c0, c1, c2, c3}};
}
