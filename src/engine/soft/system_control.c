/*
 * Control and debug registers, TLB invalidation, XCR0 (SDM volume 3, 2.5 to 2.8 and 4.10.4).
 */
#include "engine/soft/system.h"

#include <Zydis/Zydis.h>

#define CR0_VALID                                                                                  \
    (SOFT_CR0_PE | SOFT_CR0_MP | SOFT_CR0_EM | SOFT_CR0_TS | SOFT_CR0_ET | SOFT_CR0_NE |           \
     SOFT_CR0_WP | SOFT_CR0_AM | SOFT_CR0_NW | SOFT_CR0_CD | SOFT_CR0_PG)

static enum soft_result bad(struct soft_cpu *cpu)
{
    return soft_raise_error(cpu, SOFT_GP, 0);
}

/* Entering and leaving long mode with paging (SDM volume 3, 9.8.5). */
static enum soft_result change_paging(struct soft_cpu *cpu, bool on)
{
    struct mull_cpu_state *s = &cpu->s;

    if (!on) {
        if (soft_code64(cpu) || (s->cr4 & SOFT_CR4_PCIDE))
            return bad(cpu);
        s->efer &= ~SOFT_EFER_LMA;
        return SOFT_NEXT;
    }
    if (s->efer & SOFT_EFER_LME) {
        if (!(s->cr4 & SOFT_CR4_PAE) || (s->seg[MULL_CS].attr & MULL_SEG_L))
            return bad(cpu);
        s->efer |= SOFT_EFER_LMA;
    }
    return SOFT_NEXT;
}

static enum soft_result write_cr0(struct soft_cpu *cpu, uint64_t value)
{
    struct mull_cpu_state *s = &cpu->s;

    if (value >> 32)
        return bad(cpu);
    value = (value & CR0_VALID) | SOFT_CR0_ET;
    if (((value & SOFT_CR0_PG) && !(value & SOFT_CR0_PE)) ||
        ((value & SOFT_CR0_NW) && !(value & SOFT_CR0_CD)))
        return bad(cpu);
    uint64_t changed = s->cr0 ^ value;
    if (changed & SOFT_CR0_PG) {
        enum soft_result r = change_paging(cpu, value & SOFT_CR0_PG);
        if (r != SOFT_NEXT)
            return r;
    }
    s->cr0 = value;
    if (changed & (SOFT_CR0_PG | SOFT_CR0_WP | SOFT_CR0_PE))
        soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
    soft_mode_changed(cpu);
    return SOFT_NEXT;
}

static enum soft_result write_cr3(struct soft_cpu *cpu, uint64_t value)
{
    struct mull_cpu_state *s = &cpu->s;

    bool pcide = s->cr4 & SOFT_CR4_PCIDE, keep = pcide && value >> 63;

    if (pcide)
        value &= ~(1ull << 63);
    if (soft_long_mode(cpu) && (value & (cpu->mmu.reserved | 0xfff0000000000000ull)))
        return bad(cpu);
    s->cr3 = value;
    if (pcide)
        soft_tlb_switch(cpu, keep);
    else
        soft_tlb_flush(cpu, SOFT_FLUSH_NOT_GLOBAL);
    return SOFT_NEXT;
}

static enum soft_result write_cr4(struct soft_cpu *cpu, uint64_t value)
{
    struct mull_cpu_state *s = &cpu->s;
    uint64_t changed = s->cr4 ^ value;

    if (value & ~cpu->features.cr4)
        return bad(cpu);
    if (soft_long_mode(cpu) && !(value & SOFT_CR4_PAE))
        return bad(cpu);
    if ((changed & value & SOFT_CR4_PCIDE) && (!soft_long_mode(cpu) || (s->cr3 & 0xfff)))
        return bad(cpu);
    s->cr4 = value;
    if (changed & (SOFT_CR4_PSE | SOFT_CR4_PAE | SOFT_CR4_PGE | SOFT_CR4_PCIDE | SOFT_CR4_SMEP |
                   SOFT_CR4_SMAP))
        soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
    soft_mode_changed(cpu);
    return SOFT_NEXT;
}

static uint64_t read_cr8(struct soft_cpu *cpu)
{
    const struct mull_engine_bus *bus = cpu->vm->bus;

    if (!bus->cr8_read)
        return cpu->s.cr8;
    soft_vectors_park(cpu);
    return bus->cr8_read(bus->opaque, cpu->index);
}

static enum soft_result write_cr8(struct soft_cpu *cpu, uint64_t value)
{
    const struct mull_engine_bus *bus = cpu->vm->bus;

