/*
 * The monitor: a prompt on the user's terminal that talks to mullion-vmm's control channel. Knows
 * JSON-RPC and keys.
 */
#ifndef MULL_CLI_MONITOR_H
#define MULL_CLI_MONITOR_H

#include <stdbool.h>
#include <stddef.h>

struct monitor {
    int control_fd; /* connected to mullion-vmm */
    bool active;    /* keys go to the monitor */
    char line[128];
    size_t len;
    int id;             /* of the last request */
    char answer[32768]; /* what has come of an answer */
    size_t have;
};

/** Open or close the prompt. */
void monitor_toggle(struct monitor *m);

/** A key for the prompt. */
void monitor_key(struct monitor *m, unsigned char key);

/** Send a request by name, without parameters. */
void monitor_request(struct monitor *m, const char *method);

/** The control channel is readable: print answers. @return false: its other end is gone */
bool monitor_readable(struct monitor *m);

#endif
