/*
 * For tests/sandbox/sandbox.py: a method of the control channel that acts as code of a guest would
 * that has taken over the machine's process. Never part of an installed program.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <jansson.h>

#include "machine/machine.h"

/**
 * Params "call" and "args": make a system call, in the loop's thread. Arguments are numbers,
 * strings (a pointer to one) or {"bytes": HEX} (a pointer to them); {"result"} is what it returns
 * or -errno.
 *
 * Params "ring" (an opcode) and "fd", "addr", "len", "off": ask the ring of the last disk for it.
 */
json_t *vmm_hostile_try(struct mull_machine *m, json_t *params, struct mull_error *err);

#endif
