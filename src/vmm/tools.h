/*
 * The control channel's methods for open-vm-tools in the guest. Knows JSON, not registers.
 */
#ifndef MULL_VMM_TOOLS_H
#define MULL_VMM_TOOLS_H

#include <jansson.h>

#include "machine/machine.h"

/** `tools`: what they have said. */
json_t *vmm_tools(struct mull_machine *m, json_t *params, struct mull_error *err);
/** `tools.power`: param `action`, "halt" or "reboot". */
json_t *vmm_tools_power(struct mull_machine *m, json_t *params, struct mull_error *err);
/** `tools.send`: param `message`, base64 of a message of GuestRPC. {"id": of its answer}. */
json_t *vmm_tools_send(struct mull_machine *m, json_t *params, struct mull_error *err);
/** `tools.receive`: param `id`. {"answer": base64}, or {}: there is none yet. */
json_t *vmm_tools_receive(struct mull_machine *m, json_t *params, struct mull_error *err);
/** `tools.drop`: param `id`: its answer is not wanted any more. */
json_t *vmm_tools_drop(struct mull_machine *m, json_t *params, struct mull_error *err);

#endif
