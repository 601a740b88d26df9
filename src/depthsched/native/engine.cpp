// One pass of a plain Llama-like decoder over a few tokens, through the layers that a program names.
//
// All threads walk through the same phases; each computes its share of a phase's outputs, and they meet after it. What
// is rounded to the model's dtype is what transformers rounds.
#include <algorithm>
#include <atomic>
#include <thread>
#if defined(_OPENMP)
#include <omp.h>
#endif
#include "attention.h"
#include "products.h"
#include "weights.h"

// Compiled in products.cpp.
extern template void tile<1>(const Matrix&, const Acts&, int, int, int, float[][8]);
extern template void tile<2>(const Matrix&, const Acts&, int, int, int, float[][8]);
extern template void tile<3>(const Matrix&, const Acts&, int, int, int, float[][8]);
extern template void tile<4>(const Matrix&, const Acts&, int, int, int, float[][8]);

extern "C" {
struct Layer {
    Matrix q, k, v, out, gate, up, down;
    const float *norm1, *norm2, *q_norm, *k_norm;
};
struct Model {
    int32_t hidden, heads, kv_heads, width, inner, dtype, vocabulary;
    float eps, scale;
    Matrix embedding, head;
    const float* norm;
    const Layer* layers;
    const Matrix* bridges;
};
// Tokens of one pass. Token i belongs to row rows[i] of the batch and goes to slot slots[i] of its cache, of which
// [starts[i], slots[i]] is read. Keys and values of a layer are [batch, kv_heads, capacity, width].
struct Pass {
    int32_t tokens, outputs, steps, threads;
    const int64_t* ids;
    const int32_t *rows, *slots, *starts;
    const int32_t* program;  // pairs: what to do, and the layer or bridge to do it with
    const int32_t* wanted;   // tokens whose logits are asked for
    const float *cos, *sin;  // [positions, width]
    void *const *keys, *const *values;
    int64_t capacity;
    float* logits;  // [outputs, rows of the head]
    // Sums over the ranks that share the model; null where one process has all of it. Heads and inner are then this
    // rank's, `out` and `down` give partial sums, and the embedding and the bridges have some of their rows.
    int32_t (*reduce)(float*, int64_t);
};
}
enum Op { RUN, WRITE, BRIDGE };

struct Scratch {
    std::vector<float> x, q, k, v, gate, up, mixed, partial;
    bool lost = false;  // the other ranks do not answer
    std::vector<Part> parts;
    Memory shared;
    std::vector<Memory> own;
};

struct Team {
    std::atomic<int> waiting{0}, round{0};
    int size = 1;
    void meet() {
        if (size == 1) return;
        const int now = round.load(std::memory_order_acquire);
        if (waiting.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            waiting.store(0, std::memory_order_relaxed);
            round.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spin = 0; round.load(std::memory_order_acquire) == now; spin++) {
            if (spin > 4000) std::this_thread::yield();  // another process has the core that we wait for
#if defined(__x86_64__)
            else __builtin_ia32_pause();
#endif
        }
    }
};

template <class T> static void put(void* cache, size_t at, const float* from, int width) {
    T* to = (T*)cache + at;
    for (int i = 0; i < width; i++) to[i] = narrow<T>(from[i]);
}

struct Worker {
    const Model& m;
    const Pass& p;
    Scratch& s;
    Team& team;
    const int id;

    int share(int64_t all, int of) const { return int(all * of / team.size); }
    template <class F> void each(int all, F f) const {
        for (int i = share(all, id), end = share(all, id + 1); i < end; i++) f(i);
    }
    float r(float x) const { return rounded(x, m.dtype); }

