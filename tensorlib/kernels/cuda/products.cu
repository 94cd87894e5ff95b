// Around cuBLAS: addresses of the matrices of a batch, and operands rounded to 16 bits.
#include "bf16.cuh"
#include "half.cuh"

// A view of four axes; those that an array lacks have size 1. Strides are in elements.
struct View {
    long long size1, size2, size3, stride0, stride1, stride2, stride3;

    // The distance of element i, counted along the last axis first, from the first one.
    __device__ long long offset(long long i) const {
        if (size1 == 1 && size2 == 1) return i / size3 * stride2 + i % size3 * stride3;
        const long long row = i / size3, plane = row / size2;
        return plane / size1 * stride0 + plane % size1 * stride1 + row % size2 * stride2 + i % size3 * stride3;
    }
};

// address_i = base + sum over axes of index * stride, for each of the three operands of a batch of products, whose lists
// begin `apart` addresses one after the other
extern "C" __global__ void matrix_addresses(
    unsigned long long base0, unsigned long long base1, unsigned long long base2, long long count, long long apart,
    long long size1, long long size2, long long a0, long long a1, long long a2, long long b0, long long b1,
    long long b2, long long c0, long long c1, long long c2, unsigned long long* addresses) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const long long middle = i / size2 % size1, first = i / size2 / size1, last = i % size2;
    addresses[i] = base0 + first * a0 + middle * a1 + last * a2;
    addresses[apart + i] = base1 + first * b0 + middle * b1 + last * b2;
    addresses[2 * apart + i] = base2 + first * c0 + middle * c1 + last * c2;
}

#define ITEMS 8  // elements for each thread

__device__ inline void round_view(const float* x, long long n, const View& view, long long block, bool fp16,
                                  unsigned short* y) {
    const bool dense = view.stride3 == 1 && view.size3 == n;
    for (int item = 0; item < ITEMS; ++item) {
        const long long i = (block * ITEMS + item) * blockDim.x + threadIdx.x;
        if (i >= n) return;
        const float value = x[dense ? i : view.offset(i)];
        y[i] = fp16 ? float_to_half(value) : float_to_bf16(value);
    }
}

// y_i = x_i rounded to bf16 or fp16, for both operands of a product in one launch; n2 may be 0.
// Bound by memory: 4 bytes read and 2 written for each element.
extern "C" __global__ void round_operands(
    const float* x, long long n, long long size1, long long size2, long long size3, long long stride0,
    long long stride1, long long stride2, long long stride3, unsigned short* y, const float* x2, long long n2,
    long long size1_2, long long size2_2, long long size3_2, long long stride0_2, long long stride1_2,
    long long stride2_2, long long stride3_2, unsigned short* y2, bool fp16) {
    const long long each = (long long)blockDim.x * ITEMS, blocks = (n + each - 1) / each;
    if (blockIdx.x < blocks)
        round_view(x, n, View{size1, size2, size3, stride0, stride1, stride2, stride3}, blockIdx.x, fp16, y);
    else
        round_view(x2, n2, View{size1_2, size2_2, size3_2, stride0_2, stride1_2, stride2_2, stride3_2},
                   blockIdx.x - blocks, fp16, y2);
}
