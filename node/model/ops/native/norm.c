/* Root-mean-square normalisation of rows. A row's bits are its own, whatever the number of rows and of threads. */

#include "kernels.h"

#include <math.h>

void normalise(const uint16_t *rows, const uint16_t *weight, float epsilon, uint16_t *out, long n_rows, long n_in,
               int n_threads)
{
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (long i = 0; i < n_rows; i++) {
        const uint16_t *row = rows + i * n_in;
        __m512 squares = _mm512_setzero_ps();
        for (long at = 0; at < n_in; at += 16) {
            __m512 values = values_at(row, at, n_in);
            squares = _mm512_fmadd_ps(values, values, squares);
        }
        __m512 factor = _mm512_set1_ps(1 / sqrtf(_mm512_reduce_add_ps(squares) / n_in + epsilon));
        for (long at = 0; at < n_in; at += 16)
            put(out + i * n_in + at,
                _mm512_mul_ps(_mm512_mul_ps(values_at(row, at, n_in), factor), values_at(weight, at, n_in)), n_in - at);
    }
}
