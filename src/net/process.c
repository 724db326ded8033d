/*
 * See process.h.
 */
#include "net/process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAYS_MAX 4096
#define END_MS 3000

char *net_process_find(const char *program)
{
    static const char others[] = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin";
    const char *path = getenv("PATH");
    char *all = NULL, *found = NULL, *save = NULL;
    if (asprintf(&all, "%s:%s", path ? path : "", others) < 0)
        return NULL;
    for (char *folder = strtok_r(all, ":", &save); folder; folder = strtok_r(NULL, ":", &save)) {
        if (*folder != '/' || asprintf(&found, "%s/%s", folder, program) < 0) {
            found = NULL;
            continue;
        }
        if (!access(found, X_OK))
            break;
        free(found);
        found = NULL;
    }
    free(all);
    return found;
}

/* In the child, between fork and exec: system calls only. A child of root has its capabilities
 * anyway; another's has what it inherits and keeps as ambient (capabilities(7)). */
static void keep_capabilities(uint64_t wanted)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    if (syscall(SYS_capget, &header, data))
        return;
    for (unsigned i = 0; i < 2; i++)
        data[i].inheritable = data[i].permitted & (uint32_t)(wanted >> (32 * i));
    syscall(SYS_capset, &header, data);
    for (unsigned long c = 0; c < 64; c++)
        if (data[c / 32].inheritable >> (c % 32) & 1)
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0);
}

static void become(const char *program, const char *const argv[], int in, int out,
                   uint64_t capabilities) __attribute__((noreturn));

static void become(const char *program, const char *const argv[], int in, int out,
                   uint64_t capabilities)
{
    static char *const environment[] = {(char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                                        (char *)"LC_ALL=C", NULL};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(126);
    syscall(SYS_close_range, 3, ~0u, 0);
    keep_capabilities(capabilities);
    execve(program, (char *const *)argv, environment);
    _exit(127);
}

static int spawn(const char *const argv[], int in, int out, uint64_t capabilities, pid_t *pid,
                 struct mull_error *err)
{
    char *program = net_process_find(argv[0]);
    if (!program)
        return mull_fail(err, ENOENT, "%s: is not installed", argv[0]);
    *pid = fork();
    if (!*pid)
        become(program, argv, in, out, capabilities);
    int code = *pid < 0 ? errno : 0;
    free(program);
    return code ? mull_fail(err, code, "%s: cannot be started: %s", argv[0], strerror(code)) : 0;
}

/* The first line of what it said. */
static void first_line(int fd, char *out, size_t room)
{
    ssize_t n = pread(fd, out, room - 1, 0);
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    for (char *p = out; *p; p++)
        if (!isprint((unsigned char)*p))
            *p = '?';
}

int net_process_run(const char *const argv[], const char *input, uint64_t capabilities,
                    struct mull_error *err)
{
    char said[256];
    size_t len = strlen(input);
    int in = memfd_create("input", MFD_CLOEXEC), out = memfd_create("output", MFD_CLOEXEC);
    int status = 0, ret = 0;
    pid_t pid = 0;
    for (size_t done = 0; in >= 0 && done < len;) {
        ssize_t n = write(in, input + done, len - done);
        if (n <= 0) {
            ret = mull_fail(err, errno, "%s: %s", argv[0], strerror(errno));
            break;
        }
        done += (size_t)n;
    }
    if (in < 0 || out < 0 || lseek(in, 0, SEEK_SET) < 0)
        ret = mull_fail(err, errno, "%s: %s", argv[0], strerror(errno));
    if (!ret)
        ret = spawn(argv, in, out, capabilities, &pid, err);
    if (!ret) {
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (!WIFEXITED(status) || WEXITSTATUS(status)) {
            first_line(out, said, sizeof(said));
            ret = mull_fail(err, EIO, "%s: %s", argv[0], *said ? said : "failed");
        }
    }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return ret;
}

/* ---- Finding and ending ---- */

static bool has_argument(pid_t pid, const char *argument)
{
    char path[64], text[SAYS_MAX];
    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    for (ssize_t at = 0; at < n; at += (ssize_t)strlen(text + at) + 1)
        if (!strncmp(text + at, argument, strlen(argument)))
            return true;
    return false;
}

pid_t net_process_with(const char *argument)
{
    DIR *dir = opendir("/proc");
    struct dirent *e;
    pid_t found = 0;
    while (dir && !found && (e = readdir(dir))) {
        pid_t pid = isdigit((unsigned char)e->d_name[0]) ? (pid_t)atoi(e->d_name) : 0;
        if (pid > 0 && pid != getpid() && has_argument(pid, argument))
            found = pid;
    }
    if (dir)
        closedir(dir);
    return found;
}

void net_process_end(pid_t pid, const char *argument)
{
    /* The descriptor first: what is looked at through it stays the same process. */
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (fd < 0)
        return;
    if (has_argument(pid, argument)) {
        syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
        if (poll(&p, 1, END_MS) == 0) {
            syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
            poll(&p, 1, END_MS);
        }
    }
    close(fd);
}
