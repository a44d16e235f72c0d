/* Products with packed weights on CPUs with AMX: bf16 with sums in fp32, int8 with sums in int32.
 *
 * A tile is 16 rows of 64 bytes. The weight lies in strips of two tiles abreast: 2 x 16 output columns, all inputs, one
 * step (64 bytes of inputs: 32 of bf16, 64 of int8) after the other, so that it is read once from end to end, whatever
 * the number of rows. In a weight tile each row holds 4 bytes (2 bf16, 4 int8) of every column, as the instructions
 * want it.
 *
 * The order of an output's sums is the instruction's within a step, and ascending over the steps. It depends on the
 * number of inputs alone: not on the number of rows, on tiles, on threads, or on how far a sum goes before it is put
 * aside in fp32.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS, TDPBSSD, LDTILECFG.
 */

#include "kernels.h"

#include <float.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    STRIP_STEP = 2 * TILE,
    STRIP_COLUMNS = 2 * COLUMNS,
    SUMS_STRIDE = STRIP_COLUMNS * 4,
    MAX_ROWS = 512,            /* at a time: the weight is read again for more */
    ROWS_IN_CACHE = 1 << 20,   /* bytes of rows that stay in a core's second cache while strips go by */
    STEPS_IN_CACHE = 16,       /* of a strip: they stay in the first cache while rows go by */
    GROUP = 16,                /* strips whose sums are put aside at a time */
};

/* One product: rows are bf16, n_rows x n_in, row_stride values apart; out is bf16, n_rows x n_out. */
typedef struct {
    const matrix *m;
    const uint16_t *rows;
    uint16_t *out;
    long n_rows, row_stride;
    int n_threads;
} product;

static long row_bytes(const product *p) { return p->m->element == BF16 ? 2 * p->m->n_in : p->m->n_in; }

/* Ask Linux for the tile registers, once a process. Returns 0 where it grants them. */
int request_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return (int)syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

/* Put the nth of n_matrices, n_out x row_bytes, into its tiles of the strips: all of them, or every second one. Columns
 * and inputs that fill up tiles are zeros.
 */
void pack(const char *weight, long n_out, long row_bytes, char *strips, long nth, long n_matrices)
{
    long n_steps = ratio_up(row_bytes, LINE);
    long n_tiles = n_matrices == 1 ? 2 * ratio_up(n_out, STRIP_COLUMNS) : ratio_up(n_out, COLUMNS);
    for (long t = 0; t < n_tiles; t++) {
        long place = nth + t * n_matrices;
        char *tile = strips + place / 2 * n_steps * STRIP_STEP + place % 2 * TILE;
        long n_columns = least(COLUMNS, n_out - t * COLUMNS);
        const char *rows = weight + t * COLUMNS * row_bytes;
        for (long step = 0; step < n_steps; step++, tile += STRIP_STEP, rows += LINE)
            transpose(rows, row_bytes, n_columns, least(LINE, row_bytes - step * LINE), tile);
    }
}

/* The largest value of a row over 127. A row that is not finite has a scale that is not. */
static float scale_of(const uint16_t *row, long n_in)
{
    __m512i largest = _mm512_setzero_si512(); /* as whole numbers: NaN above infinity above all others */
    for (long at = 0; at < n_in; at += 16)
        largest = _mm512_max_epu32(largest, _mm512_castps_si512(_mm512_abs_ps(values_at(row, at, n_in))));
    uint32_t bits = _mm512_reduce_max_epu32(largest);
    float value;
    memcpy(&value, &bits, 4);
    return (value < FLT_MIN ? FLT_MIN : value) / 127;
}

/* One line of a tile: the row's values from `at` on as int8, the nearest multiples of its scale. */
static void quantise_line(const uint16_t *row, long at, long n_in, float scale, char *line)
{
    for (long i = 0; i < LINE; i += 16) {
        __m512 steps = _mm512_div_ps(values_at(row, at + i, n_in), _mm512_set1_ps(scale));
        _mm_storeu_si128((__m128i *)(line + i), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(steps)));
    }
}

/* pack, of a bf16 matrix n_out x n_in as int8: every row has a scale, scales lie as the columns of the strips do. Returns
 * 0, or -1 where there is no memory.
 */
int pack_int8(const uint16_t *weight, long n_out, long n_in, char *strips, float *scales, long nth, long n_matrices)
{
    long n_steps = ratio_up(n_in, LINE);
    long n_tiles = ratio_up(n_out, COLUMNS);
    char *values = aligned_alloc(LINE, COLUMNS * n_steps * LINE); /* of one tile's columns */
    for (long t = 0; t < n_tiles && values; t++) {
        long place = nth + t * n_matrices, n_columns = least(COLUMNS, n_out - t * COLUMNS);
        char *tile = strips + place / 2 * n_steps * STRIP_STEP + place % 2 * TILE;
        for (long i = 0; i < n_columns; i++) {
            const uint16_t *row = weight + (t * COLUMNS + i) * n_in;
            float scale = scales[place * COLUMNS + i] = scale_of(row, n_in);
            for (long step = 0; step < n_steps; step++)
                quantise_line(row, step * LINE, n_in, scale, values + (i * n_steps + step) * LINE);
        }
        for (long step = 0; step < n_steps; step++, tile += STRIP_STEP)
            transpose(values + step * LINE, n_steps * LINE, n_columns, LINE, tile);
    }
    free(values);
    return values ? 0 : -1;
}

