/* The steps of quantized recurrent layers behind their matrix products, forward and backward, one call for each step.
 *
 * What a quantizer of b bits gives has 2^b values, so that a function of it is a table of as many numbers. The tables come from
 * torch, and the arithmetic around them is that of quant_core in IEEE single precision, operation by operation: values are equal to
 * the bit to those of the quantizers one by one. Backward computes again what it needs from the accumulators and the states.
 */
#include <math.h>
#include <stdint.h>

typedef int64_t i64;

#define API __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

/* An integer quantizer with zero-point 0; scale 0 stands for none. */
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

INLINE float looked_up(const float *table, float x, int32_t at) { return x != x ? x : table[at]; }

/* The gradient of x; that of the scale is added to a sum. */
INLINE float passed(float x, Grid q, float g, float *for_scale) {
    float v = x / q.scale, r = rintf(v);
    int inside = (r >= q.low) & (r <= q.high);
    *for_scale += g * (clamped(r, q.low, q.high) - (inside ? v : 0.0f));
    return inside ? g : 0.0f;
}

enum { INPUT, FORGET, CELL, OUTPUT, GATES };

typedef struct {
    Grid acc[GATES];      /* in front of the functions of the gates */
    Grid input_gate;      /* behind the sigmoid of the input gate: the coupled forget gate is put on it again */
    Grid cell, io;        /* of the cell state, and of the output */
    i64 levels, states;   /* how long the tables of the gates, and of the tanh of the cell state are */
    i64 coupled;
    const float *value, *slope, *error;                /* of the gates: (GATES, levels) */
    const float *tanh_value, *tanh_slope, *tanh_error; /* (states) */
} LSTM;

#define ROW(start, gate) ((start) + (b * gates + (gate)) * hidden)

INLINE void lstm_forward_as(const LSTM *m, const float *restrict pre, const float *restrict before, float *restrict after,
                            float *restrict out, i64 batch, i64 hidden, const int coupled, const int limited) {
    const Grid qi = m->acc[INPUT], qf = m->acc[FORGET], qg = m->acc[CELL], qo = m->acc[OUTPUT];
    const Grid qs = m->input_gate, qc = m->cell, qh = m->io;
    const float *vi = m->value, *vf = vi + m->levels, *vg = vf + m->levels, *vo = vg + m->levels, *vt = m->tanh_value;
    const i64 gates = coupled ? 3 : 4;
    const int again = coupled && qs.scale > 0;
    for (i64 b = 0; b < batch; b++) {
        const float *ai = ROW(pre, 0), *af = ROW(pre, coupled ? 0 : 1), *ag = ROW(pre, gates - 2), *ao = ROW(pre, gates - 1);
        const float *c = before + b * hidden;
        float *now = after + b * hidden, *h = out + b * hidden;
#pragma omp simd
        for (i64 j = 0; j < hidden; j++) {
            float i = looked_up(vi, ai[j], place(ai[j], qi));
            float f = coupled ? 1 - i : looked_up(vf, af[j], place(af[j], qf));
            f = again ? quantized(f, qs) : f;
            float g = looked_up(vg, ag[j], place(ag[j], qg));
            float o = looked_up(vo, ao[j], place(ao[j], qo));
            float sum = quantized(f * c[j], qc) + quantized(i * g, qc);
            float product = o * looked_up(vt, sum, place(sum, qc));
            now[j] = quantized(sum, qc);
            h[j] = limited ? quantized(product, qh) : product;
        }
    }
}

#define FOR_KIND(call)                                                                                                         \
    if (m->coupled) {                                                                                                          \
        if (m->io.scale > 0)                                                                                                   \
            call(1, 1);                                                                                                        \
        else                                                                                                                   \
            call(1, 0);                                                                                                        \
    } else if (m->io.scale > 0)                                                                                                \
        call(0, 1);                                                                                                            \
    else                                                                                                                       \
        call(0, 0);

API void lstm_forward(const LSTM *m, const float *pre, const float *before, float *after, float *out, i64 batch, i64 hidden) {
#define CALL(coupled, limited) lstm_forward_as(m, pre, before, after, out, batch, hidden, coupled, limited)
    FOR_KIND(CALL)
#undef CALL
}

