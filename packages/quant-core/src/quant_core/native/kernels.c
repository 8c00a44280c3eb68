/* Integer fake quantization and its gradient, each in one pass over memory.
 *
 * The arithmetic is that of quant_core.ops.integer in IEEE single precision, operation by operation, so that values are equal
 * to the bit: no contraction into fused multiply-adds. Sums are taken over blocks of fixed size, in the order of the vector unit,
 * and the blocks are added up in order, so that they do not depend on the number of threads.
 *
 * A tensor is seen as outer x channels x inner; scale and zero-point have one element for each channel.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

#define API __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define BLOCK 4096
#define PARALLEL_FROM 65536

/* What is kept of an element in range: its rounding error, at most 1, in units of 2^-14. Outside: a mark. */
#define UNIT 16384.0f
#define ABOVE 32767
#define BELOW (-32767)

enum { ROUND, HALF_UP, FLOOR, CEIL, TO_ZERO };

typedef struct {
    i64 rows, channels, inner, per_row, count;
} Blocks;

INLINE Blocks blocks_of(i64 outer, i64 channels, i64 inner) {
    Blocks b = {outer * channels, channels, inner, (inner + BLOCK - 1) / BLOCK, 0};
    b.count = b.rows * b.per_row;
    return b;
}

typedef struct {
    i64 start, size, channel;
} Block;

INLINE Block block_at(Blocks all, i64 index) {
    i64 row = index / all.per_row, offset = (index % all.per_row) * BLOCK;
    i64 left = all.inner - offset;
    Block b = {row * all.inner + offset, left < BLOCK ? left : BLOCK, row % all.channels};
    return b;
}

INLINE float rounded(float v, int mode) {
    float below;
    switch (mode) {
    case HALF_UP:
        below = floorf(v);
        return below + (v - below >= 0.5f ? 1.0f : 0.0f);
    case FLOOR:
        return floorf(v);
    case CEIL:
        return ceilf(v);
    case TO_ZERO:
        return truncf(v);
    default:
        return rintf(v);
    }
}

/* A NaN stays one; a negative zero at the lower end becomes a positive one. */
INLINE float clamped(float r, float low, float high) {
    float c = r <= low ? low : r;
    return c > high ? high : c;
}

INLINE void quantize_block(const float *x, float *y, int16_t *code, i64 n, float s, float z, float low, float high,
                           int rectify, int mode, int keep) {
    float nothing = rectify ? 0.0f : -INFINITY;
    for (i64 i = 0; i < n; i++) {
        float ratio = x[i] / s;
        float v = ratio + z;
        float r = rounded(v, mode);
        float c = clamped(r, low, high);
        y[i] = (c - z) * s;
        if (keep) {
            int32_t k = (int32_t)rintf((c - v) * UNIT);
            k = r <= high ? k : ABOVE;
            k = (r >= low) & (ratio > nothing) ? k : BELOW;
            code[i] = (int16_t)k;
        }
    }
}

INLINE void quantize_mode(const float *x, float *y, int16_t *code, i64 n, float s, float z, float low, float high, int rectify,
                          int mode) {
    if (code)
        quantize_block(x, y, code, n, s, z, low, high, rectify, mode, 1);
    else
        quantize_block(x, y, code, n, s, z, low, high, rectify, mode, 0);
}

#define FOR_MODE(call)                                                                                                         \
    switch (mode) {                                                                                                            \
    case HALF_UP: call(HALF_UP); break;                                                                                        \
    case FLOOR: call(FLOOR); break;                                                                                            \
    case CEIL: call(CEIL); break;                                                                                              \
    case TO_ZERO: call(TO_ZERO); break;                                                                                        \
    default: call(ROUND); break;                                                                                               \
    }

