// Vectors of floats by the compiler's own extension (GCC and Clang): one source for AVX-512, AVX2, NEON and plain SSE.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

static inline vec load(const float* p) {
    vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float* p, vec v) {
    std::memcpy(p, &v, sizeof v);
}

static inline vec splat(float x) {
    return vec{} + x;
}

static inline vec absolute(vec x) {
    return (vec)((ivec)x & 0x7fffffff);
}

// `size` with the sign of x, and 0 where x is 0.
static inline vec with_sign(float size, vec x) {
    vec value = (vec)(((ivec)x & INT32_MIN) | (ivec)splat(size));
    return x != 0.f ? value : vec{};
}

// Lanes 0, 2, 4 ... of (a, b) or 1, 3, 5 ...: their sum halves two vectors into one.
template <int... I>
static inline vec pairwise(vec a, vec b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (2 * I)...) + __builtin_shufflevector(a, b, (2 * I + 1)...);
}

static inline vec pairwise(vec a, vec b) {
    return pairwise(a, b, std::make_integer_sequence<int, LANES>{});
}

// The sums of the lanes of four vectors.
static inline void sum4(vec a, vec b, vec c, vec d, float* out) {
    vec v = pairwise(pairwise(a, b), pairwise(c, d));  // LANES / 4 partial sums of a, then of b, c and d
    if (LANES >= 8)
        v = pairwise(v, v);
    if (LANES >= 16)
        v = pairwise(v, v);
    std::memcpy(out, &v, 4 * sizeof(float));
}

static inline float sum(vec v) {
    float four[4];
    sum4(v, vec{}, vec{}, vec{}, four);
    return four[0];
}

// e^x to about one unit in the last place: 2^n * e^r with |r| <= ln 2 / 2 and Taylor's polynomial in r. NaN stays NaN.
static inline vec exponential(vec x) {
    x = x < -87.f ? splat(-87.f) : x;
    x = x > 88.f ? splat(88.f) : x;
    const vec magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to the nearest integer, in the low bits
    vec shifted = x * 1.44269504f + magic;
    vec n = shifted - magic;
    vec r = x - n * 0.693145752f - n * 1.42860677e-6f;  // ln 2 in two parts, so that n ln 2 is subtracted exactly
    vec p = splat(1.f / 5040) * r + 1.f / 720;
    p = p * r + 1.f / 120;
    p = p * r + 1.f / 24;
    p = p * r + 1.f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.f;
    p = p * r + 1.f;
    ivec scale = ((ivec)shifted - (ivec)magic + 127) << 23;
    return p * (vec)scale;
}

// ln x for positive finite x, to about one unit in the last place: x = 2^n m with m in [0.7, 1.4), and
// ln m = 2 artanh(s), s = (m - 1) / (m + 1), by its series. NaN stays NaN.
static inline vec logarithm(vec x) {
    ivec bits = (ivec)x - 0x3f3504f3;  // sqrt(1/2)
    vec n = __builtin_convertvector(bits >> 23, vec);
    vec m = (vec)((bits & 0x7fffff) + 0x3f3504f3);
    vec s = (m - 1.f) / (m + 1.f), q = s * s;
    vec p = splat(2.f / 11) * q + 2.f / 9;
    p = p * q + 2.f / 7;
    p = p * q + 2.f / 5;
    p = p * q + 2.f / 3;
    vec value = n * 0.693147181f + (2.f * s + s * q * p);
    return x == x ? value : x;
}

// The normal distribution function and its density, for the exact GELU x * cdf(x) and its derivative cdf(x) + x *
// density(x). erfc(y) e^(y^2) is a polynomial in 1 / (1 + 0.42 y), fitted here with an error of 1e-9 after the factor
// e^(-y^2).
static inline void normal(vec x, vec* cdf, vec* density) {
    vec y = absolute(x) * 0.70710678f;
    vec bell = exponential(-0.5f * x * x);
    vec t = 1.f / (1.f + 0.42f * y);
    vec p = 0.103643978f * t - 0.667001006f;
    p = p * t + 1.50721883f;
    p = p * t - 1.2310007f;
    p = p * t + 1.06646349f;
    p = p * t - 0.0747720047f;
    p = p * t + 0.301177288f;
    p = p * t - 0.00572987309f;
    vec tail = 0.5f * p * bell;
    *cdf = x < 0.f ? tail : 1.f - tail;
    *density = 0.398942280f * bell;
}
