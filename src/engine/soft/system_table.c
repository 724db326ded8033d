/*
 * Descriptor tables, segment registers and what asks about descriptors: LGDT to ARPL, MOV to and
 * from segment registers, SWAPGS, FS and GS bases (SDM volume 2).
 */
#include "engine/soft/system.h"

#include <Zydis/Zydis.h>

static enum soft_result general_protection(struct soft_cpu *cpu)
{
    return soft_raise_error(cpu, SOFT_GP, 0);
}

/* UMIP: these show where the kernel's tables are. */
static bool hidden_from_user(const struct soft_cpu *cpu)
{
    return (cpu->s.cr4 & SOFT_CR4_UMIP) && soft_cpl(cpu);
}

/* ---- GDTR, IDTR ---- */

enum soft_result soft_sys_lgdt(struct soft_cpu *cpu, const struct soft_insn *in)
{
    bool long64 = in->code_bits == 64;
    unsigned size = long64 ? 10 : 6;
    uint8_t image[10] = {0};
    uint64_t va;

    enum soft_result r = soft_need_cpl0(cpu);
    if (r == SOFT_NEXT)
        r = soft_linear(cpu, in->op[0].seg, soft_operand_offset(cpu, in, &in->op[0], 0), size,
                        SOFT_READ, &va);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va, image, size, SOFT_READ);
    if (r != SOFT_NEXT)
        return r;
    uint64_t base = 0;
    soft_copy(&base, image + 2, size - 2);
    if (long64 && !soft_canonical(base))
        return general_protection(cpu);
    if (!long64 && in->operand_size == 2)
        base &= 0xffffff;
    struct mull_table *table = in->mnemonic == ZYDIS_MNEMONIC_LGDT ? &cpu->s.gdt : &cpu->s.idt;
    table->base = base;
    table->limit = (uint16_t)(image[0] | image[1] << 8);
    return soft_done(cpu, in);
}

enum soft_result soft_sys_sgdt(struct soft_cpu *cpu, const struct soft_insn *in)
{
    const struct mull_table *table =
        in->mnemonic == ZYDIS_MNEMONIC_SGDT ? &cpu->s.gdt : &cpu->s.idt;
    unsigned size = in->code_bits == 64 ? 10 : 6;
    uint8_t image[10];
    uint64_t va;

    if (hidden_from_user(cpu))
        return general_protection(cpu);
    image[0] = (uint8_t)table->limit;
    image[1] = (uint8_t)(table->limit >> 8);
    soft_copy(image + 2, &table->base, 8);
    enum soft_result r = soft_linear(
        cpu, in->op[0].seg, soft_operand_offset(cpu, in, &in->op[0], 0), size, SOFT_WRITE, &va);
    if (r == SOFT_NEXT)
        r = soft_write(cpu, va, image, size, SOFT_WRITE);
    return r == SOFT_NEXT ? soft_done(cpu, in) : r;
}

/* ---- LDTR, TR ---- */

static void system_segment(const struct soft_cpu *cpu, const struct soft_desc *desc,
                           uint16_t selector, struct mull_segment *seg)
{
    soft_desc_to_segment(desc, selector, seg);
    if (soft_long_mode(cpu))
        seg->base |= (uint64_t)desc->base_high << 32;
}

static enum soft_result read_selector(struct soft_cpu *cpu, const struct soft_insn *in,
                                      uint16_t *selector)
{
    uint64_t value;
    enum soft_result r;

    if (in->op[0].kind == SOFT_OP_MEM) { /* 16 bits, whatever the operand size */
        uint64_t va;
        uint16_t word = 0;
        r = soft_linear(cpu, in->op[0].seg, soft_operand_offset(cpu, in, &in->op[0], 0), 2,
                        SOFT_READ, &va);
        if (r == SOFT_NEXT)
            r = soft_read(cpu, va, &word, 2, SOFT_READ);
        *selector = word;
        return r;
    }
    r = soft_operand_read(cpu, in, &in->op[0], &value);
    *selector = (uint16_t)value;
    return r;
}

