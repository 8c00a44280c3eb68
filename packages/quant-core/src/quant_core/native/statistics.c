/* What activations are scaled by while their statistics are collected, without a temporary of the size of the tensor. */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

#define API __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define BLOCK 1024
#define MOST_KEPT 128
#define MOST_PARTS 16
#define PARALLEL_FROM 65536

/* Floats without their sign bit are ordered like integers, and NaN is the largest. Equal ones rank by where they stand. */
typedef struct {
    int32_t magnitude;
    i64 index;
} Element;

INLINE int below(Element a, Element b) {
    return a.magnitude < b.magnitude || (a.magnitude == b.magnitude && a.index > b.index);
}

/* A heap of the largest elements so far, the smallest of them at its root. */
typedef struct {
    Element kept[MOST_KEPT];
    i64 count, wanted;
} Heap;

static void sink(Heap *heap, i64 at) {
    Element moved = heap->kept[at];
    for (i64 child; (child = 2 * at + 1) < heap->count; at = child) {
        if (child + 1 < heap->count && below(heap->kept[child + 1], heap->kept[child]))
            child++;
        if (!below(heap->kept[child], moved))
            break;
        heap->kept[at] = heap->kept[child];
    }
    heap->kept[at] = moved;
}

static void keep(Heap *heap, Element element) {
    if (heap->count < heap->wanted) {
        i64 at = heap->count++;
        for (; at > 0 && below(element, heap->kept[(at - 1) / 2]); at = (at - 1) / 2)
            heap->kept[at] = heap->kept[(at - 1) / 2];
        heap->kept[at] = element;
    } else if (below(heap->kept[0], element)) {
        heap->kept[0] = element;
        sink(heap, 0);
    }
}

INLINE int32_t magnitude(float x, int rectify) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return rectify && x <= 0.0f ? 0 : bits & 0x7fffffff;
}

INLINE void scan(const float *x, i64 start, i64 end, Heap *heap, int rectify) {
    for (i64 from = start; from < end; from += BLOCK) {
        i64 until = from + BLOCK < end ? from + BLOCK : end;
        int32_t most = 0;
        for (i64 i = from; i < until; i++) {
            int32_t found = magnitude(x[i], rectify);
            most = found > most ? found : most;
        }
        if (heap->count == heap->wanted && most <= heap->kept[0].magnitude)
            continue; /* later elements rank below equal ones before them */
        for (i64 i = from; i < until; i++)
            keep(heap, (Element){magnitude(x[i], rectify), i});
    }
}

/* The nth largest |x|, or max(x, 0) if it is rectified, with threshold = max(that, minimum) and scale = threshold / divisor.
 * Returns where the element stands; writes its value, with its sign, into element. */
API i64 nth_largest(const float *x, i64 count, i64 nth, int rectify, float minimum, float divisor, float *element,
                    float *threshold, float *scale, int threads) {
    Heap heaps[MOST_PARTS];
    i64 parts = count < PARALLEL_FROM || threads < 1 ? 1 : threads < MOST_PARTS ? threads : MOST_PARTS;
    i64 size = (count + parts - 1) / parts;
#pragma omp parallel for num_threads(threads) schedule(static) if (parts > 1)
    for (i64 part = 0; part < parts; part++) {
        i64 start = part * size, end = start + size < count ? start + size : count;
        heaps[part].count = 0;
        heaps[part].wanted = nth;
        if (rectify)
            scan(x, start, end, &heaps[part], 1);
        else
            scan(x, start, end, &heaps[part], 0);
    }
    for (i64 part = 1; part < parts; part++)
        for (i64 i = 0; i < heaps[part].count; i++)
            keep(&heaps[0], heaps[part].kept[i]);
    i64 index = heaps[0].kept[0].index;
    float found = rectify && x[index] <= 0.0f ? 0.0f : x[index];
    *element = found;
    *threshold = fabsf(found) < minimum ? minimum : fabsf(found);
    *scale = *threshold / divisor;
    return index;
}

/* The gradient of that scale, through the value and of the scale itself, reaches the element that it was made of. */
API void add_at_element(float *gx, i64 index, float element, const float *through_value, const float *of_scale, float divisor) {
    float sum = (through_value ? *through_value : 0.0f) + (of_scale ? *of_scale : 0.0f);
    float sign = element > 0.0f ? 1.0f : element < 0.0f ? -1.0f : 0.0f;
    gx[index] += sign * (sum / divisor);
}

/* average = (1 - momentum) average + momentum statistic, starting from the first; the mean of all where momentum is negative. */
API void follow(float *average, const float *statistic, i64 size, i64 count, double momentum) {
    float kept = (float)(1 - momentum), taken = (float)momentum, all = (float)(count + 1);
    for (i64 i = 0; i < size; i++) {
        if (momentum < 0)
            average[i] = average[i] * ((float)count / all) + statistic[i] / all;
        else
            average[i] = count == 0 ? statistic[i] : average[i] * kept + statistic[i] * taken;
    }
}
