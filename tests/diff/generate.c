/*
 * Makes cases: random sequences from a seed, and the list of every encoding once. Instructions are
 * made from random bytes and kept if the decoder takes them, so that odd encodings (redundant
 * prefixes, two opcodes for one operation) come up as well; their memory operands are then directed
 * into the windows by setting the registers they use.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "diff.h"
#include "engine/soft/decode.h"

struct instruction {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[16];
};

static ZydisDecoder decoders[3]; /* 64, 32, 16 */

static const ZydisDecoder *decoder_for(unsigned bits)
{
    return &decoders[bits == 64 ? 0 : bits == 32 ? 1 : 2];
}

static int gpr_of(ZydisRegister reg)
{
    if (reg == ZYDIS_REGISTER_NONE)
        return -1;
    ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    if (full < ZYDIS_REGISTER_RAX || full > ZYDIS_REGISTER_R15)
        return -1;
    return full - ZYDIS_REGISTER_RAX;
}

/* ---- Which instructions ---- */

/* What computes, moves data or moves control inside the code, and gives the same result each time;
 * not what depends on the host's secrets, or changes its state beyond the registers. */
static bool wanted(const struct instruction *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_FNSAVE: /* stores the last instruction's address */
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_ARPL:
        return false;
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_CLZERO:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_UD2:
        return true;
    default:
        break;
    }
    for (unsigned i = 0; i < in->z.operand_count_visible; i++)
        if (in->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass k = ZydisRegisterGetClass(in->ops[i].reg.value);
            if (k == ZYDIS_REGCLASS_SEGMENT || k == ZYDIS_REGCLASS_CONTROL ||
                k == ZYDIS_REGCLASS_DEBUG || k == ZYDIS_REGCLASS_TEST)
                return false;
        }
    if (in->z.meta.exception_class >= ZYDIS_EXCEPTION_CLASS_AMXE1)
        return false;
    switch (in->z.meta.category) {
    case ZYDIS_CATEGORY_AMX_TILE:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_CLDEMOTE:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_ENQCMD:
    case ZYDIS_CATEGORY_HRESET:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_KEYLOCKER:
    case ZYDIS_CATEGORY_KEYLOCKER_WIDE:
    case ZYDIS_CATEGORY_MISC:
    case ZYDIS_CATEGORY_MOVDIR:
    case ZYDIS_CATEGORY_MPX:
    case ZYDIS_CATEGORY_PADLOCK:
    case ZYDIS_CATEGORY_PCONFIG:
    case ZYDIS_CATEGORY_PKU:
    case ZYDIS_CATEGORY_PT:
    case ZYDIS_CATEGORY_RDPID:
    case ZYDIS_CATEGORY_RDPRU:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_SERIALIZE:
    case ZYDIS_CATEGORY_SGX:
    case ZYDIS_CATEGORY_SMAP:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_TSX_LDTRK:
    case ZYDIS_CATEGORY_UINTR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_WAITPKG:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_CET:
        return false;
    case ZYDIS_CATEGORY_FLAGOP:
        return in->z.mnemonic != ZYDIS_MNEMONIC_CLI && in->z.mnemonic != ZYDIS_MNEMONIC_STI;
    case ZYDIS_CATEGORY_SSE: /* FXSAVE stores the last x87 instruction's address */
        return in->z.mnemonic != ZYDIS_MNEMONIC_FXSAVE &&
               in->z.mnemonic != ZYDIS_MNEMONIC_FXSAVE64 &&
               in->z.mnemonic != ZYDIS_MNEMONIC_FXRSTOR &&
               in->z.mnemonic != ZYDIS_MNEMONIC_FXRSTOR64;
    default:
        return true;
    }
}

