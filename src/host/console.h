/*
 * The serial consoles of running machines: one connection to each, whose output is kept in the
 * machine's folder and given to everybody who looks. The loop's thread, but for console_begin().
 */
#ifndef MULL_HOST_CONSOLE_H
#define MULL_HOST_CONSOLE_H

#include "host/supervisor.h"

/** Somebody who looks. The owner keeps it until console_detach(). */
struct console_viewer {
    void (*data)(struct console_viewer *viewer, const void *bytes, size_t len);
    void (*gone)(struct console_viewer *viewer); /* the machine has ended; it is detached */
    struct console_viewer *next;
    struct console *console;
};

/** The machine runs: connect to its console. Any thread, lock held. */
void console_begin(struct vm *vm);
/** At the end of the daemon. */
void console_end(struct vm *vm);

/** Look at a machine's console; what it has said last comes first. Lock held.
 *  @return 0 or -ENOTCONN */
int console_attach(struct vm *vm, struct console_viewer *viewer);
void console_detach(struct console_viewer *viewer);
/** Type. What a guest is too slow for is lost, as on a real serial line. */
void console_type(struct console_viewer *viewer, const void *bytes, size_t len);

/** What was said last: at most @max bytes, malloc'ed. Any thread, lock held. */
char *console_log_read(struct host *host, const char *id, size_t max, size_t *len);

#endif
