/*
 * Logging through a handle: each machine, host or tool has its own, so that two machines in one
 * process do not share a word. Knows nothing of machines.
 */
#ifndef MULL_BASE_LOG_H
#define MULL_BASE_LOG_H

enum mull_log_level {
    MULL_LOG_ERROR,
    MULL_LOG_WARN,
    MULL_LOG_INFO,
    MULL_LOG_DEBUG,
};

/** Where log lines go. Plain data: the owner fills it in and keeps it alive. */
struct mull_log {
    enum mull_log_level level; /* lines above this level are dropped */
    /* Receives one line without newline. Called from any thread. NULL: standard error. */
    void (*sink)(void *opaque, enum mull_log_level level, const char *line);
    void *opaque;
};

/**
 * Write one line.
 *
 * @param log    the handle; NULL drops the line
 * @param level  its weight
 * @param fmt    printf format without a newline
 *
 * Thread-safe if the sink is.
 */
void mull_log(const struct mull_log *log, enum mull_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** Like mull_log, but a guest can provoke it: at most @limit lines are written for one @count. */
#define mull_log_limited(log, count, limit, level, ...)                                            \
    do {                                                                                           \
        if ((count)++ < (limit))                                                                   \
            mull_log((log), (level), __VA_ARGS__);                                                 \
    } while (0)

#endif
