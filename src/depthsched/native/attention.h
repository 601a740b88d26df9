// Attention of queries over the keys and values held so far, in pieces of the context that are merged afterwards.
#pragma once
#include "simd.h"

static const int PIECE = 128;  // positions of one piece

// What attention over a piece leaves for one head: the largest score, the sum of exponentials, the weighted values.
struct Part {
    float most, sum;
};

// Scores of H queries against `count` keys of one head, `keys` [count, width]; `scores` [H, PIECE].
template <class T, int H> static inline void score(const float* q, const T* keys, int count, int width, float scale, float* scores) {
    for (int s = 0; s < count; s++) {
        v8f acc[H] = {};
        for (int k = 0; k < width; k += 8) {
            v8f key = load8(keys + size_t(s) * width + k);
            UNROLL
            for (int h = 0; h < H; h++) acc[h] += load8(q + h * width + k) * key;
        }
        UNROLL
        for (int h = 0; h < H; h++) scores[h * PIECE + s] = sum(acc[h]) * scale;
    }
}

// Sums of values weighted by `p` [H, PIECE], N times eight numbers wide; `out` [H, width].
template <class T, int H, int N> static inline void mix(const float* p, const T* values, int count, int width, float* out) {
    v8f acc[H][N] = {};
    for (int s = 0; s < count; s++)
        UNROLL
        for (int n = 0; n < N; n++) {
            v8f value = load8(values + size_t(s) * width + 8 * n);
            UNROLL
            for (int h = 0; h < H; h++) acc[h][n] += value * p[h * PIECE + s];
        }
    UNROLL
    for (int h = 0; h < H; h++)
        UNROLL
        for (int n = 0; n < N; n++) store(out + h * width + 8 * n, acc[h][n]);
}

template <class T, int H>
__attribute__((noinline)) static void attend_heads(const float* q, const T* keys, const T* values, int count, int width, float scale, Part* parts, float* out) {
    alignas(32) float scores[H * PIECE];
    score<T, H>(q, keys, count, width, scale, scores);
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
    int k = 0;
    for (; k + 32 <= width; k += 32) mix<T, H, 4>(scores, values + k, count, width, out + k);
    for (; k < width; k += 8) mix<T, H, 1>(scores, values + k, count, width, out + k);
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
    for (int k = 0; k < width; k++) to[k] = 0;
    for (int i = 0; i < pieces; i++) {
        const float by = std::exp(parts[i * stride].most - most);
        total += by * parts[i * stride].sum;
        const float* from = outs + size_t(i) * stride * width;
        for (int k = 0; k < width; k++) to[k] += by * from[k];
    }
    for (int k = 0; k < width; k++) to[k] /= total;
}
