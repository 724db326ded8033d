/*
 * CPUID as the guest sees it, and what follows from the table for the rest of the engine. The table
 * was made by cpuid_template.c and the platform.
 */
#include <cpuid.h>

#include "engine/soft/system.h"

static const struct mull_cpuid_entry *find(const struct soft_cpu *cpu, uint32_t leaf,
                                           uint32_t subleaf)
{
    const struct mull_cpuid *table = cpu->cpuid;

    for (unsigned i = 0; i < table->count && i < MULL_CPUID_MAX; i++) {
        const struct mull_cpuid_entry *e = &table->entry[i];
        if (e->leaf == leaf && (!e->indexed || e->subleaf == subleaf))
            return e;
    }
    return NULL;
}

/* Bytes of the XSAVE area for the components of @mask. */
static uint32_t xsave_area(const struct soft_cpu *cpu, uint64_t mask, bool compacted)
{
    const struct soft_features *f = &cpu->features;
    uint32_t size = 576;

    for (unsigned i = 2; i < 8; i++) {
        if (!(mask >> i & 1))
            continue;
        if (!compacted) {
            uint32_t end = (uint32_t)f->xsave_offset[i] + f->xsave_size[i];
            size = end > size ? end : size;
        } else {
            if (f->xsave_align >> i & 1)
                size = (size + 63) & ~63u;
            size += f->xsave_size[i];
        }
    }
    return size;
}

void soft_cpuid(struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    const struct mull_cpu_state *s = &cpu->s;
    const struct mull_cpuid_entry *e = find(cpu, leaf, subleaf);

    regs[0] = e ? e->eax : 0;
    regs[1] = e ? e->ebx : 0;
    regs[2] = e ? e->ecx : 0;
    regs[3] = e ? e->edx : 0;
    if (!e)
        return;
    switch (leaf) {
    case 1:
        regs[2] &= ~(1u << 27); /* OSXSAVE */
        if (s->cr4 & SOFT_CR4_OSXSAVE)
            regs[2] |= 1u << 27;
        if (!(s->apic_base & 0x800))
            regs[3] &= ~(1u << 9);
        break;
    case 0xd:
        if (subleaf == 0)
            regs[1] = xsave_area(cpu, s->xcr0, false);
        else if (subleaf == 1)
            regs[1] = xsave_area(cpu, s->xcr0 | s->xss, true);
        break;
    default:
        break;
    }
}

/* The control register bits that CPUID offers (SDM volume 3, 2.5). */
static uint64_t cr4_bits(const struct soft_cpu *cpu)
{
    const struct mull_cpuid_entry *e1 = find(cpu, 1, 0), *e7 = find(cpu, 7, 0);
    uint32_t ecx1 = e1 ? e1->ecx : 0, edx1 = e1 ? e1->edx : 0;
    uint32_t ebx7 = e7 ? e7->ebx : 0, ecx7 = e7 ? e7->ecx : 0;
    uint64_t bits = SOFT_CR4_DE | SOFT_CR4_PSE | SOFT_CR4_PAE | SOFT_CR4_PGE | SOFT_CR4_TSD |
                    SOFT_CR4_PCE | 0x40 /* MCE */ | SOFT_CR4_OSXMMEXCPT | SOFT_CR4_OSFXSR;

    if (edx1 & 1u << 1)
        bits |= SOFT_CR4_VME | SOFT_CR4_PVI;
    if (ecx1 & 1u << 26)
        bits |= SOFT_CR4_OSXSAVE;
    if (ecx1 & 1u << 17)
        bits |= SOFT_CR4_PCIDE;
    if (ebx7 & 1u << 0)
        bits |= SOFT_CR4_FSGSBASE;
    if (ebx7 & 1u << 7)
        bits |= SOFT_CR4_SMEP;
    if (ebx7 & 1u << 20)
        bits |= SOFT_CR4_SMAP;
    if (ecx7 & 1u << 2)
        bits |= SOFT_CR4_UMIP;
    return bits;
}

