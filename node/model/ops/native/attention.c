/* Grouped-query attention of rows over pages of cached keys and values, on CPUs with AMX.
 *
 * The query heads that share a KV head, of all rows, are columns; sixteen of them go over the pages together. Of each
 * page: scores (keys x columns), the columns' largest so far, weights e^(score - largest), and values times weights
 * added to what the pages before came to (Milakov & Gimelshein 2018, "Online normalizer calculation for softmax").
 *
 * A column's sums are of its own query, keys in ascending order, page by page; what it does not see adds exact zeros.
 * So its bits depend neither on the columns beside it, nor on the chunk that its row came in, nor on threads.
 */

#include "kernels.h"

#include <math.h>
#include <stdlib.h>

enum {
    KEYS = 32,   /* in one step of values times weights */
    MAX_HEAD = 256,
};

/* Sixteen columns: their queries, and what the pages up to now came to. */
typedef struct {
    char queries[MAX_HEAD / KEYS][TILE];     /* row i of a tile: values 2 i and 2 i + 1 of each column */
    float mixed[COLUMNS][MAX_HEAD];          /* values times weights */
    float largest[COLUMNS], total[COLUMNS];  /* score; of the weights */
    int32_t first[COLUMNS], last[COLUMNS];   /* positions that it sees */
} columns;

/* What a core works with: a page's values in pairs of keys, and the weights of 16 columns. */
typedef struct {
    char values[PAGE / KEYS][MAX_HEAD / COLUMNS][TILE];
    float scores[PAGE][COLUMNS];
    char weights[PAGE / KEYS][TILE];         /* row i: 32 keys of column i */
} bench;

/* What comes next is fetched line by line while this is computed: reading and computing take about as long, and more
 * lines at once than a core can wait for would stop it. Null: nothing to fetch.
 */
static inline const char *fetch(const char *next, long n_lines)
{
    for (long i = 0; next && i < n_lines; i++)
        _mm_prefetch(next + i * LINE, _MM_HINT_T1);
    return next ? next + n_lines * LINE : next;
}

static const float NOTHING = -1e30f; /* below all scores, and still a number to subtract */

static void open_columns(const attention *a, long kv_head, long first, long n, columns *c)
{
    long group = a->n_heads / a->n_kv_heads;
    uint16_t rows[COLUMNS][MAX_HEAD] = {{0}};
    memset(c->mixed, 0, sizeof c->mixed);
    for (long i = 0; i < COLUMNS; i++) {
        long nth = least(first + i, first + n - 1), row = nth / group, head = kv_head * group + nth % group;
        memcpy(rows[i], a->queries + (row * a->n_heads + head) * a->head_dim, 2 * a->head_dim);
        c->last[i] = a->position + row;
        c->first[i] = a->window && c->last[i] >= a->window ? c->last[i] - a->window + 1 : 0;
        c->largest[i] = NOTHING;
        c->total[i] = 0;
    }
    for (long step = 0; step < a->head_dim / KEYS; step++)
        transpose((const char *)rows + step * LINE, 2 * MAX_HEAD, COLUMNS, LINE, c->queries[step]);
}

/* Values (PAGE, head_dim), the first n_keys of them -> tiles of 32 keys and 16 values: row i has keys 2 i and 2 i + 1. */
static const char *pair_values(const uint16_t *values, long n_keys, long head_dim, bench *b, const char *next)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (long key = 0; key < n_keys; key += 2, values += 2 * head_dim) {
        next = fetch(next, head_dim / KEYS);
        for (long at = 0; at < head_dim; at += COLUMNS) {
            __m256i even = _mm256_loadu_si256((const __m256i *)(values + at));
            __m256i odd = _mm256_loadu_si256((const __m256i *)(values + head_dim + at));
            __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1);
            _mm512_storeu_si512(b->values[key / KEYS][at / COLUMNS] + key % KEYS / 2 * LINE,
                                _mm512_permutexvar_epi16(order, both));
        }
    }
    return next;
}

