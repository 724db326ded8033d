/*
 * String instructions in translated code. REP MOVS and REP STOS, where kernels clear and copy small
 * things all the time: one check that the whole string lies in one page, then the host's own string
 * instruction; REP SCASB, page by page. Without REP they are the moves and compares that they are.
 * Whatever is not as simple (a page crossing, MMIO, DF set) leaves to C before anything has
 * happened.
 */
#include "engine/soft/translate.h"

#define WINDOW_OFF(member) ((uint32_t)offsetof(struct soft_window, member))

#define LOG2_MAX_BYTES 12 /* what one page can hold: the sum below cannot wrap */

enum operation { STRING_MOVS, STRING_STOS, STRING_LODS, STRING_SCAS, STRING_CMPS };

struct string {
    struct translation *t;
    const struct tr_insn *in;
    enum operation op;
    unsigned log2_size;
    bool wide; /* 64-bit addresses */
    bool live; /* flags must survive */
    unsigned slow_count;
    uint8_t *slow[8]; /* jumps to the call into C */
};

static bool describe(struct string *s)
{
    switch (s->in->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ:
        s->op = STRING_MOVS;
        break;
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
        s->op = STRING_STOS;
        break;
    case ZYDIS_MNEMONIC_LODSB:
    case ZYDIS_MNEMONIC_LODSW:
    case ZYDIS_MNEMONIC_LODSD:
    case ZYDIS_MNEMONIC_LODSQ:
        s->op = STRING_LODS;
        break;
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ:
        s->op = STRING_SCAS;
        break;
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
        s->op = STRING_CMPS;
        break;
    default:
        return false;
    }
    if (s->in->z.meta.category != ZYDIS_CATEGORY_STRINGOP)
        return false;
    s->log2_size = (s->in->z.opcode & 1) == 0     ? 0
                   : s->in->z.operand_width == 16 ? 1
                   : s->in->z.operand_width == 32 ? 2
                                                  : 3;
    s->wide = s->in->z.address_width == 64;
    return true;
}

/* ---- Ways to C ---- */

/* Jump to C unless RCX is zero. Leaves the flags alone. */
static void leave_unless_zero(struct string *s)
{
    struct emit *e = &s->t->e;
    uint8_t *zero = emit_jrcxz(e);

    emit_jmp(e, emit_here(e));
    s->slow[s->slow_count++] = e->p - 4;
    emit_patch8(e, zero);
}

/* Jump to C if RCX is zero. */
static void leave_if_zero(struct string *s)
{
    struct emit *e = &s->t->e;
    uint8_t *zero = emit_jrcxz(e);

    emit8(e, 0xeb);
    uint8_t *some = e->p;
    emit8(e, 0);
    emit_patch8(e, zero);
    emit_jmp(e, emit_here(e));
    s->slow[s->slow_count++] = e->p - 4;
    emit_patch8(e, some);
}

static void leave_if(struct string *s, unsigned condition)
{
    emit_jcc(&s->t->e, condition, emit_here(&s->t->e));
    s->slow[s->slow_count++] = s->t->e.p - 4;
}

/* shlx (pp 1) or shrx (pp 3) rcx, reg, amount */
static void emit_shift(struct emit *e, unsigned pp, unsigned reg, unsigned amount)
{
    emit_mov_imm(e, H_R11, amount);
    emit8(e, 0xc4);
    emit8(e, (uint8_t)(0xc2 | (reg & 8 ? 0 : 0x20)));
    emit8(e, (uint8_t)(0x80 | (~H_R11 & 15) << 3 | pp));
    emit8(e, 0xf7);
    emit8(e, (uint8_t)(0xc8 | (reg & 7)));
}

