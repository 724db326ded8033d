/*
 * System instructions that kernels execute all the time, in translated code instead of in C:
 * CLI, STI, PUSHF, SWAPGS, STAC, CLAC, MOV from CR0, CR2, CR3 and CR4 at CPL 0, where none of them
 * can fault but for the stack; and CLD, STD, RDTSC, RDTSCP, MOV of a selector to a register, and
 * the instructions that read and write the bases of FS and GS, which each switch of tasks needs.
 * Each does exactly what its C handler does, or leaves to it.
 */
#include "engine/soft/translate.h"

/* RCX = system flags of the guest with @bit cleared. Leaves the flags alone. */
static void emit_flags_without(struct emit *e, uint32_t mask)
{
    emit_load_gs(e, H_RCX, TR_OFF(s.rflags));
    emit_pext_gs(e, H_RCX, H_RCX, mask);
    /* pdep rcx, rcx, gs:[mask]: VEX.LZ.F2.0F38.W1 F5 /r */
    emit8(e, 0x65);
    emit8(e, 0xc4);
    emit8(e, 0xe2);
    emit8(e, (uint8_t)(0x80 | (~H_RCX & 15) << 3 | 3));
    emit8(e, 0xf5);
    emit_modrm_mem(e, H_RCX, H_NONE, H_NONE, 1, (int32_t)mask);
}

static void emit_cli(struct translation *t)
{
    emit_flags_without(&t->e, TR_OFF(not_if_mask));
    emit_store_gs(&t->e, TR_OFF(s.rflags), H_RCX);
}

/* With an interrupt waiting, C must look at it after the next instruction. */
static void emit_sti(struct translation *t, const struct tr_insn *in)
{
    struct emit *e = &t->e;

    emit_load_gs(e, H_RCX, TR_OFF(irq_clear));
    uint8_t *waiting = emit_jrcxz(e);
    emit_flags_without(e, TR_OFF(not_if_mask));
    emit_lea(e, H_RCX, H_RCX, H_NONE, 1, SOFT_IF);
    emit_store_gs(e, TR_OFF(s.rflags), H_RCX);
    emit8(e, 0xeb); /* jmp over the call into C */
    uint8_t *done = e->p;
    emit8(e, 0);
    emit_patch8(e, waiting);
    tr_emit_exec(t, in);
    emit_patch8(e, done);
}

/* The flags are copied out by LAHF and SETO, which leave them as they are. */
static void emit_pushf(struct translation *t, const struct tr_insn *in)
{
    struct emit *e = &t->e;

    const unsigned size = tr_stack_size(in);

    t->window = -1;
    tr_emit_stack_offset(t, H_RSP, -(int32_t)size);
    tr_emit_segment(t, MULL_SS, size, true, true);
    tr_emit_check(t, size, true, true);
    emit_load_gs(e, H_RCX, TR_OFF(s.rflags));
    emit_store_gs(e, TR_OFF(spill[4]), H_RAX);
    emit8(e, 0x0f), emit8(e, 0x90), emit8(e, 0xc0);                 /* seto al */
    emit8(e, 0x9f);                                                 /* lahf */
    emit8(e, 0x44), emit8(e, 0x0f), emit8(e, 0xb6), emit8(e, 0xd8); /* movzx r11d, al */
    /* RCX = system flags, arithmetic bits cleared */
    emit_pext_gs(e, H_RCX, H_RCX, TR_OFF(system_flags_mask));
    emit8(e, 0x65), emit8(e, 0xc4), emit8(e, 0xe2);
    emit8(e, (uint8_t)(0x80 | (~H_RCX & 15) << 3 | 3));
    emit8(e, 0xf5);
    emit_modrm_mem(e, H_RCX, H_NONE, H_NONE, 1, (int32_t)TR_OFF(system_flags_mask));
    /* + OF << 11: lea rcx, [rcx + r11 * 8] with r11 = OF << 8 (bswap-free: rorx by 56) */
    emit8(e, 0xc4), emit8(e, 0x43), emit8(e, 0xfb), emit8(e, 0xf0), emit8(e, 0xdb), emit8(e, 56);
    emit_lea(e, H_RCX, H_RCX, H_R11, 8, 0);
    /* + SF ZF AF PF CF: movzx eax, ah; bit 1 is always set there and in RFLAGS */
    emit8(e, 0x0f), emit8(e, 0xb6), emit8(e, 0xc4);
    emit_lea(e, H_RCX, H_RCX, H_RAX, 1, 0);
    emit_load_gs(e, H_RAX, TR_OFF(spill[4]));
    tr_emit_store(t, H_RCX, 0, size);
    tr_emit_set_sp(t, H_RSP, -(int32_t)size);
}

static void emit_swapgs(struct translation *t)
{
    struct emit *e = &t->e;
    t->window = -1;
    uint32_t base = TR_OFF(s.seg) + MULL_GS * (uint32_t)sizeof(struct mull_segment) +
                    (uint32_t)offsetof(struct mull_segment, base);

    emit_load_gs(e, H_RCX, base);
    emit_load_gs(e, H_R10, TR_OFF(s.kernel_gs_base));
    emit_store_gs(e, base, H_R10);
    emit_store_gs(e, TR_OFF(s.kernel_gs_base), H_RCX);
}