/* Scores of 16 columns for n_keys keys from `position` on, -infinity where a column does not see one. */
static const char *score(const attention *a, const columns *c, const uint16_t *keys, long n_keys, long position,
                         bench *b, const char *next)
{
    const __m512i first = _mm512_loadu_si512(c->first), last = _mm512_loadu_si512(c->last);
    for (long key = 0; key < n_keys; key += TILE_ROWS) {
        const char *tile = (const char *)(keys + key * a->head_dim);
        _tile_zero(0);
        for (long step = 0; step < a->head_dim / KEYS; step++) {
            _tile_loadd(4, tile + step * LINE, 2 * a->head_dim);
            _tile_loadd(6, c->queries[step], LINE);
            _tile_dpbf16ps(0, 4, 6);
            next = fetch(next, TILE_ROWS / 2);
        }
        _tile_stored(0, b->scores[key], LINE);
        for (long i = key; i < key + TILE_ROWS; i++) {
            __m512i at = _mm512_set1_epi32(position + i);
            __mmask16 seen = _mm512_cmple_epi32_mask(at, last) & _mm512_cmpge_epi32_mask(at, first);
            _mm512_storeu_ps(b->scores[i], _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), seen, b->scores[i]));
        }
    }
    return next;
}

static inline __m512 weight_of(__m512 score, __m512 largest)
{
    return exponential(_mm512_max_ps(_mm512_set1_ps(-200), _mm512_sub_ps(score, largest)));
}

/* Scores -> weights, and the sums so far as if this page's largest scores had been known before. */
static void weigh(columns *c, long n_keys, long head_dim, bench *b, const char *next)
{
    __m512 before = _mm512_loadu_ps(c->largest), largest = before, total = _mm512_setzero_ps();
    for (long key = 0; key < n_keys; key++)
        largest = _mm512_max_ps(largest, _mm512_loadu_ps(b->scores[key]));
    for (long key = 0; key < n_keys; key += KEYS) {
        __m512i pairs[KEYS / 2]; /* of keys, for each column */
        for (long i = 0; i < KEYS; i += 2) {
            next = fetch(next, head_dim / KEYS);
            __m512 even = weight_of(_mm512_loadu_ps(b->scores[key + i]), largest);
            __m512 odd = weight_of(_mm512_loadu_ps(b->scores[key + i + 1]), largest);
            total = _mm512_add_ps(_mm512_add_ps(total, even), odd);
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
            __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
            pairs[i / 2] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
        }
        transpose((const char *)pairs, LINE, COLUMNS, LINE, b->weights[key / KEYS]);
    }
    __m512 shrunk = weight_of(before, largest);
    _mm512_storeu_ps(c->total, _mm512_fmadd_ps(_mm512_loadu_ps(c->total), shrunk, total));
    _mm512_storeu_ps(c->largest, largest);
    if (_mm512_cmpneq_ps_mask(before, largest)) {
        float factors[COLUMNS];
        _mm512_storeu_ps(factors, shrunk);
        for (long i = 0; i < COLUMNS; i++)
            for (long at = 0; at < head_dim; at += 16)
                _mm512_storeu_ps(c->mixed[i] + at,
                                 _mm512_mul_ps(_mm512_loadu_ps(c->mixed[i] + at), _mm512_set1_ps(factors[i])));
    }
}

static void mix(columns *c, long n_keys, long head_dim, const bench *b, const char *next)
{
    for (long at = 0; at < head_dim; at += 2 * COLUMNS) {
        _tile_loadd(0, c->mixed[0] + at, 4 * MAX_HEAD);
        _tile_loadd(1, c->mixed[0] + at + COLUMNS, 4 * MAX_HEAD);
        for (long step = 0; step < n_keys / KEYS; step++) {
            next = fetch(next, KEYS / 2);
            _tile_loadd(4, b->weights[step], LINE);
            _tile_loadd(6, b->values[step][at / COLUMNS], LINE);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, b->values[step][at / COLUMNS + 1], LINE);
            _tile_dpbf16ps(1, 4, 7);
        }
        _tile_stored(0, c->mixed[0] + at, 4 * MAX_HEAD);
        _tile_stored(1, c->mixed[0] + at + COLUMNS, 4 * MAX_HEAD);
    }
}

