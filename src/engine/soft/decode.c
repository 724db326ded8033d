/*
 * The decoder: bytes to struct soft_insn through Zydis, with the handler that executes it and the
 * few facts that are needed to run it natively. Knows the instruction set, not the state of a CPU:
 * a record does not depend on where the instruction lies.
 */
#include "engine/soft/decode.h"

#include <errno.h>
#include <string.h>

#include "engine/soft/exec.h"

void soft_decoder_init(ZydisDecoder *decoder, unsigned code_bits)
{
    if (code_bits == 64)
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (code_bits == 32)
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
}

ZyanStatus soft_zydis_decode(const ZydisDecoder *decoder, const uint8_t *bytes, size_t available,
                             ZydisDecodedInstruction *z,
                             ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT])
{
    ZyanStatus status = ZydisDecoderDecodeFull(decoder, bytes, available, z, ops);
    if (!ZYAN_SUCCESS(status))
        return status;
    /* A SIB byte without base but with REX.B and 32-bit addresses: Zydis sees R13D as the base and
     * no displacement (SDM volume 2, table 2-3, note 1: base 101b with mod 00b is none). */
    if (z->attributes & ZYDIS_ATTRIB_HAS_SIB && z->raw.modrm.mod == 0 && z->raw.sib.base == 5)
        for (unsigned i = 0; i < z->operand_count_visible; i++)
            if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
                ops[i].mem.base = ZYDIS_REGISTER_NONE;
                ops[i].mem.disp.has_displacement = ZYAN_TRUE;
                ops[i].mem.disp.value = z->raw.disp.value;
            }
    return status;
}

static int gpr_number(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        return reg - ZYDIS_REGISTER_RAX;
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        return reg - ZYDIS_REGISTER_EAX;
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
        return reg - ZYDIS_REGISTER_AX;
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
        return reg - ZYDIS_REGISTER_AL;
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return reg - ZYDIS_REGISTER_AH;
    if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
        return reg - ZYDIS_REGISTER_SPL + 4;
    return -1;
}

static uint8_t clamp_bytes(unsigned bits)
{
    unsigned bytes = bits / 8;
    return bytes > 255 ? 0 : (uint8_t)bytes;
}

static uint8_t operand_access(const ZydisDecodedOperand *o)
{
    bool reads = o->actions & (ZYDIS_OPERAND_ACTION_READ | ZYDIS_OPERAND_ACTION_CONDREAD);
    bool writes = o->actions & (ZYDIS_OPERAND_ACTION_WRITE | ZYDIS_OPERAND_ACTION_CONDWRITE);
    if (writes)
        return reads ? SOFT_RMW : SOFT_WRITE;
    return SOFT_READ;
}

static void fill_memory(struct soft_operand *op, const ZydisDecodedOperand *o)
{
    op->kind = SOFT_OP_MEM;
    op->seg = o->mem.segment >= ZYDIS_REGISTER_ES && o->mem.segment <= ZYDIS_REGISTER_GS
                  ? (uint8_t)(o->mem.segment - ZYDIS_REGISTER_ES)
                  : MULL_DS;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
        op->base = 16;
    else
        op->base = (int8_t)gpr_number(o->mem.base);
    op->index = (int8_t)gpr_number(o->mem.index);
    op->scale = o->mem.scale ? o->mem.scale : 1;
    if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
        op->reg = (uint16_t)o->mem.index;
    op->value = o->mem.disp.value;
}

static void fill_operand(struct soft_operand *op, const ZydisDecodedOperand *o)
{
    op->size = clamp_bytes(o->size);
    op->access = operand_access(o);
    op->base = op->index = -1;
    op->scale = 1;
    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        op->kind = SOFT_OP_REG;
        op->reg = (uint16_t)o->reg.value;
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        fill_memory(op, o);
        break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        op->kind = SOFT_OP_IMM;
        op->value = o->imm.value.s;
        break;
    case ZYDIS_OPERAND_TYPE_POINTER:
        op->kind = SOFT_OP_PTR;
        op->selector = o->ptr.segment;
        op->value = o->ptr.offset;
        break;
    default:
        break;
    }
}

