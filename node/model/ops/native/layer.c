/* A whole layer for some rows in one call: h + attention(norm(h)), and to that its mixture of experts, or its one
 * feed-forward network.
 *
 * Between two calls from Python lies more than the call itself: the weights that have just gone by have left nothing of
 * the interpreter in the caches. Each value is rounded to bf16 where one operation ends and the next begins, as it is
 * where they are called one by one. All of it goes row by row: a row's bits depend on no other row.
 */

#include "kernels.h"

#include <stdlib.h>

enum { MAX_EXPERTS = 256, MAX_CHOSEN = 16 };

typedef struct {
    const uint16_t *attention_norm, *ffn_norm; /* bf16 (dim) */
    const matrix *wqkv, *wo;
    const matrix *router;                /* null: every row goes to expert 0 with weight 1 */
    const matrix *const *w13, *const *w2; /* of each expert */
    long dim, n_heads, n_kv_heads, head_dim, n_experts, n_chosen;
    float epsilon;
} layer;

/* Rows of one session. pages: bf16 (layers, 2, n_kv_heads, PAGE, head_dim), from first_page on, as far as rows see and
 * are written.
 */
typedef struct {
    long n_rows, position, window, first_page;
    long keys_at; /* this layer's, in values behind a page's beginning; its values are behind its keys */
    long n_pages;
    uint16_t *const *pages;
} chunk;

typedef struct {
    const chunk *chunks;
    long n_chunks, n_rows;
    const float *q_rotations, *k_rotations; /* (n_rows, head_dim / 2, 2): cosine, sine */
    int n_threads;
} batch;

/* Where the rows of a layer call go. */
typedef struct {
    float *weights;   /* (n_rows, n_chosen), of a row they add up to 1 */
    int64_t *chosen;  /* (n_rows, n_chosen), ascending in a row */
    int64_t *counts;  /* (n_experts): rows of each */
} routing;

static void add(const uint16_t *a, const uint16_t *b, uint16_t *sum, long n)
{
    for (long at = 0; at < n; at += 16)
        put(sum + at, _mm512_add_ps(values_at(a, at, n), values_at(b, at, n)), n - at);
}

/* A head's pairs times the rotations', as complex numbers. Source: Su et al. 2021 (RoFormer), section 3.4.2. */
static void rotate(const uint16_t *head, const float *rotations, uint16_t *out, long head_dim)
{
    for (long at = 0; at < head_dim; at += 16) {
        __m512 pairs = values_at(head, at, head_dim), turn = _mm512_loadu_ps(rotations + at);
        __m512 straight = _mm512_mul_ps(pairs, _mm512_moveldup_ps(turn));
        __m512 across = _mm512_mul_ps(_mm512_permute_ps(pairs, 0xb1), _mm512_movehdup_ps(turn));
        put(out + at, _mm512_mask_sub_ps(_mm512_add_ps(straight, across), 0x5555, straight, across), 16);
    }
}

/* Rotate what wqkv made of a chunk's rows: queries to `queries`, keys and values to the session's pages. */
static void place(const layer *l, const batch *b, const chunk *c, long first_row, const uint16_t *xqkv, uint16_t *queries)
{
    long head_dim = l->head_dim, width = l->n_heads + 2 * l->n_kv_heads;
#pragma omp parallel for num_threads(b->n_threads) if (b->n_threads > 1 && c->n_rows > 1)
    for (long row = 0; row < c->n_rows; row++) {
        const uint16_t *head = xqkv + (first_row + row) * width * head_dim;
        long turn = (first_row + row) * head_dim, at = c->position + row;
        uint16_t *keys = c->pages[at / PAGE - c->first_page] + c->keys_at + at % PAGE * head_dim;
        uint16_t *values = keys + l->n_kv_heads * PAGE * head_dim;
        for (long i = 0; i < l->n_heads; i++, head += head_dim)
            rotate(head, b->q_rotations + turn, queries + ((first_row + row) * l->n_heads + i) * head_dim, head_dim);
        for (long i = 0; i < l->n_kv_heads; i++, head += head_dim)
            rotate(head, b->k_rotations + turn, keys + i * PAGE * head_dim, head_dim);
        for (long i = 0; i < l->n_kv_heads; i++, head += head_dim)
            memcpy(values + i * PAGE * head_dim, head, 2 * head_dim);
    }
}

