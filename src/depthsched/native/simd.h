// Eight floats at a time, in the compiler's own vector types: the same source for AVX2, NEON and anything else.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Loops of constant length over accumulators: unrolled, they stay in registers.
#define UNROLL _Pragma("GCC unroll 16")
#define ROLLED _Pragma("GCC unroll 1")

typedef float v8f __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8u __attribute__((vector_size(32)));
typedef uint16_t v8h __attribute__((vector_size(16)));
typedef int16_t v8s __attribute__((vector_size(16)));
typedef uint16_t bf16;
typedef _Float16 f16;

template <class V> static inline V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
static inline void store(float* to, v8f v) { std::memcpy(to, &v, sizeof v); }
static inline v8f splat(float x) { return v8f{x, x, x, x, x, x, x, x}; }
static inline float sum(v8f v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

static inline float max(v8f v) {
    float most = v[0];
    UNROLL
    for (int i = 1; i < 8; i++) most = v[i] > most ? v[i] : most;
    return most;
}
static inline v8i nearest(v8f v) {
#if defined(__AVX2__)
    return (v8i)_mm256_cvtps_epi32((__m256)v);
#else
    v8i whole;
    for (int i = 0; i < 8; i++) whole[i] = int32_t(std::nearbyint(v[i]));
    return whole;
#endif
}

// The sums of four vectors at once.
static inline void sum4(v8f a, v8f b, v8f c, v8f d, float* to) {
#if defined(__AVX2__)
    __m256 all = _mm256_hadd_ps(_mm256_hadd_ps((__m256)a, (__m256)b), _mm256_hadd_ps((__m256)c, (__m256)d));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
#else
    to[0] = sum(a), to[1] = sum(b), to[2] = sum(c), to[3] = sum(d);
#endif
}

// What a number is stored as. The order is that of `Kind` in kinds.py.
enum Kind { F32, BF16, F16, Q4, Q8, I8 };

static inline float widen(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}
static inline float widen(f16 x) { return float(x); }
static inline float widen(float x) { return x; }

static inline bf16 to_bf16(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16((bits >> 16) | 64);  // a NaN stays one
    return bf16((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
template <class T> static inline T narrow(float x);
template <> inline float narrow<float>(float x) { return x; }
template <> inline bf16 narrow<bf16>(float x) { return to_bf16(x); }
template <> inline f16 narrow<f16>(float x) { return f16(x); }

// To the precision of the model's activations, where transformers would round to it.
static inline float rounded(float x, int kind) {
    return kind == F32 ? x : kind == BF16 ? widen(to_bf16(x)) : float(f16(x));
}

static inline void round_all(float* x, int count, int kind) {
    if (kind == F32) return;
    for (int i = 0; i < count; i++) x[i] = rounded(x[i], kind);
}

static inline v8f load8(const float* p) { return load<v8f>(p); }
static inline v8f load8(const bf16* p) { return (v8f)(__builtin_convertvector(load<v8h>(p), v8u) << 16); }
static inline v8f load8(const f16* p) {
#if defined(__F16C__)
    return (v8f)_mm256_cvtph_ps(load<__m128i>(p));
#else
    v8f v;
    for (int i = 0; i < 8; i++) v[i] = float(p[i]);
    return v;
#endif
}

// Sixteen numbers as two times eight. Of bfloat16 the even places come first and then the odd ones: that takes half of
// the instructions.
template <class T> static inline v8f first8(const T* p) { return load8(p); }
template <class T> static inline v8f second8(const T* p) { return load8(p + 8); }
template <> inline v8f first8(const bf16* p) { return (v8f)(load<v8u>(p) << 16); }
template <> inline v8f second8(const bf16* p) { return (v8f)(load<v8u>(p) & 0xffff0000u); }
template <class T> static inline void load16(const T* p, v8f& a, v8f& b) { a = first8(p), b = second8(p); }
static inline void split16(const float* from, float* to) {
    for (int i = 0; i < 8; i++) to[i] = from[2 * i], to[i + 8] = from[2 * i + 1];
}
static inline void join16(const float* from, float* to) {
    for (int i = 0; i < 8; i++) to[2 * i] = from[i], to[2 * i + 1] = from[i + 8];
}

// e to the x for x <= 0, to about 2e-7 of the result; what is below -87 becomes 0, and what is no number stays none.
static inline v8f exp8(v8f x) {
    v8i tiny = x < -87.0f;
    x = tiny ? splat(-87.0f) : x;
    v8f n = x * 1.44269504f - 0.5f;
    v8i whole = __builtin_convertvector(n, v8i);  // towards zero: with the half above, to the nearest
    n = __builtin_convertvector(whole, v8f);
    v8f r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    v8f p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    v8f e = p * (v8f)((whole + 127) << 23);
    return x == x ? (tiny ? splat(0.0f) : e) : x;
}
