/*
 * REP MOVS and REP STOS in translated code, where kernels clear and copy small things all the time:
 * one check that the whole string lies in one page, then the host's own string instruction.
 * Whatever is not as simple (a page crossing, MMIO, DF set) leaves to C before anything has
 * happened.
 */
#include "engine/soft/translate.h"

#define WINDOW_OFF(member) ((uint32_t)offsetof(struct soft_window, member))

#define MAX_BYTES 4096 /* what one page can hold: the sum below cannot wrap */

struct string {
    unsigned size;
    bool move;
};

static bool is_simple(const struct tr_insn *in, struct string *s)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_STOSB:
        s->size = 1;
        break;
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_STOSW:
        s->size = 2;
        break;
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_STOSD:
        s->size = 4;
        break;
    case ZYDIS_MNEMONIC_MOVSQ:
    case ZYDIS_MNEMONIC_STOSQ:
        s->size = 8;
        break;
    default:
        return false;
    }
    s->move = in->z.mnemonic == ZYDIS_MNEMONIC_MOVSB || in->z.mnemonic == ZYDIS_MNEMONIC_MOVSW ||
              in->z.mnemonic == ZYDIS_MNEMONIC_MOVSD || in->z.mnemonic == ZYDIS_MNEMONIC_MOVSQ;
    return in->z.meta.category == ZYDIS_CATEGORY_STRINGOP && in->z.address_width == 64 &&
           (in->z.attributes & ZYDIS_ATTRIB_HAS_REP) &&
           !(in->z.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS));
}

/* R10 = host address of the string at @base, R9 elements long. @return where the jump to the slow
 * path is to be patched. */
static uint8_t *emit_string_check(struct emit *e, const struct string *s, unsigned base, bool write)
{
    emit_lea(e, H_RCX, (int)base, H_R9, s->size, -1);
    emit8(e, 0x48), emit8(e, 0xc1), emit8(e, 0xe9), emit8(e, 12); /* shr rcx, 12 */
    emit_pext_gs(e, H_R11, base, TR_OFF(tlb_index_mask));
    emit_op_mem(e, 0x65, true, 0x03, H_RCX, H_NONE, H_R11, 8,
                (int32_t)(write ? WINDOW_OFF(write_tag) : WINDOW_OFF(read_tag)));
    emit_jcc(e, 5, emit_here(e));
    uint8_t *from = e->p - 4;
    emit_op_mem(e, 0x65, true, 0x8b, H_R10, H_NONE, H_R11, 8, (int32_t)WINDOW_OFF(addend));
    emit_lea(e, H_R10, H_R10, (int)base, 1, 0);
    return from;
}

/* The element: guest RAX is the host's, so is the instruction's width. */
static void emit_string_insn(struct emit *e, const struct string *s)
{
    if (s->size == 2)
        emit8(e, 0x66);
    emit8(e, 0xf3);
    if (s->size == 8)
        emit8(e, 0x48);
    emit8(e, (uint8_t)((s->move ? 0xa4 : 0xaa) | (s->size > 1)));
}

bool tr_emit_string(struct translation *t, const struct tr_insn *in)
{
    struct emit *e = &t->e;
    struct string s;
    uint8_t *slow[4];
    unsigned n = 0;

    if (in->flags_live_behind || !is_simple(in, &s))
        return false;
    t->window = -1;

    /* cmp r9, limit; ja slow */
    emit8(e, 0x49), emit8(e, 0x81), emit8(e, 0xf9);
    emit32(e, MAX_BYTES / s.size);
    emit_jcc(e, 7, emit_here(e));
    slow[n++] = e->p - 4;
    /* test dword gs:[rflags], DF; jne slow */
    emit_op_mem(e, 0x65, false, 0xf7, 0, H_NONE, H_NONE, 1, (int32_t)TR_OFF(s.rflags));
    emit32(e, SOFT_DF);
    emit_jcc(e, 5, emit_here(e));
    slow[n++] = e->p - 4;

    if (s.move) {
        slow[n++] = emit_string_check(e, &s, H_RSI, false);
        emit_store_gs(e, TR_OFF(spill[5]), H_R10);
    }
    slow[n++] = emit_string_check(e, &s, H_RDI, true);
    emit_mov_reg(e, H_RCX, H_R9);
    emit_mov_reg(e, H_R11, H_RDI);
    emit_mov_reg(e, H_RDI, H_R10);
    if (s.move) {
        emit_mov_reg(e, H_R10, H_RSI);
        emit_load_gs(e, H_RSI, TR_OFF(spill[5]));
    }
    emit_string_insn(e, &s);
    emit_lea(e, H_RDI, H_R11, H_R9, s.size, 0);
    if (s.move)
        emit_lea(e, H_RSI, H_R10, H_R9, s.size, 0);
    emit_mov_imm(e, H_R9, 0);
    emit8(e, 0xeb); /* jmp over the call into C */
    uint8_t *done = e->p;
    emit8(e, 0);
    while (n--)
        emit_patch32(e, slow[n]);
    tr_emit_exec(t, in);
    emit_patch8(e, done);
    return true;
}
