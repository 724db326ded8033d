/*
 * test_diff: runs cases on the host's CPU and on the soft engine and compares. A failure prints the
 * seed, the code, the differences, and then the same with every instruction taken out that is not
 * needed for it.
 *
 *   test_diff [--tier exec|translate|both] [--seed S] [--count N] [--bits 64|32|16|all] [--kernel]
 *             [--table] [--encodings] [--failures N] [--only NAME]
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "diff.h"

static struct diff_case current;
static struct diff_result native, soft;
static bool use_tier[2] = {true, true};
static bool kernel_mode;
static uint64_t ran, failed, max_failures = 5;
static uint64_t ended[33]; /* by vector + 1 */

static const char *const tier_names[2] = {"exec", "translate"};

static bool agrees(const struct diff_case *c, enum diff_tier tier, bool again, bool verbose)
{
    diff_native_run(c, &native);
    if (native.vector < 0)
        return true; /* the random code does not end */
    diff_guest_run(c, tier, kernel_mode, &soft);
    if (again) /* with translations and caches that are there already */
        diff_guest_run(c, tier, kernel_mode, &soft);
    return diff_compare(c, tier, &native, &soft, verbose);
}

static bool fails(const struct diff_case *c, enum diff_tier tier)
{
    return !agrees(c, tier, false, false) ||
           (tier == DIFF_TRANSLATE && !agrees(c, tier, true, false));
}

/* Replace instruction @i by NOPs. */
static void take_out(struct diff_case *c, unsigned i)
{
    unsigned end = i + 1 < c->insns ? c->start[i + 1] : c->size;
    memset(c->code + c->start[i], 0x90, end - c->start[i]);
}

/* Squeeze the NOPs out, where no jump is left that they belong to. */
static void squeeze(struct diff_case *c, enum diff_tier tier)
{
    static struct diff_case shorter;
    shorter = *c;
    shorter.size = shorter.insns = 0;
    for (unsigned i = 0; i < c->insns; i++) {
        unsigned end = i + 1 < c->insns ? c->start[i + 1] : c->size, at = c->start[i];
        bool nops = true;
        for (unsigned j = at; j < end; j++)
            nops &= c->code[j] == 0x90;
        if (nops)
            continue;
        shorter.start[shorter.insns++] = (uint16_t)shorter.size;
        memcpy(shorter.code + shorter.size, c->code + at, end - at);
        shorter.size += end - at;
    }
    shorter.seed++; /* caches of decoded code must not mix them up */
    if (fails(&shorter, tier))
        *c = shorter;
}

static void minimise(const struct diff_case *c, enum diff_tier tier)
{
    static struct diff_case best, trial;
    best = *c;
    for (unsigned i = 0; i < best.insns; i++) {
        trial = best;
        take_out(&trial, i);
        if (fails(&trial, tier))
            best = trial;
    }
    squeeze(&best, tier);
    printf("  at its smallest:\n");
    diff_print_case(&best);
    if (agrees(&best, tier, false, true) && tier == DIFF_TRANSLATE)
        agrees(&best, tier, true, true);
}

static void report(const struct diff_case *c, enum diff_tier tier, bool again)
{
    failed++;
    printf("FAILED: %s %llu, tier %s%s%s\n", c->name, (unsigned long long)c->seed, tier_names[tier],
           again ? " (second run)" : "", kernel_mode ? ", kernel mode" : "");
    diff_print_case(c);
    agrees(c, tier, again, true);
    if (c->insns > 1)
        minimise(c, tier);
    fflush(stdout);
}

static void try_case(const struct diff_case *c)
{
    ran++;
    diff_native_run(c, &native);
    if (native.vector < 0) {
        return;
    }
    ended[native.vector < 32 ? native.vector + 1 : 0]++;
    for (unsigned tier = 0; tier < 2; tier++) {
        if (!use_tier[tier])
            continue;
        diff_guest_run(c, tier, kernel_mode, &soft);
        bool again = false;
        if (diff_compare(c, tier, &native, &soft, false)) {
            if (tier == DIFF_EXEC)
                continue;
            diff_guest_run(c, tier, kernel_mode, &soft);
            if (diff_compare(c, tier, &native, &soft, false))
                continue;
            again = true;
        }
        report(c, tier, again);
        return;
    }
}

static void run_table(unsigned bits, const char *only)
{
    for (unsigned i = 0; i < diff_table_count() && failed < max_failures; i++) {
        if (diff_table_case(&current, i, kernel_mode) && current.bits == bits &&
            (!only || !strcmp(only, current.name)))
            try_case(&current);
    }
}

static void run_encodings(unsigned bits)
{
    for (uint64_t i = 0; i < diff_enumerate_count && failed < max_failures; i++)
        if (diff_enumerate(&current, i, bits))
            try_case(&current);
}

/* 32-bit code in flat segments and in others, in turn. */
static bool is_based(unsigned bits, uint64_t seed, bool segments)
{
    return bits == 16 || (bits == 32 && segments && seed % 2);
}