/* Rows [first, first + n) as tiles of `height` rows, a tile's steps one behind the other. */
static void pack_rows(const product *p, long first, long n, long height, char *tiles, float *row_scales)
{
    long n_steps = ratio_up(row_bytes(p), LINE), values = p->m->element == BF16 ? LINE / 2 : LINE;
    memset(tiles, 0, ratio_up(n, height) * height * n_steps * LINE);
    for (long i = 0; i < n; i++) {
        const uint16_t *row = p->rows + (first + i) * p->row_stride;
        char *line = tiles + (i / height * n_steps * height + i % height) * LINE;
        if (p->m->element == INT8)
            row_scales[i] = scale_of(row, p->m->n_in);
        for (long at = 0; at < p->m->n_in; at += values, line += height * LINE) {
            if (p->m->element == INT8)
                quantise_line(row, at, p->m->n_in, row_scales[i], line);
            else
                memcpy(line, row + at, 2 * least(values, p->m->n_in - at));
        }
    }
}

#define DOT(sums, rows, weight)                    \
    if (element == INT8)                           \
        _tile_dpbssd(sums, rows, weight);          \
    else                                           \
        _tile_dpbf16ps(sums, rows, weight)

/* One tile of rows: read from memory at the speed of memory, the tile behind this one into the second cache while this
 * one is on its way to the registers. Further ahead, or into the first cache, was slower.
 */
static inline __attribute__((always_inline)) void
one_tile(const char *rows, const char *strip, long n_steps, long height, char *sums, int fresh, int element)
{
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
    } else {
        _tile_loadd(0, sums, SUMS_STRIDE);
        _tile_loadd(1, sums + LINE, SUMS_STRIDE);
    }
    for (long step = 0; step < n_steps; step++, rows += height * LINE, strip += STRIP_STEP) {
        _tile_loadd(4, rows, LINE);
        _tile_loadd(6, strip, LINE);
        fetch_tile(strip + TILE);
        DOT(0, 4, 6);
        _tile_loadd(7, strip + TILE, LINE);
        fetch_tile(strip + STRIP_STEP);
        DOT(1, 4, 7);
    }
    _tile_stored(0, sums, SUMS_STRIDE);
    _tile_stored(1, sums + LINE, SUMS_STRIDE);
}

/* Two tiles of rows, the second `next` bytes behind the first. */
static inline __attribute__((always_inline)) void
two_tiles(const char *rows, long next, const char *strip, long n_steps, char *sums, int fresh, int element, int ahead)
{
    char *below = sums + TILE_ROWS * SUMS_STRIDE;
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, SUMS_STRIDE);
        _tile_loadd(1, sums + LINE, SUMS_STRIDE);
        _tile_loadd(2, below, SUMS_STRIDE);
        _tile_loadd(3, below + LINE, SUMS_STRIDE);
    }
    for (long step = 0; step < n_steps; step++, rows += TILE, strip += STRIP_STEP) {
        _tile_loadd(4, rows, LINE);
        if (ahead)
            prefetch_tile(strip);
        _tile_loadd(6, strip, LINE);
        DOT(0, 4, 6);
        if (ahead)
            prefetch_tile(strip + TILE);
        _tile_loadd(7, strip + TILE, LINE);
        DOT(1, 4, 7);
        _tile_loadd(5, rows + next, LINE);
        DOT(2, 5, 6);
        DOT(3, 5, 7);
    }
    _tile_stored(0, sums, SUMS_STRIDE);
    _tile_stored(1, sums + LINE, SUMS_STRIDE);
    _tile_stored(2, below, SUMS_STRIDE);
    _tile_stored(3, below + LINE, SUMS_STRIDE);
}

/* x / (1 + e^-x) */
static inline __m512 silu(__m512 x)
{
    __m512 negative = _mm512_sub_ps(_mm512_setzero_ps(), x);
    negative = _mm512_max_ps(_mm512_set1_ps(-200), _mm512_min_ps(_mm512_set1_ps(200), negative));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), exponential(negative)));
}

/* 16 sums as numbers: of int8, times the scales of their columns and row. */
static inline __m512 numbers(const product *p, const char *sums, float row_scale, long column)
{
    if (p->m->element == BF16)
        return _mm512_loadu_ps(sums);
    __m512 of_columns = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums)), _mm512_loadu_ps(p->m->scales + column));
    return _mm512_mul_ps(of_columns, _mm512_set1_ps(row_scale));
}

