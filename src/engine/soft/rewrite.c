/*
 * Which guest instructions are copied, and how: the same opcode with other registers, its memory
 * operand replaced by a checked host address. Works on the instruction's bytes, so that whatever
 * the guest encoded is what the host executes. Knows nothing of blocks.
 * Encodings: Intel SDM volume 2, chapter 2.
 */
#include "engine/soft/translate.h"

/* R9, R10 and R11 are the least used; RCX is scratch because JRCXZ tests it. */
const int8_t tr_host_of[16] = {
    H_RAX, H_R9,   H_RDX,  H_RBX,  H_RSP, H_RBP, H_RSI, H_RDI,
    H_R8,  H_NONE, H_NONE, H_NONE, H_R12, H_R13, H_R14, H_R15,
};

int tr_gpr(ZydisRegister reg, bool *high)
{
    if (high)
        *high = false;
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
        return reg - ZYDIS_REGISTER_AL;
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) {
        if (high)
            *high = true;
        return reg - ZYDIS_REGISTER_AH;
    }
    if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
        return reg - ZYDIS_REGISTER_SPL + 4;
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
        return reg - ZYDIS_REGISTER_AX;
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        return reg - ZYDIS_REGISTER_EAX;
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        return reg - ZYDIS_REGISTER_RAX;
    return -1;
}

/* ---- Classification ---- */

static bool is_shift_by_cl(const struct tr_insn *in)
{
    if (in->z.meta.category != ZYDIS_CATEGORY_SHIFT && in->z.meta.category != ZYDIS_CATEGORY_ROTATE)
        return false;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            in->op[i].reg.value == ZYDIS_REGISTER_CL &&
            in->op[i].encoding == ZYDIS_OPERAND_ENCODING_NONE)
            return true;
    }
    return false;
}

static bool is_cmpxchg_wide(const struct tr_insn *in)
{
    return in->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B ||
           in->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
}

/* PCMPESTRI, PCMPISTRI: the index goes to ECX. */
static bool is_index_of_string(const struct tr_insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPISTRI:
        return true;
    default:
        return false;
    }
}

/* A register bit offset reaches beyond the operand: the address depends on it. */
static bool is_bit_string(const struct tr_insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
        return in->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
               in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER && in->op[1].size >= 32;
    default:
        return false;
    }
}

static bool category_copies(const struct tr_insn *in)
{
    switch (in->z.meta.category) {
    case ZYDIS_CATEGORY_ADOX_ADCX:
    case ZYDIS_CATEGORY_AES:
    case ZYDIS_CATEGORY_AVX:
    case ZYDIS_CATEGORY_AVX2:
    case ZYDIS_CATEGORY_AVX512:
    case ZYDIS_CATEGORY_AVX512_BITALG:
    case ZYDIS_CATEGORY_AVX512_VBMI:
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_BLEND:
    case ZYDIS_CATEGORY_BMI1:
    case ZYDIS_CATEGORY_BMI2:
    case ZYDIS_CATEGORY_BROADCAST:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_COMPRESS:
    case ZYDIS_CATEGORY_CONFLICT:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_EXPAND:
    case ZYDIS_CATEGORY_FCMOV:
    case ZYDIS_CATEGORY_GFNI:
    case ZYDIS_CATEGORY_IFMA:
    case ZYDIS_CATEGORY_KMASK:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_LOGICAL_FP:
    case ZYDIS_CATEGORY_LZCNT:
    case ZYDIS_CATEGORY_MMX:
    case ZYDIS_CATEGORY_PCLMULQDQ:
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SEMAPHORE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHA:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_SSE:
    case ZYDIS_CATEGORY_STTNI:
    case ZYDIS_CATEGORY_UFMA:
    case ZYDIS_CATEGORY_VAES:
    case ZYDIS_CATEGORY_VBMI2:
    case ZYDIS_CATEGORY_VFMA:
    case ZYDIS_CATEGORY_VPCLMULQDQ:
    case ZYDIS_CATEGORY_X87_ALU:
        return true;
    case ZYDIS_CATEGORY_FLAGOP:
        return in->z.mnemonic == ZYDIS_MNEMONIC_CLC || in->z.mnemonic == ZYDIS_MNEMONIC_STC ||
               in->z.mnemonic == ZYDIS_MNEMONIC_CMC || in->z.mnemonic == ZYDIS_MNEMONIC_LAHF ||
               in->z.mnemonic == ZYDIS_MNEMONIC_SAHF;
    case ZYDIS_CATEGORY_MISC:
        return in->z.mnemonic == ZYDIS_MNEMONIC_LFENCE || in->z.mnemonic == ZYDIS_MNEMONIC_MFENCE ||
               in->z.mnemonic == ZYDIS_MNEMONIC_SFENCE;
    default:
        return false;
    }
}

