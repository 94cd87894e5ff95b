// Cross-entropy from logits, one block of threads for each row. An ignored row is never read: it counts as zeros.
#include "rows.cuh"

// loss = lse - (1 - e) x_target - e mean(x),  lse = log of the sum of exp(x).
ROW_KERNEL cross_entropy(const real* x, long long classes, const long long* targets, const bool* counted,
                         double smoothing, real* loss, real* lse) {
    if (!counted[blockIdx.x]) {
        if (threadIdx.x == 0) {
            loss[blockIdx.x] = 0;
            lse[blockIdx.x] = log((real)classes);
        }
        return;  // all threads of the block return, so no barrier waits for them
    }
    x += blockIdx.x * classes;
    real top = Largest::start(), sum = 0;
    for (long long j = threadIdx.x; j < classes; j += blockDim.x) {
        top = Largest::join(x[j], top);
        sum += x[j];
    }
    top = over_block<Largest>(top);
    if (!isfinite(top)) top = 0;  // inf - inf would be NaN
    real total = 0;
    for (long long j = threadIdx.x; j < classes; j += blockDim.x) total += exp(x[j] - top);
    total = over_block<Sum>(total);
    if (smoothing) sum = over_block<Sum>(sum);
    if (threadIdx.x) return;
    lse[blockIdx.x] = log(total) + top;
    // Targets on a GPU are not checked before: one outside [0, classes) gives NaN, without reading outside the row.
    const long long target = targets[blockIdx.x];
    const real chosen = target >= 0 && target < classes ? x[target] : __int_as_float(0x7FFFFFFF);
    real value = lse[blockIdx.x] - (real)(1 - smoothing) * chosen;
    if (smoothing) value -= (real)smoothing * sum / classes;  // otherwise 0 times a mean of -inf would be NaN
    loss[blockIdx.x] = value;
}

// dx_j = dloss (softmax(x)_j - q_j),  q is the smoothed target.
ROW_KERNEL cross_entropy_gradient(const real* dloss, const real* x, const real* lse, long long classes,
                                  const long long* targets, const bool* counted, double smoothing, real* dx) {
    x += blockIdx.x * classes;
    dx += blockIdx.x * classes;
    if (!counted[blockIdx.x]) {
        for (long long j = threadIdx.x; j < classes; j += blockDim.x) dx[j] = 0;
        return;
    }
    const real weight = dloss[blockIdx.x], spread = smoothing / classes, chosen = 1 - smoothing;
    const long long target = targets[blockIdx.x];
    for (long long j = threadIdx.x; j < classes; j += blockDim.x)
        dx[j] = weight * (exp(x[j] - lse[blockIdx.x]) - spread - (j == target ? chosen : 0));
}
