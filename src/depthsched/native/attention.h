// Attention of queries over the keys and values held so far, in pieces of the context that are merged afterwards.
#pragma once
#include <type_traits>
#include "simd.h"

static const int PIECE = 128;       // positions of one piece
static const int MOST_WIDTH = 512;  // numbers of a head

// What attention over a piece leaves for one head: the largest score, the sum of exponentials, the weighted values.
struct Part {
    float most, sum;
};

// Scores of H queries against `count` keys of one head, `keys` [count, width]; `scores` [H, PIECE]. Four keys at once
// share what is read of the queries, which are in the order of load16. `next` is what will be read after this.
template <class T, int H>
static inline void score(const float* q, const T* keys, const T* next, int count, int width, float scale, float* scores) {
    for (int s = 0; s < count; s += 4) {
        const T* key[4];  // the last ones again where fewer are left
        for (int i = 0; i < 4; i++) key[i] = keys + size_t(s + i < count ? s + i : count - 1) * width;
        for (int i = 0; i < 4 * width; i += int(64 / sizeof(T))) __builtin_prefetch(next + size_t(s) * width + i);
        v8f acc[H][4] = {}, a[4], b[4];
        int k = 0;
        for (; k + 16 <= width; k += 16) {
            UNROLL
            for (int i = 0; i < 4; i++) load16(key[i] + k, a[i], b[i]);
            UNROLL
            for (int h = 0; h < H; h++) {
                const v8f even = load8(q + h * width + k), odd = load8(q + h * width + k + 8);
                UNROLL
                for (int i = 0; i < 4; i++) acc[h][i] += even * a[i], acc[h][i] += odd * b[i];
            }
        }
        for (; k < width; k += 8)
            UNROLL
            for (int h = 0; h < H; h++)
                UNROLL
                for (int i = 0; i < 4; i++) acc[h][i] += load8(q + h * width + k) * load8(key[i] + k);
        UNROLL
        for (int h = 0; h < H; h++) {
            float* to = scores + h * PIECE + s;
            sum4(acc[h][0], acc[h][1], acc[h][2], acc[h][3], to);
            for (int i = 0; i < 4; i++) to[i] *= scale;
        }
    }
}

// Sums of values weighted by `p` [H, PIECE], N times sixteen numbers wide; `out` [H, width]. `next`: as for scores.
template <class T, int H, int N>
static inline void mix(const float* p, const T* values, const T* next, int count, int width, float* out) {
    v8f acc[H][2 * N] = {};
    for (int s = 0; s < count; s++) {
        for (int i = 0; i < 16 * N; i += int(64 / sizeof(T))) __builtin_prefetch(next + size_t(s) * width + i);
        UNROLL
        for (int n = 0; n < N; n++) {
            v8f a, b;
            load16(values + size_t(s) * width + 16 * n, a, b);
            UNROLL
            for (int h = 0; h < H; h++) acc[h][2 * n] += a * p[h * PIECE + s], acc[h][2 * n + 1] += b * p[h * PIECE + s];
        }
    }
    UNROLL
    for (int h = 0; h < H; h++)
        UNROLL
        for (int n = 0; n < N; n++) {
            float both[16];
            store(both, acc[h][2 * n]), store(both + 8, acc[h][2 * n + 1]);
            if (std::is_same<T, bf16>::value) join16(both, out + h * width + 16 * n);
            else std::memcpy(out + h * width + 16 * n, both, sizeof both);
        }
}
template <class T, int H> static inline void mix8(const float* p, const T* values, int count, int width, float* out) {
    v8f acc[H] = {};
    for (int s = 0; s < count; s++)
        UNROLL
        for (int h = 0; h < H; h++) acc[h] += load8(values + size_t(s) * width) * p[h * PIECE + s];
    for (int h = 0; h < H; h++) store(out + h * width, acc[h]);
}

template <class T, int H>
__attribute__((noinline)) static void attend_heads(const float* q, const T* keys, const T* values, int count, int width, float scale, Part* parts, float* out) {
    alignas(32) float scores[H * PIECE], split[H * MOST_WIDTH];
    if (std::is_same<T, bf16>::value) {
        std::memcpy(split, q, size_t(H) * width * sizeof(float));
        for (int h = 0; h < H; h++)
            for (int k = 0; k + 16 <= width; k += 16) split16(q + h * width + k, split + h * width + k);
        q = split;
    }
    score<T, H>(q, keys, values, count, width, scale, scores);
    UNROLL
    for (int h = 0; h < H; h++) {
        float* row = scores + h * PIECE;
        float most = row[0];
        for (int s = 1; s < count; s++) most = row[s] > most ? row[s] : most;
        for (int s = count; s % 8; s++) row[s] = -INFINITY;
        v8f total = {};
        for (int s = 0; s < count; s += 8) {
            v8f e = exp8(load8(row + s) - most);
            store(row + s, e);
            total += e;
        }
        parts[h] = {most, sum(total)};
    }
    const T* after = keys + size_t(PIECE) * width;
    int k = 0;
    for (; k + 32 <= width; k += 32) mix<T, H, 2>(scores, values + k, after + k, count, width, out + k);
    for (; k + 16 <= width; k += 16) mix<T, H, 1>(scores, values + k, after + k, count, width, out + k);
    for (; k < width; k += 8) mix8<T, H>(scores, values + k, count, width, out + k);
}

// One piece for all heads that share keys; `parts` [heads], `out` [heads, width].
template <class T>
static void attend(const float* q, const void* keys, const void* values, int heads, int count, int width, float scale, Part* parts, float* out) {
    const T *k = (const T*)keys, *v = (const T*)values;
    for (int h = 0; h < heads;) {
        const float* query = q + size_t(h) * width;
        switch (heads - h) {
            case 1: attend_heads<T, 1>(query, k, v, count, width, scale, parts + h, out + h * width), h += 1; break;
            case 2: attend_heads<T, 2>(query, k, v, count, width, scale, parts + h, out + h * width), h += 2; break;
            default: attend_heads<T, 3>(query, k, v, count, width, scale, parts + h, out + h * width), h += 3;
        }
    }
}

// The pieces of one head joined: `parts` and `outs` are one piece apart by `stride` heads.
static inline void merge(const Part* parts, const float* outs, int pieces, int stride, int width, float* to) {
    float most = -INFINITY, total = 0;
    for (int i = 0; i < pieces; i++) most = std::fmax(most, parts[i * stride].most);
    for (int i = 0; i < pieces; i++) total += std::exp(parts[i * stride].most - most) * parts[i * stride].sum;
    for (int first = 0; first < pieces; first += 64) {
        const int count = pieces - first < 64 ? pieces - first : 64;
        float by[64];
        for (int i = 0; i < count; i++) by[i] = std::exp(parts[(first + i) * stride].most - most) / total;
        for (int k = 0; k < width; k += 8) {
            v8f all = first ? load8(to + k) : v8f{};
            for (int i = 0; i < count; i++) all += load8(outs + size_t(first + i) * stride * width + k) * by[i];
            store(to + k, all);
        }
    }
}
