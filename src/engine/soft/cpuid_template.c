/*
 * The CPUID leaves that the soft engine stands behind: the host's, cut to what translated code can
 * run and what the C handlers implement, plus what the engine emulates whatever the host has.
 * Topology, timing and hypervisor leaves are the platform's (SDM volume 2, CPUID; APM volume 3,
 * appendix E).
 */
#include <cpuid.h>
#include <errno.h>

#include "engine/soft/monitor.h"

#define BIT(n) (1u << (n))

#define PHYSICAL_BITS 46u
#define VECTOR_STATE 0xe7u /* x87, SSE, AVX, AVX-512 */

struct host {
    uint32_t max, max_extended;
    bool amd;
    uint32_t xcr0;
};

static struct mull_cpuid_entry ask(uint32_t leaf, uint32_t subleaf)
{
    struct mull_cpuid_entry e = {.leaf = leaf, .subleaf = subleaf};
    __cpuid_count(leaf, subleaf, e.eax, e.ebx, e.ecx, e.edx);
    return e;
}

static int add(struct mull_cpuid *table, struct mull_cpuid_entry e, struct mull_error *err)
{
    if (table->count == MULL_CPUID_MAX)
        return mull_fail(err, E2BIG, "CPUID: the host has more than %u leaves", MULL_CPUID_MAX);
    table->entry[table->count++] = e;
    return 0;
}

/* What a guest is told of speculation. The kernel's own counter-measures work on the branches that
 * the processor executes, and in translated code those are not the guest's: a retpoline's RET, a
 * return thunk or VERW costs much here and holds nothing back. So the guest is told not to bother;
 * docs/threat-model.md says what that means for programs inside one guest. */
#define EXT8_EBX_BTC_NO BIT(29)
#define EXT21_EAX_AUTO_IBRS BIT(8)
#define EXT21_EAX_SRSO_NO BIT(29)
#define EXT21_ECX_TSA_NO (BIT(1) | BIT(2))
#define EXT21_ECX_PASSED BIT(7) /* newer kernels want to see it beside them */

/* ---- Standard leaves ---- */

static void leaf_1(struct mull_cpuid_entry *e)
{
    /* SSE3, PCLMULQDQ, SSSE3, FMA, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C,
     * RDRAND */
    e->ecx &= BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) |
              BIT(25) | BIT(26) | BIT(28) | BIT(29) | BIT(30);
    /* MONITOR, PCID, x2APIC, TSC deadline: emulated */
    e->ecx |= BIT(3) | BIT(17) | BIT(21) | BIT(24);
    /* FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36,
     * CLFSH, MMX, FXSR, SSE, SSE2, SS: not PSN, DS, ACPI, HTT, TM, PBE */
    e->edx &= BIT(0) | BIT(8) | BIT(15) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26) | BIT(27);
    e->edx |= BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(9) | BIT(11) |
              BIT(12) | BIT(13) | BIT(14) | BIT(16) | BIT(17);
}

/* AVX-512 features need their state components. */
static void leaf_7(const struct host *host, struct mull_cpuid_entry *e)
{
    const uint32_t ebx512 =
        BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
    const uint32_t ecx512 = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
    const uint32_t edx512 = BIT(8) | BIT(23);

    e->eax = e->eax ? 1 : 0;
    /* BMI1, AVX2, FDP_EXCPTN_ONLY, BMI2, ERMS, FCS/FDS deprecated, AVX-512, RDSEED, ADX,
     * CLFLUSHOPT, CLWB, SHA */
    e->ebx &= BIT(3) | BIT(5) | BIT(6) | BIT(8) | BIT(9) | BIT(13) | BIT(18) | BIT(19) | BIT(23) |
              BIT(24) | BIT(29) | ebx512;
    e->ecx &= BIT(8) | BIT(9) | BIT(10) | ecx512; /* GFNI, VAES, VPCLMULQDQ */
    e->edx &= BIT(4) | edx512;                    /* FSRM */
    if ((host->xcr0 & VECTOR_STATE) != VECTOR_STATE) {
        e->ebx &= ~ebx512;
        e->ecx &= ~ecx512;
        e->edx &= ~edx512;
    }
    /* FSGSBASE, TSC_ADJUST, SMEP, INVPCID, SMAP; UMIP, RDPID: emulated */
    e->ebx |= BIT(0) | BIT(1) | BIT(7) | BIT(10) | BIT(20);
    e->ecx |= BIT(2) | BIT(22);
    if (!host->amd)
        e->edx |= BIT(26) | BIT(29); /* IA32_SPEC_CTRL and PRED_CMD, IA32_ARCH_CAPABILITIES */
}

