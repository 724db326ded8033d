/* Double precision: matrix multiplication, and planets (n-body) without vectors. */
#include <math.h>

#include "bench.h"

#define N 320

static double a[N][N], b[N][N], c[N][N];

static int matmul(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = (i == j) * 2.0;
            b[i][j] = i + 0.5 * j;
            c[i][j] = 0;
        }
    double start = bench_now();
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++) {
                double x = a[i][k];
                for (int j = 0; j < N; j++)
                    c[i][j] += x * b[k][j];
            }
    return bench_done("matmul", start, c[7][9] == 6 * b[7][9]);
}

struct body {
    double x[3], v[3], m;
};

static double energy(const struct body *p, int n)
{
    double e = 0;
    for (int i = 0; i < n; i++) {
        e += 0.5 * p[i].m * (p[i].v[0] * p[i].v[0] + p[i].v[1] * p[i].v[1] + p[i].v[2] * p[i].v[2]);
        for (int j = i + 1; j < n; j++) {
            double d2 = 0;
            for (int k = 0; k < 3; k++)
                d2 += (p[i].x[k] - p[j].x[k]) * (p[i].x[k] - p[j].x[k]);
            e -= p[i].m * p[j].m / sqrt(d2);
        }
    }
    return e;
}

static int nbody(void)
{
    enum { BODIES = 5, STEPS = 400000 };
    struct body p[BODIES];
    for (int i = 0; i < BODIES; i++) {
        double r = i ? 1.0 + 3.0 * i : 0, s = i ? sqrt(100.0 / r) : 0;
        p[i] = (struct body){{r, 0, 0.1 * i}, {0, s, 0}, i ? 0.01 : 100.0};
    }
    double before = energy(p, BODIES), start = bench_now();
    for (int t = 0; t < STEPS; t++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], d2 = 0;
                for (int k = 0; k < 3; k++) {
                    d[k] = p[i].x[k] - p[j].x[k];
                    d2 += d[k] * d[k];
                }
                double mag = 0.0001 / (d2 * sqrt(d2));
                for (int k = 0; k < 3; k++) {
                    p[i].v[k] -= d[k] * p[j].m * mag;
                    p[j].v[k] += d[k] * p[i].m * mag;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                p[i].x[k] += 0.0001 * p[i].v[k];
    }
    double after = energy(p, BODIES);
    return bench_done("nbody", start, fabs(after / before - 1) < 0.01);
}

int main(void)
{
    return matmul() | nbody();
}
