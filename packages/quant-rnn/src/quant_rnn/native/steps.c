/* The steps of a recurrent layer, forward and backward, as a list of operations.
 *
 * The arithmetic is that of quant_core in IEEE single precision, operation by operation: values are equal to the bit to those of the
 * quantizers one by one. What a settled quantizer of b bits gives has 2^b values, so that a function of it is a table of as many
 * numbers, which torch computes; other functions are computed by torch between two calls. Matrix products are those of the BLAS that
 * torch computes with.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

#define API __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

/* An integer quantizer with zero-point 0. */
typedef struct {
    float scale, low, high;
} Grid;

INLINE float clamped(float r, float low, float high) {
    float c = r <= low ? low : r;
    return c > high ? high : c;
}

INLINE float quantized(float x, Grid q) { return clamped(rintf(x / q.scale), q.low, q.high) * q.scale; }

/* Where in its table the level of x is; that of a NaN is the first. */
INLINE int32_t place(float x, Grid q) {
    float r = rintf(x / q.scale);
    r = r >= q.low ? r : q.low;
    r = r <= q.high ? r : q.high;
    return (int32_t)(r - q.low);
}

/* The gradient of x; that of the scale is added to a sum. */
INLINE float passed(float x, Grid q, float g, float *for_scale) {
    float v = x / q.scale, r = rintf(v);
    int inside = (r >= q.low) & (r <= q.high);
    *for_scale += g * (clamped(r, q.low, q.high) - (inside ? v : 0.0f));
    return inside ? g : 0.0f;
}

/* As in program.py. */
enum { QUANT, COLLECT, LOOKUP, MUL, ADD, COMPLEMENT, NEGATE, COPY, QUANT_BACK, LOOKUP_BACK, SIGMOID_BACK, TANH_BACK, RELU, RELU_BACK, LINEAR, LINEAR_BACK };

/* Row r of a number at step t is at base + ((t + shift) & mask) * step + r * pitch; before the first step at first + r * pitch.
 * Numbers in memory for a few rows only have jump 0: their row 0 is the first row of those. */
typedef struct {
    float *base, *first;
    i64 step, shift, mask, pitch, jump;
} Slot;

typedef struct {
    i64 kind, result, a, b, which, width;
} Op;

/* A call of a quantizer in a step. */
typedef struct {
    float low, high;
    float divisor; /* scale = threshold / divisor */
    float least;   /* the smallest threshold */
    i64 collects;  /* the threshold is the largest magnitude of what it is given */
} Call;

/* A function between two quantizers: one number for each level of the one in front. */
typedef struct {
    const float *value, *slope, *error;
    i64 front, behind;
} Table;

/* Whose rows are multiplied with the hidden state: width x features. */
typedef struct {
    const float *numbers, *bias; /* the bias may be missing */
    i64 width, features;
} Matrix;

/* c = op(a) op(b) + beta c with columns one behind the other. Sizes are 64 bits wide, so that their address is also that of 32 bits. */
typedef void Sgemm(const char *op_a, const char *op_b, const i64 *rows, const i64 *columns, const i64 *inner, const float *alpha,
                   const float *a, const i64 *a_pitch, const float *b, const i64 *b_pitch, const float *beta, float *c, const i64 *pitch);

typedef struct {
    const Op *ops;
    const Slot *slots;
    const Call *calls;
    const Table *tables;
    const Matrix *matrices;
    Sgemm *multiply;
    float *scales, *found;                  /* of each call; `scales` and the rest grow by `row` at each step */
    i64 *at;                                /* the element with the largest magnitude, whose gradient is that of the scale */
    double *sums;                           /* gradients of the scales that are given */
    const double *extra;                    /* those of the scales of a step from elsewhere; may be missing */
    i64 row, batch, start;
} Model;

typedef struct {
    const float *a, *b;
    float *out;
    i64 a_pitch, b_pitch, pitch, rows, width;
} Operands;

#define FOR_ROWS for (i64 r = 0; r < o.rows; r++)
#define ROWS_OF_A const float *a = o.a + r * o.a_pitch
#define ROWS_OF_B const float *b = o.b + r * o.b_pitch
#define ROWS_OF_OUT float *out = o.out + r * o.pitch
/* A number may take the place of an operand, element by element. */
#define FOR_COLUMNS _Pragma("omp simd") for (i64 j = 0; j < o.width; j++)

