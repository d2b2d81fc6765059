// torch.optim's arithmetic for one vector of parameters whose gradient is still in registers.
#pragma once
#include "vector.hpp"

enum Kind { SGD, ADAM, ADAMW };

template <Kind KIND>
struct Optimizer {
    float lr, l1, decay, momentum;
    float correction = 1.f, scale = 1.f;  // Adam: 1 - beta1^t and sqrt(1 - beta2^t)
    double size = 0;                      // sum of |p| over the module before this step, for the loss
    vec magnitude = {};                   // the part of it that is not in `size` yet

    // One parameter vector of the module, which the L1 term sums over.
    inline void module(float* p, float* first, float* second, vec gradient) {
        vec value = load(p);
        magnitude += absolute(value);
        apply(p, first, second, value, gradient + with_sign(l1, value));
    }

    // Called after every matrix: float32 would lose digits over a whole module.
    void add_up() {
        size += sum(magnitude);
        magnitude = vec{};
    }

    // One parameter vector of the head, which it does not.
    inline void head(float* p, float* first, float* second, vec gradient) {
        apply(p, first, second, load(p), gradient);
    }

  private:
    inline void apply(float* p, float* first, float* second, vec value, vec gradient) {
        if (KIND == ADAMW)
            value *= 1.f - lr * decay;
        else
            gradient += decay * value;
        if (KIND == SGD) {
            vec velocity = momentum * load(first) + gradient;
            store(first, velocity);
            store(p, value - lr * velocity);
            return;
        }
        vec mean = load(first), square = 0.999f * load(second) + 0.001f * gradient * gradient;
        mean += 0.1f * (gradient - mean);
        store(first, mean);
        store(second, square);
        vec root = square;
        for (int i = 0; i < LANES; i++) root[i] = __builtin_sqrtf(square[i]);
        store(p, value - (lr / correction) * mean / (root / scale + 1e-8f));
    }
};
