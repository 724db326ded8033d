/*
 * Importing: tells what a file is, checks its manifest and signature, turns it into a description
 * and makes the folder of a machine. Disks are read where they are, also inside an OVA.
 */
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

#include "image/image.h"
#include "image/ovf/tar.h"
#include "image/source.h"
#include "image/url.h"
#include "machine/appliance/folder.h"
#include "machine/appliance/internal.h"

#define FOLDER_ENTRIES_MAX 10000u
#define UNPACK_MAX (UINT64_C(1) << 40)
#define CHUNKS_MAX 100000u

enum kind { KIND_NONE, KIND_OVA, KIND_OVF, KIND_VMX, KIND_LIBVIRT, KIND_DISK };

/* Where the files of a package are: a folder, or members of an archive. */
struct package {
    struct mull_import *import;
    enum kind kind;
    char *path;    /* the description, or the archive */
    char *folder;  /* real path of the folder it is in */
    char *member;  /* OVA: the descriptor's name */
    char *fetched; /* folder of what was brought from a URL */
    struct mull_tar tar;
    int tar_fd;
    struct mull_error *err;
};

/* A file of the package, as it can be opened. */
struct part {
    char *path;
    uint64_t offset, size;
    bool inside; /* of an archive */
};

static int no_memory(struct package *p)
{
    return mull_fail(p->err, ENOMEM, "%s: out of memory", p->import->source);
}

/* ---- Files of the package ---- */

/* A name from the package as a file of the host; it may not lead out of the folder. */
static int folder_part(struct package *p, const char *name, struct part *out)
{
    char real[PATH_MAX];
    struct stat st;
    char *joined = *name == '/' ? strdup(name) : folder_join(p->folder, name, p->err);
    if (!joined)
        return no_memory(p);
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
        ret = no_memory(p);
    if (!ret)
        out->size = (uint64_t)st.st_size;
    return ret;
}

static int find_part(struct package *p, const char *name, struct part *out)
{
    *out = (struct part){0};
    if (p->kind != KIND_OVA)
        return folder_part(p, name, out);
    const struct mull_tar_member *m = mull_tar_find(&p->tar, name);
    if (!m)
        return mull_fail(p->err, ENOENT, "%s: there is no '%.200s' in it", p->path, name);
    *out = (struct part){strdup(p->path), m->offset, m->size, true};
    return out->path ? 0 : no_memory(p);
}