/* y = (clamp(round(x / s + z), low, high) - z) * s; code is left out where it is null, the zero-point is 0 where it is. */
API void quantize(const float *x, float *y, int16_t *code, i64 outer, i64 channels, i64 inner, const float *scale,
                  const float *zero_point, float low, float high, int rectify, int mode, int threads) {
    Blocks all = blocks_of(outer, channels, inner);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && all.rows * all.inner >= PARALLEL_FROM)
    for (i64 index = 0; index < all.count; index++) {
        Block b = block_at(all, index);
        float s = scale[b.channel], z = zero_point ? zero_point[b.channel] : 0.0f;
        int16_t *kept = code ? code + b.start : 0;
#define CALL(m) quantize_mode(x + b.start, y + b.start, kept, b.size, s, z, low, high, rectify, m)
        FOR_MODE(CALL)
#undef CALL
    }
}

/* The gradient of x, and for each channel that of the scale, and the sums of g above and below the range.
 * partials: room for 3 numbers for each block. */
API void gradient(const float *g, const int16_t *code, float *gx, i64 outer, i64 channels, i64 inner, const float *zero_point,
                  float low, float high, double *partials, float *for_scale, float *above, float *below, int threads) {
    Blocks all = blocks_of(outer, channels, inner);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && all.rows * all.inner >= PARALLEL_FROM)
    for (i64 index = 0; index < all.count; index++) {
        Block b = block_at(all, index);
        const float *gb = g + b.start;
        const int16_t *kb = code + b.start;
        float *out = gx + b.start;
        float inside = 0, outside = 0, directed = 0;
#pragma omp simd reduction(+ : inside, outside, directed)
        for (i64 i = 0; i < b.size; i++) {
            int32_t k = kb[i];
            float kept = (k != ABOVE) & (k != BELOW) ? gb[i] : 0.0f;
            float rest = gb[i] - kept;
            out[i] = kept;
            inside += kept * (float)k;
            outside += rest;
            directed += rest * (float)k;
        }
        partials[3 * index] = inside / UNIT;
        partials[3 * index + 1] = (outside + (double)directed / ABOVE) / 2;
        partials[3 * index + 2] = (outside - (double)directed / ABOVE) / 2;
    }
    for (i64 channel = 0; channel < channels; channel++) {
        double sums[3] = {0, 0, 0}, z = zero_point ? zero_point[channel] : 0.0;
        for (i64 row = channel; row < all.rows; row += channels)
            for (i64 index = row * all.per_row; index < (row + 1) * all.per_row; index++)
                for (int j = 0; j < 3; j++)
                    sums[j] += partials[3 * index + j];
        for_scale[channel] = (float)(sums[0] + (high - z) * sums[1] + (low - z) * sums[2]);
        above[channel] = (float)sums[1];
        below[channel] = (float)sums[2];
    }
}

/* Quantization at the scale max(|parameter|, minimum) / divisor of each channel. */
API void by_threshold(const float *x, float *y, int16_t *code, i64 outer, i64 channels, i64 inner, const float *parameter,
                      float minimum, float divisor, float low, float high, int rectify, int mode, float *scale, int threads) {
    for (i64 channel = 0; channel < channels; channel++) {
        float threshold = fabsf(parameter[channel]);
        scale[channel] = (threshold < minimum ? minimum : threshold) / divisor;
    }
    quantize(x, y, code, outer, channels, inner, scale, 0, low, high, rectify, mode, threads);
}

/* Its gradients: that of x, and that of the parameter, through the value and of the scale. g and gx, or of_scale, may be left
 * out. partials: room for 3 numbers for each block; sums: for 3 numbers for each channel. */
API void gradient_by_threshold(const float *g, const float *of_scale, const int16_t *code, float *gx, i64 outer, i64 channels,
                               i64 inner, const float *parameter, float divisor, float low, float high, double *partials,
                               float *sums, float *for_parameter, int threads) {
    if (g)
        gradient(g, code, gx, outer, channels, inner, 0, low, high, partials, sums, sums + channels, sums + 2 * channels, threads);
    for (i64 channel = 0; channel < channels; channel++) {
        float through_value = g ? sums[channel] : 0.0f;
        float sum = (of_scale ? through_value + of_scale[channel] : through_value) / divisor;
        for_parameter[channel] = parameter[channel] < 0.0f ? -sum : sum;
    }
}

INLINE double error_products(const float *g, const float *x, i64 n, float s, float z, float low, float high, int mode) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 i = 0; i < n; i++) {
        float v = x[i] / s + z;
        sum += g[i] * (clamped(rounded(v, mode), low, high) - v);
    }
    return sum;
}

