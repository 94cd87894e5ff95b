// The gates of one step of RNN, LSTM and GRU, and their gradients: all that lies between two products. One thread for
// each unit of each sentence.
//
// Arrays over all steps are (B, T, H), or (B, T, 4 H) and (B, T, 3 H) where gates lie side by side; q, the product of the
// states before with W_h, is that of one step. `last` is the position of the step before, or -1, and then the states
// before are the first ones. Where `visible` (B, T), which may be null, is false, the state stays.
//
// Cost: a step of 64 sentences and 512 units moves 1 MB and is bound by its launch; the formula has 30 launches a step.
#include "rows.cuh"

#define STEP_KERNEL extern "C" __global__ void __launch_bounds__(256)

// Where a thread's unit lies: in (B, T, H) at position t, at that of the step before, and in (B, H).
struct Unit {
    long long row, before, state, sentence, unit;
    bool seen;
};

__device__ inline bool found(Unit& at, const bool* visible, long long sentences, long long steps, long long units,
                             long long t, long long last) {
    at.state = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (at.state >= sentences * units) return false;
    at.sentence = at.state / units;
    at.unit = at.state % units;
    at.row = at.sentence * steps + t;
    at.before = (at.sentence * steps + last) * units + at.unit;
    at.seen = !visible || visible[at.row];
    return true;
}

