/*
 * The guest's debug registers: breakpoints on instructions and watches on data (SDM volume 3,
 * 18.2). While DR7 has one enabled every instruction is executed in C (run.c), and each access to
 * data passes soft_linear(): so translated code knows nothing of them.
 */
#include "engine/soft/soft.h"

#define RW_EXECUTE 0u
#define RW_WRITE 1u
#define RW_PORT 2u

/* The numbered breakpoint as DR7 has it. */
struct breakpoint {
    bool enabled; /* globally or locally */
    unsigned kind;
    unsigned size;
};

static struct breakpoint breakpoint(const struct soft_cpu *cpu, unsigned n)
{
    static const uint8_t sizes[] = {1, 2, 8, 4};
    uint64_t dr7 = cpu->s.dr[7];
    unsigned control = (unsigned)(dr7 >> (16 + 4 * n)) & 15;

    return (struct breakpoint){
        .enabled = dr7 >> (2 * n) & 3, .kind = control & 3, .size = sizes[control >> 2]};
}

uint64_t soft_debug_execute(const struct soft_cpu *cpu)
{
    const struct mull_cpu_state *s = &cpu->s;
    uint64_t at = s->rip, hits = 0;

    if (!(cpu->mode & SOFT_MODE_CODE64))
        at = (uint32_t)(at + s->seg[MULL_CS].base);
    for (unsigned n = 0; n < 4; n++) {
        struct breakpoint b = breakpoint(cpu, n);

        if (b.enabled && b.kind == RW_EXECUTE && s->dr[n] == at)
            hits |= 1u << n;
    }
    return hits;
}

void soft_debug_access(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access)
{
    if ((access & 3) == SOFT_EXEC)
        return;
    for (unsigned n = 0; n < 4; n++) {
        struct breakpoint b = breakpoint(cpu, n);
        uint64_t at = cpu->s.dr[n] & ~(uint64_t)(b.size - 1);

        if (!b.enabled || b.kind == RW_EXECUTE || b.kind == RW_PORT ||
            (b.kind == RW_WRITE && !(access & SOFT_WRITE)))
            continue;
        if (va - at < b.size || at - va < size)
            cpu->debug_hits |= 1u << n;
    }
}
