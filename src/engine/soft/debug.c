/*
 * The guest's debug registers: breakpoints on instructions and watches on data and ports (SDM
 * volume 3, 18.2). Translated code knows nothing of them: instructions in a page with a breakpoint
 * are executed in C (run.c), and a page with a watch is not in the TLB (mmu.c), so that each access
 * to it comes to C and passes soft_linear(). All other pages run as fast as ever.
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

static bool in_page(const struct soft_cpu *cpu, uint64_t va, bool execute)
{
    for (unsigned n = 0; n < 4; n++) {
        struct breakpoint b = breakpoint(cpu, n);
        uint64_t at = cpu->s.dr[n] & ~(uint64_t)(execute ? 0 : b.size - 1);

        if (!b.enabled || b.kind == RW_PORT || (b.kind == RW_EXECUTE) != execute)
            continue;
        if ((at ^ va) < MULL_PAGE_SIZE)
            return true;
    }
    return false;
}

bool soft_debug_page_executes(const struct soft_cpu *cpu, uint64_t va)
{
    return in_page(cpu, va & MULL_PAGE_MASK, true);
}

bool soft_debug_page_watched(const struct soft_cpu *cpu, uint64_t va)
{
    return in_page(cpu, va & MULL_PAGE_MASK, false);
}

void soft_debug_changed(struct soft_cpu *cpu)
{
    soft_mode_changed(cpu);
    if (cpu->s.dr[7] & 0xff)
        soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
}

void soft_debug_port(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    if (!(cpu->s.cr4 & SOFT_CR4_DE))
        return;
    for (unsigned n = 0; n < 4; n++) {
        struct breakpoint b = breakpoint(cpu, n);
        uint64_t at = cpu->s.dr[n] & ~(uint64_t)(b.size - 1);

        if (b.enabled && b.kind == RW_PORT && (port - at < b.size || at - port < size))
            cpu->debug_hits |= (uint16_t)(1u << n);
    }
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
            cpu->debug_hits |= (uint16_t)(1u << n);
    }
}