/* Encodings that depend on the host's vendor, not on the architecture. */
static bool vendor_specific(const struct instruction *in)
{
    /* Only a few processors ever had these; the mnemonics are others' too. */
    if (in->z.meta.isa_ext == ZYDIS_ISA_EXT_FMA4 || in->z.meta.isa_ext == ZYDIS_ISA_EXT_XOP)
        return true;
    /* PREFETCHW with a register: #UD or NOP. */
    if (in->z.opcode_map == ZYDIS_OPCODE_MAP_0F && in->z.opcode == 0x0d && in->z.raw.modrm.mod == 3)
        return true;
    /* EVEX.X has no meaning for a general register, and Zen 5 then reads a stale RSP. */
    if (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && in->z.raw.modrm.mod == 3 &&
        !(in->bytes[in->z.raw.evex.offset + 1] & 0x40))
        for (unsigned i = 0; i < in->z.operand_count; i++)
            if (in->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                in->ops[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM &&
                gpr_of(in->ops[i].reg.value) >= 0)
                return true;
    /* CLZERO with other prefixes is none. */
    if (in->z.mnemonic == ZYDIS_MNEMONIC_CLZERO && in->z.length > 3)
        return true;
    /* BSWAP of 16 bits is undefined. */
    if (in->z.mnemonic == ZYDIS_MNEMONIC_BSWAP && in->z.operand_width == 16)
        return true;
    return false;
}

/* What the host's CPU does not know would end most sequences at once. */
static bool known_to_host(const struct instruction *in)
{
    static uint8_t answer[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    uint8_t *a = &answer[in->z.mnemonic];
    unsigned bits = in->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64     ? 64
                    : in->z.machine_mode == ZYDIS_MACHINE_MODE_LEGACY_32 ? 32
                                                                         : 16;
    if (!*a)
        *a = diff_native_knows(in->bytes, in->z.length, bits) ? 1 : 2;
    return *a == 1;
}

static bool decode(struct instruction *in, unsigned bits)
{
    return ZYAN_SUCCESS(soft_zydis_decode(decoder_for(bits), in->bytes, 15, &in->z, in->ops)) &&
           wanted(in) && !vendor_specific(in);
}

/* ---- Random bytes that are likely to be an instruction ---- */

static void random_bytes(struct diff_random *r, struct instruction *in, unsigned bits)
{
    uint8_t *b = in->bytes;
    unsigned n = 0, how = diff_below(r, 100);

    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t v = diff_random(r);
        memcpy(b + i, &v, 8);
    }
    if (how < 70) {
        if (diff_below(r, 6) == 0)
            b[n++] = 0x66;
        if (diff_below(r, 24) == 0)
            b[n++] = 0x67;
        if (bits == 64 && diff_below(r, 16) == 0)
            b[n++] = diff_below(r, 2) ? 0x64 : 0x65;
        if (diff_below(r, 16) == 0)
            b[n++] = 0xf0;
        if (diff_below(r, 5) == 0)
            b[n++] = diff_below(r, 2) ? 0xf2 : 0xf3;
        if (bits == 64 && diff_below(r, 2))
            b[n++] = (uint8_t)(0x40 | diff_below(r, 16));
        if (how < 30)
            return;
        b[n++] = 0x0f;
        if (how >= 60)
            b[n++] = diff_below(r, 3) ? 0x38 : 0x3a;
        return;
    }
    if (how < 85) { /* VEX */
        if (diff_below(r, 2)) {
            b[n++] = 0xc5;
            if (bits != 64)
                b[n] |= 0xc0;
            return;
        }
        b[n++] = 0xc4;
        b[n] = (uint8_t)((b[n] & 0xe0) | (1 + diff_below(r, 3)));
        if (bits != 64)
            b[n] |= 0xe0;
        return;
    }
    b[n++] = 0x62; /* EVEX */
    b[n] = (uint8_t)((b[n] & 0xf0) | (1 + diff_below(r, 3)));
    if (bits != 64)
        b[n] |= diff_below(r, 4) ? 0xf0 : 0xe0; /* R' does not count */
    b[n + 1] |= 4;
    if (bits != 64)
        b[n + 1] |= 0x40;
    if (diff_below(r, 2))
        b[n + 2] &= 0xf8; /* no mask */
    if (diff_below(r, 2))
        b[n + 2] |= 8;
}

/* ---- Putting a sequence together ---- */

struct sequence {
    struct diff_case *c;
    struct diff_random r;
    /* Registers that still hold what they began with or were last set to. */
    bool known[16];
    uint64_t value[16];
    bool full;
    bool tame; /* most accesses go well, so that long programs come to their end */
};

static void append(struct sequence *s, const uint8_t *bytes, unsigned size)
{
    struct diff_case *c = s->c;
    if (c->size + size > DIFF_CODE_MAX || c->insns == DIFF_INSNS_MAX) {
        s->full = true;
        return;
    }
    c->start[c->insns++] = (uint16_t)c->size;
    memcpy(c->code + c->size, bytes, size);
    c->size += size;
}

static void set_register(struct sequence *s, unsigned reg, uint64_t value)
{
    uint8_t b[10];
    unsigned n = 0;
    if (s->known[reg] && s->value[reg] == value)
        return;
    s->known[reg] = true;
    s->value[reg] = value;
    if (!s->c->insns || s->c->bits != 64) { /* nothing ran yet */
        if (!s->c->insns) {
            s->c->gpr[reg] = value;
            return;
        }
        if (s->c->bits == 16)
            b[n++] = 0x66;
        b[n++] = (uint8_t)(0xb8 | reg);
        memcpy(b + n, &value, 4);
        append(s, b, n + 4);
        return;
    }
    if (value <= 0xffffffffu && reg < 8) {
        b[n++] = (uint8_t)(0xb8 | reg);
        memcpy(b + n, &value, 4);
        append(s, b, n + 4);
        return;
    }
    b[n++] = (uint8_t)(0x48 | reg >> 3);
    b[n++] = (uint8_t)(0xb8 | (reg & 7));
    memcpy(b + n, &value, 8);
    append(s, b, n + 8);
}

/* An address in the windows for an operand of @size bytes. @tame: one that can be accessed */
static uint64_t choose_address(struct diff_random *r, unsigned size, bool aligned, bool tame)
{
    unsigned how = diff_below(r, tame ? 75 : 100);
    uint64_t at;
    if (how < 60)
        at = DIFF_DATA + 0x200 + diff_below(r, 0x600);
    else if (how < 75) /* into the next page */
        at = DIFF_DATA + DIFF_PAGE - 1 - diff_below(r, size ? size : 1);
    else if (how < 80) /* the end of the second page, and into the hole */
        at = DIFF_DATA + 2 * DIFF_PAGE - size - 4 + diff_below(r, 8);
    else if (how < 84)
        at = DIFF_DATA + DIFF_READONLY * DIFF_PAGE + 0x100 + diff_below(r, 0x400);
    else if (how < 88)
        at = DIFF_DATA + 4 * DIFF_PAGE - diff_below(r, size + 1);
    else if (how < 91)
        at = DIFF_DATA + DIFF_DATA_PAGES * DIFF_PAGE - diff_below(r, 2 * size + 1);
    else
        at = DIFF_DATA + 4 * DIFF_PAGE + diff_below(r, 0xf00);
    if (aligned && diff_below(r, 16))
        at &= ~63ull;
    else if (diff_below(r, 2))
        at &= ~7ull;
    return at;
}

/* Make the memory operand @op of @in hit @target, by setting registers or the displacement. */
static void direct_operand(struct sequence *s, struct instruction *in,
                           const ZydisDecodedOperand *op, uint64_t target)
{
    bool long_address = in->z.address_width == 64;
    uint64_t mask = long_address ? ~0ull : in->z.address_width == 32 ? 0xffffffffull : 0xffffull;
    int base = gpr_of(op->mem.base), index = gpr_of(op->mem.index);
    uint64_t disp = (uint64_t)op->mem.disp.value;

    if (op->mem.segment == ZYDIS_REGISTER_FS && s->c->bits == 64)
        target -= DIFF_FS_BASE;
    if (op->mem.segment == ZYDIS_REGISTER_GS && s->c->bits == 64)
        target -= DIFF_GS_BASE;
    if (s->c->based && op->mem.segment != ZYDIS_REGISTER_SS)
        target -= op->mem.segment == ZYDIS_REGISTER_CS ? DIFF_CODE : DIFF_DATA;
    if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
        index = -1;
    if (base < 0 && index < 0) {
        /* Only a displacement: rewrite it. */
        if (in->z.raw.disp.size != 32 && in->z.raw.disp.size != 16)
            return;
        if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP)
            target -= DIFF_CODE + s->c->offset + s->c->size + in->z.length;
        uint32_t d = (uint32_t)target;
        memcpy(in->bytes + in->z.raw.disp.offset, &d, in->z.raw.disp.size / 8);
        return;
    }
    if (base == index) {
        set_register(s, (unsigned)base, (target - disp) / (1u + op->mem.scale) & mask);
        return;
    }
    uint64_t rest = target - disp;
    if (index >= 0) {
        uint64_t value = diff_below(&s->r, 64);
        if (base < 0)
            value = rest / op->mem.scale & mask;
        set_register(s, (unsigned)index, value);
        rest -= value * op->mem.scale;
    }
    if (base >= 0)
        set_register(s, (unsigned)base, rest & mask);
}