    if (value >> 4)
        return bad(cpu);
    cpu->s.cr8 = value;
    if (bus->cr8_write) {
        soft_vectors_park(cpu);
        bus->cr8_write(bus->opaque, cpu->index, (uint8_t)value);
    }
    return SOFT_NEXT;
}

static enum soft_result read_cr(struct soft_cpu *cpu, unsigned number, uint64_t *value)
{
    switch (number) {
    case 0:
        *value = cpu->s.cr0;
        return SOFT_NEXT;
    case 2:
        *value = cpu->s.cr2;
        return SOFT_NEXT;
    case 3:
        *value = cpu->s.cr3;
        return SOFT_NEXT;
    case 4:
        *value = cpu->s.cr4;
        return SOFT_NEXT;
    case 8:
        *value = read_cr8(cpu);
        return SOFT_NEXT;
    default:
        return soft_raise(cpu, SOFT_UD);
    }
}

static enum soft_result write_cr(struct soft_cpu *cpu, unsigned number, uint64_t value)
{
    switch (number) {
    case 0:
        return write_cr0(cpu, value);
    case 2:
        cpu->s.cr2 = value;
        return SOFT_NEXT;
    case 3:
        return write_cr3(cpu, value);
    case 4:
        return write_cr4(cpu, value);
    case 8:
        return write_cr8(cpu, value);
    default:
        return soft_raise(cpu, SOFT_UD);
    }
}

enum soft_result soft_sys_mov_cr(struct soft_cpu *cpu, const struct soft_insn *in)
{
    bool to_cr = in->op[0].reg >= ZYDIS_REGISTER_CR0 && in->op[0].reg <= ZYDIS_REGISTER_CR15;
    unsigned number = in->op[to_cr ? 0 : 1].reg - ZYDIS_REGISTER_CR0;
    enum soft_result r = soft_need_cpl0(cpu);
    uint64_t value = 0;

    if (r != SOFT_NEXT)
        return r;
    if (!to_cr) {
        r = read_cr(cpu, number, &value);
        if (r != SOFT_NEXT)
            return r;
        soft_reg_write(cpu, in->op[0].reg, value);
        return soft_done(cpu, in);
    }
    r = write_cr(cpu, number, soft_reg_read(cpu, in->op[1].reg));
    if (r != SOFT_NEXT)
        return r;
    return number == 2 ? soft_done(cpu, in) : soft_done_jump(cpu, in);
}

/* ---- Debug registers (SDM volume 3, 17.2) ---- */

#define DR6_FIXED 0xffff0ff0ull
#define DR6_VALID 0x0000e00full
#define DR7_FIXED 0x400ull
#define DR7_VALID 0xffff2bffull
#define DR7_GD 0x2000ull
#define DR6_BD 0x2000ull

enum soft_result soft_sys_mov_dr(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;
    bool to_dr = in->op[0].reg >= ZYDIS_REGISTER_DR0 && in->op[0].reg <= ZYDIS_REGISTER_DR15;
    unsigned number = in->op[to_dr ? 0 : 1].reg - ZYDIS_REGISTER_DR0;
    enum soft_result r = soft_need_cpl0(cpu);

    if (r != SOFT_NEXT)
        return r;
    if (number > 7 || ((number == 4 || number == 5) && (s->cr4 & SOFT_CR4_DE)))
        return soft_raise(cpu, SOFT_UD);
    if (number == 4 || number == 5)
        number += 2;
    if (s->dr[7] & DR7_GD) {
        soft_raise(cpu, SOFT_DB);
        cpu->fault.address = DR6_BD;
        return SOFT_FAULT;
    }
    if (!to_dr) {
        soft_reg_write(cpu, in->op[0].reg, s->dr[number]);
        return soft_done(cpu, in);
    }
    uint64_t value = soft_reg_read(cpu, in->op[1].reg);
    if (number >= 6) {
        if (value >> 32)
            return bad(cpu);
        value = number == 6 ? (value & DR6_VALID) | DR6_FIXED : (value & DR7_VALID) | DR7_FIXED;
    }
    s->dr[number] = value;
    soft_debug_changed(cpu);
    return soft_done_jump(cpu, in);
}

/* ---- LMSW, SMSW, CLTS ---- */

enum soft_result soft_sys_lmsw(struct soft_cpu *cpu, const struct soft_insn *in)
{
    enum soft_result r = soft_need_cpl0(cpu);
    uint64_t value;

