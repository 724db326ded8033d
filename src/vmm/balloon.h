/*
 * The control channel's methods for the memory balloon.
 */
#ifndef MULL_VMM_BALLOON_H
#define MULL_VMM_BALLOON_H

#include <jansson.h>

#include "machine/machine.h"

/** Params "memory": the bytes that the guest shall keep. {} */
json_t *vmm_balloon_set(struct mull_machine *m, json_t *params, struct mull_error *err);

/** Give the guest's free pages back to the host. {}; "trimming" of the statistics says when it is
 * done. */
json_t *vmm_balloon_trim(struct mull_machine *m, struct mull_error *err);

/** {"memory": bytes that the machine has, "target" and "actual": those that the guest shall keep
 * and keeps, "reported": bytes of free pages given back since power-on, "trimmed": bytes
 * that vmm_balloon_trim() has given back, "trimming", "driver", "fresh", "stats":
 * the guest's own numbers}. Asks the guest for new ones: the next call has them ("fresh"). With
 * params
 *  {"refresh": false} it does not. */
json_t *vmm_balloon_stats(struct mull_machine *m, json_t *params, struct mull_error *err);

#endif