static bool needs_alignment(const struct instruction *in)
{
    switch (in->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE4:
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
        return true;
    default:
        return in->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
    }
}

static bool is_stack_operand(const ZydisDecodedOperand *op)
{
    return op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
           op->mem.segment == ZYDIS_REGISTER_SS;
}

static void direct_memory(struct sequence *s, struct instruction *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->ops[i];
        unsigned size = op->size / 8;
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (is_stack_operand(op)) {
            if (op->mem.base == ZYDIS_REGISTER_NONE)
                continue;
            uint64_t sp = DIFF_STACK + 0x400 + diff_below(&s->r, 0x800);
            bool popa = in->z.mnemonic == ZYDIS_MNEMONIC_POPA ||     /* the host loads some */
                        in->z.mnemonic == ZYDIS_MNEMONIC_POPAD;      /* before it faults */
            if (!popa && diff_below(&s->r, s->tame ? 256 : 16) == 0) /* near an end */
                sp = diff_below(&s->r, 2) ? DIFF_STACK + diff_below(&s->r, 24)
                                          : DIFF_STACK + DIFF_PAGE - diff_below(&s->r, 24);
            int base = gpr_of(op->mem.base);
            if (base >= 0)
                set_register(s, (unsigned)base, sp);
            continue;
        }
        bool tame = s->tame && diff_below(&s->r, 128);
        if (!tame && diff_below(&s->r, 24) == 0)
            continue; /* wherever it goes */
        uint64_t at = choose_address(&s->r, size, needs_alignment(in), tame);
        if (tame && needs_alignment(in))
            at &= ~63ull;
        if (diff_below(&s->r, 40) == 0) /* a page with code, but beside it */
            at = DIFF_CODE + (s->c->offset < 256 ? 0x500 : 0x1500) + diff_below(&s->r, 0x800);
        direct_operand(s, in, op, at);
    }
    /* Repeated string instructions: not for long. */
    if (in->z.meta.category == ZYDIS_CATEGORY_STRINGOP &&
        in->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        set_register(s, 1, diff_below(&s->r, diff_below(&s->r, 8) ? 40 : 3000));
}

