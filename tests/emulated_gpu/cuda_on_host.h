// CUDA C on the host: what a kernel needs to be compiled by g++ and to run on a CPU.
//
// The blocks of a grid run one after another. The threads of a block are fibers, which start and resume in a shuffled
// order and run until a barrier or a warp function, so that a missing barrier gives wrong numbers. A barrier that not all
// threads reach and a shuffle that not all its lanes reach are errors, not hangs.
//
// What this cannot find: races between blocks, races that need two threads to run at the very same time, a missing
// __syncwarp between two threads that meet at a barrier anyway, and everything about speed.
#pragma once
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) double4 { double x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) longlong2 { long long x, y; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
struct alignas(4) ushort2 { unsigned short x, y; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline double4 make_double4(double x, double y, double z, double w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline ushort2 make_ushort2(unsigned short x, unsigned short y) { return {x, y}; }
static inline ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z, unsigned short w) {
    return {x, y, z, w};
}

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

// ---- fibers ---------------------------------------------------------------------------------------------------------

namespace emulated {

constexpr int MOST_THREADS = 1024, LANES = 32, MOST_WARPS = MOST_THREADS / LANES;
constexpr size_t STACK = 128 * 1024, SPACING = STACK + 448;  // stacks of equal alignment would share a cache's lines

enum Waiting : unsigned char { RUNS, AT_BARRIER, IN_WARP, DONE };

struct Fiber {
    void* stack_pointer;
    unsigned char waits;
    unsigned char parity;  // of the warp functions so far: two sets of slots, because a fast lane may be one ahead
};

struct alignas(16) Slot { unsigned char bytes[16]; };

struct Warp {
    unsigned arrived[2], mask[2];
    const char* what[2];
    int size[2];
    Slot slots[2][LANES];
    unsigned taking_part[2];
};

static Fiber fibers[MOST_THREADS];
static Warp warps[MOST_WARPS];
static unsigned ready[MOST_WARPS], ready_warps;  // bits: the lanes that can run, and the warps that have such lanes
static int threads, at_barrier, done, running;
static void* scheduler;
static char* stacks;
static void (*entry)(void*);
static void* arguments;
static char* message;
static bool failed;
static uint64_t random_state;

static inline unsigned below(unsigned n) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (unsigned)(((random_state >> 32) * n) >> 32);
}

#if defined(__x86_64__)
// Saves the registers that a function must keep on the stack, then continues on another stack; by a
// jump, because a processor predicts the address of `ret` from the calls, which were made on the other stack.
asm(R"(
.text
.type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmpq *%rcx
.size emulated_switch, . - emulated_switch
)");
extern "C" void emulated_switch(void** save, void* to) __attribute__((visibility("hidden")));
static inline void switch_to(void** save, void* to) { emulated_switch(save, to); }
static void begin();
static void* prepared(char* top) {
    void** s = (void**)((uintptr_t)top & ~(uintptr_t)15);
    *--s = nullptr;                // where a caller's frame would begin
    *--s = (void*)(void (*)())begin;  // where the switch continues
    for (int i = 0; i < 6; ++i) *--s = nullptr;
    return s;
}
#else
}  // namespace emulated
#include <ucontext.h>
namespace emulated {
static ucontext_t contexts[MOST_THREADS + 1];
static void begin();
static inline void switch_to(void** save, void* to) {
    *save = (void*)(save == &scheduler ? &contexts[MOST_THREADS] : &contexts[(Fiber*)save - fibers]);
    swapcontext((ucontext_t*)*save, (ucontext_t*)to);
}
static void* prepared(char* top) {
    static int next;
    ucontext_t* c = &contexts[(top - stacks) / SPACING];
    (void)next;
    getcontext(c);
    c->uc_stack.ss_sp = top - STACK + 64;
    c->uc_stack.ss_size = STACK - 64;
    makecontext(c, begin, 0);
    return c;
}
#endif

static void leave() { switch_to(&fibers[running].stack_pointer, scheduler); }

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(message, 400, format, list);
    va_end(list);
    failed = true;
    leave();
    abort();
}

static void begin() {
    entry(arguments);
    fibers[running].waits = DONE;
    ++done;
    leave();
    abort();
}

static void resume(int i) {
    running = i;
    threadIdx.x = i % blockDim.x;
    threadIdx.y = i / blockDim.x % blockDim.y;
    threadIdx.z = i / (blockDim.x * blockDim.y);
    asm volatile("" ::: "memory");
    switch_to(&scheduler, fibers[i].stack_pointer);
    asm volatile("" ::: "memory");
}

static void make_ready(int i) {
    fibers[i].waits = RUNS;
    ready[i / LANES] |= 1u << i % LANES;
    ready_warps |= 1u << i / LANES;
}

// A set bit of a word that is not 0; which one, depends on a random number below 32.
static inline int any_bit(unsigned word, unsigned random) {
    const unsigned turned = word >> random | word << (-random & 31);
    return (__builtin_ctz(turned) + random) & 31;
}

// The next thread: mostly a lane of the same warp, because its memory is in the cache; else one of any warp.
static int next_ready() {
    const unsigned random = below(1u << 16);
    int warp = running / LANES;
    if (!ready[warp] || random < 4096) warp = any_bit(ready_warps, random >> 5 & 31);
    const int lane = any_bit(ready[warp], random & 31);
    ready[warp] &= ~(1u << lane);
    if (!ready[warp]) ready_warps &= ~(1u << warp);
    return warp * LANES + lane;
}

// Shared memory holds nothing when a block begins: it is filled with a pattern whose floating-point numbers are NaN.
struct Range {
    char* start;
    size_t size;
};
static Range shared[1024];
static int shared_count;

// Returns whether the block ran to its end.
static bool run_block() {
    for (int i = 0; i < shared_count; ++i) memset(shared[i].start, 0xFF, shared[i].size);
    at_barrier = done = running = 0;
    memset(ready, 0, sizeof ready);
    ready_warps = 0;
    memset(warps, 0, sizeof(Warp) * ((threads + LANES - 1) / LANES));
    for (int i = 0; i < threads; ++i) {
        fibers[i].stack_pointer = prepared(stacks + i * SPACING + STACK - 64);
        fibers[i].parity = 0;
        make_ready(i);
    }
    while (done < threads) {
        while (ready_warps) {
            resume(next_ready());
            if (failed) return false;
        }
        if (done == threads) break;
        if (at_barrier == threads) {
            at_barrier = 0;
            for (int i = 0; i < threads; ++i) make_ready(i);
        } else {
            int first = 0;
            while (fibers[first].waits == DONE) ++first;
            const int in_warp = threads - done - at_barrier;
            if (in_warp) {
                while (fibers[first].waits != IN_WARP) ++first;
                const Warp& w = warps[first / LANES];
                const int p = fibers[first].parity ^ 1;
                snprintf(message, 400, "%s with the mask 0x%08x was reached by the lanes 0x%08x only (thread %d waits)",
                         w.what[p], w.mask[p], w.arrived[p], first);
            } else {
                snprintf(message, 400, "a barrier was reached by %d of %d threads; %d have returned (thread %d waits)",
                         at_barrier, threads, done, first);
            }
            failed = true;
            return false;
        }
    }
    return true;
}

static __attribute__((noinline)) void barrier() {
    fibers[running].waits = AT_BARRIER;
    ++at_barrier;
    leave();
}

// All lanes of a warp that `mask` names meet here; returns the slots with what each of them brought.
static __attribute__((noinline)) const Slot* meet(const char* what, unsigned mask, const void* value, int size,
                                                  unsigned* taking_part) {
    const int me = running, lane = me % LANES, first = me - lane;
    Warp& w = warps[me / LANES];
    const int p = fibers[me].parity;
    fibers[me].parity ^= 1;
    const int lanes = threads - first < LANES ? threads - first : LANES;
    const unsigned existing = lanes == LANES ? ~0u : (1u << lanes) - 1;
    if (!(mask >> lane & 1)) fail("%s: lane %d is not in its own mask 0x%08x", what, lane, mask);
    if (!w.arrived[p]) {
        w.mask[p] = mask;
        w.what[p] = what;
        w.size[p] = size;
    } else if (w.mask[p] != mask || (w.what[p] != what && strcmp(w.what[p], what)) || w.size[p] != size) {
        fail("lanes of a warp disagree: %s of %d bytes with the mask 0x%08x, %s of %d bytes with the mask 0x%08x",
             w.what[p], w.size[p], w.mask[p], what, size, mask);
    }
    if (size) memcpy(&w.slots[p][lane], value, size);
    w.arrived[p] |= 1u << lane;
    const unsigned expected = mask & existing;
    if (w.arrived[p] == expected) {
        w.arrived[p] = 0;
        w.taking_part[p] = expected;
        for (int i = 0; i < lanes; ++i)
            if (i != lane && (expected >> i & 1)) make_ready(first + i);
        make_ready(me);  // this lane does not go first
    } else {
        fibers[me].waits = IN_WARP;
    }
    leave();
    *taking_part = w.taking_part[p];
    return w.slots[p];
}

template <class T>
static T shuffled(const char* what, unsigned mask, T value, int from_lane(int, int, int), int n, int width) {
    static_assert(sizeof(T) <= 16 && std::is_trivially_copyable<T>::value, "a shuffle moves at most 16 bytes");
    const int lane = running % LANES, begin = lane / width * width;
    asm volatile("" ::: "memory");
    unsigned taking_part;
    const Slot* slots = meet(what, mask, &value, sizeof(T), &taking_part);
    const int from = from_lane(lane - begin, n, width);
    if (from >= 0 && from < width) {
        if (!(taking_part >> (begin + from) & 1))
            fail("%s: lane %d reads lane %d, which does not take part", what, lane, begin + from);
        memcpy(&value, &slots[begin + from], sizeof(T));
    }
    asm volatile("" ::: "memory");
    return value;
}

struct Launch {
    unsigned grid[3], block[3];
    uint64_t seed;
    char* message;
};

template <class Tuple> struct Call;

template <class... A>
struct Kernel {
    void (*function)(A...);
    void** given;

    template <size_t... I>
    void apply(std::index_sequence<I...>) { function(*(typename std::remove_const<A>::type*)given[I]...); }
    static void enter(void* self) { ((Kernel*)self)->apply(std::index_sequence_for<A...>()); }
};

template <class T>
constexpr int code() {  // a letter for the kind of a parameter and its size, and the size of what a pointer points to
    typedef typename std::remove_cv<typename std::remove_pointer<T>::type>::type P;
    return std::is_pointer<T>::value ? 'p'
           : std::is_same<T, bool>::value ? 'b'
           : std::is_integral<T>::value ? (std::is_signed<T>::value ? 'i' : 'u')
           : std::is_floating_point<T>::value ? 'f' : 'V';
    (void)sizeof(P*);
}

template <class T> constexpr int pointee() {
    typedef typename std::remove_cv<typename std::remove_pointer<T>::type>::type P;
    constexpr bool raw = std::is_void<P>::value || std::is_same<P, char>::value ||
                         std::is_same<P, unsigned char>::value || std::is_same<P, signed char>::value;
    if constexpr (std::is_pointer<T>::value && !raw && (std::is_arithmetic<P>::value)) return sizeof(P);
    return 0;
}

template <class T> constexpr int aligned() {
    typedef typename std::remove_cv<typename std::remove_pointer<T>::type>::type P;
    if constexpr (std::is_pointer<T>::value && !std::is_void<P>::value) return alignof(P);
    return 1;
}

template <class... A>
int parameters(void (*)(A...), int* out) {
    int n = 0;
    (void)n;
    ((out[n++] = code<A>(), out[n++] = sizeof(A), out[n++] = pointee<A>(), out[n++] = aligned<A>()), ...);
    return sizeof...(A);
}

template <class... A>
int launch(void (*function)(A...), const Launch* l, void** given) {
    if (!stacks) {
        stacks = (char*)mmap(nullptr, MOST_THREADS * SPACING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stacks == (char*)MAP_FAILED) {
            stacks = nullptr;
            snprintf(l->message, 400, "no memory for the stacks of the threads");
            return 1;
        }
    }
    Kernel<A...> kernel = {function, given};
    entry = Kernel<A...>::enter;
    arguments = &kernel;
    message = l->message;
    random_state = l->seed * 2 + 1;
    for (int i = 0; i < 4; ++i) below(2);
    failed = false;
    gridDim = {l->grid[0], l->grid[1], l->grid[2]};
    blockDim = {l->block[0], l->block[1], l->block[2]};
    threads = blockDim.x * blockDim.y * blockDim.z;
    for (unsigned z = 0; z < gridDim.z; ++z)
        for (unsigned y = 0; y < gridDim.y; ++y)
            for (unsigned x = 0; x < gridDim.x; ++x) {
                blockIdx = {x, y, z};
                if (!run_block()) return 1;
            }
    return 0;
}

}  // namespace emulated

