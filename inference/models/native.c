/* Transformer blocks of the Llama kind: what stands between the matrix products, the products, and a run of blocks.

   Each row is computed by itself, its sums in float32 and in one fixed order, so that no bit of it depends on the rows
   beside it. Compiled twice, for weights and activations in float32 and in bfloat16, by kernels.py. */

#ifndef ONCE
#define ONCE

#include <math.h>
#include <stdint.h>
#include <string.h>
#include "crew.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define KEYS 64        /* keys that one round of attention reads */
#define MAX_GROUPS 16  /* query heads that share a key head */
#define QUERIES 24     /* that one round answers at the most */
#define SIX 6          /* queries of one tile of attention at the most */
#define MAX_WIDTH 256  /* of a head */
#define NUMBERS 12     /* those of an edit, and its forms: as in interventions.py */
enum { PLAIN, ROTATION, MAP, LATENT };
#define BAND 64        /* rows that a thread may well compute by itself */
#define FEW 4          /* rows below which a second thread costs more than it brings */
#define PANEL 64       /* outputs that lie together in a packed weight: see linear.py */
#define HALF 32        /* outputs of one tile of a product, which is half a panel */
#define TILE 8         /* rows of one tile at the most */
#define SOME 8         /* rows that a thread of a crew takes at once */
#define SMALL 65536    /* weights of a product that is not worth a second thread */
#define PHASES 10      /* of a block at the most */
#define ONE static __attribute__((noinline, noclone)) /* so that sums have one order wherever they are called for */

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

#define BLOCK 64                /* neighbouring tokens of which only the likeliest is looked at first */
#define UNITS 4398046511104.0f /* 2**42: of the likeliest token's mass, which is counted in whole ones */

/* The `size` largest of what was offered, the largest first and the earlier first among equals. */
struct best {
    int64_t size, count;
    float *values;
    int64_t *ids;
};

static inline void offer(struct best *best, float value, int64_t id) {
    if (best->count == best->size && !(value > best->values[best->size - 1])) return;
    int64_t low = 0, high = best->count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (best->values[middle] >= value) low = middle + 1;
        else high = middle;
    }
    int64_t behind = (best->count < best->size ? best->count++ : best->size - 1) - low;
    memmove(best->values + low + 1, best->values + low, behind * sizeof(float));
    memmove(best->ids + low + 1, best->ids + low, behind * sizeof(int64_t));
    best->values[low] = value, best->ids[low] = id;
}

/* x = (x - most) / temperature; weights = e**x. By itself, so that a weight is the same wherever it is computed. */
static __attribute__((noinline)) void weigh(int64_t n, float most, float temperature, float *x, float *weights) {
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - most) / temperature;
    for (int64_t i = 0; i < n; i++) weights[i] = exponential(x[i]);
}

/* Where runs of rows begin that have one owner and rise, of at most `most` rows each; how many there are. begins:
   [rows + 1], the last being their end. */
static int64_t runs_of(int64_t rows, int64_t most, const int64_t *owners, const int64_t *firsts, const int64_t *positions,
                       int64_t *begins) {
    int64_t runs = 0;
    for (int64_t r = 0; r < rows; r++) {
        int same = r && owners && owners[r] == owners[r - 1] && (!firsts || firsts[r] == firsts[r - 1]) &&
                   positions[r] > positions[r - 1];
        if (!same || r - begins[runs - 1] >= most) begins[runs++] = r;
    }
    begins[runs] = rows;
    return runs;
}

/* Where bands of rows begin, of some BAND rows each, and no row without the others of its owner; how many there are, one
   for every thread at the most. from: [bands + 1], the last being their end. */
static int64_t bands_of(int64_t rows, int all, const int64_t *owners, int64_t *from) {
    int64_t most = rows / BAND, bands = 0, room = (MAX_THREADS + 1) / (all + 1);
    if (most > all) most = all;
    if (most > room) most = room;
    if (!owners || most < 1) most = 1;
    from[bands++] = 0;
    for (int64_t h = 1; h < most; h++) {
        int64_t r = rows * h / most;
        while (r < rows && owners[r] == owners[r - 1]) r++;
        if (r < rows && r > from[bands - 1]) from[bands++] = r;
    }
    from[bands] = rows;
    return bands;
}

/* What a tile of a product is made of: a cell is one float32 or a pair of bfloat16. */
#ifdef __AVX512F__
static inline __m512 plus_product_float32(__m512 sum, __m512i w, __m512i x) {
    return _mm512_fmadd_ps((__m512)w, (__m512)x, sum);
}
static inline void put_float32(float *out, __mmask16 which, __m512 x) { _mm512_mask_storeu_ps(out, which, x); }
static inline __m512 wide_float32(const float *x, __mmask16 which) { return _mm512_maskz_loadu_ps(which, x); }
static inline __mmask16 first_of(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1; }