/* The implicit memory operands of string instructions, XLAT and the byte-masked stores are worth
 * listing; of the stack and of everything else they are not. */
static bool lists_hidden_memory(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_CLZERO:
        return true;
    default:
        return z->meta.category == ZYDIS_CATEGORY_STRINGOP ||
               z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
    }
}

static void fill_operands(struct soft_insn *out, const ZydisDecodedInstruction *z,
                          const ZydisDecodedOperand *ops)
{
    bool hidden = lists_hidden_memory(z);
    for (unsigned i = 0; i < z->operand_count && out->operands < 5; i++) {
        bool visible = i < z->operand_count_visible;
        if (visible || (hidden && ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY))
            fill_operand(&out->op[out->operands++], &ops[i]);
    }
}

static uint8_t unit_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    bool mmx = false, vector = false;
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            vector |= ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB;
            continue;
        }
        if (ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegister reg = ops[i].reg.value;
        mmx |= reg >= ZYDIS_REGISTER_MM0 && reg <= ZYDIS_REGISTER_MM7;
        vector |= reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_ZMM31;
        vector |= reg == ZYDIS_REGISTER_MXCSR;
    }
    switch (z->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        return SOFT_UNIT_AVX512;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        if (z->meta.isa_ext == ZYDIS_ISA_EXT_AVX512VEX)
            return SOFT_UNIT_AVX512;
        return z->meta.isa_ext == ZYDIS_ISA_EXT_BMI1 || z->meta.isa_ext == ZYDIS_ISA_EXT_BMI2
                   ? SOFT_UNIT_VEX_INTEGER
                   : SOFT_UNIT_AVX;
    case ZYDIS_INSTRUCTION_ENCODING_XOP:
        return z->meta.isa_ext == ZYDIS_ISA_EXT_TBM ? SOFT_UNIT_VEX_INTEGER : SOFT_UNIT_AVX;
    case ZYDIS_INSTRUCTION_ENCODING_3DNOW:
        return SOFT_UNIT_MMX;
    default:
        break;
    }
    if (z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->meta.category == ZYDIS_CATEGORY_X87_ALU)
        return SOFT_UNIT_X87;
    if (vector)
        return SOFT_UNIT_SSE;
    if (mmx || z->mnemonic == ZYDIS_MNEMONIC_EMMS || z->mnemonic == ZYDIS_MNEMONIC_FEMMS)
        return SOFT_UNIT_MMX;
    switch (z->mnemonic) { /* SSE by extension, but on general registers */
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_SFENCE:
        return SOFT_UNIT_INTEGER;
    default:
        break;
    }
    switch (z->meta.isa_ext) { /* MXCSR, or one with a vector register that Zydis does not list */
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_SSSE3:
        return SOFT_UNIT_SSE;
    default:
        return SOFT_UNIT_INTEGER;
    }
}

/* SDM volume 2, table 2-18 and EVEX class E1: which memory operands must be aligned. */
static uint8_t alignment_of(const ZydisDecodedInstruction *z, unsigned size)
{
    switch (z->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE4:
        break;
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
        return (uint8_t)size;
    default:
        switch (z->mnemonic) {
        case ZYDIS_MNEMONIC_CMPXCHG16B:
        case ZYDIS_MNEMONIC_CVTPD2PI:
        case ZYDIS_MNEMONIC_CVTTPD2PI:
            return 16;
        default:
            return 0;
        }
    }
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return 0;
    default:
        /* SHA: Intel's processors fault, AMD's do not; the host's will tell. */
        return size == 16 && z->meta.isa_ext != ZYDIS_ISA_EXT_SHA ? 16 : 0;
    }
}

/* Does a zero bit of the opmask suppress the fault of its memory element? The "NF" classes of SDM
 * volume 2, section 2.8 read the whole operand. */
static bool suppresses_faults(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) { /* "NF" too, whatever Zydis says */
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
    case ZYDIS_MNEMONIC_VDBPSADBW:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VPMULTISHIFTQB:
        return false;
    default:
        break;
    }
    switch (z->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
        return false;
    default:
        return true;
    }
}

