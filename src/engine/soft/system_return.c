/*
 * IRET and the far RET in all modes (SDM volume 2, IRET and RET; volume 3, 5.8.6 and 6.12).
 */
#include "engine/soft/system.h"

static enum soft_result selector_fault(struct soft_cpu *cpu, uint8_t vector, uint16_t selector)
{
    return soft_raise_error(cpu, vector, selector & 0xfffcu);
}

/* What comes off the stack. */
struct frame {
    uint64_t rip, flags, rsp;
    uint16_t cs, ss;
};

static enum soft_result return_cs(struct soft_cpu *cpu, const struct frame *f,
                                  struct mull_segment *cs)
{
    uint16_t selector = f->cs;
    unsigned rpl = selector & 3u;
    struct soft_desc desc;

    if (!(selector & 0xfffc))
        return soft_raise_error(cpu, SOFT_GP, 0);
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_GP, 0, &desc);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(desc.hi), dpl = SOFT_DESC_DPL(desc.hi);
    if (rpl < soft_cpl(cpu) || !(desc.hi & SOFT_DESC_S) || !(type & SOFT_TYPE_CODE))
        return selector_fault(cpu, SOFT_GP, selector);
    if (type & SOFT_TYPE_CONFORMING ? dpl > rpl : dpl != rpl)
        return selector_fault(cpu, SOFT_GP, selector);
    if (soft_long_mode(cpu) && (desc.hi & SOFT_DESC_L) && (desc.hi & SOFT_DESC_DB))
        return selector_fault(cpu, SOFT_GP, selector);
    if (!(desc.hi & SOFT_DESC_P))
        return selector_fault(cpu, SOFT_NP, selector);
    soft_desc_to_segment(&desc, selector, cs);
    r = soft_check_rip(cpu, cs, f->rip);
    return r == SOFT_NEXT ? soft_set_accessed(cpu, &desc) : r;
}

static enum soft_result return_ss(struct soft_cpu *cpu, const struct frame *f,
                                  const struct mull_segment *cs, struct mull_segment *ss)
{
    uint16_t selector = f->ss;
    unsigned rpl = f->cs & 3u;
    struct soft_desc desc;

    if (!(selector & 0xfffc)) {
        if (!soft_long_mode(cpu) || !(cs->attr & MULL_SEG_L) || rpl == 3)
            return soft_raise_error(cpu, SOFT_GP, 0);
        soft_null_stack(ss, rpl);
        ss->selector = selector;
        return SOFT_NEXT;
    }
    if ((selector & 3u) != rpl)
        return selector_fault(cpu, SOFT_GP, selector);
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_GP, 0, &desc);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(desc.hi);
    if (!(desc.hi & SOFT_DESC_S) || (type & SOFT_TYPE_CODE) || !(type & SOFT_TYPE_WRITE) ||
        SOFT_DESC_DPL(desc.hi) != rpl)
        return selector_fault(cpu, SOFT_GP, selector);
    if (!(desc.hi & SOFT_DESC_P))
        return selector_fault(cpu, SOFT_SS, selector);
    soft_desc_to_segment(&desc, selector, ss);
    return soft_set_accessed(cpu, &desc);
}

void soft_drop_segments(struct soft_cpu *cpu)
{
    static const uint8_t data[] = {MULL_ES, MULL_DS, MULL_FS, MULL_GS};
    unsigned cpl = soft_cpl(cpu);

    for (unsigned i = 0; i < sizeof(data); i++) {
        struct mull_segment *seg = &cpu->s.seg[data[i]];
        if ((seg->attr & MULL_SEG_UNUSABLE) || !(seg->attr & MULL_SEG_S))
            continue;
        unsigned dpl = (seg->attr & MULL_SEG_DPL) >> MULL_SEG_DPL_SHIFT;
        bool conforming = (seg->attr & SOFT_TYPE_CODE) && (seg->attr & SOFT_TYPE_CONFORMING);
        if (dpl < cpl && !conforming) {
            uint64_t base = seg->base;
            soft_null_segment(seg, 0);
            if (soft_long_mode(cpu))
                seg->base = base;
        }
    }
}

/* Commit a return: CS:RIP, and SS:RSP where they changed. */
static void enter(struct soft_cpu *cpu, const struct frame *f, const struct mull_segment *cs,
                  const struct mull_segment *ss)
{
    struct mull_cpu_state *s = &cpu->s;
    unsigned before = soft_cpl(cpu);

    s->seg[MULL_CS] = *cs;
    s->rip = f->rip;
    if (ss) {
        s->seg[MULL_SS] = *ss;
        bool small = !(cs->attr & MULL_SEG_L) && !(ss->attr & MULL_SEG_DB);
        s->gpr[MULL_RSP] = small ? (s->gpr[MULL_RSP] & ~0xffffull) | (f->rsp & 0xffff) : f->rsp;
    }
    soft_level_changed(cpu);
    if (soft_cpl(cpu) > before)
        soft_drop_segments(cpu);
}

/* ---- Far RET ---- */

