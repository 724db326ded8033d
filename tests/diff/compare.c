/*
 * Compares two ends of a case. What the architecture leaves undefined is left out: flags that the
 * last writer left undefined, the x87's last-instruction pointers.
 */
#include <Zydis/Zydis.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "diff.h"
#include "engine/soft/decode.h"

#define ARITH 0x8d5u
#define DF 0x400u

static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

struct report {
    bool verbose;
    bool equal;
};

__attribute__((format(printf, 2, 3))) static void differ(struct report *r, const char *fmt, ...)
{
    va_list args;
    r->equal = false;
    if (!r->verbose)
        return;
    va_start(args, fmt);
    printf("  ");
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
}

static void differ_bytes(struct report *r, const char *what, const uint8_t *native,
                         const uint8_t *soft, unsigned size)
{
    char a[200], b[200];
    unsigned n = 0;
    if (!memcmp(native, soft, size))
        return;
    for (unsigned i = size; i-- > 0 && n < 180;) {
        snprintf(a + n, 3, "%02x", native[i]);
        snprintf(b + n, 3, "%02x", soft[i]);
        n += 2;
    }
    differ(r, "%-6s native %s", what, a);
    differ(r, "%-6s soft   %s", "", b);
}

/* ---- Undefined flags ---- */

/* Follow @undefined through the code to its end at offset @stop. @return false: an instruction
 * depends on a flag that is undefined, so that everything is. */
static bool follow_flags(const struct diff_case *c, uint64_t stop, uint32_t *undefined,
                         bool *straight)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

    uint32_t tainted = 0;

    soft_decoder_init(&decoder, c->bits);
    for (unsigned at = 0; at < c->size && at != stop; at += z.length) {
        if (ZYAN_FAILED(soft_zydis_decode(&decoder, c->code + at, c->size - at, &z, ops)))
            break;
        *straight = *straight && z.meta.branch_type == ZYDIS_BRANCH_TYPE_NONE;
        if (!z.cpu_flags)
            continue;
        const ZydisAccessedFlags *f = z.cpu_flags;
        tainted |= f->tested & *undefined;
        /* A count of zero leaves them as they were; so does what is jumped over. */
        if (*straight && z.meta.category != ZYDIS_CATEGORY_SHIFT &&
            z.meta.category != ZYDIS_CATEGORY_ROTATE)
            *undefined &= ~(f->modified | f->set_0 | f->set_1);
        *undefined |= f->undefined & ARITH;
    }
    return !tainted;
}

/* Flags that the code leaves undefined where it ends. @return as follow_flags */
static bool undefined_flags(const struct diff_case *c, const struct diff_result *end,
                            uint32_t *undefined)
{
    uint64_t stop =
        end->vector == 3 ? c->size : end->rip + diff_code_base(c) - DIFF_CODE - c->offset;
    bool straight = true;

    *undefined = 0;
    follow_flags(c, c->size, undefined, &straight);
    if (straight) {
        *undefined = 0;
        return follow_flags(c, stop, undefined, &straight);
    }
    /* With a loop the end comes before the beginning. */
    return follow_flags(c, c->size, undefined, &straight) &&
           follow_flags(c, c->size, undefined, &straight);
}

/* ---- Vector state ---- */

static const uint8_t *component(const uint8_t *xsave, unsigned number, unsigned offset,
                                unsigned size)
{
    static const uint8_t zeros[1024];
    uint64_t bv;
    (void)size;
    memcpy(&bv, xsave + 512, 8);
    return bv >> number & 1 ? xsave + offset : zeros;
}

static void legacy(const uint8_t *xsave, uint8_t out[160])
{
    uint64_t bv;
    memcpy(&bv, xsave + 512, 8);
    memset(out, 0, 160);
    if (bv & 1) {
        memcpy(out, xsave, 5); /* FCW, FSW, FTW; not FOP, FIP, FDP */
        for (unsigned i = 0; i < 8; i++)
            memcpy(out + 32 + 16 * i, xsave + 32 + 16 * i, 10);
    } else {
        out[0] = 0x7f;
        out[1] = 0x03;
    }
    memcpy(out + 24, xsave + 24, 4); /* MXCSR: whatever the header says */
}