static void leaf_7_1(const struct host *host, struct mull_cpuid_entry *e)
{
    e->eax &= BIT(4) | BIT(5) | BIT(10) | BIT(11) | BIT(12); /* AVX-VNNI, BF16, FZRM, FSRS, FSRCS */
    if ((host->xcr0 & VECTOR_STATE) != VECTOR_STATE)
        e->eax &= ~BIT(5);
    e->ebx = e->ecx = e->edx = 0;
}

static int leaf_d(const struct host *host, struct mull_cpuid *table, struct mull_error *err)
{
    uint32_t offered = host->xcr0 & VECTOR_STATE;
    struct mull_cpuid_entry main = ask(0xd, 0), extra = ask(0xd, 1);

    main.indexed = extra.indexed = true;
    main.eax = offered;
    main.edx = 0;
    main.ecx = 576;
    extra.eax &= BIT(0) | BIT(1) | BIT(2); /* XSAVEOPT, XSAVEC, XGETBV with ECX = 1 */
    if (extra.eax & BIT(1))
        extra.eax |= BIT(3); /* XSAVES: no supervisor component, so XSAVEC does it */
    extra.ecx = extra.edx = 0;
    int r = 0;
    struct mull_cpuid_entry component[8];
    for (unsigned i = 2; i < 8; i++) {
        if (!(offered >> i & 1))
            continue;
        component[i] = ask(0xd, i);
        component[i].indexed = true;
        uint32_t end = component[i].eax + component[i].ebx;
        main.ecx = end > main.ecx ? end : main.ecx;
    }
    main.ebx = extra.ebx = 576; /* dynamic: see soft_cpuid() */
    r = add(table, main, err);
    if (r == 0)
        r = add(table, extra, err);
    for (unsigned i = 2; r == 0 && i < 8; i++)
        if (offered >> i & 1)
            r = add(table, component[i], err);
    return r;
}

/* Caches: subleaves until one of type 0. */
static int caches(struct mull_cpuid *table, uint32_t leaf, struct mull_error *err)
{
    for (uint32_t i = 0; i < 16; i++) {
        struct mull_cpuid_entry e = ask(leaf, i);
        e.indexed = true;
        int r = add(table, e, err);
        if (r < 0 || !(e.eax & 31))
            return r;
    }
    return 0;
}

static int standard(const struct host *host, struct mull_cpuid *table, struct mull_error *err)
{
    struct mull_cpuid_entry e = ask(0, 0);
    e.eax = 0xd;
    int r = add(table, e, err);

    e = ask(1, 0);
    leaf_1(&e);
    if (r == 0)
        r = add(table, e, err);
    if (r == 0 && !host->amd && host->max >= 2)
        r = add(table, ask(2, 0), err);
    if (r == 0 && !host->amd && host->max >= 4)
        r = caches(table, 4, err);
    if (r == 0)
        r = add(table,
                (struct mull_cpuid_entry){.leaf = 5,
                                          .eax = SOFT_MONITOR_LINE,
                                          .ebx = SOFT_MONITOR_LINE,
                                          .ecx = SOFT_MONITOR_ECX,
                                          .edx = SOFT_MONITOR_EDX},
                err);
    if (r == 0 && host->max >= 7) {
        e = ask(7, 0);
        e.indexed = true;
        leaf_7(host, &e);
        bool more = e.eax;
        r = add(table, e, err);
        if (r == 0 && more) {
            e = ask(7, 1);
            e.indexed = true;
            leaf_7_1(host, &e);
            r = add(table, e, err);
        }
    }
    if (r == 0 && host->max >= 0xd)
        r = leaf_d(host, table, err);
    return r;
}

/* ---- Extended leaves ---- */

