/*
 * Runs in a guest: reads every clock it has at two moments, as close together as can be, and
 * compares how much time each says went by. usage: clocks SECONDS; needs root and iomem=relaxed.
 * TSC by the frequency of CPUID 15h, HPET by its own period, PM timer, CLOCK_MONOTONIC_RAW of the
 * kernel (of whatever clock source it uses), RTC not: it counts seconds.
 */
#include <cpuid.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define HPET_BASE 0xfed00000
#define PM_HZ 3579545.0 /* ACPI 6.4, 4.8.3.3 */

struct moment {
    uint64_t tsc, hpet, raw, width;
    uint32_t pm;
};

static volatile uint64_t *hpet;
static unsigned pm_port;

static uint64_t raw_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The narrowest of many attempts: between two of our instructions others may run. */
static struct moment look(void)
{
    struct moment best = {.width = UINT64_MAX};

    for (int i = 0; i < 400; i++) {
        struct moment m;
        uint64_t begin = __rdtsc();
        m.hpet = hpet[0xf0 / 8];
        m.pm = inl((unsigned short)pm_port);
        m.raw = raw_ns();
        uint64_t end = __rdtsc();
        m.tsc = begin + (end - begin) / 2;
        m.width = end - begin;
        if (m.width < best.width)
            best = m;
    }
    return best;
}

/* The PM timer's port, where Linux found it in the FADT. */
static unsigned find_pm_port(void)
{
    unsigned port = 0;
    char line[256];
    FILE *f = fopen("/proc/ioports", "r");

    while (f && fgets(line, sizeof(line), f)) {
        unsigned a, b;
        char name[64];
        if (sscanf(line, " %x-%x : %63[^\n]", &a, &b, name) == 3 &&
            !__builtin_strcmp(name, "ACPI PM_TMR"))
            port = a;
    }
    if (f)
        fclose(f);
    return port;
}

static double tsc_hz(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid_count(0x15, 0, &a, &b, &c, &d) || !a || !b || !c)
        return 0;
    double hz = (double)c * b / a;
    if (__get_cpuid_count(0x16, 0, &a, &b, &c, &d) && fabs(a * 1e6 - hz) > 1e6) {
        printf("check: failed cpuid-16h (%u MHz, and %.3f MHz in 15h)\n", a, hz / 1e6);
        exit(1);
    }
    return hz;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 1, hz = tsc_hz();
    int fd = open("/dev/mem", O_RDONLY | O_SYNC);
    void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, HPET_BASE);

    pm_port = find_pm_port();
    if (!hz || fd < 0 || map == MAP_FAILED || !pm_port || iopl(3)) {
        printf("check: failed clocks: TSC %.0f Hz, /dev/mem %d, PM timer %#x\n", hz, fd, pm_port);
        return 1;
    }
    hpet = map;
    struct moment from = look();
    while (__rdtsc() - from.tsc < (uint64_t)(seconds * hz))
        _mm_pause();
    struct moment to = look();

    double period = (double)(hpet[0] >> 32) * 1e-15;
    const struct {
        const char *name;
        double elapsed;
    } clocks[] = {
        {"tsc", (double)(to.tsc - from.tsc) / hz},
        {"hpet", (double)(to.hpet - from.hpet) * period},
        {"pm", (double)((to.pm - from.pm) & 0xffffff) / PM_HZ},
        {"kernel", (double)(to.raw - from.raw) / 1e9},
    };
    /* What the readings are apart, one tick of the PM timer, and a hundredth of a percent. */
    double width = (double)(from.width + to.width) / hz;
    double allowed = width + 1 / PM_HZ + seconds * 1e-4;
    int bad = 0;
    printf("check: clocks width %.6f", width);
    for (int i = 0; i < 4; i++) {
        printf(" %s %.7f", clocks[i].name, clocks[i].elapsed);
        bad |= fabs(clocks[i].elapsed - clocks[0].elapsed) > allowed;
    }
    putchar('\n');
    if (bad)
        puts("check: failed clocks disagree");
    return bad;
}
