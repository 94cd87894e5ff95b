// Attention with up to 32 keys; see attention_rows.cuh.
#include "philox.cuh"
#include "masks.cuh"
#include "rows.cuh"
#include "attention.cuh"
#include "attention_rows.cuh"

// 64 registers a thread in float32, so that four blocks fit a multiprocessor.
#define WARPS_KERNEL extern "C" __global__ void __launch_bounds__(32 * WARPS, sizeof(real) == 4 ? 4 : 2)

WARPS_KERNEL weights(real* scores, long long rows, int each, const Pattern p, real* kept, real* tops, real* totals) {
    softmax_of_scores<1>(scores, rows, each, p, kept, tops, totals);
}

WARPS_KERNEL weights_gradient(const real* weights, long long rows, int each, const Pattern p, const real* tops,
                              const real* totals, real* dw, real* dropped) {
    softmax_of_scores_gradient<1>(weights, rows, each, p, tops, totals, dw, dropped);
}
