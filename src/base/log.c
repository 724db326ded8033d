/* Logging: formatting, level and the default sink. See log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void mull_log(const struct mull_log *log, enum mull_log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[1024];
    va_list ap;

    if (!log || level > log->level)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (log->sink)
        log->sink(log->opaque, level, line);
    else
        fprintf(stderr, "mullion: %s: %s\n", names[level], line);
}