/* Is the unit that the instruction uses switched on in this mode? Otherwise C raises the fault. */
static bool unit_enabled(uint32_t mode, const struct tr_insn *in)
{
    bool x87 = in->z.meta.category == ZYDIS_CATEGORY_X87_ALU ||
               in->z.meta.category == ZYDIS_CATEGORY_FCMOV ||
               in->z.meta.category == ZYDIS_CATEGORY_MMX;
    bool sse = in->z.meta.category == ZYDIS_CATEGORY_SSE;
    bool mask = in->z.meta.category == ZYDIS_CATEGORY_KMASK;

    for (unsigned i = 0; i < in->z.operand_count; i++) {
        if (in->op[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(in->op[i].reg.value)) {
        case ZYDIS_REGCLASS_X87:
        case ZYDIS_REGCLASS_MMX:
            x87 = true;
            break;
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
        case ZYDIS_REGCLASS_ZMM:
            sse = true;
            break;
        case ZYDIS_REGCLASS_MASK:
            mask = true;
            break;
        default:
            break;
        }
    }
    bool vex = in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
               in->z.meta.category != ZYDIS_CATEGORY_BMI1 &&
               in->z.meta.category != ZYDIS_CATEGORY_BMI2;
    if (x87 && (mode & SOFT_MODE_NO_X87))
        return false;
    if (sse && (mode & SOFT_MODE_NO_SSE))
        return false;
    if (vex && (mode & SOFT_MODE_NO_AVX))
        return false;
    if ((mask || in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) &&
        (mode & (SOFT_MODE_NO_AVX | SOFT_MODE_NO_AVX512)))
        return false;
    return true;
}

/* MOV between the accumulator and an absolute address: copied in its ModRM form. */
static bool is_moffs(const struct tr_insn *in)
{
    return in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           in->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (in->z.opcode & 0xfc) == 0xa0;
}

/* Operands that the rewriter understands: general and vector registers, immediates, at most one
 * explicit memory operand; nothing hidden but flags, accumulator and what is named here. */
static bool operands_copy(struct tr_insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        bool hidden = op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;

        if (op->type == ZYDIS_OPERAND_TYPE_POINTER)
            return false;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (hidden || op->visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT || in->memory ||
                op->mem.type != ZYDIS_MEMOP_TYPE_MEM || op->size == 0 || op->size > 512 ||
                (op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM && !is_moffs(in)))
                return false;
            in->memory = op;
            continue;
        }
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(op->reg.value)) {
        case ZYDIS_REGCLASS_SEGMENT:
        case ZYDIS_REGCLASS_CONTROL:
        case ZYDIS_REGCLASS_DEBUG:
        case ZYDIS_REGCLASS_TEST:
        case ZYDIS_REGCLASS_TABLE:
        case ZYDIS_REGCLASS_BOUND:
            return false;
        default:
            break;
        }
        int gpr = tr_gpr(op->reg.value, NULL);
        if (gpr >= 0 && op->encoding == ZYDIS_OPERAND_ENCODING_NONE) {
            /* Fixed in the opcode: must live in the register of that name. */
            if (gpr == MULL_RCX && !is_shift_by_cl(in) && !is_cmpxchg_wide(in) &&
                !is_index_of_string(in))
                return false;
            if (gpr == MULL_RSP || gpr >= MULL_R8)
                return false;
        }
    }
    return true;
}

