/* Grouped-query attention of rows over pages of cached keys and values, on CPUs with AMX.
 *
 * The query heads that share a KV head, of all rows, are columns; sixteen of them, or four, go over the pages together.
 * Of each page: scores (keys x columns), the columns' largest so far, weights e^(score - largest), and values times
 * weights added to what the pages before came to (Milakov & Gimelshein 2018, "Online normalizer calculation for
 * softmax").
 *
 * A column's sums are of its own query, keys in ascending order, page by page; what it does not see adds exact zeros.
 * So its bits depend neither on the columns beside it, nor on their number, nor on the chunk that its row came in, nor
 * on threads.
 */

#include "kernels.h"

#include <math.h>
#include <stdlib.h>

#define SPECIALISED static inline __attribute__((always_inline)) /* for each width */

enum {
    KEYS = 32,   /* in one step of values times weights */
    MAX_HEAD = 256,
    NARROW = 4,  /* columns, where there are no more: 16 scores are then of 4 keys, and 4 exponentials are one */
};

/* Columns: their queries, and what the pages up to now came to. Where they are NARROW, 16 numbers are 4 times 4. */
typedef struct {
    char queries[MAX_HEAD / KEYS][TILE];     /* row i of a tile: values 2 i and 2 i + 1 of each column */
    float mixed[COLUMNS][MAX_HEAD];          /* values times weights, in the order of pair_values */
    float largest[COLUMNS], total[COLUMNS];  /* score; of the weights */
    int32_t first[COLUMNS], last[COLUMNS];   /* positions that it sees */
} columns;

/* What a core works with: a page's values in pairs of keys, and the weights of some columns. */
typedef struct {
    char values[PAGE / KEYS][MAX_HEAD / COLUMNS][TILE];
    float scores[PAGE * COLUMNS];            /* of a key's columns side by side */
    char weights[PAGE / KEYS][TILE];         /* row i: 32 keys of column i */
} bench;

/* Tiles 0, 1: columns x values. 2: keys x columns. 3: columns x keys. 4: keys. 5: queries. 6, 7: values. */
static void set_shapes(long width)
{
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.line_bytes[i] = i == 2 || i == 5 ? 4 * width : LINE;
        config.rows[i] = i == 0 || i == 1 || i == 3 ? width : TILE_ROWS;
    }
    _tile_loadconfig(&config);
}

/* The cached lines in the order in which a core comes to them, fetched into its second cache a page ahead: keys
 * and values of one head in a page, then in the next page. From four places at once, the halves of both: the hardware
 * reads on from each by itself, and so gets more than from one.
 */
enum { PLACES = 4 };

typedef struct {
    const attention *a;
    long head, to_next_head, page;
    const char *places[PLACES];
    long n_lines; /* left at each; 0: there is nothing to fetch */
} stream;

static void turn(stream *s)
{
    const attention *a = s->a;
    if (++s->page == a->n_pages) {
        s->page = 0;
        s->head += s->to_next_head;
    }
    long seen = a->position + a->n_rows - (a->first_page + s->page) * PAGE, at = s->head * PAGE * a->head_dim;
    s->n_lines = s->head < a->n_kv_heads ? least(PAGE, ratio_up(seen, KEYS) * KEYS) * a->head_dim / LINE : 0;
    for (long i = 0; i < PLACES / 2 && s->n_lines; i++) {
        s->places[i] = (const char *)(a->keys[s->page] + a->keys_at + at) + i * s->n_lines * LINE;
        s->places[i + PLACES / 2] = (const char *)(a->values[s->page] + a->values_at + at) + i * s->n_lines * LINE;
    }
}

/* n lines from each place. Null: none. Calls are spread over all that is computed, as many as there are lines: more at
 * once than a core can wait for would stop it, and where there were none its memory would stand still. The shares are
 * what measured best: of 16 parts 6 at scores, 2 at weights, 4 at pairs and 4 at mixing.
 */