/* STAC and CLAC change what the kernel may touch: another window. */
static void emit_ac(struct translation *t, bool set)
{
    struct emit *e = &t->e;
    uint32_t id = set ? SOFT_WIN_KERNEL_AC : SOFT_WIN_KERNEL;

    emit_flags_without(e, TR_OFF(not_ac_mask));
    if (set)
        emit_lea(e, H_RCX, H_RCX, H_NONE, 1, SOFT_AC);
    emit_store_gs(e, TR_OFF(s.rflags), H_RCX);
    emit_mov_imm(e, H_RCX, id);
    emit_op_mem(e, 0x65, false, 0x89, H_RCX, H_NONE, H_NONE, 1, (int32_t)TR_OFF(window_id));
    emit_load_gs(e, H_RCX, TR_OFF(window) + 8 * id);
    emit_store_gs(e, TR_OFF(gs_base), H_RCX);
    emit8(e, 0xf3), emit8(e, 0x48), emit8(e, 0x0f), emit8(e, 0xae), emit8(e, 0xd9); /* wrgsbase */
}

static void emit_direction(struct translation *t, bool set)
{
    emit_flags_without(&t->e, TR_OFF(not_df_mask));
    if (set)
        emit_lea(&t->e, H_RCX, H_RCX, H_NONE, 1, SOFT_DF);
    emit_store_gs(&t->e, TR_OFF(s.rflags), H_RCX);
}

/* EDX:EAX = host TSC + offset, by instructions that leave the flags alone. */
static void emit_rdtsc(struct translation *t)
{
    struct emit *e = &t->e;

    emit8(e, 0x0f), emit8(e, 0x31);
    emit_mov_imm(e, H_RCX, 32);
    /* shlx rdx, rdx, rcx */
    emit8(e, 0xc4), emit8(e, 0xe2), emit8(e, 0xf1), emit8(e, 0xf7), emit8(e, 0xd2);
    emit_lea(e, H_RAX, H_RAX, H_RDX, 1, 0);
    emit_load_gs(e, H_RCX, TR_OFF(tsc_offset));
    emit_lea(e, H_RAX, H_RAX, H_RCX, 1, 0);
    /* rorx rdx, rax, 32 */
    emit8(e, 0xc4), emit8(e, 0xe3), emit8(e, 0xfb), emit8(e, 0xf0), emit8(e, 0xd0), emit8(e, 32);
    emit_op_reg(e, false, 0x89, H_RDX, H_RDX); /* mov edx, edx */
    emit_op_reg(e, false, 0x89, H_RAX, H_RAX); /* mov eax, eax */
}

/* MOV from a control register whose value is just that. */
static bool emit_read_cr(struct translation *t, const struct tr_insn *in)
{
    const ZydisDecodedOperand *to = &in->op[0], *from = &in->op[1];
    uint32_t offset;

    if (in->z.mnemonic != ZYDIS_MNEMONIC_MOV || from->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        to->type != ZYDIS_OPERAND_TYPE_REGISTER || (in->z.attributes & ZYDIS_ATTRIB_HAS_LOCK))
        return false;
    switch (from->reg.value) {
    case ZYDIS_REGISTER_CR0:
        offset = TR_OFF(s.cr0);
        break;
    case ZYDIS_REGISTER_CR2:
        offset = TR_OFF(s.cr2);
        break;
    case ZYDIS_REGISTER_CR3:
        offset = TR_OFF(s.cr3);
        break;
    case ZYDIS_REGISTER_CR4:
        offset = TR_OFF(s.cr4);
        break;
    default:
        return false;
    }
    emit_load_gs(&t->e, H_RCX, offset);
    tr_emit_put(t, (unsigned)tr_gpr(to->reg.value, NULL), H_RCX);
    return true;
}

/* MOV from a segment register to a general one, of which it writes all, but with an operand size of
 * 16 bits (SDM volume 2, MOV). */
static bool emit_read_selector(struct translation *t, const struct tr_insn *in)
{
    const ZydisDecodedOperand *to = &in->op[0], *from = &in->op[1];

    if (from->type != ZYDIS_OPERAND_TYPE_REGISTER || to->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        from->reg.value < ZYDIS_REGISTER_ES || from->reg.value > ZYDIS_REGISTER_GS ||
        (in->z.attributes & ZYDIS_ATTRIB_HAS_LOCK))
        return false;
    unsigned guest = (unsigned)tr_gpr(to->reg.value, NULL);
    uint32_t segment = from->reg.value - ZYDIS_REGISTER_ES;
    emit_load_gs(&t->e, H_RCX,
                 TR_OFF(s.seg) + segment * (uint32_t)sizeof(struct mull_segment) +
                     (uint32_t)offsetof(struct mull_segment, selector));
    tr_emit_cut_16(&t->e, H_RCX);
    if (in->z.operand_width >= 32) {
        tr_emit_put(t, guest, H_RCX);
    } else if (tr_host_of[guest] >= 0) {
        emit8(&t->e, 0x66);
        emit_op_reg(&t->e, false, 0x89, H_RCX, (unsigned)tr_host_of[guest]);
    } else {
        emit_op_mem2(&t->e, 0x65, 0x66, 0x89, H_RCX, H_NONE, 1,
                     (int32_t)(TR_OFF(s.gpr) + 8 * guest));
    }
    return true;
}

