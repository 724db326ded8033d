/*
 * mulliond: options, signals, and the order in which the host and its API begin and end. man 8
 * mulliond.
 */
#include <errno.h>
#include <getopt.h>
#include <gnutls/gnutls.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/rest/rest.h"
#include "host/balance.h"
#include "host/daemon.h"
#include "host/machines.h"
#include "host/notify.h"
#include "host/tasks.h"

#define STOP_SECONDS 90

static const char usage[] =
    "Usage: mulliond [OPTION]...\n"
    "\n"
    "Keeps machines and serves Mullion's API and portal; see mulliond(8).\n"
    "\n"
    "  --system           run as the host's service: /var/lib/mullion, /run/mullion, /etc/mullion\n"
    "  --data FOLDER      where machines, disks and the database are\n"
    "  --runtime FOLDER   where sockets are\n"
    "  --config FILE      the configuration\n"
    "  --listen WHERE     ADDRESS:PORT for HTTPS, or none (127.0.0.1:8443)\n"
    "  --portal FOLDER    the portal's files\n"
    "  --verbose          say more on standard error\n"
    "  --release          only give back the unit's control group (ExecStopPost=)\n"
    "  --version, --help\n"
    "\n"
    "Signals: SIGTERM ends the daemon, machines go on; SIGUSR1 switches them off first.\n";

struct daemon {
    struct host host;
    struct rest *rest;
    char *manager; /* who wants to know that we are ready; NULL: nobody */
    int signal_fd;
    struct mull_source *signals;
    pthread_t ending;
    bool has_ending;
};

static void print_line(void *opaque, enum mull_log_level level, const char *line)
{
    fprintf(stderr, "mulliond: %s\n", line);
}

struct arguments {
    const char *data, *runtime, *config, *listen, *portal;
    bool system, verbose, release;
};

/* @return -1: go on; else the exit status */
static int parse(int argc, char **argv, struct arguments *a)
{
    enum { SYSTEM = 256, DATA, RUNTIME, CONFIG, LISTEN, PORTAL, VERBOSE, RELEASE, VERSION, HELP };
    static const struct option known[] = {
        {"system", no_argument, NULL, SYSTEM},
        {"data", required_argument, NULL, DATA},
        {"runtime", required_argument, NULL, RUNTIME},
        {"config", required_argument, NULL, CONFIG},
        {"listen", required_argument, NULL, LISTEN},
        {"portal", required_argument, NULL, PORTAL},
        {"verbose", no_argument, NULL, VERBOSE},
        {"release", no_argument, NULL, RELEASE},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    int c;
    while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
        switch (c) {
        case SYSTEM:
            a->system = true;
            break;
        case DATA:
            a->data = optarg;
            break;
        case RUNTIME:
            a->runtime = optarg;
            break;
        case CONFIG:
            a->config = optarg;
            break;
        case LISTEN:
            a->listen = optarg;
            break;
        case PORTAL:
            a->portal = optarg;
            break;
        case VERBOSE:
            a->verbose = true;
            break;
        case RELEASE:
            a->release = true;
            break;
        case VERSION:
            puts("mulliond " MULLION_VERSION);
            return 0;
        case HELP:
            fputs(usage, stdout);
            return 0;
        default:
            return 2;
        }
    }
    if (optind != argc) {
        fputs(usage, stderr);
        return 2;
    }
    return -1;
}

/* Beside the program in a build, in the sources around that, or installed. */
static char *find_portal(const char *given)
{
    char self[4096], path[4200];
    static const char *const beside[] = {"portal/dist", "../portal/dist"};
    if (given)
        return realpath(given, NULL);
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        for (unsigned i = 0; i < 2; i++) {
            snprintf(path, sizeof(path), "%s/%s/index.html", self, beside[i]);
            if (!access(path, R_OK)) {
                *strrchr(path, '/') = '\0';
                return realpath(path, NULL);
            }
        }
    }
    return access(MULLION_DATADIR "/portal/index.html", R_OK) ? NULL
                                                              : strdup(MULLION_DATADIR "/portal");
}

/* Waits for tasks and machines, which need the loop: so not in its thread. */
static void *end(void *opaque)
{
    struct daemon *d = opaque;
    rest_stop(d->rest);
    tasks_close(&d->host);
    if (d->host.stop_machines)
        machines_stop_all(&d->host, STOP_SECONDS);
    mull_loop_stop(d->host.loop);
    return NULL;
}

