/* What stands between the matrix products of a decode step, for one new token per row.

   Each row is computed by itself, in float32 and in one fixed order, so that no bit of it depends on the rows beside
   it. Compiled twice, for weights and activations in float32 and in bfloat16, by kernels.py. */

#ifndef ONCE
#define ONCE

#include <math.h>
#include <stdint.h>
#include <string.h>

#define KEYS 64        /* keys that one round of attention reads */
#define MAX_GROUPS 16  /* query heads that share a key head */
#define MAX_WIDTH 256  /* of a head */
#define NUMBERS 12     /* those of an edit, and its forms: as in interventions.py */
enum { PLAIN, ROTATION, MAP, LATENT };
#define FEW 4          /* rows below which a second thread costs more than it brings */

static inline float from_float32(float x) { return x; }
static inline float to_float32(float x) { return x; }

static inline float from_bfloat16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint16_t to_bfloat16(float x) { /* to the nearest, ties to even, NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (uint16_t)rounded;
}

/* e**x, relative error below 3e-7; 0 below -87. A polynomial, because a library's expf stays scalar in a loop. */
static inline float exponential(float x) {
    float clipped = x > 88.0f ? 88.0f : x;
    float n = rintf(clipped * 1.44269504f);
    float r = clipped - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    float whole = n < -126.0f ? -126.0f : n;
    int32_t bits = ((int32_t)whole + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return x < -87.0f ? 0.0f : p * power;
}

#define JOIN(a, b) a##_##b
#define NAMED(a, b) JOIN(a, b)
#define NAME(function) NAMED(function, TYPE)
#define READ NAMED(from, TYPE)
#define WRITE NAMED(to, TYPE)

#define TYPE float32
#define T float
#include "native.c"
#undef TYPE
#undef T

#define TYPE bfloat16
#define T uint16_t
#include "native.c"

#else

/* x += delta (unless that is null); out = RMSNorm(x) * weight. x, delta, out: [rows, width]. */
void NAME(norm)(int64_t rows, int64_t width, T *x, const T *delta, const T *weight, float eps, T *out) {
#pragma omp parallel for if (rows > FEW)
    for (int64_t r = 0; r < rows; r++) {
        T *h = x + r * width, *o = out + r * width;
        float squares = 0;
        if (delta)
            for (int64_t i = 0; i < width; i++) h[i] = WRITE(READ(h[i]) + READ(delta[r * width + i]));
        for (int64_t i = 0; i < width; i++) squares += READ(h[i]) * READ(h[i]);
        float scale = 1.0f / sqrtf(squares / width + eps);
        for (int64_t i = 0; i < width; i++) o[i] = WRITE(READ(h[i]) * scale * READ(weight[i]));
    }
}

/* One head in place: RMSNorm where a weight is given, then the rotary embedding. */
static inline void NAME(turn)(int64_t d, T *head, const T *weight, float eps, const T *cos, const T *sin) {
    float x[MAX_WIDTH], squares = 0;
    for (int64_t i = 0; i < d; i++) x[i] = READ(head[i]);
    if (weight) {
        for (int64_t i = 0; i < d; i++) squares += x[i] * x[i];
        float scale = 1.0f / sqrtf(squares / d + eps);
        for (int64_t i = 0; i < d; i++) x[i] *= scale * READ(weight[i]);
    }
    for (int64_t i = 0; i < d / 2; i++) {
        float left = x[i], right = x[i + d / 2];
        head[i] = WRITE(left * READ(cos[i]) - right * READ(sin[i]));
        head[i + d / 2] = WRITE(right * READ(cos[i + d / 2]) + left * READ(sin[i + d / 2]));
    }
}

/* Rotate queries and keys in place and store the new keys and values at each row's position.
   qkv: [rows, heads + 2 * kv_heads, d]; cos, sin: [rows, d]; stores: [owners, kv_heads, tokens, d] by their strides.
   Row r writes to and reads from owners[r], or from r where that is null. */
void NAME(rotate)(int64_t rows, int64_t heads, int64_t kv_heads, int64_t d, T *qkv, const T *cos, const T *sin,
                  const T *q_weight, const T *k_weight, float eps, T *keys, T *values, const int64_t *owners,
                  const int64_t *positions, int64_t row_stride, int64_t head_stride) {
#pragma omp parallel for if (rows > FEW)
    for (int64_t r = 0; r < rows; r++) {
        T *q = qkv + r * (heads + 2 * kv_heads) * d, *k = q + heads * d, *v = k + kv_heads * d;
        for (int64_t h = 0; h < heads; h++) NAME(turn)(d, q + h * d, q_weight, eps, cos + r * d, sin + r * d);
        for (int64_t h = 0; h < kv_heads; h++) {
            int64_t place = (owners ? owners[r] : r) * row_stride + h * head_stride + positions[r] * d;
            NAME(turn)(d, k + h * d, k_weight, eps, cos + r * d, sin + r * d);
            memcpy(keys + place, k + h * d, d * sizeof(T));
            memcpy(values + place, v + h * d, d * sizeof(T));
        }
    }
}

/* The query heads of one row that share a key head, over keys begin to end, in rounds of KEYS with a running maximum. */
static inline __attribute__((always_inline)) void NAME(attend_to)(int64_t d, int64_t groups, const T *q, const T *keys,
                                                                  const T *values, int64_t begin, int64_t end,
                                                                  float scale, T *out) {
    float query[MAX_GROUPS][d], sum[MAX_GROUPS][d], weights[MAX_GROUPS][KEYS], wide[d];
    float most[MAX_GROUPS], total[MAX_GROUPS];
    for (int64_t g = 0; g < groups; g++) {
        most[g] = -INFINITY, total[g] = 0;
        for (int64_t i = 0; i < d; i++) query[g][i] = READ(q[g * d + i]) * scale, sum[g][i] = 0;
    }
    for (int64_t start = begin; start < end; start += KEYS) {
        int64_t n = end - start < KEYS ? end - start : KEYS;
        for (int64_t k = 0; k < n; k++) {
            for (int64_t i = 0; i < d; i++) wide[i] = READ(keys[(start + k) * d + i]);
            for (int64_t g = 0; g < groups; g++) {
                float dot = 0;
                for (int64_t i = 0; i < d; i++) dot += query[g][i] * wide[i];
                weights[g][k] = dot;
            }
        }
        for (int64_t g = 0; g < groups; g++) {
            float high = most[g], mass = 0;
            for (int64_t k = 0; k < n; k++) high = weights[g][k] > high ? weights[g][k] : high;
            float shrink = exponential(most[g] - high);
            for (int64_t k = 0; k < n; k++) weights[g][k] = exponential(weights[g][k] - high), mass += weights[g][k];
            for (int64_t i = 0; i < d; i++) sum[g][i] *= shrink;
            most[g] = high, total[g] = total[g] * shrink + mass;
        }
        for (int64_t k = 0; k < n; k++) {
            for (int64_t i = 0; i < d; i++) wide[i] = READ(values[(start + k) * d + i]);
            for (int64_t g = 0; g < groups; g++)
                for (int64_t i = 0; i < d; i++) sum[g][i] += weights[g][k] * wide[i];
        }
    }
    for (int64_t g = 0; g < groups; g++)
        for (int64_t i = 0; i < d; i++) out[g * d + i] = WRITE(sum[g][i] / total[g]);
}

/* Attention of one query per row to the keys from `firsts` (unless that is null) up to its own position, the last
   `window` of them if that is not 0. qkv as above, rotated; out: [rows, heads, d]. */
void NAME(attend)(int64_t rows, int64_t heads, int64_t kv_heads, int64_t d, const T *qkv, const T *keys,
                  const T *values, const int64_t *owners, const int64_t *firsts, const int64_t *positions,
                  int64_t row_stride, int64_t head_stride, float scale, int64_t window, T *out) {
    int64_t groups = heads / kv_heads, work = 0;
    for (int64_t r = 0; r < rows; r++) work += positions[r] - (firsts ? firsts[r] : 0);
#pragma omp parallel for schedule(dynamic) if (work > 200)
    for (int64_t unit = 0; unit < rows * kv_heads; unit++) {
        int64_t r = unit / kv_heads, h = unit % kv_heads, end = positions[r] + 1;
        int64_t first = firsts ? firsts[r] : 0, begin = window && end - first > window ? end - window : first;
        const T *q = qkv + (r * (heads + 2 * kv_heads) + h * groups) * d;
        int64_t place = (owners ? owners[r] : r) * row_stride + h * head_stride;
        const T *k = keys + place, *v = values + place;
        T *o = out + (r * heads + h * groups) * d;
        switch (d) { /* the usual widths are constants to the compiler */
            case 64: NAME(attend_to)(64, groups, q, k, v, begin, end, scale, o); break;
            case 128: NAME(attend_to)(128, groups, q, k, v, begin, end, scale, o); break;
            default: NAME(attend_to)(d, groups, q, k, v, begin, end, scale, o);
        }
    }
}

/* One rotation of interventions.py: wide stands in the plane of u and v; `angle` is where its part there shall be. */
static inline void NAME(turn_in_plane)(int64_t width, float *wide, const float *u, const float *v, float angle,
                                       float share, float x) {
    float y = 0, circle = 6.28318531f;
    for (int64_t i = 0; i < width; i++) y += wide[i] * v[i];
    float radius = hypotf(x, y), now = atan2f(y, x), turn = angle - now;
    turn -= circle * rintf(turn / circle);
    float f = radius * cosf(now + turn * share) - x, g = radius * sinf(now + turn * share) - y;
    for (int64_t i = 0; i < width; i++) wide[i] += f * u[i] + g * v[i];
}

/* One affine map: wide += share * write.T @ (read @ was + bias). read, write: [rank, width]. */
static inline void NAME(map_affinely)(int64_t rank, int64_t width, float *wide, const float *was, const float *read,
                                      const float *write, const float *bias, float share) {
    for (int64_t j = 0; j < rank; j++) {
        float along = 0;
        for (int64_t i = 0; i < width; i++) along += was[i] * read[j * width + i];
        float dose = (along + bias[j]) * share;
        for (int64_t i = 0; i < width; i++) wide[i] += dose * write[j * width + i];
    }
}

/* The activation of a latent whose product with the residual is z; n as the numbers of an edit. */
static inline float NAME(activation)(float z, const float *n) {
    float value = n[8] * z + n[9];
    return z > n[10] && value > 0 ? value : 0;
}

/* x += delta (unless that is null), then the edits of one site of a bank, as its `apply`: see interventions.py.
   x, delta: [rows, width]; the next are those of the whole bank: read, write [sites, k, rows, width], numbers
   [sites, k, rows, NUMBERS], and share, before, after, dose [sites, k, rows], active likewise or null where nothing is
   read of an SAE; the last are this site's alone: encoder, second [k, rows, width], map_read, map_write
   [k, rows, rank, width], map_bias [k, rows, rank], null where no row has one. */
void NAME(steer)(int64_t site, int64_t k, int64_t rows, int64_t width, T *x, const T *delta, const float *read,
                 const float *write, const float *numbers, const float *share, float *before, float *after, float *dose,
                 float *active, const float *encoder, const float *second, int64_t rank, const float *map_read, const float *map_write,
                 const float *map_bias) {
#pragma omp parallel for if (rows > FEW)
    for (int64_t r = 0; r < rows; r++) {
        T *h = x + r * width;
        float wide[width], was[width], entry[encoder ? width : 1]; /* entry: h when the latest reading began */
        int steered = 0, reading = 0;
        if (delta)
            for (int64_t i = 0; i < width; i++) h[i] = WRITE(READ(h[i]) + READ(delta[r * width + i]));
        for (int64_t e = 0; e < k; e++) {
            int64_t at = (site * k + e) * rows + r, here = e * rows + r;
            if (share[at] == 0) continue;
            if (!steered++)
                for (int64_t i = 0; i < width; i++) wide[i] = READ(h[i]);
            const float *u = read + at * width, *w = write + at * width, *n = numbers + NUMBERS * at;
            int form = (int)n[6], keep = n[7] != 0, longer = form == ROTATION || form == MAP || keep;
            if (encoder && n[11] != 0 && (int)n[11] != reading) {
                memcpy(entry, wide, width * sizeof(float));
                reading = (int)n[11];
            }
            if (longer) memcpy(was, wide, width * sizeof(float));
            float along = 0;
            for (int64_t i = 0; i < width; i++) along += wide[i] * u[i];
            before[at] = along;
            if (form == PLAIN || form == LATENT) {
                float value = along;
                if (form == LATENT) {
                    float z = 0;
                    for (int64_t i = 0; i < width; i++) z += entry[i] * encoder[here * width + i];
                    value = active[at] = NAME(activation)(z, n);
                }
                float factor = n[0] + n[1] * value;
                factor = factor < n[2] ? n[2] : factor;
                factor = factor > n[3] ? n[3] : factor;
                factor *= share[at];
                for (int64_t i = 0; i < width; i++) wide[i] += factor * w[i];
                dose[at] = fabsf(factor) * n[4], after[at] = along + factor * n[5];
            } else if (form == ROTATION) {
                NAME(turn_in_plane)(width, wide, u, second + here * width, n[0], share[at], along);
            } else {
                int64_t begin = here * rank * width;
                NAME(map_affinely)(rank, width, wide, was, map_read + begin, map_write + begin, map_bias + here * rank,
                                   share[at]);
            }
            if (!longer) continue;
            float old = 0, now = 0, moved = 0, further = 0;
            for (int64_t i = 0; i < width; i++) old += was[i] * was[i], now += wide[i] * wide[i];
            if (keep && now > 0) {
                float scale = sqrtf(old) / sqrtf(now);
                for (int64_t i = 0; i < width; i++) wide[i] *= scale;
            }
            for (int64_t i = 0; i < width; i++) {
                float difference = wide[i] - was[i];
                moved += difference * difference, further += wide[i] * u[i];
            }
            dose[at] = sqrtf(moved), after[at] = further;
        }
        if (steered)
            for (int64_t i = 0; i < width; i++) h[i] = WRITE(wide[i]);
    }
}

/* silu(gate) * up. gate_up: [rows, 2 * width]; out: [rows, width]. */
void NAME(gated)(int64_t rows, int64_t width, const T *gate_up, T *out) {
#pragma omp parallel for if (rows > FEW)
    for (int64_t r = 0; r < rows; r++) {
        const T *gate = gate_up + 2 * r * width, *up = gate + width;
        for (int64_t i = 0; i < width; i++) {
            float g = READ(gate[i]);
            out[r * width + i] = WRITE(g / (1.0f + exponential(-g)) * READ(up[i]));
        }
    }
}

#endif
