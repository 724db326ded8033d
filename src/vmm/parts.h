/*
 * The control channel's methods for parts that come and go: disks, network cards, vCPUs, memory.
 */
#ifndef MULL_VMM_PARTS_H
#define MULL_VMM_PARTS_H

#include <jansson.h>

#include "machine/machine.h"

#define VMM_DESCRIPTORS_MAX 16

/** Descriptors that came with a request; whoever takes one sets it to -1. */
struct vmm_descriptors {
    unsigned count;
    int fd[VMM_DESCRIPTORS_MAX];
};

/** Close what nobody took. */
void vmm_descriptors_close(struct vmm_descriptors *descriptors);

/** Params: one of "disk" (as in a configuration, with "files": the paths that the descriptors are
 *  of), "network" (as there; tap: one descriptor, user: two), "cpus" (how many more), "memory"
 *  (bytes more). {"id": ...} */
json_t *vmm_parts_attach(struct mull_machine *m, json_t *params,
                         struct vmm_descriptors *descriptors, struct mull_error *err);

/** Params "id", "force". */
json_t *vmm_parts_detach(struct mull_machine *m, json_t *params, struct mull_error *err);

/** {"parts": [{"id", "kind", "slot", "size", "asked", "refused", "status"}...]} */
json_t *vmm_parts_list(struct mull_machine *m, json_t *params, struct mull_error *err);

#endif
