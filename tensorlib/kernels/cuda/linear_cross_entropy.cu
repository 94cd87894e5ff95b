// The loss from logits z = x W that a product has computed for a block of rows, and their gradient, in place. The bias b
// of the logits is added where they are read.
//
// Cost: the first kernel reads the logits, the second reads and writes them: 98 MB for a block of 1,024 x 8,000 float32,
// 33 us at 3 TB/s, less where the cache holds them; the two (with gradients: six) products of the block take 100 (250) us.
// An element takes two exponentials.
#include "rows.cuh"
#include "columns.cuh"

// Of each row, with u_j = z_j + b_j: top = the largest u, log_total = log of the sum of exp(u - top), and
//   loss = log_total - (1 - e) (u_target - top) - e mean(u - top)
// or 0 if the row does not count. One pass: a thread keeps the sum of exp(u - top) for the largest u that it has seen. A
// target outside [0, classes) gives NaN. One block of threads for each row; 256 threads leave room for 8 rows on each
// multiprocessor, so that 1,024 rows run at once.
ROW_KERNEL row_losses(const real* z, const real* bias, long long classes, const long long* targets, const bool* counted,
                      double smoothing, real* loss, real* tops, real* log_totals) {
    const real infinity = -Largest::start();
    if (!counted[blockIdx.x]) {  // an ignored row is never read
        if (threadIdx.x == 0) loss[blockIdx.x] = tops[blockIdx.x] = log_totals[blockIdx.x] = 0;
        return;
    }
    z += blockIdx.x * classes;
    real shift = z[0] + (bias ? bias[0] : 0);  // logits far from 0 would leave few digits for their mean
    if (!isfinite(shift)) shift = 0;
    real own = -infinity, total = 0, sum = 0;
#pragma unroll 4
    for (long long j = threadIdx.x; j < classes; j += blockDim.x) {
        const real u = bias ? z[j] + bias[j] : z[j];
        const bool above = u > own;
        const real low = above ? own : u, high = above ? u : own;
        const real e = low == -infinity ? 0 : exp(low - high);  // -inf - -inf would be NaN
        total = above ? total * e + 1 : total + e;
        own = high;
        sum += u - shift;
    }
    real top = over_block<Largest>(own);
    const bool infinite = top == infinity;  // inf - inf is NaN in the formula
    if (top == -infinity) top = 0;          // all logits are -inf
    total = over_block<Sum>(total * exp(own - top));
    if (smoothing) sum = over_block<Sum>(sum);
    if (threadIdx.x) return;
    if (total == 0) total = 1;
    const real nan = __int_as_float(0x7FFFFFFF);
    const long long target = targets[blockIdx.x];
    const bool inside = target >= 0 && target < classes;
    const real chosen = inside ? z[target] + (bias ? bias[target] : 0) - top : nan;
    real value = log(infinite ? nan : total) - (real)(1 - smoothing) * chosen;
    if (smoothing) value -= (real)smoothing * (sum / classes + (shift - top));  // 0 times a mean of -inf would be NaN
    loss[blockIdx.x] = value;
    tops[blockIdx.x] = top;
    log_totals[blockIdx.x] = log(infinite ? nan : total);
}

struct LogitGradient {
    real* z;
    const real* bias;
    const real* tops;
    const real* log_totals;
    const long long* targets;
    const bool* counted;
    real spread, chosen;  // e / V, and 1 - e
    real biases[COLUMNS], logits[COLUMNS], top, log_total;
    long long target;
    bool counts;

    __device__ void column(long long c, int k) { biases[k] = bias ? bias[c] : 0; }
    __device__ void load(long long e, int k) { logits[k] = z[e]; }
    __device__ void row(long long r) {
        counts = counted[r];
        top = tops[r];
        log_total = log_totals[r];
        target = targets[r];
    }
    __device__ real at(long long e, long long c, int k) {
        real dz = 0;
        if (counts) dz = exp(logits[k] + biases[k] - top - log_total) - spread - (c == target ? chosen : 0);
        z[e] = dz;
        return dz;
    }
};

// z becomes dz = softmax(u) - q, with the smoothed target q, and 0 in rows that do not count; `sums` gets the sums of dz
// over chunks of rows, the gradient of the bias, unless it is null.
extern "C" __global__ void logit_gradient(real* z, const real* bias, const real* tops, const real* log_totals,
                                          const long long* targets, const bool* counted, double smoothing,
                                          long long rows, long long width, long long chunk, real* sums) {
    LogitGradient element = {z, bias, tops, log_totals, targets, counted, (real)(smoothing / width),
                             (real)(1 - smoothing)};
    over_columns(element, rows, width, chunk, sums);
}

// total = sum of the losses of all rows, by one block of threads.
ROW_KERNEL loss_total(const real* loss, long long rows, real* total) {
    real sum = 0;
    for (long long i = threadIdx.x; i < rows; i += blockDim.x) sum += loss[i];
    sum = over_block<Sum>(sum);
    if (threadIdx.x == 0) *total = sum;
}
