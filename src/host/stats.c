/*
 * See stats.h.
 */
#include "host/stats.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/events.h"
#include "host/machines.h"
#include "host/resources.h"
#include "host/store/store.h"
#include "host/transfers.h"

#define SAMPLE_SECONDS 5 /* what running machines use, for those who look */
#define KEEP_SAMPLES 4   /* every fourth is kept */

enum {
    CPU,
    MEMORY,
    DISK_READ,
    DISK_WRITE,
    NET_RX,
    NET_TX,
    DISK_READS,
    DISK_WRITES,
    NET_RX_PACKETS,
    NET_TX_PACKETS,
    BALLOON,
    SERIES
};
/* As they are called in the API, and in the database. */
static const char *const series_names[SERIES] = {
    "cpu",        "memory",      "disk_read",      "disk_write",     "net_rx", "net_tx",
    "disk_reads", "disk_writes", "net_rx_packets", "net_tx_packets", "balloon"};

static const struct {
    const char *name;
    unsigned step, count; /* seconds; values kept */
} levels[] = {{"hour", 20, 180}, {"day", 300, 288}, {"month", 7200, 360}, {"year", 86400, 366}};
#define LEVELS 4

struct stats {
    pthread_t thread;
    bool running, closing;
    pthread_cond_t wake;
    uint64_t busy, total; /* of the host's processors, in ticks */
    uint64_t sectors[2], packets[2];
    uint64_t at_ns;
    unsigned turn;
};

/* ---- The host's own numbers ---- */

void stats_memory(uint64_t *total, uint64_t *used)
{
    char *text = host_read_file("/proc/meminfo", 8192, NULL, NULL);
    unsigned long long all = 0, available = 0;
    char *at = text ? strstr(text, "MemTotal:") : NULL;
    if (at)
        sscanf(at, "MemTotal: %llu", &all);
    at = text ? strstr(text, "MemAvailable:") : NULL;
    if (at)
        sscanf(at, "MemAvailable: %llu", &available);
    free(text);
    *total = all * 1024;
    *used = (all - available) * 1024;
}

static void host_cpu(uint64_t *busy, uint64_t *total)
{
    char *text = host_read_file("/proc/stat", 4096, NULL, NULL);
    unsigned long long v[8] = {0};
    if (text)
        sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
               &v[4], &v[5], &v[6], &v[7]);
    free(text);
    *total = 0;
    for (unsigned i = 0; i < 8; i++)
        *total += v[i];
    *busy = *total - v[3] - v[4];
}

/* Whole disks only: partitions are in them. proc(5), Documentation/admin-guide/iostats. */
static void host_disks(uint64_t sectors[2])
{
    char *text = host_read_file("/proc/diskstats", 65536, NULL, NULL);
    sectors[0] = sectors[1] = 0;
    char *save = NULL;
    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        char name[64], path[128];
        unsigned long long read, written;
        if (sscanf(line, " %*u %*u %63s %*u %*u %llu %*u %*u %*u %llu", name, &read, &written) != 3)
            continue;
        snprintf(path, sizeof(path), "/sys/block/%s/device", name);
        if (access(path, F_OK))
            continue;
        sectors[0] += read;
        sectors[1] += written;
    }
    free(text);
}

static void host_network(uint64_t bytes[2])
{
    char *text = host_read_file("/proc/net/dev", 65536, NULL, NULL);
    bytes[0] = bytes[1] = 0;
    char *save = NULL;
    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        unsigned long long rx, tx;
        char *colon = strchr(line, ':');
        if (!colon || strstr(line, "lo:") ||
            sscanf(colon + 1, " %llu %*u %*u %*u %*u %*u %*u %*u %llu", &rx, &tx) != 2)
            continue;
        bytes[0] += rx;
        bytes[1] += tx;
    }
    free(text);
}

/* ---- Keeping ---- */

static void text_of(char out[32], double value)
{
    snprintf(out, 32, "%.3f", value);
}

