/*
 * MOVS, STOS, LODS, SCAS and CMPS, alone and repeated. Forward runs inside a page go at the speed
 * of the host's own string instructions; everything else goes element by element. After each step
 * the registers say how far it came, so that a fault or an interrupt can restart it (SDM volume 1,
 * section 7.3.9). Built without vector instructions.
 */
#include <Zydis/Zydis.h>

#include "engine/soft/exec.h"
#include "engine/soft/system.h"

#define BYTES_BETWEEN_POLLS (64u << 10)

enum string_op { STRING_MOVS, STRING_STOS, STRING_LODS, STRING_SCAS, STRING_CMPS };

struct string {
    enum string_op op;
    unsigned size;       /* of an element, bytes */
    unsigned source_seg; /* of DS:rSI, maybe overridden */
    bool uses_source, uses_dest, dest_is_read;
    bool repeats;
    bool stops_on_zf; /* SCAS, CMPS */
    bool stop_zf;     /* with this ZF */
    int64_t step;     /* +size or -size */
    uint64_t mask;    /* of the address size */
};

static bool describe(const struct soft_cpu *cpu, const struct soft_insn *in, struct string *s)
{
    static const struct {
        uint16_t mnemonic[4];
        enum string_op op;
    } table[] = {
        {{ZYDIS_MNEMONIC_MOVSB, ZYDIS_MNEMONIC_MOVSW, ZYDIS_MNEMONIC_MOVSD, ZYDIS_MNEMONIC_MOVSQ},
         STRING_MOVS},
        {{ZYDIS_MNEMONIC_STOSB, ZYDIS_MNEMONIC_STOSW, ZYDIS_MNEMONIC_STOSD, ZYDIS_MNEMONIC_STOSQ},
         STRING_STOS},
        {{ZYDIS_MNEMONIC_LODSB, ZYDIS_MNEMONIC_LODSW, ZYDIS_MNEMONIC_LODSD, ZYDIS_MNEMONIC_LODSQ},
         STRING_LODS},
        {{ZYDIS_MNEMONIC_SCASB, ZYDIS_MNEMONIC_SCASW, ZYDIS_MNEMONIC_SCASD, ZYDIS_MNEMONIC_SCASQ},
         STRING_SCAS},
        {{ZYDIS_MNEMONIC_CMPSB, ZYDIS_MNEMONIC_CMPSW, ZYDIS_MNEMONIC_CMPSD, ZYDIS_MNEMONIC_CMPSQ},
         STRING_CMPS},
    };
    s->size = 0;
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        for (unsigned j = 0; j < 4; j++)
            if (table[i].mnemonic[j] == in->mnemonic) {
                s->op = table[i].op;
                s->size = 1u << j;
            }
    if (!s->size)
        return false;
    s->uses_source = s->op == STRING_MOVS || s->op == STRING_LODS || s->op == STRING_CMPS;
    s->uses_dest = s->op != STRING_LODS;
    s->dest_is_read = s->op == STRING_SCAS || s->op == STRING_CMPS;
    s->repeats = in->prefixes & (SOFT_PREFIX_REP | SOFT_PREFIX_REPNE);
    s->stops_on_zf = s->repeats && s->dest_is_read;
    s->stop_zf = in->prefixes & SOFT_PREFIX_REPNE;
    s->step = cpu->s.rflags & SOFT_DF ? -(int64_t)s->size : (int64_t)s->size;
    s->mask = soft_size_mask(in->address_size);
    s->source_seg = MULL_DS;
    for (unsigned i = 0; i < in->operands; i++)
        if (in->op[i].kind == SOFT_OP_MEM && in->op[i].base == MULL_RSI)
            s->source_seg = in->op[i].seg;
    return true;
}

/* Add to a counter or index register, as wide as an address. */
static void advance(struct soft_cpu *cpu, const struct string *s, unsigned reg, int64_t by)
{
    uint64_t old = cpu->s.gpr[reg], value = (old + (uint64_t)by) & s->mask;
    cpu->s.gpr[reg] = s->mask == 0xffff ? (old & ~s->mask) | value : value;
}

static void advance_all(struct soft_cpu *cpu, const struct string *s, uint64_t elements)
{
    if (s->uses_source)
        advance(cpu, s, MULL_RSI, s->step * (int64_t)elements);
    if (s->uses_dest)
        advance(cpu, s, MULL_RDI, s->step * (int64_t)elements);
    if (s->repeats)
        advance(cpu, s, MULL_RCX, -(int64_t)elements);
}