    // Rows of activations for a product. One row every thread makes for itself; more they share out and meet.
    template <class F> Acts fill(int n, int cols, int kinds, F f) const {
        Acts a(n == 1 ? s.own[id] : s.shared, n, cols);
        auto one = [&](int t) { f(t, a.row(t)), a.derive(t, kinds); };
        if (n == 1) one(0);
        else each(n, one), team.meet();
        return a;
    }
    template <class Emit> void multiply(const Matrix& w, const Acts& a, Emit emit) const {
        const int groups = (w.rows + 7) / 8, last = share(groups, id + 1) * 8;
        product(w, a, share(groups, id) * 8, last < w.rows ? last : w.rows, emit);
    }
    void project(const Matrix& w, const Acts& a, std::vector<float>& to) const {
        multiply(w, a, [&](int t, int row, float value) { to[size_t(t) * w.rows + row] = r(value); });
    }
    void add(const Matrix& w, const Acts& a) const {
        if (p.reduce) return add_shared(w, a);
        multiply(w, a, [&](int t, int row, float value) {
            float& x = s.x[size_t(t) * m.hidden + row];
            x = r(x + r(value));
        });
    }
    // The same where this product is a part of the whole one.
    void add_shared(const Matrix& w, const Acts& a) const {
        float* sums = s.partial.data();
        if (w.rows < m.hidden) each(p.tokens, [&](int t) { std::fill_n(sums + size_t(t) * m.hidden, m.hidden, 0.0f); }), team.meet();
        multiply(w, a, [&](int t, int row, float value) { sums[size_t(t) * m.hidden + w.first + row] = value; });
        over_ranks(sums);
        each(p.tokens, [&](int t) {
            for (size_t i = size_t(t) * m.hidden, end = i + m.hidden; i < end; i++) s.x[i] = r(s.x[i] + r(sums[i]));
        });
    }
    void over_ranks(float* sums) const {  // [tokens, hidden]
        team.meet();
        if (id == 0 && !s.lost) s.lost = p.reduce(sums, int64_t(p.tokens) * m.hidden) != 0;
        team.meet();
    }
    void embed(int t) const {
        float* to = &s.x[size_t(t) * m.hidden];
        const int64_t row = p.ids[t] - m.embedding.first;
        if (row >= 0 && row < m.embedding.rows) read_row(m.embedding, row, to);
        else std::fill_n(to, m.hidden, 0.0f);  // another rank has it
    }
    void norm(const float* x, const float* weight, int width, float* to) const {
        v8f squares = {};
        float rest = 0;
        int k = 0;
        for (; k + 8 <= width; k += 8) squares += load8(x + k) * load8(x + k);
        for (; k < width; k++) rest += x[k] * x[k];
        const float by = 1.0f / std::sqrt((sum(squares) + rest) / float(width) + m.eps);
        for (k = 0; k + 8 <= width; k += 8) store(to + k, load8(x + k) * by);
        for (; k < width; k++) to[k] = x[k] * by;
        round_all(to, width, m.dtype);
        for (k = 0; k + 8 <= width; k += 8) store(to + k, load8(to + k) * load8(weight + k));
        for (; k < width; k++) to[k] *= weight[k];
        round_all(to, width, m.dtype);
    }
    Acts normed(const float* weight, int kinds) const {
        return fill(p.tokens, m.hidden, kinds, [&](int t, float* to) { norm(&s.x[size_t(t) * m.hidden], weight, m.hidden, to); });
    }
    void turn(float* x, const float* weight, int t) const {  // a head of token t: its norm, then RoPE
        if (weight) norm(x, weight, m.width, x);
        const size_t place = size_t(p.slots[t] - p.starts[t]) * m.width;
        const float *cos = p.cos + place, *sin = p.sin + place;
        for (int i = 0, half = m.width / 2; i < half; i++) {
            const float a = x[i], b = x[i + half];
            x[i] = r(r(a * cos[i]) + r(-b * sin[i]));
            x[i + half] = r(r(b * cos[i + half]) + r(a * sin[i + half]));
        }
    }
    size_t place(int t, int head, int slot) const {
        return ((size_t(p.rows[t]) * m.kv_heads + head) * p.capacity + slot) * m.width;
    }
    void keep(void* cache, const float* from, int t, int head) const {
        const size_t at = place(t, head, p.slots[t]);
        if (m.dtype == F32) put<float>(cache, at, from, m.width);
        else if (m.dtype == BF16) put<bf16>(cache, at, from, m.width);
        else put<f16>(cache, at, from, m.width);
    }
    void write(const Layer& l, int layer) const {
        each(p.tokens * m.kv_heads, [&](int i) {
            const int t = i / m.kv_heads, head = i % m.kv_heads;
            float* key = &s.k[size_t(i) * m.width];
            turn(key, l.k_norm, t);
            keep(p.keys[layer], key, t, head), keep(p.values[layer], &s.v[size_t(i) * m.width], t, head);
        });
    }
    int pieces(int t) const { return (p.slots[t] - p.starts[t]) / PIECE + 1; }
    void attention(int layer, int most) const {
        const int group = m.heads / m.kv_heads;
        each(p.tokens * m.kv_heads * most, [&](int i) {
            const int piece = i % most, head = i / most % m.kv_heads, t = i / most / m.kv_heads;
            if (piece >= pieces(t)) return;
            const int from = p.starts[t] + piece * PIECE, left = p.slots[t] + 1 - from, count = left < PIECE ? left : PIECE;
            const size_t at = place(t, head, from) * (m.dtype == F32 ? 4 : 2);
            const void *keys = (char*)p.keys[layer] + at, *values = (char*)p.values[layer] + at;
            const float* q = &s.q[(size_t(t) * m.heads + head * group) * m.width];
            const size_t out = (size_t(t) * most + piece) * m.heads + head * group;
            (m.dtype == F32 ? attend<float> : m.dtype == BF16 ? attend<bf16> : attend<f16>)(
                q, keys, values, group, count, m.width, m.scale, &s.parts[out], &s.mixed[out * m.width]);
        });
    }
    Acts attended(int most, int kind) const {
        return fill(p.tokens, m.heads * m.width, 1 << kind, [&](int t, float* to) {
            for (int h = 0; h < m.heads; h++) {
                const size_t at = size_t(t) * most * m.heads + h;
                merge(&s.parts[at], &s.mixed[at * m.width], pieces(t), m.heads, m.width, to + h * m.width);
            }
            round_all(to, m.heads * m.width, m.dtype);
        });
    }
    Acts activated(int kind) const {
        return fill(p.tokens, m.inner, 1 << kind, [&](int t, float* to) {
            const float *gate = &s.gate[size_t(t) * m.inner], *up = &s.up[size_t(t) * m.inner];
            int k = 0;
            for (; k + 8 <= m.inner; k += 8) {
                v8f g = load8(gate + k), e = exp8(g < 0.0f ? g : -g);
                store(to + k, g * (g < 0.0f ? e : splat(1.0f)) / (e + 1.0f));
            }
            for (; k < m.inner; k++) to[k] = gate[k] / (1.0f + std::exp(-gate[k]));
            round_all(to, m.inner, m.dtype);
            for (k = 0; k + 8 <= m.inner; k += 8) store(to + k, load8(to + k) * load8(up + k));
            for (; k < m.inner; k++) to[k] *= up[k];
            round_all(to, m.inner, m.dtype);
        });
    }
    // --8<-- [start:layer]
    void layer(int index, int most) const {
        const Layer& l = m.layers[index];
        const Acts a = normed(l.norm1, 1 << l.q.kind | 1 << l.k.kind | 1 << l.v.kind);
        project(l.q, a, s.q), project(l.k, a, s.k), project(l.v, a, s.v), team.meet();
        write(l, index);
        each(p.tokens * m.heads, [&](int i) { turn(&s.q[size_t(i) * m.width], l.q_norm, i / m.heads); });
        team.meet();
        attention(index, most), team.meet();
        add(l.out, attended(most, l.out.kind)), team.meet();
        const Acts b = normed(l.norm2, 1 << l.gate.kind | 1 << l.up.kind);
        project(l.gate, b, s.gate), project(l.up, b, s.up), team.meet();
        add(l.down, activated(l.down.kind)), team.meet();
    }
    // --8<-- [end:layer]
    void write_only(int index) const {  // what a skipped layer leaves in the cache
        const Layer& l = m.layers[index];
        const Acts a = normed(l.norm1, 1 << l.k.kind | 1 << l.v.kind);
        project(l.k, a, s.k), project(l.v, a, s.v), team.meet();
        write(l, index), team.meet();
    }
    void bridge(const Matrix& w) const {
        const Acts a = fill(p.tokens, m.hidden, 1 << w.kind, [&](int t, float* to) {
            std::memcpy(to, &s.x[size_t(t) * m.hidden], m.hidden * sizeof(float));
        });
        team.meet();  // the states are read by all before any of them changes
        add(w, a), team.meet();
    }
    void run() const {
        int most = 1;
        for (int t = 0; t < p.tokens; t++) most = pieces(t) > most ? pieces(t) : most;
        each(p.tokens, [&](int t) { embed(t); });
        if (p.reduce && m.embedding.rows < m.vocabulary) over_ranks(s.x.data());
        else team.meet();
        for (int i = 0; i < p.steps; i++) {
            const int op = p.program[2 * i], index = p.program[2 * i + 1];
            if (op == RUN) layer(index, most);
            else if (op == WRITE) write_only(index);
            else bridge(m.bridges[index]);
        }
        if (p.outputs == 0) return;
        const Acts a = fill(p.outputs, m.hidden, 1 << m.head.kind, [&](int t, float* to) {
            norm(&s.x[size_t(p.wanted[t]) * m.hidden], m.norm, m.hidden, to);
        });
        multiply(m.head, a, [&](int t, int row, float value) { p.logits[size_t(t) * m.head.rows + row] = r(value); });
    }
};

