/*
 * Near control flow: jumps, conditional jumps, loops, calls and returns, with the checks of their
 * targets. Far transfers belong to system.c. Built without vector instructions.
 */
#include <Zydis/Zydis.h>

#include "engine/soft/exec.h"

/* Go to @target, cut to the operand size. Changes nothing if it faults (SDM volume 2, JMP: a target
 * that is not canonical or beyond the code segment's limit is #GP(0)). */
static enum soft_result check_target(struct soft_cpu *cpu, const struct soft_insn *in,
                                     uint64_t *target)
{
    *target &= soft_size_mask(in->operand_size);
    if (cpu->mode & SOFT_MODE_CODE64) {
        if ((int64_t)(*target << 16) >> 16 != (int64_t)*target)
            return soft_raise_error(cpu, SOFT_GP, 0);
    } else if (*target > cpu->s.seg[MULL_CS].limit) {
        return soft_raise_error(cpu, SOFT_GP, 0);
    }
    return SOFT_NEXT;
}

static enum soft_result go(struct soft_cpu *cpu, const struct soft_insn *in, uint64_t target)
{
    enum soft_result r = check_target(cpu, in, &target);
    if (r)
        return r;
    cpu->s.rip = target;
    return SOFT_JUMP;
}

/* The target of a JMP or CALL: relative to the next instruction, or absolute. */
static enum soft_result read_target(struct soft_cpu *cpu, const struct soft_insn *in,
                                    uint64_t *target)
{
    enum soft_result r = soft_operand_read(cpu, in, &in->op[0], target);
    if (!r && in->op[0].kind == SOFT_OP_IMM)
        *target += cpu->s.rip + in->length;
    return r;
}

enum soft_result soft_exec_jump(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t target;
    enum soft_result r = read_target(cpu, in, &target);
    return r ? r : go(cpu, in, target);
}

static bool condition(const struct soft_cpu *cpu, uint16_t mnemonic)
{
    uint64_t f = cpu->s.rflags;
    bool less = !(f & SOFT_SF) != !(f & SOFT_OF);
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_JO:
        return f & SOFT_OF;
    case ZYDIS_MNEMONIC_JNO:
        return !(f & SOFT_OF);
    case ZYDIS_MNEMONIC_JB:
        return f & SOFT_CF;
    case ZYDIS_MNEMONIC_JNB:
        return !(f & SOFT_CF);
    case ZYDIS_MNEMONIC_JZ:
        return f & SOFT_ZF;
    case ZYDIS_MNEMONIC_JNZ:
        return !(f & SOFT_ZF);
    case ZYDIS_MNEMONIC_JBE:
        return f & (SOFT_CF | SOFT_ZF);
    case ZYDIS_MNEMONIC_JNBE:
        return !(f & (SOFT_CF | SOFT_ZF));
    case ZYDIS_MNEMONIC_JS:
        return f & SOFT_SF;
    case ZYDIS_MNEMONIC_JNS:
        return !(f & SOFT_SF);
    case ZYDIS_MNEMONIC_JP:
        return f & SOFT_PF;
    case ZYDIS_MNEMONIC_JNP:
        return !(f & SOFT_PF);
    case ZYDIS_MNEMONIC_JL:
        return less;
    case ZYDIS_MNEMONIC_JNL:
        return !less;
    case ZYDIS_MNEMONIC_JLE:
        return less || f & SOFT_ZF;
    default: /* JNLE */
        return !less && !(f & SOFT_ZF);
    }
}

static enum soft_result go_if(struct soft_cpu *cpu, const struct soft_insn *in, bool taken)
{
    if (!taken)
        return soft_done(cpu, in);
    return go(cpu, in, cpu->s.rip + in->length + (uint64_t)in->op[0].value);
}

enum soft_result soft_exec_jcc(struct soft_cpu *cpu, const struct soft_insn *in)
{
    return go_if(cpu, in, condition(cpu, in->mnemonic));
}

/* LOOP, LOOPE, LOOPNE, JCXZ, JECXZ, JRCXZ: the counter is as wide as an address. */
enum soft_result soft_exec_loop(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t mask = soft_size_mask(in->address_size);
    uint64_t saved = cpu->s.gpr[MULL_RCX];
    uint64_t count = saved & mask;
    bool zero = cpu->s.rflags & SOFT_ZF, taken;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        return go_if(cpu, in, count == 0);
    default:
        break;
    }
    count = (count - 1) & mask;
    taken = count != 0;
    if (in->mnemonic == ZYDIS_MNEMONIC_LOOPE)
        taken = taken && zero;
    else if (in->mnemonic == ZYDIS_MNEMONIC_LOOPNE)
        taken = taken && !zero;
    cpu->s.gpr[MULL_RCX] = in->address_size == 2 ? (saved & ~mask) | count : count;
    enum soft_result r = go_if(cpu, in, taken);
    if (r == SOFT_FAULT)
        cpu->s.gpr[MULL_RCX] = saved;
    return r;
}

enum soft_result soft_exec_call(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t target, sp = cpu->s.gpr[MULL_RSP];
    enum soft_result r = read_target(cpu, in, &target);
    if (!r)
        r = check_target(cpu, in, &target);
    if (!r)
        r = soft_stack_store(cpu, &sp, cpu->s.rip + in->length, in->stack_size);
    if (r)
        return r;
    soft_stack_set(cpu, sp);
    cpu->s.rip = target;
    return SOFT_JUMP;
}

enum soft_result soft_exec_ret(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t target, sp = cpu->s.gpr[MULL_RSP];
    enum soft_result r = soft_stack_load(cpu, &sp, &target, in->stack_size);
    if (!r)
        r = check_target(cpu, in, &target);
    if (r)
        return r;
    cpu->s.rip = target;
    if (in->operands)
        sp += (uint16_t)in->op[0].value;
    soft_stack_set(cpu, sp);
    return SOFT_JUMP;
}
