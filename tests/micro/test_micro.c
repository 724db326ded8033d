/*
 * Runs every micro-guest on every engine, alone and moved from one engine to another in the middle,
 * and compares what it logged with what its source says, and the engines' end states with each
 * other. An engine that is not there is reported as skipped.
 *
 *   test_micro [PATTERN]    only the tests whose names match, e.g. 'paging*'
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "machine.h"

struct engine_here {
    const struct mull_engine *engine;
    bool here;
    bool hardware; /* not one that emulates kernel code */
    struct mull_cpuid cpuid;
};

static struct engine_here engines[8];
static unsigned engine_count;

/* One test: a guest on an engine, perhaps moved to another at each of its MOVE points. */
struct test {
    char name[96];
    const struct micro_guest *guest;
    struct engine_here *on, *other; /* other: NULL, or where it is moved to and back */
    bool compare;                   /* the end on both is the same */
    bool restless;                  /* it is moved at any moment, too */
};

/* ---- What the engines can do ---- */

static const struct mull_cpuid_entry *leaf(const struct mull_cpuid *t, uint32_t n, uint32_t sub)
{
    for (unsigned i = 0; i < t->count; i++)
        if (t->entry[i].leaf == n && (!t->entry[i].indexed || t->entry[i].subleaf == sub))
            return &t->entry[i];
    return NULL;
}

static const struct {
    uint32_t need, leaf;
    unsigned reg; /* 0: EBX, 1: ECX, 2: EDX */
    unsigned bit;
} feature_bits[] = {
    {MICRO_NEEDS_SMEP, 7, 0, 7},
    {MICRO_NEEDS_SMAP, 7, 0, 20},
    {MICRO_NEEDS_FSGSBASE, 7, 0, 0},
    {MICRO_NEEDS_INVPCID, 7, 0, 10},
    {MICRO_NEEDS_UMIP, 7, 1, 2},
    {MICRO_NEEDS_TSC_ADJUST, 7, 0, 1},
    {MICRO_NEEDS_XSAVE, 1, 1, 26},
    {MICRO_NEEDS_AVX, 1, 1, 28},
    {MICRO_NEEDS_PCID, 1, 1, 17},
    {MICRO_NEEDS_RDTSCP, 0x80000001, 2, 27},
    {MICRO_NEEDS_GIGAPAGES, 0x80000001, 2, 26},
    {MICRO_NEEDS_MONITOR, 1, 1, 3},
};

static uint32_t missing(const struct mull_cpuid *t, uint32_t needs)
{
    uint32_t result = 0;

    for (unsigned i = 0; i < sizeof(feature_bits) / sizeof(feature_bits[0]); i++) {
        const struct mull_cpuid_entry *e = leaf(t, feature_bits[i].leaf, 0);
        uint32_t value = !e                         ? 0
                         : feature_bits[i].reg == 0 ? e->ebx
                         : feature_bits[i].reg == 1 ? e->ecx
                                                    : e->edx;

        if (needs & feature_bits[i].need && !(value >> feature_bits[i].bit & 1))
            result |= feature_bits[i].need;
    }
    return result;
}

/* What both can do: a guest that moves must not see features come and go. */
static void common_cpuid(const struct mull_cpuid *a, const struct mull_cpuid *b,
                         struct mull_cpuid *out)
{
    out->count = 0;
    for (unsigned i = 0; i < a->count; i++) {
        struct mull_cpuid_entry e = a->entry[i];
        const struct mull_cpuid_entry *f = leaf(b, e.leaf, e.subleaf);

        if (!f)
            continue;
        if (e.leaf == 1 || e.leaf == 0x80000001) {
            e.ecx &= f->ecx;
            e.edx &= f->edx;
        } else if (e.leaf == 7) {
            e.ebx &= f->ebx;
            e.ecx &= f->ecx;
            e.edx &= f->edx;
        } else if (e.leaf == 0xd && e.subleaf == 0) {
            e.eax &= f->eax;
        }
        out->entry[out->count++] = e;
    }
}

