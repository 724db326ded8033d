/*
 * Starting and ending passt(1). It gets one end of a socket pair (--fd), nothing else of ours, and
 * ends by itself when we close the other end. Knows its command line, not its frames.
 */
#include "device/net/passt_child.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/child.h"

#define END_MS 1000
#define FORWARD_TEXT 96

/* ---- Forwards ---- */

/* Parse "PORT" or "PORT-LAST". */
static bool parse_ports(const char *text, bool range, uint16_t *first, uint16_t *last)
{
    char *end;
    unsigned long value;

    if (*text < '0' || *text > '9')
        return false;
    value = strtoul(text, &end, 10);
    if (!value || value > 65535)
        return false;
    *first = *last = (uint16_t)value;
    if (range && *end == '-' && end[1] >= '0' && end[1] <= '9') {
        value = strtoul(end + 1, &end, 10);
        if (value < *first || value > 65535)
            return false;
        *last = (uint16_t)value;
    }
    return !*end;
}

static bool valid_address(const char *text)
{
    struct in6_addr address;
    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

/* Take "[ADDRESS:]" off the front of @text, if there is one. @return what follows, NULL: bad */
static char *take_address(struct mull_passt_forward *f, char *text)
{
    char *end;
    size_t skip = 0;

    if (*text == '[') {
        end = strchr(++text, ']');
        if (!end || end[1] != ':')
            return NULL;
        skip = 1;
    } else {
        end = strchr(text, ':');
        if (!end || !memchr(text, '.', (size_t)(end - text)))
            return text;
    }
    *end = 0;
    if (strlen(text) >= sizeof(f->address) || !valid_address(text))
        return NULL;
    strcpy(f->address, text);
    return end + skip + 1;
}

int mull_passt_parse_forward(struct mull_passt_config *config, const char *text,
                             struct mull_error *err)
{
    static const char usage[] = "write tcp:[ADDRESS:]PORT[-LAST][:GUESTPORT], or udp:";
    struct mull_passt_forward f = {0};
    char copy[FORWARD_TEXT];
    uint16_t unused;

    if (config->nforwards == MULL_PASST_FORWARDS)
        return mull_fail(err, E2BIG, "forward %s: more than %d forwards; use a range", text,
                         MULL_PASST_FORWARDS);
    f.udp = !strncmp(text, "udp:", 4);
    if ((!f.udp && strncmp(text, "tcp:", 4)) || strlen(text) >= sizeof(copy))
        return mull_fail(err, EINVAL, "forward %s: %s", text, usage);
    strcpy(copy, text + 4);
    char *ports = take_address(&f, copy);
    if (!ports)
        return mull_fail(err, EINVAL, "forward %s: not an address; %s", text, usage);
    char *guest = strchr(ports, ':');
    if (guest)
        *guest++ = 0;
    if (!parse_ports(ports, true, &f.host_first, &f.host_last))
        return mull_fail(err, EINVAL, "forward %s: \"%s\" is no port; %s", text, ports, usage);
    f.guest_first = f.host_first;
    if (guest && !parse_ports(guest, false, &f.guest_first, &unused))
        return mull_fail(err, EINVAL, "forward %s: \"%s\" is no port; %s", text, guest, usage);
    if (f.guest_first + (f.host_last - f.host_first) > 65535)
        return mull_fail(err, EINVAL, "forward %s: the guest's ports end behind 65535", text);
    config->forwards[config->nforwards++] = f;
    return 0;
}

/* passt(1), -t: [ADDRESS/]FIRST[-LAST]:FIRST[-LAST] */
static void format_forward(const struct mull_passt_forward *f, char *text)
{
    const char *slash = f->address[0] ? "/" : "";
    unsigned n = f->host_last - f->host_first;

    if (n)
        snprintf(text, FORWARD_TEXT, "%s%s%u-%u:%u-%u", f->address, slash, f->host_first,
                 f->host_last, f->guest_first, f->guest_first + n);
    else
        snprintf(text, FORWARD_TEXT, "%s%s%u:%u", f->address, slash, f->host_first, f->guest_first);
}

/* Can we listen there? @return 0 or an errno */
static int probe_port(int family, const struct mull_passt_forward *f, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    const struct sockaddr *address = family == AF_INET ? (void *)&v4 : (void *)&v6;
    socklen_t len = family == AF_INET ? sizeof(v4) : sizeof(v6);
    int yes = 1, code = 0;

    if (f->address[0])
        inet_pton(family, f->address,
                  family == AF_INET ? (void *)&v4.sin_addr : (void *)&v6.sin6_addr);
    int fd = socket(family, (f->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno == EAFNOSUPPORT ? 0 : errno;
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
    if (!f->udp)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(fd, address, len) || (!f->udp && listen(fd, 1)))
        code = errno;
    close(fd);
    /* No IPv6 here: nothing to forward from there. */
    return code == EADDRNOTAVAIL && !f->address[0] ? 0 : code;
}

/* passt itself says nothing of a port that it cannot have. */
static int check_ports(const struct mull_passt_config *config, struct mull_error *err)
{
    for (unsigned i = 0; i < config->nforwards; i++) {
        const struct mull_passt_forward *f = &config->forwards[i];
        bool v6 = strchr(f->address, ':'), v4 = !v6;
        if (!f->address[0])
            v6 = true;
        for (unsigned port = f->host_first; port <= f->host_last; port++) {
            int code = v4 ? probe_port(AF_INET, f, (uint16_t)port) : 0;
            if (!code && v6)
                code = probe_port(AF_INET6, f, (uint16_t)port);
            if (code)
                return mull_fail(
                    err, code, "forward %s port %u%s%s: %s; %s", f->udp ? "udp" : "tcp", port,
                    f->address[0] ? " of " : "", f->address, strerror(code),
                    code == EACCES ? "give a port above 1023" : "give another port of the host");
        }
    }
    return 0;
}

/* ---- The process ---- */

/* Descriptors in the child. */
#define CHILD_SOCKET 3
#define CHILD_REPORT 4

struct arguments {
    const char *argv[2 * MULL_PASST_FORWARDS + 16];
    char forwards[MULL_PASST_FORWARDS][FORWARD_TEXT];
    bool outlives;
};

static void build_arguments(const struct mull_passt_config *config, struct arguments *a)
{
    unsigned n = 0;
    bool tcp = false, udp = false;

    a->outlives = config->outlives;
    a->argv[n++] = config->program ? config->program : "passt";
    a->argv[n++] = "--foreground";
    a->argv[n++] = "--quiet";
    a->argv[n++] = "--fd";
    a->argv[n++] = "3"; /* CHILD_SOCKET */
    if (config->mac) {
        a->argv[n++] = "--mac-addr";
        a->argv[n++] = config->mac;
    }
    for (unsigned i = 0; i < config->nforwards; i++) {
        const struct mull_passt_forward *f = &config->forwards[i];
        format_forward(f, a->forwards[i]);
        a->argv[n++] = f->udp ? "-u" : "-t";
        a->argv[n++] = a->forwards[i];
        tcp |= !f->udp;
        udp |= f->udp;
    }
    if (tcp && !udp) { /* else it forwards UDP ports of the same numbers too */
        a->argv[n++] = "-u";
        a->argv[n++] = "none";
    }
    a->argv[n] = NULL;
}

/* Between fork() and execvp(): async-signal-safe functions only. All descriptors given lie above
 * CHILD_REPORT. */
static void run_child(const struct arguments *a, pid_t parent, int socket, int messages, int report)
{
    sigset_t none;
    int null = open("/dev/null", O_RDWR);

    /* As root it changes its user, which clears the parent-death signal: then closing the socket
     * does it. */
    if (!a->outlives) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    setsid(); /* the terminal's Ctrl-C is not for it */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(messages, 2) < 0 ||
        dup2(socket, CHILD_SOCKET) < 0 || dup2(report, CHILD_REPORT) < 0)
        _exit(1);
    fcntl(CHILD_REPORT, F_SETFD, FD_CLOEXEC);
    if (syscall(SYS_close_range, CHILD_REPORT + 1, ~0u, 0)) {
        long max = sysconf(_SC_OPEN_MAX);
        for (int fd = CHILD_REPORT + 1; fd < max; fd++)
            close(fd);
    }
    execvp(a->argv[0], (char *const *)a->argv);
    int code = errno;
    ssize_t n = write(CHILD_REPORT, &code, sizeof(code));
    (void)n;
    _exit(127);
}

/* Move a descriptor out of the range that the child lays out anew. */
static int move_up(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, CHILD_REPORT + 1);
    close(fd);
    return moved;
}

