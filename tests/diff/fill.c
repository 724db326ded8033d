/*
 * What cases begin with: contents of the memory windows and of the vector registers, chosen so that
 * edge cases come up (small numbers, all ones, denormals, infinities, NaNs).
 */
#include <cpuid.h>
#include <string.h>

#include "diff.h"

#define FILLS 8u

static uint8_t fills[FILLS][DIFF_MEMORY_PAGES * DIFF_PAGE];
static bool filled;

uint64_t diff_random(struct diff_random *r)
{
    /* xorshift64* */
    uint64_t x = r->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    r->state = x;
    return x * 0x2545f4914f6cdd1dull;
}

static uint64_t interesting(struct diff_random *r)
{
    static const uint64_t list[] = {
        0,
        1,
        2,
        ~0ull,
        0x8000000000000000ull,
        0x7fffffffffffffffull,
        0x80000000ull,
        0x7fffffffull,
        0x8000000080000000ull,
        0x8000800080008000ull,
        0x8080808080808080ull,
        0x3ff0000000000000ull, /* 1.0 */
        0xbff0000000000000ull,
        0x4008000000000000ull, /* 3.0 */
        0x3f8000003f800000ull, /* 1.0f, 1.0f */
        0x40400000c0400000ull,
        0x7ff0000000000000ull, /* infinity */
        0x7ff8000000000001ull, /* quiet NaN */
        0x7ff0000000000001ull, /* signalling NaN */
        0x7f8000017fc00001ull,
        0x0000000000000001ull, /* denormal */
        0x0000000100000001ull,
        0x41dfffffffc00000ull, /* 2^31 - 1 */
        0x43e0000000000000ull, /* 2^63 */
        0x3c003c003c003c00ull, /* 1.0 in half precision */
        0x6162630064656600ull, /* text with ends */
        0x20202020202020ull,
    };
    unsigned how = diff_below(r, 8);
    if (how < 4)
        return diff_random(r);
    if (how < 7)
        return list[diff_below(r, sizeof(list) / sizeof(list[0]))];
    return diff_below(r, 64);
}

const uint8_t *diff_fill(unsigned which)
{
    if (!filled) {
        struct diff_random r = {0x123456789abcdefull};
        for (unsigned f = 0; f < FILLS; f++)
            for (size_t i = 0; i < sizeof(fills[f]); i += 8) {
                uint64_t v = interesting(&r);
                memcpy(&fills[f][i], &v, 8);
            }
        filled = true;
    }
    return fills[which % FILLS];
}

/* CPUID is slow where the host is itself a guest: ask once. */
static unsigned layout[8], layout_size;

static void ask_layout(void)
{
    unsigned a, b, c, d, present;
    if (layout_size)
        return;
    layout_size = 576;
    if (!__get_cpuid_count(0xd, 0, &present, &b, &c, &d))
        return;
    layout_size = b < DIFF_XSAVE ? b : DIFF_XSAVE;
    for (unsigned i = 2; i < 8; i++)
        if (present >> i & 1 && __get_cpuid_count(0xd, i, &a, &b, &c, &d))
            layout[i] = b;
}

unsigned diff_xsave_offset(unsigned component)
{
    ask_layout();
    return layout[component];
}

unsigned diff_xsave_size(void)
{
    ask_layout();
    return layout_size;
}

static void fill_words(uint8_t *to, unsigned bytes, struct diff_random *r)
{
    for (unsigned i = 0; i < bytes; i += 8) {
        uint64_t v = interesting(r);
        memcpy(to + i, &v, 8);
    }
}

void diff_fill_xsave(uint8_t *xsave, uint64_t seed)
{
    static const struct {
        unsigned component, size;
    } parts[] = {{2, 256}, {5, 64}, {6, 512}, {7, 1024}};
    struct diff_random r = {seed | 1};
    uint64_t bv = 3;

    memset(xsave, 0, DIFF_XSAVE);
    uint16_t fcw = 0x37f;
    uint32_t mxcsr = 0x1f80;
    if (diff_below(&r, 8) == 0) { /* other rounding and precision */
        static const uint16_t precision[] = {0, 0x200, 0x300};
        fcw = (uint16_t)(0x7f | precision[diff_below(&r, 3)] | diff_below(&r, 4) << 10);
        mxcsr = 0x1f80 | diff_below(&r, 4) << 13 | (diff_below(&r, 4) == 0 ? 0x8040 : 0);
    }
    if (diff_below(&r, 32) == 0)
        mxcsr &= ~(1u << (7 + diff_below(&r, 6)));
    memcpy(xsave, &fcw, 2);
    memcpy(xsave + 24, &mxcsr, 4);
    /* Some x87 registers are empty. */
    unsigned top = diff_below(&r, 8), used = diff_below(&r, 9), tags = 0;
    for (unsigned i = 0; i < used; i++)
        tags |= 1u << ((top + i) & 7);
    uint16_t fsw = (uint16_t)(top << 11 | (diff_below(&r, 16) << 8 & 0x4700));
    memcpy(xsave + 2, &fsw, 2);
    xsave[4] = (uint8_t)tags;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t mantissa = interesting(&r);
        uint16_t exponent =
            (uint16_t)(diff_below(&r, 4) ? 0x3ff0 + diff_below(&r, 32) : diff_random(&r));
        if (diff_below(&r, 8))
            mantissa |= 1ull << 63;
        if (diff_below(&r, 4) == 0)
            exponent |= 0x8000;
        memcpy(xsave + 32 + 16 * i, &mantissa, 8);
        memcpy(xsave + 40 + 16 * i, &exponent, 2);
    }
    fill_words(xsave + 160, 256, &r);
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        unsigned at = diff_xsave_offset(parts[i].component);
        if (!at)
            continue;
        fill_words(xsave + at, parts[i].size, &r);
        bv |= 1ull << parts[i].component;
    }
    /* Opmasks: every other one is a run of ones. */
    unsigned masks = diff_xsave_offset(5);
    for (unsigned k = 0; masks && k < 8; k++) {
        unsigned shift = diff_below(&r, 64);
        uint64_t run = diff_below(&r, 3) ? ~0ull >> shift : ~0ull << shift;
        if (diff_below(&r, 2))
            memcpy(xsave + masks + 8 * k, &run, 8);
    }
    /* Registers 6 and 14: small numbers, for use as indices. */
    unsigned high = diff_xsave_offset(2);
    for (unsigned reg = 6; reg < 16; reg += 8)
        for (unsigned i = 0; i < 4; i++) {
            uint32_t small[2] = {diff_below(&r, 48), i & 1 && diff_below(&r, 2) ? 0u : 0u};
            memcpy(xsave + 160 + 16 * reg + 4 * i, &small[i & 1], 4);
            if (high)
                memcpy(xsave + high + 16 * reg + 4 * i, &small[i & 1], 4);
        }
    memcpy(xsave + 512, &bv, 8);
}