static void extended_1(const struct host *host, struct mull_cpuid_entry *e)
{
    /* LAHF, ABM, SSE4A, 3DNow prefetch, TOPOEXT. Not SVM, AltMovCr8, misaligned SSE, XOP, FMA4,
     * TBM, IBS, OSVW, SKINIT, WDT, LWP, performance counters, MWAITX. */
    uint32_t ecx = BIT(0) | BIT(5) | BIT(8);
    if (host->amd)
        ecx |= BIT(6) | BIT(22);
    e->ecx &= ecx;
    /* The bits that repeat leaf 1 (AMD), SYSCALL, NX, MMXEXT, FFXSR, 1 GiB pages, RDTSCP, LM. */
    uint32_t edx = BIT(11) | BIT(20) | BIT(29);
    if (host->amd)
        edx |= BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) |
               BIT(12) | BIT(13) | BIT(14) | BIT(15) | BIT(16) | BIT(17) | BIT(22) | BIT(23) |
               BIT(24) | BIT(25);
    e->edx &= edx;
    e->edx |= BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29);
}

static void extended_8(const struct host *host, struct mull_cpuid_entry *e)
{
    uint32_t physical = e->eax & 0xff;

    if (physical > PHYSICAL_BITS || physical < 32)
        physical = PHYSICAL_BITS;
    e->eax = 48u << 8 | physical;
    e->ebx &= host->amd ? BIT(0) | BIT(2) : 0; /* CLZERO, error pointers always restored */
    if (host->amd)
        e->ebx |= EXT8_EBX_BTC_NO;
    e->edx = 0;
}

static int extended(const struct host *host, struct mull_cpuid *table, struct mull_error *err)
{
    static const struct {
        uint32_t leaf;
        bool amd_only;
    } passed[] = {
        {0x80000002u, false}, {0x80000003u, false}, {0x80000004u, false},
        {0x80000005u, true},  {0x80000006u, false}, {0x8000001au, true},
    };
    struct mull_cpuid_entry e = ask(0x80000000u, 0);
    e.eax = host->amd ? 0x80000021u : 0x80000008u;
    int r = add(table, e, err);

    e = ask(0x80000001u, 0);
    extended_1(host, &e);
    if (r == 0)
        r = add(table, e, err);
    for (unsigned i = 0; r == 0 && i < sizeof(passed) / sizeof(passed[0]); i++)
        if (passed[i].leaf <= host->max_extended && (host->amd || !passed[i].amd_only))
            r = add(table, ask(passed[i].leaf, 0), err);
    if (r == 0) /* invariant TSC */
        r = add(table, (struct mull_cpuid_entry){.leaf = 0x80000007u, .edx = BIT(8)}, err);
    e = host->max_extended >= 0x80000008u ? ask(0x80000008u, 0)
                                          : (struct mull_cpuid_entry){.leaf = 0x80000008u};
    extended_8(host, &e);
    if (r == 0)
        r = add(table, e, err);
    if (r == 0 && host->amd && host->max_extended >= 0x8000001du)
        r = caches(table, 0x8000001du, err);
    if (r == 0 && host->amd && host->max_extended >= 0x8000001eu)
        r = add(table, ask(0x8000001eu, 0), err);
    if (r == 0 && host->amd) {
        e = host->max_extended >= 0x80000021u ? ask(0x80000021u, 0)
                                              : (struct mull_cpuid_entry){.leaf = 0x80000021u};
        e.eax &= BIT(2); /* LFENCE is serializing */
        e.eax |= BIT(6); /* a null selector clears the base */
        e.eax |= EXT21_EAX_AUTO_IBRS | EXT21_EAX_SRSO_NO;
        e.ecx = (e.ecx & EXT21_ECX_PASSED) | EXT21_ECX_TSA_NO;
        e.ebx = e.edx = 0;
        r = add(table, e, err);
    }
    return r;
}

int soft_cpuid_template(struct mull_cpuid *table, struct mull_error *err)
{
    struct mull_cpuid_entry vendor = ask(0, 0);
    struct host host = {
        .max = vendor.eax,
        .max_extended = ask(0x80000000u, 0).eax,
        .amd = vendor.ebx == signature_AMD_ebx || vendor.ebx == 0x6f677948u /* Hygon */,
    };

    if (host.max >= 0xd && (ask(1, 0).ecx & BIT(27))) {
        uint32_t lo, hi;
        __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
        host.xcr0 = lo;
    }
    if ((host.xcr0 & 0xe0) != 0xe0)
        host.xcr0 &= ~0xe0u;
    table->count = 0;
    int r = standard(&host, table, err);
    return r < 0 ? r : extended(&host, table, err);
}
