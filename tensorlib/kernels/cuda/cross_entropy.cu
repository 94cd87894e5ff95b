// Cross-entropy from logits, one block of threads for each row. An ignored row is never read: it counts as zeros.
#include "rows.cuh"

// With z = x - top, where top is the largest x:  loss = log_total - (1 - e) z_target - e mean(z),  log_total = log of the
// sum of exp(z).
ROW_KERNEL cross_entropy(const real* x, long long classes, const long long* targets, const bool* counted,
                         double smoothing, real* loss, real* tops, real* log_totals) {
    if (!counted[blockIdx.x]) {
        if (threadIdx.x == 0) {
            loss[blockIdx.x] = 0;
            tops[blockIdx.x] = 0;
            log_totals[blockIdx.x] = log((real)classes);
        }
        return;  // all threads of the block return, so no barrier waits for them
    }
    x += blockIdx.x * classes;
    real top = Largest::start();
    for (long long j = threadIdx.x; j < classes; j += blockDim.x) top = Largest::join(x[j], top);
    top = over_block<Largest>(top);
    if (top == Largest::start()) top = 0;  // all logits are -inf, and -inf - -inf would be NaN
    real total = 0, sum = 0;
    for (long long j = threadIdx.x; j < classes; j += blockDim.x) {
        const real z = x[j] - top;
        total += exp(z);
        sum += z;
    }
    total = over_block<Sum>(total);
    if (total == 0) total = 1;
    if (smoothing) sum = over_block<Sum>(sum);
    if (threadIdx.x) return;
    tops[blockIdx.x] = top;
    log_totals[blockIdx.x] = log(total);
    // Targets on a GPU are not checked before: one outside [0, classes) gives NaN, without reading outside the row.
    const long long target = targets[blockIdx.x];
    const real chosen = target >= 0 && target < classes ? x[target] - top : __int_as_float(0x7FFFFFFF);
    real value = log(total) - (real)(1 - smoothing) * chosen;
    if (smoothing) value -= (real)smoothing * sum / classes;  // otherwise 0 times a mean of -inf would be NaN
    loss[blockIdx.x] = value;
}

// dx_j = dloss (softmax(x)_j - q_j),  q is the smoothed target.
ROW_KERNEL cross_entropy_gradient(const real* dloss, const real* x, const real* tops, const real* log_totals,
                                  long long classes, const long long* targets, const bool* counted, double smoothing,
                                  real* dx) {
    x += blockIdx.x * classes;
    dx += blockIdx.x * classes;
    if (!counted[blockIdx.x]) {
        for (long long j = threadIdx.x; j < classes; j += blockDim.x) dx[j] = 0;
        return;
    }
    const real top = tops[blockIdx.x], log_total = log_totals[blockIdx.x];
    const real weight = dloss[blockIdx.x], spread = smoothing / classes, chosen = 1 - smoothing;
    const long long target = targets[blockIdx.x];
    for (long long j = threadIdx.x; j < classes; j += blockDim.x)
        dx[j] = weight * (exp(x[j] - top - log_total) - spread - (j == target ? chosen : 0));
}
