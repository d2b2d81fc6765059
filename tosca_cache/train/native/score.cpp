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

constexpr long BATCH = 8 * ROWS;   // rows whose logits stay in a core's cache
constexpr long WIDTH = 3 * LANES;  // classes of a tile

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

// The head as panels of WIDTH classes, each [dim, WIDTH]: what a tile reads of it lies one after the other.
static void pack(const Rows& task, float* panels) {
    for (long first = 0; first < task.classes; first += WIDTH) {
        long count = task.classes - first < WIDTH ? task.classes - first : WIDTH;
        const float* head = task.directions + first * task.dim;
        for (long k = 0; k < task.dim; k++, panels += WIDTH)
            for (long c = 0; c < count; c++) panels[c] = head[c * task.dim + k];
    }
}

// 0, or 1 if there is not enough memory.
extern "C" int tosca_score(const Rows* task) {
    long dim = task->dim, classes = task->classes;
    Matrix rows, logits;
    rows.rows = BATCH, rows.columns = dim, rows.stride = stride_of(dim);
    logits.rows = BATCH, logits.columns = classes, logits.stride = stride_of(padded(classes, WIDTH));
    size_t head = padded(padded(classes, WIDTH) * dim, 16), floats = head + rows.size() + logits.size();
    float* panels = nullptr;
    if (posix_memalign((void**)&panels, 64, floats * sizeof(float)))
        return 1;
    std::memset(panels, 0, floats * sizeof(float));
    rows.w = panels + head, logits.w = rows.w + rows.size();
    pack(*task, panels);
    float* entropy = task->entropy;
    int64_t* prediction = task->prediction;
    for (long part = 0; part < task->parts; part++)
        for (long first = 0; first < task->rows[part]; first += BATCH) {
            long count = task->rows[part] - first < BATCH ? task->rows[part] - first : BATCH;
            for (long i = 0; i < count; i++)
                std::memcpy(rows.row(i), task->adapted[part] + (first + i) * dim, dim * sizeof(float));
            for (long c = 0; c < classes; c += WIDTH) {
                long width = logits.width() - c < WIDTH ? logits.width() - c : WIDTH;
                outer(rows.w, rows.stride, 1, padded(count, ROWS), panels + c * dim, WIDTH, width, dim,
                      [&](long i, long n, vec sums) { store(logits.row(i) + c + n, sums); });
            }
            for (long i = 0; i < count; i++)
                entropy_of(logits.row(i), classes, logits.width(), task->sigma, entropy++, prediction++);
        }
    std::free(panels);
    return 0;
}