/* The flags of CMP @a, @b. Without PUSHF: the compiler may use the red zone. */
static void set_compare_flags(struct soft_cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    unsigned shift = 64 - size * 8;
    uint64_t ah;
    uint8_t overflow, adjust = (uint8_t)((a ^ b ^ (a - b)) & SOFT_AF);
    /* Shifted to the top, CF, ZF, SF and OF come out as for the narrow operands. */
    __asm__("cmp %3, %2\n\tlahf\n\tseto %1"
            : "=&a"(ah), "=q"(overflow)
            : "r"(a << shift), "r"(b << shift)
            : "cc");
    uint64_t f = ah >> 8 & (SOFT_CF | SOFT_ZF | SOFT_SF);
    f |= adjust | (overflow ? SOFT_OF : 0);
    if (!__builtin_parity((unsigned)(a - b) & 0xff))
        f |= SOFT_PF;
    cpu->s.rflags = (cpu->s.rflags & ~SOFT_ARITH_FLAGS) | f;
}

/* ---- One element ---- */

static enum soft_result load(struct soft_cpu *cpu, const struct string *s, unsigned seg,
                             unsigned reg, uint64_t *value)
{
    uint64_t va;
    *value = 0;
    enum soft_result r = soft_linear(cpu, seg, cpu->s.gpr[reg] & s->mask, s->size, SOFT_READ, &va);
    return r ? r : soft_read(cpu, va, value, s->size, SOFT_READ);
}

static enum soft_result store(struct soft_cpu *cpu, const struct string *s, uint64_t value)
{
    uint64_t va;
    enum soft_result r =
        soft_linear(cpu, MULL_ES, cpu->s.gpr[MULL_RDI] & s->mask, s->size, SOFT_WRITE, &va);
    return r ? r : soft_write(cpu, va, &value, s->size, SOFT_WRITE);
}

static void load_accumulator(struct soft_cpu *cpu, const struct string *s, uint64_t value)
{
    uint64_t mask = soft_size_mask(s->size);
    if (s->size >= 4)
        cpu->s.gpr[MULL_RAX] = value;
    else
        cpu->s.gpr[MULL_RAX] = (cpu->s.gpr[MULL_RAX] & ~mask) | value;
}

static enum soft_result one(struct soft_cpu *cpu, const struct string *s)
{
    uint64_t source, dest, accumulator = cpu->s.gpr[MULL_RAX] & soft_size_mask(s->size);
    enum soft_result r = SOFT_NEXT;

    if (s->uses_source)
        r = load(cpu, s, s->source_seg, MULL_RSI, &source);
    if (!r && s->dest_is_read)
        r = load(cpu, s, MULL_ES, MULL_RDI, &dest);
    if (r)
        return r;
    switch (s->op) {
    case STRING_MOVS:
        r = store(cpu, s, source);
        break;
    case STRING_STOS:
        r = store(cpu, s, accumulator);
        break;
    case STRING_LODS:
        load_accumulator(cpu, s, source);
        break;
    case STRING_SCAS:
        set_compare_flags(cpu, accumulator, dest, s->size);
        break;
    case STRING_CMPS:
        set_compare_flags(cpu, source, dest, s->size);
        break;
    }
    if (!r)
        advance_all(cpu, s, 1);
    return r;
}

/* ---- Runs ---- */

/* How many elements from the offset in @reg on lie in one page, and where is that on the host?
 * 0: not even one, or not plain RAM. */
static uint64_t run_at(struct soft_cpu *cpu, const struct string *s, unsigned seg, unsigned reg,
                       unsigned access, uint64_t limit, uint8_t **host)
{
    uint64_t offset = cpu->s.gpr[reg] & s->mask, va;
    struct soft_fault saved = cpu->fault;
    if (soft_linear(cpu, seg, offset, s->size, access, &va)) {
        cpu->fault = saved; /* one() will meet it again */
        return 0;
    }
    uint64_t bytes = MULL_PAGE_SIZE - (va & ~MULL_PAGE_MASK);
    if (bytes > limit)
        bytes = limit;
    if (s->mask - offset < bytes - 1)
        bytes = s->mask - offset + 1;
    const struct mull_segment *at = &cpu->s.seg[seg];
    bool down = (at->attr & (SOFT_TYPE_CODE | SOFT_TYPE_DOWN)) == SOFT_TYPE_DOWN;
    if (!(cpu->mode & SOFT_MODE_CODE64) && (down || at->limit - offset < bytes - 1))
        bytes = s->size;
    bytes -= bytes % s->size;
    if (!bytes)
        return 0;
    *host = soft_direct(cpu, va, (unsigned)bytes, access);
    return *host ? bytes / s->size : 0;
}

