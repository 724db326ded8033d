/*
 * Small instructions that are done in C: address arithmetic, moves by absolute offset, decimal
 * adjustment and other encodings that 64-bit mode dropped, cache hints. Built without vector
 * instructions.
 */
#include <Zydis/Zydis.h>

#include "engine/soft/exec.h"
#include "engine/soft/thunk.h"

enum soft_result soft_exec_nop(struct soft_cpu *cpu, const struct soft_insn *in)
{
    return soft_done(cpu, in);
}

enum soft_result soft_exec_ud(struct soft_cpu *cpu, const struct soft_insn *in)
{
    (void)in;
    return soft_raise(cpu, SOFT_UD);
}

enum soft_result soft_exec_lea(struct soft_cpu *cpu, const struct soft_insn *in)
{
    soft_reg_write(cpu, in->op[0].reg, soft_operand_offset(cpu, in, &in->op[1], 0));
    return soft_done(cpu, in);
}

enum soft_result soft_exec_mov_offset(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t value;
    enum soft_result r = soft_operand_read(cpu, in, &in->op[1], &value);
    if (!r)
        r = soft_operand_write(cpu, in, &in->op[0], value);
    return r ? r : soft_done(cpu, in);
}

enum soft_result soft_exec_xlat(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t va;
    uint8_t byte;
    uint64_t al = cpu->s.gpr[MULL_RAX] & 0xff;
    uint64_t offset = (cpu->s.gpr[MULL_RBX] + al) & soft_size_mask(in->address_size);
    enum soft_result r = soft_linear(cpu, in->op[0].seg, offset, 1, SOFT_READ, &va);
    if (!r)
        r = soft_read(cpu, va, &byte, 1, SOFT_READ);
    if (r)
        return r;
    soft_reg_write(cpu, ZYDIS_REGISTER_AL, byte);
    return soft_done(cpu, in);
}

/* BOUND: the operand is two signed numbers, lower and upper bound. */
enum soft_result soft_exec_bound(struct soft_cpu *cpu, const struct soft_insn *in)
{
    unsigned size = in->operand_size;
    uint8_t bounds[8];
    uint64_t va, low = 0, high = 0;
    if (size > 4)
        return soft_raise(cpu, SOFT_UD);
    uint64_t offset = soft_operand_offset(cpu, in, &in->op[1], 0);
    enum soft_result r = soft_linear(cpu, in->op[1].seg, offset, size * 2, SOFT_READ, &va);
    if (!r)
        r = soft_read(cpu, va, bounds, size * 2, SOFT_READ);
    if (r)
        return r;
    soft_copy(&low, bounds, size);
    soft_copy(&high, bounds + size, size);
    int64_t index = soft_sign_extend(soft_reg_read(cpu, in->op[0].reg), size);
    if (index < soft_sign_extend(low, size) || index > soft_sign_extend(high, size))
        return soft_raise(cpu, SOFT_BR);
    return soft_done(cpu, in);
}

enum soft_result soft_exec_salc(struct soft_cpu *cpu, const struct soft_insn *in)
{
    soft_reg_write(cpu, ZYDIS_REGISTER_AL, cpu->s.rflags & SOFT_CF ? 0xff : 0);
    return soft_done(cpu, in);
}

enum soft_result soft_exec_direction(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if (in->mnemonic == ZYDIS_MNEMONIC_STD)
        cpu->s.rflags |= SOFT_DF;
    else
        cpu->s.rflags &= ~(uint64_t)SOFT_DF;
    return soft_done(cpu, in);
}

/* ---- Decimal adjustment (SDM volume 2) ---- */

static void set_result_flags(struct soft_cpu *cpu, uint8_t al, bool carry, bool adjust)
{
    uint64_t f = cpu->s.rflags & ~SOFT_ARITH_FLAGS;
    if (carry)
        f |= SOFT_CF;
    if (adjust)
        f |= SOFT_AF;
    if (!al)
        f |= SOFT_ZF;
    if (al & 0x80)
        f |= SOFT_SF;
    if (!__builtin_parity(al))
        f |= SOFT_PF;
    cpu->s.rflags = f;
}

