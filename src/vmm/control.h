/*
 * The control channel of one machine: JSON-RPC 2.0, one message a line, over Unix stream sockets.
 * Knows the machine's interface; a peer is an adversary, so lines and peers are bounded.
 */
#ifndef MULL_VMM_CONTROL_H
#define MULL_VMM_CONTROL_H

#include "machine/machine.h"
#include "vmm/parts.h"

struct vmm_control;
struct vmm_gdb;

struct vmm_control_config {
    struct mull_machine *machine;
    const struct mull_log *log;
    int fd;              /* a connected socket, -1: none; the machine stops when its peer goes */
    const char *path;    /* where to listen, NULL: nowhere; must outlive the control */
    struct vmm_gdb *gdb; /* for peers that want to debug, NULL: none may */
};

/** Serve in the machine's loop. Before or after the machine starts. */
int vmm_control_create(const struct vmm_control_config *config, struct vmm_control **out,
                       struct mull_error *err);

/** "created", "running", "paused", "ended". */
const char *vmm_state_name(enum mull_machine_state state);

/** Answer one request, as text. @return a line to free(), or NULL: nothing to answer (a
 *  notification) or no memory. Separate for tests and fuzzing. */
char *vmm_control_answer(struct mull_machine *machine, const char *line, size_t len);

/** The same for one that descriptors came with. */
char *vmm_control_answer_with(struct mull_machine *machine, const char *line, size_t len,
                              struct vmm_descriptors *descriptors);

/** Close sockets and remove the path. The machine's loop no longer runs or this is its thread. */
void vmm_control_destroy(struct vmm_control *control);

#endif
