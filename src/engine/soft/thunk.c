/*
 * Makes and runs thunks. The instruction is copied byte for byte; only its memory operand becomes
 * [reg], RSP as an operand becomes a free register, and prefixes that have no meaning any more go.
 * Code that means something else in 64-bit mode (INC 40-4F) is replaced by its long form. Built
 * without vector instructions: the guest's vector state stays in the registers.
 */
#include "engine/soft/thunk.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <ucontext.h>

#include "engine/soft/exec.h"

#define GPR_OFFSET ((unsigned)offsetof(struct mull_cpu_state, gpr))
#define RFLAGS_OFFSET ((unsigned)offsetof(struct mull_cpu_state, rflags))
_Static_assert(offsetof(struct mull_cpu_state, rflags) > 127 &&
                   offsetof(struct mull_cpu_state, rflags) < 256,
               "RFLAGS is reached with a 32-bit displacement");

#define THUNK_MAX 512 /* more than the longest thunk: 16 loads, 16 stores, flags, 15 bytes */

/* ---- Entering and leaving ---- */

/* soft_thunk_enter(state, memory, code, &rsp): 0, or 1 + the number of the host's fault. The code
 * may use every general register but RSP. */
uint64_t soft_thunk_enter(void *state, void *memory, const void *code, uint64_t *rsp);
extern const char soft_thunk_recover[];

__asm__(".text\n"
        ".p2align 4\n"
        ".globl soft_thunk_enter\n"
        ".hidden soft_thunk_enter\n"
        ".type soft_thunk_enter, @function\n"
        "soft_thunk_enter:\n"
        "    push %rbx\n"
        "    push %rbp\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rcx)\n"
        "    call *%rdx\n"
        "    xor %eax, %eax\n"
        ".globl soft_thunk_recover\n"
        ".hidden soft_thunk_recover\n"
        "soft_thunk_recover:\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbp\n"
        "    pop %rbx\n"
        "    ret\n"
        ".size soft_thunk_enter, . - soft_thunk_enter\n");

bool soft_thunk_signal(struct soft_cpu *cpu, int signo, void *ucontext)
{
    struct soft_thunks *t = cpu->thunks;
    ucontext_t *uc = ucontext;
    greg_t *regs = uc->uc_mcontext.gregs;

    if (!t || !t->active)
        return false;
    uint64_t at = (uint64_t)regs[REG_RIP] - (uint64_t)(uintptr_t)t->code;
    if (at >= SOFT_THUNK_CODE_SIZE)
        return false;
    regs[REG_RIP] = (greg_t)(uintptr_t)soft_thunk_recover;
    regs[REG_RSP] = (greg_t)t->rsp;
    regs[REG_RAX] = regs[REG_TRAPNO] + 1;
    regs[REG_EFL] &= ~(greg_t)(SOFT_DF | SOFT_TF);
    return true;
}

/* ---- Emitting ---- */

struct emitter {
    uint8_t *p;
    unsigned n;
};

static void put(struct emitter *e, uint8_t byte)
{
    e->p[e->n++] = byte;
}

static void put32(struct emitter *e, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        put(e, (uint8_t)(value >> (i * 8)));
}

/* MOV r64, r64 */
static void put_move(struct emitter *e, unsigned to, unsigned from)
{
    put(e, (uint8_t)(0x48 | (from >> 3) << 2 | to >> 3));
    put(e, 0x89);
    put(e, (uint8_t)(0xc0 | (from & 7) << 3 | (to & 7)));
}

/* MOV r64, [base + disp] (8B) or MOV [base + disp], r64 (89); base is R8-R11 or R13-R15. */
static void put_access(struct emitter *e, uint8_t opcode, unsigned reg, unsigned base,
                       unsigned disp)
{
    put(e, (uint8_t)(0x49 | (reg >> 3) << 2));
    put(e, opcode);
    if (disp < 128) {
        put(e, (uint8_t)(0x40 | (reg & 7) << 3 | (base & 7)));
        put(e, (uint8_t)disp);
    } else {
        put(e, (uint8_t)(0x80 | (reg & 7) << 3 | (base & 7)));
        put32(e, disp);
    }
}