// What g++ calls, by -fsanitize=bounds,alignment, for an index outside an array of known size and a misaligned address.
struct EmulatedPlace {
    const char* file;
    unsigned line, column;
};
extern "C" __attribute__((weak, visibility("hidden"))) void __ubsan_handle_out_of_bounds(void* p, void* i) {
    emulated::fail("line %u: index %lld is outside its array", ((EmulatedPlace*)p)->line, (long long)i);
}
extern "C" __attribute__((weak, visibility("hidden"))) void __ubsan_handle_type_mismatch_v1(void* p, void* a) {
    emulated::fail("line %u: the address %p is misaligned", ((EmulatedPlace*)p)->line, a);
}

#define EMULATED_VISIBLE extern "C" __attribute__((visibility("default")))

// Tells where the shared arrays of all functions are: addresses as the table of symbols has them, and their sizes.
EMULATED_VISIBLE void emulated_shared(int count, const unsigned long long* addresses, const unsigned long long* sizes,
                                      unsigned long long address_of_this) {
    char* start = (char*)&emulated_shared - address_of_this;
    for (int i = 0; i < count && i < 1024; ++i) emulated::shared[i] = {start + addresses[i], (size_t)sizes[i]};
    emulated::shared_count = count < 1024 ? count : 1024;
}

