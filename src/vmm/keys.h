/*
 * Names and symbols of keys, for `mullion sendkey` and the display server. Knows a US keyboard's
 * places, not what layout the guest has.
 */
#ifndef MULL_VMM_KEYS_H
#define MULL_VMM_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The key for an X11 key symbol (X11/keysymdef.h), by its place on a US keyboard: struct
 *  mull_i8042's codes. @param shift  set where the symbol is on the upper level
 *  @return the key, 0: none has it */
unsigned vmm_key_of_symbol(uint32_t symbol, bool *shift);

/** The key of a name ("a", "ret", "f1", "ctrl", "delete", ...) of @len characters; 0: none. */
unsigned vmm_key_of_name(const char *name, size_t len);

#endif
