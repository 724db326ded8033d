#include "step.h"

#include <Zydis/Zydis.h>
#include <errno.h>

#define STEPS_MAX 200000u

/* What was decoded in this run, by offset in the code. */
struct decoded {
    unsigned run;
    struct soft_insn insn;
};

static void copy_bytes(uint8_t *to, const uint8_t *from, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ((volatile uint8_t *)to)[i] = from[i];
}

static enum soft_result decode(struct soft_cpu *cpu, unsigned bits, struct soft_insn *in)
{
    struct soft_page page;
    uint8_t bytes[16];
    uint64_t va;
    enum soft_result r = soft_linear(cpu, MULL_CS, cpu->s.rip, 1, SOFT_EXEC, &va);
    if (!r)
        r = soft_translate(cpu, va, SOFT_EXEC, &page);
    if (r)
        return r;
    unsigned got = DIFF_PAGE - (unsigned)(va & (DIFF_PAGE - 1));
    got = got < 15 ? got : 15;
    copy_bytes(bytes, page.host, got);
    soft_vectors_park(cpu);
    int e = soft_decode(in, bytes, got, bits);
    if (e == -EAGAIN && got < 15) {
        r = soft_translate(cpu, va + got, SOFT_EXEC, &page);
        if (r)
            return r;
        copy_bytes(bytes + got, page.host, 15 - got);
        e = soft_decode(in, bytes, 15, bits);
    }
    if (e == -EAGAIN)
        return soft_raise_error(cpu, SOFT_GP, 0);
    return e ? soft_raise(cpu, SOFT_UD) : SOFT_NEXT;
}

/* Has the code overwritten itself? */
static bool changed(struct soft_cpu *cpu, const struct decoded *d)
{
    uint64_t va;
    const uint8_t *at = NULL;
    if (!soft_linear(cpu, MULL_CS, cpu->s.rip, d->insn.length, SOFT_EXEC, &va))
        at = soft_direct(cpu, va, d->insn.length, SOFT_READ);
    for (unsigned i = 0; at && i < d->insn.length; i++)
        if (at[i] != d->insn.bytes[i])
            return true;
    return !at;
}

enum soft_result diff_step(struct soft_cpu *cpu, const struct diff_case *c)
{
    static struct decoded known[DIFF_CODE_MAX], elsewhere;
    static unsigned run;
    enum soft_result r = SOFT_NEXT;

    run++;
    for (unsigned i = 0; i < STEPS_MAX && (r == SOFT_NEXT || r == SOFT_JUMP); i++) {
        uint64_t at = cpu->s.rip + diff_code_base(c) - DIFF_CODE - c->offset;
        struct decoded *d = at < c->size ? &known[at] : &elsewhere;
        if (d == &elsewhere || d->run != run || changed(cpu, d)) {
            r = decode(cpu, c->bits, &d->insn);
            if (r)
                return r;
            d->run = run;
        }
        if (d->insn.mnemonic == ZYDIS_MNEMONIC_INT3) {
            cpu->s.rip += d->insn.length;
            return SOFT_HALT;
        }
        r = soft_exec(cpu, &d->insn);
    }
    return r == SOFT_JUMP ? SOFT_NEXT : r;
}