static void name_register(char name[16], const char *before, unsigned number, const char *after)
{
    char *p = name;
    while (*before)
        *p++ = *before++;
    if (number >= 10)
        *p++ = (char)('0' + number / 10);
    *p++ = (char)('0' + number % 10);
    while (*after)
        *p++ = *after++;
    *p = 0;
}

static void compare_vectors(struct report *r, const uint8_t *native, const uint8_t *soft)
{
    uint8_t a[160], b[160];
    char name[16];
    if (!r->verbose && !memcmp(native, soft, DIFF_XSAVE))
        return;
    unsigned avx = diff_xsave_offset(2), mask = diff_xsave_offset(5);
    unsigned zmm_high = diff_xsave_offset(6), zmm = diff_xsave_offset(7);

    legacy(native, a);
    legacy(soft, b);
    differ_bytes(r, "fcw", a, b, 2);
    differ_bytes(r, "fsw", a + 2, b + 2, 2);
    differ_bytes(r, "ftw", a + 4, b + 4, 1);
    differ_bytes(r, "mxcsr", a + 24, b + 24, 4);
    for (unsigned i = 0; i < 8; i++) {
        name_register(name, "st", i, "");
        differ_bytes(r, name, a + 32 + 16 * i, b + 32 + 16 * i, 10);
    }
    const uint8_t *xa = component(native, 1, 160, 256), *xb = component(soft, 1, 160, 256);
    for (unsigned i = 0; i < 16; i++) {
        name_register(name, "xmm", i, "");
        differ_bytes(r, name, xa + 16 * i, xb + 16 * i, 16);
    }
    if (avx) {
        xa = component(native, 2, avx, 256), xb = component(soft, 2, avx, 256);
        for (unsigned i = 0; i < 16; i++) {
            name_register(name, "ymm", i, "h");
            differ_bytes(r, name, xa + 16 * i, xb + 16 * i, 16);
        }
    }
    if (mask) {
        xa = component(native, 5, mask, 64), xb = component(soft, 5, mask, 64);
        for (unsigned i = 0; i < 8; i++) {
            name_register(name, "k", i, "");
            differ_bytes(r, name, xa + 8 * i, xb + 8 * i, 8);
        }
        xa = component(native, 6, zmm_high, 512), xb = component(soft, 6, zmm_high, 512);
        for (unsigned i = 0; i < 16; i++) {
            name_register(name, "zmm", i, "h");
            differ_bytes(r, name, xa + 32 * i, xb + 32 * i, 32);
        }
        xa = component(native, 7, zmm, 1024), xb = component(soft, 7, zmm, 1024);
        for (unsigned i = 0; i < 16; i++) {
            name_register(name, "zmm", i + 16, "");
            differ_bytes(r, name, xa + 64 * i, xb + 64 * i, 64);
        }
    }
}

/* ---- The rest ---- */

static void compare_memory(struct report *r, const struct diff_result *native,
                           const struct diff_result *soft)
{
    if (!memcmp(native->memory, soft->memory, sizeof(native->memory)))
        return;
    unsigned shown = 0;
    for (size_t i = 0; i < sizeof(native->memory) && shown < 8; i += 8) {
        uint64_t a, b;
        memcpy(&a, native->memory + i, 8);
        memcpy(&b, soft->memory + i, 8);
        if (a == b)
            continue;
        uint64_t at = diff_page_address((unsigned)(i / DIFF_PAGE)) + i % DIFF_PAGE;
        differ(r, "[%#llx] native %016llx soft %016llx", (unsigned long long)at,
               (unsigned long long)a, (unsigned long long)b);
        shown++;
    }
}

static void compare_fault(struct report *r, const struct diff_result *native,
                          const struct diff_result *soft)
{
    if (native->vector != soft->vector) {
        differ(r, "vector native %d soft %d", native->vector, soft->vector);
        return;
    }
    if (native->vector == 14) {
        uint32_t mask = 0x17;
        /* The host's kernel claims that its own addresses are all present; and what was a user's
         * access there may run in the kernel here. */
        if (native->cr2 >= 0x7ffffffff000ull)
            mask &= ~1u;
        mask &= ~4u;
        if ((native->error ^ soft->error) & mask)
            differ(r, "error  native %#x soft %#x", native->error, soft->error);
        if (native->cr2 != soft->cr2)
            differ(r, "cr2    native %#llx soft %#llx", (unsigned long long)native->cr2,
                   (unsigned long long)soft->cr2);
    } else if (native->vector != 3 && native->error != soft->error) {
        differ(r, "error  native %#x soft %#x", native->error, soft->error);
    }
}