SPECIALISED void fetch(stream *s, long n)
{
    if (!s || !s->n_lines)
        return;
    for (long i = 0; i < n; i++) {
        for (long place = 0; place < PLACES; place++)
            _mm_prefetch(s->places[place] + i * LINE, _MM_HINT_T1);
    }
    for (long place = 0; place < PLACES; place++)
        s->places[place] += n * LINE;
    s->n_lines -= n;
    if (s->n_lines <= 0)
        turn(s);
}

static const float NOTHING = -1e30f; /* below all scores, and still a number to subtract */

/* Columns [first, first + n) of a KV head: its query heads of the first row, then those of the next. */
static void open_columns(const attention *a, long kv_head, long first, long n, long width, columns *c)
{
    long group = a->n_heads / a->n_kv_heads;
    uint16_t rows[COLUMNS][MAX_HEAD];
    for (long i = 0; i < COLUMNS; i++) {
        long nth = least(first + i % width, first + n - 1), row = nth / group, head = kv_head * group + nth % group;
        if (i < width) {
            memcpy(rows[i], a->queries + (row * a->n_heads + head) * a->head_dim, 2 * a->head_dim);
            memset(c->mixed[i], 0, 4 * a->head_dim);
        }
        c->last[i] = a->position + row;
        c->first[i] = a->window && c->last[i] >= a->window ? c->last[i] - a->window + 1 : 0;
        c->largest[i] = NOTHING;
        c->total[i] = 0;
    }
    for (long step = 0; step < a->head_dim / KEYS; step++)
        transpose((const char *)rows + step * LINE, 2 * MAX_HEAD, width, LINE, c->queries[step]);
}

/* Values (n_keys, head_dim) -> tiles of 32 keys and 16 values: row i has keys 2 i and 2 i + 1. Of 32 values, a tile has
 * 0 to 3, 8 to 11, 16 to 19 and 24 to 27, the next one the others: as the instructions give them. close_columns puts
 * them in order.
 */
SPECIALISED void pair_values(const uint16_t *values, long n_keys, long head_dim,
                             char (*tiles)[MAX_HEAD / COLUMNS][TILE], stream *ahead)
{
    for (long key = 0; key < n_keys; key += 2, values += 2 * head_dim) {
        char *row = tiles[key / KEYS][0] + key % KEYS / 2 * LINE;
        if (key % 8 == 0)
            fetch(ahead, head_dim / KEYS);
        for (long at = 0; at < head_dim; at += 2 * COLUMNS, row += 2 * TILE) {
            __m512i even = _mm512_loadu_si512(values + at), odd = _mm512_loadu_si512(values + head_dim + at);
            _mm512_storeu_si512(row, _mm512_unpacklo_epi16(even, odd));
            _mm512_storeu_si512(row + TILE, _mm512_unpackhi_epi16(even, odd));
        }
    }
}

/* Scores for n_keys keys from `position` on, -infinity where a column does not see one. */
SPECIALISED void score(const attention *a, const columns *c, const uint16_t *keys, long n_keys, long position,
                       long width, bench *b, stream *ahead)
{
    for (long key = 0; key < n_keys; key += TILE_ROWS) {
        const char *tile = (const char *)(keys + key * a->head_dim);
        _tile_zero(2);
        for (long step = 0; step < a->head_dim / KEYS; step++) {
            fetch(ahead, 3);
            _tile_loadd(4, tile + step * LINE, 2 * a->head_dim);
            _tile_loadd(5, c->queries[step], LINE);
            _tile_dpbf16ps(2, 4, 5);
        }
        _tile_stored(2, b->scores + key * width, 4 * width);
    }
    if (c->first[COLUMNS - 1] <= position && position + n_keys - 1 <= c->last[0])
        return; /* all of them are seen */
    const __m512i first = _mm512_loadu_si512(c->first), last = _mm512_loadu_si512(c->last);
    const __m512i nth = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i at = _mm512_add_epi32(_mm512_set1_epi32(position), _mm512_srli_epi32(nth, width == NARROW ? 2 : 4));
    for (float *scores = b->scores; scores < b->scores + n_keys * width; scores += 16) {
        __mmask16 seen = _mm512_cmple_epi32_mask(at, last) & _mm512_cmpge_epi32_mask(at, first);
        _mm512_storeu_ps(scores, _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), seen, scores));
        at = _mm512_add_epi32(at, _mm512_set1_epi32(16 / width));
    }
}