INLINE void lstm_backward_as(const LSTM *m, const float *restrict pre, const float *restrict before, const float *restrict for_h,
                             float *restrict for_c, float *restrict for_pre, double *restrict sums, i64 batch, i64 hidden,
                             const int coupled, const int limited) {
    const Grid qi = m->acc[INPUT], qf = m->acc[FORGET], qg = m->acc[CELL], qo = m->acc[OUTPUT];
    const Grid qs = m->input_gate, qc = m->cell, qh = m->io;
    const i64 n = m->levels, gates = coupled ? 3 : 4;
    const float *vi = m->value, *vf = vi + n, *vg = vf + n, *vo = vg + n, *vt = m->tanh_value;
    const float *si = m->slope, *sf = si + n, *sg = sf + n, *so = sg + n, *st = m->tanh_slope;
    const float *ei = m->error, *ef = ei + n, *eg = ef + n, *eo = eg + n, *et = m->tanh_error;
    const int again = coupled && qs.scale > 0;
    for (i64 b = 0; b < batch; b++) {
        const float *ai = ROW(pre, 0), *af = ROW(pre, coupled ? 0 : 1), *ag = ROW(pre, gates - 2), *ao = ROW(pre, gates - 1);
        float *di = ROW(for_pre, 0), *df = ROW(for_pre, 1), *dg = ROW(for_pre, gates - 2), *od = ROW(for_pre, gates - 1);
        const float *c = before + b * hidden, *dh = for_h + b * hidden;
        float *dc = for_c + b * hidden;
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0, of_cell = 0, of_tanh = 0, of_io = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, t0, t1, t2, t3, of_cell, of_tanh, of_io)
        for (i64 j = 0; j < hidden; j++) {
            int32_t at_i = place(ai[j], qi), at_f = place(af[j], qf), at_g = place(ag[j], qg), at_o = place(ao[j], qo);
            float i = vi[at_i], g = vg[at_g], o = vo[at_o], rest = 1 - i;
            float f = coupled ? (again ? quantized(rest, qs) : rest) : vf[at_f];
            float kept = f * c[j], added = i * g;
            float sum = quantized(kept, qc) + quantized(added, qc);
            int32_t at_t = place(sum, qc);
            float th = vt[at_t], product = o * th;
            float d = limited ? passed(product, qh, dh[j], &of_io) : dh[j];
            float d_o = d * th, d_th = d * o;
            of_tanh += d_th * et[at_t];
            float d_sum = passed(sum, qc, dc[j] + d_th * st[at_t], &of_cell);
            float d_kept = passed(kept, qc, d_sum, &of_cell), d_added = passed(added, qc, d_sum, &of_cell);
            float d_f = d_kept * c[j], d_i = d_added * g, d_g = d_added * i;
            dc[j] = d_kept * f;
            if (coupled) {
                d_i -= again ? passed(rest, qs, d_f, &t0) : d_f;
            } else {
                t1 += d_f * ef[at_f];
                df[j] = passed(af[j], qf, d_f * sf[at_f], &s1);
            }
            t0 += d_i * ei[at_i];
            t2 += d_g * eg[at_g];
            t3 += d_o * eo[at_o];
            di[j] = passed(ai[j], qi, d_i * si[at_i], &s0);
            dg[j] = passed(ag[j], qg, d_g * sg[at_g], &s2);
            od[j] = passed(ao[j], qo, d_o * so[at_o], &s3);
        }
        const float all[11] = {s0, s1, s2, s3, t0, t1, t2, t3, of_cell, of_tanh, of_io};
        for (int k = 0; k < 11; k++)
            sums[k] += all[k];
    }
}

/* for_h: of the output. for_c: of the state after the step on entry, before it on return. sums: for the scales, four in front of
 * the gates, four behind them, then cell, tanh and output. */