/* The registers a thunk uses besides the instruction's own. */
struct plan {
    unsigned state;  /* struct mull_cpu_state */
    unsigned memory; /* the memory operand's address: a low register but RSP and RBP */
    unsigned sp;     /* stands for RSP: a low register */
};

static struct plan make_plan(const struct soft_native *n)
{
    static const uint8_t low[] = {MULL_RSI, MULL_RDI, MULL_RBX, MULL_RAX, MULL_RCX, MULL_RDX};
    static const uint8_t high[] = {MULL_R15, MULL_R14, MULL_R13, MULL_R11,
                                   MULL_R10, MULL_R9,  MULL_R8};
    struct plan plan = {0};
    unsigned used = n->gprs;
    for (unsigned i = 0; i < sizeof(high); i++)
        if (!(used >> high[i] & 1))
            plan.state = high[i];
    for (unsigned i = sizeof(low); i-- > 0;)
        if (!(used >> low[i] & 1))
            plan.memory = low[i];
    plan.sp = MULL_RBP;
    for (unsigned i = sizeof(low); i-- > 0 && (used >> plan.sp & 1);)
        if (!(used >> low[i] & 1) && low[i] != plan.memory)
            plan.sp = low[i];
    return plan;
}

static unsigned host_register(const struct plan *plan, unsigned gpr)
{
    return gpr == MULL_RSP ? plan->sp : gpr;
}

static void put_flags_load(struct emitter *e, const struct plan *plan)
{
    put_access(e, 0x8b, MULL_RAX, plan->state, RFLAGS_OFFSET);
    put(e, 0x25); /* and eax, imm32 */
    put32(e, SOFT_ARITH_FLAGS);
    put(e, 0x50); /* push rax */
    put(e, 0x9d); /* popfq: a user program cannot change IF and IOPL, the rest becomes 0 */
}

static void put_flags_save(struct emitter *e, const struct plan *plan)
{
    put(e, 0x9c); /* pushfq */
    put(e, 0x58); /* pop rax */
    put(e, 0x25); /* and eax, imm32 */
    put32(e, SOFT_ARITH_FLAGS);
    put_access(e, 0x8b, MULL_RCX, plan->state, RFLAGS_OFFSET);
    put(e, 0x81); /* and ecx, imm32; bits 32-63 of RFLAGS are reserved, 0 */
    put(e, 0xe1);
    put32(e, ~(uint32_t)SOFT_ARITH_FLAGS);
    put(e, 0x09); /* or ecx, eax */
    put(e, 0xc1);
    put_access(e, 0x89, MULL_RCX, plan->state, RFLAGS_OFFSET);
}

static void put_vex(struct emitter *e, const struct soft_insn *in, const struct plan *plan)
{
    const struct soft_native *n = &in->native;
    const uint8_t *b = in->bytes + n->opcode;
    bool legacy = in->code_bits != 64;
    unsigned prefix = n->encoding == SOFT_ENC_VEX2 ? 2 : n->encoding == SOFT_ENC_VEX3 ? 3 : 4;
    uint8_t x[4] = {b[0], b[1], b[2], b[3]};
    uint8_t *vvvv = n->encoding == SOFT_ENC_VEX2 ? &x[1] : &x[2];

    if (n->encoding != SOFT_ENC_VEX2) {
        if (n->memory)
            x[1] |= 0x60; /* X and B, inverted */
        if (legacy)
            x[1] |= n->encoding == SOFT_ENC_EVEX ? 0xf0 : 0xe0;
    }
    if (legacy && n->encoding == SOFT_ENC_EVEX)
        x[3] |= 0x08; /* V' */
    if (legacy) {
        *vvvv |= 0x40; /* outside 64-bit mode bit 3 of the register number does not count */
        if (n->narrow && n->encoding != SOFT_ENC_VEX2)
            x[2] &= 0x7f; /* nor does W */
    }
    if (n->sp & SOFT_SP_VVVV)
        *vvvv = (uint8_t)((*vvvv & ~0x78) | (~plan->sp & 15) << 3);
    for (unsigned i = 0; i < prefix; i++)
        put(e, x[i]);
    for (unsigned i = n->opcode + prefix; i < (n->modrm ? n->modrm : n->tail); i++)
        put(e, in->bytes[i]);
}