static void note_writes(struct sequence *s, const struct instruction *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        if (in->ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(in->ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        int reg = gpr_of(in->ops[i].reg.value);
        if (reg >= 0)
            s->known[reg] = false;
    }
}

static bool add_instruction(struct sequence *s, struct instruction *in)
{
    unsigned insns = s->c->insns, size = s->c->size;
    direct_memory(s, in);
    append(s, in->bytes, in->z.length);
    if (s->full) {
        s->c->insns = insns;
        s->c->size = size;
        return false;
    }
    note_writes(s, in);
    return true;
}

static bool has_memory(const struct instruction *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++)
        if (in->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return true;
    return false;
}

static bool random_instruction(struct sequence *s)
{
    struct instruction in;
    for (unsigned tries = 0; tries < 1000; tries++) {
        random_bytes(&s->r, &in, s->c->bits);
        if (!decode(&in, s->c->bits))
            continue;
        if (!known_to_host(&in) && (diff_below(&s->r, 64) || has_memory(&in)))
            continue; /* with memory the engine meets its faults first */
        if (in.z.mnemonic == ZYDIS_MNEMONIC_UD2 && diff_below(&s->r, 64))
            continue;
        /* Locked and 66-prefixed oddities are fine; moves to RSP make the next push fault. */
        return add_instruction(s, &in);
    }
    return false;
}

/* ---- Registers that have none of the host's ---- */

/* [66] REX opcode ModRM: operand sizes of 8 to 64 bits, both operands registers. */
static void append_rr(struct sequence *s, unsigned wide, const uint8_t *opcode, unsigned n,
                      unsigned reg, unsigned rm)
{
    uint8_t b[8];
    unsigned k = 0;

    if (wide == 2)
        b[k++] = 0x66;
    b[k++] = (uint8_t)(0x40 | (wide == 1) << 3 | (reg & 8) >> 1 | rm >> 3);
    memcpy(b + k, opcode, n);
    k += n;
    b[k++] = (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7));
    append(s, b, k);
    s->known[reg] = s->known[rm] = false;
}

/* R9 to R11, or one that has. */
static unsigned parked(struct sequence *s)
{
    return diff_below(&s->r, 6) ? 9 + diff_below(&s->r, 3) : diff_below(&s->r, 4);
}

static void append_parked(struct sequence *s, unsigned reg, unsigned rm)
{
    static const uint8_t one[] = {0x00, 0x01, 0x03, 0x08, 0x09, 0x0b, 0x11, 0x13, 0x19, 0x1b,
                                  0x21, 0x23, 0x28, 0x29, 0x2b, 0x31, 0x33, 0x38, 0x39, 0x3b,
                                  0x63, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8b};
    static const uint8_t two[] = {0xa3, 0xab, 0xaf, 0xb0, 0xb1, 0xb6, 0xb7, 0xbb, 0xbe,
                                  0xbf, 0xc0, 0xc1, 0x42, 0x43, 0x44, 0x45, 0x4c, 0x92};
    static const uint8_t groups[] = {0xd0, 0xd1, 0xd3, 0xf7, 0xff};
    const unsigned wide = diff_below(&s->r, 4);
    uint8_t b[3] = {0};

    switch (diff_below(&s->r, 8)) {
    case 0:
    case 1:
    case 2:
        b[0] = 0x0f;
        b[1] = two[diff_below(&s->r, sizeof(two))];
        append_rr(s, wide, b, 2, reg, rm);
        return;
    case 3: { /* shifts by 1 and CL; NOT, NEG, MUL; INC, DEC */
        b[0] = groups[diff_below(&s->r, sizeof(groups))];
        unsigned what = b[0] == 0xff   ? diff_below(&s->r, 2)
                        : b[0] == 0xf7 ? 2 + diff_below(&s->r, 3)
                                       : diff_below(&s->r, 8);
        append_rr(s, wide, b, 1, what, rm);
        s->known[0] = s->known[2] = false;
        return;
    }
    default:
        b[0] = one[diff_below(&s->r, sizeof(one))];
        append_rr(s, wide, b, 1, reg, rm);
    }
}

/* A few instructions on them in a row. */
static bool random_parked(struct sequence *s)
{
    if (s->c->bits != 64)
        return random_instruction(s);
    for (unsigned n = 2 + diff_below(&s->r, 4); n > 0 && !s->full; n--) {
        unsigned reg = parked(s);
        append_parked(s, reg, diff_below(&s->r, 3) ? parked(s) : reg);
    }
    return !s->full;
}

/* ---- Loops over arrays ---- */