#define UNARY(value)                                                                                                           \
    FOR_ROWS {                                                                                                                 \
        ROWS_OF_A;                                                                                                             \
        ROWS_OF_OUT;                                                                                                           \
        FOR_COLUMNS out[j] = value;                                                                                            \
    }

#define BINARY(value)                                                                                                          \
    FOR_ROWS {                                                                                                                 \
        ROWS_OF_A;                                                                                                             \
        ROWS_OF_B;                                                                                                             \
        ROWS_OF_OUT;                                                                                                           \
        FOR_COLUMNS out[j] = value;                                                                                            \
    }

static void put_on(Operands o, Grid q) { UNARY(quantized(a[j], q)) }

/* The scale from the largest magnitude; of several elements that have it the first one counts. */
static float find(Operands o, const Call *q, float *found, i64 *at) {
    float most = -1;
    i64 best = 0;
    int broken = 0;
    FOR_ROWS {
        ROWS_OF_A;
        float largest = 0;
#pragma omp simd reduction(max : largest) reduction(| : broken)
        for (i64 j = 0; j < o.width; j++) {
            float size = fabsf(a[j]);
            largest = size > largest ? size : largest;
            broken |= size != size;
        }
        if (largest > most) {
            most = largest;
            best = r;
        }
    }
    const float *a = o.a + best * o.a_pitch;
    i64 column = 0;
    for (i64 j = 0; j < o.width; j++)
        if (fabsf(a[j]) == most) {
            column = j;
            break;
        }
    *at = best * o.width + column;
    *found = broken ? NAN : most;
    return (most < q->least ? q->least : most) / q->divisor;
}

/* Returns the gradient of the scale. */
static double quant_back(Operands o, Grid q) {
    double total = 0;
    FOR_ROWS {
        ROWS_OF_A;
        ROWS_OF_B;
        ROWS_OF_OUT;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (i64 j = 0; j < o.width; j++)
            out[j] = passed(a[j], q, b[j], &part);
        total += part;
    }
    return total;
}

static void look_up(Operands o, Grid q, const float *table) {
    FOR_ROWS {
        ROWS_OF_A;
        ROWS_OF_OUT;
        FOR_COLUMNS {
            int32_t at = place(a[j], q);
            out[j] = a[j] != a[j] ? a[j] : table[at];
        }
    }
}

static void look_up_back(Operands o, Grid q, const Table *table, double *front, double *behind) {
    const float *slope = table->slope, *error = table->error;
    FOR_ROWS {
        ROWS_OF_A;
        ROWS_OF_B;
        ROWS_OF_OUT;
        float of_front = 0, of_behind = 0;
#pragma omp simd reduction(+ : of_front, of_behind)
        for (i64 j = 0; j < o.width; j++) {
            int32_t at = place(a[j], q);
            of_behind += b[j] * error[at];
            out[j] = passed(a[j], q, b[j] * slope[at], &of_front);
        }
        *front += of_front;
        *behind += of_behind;
    }
}

INLINE const float *address(const Slot *s, i64 t, i64 row, i64 start) {
    const float *begin = s->first && t == start ? s->first : s->base + ((t + s->shift) & s->mask) * s->step;
    return begin + row * s->jump;
}

INLINE Grid grid_of(const Model *m, const float *scales, i64 call) {
    Grid q = {scales[call], m->calls[call].low, m->calls[call].high};
    return q;
}

/* Adds a product with a matrix, or with its transpose, to the other operand if there is one, else to the bias if there is one. */
static void multiply(const Model *m, const Op *op, Operands o) {
    const Matrix *matrix = m->matrices + op->which;
    const int back = op->kind == LINEAR_BACK;
    const float *other = op->b >= 0 ? o.b : matrix->bias;
    const i64 other_pitch = op->b >= 0 ? o.b_pitch : 0, inner = back ? matrix->width : matrix->features;
    const float once = 1, beta = other != NULL;
    if (other && other != o.out)
        FOR_ROWS memcpy(o.out + r * o.pitch, other + r * other_pitch, sizeof(float) * (size_t)o.width);
    m->multiply(back ? "N" : "T", "N", &o.width, &o.rows, &inner, &once, matrix->numbers, &matrix->features, o.a, &o.a_pitch, &beta,
                o.out, &o.pitch);
}