static bool copies(const struct translation *t, struct tr_insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_BT: /* a register bit offset reaches beyond the operand */
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
        if (in->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
            return false;
        break;
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return false;
    default:
        break;
    }
    if (in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX &&
        in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return false;
    return category_copies(in) && operands_copy(in) && unit_enabled(t->mode, in);
}

static enum tr_kind kind_of(const struct translation *t, struct tr_insn *in)
{
    const ZydisDecodedInstruction *z = &in->z;
    const ZydisDecodedOperand *op = in->op;
    /* Outside 64-bit mode there are two operand sizes, and both may be used. */
    bool wide = z->operand_width == 64 || !tr_code64(t);
    bool near = wide && z->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;

    /* Zydis knows hints and branches of Knights Corner that no other processor has. */
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX ||
        (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
         (z->meta.category == ZYDIS_CATEGORY_PREFETCH ||
          z->meta.category == ZYDIS_CATEGORY_COND_BR)))
        return TR_EXEC;
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_NOP:
        return z->mnemonic == ZYDIS_MNEMONIC_NOP ? TR_NOP : TR_EXEC;
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_PREFETCH:
        return TR_NOP;
    case ZYDIS_CATEGORY_CET:
        return z->mnemonic == ZYDIS_MNEMONIC_ENDBR64 || z->mnemonic == ZYDIS_MNEMONIC_ENDBR32
                   ? TR_NOP
                   : TR_EXEC;
    case ZYDIS_CATEGORY_COND_BR:
        /* Jcc rel8 and rel32; LOOPcc and JRCXZ; not XBEGIN. */
        if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (z->opcode & 0xfc) == 0xe0 && near)
            return TR_LOOP;
        if (near && ((z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (z->opcode & 0xf0) == 0x70) ||
                     (z->opcode_map == ZYDIS_OPCODE_MAP_0F && (z->opcode & 0xf0) == 0x80)))
            return TR_JCC;
        return TR_EXEC_END;
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
        if (z->mnemonic != ZYDIS_MNEMONIC_JMP && z->mnemonic != ZYDIS_MNEMONIC_CALL)
            return TR_EXEC_END;
        if (!near)
            return TR_EXEC_END;
        if (op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return z->mnemonic == ZYDIS_MNEMONIC_JMP ? TR_JMP : TR_CALL;
        if (op[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
            in->memory = &op[0];
        else if (op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || tr_gpr(op[0].reg.value, NULL) < 0)
            return TR_EXEC_END;
        return z->mnemonic == ZYDIS_MNEMONIC_JMP ? TR_JMP_INDIRECT : TR_CALL_INDIRECT;
    case ZYDIS_CATEGORY_RET:
        return z->mnemonic == ZYDIS_MNEMONIC_RET && near ? TR_RET : TR_EXEC_END;
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
        return TR_EXEC_END;
    case ZYDIS_CATEGORY_PUSH:
        if (z->mnemonic != ZYDIS_MNEMONIC_PUSH || !wide)
            return TR_EXEC;
        if (op[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
            in->memory = &op[0];
        else if (op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && tr_gpr(op[0].reg.value, NULL) < 0)
            return TR_EXEC;
        return TR_PUSH;
    case ZYDIS_CATEGORY_POP:
        return z->mnemonic == ZYDIS_MNEMONIC_POP && wide &&
                       op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                       tr_gpr(op[0].reg.value, NULL) >= 0
                   ? TR_POP_REG
                   : TR_EXEC;
    case ZYDIS_CATEGORY_MISC:
        if (z->mnemonic == ZYDIS_MNEMONIC_LEA)
            return TR_LEA;
        if (z->mnemonic == ZYDIS_MNEMONIC_LEAVE && wide)
            return TR_LEAVE;
        if (z->mnemonic == ZYDIS_MNEMONIC_UD2 || z->mnemonic == ZYDIS_MNEMONIC_UD1 ||
            z->mnemonic == ZYDIS_MNEMONIC_UD0)
            return TR_EXEC_END;
        break;
    case ZYDIS_CATEGORY_SYSTEM:
        return z->mnemonic == ZYDIS_MNEMONIC_HLT ? TR_EXEC_END : TR_EXEC;
    default:
        break;
    }
    if (is_bit_string(in)) {
        in->memory = &in->op[0];
        return TR_BIT;
    }
    return copies(t, in) ? TR_COPY : TR_EXEC;
}

void tr_classify(const struct translation *t, struct tr_insn *in)
{
    const ZydisAccessedFlags *f = in->z.cpu_flags;

    in->memory = NULL;
    in->kind = kind_of(t, in);
    if (!tr_code64(t))
        tr_restrict(t, in);
    /* C wants all flags, and so may the code at a side exit. */
    /* MOVS and STOS neither use nor change them, in C or not. */
    bool string = in->z.meta.category == ZYDIS_CATEGORY_STRINGOP && f && !f->modified &&
                  !(f->tested & SOFT_ARITH_FLAGS);
    if ((in->kind == TR_EXEC && !string) || in->kind == TR_EXEC_END || in->kind == TR_JCC ||
        in->kind == TR_LOOP) {
        in->flags_read = (uint32_t)SOFT_ARITH_FLAGS;
        in->flags_written = 0;
        return;
    }
    in->flags_read = f ? f->tested & (uint32_t)SOFT_ARITH_FLAGS : 0;
    in->flags_written =
        f ? (f->modified | f->set_0 | f->set_1 | f->undefined) & (uint32_t)SOFT_ARITH_FLAGS : 0;
    /* A shift or rotate by zero leaves all flags alone. */
    if (in->z.meta.category == ZYDIS_CATEGORY_SHIFT || in->z.meta.category == ZYDIS_CATEGORY_ROTATE)
        in->flags_written = 0;
}

/* ---- Re-encoding ---- */

/* Where each register field of one instruction points in the host, and what must be moved. */
struct fields {
    int reg, rm, vvvv, opcode; /* host register numbers, -1: as in the original */
    int parked_rm;             /* guest register that is the memory operand, -1: none */
    int kept;                  /* the guest register that R11 holds already, -1: none */
    bool high;                 /* AH..BH is used: no REX allowed */
    bool rex_byte;             /* a byte register that needs REX (SPL..DIL) */
    unsigned moves;
    struct {
        uint8_t guest, host;
        bool load, store;
    } move[3];
};

static bool writes(const ZydisDecodedOperand *op)
{
    return (op->actions & (ZYDIS_OPERAND_ACTION_MASK_WRITE)) != 0;
}

/* Must the old value be there? Reads, partial writes and conditional writes need it; BSF and BSR
 * leave it if they find no bit, and Linux depends on that. */
static bool needs_old(const struct tr_insn *in, const ZydisDecodedOperand *op)
{
    return in->z.mnemonic == ZYDIS_MNEMONIC_BSF || in->z.mnemonic == ZYDIS_MNEMONIC_BSR ||
           (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ) || op->size < 32 ||
           (op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE);
}

/* Choose a host register for a register operand; parked ones get a scratch register. */
static int place(const struct tr_insn *in, struct fields *f, const ZydisDecodedOperand *op,
                 unsigned guest, uint8_t *pool, unsigned *pool_count)
{
    bool temporary = tr_host_of[guest] == H_NONE || (f->high && guest == MULL_RCX);
    if (!temporary)
        return tr_host_of[guest];

    unsigned i = 0;
    while (i < f->moves && f->move[i].guest != guest)
        i++;
    if (i == f->moves) {
        if (f->moves == 3)
            return -2;
        uint8_t host;
        if (guest == MULL_RCX) {
            host = H_RCX;
        } else if ((int)guest == f->kept) {
            host = H_R11;
        } else {
            if (*pool_count == 0)
                return -2;
            host = pool[--*pool_count];
        }
        f->move[i].guest = (uint8_t)guest;
        f->move[i].host = host;
        f->move[i].load = f->move[i].store = false;
        f->moves++;
    }
    f->move[i].load |= needs_old(in, op) && (int)guest != f->kept;
    f->move[i].store |= writes(op);
    return f->move[i].host;
}

/* May a parked register be the instruction's memory operand, instead of being loaded and stored?
 * Not where the forms differ (bit strings, XCHG's lock), nor where the upper half must be cleared.
 */
static bool can_stay_parked(const struct tr_insn *in, const ZydisDecodedOperand *op)
{
    if (in->memory || in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || (writes(op) && op->size == 32))
        return false;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_XOR:
        return true;
    default:
        return in->z.meta.category == ZYDIS_CATEGORY_CMOV;
    }
}

/* Is a guest register one of its explicit operands? */
static bool has_operand(const struct tr_insn *in, int guest)
{
    for (unsigned i = 0; guest >= 0 && i < in->z.operand_count; i++)
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            in->op[i].encoding != ZYDIS_OPERAND_ENCODING_NONE &&
            tr_gpr(in->op[i].reg.value, NULL) == guest)
            return true;
    return false;
}

/* @kept: the guest register that R11 holds as well, -1: none. */
static bool assign(const struct tr_insn *in, struct fields *f, bool rcx_taken, bool r10_taken,
                   int kept)
{
    uint8_t pool[3];
    unsigned pool_count = 0;

    f->reg = f->rm = f->vvvv = f->opcode = f->parked_rm = -1;
    f->kept = has_operand(in, kept) ? kept : -1;
    f->high = f->rex_byte = false;
    f->moves = 0;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        bool high;
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            tr_gpr(in->op[i].reg.value, &high) >= 0)
            f->high |= high;
    }
    /* The last one is taken first. With memory, R10 (RCX if no REX is allowed) is the address. */
    if (!rcx_taken && !f->high)
        pool[pool_count++] = H_RCX;
    if (!in->memory && !r10_taken)
        pool[pool_count++] = H_R10;
    if (f->kept < 0)
        pool[pool_count++] = H_R11;

    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        bool high;
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        int gpr = tr_gpr(op->reg.value, &high);
        if (gpr < 0 || op->encoding == ZYDIS_OPERAND_ENCODING_NONE)
            continue;
        if (tr_host_of[gpr] == H_NONE && can_stay_parked(in, op) && gpr != kept) {
            f->parked_rm = gpr;
            continue;
        }
        int host = place(in, f, op, (unsigned)gpr, pool, &pool_count);
        if (host < 0)
            return false;
        if (high)
            host += 4; /* AH is number 4 */
        else if (op->size == 8 && host >= 4 && host < 8)
            f->rex_byte = true;
        switch (op->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            f->reg = host;
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            f->rm = host;
            break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            f->vvvv = host;
            break;
        case ZYDIS_OPERAND_ENCODING_OPCODE:
            f->opcode = host;
            break;
        default:
            return false;
        }
    }
    if (f->high) {
        /* RCX may be the address or the moved guest RCX, not both; and no REX at all. */
        for (unsigned i = 0; i < f->moves; i++) {
            if (f->move[i].host != H_RCX || in->memory)
                return false;
        }
        if (rcx_taken || f->rex_byte || f->reg > 7 || f->rm > 7 || f->opcode > 7)
            return false;
    }
    return true;
}