API void lstm_backward(const LSTM *m, const float *pre, const float *before, const float *for_h, float *for_c, float *for_pre,
                       double *sums, i64 batch, i64 hidden) {
#define CALL(coupled, limited) lstm_backward_as(m, pre, before, for_h, for_c, for_pre, sums, batch, hidden, coupled, limited)
    FOR_KIND(CALL)
#undef CALL
}

enum { RESET, UPDATE, NEW, GRU_GATES };

typedef struct {
    Grid acc[GRU_GATES]; /* in front of the functions of the gates */
    Grid product, io;    /* of what the reset gate is multiplied with, and of the output */
    i64 levels;          /* how long the tables are: (GRU_GATES, levels) */
    const float *value, *slope, *error;
} GRU;

INLINE void gru_forward_as(const GRU *m, const float *restrict x, const float *restrict pre, const float *restrict product,
                           const float *restrict before, float *restrict out, i64 batch, i64 hidden, const int inner,
                           const int limited) {
    const Grid qr = m->acc[RESET], qz = m->acc[UPDATE], qn = m->acc[NEW], qp = m->product, qh = m->io;
    const float *vr = m->value, *vz = vr + m->levels, *vn = vz + m->levels;
    for (i64 b = 0; b < batch; b++) {
        const float *ar = pre + 2 * b * hidden, *az = ar + hidden, *p = product + b * hidden, *h = before + b * hidden;
        const float *xn = x + (3 * b + 2) * hidden;
        float *now = out + b * hidden;
#pragma omp simd
        for (i64 j = 0; j < hidden; j++) {
            float r = looked_up(vr, ar[j], place(ar[j], qr)), z = looked_up(vz, az[j], place(az[j], qz));
            float a = xn[j] + r * (inner ? quantized(p[j], qp) : p[j]);
            float n = looked_up(vn, a, place(a, qn));
            float sum = (1 - z) * n + z * h[j];
            now[j] = limited ? quantized(sum, qh) : sum;
        }
    }
}

#define FOR_GRU(call)                                                                                                          \
    if (m->product.scale > 0) {                                                                                                \
        if (m->io.scale > 0)                                                                                                   \
            call(1, 1);                                                                                                        \
        else                                                                                                                   \
            call(1, 0);                                                                                                        \
    } else if (m->io.scale > 0)                                                                                                \
        call(0, 1);                                                                                                            \
    else                                                                                                                       \
        call(0, 0);

/* x: projected input (B, 3H). pre: accumulators of the first two gates (B, 2H). product: of the last one with the state (B, H). */
API void gru_forward(const GRU *m, const float *x, const float *pre, const float *product, const float *before, float *out,
                     i64 batch, i64 hidden) {
#define CALL(inner, limited) gru_forward_as(m, x, pre, product, before, out, batch, hidden, inner, limited)
    FOR_GRU(CALL)
#undef CALL
}

INLINE void gru_backward_as(const GRU *m, const float *restrict x, const float *restrict pre, const float *restrict product,
                            const float *restrict before, float *restrict for_h, float *restrict for_pre, float *restrict for_new,
                            double *restrict sums, i64 batch, i64 hidden, const int inner, const int limited) {
    const Grid qr = m->acc[RESET], qz = m->acc[UPDATE], qn = m->acc[NEW], qp = m->product, qh = m->io;
    const i64 l = m->levels;
    const float *vr = m->value, *vz = vr + l, *vn = vz + l, *sr = m->slope, *sz = sr + l, *sn = sz + l;
    const float *er = m->error, *ez = er + l, *en = ez + l;
    for (i64 b = 0; b < batch; b++) {
        const float *ar = pre + 2 * b * hidden, *az = ar + hidden, *p = product + b * hidden, *h = before + b * hidden;
        const float *xn = x + (3 * b + 2) * hidden;
        float *dr = for_pre + 3 * b * hidden, *dz = dr + hidden, *dp = dz + hidden, *dn = for_new + b * hidden;
        float *dh = for_h + b * hidden;
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, of_io = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, t0, t1, t2, of_io)
        for (i64 j = 0; j < hidden; j++) {
            int32_t at_r = place(ar[j], qr), at_z = place(az[j], qz);
            float r = vr[at_r], z = vz[at_z], q = inner ? quantized(p[j], qp) : p[j], a = xn[j] + r * q;
            int32_t at_n = place(a, qn);
            float n = vn[at_n], sum = (1 - z) * n + z * h[j];
            float d = limited ? passed(sum, qh, dh[j], &of_io) : dh[j];
            float d_n = d * (1 - z), d_z = d * h[j] - d * n;
            dh[j] = d * z;
            t2 += d_n * en[at_n];
            float d_a = passed(a, qn, d_n * sn[at_n], &s2), d_r = d_a * q, d_q = d_a * r;
            dn[j] = d_a;
            dp[j] = inner ? passed(p[j], qp, d_q, &s3) : d_q;
            t0 += d_r * er[at_r];
            t1 += d_z * ez[at_z];
            dr[j] = passed(ar[j], qr, d_r * sr[at_r], &s0);
            dz[j] = passed(az[j], qz, d_z * sz[at_z], &s1);
        }
        const float all[8] = {s0, s1, s2, s3, t0, t1, t2, of_io};
        for (int k = 0; k < 8; k++)
            sums[k] += all[k];
    }
}