enum soft_result soft_sys_lldt(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct soft_desc desc;
    uint16_t selector;

    if (soft_real_segments(cpu))
        return soft_raise(cpu, SOFT_UD);
    enum soft_result r = soft_need_cpl0(cpu);
    if (r == SOFT_NEXT)
        r = read_selector(cpu, in, &selector);
    if (r != SOFT_NEXT)
        return r;
    if (!(selector & 0xfffc)) {
        soft_null_segment(&cpu->s.seg[MULL_LDTR], selector);
        return soft_done(cpu, in);
    }
    if (selector & 4)
        return soft_raise_error(cpu, SOFT_GP, selector & 0xfffcu);
    r = soft_read_system_desc(cpu, selector, SOFT_GP, 0, &desc);
    if (r != SOFT_NEXT)
        return r;
    if ((desc.hi & SOFT_DESC_S) || SOFT_DESC_TYPE(desc.hi) != 2)
        return soft_raise_error(cpu, SOFT_GP, selector & 0xfffcu);
    if (!(desc.hi & SOFT_DESC_P))
        return soft_raise_error(cpu, SOFT_NP, selector & 0xfffcu);
    system_segment(cpu, &desc, selector, &cpu->s.seg[MULL_LDTR]);
    return soft_done(cpu, in);
}

enum soft_result soft_sys_ltr(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct soft_desc desc;
    uint16_t selector;

    if (soft_real_segments(cpu))
        return soft_raise(cpu, SOFT_UD);
    enum soft_result r = soft_need_cpl0(cpu);
    if (r == SOFT_NEXT)
        r = read_selector(cpu, in, &selector);
    if (r != SOFT_NEXT)
        return r;
    uint32_t error = selector & 0xfffcu;
    if (!error || (selector & 4))
        return soft_raise_error(cpu, SOFT_GP, error);
    r = soft_read_system_desc(cpu, selector, SOFT_GP, 0, &desc);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(desc.hi);
    if ((desc.hi & SOFT_DESC_S) || (type != 9 && (type != 1 || soft_long_mode(cpu))))
        return soft_raise_error(cpu, SOFT_GP, error);
    if (!(desc.hi & SOFT_DESC_P))
        return soft_raise_error(cpu, SOFT_NP, error);
    desc.hi |= 2u << 8; /* busy */
    uint8_t access = (uint8_t)(desc.hi >> 8);
    r = soft_write(cpu, desc.va + 5, &access, 1, SOFT_WRITE | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;
    system_segment(cpu, &desc, selector, &cpu->s.seg[MULL_TR]);
    return soft_done(cpu, in);
}

/* A selector goes to memory as 16 bits, to a register zero-extended. */
static enum soft_result write_selector(struct soft_cpu *cpu, const struct soft_insn *in,
                                       uint16_t selector)
{
    const struct soft_operand *op = &in->op[0];
    uint64_t va;

    if (op->kind != SOFT_OP_MEM) {
        soft_reg_write(cpu, op->reg, selector);
        return soft_done(cpu, in);
    }
    enum soft_result r =
        soft_linear(cpu, op->seg, soft_operand_offset(cpu, in, op, 0), 2, SOFT_WRITE, &va);
    if (r == SOFT_NEXT)
        r = soft_write(cpu, va, &selector, 2, SOFT_WRITE);
    return r == SOFT_NEXT ? soft_done(cpu, in) : r;
}

enum soft_result soft_sys_sldt(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if (soft_real_segments(cpu))
        return soft_raise(cpu, SOFT_UD);
    if (hidden_from_user(cpu))
        return general_protection(cpu);
    unsigned seg = in->mnemonic == ZYDIS_MNEMONIC_SLDT ? MULL_LDTR : MULL_TR;
    return write_selector(cpu, in, cpu->s.seg[seg].selector);
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

/* Fetch the descriptor that a question is about. @return SOFT_NEXT and *visible. */
static enum soft_result ask_desc(struct soft_cpu *cpu, uint16_t selector, struct soft_desc *desc,
                                 bool *visible)
{
    *visible = false;
    if (!(selector & 0xfffc))
        return SOFT_NEXT;
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_GP, 0, desc);
    if (r != SOFT_NEXT) /* beyond the table: not visible; a page fault stays one */
        return cpu->fault.vector == SOFT_GP ? SOFT_NEXT : r;
    unsigned type = SOFT_DESC_TYPE(desc->hi), dpl = SOFT_DESC_DPL(desc->hi);
    bool conforming =
        (desc->hi & SOFT_DESC_S) && (type & SOFT_TYPE_CODE) && (type & SOFT_TYPE_CONFORMING);
    *visible = conforming || (dpl >= soft_cpl(cpu) && dpl >= (selector & 3u));
    return SOFT_NEXT;
}

/* The system descriptors that LAR and LSL know (SDM volume 2, tables 3-52 and 3-56). */
static bool known_system_type(const struct soft_cpu *cpu, unsigned type, bool lar)
{
    if (soft_long_mode(cpu))
        return type == 2 || type == 9 || type == 11 || (lar && type == 12);
    return type == 1 || type == 2 || type == 3 || type == 9 || type == 11 ||
           (lar && (type == 4 || type == 5 || type == 12));
}

static enum soft_result set_zf(struct soft_cpu *cpu, const struct soft_insn *in, bool zf)
{
    cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)SOFT_ZF) | (zf ? SOFT_ZF : 0);
    return soft_done(cpu, in);
}

