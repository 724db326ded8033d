/*
 * Locks the process of a machine in: what it holds open is all it can reach from then on.
 */
#ifndef MULL_VMM_SANDBOX_H
#define MULL_VMM_SANDBOX_H

#include "base/error.h"
#include "base/log.h"

/**
 * No new privileges, no capabilities, no file system (Landlock, where the kernel has it), and only
 * the system calls that a running machine makes (seccomp, all threads). After everything is opened
 * and before the first guest instruction.
 */
int vmm_sandbox_enter(const struct mull_log *log, struct mull_error *err);

#endif