#define EMULATED_LAUNCHER(name)                                                                              \
    EMULATED_VISIBLE int emulated_launch_##name(const emulated::Launch* l, void** given) {                         \
        return emulated::launch(name, l, given);                                                             \
    }                                                                                                        \
    EMULATED_VISIBLE int emulated_parameters_##name(int* out) { return emulated::parameters(name, out); }

// ---- barriers and warps -----------------------------------------------------------------------------------------------

static inline __attribute__((always_inline)) void __syncthreads() {
    asm volatile("" ::: "memory");
    emulated::barrier();
    asm volatile("" ::: "memory");
}

static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
    asm volatile("" ::: "memory");
    unsigned taking_part;
    emulated::meet("__syncwarp", mask, nullptr, 0, &taking_part);
    asm volatile("" ::: "memory");
}

static inline void __threadfence() {}
static inline void __threadfence_block() {}

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    return emulated::shuffled("__shfl_sync", mask, value, [](int, int n, int w) { return n & (w - 1); }, lane, width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int n, int width = 32) {
    return emulated::shuffled("__shfl_xor_sync", mask, value, [](int i, int n, int) { return i ^ n; }, n, width);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned n, int width = 32) {
    return emulated::shuffled("__shfl_down_sync", mask, value, [](int i, int n, int) { return i + n; }, n, width);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned n, int width = 32) {
    return emulated::shuffled("__shfl_up_sync", mask, value, [](int i, int n, int) { return i - n; }, n, width);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    asm volatile("" ::: "memory");
    unsigned taking_part, result = 0;
    const int value = predicate != 0;
    const emulated::Slot* slots = emulated::meet("__ballot_sync", mask, &value, sizeof value, &taking_part);
    for (int i = 0; i < 32; ++i) {
        int other = 0;
        if (taking_part >> i & 1) memcpy(&other, &slots[i], sizeof other);
        result |= (unsigned)other << i;
    }
    asm volatile("" ::: "memory");
    return result;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return !__ballot_sync(mask, !predicate); }

