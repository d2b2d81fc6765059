// Matrices with their padding, and the three products that training needs of them.
#pragma once
#include "products.hpp"

struct Matrix {  // rows x columns; with w, m and q as parameters and optimizer state, or with w alone
    float *w = nullptr, *m = nullptr, *q = nullptr;
    long rows = 0, columns = 0, stride = 0;
    float* row(long i) const { return w + i * stride; }
    long padded_rows() const { return padded(rows, ROWS); }
    long width() const { return padded(columns, LANES); }
    size_t size() const { return (size_t)padded_rows() * stride; }
};

// c = a b^T, for the first `rows` rows of a.
static void times_transposed(const Matrix& a, long rows, const Matrix& b, Matrix& c) {
    dot(a.w, a.stride, padded(rows, ROWS), b.w, b.stride, b.padded_rows(), a.width(), c.w, c.stride);
}

// use(row, column, sums) for a b, for the first `rows` rows of a.
template <class Use>
static inline void times(const Matrix& a, long rows, const Matrix& b, Use&& use) {
    outer(a.w, a.stride, 1, padded(rows, ROWS), b.w, b.stride, b.width(), b.rows, use);
}

// use(row, column, sums) for a^T b, summed over the first `rows` rows of both.
template <class Use>
static inline void transposed_times(const Matrix& a, const Matrix& b, long rows, Use&& use) {
    outer(a.w, 1, a.stride, padded(a.columns, ROWS), b.w, b.stride, b.width(), rows, use);
}
