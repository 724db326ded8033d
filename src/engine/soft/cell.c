/*
 * Cells: what an access in user code found in the TLB the last time, at a place that the access
 * knows without its address, so that nothing waits for a lookup. A cell is a copy of a TLB entry
 * and goes wherever that entry goes. Translated code fills it (glue.c); here is how it is taken
 * back, by its own vCPU, and by other threads.
 */
#include "engine/soft/cell.h"

#include "engine/soft/system.h"

/* Misses of a cell until soft_cell_roams() is asked, and what they cost, in cycles. */
#define BUDGET 8
#define BUDGET_CYCLES (BUDGET * 48u)

/* All cells' misses may take this part of the time, and as much at once. */
#define SHARE 64
#define RESERVE (16 * BUDGET_CYCLES)

/* The page first: who still sees the old tag then gets a host address that faults. */
static void invalidate(struct soft_cell *cell)
{
    __atomic_store_n(&cell->page, SOFT_CELL_POISON, __ATOMIC_RELAXED);
    __atomic_store_n(&cell->tag, SOFT_CELL_INVALID, __ATOMIC_RELEASE);
}

void soft_cells_init(struct soft_window *win)
{
    if (win->cell_ready)
        return;
    for (unsigned i = 0; i < SOFT_CELLS; i++) {
        invalidate(&win->cell[i]);
        win->cell_left[i] = BUDGET;
    }
    win->cell_ready = true;
}

void soft_cells_clear(struct soft_window *win)
{
    if (!win->cell_count)
        return;
    for (uint32_t k = 0; k < win->cell_count; k++) {
        unsigned i = win->cell_log[k] / 2u;
        invalidate(&win->cell[i]);
        win->cell_logged[i] = 0;
    }
    soft_zero(win->cell_slot, sizeof(win->cell_slot));
    __atomic_store_n(&win->cell_count, 0, __ATOMIC_RELEASE);
}

void soft_cells_drop_page(struct soft_window *win, uint64_t va)
{
    const uint64_t tag = 0 - (va & MULL_PAGE_MASK);
    const unsigned slot = soft_tlb_index(va);
    bool others = false;

    if (!win->cell_slot[slot])
        return;
    for (uint32_t k = 0; k < win->cell_count; k++) {
        struct soft_cell *cell = &win->cell[win->cell_log[k] / 2u];
        uint64_t now = __atomic_load_n(&cell->tag, __ATOMIC_RELAXED);
        if (now == tag)
            invalidate(cell);
        else if (now != SOFT_CELL_INVALID)
            others |= soft_tlb_index(0 - now) == slot;
    }
    win->cell_slot[slot] = others;
}

void soft_cells_protect(struct soft_window *win, uint64_t host)
{
    if (!__atomic_load_n(&win->cell_count, __ATOMIC_ACQUIRE))
        return;
    for (unsigned i = 0; i < SOFT_CELLS_WRITE; i++)
        if (__atomic_load_n(&win->cell[i].page, __ATOMIC_RELAXED) == host)
            invalidate(&win->cell[i]);
}

/* The first @count, if any is filled. */
static void invalidate_some(struct soft_window *win, unsigned count)
{
    if (!__atomic_load_n(&win->cell_count, __ATOMIC_ACQUIRE))
        return;
    for (unsigned i = 0; i < count; i++)
        invalidate(&win->cell[i]);
}

void soft_cells_protect_all(struct soft_window *win)
{
    invalidate_some(win, SOFT_CELLS_WRITE);
}

void soft_cells_forget_all(struct soft_window *win)
{
    invalidate_some(win, SOFT_CELLS);
}

bool soft_cell_roams(struct soft_cpu *cpu, unsigned cell)
{
    uint64_t now = __builtin_ia32_rdtsc(), granted = (now - cpu->cell_asked) / SHARE;

    cpu->window[SOFT_WIN_USER]->cell_left[cell] = BUDGET;
    cpu->cell_asked = now;
    cpu->cell_debt = cpu->cell_debt > granted ? cpu->cell_debt - granted : 0;
    if (cpu->cell_debt >= RESERVE)
        return true;
    cpu->cell_debt += BUDGET_CYCLES;
    return false;
}
