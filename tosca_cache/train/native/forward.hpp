// One minibatch through a module and the cosine head (reference/tosca.md, "The module", "The head").
#pragma once
#include "model.hpp"

constexpr float COSINE_FLOOR = 1e-12f;
constexpr float NORM_EPS = 1e-5f;

static inline float inverse_length(const float* row, long width) {
    vec total = {};
    for (long n = 0; n < width; n += LANES) total += load(row + n) * load(row + n);
    float length = std::sqrt(sum(total));
    return 1.f / (length < COSINE_FLOOR ? COSINE_FLOOR : length);
}

static void adapter(Model& m, long rows) {
    times_transposed(m.x, rows, m.down, m.hid);
    for (long b = 0; b < rows; b++)
        for (long n = 0; n < m.hid.width(); n += LANES) {
            vec value = load(m.hid.row(b) + n) + load(m.down_bias.w + n), cdf, density;
            normal(value, &cdf, &density);
            store(m.hid.row(b) + n, value * cdf);
            store(m.slope.row(b) + n, cdf + value * density);
        }
    bool residual = m.serial();
    times(m.hid, rows, m.up, [&](long b, long n, vec v) {
        v += load(m.up_bias.w + n);
        store(m.normal.row(b) + n, residual ? v + load(m.x.row(b) + n) : v);
    });
}

// LayerNorm of `normal`, which becomes the normalised rows; h is those times weight plus bias.
static void layer_norm(Model& m, long rows) {
    long width = m.normal.width(), pad = width - m.dim;
    for (long b = 0; b < rows; b++) {
        float* row = m.normal.row(b);
        vec total = {}, squares = {};
        for (long n = 0; n < width; n += LANES) total += load(row + n);
        float mean = sum(total) / m.dim;
        for (long n = 0; n < width; n += LANES) {
            vec centred = load(row + n) - mean;
            squares += centred * centred;
        }
        float inverse = 1.f / std::sqrt((sum(squares) - pad * mean * mean) / m.dim + NORM_EPS);
        m.per_row.row(0)[b] = inverse;
        for (long n = 0; n < width; n += LANES) {
            vec value = (load(row + n) - mean) * inverse;
            store(row + n, value);
            store(m.h.row(b) + n, value * load(m.norm_weight.w + n) + load(m.norm_bias.w + n));
        }
    }
}

static const Matrix& gate_input(const Model& m) {
    return m.serial() ? m.h : m.x;
}

// gate = sigmoid(excite relu(squeeze input)); z = input * gate, plus the normalised adapter where both branches are
// parallel.
static void gate(Model& m, long rows) {
    const Matrix& input = gate_input(m);
    times_transposed(input, rows, m.squeeze, m.sq);
    for (long b = 0; b < rows; b++)
        for (long n = 0; n < m.sq.width(); n += LANES) {
            vec value = load(m.sq.row(b) + n);
            store(m.sq.row(b) + n, value > 0.f ? value : vec{});
        }
    bool parallel = m.flow == TOSCA_R;
    times(m.sq, rows, m.excite, [&](long b, long n, vec v) {
        vec open = 1.f / (1.f + exponential(-v));
        vec value = load(input.row(b) + n) * open;
        store(m.gate.row(b) + n, open);
        store(m.z.row(b) + n, parallel ? value + load(m.h.row(b) + n) : value);
    });
}

static void module_forward(Model& m, long rows) {
    if (m.has_adapter()) {
        adapter(m, rows);
        layer_norm(m, rows);
    }
    if (m.has_gate())
        gate(m, rows);
    else
        for (long b = 0; b < rows; b++) std::memcpy(m.z.row(b), m.h.row(b), m.z.width() * sizeof(float));
}

// Cosines of every row with every class; their lengths stay in per_row and per_class.
static void head_forward(Model& m, long rows) {
    times_transposed(m.z, rows, m.head, m.cosine);
    float *row_scale = m.per_row.row(1), *class_scale = m.per_class.row(0);
    for (long c = 0; c < m.classes; c++) class_scale[c] = inverse_length(m.head.row(c), m.head.width());
    for (long b = 0; b < rows; b++) {
        row_scale[b] = inverse_length(m.z.row(b), m.z.width());
        float* row = m.cosine.row(b);
        for (long n = 0; n < m.cosine.width(); n += LANES)
            store(row + n, load(row + n) * row_scale[b] * load(class_scale + n));
    }
}
