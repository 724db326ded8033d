/*
 * Far jumps and calls: direct, through memory, through call gates and to tasks (SDM volume 2, JMP
 * and CALL; volume 3, 5.8).
 */
#include "engine/soft/system.h"

/* System descriptor types. */
enum { TYPE_TSS16 = 1, TYPE_CALL16 = 4, TYPE_TASK_GATE = 5, TYPE_TSS32 = 9, TYPE_CALL32 = 12 };

struct target {
    uint16_t selector;
    uint64_t offset;
};

static enum soft_result selector_fault(struct soft_cpu *cpu, uint8_t vector, uint16_t selector)
{
    return soft_raise_error(cpu, vector, selector & 0xfffcu);
}

static enum soft_result read_target(struct soft_cpu *cpu, const struct soft_insn *in,
                                    struct target *t)
{
    const struct soft_operand *op = &in->op[0];
    unsigned size = in->operand_size;
    uint64_t va;

    if (op->kind == SOFT_OP_PTR) {
        t->selector = op->selector;
        t->offset = (uint64_t)op->value & soft_size_mask(size);
        return SOFT_NEXT;
    }
    t->offset = 0;
    enum soft_result r =
        soft_linear(cpu, op->seg, soft_operand_offset(cpu, in, op, 0), size + 2, SOFT_READ, &va);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va, &t->offset, size, SOFT_READ);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va + size, &t->selector, 2, SOFT_READ);
    return r;
}

enum soft_result soft_check_rip(struct soft_cpu *cpu, const struct mull_segment *cs, uint64_t rip)
{
    bool ok =
        soft_long_mode(cpu) && (cs->attr & MULL_SEG_L) ? soft_canonical(rip) : rip <= cs->limit;
    return ok ? SOFT_NEXT : soft_raise_error(cpu, SOFT_GP, 0);
}

/* Is the descriptor a code segment that this mode can run? */
static bool runnable(const struct soft_cpu *cpu, const struct soft_desc *desc)
{
    if (!(desc->hi & SOFT_DESC_S) || !(SOFT_DESC_TYPE(desc->hi) & SOFT_TYPE_CODE))
        return false;
    return !(soft_long_mode(cpu) && (desc->hi & SOFT_DESC_L) && (desc->hi & SOFT_DESC_DB));
}

static bool conforming(const struct soft_desc *desc)
{
    return SOFT_DESC_TYPE(desc->hi) & SOFT_TYPE_CONFORMING;
}

/* The new CS at the same privilege level, from a checked descriptor. */
static enum soft_result same_level_cs(struct soft_cpu *cpu, struct soft_desc *desc,
                                      uint16_t selector, uint64_t rip, struct mull_segment *cs)
{
    if (!(desc->hi & SOFT_DESC_P))
        return selector_fault(cpu, SOFT_NP, selector);
    soft_desc_to_segment(desc, (uint16_t)((selector & 0xfffc) | soft_cpl(cpu)), cs);
    enum soft_result r = soft_check_rip(cpu, cs, rip);
    return r == SOFT_NEXT ? soft_set_accessed(cpu, desc) : r;
}

/* A code segment named by the instruction itself. */
static enum soft_result direct_cs(struct soft_cpu *cpu, struct soft_desc *desc,
                                  const struct target *t, struct mull_segment *cs)
{
    unsigned cpl = soft_cpl(cpu), dpl = SOFT_DESC_DPL(desc->hi), rpl = t->selector & 3u;

    if (!runnable(cpu, desc))
        return selector_fault(cpu, SOFT_GP, t->selector);
    if (conforming(desc) ? dpl > cpl : rpl > cpl || dpl != cpl)
        return selector_fault(cpu, SOFT_GP, t->selector);
    return same_level_cs(cpu, desc, t->selector, t->offset, cs);
}

static void enter_cs(struct soft_cpu *cpu, const struct mull_segment *cs, uint64_t rip)
{
    cpu->s.seg[MULL_CS] = *cs;
    cpu->s.rip = rip;
    soft_level_changed(cpu);
}

/* ---- Real and virtual-8086 mode ---- */

static enum soft_result real_transfer(struct soft_cpu *cpu, const struct soft_insn *in,
                                      const struct target *t, bool call)
{
    struct mull_cpu_state *s = &cpu->s;

    if (t->offset > s->seg[MULL_CS].limit)
        return soft_raise_error(cpu, SOFT_GP, 0);
    if (call) {
        uint64_t sp = s->gpr[MULL_RSP];
        enum soft_result r = soft_stack_store(cpu, &sp, s->seg[MULL_CS].selector, in->operand_size);
        if (r == SOFT_NEXT)
            r = soft_stack_store(cpu, &sp, s->rip + in->length, in->operand_size);
        if (r != SOFT_NEXT)
            return r;
        soft_stack_set(cpu, sp);
    }
    soft_real_segment(cpu, MULL_CS, t->selector);
    s->rip = t->offset;
    soft_level_changed(cpu);
    return SOFT_JUMP;
}