static uint8_t kept_prefixes(const struct soft_insn *out, const ZydisDecodedInstruction *z,
                             uint8_t unit)
{
    uint8_t keep = 0;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        if (z->raw.prefixes[i].type != ZYDIS_PREFIX_TYPE_MANDATORY)
            continue;
        switch (z->raw.prefixes[i].value) {
        case 0x66:
            keep |= SOFT_KEEP_66;
            break;
        case 0xf2:
            keep |= SOFT_KEEP_F2;
            break;
        case 0xf3:
            keep |= SOFT_KEEP_F3;
            break;
        default:
            break;
        }
    }
    /* Elsewhere 66 is no operand size: there it is mandatory or has no meaning. */
    bool sized = unit == SOFT_UNIT_X87 ||
                 (unit == SOFT_UNIT_INTEGER && z->mnemonic != ZYDIS_MNEMONIC_MOVNTI &&
                  z->mnemonic != ZYDIS_MNEMONIC_LFENCE && z->mnemonic != ZYDIS_MNEMONIC_MFENCE &&
                  z->mnemonic != ZYDIS_MNEMONIC_SFENCE);
    if (sized && z->operand_width == 16)
        keep |= SOFT_KEEP_66;
    if (out->prefixes & SOFT_PREFIX_LOCK)
        keep |= SOFT_KEEP_LOCK;
    return keep;
}

static uint8_t flags_of(const ZydisDecodedInstruction *z)
{
    if (!z->cpu_flags)
        return 0;
    const ZydisAccessedFlags *f = z->cpu_flags;
    uint32_t changed = f->modified | f->set_0 | f->set_1 | f->undefined;
    uint8_t flags = 0;
    if (changed & SOFT_ARITH_FLAGS)
        flags |= SOFT_FLAGS_SAVE | SOFT_FLAGS_LOAD;
    if (f->tested & SOFT_ARITH_FLAGS)
        flags |= SOFT_FLAGS_LOAD;
    switch (z->mnemonic) { /* these set all six, whatever they were */
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_XADD:
        flags &= (uint8_t)~SOFT_FLAGS_LOAD;
        break;
    default:
        break;
    }
    return flags;
}

static void fill_registers(struct soft_native *n, const ZydisDecodedInstruction *z,
                           const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        n->is4 |= ops[i].encoding == ZYDIS_OPERAND_ENCODING_IS4;
        int gpr = gpr_number(ops[i].reg.value);
        if (gpr < 0)
            continue;
        n->gprs |= (uint16_t)(1u << gpr);
        if (gpr != MULL_RSP)
            continue;
        switch (ops[i].encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            n->sp |= SOFT_SP_REG;
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            n->sp |= SOFT_SP_RM;
            break;
        case ZYDIS_OPERAND_ENCODING_OPCODE:
            n->sp |= SOFT_SP_OPCODE;
            break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            n->sp |= SOFT_SP_VVVV;
            break;
        default:
            break;
        }
    }
}

static void fill_layout(struct soft_insn *out, const ZydisDecodedInstruction *z)
{
    struct soft_native *n = &out->native;
    n->opcode = z->raw.prefix_count;
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        n->encoding = out->bytes[n->opcode] == 0xc5 ? SOFT_ENC_VEX2 : SOFT_ENC_VEX3;
    else if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP)
        n->encoding = SOFT_ENC_VEX3;
    else if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        n->encoding = SOFT_ENC_EVEX;
    else if (n->opcode && out->code_bits == 64 && (out->bytes[n->opcode - 1] & 0xf0) == 0x40)
        n->rex = out->bytes[n->opcode - 1];

    if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
        n->modrm = z->raw.modrm.offset;
        n->tail = (uint8_t)(n->modrm + 1 + !!(z->attributes & ZYDIS_ATTRIB_HAS_SIB) +
                            z->raw.disp.size / 8);
    } else {
        n->tail = z->raw.imm[0].size ? z->raw.imm[0].offset : z->length;
    }
}

