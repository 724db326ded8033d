/*
 * `mullion stats` shows a machine's counters, `mullion top` what all running machines do: both ask
 * the machines' control sockets.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/runtime.h"

#define MACHINES_MAX 256

static const char stats_usage[] =
    "Usage: mullion stats MACHINE [--format table|json]\n"
    "\n"
    "Shows the counters of a machine's virtual CPUs since it started. MACHINE is a name, or the\n"
    "path of a control socket.\n";

static const char top_usage[] =
    "Usage: mullion top [--interval SECONDS] [--count N] [--format table|json]\n"
    "\n"
    "Shows what the running machines of this user do, a line for each virtual CPU: events a "
    "second\n"
    "over the last interval. json: an object a line.\n"
    "\n"
    "  --interval SECONDS  how often (2)\n"
    "  --count N           end after so many (0: never)\n";

struct options {
    bool json;
    double interval;
    long count;
};

static bool parse(int argc, char **argv, struct options *o, const char *usage, bool top,
                  int *status)
{
    static const struct option known[] = {{"format", required_argument, NULL, 'f'},
                                          {"interval", required_argument, NULL, 'i'},
                                          {"count", required_argument, NULL, 'c'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    char *end;
    int c;

    *o = (struct options){.interval = 2};
    *status = -1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
        bool good = true;
        if (c == 'h') {
            fputs(usage, stdout);
            *status = 0;
            return false;
        }
        if (c == 'f') {
            o->json = !strcmp(optarg, "json");
            good = o->json || !strcmp(optarg, "table");
        } else if (c == 'i' && top) {
            o->interval = strtod(optarg, &end);
            good = !*end && o->interval >= 0.05 && o->interval <= 3600;
        } else if (c == 'c' && top) {
            o->count = strtol(optarg, &end, 10);
            good = !*end && o->count >= 0;
        } else {
            good = false;
        }
        if (!good) {
            *status = cli_fail(VMM_STATUS_USAGE, "%s: wrong; see mullion %s --help",
                               argv[optind - 1], argv[0]);
            return false;
        }
    }
    return true;
}

/* ---- mullion stats ---- */

static void print_stats(json_t *vcpus)
{
    size_t n = json_array_size(vcpus);
    const char *name;
    json_t *first;

    printf("%-24s", "");
    for (size_t i = 0; i < n; i++)
        printf(" %13s%-3zu", "vCPU ", i);
    putchar('\n');
    json_object_foreach(json_array_get(vcpus, 0), name, first)
    {
        printf("%-24s", name);
        for (size_t i = 0; i < n; i++)
            printf(" %16lld",
                   (long long)json_integer_value(json_object_get(json_array_get(vcpus, i), name)));
        putchar('\n');
    }
}

int cli_stats(int argc, char **argv)
{
    struct client client;
    struct options o;
    int status;

    if (!parse(argc, argv, &o, stats_usage, false, &status))
        return status;
    if (optind + 1 != argc) {
        fputs(stats_usage, stderr);
        return VMM_STATUS_USAGE;
    }
    status = client_connect(&client, argv[optind]);
    if (status >= 0)
        return status;
    json_t *stats = client_call(&client, "stats");
    client_close(&client);
    if (!stats)
        return VMM_STATUS_HOST_ERROR;
    if (o.json) {
        json_dumpf(stats, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_stats(json_object_get(stats, "vcpus"));
    }
    json_decref(stats);
    return 0;
}

/* ---- mullion top: samples ---- */

struct machine {
    char path[RUNTIME_PATH_MAX];
    char name[64];
    int pid;
    double at, cpu; /* seconds: when, and what the process has used by then */
    json_t *status, *stats;
};

struct round {
    unsigned count;
    struct machine machine[MACHINES_MAX];
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* CPU seconds of a process (proc(5), /proc/PID/stat: utime and stime), -1: unknown. */
static double cpu_seconds(json_int_t pid)
{
    char path[64], text[1024];
    unsigned long long user, system;

    snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    char *rest = strrchr(text, ')'); /* the name may hold anything */
    if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                        &system) != 2)
        return -1;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static bool sample(void *opaque, const char *name, int pid, const char *path)
{
    struct round *r = opaque;
    struct machine *m = &r->machine[r->count];
    struct client client;

    if (!client_open(&client, path))
        return true; /* it has just ended */
    *m = (struct machine){.pid = pid};
    snprintf(m->path, sizeof(m->path), "%s", path);
    snprintf(m->name, sizeof(m->name), "%s", name);
    m->status = client_call(&client, "status");
    m->stats = m->status ? client_call(&client, "stats") : NULL;
    m->at = now();
    m->cpu = cpu_seconds(json_integer_value(json_object_get(m->status, "pid")));
    client_close(&client);
    if (!m->stats) {
        json_decref(m->status);
        return true;
    }
    r->count++;
    return r->count < MACHINES_MAX;
}

static void drop(struct round *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        json_decref(r->machine[i].status);
        json_decref(r->machine[i].stats);
    }
    r->count = 0;
}

static const struct machine *find(const struct round *r, const char *path)
{
    for (unsigned i = 0; i < r->count; i++)
        if (!strcmp(r->machine[i].path, path))
            return &r->machine[i];
    return NULL;
}

/* ---- What is shown of them ---- */

struct column {
    const char *title, *key;
    const char *names[2]; /* of counters, by engine */
    bool level;           /* not a rate: MiB */
};

