/*
 * What the translator does otherwise outside 64-bit mode: 16- and 32-bit code in real, protected,
 * virtual-8086 and compatibility mode becomes 64-bit code. Offsets are cut to the address size,
 * segments add a base and check a limit unless they are flat, EIP and the stack pointer wrap, and
 * encodings that 64-bit mode gave away get another form. In 64-bit mode the functions here that
 * lower.c calls emit what they always did.
 *
 * The limit check needs no compare: soft_cpu.segment_room holds minus the segment's size, so that
 * the last byte's offset plus it is negative where the access is allowed; where only C can tell
 * (expand-down, not writable, null) it holds 0.
 */
#include "engine/soft/decode.h"
#include "engine/soft/exec.h"
#include "engine/soft/translate.h"

#define SEGMENT_OFF(seg, member)                                                                   \
    (TR_OFF(s.seg) + (uint32_t)(seg) * (uint32_t)sizeof(struct mull_segment) +                     \
     (uint32_t)offsetof(struct mull_segment, member))

/* ---- The instruction pointer ---- */

static uint64_t cut(unsigned bits, uint64_t rip)
{
    return bits == 64 ? rip : bits == 32 ? (uint32_t)rip : (uint16_t)rip;
}

uint64_t tr_next_rip(const struct translation *t, const struct tr_insn *in)
{
    return cut(tr_code_bits(t), in->rip + in->z.length);
}

uint64_t tr_target(const struct translation *t, const struct tr_insn *in)
{
    if (in->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return 0;
    return cut(tr_code64(t) ? 64 : in->z.operand_width,
               in->rip + in->z.length + (uint64_t)in->op[0].imm.value.s);
}

/* ---- Which instructions, and their bytes ---- */

static bool is_direct_branch(const struct tr_insn *in)
{
    return in->kind == TR_JMP || in->kind == TR_JCC || in->kind == TR_LOOP || in->kind == TR_CALL;
}

/* Make a VEX or EVEX prefix mean in 64-bit mode what it means here: register numbers have three
 * bits, the fourth does not count wherever it is encoded, nor does W where it would make a general
 * register's operand wider (SDM volume 2, 2.3.5 and 2.7). @return false: not to be copied. */
static bool adapt_prefix(const struct translation *t, struct tr_insn *in)
{
    bool evex = in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    struct soft_insn insn;

    if (!(t->mode & SOFT_MODE_PROTECTED) || (t->mode & SOFT_MODE_VM86))
        return false; /* #UD */
    soft_insn_from_zydis(&insn, &in->z, in->op, in->bytes, tr_code_bits(t));
    if (insn.handler != soft_exec_data)
        return false;
    uint8_t *b = in->bytes + insn.native.opcode;
    if (insn.native.is4)
        in->bytes[in->z.length - 1] &= 0x7f;
    if (b[0] == 0xc5) {
        b[1] |= 0xc0; /* R, vvvv */
        return true;
    }
    b[1] |= evex ? 0xf0 : 0xe0; /* R, X, B, R' */
    b[2] |= 0x40;               /* vvvv */
    if (insn.native.narrow)
        b[2] &= 0x7f; /* W */
    if (evex)
        b[3] |= 0x08; /* V' */
    return true;
}

void tr_restrict(const struct translation *t, struct tr_insn *in)
{
    bool vex = in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ||
               in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;

    if (in->kind == TR_COPY && vex && !adapt_prefix(t, in))
        in->kind = TR_EXEC;
    if ((t->mode & SOFT_MODE_CODE_64K) && is_direct_branch(in) && tr_target(t, in) > 0xffff)
        in->kind = TR_EXEC_END; /* #GP, if it jumps */
    if (in->kind == TR_POP_REG && in->z.operand_width == 16 &&
        in->op[0].reg.value == ZYDIS_REGISTER_SP)
        in->kind = TR_EXEC; /* a part of the stack pointer */
    if (in->kind == TR_BIT && in->z.address_width != 32)
        in->kind = TR_EXEC;
}

bool tr_needs_66(const struct translation *t, const struct tr_insn *in)
{
    struct soft_insn insn;

    if (tr_code_bits(t) == 32 && in->z.raw.prefix_count == 0)
        return false;
    soft_insn_from_zydis(&insn, &in->z, in->op, in->bytes, tr_code_bits(t));
    return insn.native.keep & SOFT_KEEP_66;
}

/* ---- Addresses ---- */

static void emit_lea_32(struct emit *e, unsigned dst, int base, int index, unsigned scale,
                        int32_t disp)
{
    emit_op_mem(e, 0, false, 0x8d, dst, base, index, scale, disp);
}

void tr_emit_cut_16(struct emit *e, unsigned reg)
{
    emit8(e, (uint8_t)(0x40 | (reg & 8) >> 1 | (reg & 8) >> 3));
    emit8(e, 0x0f), emit8(e, 0xb7);
    emit8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (reg & 7)));
}