/* h + attention(norm(h)) -> out. x: room for rows of dim; wide: for rows of all heads, twice. */
static int attend_sessions(const layer *l, const batch *b, const uint16_t *h, uint16_t *x, uint16_t *wide, uint16_t *out)
{
    long of_heads = l->n_heads * l->head_dim;
    uint16_t *queries = wide + b->n_rows * (of_heads + 2 * l->n_kv_heads * l->head_dim);
    normalise(h, l->attention_norm, l->epsilon, x, b->n_rows, l->dim, least(b->n_threads, b->n_rows));
    int status = multiply(l->wqkv, x, l->dim, b->n_rows, wide, b->n_threads);
    long row = 0;
    for (const chunk *c = b->chunks; c < b->chunks + b->n_chunks && !status; row += c++->n_rows)
        place(l, b, c, row, wide, queries);
    row = 0;
    for (const chunk *c = b->chunks; c < b->chunks + b->n_chunks && !status; row += c++->n_rows) {
        const uint16_t *const *pages = (const uint16_t *const *)c->pages;
        long values_at = c->keys_at + l->n_kv_heads * PAGE * l->head_dim;
        attention a = {queries + row * of_heads, pages, pages, c->keys_at, values_at, wide + row * of_heads, c->n_rows,
                       l->n_heads, l->n_kv_heads, l->head_dim, c->position, c->window, c->first_page, c->n_pages,
                       b->n_threads};
        status = attend(&a);
    }
    if (!status)
        status = multiply(l->wo, wide, of_heads, b->n_rows, x, b->n_threads);
    if (!status)
        add(h, x, out, b->n_rows * l->dim);
    return status;
}

/* The best of a row's logits, and their weights: a softmax over them. Of equal ones the first. */
static void choose(const uint16_t *logits, long n_experts, long n_chosen, float *weights, int64_t *chosen)
{
    float values[MAX_EXPERTS + 16], best[16] = {0};
    int64_t ranked[MAX_CHOSEN];
    char is_taken[MAX_EXPERTS] = {0};
    for (long at = 0; at < n_experts; at += 16)
        _mm512_storeu_ps(values + at, values_at(logits, at, n_experts));
    for (long nth = 0; nth < n_chosen; nth++) {
        long top = -1;
        for (long i = 0; i < n_experts; i++)
            if (!is_taken[i] && (top < 0 || values[i] > values[top]))
                top = i;
        is_taken[top] = 1;
        ranked[nth] = top;
        best[nth] = values[top];
    }
    __m512 below = _mm512_sub_ps(_mm512_loadu_ps(best), _mm512_set1_ps(best[0]));
    float powers[16], total = 0;
    _mm512_storeu_ps(powers, exponential(_mm512_max_ps(_mm512_set1_ps(-200), below)));
    for (long nth = 0; nth < n_chosen; nth++)
        total += powers[nth];
    for (long nth = 0; nth < n_chosen; nth++) {
        long place = 0; /* ascending by expert */
        for (long other = 0; other < n_chosen; other++)
            place += ranked[other] < ranked[nth];
        chosen[place] = ranked[nth];
        weights[place] = powers[nth] / total;
    }
}

/* norm(h) -> x, and where its rows go. logits: room for rows of n_experts. */
static int route_rows(const layer *l, const uint16_t *h, long n_rows, int n_threads, uint16_t *x, uint16_t *logits,
                      routing *r)
{
    normalise(h, l->ffn_norm, l->epsilon, x, n_rows, l->dim, least(n_threads, n_rows));
    memset(r->counts, 0, l->n_experts * sizeof *r->counts);
    if (l->router && multiply(l->router, x, l->dim, n_rows, logits, n_threads))
        return -1;
    for (long row = 0; row < n_rows; row++) {
        int64_t *chosen = r->chosen + row * l->n_chosen;
        if (l->router)
            choose(logits + row * l->n_experts, l->n_experts, l->n_chosen, r->weights + row * l->n_chosen, chosen);
        else
            chosen[0] = 0;
        for (long nth = 0; nth < l->n_chosen; nth++)
            r->counts[chosen[nth]]++;
    }
    return 0;
}

