/*
 * mullion-vmm: the process of one machine. Gets its configuration as JSON on a descriptor, puts the
 * machine together, locks itself in (sandbox.c), runs it and ends with a status that says how the
 * machine ended. Started by `mullion run`; man 8 mullion-vmm.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/machine.h"
#include "vmm/control.h"
#include "vmm/gdb.h"
#include "vmm/remover.h"
#include "vmm/rfb.h"
#include "vmm/sandbox.h"
#include "vmm/status.h"
#include "vmm/vdagent.h"

#define CONFIG_MAX (1u << 20)

struct vmm {
    struct mull_machine *machine;
    struct vmm_control *control;
    struct vmm_gdb *gdb;
    struct vmm_rfb *rfb;
    struct vmm_remover remover;
    int agent_fd; /* to the guest's agent; -1: none */
    int signal_fd;
    struct mull_source *signal_source;
    unsigned terminations; /* SIGTERM and SIGINT so far */
};

struct options {
    int config_fd, control_fd, life_fd;
    const char *control_path, *gdb;
    bool sandbox, verbose;
};

static void print_line(void *opaque, enum mull_log_level level, const char *line)
{
    fprintf(stderr, "mullion: %s\n", line);
}

static const char usage[] =
    "Usage: mullion-vmm --config-fd N [--control-fd N] [--control PATH] [--life-fd N]\n"
    "                   [--gdb WHERE] [--no-sandbox] [--verbose]\n"
    "\n"
    "Runs one machine. It is started by `mullion run`; see mullion-vmm(8).\n"
    "\n"
    "  --config-fd N    descriptor to read the configuration (JSON) from\n"
    "  --control-fd N   a connected socket for JSON-RPC; the machine ends when its peer goes\n"
    "  --control PATH   listen for JSON-RPC on a Unix socket\n"
    "  --life-fd N      a file that gets our PID now and our exit status at the end\n"
    "  --gdb WHERE      listen for GDB: [ADDRESS:]PORT or unix=PATH, with ,wait=on\n"
    "  --no-sandbox     do not lock the process in (for debuggers)\n"
    "  --verbose        say more on standard error\n"
    "  --version, --help\n";

