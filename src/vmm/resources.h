/*
 * The control channel's methods for what a machine takes of its host, and may take.
 */
#ifndef MULL_VMM_RESOURCES_H
#define MULL_VMM_RESOURCES_H

#include <jansson.h>

#include "machine/machine.h"

/** Params, each may be left out (0: no limit): "cpu" (percent of one CPU), "disk" and "network"
 * with the names below. What is left out has no limit from now on. {} */
json_t *vmm_limits_set(struct mull_machine *m, json_t *params, struct mull_error *err);
/** What such params say. @return 0 or a negative errno */
int vmm_limits_read(json_t *params, struct mull_machine_limits *out, struct mull_error *err);

/** Params "on": merge equal pages of memory with those of others. {"merging": what it is now} */
json_t *vmm_merge(struct mull_machine *m, json_t *params, struct mull_error *err);

/** {"state", "reason": what paused it where nobody asked for it, "cpu": {"used", "held"} in ns,
 *  "merging", "memory": bytes, "disks": [{"index", "kind",
 *  "read_bytes", "reads", "written_bytes", "writes", "flushes", "waited"}], "networks": [{"index",
 *  "in_bytes", "in_packets", "out_bytes", "out_packets", "waited"}], "balloon": as balloon.stats
 *  answers, or null} */
json_t *vmm_usage(struct mull_machine *m, json_t *params, struct mull_error *err);

/** Names of the limits in "disk" and "network", in the order of mull_machine_limits. */
extern const char *const vmm_disk_limits[6];
extern const char *const vmm_network_limits[3];

#endif