static void put_legacy(struct emitter *e, const struct soft_insn *in, const struct plan *plan)
{
    const struct soft_native *n = &in->native;
    if (n->keep & SOFT_KEEP_LOCK)
        put(e, 0xf0);
    if (n->keep & SOFT_KEEP_66)
        put(e, 0x66);
    if (n->keep & SOFT_KEEP_F2)
        put(e, 0xf2);
    if (n->keep & SOFT_KEEP_F3)
        put(e, 0xf3);
    if (n->rex)
        put(e, n->memory ? n->rex & ~3 : n->rex);

    unsigned end = n->modrm ? n->modrm : n->tail;
    uint8_t first = in->bytes[n->opcode];
    if (in->code_bits != 64 && (first & 0xf0) == 0x40 && end == n->opcode + 1u) {
        /* INC and DEC of a register: FF /0 and /1 */
        unsigned reg = first & 7;
        put(e, 0xff);
        put(e, (uint8_t)(0xc0 | (first & 8) | (reg == MULL_RSP ? plan->sp : reg)));
        return;
    }
    for (unsigned i = n->opcode; i < end; i++) {
        uint8_t byte = in->bytes[i];
        if (in->code_bits != 64 && byte == 0x82 && i == n->opcode && n->modrm)
            byte = 0x80; /* an alias that 64-bit mode dropped */
        if ((n->sp & SOFT_SP_OPCODE) && i == end - 1)
            byte = (uint8_t)((byte & ~7) | plan->sp);
        put(e, byte);
    }
}

static void put_instruction(struct emitter *e, const struct soft_insn *in, const struct plan *plan)
{
    const struct soft_native *n = &in->native;
    if (n->encoding == SOFT_ENC_LEGACY)
        put_legacy(e, in, plan);
    else
        put_vex(e, in, plan);
    if (n->modrm) {
        uint8_t modrm = in->bytes[n->modrm];
        if (n->sp & SOFT_SP_REG)
            modrm = (uint8_t)((modrm & ~0x38) | plan->sp << 3);
        if (n->memory)
            modrm = (uint8_t)((modrm & 0x38) | plan->memory);
        else if (n->sp & SOFT_SP_RM)
            modrm = (uint8_t)((modrm & ~7) | plan->sp);
        put(e, modrm);
    }
    for (unsigned i = n->tail; i < in->length; i++) {
        uint8_t byte = in->bytes[i];
        if (n->is4 && in->code_bits != 64)
            byte &= 0x7f; /* there are only eight registers */
        put(e, byte);
    }
}

static void put_thunk(struct emitter *e, const struct soft_insn *in)
{
    const struct soft_native *n = &in->native;
    struct plan plan = make_plan(n);

    put_move(e, plan.state, MULL_RDI);
    if (n->memory)
        put_move(e, plan.memory, MULL_RSI);
    if (n->flags & SOFT_FLAGS_LOAD) {
        /* RAX may hold the address */
        if (plan.memory == MULL_RAX)
            put(e, 0x50);
        put_flags_load(e, &plan);
        if (plan.memory == MULL_RAX)
            put(e, 0x58);
    }
    for (unsigned r = 0; r < 16; r++)
        if (n->gprs >> r & 1)
            put_access(e, 0x8b, host_register(&plan, r), plan.state, GPR_OFFSET + r * 8);
    put_instruction(e, in, &plan);
    for (unsigned r = 0; r < 16; r++)
        if (n->gprs >> r & 1)
            put_access(e, 0x89, host_register(&plan, r), plan.state, GPR_OFFSET + r * 8);
    if (n->flags & SOFT_FLAGS_SAVE)
        put_flags_save(e, &plan);
    put(e, 0xc3);
}