static const struct column columns[] = {
    {"TRANSL/s", "translations", {"blocks-translated", NULL}, false},
    {"TLBMISS/s", "tlb_misses", {"tlb-misses", NULL}, false},
    {"LOOKUP/s", "lookups", {"jump-misses", NULL}, false},
    {"IN-C/s", "instructions_in_c", {"instructions-in-c", NULL}, false},
    {"EXITS/s", "exits", {"exits", NULL}, false},
    {"MMIO/s", "mmio", {"mmio", NULL}, false},
    {"PORT/s", "ports", {"port-io", "pio"}, false},
    {"IRQ/s", "interrupts", {"interrupts", "extints"}, false},
    {"FAULT/s", "exceptions", {"exceptions", NULL}, false},
    {"HALT/s", "halts", {"halts", NULL}, false},
    {"CACHE-MiB", "cache_bytes", {"cache-bytes", NULL}, true},
    {"FLUSHES", "cache_flushes", {"cache-flushes", NULL}, true},
};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static bool counter(const struct machine *m, size_t cpu, const struct column *c, double *value)
{
    json_t *vcpu = json_array_get(json_object_get(m->stats, "vcpus"), cpu);

    for (unsigned i = 0; i < 2 && c->names[i]; i++) {
        json_t *v = json_object_get(vcpu, c->names[i]);
        if (!json_is_integer(v))
            continue;
        *value = (double)json_integer_value(v);
        return true;
    }
    return false;
}

/* The value to show: a rate since @before, or a level. @return false: this engine has no such */
static bool shown(const struct machine *m, const struct machine *before, size_t cpu,
                  const struct column *c, double *value)
{
    double then = 0;

    if (!counter(m, cpu, c, value))
        return false;
    if (c->level)
        return true;
    bool comparable =
        before && counter(before, cpu, c, &then) && then <= *value && m->at > before->at;
    *value = comparable ? (*value - then) / (m->at - before->at) : 0; /* else it is new */
    return true;
}

static double cpu_percent(const struct machine *m, const struct machine *before)
{
    if (!before || m->cpu < 0 || before->cpu < 0 || m->at <= before->at)
        return 0;
    return 100 * (m->cpu - before->cpu) / (m->at - before->at);
}

static const char *text_of(const struct machine *m, const char *key)
{
    const char *text = json_string_value(json_object_get(m->status, key));

    return text ? text : "?";
}

static void print_table(const struct round *r, const struct round *before)
{
    printf("%-20s %8s %-6s %-8s %5s %10s", "MACHINE", "PID", "ENGINE", "STATE", "CPU%", "UPTIME");
    for (size_t i = 0; i < COLUMNS; i++)
        printf(" %9s", columns[i].title);
    putchar('\n');
    for (unsigned i = 0; i < r->count; i++) {
        const struct machine *m = &r->machine[i], *b = find(before, m->path);
        size_t cpus = json_array_size(json_object_get(m->stats, "vcpus"));

        printf("%-20.20s %8d %-6s %-8s %5.0f %10.1f\n", m->name, m->pid, text_of(m, "engine"),
               text_of(m, "state"), cpu_percent(m, b),
               json_real_value(json_object_get(m->status, "uptime")));
        for (size_t cpu = 0; cpu < cpus; cpu++) {
            printf("  vCPU %-54zu", cpu);
            for (size_t c = 0; c < COLUMNS; c++) {
                double value;
                if (!shown(m, b, cpu, &columns[c], &value))
                    printf(" %9s", "-");
                else if (!strcmp(columns[c].key, "cache_bytes"))
                    printf(" %9.1f", value / 1048576);
                else
                    printf(" %9.0f", value);
            }
            putchar('\n');
        }
    }
    if (!r->count)
        puts("no machine runs");
    fflush(stdout);
}

static void print_json(const struct round *r, const struct round *before)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < r->count; i++) {
        const struct machine *m = &r->machine[i], *b = find(before, m->path);
        json_t *vcpus = json_array(), *one;
        size_t cpus = json_array_size(json_object_get(m->stats, "vcpus"));

        for (size_t cpu = 0; cpu < cpus; cpu++) {
            json_t *values = json_object();
            double value;
            for (size_t c = 0; c < COLUMNS; c++)
                if (shown(m, b, cpu, &columns[c], &value))
                    json_object_set_new(values, columns[c].key, json_real(value));
            json_array_append_new(vcpus, values);
        }
        one = json_pack("{s:s, s:i, s:f, s:O, s:o}", "machine", m->name, "pid", m->pid,
                        "cpu_percent", cpu_percent(m, b), "status", m->status, "vcpus", vcpus);
        json_array_append_new(list, one);
    }
    json_t *all = json_pack("{s:o}", "machines", list);
    json_dumpf(all, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(all);
}

static void wait_interval(double seconds)
{
    struct timespec t = {.tv_sec = (time_t)seconds,
                         .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};

    while (nanosleep(&t, &t) && errno == EINTR)
        ;
}

int cli_top(int argc, char **argv)
{
    struct options o;
    int status;

    if (!parse(argc, argv, &o, top_usage, true, &status))
        return status;
    if (optind != argc) {
        fputs(top_usage, stderr);
        return VMM_STATUS_USAGE;
    }
    struct round *r = calloc(2, sizeof(*r));
    if (!r)
        return cli_fail(VMM_STATUS_HOST_ERROR, "no memory");
    bool screen = !o.json && !o.count && isatty(STDOUT_FILENO);
    unsigned turn = 0;
    runtime_list(sample, &r[1]);
    for (long done = 0; !o.count || done < o.count; done++, turn ^= 1) {
        wait_interval(o.interval);
        drop(&r[turn]);
        runtime_list(sample, &r[turn]);
        if (screen)
            fputs("\033[H\033[2J", stdout);
        if (o.json)
            print_json(&r[turn], &r[turn ^ 1]);
        else
            print_table(&r[turn], &r[turn ^ 1]);
        if (ferror(stdout))
            break;
    }
    drop(&r[0]);
    drop(&r[1]);
    free(r);
    return 0;
}
