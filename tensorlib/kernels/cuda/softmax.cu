// Softmax over the last axis, one block of threads for each row.
#include "rows.cuh"

// The mask broadcasts to x, so its strides may be 0. `row` returns the address of the first element of row r.
struct Mask {
    const bool* visible;  // null if all elements are visible
    long long size1, size2, stride0, stride1, stride2, stride3;

    __device__ const bool* row(long long r) const {
        return visible + r / size2 / size1 * stride0 + r / size2 % size1 * stride1 + r % size2 * stride2;
    }
};

// y_j = exp(x_j - top) / sum, over the visible j; zeros if none is visible.
ROW_KERNEL softmax(const real* x, long long width, const bool* visible, long long size1, long long size2,
                   long long stride0, long long stride1, long long stride2, long long stride3, real* y) {
    const Mask mask = {visible, size1, size2, stride0, stride1, stride2, stride3};
    const bool* seen = visible ? mask.row(blockIdx.x) : nullptr;
    x += blockIdx.x * width;
    y += blockIdx.x * width;
    real top = Largest::start();
    for (long long j = threadIdx.x; j < width; j += blockDim.x)
        if (!seen || seen[j * stride3]) top = Largest::join(x[j], top);
    top = over_block<Largest>(top);
    if (top == Largest::start()) top = 0;  // nothing visible
    real total = 0;
    for (long long j = threadIdx.x; j < width; j += blockDim.x) {
        y[j] = !seen || seen[j * stride3] ? exp(x[j] - top) : 0;
        total += y[j];
    }
    total = over_block<Sum>(total);
    if (total == 0) total = 1;
    for (long long j = threadIdx.x; j < width; j += blockDim.x) y[j] /= total;
}

// dx = y (dy - <dy, y>); dy is ignored at hidden positions, where y = 0, even if it is infinite or NaN.
ROW_KERNEL softmax_gradient(const real* dy, const real* y, long long width, real* dx) {
    dy += blockIdx.x * width;
    y += blockIdx.x * width;
    dx += blockIdx.x * width;
    real product = 0;
    for (long long j = threadIdx.x; j < width; j += blockDim.x)
        if (y[j] != 0) product += dy[j] * y[j];
    product = over_block<Sum>(product);
    for (long long j = threadIdx.x; j < width; j += blockDim.x) dx[j] = y[j] * ((y[j] == 0 ? 0 : dy[j]) - product);
}
