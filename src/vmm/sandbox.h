/*
 * Locks the process of a machine in: what it holds open is all it can reach from then on.
 */
#ifndef MULL_VMM_SANDBOX_H
#define MULL_VMM_SANDBOX_H

#include "base/log.h"
#include "machine/config.h"

/**
 * No new privileges, no capabilities, no file system (Landlock, where the kernel has it), and only
 * the system calls that a running machine makes (seccomp, all threads). After everything is opened
 * and before the first guest instruction.
 *
 * @param sockets  paths of sockets that the process removes at its end; NULL: none
 */
int vmm_sandbox_enter(const struct mull_machine_config *config, const char *const sockets[],
                      unsigned count, const struct mull_log *log, struct mull_error *err);

#endif
