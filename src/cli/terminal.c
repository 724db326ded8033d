/*
 * Raw mode and the escape key.
 */
#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#define CTRL_A 0x01

bool terminal_usable(int fd)
{
    return isatty(fd) && tcgetpgrp(fd) == getpgrp();
}

static int set_raw(struct terminal *t)
{
    struct termios raw = t->saved;
    cfmakeraw(&raw);
    raw.c_oflag = t->saved.c_oflag; /* messages of ours still end lines as usual */
    return tcsetattr(t->fd, TCSANOW, &raw) ? -errno : 0;
}

int terminal_raw(struct terminal *t, int fd)
{
    t->fd = fd;
    if (tcgetattr(fd, &t->saved))
        return -errno;
    int ret = set_raw(t);
    t->raw = !ret;
    return ret;
}

void terminal_again(struct terminal *t)
{
    if (t->raw)
        set_raw(t);
}

void terminal_restore(struct terminal *t)
{
    if (!t->raw)
        return;
    /* From the background tcsetattr() would stop us. */
    void (*old)(int) = signal(SIGTTOU, SIG_IGN);
    tcsetattr(t->fd, TCSADRAIN, &t->saved);
    signal(SIGTTOU, old);
    t->raw = false;
}

enum escape_key escape_key(struct escape *e, unsigned char key, unsigned char out[2], size_t *count)
{
    *count = 0;
    if (!e->seen) {
        if (key == CTRL_A)
            e->seen = true;
        else
            out[(*count)++] = key;
        return ESCAPE_NONE;
    }
    e->seen = false;
    switch (key) {
    case CTRL_A:
        out[(*count)++] = CTRL_A;
        return ESCAPE_NONE;
    case 'x':
    case 'X':
        return ESCAPE_QUIT;
    case 'c':
    case 'C':
        return ESCAPE_MONITOR;
    case '?':
    case 'h':
        return ESCAPE_HELP;
    default: /* not ours: the guest gets both */
        out[(*count)++] = CTRL_A;
        out[(*count)++] = key;
        return ESCAPE_NONE;
    }
}
