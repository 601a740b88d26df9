// Products of one to a few hundred rows of activations with a matrix of weights, read once and where it lies.
#pragma once
#include <type_traits>
#include <vector>
#include "simd.h"

// `rows` outputs by `cols` inputs. Dense kinds and I8 (with a float scale for each row) lie row by row. Q4 and Q8 are
// blocks of 32 inputs with float16 scales, eight rows side by side, as depthsched.blocks packs them.
struct Matrix {
    int32_t kind, rows, cols, first;  // first: of a matrix split over ranks, which row of the whole comes first
    const void *data, *scales, *mins;
    const float* bias;
};

// Memory for the rows of activations of one product; grows, and is kept from pass to pass.
struct Memory {
    std::vector<float> plain, split, scale, total;
    std::vector<int16_t> whole;

    void reserve(size_t rows, size_t cols) {
        const size_t size = rows * cols, blocks = rows * ((cols + 31) / 32);
        if (plain.size() < size) plain.resize(size), split.resize(size), whole.resize(size);
        if (scale.size() < blocks) scale.resize(blocks), total.resize(blocks);
    }
};

// Rows of activations in the forms that the kinds of weights read.
struct Acts {
    int n, cols;
    float *plain, *split;          // split: of each 16, the even places, then the odd ones
    float *scale, *total;          // of each block of 32: value = whole * scale, and the sum of the values
    int16_t* whole;

    Acts(Memory& m, int n, int cols)
        : n(n), cols(cols), plain(m.plain.data()), split(m.split.data()), scale(m.scale.data()), total(m.total.data()), whole(m.whole.data()) {}
    float* row(int t) const { return plain + size_t(t) * cols; }

    // After row t of `plain` was filled: the other forms, as far as weights of these kinds, a bit each, read them.
    void derive(int t, int kinds) const {
        if (kinds & 1 << BF16) derive_split(t);
        if (kinds & (1 << Q4 | 1 << Q8 | 1 << I8)) derive_whole(t);
    }
    void derive_split(int t) const {
        for (int k = 0; k + 16 <= cols; k += 16) split16(row(t) + k, split + size_t(t) * cols + k);
    }
    void derive_whole(int t) const {
        for (int k = 0, b = int(size_t(t) * (cols / 32)); k + 32 <= cols; k += 32, b++) {
            const float* x = row(t) + k;
            int16_t* to = whole + size_t(t) * cols + k;
            v8f part[4], most = {}, odd = {};
            UNROLL
            for (int i = 0; i < 4; i++) {
                part[i] = load8(x + 8 * i);
                const v8f size = part[i] < 0.0f ? -part[i] : part[i];
                most = size > most ? size : most;
                odd += part[i] * 0.0f;  // not zero where something is not finite, which whole numbers would hide
            }
            const float largest = max(most), by = largest > 0 ? 32767.0f / largest : 0.0f;
            v8i all = {};
            UNROLL
            for (int i = 0; i < 4; i++) {
                const v8i q = nearest(part[i] * by);
                const v8s small = __builtin_convertvector(q, v8s);
                std::memcpy(to + 8 * i, &small, sizeof small);
                all += q;
            }
            scale[b] = largest / 32767.0f + sum(odd), total[b] = sum(__builtin_convertvector(all, v8f)) * scale[b];
        }
    }
};

// Activations in the order in which load16 gives weights.
template <class W> static inline const float* ordered(const Acts& a) {
    return std::is_same<W, bf16>::value ? a.split : a.plain;
}

// R rows of dense weights from `row` on with T rows of activations from `t` on: out[t][r].
template <class W, int R, int T> static inline void dense(const Matrix& m, const Acts& a, int row, int t, float out[][8]) {
    const int cols = m.cols;
    const W* w = (const W*)m.data + size_t(row) * cols;
    const float* x = ordered<W>(a) + size_t(t) * cols;
    v8f acc[R][T] = {};
    int k = 0;
    for (; k + 16 <= cols; k += 16) {
        if (t == 0)  // else the weights are near already
            for (int r = 0; r < R; r++) __builtin_prefetch(w + size_t(R + r) * cols + k);
        UNROLL
        for (int half = 0; half < 2; half++) {
            v8f part[T];
            UNROLL
            for (int i = 0; i < T; i++) part[i] = load8(x + size_t(i) * cols + k + 8 * half);
            UNROLL
            for (int r = 0; r < R; r++) {
                const v8f weight = half ? second8(w + size_t(r) * cols + k) : first8(w + size_t(r) * cols + k);
                UNROLL
                for (int i = 0; i < T; i++) acc[r][i] += weight * part[i];
            }
        }
    }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int i = 0; i < T; i++) {
            float rest = 0;
            for (int j = k; j < cols; j++) rest += widen(w[size_t(r) * cols + j]) * a.row(t + i)[j];
            out[i][r] = sum(acc[r][i]) + rest;
        }
}