static void leave_if_backward(struct string *s)
{
    struct emit *e = &s->t->e;

    if (s->live) { /* RCX = DF */
        emit_load_gs(e, H_RCX, TR_OFF(s.rflags));
        emit_shift(e, 1, H_RCX, 63 - 10);
        emit_shift(e, 3, H_RCX, 63);
        leave_unless_zero(s);
    } else {
        /* test dword gs:[rflags], DF */
        emit_op_mem(e, 0x65, false, 0xf7, 0, H_NONE, H_NONE, 1, (int32_t)TR_OFF(s.rflags));
        emit32(e, SOFT_DF);
        leave_if(s, 5);
    }
}

/* The end of the instruction: what left for C arrives here. */
static void emit_ways_out(struct string *s)
{
    struct emit *e = &s->t->e;

    emit8(e, 0xeb); /* jmp over the call into C */
    uint8_t *done = e->p;
    emit8(e, 0);
    while (s->slow_count)
        emit_patch32(e, s->slow[--s->slow_count]);
    tr_emit_exec(s->t, s->in);
    emit_patch8(e, done);
}

/* ---- With REP ---- */

/* dst = src, as wide as an address. */
static void emit_move(const struct string *s, unsigned dst, unsigned src)
{
    emit_op_reg(&s->t->e, s->wide, 0x89, src, dst);
}

/* R10 = host address of the string at @base, R9 elements long. */
static void emit_string_check(struct string *s, unsigned base, bool write)
{
    struct emit *e = &s->t->e;
    int32_t tag = (int32_t)(write ? WINDOW_OFF(write_tag) : WINDOW_OFF(read_tag));

    emit_move(s, H_RCX, H_R9);
    emit_move(s, H_R10, base);
    emit_lea(e, H_RCX, H_R10, H_RCX, 1u << s->log2_size, -1);
    /* The last byte's address + tag is its offset in the page that the first byte selects. */
    emit_pext_gs(e, H_R11, H_R10, TR_OFF(tlb_index_mask));
    if (s->live) {
        emit_op_mem(e, 0x65, true, 0x8b, H_R11, H_NONE, H_R11, 8, tag);
        emit_lea(e, H_RCX, H_RCX, H_R11, 1, 0);
        emit_pext_gs(e, H_RCX, H_RCX, TR_OFF(page_mask));
        leave_unless_zero(s);
        emit_pext_gs(e, H_R11, H_R10, TR_OFF(tlb_index_mask));
    } else {
        emit_op_mem(e, 0x65, true, 0x03, H_RCX, H_NONE, H_R11, 8, tag);
        emit8(e, 0x48), emit8(e, 0xc1), emit8(e, 0xe9), emit8(e, 12); /* shr rcx, 12 */
        leave_if(s, 5);
    }
    emit_pext_gs(e, H_R10, H_R10, TR_OFF(offset_mask));
    emit_op_mem(e, 0x65, true, 0x8b, H_R11, H_NONE, H_R11, 8, (int32_t)WINDOW_OFF(page));
    emit_lea(e, H_R10, H_R10, H_R11, 1, 0);
}

static void leave_if_long(struct string *s)
{
    struct emit *e = &s->t->e;

    if (s->live) {
        emit_move(s, H_RCX, H_R9);
        /* (count - 1) >> bits: nothing left of 1 to a page; -1 >> bits of 0, which C does */
        emit_op_mem(e, 0, s->wide, 0x8d, H_RCX, H_RCX, H_NONE, 1, -1);
        emit_shift(e, 3, H_RCX, LOG2_MAX_BYTES - s->log2_size);
        leave_unless_zero(s);
    } else {
        /* cmp r9, limit */
        emit8(e, s->wide ? 0x49 : 0x41), emit8(e, 0x81), emit8(e, 0xf9);
        emit32(e, 1u << (LOG2_MAX_BYTES - s->log2_size));
        leave_if(s, 7);
    }
}

