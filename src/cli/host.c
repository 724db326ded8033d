/*
 * `mullion host`: begin and end this user's own host (mulliond), say where it is, set a password.
 * Knows the daemon by its files in the runtime folder and by its API.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/api/command.h"
#include "cli/api/place.h"
#include "cli/cli.h"

#define START_SECONDS 60
#define STOP_SECONDS 150

static const char usage[] =
    "Usage: mullion host start [OPTION]... | stop [--keep-machines] | status | passwd [USER]\n"
    "\n"
    "Begins and ends your own host: mulliond, which keeps machines and serves the portal.\n"
    "\n"
    "  start              start mulliond in the background; say the portal's URL\n"
    "    --listen WHERE     ADDRESS:PORT for HTTPS, or none (127.0.0.1:8443)\n"
    "    --data FOLDER      where machines are (~/.local/share/mullion/host)\n"
    "    --config FILE      the configuration\n"
    "    --portal FOLDER    the portal's files\n"
    "  stop               switch the machines off, then end it\n"
    "    --keep-machines    let them run: the next host finds them\n"
    "  status             say whether it runs, and where\n"
    "    --format json      the same for programs\n"
    "  passwd [USER]      set a password (admin's); read from the terminal or standard input\n"
    "  --help             show this text\n"
    "\n"
    "Exit status: 0 done, 1 not done, 2 wrong usage, 6 no host runs (status).\n";

/* What the daemon tells in RUNTIME/mulliond.pid. */
struct running {
    int pid;
    char url[128], data[PATH_MAX];
};

static char *runtime_file(const char *name)
{
    char *path = host_place_socket(), *file = NULL;
    char *slash = path ? strrchr(path, '/') : NULL;
    if (slash && asprintf(&file, "%.*s/%s", (int)(slash - path), path, name) < 0)
        file = NULL;
    free(path);
    return file;
}

static bool find_running(struct running *r)
{
    char *path = runtime_file("mulliond.pid");
    FILE *f = path ? fopen(path, "re") : NULL;
    memset(r, 0, sizeof(*r));
    if (f) {
        char line[32];
        if (fgets(line, sizeof(line), f))
            r->pid = atoi(line);
        if (!fgets(r->url, sizeof(r->url), f) || !fgets(r->data, sizeof(r->data), f))
            r->pid = 0;
        r->url[strcspn(r->url, "\n")] = r->data[strcspn(r->data, "\n")] = '\0';
        fclose(f);
    }
    free(path);
    return r->pid > 0 && (!kill(r->pid, 0) || errno == EPERM);
}

/* What `mullion context add` shows elsewhere, to be compared. @return false: there is none */
static bool find_key(const struct running *r, char pin[64])
{
    char path[PATH_MAX + 32], pem[16384];
    struct mull_error err;
    snprintf(path, sizeof(path), "%s/tls/cert.pem", r->data);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(pem, 1, sizeof(pem) - 1, f) : 0;
    if (f)
        fclose(f);
    pem[n] = '\0';
    return n && !api_certificate_pin(pem, pin, &err);
}

static int say_where(const struct running *r)
{
    char path[PATH_MAX + 32], pin[64];
    printf("the host runs (process %d)\n", r->pid);
    if (*r->url)
        printf("portal: %s\n", r->url);
    if (*r->url && find_key(r, pin))
        printf("its key: %s\n", pin);
    snprintf(path, sizeof(path), "%s/initial-password", r->data);
    if (!access(path, R_OK))
        printf("log in as admin with the password in %s;\n"
               "`mullion host passwd` sets another\n",
               path);
    return fflush(stdout) ? VMM_STATUS_HOST_ERROR : 0;
}

