/*
 * Is a package what its maker signed? Digests of all files, and who signed the list of them
 * (DSP0243, 6.4 and 6.5).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/appliance/folder.h"
#include "machine/appliance/source.h"

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
    int ret = package_find(p, e->name, &part);
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
    char *cert = package_read(p, cert_name, MULL_MANIFEST_BYTES_MAX, &cert_size);
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

int package_check_manifest(struct package *p, const struct mull_ovf *ovf, const char *descriptor)
{
    struct mull_manifest m = {0};
    size_t size = 0;
    char *name = beside(p, descriptor, ".mf"), *cert = beside(p, descriptor, ".cert");
    char *text = name ? package_read(p, name, MULL_MANIFEST_BYTES_MAX, &size) : NULL;
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