static int keep(struct host *host, const char *object, const double v[SERIES],
                const bool known[SERIES])
{
    char text[SERIES][32], level_text[8], time_text[32];
    const char *value[SERIES];
    int ret = 0;
    for (unsigned i = 0; i < SERIES; i++) {
        text_of(text[i], v[i]);
        value[i] = known[i] ? text[i] : NULL;
    }
    for (unsigned level = 0; level < LEVELS && !ret; level++) {
        time_t now = time(NULL);
        snprintf(level_text, sizeof(level_text), "%u", level);
        snprintf(time_text, sizeof(time_text), "%lld",
                 (long long)(now - now % (time_t)levels[level].step));
        /* Means are kept as sums and how many they are of. */
        ret =
            store_run(host->store, NULL,
                      "INSERT INTO stats VALUES(?1,?2,?3,1,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14) "
                      "ON CONFLICT DO UPDATE SET n=n+1, cpu=cpu+?4, memory=memory+?5, "
                      "disk_read=disk_read+?6, disk_write=disk_write+?7, net_rx=net_rx+?8, "
                      "net_tx=net_tx+?9, disk_reads=disk_reads+?10, disk_writes=disk_writes+?11, "
                      "net_rx_packets=net_rx_packets+?12, net_tx_packets=net_tx_packets+?13, "
                      "balloon=balloon+?14",
                      object, level_text, time_text, value[0], value[1], value[2], value[3],
                      value[4], value[5], value[6], value[7], value[8], value[9], value[10], NULL);
    }
    return ret;
}

static void keep_host(struct host *host)
{
    struct stats *s = host->stats;
    uint64_t busy, total, sectors[2], packets[2], used, all, now = mull_now_ns();
    host_cpu(&busy, &total);
    host_disks(sectors);
    host_network(packets);
    stats_memory(&all, &used);
    if (s->at_ns && total > s->total) {
        double seconds = (double)(now - s->at_ns) / 1e9;
        double v[SERIES] = {[CPU] = 100.0 * (double)sysconf(_SC_NPROCESSORS_ONLN) *
                                    (double)(busy - s->busy) / (double)(total - s->total),
                            [MEMORY] = (double)used,
                            [DISK_READ] = (double)(sectors[0] - s->sectors[0]) * 512 / seconds,
                            [DISK_WRITE] = (double)(sectors[1] - s->sectors[1]) * 512 / seconds,
                            [NET_RX] = (double)(packets[0] - s->packets[0]) / seconds,
                            [NET_TX] = (double)(packets[1] - s->packets[1]) / seconds};
        static const bool known[SERIES] = {true, true, true, true, true, true};
        keep(host, "host", v, known);
    }
    s->busy = busy;
    s->total = total;
    memcpy(s->sectors, sectors, sizeof(sectors));
    memcpy(s->packets, packets, sizeof(packets));
    s->at_ns = now;
}

/* What has passed since the last time, a second. @return false: not known */
static bool rates(struct vm_resources *r, double out[COUNTERS])
{
    bool known = r->usage && r->kept_ns && r->usage_ns > r->kept_ns;
    double seconds = (double)(r->usage_ns - r->kept_ns) / 1e9;
    for (unsigned i = 0; i < COUNTERS && known; i++) /* less: a disk or card has gone */
        out[i] = r->count[i] >= r->kept[i] ? (double)(r->count[i] - r->kept[i]) / seconds : 0;
    if (r->usage) {
        memcpy(r->kept, r->count, sizeof(r->kept));
        r->kept_ns = r->usage_ns;
    }
    return known;
}

static void keep_machine(void *opaque, struct vm *vm)
{
    struct vm_resources *r = &vm->resources;
    double rate[COUNTERS] = {0};
    bool known = rates(r, rate), told = r->usage;
    const bool is_known[SERIES] = {
        true, true, true, true, known, known, known, known, known, known, told && r->balloon};
    const double v[SERIES] = {
        [CPU] = vm->cpu,
        [MEMORY] = (double)vm->memory,
        /* Of a process that does not tell: what it has read and written on the host. */
        [DISK_READ] = known ? rate[COUNT_READ_BYTES] : vm->io_rate[0],
        [DISK_WRITE] = known ? rate[COUNT_WRITTEN_BYTES] : vm->io_rate[1],
        [NET_RX] = rate[COUNT_IN_BYTES],
        [NET_TX] = rate[COUNT_OUT_BYTES],
        [DISK_READS] = rate[COUNT_READS],
        [DISK_WRITES] = rate[COUNT_WRITES],
        [NET_RX_PACKETS] = rate[COUNT_IN_PACKETS],
        [NET_TX_PACKETS] = rate[COUNT_OUT_PACKETS],
        [BALLOON] = (double)(r->memory > r->actual ? r->memory - r->actual : 0)};
    keep(opaque, vm->id, v, is_known);
}

