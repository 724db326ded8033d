/*
 * Removes the names of a machine's sockets when its process has ended, however it has: in a process
 * of its own, so that the machine's need not be able to remove any file. Begun while there is one
 * thread and nothing to be inherited, told the names once they are known, and then told no more.
 */
#ifndef MULL_VMM_REMOVER_H
#define MULL_VMM_REMOVER_H

#include <sys/types.h>

#include "base/error.h"

/** Zeroed: none. */
struct vmm_remover {
    pid_t pid;
    int socket; /* its end tells that ours has come */
};

/** @return 0 or a negative errno */
int vmm_remover_start(struct vmm_remover *r, struct mull_error *err);

/** One more name, before vmm_remover_seal(). @param path  NULL: nothing is done
 *  @return 0 or a negative errno */
int vmm_remover_add(const struct vmm_remover *r, const char *path, struct mull_error *err);

/** From now on it believes nothing that it is told. @return 0 or a negative errno */
int vmm_remover_seal(const struct vmm_remover *r, struct mull_error *err);

/** Have it remove them now, and wait until it has. */
void vmm_remover_finish(struct vmm_remover *r);

#endif