/* Base and index as host registers: none of the eight is parked in memory. */
static void address_registers(const ZydisDecodedOperandMem *m, int *base, int *index)
{
    int b = tr_gpr(m->base, NULL), x = tr_gpr(m->index, NULL);

    *base = b < 0 ? H_NONE : tr_host_of[b];
    *index = x < 0 ? H_NONE : tr_host_of[x];
}

void tr_emit_offset(struct translation *t, const struct tr_insn *in, const ZydisDecodedOperand *op)
{
    const ZydisDecodedOperandMem *m = &op->mem;
    const bool narrow = in->z.address_width == 16;
    int base, index;

    address_registers(m, &base, &index);
    if (base == H_NONE && index == H_NONE) {
        emit_mov_imm(&t->e, H_R10, cut(narrow ? 16 : 32, (uint64_t)m->disp.value));
        return;
    }
    emit_lea_32(&t->e, H_R10, base, index, m->scale ? m->scale : 1, (int32_t)m->disp.value);
    if (narrow)
        tr_emit_cut_16(&t->e, H_R10);
}

unsigned tr_segment(const ZydisDecodedOperand *op)
{
    switch (op->mem.segment) {
    case ZYDIS_REGISTER_ES:
        return MULL_ES;
    case ZYDIS_REGISTER_CS:
        return MULL_CS;
    case ZYDIS_REGISTER_SS:
        return MULL_SS;
    case ZYDIS_REGISTER_FS:
        return MULL_FS;
    case ZYDIS_REGISTER_GS:
        return MULL_GS;
    default:
        return MULL_DS;
    }
}

bool tr_is_flat(const struct translation *t, unsigned seg)
{
    return (t->mode & SOFT_MODE_FLAT) && (seg == MULL_DS || seg == MULL_ES || seg == MULL_SS);
}

void tr_emit_segment(struct translation *t, unsigned seg, unsigned size, bool write,
                     bool flags_live)
{
    struct emit *e = &t->e;
    uint32_t room = TR_OFF(segment_room) + ((write ? 6u : 0) + seg) * 8;

    if (tr_code64(t) || tr_is_flat(t, seg))
        return;
    struct tr_slow *slow = &t->slow[t->slow_count++];

    slow->cell = -1;
    slow->leaves = false;
    slow->retry = emit_here(e);
    slow->info = size | SOFT_MISS_SEGMENT;
    slow->ea.kind = TR_EA_THERE;
    emit_lea(e, H_RCX, H_R10, H_NONE, 1, (int32_t)size - 1);
    if (flags_live) {
        emit_load_gs(e, H_R11, room);
        emit_lea(e, H_RCX, H_RCX, H_R11, 1, 0);
        emit_mov_imm(e, H_R11, 63);
        /* sarx rcx, rcx, r11: -1 where it is allowed */
        emit8(e, 0xc4), emit8(e, 0xe2), emit8(e, (uint8_t)(0x80 | (~H_R11 & 15) << 3 | 2));
        emit8(e, 0xf7), emit8(e, 0xc9);
        emit_lea(e, H_RCX, H_RCX, H_NONE, 1, 1);
        uint8_t *allowed = emit_jrcxz(e);
        emit_jmp(e, emit_here(e));
        slow->from = e->p - 4;
        emit_patch8(e, allowed);
    } else {
        emit_op_mem(e, 0x65, true, 0x03, H_RCX, H_NONE, H_NONE, 1, (int32_t)room);
        emit_jcc(e, 9, emit_here(e)); /* jns */
        slow->from = e->p - 4;
    }
    emit_load_gs(e, H_RCX, SEGMENT_OFF(seg, base));
    emit_lea_32(e, H_R10, H_R10, H_RCX, 1, 0);
}

/* ---- The stack ---- */

void tr_emit_load(struct translation *t, unsigned dst, int32_t at, unsigned size)
{
    emit_op_mem(&t->e, size == 2 ? 0x66 : 0, size == 8, 0x8b, dst, H_R10, H_NONE, 1, at);
}

void tr_emit_load_zero(struct translation *t, unsigned dst, int32_t at, unsigned size)
{
    tr_emit_load(t, dst, at, size);
    if (size == 2)
        tr_emit_cut_16(&t->e, dst);
}

