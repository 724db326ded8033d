/*
 * The user's terminal: raw mode that is always taken back, and the escape key. Knows keys, not
 * machines.
 */
#ifndef MULL_CLI_TERMINAL_H
#define MULL_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

struct terminal {
    int fd;
    bool raw;
    struct termios saved;
};

/** Is @fd a terminal that this process may read (in its foreground)? */
bool terminal_usable(int fd);

/** Every key goes to the guest: no echo, no signals, no line editing. @return 0 or -errno */
int terminal_raw(struct terminal *t, int fd);

/** Apply raw mode again, after the process was stopped and went on. */
void terminal_again(struct terminal *t);

/** As it was. Without effect where it was never raw. */
void terminal_restore(struct terminal *t);

/* ---- The escape key ---- */

enum escape_key {
    ESCAPE_NONE,
    ESCAPE_QUIT,    /* Ctrl-A x */
    ESCAPE_MONITOR, /* Ctrl-A c */
    ESCAPE_HELP,    /* Ctrl-A ? or h */
};

struct escape {
    bool seen; /* the last key was Ctrl-A */
};

/**
 * Look at one key.
 *
 * @param out    what to pass on, at most two bytes
 * @param count  how many
 */
enum escape_key escape_key(struct escape *e, unsigned char key, unsigned char out[2],
                           size_t *count);

#endif
