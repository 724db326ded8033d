/*
 * Errors with context. A function that can fail takes a `struct mull_error *` as its last parameter
 * and returns 0 or a negative errno; the error says what failed, where, and what to do about it.
 * Knows nothing of machines.
 */
#ifndef MULL_BASE_ERROR_H
#define MULL_BASE_ERROR_H

#include <stddef.h>

/** One failure. `code` is a positive errno (0: no error); `message` is one line for a person. */
struct mull_error {
    int code;
    char message[508];
};

/**
 * Fill in @err (which may be NULL) and return -@code, so that a caller writes
 * `return mull_fail(err, ENOENT, "kernel %s: no such file; give --kernel a bzImage", path);`
 *
 * @param err   where to put the failure, or NULL
 * @param code  positive errno
 * @param fmt   printf format: what, where, what to do; no newline
 * @return -code, always negative
 */
int mull_fail(struct mull_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/**
 * Put "context: " in front of an error's message: used by a caller that knows more of the place.
 *
 * @return -err->code (or -EINVAL where @err is NULL or empty)
 */
int mull_fail_in(struct mull_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