static void prune(struct host *host)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        char level_text[8], before[32];
        snprintf(level_text, sizeof(level_text), "%u", level);
        snprintf(before, sizeof(before), "%lld",
                 (long long)time(NULL) - (long long)levels[level].step * levels[level].count);
        store_run(host->store, NULL, "DELETE FROM stats WHERE level = ?1 AND time < ?2", level_text,
                  before, NULL);
    }
}

/* ---- Measuring ---- */

static void sample_machine(void *opaque, struct vm *vm)
{
    vm_sample(vm);
    if (vm->state == VM_RUNNING || vm->state == VM_PAUSED)
        host_changed(opaque, KIND_MACHINE, vm->id);
}

static void turn(struct host *host)
{
    struct stats *s = host->stats;
    vm_each(host, sample_machine, host);
    if (s->turn++ % KEEP_SAMPLES)
        return;
    if (store_begin(host->store, NULL))
        return;
    keep_host(host);
    vm_each(host, keep_machine, host);
    store_end(host->store, 0, NULL);
    if (s->turn % 120 == 1) {
        prune(host);
        transfers_expire(host);
    }
}

static void *measure(void *opaque)
{
    struct host *host = opaque;
    struct stats *s = host->stats;
    host_lock(host);
    while (!s->closing) {
        struct timespec until;
        turn(host);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += SAMPLE_SECONDS;
        while (!s->closing && pthread_cond_timedwait(&s->wake, &host->lock, &until) != ETIMEDOUT)
            ;
    }
    host_unlock(host);
    return NULL;
}

int stats_open(struct host *host, struct mull_error *err)
{
    struct stats *s = host->stats = calloc(1, sizeof(*s));
    pthread_condattr_t attr;
    if (!s)
        return mull_fail(err, ENOMEM, "statistics: no memory");
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    int code = pthread_create(&s->thread, NULL, measure, host);
    s->running = !code;
    return code ? mull_fail(err, code, "statistics: %s", strerror(code)) : 0;
}

void stats_close(struct host *host)
{
    struct stats *s = host->stats;
    if (!s)
        return;
    if (s->running) {
        host_lock(host);
        s->closing = true;
        pthread_cond_broadcast(&s->wake);
        host_unlock(host);
        pthread_join(s->thread, NULL);
    }
    pthread_cond_destroy(&s->wake);
    free(s);
    host->stats = NULL;
}

void stats_forget(struct host *host, const char *object)
{
    store_run(host->store, NULL, "DELETE FROM stats WHERE object = ?", object, NULL);
}

/* ---- Reading ---- */

struct reading {
    json_t *series[SERIES];
    int64_t from, step;
    size_t count;
};

static bool add_row(void *opaque, sqlite3_stmt *row)
{
    struct reading *r = opaque;
    int64_t slot = (sqlite3_column_int64(row, 0) - r->from) / r->step;
    double n = sqlite3_column_double(row, 1);
    if (slot < 0 || slot >= (int64_t)r->count || n < 1)
        return true;
    for (int i = 0; i < SERIES; i++)
        if (sqlite3_column_type(row, i + 2) != SQLITE_NULL)
            json_array_set_new(r->series[i], (size_t)slot,
                               json_real(sqlite3_column_double(row, i + 2) / n));
    return true;
}