static inline __m512 weight_of(__m512 score, __m512 largest)
{
    return exponential(_mm512_max_ps(_mm512_set1_ps(-200), _mm512_sub_ps(score, largest)));
}

/* Scores of 32 keys and 16 columns -> weights, added to the sums of keys 4 i, 4 i + 1, 4 i + 2, 4 i + 3. */
SPECIALISED void weigh_wide(const float *scores, __m512 largest, __m512 *sums, char *weights)
{
    __m512i pairs[KEYS / 2]; /* of keys, for each column */
    for (long key = 0; key < KEYS; key += 2) {
        __m512 even = weight_of(_mm512_loadu_ps(scores + key * COLUMNS), largest);
        __m512 odd = weight_of(_mm512_loadu_ps(scores + key * COLUMNS + COLUMNS), largest);
        sums[key % 4] = _mm512_add_ps(sums[key % 4], even);
        sums[key % 4 + 1] = _mm512_add_ps(sums[key % 4 + 1], odd);
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
        __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
        pairs[key / 2] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }
    transpose((const char *)pairs, LINE, COLUMNS, LINE, weights);
}

/* The same of 4 columns; the four sums side by side are one. */
SPECIALISED void weigh_narrow(const float *scores, __m512 largest, __m512 *sum, char *weights)
{
    const __m512i by_column = _mm512_set_epi16(31, 27, 23, 19, 15, 11, 7, 3, 30, 26, 22, 18, 14, 10, 6, 2, 29, 25, 21,
                                               17, 13, 9, 5, 1, 28, 24, 20, 16, 12, 8, 4, 0);
    __m512i eights[4]; /* of keys, of column after column */
    for (long i = 0; i < 4; i++) {
        __m512 low = weight_of(_mm512_loadu_ps(scores + i * 32), largest);
        __m512 high = weight_of(_mm512_loadu_ps(scores + i * 32 + 16), largest);
        *sum = _mm512_add_ps(_mm512_add_ps(*sum, low), high);
        eights[i] = _mm512_permutexvar_epi16(by_column, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    __m512i low = _mm512_shuffle_i32x4(eights[0], eights[1], 0x44); /* columns 0 and 1 of 16 keys */
    __m512i high = _mm512_shuffle_i32x4(eights[2], eights[3], 0x44);
    _mm512_storeu_si512(weights, _mm512_shuffle_i32x4(low, high, 0x88));
    _mm512_storeu_si512(weights + LINE, _mm512_shuffle_i32x4(low, high, 0xdd));
    low = _mm512_shuffle_i32x4(eights[0], eights[1], 0xee); /* 2 and 3 */
    high = _mm512_shuffle_i32x4(eights[2], eights[3], 0xee);
    _mm512_storeu_si512(weights + 2 * LINE, _mm512_shuffle_i32x4(low, high, 0x88));
    _mm512_storeu_si512(weights + 3 * LINE, _mm512_shuffle_i32x4(low, high, 0xdd));
}

/* Of 4 columns of 4 keys: of each column's four, in all four places. */
#define OVER_KEYS(combine, x) \
    (x = combine(x, _mm512_shuffle_f32x4(x, x, 0xb1)), combine(x, _mm512_shuffle_f32x4(x, x, 0x4e)))

/* Scores -> weights, and the sums so far as if this page's largest scores had been known before. */
SPECIALISED void weigh(columns *c, long n_keys, long head_dim, long width, bench *b, stream *ahead)
{
    __m512 before = _mm512_loadu_ps(c->largest), largest = before, also = before, total;
    for (const float *scores = b->scores; scores < b->scores + n_keys * width; scores += 32) {
        largest = _mm512_max_ps(largest, _mm512_loadu_ps(scores));
        also = _mm512_max_ps(also, _mm512_loadu_ps(scores + 16));
    }
    largest = _mm512_max_ps(largest, also);
    if (width == NARROW)
        largest = OVER_KEYS(_mm512_max_ps, largest);
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (long step = 0; step < n_keys / KEYS; step++) {
        fetch(ahead, head_dim / (KEYS / 2));
        if (width == NARROW)
            weigh_narrow(b->scores + step * KEYS * width, largest, sums, b->weights[step]);
        else
            weigh_wide(b->scores + step * KEYS * width, largest, sums, b->weights[step]);
    }
    if (width == NARROW)
        total = OVER_KEYS(_mm512_add_ps, sums[0]);
    else
        total = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
    __m512 shrunk = weight_of(before, largest);
    _mm512_storeu_ps(c->total, _mm512_fmadd_ps(_mm512_loadu_ps(c->total), shrunk, total));
    _mm512_storeu_ps(c->largest, largest);
    if (_mm512_cmpneq_ps_mask(before, largest)) {
        float factors[COLUMNS];
        _mm512_storeu_ps(factors, shrunk);
        for (long i = 0; i < width; i++)
            for (long at = 0; at < head_dim; at += 16)
                _mm512_storeu_ps(c->mixed[i] + at,
                                 _mm512_mul_ps(_mm512_loadu_ps(c->mixed[i] + at), _mm512_set1_ps(factors[i])));
    }
}

SPECIALISED void mix(columns *c, long n_steps, long head_dim, const char (*weights)[TILE],
                     const char (*values)[MAX_HEAD / COLUMNS][TILE], stream *ahead)
{
    for (long at = 0; at < head_dim; at += 2 * COLUMNS) {
        fetch(ahead, 4);
        _tile_loadd(0, c->mixed[0] + at, 4 * MAX_HEAD);
        _tile_loadd(1, c->mixed[0] + at + COLUMNS, 4 * MAX_HEAD);
        for (long step = 0; step < n_steps; step++) {
            _tile_loadd(3, weights[step], LINE);
            _tile_loadd(6, values[step][at / COLUMNS], LINE);
            _tile_dpbf16ps(0, 3, 6);
            _tile_loadd(7, values[step][at / COLUMNS + 1], LINE);
            _tile_dpbf16ps(1, 3, 7);
        }
        _tile_stored(0, c->mixed[0] + at, 4 * MAX_HEAD);
        _tile_stored(1, c->mixed[0] + at + COLUMNS, 4 * MAX_HEAD);
    }
}

static void close_columns(const attention *a, long kv_head, long first, long n, const columns *c)
{
    const __m512i left = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    const __m512i right = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
    long group = a->n_heads / a->n_kv_heads;
    for (long i = 0; i < n; i++) {
        long row = (first + i) / group, head = kv_head * group + (first + i) % group;
        uint16_t *out = a->out + (row * a->n_heads + head) * a->head_dim;
        __m512 total = _mm512_set1_ps(c->total[i]);
        for (long at = 0; at < a->head_dim; at += 2 * COLUMNS) {
            __m512 low = _mm512_div_ps(_mm512_loadu_ps(c->mixed[i] + at), total);
            __m512 high = _mm512_div_ps(_mm512_loadu_ps(c->mixed[i] + at + COLUMNS), total);
            put(out + at, _mm512_permutex2var_ps(low, left, high), COLUMNS);
            put(out + at + COLUMNS, _mm512_permutex2var_ps(low, right, high), COLUMNS);
        }
    }
}

/* All columns of a KV head at once: what is read is what takes time. */
SPECIALISED void attend_few(const attention *a, long kv_head, long n, long width, columns *c, bench *b, stream *ahead)
{
    open_columns(a, kv_head, 0, n, width, c);
    for (long page = 0; page < a->n_pages; page++) {
        long position = (a->first_page + page) * PAGE, at = kv_head * PAGE * a->head_dim;
        long n_keys = least(PAGE, ratio_up(a->position + a->n_rows - position, KEYS) * KEYS);
        const uint16_t *values = a->values[page] + a->values_at + at;
        score(a, c, a->keys[page] + a->keys_at + at, n_keys, position, width, b, ahead);
        weigh(c, n_keys, a->head_dim, width, b, ahead);
        for (long step = 0; step < n_keys / KEYS; step++, values += KEYS * a->head_dim) {
            pair_values(values, KEYS, a->head_dim, b->values, ahead);
            mix(c, 1, a->head_dim, b->weights + step, b->values, ahead);
        }
    }
    close_columns(a, kv_head, 0, n, c);
}

/* The same sixteen by sixteen, page by page: a page's values are paired once for all of them. */
static void attend_many(const attention *a, long kv_head, long n, columns *all, bench *b)
{
    for (long i = 0; i < n; i += COLUMNS)
        open_columns(a, kv_head, i, least(COLUMNS, n - i), COLUMNS, all + i / COLUMNS);
    for (long page = 0; page < a->n_pages; page++) {
        long position = (a->first_page + page) * PAGE, at = kv_head * PAGE * a->head_dim;
        long most = least(PAGE, ratio_up(a->position + a->n_rows - position, KEYS) * KEYS);
        pair_values(a->values[page] + a->values_at + at, most, a->head_dim, b->values, NULL);
        for (columns *c = all; c < all + ratio_up(n, COLUMNS); c++) {
            if (c->last[COLUMNS - 1] < position || c->first[0] >= position + PAGE)
                continue;
            long n_keys = least(PAGE, ratio_up(c->last[COLUMNS - 1] + 1 - position, KEYS) * KEYS);
            score(a, c, a->keys[page] + a->keys_at + at, n_keys, position, COLUMNS, b, NULL);
            weigh(c, n_keys, a->head_dim, COLUMNS, b, NULL);
            mix(c, n_keys / KEYS, a->head_dim, b->weights, b->values, NULL);
        }
    }
    for (long i = 0; i < n; i += COLUMNS)
        close_columns(a, kv_head, i, least(COLUMNS, n - i), all + i / COLUMNS);
}

/* A core's share of the KV heads: every to_next_head-th. */
static void attend_heads(const attention *a, long first_head, long to_next_head, columns *all, bench *b)
{
    long n = a->n_rows * (a->n_heads / a->n_kv_heads);
    stream ahead = {a, first_head, to_next_head, -1};
    set_shapes(n <= NARROW ? NARROW : COLUMNS);
    if (n <= COLUMNS) {
        turn(&ahead);
        fetch(&ahead, ahead.n_lines);
    }
    for (long head = first_head; head < a->n_kv_heads; head += to_next_head) {
        if (n <= NARROW)
            attend_few(a, head, n, NARROW, all, b, &ahead);
        else if (n <= COLUMNS)
            attend_few(a, head, n, COLUMNS, all, b, &ahead);
        else
            attend_many(a, head, n, all, b);
    }
    _tile_release();
}

/* Without the pages that no row sees. */
static attention seen_pages(const attention *all)
{
    attention a = *all;
    long first = a.window && a.position >= a.window ? a.position - a.window + 1 : 0, last = a.position + a.n_rows - 1;
    long n_before = first / PAGE - a.first_page;
    a.keys += n_before;
    a.values += n_before;
    a.first_page += n_before;
    a.n_pages = last / PAGE - a.first_page + 1;
    return a;
}

int attend(const attention *all_pages)
{
    if (all_pages->n_rows == 0)
        return 0;
    const attention seen = seen_pages(all_pages), *a = &seen;
    long n_blocks = ratio_up(a->n_rows * (a->n_heads / a->n_kv_heads), COLUMNS);
    long n_threads = least(a->n_threads, a->n_kv_heads);
    columns *all = aligned_alloc(LINE, n_threads * n_blocks * sizeof(columns));
    bench *benches = aligned_alloc(LINE, n_threads * sizeof(bench));
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (long thread = 0; thread < n_threads; thread++)
        if (all && benches)
            attend_heads(a, thread, n_threads, all + thread * n_blocks, benches + thread);
    int status = all && benches ? 0 : -1;
    free(all);
    free(benches);
    return status;
}
