/* Work that two processors do without each other: one process, then one on each of two CPUs with
 * as much to do each. Where both CPUs are there, the second takes no longer than the first. */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/wait.h>

#include "bench.h"

enum { WORDS = 1 << 13, STEPS = 30000000 };
#define RESULT 0xd477e115dd7fe1cbull

/* Steps through a table of 64 KiB that depend on each other, with some arithmetic and writing. */
static uint64_t work(void)
{
    static uint64_t table[WORDS];
    uint64_t state = 88172645463325252ull, sum = 0;

    for (int i = 0; i < WORDS; i++)
        table[i] = bench_random(&state);
    for (int i = 0; i < STEPS; i++) {
        uint64_t *slot = &table[(sum ^ state) % WORDS];
        state = state * 6364136223846793005ull + *slot;
        *slot ^= state >> 11;
        sum += *slot;
    }
    return sum;
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* @processes at the same time, each on a CPU of its own. */
static int run(const char *name, int processes)
{
    double start = bench_now();
    int right = 1;

    for (int i = 0; i < processes; i++)
        if (fork() == 0) {
            pin(i);
            _exit(work() != RESULT);
        }
    for (int i = 0; i < processes; i++) {
        int status = 1;
        right &= wait(&status) > 0 && status == 0;
    }
    return bench_done(name, start, right);
}

int main(void)
{
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        return 0;
    return run("alone", 1) | run("together", 2);
}
