/*
 * Virtual interrupts (SDM volume 3, 20.3 and 20.4): with CR4.VME, virtual-8086 code at IOPL 0 to 2
 * has an IF of its own, EFLAGS.VIF, and takes software interrupts through its own table where the
 * TSS lets it; with CR4.PVI, CLI and STI of ring 3 move VIF, too. Without them these instructions
 * are #GP(0).
 */
#include "engine/soft/system.h"

static enum soft_result general_protection(struct soft_cpu *cpu)
{
    return soft_raise_error(cpu, SOFT_GP, 0);
}

static bool full_iopl(const struct soft_cpu *cpu)
{
    return (cpu->s.rflags & SOFT_IOPL) == SOFT_IOPL;
}

static bool has_virtual_if(const struct soft_cpu *cpu)
{
    if (cpu->mode & SOFT_MODE_VM86)
        return cpu->s.cr4 & SOFT_CR4_VME;
    return (cpu->mode & SOFT_MODE_CPL3) && (cpu->s.cr4 & SOFT_CR4_PVI);
}

enum soft_result soft_virtual_cli(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if (!has_virtual_if(cpu))
        return general_protection(cpu);
    cpu->s.rflags &= ~(uint64_t)SOFT_VIF;
    return soft_done(cpu, in);
}

enum soft_result soft_virtual_sti(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if (!has_virtual_if(cpu) || (cpu->s.rflags & SOFT_VIP))
        return general_protection(cpu);
    cpu->s.rflags |= SOFT_VIF;
    return soft_done(cpu, in);
}

enum soft_result soft_virtual_flags(struct soft_cpu *cpu, unsigned size, uint64_t *image)
{
    if (!has_virtual_if(cpu) || size != 2)
        return general_protection(cpu);
    *image = (cpu->s.rflags & ~(uint64_t)SOFT_IF) | SOFT_IOPL | 2;
    if (cpu->s.rflags & SOFT_VIF)
        *image |= SOFT_IF;
    return SOFT_NEXT;
}

enum soft_result soft_set_virtual_flags(struct soft_cpu *cpu, unsigned size, uint64_t image)
{
    const uint64_t mask = SOFT_ARITH_FLAGS | SOFT_DF | SOFT_NT;
    uint64_t *flags = &cpu->s.rflags;

    if (!has_virtual_if(cpu) || size != 2 || (image & SOFT_TF) ||
        ((image & SOFT_IF) && (*flags & SOFT_VIP)))
        return general_protection(cpu);
    *flags = (*flags & ~(mask | SOFT_TF | SOFT_VIF)) | (image & mask);
    if (image & SOFT_IF)
        *flags |= SOFT_VIF;
    return SOFT_NEXT;
}

/* The interrupt redirection map of the TSS, in front of the I/O permission map: a clear bit keeps
 * INT n in the mode. */
static enum soft_result read_redirection(struct soft_cpu *cpu, uint8_t vector, bool *stays)
{
    const struct mull_segment *tr = &cpu->s.seg[MULL_TR];
    uint16_t map;
    uint8_t bits;

    if ((tr->attr & MULL_SEG_UNUSABLE) || tr->limit < 103)
        return general_protection(cpu);
    enum soft_result r = soft_read(cpu, tr->base + 102, &map, 2, SOFT_READ | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;
    if (map < 32 || map - 32u + vector / 8u > tr->limit)
        return general_protection(cpu);
    r = soft_read(cpu, tr->base + map - 32u + vector / 8u, &bits, 1, SOFT_READ | SOFT_SYSTEM);
    *stays = !(bits >> (vector & 7) & 1);
    return r;
}

/* Through the table at linear address 0, as in real mode. */
static enum soft_result interrupt_inside(struct soft_cpu *cpu, uint8_t vector, unsigned length)
{
    struct mull_cpu_state *s = &cpu->s;
    uint64_t rsp = s->gpr[MULL_RSP], flags = s->rflags;
    uint32_t entry;

    enum soft_result r = soft_read(cpu, vector * 4u, &entry, 4, SOFT_READ | SOFT_SYSTEM);
    if (r == SOFT_NEXT && !full_iopl(cpu))
        r = soft_virtual_flags(cpu, 2, &flags);
    const uint16_t push[3] = {(uint16_t)flags, s->seg[MULL_CS].selector,
                              (uint16_t)(s->rip + length)};
    for (unsigned i = 0; r == SOFT_NEXT && i < 3; i++)
        r = soft_stack_store(cpu, &rsp, push[i], 2);
    if (r != SOFT_NEXT)
        return r;
    soft_stack_set(cpu, rsp);
    s->rflags &= ~(uint64_t)(SOFT_TF | (full_iopl(cpu) ? SOFT_IF : SOFT_VIF));
    soft_real_segment(cpu, MULL_CS, (uint16_t)(entry >> 16));
    s->rip = entry & 0xffff;
    soft_level_changed(cpu);
    return SOFT_JUMP;
}

enum soft_result soft_vm86_interrupt(struct soft_cpu *cpu, uint8_t vector, unsigned length)
{
    bool stays = false;

    if (cpu->s.cr4 & SOFT_CR4_VME) {
        enum soft_result r = read_redirection(cpu, vector, &stays);
        if (r != SOFT_NEXT)
            return r;
    }
    if (stays)
        return interrupt_inside(cpu, vector, length);
    if (!full_iopl(cpu))
        return general_protection(cpu);
    return soft_software_interrupt(cpu, vector, length);
}