static void close_columns(const attention *a, long kv_head, long first, long n, const columns *c)
{
    long group = a->n_heads / a->n_kv_heads;
    for (long i = 0; i < n; i++) {
        long row = (first + i) / group, head = kv_head * group + (first + i) % group;
        uint16_t *out = a->out + (row * a->n_heads + head) * a->head_dim;
        __m512 total = _mm512_set1_ps(c->total[i]);
        for (long at = 0; at < a->head_dim; at += 16)
            _mm256_storeu_si256((__m256i *)(out + at), (__m256i)_mm512_cvtneps_pbh(_mm512_div_ps(
                                                           _mm512_loadu_ps(c->mixed[i] + at), total)));
    }
}

/* All columns of a KV head, page by page. */
static void attend_head(const attention *a, long kv_head, columns *all, bench *b)
{
    long n = a->n_rows * (a->n_heads / a->n_kv_heads);
    for (long i = 0; i < n; i += COLUMNS)
        open_columns(a, kv_head, i, least(COLUMNS, n - i), all + i / COLUMNS);
    for (long page = 0; page < a->n_pages; page++) {
        long position = (a->first_page + page) * PAGE, seen = a->position + a->n_rows - position;
        long at = kv_head * PAGE * a->head_dim;
        const uint16_t *values = a->values[page] + a->values_at + at;
        const char *ahead = NULL, *next = NULL; /* of few columns: many compute for longer than they wait */
        if (n <= COLUMNS) {
            ahead = (const char *)values;
            next = page + 1 < a->n_pages ? (const char *)(a->keys[page + 1] + a->keys_at + at) : NULL;
        }
        if (n > COLUMNS)
            pair_values(values, least(PAGE, ratio_up(seen, KEYS) * KEYS), a->head_dim, b, NULL);
        for (columns *c = all; c < all + ratio_up(n, COLUMNS); c++) {
            if (c->last[COLUMNS - 1] < position || c->first[0] >= position + PAGE)
                continue;
            long n_keys = least(PAGE, ratio_up(c->last[COLUMNS - 1] + 1 - position, KEYS) * KEYS);
            ahead = score(a, c, a->keys[page] + a->keys_at + at, n_keys, position, b, ahead);
            weigh(c, n_keys, a->head_dim, b, ahead);
            if (n <= COLUMNS)
                next = pair_values(values, n_keys, a->head_dim, b, next);
            mix(c, n_keys, a->head_dim, b, next);
        }
    }
    for (long i = 0; i < n; i += COLUMNS)
        close_columns(a, kv_head, i, least(COLUMNS, n - i), all + i / COLUMNS);
}

int attend(const attention *a)
{
    long n_blocks = ratio_up(a->n_rows * (a->n_heads / a->n_kv_heads), COLUMNS);
    long n_threads = least(a->n_threads, a->n_kv_heads);
    columns *all = aligned_alloc(LINE, n_threads * n_blocks * sizeof(columns));
    bench *benches = aligned_alloc(LINE, n_threads * sizeof(bench));
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (long thread = 0; thread < n_threads; thread++) {
        if (!all || !benches)
            continue;
        set_tiles(TILE_ROWS);
        for (long head = thread; head < a->n_kv_heads; head += n_threads)
            attend_head(a, head, all + thread * n_blocks, benches + thread);
        _tile_release();
    }
    int status = all && benches ? 0 : -1;
    free(all);
    free(benches);
    return status;
}
