/*
 * A perf map: which guest code lies where in this process, in the file that perf looks for
 * (/tmp/perf-PID.map; Linux, tools/perf/Documentation/jit-interface.txt).
 */
#ifndef MULL_MACHINE_PERF_MAP_H
#define MULL_MACHINE_PERF_MAP_H

#include "engine/engine.h"

struct mull_perf_map;

/** Make the file. A process has one: not for two machines in one process. */
int mull_perf_map_create(struct mull_perf_map **out, struct mull_error *err);

/** What the engine has to be given. */
const struct mull_code_trace *mull_perf_map_trace(struct mull_perf_map *map);

/** Close the file, which stays for perf. NULL is allowed. */
void mull_perf_map_destroy(struct mull_perf_map *map);

#endif