static bool compare_all(const struct diff_case *c, enum diff_tier tier,
                        const struct diff_result *native, const struct diff_result *soft,
                        uint32_t undefined, bool verbose)
{
    struct report r = {.verbose = verbose, .equal = true};
    uint32_t flags = (uint32_t)(native->rflags ^ soft->rflags) & (ARITH | DF) & ~undefined;
    unsigned gprs = c->bits == 64 ? 16 : 8;
    uint64_t gpr_mask = c->bits == 64 ? ~0ull : 0xffffffffull;
    uint64_t begin = DIFF_CODE + c->offset - diff_code_base(c);

    compare_fault(&r, native, soft);
    /* The translator reports a branch to an address that is not canonical there, and not at the
     * branch, when RSP has moved and CALL has pushed. */
    if (tier == DIFF_TRANSLATE && native->vector == 13 && r.equal &&
        (uint64_t)((int64_t)(soft->rip << 16) >> 16) != soft->rip)
        return true;
    if (native->rip != soft->rip)
        differ(&r, "rip    native code+%#llx soft code+%#llx",
               (unsigned long long)(native->rip - begin), (unsigned long long)(soft->rip - begin));
    for (unsigned i = 0; i < gprs; i++)
        if ((native->gpr[i] ^ soft->gpr[i]) & gpr_mask)
            differ(&r, "%-6s native %016llx soft %016llx", gpr_names[i],
                   (unsigned long long)native->gpr[i], (unsigned long long)soft->gpr[i]);
    /* The translator drops flags that are overwritten before they are used; a fault in between
     * shows that, but nothing can come of it. */
    if (tier == DIFF_TRANSLATE && native->vector != 3)
        flags &= DF;
    if (flags)
        differ(&r, "flags  native %03llx soft %03llx", (unsigned long long)native->rflags & 0xfff,
               (unsigned long long)soft->rflags & 0xfff);
    compare_vectors(&r, native->xsave, soft->xsave);
    compare_memory(&r, native, soft);
    return r.equal;
}

bool diff_compare(const struct diff_case *c, enum diff_tier tier, const struct diff_result *native,
                  const struct diff_result *soft, bool verbose)
{
    uint32_t undefined = 0;
    if (compare_all(c, tier, native, soft, 0, false))
        return true;
    if (!undefined_flags(c, native, &undefined))
        return true;
    return compare_all(c, tier, native, soft, undefined, verbose);
}

void diff_print_case(const struct diff_case *c)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    char text[128];

    soft_decoder_init(&decoder, c->bits);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    printf("  %u-bit code at %#llx, memory pattern %u, flags %03llx\n", c->bits,
           (unsigned long long)(DIFF_CODE + c->offset), c->fill, (unsigned long long)c->rflags);
    for (unsigned i = 0; i < 16; i++)
        printf("  %-3s %016llx%s", gpr_names[i], (unsigned long long)c->gpr[i],
               i % 4 == 3 ? "\n" : "");
    for (unsigned at = 0; at < c->size; at += z.length) {
        if (ZYAN_FAILED(soft_zydis_decode(&decoder, c->code + at, c->size - at, &z, ops))) {
            printf("  +%-4x ??\n", at);
            break;
        }
        if (z.mnemonic == ZYDIS_MNEMONIC_NOP && z.length == 1)
            continue;
        printf("  +%-4x ", at);
        for (unsigned i = 0; i < 15; i++)
            if (i < z.length)
                printf("%02x", c->code[at + i]);
            else
                printf("  ");
        ZydisFormatterFormatInstruction(&formatter, &z, ops, z.operand_count_visible, text,
                                        sizeof(text), DIFF_CODE + c->offset + at, NULL);
        printf(" %s\n", text);
    }
}