/* ModRM with the memory operand as [base + disp], or the register form. EVEX scales a one-byte
 * displacement: it gets four. */
static void emit_modrm(struct emit *e, const struct tr_insn *in, unsigned reg, unsigned rm,
                       int base, int32_t disp)
{
    unsigned r = (reg & 7) << 3;

    if (base < 0) {
        emit8(e, (uint8_t)(0xc0 | r | (rm & 7)));
    } else if (disp && in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
        emit8(e, (uint8_t)(0x80 | r | ((unsigned)base & 7)));
        emit32(e, (uint32_t)disp);
    } else {
        emit8(e, (uint8_t)((disp ? 0x40 : 0) | r | ((unsigned)base & 7)));
        if (disp)
            emit8(e, (uint8_t)disp);
    }
}

/* Everything behind ModRM, SIB and displacement: immediates. */
static void emit_tail(struct emit *e, const struct tr_insn *in)
{
    unsigned i = in->z.length;
    if (in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)
        i = in->z.raw.modrm.offset + 1u + (in->z.raw.sib.offset ? 1 : 0) + in->z.raw.disp.size / 8u;
    else if (in->z.raw.imm[0].size)
        i = in->z.raw.imm[0].offset;
    for (; i < in->z.length; i++)
        emit8(e, in->bytes[i]);
}

