// The inner loops of products, half of the compiler's work, beside engine.cpp in a file of their own.
#include "products.h"
#include "weights.h"

template void tile<1>(const Matrix&, const Acts&, int, int, int, float[][8]);
template void tile<2>(const Matrix&, const Acts&, int, int, int, float[][8]);
template void tile<3>(const Matrix&, const Acts&, int, int, int, float[][8]);
template void tile<4>(const Matrix&, const Acts&, int, int, int, float[][8]);

extern "C" {
// y = x @ w.T + bias for x [rows, w.cols] float32, y [rows, w.rows] float32.
void depthsched_product(const Matrix* w, const float* x, float* y, int32_t rows, int32_t threads) {
    Memory memory;
    memory.reserve(rows, w->cols);
    const Acts a(memory, rows, w->cols);
    std::memcpy(a.plain, x, size_t(rows) * w->cols * sizeof(float));
#pragma omp parallel for num_threads(threads)
    for (int t = 0; t < rows; t++) a.derive(t, 1 << w->kind);
    const int groups = (w->rows + 7) / 8;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int part = 0; part < threads; part++) {
        const int first = int64_t(groups) * part / threads * 8, last = int64_t(groups) * (part + 1) / threads * 8;
        product(*w, a, first, last < w->rows ? last : w->rows, [&](int t, int row, float value) { y[size_t(t) * w->rows + row] = value; });
    }
}

// Rows [first, last) of the weights, [last - first, w.cols] float32; of blocks whole groups of eight.
void depthsched_dense(const Matrix* w, int32_t first, int32_t last, float* to, int32_t threads) {
    const int groups = (last - first + 7) / 8;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int g = 0; g < groups; g++) {
        const int row = first + 8 * g, end = row + 8 < last ? row + 8 : last;
        read_rows(*w, row, end, to + size_t(8) * g * w->cols);
    }
}
}
