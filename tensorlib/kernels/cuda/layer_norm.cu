// Layer normalization of rows too wide for add_norm.cu: one block of threads for each row, which it reads again in each
// pass, mostly from the cache; and the sums over all rows for the gradients of weight and bias.
#include "rows.cuh"

ROW_KERNEL layer_norm(const real* x, const real* weight, const real* bias, long long width, double eps, real* y,
                      real* mean, real* rstd) {
    x += blockIdx.x * width;
    y += blockIdx.x * width;
    real sum = 0;
    for (long long j = threadIdx.x; j < width; j += blockDim.x) sum += x[j];
    const real centre = over_block<Sum>(sum) / width;
    real squares = 0;
    for (long long j = threadIdx.x; j < width; j += blockDim.x) squares += (x[j] - centre) * (x[j] - centre);
    const real scale = 1 / sqrt(over_block<Sum>(squares) / width + (real)eps);
    for (long long j = threadIdx.x; j < width; j += blockDim.x) y[j] = (x[j] - centre) * scale * weight[j] + bias[j];
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = centre;
        rstd[blockIdx.x] = scale;
    }
}

// With h = (x - mean) rstd and g = dy weight:  dx = rstd (g - mean(g) - h mean(g h)).
ROW_KERNEL layer_norm_gradient(const real* dy, const real* x, const real* weight, const real* mean, const real* rstd,
                               long long width, real* dx) {
    dy += blockIdx.x * width;
    x += blockIdx.x * width;
    dx += blockIdx.x * width;
    const real centre = mean[blockIdx.x], scale = rstd[blockIdx.x];
    real sum = 0, product = 0;
    for (long long j = threadIdx.x; j < width; j += blockDim.x) {
        const real g = dy[j] * weight[j];
        sum += g;
        product += g * ((x[j] - centre) * scale);
    }
    sum = over_block<Sum>(sum) / width;
    product = over_block<Sum>(product) / width;
    for (long long j = threadIdx.x; j < width; j += blockDim.x)
        dx[j] = scale * (dy[j] * weight[j] - sum - (x[j] - centre) * scale * product);
}

// Sums of dy h and of dy over `chunk` rows; `sums` is (chunks, 2, width). A block has 32 x 8 threads: 32 columns, and 8
// rows at a time.
extern "C" __global__ void layer_norm_columns(const real* dy, const real* x, const real* mean, const real* rstd,
                                              long long rows, long long width, long long chunk, real* sums) {
    __shared__ real products[8][WARP], plain[8][WARP];
    const long long column = blockIdx.x * WARP + threadIdx.x, begin = blockIdx.y * chunk;
    const long long end = begin + chunk < rows ? begin + chunk : rows;
    real product = 0, sum = 0;
    if (column < width)
        for (long long r = begin + threadIdx.y; r < end; r += 8) {
            const real g = dy[r * width + column];
            product += g * ((x[r * width + column] - mean[r]) * rstd[r]);
            sum += g;
        }
    products[threadIdx.y][threadIdx.x] = product;
    plain[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= width) return;
    for (int i = 1; i < 8; ++i) {
        product += products[i][threadIdx.x];
        sum += plain[i][threadIdx.x];
    }
    sums[(2 * blockIdx.y) * width + column] = product;
    sums[(2 * blockIdx.y + 1) * width + column] = sum;
}
