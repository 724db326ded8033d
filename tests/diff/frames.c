/*
 * Makes cases about stack frames: functions that push, pop, move the stack pointer, reach into
 * their frame and call others, in a loop, on a stack that may end or cross into a page without
 * rights; now and then one divides by zero on the way, changes its return address, or returns with
 * the wrong one on top.
 */
#include <string.h>

#include "diff.h"

struct frames {
    struct diff_case *c;
    struct diff_random r;
    unsigned unit; /* bytes that a push moves */
    bool full;
};

static void put(struct frames *f, const uint8_t *bytes, unsigned n)
{
    struct diff_case *c = f->c;

    if (c->size + n > DIFF_CODE_MAX || c->insns == DIFF_INSNS_MAX) {
        f->full = true;
        return;
    }
    c->start[c->insns++] = (uint16_t)c->size;
    memcpy(c->code + c->size, bytes, n);
    c->size += n;
}

/* The same of an instruction with operands as wide as the stack. */
static void put_wide(struct frames *f, const uint8_t *bytes, unsigned n)
{
    uint8_t wide[16] = {0x48};

    memcpy(wide + 1, bytes, n);
    put(f, f->unit == 8 ? wide : bytes, f->unit == 8 ? n + 1 : n);
}

/* A register that is neither the stack pointer nor the loop's counter, R12 or EDI. */
static uint8_t some_register(struct frames *f)
{
    uint8_t reg = (uint8_t)diff_below(&f->r, f->unit == 8 ? 8 : 7);
    return reg == 4 ? 0 : reg;
}

static void push_or_pop(struct frames *f, uint8_t opcode)
{
    uint8_t bytes[2] = {0x41, (uint8_t)(opcode | diff_below(&f->r, 4))}; /* R8 to R11 */

    if (f->unit == 8 && diff_below(&f->r, 3) == 0) {
        put(f, bytes, 2);
    } else {
        bytes[0] = opcode | some_register(f);
        put(f, bytes, 1);
    }
}

/* An instruction on [rsp + something in the frame of @depth bytes]. @immediate: behind it, -1: none
 */
static void reach(struct frames *f, uint8_t opcode, uint8_t reg, unsigned at, int immediate)
{
    uint8_t bytes[5] = {opcode, (uint8_t)(0x44 | reg << 3), 0x24, (uint8_t)at, (uint8_t)immediate};

    put_wide(f, bytes, immediate < 0 ? 4 : 5);
}

static void move_sp(struct frames *f, int by)
{
    uint8_t add[3] = {0x83, 0xc4, (uint8_t)by}, sub[3] = {0x83, 0xec, (uint8_t)-by};
    uint8_t lea[7] = {0x8d, 0xa4, 0x24};
    int32_t wide = by;

    memcpy(lea + 3, &wide, 4);
    if (diff_below(&f->r, 4) == 0 || by < -127 || by > 127)
        put_wide(f, lea, 7);
    else if (by < 0 && diff_below(&f->r, 2))
        put_wide(f, sub, 3);
    else
        put_wide(f, add, 3);
}

static void compute(struct frames *f)
{
    static const uint8_t opcodes[] = {0x01, 0x11, 0x29, 0x31, 0x39, 0x85, 0x89};
    uint8_t bytes[2] = {opcodes[diff_below(&f->r, sizeof(opcodes))],
                        (uint8_t)(0xc0 | some_register(f) << 3 | some_register(f))};
    uint8_t skip[2] = {(uint8_t)(0x70 | diff_below(&f->r, 16)), f->unit == 8 ? 3 : 2};
    uint8_t divide[2] = {0xf7, (uint8_t)(0xf0 | some_register(f))};

    if (diff_below(&f->r, 10) == 0)
        put_wide(f, divide, 2);
    if (diff_below(&f->r, 3) == 0)
        put(f, skip, 2);
    put_wide(f, bytes, 2);
}

static void call(struct frames *f, unsigned level);