/* What the opcode becomes: the same, or a form that 64-bit mode has. */
struct opcode {
    unsigned start, end; /* in->bytes, but for the last */
    uint8_t last;
    bool has_modrm;
    uint8_t modrm_reg;
};

static struct opcode opcode_of(const struct translation *t, const struct tr_insn *in)
{
    bool has_modrm = in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    struct opcode op = {
        .start = in->z.raw.prefix_count,
        .end = has_modrm               ? in->z.raw.modrm.offset
               : in->z.raw.imm[0].size ? in->z.raw.imm[0].offset
                                       : in->z.length,
        .has_modrm = has_modrm,
        .modrm_reg = in->z.raw.modrm.reg,
    };
    if (is_moffs(in)) { /* A0, A1: 8A, 8B with AL, EAX; A2, A3: 88, 89 */
        op.end = op.start + 1;
        op.last = (uint8_t)(0x88 | (~in->z.opcode & 2) | (in->z.opcode & 1));
        op.has_modrm = true;
        op.modrm_reg = 0;
        return op;
    }
    op.last = in->bytes[op.end - 1];
    if (tr_code64(t) || op.end != op.start + 1)
        return op;
    if ((op.last & 0xf0) == 0x40) { /* INC and DEC: FF /0 and /1 */
        op.modrm_reg = op.last >> 3 & 1;
        op.last = 0xff;
        op.has_modrm = true;
    } else if (op.last == 0x82) { /* an alias that 64-bit mode dropped */
        op.last = 0x80;
    }
    return op;
}