static void find_engines(void)
{
    static const struct mull_engine *const all[] = {&mull_engine_kvm, &mull_engine_soft, NULL};

    for (unsigned i = 0; all[i]; i++) {
        struct engine_here *e = &engines[engine_count++];
        struct mull_engine_report report;
        struct mull_error err = {0};

        e->engine = all[i];
        e->engine->probe(true, &report);
        e->here = report.available && !e->engine->cpuid(&e->cpuid, &err);
        e->hardware = strcmp(e->engine->name, "kvm") || report.kernel_mips > 200;
        if (e->here)
            printf("# engine %s: %.1f million kernel instructions a second\n", e->engine->name,
                   report.kernel_mips);
        else
            printf("# engine %s SKIPPED: %s%s\n", e->engine->name, report.why, err.message);
    }
}

/* ---- Comparing ---- */

static void check_log(const struct test *t, const struct micro_result *r)
{
    unsigned wrong = 0;

    if (r->failure[0])
        fail_msg("%s: %s; after %u of %zu numbers", t->name, r->failure, r->log_count,
                 *t->guest->expect_count);
    for (unsigned i = 0; i < r->log_count || i < *t->guest->expect_count; i++) {
        uint64_t got = i < r->log_count ? r->log[i] : 0;
        uint64_t want = i < *t->guest->expect_count ? t->guest->expect[i] : 0;

        if (i < r->log_count && i < *t->guest->expect_count && got == want)
            continue;
        if (wrong++ < 10)
            print_error("%s: log[%u]: got %#llx%s, expected %#llx%s\n", t->name, i,
                        (unsigned long long)got, i < r->log_count ? "" : " (nothing)",
                        (unsigned long long)want, i < *t->guest->expect_count ? "" : " (nothing)");
    }
    if (wrong)
        fail_msg("%s: %u of %zu numbers differ; RIP %#llx", t->name, wrong, *t->guest->expect_count,
                 (unsigned long long)r->state[0].rip);
    if (r->reason != (t->guest->end == MICRO_SHUTDOWN ? MULL_EXIT_SHUTDOWN : MULL_EXIT_STOPPED))
        fail_msg("%s: ended with exit reason %d", t->name, r->reason);
}

/* CPUID's answers are the table's, but for what depends on the CPU and its state. */
static void check_cpuid(const struct test *t, const struct mull_cpuid *table, const uint8_t *ram)
{
    uint32_t got[4];

    for (unsigned i = 0; i < table->count; i++) {
        const struct mull_cpuid_entry *e = &table->entry[i];
        uint32_t want[4] = {e->eax, e->ebx, e->ecx, e->edx};
        uint32_t mask[4] = {~0u, ~0u, ~0u, ~0u};

        memcpy(got, ram + MICRO_CPUID_ANSWERS + 16 * i, sizeof(got));
        if (e->leaf == 1) {
            mask[1] = 0x00ffffff;  /* the APIC ID */
            mask[2] = ~(1u << 27); /* OSXSAVE */
        } else if (e->leaf == 7 && e->subleaf == 0) {
            mask[2] = ~(1u << 4); /* OSPKE */
        } else if (e->leaf == 0xd && e->subleaf < 2) {
            mask[1] = 0; /* the size of what is switched on */
        } else if (e->leaf == 0xb || e->leaf == 0x1f) {
            mask[3] = 0; /* the x2APIC ID */
        }
        for (unsigned r = 0; r < 4; r++)
            if ((got[r] ^ want[r]) & mask[r])
                fail_msg("%s: CPUID %#x.%u: register %u is %#x, not %#x", t->name, e->leaf,
                         e->subleaf, r, got[r], want[r]);
    }
}

static unsigned differ(const char *what, uint64_t a, uint64_t b)
{
    if (a == b)
        return 0;
    print_error("%s: %#llx and %#llx\n", what, (unsigned long long)a, (unsigned long long)b);
    return 1;
}

