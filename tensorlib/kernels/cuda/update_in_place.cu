// Steps of an optimizer with all parameters of a model, in place. Pointers to their arrays are in tables, passed by
// value as arguments (at most 4 KB), so that a step needs no upload. A block of threads takes one chunk of one array.
//
// All are bound by memory. Adam reads 4 and writes 3 numbers of each parameter (28 bytes in float32), SGD with momentum
// 3 and 2, the moving average 2 and 1, the norm reads 1.

#include "half.cuh"

#ifndef real
#define real float  // or double
#endif

constexpr int AT_ONCE = 4;         // elements that a thread loads before it stores any
constexpr int CHUNK = 4096;        // elements of a block; tables.py has the same numbers
constexpr int LONG_CHUNK = 16384;  // of a block that only reads

template <int arrays, int tensors>
struct Table {
    void* at[arrays][tensors];
    long long size[tensors];
    int first[tensors + 1];  // the number of the first chunk of each tensor; then that of all chunks
    int count;
};
typedef Table<1, 192> OneArray;
typedef Table<2, 136> TwoArrays;
typedef Table<3, 104> ThreeArrays;
typedef Table<4, 88> FourArrays;

struct Counters {
    long long* at[480];
    long long count;
};

__device__ inline real loaded(const real* x, long long i) { return x[i]; }
__device__ inline real loaded(const float16* x, long long i) { return half_to_float(x[i].bits); }
__device__ inline void store(real* x, long long i, real value) { x[i] = value; }
__device__ inline void store(float16* x, long long i, real value) { x[i].bits = float_to_half((float)value); }

// The part of an array that this block works on.
struct Part {
    int tensor;
    long long start, end;
};

template <class T>
__device__ inline Part part_of_block(const T& table, int chunk) {
    int low = 0, high = table.count;  // first[low] <= this block < first[high]
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (table.first[middle] <= (int)blockIdx.x) low = middle;
        else high = middle;
    }
    const long long start = (long long)((int)blockIdx.x - table.first[low]) * chunk, size = table.size[low];
    return {low, start, start + chunk < size ? start + chunk : size};
}

// ---- norm, clipping and the decision whether to skip the step ----

// The sum over a block of 256 threads, in a fixed order; valid in thread 0.
__device__ inline double block_sum(double value) {
    __shared__ double of_thread[256];
    of_thread[threadIdx.x] = value;
    __syncthreads();
    for (int half = 128; half; half /= 2) {
        if ((int)threadIdx.x < half) of_thread[threadIdx.x] += of_thread[threadIdx.x + half];
        __syncthreads();
    }
    return of_thread[0];
}

// partial[block] = the sum of g^2 over the block's chunk
template <class Number>
__device__ inline void squares_of(const OneArray& table, double* partial) {
    const Part part = part_of_block(table, LONG_CHUNK);
    const Number* g = (const Number*)table.at[0][part.tensor];
    double sums[AT_ONCE] = {};
    for (long long i = part.start + threadIdx.x; i < part.end; i += AT_ONCE * blockDim.x) {
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const long long j = i + k * (int)blockDim.x;
            const double x = j < part.end ? (double)loaded(g, j) : 0;
            sums[k] += x * x;
        }
    }
    const double total = block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

extern "C" __global__ void squares(OneArray table, double* partial) { squares_of<real>(table, partial); }
extern "C" __global__ void squares_half(OneArray table, double* partial) { squares_of<float16>(table, partial); }