static void reencode_legacy(struct translation *t, const struct tr_insn *in, const struct fields *f,
                            int base, int32_t disp)
{
    struct emit *e = &t->e;
    const uint8_t *b = in->bytes;
    const struct opcode op = opcode_of(t, in);
    uint8_t rex = 0;

    if (!tr_code64(t) && tr_needs_66(t, in))
        emit8(e, 0x66);
    if (f->parked_rm >= 0)
        emit8(e, 0x65); /* GS */
    for (unsigned i = 0; i < op.start; i++) {
        uint8_t p = b[i];
        bool mandatory = in->z.raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY;
        if (tr_code64(t) && (p & 0xf0) == 0x40) /* counts only right before the opcode */
            rex = i + 1u == op.start ? p & (is_moffs(in) ? 0x48 : 0x4f) : 0;
        else if (p == 0x66 ? tr_code64(t) : p == 0xf0 || mandatory)
            emit8(e, p);
    }
    unsigned reg = op.modrm_reg | (rex & 4) << 1;
    unsigned rm = in->z.raw.modrm.rm | (rex & 1) << 3;
    unsigned opcode_reg = f->opcode >= 0 ? (unsigned)f->opcode : 0;

    if (f->reg >= 0)
        reg = (unsigned)f->reg;
    if (f->rm >= 0)
        rm = (unsigned)f->rm;
    if (f->parked_rm >= 0)
        rm = 0;
    if (op.has_modrm && f->opcode >= 0) /* INC, DEC */
        rm = opcode_reg;

    uint8_t new_rex = rex & 8;
    if (op.has_modrm) {
        new_rex |= (reg & 8) >> 1;
        new_rex |= base >= 0 ? (base & 8) >> 3 : (int)(rm & 8) >> 3;
    } else if (f->opcode >= 0) {
        new_rex |= (opcode_reg & 8) >> 3;
    }
    if (new_rex || f->rex_byte || (rex && !f->high))
        emit8(e, 0x40 | new_rex);
    for (unsigned i = op.start; i + 1 < op.end; i++)
        emit8(e, b[i]);
    emit8(e, f->opcode >= 0 && !op.has_modrm ? (uint8_t)((op.last & ~7u) | (opcode_reg & 7))
                                             : op.last);
    if (f->parked_rm >= 0)
        emit_modrm_mem(e, reg, H_NONE, H_NONE, 1, (int32_t)TR_OFF(s.gpr) + 8 * f->parked_rm);
    else if (op.has_modrm)
        emit_modrm(e, in, reg, rm, base, disp);
    emit_tail(e, in);
}

static void reencode_vex(struct emit *e, const struct tr_insn *in, const struct fields *f, int base,
                         int32_t disp)
{
    const uint8_t *b = in->bytes + in->z.raw.vex.offset;
    bool three = b[0] == 0xc4;
    /* All as in the three-byte form: R X B mmmmm, W vvvv L pp; R, X, B, vvvv inverted. */
    uint8_t p1 = three ? b[1] : (uint8_t)((b[1] & 0x80) | 0x61);
    uint8_t p2 = three ? b[2] : (uint8_t)(b[1] & 0x7f);
    unsigned reg = in->z.raw.modrm.reg | (p1 & 0x80 ? 0 : 8);
    unsigned rm = in->z.raw.modrm.rm | (p1 & 0x20 ? 0 : 8);

    if (f->reg >= 0)
        reg = (unsigned)f->reg;
    if (f->rm >= 0)
        rm = (unsigned)f->rm;
    if (f->vvvv >= 0)
        p2 = (uint8_t)((p2 & ~0x78u) | (~(unsigned)f->vvvv & 15) << 3);
    unsigned b_bit = base >= 0 ? (unsigned)base & 8 : rm & 8;
    emit8(e, 0xc4);
    emit8(e, (uint8_t)((p1 & 0x1f) | (reg & 8 ? 0 : 0x80) | 0x40 | (b_bit ? 0 : 0x20)));
    emit8(e, p2);
    emit8(e, b[three ? 3 : 2]);
    if (in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)
        emit_modrm(e, in, reg, rm, base, disp);
    emit_tail(e, in);
}