/* REX.W opcode ModRM SIB disp32, of [base + index * scale + disp]; @index 4: none */
static void append_at(struct sequence *s, unsigned rex, uint8_t opcode, unsigned reg, unsigned base,
                      unsigned index, unsigned scale, int32_t disp)
{
    uint8_t b[8];

    b[0] = (uint8_t)(rex | (reg & 8) >> 1 | (index & 8) >> 2 | base >> 3);
    b[1] = opcode;
    b[2] = (uint8_t)(0x84 | (reg & 7) << 3);
    b[3] = (uint8_t)(scale << 6 | (index & 7) << 3 | (base & 7));
    memcpy(b + 4, &disp, 4);
    append(s, b, 8);
    s->known[reg] = false;
}

/* Arrays from DIFF_DATA on, which two pages, a hole and a page that is not to be written follow;
 * a loop over them is so long that the engine translates several of its rounds at once. */
static bool random_array_loop(struct sequence *s)
{
    static const uint8_t opcodes[] = {0x8b, 0x8b, 0x03, 0x33, 0x89, 0x89, 0x01, 0x29, 0x3b, 0x87};
    static const uint8_t bases[] = {3, 5, 6, 7, 9, 10, 12, 13}, sums[] = {0, 2, 8, 9, 10, 11};
    const uint8_t dec[3] = {0x41, 0xff, 0xcf}; /* dec r15d */
    const unsigned rounds = 70 + diff_below(&s->r, 200), index = 9 + 5 * diff_below(&s->r, 2);
    const unsigned stride = 1 + diff_below(&s->r, 16), arrays = 1 + diff_below(&s->r, 5);
    unsigned base[5], scale[5];
    bool moves[5];

    if (s->c->bits != 64)
        return random_instruction(s);
    for (unsigned i = 0; i < arrays; i++) {
        base[i] = bases[diff_below(&s->r, sizeof(bases))];
        scale[i] = diff_below(&s->r, 3);
        moves[i] = diff_below(&s->r, 3) == 0;
        unsigned how = diff_below(&s->r, 8);
        set_register(s, base[i],
                     how < 6    ? DIFF_DATA + diff_below(&s->r, 0x1000)
                     : how == 6 ? DIFF_DATA + DIFF_READONLY * DIFF_PAGE + diff_below(&s->r, 0x800)
                                : DIFF_DATA + 4 * DIFF_PAGE - diff_below(&s->r, 64));
    }
    set_register(s, index, diff_below(&s->r, 16));
    set_register(s, 15, rounds);
    unsigned begin = s->c->size, exits = 0, exit[2];
    memset(s->known, 0, sizeof(s->known));
    for (unsigned n = 1 + diff_below(&s->r, 6); n > 0 && !s->full; n--) {
        unsigned a = diff_below(&s->r, arrays), sum = sums[diff_below(&s->r, sizeof(sums))];
        unsigned x = moves[a] || index == base[a] ? 4 : index;
        for (unsigned i = 0; i < arrays; i++)
            if (sum == base[i] || sum == index)
                sum = 0;
        append_at(s, diff_below(&s->r, 4) ? 0x48 : 0x40,
                  opcodes[diff_below(&s->r, sizeof(opcodes))], sum, base[a], x, scale[a],
                  (int32_t)diff_below(&s->r, 48) - 8);
        if (diff_below(&s->r, 3) == 0)
            append_parked(s, 11, 11);
        if (exits < 2 && diff_below(&s->r, 8) == 0) { /* jo forward, behind the loop */
            append(s, (const uint8_t[2]){0x70, 0}, 2);
            exit[exits++] = s->c->size;
        }
        if (moves[a] && diff_below(&s->r, 2)) /* add $stride, base */
            append(s,
                   (const uint8_t[4]){(uint8_t)(0x48 | base[a] >> 3), 0x83,
                                      (uint8_t)(0xc0 | (base[a] & 7)), (uint8_t)stride},
                   4);
    }
    append(s,
           (const uint8_t[4]){(uint8_t)(0x48 | index >> 3), 0x83, (uint8_t)(0xc0 | (index & 7)),
                              (uint8_t)stride},
           4);
    append(s, dec, sizeof(dec));
    if (s->full || s->c->size + 2 - begin > 128)
        return false;
    append(s, (const uint8_t[2]){0x75, (uint8_t)(begin - s->c->size - 2)}, 2);
    for (unsigned i = 0; i < exits; i++)
        s->c->code[exit[i] - 1] = (uint8_t)(s->c->size - exit[i]);
    memset(s->known, 0, sizeof(s->known));
    return !s->full;
}

/* ---- Jumps ---- */

/* Jcc or JMP over the next few instructions. */
static bool random_skip(struct sequence *s)
{
    uint8_t jump[2] = {(uint8_t)(0x70 | diff_below(&s->r, 16)), 0};
    if (diff_below(&s->r, 8) == 0)
        jump[0] = 0xeb;
    append(s, jump, 2);
    if (s->full)
        return false;
    unsigned at = s->c->size;
    unsigned n = 1 + diff_below(&s->r, 3);
    for (unsigned i = 0; i < n; i++)
        if (!random_instruction(s))
            break;
    if (s->c->size - at > 127)
        return false;
    s->c->code[at - 1] = (uint8_t)(s->c->size - at);
    /* On the other way what was set there is not. */
    memset(s->known, 0, sizeof(s->known));
    return true;
}