static enum soft_result real_far_return(struct soft_cpu *cpu, uint64_t sp, const struct frame *f)
{
    if (f->rip > cpu->s.seg[MULL_CS].limit)
        return soft_raise_error(cpu, SOFT_GP, 0);
    soft_real_segment(cpu, MULL_CS, f->cs);
    cpu->s.rip = f->rip;
    soft_stack_set(cpu, sp);
    soft_level_changed(cpu);
    return SOFT_JUMP;
}

enum soft_result soft_sys_far_return(struct soft_cpu *cpu, const struct soft_insn *in)
{
    unsigned size = in->operand_size;
    uint64_t release = in->op[0].kind == SOFT_OP_IMM ? (uint16_t)in->op[0].value : 0;
    uint64_t sp = cpu->s.gpr[MULL_RSP], value = 0;
    struct mull_segment cs, ss;
    struct frame f = {0};

    enum soft_result r = soft_stack_load(cpu, &sp, &f.rip, size);
    if (r == SOFT_NEXT)
        r = soft_stack_load(cpu, &sp, &value, size);
    if (r != SOFT_NEXT)
        return r;
    f.cs = (uint16_t)value;
    sp += release;
    if (soft_real_segments(cpu))
        return real_far_return(cpu, sp, &f);
    r = return_cs(cpu, &f, &cs);
    if (r != SOFT_NEXT)
        return r;
    if ((f.cs & 3u) == soft_cpl(cpu)) {
        soft_stack_set(cpu, sp);
        enter(cpu, &f, &cs, NULL);
        return SOFT_JUMP;
    }
    r = soft_stack_load(cpu, &sp, &f.rsp, size);
    if (r == SOFT_NEXT)
        r = soft_stack_load(cpu, &sp, &value, size);
    f.ss = (uint16_t)value;
    if (r == SOFT_NEXT)
        r = return_ss(cpu, &f, &cs, &ss);
    if (r != SOFT_NEXT)
        return r;
    f.rsp += release;
    enter(cpu, &f, &cs, &ss);
    return SOFT_JUMP;
}

/* ---- IRET ---- */

void soft_set_flags(struct soft_cpu *cpu, uint64_t flags, unsigned size)
{
    struct mull_cpu_state *s = &cpu->s;
    unsigned cpl = soft_cpl(cpu), iopl = (s->rflags & SOFT_IOPL) >> 12;
    uint64_t mask = SOFT_ARITH_FLAGS | SOFT_TF | SOFT_DF | SOFT_NT;

    if (size > 2)
        mask |= SOFT_AC | SOFT_ID;
    if (cpl == 0)
        mask |= SOFT_IOPL;
    if (cpl <= iopl)
        mask |= SOFT_IF;
    s->rflags = (((s->rflags & ~mask) | (flags & mask)) & ~(uint64_t)SOFT_RF) | 2;
}

static enum soft_result iret_done(struct soft_cpu *cpu)
{
    if (cpu->s.nmi_blocked) {
        cpu->s.nmi_blocked = 0;
        if (cpu->s.nmi_pending) /* it waited for this: to the dispatcher */
            soft_leave_code(cpu);
    }
    cpu->s.interrupt_shadow = 0;
    return SOFT_JUMP;
}

/* Pop RIP, CS and the flags. */
static enum soft_result pop_frame(struct soft_cpu *cpu, unsigned size, uint64_t *sp,
                                  struct frame *f)
{
    uint64_t cs = 0;
    enum soft_result r = soft_stack_load(cpu, sp, &f->rip, size);

    if (r == SOFT_NEXT)
        r = soft_stack_load(cpu, sp, &cs, size);
    if (r == SOFT_NEXT)
        r = soft_stack_load(cpu, sp, &f->flags, size);
    f->cs = (uint16_t)cs;
    return r;
}

static enum soft_result pop_stack(struct soft_cpu *cpu, unsigned size, uint64_t *sp,
                                  struct frame *f)
{
    uint64_t ss = 0;
    enum soft_result r = soft_stack_load(cpu, sp, &f->rsp, size);

    if (r == SOFT_NEXT)
        r = soft_stack_load(cpu, sp, &ss, size);
    f->ss = (uint16_t)ss;
    return r;
}

static enum soft_result iret_real(struct soft_cpu *cpu, unsigned size)
{
    struct mull_cpu_state *s = &cpu->s;
    uint64_t sp = s->gpr[MULL_RSP];
    struct frame f = {0};

    const bool limited = (cpu->mode & SOFT_MODE_VM86) && (s->rflags & SOFT_IOPL) != SOFT_IOPL;
    if (limited && (size != 2 || !(s->cr4 & SOFT_CR4_VME)))
        return soft_raise_error(cpu, SOFT_GP, 0);
    enum soft_result r = pop_frame(cpu, size, &sp, &f);
    if (r != SOFT_NEXT)
        return r;
    if (f.rip > s->seg[MULL_CS].limit)
        return soft_raise_error(cpu, SOFT_GP, 0);
    if (limited) {
        r = soft_set_virtual_flags(cpu, size, f.flags);
        if (r != SOFT_NEXT)
            return r;
    }
    soft_stack_set(cpu, sp);
    if (!limited)
        soft_set_flags(cpu, f.flags, size);
    if (size > 2)
        s->rflags |= f.flags & SOFT_RF;
    soft_real_segment(cpu, MULL_CS, f.cs);
    s->rip = f.rip;
    soft_level_changed(cpu);
    return iret_done(cpu);
}

