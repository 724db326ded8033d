/* Measuring the soft engine: see probe.c. */
#ifndef MULL_SOFT_PROBE_H
#define MULL_SOFT_PROBE_H

#include "engine/engine.h"

/** Fill in the measured fields of @report (0 where it could not be measured). */
void soft_probe_measure(struct mull_engine_report *report);

#endif
