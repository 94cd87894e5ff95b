// Which keys a query sees, and which weights are dropped, for kernels of attention. Include philox.cuh,
// masks.cuh and rows.cuh first.

// Laid out as PATTERN in attention.py. Heads are counted through all sentences: head n is head n % heads of sentence
// n / heads.
struct Pattern {
    const bool* visible;  // null if all keys are visible
    const unsigned long long* slot;  // of the draw, as its key and number; see philox.cuh
    unsigned long long key0, key1, number;
    long long stride_batch, stride_head, stride_query;  // of `visible`; 0 where it broadcasts
    double scale;             // 1 / sqrt(K), for kernels that compute scores
    double dropout_scale;     // 1 / (1-p)
    unsigned dropped_levels;  // of 65536; 0: nothing is dropped
    int stride_key;           // 1, or 0 where `visible` broadcasts
    int heads, queries, keys;
    int causal;

    // The mask of query t of head n. Null if all keys are visible.
    __device__ const bool* row(long long n, int t) const {
        return visible ? visible + n / heads * stride_batch + n % heads * stride_head + t * stride_query : nullptr;
    }

    // Whether query t, whose mask is `row`, sees key s.
    __device__ bool sees(const bool* row, int t, int s) const {
        return !(causal && s > t) && (!row || row[s * stride_key]);
    }
};

// Block i of the random bits as 16 bits, one for each weight: whether dropout keeps it.
__device__ inline unsigned short kept_of_block(const Pattern& p, long long i) {
    return kept_bits(philox_block(draw_at(p.slot, p.key0, p.key1, p.number), i), p.dropped_levels);
}