// norm = sqrt(sum of partial) / scale;  factor = min(1, max_norm / norm) / scale;  skip = norm or loss is not finite.
// The norm is infinite if the sum is above `limit`: then it overflows the gradients' dtype, as on the host.
extern "C" __global__ void decide(const double* partial, long long partials, const double* loss, double max_norm,
                                  double limit, const double* slot, double scale, double* norm, double* factor,
                                  bool* skip) {
    double total = 0;
    for (long long i = threadIdx.x; i < partials; i += blockDim.x) total += partial[i];
    total = block_sum(total);
    if (threadIdx.x) return;
    const double divisor = slot ? *slot : scale, infinite = __int_as_float(0x7F800000);
    const double length = (total > limit ? infinite : sqrt(total)) / divisor;
    *norm = length;
    *factor = (length > max_norm ? max_norm / length : 1.0) / divisor;
    *skip = !(isfinite(length) && (!loss || isfinite(*loss)));
}

// y = factor g
template <class Number>
__device__ inline void scale_part(const TwoArrays& table, double factor) {
    const Part part = part_of_block(table, CHUNK);
    const Number* g = (const Number*)table.at[0][part.tensor];
    Number* y = (Number*)table.at[1][part.tensor];
    for (long long i = part.start + threadIdx.x; i < part.end; i += blockDim.x)
        store(y, i, (real)factor * loaded(g, i));
}

extern "C" __global__ void scale(TwoArrays table, double factor) { scale_part<real>(table, factor); }
extern "C" __global__ void scale_half(TwoArrays table, double factor) { scale_part<float16>(table, factor); }

// ---- steps ----

// t <- t + 1 for the number of steps of each parameter. For Adam also, in double,
// rates[0] = learning rate / (1 - beta1^t);  rates[1] = 1 / sqrt(1 - beta2^t).
extern "C" __global__ void advance(Counters counters, const bool* skip, double beta1, double beta2, const double* slot,
                                   double value, double* rates) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= counters.count || (skip && *skip)) return;
    const long long t = *counters.at[i] + 1;
    *counters.at[i] = t;
    if (!rates) return;
    rates[2 * i] = (slot ? *slot : value) / (1 - pow(beta1, (double)t));
    rates[2 * i + 1] = 1 / sqrt(1 - pow(beta2, (double)t));
}

// m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- shrunk p - rate m / (root sqrt(v) + eps)
template <class Number>
__device__ inline void adam_part(const FourArrays& table, const double* factor, const bool* skip, const double* rates,
                                 double beta1, double beta2, double eps, const double* slot, double value,
                                 double weight_decay, bool decoupled) {
    if (skip && *skip) return;
    const Part part = part_of_block(table, CHUNK);
    Number* p = (Number*)table.at[0][part.tensor];
    const Number* g = (const Number*)table.at[1][part.tensor];
    real* m = (real*)table.at[2][part.tensor];
    real* v = (real*)table.at[3][part.tensor];
    const real rate = rates[2 * part.tensor], root = rates[2 * part.tensor + 1], times = factor ? *factor : 1;
    const real b1 = beta1, b2 = beta2, rest1 = 1 - beta1, rest2 = 1 - beta2, small = eps;
    const real added = decoupled ? 0 : weight_decay, shrunk = decoupled ? 1 - (slot ? *slot : value) * weight_decay : 1;
    for (long long i = part.start + threadIdx.x; i < part.end; i += AT_ONCE * blockDim.x) {
        real weight[AT_ONCE], slope[AT_ONCE], first[AT_ONCE], second[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const long long j = i + k * (int)blockDim.x;
            if (j >= part.end) break;
            weight[k] = loaded(p, j), slope[k] = times * loaded(g, j), first[k] = m[j], second[k] = v[j];
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const long long j = i + k * (int)blockDim.x;
            if (j >= part.end) break;
            const real d = added ? slope[k] + added * weight[k] : slope[k];  // 0 times an infinite p would be NaN
            m[j] = first[k] = b1 * first[k] + rest1 * d;
            v[j] = second[k] = b2 * second[k] + rest2 * d * d;
            store(p, j, shrunk * weight[k] - rate * first[k] / (sqrt(second[k]) * root + small));
        }
    }
}