/* What the sums of a strip and n rows come to, in the output's columns. */
static void finish(const product *p, const char *sums, const float *row_scales, long first_row, long n, long strip)
{
    for (long i = 0; i < n; i++, sums += SUMS_STRIDE) {
        uint16_t *out = p->out + (first_row + i) * p->m->n_out;
        __m512 left = numbers(p, sums, row_scales[i], strip * STRIP_COLUMNS);
        __m512 right = numbers(p, sums + LINE, row_scales[i], strip * STRIP_COLUMNS + COLUMNS);
        if (p->m->n_matrices == 2) {
            long column = strip * COLUMNS;
            put(out + column, _mm512_mul_ps(silu(left), right), p->m->n_out - column);
        } else {
            long column = strip * STRIP_COLUMNS;
            put(out + column, left, p->m->n_out - column);
            put(out + column + COLUMNS, right, p->m->n_out - column - COLUMNS);
        }
    }
}

/* One core's share of a product: strips [first, end), and its memory for the sums of a GROUP of them. */
typedef struct {
    const product *p;
    const char *tiles;
    const float *row_scales;
    char *sums;
    long first_row, n_rows, height, first, end;
} share;

/* A piece of a strip, over all rows. */
static inline __attribute__((always_inline)) void
rows_go_by(const share *of, const char *strip, long step, long n, char *sums, int element)
{
    long tile_bytes = ratio_up(row_bytes(of->p), LINE) * of->height * LINE;
    const char *rows = of->tiles + step * of->height * LINE;
    long left = ratio_up(of->n_rows, of->height);
    for (int is_first = 1; left >= 2; left -= 2, is_first = 0) {
        two_tiles(rows, tile_bytes, strip, n, sums, step == 0, element, is_first);
        rows += 2 * tile_bytes;
        sums += 2 * TILE_ROWS * SUMS_STRIDE;
    }
    if (left)
        one_tile(rows, strip, n, of->height, sums, step == 0, element);
}

static inline __attribute__((always_inline)) void strips_go_by(const share *of, int element)
{
    long n_steps = ratio_up(row_bytes(of->p), LINE), n_tiles = ratio_up(of->n_rows, of->height);
    long strip_sums = n_tiles * of->height * SUMS_STRIDE;
    long stretch = ROWS_IN_CACHE / (n_tiles * TILE);
    long piece = n_tiles <= 2 ? stretch : STEPS_IN_CACHE;
    set_tiles(of->height);
    for (long group = of->first; group < of->end; group += GROUP) {
        for (long from = 0; from < n_steps; from += stretch) {
            long to = least(n_steps, from + stretch);
            for (long s = group; s < least(of->end, group + GROUP); s++) {
                const char *strip = of->p->m->strips + s * n_steps * STRIP_STEP;
                char *sums = of->sums + (s - group) * strip_sums;
                for (long step = from; step < to; step += piece)
                    rows_go_by(of, strip + step * STRIP_STEP, step, least(piece, to - step), sums, element);
                if (to == n_steps)
                    finish(of->p, sums, of->row_scales, of->first_row, of->n_rows, s);
            }
        }
    }
    _tile_release();
}

int multiply(const matrix *m, const uint16_t *rows, long row_stride, long n_rows, uint16_t *out, int n_threads)
{
    const product all = {m, rows, out, n_rows, row_stride, n_threads}, *p = &all;
    if (n_rows == 0)
        return 0;
    long n_strips = ratio_up(p->m->n_out, p->m->n_matrices == 2 ? COLUMNS : STRIP_COLUMNS);
    long most = ratio_up(least(p->n_rows, MAX_ROWS), TILE_ROWS) * TILE_ROWS;
    long sums_bytes = GROUP * most * SUMS_STRIDE;
    char *tiles = aligned_alloc(LINE, most * ratio_up(row_bytes(p), LINE) * LINE);
    char *sums = aligned_alloc(LINE, p->n_threads * sums_bytes);
    float row_scales[MAX_ROWS] = {0};
    for (long row = 0; tiles && sums && row < p->n_rows; row += MAX_ROWS) {
        long n = least(MAX_ROWS, p->n_rows - row), height = least(n, TILE_ROWS);
        pack_rows(p, row, n, height, tiles, row_scales);
#pragma omp parallel for num_threads(p->n_threads) if (p->n_threads > 1)
        for (int thread = 0; thread < p->n_threads; thread++) {
            share part = {p, tiles, row_scales, sums + thread * sums_bytes, row, n, height,
                          n_strips * thread / p->n_threads, n_strips * (thread + 1) / p->n_threads};
            if (p->m->element == INT8)
                strips_go_by(&part, INT8);
            else
                strips_go_by(&part, BF16);
        }
    }
    int status = tiles && sums ? 0 : -1;
    free(tiles);
    free(sums);
    return status;
}
