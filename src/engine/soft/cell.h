/*
 * Cells, the small TLB of accesses in 64- and 32-bit user code: see cell.c. A cell may be stale
 * only as the TLB may: every flush and every protection of the TLB does the same to the cells.
 */
#ifndef MULL_SOFT_CELL_H
#define MULL_SOFT_CELL_H

#include "engine/soft/soft.h"

/** Before a user window is used: the first time its cells are made empty. */
void soft_cells_init(struct soft_window *win);

/** All of them go. By the window's vCPU. */
void soft_cells_clear(struct soft_window *win);

/** Those of the page of @va go. By the window's vCPU. */
void soft_cells_drop_page(struct soft_window *win, uint64_t va);

/** Those that allow writes to the page at @host, or at all, go. Any thread, after it took the tags
 *  out of the TLB and a fence: translated code fills a cell, then looks at the tag again. */
void soft_cells_protect(struct soft_window *win, uint64_t host);
void soft_cells_protect_all(struct soft_window *win);

/** All of them go, for reads, too. Any thread, as before. */
void soft_cells_forget_all(struct soft_window *win);

/** A cell of the user window has missed as often as it may without a look: do cells miss so much
 *  that its access should rather look into the TLB itself? The worst are asked about the most
 *  often. By the window's vCPU. */
bool soft_cell_roams(struct soft_cpu *cpu, unsigned cell);

#endif