static uint8_t broadcast_elements(ZydisBroadcastMode mode)
{
    switch (mode) {
    case ZYDIS_BROADCAST_MODE_1_TO_2:
        return 2;
    case ZYDIS_BROADCAST_MODE_1_TO_4:
    case ZYDIS_BROADCAST_MODE_2_TO_4:
        return 4;
    case ZYDIS_BROADCAST_MODE_1_TO_8:
    case ZYDIS_BROADCAST_MODE_2_TO_8:
    case ZYDIS_BROADCAST_MODE_4_TO_8:
        return 8;
    case ZYDIS_BROADCAST_MODE_1_TO_16:
    case ZYDIS_BROADCAST_MODE_2_TO_16:
    case ZYDIS_BROADCAST_MODE_4_TO_16:
    case ZYDIS_BROADCAST_MODE_8_TO_16:
        return 16;
    case ZYDIS_BROADCAST_MODE_1_TO_32:
        return 32;
    case ZYDIS_BROADCAST_MODE_1_TO_64:
        return 64;
    default:
        return 0;
    }
}

/* Instructions on a general register, or a memory operand in place of one. */
static bool has_wide_form(const struct soft_insn *out)
{
    switch (out->mnemonic) {
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRD:
        return true;
    default:
        return out->native.gprs;
    }
}

static void fill_native(struct soft_insn *out, const ZydisDecodedInstruction *z,
                        const ZydisDecodedOperand *ops)
{
    struct soft_native *n = &out->native;
    n->unit = unit_of(z, ops);
    fill_layout(out, z);
    n->keep = kept_prefixes(out, z, n->unit);
    n->flags = flags_of(z);
    fill_registers(n, z, ops);
    n->wide = (n->encoding == SOFT_ENC_VEX3 || n->encoding == SOFT_ENC_EVEX) &&
              out->bytes[n->opcode + 2] & 0x80;
    n->narrow = n->encoding != SOFT_ENC_LEGACY && out->code_bits != 64 && has_wide_form(out);
    n->vector = (uint8_t)(z->avx.vector_length / 8);
    n->broadcast = broadcast_elements(z->avx.broadcast.mode);
    for (unsigned i = 0; i < z->operand_count_visible && i < 5; i++) {
        if (ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        n->memory = (uint8_t)(i + 1);
        n->align = alignment_of(z, clamp_bytes(ops[i].size));
        n->element = clamp_bytes(ops[i].element_size);
        break;
    }
    if (n->memory && z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
        z->avx.mask.reg > ZYDIS_REGISTER_K0 && z->avx.mask.reg <= ZYDIS_REGISTER_K7)
        n->mask = (uint8_t)(z->avx.mask.reg - ZYDIS_REGISTER_K0);
    n->mask_faults = n->mask && !suppresses_faults(z);
    if (n->mask && out->op[n->memory - 1].access == SOFT_READ && n->mask_faults)
        n->mask = 0;
}

/* Extensions whose instructions compute and touch nothing that the host would not let a user
 * program touch anyway: these may run natively. */
static bool may_run_natively(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    switch (z->meta.isa_ext) {
    case ZYDIS_ISA_EXT_ADOX_ADCX:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_AMD3DNOW:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_LZCNT:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_MOVBE:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_RDRAND:
    case ZYDIS_ISA_EXT_RDSEED:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_TBM:
    case ZYDIS_ISA_EXT_VAES:
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
    case ZYDIS_ISA_EXT_X87:
    case ZYDIS_ISA_EXT_XOP:
        return true;
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_LONGMODE:
        break;
    default:
        return false;
    }
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SEMAPHORE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHIFT:
        return true;
    case ZYDIS_CATEGORY_DATAXFER: /* but not MOV of a segment, control or debug register */
        for (unsigned i = 0; i < z->operand_count; i++)
            if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_number(ops[i].reg.value) < 0)
                return false;
        return true;
    case ZYDIS_CATEGORY_FLAGOP:
        return z->mnemonic == ZYDIS_MNEMONIC_CLC || z->mnemonic == ZYDIS_MNEMONIC_STC ||
               z->mnemonic == ZYDIS_MNEMONIC_CMC || z->mnemonic == ZYDIS_MNEMONIC_LAHF ||
               z->mnemonic == ZYDIS_MNEMONIC_SAHF;
    default:
        return false;
    }
}