/* What a row's experts answered, times their weights, by ascending expert, in fp32. */
static void mix(const layer *l, const routing *r, long row, const uint16_t *answers, const long *places, uint16_t *out)
{
    const float *weights = r->weights + row * l->n_chosen;
    for (long at = 0; at < l->dim; at += 16) {
        __m512 mixed = _mm512_mul_ps(values_at(answers + places[0] * l->dim, at, l->dim), _mm512_set1_ps(weights[0]));
        for (long nth = 1; nth < l->n_chosen; nth++) {
            __m512 answer = values_at(answers + places[nth] * l->dim, at, l->dim);
            mixed = _mm512_add_ps(mixed, _mm512_mul_ps(answer, _mm512_set1_ps(weights[nth])));
        }
        put(out + at, mixed, l->dim - at);
    }
}

/* out += the experts' mixture of x. Every expert is called once, for all rows that go to it. */
static int mix_experts(const layer *l, const uint16_t *x, const routing *r, long n_rows, int n_threads, uint16_t *out)
{
    long n_answers = n_rows * l->n_chosen, hidden = l->w13[0]->n_out;
    uint16_t *rows = malloc(2 * n_answers * l->dim), *answers = malloc(2 * n_answers * l->dim);
    uint16_t *gated = malloc(2 * n_rows * hidden), *mixed = malloc(2 * n_rows * l->dim);
    long *places = malloc(n_answers * sizeof *places); /* among the answers, of (row, nth) */
    int status = rows && answers && gated && mixed && places ? 0 : -1;
    long next[MAX_EXPERTS], first = 0;
    for (long i = 0; i < l->n_experts; first += r->counts[i++])
        next[i] = first;
    for (long i = 0; i < n_answers && !status; i++) {
        places[i] = next[r->chosen[i]]++;
        memcpy(rows + places[i] * l->dim, x + i / l->n_chosen * l->dim, 2 * l->dim);
    }
    for (long i = 0; i < l->n_experts && !status; i++) {
        long n = r->counts[i], at = (next[i] - n) * l->dim;
        if (n && !(status = multiply(l->w13[i], rows + at, l->dim, n, gated, n_threads)))
            status = multiply(l->w2[i], gated, hidden, n, answers + at, n_threads);
    }
    if (!status) {
        uint16_t *sum = l->router ? mixed : answers;
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1 && n_rows > 1)
        for (long row = 0; row < n_rows; row++) {
            if (l->router)
                mix(l, r, row, answers, places + row * l->n_chosen, mixed + row * l->dim);
            add(out + row * l->dim, sum + row * l->dim, out + row * l->dim, l->dim);
        }
    }
    free(rows);
    free(answers);
    free(gated);
    free(mixed);
    free(places);
    return status;
}

/* The first half alone: h + attention(norm(h)) -> out, its norm -> x, and where the rows of that go. n_experts: at most
 * MAX_EXPERTS; n_chosen: at most MAX_CHOSEN. h, out, x: bf16 (n_rows, dim).
 */
int attend_and_route(const layer *l, const batch *b, const uint16_t *h, uint16_t *out, uint16_t *x, routing *r)
{
    uint16_t *wide = malloc(2 * b->n_rows * (2 * l->n_heads + 2 * l->n_kv_heads) * l->head_dim);
    uint16_t *logits = malloc(2 * b->n_rows * l->n_experts);
    int status = wide && logits ? attend_sessions(l, b, h, x, wide, out) : -1;
    if (!status)
        status = route_rows(l, out, b->n_rows, b->n_threads, x, logits, r);
    free(wide);
    free(logits);
    return status;
}

/* The whole layer: h -> out. */
int run_layer(const layer *l, const batch *b, const uint16_t *h, uint16_t *out, uint16_t *x, routing *r)
{
    int status = attend_and_route(l, b, h, out, x, r);
    return status ? status : mix_experts(l, x, r, b->n_rows, b->n_threads, out);
}