/* ---- The cache ---- */

#define MODE_RAW 1u /* key: bytes that are run as they are, with the address in RSI */

static unsigned hash(const uint64_t key[2])
{
    uint64_t h = (key[0] ^ (key[1] << 29 | key[1] >> 35)) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(h >> (64 - SOFT_THUNK_BITS));
}

static void make_key(uint64_t key[2], const uint8_t *bytes, uint8_t mode)
{
    uint64_t lo, hi;
    __builtin_memcpy(&lo, bytes, 8);
    __builtin_memcpy(&hi, bytes + 7, 8);
    key[0] = lo;
    key[1] = hi >> 8 | (uint64_t)mode << 56;
}

static const void *find(struct soft_thunks *t, const uint64_t key[2],
                        struct soft_thunk_entry **entry)
{
    struct soft_thunk_entry *e = &t->entry[hash(key)];
    *entry = e;
    if (e->offset && e->key[0] == key[0] && e->key[1] == key[1])
        return t->code + e->offset - 1;
    return NULL;
}

static struct emitter begin(struct soft_thunks *t)
{
    if (t->used + THUNK_MAX > SOFT_THUNK_CODE_SIZE) {
        for (unsigned i = 0; i < SOFT_THUNK_ENTRIES; i++)
            t->entry[i].offset = 0;
        t->used = 0;
    }
    return (struct emitter){.p = t->write + t->used};
}

static const void *finish(struct soft_thunks *t, const struct emitter *e, const uint64_t key[2],
                          struct soft_thunk_entry *entry)
{
    const void *code = t->code + t->used;
    entry->key[0] = key[0];
    entry->key[1] = key[1];
    entry->offset = t->used + 1;
    t->used = (t->used + e->n + 15) & ~15u;
    return code;
}

static enum soft_result host_fault(struct soft_cpu *cpu, uint64_t trap)
{
    switch (trap) {
    case SOFT_DE:
    case SOFT_UD:
    case SOFT_MF:
        return soft_raise(cpu, (uint8_t)trap);
    case SOFT_XM:
        return soft_raise(cpu, cpu->s.cr4 & SOFT_CR4_OSXMMEXCPT ? SOFT_XM : SOFT_UD);
    case SOFT_SS:
    case SOFT_GP:
        return soft_raise_error(cpu, SOFT_GP, 0);
    default:
        if (cpu->vectors_live)
            soft_vectors_park(cpu);
        mull_fail(&cpu->error, EFAULT,
                  "soft engine: host fault %u in the instruction at guest RIP %#llx; guest memory "
                  "may not be backed by the host any more",
                  (unsigned)trap, (unsigned long long)cpu->s.rip);
        return SOFT_STOP;
    }
}

static enum soft_result run(struct soft_cpu *cpu, const void *code, void *memory)
{
    struct soft_thunks *t = cpu->thunks;
    t->active = true;
    uint64_t fault = soft_thunk_enter(&cpu->s, memory, code, &t->rsp);
    t->active = false;
    return __builtin_expect(fault != 0, 0) ? host_fault(cpu, fault - 1) : SOFT_NEXT;
}

enum soft_result soft_thunk_run(struct soft_cpu *cpu, const struct soft_insn *in, void *memory)
{
    struct soft_thunk_entry *entry;
    uint64_t key[2];

    struct soft_thunks *t = cpu->thunks;
    make_key(key, in->bytes, in->code_bits);
    const void *code = find(t, key, &entry);
    if (__builtin_expect(!code, 0)) {
        struct emitter e = begin(t);
        put_thunk(&e, in);
        code = finish(t, &e, key, entry);
    }
    if (in->native.unit > SOFT_UNIT_VEX_INTEGER && !cpu->vectors_live)
        soft_vectors_load(cpu);
    return run(cpu, code, memory);
}