static void reencode_evex(struct emit *e, const struct tr_insn *in, const struct fields *f,
                          int base, int32_t disp)
{
    const uint8_t *b = in->bytes + in->z.raw.evex.offset;
    /* 62, R X B R' 0 mmm, W vvvv 1 pp, z L'L b V' aaa; R, X, B, R', vvvv, V' inverted. */
    uint8_t p0 = b[1], p1 = b[2];
    unsigned reg = in->z.raw.modrm.reg;
    unsigned rm = in->z.raw.modrm.rm;

    if (f->reg >= 0) {
        reg = (unsigned)f->reg;
        p0 = (uint8_t)((p0 & ~0x90u) | (reg & 8 ? 0 : 0x80) | 0x10);
    }
    if (base >= 0) {
        p0 = (uint8_t)((p0 & ~0x60u) | 0x40 | (base & 8 ? 0 : 0x20));
    } else if (f->rm >= 0) {
        rm = (unsigned)f->rm;
        p0 = (uint8_t)((p0 & ~0x60u) | 0x40 | (rm & 8 ? 0 : 0x20));
    }
    if (f->vvvv >= 0)
        p1 = (uint8_t)((p1 & ~0x78u) | (~(unsigned)f->vvvv & 15) << 3);
    emit8(e, 0x62);
    emit8(e, p0);
    emit8(e, p1);
    emit8(e, b[3]);
    emit8(e, b[4]);
    emit_modrm(e, in, reg, rm, base, disp);
    emit_tail(e, in);
}

/* Bytes that the operand may touch; of a broadcast what is repeated. */
unsigned tr_access_size(const struct tr_insn *in)
{
    return in->memory->size / 8u;
}

bool tr_emit_copy(struct translation *t, const struct tr_insn *in)
{
    struct fields f;
    bool rcx_read = is_shift_by_cl(in) || is_cmpxchg_wide(in);
    bool rcx_written = is_index_of_string(in);
    int base = -1;
    int32_t disp = 0;

    bool checked = in->memory && !tr_has_window(t, in); /* R11 is lost */
    if (!assign(in, &f, rcx_read || rcx_written, t->window >= 0, checked ? -1 : t->kept))
        return false;
    if (checked)
        t->kept = -1;
    for (unsigned i = 0; i < f.moves; i++)
        if (f.move[i].host == H_R11)
            t->kept = f.move[i].guest;
    if (t->kept == f.parked_rm) /* add %r9, %r9: the sum is in memory only */
        t->kept = -1;
    if (in->memory) {
        disp = tr_emit_window(t, in);
        if (disp < 0) {
            disp = 0;
            tr_emit_memory(t, in, tr_access_size(in), writes(in->memory));
        }
        base = H_R10;
        if (f.high) {
            emit_mov_reg(&t->e, H_RCX, H_R10);
            base = H_RCX;
        }
    }
    if (rcx_read)
        emit_mov_reg(&t->e, H_RCX, (unsigned)tr_host_of[MULL_RCX]);
    for (unsigned i = 0; i < f.moves; i++) {
        if (f.move[i].load)
            tr_emit_get(t, f.move[i].host, f.move[i].guest);
    }
    switch (in->z.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        reencode_vex(&t->e, in, &f, base, disp);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        reencode_evex(&t->e, in, &f, base, disp);
        break;
    default:
        reencode_legacy(t, in, &f, base, disp);
        break;
    }
    if (rcx_written)
        emit_mov_reg(&t->e, (unsigned)tr_host_of[MULL_RCX], H_RCX);
    for (unsigned i = 0; i < f.moves; i++) {
        if (f.move[i].store)
            tr_emit_put(t, f.move[i].guest, f.move[i].host);
    }
    return true;
}