/* A call of a few instructions, directly or through a register, and a jump over them. */
static bool random_call(struct sequence *s)
{
    uint8_t jump[2] = {0xeb, 0}, ret = 0xc3;
    unsigned reg = diff_below(&s->r, 8), n = 0, target;
    bool indirect = s->c->bits == 64 && diff_below(&s->r, 2) && reg != 4;

    set_register(s, 4, DIFF_STACK + 0x600 + diff_below(&s->r, 0x400));
    if (indirect) { /* lea reg, [rip + 4]; call reg; jmp */
        uint8_t lea[7] = {0x48, 0x8d, (uint8_t)(0x05 | reg << 3), 4, 0, 0, 0};
        uint8_t call[2] = {0xff, (uint8_t)(0xd0 | reg)};
        append(s, lea, sizeof(lea));
        append(s, call, sizeof(call));
    } else {
        uint8_t call[6] = {0xe8, 2, 0, 0, 0};
        append(s, call, s->c->bits == 16 ? 3 : 5);
    }
    append(s, jump, sizeof(jump));
    target = s->c->size;
    memset(s->known, 0, sizeof(s->known));
    for (unsigned i = 1 + diff_below(&s->r, 3); i > 0; i--) {
        s->known[4] = true; /* RSP is where the return address is: leave it alone */
        s->value[4] = 0xdead;
        unsigned insns = s->c->insns, size = s->c->size;
        if (!random_instruction(s))
            return false;
        if (!s->known[4] || s->value[4] != 0xdead) {
            s->c->insns = insns;
            s->c->size = size;
        }
    }
    append(s, &ret, 1);
    n = s->c->size - target;
    if (s->full || n > 127)
        return false;
    s->c->code[target - 1] = (uint8_t)n;
    memset(s->known, 0, sizeof(s->known));
    return true;
}

/* A few instructions, repeated with a counter that they leave alone. */
static bool random_loop(struct sequence *s)
{
    unsigned counter = s->c->bits == 64 ? 8 + diff_below(&s->r, 8) : 7;
    uint8_t set[6], dec[3], jump[2];
    unsigned n = 0;
    if (s->c->bits != 32)
        set[n++] = s->c->bits == 64 ? 0x41 : 0x66;
    set[n++] = (uint8_t)(0xb8 | (counter & 7));
    uint32_t times = 1 + diff_below(&s->r, 6);
    memcpy(set + n, &times, 4);
    append(s, set, n + 4);
    s->known[counter] = false;

    unsigned at = s->c->size;
    memset(s->known, 0, sizeof(s->known));
    for (unsigned i = 1 + diff_below(&s->r, 4); i > 0; i--) {
        unsigned insns = s->c->insns, size = s->c->size;
        s->known[counter] = true;
        s->value[counter] = 0xdead;
        if (!random_instruction(s))
            return false;
        if (!s->known[counter] || s->value[counter] != 0xdead) { /* it used the counter */
            s->c->insns = insns;
            s->c->size = size;
            memset(s->known, 0, sizeof(s->known));
        }
    }
    n = 0;
    if (s->c->bits != 32)
        dec[n++] = s->c->bits == 64 ? 0x41 : 0x66;
    dec[n++] = 0xff;
    dec[n++] = (uint8_t)(0xc8 | (counter & 7));
    append(s, dec, n);
    if (s->full || s->c->size + 2 - at > 128)
        return false;
    jump[0] = 0x75;
    jump[1] = (uint8_t)(at - s->c->size - 2);
    append(s, jump, 2);
    memset(s->known, 0, sizeof(s->known));
    return !s->full;
}

/* A loop that rewrites an immediate of its own, of an instruction before or behind the store. */
static bool random_rewrite(struct sequence *s)
{
    unsigned counter = 8 + diff_below(&s->r, 8), reg = diff_below(&s->r, 8);
    uint8_t set[6] = {0x41, (uint8_t)(0xb8 | (counter & 7)),
                      (uint8_t)(2 + diff_below(&s->r, diff_below(&s->r, 4) ? 4 : 24))};
    uint8_t target[5] = {(uint8_t)(0xb8 | reg), 1, 2, 3, 4};
    uint8_t store[7] = {0xc6, 0x05, 0, 0, 0, 0, (uint8_t)diff_random(&s->r)};
    uint8_t dec[3] = {0x41, 0xff, (uint8_t)(0xc8 | (counter & 7))}, jump[2] = {0x75, 0};
    bool first = diff_below(&s->r, 2); /* the target before the store */
    unsigned at_target = 0, at_store = 0;

    if (s->c->bits != 64 || reg == 4)
        return random_instruction(s);
    append(s, set, sizeof(set));
    unsigned begin = s->c->size;
    memset(s->known, 0, sizeof(s->known));
    for (unsigned part = 0; part < 2; part++) {
        if ((part == 0) == first) {
            at_target = s->c->size;
            append(s, target, sizeof(target));
        } else {
            at_store = s->c->size;
            append(s, store, sizeof(store));
        }
        s->known[reg] = false;
        unsigned insns = s->c->insns, size = s->c->size;
        s->known[counter] = true;
        s->value[counter] = 0xdead;
        if (diff_below(&s->r, 2) && !random_instruction(s))
            return false;
        if (!s->known[counter] || s->value[counter] != 0xdead) {
            s->c->insns = insns;
            s->c->size = size;
            memset(s->known, 0, sizeof(s->known));
        }
    }
    append(s, dec, sizeof(dec));
    if (s->full || s->c->size + 2 - begin > 128)
        return false;
    uint32_t rel = at_target + 1 + diff_below(&s->r, 4) - (at_store + (unsigned)sizeof(store));
    memcpy(s->c->code + at_store + 2, &rel, sizeof(rel));
    jump[1] = (uint8_t)(begin - s->c->size - 2);
    append(s, jump, 2);
    memset(s->known, 0, sizeof(s->known));
    return !s->full;
}

