/*
 * What is imported: told by content and name, fetched where it is a server's, its files found
 * without leaving its folder. See source.h.
 */
#include "machine/appliance/source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/source.h"
#include "image/url.h"
#include "machine/appliance/folder.h"

#define FOLDER_ENTRIES_MAX 10000u

int package_no_memory(struct package *p)
{
    return mull_fail(p->err, ENOMEM, "%s: out of memory", p->import->source);
}

/* ---- Files of the package ---- */

/* A name from the package as a file of the host; it may not lead out of the folder. */
int package_file(struct package *p, const char *name, struct part *out)
{
    char real[PATH_MAX];
    struct stat st;
    char *joined = *name == '/' ? strdup(name) : folder_join(p->folder, name, p->err);
    if (!joined)
        return package_no_memory(p);
    int ret = 0;
    if (!realpath(joined, real)) {
        ret = mull_fail(p->err, errno, "%s: %s", joined, strerror(errno));
    } else {
        size_t n = strlen(p->folder);
        bool below = !strncmp(real, p->folder, n) && (real[n] == '/' || !strcmp(p->folder, "/"));
        if (!below && !p->import->outside)
            ret = mull_fail(p->err, EPERM,
                            "'%.200s' lies outside the folder of %s; move it there, or say "
                            "--outside if you trust the file",
                            name, p->path);
        else if (stat(real, &st) ||
                 (!S_ISREG(st.st_mode) && !(S_ISBLK(st.st_mode) && p->import->outside)))
            ret = mull_fail(p->err, EINVAL, "%s: is not a regular file", real);
    }
    free(joined);
    if (!ret && !(out->path = strdup(real)))
        ret = package_no_memory(p);
    if (!ret)
        out->size = (uint64_t)st.st_size;
    return ret;
}

int package_find(struct package *p, const char *name, struct part *out)
{
    *out = (struct part){0};
    if (p->kind != KIND_OVA)
        return package_file(p, name, out);
    const struct mull_tar_member *m = mull_tar_find(&p->tar, name);
    if (!m)
        return mull_fail(p->err, ENOENT, "%s: there is no '%.200s' in it", p->path, name);
    *out = (struct part){strdup(p->path), m->offset, m->size, true};
    return out->path ? 0 : package_no_memory(p);
}

char *package_read(struct package *p, const char *name, size_t max, size_t *size)
{
    struct part part;
    char *text = NULL;
    if (!package_find(p, name, &part)) {
        /* length 0 would be the whole file. */
        text = part.inside && !part.size
                   ? calloc(1, 1)
                   : folder_read(part.path, part.offset, part.inside ? part.size : 0, max, size,
                                 p->err);
        if (part.inside && !part.size)
            *size = 0;
        if (!text && part.inside)
            mull_fail_in(p->err, "'%.200s'", name);
    }
    free(part.path);
    return text;
}

/* ---- What is it? ---- */

bool package_ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && !strcasecmp(name + n - m, end);
}

static enum package_kind kind_of_name(const char *name)
{
    return package_ends_with(name, ".ova")   ? KIND_OVA
           : package_ends_with(name, ".ovf") ? KIND_OVF
           : package_ends_with(name, ".vmx") ? KIND_VMX
           : package_ends_with(name, ".xml") ? KIND_LIBVIRT
                                             : KIND_NONE;
}

static int kind_of_file(struct package *p)
{
    uint8_t head[512] = {0};
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mull_fail(p->err, errno, "%s: %s", p->path, strerror(errno));
    ssize_t n = read(fd, head, sizeof(head));
    close(fd);
    if (n < 0)
        return mull_fail(p->err, errno, "%s: %s", p->path, strerror(errno));
    p->kind = kind_of_name(p->path);
    if (!memcmp(head + 257, "ustar", 5))
        p->kind = KIND_OVA;
    else if (p->kind == KIND_NONE)
        p->kind = memmem(head, sizeof(head), "<domain", 7)    ? KIND_LIBVIRT
                  : memmem(head, sizeof(head), "Envelope", 8) ? KIND_OVF
                                                              : KIND_DISK;
    return 0;
}

/* The one description in a folder. */
static int look_into(struct package *p)
{
    DIR *dir = opendir(p->import->source);
    struct dirent *entry;
    char *found = NULL;
    unsigned count = 0, seen = 0;
    if (!dir)
        return mull_fail(p->err, errno, "%s: %s", p->import->source, strerror(errno));
    while ((entry = readdir(dir)) && seen++ < FOLDER_ENTRIES_MAX) {
        if (kind_of_name(entry->d_name) == KIND_NONE)
            continue;
        count++;
        free(found);
        found = strdup(entry->d_name);
    }
    closedir(dir);
    int ret = 0;
    if (count != 1)
        ret = mull_fail(p->err, count ? EINVAL : ENOENT,
                        count ? "%s: has several descriptions; name one of its files"
                              : "%s: has no .ova, .ovf, .vmx or .xml file",
                        p->import->source);
    else if (!found || !(p->path = folder_join(p->import->source, found, p->err)))
        ret = package_no_memory(p);
    free(found);
    return ret;
}