/* The transpose of 16 x 16 cells: `rows` rows of `columns` cells, what is missing being 0, to 16 rows of 16. */
static inline void turn_cells(const int32_t *from, int64_t from_stride, int64_t rows, int64_t columns, int32_t *to,
                              int64_t to_stride) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        a[i] = i < rows ? _mm512_maskz_loadu_epi32(first_of(columns), from + i * from_stride) : _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2)
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]), a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]), a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) { /* now lane l of a[4 j + c] is column 4 l + c of rows 4 j to 4 j + 3 */
        __m512i low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x44), high = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xee);
        __m512i low2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x44);
        __m512i high2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xee);
        _mm512_storeu_si512(to + c * to_stride, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(to + (4 + c) * to_stride, _mm512_shuffle_i32x4(low, low2, 0xdd));
        _mm512_storeu_si512(to + (8 + c) * to_stride, _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(to + (12 + c) * to_stride, _mm512_shuffle_i32x4(high, high2, 0xdd));
    }
}
#endif
#ifdef __AVX512BF16__
static inline __m512 plus_product_bfloat16(__m512 sum, __m512i w, __m512i x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
}
static inline void put_bfloat16(uint16_t *out, __mmask16 which, __m512 x) {
    _mm256_mask_storeu_epi16(out, which, (__m256i)_mm512_cvtneps_pbh(x));
}
static inline __m512 wide_bfloat16(const uint16_t *x, __mmask16 which) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(which, x)), 16);
}
#endif

#define JOIN(a, b) a##_##b
#define NAMED(a, b) JOIN(a, b)
#define NAME(function) NAMED(function, TYPE)
#define READ NAMED(from, TYPE)
#define WRITE NAMED(to, TYPE)

#define TYPE float32
#define T float
#define CELL 1 /* inputs that one lane of a product takes at once */
#ifdef __AVX512F__
#define MULTIPLIES 1
#else
#define MULTIPLIES 0
#endif
#include "native.c"
#undef TYPE
#undef T
#undef CELL
#undef MULTIPLIES

#define TYPE bfloat16
#define T uint16_t
#define CELL 2
#ifdef __AVX512BF16__
#define MULTIPLIES 1
#else
#define MULTIPLIES 0
#endif
#include "native.c"

#else

ONE void NAME(norm_row)(int64_t r, int64_t width, T *x, const T *delta, const T *weight, float eps, T *out) {
    T *h = x + r * width, *o = out + r * width;
    float squares = 0;
    if (delta)
        for (int64_t i = 0; i < width; i++) h[i] = WRITE(READ(h[i]) + READ(delta[r * width + i]));
    for (int64_t i = 0; i < width; i++) squares += READ(h[i]) * READ(h[i]);
    float scale = 1.0f / sqrtf(squares / width + eps);
    for (int64_t i = 0; i < width; i++) o[i] = WRITE(READ(h[i]) * scale * READ(weight[i]));
}