static void move(uint8_t *to, const uint8_t *from, uint64_t n, unsigned size)
{
    /* An overlapping copy repeats what it just wrote, element by element: keep the size. */
    if (to <= from || to >= from + n * size) {
        n *= size;
        size = 1;
    }
    switch (size) {
    case 1:
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    }
}

static void fill(uint8_t *to, uint64_t value, uint64_t n, unsigned size)
{
    switch (size) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(value) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(value) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(value) : "memory");
        break;
    }
}

/* Guest memory at any alignment, in one access. */
struct __attribute__((packed, may_alias)) word16 {
    volatile uint16_t value;
};
struct __attribute__((packed, may_alias)) word32 {
    volatile uint32_t value;
};
struct __attribute__((packed, may_alias)) word64 {
    volatile uint64_t value;
};

static uint64_t element(const uint8_t *at, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile uint8_t *)at;
    case 2:
        return ((const struct word16 *)at)->value;
    case 4:
        return ((const struct word32 *)at)->value;
    default:
        return ((const struct word64 *)at)->value;
    }
}

/* Compare up to @n elements; stop after the first with the ZF that ends the loop. */
static uint64_t compare(struct soft_cpu *cpu, const struct string *s, const uint8_t *source,
                        const uint8_t *dest, uint64_t n)
{
    uint64_t a = cpu->s.gpr[MULL_RAX] & soft_size_mask(s->size), b = 0, i = 0;
    while (i < n) {
        if (source)
            a = element(source + i * s->size, s->size);
        b = element(dest + i * s->size, s->size);
        i++;
        if ((a == b) == s->stop_zf)
            break;
    }
    set_compare_flags(cpu, a, b, s->size);
    return i;
}

/* A run of elements at once. @return how many were done; 0: do one by one. */
static uint64_t many(struct soft_cpu *cpu, const struct string *s, uint64_t count)
{
    uint8_t *source = NULL, *dest = NULL;
    uint64_t n = count, limit = MULL_PAGE_SIZE;

    if (s->step < 0 || s->op == STRING_LODS || count < 2)
        return 0;
    if (count < limit / s->size)
        limit = count * s->size;
    if (s->uses_source) {
        n = run_at(cpu, s, s->source_seg, MULL_RSI, SOFT_READ, limit, &source);
        if (!n)
            return 0;
        limit = n * s->size;
    }
    n = run_at(cpu, s, MULL_ES, MULL_RDI, s->dest_is_read ? SOFT_READ : SOFT_WRITE, limit, &dest);
    if (!n)
        return 0;
    switch (s->op) {
    case STRING_MOVS:
        move(dest, source, n, s->size);
        break;
    case STRING_STOS:
        fill(dest, cpu->s.gpr[MULL_RAX], n, s->size);
        break;
    default:
        n = compare(cpu, s, source, dest, n);
        break;
    }
    advance_all(cpu, s, n);
    return n;
}

static bool ended_by_flag(const struct soft_cpu *cpu, const struct string *s)
{
    return s->stops_on_zf && !!(cpu->s.rflags & SOFT_ZF) == s->stop_zf;
}

static enum soft_result repeat(struct soft_cpu *cpu, const struct soft_insn *in,
                               const struct string *s)
{
    bool single_step = cpu->s.rflags & SOFT_TF;
    uint64_t bytes = 0;

    for (;;) {
        uint64_t count = cpu->s.gpr[MULL_RCX] & s->mask;
        if (!count)
            return soft_done(cpu, in);
        uint64_t n = single_step ? 0 : many(cpu, s, count);
        if (!n) {
            enum soft_result r = one(cpu, s);
            if (r)
                return r;
            n = 1;
        }
        count -= n;
        if (!count || ended_by_flag(cpu, s))
            return soft_done(cpu, in);
        if (single_step || cpu->debug_hits || cpu->debug_stop)
            return SOFT_JUMP;
        bytes += n * s->size;
        if (bytes >= BYTES_BETWEEN_POLLS) {
            if (!*(volatile uint64_t *)&cpu->run_ok)
                return SOFT_JUMP;
            bytes = 0;
        }
    }
}

enum soft_result soft_exec_string(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct string s;
    if (!describe(cpu, in, &s))
        return soft_raise(cpu, SOFT_UD);
    if (s.repeats)
        return repeat(cpu, in, &s);
    enum soft_result r = one(cpu, &s);
    return r ? r : soft_done(cpu, in);
}
