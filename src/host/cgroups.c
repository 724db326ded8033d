/*
 * See cgroups.h.
 */
#include "host/cgroups.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "host/host.h"

#define PREFIX "vm-"
#define OWN_GROUP "/daemon"
#define CONTROL_GROUP "/.control"
#define DELEGATED "user.delegate"
#define OWN_WEIGHT 500       /* of the daemon's group: machines wait for what it says */
#define PROCESSES_MAX 65536u /* of a list of them, in bytes */

#define KINDS 3u
static const char *const kinds[KINDS] = {"cpu", "memory", "io"};

/* ---- Finding ---- */

/* The line "0::PATH" of the unified hierarchy. */
static char *own_path(const char *cgroup)
{
    for (const char *line = cgroup; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, "0::", 3))
            return strndup(line + 3, strcspn(line + 3, "\n"));
    }
    return NULL;
}

/* proc(5): "36 35 0:31 ROOT MOUNTPOINT options ... - cgroup2 ...". @return where its root is
 * mounted */
static char *mount_point(const char *mountinfo)
{
    for (const char *line = mountinfo; line && *line; line = strchr(line, '\n')) {
        char root[256], point[256];
        line += *line == '\n';
        size_t length = strcspn(line, "\n");
        const char *type = memmem(line, length, " - cgroup2 ", 11);
        if (type && sscanf(line, "%*u %*u %*s %255s %255s", root, point) == 2 && !strcmp(root, "/"))
            return strdup(point);
    }
    return NULL;
}

/* @return whether it ended so, and does no more */
static bool cut(char *path, const char *ending)
{
    size_t n = strlen(path), tail = strlen(ending);
    bool has = n > tail && !strcmp(path + n - tail, ending);
    if (has)
        path[n - tail] = '\0';
    return has;
}

static char *folder_of(const char *own, const char *mountinfo)
{
    char *point = mount_point(mountinfo);
    char *out = point && own && own[0] == '/' && own[1] && !strstr(own, "..")
                    ? host_path(point, "%s", own + 1)
                    : NULL;
    free(point);
    return out;
}

char *cgroups_find(const char *cgroup, const char *mountinfo)
{
    char *own = own_path(cgroup);
    char *out = own && cut(own, OWN_GROUP) ? folder_of(own, mountinfo) : NULL;
    free(own);
    return out;
}

char *cgroups_unit(const char *cgroup, const char *mountinfo)
{
    char *own = own_path(cgroup);
    if (own)
        cut(own, CONTROL_GROUP);
    char *out = folder_of(own, mountinfo);
    free(own);
    return out;
}

char *cgroups_delegated(const char *cgroup, const char *mountinfo)
{
    char *unit = cgroups_unit(cgroup, mountinfo), value = 0;
    if (unit && getxattr(unit, DELEGATED, &value, 1) == 1 && value == '1')
        return unit;
    free(unit);
    return NULL;
}

/* ---- Files ---- */

/* What is not there is not made: these files are the kernel's. */
static int put(const char *folder, const char *file, const char *text)
{
    char *path = host_path(folder, "%s", file);
    int fd = path ? open(path, O_WRONLY | O_CLOEXEC | O_TRUNC) : -1;
    ssize_t n = fd >= 0 ? write(fd, text, strlen(text)) : -1;
    int ret = n == (ssize_t)strlen(text) ? 0 : -errno;
    if (fd >= 0)
        close(fd);
    free(path);
    return ret;
}

static char *group_of(const struct cgroups *c, const char *id)
{
    return host_path(c->base, PREFIX "%s", id);
}

