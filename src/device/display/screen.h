/*
 * What is to be seen: the interface between a display device and those who look (a display server,
 * a screenshot). A device fills in the operations; nothing here knows who it is.
 */
#ifndef MULL_DEVICE_DISPLAY_SCREEN_H
#define MULL_DEVICE_DISPLAY_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MULL_SCREEN_MAX_WIDTH 2560u
#define MULL_SCREEN_MAX_HEIGHT 1600u
#define MULL_CURSOR_SIZE 64u

/** A pointer's picture that the guest leaves to us to draw. */
struct mull_cursor {
    uint64_t serial; /* changes with the picture, not with the place */
    bool visible;
    unsigned width, height;                               /* at most MULL_CURSOR_SIZE */
    unsigned hot_x, hot_y;                                /* inside the picture */
    int x, y;                                             /* where the hot spot is */
    uint32_t pixels[MULL_CURSOR_SIZE * MULL_CURSOR_SIZE]; /* 0xAARRGGBB, alpha multiplied in */
};

/** All functions: any thread. */
struct mull_screen_ops {
    /** A number that grows with everything that may have changed what is seen. */
    uint64_t (*changes)(void *opaque);
    /** The size of what is seen, in pixels: at least 1, at most the maxima above. */
    void (*size)(void *opaque, unsigned *width, unsigned *height);
    /** Draw what is seen without the cursor: 0x00RRGGBB, row after row without gaps. @param pixels
     *  room for @max pixels. @return false: @max is too small; the size is told all the same */
    bool (*render)(void *opaque, uint32_t *pixels, size_t max, unsigned *width, unsigned *height);
    /** The screen as text (UTF-8), lines without trailing spaces. @return the bytes written without
     *  the NUL that follows; -1: not in a text mode */
    int (*text)(void *opaque, char *out, size_t room);
    /** @return false: the guest draws its pointer itself. NULL: it always does. */
    bool (*cursor)(void *opaque, struct mull_cursor *out);
    /** Ask the guest for another size; it follows when it likes. @return 0, -EINVAL: out of bounds,
     *  -ENOTSUP: it cannot now. NULL: it never can. */
    int (*resize)(void *opaque, unsigned width, unsigned height);
};

struct mull_screen {
    const struct mull_screen_ops *ops;
    void *opaque;
};

#endif