static uint64_t efer_bits(const struct soft_cpu *cpu)
{
    const struct mull_cpuid_entry *e = find(cpu, 0x80000001u, 0);
    const struct mull_cpuid_entry *e21 = find(cpu, 0x80000021u, 0);
    uint64_t bits = SOFT_EFER_SCE | SOFT_EFER_LME | SOFT_EFER_LMA;

    if (e && (e->edx & 1u << 20))
        bits |= SOFT_EFER_NXE;
    if (e && (e->edx & 1u << 25))
        bits |= 1u << 14; /* FFXSR */
    if (e21 && (e21->eax & 1u << 8))
        bits |= 1u << 21; /* automatic IBRS */
    return bits;
}

/* The host's own instructions write XSAVE areas: a component is offered only if the table has it
 * where they put it, whoever made the table. */
static void xsave_layout(struct soft_cpu *cpu)
{
    struct soft_features *f = &cpu->features;
    const struct mull_cpuid_entry *e = find(cpu, 0xd, 0);
    uint32_t eax, ebx, ecx, edx;

    f->xcr0 = e ? e->eax & cpu->xsave_mask & 0xe7 : cpu->xsave_mask & 3;
    if (__get_cpuid_count(0xd, 1, &eax, &ebx, &ecx, &edx))
        f->xsaveopt = eax & 1;
    for (unsigned i = 2; i < 8; i++) {
        f->xsave_offset[i] = f->xsave_size[i] = 0;
        if (!(f->xcr0 >> i & 1))
            continue;
        e = find(cpu, 0xd, i);
        bool same = e && __get_cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx) && e->eax == eax &&
                    e->ebx == ebx && ((e->ecx ^ ecx) & 2) == 0;
        if (!same || ebx < 576 || ebx > MULL_XSAVE_SIZE || eax > MULL_XSAVE_SIZE - ebx) {
            f->xcr0 &= ~(1ull << i);
            continue;
        }
        f->xsave_offset[i] = (uint16_t)ebx;
        f->xsave_size[i] = (uint16_t)eax;
        if (ecx & 2)
            f->xsave_align |= (uint8_t)(1u << i);
    }
    if (!(f->xcr0 & 4))
        f->xcr0 &= 3;
    if ((f->xcr0 & 0xe0) != 0xe0)
        f->xcr0 &= ~0xe0ull;
}

/* MXCSR_MASK is in the FXSAVE image (SDM volume 1, 11.6.6). */
static uint32_t host_mxcsr_mask(void)
{
    uint8_t image[512] __attribute__((aligned(16)));
    uint32_t mask;

    soft_zero(image, sizeof(image));
    __asm__ volatile("fxsave64 %0" : "=m"(image));
    mask = *(const uint32_t *)(const void *)(image + 28);
    return mask ? mask : 0xffbf;
}

void soft_features_update(struct soft_cpu *cpu)
{
    struct soft_features *f = &cpu->features;
    const struct mull_cpuid_entry *e = find(cpu, 0, 0);

    f->known = true;
    f->amd = e && (e->ebx == 0x68747541u || e->ebx == 0x6f677948u); /* "Auth", "Hygo" */
    f->cr4 = cr4_bits(cpu);
    const struct mull_cpuid_entry *e1 = find(cpu, 1, 0);
    f->monitor = e1 && (e1->ecx & 1u << 3);
    const struct mull_cpuid_entry *e7 = find(cpu, 7, 0);
    f->arch_capabilities = e7 && (e7->edx & 1u << 29);
    f->efer = efer_bits(cpu);
    f->mxcsr = host_mxcsr_mask();
    xsave_layout(cpu);

    /* Physical address bits that are not offered are reserved in page tables. */
    e = find(cpu, 0x80000008u, 0);
    unsigned bits = e ? e->eax & 0xff : 46;
    if (bits < 32 || bits > 51)
        bits = 46;
    cpu->mmu.reserved = ((1ull << 52) - 1) & ~((1ull << bits) - 1);
}
