/*
 * The control channel's methods for the screen and the keyboard.
 */
#ifndef MULL_VMM_SCREEN_H
#define MULL_VMM_SCREEN_H

#include <jansson.h>

#include "machine/machine.h"

/** {"text": ...}, or {"width", "height"} alone in a graphics mode. */
json_t *vmm_screen_text(struct mull_machine *m, json_t *params, struct mull_error *err);

/** Rows of the picture: params "row", "rows". {"width", "height", "rows", "data": base64 of RGB}.
 */
json_t *vmm_screen_shot(struct mull_machine *m, json_t *params, struct mull_error *err);

/** Params "keys": a list of names, those pressed together with '-' between them; or "text" to type
 * in the layout "keymap": {"typed": bytes of the first character}, 0 where the guest is
 *  slow. */
json_t *vmm_screen_keys(struct mull_machine *m, json_t *params, struct mull_error *err);

#endif
