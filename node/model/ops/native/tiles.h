/* What the kernels share: the shape of tiles, and sixteen numbers at a time. */

#ifndef TILES_H
#define TILES_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum {
    TILE_ROWS = 16,
    LINE = 64, /* bytes in a row of a tile */
    TILE = TILE_ROWS * LINE,
    COLUMNS = 16, /* of a tile of weights or keys, and of one of sums */
};

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t line_bytes[16];
    uint8_t rows[16];
} tile_config;

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long ratio_up(long a, long b) { return (a + b - 1) / b; }

/* Tiles 0 to 5, of sums and of rows, have `height` rows; 6 and 7, of what they are multiplied by, have all. */
static inline void set_tiles(long height)
{
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.line_bytes[i] = LINE;
        config.rows[i] = i < 6 ? height : TILE_ROWS;
    }
    _tile_loadconfig(&config);
}

static inline __attribute__((always_inline)) void prefetch_tile(const char *tile)
{
    for (long line = 0; line < TILE; line += LINE)
        _mm_prefetch(tile + line, _MM_HINT_T0);
}

static inline __attribute__((always_inline)) void fetch_tile(const char *tile)
{
    for (long line = 0; line < TILE; line += LINE)
        _mm_prefetch(tile + line, _MM_HINT_T1);
}

/* A line of which only n_bytes are there; the others are zeros. */
static inline __m512i part_of_line(const char *from, long n_bytes)
{
    return _mm512_maskz_loadu_epi8(n_bytes >= LINE ? ~0ull : (1ull << n_bytes) - 1, from);
}

/* n_rows lines, `stride` bytes apart, of n_bytes each -> a tile: its row i holds the ith 4 bytes of every line. */
static inline void transpose(const char *lines, long stride, long n_rows, long n_bytes, char *tile)
{
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++)
        a[i] = i < n_rows ? part_of_line(lines + i * stride, n_bytes) : _mm512_setzero_si512();
    for (int i = 0; i < 16; i += 2) { /* pairs of words, of two lines each */
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* columns 4 q + 0 to 3, each in four quarters q, of four lines */
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 4; i++) { /* the same quarters of all sixteen lines side by side */
        __m512i low = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88), high = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        __m512i odd = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd), odder = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
        _mm512_storeu_si512(tile + i * LINE, _mm512_shuffle_i32x4(low, high, 0x88));
        _mm512_storeu_si512(tile + (i + 8) * LINE, _mm512_shuffle_i32x4(low, high, 0xdd));
        _mm512_storeu_si512(tile + (i + 4) * LINE, _mm512_shuffle_i32x4(odd, odder, 0x88));
        _mm512_storeu_si512(tile + (i + 12) * LINE, _mm512_shuffle_i32x4(odd, odder, 0xdd));
    }
}

/* e^x to two units in the last place, for x within +-200. */
static inline __m512 exponential(__m512 x)
{
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0); /* x = n ln 2 + r */
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 power = _mm512_set1_ps(1.0f / 5040);
    static const float factors[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    for (int i = 0; i < 7; i++)
        power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(factors[i]));
    return _mm512_scalef_ps(power, n);
}

/* 16 values from `at` on as fp32, zeros behind the end of the row. */
static inline __m512 values_at(const uint16_t *row, long at, long n_in)
{
    __mmask16 mask = n_in - at >= 16 ? 0xffff : n_in > at ? (1u << (n_in - at)) - 1 : 0;
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row + at)), 16));
}

/* The first n of 16 values, rounded to bf16. */
static inline void put(uint16_t *out, __m512 values, long n)
{
    if (n > 0)
        _mm256_mask_storeu_epi16(out, n < COLUMNS ? (1u << n) - 1 : 0xffff, (__m256i)_mm512_cvtneps_pbh(values));
}

#endif
