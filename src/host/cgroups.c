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
#include <unistd.h>

#include "host/host.h"

#define PREFIX "vm-"
#define OWN_GROUP "/daemon"

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

char *cgroups_find(const char *cgroup, const char *mountinfo)
{
    char *own = own_path(cgroup), *point = mount_point(mountinfo), *out = NULL;
    size_t n = own ? strlen(own) : 0, tail = strlen(OWN_GROUP);
    if (point && n > tail && !strcmp(own + n - tail, OWN_GROUP) && !strstr(own, "..")) {
        own[n - tail] = '\0';
        out = host_path(point, "%s", own + 1);
    }
    free(own);
    free(point);
    return out;
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

/* ---- Life ---- */

int cgroups_open(struct cgroups *c, const char *base, struct mull_error *err)
{
    static const char *const names[] = {"cpu", "memory", "io"};
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
    for (unsigned i = 0; i < 3; i++) {
        char wanted[16];
        snprintf(wanted, sizeof(wanted), "+%s", names[i]);
        /* Refused where processes are in the group itself, or it is not ours. */
        *flags[i] = has_word(list, names[i]) && !put(base, "cgroup.subtree_control", wanted);
    }
    free(list);
    remove_empty(c);
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
    const struct {
        bool there;
        const char *file, *prefix;
        uint64_t value;
    } files[] = {{c->cpu, "cpu.weight", "", amounts->cpu_weight},
                 {c->io, "io.weight", "default ", amounts->io_weight},
                 {c->memory, "memory.min", "", amounts->memory_min}};
    char text[64], *group = group_of(c, id);
    int ret = group ? 0 : -ENOMEM;
    for (unsigned i = 0; i < 3 && group; i++) {
        if (!files[i].there)
            continue;
        snprintf(text, sizeof(text), "%s%llu", files[i].prefix, (unsigned long long)files[i].value);
        int one = put(group, files[i].file, text);
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