// ---- integers, bits and numbers -----------------------------------------------------------------------------------------

template <class To, class From> static inline To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "equal sizes");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline float __int_as_float(int i) { return emulated_bits<float>(i); }
static inline float __uint_as_float(unsigned i) { return emulated_bits<float>(i); }
static inline int __float_as_int(float x) { return emulated_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
static inline double __longlong_as_double(long long i) { return emulated_bits<double>(i); }
static inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return ((unsigned long long)a * b) >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return ((unsigned __int128)a * b) >> 64;
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; ++i) y |= (x >> i & 1) << (31 - i);
    return y;
}
template <class T> static inline T __ldg(const T* p) { return *p; }

// Atomic operations on integers only: sums of floating-point numbers would depend on the order.
template <class T, class V> static inline T atomicAdd(T* p, V v) {
    static_assert(std::is_integral<T>::value, "atomicAdd on floating-point numbers gives other bits in each run");
    const T old = *p;
    *p = old + (T)v;
    return old;
}
template <class T, class V> static inline T atomicSub(T* p, V v) { const T old = *p; *p = old - (T)v; return old; }
template <class T, class V> static inline T atomicMax(T* p, V v) { const T old = *p; if ((T)v > old) *p = (T)v; return old; }
template <class T, class V> static inline T atomicMin(T* p, V v) { const T old = *p; if ((T)v < old) *p = (T)v; return old; }
template <class T, class V> static inline T atomicOr(T* p, V v) { const T old = *p; *p = old | (T)v; return old; }
template <class T, class V> static inline T atomicAnd(T* p, V v) { const T old = *p; *p = old & (T)v; return old; }
template <class T, class V> static inline T atomicExch(T* p, V v) { const T old = *p; *p = (T)v; return old; }
template <class T, class V> static inline T atomicCAS(T* p, V compare, V v) {
    const T old = *p;
    if (old == (T)compare) *p = (T)v;
    return old;
}

template <class A, class B> static inline typename std::common_type<A, B>::type min(A a, B b) {
    typedef typename std::common_type<A, B>::type T;
    if constexpr (std::is_floating_point<T>::value) return fmin((T)a, (T)b);
    else return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> static inline typename std::common_type<A, B>::type max(A a, B b) {
    typedef typename std::common_type<A, B>::type T;
    if constexpr (std::is_floating_point<T>::value) return fmax((T)a, (T)b);
    else return (T)a < (T)b ? (T)b : (T)a;
}
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float rsqrt(float x) { return 1 / sqrtf(x); }
#define __expf expf  // the host's C library has private functions of these names
#define __logf logf
#define __powf powf
#define __sinf sinf
#define __cosf cosf
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
