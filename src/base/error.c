/* Errors with context: formatting and prefixing. See error.h. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int mull_fail(struct mull_error *err, int code, const char *fmt, ...)
{
    if (code <= 0)
        code = EINVAL;
    if (err) {
        va_list ap;
        err->code = code;
        va_start(ap, fmt);
        vsnprintf(err->message, sizeof(err->message), fmt, ap);
        va_end(ap);
    }
    return -code;
}

int mull_fail_in(struct mull_error *err, const char *fmt, ...)
{
    if (!err || !err->code)
        return -EINVAL;

    char text[sizeof(err->message)];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    int room = (int)sizeof(text) - n - 3; /* ": " and the terminating zero */
    if (n >= 0 && room > 0)
        snprintf(text + n, sizeof(text) - (size_t)n, ": %.*s", room, err->message);
    memcpy(err->message, text, sizeof(text));
    return -err->code;
}
