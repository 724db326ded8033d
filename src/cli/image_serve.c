/*
 * `mullion image serve`: an image for other programs, over NBD, until it is interrupted, its last
 * client has gone (--once) or the command it was started for has ended (--run).
 */
#include "cli/image.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/nbd/server.h"

#define BITMAPS_MAX 6

enum {
    OPT_FROM = 256,
    OPT_LISTEN,
    OPT_NAME,
    OPT_DESCRIPTION,
    OPT_WRITABLE,
    OPT_TLS,
    OPT_TLS_CERTIFICATES,
    OPT_TLS_PSK,
    OPT_TLS_VERIFY,
    OPT_MAX_CLIENTS,
    OPT_MEMORY,
    OPT_BITMAP,
    OPT_ONCE,
    OPT_RUN,
    OPT_SNAPSHOT,
};

struct serve {
    const char *path, *from, *listen, *name, *description, *snapshot, *run;
    const char *certificates, *psk;
    const char *bitmaps[BITMAPS_MAX + 1];
    int nbitmaps;
    bool writable, tls_required, verify, once, seen;
    unsigned max_clients;
    uint64_t memory;

    struct mull_loop *loop;
    struct mull_block *block;
    struct mull_tls *tls;
    struct mull_nbd_server *server;
    struct mull_source *signals;
    int signal_fd, listen_fd;
    char *socket_path; /* to remove at the end */
    char *socket_folder;
    char uri[512];
    pid_t child;
    int status;
};

static int count_argument(const char *text, unsigned *out)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n < 1 || n > 4096)
        return image_fail(1, "serve: '%s' is not a number from 1 to 4096", text);
    *out = (unsigned)n;
    return 0;
}

static int parse_option(struct serve *s, int opt, char *value)
{
    switch (opt) {
    case OPT_FROM:
        s->from = value;
        return 0;
    case OPT_LISTEN:
        s->listen = value;
        return 0;
    case OPT_NAME:
        s->name = value;
        return strlen(value) > 4096 ? image_fail(1, "serve: --name is too long") : 0;
    case OPT_DESCRIPTION:
        s->description = value;
        return 0;
    case OPT_SNAPSHOT:
        s->snapshot = value;
        return 0;
    case OPT_WRITABLE:
        s->writable = true;
        return 0;
    case OPT_TLS:
        s->tls_required = !strcmp(value, "required");
        return s->tls_required || !strcmp(value, "optional")
                   ? 0
                   : image_fail(1, "serve: --tls is required or optional");
    case OPT_TLS_CERTIFICATES:
        s->certificates = value;
        return 0;
    case OPT_TLS_PSK:
        s->psk = value;
        return 0;
    case OPT_TLS_VERIFY:
        s->verify = true;
        return 0;
    case OPT_MAX_CLIENTS:
        return count_argument(value, &s->max_clients);
    case OPT_MEMORY:
        return image_parse_size(value, &s->memory) ? 0
                                                   : image_fail(1, "serve: --memory takes a size");
    case OPT_BITMAP:
        if (s->nbitmaps == BITMAPS_MAX)
            return image_fail(1, "serve: at most %d bitmaps", BITMAPS_MAX);
        s->bitmaps[s->nbitmaps++] = value;
        return 0;
    case OPT_ONCE:
        s->once = true;
        return 0;
    case OPT_RUN:
        s->run = value;
        return 0;
    default:
        return 1;
    }
}

static int parse(int argc, char **argv, struct serve *s)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, OPT_FROM},
        {"listen", required_argument, NULL, OPT_LISTEN},
        {"name", required_argument, NULL, OPT_NAME},
        {"description", required_argument, NULL, OPT_DESCRIPTION},
        {"snapshot", required_argument, NULL, OPT_SNAPSHOT},
        {"writable", no_argument, NULL, OPT_WRITABLE},
        {"tls", required_argument, NULL, OPT_TLS},
        {"tls-certificates", required_argument, NULL, OPT_TLS_CERTIFICATES},
        {"tls-psk", required_argument, NULL, OPT_TLS_PSK},
        {"tls-verify-clients", no_argument, NULL, OPT_TLS_VERIFY},
        {"max-clients", required_argument, NULL, OPT_MAX_CLIENTS},
        {"memory", required_argument, NULL, OPT_MEMORY},
        {"bitmap", required_argument, NULL, OPT_BITMAP},
        {"once", no_argument, NULL, OPT_ONCE},
        {"run", required_argument, NULL, OPT_RUN},
        {0},
    };
    int opt;

    s->name = "";
    s->tls_required = true;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (parse_option(s, opt, optarg))
            return 1;
    if (argc - optind != 1)
        return image_fail(1, "serve: give one FILE");
    if (s->certificates && s->psk)
        return image_fail(1, "serve: --tls-certificates or --tls-psk, not both");
    if (s->writable && s->snapshot)
        return image_fail(1, "serve: a snapshot is only read; leave --writable off");
    s->path = argv[optind];
    return 0;
}