/* ---- Gates ---- */

struct gate {
    unsigned size; /* of what a call pushes: 2, 4, 8 */
    unsigned parameters;
    struct target target;
};

static enum soft_result read_gate(struct soft_cpu *cpu, uint16_t selector, struct soft_desc *desc,
                                  struct gate *g)
{
    unsigned type = SOFT_DESC_TYPE(desc->hi), dpl = SOFT_DESC_DPL(desc->hi);
    bool wide = type == TYPE_CALL32;

    if (dpl < soft_cpl(cpu) || dpl < (selector & 3u))
        return selector_fault(cpu, SOFT_GP, selector);
    if (!(desc->hi & SOFT_DESC_P))
        return selector_fault(cpu, SOFT_NP, selector);
    g->target.selector = (uint16_t)(desc->lo >> 16);
    g->target.offset = (desc->lo & 0xffff) | (wide ? desc->hi & 0xffff0000u : 0);
    g->parameters = desc->hi & 31;
    g->size = wide ? 4 : 2;
    if (soft_long_mode(cpu)) {
        enum soft_result r = soft_read_system_desc(cpu, selector, SOFT_GP, 0, desc);
        if (r != SOFT_NEXT)
            return r;
        if (desc->reserved & 0x1f00) /* the type of the upper half must be 0 */
            return selector_fault(cpu, SOFT_GP, selector);
        g->target.offset |= (uint64_t)desc->base_high << 32;
        g->parameters = 0;
        g->size = 8;
    }
    return SOFT_NEXT;
}

static enum soft_result gate_code(struct soft_cpu *cpu, const struct gate *g,
                                  struct soft_desc *code)
{
    uint16_t selector = g->target.selector;

    if (!(selector & 0xfffc))
        return soft_raise_error(cpu, SOFT_GP, 0);
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_GP, 0, code);
    if (r != SOFT_NEXT)
        return r;
    if (!runnable(cpu, code) || SOFT_DESC_DPL(code->hi) > soft_cpl(cpu) ||
        (soft_long_mode(cpu) && !(code->hi & SOFT_DESC_L)))
        return selector_fault(cpu, SOFT_GP, selector);
    return SOFT_NEXT;
}

static void push(struct soft_frame *f, uint64_t value)
{
    f->value[f->count++] = value;
}

/* Parameters come from the old stack, the last pushed first in the list. */
static enum soft_result copy_parameters(struct soft_cpu *cpu, const struct gate *g,
                                        struct soft_frame *f)
{
    for (unsigned i = g->parameters; i-- > 0;) {
        uint64_t at = cpu->s.gpr[MULL_RSP] + (uint64_t)i * g->size, value;
        enum soft_result r = soft_stack_load(cpu, &at, &value, g->size);
        if (r != SOFT_NEXT)
            return r;
        push(f, value);
    }
    return SOFT_NEXT;
}

static enum soft_result call_inner(struct soft_cpu *cpu, const struct soft_insn *in,
                                   const struct gate *g, struct soft_desc *code)
{
    struct mull_cpu_state *s = &cpu->s;
    unsigned cpl = SOFT_DESC_DPL(code->hi);
    bool long64 = soft_long_mode(cpu);
    struct mull_segment ss, cs;
    struct soft_frame f;
    uint16_t ss_selector;
    uint64_t rsp;

    if (!(code->hi & SOFT_DESC_P))
        return selector_fault(cpu, SOFT_NP, g->target.selector);
    enum soft_result r = soft_tss_stack(cpu, cpl, 0, &ss_selector, &rsp);
    if (r == SOFT_NEXT && !long64)
        r = soft_check_new_stack(cpu, ss_selector, cpl, 0, &ss);
    if (r != SOFT_NEXT)
        return r;
    if (long64)
        soft_null_stack(&ss, cpl);
    soft_desc_to_segment(code, (uint16_t)((g->target.selector & 0xfffc) | cpl), &cs);
    r = soft_check_rip(cpu, &cs, g->target.offset);
    if (r != SOFT_NEXT)
        return r;

    f.count = 0;
    push(&f, s->seg[MULL_SS].selector);
    push(&f, s->gpr[MULL_RSP]);
    r = copy_parameters(cpu, g, &f);
    if (r != SOFT_NEXT)
        return r;
    push(&f, s->seg[MULL_CS].selector);
    push(&f, s->rip + in->length);
    r = soft_push_frame(cpu, &f, long64 ? NULL : &ss, g->size, cpl, ss.selector & 0xfffcu, &rsp);
    if (r == SOFT_NEXT)
        r = soft_set_accessed(cpu, code);
    if (r != SOFT_NEXT)
        return r;
    s->seg[MULL_SS] = ss;
    s->gpr[MULL_RSP] = rsp;
    enter_cs(cpu, &cs, g->target.offset);
    return SOFT_JUMP;
}

