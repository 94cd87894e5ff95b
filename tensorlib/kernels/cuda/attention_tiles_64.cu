// Attention over long sequences by heads up to 64 wide; see attention_tiles.cuh.
#include "philox.cuh"
#include "masks.cuh"
#include "rows.cuh"
#include "attention.cuh"
#include "attention_tiles.cuh"

TILE_KERNEL attend(const real* q, const real* k, const real* v, int width, int value_width, const Pattern p, real* y,
                   long long y_batch, long long y_head, long long y_query, real* tops, real* totals) {
    attend_by_tiles<64>(q, k, v, width, value_width, p, y, y_batch, y_head, y_query, tops, totals);
}

TILE_KERNEL gradient_of_queries(const real* dy, const real* q, const real* k, const real* v, int width,
                                int value_width, const Pattern p, const real* tops, const real* totals,
                                const real* deltas, real* dq) {
    gradient_of_queries_by_tiles<64>(dy, q, k, v, width, value_width, p, tops, totals, deltas, dq);
}

TILE_KERNEL gradient_of_keys(const real* dy, const real* q, const real* k, const real* v, int width, int value_width,
                             const Pattern p, const real* tops, const real* totals, const real* deltas, real* dk,
                             real* dv) {
    gradient_of_keys_by_tiles<64>(dy, q, k, v, width, value_width, p, tops, totals, deltas, dk, dv);
}