/* for_h: of the output on entry, on return what goes straight on to the state before the step. for_pre: of both accumulators and of
 * the product (B, 3H). for_new: of the last part of the projected input. sums: for the scales in front of the gates, of the product,
 * behind the gates, and of the output. */
API void gru_backward(const GRU *m, const float *x, const float *pre, const float *product, const float *before, float *for_h,
                      float *for_pre, float *for_new, double *sums, i64 batch, i64 hidden) {
#define CALL(inner, limited)                                                                                                   \
    gru_backward_as(m, x, pre, product, before, for_h, for_pre, for_new, sums, batch, hidden, inner, limited)
    FOR_GRU(CALL)
#undef CALL
}

/* h = table[level of pre] */
API void rnn_forward(const float *table, float scale, float low, float high, const float *pre, float *out, i64 count) {
    Grid q = {scale, low, high};
#pragma omp simd
    for (i64 j = 0; j < count; j++)
        out[j] = looked_up(table, pre[j], place(pre[j], q));
}

/* sums: for the scale in front of the function, and for that of the output. */
API void rnn_backward(const float *slope, const float *error, float scale, float low, float high, const float *pre,
                      const float *for_h, float *for_pre, double *sums, i64 batch, i64 hidden) {
    Grid q = {scale, low, high};
    for (i64 b = 0; b < batch; b++) {
        float of_acc = 0, of_io = 0;
#pragma omp simd reduction(+ : of_acc, of_io)
        for (i64 j = b * hidden; j < (b + 1) * hidden; j++) {
            int32_t at = place(pre[j], q);
            of_io += for_h[j] * error[at];
            for_pre[j] = passed(pre[j], q, for_h[j] * slope[at], &of_acc);
        }
        sums[0] += of_acc;
        sums[1] += of_io;
    }
}

/* Steps of an LSTM while its quantizers collect statistics: the threshold of a quantizer is then the largest magnitude of what it is
 * given, with its gradient, which goes to the first element that has it. What is in front of a function is written to memory, and the
 * function itself is computed by torch between two calls. */

typedef struct {
    float low, high;
    float divisor; /* scale = threshold / divisor */
    float least;   /* the smallest threshold */
    i64 collects;  /* 0: the scale is given, and 0 stands for no quantizer */
} Call;

enum { ACC = 0, GATE = 4, KEPT = 8, ADDED, SUM, TANH, IO, CALLS };

/* Rows of x are `pitch` apart. Returns the grid; what was found goes to `statistic`, and where to `at`. */
static Grid grid_of(const Call *q, const float *x, i64 rows, i64 hidden, i64 pitch, float *scale, float *statistic, i64 *at) {
    if (q->collects) {
        float most = 0;
        int broken = 0;
        for (i64 b = 0; b < rows; b++) {
            const float *row = x + b * pitch;
#pragma omp simd reduction(max : most) reduction(| : broken)
            for (i64 j = 0; j < hidden; j++) {
                float size = fabsf(row[j]);
                most = size > most ? size : most;
                broken |= size != size;
            }
        }
        *at = 0;
        for (i64 k = 0; k < rows * hidden; k++)
            if (fabsf(x[k / hidden * pitch + k % hidden]) == most) {
                *at = k;
                break;
            }
        *statistic = broken ? NAN : most;
        *scale = (most < q->least ? q->least : most) / q->divisor;
    }
    Grid grid = {*scale, q->low, q->high};
    return grid;
}