static void step(struct frames *f, unsigned *depth, unsigned level)
{
    const unsigned unit = f->unit, slots = *depth / unit;
    const uint8_t push_sp = 0x54, push_constant[2] = {0x6a, (uint8_t)diff_random(&f->r)};
    unsigned at = slots ? unit * diff_below(&f->r, slots) : 0, by;

    switch (diff_below(&f->r, 14)) {
    case 0:
    case 1:
    case 2:
        push_or_pop(f, 0x50);
        *depth += unit;
        break;
    case 3:
        if (diff_below(&f->r, 2))
            put(f, push_constant, 2);
        else
            put(f, &push_sp, 1);
        *depth += unit;
        break;
    case 4:
    case 5:
        if (slots) {
            push_or_pop(f, 0x58);
            *depth -= unit;
        }
        break;
    case 6:
        by = unit * (1 + diff_below(&f->r, 4));
        move_sp(f, -(int)by);
        *depth += by;
        break;
    case 7:
        move_sp(f, (int)at);
        *depth -= at;
        break;
    case 8:
        if (slots || diff_below(&f->r, 16) == 0) /* else the return address itself */
            reach(f, 0x89, some_register(f), at, -1);
        break;
    case 9:
        reach(f, diff_below(&f->r, 2) ? 0x8b : 0x8d, some_register(f), at, -1);
        break;
    case 10: /* what it returns to is followed by NOPs */
        if (*depth < 120 && diff_below(&f->r, 2))
            reach(f, 0x83, 0, *depth, diff_below(&f->r, 2) ? 0 : (int)diff_below(&f->r, 4));
        break;
    case 11:
        if (level < 2)
            call(f, level + 1);
        break;
    default:
        compute(f);
        break;
    }
}

/* call 1f; nop...; jmp 2f; 1: a function; 2: */
static void call(struct frames *f, unsigned level)
{
    uint8_t call[5] = {0xe8, 9, 0, 0, 0}, jump[5] = {0xe9};
    const uint8_t nop = 0x90;
    unsigned depth = 0, from, target;

    put(f, call, 5);
    for (unsigned i = 0; i < 4; i++)
        put(f, &nop, 1);
    from = f->c->size;
    put(f, jump, 5);
    for (unsigned i = 1 + diff_below(&f->r, 10); i > 0 && depth < 100; i--)
        step(f, &depth, level);
    if (depth && diff_below(&f->r, 16))
        move_sp(f, (int)depth);
    uint8_t pops[3] = {0xc2, (uint8_t)(8 * diff_below(&f->r, 4))}, plain = 0xc3;
    if (diff_below(&f->r, 8) == 0)
        put(f, pops, 3);
    else
        put(f, &plain, 1);
    if (f->full)
        return;
    target = f->c->size - from - 5;
    memcpy(f->c->code + from + 1, &target, 4);
}

void diff_generate_frames(struct diff_case *c, uint64_t seed, unsigned bits, bool based)
{
    struct frames f = {.c = c, .r = {seed * 0xa3ec647659359acdull | 1}, .unit = bits / 8};
    uint8_t set[6] = {0x41, 0xbc}, dec[3] = {0x41, 0xff, 0xcc}, again[6] = {0x0f, 0x85};
    const unsigned skip = bits == 64 ? 0 : 1; /* mov edi, n; dec edi: no REX */

    diff_generate_start(c, &f.r, seed, bits, based);
    c->name = "frames";
    switch (diff_below(&f.r, 4)) {
    case 0: /* where the stack begins, and ends */
        c->gpr[4] = DIFF_STACK + diff_below(&f.r, 0xc0);
        break;
    case 1:
        c->gpr[4] = DIFF_STACK + DIFF_PAGE - diff_below(&f.r, 0xc0);
        break;
    case 2: /* two pages */
        c->gpr[4] = DIFF_DATA + DIFF_PAGE + diff_below(&f.r, 0xc0);
        break;
    }
    if (diff_below(&f.r, 4))
        c->gpr[4] &= ~7ull;
    if (bits == 32)
        set[1] = 0xbf, dec[2] = 0xcf;
    set[2] = (uint8_t)(1 + diff_below(&f.r, 12));
    put(&f, set + skip, 6 - skip);
    unsigned begin = c->size;
    for (unsigned i = 1 + diff_below(&f.r, 3); i > 0 && !f.full; i--)
        call(&f, 0);
    put(&f, dec + skip, 3 - skip);
    int32_t back = (int32_t)begin - (int32_t)(c->size + sizeof(again));
    memcpy(again + 2, &back, 4);
    put(&f, again, sizeof(again));
}
