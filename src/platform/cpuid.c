/*
 * CPUID policy: topology, hypervisor and timing leaves put into an engine's template (Intel SDM
 * volume 2, CPUID; AMD APM volume 3, appendix E; Linux, Documentation/virt/kvm/x86/cpuid.rst).
 * Knows no engine.
 */
#include "platform/cpuid.h"

#include <errno.h>
#include <string.h>

#include "platform/lapic.h"

#define LEAF1_ECX_X2APIC (1u << 21)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define LEAF1_EDX_APIC (1u << 9)
#define LEAF1_EDX_HTT (1u << 28)
#define LEAF6_EAX_ARAT (1u << 2)
#define EXT1_ECX_CMP_LEGACY (1u << 1)
#define EXT1_ECX_EXTAPIC (1u << 3) /* registers from 400h on, which lapic.c has not */
#define EXT7_EDX_INVARIANT_TSC (1u << 8)

/* What a kernel's own 40000001h may pass on: clocks, steal time, PV EOI, unhalt, TLB flush, IPIs,
 * yield. Not asynchronous page faults: they make a guest's pages part of its CPU's state. */
#define KVM_FEATURES_PASSED 0x01002aebu

static struct mull_cpuid_entry *find(struct mull_cpuid *table, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < table->count; i++) {
        struct mull_cpuid_entry *e = &table->entry[i];
        if (e->leaf == leaf && (!e->indexed || e->subleaf == subleaf))
            return e;
    }
    return NULL;
}

static void drop(struct mull_cpuid *table, uint32_t leaf)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < table->count; i++)
        if (table->entry[i].leaf != leaf)
            table->entry[kept++] = table->entry[i];
    table->count = kept;
}

static int add(struct mull_cpuid *table, struct mull_cpuid_entry entry, struct mull_error *err)
{
    if (table->count >= MULL_CPUID_MAX)
        return mull_fail(err, E2BIG, "CPUID: more than %u leaves", MULL_CPUID_MAX);
    table->entry[table->count++] = entry;
    return 0;
}

/* How many bits hold APIC IDs 0 to cpus - 1. */
static unsigned id_bits(unsigned cpus)
{
    unsigned bits = 0;

    while (1u << bits < cpus)
        bits++;
    return bits;
}

static bool vendor_is(const struct mull_cpuid *table, const char *name)
{
    const struct mull_cpuid_entry *e = find((struct mull_cpuid *)table, 0, 0);
    char vendor[12];

    if (!e)
        return false;
    memcpy(vendor, &e->ebx, 4);
    memcpy(vendor + 4, &e->edx, 4);
    memcpy(vendor + 8, &e->ecx, 4);
    return memcmp(vendor, name, 12) == 0;
}

static bool amd(const struct mull_cpuid *table)
{
    return vendor_is(table, "AuthenticAMD") || vendor_is(table, "HygonGenuine");
}

/* ---- Features and identity ---- */

static void leaf_1(const struct mull_cpuid_policy *p, unsigned index, struct mull_cpuid *table)
{
    struct mull_cpuid_entry *e = find(table, 1, 0);

    if (!e)
        return;
    e->ebx = (e->ebx & 0xffff) | p->cpus << 16 | index << 24;
    e->ecx |= LEAF1_ECX_HYPERVISOR;
    e->edx &= ~LEAF1_EDX_HTT;
    if (p->cpus > 1)
        e->edx |= LEAF1_EDX_HTT;
    if (!p->has_lapic) {
        e->ecx |= LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE;
        e->edx |= LEAF1_EDX_APIC;
    }
}

/* Which vCPUs share a cache: the last level belongs to all, the others to one (leaves 4 and
 * 8000001Dh have this part in common). */
static void cache_sharing(const struct mull_cpuid_policy *p, struct mull_cpuid *table,
                          uint32_t leaf)
{
    for (unsigned i = 0; i < table->count; i++) {
        struct mull_cpuid_entry *e = &table->entry[i];
        if (e->leaf != leaf || !(e->eax & 31))
            continue;
        uint32_t sharing = (e->eax >> 5 & 7) >= 3 ? p->cpus - 1 : 0;
        e->eax = (e->eax & ~(0xfffu << 14)) | sharing << 14;
        if (leaf == 4) /* cores in the package */
            e->eax = (e->eax & 0x03ffffff) | (p->cpus - 1) << 26;
    }
}