static int make_pairs(int sockets[2], int messages[2], int report[2], struct mull_error *err)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) || pipe2(messages, O_CLOEXEC) ||
        pipe2(report, O_CLOEXEC))
        return mull_fail(err, errno, "passt: cannot make its socket: %s", strerror(errno));
    sockets[1] = move_up(sockets[1]);
    messages[1] = move_up(messages[1]);
    report[1] = move_up(report[1]);
    if (sockets[1] < 0 || messages[1] < 0 || report[1] < 0 ||
        fcntl(sockets[0], F_SETFL, O_NONBLOCK) || fcntl(messages[0], F_SETFL, O_NONBLOCK))
        return mull_fail(err, errno, "passt: cannot make its socket: %s", strerror(errno));
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int fork_child(const struct arguments *a, struct mull_passt_child *child, int sockets[2],
                      int messages[2], int report[2], struct mull_error *err)
{
    pid_t parent = getpid();
    int code = 0;

    child->pid = fork();
    if (child->pid < 0) {
        child->pid = 0;
        return mull_fail(err, errno, "passt: cannot start a process: %s", strerror(errno));
    }
    if (!child->pid)
        run_child(a, parent, sockets[1], messages[1], report[1]);
    close_fd(&sockets[1]);
    close_fd(&messages[1]);
    close_fd(&report[1]);
    ssize_t n;
    do
        n = read(report[0], &code, sizeof(code)); /* ends when execvp() has closed it */
    while (n < 0 && errno == EINTR);
    if (n != sizeof(code))
        return 0;
    if (code == ENOENT)
        return mull_fail(err, code, "%s: not found; install passt or use --net none", a->argv[0]);
    return mull_fail(err, code, "%s: cannot execute: %s; reinstall passt or use --net none",
                     a->argv[0], strerror(code));
}

