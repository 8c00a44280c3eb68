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