static void run_random(unsigned bits, uint64_t seed, uint64_t count, bool segments)
{
    for (uint64_t i = 0; i < count && failed < max_failures; i++) {
        diff_generate(&current, seed + i, bits, is_based(bits, seed + i, segments));
        try_case(&current);
    }
}

static void run_programs(unsigned bits, uint64_t seed, uint64_t count, bool segments)
{
    for (uint64_t i = 0; i < count && failed < max_failures; i++) {
        diff_generate_program(&current, seed + i, bits, is_based(bits, seed + i, segments));
        try_case(&current);
    }
}

static void run_frames(unsigned bits, uint64_t seed, uint64_t count, bool segments)
{
    for (uint64_t i = 0; i < count && bits != 16 && failed < max_failures; i++) {
        diff_generate_frames(&current, seed + i, bits, is_based(bits, seed + i, segments));
        try_case(&current);
    }
}

/* No host CPU here: the two tiers against each other, and nothing may get out. */
static void run_hostile(uint64_t seed, uint64_t count)
{
    for (uint64_t i = 0; i < count && failed < max_failures; i++) {
        bool kernel = i & 1, good;

        diff_generate_hostile(&current, seed + i);
        diff_guest_run(&current, DIFF_EXEC, kernel, &native);
        good = diff_contained(&current, &native);
        for (unsigned turn = 0; turn < 2 && good && native.vector >= 0; turn++) {
            diff_guest_run(&current, DIFF_TRANSLATE, kernel, &soft);
            good = diff_contained(&current, &soft) &&
                   diff_compare(&current, DIFF_TRANSLATE, &native, &soft, true);
        }
        ran++;
        if (native.vector >= 0)
            ended[native.vector < 32 ? native.vector + 1 : 0]++;
        if (good)
            continue;
        failed++;
        printf("FAILED: hostile %llu%s\n", (unsigned long long)(seed + i),
               kernel ? ", kernel mode" : "");
        diff_print_case(&current);
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: test_diff [--tier exec|translate|both] [--seed S] [--count N]\n"
                    "                 [--bits 64|32|16|all] [--kernel] [--table] [--encodings]\n"
                    "                 [--failures N] [--only NAME] [--programs N] [--frames N]\n"
                    "                 [--hostile N]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"tier", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},
        {"bits", required_argument, NULL, 'b'},
        {"kernel", no_argument, NULL, 'k'},
        {"table", no_argument, NULL, 'T'},
        {"encodings", no_argument, NULL, 'e'},
        {"failures", required_argument, NULL, 'f'},
        {"only", required_argument, NULL, 'o'},
        {"programs", required_argument, NULL, 'p'},
        {"hostile", required_argument, NULL, 'h'},
        {"frames", required_argument, NULL, 'F'},
        {0},
    };
    uint64_t seed = 1, count = 0, programs = 0, frames = 0, hostile = 0;
    bool table = false, encodings = false;
    unsigned only_bits = 64;
    const char *only = NULL;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (o) {
        case 't':
            use_tier[0] = strcmp(optarg, "translate") != 0;
            use_tier[1] = strcmp(optarg, "exec") != 0;
            break;
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            count = strtoull(optarg, NULL, 0);
            break;
        case 'b':
            only_bits = strcmp(optarg, "all") ? (unsigned)strtoul(optarg, NULL, 0) : 0;
            break;
        case 'k':
            kernel_mode = true;
            break;
        case 'T':
            table = true;
            break;
        case 'e':
            encodings = true;
            break;
        case 'f':
            max_failures = strtoull(optarg, NULL, 0);
            break;
        case 'p':
            programs = strtoull(optarg, NULL, 0);
            break;
        case 'h':
            hostile = strtoull(optarg, NULL, 0);
            break;
        case 'F':
            frames = strtoull(optarg, NULL, 0);
            break;
        case 'o':
            only = optarg;
            table = true;
            break;
        default:
            return usage();
        }
    }
    if (diff_native_init() || diff_guest_init())
        return 2;
    diff_generate_init();
    const bool segments = diff_native_init_segments();

    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (unsigned bits = 64; bits >= 16; bits /= 2) {
        if (only_bits && bits != only_bits)
            continue;
        if (bits == 16 && !segments) {
            printf("programs have no segments here: 16-bit cases left out\n");
            continue;
        }
        if (table)
            run_table(bits, only);
        if (encodings)
            run_encodings(bits);
        run_random(bits, seed, count, segments);
        run_programs(bits, seed, programs, segments);
        run_frames(bits, seed, frames, segments);
    }
    if (hostile) {
        if (!diff_contain_init() || !diff_contain_check()) {
            printf("FAILED: what is not contained would not be seen\n");
            failed++;
        }
        run_hostile(seed, hostile);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double s = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%llu cases, %llu failed, %.1f s (%.0f a second); ended by", (unsigned long long)ran,
           (unsigned long long)failed, s, (double)ran / (s > 0 ? s : 1));
    for (unsigned v = 1; v < 33; v++)
        if (ended[v])
            printf(" #%u: %llu", v - 1, (unsigned long long)ended[v]);
    printf("\n");
    diff_guest_fini();
    return failed ? 1 : 0;
}
