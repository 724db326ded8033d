/* The small assembler of the soft engine: see emit.h. Encodings: Intel SDM volume 2, chapter 2. */
#include "engine/soft/emit.h"

#define GS_PREFIX 0x65

void emit_modrm_mem(struct emit *e, unsigned reg, int base, int index, unsigned scale, int32_t disp)
{
    unsigned r = (reg & 7) << 3;
    unsigned ss = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;

    if (base == H_NONE) {
        emit8(e, (uint8_t)(r | 4));
        emit8(e, (uint8_t)(ss << 6 | (index == H_NONE ? 4 : (unsigned)index & 7) << 3 | 5));
        emit32(e, (uint32_t)disp);
        return;
    }
    unsigned b = (unsigned)base & 7;
    unsigned mod = disp == 0 && b != 5 ? 0 : disp >= -128 && disp <= 127 ? 1 : 2;
    if (index != H_NONE || b == 4) {
        emit8(e, (uint8_t)(mod << 6 | r | 4));
        emit8(e, (uint8_t)(ss << 6 | (index == H_NONE ? 4 : (unsigned)index & 7) << 3 | b));
    } else {
        emit8(e, (uint8_t)(mod << 6 | r | b));
    }
    if (mod == 1)
        emit8(e, (uint8_t)disp);
    else if (mod == 2)
        emit32(e, (uint32_t)disp);
}

void emit_op_mem(struct emit *e, uint8_t prefix, bool w, uint8_t opcode, unsigned reg, int base,
                 int index, unsigned scale, int32_t disp)
{
    unsigned rex = (w ? 8u : 0) | (reg & 8) >> 1 | (index > 0 ? ((unsigned)index & 8) >> 2 : 0) |
                   (base > 0 ? ((unsigned)base & 8) >> 3 : 0);
    if (prefix)
        emit8(e, prefix);
    if (rex)
        emit8(e, (uint8_t)(0x40 | rex));
    emit8(e, opcode);
    emit_modrm_mem(e, reg, base, index, scale, disp);
}

void emit_op_mem2(struct emit *e, uint8_t prefix1, uint8_t prefix2, uint8_t opcode, unsigned reg,
                  int index, unsigned scale, int32_t disp)
{
    emit8(e, prefix1);
    emit_op_mem(e, prefix2, false, opcode, reg, H_NONE, index, scale, disp);
}

void emit_op_reg(struct emit *e, bool w, uint8_t opcode, unsigned reg, unsigned rm)
{
    unsigned rex = (w ? 8u : 0) | (reg & 8) >> 1 | (rm & 8) >> 3;
    if (rex)
        emit8(e, (uint8_t)(0x40 | rex));
    emit8(e, opcode);
    emit8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

void emit_mov_reg(struct emit *e, unsigned dst, unsigned src)
{
    emit_op_reg(e, true, 0x89, src, dst);
}

void emit_mov_imm(struct emit *e, unsigned dst, uint64_t value)
{
    if (value <= 0xffffffffu) {
        if (dst & 8)
            emit8(e, 0x41);
        emit8(e, (uint8_t)(0xb8 | (dst & 7)));
        emit32(e, (uint32_t)value);
    } else if ((int64_t)value == (int32_t)value) {
        emit8(e, (uint8_t)(0x48 | (dst & 8) >> 3));
        emit8(e, 0xc7);
        emit8(e, (uint8_t)(0xc0 | (dst & 7)));
        emit32(e, (uint32_t)value);
    } else {
        emit8(e, (uint8_t)(0x48 | (dst & 8) >> 3));
        emit8(e, (uint8_t)(0xb8 | (dst & 7)));
        emit64(e, value);
    }
}

void emit_lea(struct emit *e, unsigned dst, int base, int index, unsigned scale, int32_t disp)
{
    emit_op_mem(e, 0, true, 0x8d, dst, base, index, scale, disp);
}

void emit_load_gs(struct emit *e, unsigned dst, uint32_t disp)
{
    emit_op_mem(e, GS_PREFIX, true, 0x8b, dst, H_NONE, H_NONE, 1, (int32_t)disp);
}

void emit_store_gs(struct emit *e, uint32_t disp, unsigned src)
{
    emit_op_mem(e, GS_PREFIX, true, 0x89, src, H_NONE, H_NONE, 1, (int32_t)disp);
}

void emit_pext_gs(struct emit *e, unsigned dst, unsigned src, uint32_t mask)
{
    /* VEX.LZ.F3.0F38.W1 F5 /r: pext r64a, r64b, r/m64 */
    emit8(e, GS_PREFIX);
    emit8(e, 0xc4);
    emit8(e, (uint8_t)((dst & 8 ? 0 : 0x80) | 0x40 | 0x20 | 2));
    emit8(e, (uint8_t)(0x80 | (~src & 15) << 3 | 2));
    emit8(e, 0xf5);
    emit_modrm_mem(e, dst, H_NONE, H_NONE, 1, (int32_t)mask);
}

uint8_t *emit_jmp(struct emit *e, const uint8_t *target)
{
    emit8(e, 0xe9);
    uint8_t *at = emit_here(e);
    emit32(e, (uint32_t)(target - (at + 4)));
    return at;
}

uint8_t *emit_jcc(struct emit *e, unsigned cc, const uint8_t *target)
{
    emit8(e, 0x0f);
    emit8(e, (uint8_t)(0x80 | cc));
    uint8_t *at = emit_here(e);
    emit32(e, (uint32_t)(target - (at + 4)));
    return at;
}

uint8_t *emit_jrcxz(struct emit *e)
{
    emit8(e, 0xe3);
    emit8(e, 0);
    return e->p - 1;
}

void emit_patch8(struct emit *e, uint8_t *at)
{
    if (!e->overflow)
        *at = (uint8_t)(e->p - (at + 1));
}

void emit_patch32(struct emit *e, uint8_t *at)
{
    if (e->overflow)
        return;
    uint32_t rel = (uint32_t)(e->p - (at + 4));
    __builtin_memcpy(at, &rel, 4);
}

void emit_jmp_gs(struct emit *e, int index, uint32_t disp)
{
    emit_op_mem(e, GS_PREFIX, false, 0xff, 4, H_NONE, index, 8, (int32_t)disp);
}

void emit_align_rel32(struct emit *e, unsigned before)
{
    switch (((uintptr_t)e->p + before) & 7) {
    case 5: /* nop dword [rax] */
        emit8(e, 0x0f), emit8(e, 0x1f), emit8(e, 0x00);
        break;
    case 6:
        emit8(e, 0x66), emit8(e, 0x90);
        break;
    case 7:
        emit8(e, 0x90);
        break;
    default:
        break;
    }
}