/* A link in a stranger's folder that leads out of it would hide from the names in its files. */
static int refuse_links(struct package *p)
{
    char real[PATH_MAX], *full;
    DIR *dir = p->import->outside ? NULL : opendir(p->folder);
    struct dirent *entry;
    int ret = 0;
    for (unsigned seen = 0; dir && !ret && seen < FOLDER_ENTRIES_MAX && (entry = readdir(dir));
         seen++) {
        struct stat st;
        size_t n = strlen(p->folder);
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISLNK(st.st_mode))
            continue;
        full = folder_join(p->folder, entry->d_name, p->err);
        if (full && realpath(full, real) && (strncmp(real, p->folder, n) || real[n] != '/'))
            ret = mull_fail(p->err, EPERM,
                            "%s: is a link out of its folder; say --outside if you trust it", full);
        free(full);
    }
    if (dir)
        closedir(dir);
    return ret;
}

static int open_archive(struct package *p)
{
    p->tar_fd = open(p->path, O_RDONLY | O_CLOEXEC);
    if (p->tar_fd < 0)
        return mull_fail(p->err, errno, "%s: %s", p->path, strerror(errno));
    int ret = mull_tar_open(p->tar_fd, p->path, &p->tar, p->err);
    for (uint32_t i = 0; i < p->tar.count && !ret; i++) {
        if (!package_ends_with(p->tar.member[i].name, ".ovf"))
            continue;
        if (p->member)
            return mull_fail(p->err, EINVAL, "%s: has two descriptors, '%.100s' and '%.100s'",
                             p->path, p->member, p->tar.member[i].name);
        if (!(p->member = strdup(p->tar.member[i].name)))
            return package_no_memory(p);
    }
    if (!ret && !p->member)
        ret = mull_fail(p->err, EINVAL, "%s: a tar archive without an OVF descriptor", p->path);
    return ret;
}

/* Bring a file from a server: once, so that what was checked is what is used. */
static int fetch(struct package *p)
{
    const char *url = p->import->source;
    struct mull_source_options source = {.ca_file = p->import->ca_file};
    struct mull_file_options o = {.path = url, .readonly = true, .source = &source};
    struct mull_url parts;
    struct mull_file *from = NULL;
    char *name = NULL, *inside = NULL;
    int ret = mull_url_parse(url, &parts, p->err);
    if (ret)
        return ret;
    const char *last = strrchr(parts.path, '/');
    last = last ? last + 1 : parts.path;
    name = strdup(mull_tar_name_is_safe(last) ? last : "download");
    mull_url_free(&parts);
    ret = name ? folder_make(p->import->into, p->err) : package_no_memory(p);
    if (!ret && !(inside = folder_join(p->import->into, "download", p->err)))
        ret = -ENOMEM;
    if (!ret)
        ret = folder_temporary(inside, &p->fetched, p->err);
    if (!ret && !(p->path = folder_join(p->fetched, name, p->err)))
        ret = -ENOMEM;
    if (!ret)
        ret = mull_file_open(&o, &from, p->err);
    struct folder_progress progress = {p->import->progress, p->import->opaque, url};
    if (!ret)
        ret = folder_fetch(from, p->path, &progress, p->err);
    mull_file_close(from);
    free(name);
    free(inside);
    return ret;
}

int package_open(struct package *p)
{
    struct stat st;
    char real[PATH_MAX];
    bool url = mull_source_is_url(p->import->source);
    if (!url && stat(p->import->source, &st))
        return mull_fail(p->err, errno, "%s: %s", p->import->source, strerror(errno));
    int ret = 0;
    if (url)
        ret = fetch(p);
    else if (S_ISDIR(st.st_mode))
        ret = look_into(p);
    else if (!(p->path = strdup(p->import->source)))
        ret = package_no_memory(p);
    if (!ret)
        ret = kind_of_file(p);
    if (ret)
        return ret;
    if (!realpath(p->path, real))
        return mull_fail(p->err, errno, "%s: %s", p->path, strerror(errno));
    char *slash = strrchr(real, '/');
    p->folder = strndup(real, slash == real ? 1 : (size_t)(slash - real));
    if (!p->folder)
        return package_no_memory(p);
    if (p->kind == KIND_OVA)
        return open_archive(p);
    return refuse_links(p);
}

void package_close(struct package *p)
{
    folder_remove(p->fetched);
    free(p->fetched);
    mull_tar_close(&p->tar);
    if (p->tar_fd >= 0)
        close(p->tar_fd);
    free(p->path);
    free(p->folder);
    free(p->member);
}