/* Push the return address on the stack in use and enter @cs. */
static enum soft_result call_same(struct soft_cpu *cpu, const struct soft_insn *in,
                                  const struct mull_segment *cs, uint64_t rip, unsigned size)
{
    struct mull_cpu_state *s = &cpu->s;
    uint64_t sp = s->gpr[MULL_RSP];

    enum soft_result r = soft_stack_store(cpu, &sp, s->seg[MULL_CS].selector, size);
    if (r == SOFT_NEXT)
        r = soft_stack_store(cpu, &sp, s->rip + in->length, size);
    if (r != SOFT_NEXT)
        return r;
    soft_stack_set(cpu, sp);
    enter_cs(cpu, cs, rip);
    return SOFT_JUMP;
}

static enum soft_result through_gate(struct soft_cpu *cpu, const struct soft_insn *in,
                                     uint16_t selector, struct soft_desc *desc, bool call)
{
    struct mull_segment cs;
    struct soft_desc code;
    struct gate g = {0};

    enum soft_result r = read_gate(cpu, selector, desc, &g);
    if (r == SOFT_NEXT)
        r = gate_code(cpu, &g, &code);
    if (r != SOFT_NEXT)
        return r;
    unsigned dpl = SOFT_DESC_DPL(code.hi);
    bool inner = !conforming(&code) && dpl < soft_cpl(cpu);
    if (inner && !call)
        return selector_fault(cpu, SOFT_GP, g.target.selector);
    if (inner)
        return call_inner(cpu, in, &g, &code);
    r = same_level_cs(cpu, &code, g.target.selector, g.target.offset, &cs);
    if (r != SOFT_NEXT)
        return r;
    if (call)
        return call_same(cpu, in, &cs, g.target.offset, g.size);
    enter_cs(cpu, &cs, g.target.offset);
    return SOFT_JUMP;
}

static enum soft_result to_task(struct soft_cpu *cpu, const struct soft_insn *in, uint16_t selector,
                                const struct soft_desc *desc, bool call)
{
    unsigned dpl = SOFT_DESC_DPL(desc->hi);
    uint16_t tss = selector;

    if (dpl < soft_cpl(cpu) || dpl < (selector & 3u))
        return selector_fault(cpu, SOFT_GP, selector);
    if (SOFT_DESC_TYPE(desc->hi) == TYPE_TASK_GATE) {
        if (!(desc->hi & SOFT_DESC_P))
            return selector_fault(cpu, SOFT_NP, selector);
        tss = (uint16_t)(desc->lo >> 16);
    }
    return soft_task_switch(cpu, tss, call ? SOFT_TASK_CALL : SOFT_TASK_JUMP,
                            cpu->s.rip + in->length, NULL);
}

static enum soft_result to_system(struct soft_cpu *cpu, const struct soft_insn *in,
                                  uint16_t selector, struct soft_desc *desc, bool call)
{
    switch (SOFT_DESC_TYPE(desc->hi)) {
    case TYPE_CALL32:
        return through_gate(cpu, in, selector, desc, call);
    case TYPE_CALL16:
        if (!soft_long_mode(cpu))
            return through_gate(cpu, in, selector, desc, call);
        break;
    case TYPE_TSS16:
    case TYPE_TSS32:
    case TYPE_TASK_GATE:
        if (!soft_long_mode(cpu))
            return to_task(cpu, in, selector, desc, call);
        break;
    default:
        break;
    }
    return selector_fault(cpu, SOFT_GP, selector);
}

/* ---- The instructions ---- */

static enum soft_result transfer(struct soft_cpu *cpu, const struct soft_insn *in, bool call)
{
    struct mull_segment cs;
    struct soft_desc desc;
    struct target t;

    enum soft_result r = read_target(cpu, in, &t);
    if (r != SOFT_NEXT)
        return r;
    if (soft_real_segments(cpu))
        return real_transfer(cpu, in, &t, call);
    if (!(t.selector & 0xfffc))
        return soft_raise_error(cpu, SOFT_GP, 0);
    r = soft_read_desc(cpu, t.selector, SOFT_GP, 0, &desc);
    if (r != SOFT_NEXT)
        return r;
    if (!(desc.hi & SOFT_DESC_S))
        return to_system(cpu, in, t.selector, &desc, call);
    r = direct_cs(cpu, &desc, &t, &cs);
    if (r != SOFT_NEXT)
        return r;
    if (call)
        return call_same(cpu, in, &cs, t.offset, in->operand_size);
    enter_cs(cpu, &cs, t.offset);
    return SOFT_JUMP;
}

enum soft_result soft_sys_far_jump(struct soft_cpu *cpu, const struct soft_insn *in)
{
    return transfer(cpu, in, false);
}

enum soft_result soft_sys_far_call(struct soft_cpu *cpu, const struct soft_insn *in)
{
    return transfer(cpu, in, true);
}