#if defined(__AVX2__)
static inline __m256i pair(const int16_t* x) { return _mm256_set1_epi32(load<int32_t>(x)); }

// Eight rows of one block with T rows of activations, in whole numbers.
template <int T> static inline void add_q4(const uint8_t* w, const int16_t* const* x, int at, __m256i d[]) {
    const __m256i low = _mm256_set1_epi16(15);
    ROLLED
    for (int g = 0; g < 4; g++) {
        const __m256i v = load<__m256i>(w + 32 * g);
        UNROLL
        for (int j = 0; j < 4; j++) {
            const __m256i q = j == 3 ? _mm256_srli_epi16(v, 12) : _mm256_and_si256(j ? _mm256_srli_epi16(v, 4 * j) : v, low);
            UNROLL
            for (int i = 0; i < T; i++) d[i] = _mm256_add_epi32(d[i], _mm256_madd_epi16(q, pair(x[i] + at + 8 * g + 2 * j)));
        }
    }
}
template <int T> static inline void add_q8(const uint8_t* w, const int16_t* const* x, int at, __m256i d[]) {
    ROLLED
    for (int g = 0; g < 8; g++) {
        const __m256i v = load<__m256i>(w + 32 * g);
        UNROLL
        for (int j = 0; j < 2; j++) {
            const __m256i q = _mm256_srai_epi16(j ? v : _mm256_slli_epi16(v, 8), 8);
            UNROLL
            for (int i = 0; i < T; i++) d[i] = _mm256_add_epi32(d[i], _mm256_madd_epi16(q, pair(x[i] + at + 4 * g + 2 * j)));
        }
    }
}
template <int KIND, int T> static inline void block(const uint8_t* w, const int16_t* const* x, int at, v8f out[]) {
    __m256i d[T];
    UNROLL
    for (int i = 0; i < T; i++) d[i] = _mm256_setzero_si256();
    if (KIND == Q4) add_q4<T>(w, x, at, d);
    else add_q8<T>(w, x, at, d);
    UNROLL
    for (int i = 0; i < T; i++) out[i] = (v8f)_mm256_cvtepi32_ps(d[i]);
}
#else
template <int KIND, int T> static inline void block(const uint8_t* w, const int16_t* const* x, int at, v8f out[]) {
    UNROLL
    for (int i = 0; i < T; i++) {
        int32_t d[8] = {};
        for (int lane = 0; lane < (KIND == Q4 ? 64 : 128); lane++) {
            int group = lane / 16, r = lane / 2 % 8, parity = lane % 2;
            for (int j = 0; j < (KIND == Q4 ? 4 : 2); j++) {
                int k = (KIND == Q4 ? 8 : 4) * group + 2 * j + parity;
                int q = KIND == Q4 ? (w[2 * lane + j / 2] >> 4 * (j % 2)) & 15 : int8_t(w[2 * lane + j]);
                d[r] += q * x[i][at + k];
            }
        }
        UNROLL
        for (int r = 0; r < 8; r++) out[i][r] = float(d[r]);
    }
}
#endif

// Eight rows of blocks with T rows of activations.
template <int KIND, int T> static inline void blocked(const Matrix& m, const Acts& a, int row, int t, float out[][8]) {
    const int cols = m.cols, blocks = cols / 32, bytes = KIND == Q4 ? 128 : 256;
    const size_t first = size_t(row / 8) * blocks;
    const uint8_t* w = (const uint8_t*)m.data + first * bytes;
    const f16 *scales = (const f16*)m.scales + first * 8, *mins = (const f16*)m.mins;
    const int16_t* x[T];
    for (int i = 0; i < T; i++) x[i] = a.whole + size_t(t + i) * cols;
    const float *by = a.scale + size_t(t) * blocks, *total = a.total + size_t(t) * blocks;
    v8f acc[T] = {};
    for (int b = 0; b < blocks; b++) {
        v8f d[T], scale = load8(scales + 8 * b);
        for (int i = 0; i < bytes; i += 64) __builtin_prefetch(w + size_t(b) * bytes + i + 2048);
        block<KIND, T>(w + size_t(b) * bytes, x, 32 * b, d);
        UNROLL
        for (int i = 0; i < T; i++) acc[i] += d[i] * (scale * by[i * blocks + b]);
        if (KIND == Q8) continue;
        v8f low = mins ? load8(mins + (first + b) * 8) : scale * -8.0f;
        UNROLL
        for (int i = 0; i < T; i++) acc[i] += low * total[i * blocks + b];
    }
    UNROLL
    for (int i = 0; i < T; i++) store(out[i], acc[i]);
}

