/*
 * A debugger outside of the guest: breakpoints, watches and single steps that the guest cannot see.
 * No block contains an instruction with a breakpoint, so that going there passes the dispatcher
 * (run.c), which looks; a page with a watch is not in the TLB (mmu.c), so that accesses to it come
 * to C, which looks in soft_linear(). Everything else runs as fast as ever.
 */
#include "engine/soft/soft.h"

bool soft_debug_breaks(const struct soft_debug *debug, uint64_t va)
{
    for (unsigned i = 0; i < debug->execs; i++)
        if (debug->exec[i].address == va)
            return true;
    return false;
}

bool soft_debug_due(struct soft_cpu *cpu)
{
    const struct soft_debug *debug = &cpu->vm->debug;
    uint64_t at = cpu->s.rip;

    if (cpu->debug_stop)
        return true;
    if (!debug->execs)
        return false;
    if (!(cpu->mode & SOFT_MODE_CODE64))
        at = (uint32_t)(at + cpu->s.seg[MULL_CS].base);
    for (unsigned i = 0; i < debug->execs; i++) {
        if (debug->exec[i].address != at)
            continue;
        cpu->debug_hit.step = false;
        cpu->debug_hit.point = debug->exec[i];
        return true;
    }
    return false;
}

static bool concerns(const struct mull_debug_point *watch, unsigned access)
{
    switch (watch->kind) {
    case MULL_DEBUG_WRITE:
        return access & SOFT_WRITE;
    case MULL_DEBUG_READ:
        return (access & 3) != SOFT_WRITE;
    default:
        return true;
    }
}

void soft_debug_touch(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access)
{
    const struct soft_debug *debug = &cpu->vm->debug;

    if ((access & 3) == SOFT_EXEC || cpu->debug_stop)
        return;
    for (unsigned i = 0; i < debug->watches; i++) {
        const struct mull_debug_point *w = &debug->watch[i];

        if (!concerns(w, access) || (va - w->address >= w->length && w->address - va >= size))
            continue;
        cpu->debug_hit.step = false;
        cpu->debug_hit.point = *w;
        cpu->debug_stop = true;
        cpu->code_changed = true;                            /* what follows is looked up again, */
        __atomic_store_n(&cpu->run_ok, 0, __ATOMIC_RELAXED); /* and so this is seen */
        return;
    }
}

unsigned soft_debug_watched(const struct soft_debug *debug, uint64_t va)
{
    unsigned watched = SOFT_EXEC;

    va &= MULL_PAGE_MASK;
    for (unsigned i = 0; i < debug->watches; i++) {
        const struct mull_debug_point *w = &debug->watch[i];

        if (va - w->address >= w->length && w->address - va >= MULL_PAGE_SIZE)
            continue;
        if (w->kind != MULL_DEBUG_WRITE)
            return SOFT_READ;
        watched = SOFT_WRITE;
    }
    return watched;
}