static unsigned compare_segments(const struct mull_cpu_state *a, const struct mull_cpu_state *b,
                                 bool data_too)
{
    static const char *const names[] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"};
    bool long_mode = a->efer & 0x400;
    unsigned wrong = 0;
    char what[32];

    for (unsigned i = 0; i < MULL_SEG_COUNT; i++) {
        const struct mull_segment *p = &a->seg[i], *q = &b->seg[i];

        if (!data_too && (i == MULL_ES || i == MULL_DS || i == MULL_FS || i == MULL_GS))
            continue;
        snprintf(what, sizeof(what), "%s selector", names[i]);
        wrong += differ(what, p->selector, q->selector);
        if (i == MULL_LDTR && (p->selector & ~3u) == 0)
            continue;
        /* What 64-bit mode does not look at, processors keep as they like. */
        snprintf(what, sizeof(what), "%s base", names[i]);
        if (!long_mode || i == MULL_FS || i == MULL_GS || i == MULL_TR)
            wrong += differ(what, p->base, q->base);
        if ((p->selector & ~3u) == 0)
            continue;
        snprintf(what, sizeof(what), "%s limit", names[i]);
        wrong += differ(what, p->limit, q->limit);
        snprintf(what, sizeof(what), "%s attributes", names[i]);
        wrong += differ(what, p->attr & ~1u, q->attr & ~1u);
    }
    return wrong;
}

static unsigned compare_xsave(const struct mull_cpu_state *a, const struct mull_cpu_state *b)
{
    unsigned wrong = 0;
    uint64_t p[2], q[2], bv_a, bv_b;

    memcpy(&bv_a, a->xsave + 512, 8);
    memcpy(&bv_b, b->xsave + 512, 8);
    for (unsigned i = 0; i < 16; i++) { /* XMM; in its initial state where the bit is clear */
        memcpy(p, a->xsave + 160 + 16 * i, 16);
        memcpy(q, b->xsave + 160 + 16 * i, 16);
        if (!(bv_a & 6))
            p[0] = p[1] = 0;
        if (!(bv_b & 6))
            q[0] = q[1] = 0;
        wrong += differ("XMM low", p[0], q[0]) + differ("XMM high", p[1], q[1]);
    }
    return wrong;
}

static unsigned compare_cpu(const struct mull_cpu_state *a, const struct mull_cpu_state *b,
                            bool data_too)
{
    static const char *const names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                        "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    unsigned wrong = differ("RIP", a->rip, b->rip) + differ("RFLAGS", a->rflags, b->rflags);

    for (unsigned i = 0; i < 16; i++)
        wrong += differ(names[i], a->gpr[i], b->gpr[i]);
    wrong += compare_segments(a, b, data_too);
    wrong += differ("GDT base", a->gdt.base, b->gdt.base);
    wrong += differ("GDT limit", a->gdt.limit, b->gdt.limit);
    wrong += differ("IDT base", a->idt.base, b->idt.base);
    wrong += differ("IDT limit", a->idt.limit, b->idt.limit);
    wrong += differ("CR0", a->cr0, b->cr0) + differ("CR2", a->cr2, b->cr2);
    wrong += differ("CR3", a->cr3, b->cr3) + differ("CR4", a->cr4, b->cr4);
    wrong += differ("EFER", a->efer, b->efer) + differ("XCR0", a->xcr0, b->xcr0);
    wrong += differ("STAR", a->star, b->star) + differ("LSTAR", a->lstar, b->lstar);
    wrong += differ("SFMASK", a->sfmask, b->sfmask) + differ("PAT", a->pat, b->pat);
    wrong += differ("KERNEL_GS_BASE", a->kernel_gs_base, b->kernel_gs_base);
    wrong += differ("SYSENTER_CS", a->sysenter_cs, b->sysenter_cs);
    wrong += differ("MP state", a->mp_state, b->mp_state);
    wrong += differ("NMI blocked", a->nmi_blocked, b->nmi_blocked);
    return wrong + compare_xsave(a, b);
}

static unsigned compare_ram(const struct micro_result *a, const struct micro_result *b)
{
    unsigned wrong = 0;

    for (unsigned i = 0; i < MICRO_RAM_SIZE; i++) {
        if (i == MICRO_TABLES) /* accessed and dirty bits come when a processor likes */
            i = MICRO_TABLES_END;
        if (a->ram[i] != b->ram[i] && wrong++ < 8)
            print_error("memory at %#x: %#x and %#x\n", i, a->ram[i], b->ram[i]);
    }
    return wrong;
}