INLINE float on(float x, Grid q, const int limited) { return limited ? quantized(x, q) : x; }

static void put_on(const float *x, i64 rows, i64 hidden, i64 pitch, Grid q, float *out) {
    const int limited = q.scale > 0;
    for (i64 b = 0; b < rows; b++)
#pragma omp simd
        for (i64 j = 0; j < hidden; j++)
            out[b * hidden + j] = on(x[b * pitch + j], q, limited);
}

#define GRID(call, x, pitch) grid_of(q + (call), x, batch, hidden, pitch, scales + (call), found + (call), at + (call))

/* Accumulators (B, 4H) to what is in front of the functions, (4, B, H). */
API void lstm_collect_gates(const Call *q, const float *pre, float *acts, float *scales, float *found, i64 *at, i64 batch,
                            i64 hidden) {
    for (i64 g = 0; g < GATES; g++) {
        const float *acc = pre + g * hidden;
        put_on(acc, batch, hidden, GATES * hidden, GRID(ACC + g, acc, GATES * hidden), acts + g * batch * hidden);
    }
}

/* What comes out of the functions to the next cell state; `work` holds (7, B, H): gates, products and their sum, to be kept
 * for the rest of the step. */
API void lstm_collect_cell(const Call *q, const float *acts, const float *before, float *after, float *work, float *scales,
                           float *found, i64 *at, i64 batch, i64 hidden) {
    const i64 n = batch * hidden;
    float *kept = work + 4 * n, *added = work + 5 * n, *sum = work + 6 * n;
    for (i64 g = 0; g < GATES; g++)
        put_on(acts + g * n, 1, n, n, GRID(GATE + g, acts + g * n, hidden), work + g * n);
    for (i64 k = 0; k < n; k++) {
        kept[k] = work[FORGET * n + k] * before[k];
        added[k] = work[INPUT * n + k] * work[CELL * n + k];
    }
    const Grid qk = GRID(KEPT, kept, hidden), qa = GRID(ADDED, added, hidden);
    const int limited = qk.scale > 0;
    for (i64 k = 0; k < n; k++)
        sum[k] = on(kept[k], qk, limited) + on(added[k], qa, limited);
    put_on(sum, 1, n, n, GRID(SUM, sum, hidden), after);
}

/* tanh of the cell state, and the output gate, to the output. */
API void lstm_collect_output(const Call *q, const float *tanhs, float *work, float *out, float *scales, float *found, i64 *at,
                             i64 batch, i64 hidden) {
    const i64 n = batch * hidden;
    float *product = work + 4 * n;
    put_on(tanhs, 1, n, n, GRID(TANH, tanhs, hidden), product);
    for (i64 k = 0; k < n; k++)
        product[k] *= work[OUTPUT * n + k];
    put_on(product, 1, n, n, GRID(IO, product, hidden), out);
}

/* Turns the gradient g of what a quantizer gives into that of what it is given, (B, H); that of the scale goes on to the element
 * that made it, or is added to a sum. */
static void back(const Call *q, const float *x, i64 rows, i64 hidden, i64 pitch, float scale, i64 at, float *g, double *sum,
                 double extra) {
    if (!(scale > 0))
        return;
    const Grid grid = {scale, q->low, q->high};
    double total = *sum + extra;
    for (i64 b = 0; b < rows; b++) {
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (i64 j = 0; j < hidden; j++)
            g[b * hidden + j] = passed(x[b * pitch + j], grid, g[b * hidden + j], &part);
        total += part;
    }
    *sum = q->collects ? 0 : total;
    if (q->collects) {
        float one = x[at / hidden * pitch + at % hidden];
        g[at] += (float)(total / q->divisor) * (float)((one > 0) - (one < 0));
    }
}