/* The element: guest RAX is the host's, so is the instruction's width. */
static void emit_string_insn(const struct string *s)
{
    struct emit *e = &s->t->e;

    if (s->log2_size == 1)
        emit8(e, 0x66);
    emit8(e, 0xf3);
    if (s->log2_size == 3)
        emit8(e, 0x48);
    emit8(e, (uint8_t)((s->op == STRING_MOVS ? 0xa4 : 0xaa) | (s->log2_size > 0)));
}

static void emit_repeated(struct string *s)
{
    struct emit *e = &s->t->e;
    const bool moves = s->op == STRING_MOVS;
    const unsigned size = 1u << s->log2_size;

    leave_if_long(s);
    leave_if_backward(s);
    if (moves) {
        emit_string_check(s, H_RSI, false);
        emit_store_gs(e, TR_OFF(spill[5]), H_R10);
    }
    emit_string_check(s, H_RDI, true);
    emit_move(s, H_RCX, H_R9);
    emit_mov_reg(e, H_R11, H_RDI);
    emit_mov_reg(e, H_RDI, H_R10);
    if (moves) {
        emit_mov_reg(e, H_R10, H_RSI);
        emit_load_gs(e, H_RSI, TR_OFF(spill[5]));
    }
    emit_string_insn(s);
    emit_op_mem(e, 0, s->wide, 0x8d, H_RDI, H_R11, H_R9, size, 0);
    if (moves)
        emit_op_mem(e, 0, s->wide, 0x8d, H_RSI, H_R10, H_R9, size, 0);
    emit_mov_imm(e, H_R9, 0);
    emit_ways_out(s);
}

/* REP SCASB to the end of the page, where C goes on. */
static void emit_scan(struct string *s)
{
    struct emit *e = &s->t->e;
    const bool repe = !(s->in->z.attributes & ZYDIS_ATTRIB_HAS_REPNE);

    /* No element: no flag changes. C knows. */
    emit_move(s, H_RCX, H_R9);
    leave_if_zero(s);
    s->live = true;
    leave_if_backward(s);
    emit_move(s, H_R10, H_RDI);
    tr_emit_check(s->t, 1, false, true);
    /* RCX = the smaller of the count and what is left of the page; the flags are SCAS's now. */
    emit_mov_imm(e, H_RCX, MULL_PAGE_SIZE);
    emit_op_reg(e, false, 0x89, H_R10, H_R11);
    emit8(e, 0x41), emit8(e, 0x81), emit8(e, 0xe3); /* and r11d, 0xfff */
    emit32(e, MULL_PAGE_SIZE - 1);
    emit_op_reg(e, false, 0x29, H_R11, H_RCX);  /* sub ecx, r11d */
    emit_op_reg(e, s->wide, 0x39, H_RCX, H_R9); /* cmp r9, rcx */
    emit8(e, s->wide ? 0x49 : 0x41);            /* cmovb rcx, r9 */
    emit8(e, 0x0f), emit8(e, 0x42), emit8(e, 0xc9);
    emit_mov_reg(e, H_R11, H_RDI);
    emit_mov_reg(e, H_RDI, H_R10);
    emit8(e, repe ? 0xf3 : 0xf2), emit8(e, 0xae);
    /* R10 = how many there were; NOT and LEA leave the flags alone. */
    emit8(e, 0x49), emit8(e, 0xf7), emit8(e, 0xd2);
    emit_lea(e, H_R10, H_R10, H_RDI, 1, 1);
    emit_op_mem(e, 0, s->wide, 0x8d, H_RDI, H_R11, H_R10, 1, 0);
    emit8(e, 0x49), emit8(e, 0xf7), emit8(e, 0xd2);
    emit_op_mem(e, 0, s->wide, 0x8d, H_R9, H_R9, H_R10, 1, 1);
    /* Ended by what was found, or by the count; else in the next page. */
    emit8(e, repe ? 0x75 : 0x74);
    uint8_t *found = e->p;
    emit8(e, 0);
    emit_move(s, H_RCX, H_R9);
    leave_unless_zero(s);
    emit_patch8(e, found);
    emit_ways_out(s);
}