static void compare_results(const struct test *t, const struct micro_result *a,
                            const struct micro_result *b)
{
    unsigned wrong = 0;

    if (!t->guest->loose) {
        if (t->guest->end == MICRO_DONE) /* after a shutdown the registers are undefined */
            /* An emulating KVM may hand out stale selectors after ring 3 ran natively. */
            wrong += compare_cpu(&a->state[0], &b->state[0], t->on->hardware && t->other->hardware);
        wrong += compare_ram(a, b);
    }
    if (wrong)
        fail_msg("%s: the end states differ in %u places", t->name, wrong);
}

/* ---- The tests ---- */

static void run_guest(void **state)
{
    struct test *t = *state;
    static struct micro_result r, s;
    static struct mull_cpuid common;
    const struct mull_cpuid *cpuid = &t->on->cpuid;

    if (!t->on->here || (t->other && !t->other->here)) {
        print_message("%s: SKIPPED: the engine is not there\n", t->name);
        skip();
    }
    if (t->guest->needs & MICRO_NEEDS_HARDWARE &&
        (!t->on->hardware || (t->other && !t->other->hardware))) {
        print_message("%s: SKIPPED: this /dev/kvm emulates kernel code, and not all of it\n",
                      t->name);
        skip();
    }
    if (t->guest->needs & MICRO_NEEDS_A20 &&
        (t->on->engine != &mull_engine_soft || (t->other && t->other->engine != &mull_engine_soft))) {
        print_message("%s: SKIPPED: the processor has no A20 gate\n", t->name);
        skip();
    }
    if (t->other) {
        common_cpuid(&t->on->cpuid, &t->other->cpuid, &common);
        cpuid = &common;
    }
    if (missing(cpuid, t->guest->needs)) {
        print_message("%s: SKIPPED: the CPU lacks features %#x\n", t->name,
                      missing(cpuid, t->guest->needs));
        skip();
    }
    micro_run(t->guest, t->on->engine, t->other && !t->compare ? t->other->engine : NULL,
              t->restless, cpuid, &r);
    if (t->restless)
        print_message("%s: moved %u times\n", t->name, r.moves);
    check_log(t, &r);
    if (t->guest->cpuid)
        check_cpuid(t, cpuid, r.ram);
    if (t->compare) {
        micro_run(t->guest, t->other->engine, NULL, false, cpuid, &s);
        check_log(t, &s);
        compare_results(t, &r, &s);
        free(s.ram);
    }
    free(r.ram);
}

static struct test tests[2048];
static struct CMUnitTest units[2048];
static unsigned test_count;

static void add_test(const struct micro_guest *guest, struct engine_here *on,
                     struct engine_here *other, bool compare, bool restless)
{
    struct test *t = &tests[test_count];

    if (test_count == sizeof(tests) / sizeof(tests[0]))
        return;
    *t = (struct test){
        .guest = guest, .on = on, .other = other, .compare = compare, .restless = restless};
    snprintf(t->name, sizeof(t->name), "%s %s%s%s", guest->name, on->engine->name,
             !other     ? ""
             : compare  ? " = "
             : restless ? " <> "
                        : " -> ",
             other ? other->engine->name : "");
    units[test_count++] =
        (struct CMUnitTest){.name = t->name, .test_func = run_guest, .initial_state = t};
}

int main(int argc, char **argv)
{
    find_engines();
    for (unsigned g = 0; g < micro_guest_count; g++) {
        for (unsigned i = 0; i < engine_count; i++)
            add_test(&micro_guests[g], &engines[i], NULL, false, false);
        for (unsigned i = 0; i < engine_count; i++)
            for (unsigned j = 0; j < engine_count; j++) {
                add_test(&micro_guests[g], &engines[i], &engines[j], false, false);
                if (i < j)
                    add_test(&micro_guests[g], &engines[i], &engines[j], true, false);
                if (i <= j)
                    add_test(&micro_guests[g], &engines[i], &engines[j], false, true);
            }
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("micro", units, test_count, NULL, NULL);
}