#define BACK(call, x, g) back(q + (call), x, batch, hidden, hidden, scales[call], at[call], g, sums + (call), extra[call])

/* for_h: of the output. for_c: of the state after the step on entry, before it on return. work: (12, B, H), overwritten. sums: grow by
 * the gradients of scales that are given. extra: gradients of the scales of this step from elsewhere. */
API void lstm_collect_backward(const Call *q, const float *scales, const i64 *at, const float *pre, const float *acts,
                               const float *tanhs, const float *before, const float *for_h, float *for_c, float *for_pre,
                               float *work, double *sums, const double *extra, i64 batch, i64 hidden) {
    const i64 n = batch * hidden;
    float *gates = work, *kept = work + 4 * n, *added = work + 5 * n, *sum = work + 6 * n, *th = work + 7 * n;
    float *d = work + 8 * n; /* of the gates */
    for (i64 g = 0; g < GATES; g++) {
        Grid grid = {scales[GATE + g], q[GATE + g].low, q[GATE + g].high};
        put_on(acts + g * n, 1, n, n, grid, gates + g * n);
    }
    const float *i = gates + INPUT * n, *f = gates + FORGET * n, *c = gates + CELL * n, *o = gates + OUTPUT * n;
    const Grid qt = {scales[TANH], q[TANH].low, q[TANH].high};
    put_on(tanhs, 1, n, n, qt, th);
    float *product = kept, *d_product = added, *d_th = sum; /* until the cell state is come to */
    for (i64 k = 0; k < n; k++) {
        product[k] = o[k] * th[k];
        d_product[k] = for_h[k];
    }
    BACK(IO, product, d_product);
    for (i64 k = 0; k < n; k++) {
        d[OUTPUT * n + k] = d_product[k] * th[k];
        d_th[k] = d_product[k] * o[k];
    }
    BACK(TANH, tanhs, d_th);
    for (i64 k = 0; k < n; k++)
        for_c[k] += d_th[k] * (1 - tanhs[k] * tanhs[k]);
    const Grid qk = {scales[KEPT], q[KEPT].low, q[KEPT].high}, qa = {scales[ADDED], q[ADDED].low, q[ADDED].high};
    const int limited = qk.scale > 0;
    for (i64 k = 0; k < n; k++) {
        kept[k] = f[k] * before[k];
        added[k] = i[k] * c[k];
        sum[k] = on(kept[k], qk, limited) + on(added[k], qa, limited);
    }
    BACK(SUM, sum, for_c);
    float *d_kept = for_c, *d_added = th; /* which is not needed any more */
    for (i64 k = 0; k < n; k++)
        d_added[k] = for_c[k];
    BACK(ADDED, added, d_added);
    BACK(KEPT, kept, d_kept);
    for (i64 k = 0; k < n; k++) {
        d[FORGET * n + k] = d_kept[k] * before[k];
        d[INPUT * n + k] = d_added[k] * c[k];
        d[CELL * n + k] = d_added[k] * i[k];
        for_c[k] = d_kept[k] * f[k];
    }
    for (i64 g = 0; g < GATES; g++) {
        const float *y = acts + g * n;
        float *part = d + g * n;
        BACK(GATE + g, y, part);
        for (i64 k = 0; k < n; k++)
            part[k] *= g == CELL ? 1 - y[k] * y[k] : (1 - y[k]) * y[k];
        back(q + g, pre + g * hidden, batch, hidden, GATES * hidden, scales[g], at[g], part, sums + g, extra[g]);
        for (i64 b = 0; b < batch; b++)
            for (i64 j = 0; j < hidden; j++)
                for_pre[(b * GATES + g) * hidden + j] = part[b * hidden + j];
    }
}

/* average = (1 - m) average + m statistic, one after the other, starting from the first one where there was none before. */
API void running_average(float *average, const float *statistics, float least, i64 count, i64 before, float keep, float weight) {
    for (i64 k = 0; k < count; k++) {
        float one = statistics[k] < least ? least : statistics[k];
        *average = before + k == 0 ? one : *average * keep + one * weight;
    }
}
