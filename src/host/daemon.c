/*
 * See daemon.h.
 */
#include "host/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/auth.h"
#include "host/balance.h"
#include "host/builder.h"
#include "host/events.h"
#include "host/guests.h"
#include "host/machines.h"
#include "host/netkeeper.h"
#include "host/stats.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "host/tasks.h"
#include "host/templates.h"
#include "host/transfers.h"

/* ---- Places: docs/host.md, "Where things are" ---- */

static char *user_folder(const char *variable, const char *below_home, const char *rest)
{
    const char *value = getenv(variable), *home = getenv("HOME");
    if (value && *value == '/')
        return host_path(value, "%s", rest);
    return below_home && home && *home == '/' ? host_path(home, "%s/%s", below_home, rest) : NULL;
}

int host_places_find(struct host_places *p, bool system, const char *data, const char *runtime,
                     const char *config, struct mull_error *err)
{
    const char *own = getenv("MULLION_RUNTIME_DIR");
    memset(p, 0, sizeof(*p));
    p->system = system;
    if (data)
        p->data = strdup(data);
    else
        p->data = system ? strdup("/var/lib/mullion")
                         : user_folder("XDG_DATA_HOME", ".local/share", "mullion/host");
    if (runtime || (own && *own == '/'))
        p->runtime = strdup(runtime ? runtime : own);
    else if (system || !(p->runtime = user_folder("XDG_RUNTIME_DIR", NULL, "mullion")))
        p->runtime = system || geteuid() == 0 ? strdup("/run/mullion") : NULL;
    if (!p->runtime && asprintf(&p->runtime, "/tmp/mullion-%u", geteuid()) < 0)
        p->runtime = NULL;
    if (config)
        p->config = strdup(config);
    else
        p->config = system ? strdup("/etc/mullion/mulliond.json")
                           : user_folder("XDG_CONFIG_HOME", ".config", "mullion/mulliond.json");
    if (!p->data || !p->runtime)
        return mull_fail(err, ENOENT,
                         "neither XDG_DATA_HOME nor HOME says where data are; give --data");
    /* A socket's name has 108 bytes: "/UUID/control.sock" needs 51 of them. */
    if (strlen(p->runtime) > 56)
        return mull_fail(err, ENAMETOOLONG,
                         "%s: too long for sockets in it; give a shorter --runtime", p->runtime);
    return 0;
}

void host_places_free(struct host_places *p)
{
    free(p->data);
    free(p->runtime);
    free(p->config);
    free(p->portal);
    memset(p, 0, sizeof(*p));
}

/* ---- Options ---- */

static int read_number(json_t *root, const char *key, unsigned min, unsigned max, unsigned *out,
                       const char *path, struct mull_error *err)
{
    json_t *value = json_object_get(root, key);
    if (!value)
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < (json_int_t)min ||
        json_integer_value(value) > (json_int_t)max)
        return mull_fail(err, EINVAL, "%s: %s: must be a number from %u to %u", path, key, min,
                         max);
    *out = (unsigned)json_integer_value(value);
    return 0;
}

static int read_text(json_t *root, const char *key, char **out, const char *path,
                     struct mull_error *err)
{
    json_t *value = json_object_get(root, key);
    if (!value)
        return 0;
    if (!json_is_string(value))
        return mull_fail(err, EINVAL, "%s: %s: must be a string", path, key);
    free(*out);
    *out = strdup(json_string_value(value));
    return *out ? 0 : mull_fail(err, ENOMEM, "no memory");
}