static void adjust_ascii(struct soft_cpu *cpu, bool add)
{
    uint16_t ax = (uint16_t)cpu->s.gpr[MULL_RAX];
    bool adjust = (ax & 15) > 9 || cpu->s.rflags & SOFT_AF;
    if (adjust)
        ax = (uint16_t)(add ? ax + 0x106 : ax - 0x106);
    ax &= 0xff0f;
    soft_reg_write(cpu, ZYDIS_REGISTER_AX, ax);
    set_result_flags(cpu, (uint8_t)ax, adjust, adjust);
}

static void adjust_decimal(struct soft_cpu *cpu, bool add)
{
    uint8_t al = (uint8_t)cpu->s.gpr[MULL_RAX], old = al;
    bool carry = cpu->s.rflags & SOFT_CF, old_carry = carry;
    bool adjust = (al & 15) > 9 || cpu->s.rflags & SOFT_AF;
    carry = false;
    if (adjust) {
        carry = old_carry || (add ? al > 0xf9 : al < 6);
        al = (uint8_t)(add ? al + 6 : al - 6);
    }
    if (old > 0x99 || old_carry) {
        al = (uint8_t)(add ? al + 0x60 : al - 0x60);
        carry = true;
    }
    soft_reg_write(cpu, ZYDIS_REGISTER_AL, al);
    set_result_flags(cpu, al, carry, adjust);
}

enum soft_result soft_exec_decimal(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint8_t al = (uint8_t)cpu->s.gpr[MULL_RAX], ah = (uint8_t)(cpu->s.gpr[MULL_RAX] >> 8);
    uint8_t base = in->operands ? (uint8_t)in->op[0].value : 10;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
        adjust_ascii(cpu, in->mnemonic == ZYDIS_MNEMONIC_AAA);
        break;
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
        adjust_decimal(cpu, in->mnemonic == ZYDIS_MNEMONIC_DAA);
        break;
    case ZYDIS_MNEMONIC_AAM:
        if (!base)
            return soft_raise(cpu, SOFT_DE);
        soft_reg_write(cpu, ZYDIS_REGISTER_AX, (uint64_t)(al / base) << 8 | al % base);
        set_result_flags(cpu, al % base, false, false);
        break;
    default: /* AAD */
        al = (uint8_t)(al + ah * base);
        soft_reg_write(cpu, ZYDIS_REGISTER_AX, al);
        set_result_flags(cpu, al, false, false);
        break;
    }
    return soft_done(cpu, in);
}

/* ---- Caches ---- */

/* CLFLUSH, CLFLUSHOPT, CLWB: nothing to do here, but the address must be readable. */
enum soft_result soft_exec_cache_line(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t va;
    uint64_t offset = soft_operand_offset(cpu, in, &in->op[0], 0);
    enum soft_result r = soft_linear(cpu, in->op[0].seg, offset, 1, SOFT_READ, &va);
    if (!r)
        r = soft_probe(cpu, va, 1, SOFT_READ);
    return r ? r : soft_done(cpu, in);
}

/* CLZERO (AMD): zeroes the 64-byte line that rAX points into. */
enum soft_result soft_exec_clzero(struct soft_cpu *cpu, const struct soft_insn *in)
{
    static const uint8_t zeros[64];
    unsigned seg = in->operands ? in->op[in->operands - 1].seg : MULL_DS;
    uint64_t va, offset = cpu->s.gpr[MULL_RAX] & soft_size_mask(in->address_size) & ~63ull;
    enum soft_result r = soft_linear(cpu, seg, offset, sizeof(zeros), SOFT_WRITE, &va);
    if (!r)
        r = soft_write(cpu, va, zeros, sizeof(zeros), SOFT_WRITE);
    return r ? r : soft_done(cpu, in);
}

/* FWAIT takes CR0.MP and CR0.TS together, not CR0.EM (SDM volume 2, WAIT/FWAIT). */
enum soft_result soft_exec_fwait(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t both = SOFT_CR0_MP | SOFT_CR0_TS;
    if ((cpu->s.cr0 & both) == both)
        return soft_raise(cpu, SOFT_NM);
    enum soft_result r = soft_thunk_run(cpu, in, NULL);
    return r ? r : soft_done(cpu, in);
}