static char *read_part(struct package *p, const char *name, size_t max, size_t *size)
{
    struct part part;
    char *text = NULL;
    if (!find_part(p, name, &part)) {
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

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && !strcasecmp(name + n - m, end);
}

static enum kind kind_of_name(const char *name)
{
    return ends_with(name, ".ova")   ? KIND_OVA
           : ends_with(name, ".ovf") ? KIND_OVF
           : ends_with(name, ".vmx") ? KIND_VMX
           : ends_with(name, ".xml") ? KIND_LIBVIRT
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
        ret = no_memory(p);
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
        if (!ends_with(p->tar.member[i].name, ".ovf"))
            continue;
        if (p->member)
            return mull_fail(p->err, EINVAL, "%s: has two descriptors, '%.100s' and '%.100s'",
                             p->path, p->member, p->tar.member[i].name);
        if (!(p->member = strdup(p->tar.member[i].name)))
            return no_memory(p);
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
    ret = name ? folder_make(p->import->into, p->err) : no_memory(p);
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

static int open_package(struct package *p)
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
        ret = no_memory(p);
    if (!ret)
        ret = kind_of_file(p);
    if (ret)
        return ret;
    if (!realpath(p->path, real))
        return mull_fail(p->err, errno, "%s: %s", p->path, strerror(errno));
    char *slash = strrchr(real, '/');
    p->folder = strndup(real, slash == real ? 1 : (size_t)(slash - real));
    if (!p->folder)
        return no_memory(p);
    if (p->kind == KIND_OVA)
        return open_archive(p);
    return refuse_links(p);
}

static void close_package(struct package *p)
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

/* ---- Manifest and signature ---- */

static int hash_part(struct package *p, const struct part *part, const char *name,
                     enum mull_digest digest, uint8_t *out)
{
    struct mull_hasher *hasher = NULL;
    char *buf = malloc(1u << 20);
    int fd = open(part->path, O_RDONLY | O_CLOEXEC);
    int ret = fd < 0 || !buf ? mull_fail(p->err, fd < 0 ? errno : ENOMEM, "%s", part->path)
                             : mull_hasher_create(digest, &hasher, p->err);
    for (uint64_t done = 0; done < part->size && !ret;) {
        uint64_t want = part->size - done < (1u << 20) ? part->size - done : 1u << 20;
        ssize_t n = pread(fd, buf, want, (off_t)(part->offset + done));
        if (n <= 0) {
            ret = mull_fail(p->err, n < 0 ? errno : EIO, "%s: cannot read '%.200s'", part->path,
                            name);
            break;
        }
        mull_hasher_update(hasher, buf, (size_t)n);
        done += (uint64_t)n;
        if (p->import->progress && p->import->progress(p->import->opaque, name, done, part->size))
            ret = mull_fail(p->err, ECANCELED, "%s: stopped", name);
    }
    mull_hasher_finish(hasher, ret ? NULL : out);
    if (fd >= 0)
        close(fd);
    free(buf);
    return ret;
}

/* A finding that --no-verify turns into a warning. */
static int distrust(struct package *p, int ret)
{
    if (!ret || !p->import->no_verify || ret == -ECANCELED)
        return ret;
    mull_log(p->import->log, MULL_LOG_WARN, "%s (ignored: --no-verify)", p->err->message);
    *p->err = (struct mull_error){0};
    return 0;
}

static int check_entry(struct package *p, const struct mull_manifest_entry *e)
{
    struct part part;
    uint8_t digest[MULL_DIGEST_MAX];
    int ret = find_part(p, e->name, &part);
    if (!ret)
        ret = hash_part(p, &part, e->name, e->digest, digest);
    if (!ret && memcmp(digest, e->value, mull_digest_size(e->digest)))
        ret = mull_fail(p->err, EBADMSG,
                        "%s: '%.200s' is not what the manifest says (%s differs): it was changed "
                        "or damaged",
                        p->path, e->name, mull_digest_name(e->digest));
    free(part.path);
    return ret;
}

/* The file beside the descriptor with another ending, if there is one. */
static char *beside(struct package *p, const char *descriptor, const char *ending)
{
    size_t n = strlen(descriptor) - 4; /* ".ovf" */
    char *name = NULL, *full = NULL;
    struct stat st;
    if (asprintf(&name, "%.*s%s", (int)n, descriptor, ending) < 0)
        return NULL;
    bool there;
    if (p->kind == KIND_OVA) {
        there = mull_tar_find(&p->tar, name) != NULL;
    } else {
        full = folder_join(p->folder, name, p->err);
        there = full && !stat(full, &st);
        free(full);
    }
    if (there)
        return name;
    free(name);
    return NULL;
}

static int check_signature(struct package *p, const char *cert_name, const char *name,
                           const char *text, size_t size)
{
    size_t cert_size = 0;
    char *cert = read_part(p, cert_name, MULL_MANIFEST_BYTES_MAX, &cert_size);
    int ret = cert ? mull_manifest_verify(cert_name, cert, cert_size, name, text, size,
                                          p->import->ca_file, &p->import->signer, p->err)
                   : -p->err->code;
    p->import->has_signer = !ret;
    free(cert);
    return ret;
}

/* Every file that the descriptor names must be in the manifest (DSP0243, 6.4). */
static int check_covered(struct package *p, const struct mull_manifest *m,
                         const struct mull_ovf *ovf, const char *descriptor)
{
    if (!mull_manifest_find(m, descriptor))
        return mull_fail(p->err, EBADMSG, "%s: the manifest does not name the descriptor '%s'",
                         p->path, descriptor);
    for (uint32_t i = 0; i < ovf->file_count; i++) {
        char first[MULL_TAR_NAME_MAX + 16];
        snprintf(first, sizeof(first), "%.1000s.000000000", ovf->file[i].href);
        if (!mull_manifest_find(m, ovf->file[i].href) &&
            !(ovf->file[i].chunk && mull_manifest_find(m, first)))
            return mull_fail(p->err, EBADMSG, "%s: the manifest does not name '%.200s'", p->path,
                             ovf->file[i].href);
    }
    return 0;
}

static int check_manifest(struct package *p, const struct mull_ovf *ovf, const char *descriptor)
{
    struct mull_manifest m = {0};
    size_t size = 0;
    char *name = beside(p, descriptor, ".mf"), *cert = beside(p, descriptor, ".cert");
    char *text = name ? read_part(p, name, MULL_MANIFEST_BYTES_MAX, &size) : NULL;
    int ret = 0;
    if (name)
        ret = distrust(p, text ? mull_manifest_parse(name, text, size, &m, p->err) : -p->err->code);
    if (!ret && cert)
        ret = distrust(p, name ? check_signature(p, cert, name, text ? text : "", size)
                               : mull_fail(p->err, EKEYREJECTED,
                                           "%s: has a certificate and no manifest", p->path));
    if (!ret && p->import->require_signature &&
        !(p->import->has_signer && p->import->signer.trusted))
        ret = mull_fail(p->err, EKEYREJECTED, "%s: is not signed by anybody we trust%s%s", p->path,
                        p->import->has_signer ? ", but by " : "",
                        p->import->has_signer ? p->import->signer.name : "");
    bool good = m.count > 0;
    if (!ret && m.count)
        ret = distrust(p, check_covered(p, &m, ovf, descriptor));
    for (uint32_t i = 0; i < m.count && !ret; i++) {
        int wrong = check_entry(p, &m.entry[i]);
        good &= !wrong;
        ret = distrust(p, wrong);
    }
    p->import->verified = !ret && good;
    mull_manifest_free(&m);
    free(text);
    free(name);
    free(cert);
    return ret;
}

/* ---- Reading the description ---- */

static int choose_system(struct package *p, const struct mull_ovf *ovf, uint32_t *out)
{
    char ids[256] = "";
    *out = 0;
    if (ovf->system_count == 1 && !p->import->system)
        return 0;
    for (uint32_t i = 0; i < ovf->system_count; i++) {
        const char *id = ovf->system[i].id ? ovf->system[i].id : "";
        *out = i;
        if (p->import->system && !strcmp(p->import->system, id))
            return 0;
        size_t len = strlen(ids);
        snprintf(ids + len, sizeof(ids) - len, "%s%.60s", len ? ", " : "", id);
    }
    return mull_fail(p->err, EINVAL, "%s: has the virtual systems %s; choose one with --system",
                     p->path, ids);
}

static int check_sizes(struct package *p, const struct mull_ovf *ovf)
{
    for (uint32_t i = 0; i < ovf->file_count; i++) {
        const struct mull_ovf_file *f = &ovf->file[i];
        struct part part;
        if (!f->has_size || f->chunk)
            continue;
        int ret = find_part(p, f->href, &part);
        if (!ret && part.size != f->size)
            ret = mull_fail(p->err, EBADMSG,
                            "%s: '%.200s' has %llu bytes, but the descriptor says %llu: it is "
                            "damaged, or not complete",
                            p->path, f->href, (unsigned long long)part.size,
                            (unsigned long long)f->size);
        free(part.path);
        /* A file that no disk or drive uses may be missing. */
        if (ret && ret != -ENOENT)
            return ret;
        if (ret)
            *p->err = (struct mull_error){0};
    }
    return 0;
}

static int read_ovf(struct package *p)
{
    struct mull_ovf ovf = {0};
    size_t size = 0;
    uint32_t system;
    const char *slash = strrchr(p->path, '/');
    const char *name = p->kind == KIND_OVA ? p->member : slash ? slash + 1 : p->path;
    char *text = read_part(p, name, MULL_XML_BYTES_MAX, &size);
    if (!text)
        return -p->err->code;
    int ret = mull_ovf_parse(name, text, size, p->import->configuration, &ovf, p->err);
    if (!ret)
        ret = choose_system(p, &ovf, &system);
    if (!ret)
        ret = check_sizes(p, &ovf);
    if (!ret && ends_with(name, ".ovf"))
        ret = check_manifest(p, &ovf, name);
    if (!ret)
        ret = mull_appliance_from_ovf(&ovf, system, &p->import->appliance, p->err);
    mull_ovf_free(&ovf);
    free(text);
    return ret;
}

static int read_vmx(struct package *p)
{
    struct mull_vmx vmx = {0};
    size_t size = 0;
    char *text = folder_read(p->path, 0, 0, MULL_VMX_BYTES_MAX, &size, p->err);
    int ret = text ? mull_vmx_parse(p->path, text, size, &vmx, p->err) : -p->err->code;
    if (!ret)
        ret = mull_appliance_from_vmx(&vmx, p->path, &p->import->appliance, p->err);
    mull_vmx_free(&vmx);
    free(text);
    return ret;
}

static int read_libvirt(struct package *p)
{
    size_t size = 0;
    char *text = folder_read(p->path, 0, 0, MULL_XML_BYTES_MAX, &size, p->err);
    int ret = text ? mull_appliance_from_libvirt(p->path, text, size, &p->import->appliance, p->err)
                   : -p->err->code;
    free(text);
    return ret;
}

/* A disk alone: a machine around it. */
static int read_disk(struct package *p)
{
    struct mull_appliance *a = &p->import->appliance;
    const char *slash = strrchr(p->path, '/');
    const char *name = slash ? slash + 1 : p->path, *dot = strrchr(name, '.');
    char *stem = strndup(name, dot && dot != name ? (size_t)(dot - name) : strlen(name));
    char *plain = stem ? mull_machine_name(stem) : NULL;
    int ret = mull_appliance_init(a);
    if (!ret)
        ret = plain ? appliance_set(&a->config.name, plain) : -ENOMEM;
    free(stem);
    free(plain);
    struct mull_disk_config *disk = ret ? NULL : appliance_add_disk(a, p->path, p->err);
    if (!ret && disk)
        ret = appliance_set(&a->disk[0].name, name);
    struct mull_network_config *net = ret ? NULL : appliance_add_network(a, p->path, p->err);
    if (!ret && (!disk || !net || appliance_set(&a->config.firmware, "bios")))
        ret = -ENOMEM;
    return ret ? no_memory(p) : 0;
}

static int read_description(struct package *p)
{
    switch (p->kind) {
    case KIND_OVA:
    case KIND_OVF:
        return read_ovf(p);
    case KIND_VMX:
        return read_vmx(p);
    case KIND_LIBVIRT:
        return read_libvirt(p);
    case KIND_DISK:
    case KIND_NONE:
        break;
    }
    return read_disk(p);
}

/* ---- What the user asked for ---- */

static int map_networks(struct package *p)
{
    struct mull_import *import = p->import;
    struct mull_machine_config *c = &import->appliance.config;
    for (unsigned n = 0; n < import->network_count; n++) {
        const struct mull_pair *map = &import->network[n];
        bool used = false;
        for (unsigned i = 0; i < c->network_count; i++) {
            struct mull_network_config *net = &c->network[i];
            char number[16];
            snprintf(number, sizeof(number), "%u", i);
            if (strcmp(map->key, number) && (!net->name || strcmp(map->key, net->name)))
                continue;
            used = true;
            net->kind = !strcmp(map->value, "none")       ? MULL_NETWORK_NONE
                        : !strncmp(map->value, "tap=", 4) ? MULL_NETWORK_TAP
                                                          : MULL_NETWORK_USER;
            if (net->kind == MULL_NETWORK_USER && strcmp(map->value, "user"))
                return mull_fail(p->err, EINVAL,
                                 "--network %s=%s: give user, none or tap=INTERFACE", map->key,
                                 map->value);
            if (net->kind == MULL_NETWORK_TAP &&
                (!map->value[4] || appliance_set(&net->interface, map->value + 4)))
                return mull_fail(p->err, EINVAL, "--network %s: which interface?", map->key);
        }
        if (!used)
            return mull_fail(p->err, ENOENT,
                             "--network %s: the machine has no network of that name", map->key);
    }
    return 0;
}

static int apply_options(struct package *p)
{
    struct mull_import *import = p->import;
    struct mull_appliance *a = &import->appliance;
    int ret = 0;
    if (import->name) {
        char *plain = mull_machine_name(import->name);
        bool same = plain && !strcmp(plain, import->name);
        free(plain);
        if (!same)
            return mull_fail(p->err, EINVAL,
                             "--name %s: use 1 to 63 letters, digits, '-', '_' and '.'",
                             import->name);
        if (appliance_set(&a->config.name, import->name))
            return no_memory(p);
    }
    for (unsigned i = 0; i < import->property_count && !ret; i++)
        ret = mull_appliance_set_property(a, import->property[i].key, import->property[i].value,
                                          p->err);
    if (!ret)
        ret = map_networks(p);
    /* A VGA console says nothing on a terminal: the first serial port is the user's. */
    if (!ret && !a->config.console_count) {
        struct mull_console_config *console = appliance_add_console(a);
        console->kind = MULL_CONSOLE_STDIO;
    }
    return ret;
}

/* ---- Making the machine ---- */

/* QCOW2's external data file (its specification, "incompatible features", bit 2) can be any file.
 */
static int refuse_data_file(struct package *p, const struct part *part, const char *name)
{
    uint8_t head[104] = {0};
    int fd = open(part->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? pread(fd, head, sizeof(head), (off_t)part->offset) : -1;
    if (fd >= 0)
        close(fd);
    if (n < 80 || memcmp(head, "QFI\xfb", 4) || mull_be32(head + 4) < 3 || p->import->outside ||
        !(mull_be64(head + 72) & 4))
        return 0;
    return mull_fail(p->err, EPERM,
                     "'%.200s' has its data in another file; say --outside if you "
                     "trust it",
                     name);
}

/* A disk in a folder may be a difference to others there, not to files elsewhere. */
static int check_chain(struct package *p, const struct part *part, const char *format)
{
    char *path = strdup(part->path);
    int ret = path ? 0 : no_memory(p);
    for (unsigned depth = 0; !ret && depth < MULL_IMAGE_CHAIN_MAX; depth++) {
        struct mull_image_options o = {.path = path,
                                       .format = depth ? NULL : format,
                                       .readonly = true,
                                       .no_backing = true,
                                       .log = p->import->log};
        struct mull_image *image = NULL;
        struct part at = {.path = path}, below = {0};
        ret = refuse_data_file(p, &at, path);
        if (!ret)
            ret = mull_image_open(&o, &image, p->err);
        char *next = !ret && image->backing_path
                         ? mull_image_relative_path(image->path, image->backing_path)
                         : NULL;
        bool more = !ret && image->backing_path;
        if (more)
            ret = next ? folder_part(p, next, &below)
                       : mull_fail(p->err, EPERM, "%s: has a backing file that we do not follow",
                                   path);
        mull_image_close(image);
        free(next);
        free(path);
        path = below.path;
        if (!more)
            break;
    }
    free(path);
    return ret;
}

/* Bring a packed or divided file into one piece in the machine's folder. */
static int unpack(struct package *p, const struct mull_appliance_file *file, const char *to)
{
    uint64_t max = file->capacity ? file->capacity + file->capacity / 8 + (64u << 20) : UNPACK_MAX;
    int ret = 0;
    char name[MULL_TAR_NAME_MAX + 16];
    for (unsigned i = 0; !ret && i < CHUNKS_MAX; i++) {
        struct part part;
        snprintf(name, sizeof(name), file->chunk ? "%.1000s.%09u" : "%.1000s", file->name, i);
        ret = find_part(p, name, &part);
        if (ret == -ENOENT && i) {
            *p->err = (struct mull_error){0};
            return 0;
        }
        bool last = !file->chunk || part.size < file->chunk;
        if (!ret && part.size > file->chunk && file->chunk)
            ret = mull_fail(p->err, EBADMSG, "'%.200s' is larger than the chunkSize", name);
        if (!ret && file->gzip && !file->chunk)
            ret = folder_gunzip(part.path, part.offset, part.size, to, max, p->err);
        else if (!ret)
            ret = folder_append(part.path, part.offset, part.size, to, p->err);
        free(part.path);
        if (last)
            break;
    }
    return ret;
}

static int unpack_whole(struct package *p, const struct mull_appliance_file *file,
                        const char *folder, struct part *out)
{
    struct part packed = {0};
    int ret = 0;
    *out = (struct part){0};
    out->path = folder_join(folder, "unpacked.tmp", p->err);
    if (!out->path)
        return -ENOMEM;
    ret = unpack(p, file, out->path);
    if (!ret && file->gzip && file->chunk) {
        /* The parts are those of the packed file (DSP0243, 7.1). */
        packed.path = folder_join(folder, "packed.tmp", p->err);
        if (!packed.path || rename(out->path, packed.path))
            ret = mull_fail(p->err, packed.path ? errno : ENOMEM, "%s", out->path);
        struct stat st;
        if (!ret && !stat(packed.path, &st))
            ret = folder_gunzip(packed.path, 0, (uint64_t)st.st_size, out->path,
                                file->capacity ? file->capacity * 2 : UNPACK_MAX, p->err);
        if (packed.path)
            unlink(packed.path);
        free(packed.path);
    }
    return ret;
}

static const char *ending_of(const char *format)
{
    return !strcmp(format, "raw") ? "img" : format;
}

static int make_disk(struct package *p, unsigned i, const char *folder)
{
    struct mull_import *import = p->import;
    struct mull_disk_config *disk = &import->appliance.config.disk[i];
    struct mull_appliance_file *file = &import->appliance.disk[i];
    const char *format = import->disk_format ? import->disk_format : "qcow2";
    struct part part = {0};
    char name[32];
    bool packed = file->gzip || file->chunk;
    int ret = 0;
    if (file->name)
        ret = packed ? unpack_whole(p, file, folder, &part) : find_part(p, file->name, &part);
    if (!ret && file->name)
        ret = part.inside || packed ? refuse_data_file(p, &part, file->name)
                                    : check_chain(p, &part, file->format);
    if (!ret && import->in_place) {
        if (!file->name || part.inside || packed || p->fetched)
            ret = mull_fail(p->err, ENOTSUP,
                            "--in-place: disk %u is inside an archive, packed, fetched or empty; "
                            "leave the option out",
                            i);
        else
            ret = appliance_set(&disk->path, part.path) ? no_memory(p) : 0;
        if (!ret && file->format)
            ret = appliance_set(&disk->format, file->format) ? no_memory(p) : 0;
        free(part.path);
        return ret;
    }
    snprintf(name, sizeof(name), "disk%u.%s", i, ending_of(format));
    char *to = ret ? NULL : folder_join(folder, name, p->err);
    struct folder_disk convert = {
        .from = part.path,
        .from_format = file->format,
        .offset = part.offset,
        .length = part.inside ? part.size : 0,
        .no_backing = part.inside || packed,
        .to = to,
        .to_format = format,
        .size = file->capacity,
        .progress = {import->progress, import->opaque, file->name ? file->name : name},
        .log = import->log,
    };
    if (!ret && part.inside && !part.size)
        ret = mull_fail(p->err, EINVAL, "'%.200s' is empty", file->name);
    if (!ret)
        ret = to ? folder_convert(&convert, p->err) : -ENOMEM;
    if (!ret && file->capacity && file->name && convert.capacity > file->capacity + 511)
        mull_report_add(&import->appliance.report, MULL_NOTE_CHANGED, name,
                        "has %llu bytes, more than the descriptor says (%llu)",
                        (unsigned long long)convert.capacity, (unsigned long long)file->capacity);
    if (!ret)
        ret = appliance_set(&disk->path, name) || appliance_set(&disk->format, format)
                  ? no_memory(p)
                  : 0;
    if (packed && part.path)
        unlink(part.path);
    free(part.path);
    free(to);
    return ret ? mull_fail_in(p->err, "disk %u", i) : 0;
}

/* Copy a file that belongs to the machine (a CD image, variables, a kernel). @return 1: it is not
 * there, and that may be */
static int copy_file(struct package *p, const char *name, const char *as, const char *folder,
                     bool needed, char **field)
{
    struct part part;
    int ret = find_part(p, name, &part);
    if (ret == -ENOENT && !needed) {
        *p->err = (struct mull_error){0};
        return 1;
    }
    char *to = ret ? NULL : folder_join(folder, as, p->err);
    struct folder_progress progress = {p->import->progress, p->import->opaque, name};
    if (!ret && p->import->in_place && !part.inside)
        ret = appliance_set(field, part.path) ? no_memory(p) : 0;
    else if (!ret)
        ret = to ? folder_copy(part.path, part.offset, part.size, to, &progress, p->err) : -ENOMEM;
    if (!ret && !(p->import->in_place && !part.inside))
        ret = appliance_set(field, as) ? no_memory(p) : 0;
    free(part.path);
    free(to);
    return ret;
}

static int make_media(struct package *p, const char *folder)
{
    struct mull_appliance *a = &p->import->appliance;
    struct mull_machine_config *c = &a->config;
    int ret = 0;
    for (unsigned i = 0; i < c->cdrom_count && !ret; i++) {
        char name[32];
        if (!a->cdrom[i].name)
            continue;
        snprintf(name, sizeof(name), "cdrom%u.iso", i);
        ret = copy_file(p, a->cdrom[i].name, name, folder, false, &c->cdrom[i].path);
        if (ret == 1) {
            mull_report_add(&a->report, MULL_NOTE_LOST, name,
                            "its medium '%.200s' is not there; the drive is empty",
                            a->cdrom[i].name);
            ret = 0;
        }
    }
    if (!ret && a->nvram.name) {
        ret = copy_file(p, a->nvram.name, "nvram.fd", folder, false, &c->nvram);
        if (ret == 1) {
            mull_report_add(&a->report, MULL_NOTE_LOST, "nvram", "'%.200s' is not there",
                            a->nvram.name);
            ret = 0;
        }
    }
    char *kernel = c->kernel, *initrd = c->initrd;
    c->kernel = c->initrd = NULL;
    if (!ret && kernel)
        ret = copy_file(p, kernel, "kernel", folder, true, &c->kernel);
    if (!ret && initrd)
        ret = copy_file(p, initrd, "initrd", folder, true, &c->initrd);
    free(kernel);
    free(initrd);
    return ret;
}

static char *description_text(const struct mull_machine_config *c)
{
    json_t *json = mull_machine_config_write(c);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    return text;
}

static int write_description(struct package *p, const char *folder)
{
    const struct mull_machine_config *c = &p->import->appliance.config;
    char *text = description_text(c), *path = folder_join(folder, "machine.json", p->err);
    int ret = text && path ? folder_write(path, text, strlen(text), p->err) : no_memory(p);
    free(text);
    free(path);
    if (ret || !json_object_get(c->appliance, "properties"))
        return ret;
    text = mull_appliance_environment(c);
    path = folder_join(folder, "ovf-env.xml", p->err);
    ret = text && path ? folder_write(path, text, strlen(text), p->err) : no_memory(p);
    free(text);
    free(path);
    return ret;
}

/* What was written must be what a machine reads. */
static int check_description(struct package *p)
{
    struct mull_machine_config again;
    char *text = description_text(&p->import->appliance.config);
    if (!text)
        return no_memory(p);
    int ret = mull_machine_config_read(text, &again, p->err);
    mull_machine_config_free(&again);
    free(text);
    return ret ? mull_fail_in(p->err, "%s", p->import->source) : 0;
}

static int make_machine(struct package *p)
{
    struct mull_import *import = p->import;
    struct mull_machine_config *c = &import->appliance.config;
    char *target = NULL, *temporary = NULL;
    int ret = folder_make(import->into, p->err);
    if (!ret && !(target = folder_join(import->into, c->name, p->err)))
        ret = -ENOMEM;
    if (!ret)
        ret = folder_temporary(target, &temporary, p->err);
    for (unsigned i = 0; i < c->disk_count && !ret; i++)
        ret = make_disk(p, i, temporary);
    if (!ret)
        ret = make_media(p, temporary);
    if (!ret)
        ret = check_description(p);
    if (!ret)
        ret = write_description(p, temporary);
    if (!ret)
        ret = folder_commit(temporary, target, p->err);
    if (ret)
        folder_remove(temporary);
    else if (!(import->config_path = folder_join(target, "machine.json", p->err)))
        ret = -ENOMEM;
    free(temporary);
    free(target);
    return ret;
}

int mull_import(struct mull_import *import, struct mull_error *err)
{
    struct mull_error own = {0};
    struct package p = {.import = import, .tar_fd = -1, .err = err ? err : &own};
    const struct mull_format *format =
        import->disk_format ? mull_format_find(import->disk_format) : NULL;
    if (import->disk_format && (!format || !format->create))
        return mull_fail(err, EINVAL, "--disk-format %s: no format that we write",
                         import->disk_format);
    int ret = open_package(&p);
    if (!ret)
        ret = read_description(&p);
    if (!ret && import->appliance.licence_count && !import->accept_licences && !import->dry_run)
        ret = mull_fail(p.err, EACCES, "%s: its licence must be accepted first (--accept-eula)",
                        import->source);
    if (!ret)
        ret = apply_options(&p);
    if (!ret && import->dry_run) {
        struct mull_machine_config *c = &import->appliance.config;
        for (unsigned i = 0; i < c->disk_count && !ret; i++)
            ret = appliance_set(&c->disk[i].path, import->appliance.disk[i].name
                                                      ? import->appliance.disk[i].name
                                                      : "new")
                      ? no_memory(&p)
                      : 0;
        for (unsigned i = 0; i < c->cdrom_count && !ret; i++)
            ret = appliance_set(&c->cdrom[i].path, import->appliance.cdrom[i].name) ? no_memory(&p)
                                                                                    : 0;
        import->config_path = ret ? NULL : description_text(c);
        if (!ret && !import->config_path)
            ret = no_memory(&p);
    } else if (!ret) {
        ret = make_machine(&p);
    }
    close_package(&p);
    return ret;
}

void mull_import_free(struct mull_import *import)
{
    free(import->config_path);
    import->config_path = NULL;
    mull_appliance_free(&import->appliance);
}