/* The same for programs. @param r  NULL: none runs */
static int say_json(const struct running *r)
{
    char path[PATH_MAX + 32], pin[64];
    json_t *said = json_pack("{s:b}", "running", r != NULL);
    if (r) {
        char *socket = host_place_socket();
        snprintf(path, sizeof(path), "%s/initial-password", r->data);
        json_object_update_new(said,
                               json_pack("{s:i, s:s*, s:s, s:s*, s:s*, s:s*}", "pid", r->pid, "url",
                                         *r->url ? r->url : NULL, "data", r->data, "socket", socket,
                                         "key", *r->url && find_key(r, pin) ? pin : NULL,
                                         "initial_password", access(path, R_OK) ? NULL : path));
        free(socket);
    }
    json_dumpf(said, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(said);
    if (fflush(stdout))
        return VMM_STATUS_HOST_ERROR;
    return r ? 0 : API_UNREACHABLE;
}

/* ---- start ---- */

static void daemon_path(char path[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 16);
    if (n > 0) {
        path[n] = '\0';
        strcpy(strrchr(path, '/') + 1, "mulliond");
        if (!access(path, X_OK))
            return;
        /* PREFIX/bin/mullion, PREFIX/sbin/mulliond */
        *strrchr(path, '/') = '\0';
        char *bin = strrchr(path, '/');
        if (bin && bin - path < PATH_MAX - 32) {
            strcpy(bin, "/sbin/mulliond");
            if (!access(path, X_OK))
                return;
        }
    }
    strcpy(path, "mulliond");
}

/* Its messages go to a file that we show where it cannot start. */
static void become_daemon(char **argv, int log)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setsid();
    dup2(null, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "mulliond: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static int show_log(int log)
{
    char text[2048];
    ssize_t n = pread(log, text, sizeof(text) - 1, 0);
    if (n > 0)
        fwrite(text, 1, (size_t)n, stderr);
    return cli_fail(VMM_STATUS_HOST_ERROR, "host start: mulliond has ended");
}

static int wait_for(pid_t child, int log)
{
    for (unsigned i = 0; i < START_SECONDS * 20; i++) {
        struct running r;
        int status;
        if (waitpid(child, &status, WNOHANG) == child)
            return show_log(log);
        if (find_running(&r) && r.pid == child)
            return say_where(&r);
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    return cli_fail(VMM_STATUS_HOST_ERROR, "host start: mulliond does not answer");
}

static int start(int argc, char **argv)
{
    static const struct option known[] = {{"listen", required_argument, NULL, 'l'},
                                          {"data", required_argument, NULL, 'd'},
                                          {"config", required_argument, NULL, 'c'},
                                          {"portal", required_argument, NULL, 'p'},
                                          {0}};
    struct running r;
    char path[PATH_MAX];
    int c;
    optind = 0;
    while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0)
        if (c == '?')
            return VMM_STATUS_USAGE;
    if (optind != argc)
        return cli_fail(VMM_STATUS_USAGE, "host start: '%s': not expected", argv[optind]);
    if (find_running(&r))
        return say_where(&r);
    daemon_path(path);
    char name[] = "/tmp/mullion-host.XXXXXX";
    int log = mkostemp(name, O_CLOEXEC);
    if (log < 0)
        return cli_fail(VMM_STATUS_HOST_ERROR, "host start: %s: %s", name, strerror(errno));
    unlink(name);
    argv[0] = path;
    pid_t child = fork();
    if (!child)
        become_daemon(argv, log);
    int status = child < 0 ? cli_fail(VMM_STATUS_HOST_ERROR, "host start: %s", strerror(errno))
                           : wait_for(child, log);
    close(log);
    return status;
}

/* ---- stop, status, passwd ---- */

static int stop(int argc, char **argv)
{
    struct running r;
    bool keep = argc == 2 && !strcmp(argv[1], "--keep-machines");
    if (argc > 1 && !keep)
        return cli_fail(VMM_STATUS_USAGE, "host stop: '%s': not expected", argv[1]);
    if (!find_running(&r)) {
        puts("no host runs");
        return 0;
    }
    if (kill(r.pid, keep ? SIGTERM : SIGUSR1))
        return cli_fail(VMM_STATUS_HOST_ERROR, "host stop: process %d: %s", r.pid, strerror(errno));
    for (unsigned i = 0; i < STOP_SECONDS * 20; i++) {
        struct running now;
        if (!find_running(&now) || now.pid != r.pid) {
            puts("the host has ended");
            return 0;
        }
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    return cli_fail(VMM_STATUS_HOST_ERROR, "host stop: process %d has not ended", r.pid);
}

static int status(int argc, char **argv)
{
    struct running r;
    bool json = argc == 3 && !strcmp(argv[1], "--format") && !strcmp(argv[2], "json");
    bool table = argc == 3 && !strcmp(argv[1], "--format") && !strcmp(argv[2], "table");
    if (argc > 1 && !json && !table)
        return cli_fail(VMM_STATUS_USAGE, "host status: '%s': not expected", argv[1]);
    if (json)
        return say_json(find_running(&r) ? &r : NULL);
    if (find_running(&r))
        return say_where(&r);
    puts("no host runs; `mullion host start` starts one");
    return API_UNREACHABLE;
}

static int passwd(int argc, char **argv)
{
    const char *user = argc > 1 ? argv[1] : "admin";
    char prompt[128];
    struct mull_error err = {0};
    struct api *api = NULL;
    struct api_target target = {0};
    if (argc > 2)
        return cli_fail(VMM_STATUS_USAGE, "host passwd: '%s': not expected", argv[2]);
    char *socket = host_place_socket();
    target.socket = socket;
    snprintf(prompt, sizeof(prompt), "New password of %.64s", user);
    char *secret = host_secret(prompt);
    int ret = !secret || !*secret ? cli_fail(VMM_STATUS_USAGE, "host passwd: none was given") : 0;
    if (!ret && api_open(&target, &api, &err))
        ret = cli_fail(VMM_STATUS_HOST_ERROR, "%s", err.message);
    char *path = ret ? NULL : api_path(api, "/users/%s", user);
    json_t *answer =
        path ? api_call(api, "PATCH", path, json_pack("{s:s}", "password", secret), &err) : NULL;
    if (!ret && !answer)
        ret = cli_fail(api_status(api), "%s", err.message);
    if (secret)
        explicit_bzero(secret, strlen(secret));
    json_decref(answer);
    api_close(api);
    free(path);
    free(secret);
    free(socket);
    return ret;
}

int cli_host(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*fn)(int argc, char **argv);
    } verbs[] = {{"start", start}, {"stop", stop}, {"status", status}, {"passwd", passwd}};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
    }
    for (unsigned i = 0; argc > 1 && i < 4; i++)
        if (!strcmp(argv[1], verbs[i].name))
            return verbs[i].fn(argc - 1, argv + 1);
    fputs(usage, stderr);
    return VMM_STATUS_USAGE;
}
