// Philox-4x64-10 (Salmon et al. 2011, section 3.3): the very numbers of numpy.random.Philox, so that a dropout mask is
// the same on CPU and GPU. Thread i computes block i: four 64-bit words from the counter (i + 1, 0, draw, 0); NumPy
// counts up before it draws, hence the + 1.
extern "C" __global__ void philox(const unsigned long long key0, const unsigned long long key1,
                                  const unsigned long long draw, const unsigned long long blocks,
                                  unsigned long long* words) {
    const unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    if (i >= blocks) return;
    unsigned long long c0 = i + 1, c1 = 0, c2 = draw, c3 = 0, k0 = key0, k1 = key1;
    for (int round = 0; round < 10; ++round) {
        const unsigned long long low0 = 0xD2E7470EE14C6C93ULL * c0, high0 = __umul64hi(0xD2E7470EE14C6C93ULL, c0);
        const unsigned long long low1 = 0xCA5A826395121157ULL * c2, high1 = __umul64hi(0xCA5A826395121157ULL, c2);
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B97F4A7C15ULL;  // the Weyl sequences of the key
        k1 += 0xBB67AE8584CAA73BULL;
    }
    words[4 * i] = c0;
    words[4 * i + 1] = c1;
    words[4 * i + 2] = c2;
    words[4 * i + 3] = c3;
}
