/*
 * What follows from the control registers, segments and flags: the mode that translations are made
 * for, and the TLB window that translated code runs with.
 */
#include "engine/soft/system.h"

/* Usable for any access that 32-bit code makes, without a base or a limit to check. */
static bool flat(const struct mull_segment *seg)
{
    if (seg->base != 0 || seg->limit != 0xffffffffu || (seg->attr & MULL_SEG_UNUSABLE))
        return false;
    if (!(seg->attr & MULL_SEG_P) || !(seg->attr & SOFT_TYPE_WRITE))
        return false;
    return !(seg->attr & (SOFT_TYPE_CODE | SOFT_TYPE_DOWN));
}

static uint32_t code_limit_mode(const struct mull_segment *cs)
{
    if (cs->limit == 0xffffffffu)
        return 0;
    return cs->limit == 0xffffu ? SOFT_MODE_CODE_64K : SOFT_MODE_CODE_ODD;
}

static uint32_t segment_mode(const struct mull_cpu_state *s)
{
    const struct mull_segment *seg = s->seg;
    uint32_t mode = 0;

    if ((s->efer & SOFT_EFER_LMA) && (seg[MULL_CS].attr & MULL_SEG_L))
        return SOFT_MODE_CODE64;
    if (seg[MULL_CS].attr & MULL_SEG_DB)
        mode |= SOFT_MODE_CODE32;
    if (seg[MULL_SS].attr & MULL_SEG_DB)
        mode |= SOFT_MODE_STACK32;
    if (flat(&seg[MULL_DS]) && flat(&seg[MULL_ES]) && flat(&seg[MULL_SS]))
        mode |= SOFT_MODE_FLAT;
    return mode | code_limit_mode(&seg[MULL_CS]);
}

/* See soft_cpu.segment_room: what soft_linear() decides, for translated code. */
static void update_room(struct soft_cpu *cpu)
{
    for (unsigned i = 0; i < 6; i++) {
        const struct mull_segment *seg = &cpu->s.seg[i];
        bool data = (seg->attr & (SOFT_TYPE_CODE | SOFT_TYPE_DOWN)) == 0;
        bool code = seg->attr & SOFT_TYPE_CODE;
        bool real = soft_real_segments(cpu);
        int64_t room = -(int64_t)seg->limit - 1;

        if ((seg->attr & MULL_SEG_UNUSABLE) || (!data && !code))
            room = 0;
        cpu->segment_room[0][i] = real || data || (seg->attr & SOFT_TYPE_READ) ? room : 0;
        cpu->segment_room[1][i] = real || (data && (seg->attr & SOFT_TYPE_WRITE)) ? room : 0;
    }
}

static uint32_t vector_mode(const struct mull_cpu_state *s)
{
    uint32_t mode = 0;

    if (s->cr0 & (SOFT_CR0_EM | SOFT_CR0_TS))
        mode |= SOFT_MODE_NO_X87;
    if ((s->cr0 & (SOFT_CR0_EM | SOFT_CR0_TS)) || !(s->cr4 & SOFT_CR4_OSFXSR))
        mode |= SOFT_MODE_NO_SSE;
    bool xsave = (s->cr4 & SOFT_CR4_OSXSAVE) && !(s->cr0 & SOFT_CR0_TS);
    if (!xsave || (s->xcr0 & 6) != 6)
        mode |= SOFT_MODE_NO_AVX;
    if (!xsave || (s->xcr0 & 0xe6) != 0xe6)
        mode |= SOFT_MODE_NO_AVX512;
    return mode;
}

/* What follows from control registers alone. */
static uint32_t control_mode(const struct mull_cpu_state *s)
{
    uint32_t mode = vector_mode(s);

    if (s->cr0 & SOFT_CR0_PG)
        mode |= SOFT_MODE_PAGING;
    if (s->cr0 & SOFT_CR0_PE)
        mode |= SOFT_MODE_PROTECTED;
    if (s->cr4 & SOFT_CR4_SMAP)
        mode |= SOFT_MODE_SMAP;
    if (s->cr4 & SOFT_CR4_TSD)
        mode |= SOFT_MODE_TSD;
    for (unsigned n = 0; n < 4; n++) /* enabled, R/W 00: on execution */
        if ((s->dr[7] >> (2 * n) & 3) && !(s->dr[7] >> (16 + 4 * n) & 3))
            mode |= SOFT_MODE_DEBUG;
    if (!(s->cr4 & SOFT_CR4_FSGSBASE))
        mode |= SOFT_MODE_NO_FSGSBASE;
    return mode;
}

static uint32_t level_mode(const struct mull_cpu_state *s)
{
    uint32_t dpl = s->seg[MULL_SS].attr & MULL_SEG_DPL;

    if (!(s->cr0 & SOFT_CR0_PE))
        return 0;
    if (s->rflags & SOFT_VM)
        return SOFT_MODE_VM86 | SOFT_MODE_CPL3;
    if (dpl == MULL_SEG_DPL)
        return SOFT_MODE_CPL3;
    return dpl ? SOFT_MODE_CPL12 : 0;
}

#define LEVEL_MODE                                                                                 \
    (SOFT_MODE_CODE64 | SOFT_MODE_CODE32 | SOFT_MODE_STACK32 | SOFT_MODE_FLAT | SOFT_MODE_CPL3 |   \
     SOFT_MODE_CPL12 | SOFT_MODE_VM86 | SOFT_MODE_CODE_64K | SOFT_MODE_CODE_ODD)

void soft_level_changed(struct soft_cpu *cpu)
{
    const struct mull_cpu_state *s = &cpu->s;
    uint32_t mode = (cpu->mode & ~LEVEL_MODE) | segment_mode(s) | level_mode(s);

    cpu->mode = mode;
    if (!(mode & SOFT_MODE_CODE64))
        update_room(cpu);
    if (mode & SOFT_MODE_CPL3)
        cpu->window_id = SOFT_WIN_USER;
    else if ((mode & SOFT_MODE_SMAP) && !(s->rflags & SOFT_AC))
        cpu->window_id = SOFT_WIN_KERNEL;
    else
        cpu->window_id = SOFT_WIN_KERNEL_AC;
    cpu->gs_base = (uint64_t)(uintptr_t)cpu->window[cpu->window_id];
}

void soft_mode_changed(struct soft_cpu *cpu)
{
    if (!cpu->features.known)
        soft_features_update(cpu);
    cpu->mode = control_mode(&cpu->s);
    soft_level_changed(cpu);
}
