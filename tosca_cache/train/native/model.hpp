// One module and its head in memory: parameters, the optimizer's state beside them, and room for one minibatch.
#pragma once
#include <cstdlib>

#include "matrix.hpp"

enum Flow { TOSCA, TOSCA_R, ADAPTER, CALIBRATOR };

struct Model {
    long dim, hidden, squeezed, classes, batch;
    Flow flow;
    // Linear maps that leave the module are kept transposed, [hidden, d]: a feature's side is always the contiguous
    // one.
    Matrix norm_weight, norm_bias, down, down_bias, up, up_bias, squeeze, excite, head, sigma;
    Matrix x, normal, h, gate, z, dz, dgate, hid, slope, dhid, sq, dsq, cosine, dlogits, per_row, per_class, sums,
        bias_sums;
    float* memory = nullptr;

    bool has_adapter() const { return flow != CALIBRATOR; }
    bool has_gate() const { return flow != ADAPTER; }
    bool serial() const { return flow == TOSCA; }

    Model(long d, long hid_, long sq_, long c, long b, Flow f)
        : dim(d), hidden(hid_), squeezed(sq_), classes(c), batch(b), flow(f) {}
    Model(const Model&) = delete;
    ~Model() { std::free(memory); }

    // Takes one aligned, zeroed piece of memory for everything; false if there is none.
    bool allocate(bool second_moment) {
        size_t floats = layout(nullptr, second_moment);
        if (posix_memalign((void**)&memory, 64, floats * sizeof(float)))
            return false;
        std::memset(memory, 0, floats * sizeof(float));
        layout(memory, second_moment);
        return true;
    }

    // Between PyTorch's flat order and ours: `to_ours` or back.
    void copy(float* flat, bool to_ours) {
        for (Matrix* p : {&norm_weight, &norm_bias, &down, &down_bias}) flat = move(*p, flat, to_ours, false);
        flat = move(up, flat, to_ours, true);
        flat = move(up_bias, flat, to_ours, false);
        flat = move(squeeze, flat, to_ours, false);
        flat = move(excite, flat, to_ours, true);
        flat = move(head, flat, to_ours, false);
        move(sigma, flat, to_ours, false);
    }

  private:
    size_t layout(float* base, bool second_moment) {
        size_t used = 0;
        auto place = [&](Matrix& matrix, long rows, long columns, int parts) {
            matrix.rows = rows, matrix.columns = columns, matrix.stride = stride_of(columns);
            for (float** part : {&matrix.w, &matrix.m, &matrix.q}) {
                *part = base && parts > 0 ? base + used : nullptr;
                if (parts-- > 0)
                    used += matrix.size();
            }
        };
        int state = second_moment ? 3 : 2;
        for (Matrix* p : {&norm_weight, &norm_bias, &up_bias}) place(*p, 1, dim, state);
        for (Matrix* p : {&down, &up}) place(*p, hidden, dim, state);
        for (Matrix* p : {&squeeze, &excite}) place(*p, squeezed, dim, state);
        place(down_bias, 1, hidden, state);
        place(head, classes, dim, state);
        place(sigma, 1, 1, state);
        for (Matrix* p : {&x, &normal, &h, &gate, &z, &dz, &dgate}) place(*p, batch, dim, 1);
        for (Matrix* p : {&hid, &slope, &dhid}) place(*p, batch, hidden, 1);
        for (Matrix* p : {&sq, &dsq}) place(*p, batch, squeezed, 1);
        for (Matrix* p : {&cosine, &dlogits}) place(*p, batch, classes, 1);
        place(per_row, 3, batch, 1);      // 1 / std, 1 / |z|, and how much of z to take off dz
        place(per_class, 2, classes, 1);  // 1 / |w|, and how much of w to take off its gradient
        place(sums, 3, dim, 1);           // over a batch: gradients of the norm and of up_bias
        place(bias_sums, 1, hidden, 1);   // and of down_bias
        return used;
    }

    static float* move(Matrix& matrix, float* flat, bool to_ours, bool transposed) {
        for (long i = 0; i < matrix.rows; i++)
            for (long j = 0; j < matrix.columns; j++) {
                float& theirs = flat[transposed ? j * matrix.rows + i : i * matrix.columns + j];
                float& ours = matrix.w[i * matrix.stride + j];
                if (to_ours)
                    ours = theirs;
                else
                    theirs = ours;
            }
        return flat + matrix.rows * matrix.columns;
    }
};