// R rows of int8 weights, a scale each.
template <int R, int T> static inline void bytes(const Matrix& m, const Acts& a, int row, int t, float out[][8]) {
    const int cols = m.cols, blocks = cols / 32;
    const int8_t* w = (const int8_t*)m.data + size_t(row) * cols;
    const int16_t* x = a.whole + size_t(t) * cols;
    v8f acc[R][T] = {};
    for (int b = 0; b < blocks; b++)
        UNROLL
        for (int r = 0; r < R; r++) {
            const int8_t* from = w + size_t(r) * cols + 32 * b;
#if defined(__AVX2__)
            __m256i low = _mm256_cvtepi8_epi16(load<__m128i>(from)), high = _mm256_cvtepi8_epi16(load<__m128i>(from + 16));
#endif
            UNROLL
            for (int i = 0; i < T; i++) {
                const int16_t* y = x + size_t(i) * cols + 32 * b;
                float by = a.scale[size_t(t + i) * blocks + b];
#if defined(__AVX2__)
                __m256i d = _mm256_add_epi32(_mm256_madd_epi16(low, load<__m256i>(y)), _mm256_madd_epi16(high, load<__m256i>(y + 16)));
                acc[r][i] += (v8f)_mm256_cvtepi32_ps(d) * by;
#else
                int32_t d = 0;
                for (int k = 0; k < 32; k++) d += from[k] * y[k];
                acc[r][i][0] += float(d) * by;
#endif
            }
        }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int i = 0; i < T; i++) out[i][r] = sum(acc[r][i]) * ((const float*)m.scales)[row + r];
}

// Not inlined: one copy for all products, or compiling takes three times as long.
template <int T> __attribute__((noinline)) void tile(const Matrix& m, const Acts& a, int row, int rows, int t, float out[][8]) {
    const int step = m.kind == Q4 || m.kind == Q8 ? 8 : T == 4 ? 2 : 4;
    float part[T][8];
    for (int r = 0; r < rows; r += step) {
        const bool all = rows - r >= step;
        for (int s = 0; s < (all ? 1 : rows - r); s++) {
            const int at = row + r + s;
            switch (m.kind) {
                case F32: all ? dense<float, (T == 4 ? 2 : 4), T>(m, a, at, t, part) : dense<float, 1, T>(m, a, at, t, part); break;
                case BF16: all ? dense<bf16, (T == 4 ? 2 : 4), T>(m, a, at, t, part) : dense<bf16, 1, T>(m, a, at, t, part); break;
                case F16: all ? dense<f16, (T == 4 ? 2 : 4), T>(m, a, at, t, part) : dense<f16, 1, T>(m, a, at, t, part); break;
                case Q4: blocked<Q4, T>(m, a, at, t, part); break;
                case Q8: blocked<Q8, T>(m, a, at, t, part); break;
                case I8: all ? bytes<(T == 4 ? 2 : 4), T>(m, a, at, t, part) : bytes<1, T>(m, a, at, t, part); break;
            }
            UNROLL
            for (int i = 0; i < T; i++)
                for (int j = 0; j < (all ? step : 1); j++) out[i][r + s + j] = part[i][j];
        }
    }
}

// Outputs [first, last) of the product with every row of activations; `emit(t, row, value)` gets each.
template <class Emit> static void product(const Matrix& m, const Acts& a, int first, int last, Emit emit) {
    const int most = a.n >= 12 && m.kind <= F16 ? 3 : 4;  // three rows fill the registers best where many are to come
    for (int row = first; row < last; row += 8) {
        const int rows = last - row < 8 ? last - row : 8;
        for (int t = 0; t < a.n;) {
            float out[4][8];
            const int now = a.n - t < most ? a.n - t : most;
            switch (now) {
                case 1: tile<1>(m, a, row, rows, t, out); break;
                case 2: tile<2>(m, a, row, rows, t, out); break;
                case 3: tile<3>(m, a, row, rows, t, out); break;
                default: tile<4>(m, a, row, rows, t, out);
            }
            for (int i = 0; i < now; i++)
                for (int r = 0; r < rows; r++) emit(t + i, row + r, out[i][r] + (m.bias ? m.bias[row + r] : 0.0f));
            t += now;
        }
    }
}
