// Weights as numbers: for the embedding, and for products of many rows.
#pragma once
#include "products.h"

// The weights of one block of eight rows: out[r][k].
static inline void unpack(const Matrix& m, int64_t at, float out[8][32]) {
    const f16 *scales = (const f16*)m.scales + at * 8, *mins = m.mins ? (const f16*)m.mins + at * 8 : nullptr;
    const bool four = m.kind == Q4;
    const uint8_t* w = (const uint8_t*)m.data + at * (four ? 128 : 256);
    for (int r = 0; r < 8; r++) {
        const float scale = float(scales[r]), low = !four ? 0.0f : mins ? float(mins[r]) : -8.0f * scale;
        for (int k = 0; k < 32; k++) {
            const int j = k % (four ? 8 : 4) / 2, lane = (k / (four ? 8 : 4) * 8 + r) * 2 + k % 2;
            const int q = four ? w[2 * lane + j / 2] >> 4 * (j % 2) & 15 : int8_t(w[2 * lane + j]);
            out[r][k] = float(q) * scale + low;
        }
    }
}

// Rows [first, last) of a matrix as float32; of one in blocks whole groups of eight.
static inline void read_rows(const Matrix& m, int64_t first, int64_t last, float* to) {
    const int64_t cols = m.cols, blocks = cols / 32;
    if (m.kind == Q4 || m.kind == Q8) {
        float part[8][32];
        for (int64_t row = first; row < last; row += 8)
            for (int64_t b = 0; b < blocks; b++) {
                unpack(m, row / 8 * blocks + b, part);
                for (int r = 0; r < 8; r++) std::memcpy(to + (row - first + r) * cols + 32 * b, part[r], sizeof part[r]);
            }
        return;
    }
    for (int64_t i = first * cols; i < last * cols; i++, to++) {
        if (m.kind == F32) *to = ((const float*)m.data)[i];
        else if (m.kind == BF16) *to = widen(((const bf16*)m.data)[i]);
        else if (m.kind == F16) *to = float(((const f16*)m.data)[i]);
        else *to = ((const int8_t*)m.data)[i] * ((const float*)m.scales)[i / cols];
    }
}

// One row, as an embedding is read.
static inline void read_row(const Matrix& m, int64_t row, float* to) {
    if (m.kind != Q4 && m.kind != Q8) return read_rows(m, row, row + 1, to);
    float part[8][32];
    for (int64_t b = 0, blocks = m.cols / 32; b < blocks; b++) {
        unpack(m, row / 8 * blocks + b, part);
        std::memcpy(to + 32 * b, part[row % 8], sizeof part[0]);
    }
}
