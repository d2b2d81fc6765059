// Gradients of one minibatch, each handed to the optimizer while it is in registers: no gradient is ever written to
// memory. A matrix is updated only after everything that still needs its old values has used them.
#pragma once
#include "forward.hpp"
#include "optimizer.hpp"

// One step of `parameter` with gradient[i, :] = sum over the batch of left[b, i] * right[b, :].
template <class O>
static inline void learn(O& optimizer, Matrix& parameter, const Matrix& left, const Matrix& right, long rows) {
    transposed_times(left, right, rows, [&](long i, long n, vec v) {
        long at = i * parameter.stride + n;
        optimizer.module(parameter.w + at, parameter.m + at, parameter.q + at, v);
    });
    optimizer.add_up();
}

// One step of a bias or norm with a gradient in memory, or with none (a branch that the flow does not use).
template <class O>
static inline void learn(O& optimizer, Matrix& parameter, const float* gradient) {
    for (long i = 0; i < parameter.rows; i++)
        for (long n = 0; n < parameter.width(); n += LANES) {
            long at = i * parameter.stride + n;
            optimizer.module(parameter.w + at, parameter.m + at, parameter.q + at,
                             gradient ? load(gradient + at) : vec{});
        }
    optimizer.add_up();
}

// Cross-entropy summed over the batch; leaves d loss / d logits of the mean in `dlogits`.
static double cross_entropy(Model& m, const int64_t* targets, long rows) {
    float sigma = m.sigma.w[0];
    double loss = 0;
    for (long b = 0; b < rows; b++) {
        float *cosine = m.cosine.row(b), *p = m.dlogits.row(b);
        float largest = sigma * cosine[0];
        for (long c = 1; c < m.classes; c++) largest = sigma * cosine[c] > largest ? sigma * cosine[c] : largest;
        vec total = {};
        for (long n = 0; n < m.cosine.width(); n += LANES)
            store(p + n, exponential(sigma * load(cosine + n) - largest));
        for (long c = m.classes; c < m.cosine.width(); c++) p[c] = 0.f;
        for (long n = 0; n < m.cosine.width(); n += LANES) total += load(p + n);
        float whole = sum(total), scale = 1.f / (whole * rows);
        for (long n = 0; n < m.cosine.width(); n += LANES) store(p + n, load(p + n) * scale);
        p[targets[b]] -= 1.f / rows;
        loss += std::log((double)whole) + largest - sigma * cosine[targets[b]];
    }
    return loss;
}

// Through the two normalisations of the cosine: dz, then one step of the head and of sigma.
template <class O>
static void head_backward(Model& m, O& optimizer, long rows) {
    float sigma = m.sigma.w[0], *row_scale = m.per_row.row(1), *class_scale = m.per_class.row(0);
    float *off_z = m.per_row.row(2), *off_w = m.per_class.row(1);
    vec dsigma = {};
    std::memset(off_w, 0, m.per_class.width() * sizeof(float));
    for (long b = 0; b < rows; b++) {
        vec along = {};
        for (long n = 0; n < m.dlogits.width(); n += LANES) {
            vec g = load(m.dlogits.row(b) + n), part = g * load(m.cosine.row(b) + n);
            along += part;
            store(off_w + n, load(off_w + n) + sigma * part);
            store(m.dlogits.row(b) + n, g * sigma * row_scale[b] * load(class_scale + n));
        }
        dsigma += along;
        off_z[b] = row_scale[b] < 1.f / COSINE_FLOOR ? sigma * sum(along) * row_scale[b] * row_scale[b] : 0.f;
    }
    for (long c = 0; c < m.classes; c++)
        off_w[c] = class_scale[c] < 1.f / COSINE_FLOOR ? off_w[c] * class_scale[c] * class_scale[c] : 0.f;
    times(m.dlogits, rows, m.head,
          [&](long b, long n, vec v) { store(m.dz.row(b) + n, v - off_z[b] * load(m.z.row(b) + n)); });
    transposed_times(m.dlogits, m.z, rows, [&](long c, long n, vec v) {
        long at = c * m.head.stride + n;
        optimizer.head(m.head.w + at, m.head.m + at, m.head.q + at, v - off_w[c] * load(m.head.w + at));
    });
    vec gradient = {};
    gradient[0] = sum(dsigma);
    optimizer.head(m.sigma.w, m.sigma.m, m.sigma.q, gradient);
}