static void compute(const Model *m, const Op *op, Operands o, i64 t) {
    const int sums = op->kind == COLLECT || op->kind == QUANT_BACK || op->kind == LOOKUP_BACK;
    if (!sums && o.a_pitch == o.width && o.b_pitch == o.width && o.pitch == o.width) {
        o.width *= o.rows;
        o.rows = 1;
    }
    float *scales = m->scales + t * m->row;
    const i64 call = op->which;
    switch (op->kind) {
    case COLLECT:
        scales[call] = find(o, m->calls + call, m->found + t * m->row + call, m->at + t * m->row + call);
        put_on(o, grid_of(m, scales, call));
        break;
    case QUANT:
        put_on(o, grid_of(m, scales, call));
        break;
    case LOOKUP: {
        const Table *table = m->tables + call;
        look_up(o, grid_of(m, scales, table->front), table->value);
        break;
    }
    case MUL:
        BINARY(a[j] * b[j])
        break;
    case ADD:
        BINARY(a[j] + b[j])
        break;
    case COMPLEMENT:
        UNARY(1 - a[j])
        break;
    case NEGATE:
        UNARY(-a[j])
        break;
    case COPY:
        UNARY(a[j])
        break;
    case QUANT_BACK: {
        const Call *q = m->calls + call;
        const i64 at = q->collects ? m->at[t * m->row + call] : 0;
        const float one = o.a[at / o.width * o.a_pitch + at % o.width];
        const double total = quant_back(o, grid_of(m, scales, call)) + (m->extra ? m->extra[t * m->row + call] : 0);
        if (q->collects)
            o.out[at / o.width * o.pitch + at % o.width] += (float)(total / q->divisor) * (float)((one > 0) - (one < 0));
        else
            m->sums[call] += total;
        break;
    }
    case LOOKUP_BACK: {
        const Table *table = m->tables + call;
        look_up_back(o, grid_of(m, scales, table->front), table, m->sums + table->front, m->sums + table->behind);
        break;
    }
    case SIGMOID_BACK:
        BINARY(b[j] * ((1 - a[j]) * a[j]))
        break;
    case TANH_BACK:
        BINARY(b[j] * (1 - a[j] * a[j]))
        break;
    case RELU:
        UNARY(a[j] < 0 ? 0 : a[j])
        break;
    case RELU_BACK:
        BINARY(a[j] > 0 ? b[j] : 0)
        break;
    }
}

static int is_product(const Op *op) { return op->kind == LINEAR || op->kind == LINEAR_BACK; }

static void run_on(const Model *m, i64 first, i64 last, i64 row, i64 rows, i64 t) {
    for (i64 k = first; k < last; k++) {
        const Op *op = m->ops + k;
        const Slot *out = m->slots + op->result, *a = m->slots + op->a, *b = m->slots + (op->b < 0 ? op->a : op->b);
        Operands o = {
            .a = address(a, t, row, m->start),
            .b = address(b, t, row, m->start),
            .out = (float *)address(out, t, row, m->start),
            .a_pitch = a->pitch,
            .b_pitch = b->pitch,
            .pitch = out->pitch,
            .rows = m->batch - row < rows ? m->batch - row : rows,
            .width = op->width,
        };
        if (is_product(op))
            multiply(m, op, o);
        else
            compute(m, op, o, t);
    }
}

/* The operations from `first` to `last` of so many steps from t, for some rows of the batch at a time, and products for all. */
API void run(const Model *m, i64 first, i64 last, i64 rows, i64 t, i64 by, i64 count) {
    for (; count--; t += by)
        for (i64 k = first, end; k < last; k = end) {
            end = k + 1;
            while (!is_product(m->ops + k) && end < last && !is_product(m->ops + end))
                end++;
            for (i64 row = 0, some = is_product(m->ops + k) ? m->batch : rows; row < m->batch; row += some)
                run_on(m, k, end, row, some, t);
        }
}

/* average = (1 - m) average + m statistic, one after the other, starting from the first one where there was none before. */
API void running_average(float *average, const float *statistics, float least, i64 count, i64 before, float keep, float weight) {
    for (i64 k = 0; k < count; k++) {
        float one = statistics[k] < least ? least : statistics[k];
        *average = before + k == 0 ? one : *average * keep + one * weight;
    }
}