static soft_handler control_handler(const struct soft_insn *out)
{
    if (out->prefixes & SOFT_PREFIX_FAR)
        return NULL;
    switch (out->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        return soft_exec_jump;
    case ZYDIS_MNEMONIC_CALL:
        return soft_exec_call;
    case ZYDIS_MNEMONIC_RET:
        return soft_exec_ret;
    case ZYDIS_MNEMONIC_JB:
    case ZYDIS_MNEMONIC_JBE:
    case ZYDIS_MNEMONIC_JL:
    case ZYDIS_MNEMONIC_JLE:
    case ZYDIS_MNEMONIC_JNB:
    case ZYDIS_MNEMONIC_JNBE:
    case ZYDIS_MNEMONIC_JNL:
    case ZYDIS_MNEMONIC_JNLE:
    case ZYDIS_MNEMONIC_JNO:
    case ZYDIS_MNEMONIC_JNP:
    case ZYDIS_MNEMONIC_JNS:
    case ZYDIS_MNEMONIC_JNZ:
    case ZYDIS_MNEMONIC_JO:
    case ZYDIS_MNEMONIC_JP:
    case ZYDIS_MNEMONIC_JS:
    case ZYDIS_MNEMONIC_JZ:
        return soft_exec_jcc;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        return soft_exec_loop;
    default:
        return NULL;
    }
}

static soft_handler stack_handler(const struct soft_insn *out)
{
    switch (out->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return soft_exec_push;
    case ZYDIS_MNEMONIC_POP:
        return soft_exec_pop;
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
        return soft_exec_pusha;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        return soft_exec_popa;
    case ZYDIS_MNEMONIC_ENTER:
        return soft_exec_enter;
    case ZYDIS_MNEMONIC_LEAVE:
        return soft_exec_leave;
    default:
        return NULL;
    }
}

static soft_handler vector_handler(const struct soft_insn *out)
{
    switch (out->mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return soft_exec_mask_bytes;
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return soft_exec_mask_move;
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPSCATTERDD:
    case ZYDIS_MNEMONIC_VPSCATTERDQ:
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
    case ZYDIS_MNEMONIC_VSCATTERDPD:
    case ZYDIS_MNEMONIC_VSCATTERDPS:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
        return soft_exec_gather;
    case ZYDIS_MNEMONIC_VPEXTRD: /* outside 64-bit mode VEX.W1 is no alias, EVEX.W1 is */
    case ZYDIS_MNEMONIC_VPINSRD:
        return out->code_bits != 64 && out->native.encoding == SOFT_ENC_VEX3 && out->native.wide
                   ? soft_exec_ud
                   : NULL;
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_VZEROUPPER:
        return out->code_bits == 64 ? NULL : soft_exec_zero_vectors;
    default:
        return NULL;
    }
}