/* Leaves 0Bh and 1Fh: a level for threads (one), a level for cores, the end. */
static int extended_topology(const struct mull_cpuid_policy *p, unsigned index,
                             struct mull_cpuid *table, uint32_t leaf, struct mull_error *err)
{
    const struct mull_cpuid_entry levels[] = {
        {.eax = 0, .ebx = 1, .ecx = 0 | 1 << 8},
        {.eax = id_bits(p->cpus), .ebx = p->cpus, .ecx = 1 | 2 << 8},
        {.eax = 0, .ebx = 0, .ecx = 2},
    };

    drop(table, leaf);
    for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        struct mull_cpuid_entry e = levels[i];
        e.leaf = leaf;
        e.subleaf = i;
        e.indexed = true;
        e.edx = index;
        int code = add(table, e, err);
        if (code < 0)
            return code;
    }
    return 0;
}

static int topology(const struct mull_cpuid_policy *p, unsigned index, struct mull_cpuid *table,
                    struct mull_error *err)
{
    const struct mull_cpuid_entry *base = find(table, 0, 0);
    struct mull_cpuid_entry *e;
    int code;

    leaf_1(p, index, table);
    cache_sharing(p, table, 4);
    cache_sharing(p, table, 0x8000001d);
    drop(table, 0x80000026); /* AMD's newer form: 0Bh says all there is */
    if ((code = extended_topology(p, index, table, 0xb, err)) < 0)
        return code;
    drop(table, 0x1f);
    if (base && base->eax >= 0x1f && (code = extended_topology(p, index, table, 0x1f, err)) < 0)
        return code;
    if (!amd(table))
        return 0;
    if ((e = find(table, 0x80000001, 0))) {
        e->ecx &= ~(EXT1_ECX_CMP_LEGACY | (p->has_lapic ? 0 : EXT1_ECX_EXTAPIC));
        if (p->cpus > 1)
            e->ecx |= EXT1_ECX_CMP_LEGACY;
    }
    if ((e = find(table, 0x80000008, 0)))
        e->ecx = (e->ecx & ~0xf0ffu) | id_bits(p->cpus) << 12 | (p->cpus - 1);
    if ((e = find(table, 0x8000001e, 0))) {
        e->eax = index;
        e->ebx = index; /* core ID, one thread a core */
        e->ecx = 0;     /* one node */
        e->edx = 0;
    }
    return 0;
}

/* ---- Addresses ---- */

#define USUAL_ADDRESS_BITS 40u

/* No more physical address bits than are of use: UEFI firmware maps all that there could be before
 * it starts, OVMF's 32-bit builds in pages of 2 MiB, and these tables would fill more than a small
 * machine's memory: 256 MiB of them for 46 bits. */
static void address_bits(const struct mull_cpuid_policy *p, struct mull_cpuid *table)
{
    struct mull_cpuid_entry *e = find(table, 0x80000008, 0);
    unsigned bits = USUAL_ADDRESS_BITS;

    if (!e || !p->address_end)
        return;
    while (bits < 52 && (p->address_end - 1) >> bits)
        bits++;
    if ((e->eax & 0xff) > bits)
        e->eax = (e->eax & 0xff00) | bits;
}

/* ---- Time ---- */

void mull_cpuid_tsc_ratio(uint64_t hz, uint32_t *numerator, uint32_t *denominator)
{
    /* Best approximations are the convergents of the continued fraction, and the semiconvergent
     * before the first that is too big. */
    uint64_t a = hz, b = 1000000000;
    uint64_t n0 = 0, d0 = 1, n1 = 1, d1 = 0;

    while (b) {
        uint64_t q = a / b, rest = a % b;
        uint64_t limit = n1 ? (4294 - n0) / n1 : q;
        if (d1 && (1000000 - d0) / d1 < limit)
            limit = (1000000 - d0) / d1;
        if (q > limit) {
            if (2 * limit > q && limit) {
                n1 = n0 + limit * n1;
                d1 = d0 + limit * d1;
            }
            break;
        }
        uint64_t n2 = n0 + q * n1, d2 = d0 + q * d1;
        n0 = n1;
        d0 = d1;
        n1 = n2;
        d1 = d2;
        a = b;
        b = rest;
    }
    *numerator = (uint32_t)n1;
    *denominator = d1 ? (uint32_t)d1 : 1;
}