enum soft_result soft_sys_lar(struct soft_cpu *cpu, const struct soft_insn *in)
{
    bool lar = in->mnemonic == ZYDIS_MNEMONIC_LAR;
    struct soft_desc desc;
    uint64_t value = 0;
    bool visible;
    enum soft_result r;

    if (soft_real_segments(cpu))
        return soft_raise(cpu, SOFT_UD);
    const struct soft_operand *op = &in->op[1];
    if (op->kind == SOFT_OP_MEM) {
        uint64_t va;
        r = soft_linear(cpu, op->seg, soft_operand_offset(cpu, in, op, 0), 2, SOFT_READ, &va);
        if (r == SOFT_NEXT)
            r = soft_read(cpu, va, &value, 2, SOFT_READ);
    } else {
        r = soft_operand_read(cpu, in, op, &value);
    }
    if (r == SOFT_NEXT)
        r = ask_desc(cpu, (uint16_t)value, &desc, &visible);
    if (r != SOFT_NEXT)
        return r;
    if (!visible ||
        (!(desc.hi & SOFT_DESC_S) && !known_system_type(cpu, SOFT_DESC_TYPE(desc.hi), lar)))
        return set_zf(cpu, in, false);
    if (lar) {
        value = desc.hi & 0x00ffff00u;
    } else {
        struct mull_segment seg;
        soft_desc_to_segment(&desc, (uint16_t)value, &seg);
        value = seg.limit;
    }
    soft_reg_write(cpu, in->op[0].reg, value);
    return set_zf(cpu, in, true);
}

enum soft_result soft_sys_verr(struct soft_cpu *cpu, const struct soft_insn *in)
{
    bool write = in->mnemonic == ZYDIS_MNEMONIC_VERW;
    struct soft_desc desc;
    uint16_t selector;
    bool visible;

    if (soft_real_segments(cpu))
        return soft_raise(cpu, SOFT_UD);
    enum soft_result r = read_selector(cpu, in, &selector);
    if (r == SOFT_NEXT)
        r = ask_desc(cpu, selector, &desc, &visible);
    if (r != SOFT_NEXT)
        return r;
    if (!visible || !(desc.hi & SOFT_DESC_S))
        return set_zf(cpu, in, false);
    unsigned type = SOFT_DESC_TYPE(desc.hi);
    bool code = type & SOFT_TYPE_CODE;
    return set_zf(cpu, in,
                  write ? !code && (type & SOFT_TYPE_WRITE) : !code || (type & SOFT_TYPE_READ));
}

enum soft_result soft_sys_arpl(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t to, from;

    if (soft_real_segments(cpu))
        return soft_raise(cpu, SOFT_UD);
    enum soft_result r = soft_operand_read(cpu, in, &in->op[0], &to);
    if (r == SOFT_NEXT)
        r = soft_operand_read(cpu, in, &in->op[1], &from);
    if (r != SOFT_NEXT)
        return r;
    if ((to & 3) >= (from & 3))
        return set_zf(cpu, in, false);
    r = soft_operand_write(cpu, in, &in->op[0], (to & ~3ull) | (from & 3));
    return r == SOFT_NEXT ? set_zf(cpu, in, true) : r;
}

/* ---- Segment registers ---- */