/* Into virtual-8086 mode. */
static enum soft_result iret_vm86(struct soft_cpu *cpu, uint64_t sp, struct frame *f)
{
    static const uint8_t order[] = {MULL_ES, MULL_DS, MULL_FS, MULL_GS};
    struct mull_cpu_state *s = &cpu->s;
    uint64_t selector[4];

    enum soft_result r = pop_stack(cpu, 4, &sp, f);
    for (unsigned i = 0; r == SOFT_NEXT && i < 4; i++)
        r = soft_stack_load(cpu, &sp, &selector[i], 4);
    if (r != SOFT_NEXT)
        return r;
    soft_set_flags(cpu, f->flags, 4);
    s->rflags = (s->rflags & ~(uint64_t)(SOFT_VIF | SOFT_VIP)) |
                (f->flags & (SOFT_VM | SOFT_VIF | SOFT_VIP));
    soft_level_changed(cpu);
    soft_real_segment(cpu, MULL_CS, f->cs);
    soft_real_segment(cpu, MULL_SS, f->ss);
    for (unsigned i = 0; i < 4; i++)
        soft_real_segment(cpu, order[i], (uint16_t)selector[i]);
    s->rip = f->rip & 0xffff;
    s->gpr[MULL_RSP] = f->rsp;
    soft_level_changed(cpu);
    return iret_done(cpu);
}

static enum soft_result iret_task(struct soft_cpu *cpu, const struct soft_insn *in)
{
    /* Called again, the task goes on behind its IRET. */
    const uint64_t next = soft_key_rip(cpu->mode, cpu->s.rip + in->length);
    uint16_t link = 0;

    if (soft_long_mode(cpu))
        return soft_raise_error(cpu, SOFT_GP, 0);
    enum soft_result r =
        soft_read(cpu, cpu->s.seg[MULL_TR].base, &link, 2, SOFT_READ | SOFT_SYSTEM);
    if (r == SOFT_NEXT)
        r = soft_task_switch(cpu, link, SOFT_TASK_IRET, next, NULL);
    return r == SOFT_JUMP ? iret_done(cpu) : r;
}

/* Five values in one access: the way back of every 64-bit kernel. */
static enum soft_result pop_frame64(struct soft_cpu *cpu, struct frame *f)
{
    uint64_t rsp = cpu->s.gpr[MULL_RSP], value[5];

    if (!soft_canonical(rsp) || !soft_canonical(rsp + sizeof(value) - 1))
        return soft_raise_error(cpu, SOFT_SS, 0);
    enum soft_result r = soft_read(cpu, rsp, value, sizeof(value), SOFT_READ);
    if (r != SOFT_NEXT)
        return r;
    f->rip = value[0];
    f->cs = (uint16_t)value[1];
    f->flags = value[2];
    f->rsp = value[3];
    f->ss = (uint16_t)value[4];
    return SOFT_NEXT;
}

enum soft_result soft_sys_iret(struct soft_cpu *cpu, const struct soft_insn *in)
{
    unsigned size = in->operand_size;
    uint64_t sp = cpu->s.gpr[MULL_RSP];
    struct mull_segment cs, ss;
    struct frame f = {0};
    bool with_stack = soft_code64(cpu);
    enum soft_result r;

    if (soft_real_segments(cpu))
        return iret_real(cpu, size);
    if (cpu->s.rflags & SOFT_NT)
        return iret_task(cpu, in);
    if (with_stack && size == 8)
        r = pop_frame64(cpu, &f);
    else
        r = pop_frame(cpu, size, &sp, &f);
    if (r != SOFT_NEXT)
        return r;
    if ((f.flags & SOFT_VM) && size == 4 && !soft_long_mode(cpu) && soft_cpl(cpu) == 0)
        return iret_vm86(cpu, sp, &f);
    r = return_cs(cpu, &f, &cs);
    if (r != SOFT_NEXT)
        return r;
    if (!with_stack)
        with_stack = (f.cs & 3u) != soft_cpl(cpu);
    if (with_stack && size != 8)
        r = pop_stack(cpu, size, &sp, &f);
    if (r == SOFT_NEXT && with_stack)
        r = return_ss(cpu, &f, &cs, &ss);
    if (r != SOFT_NEXT)
        return r;
    if (!with_stack)
        soft_stack_set(cpu, sp);
    soft_set_flags(cpu, f.flags, size);
    if (size > 2)
        cpu->s.rflags |= f.flags & SOFT_RF;
    enter(cpu, &f, &cs, with_stack ? &ss : NULL);
    return iret_done(cpu);
}
