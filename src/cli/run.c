/*
 * `mullion run`: starts mullion-vmm as a child, relays the terminal to the guest's console and
 * back, and ends with the child's status. The terminal is restored on every way out, because this
 * process owns it and the child never touches it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/monitor.h"
#include "cli/options.h"
#include "cli/runtime.h"
#include "cli/terminal.h"

/* The child's descriptors. */
enum { CHILD_CONFIG = 3, CHILD_CONTROL = 4, CHILD_CONSOLE = 5 };

#define KILL_AFTER_MS 5000

struct run {
    pid_t child;
    int console; /* our end, -1: no console on stdio, or it has ended */
    int signals;
    bool input;       /* standard input is still read */
    bool interactive; /* it is a terminal: escape keys, raw mode */
    bool child_gone;
    int child_status;
    unsigned terminations;
    long deadline_ms; /* when the child is killed, 0: not yet */
    struct terminal terminal;
    struct escape escape;
    struct monitor monitor;
    unsigned char pending[4096]; /* keys that the guest has not taken */
    size_t pending_len;
};

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- The child ---- */

/* mullion-vmm lies beside us (a build), in ../libexec (an installation, wherever it was moved), or
 * where it was meant to be installed. */
static void find_vmm(char path[PATH_MAX])
{
    static const char *const places[] = {"/mullion-vmm", "/../libexec/mullion-vmm"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    for (unsigned i = 0; slash && i < sizeof(places) / sizeof(places[0]); i++) {
        *slash = '\0';
        if (snprintf(path, PATH_MAX, "%s%s", self, places[i]) < PATH_MAX && !access(path, X_OK))
            return;
    }
    snprintf(path, PATH_MAX, "%s/mullion-vmm", MULLION_LIBEXECDIR);
}

/* Put the descriptors in their places: first out of each other's way. Between fork and exec. */
static void place_descriptors(int config, int control, int console)
{
    int from[3] = {config, control, console};
    for (unsigned i = 0; i < 3; i++)
        if (from[i] >= 0)
            from[i] = fcntl(from[i], F_DUPFD, 16);
    for (unsigned i = 0; i < 3; i++) {
        if (from[i] < 0)
            continue;
        dup2(from[i], CHILD_CONFIG + (int)i);
        close(from[i]);
    }
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    if (null > CHILD_CONSOLE)
        close(null);
}

static int start_child(struct run *r, const struct run_options *o, int config, int control,
                       int console, const sigset_t *old_mask)
{
    char path[PATH_MAX], config_text[16], control_text[16];
    find_vmm(path);
    snprintf(config_text, sizeof(config_text), "%d", CHILD_CONFIG);
    snprintf(control_text, sizeof(control_text), "%d", CHILD_CONTROL);
    const char *argv[14] = {"mullion-vmm", "--config-fd", config_text, "--control-fd",
                            control_text};
    unsigned n = 5;
    if (o->control) {
        argv[n++] = "--control";
        argv[n++] = o->control;
    }
    if (o->gdb) {
        argv[n++] = "--gdb";
        argv[n++] = o->gdb;
    }
    if (o->verbose)
        argv[n++] = "--verbose";
    if (o->no_sandbox)
        argv[n++] = "--no-sandbox";
    r->child = fork();
    if (r->child < 0)
        return cli_fail(VMM_STATUS_HOST_ERROR, "cannot start a process: %s", strerror(errno));
    if (r->child == 0) {
        setsid(); /* the terminal's signals are ours alone */
        sigprocmask(SIG_SETMASK, old_mask, NULL);
        place_descriptors(config, control, console);
        execv(path, (char *const *)argv);
        cli_fail(0, "%s: %s; is it installed?", path, strerror(errno));
        _exit(VMM_STATUS_HOST_ERROR);
    }
    return -1;
}

/* The configuration as a file without a name. */
static int config_file(struct run_options *o)
{
    if (o->stdio) {
        json_t *console;
        size_t i;
        json_array_foreach(json_object_get(o->config, "consoles"), i, console)
        {
            const char *type = json_string_value(json_object_get(console, "type"));
            if (!type || strcmp(type, "stdio"))
                continue;
            json_object_set_new(console, "type", json_string("fd"));
            json_object_set_new(console, "in", json_integer(CHILD_CONSOLE));
            json_object_set_new(console, "out", json_integer(CHILD_CONSOLE));
        }
    }
    int fd = memfd_create("mullion-config", MFD_CLOEXEC);
    if (fd >= 0 && (json_dumpfd(o->config, fd, JSON_COMPACT) || lseek(fd, 0, SEEK_SET) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* ---- Relaying ---- */

static void write_all(int fd, const unsigned char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            poll(&p, 1, 1000);
            continue;
        }
        if (n <= 0)
            return; /* nobody reads our output: the guest need not care */
        bytes += n;
        len -= (size_t)n;
    }
}

static void flush_pending(struct run *r)
{
    if (r->console < 0 || !r->pending_len)
        return;
    ssize_t n = send(r->console, r->pending, r->pending_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0)
        return;
    r->pending_len -= (size_t)n;
    memmove(r->pending, r->pending + n, r->pending_len);
}

/* What the guest is too slow for is lost, as on a real serial line. */
static void queue_key(struct run *r, unsigned char key)
{
    if (r->pending_len < sizeof(r->pending))
        r->pending[r->pending_len++] = key;
}

static void quit(struct run *r)
{
    monitor_request(&r->monitor, "quit");
    if (!r->deadline_ms)
        r->deadline_ms = now_ms() + KILL_AFTER_MS;
}

static void handle_key(struct run *r, unsigned char key)
{
    unsigned char out[2];
    size_t count;
    switch (escape_key(&r->escape, key, out, &count)) {
    case ESCAPE_QUIT:
        quit(r);
        break;
    case ESCAPE_MONITOR:
        monitor_toggle(&r->monitor);
        break;
    case ESCAPE_HELP:
        puts("\nCtrl-A x: leave (the machine ends)  Ctrl-A c: monitor  Ctrl-A Ctrl-A: Ctrl-A");
        fflush(stdout);
        break;
    case ESCAPE_NONE:
        for (size_t i = 0; i < count; i++) {
            if (r->monitor.active)
                monitor_key(&r->monitor, out[i]);
            else
                queue_key(r, out[i]);
        }
        break;
    }
}

static void input_readable(struct run *r)
{
    unsigned char bytes[1024];
    size_t room = sizeof(r->pending) - r->pending_len;
    size_t want = r->interactive || room > sizeof(bytes) ? sizeof(bytes) : room;
    ssize_t n = read(STDIN_FILENO, bytes, want);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        r->input = false; /* the guest goes on without */
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (r->interactive)
            handle_key(r, bytes[i]);
        else
            queue_key(r, bytes[i]);
    }
    flush_pending(r);
}

static void console_readable(struct run *r)
{
    unsigned char bytes[4096];
    ssize_t n = recv(r->console, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        close(r->console);
        r->console = -1;
        return;
    }
    write_all(STDOUT_FILENO, bytes, (size_t)n);
}

/* SIGTERM, SIGINT and SIGHUP go on to the child, which presses the power button first. */
static void signal_readable(struct run *r)
{
    struct signalfd_siginfo info;
    if (read(r->signals, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGCHLD) {
        if (waitpid(r->child, &r->child_status, WNOHANG) == r->child)
            r->child_gone = true;
    } else if (info.ssi_signo == SIGCONT) {
        terminal_again(&r->terminal);
    } else {
        kill(r->child, SIGTERM);
        if (++r->terminations == 2)
            r->deadline_ms = now_ms() + KILL_AFTER_MS;
    }
}

static void relay(struct run *r)
{
    bool control = true;
    while (!r->child_gone) {
        bool room = r->interactive || r->pending_len < sizeof(r->pending);
        struct pollfd p[4] = {
            {.fd = r->signals, .events = POLLIN},
            {.fd = r->input && room ? STDIN_FILENO : -1, .events = POLLIN},
            {.fd = r->console, .events = (short)(POLLIN | (r->pending_len ? POLLOUT : 0))},
            {.fd = control ? r->monitor.control_fd : -1, .events = POLLIN},
        };
        int timeout = -1;
        if (r->deadline_ms) {
            long left = r->deadline_ms - now_ms();
            timeout = left > 0 ? (int)left : 0;
        }
        int n = poll(p, 4, timeout);
        if (n < 0 && errno != EINTR)
            break;
        if (n == 0 && r->deadline_ms) {
            kill(r->child, SIGKILL); /* it had its time */
            r->deadline_ms = now_ms() + KILL_AFTER_MS;
        }
        if (n <= 0)
            continue;
        if (p[2].revents & (POLLIN | POLLHUP | POLLERR))
            console_readable(r);
        if (p[2].revents & POLLOUT)
            flush_pending(r);
        if (p[1].revents)
            input_readable(r);
        if (p[3].revents && !monitor_readable(&r->monitor))
            control = false;
        if (p[0].revents)
            signal_readable(r);
    }
    /* What the guest said last. */
    while (r->console >= 0) {
        struct pollfd p = {.fd = r->console, .events = POLLIN};
        if (poll(&p, 1, 0) <= 0)
            break;
        console_readable(r);
    }
}

static int final_status(const struct run *r)
{
    if (WIFEXITED(r->child_status))
        return WEXITSTATUS(r->child_status);
    if (r->deadline_ms)
        return r->terminations ? VMM_STATUS_TERMINATED : VMM_STATUS_POWEROFF;
    return cli_fail(VMM_STATUS_HOST_ERROR,
                    "machine: its process was killed by signal %d (%s); the machine is lost",
                    WTERMSIG(r->child_status), strsignal(WTERMSIG(r->child_status)));
}

static int run_machine(struct run *r, struct run_options *o)
{
    sigset_t mask, old_mask;
    sigemptyset(&mask);
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGCONT};
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaddset(&mask, signals[i]);
    sigprocmask(SIG_BLOCK, &mask, &old_mask);
    signal(SIGPIPE, SIG_IGN);

    int control[2] = {-1, -1}, console[2] = {-1, -1};
    int config = config_file(o);
    r->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (config < 0 || r->signals < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) ||
        (o->stdio && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console)))
        return cli_fail(VMM_STATUS_HOST_ERROR, "cannot open descriptors: %s", strerror(errno));
    int ret = start_child(r, o, config, control[1], console[1], &old_mask);
    close(config);
    close(control[1]);
    if (console[1] >= 0)
        close(console[1]);
    if (ret >= 0)
        return ret;
    r->console = console[0];
    r->monitor.control_fd = control[0];
    r->input = o->stdio;
    if (o->stdio && isatty(STDIN_FILENO)) {
        r->input = terminal_usable(STDIN_FILENO);
        r->interactive = r->input && !terminal_raw(&r->terminal, STDIN_FILENO);
    }
    relay(r);
    terminal_restore(&r->terminal);
    return final_status(r);
}

int cli_run(int argc, char **argv)
{
    struct run_options o;
    int status = run_options_parse(argc, argv, &o);
    if (status >= 0)
        return status;
    struct run *r = calloc(1, sizeof(*r));
    if (!r)
        return cli_fail(VMM_STATUS_HOST_ERROR, "no memory");
    r->console = -1;
    /* Whoever asks for it by name finds the machine there. */
    const char *name = json_string_value(json_object_get(o.config, "name"));
    char control[RUNTIME_PATH_MAX] = "";
    if (!o.control && runtime_make(name ? name : "mullion", control))
        o.control = control;
    status = run_machine(r, &o);
    runtime_remove(control);
    free(r);
    run_options_free(&o);
    return status;
}