/* x += delta (unless that is null); out = RMSNorm(x) * weight. x, delta, out: [rows, width]. */
void NAME(norm)(int64_t rows, int64_t width, T *x, const T *delta, const T *weight, float eps, T *out) {
#pragma omp parallel for if (rows > FEW)
    for (int64_t r = 0; r < rows; r++) NAME(norm_row)(r, width, x, delta, weight, eps, out);
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

ONE void NAME(rotate_row)(int64_t r, int64_t heads, int64_t kv_heads, int64_t d, T *qkv, const T *cos, const T *sin,
                          const T *q_weight, const T *k_weight, float eps, T *keys, T *values, const int64_t *owners,
                          const int64_t *positions, int64_t row_stride, int64_t head_stride) {
    T *q = qkv + r * (heads + 2 * kv_heads) * d, *k = q + heads * d, *v = k + kv_heads * d;
    for (int64_t h = 0; h < heads; h++) NAME(turn)(d, q + h * d, q_weight, eps, cos + r * d, sin + r * d);
    for (int64_t h = 0; h < kv_heads; h++) {
        int64_t place = (owners ? owners[r] : r) * row_stride + h * head_stride + positions[r] * d;
        NAME(turn)(d, k + h * d, k_weight, eps, cos + r * d, sin + r * d);
        memcpy(keys + place, k + h * d, d * sizeof(T));
        memcpy(values + place, v + h * d, d * sizeof(T));
    }
}

/* Rotate queries and keys in place and store the new keys and values at each row's position.
   qkv: [rows, heads + 2 * kv_heads, d]; cos, sin: [rows, d]; stores: [owners, kv_heads, tokens, d] by their strides.
   Row r writes to and reads from owners[r], or from r where that is null. */
void NAME(rotate)(int64_t rows, int64_t heads, int64_t kv_heads, int64_t d, T *qkv, const T *cos, const T *sin,
                  const T *q_weight, const T *k_weight, float eps, T *keys, T *values, const int64_t *owners,
                  const int64_t *positions, int64_t row_stride, int64_t head_stride) {
#pragma omp parallel for if (rows > FEW)
    for (int64_t r = 0; r < rows; r++)
        NAME(rotate_row)(r, heads, kv_heads, d, qkv, cos, sin, q_weight, k_weight, eps, keys, values, owners, positions,
                         row_stride, head_stride);
}

#if MULTIPLIES

/* Scores of `b` queries and 16 x `blocks` keys, both constants to the compiler. turned: [cells, KEYS]; out: [b, KEYS]. */
static inline __attribute__((always_inline)) void NAME(score)(const int b, const int blocks, int64_t cells,
                                                              const T *const *q, const int32_t *turned, float scale,
                                                              float *out) {
    __m512 sum[SIX][4];
    for (int i = 0; i < b; i++)
        for (int k = 0; k < blocks; k++) sum[i][k] = _mm512_setzero_ps();
    for (int64_t c = 0; c < cells; c++) {
        __m512i keys[4];
#pragma GCC unroll 4
        for (int k = 0; k < blocks; k++) keys[k] = _mm512_loadu_si512(turned + c * KEYS + 16 * k);
#pragma GCC unroll 6
        for (int i = 0; i < b; i++) {
            int32_t cell;
            memcpy(&cell, q[i] + c * CELL, 4);
            __m512i both = _mm512_set1_epi32(cell);
#pragma GCC unroll 4
            for (int k = 0; k < blocks; k++) sum[i][k] = NAME(plus_product)(sum[i][k], keys[k], both);
        }
    }
    for (int i = 0; i < b; i++)
        for (int k = 0; k < blocks; k++)
            _mm512_storeu_ps(out + i * KEYS + 16 * k, _mm512_mul_ps(sum[i][k], _mm512_set1_ps(scale)));
}

/* sum += weights @ values for `b` queries, a constant, and 32 numbers of a head, those under `masks`.
   weights: [b, KEYS]; values: [n, d]; sum: [b, MAX_WIDTH]. */
static inline __attribute__((always_inline)) void NAME(mix)(const int b, int64_t n, int64_t d, const float *weights,
                                                            const T *values, const __mmask16 *masks, float *sum) {
    __m512 s[SIX][2];
    for (int i = 0; i < b; i++)
        for (int h = 0; h < 2; h++) s[i][h] = _mm512_loadu_ps(sum + i * MAX_WIDTH + 16 * h);
    for (int64_t k = 0; k < n; k++) {
        __m512 left = NAME(wide)(values + k * d, masks[0]), right = NAME(wide)(values + k * d + 16, masks[1]);
#pragma GCC unroll 6
        for (int i = 0; i < b; i++) {
            __m512 weight = _mm512_set1_ps(weights[i * KEYS + k]);
            s[i][0] = _mm512_fmadd_ps(weight, left, s[i][0]), s[i][1] = _mm512_fmadd_ps(weight, right, s[i][1]);
        }
    }
    for (int i = 0; i < b; i++)
        for (int h = 0; h < 2; h++) _mm512_storeu_ps(sum + i * MAX_WIDTH + 16 * h, s[i][h]);
}

#define BY_COUNT(b, CASE) switch (b) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) }

static void NAME(scores)(int b, int blocks, int64_t cells, const T *const *q, const int32_t *turned, float scale,
                         float *out) {
#define BLOCKS(b, k) case k: NAME(score)(b, k, cells, q, turned, scale, out); break;
#define CASE(b) case b: switch (blocks) { BLOCKS(b, 1) BLOCKS(b, 2) BLOCKS(b, 3) BLOCKS(b, 4) } break;
    BY_COUNT(b, CASE)
#undef CASE
#undef BLOCKS
}

static void NAME(mixed)(int b, int64_t n, int64_t d, const float *weights, const T *values, float *sum) {
    for (int64_t at = 0; at < d; at += 32) {
        __mmask16 masks[2] = {first_of(d - at), first_of(d - at - 16)};
#define CASE(b) case b: NAME(mix)(b, n, d, weights, values + at, masks, sum + at); break;
        BY_COUNT(b, CASE)
#undef CASE
    }
}

/* The query heads that share a key head of some lines of one row, at places in rising order, to keys from `first` on, the
   last `window` of them if that is not 0. Rounds of KEYS begin at `first` whoever is in company. q: `groups` heads of each
   line, lines `q_stride` apart; out likewise. */
static void NAME(attend_to)(int64_t d, int64_t groups, int64_t lines, const T *q, int64_t q_stride, const T *keys,
                            const T *values, int64_t first, const int64_t *places, int64_t window, float scale, T *out,
                            int64_t out_stride) {
    int32_t turned[MAX_WIDTH / CELL * KEYS] __attribute__((aligned(64)));
    float sum[QUERIES * MAX_WIDTH], weights[QUERIES * KEYS], most[QUERIES], total[QUERIES];
    const T *query[QUERIES];
    int64_t count = lines * groups, cells = d / CELL, end = places[lines - 1] + 1, begin = first;
    if (window && places[0] + 1 - first > window) begin = first + (places[0] + 1 - window - first) / KEYS * KEYS;
    for (int64_t i = 0; i < count; i++) {
        query[i] = q + i / groups * q_stride + i % groups * d;
        most[i] = -INFINITY, total[i] = 0;
        memset(sum + i * MAX_WIDTH, 0, (d + 31) / 32 * 32 * sizeof(float));
    }
    for (int64_t start = begin; start < end; start += KEYS) {
        int64_t n = end - start < KEYS ? end - start : KEYS, blocks = (n + 15) / 16;
        for (int64_t k = 0; k < n; k += 16)
            for (int64_t c = 0; c < cells; c += 16)
                turn_cells((const int32_t *)(keys + (start + k) * d) + c, cells, n - k, cells - c, turned + c * KEYS + k,
                           KEYS);
        for (int64_t i = 0; i < count; i += SIX) {
            int b = count - i < SIX ? count - i : SIX;
            NAME(scores)(b, blocks, cells, query + i, turned, scale, weights + i * KEYS);
        }
        for (int64_t i = 0; i < count; i++) {
            int64_t place = places[i / groups], last = place + 1 - start, from = window ? place + 1 - window - start : 0;
            float *w = weights + i * KEYS, high = most[i], mass = 0;
            for (int64_t k = 0; k < 16 * blocks; k++) w[k] = k >= from && k < last ? w[k] : -INFINITY;
            for (int64_t k = 0; k < 16 * blocks; k++) high = w[k] > high ? w[k] : high;
            float zero = high == -INFINITY ? 0 : high, shrink = exponential(most[i] - zero);
            for (int64_t k = 0; k < 16 * blocks; k++) w[k] = exponential(w[k] - zero), mass += w[k];
            for (int64_t k = 0; k < d; k++) sum[i * MAX_WIDTH + k] *= shrink;
            most[i] = high, total[i] = total[i] * shrink + mass;
        }
        for (int64_t i = 0; i < count; i += SIX)
            NAME(mixed)(count - i < SIX ? count - i : SIX, n, d, weights + i * KEYS, values + start * d,
                        sum + i * MAX_WIDTH);
    }
    for (int64_t i = 0; i < count; i++) {
        T *o = out + i / groups * out_stride + i % groups * d;
        for (int64_t k = 0; k < d; k++) o[k] = WRITE(sum[i * MAX_WIDTH + k] / total[i]);
    }
}

#else

/* The same, one line after another. */
static void NAME(attend_to)(int64_t d, int64_t groups, int64_t lines, const T *q, int64_t q_stride, const T *keys,
                            const T *values, int64_t first, const int64_t *places, int64_t window, float scale, T *out,
                            int64_t out_stride) {
    float query[MAX_GROUPS][d], sum[MAX_GROUPS][d], weights[MAX_GROUPS][KEYS], wide[d];
    float most[MAX_GROUPS], total[MAX_GROUPS];
    for (int64_t line = 0; line < lines; line++) {
        int64_t end = places[line] + 1, begin = window && end - first > window ? end - window : first;
        for (int64_t g = 0; g < groups; g++) {
            most[g] = -INFINITY, total[g] = 0;
            for (int64_t i = 0; i < d; i++) query[g][i] = READ(q[line * q_stride + g * d + i]) * scale, sum[g][i] = 0;
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
                for (int64_t k = 0; k < n; k++)
                    weights[g][k] = exponential(weights[g][k] - high), mass += weights[g][k];
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
            for (int64_t i = 0; i < d; i++) out[line * out_stride + g * d + i] = WRITE(sum[g][i] / total[g]);
    }
}

#endif

/* The queries of one run of rows that share a key head: unit / kv_heads is the run, the rest the head. */
ONE void NAME(attend_unit)(int64_t unit, const int64_t *begins, int64_t heads, int64_t kv_heads, int64_t d, const T *qkv,
                           const T *keys, const T *values, const int64_t *owners, const int64_t *firsts,
                           const int64_t *positions, int64_t row_stride, int64_t head_stride, float scale, int64_t window,
                           T *out) {
    int64_t r = begins[unit / kv_heads], h = unit % kv_heads, lines = begins[unit / kv_heads + 1] - r;
    int64_t place = (owners ? owners[r] : r) * row_stride + h * head_stride, groups = heads / kv_heads;
    int64_t q_stride = (heads + 2 * kv_heads) * d;
    NAME(attend_to)(d, groups, lines, qkv + r * q_stride + h * groups * d, q_stride, keys + place, values + place,
                    firsts ? firsts[r] : 0, positions + r, window, scale, out + (r * heads + h * groups) * d, heads * d);
}

/* Attention of one query per row to the keys from `firsts` (unless that is null) up to its own position, the last
   `window` of them if that is not 0. qkv as above, rotated; out: [rows, heads, d]. Rows of one owner that follow one
   another, at rising positions, are answered together. */
void NAME(attend)(int64_t rows, int64_t heads, int64_t kv_heads, int64_t d, const T *qkv, const T *keys,
                  const T *values, const int64_t *owners, const int64_t *firsts, const int64_t *positions,
                  int64_t row_stride, int64_t head_stride, float scale, int64_t window, T *out) {
    int64_t begins[rows + 1], runs = runs_of(rows, QUERIES * kv_heads / heads, owners, firsts, positions, begins), work = 0;
    for (int64_t r = 0; r < rows; r++) work += positions[r] - (firsts ? firsts[r] : 0);
#pragma omp parallel for schedule(dynamic) if (work > 200)
    for (int64_t unit = 0; unit < runs * kv_heads; unit++)
        NAME(attend_unit)(unit, begins, heads, kv_heads, d, qkv, keys, values, owners, firsts, positions, row_stride,
                          head_stride, scale, window, out);
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

/* Row r of `steer`. */
ONE void NAME(steer_row)(int64_t r, int64_t site, int64_t k, int64_t rows, int64_t width, T *x, const T *delta,
                         const float *read, const float *write, const float *numbers, const float *share, float *before,
                         float *after, float *dose, float *active, const float *encoder, const float *second,
                         int64_t rank, const float *map_read, const float *map_write, const float *map_bias) {
    T *h = x + r * width;
    float wide[width], was[width], entry[encoder ? width : 1]; /* entry: h when the latest reading began */
    if (delta)
        for (int64_t i = 0; i < width; i++) h[i] = WRITE(READ(h[i]) + READ(delta[r * width + i]));
    int steered = 0, reading = 0;
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

/* x += delta (unless that is null), then the edits of one site of a bank, as its `edit`: see interventions.py. x, delta:
   [rows, width]; the next are those of the whole bank: read, write [sites, k, rows, width], numbers
   [sites, k, rows, NUMBERS], and share, before, after, dose [sites, k, rows], active likewise or null where nothing is
   read of an SAE; the last are this site's alone: encoder, second [k, rows, width], map_read, map_write
   [k, rows, rank, width], map_bias [k, rows, rank], null where no row has one. */
void NAME(steer)(int64_t site, int64_t k, int64_t rows, int64_t width, T *x, const T *delta, const float *read,
                 const float *write, const float *numbers, const float *share, float *before, float *after, float *dose,
                 float *active, const float *encoder, const float *second, int64_t rank, const float *map_read,
                 const float *map_write, const float *map_bias) {
#pragma omp parallel for if (rows > FEW)
    for (int64_t r = 0; r < rows; r++)
        NAME(steer_row)(r, site, k, rows, width, x, delta, read, write, numbers, share, before, after, dose, active, encoder,
                        second, rank, map_read, map_write, map_bias);
}

ONE void NAME(gated_row)(int64_t r, int64_t width, const T *gate_up, T *out) {
    const T *gate = gate_up + 2 * r * width, *up = gate + width;
    for (int64_t i = 0; i < width; i++) {
        float g = READ(gate[i]);
        out[r * width + i] = WRITE(g / (1.0f + exponential(-g)) * READ(up[i]));
    }
}

/* silu(gate) * up. gate_up: [rows, 2 * width]; out: [rows, width]. */
void NAME(gated)(int64_t rows, int64_t width, const T *gate_up, T *out) {
#pragma omp parallel for if (rows > FEW)
    for (int64_t r = 0; r < rows; r++) NAME(gated_row)(r, width, gate_up, out);
}

/* The likeliest number of each BLOCK of a row, and the likeliest of all; infinity for a row that holds NaN. */
static float NAME(tops)(int64_t vocab, const T *row, float *tops) {
    int32_t most = INT32_MIN, broken = 0;
    for (int64_t b = 0; b * BLOCK < vocab; b++) { /* as integers in the order of the numbers: those vectorise */
        int64_t end = (b + 1) * BLOCK < vocab ? (b + 1) * BLOCK : vocab;
        int32_t top = INT32_MIN;
        for (int64_t i = b * BLOCK; i < end; i++) {
            float value = READ(row[i]);
            int32_t bits;
            memcpy(&bits, &value, 4);
            broken |= (bits & 0x7fffffff) > 0x7f800000;
            int32_t place = bits ^ ((bits >> 31) & 0x7fffffff);
            top = place > top ? place : top;
        }
        most = top > most ? top : most;
        top ^= (top >> 31) & 0x7fffffff;
        memcpy(tops + b, &top, 4);
    }
    float value;
    most ^= (most >> 31) & 0x7fffffff;
    memcpy(&value, &most, 4);
    return broken ? INFINITY : value;
}

/* Of each row the `size` likeliest tokens, the lowest id first among equals, and the mass of all of them: the sum of
   e**((x - the largest) / temperature), each in whole units of 2**-42, so that it is the same in any order. x: [rows,
   vocab]; temperature, mass: [rows]; values, which are the exponents, weights and ids: [rows, size]. The mass of a row
   without a finite largest number, or with NaN, is 0. */
void NAME(leading)(int64_t rows, int64_t vocab, int64_t size, const T *x, const float *temperature, float *values,
                   float *weights, int64_t *ids, int64_t *mass) {
    int64_t blocks = (vocab + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(dynamic) if (rows > 1)
    for (int64_t r = 0; r < rows; r++) {
        const T *row = x + r * vocab;
        float tops[blocks], some[BLOCK], powers[BLOCK], most = NAME(tops)(vocab, row, tops), edge = -INFINITY;
        struct best best = {size, 0, values + r * size, ids + r * size};
        int64_t sum = 0;
        if (isfinite(most))
            for (int64_t i = 0; i < vocab; i += BLOCK) {
                int64_t n = vocab - i < BLOCK ? vocab - i : BLOCK;
                for (int64_t j = 0; j < n; j++) some[j] = READ(row[i + j]);
                weigh(n, most, temperature[r], some, powers);
                for (int64_t j = 0; j < n; j++) sum += (int64_t)(powers[j] * UNITS);
            }
        mass[r] = sum;
        if (size == 0) continue;
        if (size < blocks) { /* as many blocks have a number as large as this one, so the wanted ones are that large */
            for (int64_t b = 0; b < blocks; b++) offer(&best, tops[b], b);
            edge = best.values[size - 1], best.count = 0;
        }
        for (int64_t b = 0; b < blocks; b++)
            if (tops[b] >= edge)
                for (int64_t i = b * BLOCK; i < vocab && i < (b + 1) * BLOCK; i++)
                    if (READ(row[i]) >= edge) offer(&best, READ(row[i]), i);
        for (int64_t k = best.count; k < size; k++) best.values[k] = 0, best.ids[k] = 0; /* of a row with NaN */
        weigh(size, most, temperature[r], best.values, weights + r * size);
    }
}

static inline __attribute__((always_inline)) void NAME(forbid_some)(const int n, uint32_t allowed, T *x) {
    for (int i = 0; i < n; i++) {
        float value = READ(x[i]);
        x[i] = allowed >> i & 1 || value != value ? x[i] : WRITE(-INFINITY);
    }
}

/* -infinity where a token is forbidden, but for NaN. which: [n], rows of logits: [.., vocab]; bits: [n, words], a bit for
   each token, set where it is allowed. */
void NAME(forbid)(int64_t n, int64_t vocab, int64_t words, const int64_t *which, const uint32_t *bits, T *logits) {
#pragma omp parallel for if (n > 1)
    for (int64_t r = 0; r < n; r++) {
        const uint32_t *allowed = bits + r * words;
        T *row = logits + which[r] * vocab;
        for (int64_t w = 0; w < vocab / 32; w++)
            if (allowed[w] != UINT32_MAX) NAME(forbid_some)(32, allowed[w], row + 32 * w);
        if (vocab % 32) NAME(forbid_some)(vocab % 32, allowed[vocab / 32], row + vocab / 32 * 32);
    }
}

/* Whether this processor has what `product` is made of; without, it and `blocks` are not here. */
int64_t NAME(multiplies)(void) { return MULTIPLIES; }

#if MULTIPLIES

/* `rows` rows, a constant to the compiler, by the outputs of half a panel: out = bias + x @ w.T, outputs under `masks`.
   `next` is where the weights of the tile after this one lie: some are fetched meanwhile, one row of cells every `gap`,
   since what waits for memory is otherwise the first to read a weight. */
static inline __attribute__((always_inline)) void NAME(tile)(const int rows, int64_t cells, const T *x, int64_t depth,
                                                             const T *w, const float *bias, T *out, int64_t width,
                                                             const __mmask16 *masks, const T **next, int64_t gap) {
    __m512 sum[TILE][2], first[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    const T *ahead = *next;
    if (bias)
        for (int h = 0; h < 2; h++) first[h] = _mm512_maskz_loadu_ps(masks[h], bias + 16 * h);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sum[r][0] = first[0], sum[r][1] = first[1];
    for (int64_t c = 0; c < cells; c++) {
        const T *here = w + c * CELL * PANEL;
        __m512i left = _mm512_loadu_si512(here), right = _mm512_loadu_si512(here + CELL * 16);
        if ((c & (gap - 1)) == 0) {
            _mm_prefetch(ahead, _MM_HINT_T1), _mm_prefetch(ahead + CELL * 16, _MM_HINT_T1);
            ahead += CELL * PANEL;
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            int32_t cell;
            memcpy(&cell, x + r * depth + c * CELL, 4);
            __m512i both = _mm512_set1_epi32(cell);
            sum[r][0] = NAME(plus_product)(sum[r][0], left, both);
            sum[r][1] = NAME(plus_product)(sum[r][1], right, both);
        }
    }
    *next = ahead;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++) NAME(put)(out + r * width + 16 * h, masks[h], sum[r][h]);
}

/* Half a panel of `product`, half-panel u. */
static void NAME(unit)(int64_t u, int64_t units, int64_t rows, int64_t depth, int64_t width, const T *x, const T *w,
                       const float *bias, T *out) {
    int64_t tiles = (rows + TILE - 1) / TILE, cells = depth / CELL, gap = 1;
    int64_t after = u + 1 < units ? u + 1 : u, left = width - u * HALF;
    while (gap * 2 <= tiles) gap *= 2;
    const T *here = w + u / 2 * depth * PANEL + u % 2 * CELL * HALF;
    const T *next = w + after / 2 * depth * PANEL + after % 2 * CELL * HALF;
    const float *add = bias ? bias + u * HALF : 0;
    __mmask16 masks[2] = {first_of(left), first_of(left - 16)};
    for (int64_t t = 0; t < tiles; t++) { /* rows as evenly as they go */
        int64_t begin = rows * t / tiles, end = rows * (t + 1) / tiles;
        const T *some = x + begin * depth;
        T *to = out + begin * width + u * HALF;
#define CASE(n) case n: NAME(tile)(n, cells, some, depth, here, add, to, width, masks, &next, gap); break;
        switch (end - begin) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
    }
}

/* out = x @ w.T + bias (unless that is null), as much of it as falls to one thread. */
static inline void NAME(multiply)(struct member *m, int64_t rows, int64_t depth, int64_t width, const T *x, const T *w,
                                  const float *bias, T *out) {
    int64_t units = (width + HALF - 1) / HALF;
    EACH(u, units, m) NAME(unit)(u, units, rows, depth, width, x, w, bias, out);
}

/* out = x @ w.T + bias (unless that is null). x: [rows, depth]; out: [rows, width]; w: [panels, depth / CELL, PANEL,
   CELL], outputs that fill up the last panel included; depth is a multiple of CELL. */
void NAME(product)(int64_t rows, int64_t depth, int64_t width, const T *x, const T *w, const float *bias, T *out) {
    int all = width * depth > SMALL ? threads() : 1;
    struct count counts[MAX_THREADS + 1] = {0};
#pragma omp parallel num_threads(all)
    {
        struct member m = {counts, all, omp_get_thread_num(), 0, 0};
        NAME(multiply)(&m, rows, depth, width, x, w, bias, out);
    }
}

/* What a block is made of; null where it has none of a kind. As `BlockParts` in stack.py. */
struct NAME(block) {
    const T *norm, *post_norm, *q_norm, *k_norm, *qkv, *o, *gate_up, *down;
    const float *qkv_bias, *o_bias, *gate_up_bias, *down_bias;
    float norm_eps, post_eps, head_eps, scale;
    int64_t window;
};

/* What `blocks` below does with some rows, as much of it as falls to one thread. */
static void NAME(through)(struct member *m, int64_t first, int64_t last, int64_t rows, const int64_t *sizes,
                          const struct NAME(block) *blocks, T *x, const T *cos, const T *sin, T *const *keys,
                          T *const *values, const int64_t *owners, const int64_t *positions, int64_t row_stride,
                          int64_t head_stride, T *normed, T *delta, T *qkv, T *mixed, T *both, T *inside,
                          const int64_t *sites, int64_t k, const float *read, const float *write, const float *numbers,
                          const float *share, float *before, float *after, float *dose, float *active) {
    int64_t width = sizes[0], heads = sizes[1], kv_heads = sizes[2], d = sizes[3], inner = sizes[4];
    int64_t begins[rows + 1], runs = runs_of(rows, QUERIES * kv_heads / heads, owners, 0, positions, begins);
    int64_t parts = (rows + SOME - 1) / SOME;
    int pending = 0; /* whether delta is still to be added */
#define EACH_ROW(r) \
    EACH(part, parts, m) for (int64_t r = part * SOME; r < rows && r < (part + 1) * SOME; r++)
    for (int64_t i = first; i < last; i++) {
        const struct NAME(block) *b = blocks + i;
        EACH_ROW(r) NAME(norm_row)(r, width, x, pending ? delta : 0, b->norm, b->norm_eps, normed);
        NAME(multiply)(m, rows, width, (heads + 2 * kv_heads) * d, normed, b->qkv, b->qkv_bias, qkv);
        EACH_ROW(r)
            NAME(rotate_row)(r, heads, kv_heads, d, qkv, cos, sin, b->q_norm, b->k_norm, b->head_eps, keys[i], values[i],
                             owners, positions, row_stride, head_stride);
        EACH(unit, runs * kv_heads, m)
            NAME(attend_unit)(unit, begins, heads, kv_heads, d, qkv, keys[i], values[i], owners, 0, positions, row_stride,
                              head_stride, b->scale, b->window, mixed);
        NAME(multiply)(m, rows, heads * d, width, mixed, b->o, b->o_bias, delta);
        EACH_ROW(r) NAME(norm_row)(r, width, x, delta, b->post_norm, b->post_eps, normed);
        NAME(multiply)(m, rows, width, 2 * inner, normed, b->gate_up, b->gate_up_bias, both);
        EACH_ROW(r) NAME(gated_row)(r, inner, both, inside);
        NAME(multiply)(m, rows, inner, width, inside, b->down, b->down_bias, delta);
        pending = i + 1 < last && (!sites || sites[i] < 0);
        if (sites && sites[i] >= 0)
            EACH_ROW(r)
                NAME(steer_row)(r, sites[i], k, rows, width, x, delta, read, write, numbers, share, before, after, dose,
                                active, 0, 0, 0, 0, 0, 0);
        else if (!pending)
            EACH_ROW(r)
                for (int64_t j = r * width; j < (r + 1) * width; j++) x[j] = WRITE(READ(x[j]) + READ(delta[j]));
    }
#undef EACH_ROW
}

/* Blocks `first` to `last` of a model, the latter left out. x: [rows, width], in place; sizes: width, heads, kv_heads, d,
   inner; keys, values: of every block. The rest of the first line as for `rotate` and `attend`; then room to work
   in: [rows, width] twice, [rows, heads + 2 * kv_heads, d], [rows, heads, d], [rows, 2 * inner] and [rows, inner], and for
   counts, [blocks, PHASES, MAX_THREADS + 1, 8]. After block i come the edits of site sites[i] of a bank, unless that is -1 or
   sites is null: the rest, as for `steer`. Many rows are several bands: a thread does one by itself, as long as there are
   others, and waits for nobody meanwhile. With `sites` they are one, since what the edits go by is told for all rows. */
void NAME(blocks)(int64_t first, int64_t last, int64_t rows, const int64_t *sizes, const struct NAME(block) *blocks,
                  T *x, const T *cos, const T *sin, T *const *keys, T *const *values, const int64_t *owners,
                  const int64_t *positions, int64_t row_stride, int64_t head_stride,
                  T *normed, T *delta, T *qkv, T *mixed, T *both, T *inside, struct count *counts, const int64_t *sites,
                  int64_t k, const float *read, const float *write, const float *numbers, const float *share, float *before,
                  float *after, float *dose, float *active) {
    int64_t width = sizes[0], heads = sizes[1], d = sizes[3], inner = sizes[4], all_heads = heads + 2 * sizes[2];
    int all = threads();
    int64_t from[MAX_THREADS + 1], bands = bands_of(rows, all, sites ? 0 : owners, from);
    int64_t room = (last - first) * PHASES * (all + 1);
    memset(counts, 0, bands * room * sizeof(struct count));
#pragma omp parallel num_threads(all)
    for (int64_t n = 0, me = omp_get_thread_num(); n < bands; n++) {
        int64_t which = (me * bands / all + n) % bands, at = from[which];
        struct member m = {counts + which * room, all, me, 0, 0};
        NAME(through)(&m, first, last, from[which + 1] - at, sizes, blocks, x + at * width, cos + at * d, sin + at * d,
                      keys, values, owners ? owners + at : 0, positions + at, row_stride, head_stride,
                      normed + at * width, delta + at * width, qkv + at * all_heads * d, mixed + at * heads * d,
                      both + at * 2 * inner, inside + at * inner, sites, k, read, write, numbers, share, before, after,
                      dose, active);
    }
}

#endif

#endif