void tr_emit_store(struct translation *t, unsigned src, int32_t at, unsigned size)
{
    emit_op_mem(&t->e, size == 2 ? 0x66 : 0, size == 8, 0x89, src, H_R10, H_NONE, 1, at);
}

void tr_emit_set_sp(struct translation *t, unsigned base, int32_t delta)
{
    bool narrow = !(t->mode & (SOFT_MODE_CODE64 | SOFT_MODE_STACK32));
    emit_op_mem(&t->e, narrow ? 0x66 : 0, tr_code64(t), 0x8d, H_RSP, (int)base, H_NONE, 1, delta);
}

void tr_emit_stack_offset(struct translation *t, unsigned base, int32_t disp)
{
    emit_op_mem(&t->e, 0, tr_code64(t), 0x8d, H_R10, (int)base, H_NONE, 1, disp);
    if (!(t->mode & (SOFT_MODE_CODE64 | SOFT_MODE_STACK32)))
        tr_emit_cut_16(&t->e, H_R10);
}

/* ---- Control flow ---- */

void tr_emit_target_check(struct translation *t, const struct tr_insn *in)
{
    struct emit *e = &t->e;

    if (tr_code64(t))
        return;
    if (in->z.operand_width == 16) {
        tr_emit_cut_16(e, H_R10);
    } else {
        emit_op_reg(e, false, 0x89, H_R10, H_R10); /* mov r10d, r10d */
        if (t->mode & SOFT_MODE_CODE_64K) {
            /* rorx ecx, r10d, 16; movzx ecx, cx: what must be zero */
            emit8(e, 0xc4), emit8(e, 0xc3), emit8(e, 0x7b), emit8(e, 0xf0), emit8(e, 0xca);
            emit8(e, 16);
            tr_emit_cut_16(e, H_RCX);
            uint8_t *inside = emit_jrcxz(e);
            tr_emit_exec(t, in); /* #GP */
            emit_patch8(e, inside);
        }
    }
    if (t->space) {
        emit_mov_imm(e, H_RCX, t->space);
        emit_lea(e, H_R10, H_R10, H_RCX, 1, 0);
    }
}

/* LOOPNE E0, LOOPE E1, LOOP E2, JCXZ E3: the counter is as wide as an address. */
void tr_emit_loop(struct translation *t, const struct tr_insn *in)
{
    struct emit *e = &t->e;
    const unsigned width = in->z.address_width, counter = (unsigned)tr_host_of[MULL_RCX];
    const bool jcxz = in->z.opcode == 0xe3;

    if (!jcxz)
        emit_op_mem(e, width == 16 ? 0x66 : 0, width == 64, 0x8d, counter, (int)counter, H_NONE, 1,
                    -1);
    emit_op_reg(e, width == 64, 0x89, counter, H_RCX);
    if (width == 16)
        tr_emit_cut_16(e, H_RCX);
    uint8_t *zero = emit_jrcxz(e);
    if (jcxz) {
        tr_emit_goto(t, tr_next_rip(t, in));
        emit_patch8(e, zero);
        tr_emit_goto(t, tr_target(t, in));
        return;
    }
    uint8_t *not = NULL;
    if (in->z.opcode != 0xe2) {
        emit8(e, in->z.opcode == 0xe0 ? 0x74 : 0x75); /* jz, jnz */
        not = e->p;
        emit8(e, 0);
    }
    tr_emit_goto(t, tr_target(t, in));
    emit_patch8(e, zero);
    if (not )
        emit_patch8(e, not );
    tr_emit_goto(t, tr_next_rip(t, in));
}

/* ---- LEA ---- */

void tr_emit_lea32(struct translation *t, const struct tr_insn *in)
{
    const ZydisDecodedOperandMem *m = &in->op[1].mem;
    unsigned dst = (unsigned)tr_host_of[tr_gpr(in->op[0].reg.value, NULL)];
    int base, index;

    if (in->op[0].size == 32 && in->z.address_width == 16) {
        tr_emit_address(t, in, &in->op[1]);
        emit_op_reg(&t->e, false, 0x89, H_R10, dst);
        return;
    }
    /* The low 16 bits of the sum do not depend on the address size. */
    address_registers(m, &base, &index);
    emit_op_mem(&t->e, in->op[0].size == 16 ? 0x66 : 0, false, 0x8d, dst, base, index,
                m->scale ? m->scale : 1, (int32_t)m->disp.value);
}
