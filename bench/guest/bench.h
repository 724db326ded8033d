/*
 * What the guest's workloads share: time, and a line "name seconds" on standard output. Each
 * program is one static binary without arguments; it does a fixed amount of work and checks its own
 * result, so that a wrong emulation shows as "name wrong" instead of a good time.
 */
#ifndef BENCH_GUEST_BENCH_H
#define BENCH_GUEST_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Report and end: call from main's end. */
static inline int bench_done(const char *name, double start, int right)
{
    double seconds = bench_now() - start;
    if (right)
        printf("bench: %s %.6f\n", name, seconds);
    else
        printf("bench: %s wrong\n", name);
    fflush(stdout);
    return !right;
}

/* Keep the compiler from knowing a value. */
#define BENCH_HIDE(x) __asm__ volatile("" : "+g"(x))

static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