/* A jump through a register over something that is not executed. */
static bool random_indirect(struct sequence *s)
{
    unsigned reg = diff_below(&s->r, 8), n = 1 + diff_below(&s->r, 9);
    uint8_t lea[7] = {0x48, 0x8d, (uint8_t)(0x05 | reg << 3), (uint8_t)(2 + n), 0, 0, 0};
    uint8_t jump[2] = {0xff, (uint8_t)(0xe0 | reg)}, junk[9];

    if (s->c->bits != 64 || reg == 4)
        return random_instruction(s);
    memset(junk, 0xcc, sizeof(junk));
    append(s, lea, sizeof(lea));
    append(s, jump, sizeof(jump));
    append(s, junk, n);
    s->known[reg] = false;
    return !s->full;
}

static void random_state(struct diff_case *c, struct diff_random *r)
{
    static const uint64_t edge[] = {0,          1,          ~0ull,      0x7f,
                                    0x80,       0x7fff,     0x8000,     0x7fffffff,
                                    0x80000000, 0xffffffff, 1ull << 63, (1ull << 63) - 1};
    for (unsigned i = 0; i < 16; i++) {
        unsigned how = diff_below(r, 8);
        if (how < 3)
            c->gpr[i] = diff_random(r);
        else if (how < 5)
            c->gpr[i] = edge[diff_below(r, sizeof(edge) / sizeof(edge[0]))];
        else if (how < 6)
            c->gpr[i] = diff_below(r, 128);
        else
            c->gpr[i] = choose_address(r, 16, false, false);
        if (c->bits != 64)
            c->gpr[i] &= 0xffffffffu;
    }
    c->gpr[4] = DIFF_STACK + 0x800;
    c->rflags = diff_random(r) & 0x8d5;
    if (diff_below(r, 8) == 0)
        c->rflags |= 0x400;
    c->fill = diff_below(r, 8);
    diff_fill_xsave(c->xsave, diff_random(r));
}

void diff_generate_init(void)
{
    soft_decoder_init(&decoders[0], 64);
    soft_decoder_init(&decoders[1], 32);
    soft_decoder_init(&decoders[2], 16);
}

/* What does not fit ends the sequence. */
static void add_parts(struct sequence *s, unsigned n, bool program)
{
    for (unsigned i = 0; i < n && !s->full; i++) {
        unsigned how = diff_below(&s->r, 16), insns = s->c->insns, size = s->c->size;
        bool done = how == 0              ? random_skip(s)
                    : how == 1            ? random_loop(s)
                    : how == 2            ? random_call(s)
                    : how == 3            ? random_parked(s)
                    : program && how == 4 ? random_array_loop(s)
                    : program && how < 6  ? random_loop(s)
                    : program && how < 8  ? random_rewrite(s)
                    : program && how < 10 ? random_indirect(s)
                                          : random_instruction(s);
        if (!done) {
            s->c->insns = insns;
            s->c->size = size;
            break;
        }
    }
}

void diff_generate_start(struct diff_case *c, struct diff_random *r, uint64_t seed, unsigned bits,
                         bool based)
{
    for (unsigned i = 0; i < 4; i++)
        diff_random(r);
    c->seed = seed;
    c->bits = bits;
    c->based = based;
    c->size = c->insns = 0;
    c->offset = diff_below(r, 4) ? diff_below(r, 64) : DIFF_PAGE - diff_below(r, 400);
    random_state(c, r);
}

void diff_generate_program(struct diff_case *c, uint64_t seed, unsigned bits, bool based)
{
    struct sequence s = {.c = c, .r = {seed * 0xd1342543de82ef95ull | 1}, .tame = true};

    diff_generate_start(c, &s.r, seed, bits, based);
    c->name = "program";
    add_parts(&s, 10 + diff_below(&s.r, 30), true);
}