static int read_root(struct host_options *o, json_t *root, const char *path, struct mull_error *err)
{
    static const char *const known[] = {"listen",
                                        "vmm",
                                        "pam_service",
                                        "image_server",
                                        "sessions_max",
                                        "session_minutes",
                                        "requests_per_second",
                                        "logins_per_minute",
                                        "cgroup",
                                        "machines_memory",
                                        "machines_cpu",
                                        "memory_merging",
                                        NULL};
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        unsigned i = 0;
        while (known[i] && strcmp(known[i], key))
            i++;
        if (!known[i])
            return mull_fail(err, EINVAL, "%s: %s: is not known; see mulliond(8)", path, key);
    }
    int ret = read_text(root, "listen", &o->listen, path, err);
    if (!ret)
        ret = read_text(root, "vmm", &o->vmm, path, err);
    if (!ret)
        ret = read_text(root, "pam_service", &o->pam_service, path, err);
    if (!ret)
        ret = read_text(root, "cgroup", &o->cgroup, path, err);
    if (!ret)
        ret = read_text(root, "image_server", &o->image_server, path, err);
    if (!ret && o->image_server && strncmp(o->image_server, "https://", 8) &&
        strncmp(o->image_server, "http://", 7))
        ret = mull_fail(err, EINVAL, "%s: image_server: must be an http: or https: URL", path);
    if (!ret)
        ret = read_number(root, "sessions_max", 1, 1000, &o->sessions_max, path, err);
    if (!ret)
        ret = read_number(root, "session_minutes", 1, 100000, &o->session_minutes, path, err);
    if (!ret)
        ret = read_number(root, "requests_per_second", 1, 1000000, &o->requests_per_second, path,
                          err);
    if (!ret)
        ret = read_number(root, "logins_per_minute", 1, 1000000, &o->logins_per_minute, path, err);
    if (!ret)
        ret = read_number(root, "machines_memory", 16, 1u << 26, &o->machines_memory, path, err);
    if (!ret)
        ret = read_number(root, "machines_cpu", 5, 1000000, &o->machines_cpu, path, err);
    if (!ret)
        ret = read_number(root, "memory_merging", 0, 1, &o->memory_merging, path, err);
    return ret;
}

int host_options_read(struct host_options *o, const struct host_places *places,
                      struct mull_error *err)
{
    *o = (struct host_options){.sessions_max = 16,
                               .session_minutes = 12 * 60,
                               .requests_per_second = 500,
                               .logins_per_minute = 10};
    o->listen = strdup(places->system ? "0.0.0.0:8443" : "127.0.0.1:8443");
    if (!o->listen)
        return mull_fail(err, ENOMEM, "no memory");
    if (!places->config || access(places->config, F_OK))
        return 0;
    size_t len = 0;
    char *text = host_read_file(places->config, 1u << 20, &len, err);
    json_error_t where;
    json_t *root = text ? json_loadb(text, len, JSON_REJECT_DUPLICATES, &where) : NULL;
    int ret = 0;
    if (!text)
        ret = -err->code;
    else if (!json_is_object(root))
        ret = mull_fail(err, EINVAL, "%s: line %d, column %d: %s", places->config, where.line,
                        where.column, root ? "must be an object" : where.text);
    else
        ret = read_root(o, root, places->config, err);
    json_decref(root);
    free(text);
    return ret;
}

void host_options_free(struct host_options *o)
{
    free(o->listen);
    free(o->vmm);
    free(o->pam_service);
    free(o->cgroup);
    free(o->image_server);
    memset(o, 0, sizeof(*o));
}

/* ---- Opening ---- */

static int lock_data(struct host *host, struct mull_error *err)
{
    static const char *const folders[] = {"", "uploads", "exports", "tls"};
    for (unsigned i = 0; i < 4; i++) {
        char *folder = *folders[i] ? host_path(host->places.data, "%s", folders[i])
                                   : strdup(host->places.data);
        int ret = folder ? host_make_folder(folder, 0700) : -ENOMEM;
        free(folder);
        if (ret)
            return mull_fail(err, -ret, "%s: %s", host->places.data, strerror(-ret));
    }
    char *path = host_path(host->places.data, "lock");
    /* Held until the process ends, however it does. */
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    free(path);
    if (fd < 0)
        return mull_fail(err, errno, "%s/lock: %s", host->places.data, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        close(fd);
        return mull_fail(err, EBUSY, "%s: another mulliond has these data", host->places.data);
    }
    host->lock_fd = fd;
    return 0;
}

