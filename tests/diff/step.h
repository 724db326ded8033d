/*
 * The exec tier's loop. In a file of its own because it runs with the guest's vector state in the
 * host's registers: it is built for general registers only.
 */
#ifndef MULL_TESTS_DIFF_STEP_H
#define MULL_TESTS_DIFF_STEP_H

#include "diff.h"
#include "engine/soft/soft.h"

/** Execute @c with soft_exec() from cpu's state on. @return SOFT_HALT: it came to an INT3;
 *  SOFT_FAULT; SOFT_STOP; SOFT_NEXT: it goes on too long. */
enum soft_result diff_step(struct soft_cpu *cpu, const struct diff_case *c);

#endif
