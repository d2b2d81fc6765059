// Entropy and prediction of adapted rows under the cosine head: the product with the head and the softmax in one pass.
#include "matrix.hpp"

#include <cstdlib>

struct Rows {
    int64_t dim, classes, parts;
    const float* directions;  // rows of the head at unit length, [classes, dim]
    float sigma;
    const float* const* adapted;  // one pointer a part, each [rows, dim], at unit length
    const int64_t* rows;          // [parts]
    float* entropy;               // of all parts, one after the other
    int64_t* prediction;
};

constexpr long BATCH = 8 * ROWS;  // rows whose logits stay in a core's cache

// H = -sum p log(p + 1e-9), and the first of the most likely classes; `logits` is overwritten.
static void entropy_of(float* logits, long classes, long width, float sigma, float* entropy, int64_t* prediction) {
    float largest = sigma * logits[0];
    long best = 0;
    for (long c = 0; c < classes; c++) {
        logits[c] *= sigma;
        if (logits[c] > largest)
            largest = logits[c], best = c;
    }
    for (long c = classes; c < width; c++) logits[c] = -1e30f;
    vec whole = {}, total = {};
    for (long n = 0; n < width; n += LANES) {
        vec e = exponential(load(logits + n) - largest);
        if (n + LANES > classes)
            for (int i = 0; i < LANES; i++)
                if (n + i >= classes)
                    e[i] = 0.f;
        store(logits + n, e);
        whole += e;
    }
    float scale = 1.f / sum(whole);
    for (long n = 0; n < width; n += LANES) {
        vec p = load(logits + n) * scale;
        total += p * logarithm(p + 1e-9f);
    }
    *entropy = -sum(total);
    *prediction = best;
}

// 0, or 1 if there is not enough memory.
extern "C" int tosca_score(const Rows* task) {
    Matrix head, rows, logits;
    head.rows = task->classes, head.columns = task->dim, head.stride = stride_of(task->dim);
    rows.rows = BATCH, rows.columns = task->dim, rows.stride = stride_of(task->dim);
    logits.rows = BATCH, logits.columns = task->classes, logits.stride = stride_of(padded(task->classes, ROWS));
    size_t floats = head.size() + rows.size() + logits.size();
    float* memory = nullptr;
    if (posix_memalign((void**)&memory, 64, floats * sizeof(float)))
        return 1;
    std::memset(memory, 0, floats * sizeof(float));
    head.w = memory, rows.w = head.w + head.size(), logits.w = rows.w + rows.size();
    for (long c = 0; c < task->classes; c++) std::memcpy(head.row(c), task->directions + c * task->dim, task->dim * 4);
    float* entropy = task->entropy;
    int64_t* prediction = task->prediction;
    for (long part = 0; part < task->parts; part++)
        for (long first = 0; first < task->rows[part]; first += BATCH) {
            long count = task->rows[part] - first < BATCH ? task->rows[part] - first : BATCH;
            for (long i = 0; i < count; i++)
                std::memcpy(rows.row(i), task->adapted[part] + (first + i) * task->dim, task->dim * 4);
            times_transposed(rows, count, head, logits);
            for (long i = 0; i < count; i++)
                entropy_of(logits.row(i), task->classes, logits.width(), task->sigma, entropy++, prediction++);
        }
    std::free(memory);
    return 0;
}
