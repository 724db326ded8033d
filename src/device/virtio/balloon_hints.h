/*
 * The pages that a guest says are free (virtio 1.2, 5.5.6.7), and whether it has written to them
 * since: what the balloon keeps between the question and the end of the answer. Dirty tracking runs
 * that long. Internal to the balloon.
 */
#ifndef MULL_DEVICE_VIRTIO_BALLOON_HINTS_H
#define MULL_DEVICE_VIRTIO_BALLOON_HINTS_H

#include <stdint.h>

#include "memory/memory.h"

struct balloon_hints;

/** None is free yet; tracking starts. No vCPU runs. @return NULL: no memory */
struct balloon_hints *balloon_hints_create(struct mull_memory *mem);

/** The whole pages of a range are free. */
void balloon_hints_add(struct balloon_hints *h, uint64_t gpa, uint64_t len);

/** Give back to the host those that were not written to since balloon_hints_create(). No vCPU and
 * no device is at work. @return bytes */
uint64_t balloon_hints_give_back(struct balloon_hints *h);

/** Tracking stops. NULL is allowed. */
void balloon_hints_destroy(struct balloon_hints *h);

#endif
