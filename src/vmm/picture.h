/*
 * A picture of what a machine shows, put together from the answers of its control channel's
 * "screenshot" (screen.h), and as PNG. For those who ask a machine's process; it may be under
 * attack by its guest, so that what it answers is checked. Knows neither how it is asked nor who
 * wants the picture. One thread at a time.
 */
#ifndef MULL_VMM_PICTURE_H
#define MULL_VMM_PICTURE_H

#include <jansson.h>
#include <stdint.h>

struct vmm_picture {
    unsigned width, height; /* 0: nothing has come yet */
    unsigned rows;          /* that have come */
    unsigned restarts;
    uint8_t *rgb; /* malloc'ed, three bytes a pixel */
};

enum vmm_picture_state {
    VMM_PICTURE_MORE,  /* ask for the next rows */
    VMM_PICTURE_WHOLE, /* all of it is there */
    VMM_PICTURE_BROKEN /* nonsense came, the screen changes its size without end, or no memory */
};

/** Parameters of the call that asks for the rows that are missing. @return new; NULL: no memory */
json_t *vmm_picture_params(const struct vmm_picture *p);

/** Take what was answered. A screen that has changed its size meanwhile is begun again.
 *
 * @param p       all zero at first; to be released by vmm_picture_free() in any case
 * @param answer  borrowed
 */
enum vmm_picture_state vmm_picture_add(struct vmm_picture *p, const json_t *answer);

/** A whole picture as PNG. @return malloc'ed, *size bytes; NULL: no memory */
void *vmm_picture_png(const struct vmm_picture *p, size_t *size);

void vmm_picture_free(struct vmm_picture *p);

#endif