/* VEX.LZ.pp.0F38.W1 F7 /r: SARX (pp F3), SHLX (66), SHRX (F2) dst, src, count. */
static void emit_shift(struct emit *e, uint8_t pp, unsigned dst, unsigned src, unsigned count)
{
    emit8(e, 0xc4);
    emit8(e, (uint8_t)((dst & 8 ? 0 : 0x80) | 0x40 | (src & 8 ? 0 : 0x20) | 2));
    emit8(e, (uint8_t)(0x80 | (~count & 15) << 3 | pp));
    emit8(e, 0xf7);
    emit8(e, (uint8_t)(0xc0 | (dst & 7) << 3 | (src & 7)));
}

bool tr_emit_bit(struct translation *t, const struct tr_insn *in)
{
    struct emit *e = &t->e;
    const unsigned guest = (unsigned)tr_gpr(in->op[1].reg.value, NULL);
    const bool wide = in->op[1].size == 64;
    struct fields f = {.reg = H_RCX, .rm = -1, .vvvv = -1, .opcode = -1, .parked_rm = -1};

    if (in->z.address_width != (tr_code64(t) ? 64 : 32))
        return false;
    /* R10 = address + (signed bit offset / operand bits) * operand bytes; no flag is touched. */
    tr_emit_address(t, in, in->memory);
    tr_emit_get(t, H_R11, guest);
    if (!wide)
        emit_op_reg(e, true, 0x63, H_R11, H_R11); /* movsxd r11, r11d */
    emit_mov_imm(e, H_RCX, wide ? 6 : 5);
    emit_shift(e, 2, H_R11, H_R11, H_RCX);
    emit_op_mem(e, 0, tr_code64(t), 0x8d, H_R10, H_R10, H_R11, wide ? 8 : 4, 0);
    if (!tr_code64(t))
        tr_emit_segment(t, tr_segment(in->memory), 4, writes(in->memory), in->flags_live);
    tr_emit_check(t, wide ? 8 : 4, writes(in->memory), in->flags_live);

    /* RCX = bit offset within the operand: its upper bits shifted out and back. */
    tr_emit_get(t, H_RCX, guest);
    emit_mov_imm(e, H_R11, wide ? 58 : 59);
    emit_shift(e, 1, H_RCX, H_RCX, H_R11);
    emit_shift(e, 3, H_RCX, H_RCX, H_R11);
    reencode_legacy(t, in, &f, H_R10, 0);
    return true;
}

bool tr_lea_is_direct(const struct tr_insn *in)
{
    const ZydisDecodedOperandMem *m = &in->op[1].mem;
    int dst = tr_gpr(in->op[0].reg.value, NULL);
    int base = tr_gpr(m->base, NULL), index = tr_gpr(m->index, NULL);

    /* All in host registers; a 32-bit result needs no 64-bit sum. */
    return in->op[0].size >= 32 && in->z.address_width >= 32 && dst >= 0 && base >= 0 &&
           tr_host_of[base] >= 0 && (index < 0 || tr_host_of[index] >= 0) &&
           (in->z.address_width == 64 || in->op[0].size == 32);
}

bool tr_emit_lea(struct translation *t, const struct tr_insn *in)
{
    const ZydisDecodedOperandMem *m = &in->op[1].mem;
    int dst = tr_gpr(in->op[0].reg.value, NULL);
    int base = tr_gpr(m->base, NULL), index = tr_gpr(m->index, NULL);

    if (!tr_code64(t)) {
        tr_emit_lea32(t, in);
        return true;
    }
    if (in->op[0].size == 16 || dst < 0)
        return false;
    if (tr_lea_is_direct(in)) {
        bool parked = tr_host_of[dst] == H_NONE;
        emit_op_mem(&t->e, 0, in->op[0].size == 64, 0x8d,
                    parked ? H_RCX : (unsigned)tr_host_of[dst], tr_host_of[base],
                    index < 0 ? H_NONE : tr_host_of[index], m->scale ? m->scale : 1,
                    (int32_t)m->disp.value);
        if (parked)
            tr_emit_put(t, (unsigned)dst, H_RCX);
        return true;
    }
    tr_emit_address(t, in, &in->op[1]);
    if (in->op[0].size == 32)
        emit_op_reg(&t->e, false, 0x89, H_R10, H_R10); /* mov r10d, r10d */
    tr_emit_put(t, (unsigned)dst, H_R10);
    return true;
}
