// The rate of fused multiply-adds that a core can reach: as many independent sums as fill its pipelines, nothing else.
#include "vector.hpp"

extern "C" float tosca_peak(int64_t loops) {
    constexpr int SUMS = 16;
    vec sums[SUMS], a = splat(1.0000001f), b = splat(1e-9f);
    for (int j = 0; j < SUMS; j++) sums[j] = splat(j);  // all different, or the compiler would keep one of them
    for (int64_t i = 0; i < loops; i++)
        for (int j = 0; j < SUMS; j++) sums[j] = sums[j] * a + b;
    vec total = {};
    for (int j = 0; j < SUMS; j++) total += sums[j];
    return sum(total);
}

extern "C" int64_t tosca_peak_operations(int64_t loops) {
    return loops * 16 * LANES * 2;
}
