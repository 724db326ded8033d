/*
 * See remover.h.
 */
#include "vmm/remover.h"

#include <errno.h>
#include <limits.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMES_MAX 32u

/* ---- The child ---- */

struct names {
    char *path[NAMES_MAX];
    unsigned count;
};

/* It goes with its parent, not with the terminal that somebody interrupts. */
static void be_alone(int socket)
{
    static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    for (unsigned i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    setsid();
    prctl(PR_SET_NAME, "mullion-sockets");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (dup2(socket, 0) != 0 || syscall(SYS_close_range, 1u, ~0u, 0u))
        _exit(1);
}

/* Nothing but what is below, once there are names. */
static void lock_in(void)
{
    static const int allowed[] = {SCMP_SYS(recvfrom),       SCMP_SYS(unlink), SCMP_SYS(lstat),
                                  SCMP_SYS(newfstatat),     SCMP_SYS(exit),   SCMP_SYS(exit_group),
                                  SCMP_SYS(restart_syscall)};
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int ret = ctx ? 0 : -ENOMEM;
    for (unsigned i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && !ret; i++)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    if (ret || seccomp_load(ctx))
        _exit(1);
    seccomp_release(ctx);
}

/* @return the length of a message, 0: the other end has gone */
static size_t hear(char *out, size_t room)
{
    ssize_t n;
    do {
        n = recv(0, out, room, 0);
    } while (n < 0 && errno == EINTR);
    return n > 0 ? (size_t)n : 0;
}

static void serve(int socket) __attribute__((noreturn));

static void serve(int socket)
{
    struct names names = {0};
    char text[PATH_MAX];
    struct stat st;
    size_t n;
    be_alone(socket);
    /* A single byte ends the list: a path of one byte is no socket's. */
    while ((n = hear(text, sizeof(text) - 1)) > 1) {
        text[n] = '\0';
        names.path[names.count] = strdup(text);
        names.count += names.count < NAMES_MAX - 1 && names.path[names.count];
    }
    lock_in();
    while (n)
        n = hear(text, sizeof(text));
    for (unsigned i = 0; i < names.count; i++)
        if (!lstat(names.path[i], &st) && S_ISSOCK(st.st_mode))
            unlink(names.path[i]);
    _exit(0);
}

/* ---- The parent ---- */

int vmm_remover_start(struct vmm_remover *r, struct mull_error *err)
{
    int pair[2];
    *r = (struct vmm_remover){0};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return mull_fail(err, errno, "sockets: %s", strerror(errno));
    pid_t pid = fork();
    if (!pid)
        serve(pair[1]);
    int code = errno;
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return mull_fail(err, code, "sockets: cannot start a process: %s", strerror(code));
    }
    *r = (struct vmm_remover){pid, pair[0]};
    return 0;
}

static int tell(const struct vmm_remover *r, const char *text, struct mull_error *err)
{
    size_t n = strlen(text);
    if (send(r->socket, text, n, MSG_NOSIGNAL) != (ssize_t)n)
        return mull_fail(err, errno, "sockets: %s: %s", text, strerror(errno));
    return 0;
}

int vmm_remover_add(const struct vmm_remover *r, const char *path, struct mull_error *err)
{
    /* The child is in the folder that we are in, and stays there. */
    return r->pid && path && strlen(path) > 1 ? tell(r, path, err) : 0;
}

int vmm_remover_seal(const struct vmm_remover *r, struct mull_error *err)
{
    return r->pid ? tell(r, ".", err) : 0;
}

void vmm_remover_finish(struct vmm_remover *r)
{
    if (!r->pid)
        return;
    close(r->socket);
    while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *r = (struct vmm_remover){0};
}
