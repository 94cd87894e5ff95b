// Copies of many arrays in one launch. A launch costs microseconds, most gradients of a small model less than one.

#define MOST 160  // the table is passed by value, and all arguments of a kernel have 4 KB

struct Copies {
    const unsigned char* source[MOST];
    unsigned char* target[MOST];
    long long bytes[MOST];
};

// target[i] = source[i], for bytes[i] bytes. The blocks (x, i) share copy i. Reads and writes each byte once: bound by
// bandwidth. Words of 8 bytes where both addresses allow it, which those of whole arrays do.
extern "C" __global__ void copy_arrays(Copies copies) {
    const unsigned char* source = copies.source[blockIdx.y];
    unsigned char* target = copies.target[blockIdx.y];
    const long long bytes = copies.bytes[blockIdx.y];
    const long long first = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    const long long stride = gridDim.x * (long long)blockDim.x;
    const bool aligned = ((unsigned long long)source | (unsigned long long)target) % 8 == 0;
    const long long words = aligned ? bytes / 8 : 0;
    for (long long i = first; i < words; i += stride)
        ((unsigned long long*)target)[i] = ((const unsigned long long*)source)[i];
    for (long long i = words * 8 + first; i < bytes; i += stride) target[i] = source[i];
}
