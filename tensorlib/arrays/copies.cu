// Copies of many arrays in one launch. A launch costs microseconds, most gradients of a small model less than one.

#define MOST 160  // the table is passed by value, and all arguments of a kernel have 4 KB

struct Copies {
    const unsigned char* source[MOST];
    unsigned char* target[MOST];
    long long bytes[MOST];
};

#define AT_ONCE 4  // words of a thread

// target = source, by all threads of the blocks (x, i). All words are read before one is written: the compiler moves no
// read above a write, and memory is slow to answer, so 65,536 threads with 64 bytes each on their way fill its bandwidth.
template <class Word>
__device__ inline void copy_words(const Word* source, Word* target, long long words) {
    const long long stride = gridDim.x * (long long)blockDim.x;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < words; i += AT_ONCE * stride) {
        Word word[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k)
            if (i + k * stride < words) word[k] = source[i + k * stride];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k)
            if (i + k * stride < words) target[i + k * stride] = word[k];
    }
}

// target[i] = source[i], for bytes[i] bytes. The blocks (x, i) share copy i. Reads and writes each byte once: bound by
// bandwidth. Words of 16 bytes where both addresses allow it, which those of whole arrays do.
extern "C" __global__ void copy_arrays(Copies copies) {
    const unsigned char* source = copies.source[blockIdx.y];
    unsigned char* target = copies.target[blockIdx.y];
    const long long bytes = copies.bytes[blockIdx.y];
    const unsigned long long addresses = (unsigned long long)source | (unsigned long long)target;
    const int size = addresses % 16 == 0 ? 16 : addresses % 4 == 0 ? 4 : 1;
    const long long words = bytes / size;
    if (size == 16)
        copy_words((const uint4*)source, (uint4*)target, words);
    else if (size == 4)
        copy_words((const unsigned*)source, (unsigned*)target, words);
    const long long done = size == 1 ? 0 : words * size;
    copy_words(source + done, target + done, bytes - done);
}