/* @return -1: go on; else the exit status */
static int parse_options(int argc, char **argv, struct options *o)
{
    enum { CONFIG_FD = 256, CONTROL_FD, CONTROL, LIFE_FD, GDB, NO_SANDBOX, VERBOSE, VERSION, HELP };
    static const struct option known[] = {
        {"config-fd", required_argument, NULL, CONFIG_FD},
        {"control-fd", required_argument, NULL, CONTROL_FD},
        {"control", required_argument, NULL, CONTROL},
        {"life-fd", required_argument, NULL, LIFE_FD},
        {"gdb", required_argument, NULL, GDB},
        {"no-sandbox", no_argument, NULL, NO_SANDBOX},
        {"verbose", no_argument, NULL, VERBOSE},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    *o = (struct options){.config_fd = -1, .control_fd = -1, .life_fd = -1, .sandbox = true};
    for (;;) {
        int c = getopt_long(argc, argv, "", known, NULL);
        if (c < 0)
            break;
        switch (c) {
        case CONFIG_FD:
            o->config_fd = atoi(optarg);
            break;
        case CONTROL_FD:
            o->control_fd = atoi(optarg);
            break;
        case CONTROL:
            o->control_path = optarg;
            break;
        case LIFE_FD:
            o->life_fd = atoi(optarg);
            break;
        case GDB:
            o->gdb = optarg;
            break;
        case NO_SANDBOX:
            o->sandbox = false;
            break;
        case VERBOSE:
            o->verbose = true;
            break;
        case VERSION:
            puts("mullion-vmm " MULLION_VERSION);
            return 0;
        case HELP:
            fputs(usage, stdout);
            return 0;
        default:
            return VMM_STATUS_USAGE;
        }
    }
    if (o->config_fd < 0 || optind != argc) {
        fputs(usage, stderr);
        return VMM_STATUS_USAGE;
    }
    return -1;
}

static char *read_all(int fd, struct mull_error *err)
{
    char *text = malloc(CONFIG_MAX + 1);
    size_t have = 0;
    while (text) {
        ssize_t n = read(fd, text + have, CONFIG_MAX - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || (n > 0 && have + (size_t)n == CONFIG_MAX)) {
            mull_fail(err, n < 0 ? errno : E2BIG, "configuration: descriptor %d: %s", fd,
                      n < 0 ? strerror(errno) : "more than 1 MiB");
            free(text);
            return NULL;
        }
        if (n == 0) {
            text[have] = '\0';
            return text;
        }
        have += (size_t)n;
    }
    mull_fail(err, ENOMEM, "configuration: no memory");
    return NULL;
}

/* What we inherited must not go on to a child (passt): a console would never end. */
static void keep_to_ourselves(const struct options *o, const struct mull_machine_config *config)
{
    fcntl(o->control_fd, F_SETFD, FD_CLOEXEC);
    for (unsigned i = 0; i < config->console_count; i++) {
        if (config->console[i].kind != MULL_CONSOLE_FD)
            continue;
        fcntl(config->console[i].in_fd, F_SETFD, FD_CLOEXEC);
        fcntl(config->console[i].out_fd, F_SETFD, FD_CLOEXEC);
    }
    for (unsigned i = 0; i < config->network_count; i++)
        if (config->network[i].fd)
            fcntl(config->network[i].fd, F_SETFD, FD_CLOEXEC);
}

/* SIGTERM presses the power button; a second one pulls the plug. In the loop's thread. */
static void signal_readable(void *opaque, uint32_t events)
{
    struct vmm *vmm = opaque;
    struct signalfd_siginfo info;
    while (read(vmm->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        struct mull_error err = {0};
        if (vmm->terminations++ == 0 && !mull_machine_power_button(vmm->machine, &err))
            continue;
        mull_machine_stop(vmm->machine);
    }
}

static int watch_signals(struct vmm *vmm, const sigset_t *signals, struct mull_error *err)
{
    vmm->signal_fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (vmm->signal_fd < 0)
        return mull_fail(err, errno, "signals: %s", strerror(errno));
    return mull_loop_watch(mull_machine_loop(vmm->machine), vmm->signal_fd, EPOLLIN,
                           signal_readable, vmm, &vmm->signal_source, err);
}

/* A channel of the virtio console, by the name that the agent looks for. Before the machine is
 * made: it has the other end. */
static int add_agent(struct vmm *vmm, struct mull_machine_config *config, struct mull_error *err)
{
    int fds[2];
    if (config->display != MULL_DISPLAY_VNC || !config->display_clipboard)
        return 0;
    if (config->console_count == MULL_CONFIG_CONSOLES)
        return mull_fail(err, ENOSPC, "--display: clipboard=on needs a channel; there are %d",
                         MULL_CONFIG_CONSOLES);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        return mull_fail(err, errno, "--display: clipboard=on: %s", strerror(errno));
    vmm->agent_fd = fds[0];
    config->console[config->console_count++] =
        (struct mull_console_config){.kind = MULL_CONSOLE_FD,
                                     .device = MULL_CONSOLE_CHANNEL,
                                     .in_fd = fds[1],
                                     .out_fd = fds[1],
                                     .name = strdup(VMM_VDAGENT_CHANNEL)};
    return config->console[config->console_count - 1].name ? 0
                                                           : mull_fail(err, ENOMEM, "no memory");
}

static int serve_display(struct vmm *vmm, const struct mull_machine_config *config,
                         const struct mull_log *log, struct mull_error *err)
{
    const struct vmm_rfb_config rfb = {.machine = vmm->machine,
                                       .log = log,
                                       .listen = config->display_listen,
                                       .password_file = config->display_password_file,
                                       .certificates = config->display_certificates,
                                       .anonymous = config->display_anonymous,
                                       .keymap = config->display_keymap,
                                       .agent = vmm->agent_fd};
    return vmm_rfb_create(&rfb, &vmm->rfb, err);
}

/* Whoever gave us --life-fd removes the folder of the control socket with all that is in it. */
static bool is_ours(const struct options *o, const char *path)
{
    const char *slash = o->life_fd >= 0 && o->control_path ? strrchr(o->control_path, '/') : NULL;
    size_t n = slash ? (size_t)(slash - o->control_path) + 1 : 0;
    return path && !(n && !strncmp(path, o->control_path, n) && !strchr(path + n, '/'));
}

static const char *socket_of(const struct mull_console_config *console)
{
    return console->kind == MULL_CONSOLE_UNIX ? console->path : NULL;
}

/* As early as we know that there are names to be removed at our end. */
static int begin_remover(struct vmm *vmm, const struct options *o,
                         const struct mull_machine_config *config, struct mull_error *err)
{
    bool wanted = is_ours(o, o->control_path) || o->gdb || is_ours(o, config->vsock_path) ||
                  (config->display_listen && !strncmp(config->display_listen, "unix:", 5) &&
                   is_ours(o, config->display_listen + 5));
    for (unsigned i = 0; i < config->console_count; i++)
        wanted |= is_ours(o, socket_of(&config->console[i]));
    return wanted ? vmm_remover_start(&vmm->remover, err) : 0;
}

static int tell_remover(const struct vmm *vmm, const struct options *o,
                        const struct mull_machine_config *config, struct mull_error *err)
{
    const char *paths[4 + MULL_CONFIG_CONSOLES] = {o->control_path, vmm_gdb_path(vmm->gdb),
                                                   vmm_rfb_path(vmm->rfb), config->vsock_path};
    int ret = 0;
    for (unsigned i = 0; i < config->console_count; i++)
        paths[4 + i] = socket_of(&config->console[i]);
    for (unsigned i = 0; i < 4 + config->console_count && !ret; i++)
        if (is_ours(o, paths[i]))
            ret = vmm_remover_add(&vmm->remover, paths[i], err);
    return ret ? ret : vmm_remover_seal(&vmm->remover, err);
}

static int run_machine(struct vmm *vmm, const struct options *o,
                       const struct mull_machine_config *config, const struct mull_log *log,
                       const sigset_t *signals, struct mull_error *err)
{
    struct vmm_control_config control = {
        .machine = vmm->machine, .log = log, .fd = o->control_fd, .path = o->control_path};
    int ret = vmm_gdb_create(vmm->machine, log, o->gdb, &vmm->gdb, err);
    control.gdb = vmm->gdb;
    if (!ret)
        ret = vmm_control_create(&control, &vmm->control, err);
    if (!ret)
        ret = watch_signals(vmm, signals, err);
    if (!ret && config->display == MULL_DISPLAY_VNC && config->display_listen)
        ret = serve_display(vmm, config, log, err);
    if (!ret)
        ret = tell_remover(vmm, o, config, err);
    if (!ret && o->sandbox)
        ret = vmm_sandbox_enter(log, err);
    struct mull_machine_info info;
    mull_machine_info(vmm->machine, &info);
    mull_log(log, MULL_LOG_INFO, "%s", info.engine_why);
    if (!ret)
        ret = mull_machine_start(vmm->machine, err);
    if (ret)
        return VMM_STATUS_HOST_ERROR;
    switch (mull_machine_wait(vmm->machine, err)) {
    case MULL_END_POWEROFF:
        return VMM_STATUS_POWEROFF;
    case MULL_END_STOPPED:
        return vmm->terminations ? VMM_STATUS_TERMINATED : VMM_STATUS_POWEROFF;
    case MULL_END_RESET:
        return VMM_STATUS_RESET;
    case MULL_END_SHUTDOWN:
        return VMM_STATUS_TRIPLE_FAULT;
    case MULL_END_PANIC:
        return VMM_STATUS_PANIC;
    case MULL_END_EXIT: /* as QEMU's isa-debug-exit, so that a status of 0 is never the guest's */
        mull_machine_info(vmm->machine, &info);
        return (int)((info.exit_value << 1 | 1) & 0xff);
    case MULL_END_NONE:
    case MULL_END_FAILED:
        break;
    }
    return VMM_STATUS_HOST_ERROR;
}

/* One line of the file by which whoever supervises us knows that we live (it is locked as long as
 * somebody has it open) and how we have ended. */
static void tell_life(int fd, const char *word, int value)
{
    char line[64];
    int n = snprintf(line, sizeof(line), "%s %d\n", word, value);
    if (fd >= 0 && write(fd, line, (size_t)n) != n)
        fprintf(stderr, "mullion: --life-fd: %s\n", strerror(errno));
}

int main(int argc, char **argv)
{
    struct options o;
    int status = parse_options(argc, argv, &o);
    if (status >= 0)
        return status;

    /* Blocked here, so that only the signalfd sees them. */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit of file sizes is an error like others */

    struct mull_log log = {.level = o.verbose ? MULL_LOG_INFO : MULL_LOG_WARN, .sink = print_line};
    struct mull_error err = {0};
    struct mull_machine_config config = {0};
    struct vmm vmm = {.signal_fd = -1, .agent_fd = -1};
    status = VMM_STATUS_HOST_ERROR;
    fcntl(o.life_fd, F_SETFD, FD_CLOEXEC);
    tell_life(o.life_fd, "pid", getpid());
    char *json = read_all(o.config_fd, &err);
    close(o.config_fd);
    if (json && !mull_machine_config_parse(json, &config, &err)) {
        keep_to_ourselves(&o, &config);
        if (!begin_remover(&vmm, &o, &config, &err) && !add_agent(&vmm, &config, &err) &&
            !mull_machine_create(&config, &log, &vmm.machine, &err))
            status = run_machine(&vmm, &o, &config, &log, &signals, &err);
    }
    if (status == VMM_STATUS_HOST_ERROR)
        fprintf(stderr, "mullion: %s\n", *err.message ? err.message : "machine: failed");
    mull_machine_halt(vmm.machine);
    vmm_control_destroy(vmm.control);
    vmm_gdb_destroy(vmm.gdb);
    vmm_rfb_destroy(vmm.rfb);
    mull_machine_destroy(vmm.machine);
    vmm_remover_finish(&vmm.remover);
    mull_machine_config_free(&config);
    free(json);
    tell_life(o.life_fd, "status", status);
    return status;
}