/* The gradient of the scale where the gradient of x passes the clamp: the sum of g * (c - v), with v computed again from x. */
API void gradient_of_scale(const float *g, const float *x, i64 outer, i64 channels, i64 inner, const float *scale,
                           const float *zero_point, float low, float high, int mode, double *partials, float *for_scale,
                           int threads) {
    Blocks all = blocks_of(outer, channels, inner);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && all.rows * all.inner >= PARALLEL_FROM)
    for (i64 index = 0; index < all.count; index++) {
        Block b = block_at(all, index);
        float s = scale[b.channel], z = zero_point ? zero_point[b.channel] : 0.0f;
#define CALL(m) partials[index] = error_products(g + b.start, x + b.start, b.size, s, z, low, high, m)
        FOR_MODE(CALL)
#undef CALL
    }
    for (i64 channel = 0; channel < channels; channel++) {
        double sum = 0;
        for (i64 row = channel; row < all.rows; row += channels)
            for (i64 index = row * all.per_row; index < (row + 1) * all.per_row; index++)
                sum += partials[index];
        for_scale[channel] = (float)sum;
    }
}

INLINE int32_t magnitude(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffff;
}

/* The largest absolute value of each row. Floats without their sign bit are ordered like integers, and NaN is the largest. */
API void largest(const float *x, i64 rows, i64 inner, float *out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && rows * inner >= PARALLEL_FROM)
    for (i64 row = 0; row < rows; row++) {
        const float *values = x + row * inner;
        int32_t most = 0;
        for (i64 i = 0; i < inner; i++) {
            int32_t bits = magnitude(values[i]);
            most = bits > most ? bits : most;
        }
        memcpy(out + row, &most, sizeof most);
    }
}

/* The gradient of the largest absolute values: shared evenly by the elements of a row that have it. */
API void gradient_of_largest(const float *x, i64 rows, i64 inner, const float *most, const float *g, float *gx, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && rows * inner >= PARALLEL_FROM)
    for (i64 row = 0; row < rows; row++) {
        const float *values = x + row * inner;
        float *out = gx + row * inner;
        int32_t bits = magnitude(most[row]), count = 0;
        for (i64 i = 0; i < inner; i++)
            count += magnitude(values[i]) == bits;
        float share = bits ? g[row] / (float)(count ? count : 1) : 0.0f;
        for (i64 i = 0; i < inner; i++)
            out[i] = magnitude(values[i]) != bits ? 0.0f : values[i] < 0.0f ? -share : share;
    }
}

/* Quantization at the scale max(max |x|, minimum) / divisor of each row; the largest values are kept for the gradient. */
API void by_largest(const float *x, float *y, i64 rows, i64 inner, float minimum, float divisor, float low, float high, int mode,
                    float *most, float *scale, int threads) {
    largest(x, rows, inner, most, threads);
    for (i64 row = 0; row < rows; row++)
        scale[row] = (most[row] < minimum ? minimum : most[row]) / divisor;
    quantize(x, y, 0, 1, rows, inner, scale, 0, low, high, 0, mode, threads);
}

/* Its gradient: that of the value g passes and reaches the largest values through the scale, as that of the scale does. Either
 * may be left out. for_scale and partials: room for one number for each row, and for each block. */
API void gradient_by_largest(const float *g, const float *of_scale, const float *x, i64 rows, i64 inner, const float *scale,
                             const float *most, float divisor, float low, float high, int mode, double *partials,
                             float *for_scale, float *gx, int threads) {
    if (g)
        gradient_of_scale(g, x, 1, rows, inner, scale, 0, low, high, mode, partials, for_scale, threads);
    for (i64 row = 0; row < rows; row++) {
        float through_value = g ? for_scale[row] : 0.0f;
        for_scale[row] = (of_scale ? through_value + of_scale[row] : through_value) / divisor;
    }
    gradient_of_largest(x, rows, inner, most, for_scale, gx, threads);
    if (g)
        for (i64 i = 0; i < rows * inner; i++)
            gx[i] += g[i];
}
