/*
 * Names and symbols of keys, for `mullion sendkey` and the display server: which key, in a layout
 * that the guest is said to have, gives a character. Keys are struct mull_i8042's codes.
 */
#ifndef MULL_VMM_KEYS_H
#define MULL_VMM_KEYS_H

#include <stddef.h>
#include <stdint.h>

#define VMM_KEY_TAB 0x0fu
#define VMM_KEY_ENTER 0x1cu
#define VMM_KEY_SHIFT 0x2au
#define VMM_KEY_SHIFT_RIGHT 0x36u
#define VMM_KEY_SPACE 0x39u
#define VMM_KEY_ALTGR 0x138u

/** Bits of a level. */
#define VMM_LEVEL_SHIFT 1u
#define VMM_LEVEL_ALTGR 2u

struct vmm_keymap;

/** The layout of a name ("de", "fr", ...). @param name  NULL: "us" @return NULL: there is none */
const struct vmm_keymap *vmm_keymap_find(const char *name);

/** Names of the layouts, from 0 on. @return NULL: there are no more */
const char *vmm_keymap_name(unsigned index);

/** The key for an X11 key symbol (X11/keysymdef.h). @param level  what must be held with it
 *  @return the key, 0: none has it */
unsigned vmm_key_of_symbol(const struct vmm_keymap *map, uint32_t symbol, unsigned *level);

/** The key for a Unicode character, a new line or a tab; as above, but of this layout alone. */
unsigned vmm_key_of_character(const struct vmm_keymap *map, uint32_t character, unsigned *level);

/** The key of a name ("a", "ret", "f1", "ctrl", "delete", ...) of @len characters; 0: none. */
unsigned vmm_key_of_name(const char *name, size_t len);

#endif