static soft_handler odd_handler(const struct soft_insn *out, const ZydisDecodedInstruction *z)
{
    switch (out->mnemonic) {
    case ZYDIS_MNEMONIC_LEA:
        return soft_exec_lea;
    case ZYDIS_MNEMONIC_MOV: /* A0-A3: no ModRM to re-encode */
        if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && out->native.memory &&
            !out->native.modrm)
            return soft_exec_mov_offset;
        return NULL;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
        return out->op[0].kind == SOFT_OP_MEM && out->op[1].kind == SOFT_OP_REG ? soft_exec_bit
                                                                                : NULL;
    case ZYDIS_MNEMONIC_XLAT:
        return soft_exec_xlat;
    case ZYDIS_MNEMONIC_BOUND:
        return soft_exec_bound;
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAS:
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
        return soft_exec_decimal;
    case ZYDIS_MNEMONIC_SALC:
        return soft_exec_salc;
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        return soft_exec_direction;
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
        return soft_exec_cache_line;
    case ZYDIS_MNEMONIC_CLZERO:
        return soft_exec_clzero;
    case ZYDIS_MNEMONIC_FWAIT:
        return soft_exec_fwait;
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_RDSSPD: /* hint NOPs while CET is off */
    case ZYDIS_MNEMONIC_RDSSPQ:
    case ZYDIS_MNEMONIC_BNDCL: /* MPX is off: NOPs too */
    case ZYDIS_MNEMONIC_BNDCN:
    case ZYDIS_MNEMONIC_BNDCU:
    case ZYDIS_MNEMONIC_BNDLDX:
    case ZYDIS_MNEMONIC_BNDMK:
    case ZYDIS_MNEMONIC_BNDMOV:
    case ZYDIS_MNEMONIC_BNDSTX:
    case ZYDIS_MNEMONIC_CLDEMOTE:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
        return soft_exec_nop;
    case ZYDIS_MNEMONIC_MFENCE:
        return soft_exec_data;
    case ZYDIS_MNEMONIC_PAUSE:
        return soft_exec_pause;
    default:
        break;
    }
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_PREFETCHWT1:
        return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ? soft_exec_nop : soft_exec_ud;
    case ZYDIS_CATEGORY_STRINGOP:
        return soft_exec_string;
    default:
        return NULL;
    }
}

static soft_handler choose_handler(const struct soft_insn *out, const ZydisDecodedInstruction *z,
                                   const ZydisDecodedOperand *ops)
{
    soft_handler h = soft_system_handler(out);
    if (!h)
        h = control_handler(out);
    if (!h)
        h = stack_handler(out);
    if (!h)
        h = vector_handler(out);
    if (!h)
        h = odd_handler(out, z);
    if (!h && (may_run_natively(z, ops) || out->mnemonic == ZYDIS_MNEMONIC_XCHG))
        h = soft_exec_data;
    return h ? h : soft_exec_ud;
}

/* F3 90 with REX.B is no PAUSE but XCHG of the accumulator with R8. */
static void make_exchange(struct soft_insn *out)
{
    out->mnemonic = ZYDIS_MNEMONIC_XCHG;
    out->native.gprs = 1u << MULL_RAX | 1u << MULL_R8;
    out->native.keep &= (uint8_t)~SOFT_KEEP_F3;
}

void soft_insn_from_zydis(struct soft_insn *out, const ZydisDecodedInstruction *z,
                          const ZydisDecodedOperand *ops, const uint8_t *bytes, unsigned code_bits)
{
    memset(out, 0, sizeof(*out));
    out->mnemonic = (uint16_t)z->mnemonic;
    out->length = z->length;
    out->code_bits = (uint8_t)code_bits;
    out->operand_size = z->operand_width / 8;
    out->address_size = z->address_width / 8;
    out->stack_size = out->operand_size;
    memcpy(out->bytes, bytes, z->length);
    if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        out->prefixes |= SOFT_PREFIX_REP;
    if (z->attributes & ZYDIS_ATTRIB_HAS_REPNE)
        out->prefixes |= SOFT_PREFIX_REPNE;
    if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        out->prefixes |= SOFT_PREFIX_LOCK;
    if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        out->prefixes |= SOFT_PREFIX_FAR;
    fill_operands(out, z, ops);
    fill_native(out, z, ops);
    if (out->mnemonic == ZYDIS_MNEMONIC_PAUSE && out->native.rex & 1)
        make_exchange(out);
    out->native.constant = out->mnemonic == ZYDIS_MNEMONIC_MOV && out->op[0].kind == SOFT_OP_REG &&
                           out->op[1].kind == SOFT_OP_IMM;
    out->handler = choose_handler(out, z, ops);
}

int soft_decode(struct soft_insn *out, const uint8_t *bytes, unsigned available, unsigned code_bits)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

    soft_decoder_init(&decoder, code_bits);
    ZyanStatus status = soft_zydis_decode(&decoder, bytes, available, &z, ops);
    if (status == ZYDIS_STATUS_NO_MORE_DATA || status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return -EAGAIN;
    if (!ZYAN_SUCCESS(status))
        return -EINVAL;
    soft_insn_from_zydis(out, &z, ops, bytes, code_bits);
    return 0;
}
