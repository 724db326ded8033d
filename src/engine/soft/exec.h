/*
 * What the files that execute instructions in C (exec*.c, thunk.c) share. decode.c chooses among
 * these handlers; system.c has its own.
 */
#ifndef MULL_SOFT_EXEC_H
#define MULL_SOFT_EXEC_H

#include "engine/soft/soft.h"

/* struct soft_native.keep */
#define SOFT_KEEP_66 0x01u
#define SOFT_KEEP_F2 0x02u
#define SOFT_KEEP_F3 0x04u
#define SOFT_KEEP_LOCK 0x08u

/* struct soft_native.sp */
#define SOFT_SP_REG 0x01u    /* ModRM.reg */
#define SOFT_SP_RM 0x02u     /* ModRM.rm */
#define SOFT_SP_OPCODE 0x04u /* the opcode's low bits */
#define SOFT_SP_VVVV 0x08u   /* VEX.vvvv */

/* struct soft_native.flags */
#define SOFT_FLAGS_LOAD 0x01u /* reads arithmetic flags, or may leave some as they were */
#define SOFT_FLAGS_SAVE 0x02u

/* Handlers. */
enum soft_result soft_exec_data(struct soft_cpu *cpu, const struct soft_insn *in);
/* PAUSE (run.c): a guest that spins for long gives its core to whoever has what it waits for. */
enum soft_result soft_exec_pause(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_bit(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_mask_move(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_mask_bytes(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_gather(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_zero_vectors(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_string(struct soft_cpu *cpu, const struct soft_insn *in);

enum soft_result soft_exec_jump(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_jcc(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_loop(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_call(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_ret(struct soft_cpu *cpu, const struct soft_insn *in);

enum soft_result soft_exec_push(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_pop(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_pusha(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_popa(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_enter(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_leave(struct soft_cpu *cpu, const struct soft_insn *in);

enum soft_result soft_exec_lea(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_mov_offset(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_xlat(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_bound(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_decimal(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_salc(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_direction(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_cache_line(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_clzero(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_fwait(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_nop(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_exec_ud(struct soft_cpu *cpu, const struct soft_insn *in);

/* Shared parts. */

/** Is the state that @in needs switched on? @return SOFT_NEXT, or SOFT_FAULT with #UD or #NM. */
enum soft_result soft_check_unit(struct soft_cpu *cpu, const struct soft_insn *in);

/** The offset of a memory operand in its segment, plus @extra, cut to the address size. */
uint64_t soft_operand_offset(const struct soft_cpu *cpu, const struct soft_insn *in,
                             const struct soft_operand *op, uint64_t extra);

/** Is the memory operand aligned as the instruction demands? */
bool soft_operand_aligned(const struct soft_cpu *cpu, const struct soft_insn *in,
                          const struct soft_operand *op);

/** Run the instruction natively on the memory operand at the linear address @va. RIP stays. */
enum soft_result soft_run_memory(struct soft_cpu *cpu, const struct soft_insn *in,
                                 const struct soft_operand *op, uint64_t va);

/** The memory operand of an instruction with an opmask, where it cannot be used in place. */
enum soft_result soft_run_masked(struct soft_cpu *cpu, const struct soft_insn *in,
                                 const struct soft_operand *op);

/** Read or write the general operand @op (register, immediate, memory) of up to 8 bytes. */
enum soft_result soft_operand_read(struct soft_cpu *cpu, const struct soft_insn *in,
                                   const struct soft_operand *op, uint64_t *value);
enum soft_result soft_operand_write(struct soft_cpu *cpu, const struct soft_insn *in,
                                    const struct soft_operand *op, uint64_t value);

/** The bits of RSP that make the stack pointer: 16, 32 or 64. */
static inline uint64_t soft_stack_mask(const struct soft_cpu *cpu)
{
    if (cpu->mode & SOFT_MODE_CODE64)
        return ~0ull;
    return cpu->mode & SOFT_MODE_STACK32 ? 0xffffffffull : 0xffffull;
}

/** Move the stack pointer to @sp, whatever part of RSP that is. */
static inline void soft_stack_set(struct soft_cpu *cpu, uint64_t sp)
{
    uint64_t mask = soft_stack_mask(cpu);
    if (mask == 0xffff)
        cpu->s.gpr[MULL_RSP] = (cpu->s.gpr[MULL_RSP] & ~mask) | (sp & mask);
    else
        cpu->s.gpr[MULL_RSP] = sp & mask;
}

/** Store @size bytes of @value below *@sp and move *@sp; RSP stays as it is. */
enum soft_result soft_stack_store(struct soft_cpu *cpu, uint64_t *sp, uint64_t value,
                                  unsigned size);
/** Load @size bytes at *@sp and move *@sp; RSP stays as it is. */
enum soft_result soft_stack_load(struct soft_cpu *cpu, uint64_t *sp, uint64_t *value,
                                 unsigned size);

static inline uint64_t soft_size_mask(unsigned bytes)
{
    return bytes >= 8 ? ~0ull : (1ull << (bytes * 8)) - 1;
}

static inline int64_t soft_sign_extend(uint64_t value, unsigned bytes)
{
    unsigned shift = 64 - bytes * 8;
    return (int64_t)(value << shift) >> shift;
}

/** memcpy for files that must not use vector registers. */
static inline void soft_copy(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

#endif