__device__ inline real sigmoid(real x) {  // exp(-|x|) cannot overflow
    const real e = exp(-fabs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}

// h = tanh(u + q), or max(u + q, 0).
STEP_KERNEL rnn_step(const real* u, const real* q, const real* first, const bool* visible, long long sentences,
                     long long steps, long long units, long long t, long long last, bool relu, real* hs) {
    Unit at;
    if (!found(at, visible, sentences, steps, units, t, last)) return;
    const long long now = at.row * units + at.unit;
    const real z = u[now] + q[at.state];
    real h = relu ? (z <= 0 ? 0 : z) : tanh(z);  // a NaN stays
    if (!at.seen) h = last < 0 ? first[at.state] : hs[at.before];
    hs[now] = h;
}

// dz = dh (1 - h^2), or dh where h > 0, else 0, with what later steps add to dh. What is left in dh goes to the step
// before without a product.
STEP_KERNEL rnn_step_gradient(const real* dhs, const real* hs, const bool* visible, long long sentences, long long steps,
                              long long units, long long t, bool relu, real* dh, real* dzs) {
    Unit at;
    if (!found(at, visible, sentences, steps, units, t, 0)) return;
    const long long now = at.row * units + at.unit;
    const real d = dh[at.state] + dhs[now], h = hs[now];
    const real dz = relu ? (h > 0 ? d : 0) : d * (1 - h * h);
    dzs[now] = at.seen ? dz : 0;
    dh[at.state] = at.seen ? 0 : d;
}

// (i, f, g, o) = (sigmoid, sigmoid, tanh, sigmoid)(u + q),  c = f c' + i g,  h = o tanh(c).
STEP_KERNEL lstm_step(const real* u, const real* q, const real* first_h, const real* first_c, const bool* visible,
                      long long sentences, long long steps, long long units, long long t, long long last, real* hs,
                      real* cs, real* gates) {
    Unit at;
    if (!found(at, visible, sentences, steps, units, t, last)) return;
    const long long now = at.row * units + at.unit;
    const long long of_gates = at.row * 4 * units + at.unit, of_product = at.sentence * 4 * units + at.unit;
    const real i = sigmoid(u[of_gates] + q[of_product]);
    const real f = sigmoid(u[of_gates + units] + q[of_product + units]);
    const real g = tanh(u[of_gates + 2 * units] + q[of_product + 2 * units]);
    const real o = sigmoid(u[of_gates + 3 * units] + q[of_product + 3 * units]);
    const real before = last < 0 ? first_c[at.state] : cs[at.before];  // read before the writes, or it waits for them
    gates[of_gates] = i;
    gates[of_gates + units] = f;
    gates[of_gates + 2 * units] = g;
    gates[of_gates + 3 * units] = o;
    const real c = f * before + i * g;
    cs[now] = at.seen ? c : before;
    hs[now] = at.seen ? o * tanh(c) : last < 0 ? first_h[at.state] : hs[at.before];
}

// With s = tanh(c) and dnew = dc + dh o (1 - s^2):  di = dnew g i (1 - i), df = dnew c' f (1 - f), dg = dnew i (1 - g^2),
// do = dh s o (1 - o);  dc' = dnew f.
STEP_KERNEL lstm_step_gradient(const real* dhs, const real* dcs, const real* cs, const real* cs_before,
                               const real* gates, const bool* visible, long long sentences, long long steps,
                               long long units, long long t, real* dh, real* dc, real* dzs) {
    Unit at;
    if (!found(at, visible, sentences, steps, units, t, 0)) return;
    const long long now = at.row * units + at.unit, of_gates = at.row * 4 * units + at.unit;
    const real d = dh[at.state] + dhs[now], e = dc[at.state] + dcs[now], s = tanh(cs[now]);
    const real i = gates[of_gates], f = gates[of_gates + units], g = gates[of_gates + 2 * units],
               o = gates[of_gates + 3 * units];
    const real dnew = e + d * o * (1 - s * s), before = cs_before[now];
    dzs[of_gates] = at.seen ? dnew * g * i * (1 - i) : 0;
    dzs[of_gates + units] = at.seen ? dnew * before * f * (1 - f) : 0;
    dzs[of_gates + 2 * units] = at.seen ? dnew * i * (1 - g * g) : 0;
    dzs[of_gates + 3 * units] = at.seen ? d * s * o * (1 - o) : 0;
    dc[at.state] = at.seen ? dnew * f : e;
    dh[at.state] = at.seen ? 0 : d;
}

// (r, z) = sigmoid(u + q),  m = q_n + b,  n = tanh(u_n + r m),  h = (1 - z) n + z h'.
STEP_KERNEL gru_step(const real* u, const real* q, const real* bias, const real* first, const bool* visible,
                     long long sentences, long long steps, long long units, long long t, long long last, real* hs,
                     real* gates, real* ms) {
    Unit at;
    if (!found(at, visible, sentences, steps, units, t, last)) return;
    const long long now = at.row * units + at.unit;
    const long long of_gates = at.row * 3 * units + at.unit, of_product = at.sentence * 3 * units + at.unit;
    const real r = sigmoid(u[of_gates] + q[of_product]);
    const real z = sigmoid(u[of_gates + units] + q[of_product + units]);
    const real m = q[of_product + 2 * units] + bias[at.unit];
    const real n = tanh(u[of_gates + 2 * units] + r * m);
    const real before = last < 0 ? first[at.state] : hs[at.before];
    gates[of_gates] = r;
    gates[of_gates + units] = z;
    gates[of_gates + 2 * units] = n;
    ms[now] = m;
    hs[now] = at.seen ? (1 - z) * n + z * before : before;
}

// dn = dh (1 - z)(1 - n^2), dz = dh (h' - n) z (1 - z), dr = dn m r (1 - r);  du = (dr, dz, dn), dq = (dr, dz, dn r). To
// the step before goes dh z without a product.
STEP_KERNEL gru_step_gradient(const real* dhs, const real* hs_before, const real* gates, const real* ms,
                              const bool* visible, long long sentences, long long steps, long long units, long long t,
                              real* dh, real* dus, real* dqs) {
    Unit at;
    if (!found(at, visible, sentences, steps, units, t, 0)) return;
    const long long now = at.row * units + at.unit, of_gates = at.row * 3 * units + at.unit;
    const real r = gates[of_gates], z = gates[of_gates + units], n = gates[of_gates + 2 * units];
    const real d = dh[at.state] + dhs[now];
    const real dn = d * (1 - z) * (1 - n * n), dz = d * (hs_before[now] - n) * z * (1 - z);
    const real dr = dn * ms[now] * r * (1 - r);
    dus[of_gates] = dqs[of_gates] = at.seen ? dr : 0;
    dus[of_gates + units] = dqs[of_gates + units] = at.seen ? dz : 0;
    dus[of_gates + 2 * units] = at.seen ? dn : 0;
    dqs[of_gates + 2 * units] = at.seen ? dn * r : 0;
    dh[at.state] = at.seen ? d * z : d;
}
