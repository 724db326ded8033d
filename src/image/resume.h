/*
 * Going on with an interrupted conversion. A note beside the target says how far it has come, from
 * which source and with which options; it is believed only where nothing of that has changed since,
 * in the same boot of the host: what an unflushed target holds after a power cut nobody knows.
 */
#ifndef MULL_IMAGE_RESUME_H
#define MULL_IMAGE_RESUME_H

#include "image/image.h"

struct mull_resume;

struct mull_resume_options {
    struct mull_image *source;
    const char *target;   /* path */
    const char *settings; /* all that makes one conversion differ from another, in one line */
    uint64_t interval_ns; /* between two notes */
};

/** Prepare. The source must stay open. */
int mull_resume_open(const struct mull_resume_options *options, struct mull_resume **out,
                     struct mull_error *err);

/** Where to go on: the note was checked against source, settings, target and boot. @return 0: from
 *  the start, and @err says why. */
uint64_t mull_resume_start(struct mull_resume *resume, struct mull_error *err);

/** Bring the note up to date if it is time, or @now: everything below @finished is written. Writes
 *  the target's metadata first. Nobody may be writing to the target. A note that cannot be written
 *  is none: the conversion goes on. @return 0 or what the target said. */
int mull_resume_note(struct mull_resume *resume, struct mull_image *target, uint64_t finished,
                     bool now);

/** Take the note away. */
void mull_resume_forget(struct mull_resume *resume);

/** Free; the note stays. NULL is allowed. */
void mull_resume_close(struct mull_resume *resume);

#endif