static int timing(const struct mull_cpuid_policy *p, struct mull_cpuid *table,
                  struct mull_error *err)
{
    struct mull_cpuid_entry *e;
    uint32_t numerator, denominator, mhz = (uint32_t)(p->tsc_hz / 1000000);
    int code;

    drop(table, 0x15);
    drop(table, 0x16);
    mull_cpuid_tsc_ratio(p->tsc_hz, &numerator, &denominator);
    /* The crystal is also the clock of the local APIC's timer. */
    if ((code = add(
             table,
             (struct mull_cpuid_entry){
                 .leaf = 0x15, .eax = denominator, .ebx = numerator, .ecx = MULL_LAPIC_TIMER_HZ},
             err)) < 0 ||
        (code =
             add(table, (struct mull_cpuid_entry){.leaf = 0x16, .eax = mhz, .ebx = mhz, .ecx = 100},
                 err)) < 0)
        return code;
    if ((e = find(table, 0, 0)) && e->eax < 0x16)
        e->eax = 0x16;
    if (!(e = find(table, 6, 0))) {
        if ((code = add(table, (struct mull_cpuid_entry){.leaf = 6}, err)) < 0)
            return code;
        e = find(table, 6, 0);
    }
    e->eax |= LEAF6_EAX_ARAT;
    if ((e = find(table, 0x80000007, 0))) {
        e->edx |= EXT7_EDX_INVARIANT_TSC;
    } else {
        if ((code =
                 add(table,
                     (struct mull_cpuid_entry){.leaf = 0x80000007, .edx = EXT7_EDX_INVARIANT_TSC},
                     err)) < 0)
            return code;
        if ((e = find(table, 0x80000000, 0)) && e->eax < 0x80000007)
            e->eax = 0x80000007;
    }
    return 0;
}

/* ---- Hypervisor leaves ---- */

static int hypervisor(const struct mull_cpuid_policy *p, struct mull_cpuid *table,
                      struct mull_error *err)
{
    const struct mull_cpuid_entry *own = find(table, 0x40000001, 0);
    uint32_t features = own ? own->eax & KVM_FEATURES_PASSED : p->kvm_features;
    uint32_t signature[3];
    int code;

    for (uint32_t leaf = 0x40000000; leaf <= 0x40000010; leaf++)
        drop(table, leaf);
    memcpy(signature, p->vmware ? "VMwareVMware" : "KVMKVMKVM\0\0\0", 12);
    if ((code = add(table,
                    (struct mull_cpuid_entry){.leaf = 0x40000000,
                                              .eax = 0x40000010,
                                              .ebx = signature[0],
                                              .ecx = signature[1],
                                              .edx = signature[2]},
                    err)) < 0 ||
        (!p->vmware &&
         (code = add(table, (struct mull_cpuid_entry){.leaf = 0x40000001, .eax = features}, err)) <
             0))
        return code;
    return add(table,
               (struct mull_cpuid_entry){.leaf = 0x40000010,
                                         .eax = (uint32_t)(p->tsc_hz / 1000),
                                         .ebx = MULL_LAPIC_TIMER_HZ / 1000},
               err);
}

int mull_cpuid_apply(const struct mull_cpuid_policy *policy, unsigned index,
                     struct mull_cpuid *table, struct mull_error *err)
{
    int code;

    if (table->count > MULL_CPUID_MAX || policy->cpus < 1 || policy->cpus > MULL_MAX_CPUS ||
        index >= policy->cpus)
        return mull_fail(err, EINVAL, "CPUID: vCPU %u of %u, %u leaves", index, policy->cpus,
                         table->count);
    address_bits(policy, table);
    if ((code = topology(policy, index, table, err)) < 0 || (code = timing(policy, table, err)) < 0)
        return code;
    return hypervisor(policy, table, err);
}