static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = text; at && (at = strstr(at, word)); at += n)
        if ((at == text || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\n' || !at[n]))
            return true;
    return false;
}

/* ---- A unit's group ---- */

int cgroups_settle(const char *unit, struct mull_error *err)
{
    char *group = host_path(unit, "%s", OWN_GROUP + 1), *list = host_path(unit, "cgroup.procs");
    char *text = list ? host_read_file(list, PROCESSES_MAX, NULL, NULL) : NULL, *save = NULL;
    int ret = group && text ? 0 : -ENOENT;
    if (!ret && mkdir(group, 0755) && errno != EEXIST)
        ret = -errno;
    for (char *pid = ret ? NULL : strtok_r(text, "\n", &save); pid && !ret;
         pid = strtok_r(NULL, "\n", &save)) {
        ret = put(group, "cgroup.procs", pid);
        if (ret == -ESRCH) /* it has ended */
            ret = 0;
    }
    free(group);
    free(list);
    free(text);
    return ret ? mull_fail(err, -ret, "%s: %s", unit, strerror(-ret)) : 0;
}

int cgroups_release(const char *unit, struct mull_error *err)
{
    for (unsigned i = 0; i < KINDS; i++) {
        char text[16];
        snprintf(text, sizeof(text), "-%s", kinds[i]);
        int ret = put(unit, "cgroup.subtree_control", text);
        if (ret && ret != -ENOENT && ret != -EINVAL) /* what is not there is not divided */
            return mull_fail(err, -ret, "%s: %s", unit, strerror(-ret));
    }
    return 0;
}

/* Groups of machines that have ended while nobody looked; those that run are kept by the kernel. */
static void remove_empty(const struct cgroups *c)
{
    DIR *dir = opendir(c->base);
    struct dirent *e;
    while (dir && (e = readdir(dir)))
        if (!strncmp(e->d_name, PREFIX, strlen(PREFIX)))
            cgroups_remove(c, e->d_name + strlen(PREFIX));
    if (dir)
        closedir(dir);
}

static void weigh_daemon(const struct cgroups *c)
{
    char text[32], *group = host_path(c->base, "%s", OWN_GROUP + 1);
    snprintf(text, sizeof(text), "%d", OWN_WEIGHT);
    if (group && c->cpu)
        put(group, "cpu.weight", text);
    snprintf(text, sizeof(text), "default %d", OWN_WEIGHT);
    if (group && c->io)
        put(group, "io.weight", text);
    free(group);
}

/* ---- Life ---- */

int cgroups_open(struct cgroups *c, const char *base, struct mull_error *err)
{
    bool *flags[] = {&c->cpu, &c->memory, &c->io};
    char *list = NULL, *path = NULL;
    if (mkdir(base, 0755) && errno != EEXIST)
        return mull_fail(err, errno, "%s: %s", base, strerror(errno));
    *c = (struct cgroups){.base = strdup(base)};
    path = c->base ? host_path(base, "cgroup.controllers") : NULL;
    list = path ? host_read_file(path, 4096, NULL, NULL) : NULL;
    free(path);
    if (!list) {
        cgroups_close(c);
        return mull_fail(err, ENOTSUP, "%s: is no control group (cgroup v2)", base);
    }
    for (unsigned i = 0; i < KINDS; i++) {
        char wanted[16];
        snprintf(wanted, sizeof(wanted), "+%s", kinds[i]);
        /* Refused where processes are in the group itself, or it is not ours. */
        *flags[i] = has_word(list, kinds[i]) && !put(base, "cgroup.subtree_control", wanted);
    }
    free(list);
    remove_empty(c);
    weigh_daemon(c);
    return 0;
}

void cgroups_close(struct cgroups *c)
{
    free(c->base);
    *c = (struct cgroups){0};
}

bool cgroups_any(const struct cgroups *c)
{
    return c->base && (c->cpu || c->memory || c->io);
}

int cgroups_place(const struct cgroups *c, const char *id, pid_t pid)
{
    char text[32], *group = group_of(c, id);
    int ret = group ? 0 : -ENOMEM;
    if (!ret && mkdir(group, 0755) && errno != EEXIST)
        ret = -errno;
    snprintf(text, sizeof(text), "%d", (int)pid);
    if (!ret)
        ret = put(group, "cgroup.procs", text);
    free(group);
    return ret;
}

int cgroups_set(const struct cgroups *c, const char *id, const struct cgroup_amounts *amounts)
{
    enum { COUNT = 4, PERIOD_US = 100000 };
    const struct {
        bool there;
        const char *file;
    } files[COUNT] = {{c->cpu, "cpu.weight"},
                      {c->cpu, "cpu.max"},
                      {c->io, "io.weight"},
                      {c->memory, "memory.min"}};
    char text[COUNT][64], *group = group_of(c, id);
    int ret = group ? 0 : -ENOMEM;
    snprintf(text[0], sizeof(text[0]), "%u", amounts->cpu_weight);
    if (amounts->cpu_max)
        snprintf(text[1], sizeof(text[1]), "%llu %d",
                 (unsigned long long)amounts->cpu_max * (PERIOD_US / 100), PERIOD_US);
    else
        snprintf(text[1], sizeof(text[1]), "max %d", PERIOD_US);
    snprintf(text[2], sizeof(text[2]), "default %u", amounts->io_weight);
    snprintf(text[3], sizeof(text[3]), "%llu", (unsigned long long)amounts->memory_min);
    for (unsigned i = 0; i < COUNT && group; i++) {
        int one = files[i].there ? put(group, files[i].file, text[i]) : 0;
        ret = ret ? ret : one;
    }
    free(group);
    return ret;
}

int cgroups_set_all(const struct cgroups *c, uint64_t memory_min)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)memory_min);
    return c->memory ? put(c->base, "memory.min", text) : 0;
}

void cgroups_remove(const struct cgroups *c, const char *id)
{
    char *group = c->base ? group_of(c, id) : NULL;
    if (group)
        rmdir(group); /* not where processes are in it */
    free(group);
}