/* ---- Without REP ---- */

/* R10 = host address of the element at @base, checked. */
static void emit_element(struct string *s, unsigned base, unsigned seg, bool write)
{
    struct emit *e = &s->t->e;
    const unsigned size = 1u << s->log2_size;

    emit_move(s, H_R10, base);
    if (s->in->z.address_width == 16)
        tr_emit_cut_16(e, H_R10);
    tr_emit_segment(s->t, seg, size, write, s->live);
    tr_emit_check(s->t, size, write, s->live);
}

static void emit_advance(const struct string *s, unsigned reg)
{
    emit_op_mem(&s->t->e, s->in->z.address_width == 16 ? 0x66 : 0, s->wide, 0x8d, reg, (int)reg,
                H_NONE, 1, 1 << s->log2_size);
}

/* An instruction on [R10] and a register, by its opcode for bytes. */
#define STORE 0x88
#define LOAD 0x8a
#define COMPARE 0x3a
static void emit_transfer(const struct string *s, uint8_t opcode, unsigned reg)
{
    emit_op_mem(&s->t->e, s->log2_size == 1 ? 0x66 : 0, s->log2_size == 3,
                (uint8_t)(opcode | (s->log2_size > 0)), reg, H_R10, H_NONE, 1, 0);
}

static void emit_single(struct string *s, unsigned source_seg)
{
    struct emit *e = &s->t->e;
    const bool source = s->op != STRING_STOS && s->op != STRING_SCAS;
    const bool compares = s->op == STRING_SCAS || s->op == STRING_CMPS;
    const bool accumulator = s->op != STRING_MOVS && s->op != STRING_CMPS;

    s->live &= !compares;
    leave_if_backward(s);
    if (source) {
        emit_element(s, H_RSI, source_seg, false);
        emit_transfer(s, LOAD, accumulator ? H_RAX : H_RCX);
        if (!accumulator)
            emit_store_gs(e, TR_OFF(spill[5]), H_RCX);
    }
    if (s->op != STRING_LODS) {
        emit_element(s, H_RDI, MULL_ES, !compares);
        if (!accumulator)
            emit_load_gs(e, H_RCX, TR_OFF(spill[5]));
        emit_transfer(s, compares ? COMPARE : STORE, accumulator ? H_RAX : H_RCX);
        emit_advance(s, H_RDI);
    }
    if (source)
        emit_advance(s, H_RSI);
    emit_ways_out(s);
}

/* ---- Which ---- */

/* The segment of the source: what an override says, DS without one. */
static unsigned source_segment(const struct tr_insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        int base = op->type == ZYDIS_OPERAND_TYPE_MEMORY ? tr_gpr(op->mem.base, NULL) : -1;
        if (base == MULL_RSI)
            return tr_segment(op);
    }
    return MULL_DS;
}

bool tr_emit_string(struct translation *t, const struct tr_insn *in)
{
    struct string s = {.t = t, .in = in, .live = in->flags_live_behind};
    const unsigned seg = source_segment(in);
    const bool repeats =
        in->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);

    if (!describe(&s))
        return false;
    if (tr_code64(t)) {
        if (!s.wide || seg == MULL_FS || seg == MULL_GS)
            return false;
    } else if (repeats &&
               (in->z.address_width != 32 || !tr_is_flat(t, seg) || !tr_is_flat(t, MULL_ES))) {
        return false;
    }
    const bool plain_rep = in->z.attributes & ZYDIS_ATTRIB_HAS_REP;
    const bool scans = s.op == STRING_SCAS && s.log2_size == 0; /* for the end of a string */
    const bool copies = (s.op == STRING_MOVS || s.op == STRING_STOS) && plain_rep;
    if (repeats && !scans && !copies)
        return false;
    t->window = -1;
    if (!repeats)
        emit_single(&s, seg);
    else if (scans)
        emit_scan(&s);
    else
        emit_repeated(&s);
    return true;
}