static int make_runtime(struct host *host, struct mull_error *err)
{
    struct stat st;
    int ret = host_make_folder(host->places.runtime, host->places.system ? 0750 : 0700);
    if (ret)
        return mull_fail(err, -ret, "%s: %s", host->places.runtime, strerror(-ret));
    /* Somebody else may have been first in /tmp. */
    if (lstat(host->places.runtime, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        st.st_mode & (host->places.system ? 027 : 077))
        return mull_fail(err, EPERM, "%s: must be a folder of ours that nobody else may enter",
                         host->places.runtime);
    return 0;
}

/* The programs lie side by side in a build; installed, mullion-vmm is in libexec. */
static int find_vmm(struct host *host, struct mull_error *err)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (host->options.vmm)
        return 0;
    if (n > 0) {
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        host->options.vmm = host_path(self, "mullion-vmm");
    }
    if (host->options.vmm && access(host->options.vmm, X_OK)) {
        free(host->options.vmm);
        host->options.vmm = strdup(MULLION_LIBEXECDIR "/mullion-vmm");
    }
    if (!host->options.vmm || access(host->options.vmm, X_OK))
        return mull_fail(err, ENOENT,
                         "mullion-vmm: not beside mulliond, nor in " MULLION_LIBEXECDIR);
    return 0;
}

static bool clean_start(struct host *host)
{
    json_t *host_doc = store_get(host->store, KIND_SETTING, "host");
    char *boot = host_read_file("/proc/sys/kernel/random/boot_id", 64, NULL, NULL);
    if (boot)
        boot[strcspn(boot, "\n")] = '\0';
    /* Machines start with the host, not with a daemon that comes back after a crash or upgrade. */
    bool clean = !host_doc || json_is_true(json_object_get(host_doc, "_stopped")) || !boot ||
                 strcmp(host_text(host_doc, "_boot"), boot);
    json_t *doc = host_doc ? json_deep_copy(host_doc) : json_pack("{s:b}", "autostart", 1);
    json_object_set_new(doc, "_boot", json_string(boot ? boot : ""));
    json_object_set_new(doc, "_stopped", json_false());
    store_put(host->store, KIND_SETTING, "host", doc, NULL);
    free(boot);
    return clean;
}

static int open_inventory(struct host *host, struct mull_error *err)
{
    char *path = host_path(host->places.data, "host.db");
    int ret = path ? store_open(path, &host->log, &host->store, err) : -ENOMEM;
    free(path);
    if (!ret)
        ret = events_open(host, err);
    if (!ret)
        ret = tasks_open(host, err);
    if (!ret)
        ret = auth_open(host, err);
    if (!ret)
        ret = stores_open(host, err);
    return ret;
}

int host_open(struct host *host, struct mull_error *err)
{
    pthread_condattr_t attr;
    host->started_ns = mull_now_ns();
    pthread_mutex_init(&host->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&host->changed, &attr);
    pthread_condattr_destroy(&attr);
    int ret = find_vmm(host, err);
    if (!ret)
        ret = lock_data(host, err);
    if (!ret)
        ret = make_runtime(host, err);
    if (!ret)
        ret = mull_loop_create(&host->loop, err);
    if (!ret)
        ret = open_inventory(host, err);
    if (!ret)
        ret = supervisor_open(host, err);
    if (!ret)
        ret = netkeeper_open(host, err);
    if (ret)
        return ret;
    host_lock(host);
    stores_recover(host);
    builder_recover(host);
    machines_recover(host);
    templates_recover(host);
    transfers_expire(host);
    bool clean = clean_start(host);
    json_t *settings = store_get(host->store, KIND_SETTING, "host");
    if (clean && json_is_true(json_object_get(settings, "autostart")))
        machines_autostart(host);
    host_event(host, "host.started", NULL, NULL, NULL, "info", NULL, "mulliond %s started",
               MULLION_VERSION);
    host_unlock(host);
    ret = stats_open(host, err);
    if (!ret)
        ret = balance_open(host, err);
    return ret ? ret : guests_open(host, err);
}

static void note_stopped(struct host *host)
{
    json_t *old = store_get(host->store, KIND_SETTING, "host");
    json_t *doc = old ? json_deep_copy(old) : NULL;
    if (!doc)
        return;
    json_object_set_new(doc, "_stopped", json_true());
    store_put(host->store, KIND_SETTING, "host", doc, NULL);
}

void host_close(struct host *host)
{
    guests_close(host);
    balance_close(host);
    stats_close(host);
    tasks_close(host);
    if (host->store && host->stop_machines)
        note_stopped(host);
    netkeeper_close(host);
    supervisor_close(host);
    if (host->store) {
        events_close(host);
        store_close(host->store);
    }
    mull_loop_destroy(host->loop);
    if (host->lock_fd >= 0)
        close(host->lock_fd);
    free(host->url);
    pthread_cond_destroy(&host->changed);
    pthread_mutex_destroy(&host->lock);
}
