/*
 * Instructions that push and pop. The stack pointer moves only when everything has succeeded. Built
 * without vector instructions.
 */
#include <Zydis/Zydis.h>

#include "engine/soft/exec.h"

enum soft_result soft_stack_store(struct soft_cpu *cpu, uint64_t *sp, uint64_t value, unsigned size)
{
    uint64_t va, to = (*sp - size) & soft_stack_mask(cpu);
    enum soft_result r = soft_linear(cpu, MULL_SS, to, size, SOFT_WRITE, &va);
    if (!r)
        r = soft_write(cpu, va, &value, size, SOFT_WRITE);
    if (!r)
        *sp = to;
    return r;
}

enum soft_result soft_stack_load(struct soft_cpu *cpu, uint64_t *sp, uint64_t *value, unsigned size)
{
    uint64_t va, from = *sp & soft_stack_mask(cpu);
    *value = 0;
    enum soft_result r = soft_linear(cpu, MULL_SS, from, size, SOFT_READ, &va);
    if (!r)
        r = soft_read(cpu, va, value, size, SOFT_READ);
    if (!r)
        *sp = from + size;
    return r;
}

static bool segment_number(uint16_t reg, unsigned *seg)
{
    if (reg < ZYDIS_REGISTER_ES || reg > ZYDIS_REGISTER_GS)
        return false;
    *seg = reg - ZYDIS_REGISTER_ES;
    return true;
}

enum soft_result soft_exec_push(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t value, sp = cpu->s.gpr[MULL_RSP];
    enum soft_result r = SOFT_NEXT;
    unsigned seg;

    if (in->op[0].kind == SOFT_OP_REG && segment_number(in->op[0].reg, &seg))
        value = cpu->s.seg[seg].selector;
    else
        r = soft_operand_read(cpu, in, &in->op[0], &value);
    if (!r)
        r = soft_stack_store(cpu, &sp, value, in->stack_size);
    if (r)
        return r;
    soft_stack_set(cpu, sp);
    return soft_done(cpu, in);
}

static enum soft_result pop_segment(struct soft_cpu *cpu, const struct soft_insn *in, unsigned seg)
{
    uint64_t value, sp = cpu->s.gpr[MULL_RSP];
    enum soft_result r = soft_stack_load(cpu, &sp, &value, in->stack_size);
    if (!r)
        r = soft_load_segment(cpu, seg, (uint16_t)value);
    if (r)
        return r;
    soft_stack_set(cpu, sp);
    if (seg == MULL_SS)
        cpu->s.interrupt_shadow = 2;
    soft_done(cpu, in);
    return SOFT_JUMP;
}

enum soft_result soft_exec_pop(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t value, old = cpu->s.gpr[MULL_RSP], sp = old;
    unsigned seg;

    if (in->op[0].kind == SOFT_OP_REG && segment_number(in->op[0].reg, &seg))
        return pop_segment(cpu, in, seg);
    enum soft_result r = soft_stack_load(cpu, &sp, &value, in->stack_size);
    if (r)
        return r;
    /* A destination addressed through RSP uses the incremented one; POP RSP overwrites it. */
    soft_stack_set(cpu, sp);
    r = soft_operand_write(cpu, in, &in->op[0], value);
    if (r) {
        cpu->s.gpr[MULL_RSP] = old;
        return r;
    }
    return soft_done(cpu, in);
}

enum soft_result soft_exec_pusha(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t sp = cpu->s.gpr[MULL_RSP];
    for (unsigned i = 0; i < 8; i++) {
        enum soft_result r = soft_stack_store(cpu, &sp, cpu->s.gpr[i], in->operand_size);
        if (r)
            return r;
    }
    soft_stack_set(cpu, sp);
    return soft_done(cpu, in);
}

enum soft_result soft_exec_popa(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t sp = cpu->s.gpr[MULL_RSP], value[8];
    for (unsigned i = 8; i-- > 0;) {
        enum soft_result r = soft_stack_load(cpu, &sp, &value[i], in->operand_size);
        if (r)
            return r;
    }
    uint16_t first = in->operand_size == 2 ? ZYDIS_REGISTER_AX : ZYDIS_REGISTER_EAX;
    for (unsigned i = 0; i < 8; i++)
        if (i != MULL_RSP)
            soft_reg_write(cpu, (uint16_t)(first + i), value[i]);
    soft_stack_set(cpu, sp);
    return soft_done(cpu, in);
}

/* ENTER (SDM volume 2): frame pointers of outer procedures are copied for levels above 0. */
enum soft_result soft_exec_enter(struct soft_cpu *cpu, const struct soft_insn *in)
{
    unsigned size = in->operand_size, level = (unsigned)in->op[1].value & 31;
    uint64_t mask = soft_stack_mask(cpu);
    uint64_t sp = cpu->s.gpr[MULL_RSP], bp = cpu->s.gpr[MULL_RBP], va;
    enum soft_result r = soft_stack_store(cpu, &sp, bp, size);
    uint64_t frame = sp;

    for (unsigned i = 1; !r && i < level; i++) {
        uint64_t value, from = bp - (uint64_t)i * size;
        r = soft_stack_load(cpu, &from, &value, size);
        if (!r)
            r = soft_stack_store(cpu, &sp, value, size);
    }
    if (!r && level)
        r = soft_stack_store(cpu, &sp, frame, size);
    if (r)
        return r;
    sp = (sp - (uint16_t)in->op[0].value) & mask;
    /* The new top must be writable, or the instruction faults as a whole. */
    r = soft_linear(cpu, MULL_SS, sp, size, SOFT_WRITE, &va);
    if (!r)
        r = soft_probe(cpu, va, size, SOFT_WRITE);
    if (r)
        return r;
    soft_reg_write(cpu,
                   size == 2   ? ZYDIS_REGISTER_BP
                   : size == 4 ? ZYDIS_REGISTER_EBP
                               : ZYDIS_REGISTER_RBP,
                   frame);
    soft_stack_set(cpu, sp);
    return soft_done(cpu, in);
}

enum soft_result soft_exec_leave(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t sp = cpu->s.gpr[MULL_RBP] & soft_stack_mask(cpu), value;
    unsigned size = in->operand_size;
    enum soft_result r = soft_stack_load(cpu, &sp, &value, size);
    if (r)
        return r;
    soft_stack_set(cpu, sp);
    soft_reg_write(cpu,
                   size == 2   ? ZYDIS_REGISTER_BP
                   : size == 4 ? ZYDIS_REGISTER_EBP
                               : ZYDIS_REGISTER_RBP,
                   value);
    return soft_done(cpu, in);
}