int mull_passt_child_start(const struct mull_passt_config *config, struct mull_passt_child *child,
                           struct mull_error *err)
{
    int sockets[2] = {-1, -1}, messages[2] = {-1, -1}, report[2] = {-1, -1};
    struct arguments arguments;

    *child = (struct mull_passt_child){.pidfd = -1, .socket = -1, .messages = -1};
    int rc = check_ports(config, err);
    if (rc)
        return rc;
    build_arguments(config, &arguments);
    rc = make_pairs(sockets, messages, report, err);
    if (!rc)
        rc = fork_child(&arguments, child, sockets, messages, report, err);
    close_fd(&sockets[1]);
    close_fd(&messages[1]);
    close_fd(&report[0]);
    close_fd(&report[1]);
    child->socket = sockets[0];
    child->messages = messages[0];
    if (rc) {
        mull_passt_child_stop(child);
        return rc;
    }
    child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    return 0;
}

/* Lines that tell a person nothing about why passt has ended. */
static bool is_noise(const char *line)
{
    return !*line || !strncmp(line, "Failed to send", 14) ||
           !strncmp(line, "Don't run as root", 17);
}

void mull_passt_child_messages(const struct mull_passt_child *child, const struct mull_log *log,
                               char *line, size_t size)
{
    char text[1024];
    ssize_t n;

    while (child->messages >= 0 && (n = read(child->messages, text, sizeof(text) - 1)) > 0) {
        text[n] = 0;
        char *save = NULL;
        for (char *l = strtok_r(text, "\r\n", &save); l; l = strtok_r(NULL, "\r\n", &save)) {
            if (is_noise(l))
                continue;
            mull_log(log, MULL_LOG_DEBUG, "passt: %s", l);
            if (line)
                snprintf(line, size, "%s", l);
        }
    }
}

bool mull_passt_child_ended(struct mull_passt_child *child)
{
    if (child->pid && waitpid(child->pid, NULL, WNOHANG) != 0)
        child->pid = 0;
    return !child->pid;
}

void mull_passt_child_stop(struct mull_passt_child *child)
{
    close_fd(&child->socket);
    for (int ms = 0; ms < END_MS && !mull_passt_child_ended(child); ms++) {
        struct pollfd p = {.fd = child->pidfd, .events = POLLIN};
        poll(&p, 1, 1);
    }
    /* In a sandbox we may have lost the right to kill one that has changed its user. */
    if (child->pid && !mull_child_kill(child->pid, child->pidfd))
        while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    child->pid = 0;
    close_fd(&child->pidfd);
    close_fd(&child->messages);
}
