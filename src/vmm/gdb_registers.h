/*
 * The registers that a debugger sees, in the order of its "g" packet, and the target description
 * (GDB manual, appendix G) that tells it so. Knows the canonical CPU state, no packets.
 */
#ifndef MULL_VMM_GDB_REGISTERS_H
#define MULL_VMM_GDB_REGISTERS_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/cpu_state.h"

#define GDB_REGISTER_BYTES 16 /* the largest register */

unsigned gdb_register_count(void);

/** Bytes of a register; 0: there is no such register. */
unsigned gdb_register_size(unsigned number);

/** Copy a register out, little-endian. @return its size, 0: there is no such register */
unsigned gdb_register_get(const struct mull_cpu_state *s, unsigned number,
                          uint8_t bytes[GDB_REGISTER_BYTES]);

/** Put a register in; bits that no processor takes are left out. @return false: it cannot be
 *  written: a selector or a system register, whose change would need more than its value */
bool gdb_register_set(struct mull_cpu_state *s, unsigned number,
                      const uint8_t bytes[GDB_REGISTER_BYTES]);

/** The target description. @return a string to free(), NULL: no memory */
char *gdb_target_description(void);

#endif