static bool is_segment(const struct soft_operand *op)
{
    return op->kind == SOFT_OP_REG && op->reg >= ZYDIS_REGISTER_ES && op->reg <= ZYDIS_REGISTER_GS;
}

enum soft_result soft_sys_mov_seg(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint32_t mode = cpu->mode;
    uint64_t value = 0;
    enum soft_result r;

    if (!is_segment(&in->op[0]))
        return write_selector(cpu, in, cpu->s.seg[in->op[1].reg - ZYDIS_REGISTER_ES].selector);

    unsigned seg = in->op[0].reg - ZYDIS_REGISTER_ES;
    const struct soft_operand *op = &in->op[1];
    if (seg == MULL_CS)
        return soft_raise(cpu, SOFT_UD);
    if (op->kind == SOFT_OP_MEM) {
        uint64_t va;
        r = soft_linear(cpu, op->seg, soft_operand_offset(cpu, in, op, 0), 2, SOFT_READ, &va);
        if (r == SOFT_NEXT)
            r = soft_read(cpu, va, &value, 2, SOFT_READ);
    } else {
        r = soft_operand_read(cpu, in, op, &value);
    }
    if (r == SOFT_NEXT)
        r = soft_load_segment(cpu, seg, (uint16_t)value);
    if (r != SOFT_NEXT)
        return r;
    if (seg == MULL_SS)
        cpu->s.interrupt_shadow = 2;
    soft_done(cpu, in);
    return seg == MULL_SS || cpu->mode != mode ? SOFT_JUMP : SOFT_NEXT;
}

enum soft_result soft_sys_load_far(struct soft_cpu *cpu, const struct soft_insn *in)
{
    const struct soft_operand *op = &in->op[1];
    unsigned size = in->operand_size, seg;
    uint64_t va, offset = 0, selector = 0;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
        seg = MULL_DS;
        break;
    case ZYDIS_MNEMONIC_LES:
        seg = MULL_ES;
        break;
    case ZYDIS_MNEMONIC_LSS:
        seg = MULL_SS;
        break;
    case ZYDIS_MNEMONIC_LFS:
        seg = MULL_FS;
        break;
    default:
        seg = MULL_GS;
        break;
    }
    enum soft_result r =
        soft_linear(cpu, op->seg, soft_operand_offset(cpu, in, op, 0), size + 2, SOFT_READ, &va);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va, &offset, size, SOFT_READ);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va + size, &selector, 2, SOFT_READ);
    if (r == SOFT_NEXT)
        r = soft_load_segment(cpu, seg, (uint16_t)selector);
    if (r != SOFT_NEXT)
        return r;
    soft_reg_write(cpu, in->op[0].reg, offset);
    return soft_done_jump(cpu, in);
}

/* ---- FS and GS bases ---- */

enum soft_result soft_sys_swapgs(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;

    if (!soft_code64(cpu))
        return soft_raise(cpu, SOFT_UD);
    enum soft_result r = soft_need_cpl0(cpu);
    if (r != SOFT_NEXT)
        return r;
    uint64_t base = s->seg[MULL_GS].base;
    s->seg[MULL_GS].base = s->kernel_gs_base;
    s->kernel_gs_base = base;
    return soft_done(cpu, in);
}

enum soft_result soft_sys_fsgsbase(struct soft_cpu *cpu, const struct soft_insn *in)
{
    bool fs = in->mnemonic == ZYDIS_MNEMONIC_RDFSBASE || in->mnemonic == ZYDIS_MNEMONIC_WRFSBASE;
    uint64_t *base = &cpu->s.seg[fs ? MULL_FS : MULL_GS].base;

    if (!soft_code64(cpu) || !(cpu->s.cr4 & SOFT_CR4_FSGSBASE))
        return soft_raise(cpu, SOFT_UD);
    if (in->mnemonic == ZYDIS_MNEMONIC_RDFSBASE || in->mnemonic == ZYDIS_MNEMONIC_RDGSBASE) {
        soft_reg_write(cpu, in->op[0].reg, *base);
    } else {
        uint64_t value = soft_reg_read(cpu, in->op[0].reg);
        if (!soft_canonical(value))
            return general_protection(cpu);
        *base = value;
    }
    return soft_done(cpu, in);
}
