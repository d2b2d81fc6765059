// Matrix products for one model: rows of a few dozen, columns of a feature. Every matrix is row-major with its long
// side contiguous; rows are padded to ROWS (8) and columns to LANES, so that tiles need no edge cases.
#pragma once
#include "vector.hpp"

constexpr int ROWS = 8;  // of a tile: 8 x 3 vectors of sums leave registers for the operands

static inline long padded(long n, long to) {
    return (n + to - 1) / to * to;
}

// Columns of a matrix in memory: an odd number of cache lines, so that the rows of a tile do not share cache sets.
static inline long stride_of(long columns) {
    return padded(columns, 16) / 16 % 2 ? padded(columns, 16) : padded(columns, 16) + 16;
}

template <int N>
static inline void dot_tile(const float* a, long lda, const float* b, long ldb, long depth, float* c, long ldc) {
    vec acc[ROWS][N] = {};
    for (long k = 0; k < depth; k += LANES) {
        vec right[N];
        for (int j = 0; j < N; j++) right[j] = load(b + j * ldb + k);
        for (int i = 0; i < ROWS; i++) {
            vec left = load(a + i * lda + k);
            for (int j = 0; j < N; j++) acc[i][j] += left * right[j];
        }
    }
    for (int j = 0; j < N; j++)
        for (int i = 0; i < ROWS; i += 4) {
            float four[4];
            sum4(acc[i][j], acc[i + 1][j], acc[i + 2][j], acc[i + 3][j], four);
            for (int q = 0; q < 4; q++) c[(i + q) * ldc + j] = four[q];
        }
}

// c[m, n] = sum over k of a[m, k] b[n, k]: both operands contiguous along the sum.
static void dot(const float* a, long lda, long rows, const float* b, long ldb, long columns, long depth, float* c,
                long ldc) {
    for (long i = 0; i < rows; i += ROWS)
        for (long j = 0; j < columns;) {
            const float *left = a + i * lda, *right = b + j * ldb;
            float* out = c + i * ldc + j;
            if (columns - j >= 3)
                dot_tile<3>(left, lda, right, ldb, depth, out, ldc), j += 3;
            else if (columns - j == 2)
                dot_tile<2>(left, lda, right, ldb, depth, out, ldc), j += 2;
            else
                dot_tile<1>(left, lda, right, ldb, depth, out, ldc), j += 1;
        }
}

template <int N, class Use>
static inline void outer_tile(const float* a, long a_row, long a_depth, const float* b, long ldb, long depth, long row,
                              long column, Use&& use) {
    vec acc[ROWS][N] = {};
    a += row * a_row;
    b += column;
    for (long k = 0; k < depth; k++) {
        vec right[N];
        for (int j = 0; j < N; j++) right[j] = load(b + k * ldb + j * LANES);
        for (int i = 0; i < ROWS; i++) {
            vec left = splat(a[i * a_row + k * a_depth]);
            for (int j = 0; j < N; j++) acc[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < N; j++) use(row + i, column + j * LANES, acc[i][j]);
}

// use(m, n, sums) for every vector of sum over k of a[m, k] b[k, n], where a's element is at m * a_row + k * a_depth.
// What becomes of the sums (stored, added, or an optimizer's step) happens while they are in registers.
template <class Use>
static inline void outer(const float* a, long a_row, long a_depth, long rows, const float* b, long ldb, long columns,
                         long depth, Use&& use) {
    for (long n = 0; n < columns;) {
        long left = (columns - n) / LANES, taken = left < 3 ? left : 3;
        for (long m = 0; m < rows; m += ROWS)
            if (taken == 3)
                outer_tile<3>(a, a_row, a_depth, b, ldb, depth, m, n, use);
            else if (taken == 2)
                outer_tile<2>(a, a_row, a_depth, b, ldb, depth, m, n, use);
            else
                outer_tile<1>(a, a_row, a_depth, b, ldb, depth, m, n, use);
        n += taken * LANES;
    }
}