json_t *stats_read(struct host *host, const char *object, const char *range)
{
    unsigned level = 0;
    char level_text[8], from[32], from_text[32];
    while (level < LEVELS && strcmp(levels[level].name, range))
        level++;
    if (level == LEVELS)
        return NULL;
    struct reading r = {.step = levels[level].step, .count = levels[level].count};
    int64_t now = time(NULL);
    r.from = now - now % r.step - r.step * ((int64_t)r.count - 1);
    for (unsigned i = 0; i < SERIES; i++) {
        r.series[i] = json_array();
        for (size_t j = 0; j < r.count; j++)
            json_array_append_new(r.series[i], json_null());
    }
    snprintf(level_text, sizeof(level_text), "%u", level);
    snprintf(from, sizeof(from), "%lld", (long long)r.from);
    store_query(host->store, NULL, add_row, &r,
                "SELECT time, n, cpu, memory, disk_read, disk_write, net_rx, net_tx, disk_reads, "
                "disk_writes, net_rx_packets, net_tx_packets, balloon FROM stats "
                "WHERE object = ?1 AND level = ?2 AND time >= ?3",
                object, level_text, from, NULL);
    json_t *series = json_object();
    for (unsigned i = 0; i < SERIES; i++)
        json_object_set_new(series, series_names[i], r.series[i]);
    host_time((double)r.from, from_text);
    return json_pack("{s:s, s:I, s:s, s:o}", "range", range, "step", (json_int_t)r.step, "from",
                     from_text, "series", series);
}

/* ---- Prometheus: text format 0.0.4 ---- */

enum metric {
    METRIC_CPU,
    METRIC_CPU_SECONDS,
    METRIC_CPU_HELD,
    METRIC_MEMORY,
    METRIC_BALLOON,
    METRIC_READ_BYTES,
    METRIC_WRITTEN_BYTES,
    METRICS
};

struct metrics {
    struct host *host;
    FILE *out;
    const char *name, *list, *member;
    enum metric which;
};

static const char *name_of(struct metrics *m, const struct vm *vm)
{
    return host_text(store_get(m->host->store, KIND_MACHINE, vm->id), "name");
}

static void machine_metric(void *opaque, struct vm *vm)
{
    struct metrics *m = opaque;
    const struct vm_resources *r = &vm->resources;
    const double values[METRICS] = {
        [METRIC_CPU] = vm->cpu / 100,
        [METRIC_CPU_SECONDS] = (double)r->cpu_used / 1e9,
        [METRIC_CPU_HELD] = (double)r->cpu_held / 1e9,
        [METRIC_MEMORY] = (double)vm->memory,
        [METRIC_BALLOON] = (double)(r->memory > r->actual ? r->memory - r->actual : 0),
        [METRIC_READ_BYTES] = (double)(r->usage ? r->count[COUNT_READ_BYTES] : vm->io[0]),
        [METRIC_WRITTEN_BYTES] = (double)(r->usage ? r->count[COUNT_WRITTEN_BYTES] : vm->io[1])};
    fprintf(m->out, "%s{machine=\"%s\",name=\"%s\"} %.17g\n", m->name, vm->id, name_of(m, vm),
            values[m->which]);
}

/* One line for each of a machine's disks or network cards. */
static void part_metric(void *opaque, struct vm *vm)
{
    struct metrics *m = opaque;
    bool disks = !strcmp(m->list, "disks");
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(vm->resources.usage, m->list), i, one)
    {
        bool cdrom = disks && !strcmp(host_text(one, "kind"), "cdrom");
        fprintf(m->out, "%s{machine=\"%s\",name=\"%s\",%s=\"%s%lld\"} %lld\n", m->name, vm->id,
                name_of(m, vm), disks ? "disk" : "network",
                cdrom   ? "cdrom"
                : disks ? "disk"
                        : "net",
                (long long)json_integer_value(json_object_get(one, "index")),
                (long long)json_integer_value(json_object_get(one, m->member)));
    }
}

