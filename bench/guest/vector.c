/* Vector and x87 code: AVX2 with FMA where the CPU has it, long double. */
#include <immintrin.h>

#include "bench.h"

__attribute__((target("avx2,fma"))) static int avx2(void)
{
    enum { N = 4096, ROUNDS = 60000 };
    static float x[N] __attribute__((aligned(32))), y[N] __attribute__((aligned(32)));
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i % 16);
        y[i] = 0;
    }
    double start = bench_now();
    for (int r = 0; r < ROUNDS; r++) {
        __m256 f = _mm256_set1_ps(r % 2 ? 1.0f : -1.0f);
        for (int i = 0; i < N; i += 16) {
            __m256 a = _mm256_fmadd_ps(_mm256_load_ps(x + i), f, _mm256_load_ps(y + i));
            __m256 b = _mm256_fmadd_ps(_mm256_load_ps(x + i + 8), f, _mm256_load_ps(y + i + 8));
            _mm256_store_ps(y + i, a);
            _mm256_store_ps(y + i + 8, b);
        }
    }
    int right = 1;
    for (int i = 0; i < N; i++)
        right &= y[i] == 0;
    return bench_done("avx2", start, right);
}

static int x87(void)
{
    long double sum = 0, x = 1;
    double start = bench_now();
    for (int i = 1; i < 10000000; i++) {
        sum += x / i;
        x = -x;
    }
    return bench_done("x87", start, sum > 0.6931L && sum < 0.6932L);
}

int main(void)
{
    int ret = x87();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        ret |= avx2();
    return ret;
}