/* Put what a URI cannot hold as it is into %XX. */
static void append_escaped(char *out, size_t room, const char *text)
{
    size_t at = strlen(out);
    for (; *text && at + 4 < room; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     strchr("-._~/", c);
        at += (size_t)snprintf(out + at, room - at, plain ? "%c" : "%%%02X", c);
    }
}

static int listen_unix(struct serve *s, const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(sa.sun_path))
        return image_fail(1, "serve: %s: too long for a socket's path", path);
    strcpy(sa.sun_path, path);
    s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Whoever can open the socket reads the disk: its owner only. */
    mode_t old = umask(0177);
    int ret = s->listen_fd < 0 ? -1 : bind(s->listen_fd, (struct sockaddr *)&sa, sizeof(sa));
    umask(old);
    if (ret < 0 || listen(s->listen_fd, 64) < 0)
        return image_fail(1, "serve: cannot listen on %s: %s", path, strerror(errno));
    s->socket_path = strdup(path);
    snprintf(s->uri, sizeof(s->uri), "nbd%s+unix:///", s->tls && s->tls_required ? "s" : "");
    append_escaped(s->uri, sizeof(s->uri), s->name);
    strncat(s->uri, "?socket=", sizeof(s->uri) - strlen(s->uri) - 1);
    append_escaped(s->uri, sizeof(s->uri), path);
    return 0;
}

static int listen_tcp(struct serve *s, const char *text)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *all;
    struct sockaddr_storage sa;
    socklen_t length = sizeof(sa);
    char host[256], actual_host[128], actual_port[16];
    const char *colon = strrchr(text, ':');
    int one = 1;

    size_t n = colon ? (size_t)(colon - text) : 0;
    if (!colon || n >= sizeof(host) || !colon[1])
        return image_fail(1, "serve: --listen %s: give HOST:PORT or unix:PATH", text);
    bool bracketed = n > 2 && text[0] == '[' && text[n - 1] == ']';
    snprintf(host, sizeof(host), "%.*s", (int)(bracketed ? n - 2 : n), text + bracketed);
    int found = getaddrinfo(n ? host : "127.0.0.1", colon + 1, &hints, &all);
    if (found)
        return image_fail(1, "serve: --listen %s: %s", text, gai_strerror(found));
    s->listen_fd =
        socket(all->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, all->ai_protocol);
    if (s->listen_fd >= 0)
        setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    int ret = s->listen_fd < 0 ? -1 : bind(s->listen_fd, all->ai_addr, all->ai_addrlen);
    freeaddrinfo(all);
    if (ret < 0 || listen(s->listen_fd, 64) < 0 ||
        getsockname(s->listen_fd, (struct sockaddr *)&sa, &length) < 0)
        return image_fail(1, "serve: cannot listen on %s: %s", text, strerror(errno));
    getnameinfo((struct sockaddr *)&sa, length, actual_host, sizeof(actual_host), actual_port,
                sizeof(actual_port), NI_NUMERICHOST | NI_NUMERICSERV);
    bool six = strchr(actual_host, ':');
    snprintf(s->uri, sizeof(s->uri), "nbd%s://%s%s%s:%s/", s->tls && s->tls_required ? "s" : "",
             six ? "[" : "", actual_host, six ? "]" : "", actual_port);
    append_escaped(s->uri, sizeof(s->uri), s->name);
    return 0;
}

/* A socket in a folder of its own, for --run. */
static int listen_private(struct serve *s)
{
    const char *tmp = getenv("TMPDIR");
    char path[108];

    if (asprintf(&s->socket_folder, "%s/mullion-serve-XXXXXX", tmp && *tmp ? tmp : "/tmp") < 0)
        s->socket_folder = NULL;
    if (!s->socket_folder || !mkdtemp(s->socket_folder)) {
        free(s->socket_folder);
        s->socket_folder = NULL;
        return image_fail(1, "serve: cannot make a folder for the socket: %s", strerror(errno));
    }
    snprintf(path, sizeof(path), "%.90s/nbd", s->socket_folder);
    return listen_unix(s, path);
}

