/*
 * The process that opens files. See opener.h. Between fork() and its end the child makes system
 * calls only: its parent may have threads.
 */
#include "device/net/opener.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/child.h"

struct request {
    uint32_t id;
    char name[MULL_OPENER_NAME_MAX + 1];
};

struct answer {
    uint32_t id;
    int32_t error;
    uint64_t size;
};

union control {
    struct cmsghdr header;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
};

/* ---- The child ---- */

static int open_below(int root, const char *name, uint64_t *size)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, root, name, &how, sizeof(how));
    struct stat st;

    if (fd < 0)
        return errno == EXDEV ? -EACCES : -errno;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return -EACCES;
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

static int connect_to(const char *path, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path), more = strlen(name);

    if (!more || strspn(name, "0123456789") != more || len + more + 2 > sizeof(address.sun_path))
        return -EINVAL;
    memcpy(address.sun_path, path, len);
    address.sun_path[len] = '_';
    memcpy(address.sun_path + len + 1, name, more);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address)))
        return fd;
    int code = errno;
    if (fd >= 0)
        close(fd);
    return -code;
}

static void reply(int socket, struct answer *a, int fd)
{
    struct iovec iov = {a, sizeof(*a)};
    union control control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        control.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    while (sendmsg(socket, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

/* Keep two descriptors (the second may be -1), as 0 and 1; close all others. */
static void keep(int socket, int root)
{
    int a = fcntl(socket, F_DUPFD, 10), b = fcntl(root, F_DUPFD, 10);

    dup2(a, 0);
    close(1);
    if (b >= 0)
        dup2(b, 1);
    if (syscall(SYS_close_range, 2u, ~0u, 0u))
        for (int fd = 2; fd < 4096; fd++)
            close(fd);
}

/* @param path  of the sockets; NULL: files below root */
static void serve(int socket, int root, const char *path)
{
    static const int fatal[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2};
    struct request r;
    sigset_t none;

    for (unsigned i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
        signal(fatal[i], SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_NAME, "mullion-files");
    keep(socket, root);
    for (;;) {
        ssize_t n = recv(0, &r, sizeof(r), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(0); /* the parent has gone */
        struct answer a = {.id = r.id};
        int fd = -EINVAL;
        if (n == sizeof(r) && !r.name[MULL_OPENER_NAME_MAX])
            fd = path ? connect_to(path, r.name) : open_below(1, r.name, &a.size);
        a.error = fd < 0 ? fd : 0;
        reply(0, &a, fd);
        if (fd >= 0)
            close(fd);
    }
}

/* ---- The parent ---- */

static int start(const char *what, int folder, const char *path, struct mull_opener *out,
                 struct mull_error *err)
{
    int pair[2];

    *out = (struct mull_opener){.socket = -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return mull_fail(err, errno, "%s: cannot make sockets: %s", what, strerror(errno));
    pid_t pid = fork();
    if (!pid) {
        serve(pair[1], folder, path);
        _exit(0);
    }
    int code = errno;
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return mull_fail(err, code, "%s: cannot start a process: %s", what, strerror(code));
    }
    *out = (struct mull_opener){pair[0], pid, (int)syscall(SYS_pidfd_open, pid, 0)};
    return 0;
}

int mull_opener_start(const char *root, struct mull_opener *out, struct mull_error *err)
{
    int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

    *out = (struct mull_opener){.socket = -1};
    if (folder < 0)
        return mull_fail(err, errno, "tftp=%s: %s; give a folder that can be read", root,
                         strerror(errno));
    int ret = start("tftp", folder, NULL, out, err);
    close(folder);
    return ret;
}

int mull_opener_start_sockets(const char *path, struct mull_opener *out, struct mull_error *err)
{
    return start("--vsock", -1, path, out, err);
}

void mull_opener_stop(struct mull_opener *o)
{
    if (o->pid <= 0)
        return;
    close(o->socket); /* it ends by that; only a file system that hangs can keep it */
    mull_child_kill(o->pid, o->pidfd);
    while (waitpid(o->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (o->pidfd >= 0)
        close(o->pidfd);
    *o = (struct mull_opener){.socket = -1};
}

bool mull_opener_ask(struct mull_opener *o, uint32_t id, const char *name)
{
    struct request r = {.id = id};
    size_t len = strlen(name);

    if (o->socket < 0 || len > MULL_OPENER_NAME_MAX)
        return false;
    memcpy(r.name, name, len);
    return send(o->socket, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(r);
}

bool mull_opener_answer(struct mull_opener *o, uint32_t *id, int *fd, uint64_t *size)
{
    struct answer a;
    struct iovec iov = {&a, sizeof(a)};
    union control control = {0};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};

    if (o->socket < 0 || recvmsg(o->socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(a))
        return false;
    *id = a.id;
    *size = a.size;
    *fd = a.error < 0 ? a.error : -EIO;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (!a.error && c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(c), sizeof(*fd));
    return true;
}
