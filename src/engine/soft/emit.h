/*
 * A small x86-64 assembler: what the glue and the translator emit themselves. Writes through the
 * code cache's writable mapping; relative operands are computed for the executable one.
 */
#ifndef MULL_SOFT_EMIT_H
#define MULL_SOFT_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum host_reg {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15,
    H_NONE = -1,
};

struct emit {
    uint8_t *p;     /* next byte, writable mapping */
    uint8_t *limit; /* stop here: overflow is set and nothing is written */
    ptrdiff_t rx;   /* add to a writable address to get the executable one */
    bool overflow;
};

static inline uint8_t *emit_here(const struct emit *e)
{
    return e->p + e->rx;
}

static inline void emit8(struct emit *e, uint8_t v)
{
    if (e->p < e->limit)
        *e->p++ = v;
    else
        e->overflow = true;
}

static inline void emit32(struct emit *e, uint32_t v)
{
    if (e->limit - e->p >= 4) {
        __builtin_memcpy(e->p, &v, 4);
        e->p += 4;
    } else {
        e->overflow = true;
    }
}

static inline void emit64(struct emit *e, uint64_t v)
{
    emit32(e, (uint32_t)v);
    emit32(e, (uint32_t)(v >> 32));
}

/** ModRM, SIB and displacement for [base + index * scale + disp]; base and index may be H_NONE. */
void emit_modrm_mem(struct emit *e, unsigned reg, int base, int index, unsigned scale,
                    int32_t disp);

/** op reg, [mem] with a one-byte opcode; @w: 64-bit; @prefix: 0 or a segment/operand prefix. */
void emit_op_mem(struct emit *e, uint8_t prefix, bool w, uint8_t opcode, unsigned reg, int base,
                 int index, unsigned scale, int32_t disp);

/** The same with two prefixes and no base. */
void emit_op_mem2(struct emit *e, uint8_t prefix1, uint8_t prefix2, uint8_t opcode, unsigned reg,
                  int index, unsigned scale, int32_t disp);

/** op rm, reg (register form). */
void emit_op_reg(struct emit *e, bool w, uint8_t opcode, unsigned reg, unsigned rm);

void emit_mov_reg(struct emit *e, unsigned dst, unsigned src);
/** The shortest move of a constant. Leaves flags alone. */
void emit_mov_imm(struct emit *e, unsigned dst, uint64_t value);
void emit_lea(struct emit *e, unsigned dst, int base, int index, unsigned scale, int32_t disp);
/** dst = gs:[disp], gs:[disp] = src */
void emit_load_gs(struct emit *e, unsigned dst, uint32_t disp);
void emit_store_gs(struct emit *e, uint32_t disp, unsigned src);
/** pext dst, src, gs:[mask] */
void emit_pext_gs(struct emit *e, unsigned dst, unsigned src, uint32_t mask);
/** jmp rel32 / jcc rel32 to an executable address. @return where the rel32 is (executable). */
uint8_t *emit_jmp(struct emit *e, const uint8_t *target);
uint8_t *emit_jcc(struct emit *e, unsigned cc, const uint8_t *target);
/** jrcxz rel8 with the target to be set by emit_patch8(). @return the writable address of rel8. */
uint8_t *emit_jrcxz(struct emit *e);
void emit_patch8(struct emit *e, uint8_t *at);
/** Point the rel32 at @at (writable) to the current position. */
void emit_patch32(struct emit *e, uint8_t *at);
/** jmp gs:[index * 8 + disp] (index H_NONE: absolute) */
void emit_jmp_gs(struct emit *e, int index, uint32_t disp);
/** Pad with a NOP so that a rel32 emitted after @before bytes lies in one aligned quadword: then a
 * store to it is atomic (AMD APM volume 2, 7.3.2; Intel SDM volume 3, 9.1.1). */
void emit_align_rel32(struct emit *e, unsigned before);

#endif