static void on_signal(void *opaque, uint32_t events)
{
    struct serve *s = opaque;
    struct signalfd_siginfo info;
    int status;

    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo != SIGCHLD) {
            mull_loop_stop(s->loop);
        } else if (s->child > 0 && waitpid(s->child, &status, WNOHANG) == s->child) {
            s->child = 0;
            s->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            mull_loop_stop(s->loop);
        }
    }
}

static int catch_signals(struct serve *s, struct mull_error *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signal_fd < 0)
        return mull_fail(err, errno, "signalfd: %s", strerror(errno));
    return mull_loop_watch(s->loop, s->signal_fd, EPOLLIN, on_signal, s, &s->signals, err);
}

static int run_command(struct serve *s)
{
    s->child = fork();
    if (s->child < 0)
        return image_fail(1, "serve: fork: %s", strerror(errno));
    if (s->child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        setenv("uri", s->uri, 1);
        setenv("socket", s->socket_path ? s->socket_path : "", 1);
        execl("/bin/sh", "sh", "-c", s->run, (char *)NULL);
        _exit(127);
    }
    return 0;
}

static void on_clients(void *opaque, unsigned clients)
{
    struct serve *s = opaque;
    s->seen = s->seen || clients;
    if (s->once && s->seen && !clients)
        mull_loop_stop(s->loop);
}

static int open_all(struct serve *s, struct mull_nbd_export *export, struct mull_error *err)
{
    struct mull_block_options bo = {.path = s->path,
                                    .format = s->from,
                                    .readonly = !s->writable,
                                    .snapshot = s->snapshot,
                                    .source = image_source(),
                                    .log = &image_log};
    int ret = mull_loop_create(&s->loop, err);

    /* Before any thread is made: signals are for the descriptor. */
    if (!ret)
        ret = catch_signals(s, err);
    if (!ret)
        ret = mull_block_open(&bo, &s->block, err);
    if (!ret)
        ret = mull_block_start(s->block, s->loop, err);
    if (!ret && (s->certificates || s->psk))
        ret = mull_tls_load(true, s->certificates, s->psk, NULL, s->verify, &s->tls, err);
    *export = (struct mull_nbd_export){.name = s->name,
                                       .description = s->description,
                                       .block = s->block,
                                       .readonly = !s->writable,
                                       .bitmaps = s->bitmaps};
    struct mull_nbd_options so = {.loop = s->loop,
                                  .exports = export,
                                  .nexports = 1,
                                  .tls = s->tls,
                                  .tls_required = s->tls && s->tls_required,
                                  .max_clients = s->max_clients,
                                  .memory = s->memory,
                                  .changed = on_clients,
                                  .opaque = s,
                                  .log = &image_log};
    return ret ? ret : mull_nbd_server_create(&so, &s->server, err);
}

static int start_listening(struct serve *s)
{
    const char *at = s->listen ? s->listen : "127.0.0.1:10809";
    struct mull_error err = {0};
    int status;

    if (!s->listen && s->run)
        status = listen_private(s);
    else if (!strncmp(at, "unix:", 5))
        status = listen_unix(s, at + 5);
    else
        status = listen_tcp(s, at);
    if (!status && mull_nbd_server_listen(s->server, s->listen_fd, &err))
        status = image_fail(1, "%s", err.message);
    return status;
}

static int serve(struct serve *s)
{
    struct mull_nbd_export export;
    struct mull_error err = {0};

    if (open_all(s, &export, &err))
        return image_fail(1, "%s", err.message);
    int status = start_listening(s);
    if (!status && s->run)
        status = run_command(s);
    if (status)
        return status;
    if (!s->run) {
        puts(s->uri);
        fflush(stdout);
    }
    mull_loop_run(s->loop);
    /* Requests under way end, then the disk is flushed and closed. */
    mull_nbd_server_destroy(s->server);
    s->server = NULL;
    if (s->child > 0) {
        kill(s->child, SIGTERM);
        waitpid(s->child, NULL, 0);
    }
    return s->status;
}

int image_serve(int argc, char **argv)
{
    struct serve s = {.signal_fd = -1, .listen_fd = -1};

    int status = parse(argc, argv, &s);
    if (!status)
        status = serve(&s);
    mull_nbd_server_destroy(s.server);
    mull_block_close(s.block);
    mull_tls_free(s.tls);
    mull_source_remove(s.signals);
    mull_loop_destroy(s.loop);
    if (s.signal_fd >= 0)
        close(s.signal_fd);
    if (s.listen_fd >= 0)
        close(s.listen_fd);
    if (s.socket_path)
        unlink(s.socket_path);
    if (s.socket_folder)
        rmdir(s.socket_folder);
    free(s.socket_path);
    free(s.socket_folder);
    return status;
}