// dz becomes the gradient of h (of the adapter branch); the gate's own parameters make their step.
template <class O>
static void gate_backward(Model& m, O& optimizer, long rows) {
    const Matrix& input = gate_input(m);
    bool serial = m.serial();
    for (long b = 0; b < rows; b++)
        for (long n = 0; n < m.dz.width(); n += LANES) {
            vec g = load(m.dz.row(b) + n), open = load(m.gate.row(b) + n);
            store(m.dgate.row(b) + n, g * load(input.row(b) + n) * open * (1.f - open));
            if (serial)
                store(m.dz.row(b) + n, g * open);
        }
    times_transposed(m.dgate, rows, m.excite, m.dsq);
    for (long b = 0; b < rows; b++)
        for (long n = 0; n < m.dsq.width(); n += LANES) {
            vec g = load(m.dsq.row(b) + n);
            store(m.dsq.row(b) + n, load(m.sq.row(b) + n) > 0.f ? g : vec{});
        }
    learn(optimizer, m.excite, m.sq, m.dgate, rows);
    if (serial)
        times(m.dsq, rows, m.squeeze,
              [&](long b, long n, vec v) { store(m.dz.row(b) + n, load(m.dz.row(b) + n) + v); });
    learn(optimizer, m.squeeze, m.dsq, input, rows);
}

// Through LayerNorm, in place; sums over the batch of the gradients of its weight, its bias and of up_bias.
static void layer_norm_backward(Model& m, long rows) {
    long width = m.dz.width();
    float *dweight = m.sums.row(0), *dbias = m.sums.row(1), *dup = m.sums.row(2);
    std::memset(m.sums.w, 0, m.sums.size() * sizeof(float));
    for (long b = 0; b < rows; b++) {
        float *g = m.dz.row(b), *normal = m.normal.row(b);
        vec total = {}, along = {};
        for (long n = 0; n < width; n += LANES) {
            vec value = load(g + n), unit = load(normal + n);
            store(dweight + n, load(dweight + n) + value * unit);
            store(dbias + n, load(dbias + n) + value);
            value *= load(m.norm_weight.w + n);
            total += value;
            along += value * unit;
        }
        float mean = sum(total) / m.dim, slope = sum(along) / m.dim, inverse = m.per_row.row(0)[b];
        for (long n = 0; n < width; n += LANES)
            store(g + n, inverse * (load(g + n) * load(m.norm_weight.w + n) - mean - load(normal + n) * slope));
        for (long n = m.dim; n < width; n++) g[n] = 0.f;
        for (long n = 0; n < width; n += LANES) store(dup + n, load(dup + n) + load(g + n));
    }
}

template <class O>
static void adapter_backward(Model& m, O& optimizer, long rows) {
    layer_norm_backward(m, rows);
    learn(optimizer, m.norm_weight, m.sums.row(0));
    learn(optimizer, m.norm_bias, m.sums.row(1));
    learn(optimizer, m.up_bias, m.sums.row(2));
    times_transposed(m.dz, rows, m.up, m.dhid);
    float* dbias = m.bias_sums.w;
    std::memset(dbias, 0, m.bias_sums.size() * sizeof(float));
    for (long b = 0; b < rows; b++)
        for (long n = 0; n < m.dhid.width(); n += LANES) {
            vec g = load(m.dhid.row(b) + n) * load(m.slope.row(b) + n);
            store(m.dhid.row(b) + n, g);
            store(dbias + n, load(dbias + n) + g);
        }
    learn(optimizer, m.up, m.hid, m.dz, rows);
    learn(optimizer, m.down, m.dhid, m.x, rows);
    learn(optimizer, m.down_bias, dbias);
}

template <class O>
static void module_backward(Model& m, O& optimizer, long rows) {
    if (m.has_gate())
        gate_backward(m, optimizer, rows);
    else
        for (Matrix* unused : {&m.squeeze, &m.excite}) learn(optimizer, *unused, nullptr);
    if (m.has_adapter())
        adapter_backward(m, optimizer, rows);
    else
        for (Matrix* unused : {&m.norm_weight, &m.norm_bias, &m.down, &m.down_bias, &m.up, &m.up_bias})
            learn(optimizer, *unused, nullptr);
}