extern "C" __global__ void adam(FourArrays table, const double* factor, const bool* skip, const double* rates,
                                double beta1, double beta2, double eps, const double* slot, double value,
                                double weight_decay, bool decoupled) {
    adam_part<real>(table, factor, skip, rates, beta1, beta2, eps, slot, value, weight_decay, decoupled);
}
extern "C" __global__ void adam_half(FourArrays table, const double* factor, const bool* skip, const double* rates,
                                     double beta1, double beta2, double eps, const double* slot, double value,
                                     double weight_decay, bool decoupled) {
    adam_part<float16>(table, factor, skip, rates, beta1, beta2, eps, slot, value, weight_decay, decoupled);
}

// d = g + weight_decay p;  v <- momentum v + d;  p <- p - rate (d, or v, or with nesterov d + momentum v)
template <class Number>
__device__ inline void sgd_part(const ThreeArrays& table, const double* factor, const bool* skip, const double* slot,
                                double value, double momentum, double weight_decay, bool nesterov) {
    if (skip && *skip) return;
    const Part part = part_of_block(table, CHUNK);
    Number* p = (Number*)table.at[0][part.tensor];
    const Number* g = (const Number*)table.at[1][part.tensor];
    real* v = (real*)table.at[2][part.tensor];  // null without momentum
    const real rate = slot ? *slot : value, times = factor ? *factor : 1, kept = momentum, added = weight_decay;
    for (long long i = part.start + threadIdx.x; i < part.end; i += AT_ONCE * blockDim.x) {
        real weight[AT_ONCE], slope[AT_ONCE], velocity[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const long long j = i + k * (int)blockDim.x;
            if (j >= part.end) break;
            weight[k] = loaded(p, j), slope[k] = times * loaded(g, j), velocity[k] = v ? v[j] : 0;
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const long long j = i + k * (int)blockDim.x;
            if (j >= part.end) break;
            real d = added ? slope[k] + added * weight[k] : slope[k];
            if (v) {
                v[j] = velocity[k] = kept * velocity[k] + d;
                d = nesterov ? d + kept * velocity[k] : velocity[k];
            }
            store(p, j, weight[k] - rate * d);
        }
    }
}

extern "C" __global__ void sgd(ThreeArrays table, const double* factor, const bool* skip, const double* slot,
                               double value, double momentum, double weight_decay, bool nesterov) {
    sgd_part<real>(table, factor, skip, slot, value, momentum, weight_decay, nesterov);
}
extern "C" __global__ void sgd_half(ThreeArrays table, const double* factor, const bool* skip, const double* slot,
                                    double value, double momentum, double weight_decay, bool nesterov) {
    sgd_part<float16>(table, factor, skip, slot, value, momentum, weight_decay, nesterov);
}

// e <- e + (1 - decay) (w - e)
template <class Number>
__device__ inline void average_part(const TwoArrays& table, const bool* skip, const double* slot, double decay) {
    if (skip && *skip) return;
    const Part part = part_of_block(table, CHUNK);
    real* e = (real*)table.at[0][part.tensor];
    const Number* w = (const Number*)table.at[1][part.tensor];
    const real rest = 1 - (slot ? *slot : decay);
    for (long long i = part.start + threadIdx.x; i < part.end; i += AT_ONCE * blockDim.x) {
        real mean[AT_ONCE], weight[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const long long j = i + k * (int)blockDim.x;
            if (j < part.end) mean[k] = e[j], weight[k] = loaded(w, j);
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const long long j = i + k * (int)blockDim.x;
            if (j < part.end) e[j] = mean[k] + rest * (weight[k] - mean[k]);
        }
    }
}

extern "C" __global__ void average(TwoArrays table, const bool* skip, const double* slot, double decay) {
    average_part<real>(table, skip, slot, decay);
}
extern "C" __global__ void average_half(TwoArrays table, const bool* skip, const double* slot, double decay) {
    average_part<float16>(table, skip, slot, decay);
}
