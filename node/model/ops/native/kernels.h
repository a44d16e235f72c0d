/* The kernels that others are made of. Those that return an int return 0, or -1 where there is no memory. */

#ifndef KERNELS_H
#define KERNELS_H

#include "tiles.h"

enum { PAGE = 256 }; /* positions in a page of keys and values */
enum element { BF16 = 0, INT8 = 1 };

/* A packed matrix, each of whose strips is 32 columns of it, or the two of a gate, silu(x w1) * (x w3), of which a strip
 * has the same 16 columns.
 */
typedef struct {
    const char *strips;
    const float *scales; /* of int8: one for each column of the strips, else null */
    long n_in, n_out;
    int element, n_matrices;
} matrix;

/* rows: bf16, n_rows x n_in, row_stride values apart; out: bf16, n_rows x n_out. */
int multiply(const matrix *m, const uint16_t *rows, long row_stride, long n_rows, uint16_t *out, int n_threads);

/* rows, out: bf16 (n_rows, n_in); weight: bf16 (n_in). out = row / sqrt(mean(row^2) + epsilon) * weight, rounded once. */
void normalise(const uint16_t *rows, const uint16_t *weight, float epsilon, uint16_t *out, long n_rows, long n_in,
               int n_threads);

/* head_dim: a multiple of 32, at most 256. */
typedef struct {
    const uint16_t *queries;                     /* bf16 (n_rows, n_heads, head_dim), rotated and scaled */
    const uint16_t *const *keys, *const *values; /* of each page: where it begins, */
    long keys_at, values_at;                     /* and how far behind that (n_kv_heads, PAGE, head_dim) begin */
    uint16_t *out;                               /* bf16 (n_rows, n_heads, head_dim) */
    long n_rows, n_heads, n_kv_heads, head_dim;
    long position, window; /* of the first row; 0: it sees everything before it */
    long first_page, n_pages;
    int n_threads;
} attention;

int attend(const attention *a);

#endif