static void print_metrics(struct metrics *m, const char *name, const char *type, const char *help,
                          void (*fn)(void *opaque, struct vm *vm))
{
    m->name = name;
    fprintf(m->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
    vm_each(m->host, fn, m);
}

static void print_machines(struct metrics *m)
{
    static const struct {
        const char *name, *type, *help;
    } machine[METRICS] = {
        [METRIC_CPU] = {"mullion_machine_cpu_ratio", "gauge", "Processors that a machine uses"},
        [METRIC_CPU_SECONDS] = {"mullion_machine_cpu_seconds_total", "counter",
                                "CPU time that a machine has used"},
        [METRIC_CPU_HELD] = {"mullion_machine_cpu_held_seconds_total", "counter",
                             "Time that a machine's processors waited for their limit"},
        [METRIC_MEMORY] = {"mullion_machine_memory_bytes", "gauge",
                           "Memory that a machine's process has"},
        [METRIC_BALLOON] = {"mullion_machine_balloon_bytes", "gauge",
                            "Memory that a machine's balloon holds"},
        [METRIC_READ_BYTES] = {"mullion_machine_disk_read_bytes_total", "counter",
                               "Bytes read from disks"},
        [METRIC_WRITTEN_BYTES] = {"mullion_machine_disk_written_bytes_total", "counter",
                                  "Bytes written to disks"},
    };
    static const struct {
        const char *name, *list, *member, *help;
    } part[] = {
        {"mullion_disk_read_bytes_total", "disks", "read_bytes", "Bytes read from a disk"},
        {"mullion_disk_reads_total", "disks", "reads", "Requests to read from a disk"},
        {"mullion_disk_written_bytes_total", "disks", "written_bytes", "Bytes written to a disk"},
        {"mullion_disk_writes_total", "disks", "writes", "Requests to write to a disk"},
        {"mullion_disk_flushes_total", "disks", "flushes", "Requests to make a disk durable"},
        {"mullion_disk_waited_total", "disks", "waited", "Requests that waited for a limit"},
        {"mullion_network_receive_bytes_total", "networks", "in_bytes", "Bytes to a guest"},
        {"mullion_network_receive_packets_total", "networks", "in_packets", "Packets to a guest"},
        {"mullion_network_transmit_bytes_total", "networks", "out_bytes", "Bytes from a guest"},
        {"mullion_network_transmit_packets_total", "networks", "out_packets",
         "Packets from a guest"},
        {"mullion_network_waited_total", "networks", "waited", "Packets that waited for a limit"},
    };
    for (unsigned i = 0; i < METRICS; i++) {
        m->which = i;
        print_metrics(m, machine[i].name, machine[i].type, machine[i].help, machine_metric);
    }
    for (unsigned i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
        m->list = part[i].list;
        m->member = part[i].member;
        print_metrics(m, part[i].name, "counter", part[i].help, part_metric);
    }
}

/* What is reserved of the host's. */
static void print_reserved(struct host *host, FILE *out)
{
    fprintf(out,
            "# HELP mullion_host_reserved_ratio Part of the host's resources that is reserved\n"
            "# TYPE mullion_host_reserved_ratio gauge\n"
            "mullion_host_reserved_ratio{resource=\"cpu\"} %.6f\n"
            "mullion_host_reserved_ratio{resource=\"memory\"} %.6f\n",
            (double)resources_reserved(host, DIM_CPU) / (double)resources_capacity(host, DIM_CPU),
            (double)resources_reserved(host, DIM_MEMORY) /
                (double)resources_capacity(host, DIM_MEMORY));
}

char *stats_prometheus(struct host *host)
{
    char *text = NULL;
    size_t size = 0;
    uint64_t total, used;
    unsigned count[6] = {0};
    const char *id;
    json_t *doc;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    json_object_foreach(store_all(host->store, KIND_MACHINE), id, doc)
    {
        struct vm *vm = vm_of(host, id);
        if (vm)
            count[vm->state]++;
    }
    fprintf(out, "# HELP mullion_machines Machines by state\n# TYPE mullion_machines gauge\n");
    for (unsigned i = 0; i < 6; i++)
        fprintf(out, "mullion_machines{state=\"%s\"} %u\n", vm_state_names[i], count[i]);
    stats_memory(&total, &used);
    fprintf(out,
            "# HELP mullion_host_memory_bytes Memory of the host\n"
            "# TYPE mullion_host_memory_bytes gauge\n"
            "mullion_host_memory_bytes{kind=\"total\"} %llu\n"
            "mullion_host_memory_bytes{kind=\"used\"} %llu\n",
            (unsigned long long)total, (unsigned long long)used);
    print_reserved(host, out);
    print_machines(&(struct metrics){.host = host, .out = out});
    fclose(out);
    return text;
}