/* R10 becomes a base if it is canonical; if not, C raises the fault. Leaves the flags alone. */
static void emit_write_base(struct translation *t, const struct tr_insn *in, uint32_t base)
{
    struct emit *e = &t->e;

    t->window = -1;
    tr_emit_get(t, H_R10, (unsigned)tr_gpr(in->op[0].reg.value, NULL));
    if (in->z.operand_width == 64) {
        emit_mov_imm(e, H_R11, 16);
        /* shlx rcx, r10, r11; sarx rcx, rcx, r11 */
        emit8(e, 0xc4), emit8(e, 0xc2), emit8(e, 0xa1), emit8(e, 0xf7), emit8(e, 0xca);
        emit8(e, 0xc4), emit8(e, 0xe2), emit8(e, 0xa2), emit8(e, 0xf7), emit8(e, 0xc9);
        emit8(e, 0x48), emit8(e, 0xf7), emit8(e, 0xd1); /* not rcx */
        emit_lea(e, H_RCX, H_RCX, H_R10, 1, 1);
        uint8_t *canonical = emit_jrcxz(e);
        tr_emit_exec(t, in);
        emit_patch8(e, canonical);
    } else {
        emit_op_reg(e, false, 0x89, H_R10, H_R10); /* mov r10d, r10d */
    }
    emit_store_gs(e, base, H_R10);
}

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE */
static bool emit_base(struct translation *t, const struct tr_insn *in, unsigned seg, bool write)
{
    uint32_t base = TR_OFF(s.seg) + seg * (uint32_t)sizeof(struct mull_segment) +
                    (uint32_t)offsetof(struct mull_segment, base);

    if (!tr_code64(t) || (t->mode & SOFT_MODE_NO_FSGSBASE))
        return false;
    if (write) {
        emit_write_base(t, in, base);
        return true;
    }
    emit_load_gs(&t->e, H_RCX, base);
    if (in->z.operand_width == 32)
        emit_op_reg(&t->e, false, 0x89, H_RCX, H_RCX); /* mov ecx, ecx */
    tr_emit_put(t, (unsigned)tr_gpr(in->op[0].reg.value, NULL), H_RCX);
    return true;
}

static bool emit_at_any_level(struct translation *t, const struct tr_insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        emit_direction(t, in->z.mnemonic == ZYDIS_MNEMONIC_STD);
        return true;
    case ZYDIS_MNEMONIC_RDTSC:
        if (t->mode & SOFT_MODE_TSD)
            return false;
        emit_rdtsc(t);
        return true;
    case ZYDIS_MNEMONIC_RDTSCP:
        if (t->mode & SOFT_MODE_TSD)
            return false;
        /* What is before it has been executed, what is behind it has not (SDM volume 2). */
        emit8(&t->e, 0x0f), emit8(&t->e, 0xae), emit8(&t->e, 0xe8); /* lfence */
        emit_rdtsc(t);
        emit_op_mem(&t->e, 0x65, false, 0x8b, H_R9, H_NONE, H_NONE, 1, (int32_t)TR_OFF(s.tsc_aux));
        return true;
    case ZYDIS_MNEMONIC_MOV:
        return emit_read_selector(t, in);
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
        return emit_base(t, in, MULL_FS, in->z.mnemonic == ZYDIS_MNEMONIC_WRFSBASE);
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        return emit_base(t, in, MULL_GS, in->z.mnemonic == ZYDIS_MNEMONIC_WRGSBASE);
    default:
        return false;
    }
}

bool tr_emit_system(struct translation *t, const struct tr_insn *in, bool last)
{
    if (emit_at_any_level(t, in))
        return true;
    if (t->mode & (SOFT_MODE_CPL3 | SOFT_MODE_CPL12))
        return false;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        emit_cli(t);
        return true;
    case ZYDIS_MNEMONIC_STI:
        /* The instruction behind STI is not interrupted: it must be in this block, which polls at
         * its entries only. */
        if (last)
            return false;
        emit_sti(t, in);
        return true;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
        if (tr_code64(t))
            return false;
        emit_pushf(t, in);
        return true;
    case ZYDIS_MNEMONIC_PUSHFQ:
        emit_pushf(t, in);
        return true;
    case ZYDIS_MNEMONIC_SWAPGS:
        emit_swapgs(t);
        return true;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        if (!(t->mode & SOFT_MODE_SMAP))
            return false;
        emit_ac(t, in->z.mnemonic == ZYDIS_MNEMONIC_STAC);
        return true;
    case ZYDIS_MNEMONIC_MOV:
        return emit_read_cr(t, in);
    default:
        return false;
    }
}