template <class T> static void grow(std::vector<T>& v, size_t size) {
    if (v.size() < size) v.resize(size);
}

extern "C" {
int32_t depthsched_abi() { return 3; }  // changes with the structures; library.py knows it
float depthsched_probe(float x) { return sum(splat(x) * splat(x)) / 8.0f; }
void* depthsched_scratch() { return new Scratch; }
void depthsched_free(void* scratch) { delete (Scratch*)scratch; }

int32_t depthsched_run(const Model* m, const Pass* p, void* scratch) {
    Scratch& s = *(Scratch*)scratch;
    const size_t n = p->tokens, heads = size_t(m->heads) * m->width, kv = size_t(m->kv_heads) * m->width;
    size_t most = 1, widest = m->hidden;
    for (size_t t = 0; t < n; t++) {
        const size_t pieces = (p->slots[t] - p->starts[t]) / PIECE + 1;
        most = pieces > most ? pieces : most;
    }
    for (size_t width : {heads, size_t(m->inner)}) widest = width > widest ? width : widest;
    grow(s.x, n * m->hidden), grow(s.q, n * heads), grow(s.k, n * kv), grow(s.v, n * kv);
    grow(s.gate, n * m->inner), grow(s.up, n * m->inner), grow(s.parts, n * most * m->heads), grow(s.mixed, n * most * heads);
    if (p->reduce) grow(s.partial, n * m->hidden);
    s.lost = false;
    s.shared.reserve(n > size_t(p->outputs) ? n : p->outputs, widest);
    const int threads = p->threads;
    if (s.own.size() < size_t(threads)) s.own.resize(threads);
    for (Memory& one : s.own) one.reserve(1, widest);
    Team team;
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        team.size = omp_get_num_threads();  // fewer than asked for inside another parallel region
        Worker{*m, *p, s, team, omp_get_thread_num()}.run();
    }
#else
    Worker{*m, *p, s, team, 0}.run();
#endif
    return s.lost;
}
}