    if (r == SOFT_NEXT)
        r = soft_operand_read(cpu, in, &in->op[0], &value);
    if (r != SOFT_NEXT)
        return r;
    /* The low four bits; PE can be set but not cleared. */
    uint64_t cr0 = (cpu->s.cr0 & ~0xeull) | (value & 0xf);
    r = write_cr0(cpu, cr0);
    return r == SOFT_NEXT ? soft_done_jump(cpu, in) : r;
}

enum soft_result soft_sys_smsw(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if ((cpu->s.cr4 & SOFT_CR4_UMIP) && soft_cpl(cpu))
        return bad(cpu);
    enum soft_result r = soft_operand_write(cpu, in, &in->op[0], cpu->s.cr0);
    return r == SOFT_NEXT ? soft_done(cpu, in) : r;
}

enum soft_result soft_sys_clts(struct soft_cpu *cpu, const struct soft_insn *in)
{
    enum soft_result r = soft_need_cpl0(cpu);

    if (r != SOFT_NEXT)
        return r;
    cpu->s.cr0 &= ~SOFT_CR0_TS;
    soft_mode_changed(cpu);
    return soft_done_jump(cpu, in);
}

/* ---- TLB ---- */

enum soft_result soft_sys_invlpg(struct soft_cpu *cpu, const struct soft_insn *in)
{
    enum soft_result r = soft_need_cpl0(cpu);
    const struct soft_operand *op = &in->op[0];

    if (r != SOFT_NEXT)
        return r;
    uint64_t va = soft_operand_offset(cpu, in, op, 0);
    if (!soft_code64(cpu) || op->seg == MULL_FS || op->seg == MULL_GS)
        va += cpu->s.seg[op->seg].base;
    if (!soft_long_mode(cpu))
        va &= 0xffffffffu;
    if (soft_canonical(va))
        soft_tlb_flush_page(cpu, va);
    return soft_done_jump(cpu, in);
}

enum soft_result soft_sys_invpcid(struct soft_cpu *cpu, const struct soft_insn *in)
{
    enum soft_result r = soft_need_cpl0(cpu);
    uint64_t desc[2], va;

    if (r != SOFT_NEXT)
        return r;
    uint64_t type = soft_reg_read(cpu, in->op[0].reg);
    r = soft_linear(cpu, in->op[1].seg, soft_operand_offset(cpu, in, &in->op[1], 0), 16, SOFT_READ,
                    &va);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va, desc, 16, SOFT_READ);
    if (r != SOFT_NEXT)
        return r;
    bool pcide = cpu->s.cr4 & SOFT_CR4_PCIDE;
    uint64_t pcid = desc[0];
    if (type > 3 || pcid > 0xfff || (type < 2 && !pcide && pcid) ||
        (type == 0 && !soft_canonical(desc[1])))
        return bad(cpu);
    bool current = !pcide || pcid == (cpu->s.cr3 & 0xfff);
    if (type == 0 && current)
        soft_tlb_flush_page(cpu, desc[1]);
    else if (type < 2)
        soft_tlb_flush_pcid(cpu, pcide ? pcid : cpu->s.cr3 & 0xfff);
    else
        soft_tlb_flush(cpu, type == 2 ? SOFT_FLUSH_ALL : SOFT_FLUSH_ALL_LOCAL);
    return soft_done_jump(cpu, in);
}

/* ---- XCR0 ---- */

enum soft_result soft_sys_xgetbv(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;
    uint32_t index = (uint32_t)s->gpr[MULL_RCX];
    uint64_t value = s->xcr0;

    if (!(s->cr4 & SOFT_CR4_OSXSAVE))
        return soft_raise(cpu, SOFT_UD);
    if (index > 1)
        return bad(cpu);
    if (index == 1) { /* XINUSE */
        soft_vectors_park(cpu);
        value &= *(const uint64_t *)(const void *)(s->xsave + 512);
    }
    s->gpr[MULL_RAX] = (uint32_t)value;
    s->gpr[MULL_RDX] = value >> 32;
    return soft_done(cpu, in);
}

enum soft_result soft_sys_xsetbv(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;
    uint64_t value = (uint32_t)s->gpr[MULL_RAX] | s->gpr[MULL_RDX] << 32;

    if (!(s->cr4 & SOFT_CR4_OSXSAVE))
        return soft_raise(cpu, SOFT_UD);
    if (soft_cpl(cpu) || (uint32_t)s->gpr[MULL_RCX] != 0 || (value & ~cpu->features.xcr0) ||
        !(value & 1) || (value & 6) == 4)
        return bad(cpu);
    if ((value & 0xe0) && ((value & 0xe0) != 0xe0 || !(value & 4)))
        return bad(cpu);
    s->xcr0 = value;
    soft_mode_changed(cpu);
    return soft_done_jump(cpu, in);
}