/* Run @n bytes of host code that only use vector registers and [RSI]. */
static enum soft_result run_raw(struct soft_cpu *cpu, const uint8_t *bytes, unsigned n,
                                void *memory)
{
    struct soft_thunk_entry *entry;
    uint64_t key[2];

    struct soft_thunks *t = cpu->thunks;
    make_key(key, bytes, MODE_RAW);
    const void *code = find(t, key, &entry);
    if (!code) {
        struct emitter e = begin(t);
        for (unsigned i = 0; i < n; i++)
            put(&e, bytes[i]);
        put(&e, 0xc3);
        code = finish(t, &e, key, entry);
    }
    if (!cpu->vectors_live)
        soft_vectors_load(cpu);
    return run(cpu, code, memory);
}

enum soft_result soft_thunk_vector(struct soft_cpu *cpu, bool load, unsigned reg, unsigned bytes,
                                   void *memory)
{
    uint8_t b[16] = {0};
    uint8_t modrm = (uint8_t)((reg & 7) << 3 | MULL_RSI);
    if (bytes == 8) { /* MOVQ mm, [rsi] (0F 6F) or MOVQ [rsi], mm (0F 7F) */
        b[0] = 0x0f;
        b[1] = load ? 0x6f : 0x7f;
        b[2] = modrm;
        return run_raw(cpu, b, 3, memory);
    }
    if (bytes < 64 && reg < 16 && bytes != 16) { /* VMOVDQU ymm */
        b[0] = 0xc5;
        b[1] = reg & 8 ? 0x7e : 0xfe;
        b[2] = load ? 0x6f : 0x7f;
        b[3] = modrm;
        return run_raw(cpu, b, 4, memory);
    }
    if (bytes == 16 && reg < 16) { /* with AVX: VMOVDQU xmm, which clears what is above */
        bool avx = cpu->s.cr4 & SOFT_CR4_OSXSAVE && (cpu->s.xcr0 & 6) == 6;
        if (avx) {
            b[0] = 0xc5;
            b[1] = reg & 8 ? 0x7a : 0xfa;
            b[2] = load ? 0x6f : 0x7f;
            b[3] = modrm;
            return run_raw(cpu, b, 4, memory);
        }
        b[0] = 0xf3; /* MOVDQU */
        b[1] = reg & 8 ? 0x44 : 0x40;
        b[2] = 0x0f;
        b[3] = load ? 0x6f : 0x7f;
        b[4] = modrm;
        return run_raw(cpu, b, 5, memory);
    }
    /* VMOVDQU64: EVEX.vl.F3.0F.W1 6F or 7F */
    b[0] = 0x62;
    b[1] = (uint8_t)(0x61 | (reg & 8 ? 0 : 0x80) | (reg & 16 ? 0 : 0x10));
    b[2] = 0xfe;
    b[3] = bytes == 64 ? 0x48 : bytes == 32 ? 0x28 : 0x08;
    b[4] = load ? 0x6f : 0x7f;
    b[5] = modrm;
    return run_raw(cpu, b, 6, memory);
}

enum soft_result soft_thunk_opmask(struct soft_cpu *cpu, bool load, unsigned reg, unsigned bits,
                                   void *memory)
{
    uint8_t b[16] = {0};
    uint8_t modrm = (uint8_t)((reg & 7) << 3 | MULL_RSI);
    unsigned n = 0;
    if (bits == 64) { /* KMOVQ: VEX.L0.0F.W1 90 or 91 */
        b[n++] = 0xc4;
        b[n++] = 0xe1;
        b[n++] = 0xf8;
    } else { /* KMOVW: VEX.L0.0F.W0 */
        b[n++] = 0xc5;
        b[n++] = 0xf8;
    }
    b[n++] = load ? 0x90 : 0x91;
    b[n++] = modrm;
    return run_raw(cpu, b, n, memory);
}