static void signalled(void *opaque, uint32_t events)
{
    struct daemon *d = opaque;
    struct signalfd_siginfo info;
    while (read(d->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        host_lock(&d->host);
        d->host.stop_machines |= info.ssi_signo == SIGUSR1;
        d->host.ending = true;
        host_unlock(&d->host);
        if (!d->has_ending)
            d->has_ending = !pthread_create(&d->ending, NULL, end, d);
    }
}

/* Who manages us finds us here: PID, the portal's URL (or an empty line), the data folder. */
static void tell_where(struct daemon *d)
{
    struct host *host = &d->host;
    char text[4608];
    char *path = host_path(host->places.runtime, "mulliond.pid");
    snprintf(text, sizeof(text), "%d\n%s\n%s\n", (int)getpid(), host->url ? host->url : "",
             host->places.data);
    if (path)
        host_write_file(path, text, strlen(text), 0600, NULL);
    if (path && host->places.system) /* its folder lets its group in, and nobody else */
        chmod(path, 0640);
    free(path);
    if (host->url)
        mull_log(&host->log, MULL_LOG_WARN, "serving %s", host->url);
    snprintf(text, sizeof(text), "READY=1\nSTATUS=%s%s",
             host->url ? "Serving " : "Serving its socket", host->url ? host->url : "");
    int ret = host_notify(d->manager, text);
    if (ret)
        mull_log(&host->log, MULL_LOG_WARN, "service manager: %s", strerror(-ret));
}

static int run(struct daemon *d, struct mull_error *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR1);
    d->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    int ret = host_open(&d->host, err);
    if (!ret)
        ret = rest_open(&d->host, &d->rest, err);
    if (!ret)
        ret = mull_loop_watch(d->host.loop, d->signal_fd, EPOLLIN, signalled, d, &d->signals, err);
    if (!ret) {
        tell_where(d);
        mull_loop_run(d->host.loop);
    }
    if (d->has_ending)
        pthread_join(d->ending, NULL);
    char *pid = host_path(d->host.places.runtime, "mulliond.pid");
    if (!ret && pid)
        unlink(pid);
    free(pid);
    return ret;
}

/* What a daemon before us divides in the unit's control group would keep the next one out of it. */
static int release(void)
{
    struct mull_error err = {0};
    if (!balance_release(&err))
        return 0;
    fprintf(stderr, "mulliond: %s\n", err.message);
    return 1;
}

int main(int argc, char **argv)
{
    struct arguments a = {0};
    int status = parse(argc, argv, &a);
    if (status >= 0)
        return status;
    if (a.release)
        return release();
    struct daemon *d = calloc(1, sizeof(*d));
    struct mull_error err = {0};
    sigset_t signals;
    if (!d)
        return 1;
    sigfillset(&signals);
    sigdelset(&signals, SIGSEGV);
    sigdelset(&signals, SIGBUS);
    sigdelset(&signals, SIGFPE);
    sigdelset(&signals, SIGILL);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a full disk is an error like others */
    umask(077);
    /* What the service may do on the network is ours, not what we start has it too: net/process.c
     * hands on what one needs. */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0); /* secrets are not for core files */
    d->manager = host_notify_take();
    d->host.log =
        (struct mull_log){.level = a.verbose ? MULL_LOG_INFO : MULL_LOG_WARN, .sink = print_line};
    d->host.lock_fd = -1;
    int ret = host_places_find(&d->host.places, a.system, a.data, a.runtime, a.config, &err);
    if (!ret)
        ret = host_options_read(&d->host.options, &d->host.places, &err);
    if (!ret && a.listen) {
        free(d->host.options.listen);
        d->host.options.listen = strdup(a.listen);
    }
    if (!ret) {
        d->host.places.portal = find_portal(a.portal);
        ret = run(d, &err);
        rest_close(d->rest);
        host_close(&d->host);
    }
    if (ret)
        fprintf(stderr, "mulliond: %s\n", *err.message ? err.message : strerror(-ret));
    host_options_free(&d->host.options);
    host_places_free(&d->host.places);
    free(d->manager);
    free(d);
    return ret ? 1 : 0;
}
