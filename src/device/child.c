/*
 * Helper programs as child processes. See child.h.
 */
#include "device/child.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mull_paths.h"

#define REPORT_FD (MULL_CHILD_FD + 1)

void mull_child_path(const char *name, char path[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = '\0';
        int len = snprintf(path, PATH_MAX, "%s/%s", dirname(self), name);
        if (len < PATH_MAX && !access(path, X_OK))
            return;
    }
    snprintf(path, PATH_MAX, "%s/%s", MULL_LIBEXEC, name);
}

/* Between fork() and execvp(): async-signal-safe functions only. All descriptors given lie above
 * REPORT_FD. */
static void run_child(const char *const argv[], pid_t parent, int fd, int messages, int report)
{
    sigset_t none;
    int null = open("/dev/null", O_RDWR);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    setsid(); /* the terminal's Ctrl-C is not for it */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(messages, 2) < 0 ||
        (fd >= 0 ? dup2(fd, MULL_CHILD_FD) : dup2(null, MULL_CHILD_FD)) < 0 ||
        dup2(report, REPORT_FD) < 0)
        _exit(1);
    fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC);
    if (syscall(SYS_close_range, REPORT_FD + 1, ~0u, 0)) {
        long max = sysconf(_SC_OPEN_MAX);
        for (int i = REPORT_FD + 1; i < max; i++)
            close(i);
    }
    execvp(argv[0], (char *const *)argv);
    int code = errno;
    ssize_t n = write(REPORT_FD, &code, sizeof(code));
    (void)n;
    _exit(127);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A copy of a descriptor out of the range that the child lays out anew. */
static int copy_up(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, REPORT_FD + 1);
}

/* What the child gets, all above REPORT_FD, and our own ends. */
struct ends {
    int fd, messages[2], report[2];
};

static void close_ends(struct ends *e)
{
    close_fd(&e->fd);
    close_fd(&e->messages[1]);
    close_fd(&e->report[0]);
    close_fd(&e->report[1]);
}

static int move_up(int *fd)
{
    int moved = copy_up(*fd);
    close(*fd);
    *fd = moved;
    return moved < 0 ? -errno : 0;
}

static int make_ends(struct ends *e, int fd)
{
    if (pipe2(e->messages, O_CLOEXEC) || pipe2(e->report, O_CLOEXEC))
        return -errno;
    int ret = move_up(&e->messages[1]);
    if (!ret)
        ret = move_up(&e->report[1]);
    if (!ret && fd >= 0 && (e->fd = copy_up(fd)) < 0)
        ret = -errno;
    if (!ret && fcntl(e->messages[0], F_SETFL, O_NONBLOCK))
        ret = -errno;
    return ret;
}

int mull_child_start(const char *const argv[], int fd, const char *hint, struct mull_child *child,
                     struct mull_error *err)
{
    struct ends e = {-1, {-1, -1}, {-1, -1}};
    pid_t parent = getpid();
    int code = 0;
    ssize_t n = 0;

    *child = (struct mull_child){.pidfd = -1, .messages = -1};
    int ret = make_ends(&e, fd);
    if (!ret) {
        child->pid = fork();
        if (child->pid < 0) {
            ret = -errno;
            child->pid = 0;
        } else if (!child->pid) {
            run_child(argv, parent, e.fd, e.messages[1], e.report[1]);
        }
    }
    close_fd(&e.report[1]);
    if (!ret)
        do
            n = read(e.report[0], &code, sizeof(code)); /* ends when execvp() has closed it */
        while (n < 0 && errno == EINTR);
    close_ends(&e);
    child->messages = e.messages[0];
    if (!ret && n != sizeof(code)) {
        child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
        return 0;
    }
    mull_child_stop(child, 0);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot be started: %s", argv[0], strerror(-ret));
    return mull_fail(err, code, "%s: %s; %s", argv[0],
                     code == ENOENT ? "not found" : strerror(code), hint);
}

void mull_child_messages(const struct mull_child *child, const struct mull_log *log, char *line,
                         size_t size)
{
    char text[1024];
    ssize_t n;

    while (child->messages >= 0 && (n = read(child->messages, text, sizeof(text) - 1)) > 0) {
        text[n] = '\0';
        char *save = NULL;
        for (char *l = strtok_r(text, "\r\n", &save); l; l = strtok_r(NULL, "\r\n", &save)) {
            mull_log(log, MULL_LOG_DEBUG, "child: %s", l);
            if (line)
                snprintf(line, size, "%s", l);
        }
    }
}

static bool ended(struct mull_child *child)
{
    if (child->pid && waitpid(child->pid, NULL, WNOHANG) != 0)
        child->pid = 0;
    return !child->pid;
}

int mull_child_kill(pid_t pid, int pidfd)
{
    return pidfd < 0 ? kill(pid, SIGKILL)
                     : (int)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

void mull_child_stop(struct mull_child *child, int grace_ms)
{
    for (int ms = 0; ms < grace_ms && !ended(child); ms++) {
        struct pollfd p = {.fd = child->pidfd, .events = POLLIN};
        poll(&p, 1, 1);
    }
    if (!ended(child) && !mull_child_kill(child->pid, child->pidfd))
        while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    child->pid = 0;
    close_fd(&child->pidfd);
    close_fd(&child->messages);
}