void diff_generate(struct diff_case *c, uint64_t seed, unsigned bits, bool based)
{
    struct sequence s = {.c = c, .r = {seed * 0x9e3779b97f4a7c15ull | 1}};

    for (unsigned i = 0; i < 4; i++)
        diff_random(&s.r);
    c->name = "random";
    c->seed = seed;
    c->bits = bits;
    c->based = based;
    c->size = c->insns = 0;
    c->offset = diff_below(&s.r, 4) ? diff_below(&s.r, 64)
                                    : DIFF_PAGE - diff_below(&s.r, 64); /* across the pages */
    random_state(c, &s.r);
    unsigned n = 1 + diff_below(&s.r, 20);
    add_parts(&s, n, false);
}

/* ---- Every encoding ---- */

/* The index is a number in a mixed base: operand form, ModRM.reg, prefix, width, map, opcode. */
#define FORMS 4u
#define PREFIXES 4u /* none, 66, F2, F3 */
#define WIDTHS 2u
#define LENGTHS 3u
#define MAPS 10u /* legacy 1, 0F, 0F38, 0F3A; VEX 1-3; EVEX 1-3 */

const uint64_t diff_enumerate_count = 256ull * MAPS * LENGTHS * WIDTHS * PREFIXES * 8 * FORMS;

bool diff_enumerate(struct diff_case *c, uint64_t index, unsigned bits)
{
    static const uint8_t prefix_bytes[PREFIXES] = {0, 0x66, 0xf2, 0xf3};
    static const uint8_t pp[PREFIXES] = {0, 1, 3, 2};
    struct sequence s = {.c = c, .r = {index * 0x9e3779b97f4a7c15ull | 1}};
    struct instruction in;
    uint64_t i = index;
    unsigned form = i % FORMS;
    unsigned reg = (unsigned)(i /= FORMS) % 8;
    unsigned prefix = (unsigned)(i /= 8) % PREFIXES;
    unsigned width = (unsigned)(i /= PREFIXES) % WIDTHS;
    unsigned length = (unsigned)(i /= WIDTHS) % LENGTHS;
    unsigned map = (unsigned)(i /= LENGTHS) % MAPS;
    unsigned opcode = (unsigned)(i / MAPS);
    unsigned n = 0, rm;

    for (unsigned j = 0; j < 4; j++)
        diff_random(&s.r);
    for (unsigned j = 0; j < 16; j += 8) {
        uint64_t v = diff_random(&s.r);
        memcpy(in.bytes + j, &v, 8);
    }
    rm = diff_below(&s.r, 8);
    if (map < 4) {
        if (length || (bits != 64 && width))
            return false;
        if (prefix)
            in.bytes[n++] = prefix_bytes[prefix];
        if (bits == 64 && (width || diff_below(&s.r, 2)))
            in.bytes[n++] = (uint8_t)(0x40 | width << 3 | diff_below(&s.r, 8));
        if (map)
            in.bytes[n++] = 0x0f;
        if (map > 1)
            in.bytes[n++] = map == 2 ? 0x38 : 0x3a;
    } else if (map < 7) {
        if (length == 2)
            return false;
        uint8_t high = bits != 64 ? 0xe0 : (uint8_t)(diff_below(&s.r, 8) << 5);
        in.bytes[n++] = 0xc4;
        in.bytes[n++] = (uint8_t)(high | (map - 3));
        in.bytes[n++] =
            (uint8_t)(width << 7 | (8 | diff_below(&s.r, 8)) << 3 | length << 2 | pp[prefix]);
        if (diff_below(&s.r, 2))
            in.bytes[n - 1] |= 0x78;
    } else {
        uint8_t high = bits != 64 ? (uint8_t)(0xe0 | diff_below(&s.r, 2) << 4)
                                  : (uint8_t)(diff_below(&s.r, 16) << 4);
        unsigned vvvv = diff_below(&s.r, 2) ? 15 : 8 | diff_below(&s.r, 8);
        in.bytes[n++] = 0x62;
        in.bytes[n++] = (uint8_t)(high | (map - 6));
        in.bytes[n++] = (uint8_t)(width << 7 | vvvv << 3 | 4 | pp[prefix]);
        uint8_t mask = (uint8_t)(diff_below(&s.r, 2) ? 0 : diff_below(&s.r, 8));
        uint8_t z = mask && diff_below(&s.r, 2) ? 0x80 : 0;
        uint8_t b = diff_below(&s.r, 4) ? 0 : 0x10;
        in.bytes[n++] = (uint8_t)(z | length << 5 | b | 8 | mask);
    }
    in.bytes[n++] = (uint8_t)opcode;
    static const uint8_t mods[FORMS] = {0xc0, 0x00, 0x40, 0x80};
    in.bytes[n] = (uint8_t)(mods[form] | reg << 3 | rm);
    if (!decode(&in, bits))
        return false;
    /* The engine finds out by trying that the host lacks it: after the memory's faults. */
    if (form && !known_to_host(&in))
        return false;
    if (!(in.z.attributes & ZYDIS_ATTRIB_HAS_MODRM) && (form || reg))
        return false;
    c->name = "encoding";
    c->seed = index;
    c->bits = bits;
    c->based = bits == 16;
    c->size = c->insns = 0;
    c->offset = diff_below(&s.r, 64);
    random_state(c, &s.r);
    return add_instruction(&s, &in);
}
