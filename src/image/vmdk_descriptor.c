/*
 * VMDK descriptors (Spec, "The Descriptor File"): the text that names extents, parent and content
 * IDs. Untrusted: extents lie beside the descriptor, never above it or at an absolute path.
 */
#include "image/vmdk.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A comment for others: the parent's CID once a commit into it is through. */
#define COMMIT_CID "#commitCID"

/* The value's first byte in the text, or NULL. */
static const char *find_value(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *p = line + strspn(line, " \t");
        if (strncasecmp(p, name, n))
            continue;
        p += n;
        p += strspn(p, " \t");
        if (*p != '=')
            continue;
        p++;
        return p + strspn(p, " \t");
    }
    return NULL;
}

bool vmdk_value(const char *text, const char *name, char *out, size_t room)
{
    const char *p = find_value(text, name);
    if (!p)
        return false;
    size_t n = *p == '"' ? strcspn(++p, "\"\r\n") : strcspn(p, " \t\r\n");
    if (n >= room)
        n = room - 1;
    memcpy(out, p, n);
    out[n] = 0;
    return true;
}

static int open_extent_file(struct mull_image *image, struct vmdk_extent *e, const char *name,
                            const struct mull_image_options *o, struct mull_error *err)
{
    struct vmdk *v = image->state;
    const char *slash = strrchr(image->path, '/');
    /* An embedded descriptor's one extent is this file, whatever the text calls it. */
    if (v->descriptor_room ? v->nextents == 1 && e->kind == VMDK_SPARSE
                           : !strcmp(name, slash ? slash + 1 : image->path)) {
        e->file = image->file;
        return 0;
    }
    int ret = mull_image_open_named(image, o, name, "extent", &e->file, err);
    if (ret)
        return ret;
    e->own_file = true;
    return 0;
}

static const struct {
    const char *name;
    enum vmdk_kind kind;
} kinds[] = {
    {"SPARSE", VMDK_SPARSE},   {"FLAT", VMDK_FLAT}, {"VMFS", VMDK_FLAT},
    {"VMFSSPARSE", VMDK_COWD}, {"ZERO", VMDK_ZERO}, {"SESPARSE", VMDK_SESPARSE},
};

/* RW 4192256 SPARSE "disk-s001.vmdk" [offset] */
int vmdk_add_extent(struct mull_image *image, const char *line, uint64_t *at,
                    const struct mull_image_options *o, struct mull_error *err)
{
    struct vmdk *v = image->state;
    char access[9] = "", kind[17] = "", name[1024] = "";
    unsigned long long sectors = 0, offset = 0;
    const char *quote = strchr(line, '"');
    size_t length = strcspn(line, "\r\n");

    if (sscanf(line, "%8s %llu %16s", access, &sectors, kind) != 3)
        return mull_fail(err, EINVAL, "%s: descriptor line '%.60s'", image->path, line);
    if (quote && quote < line + length) {
        size_t n = strcspn(++quote, "\"\r\n");
        if (n >= sizeof(name) || quote[n] != '"')
            return mull_fail(err, EINVAL, "%s: descriptor line '%.60s'", image->path, line);
        memcpy(name, quote, n);
        name[n] = 0;
        offset = strtoull(quote + n + 1, NULL, 10);
    }
    if (v->nextents >= VMDK_EXTENTS_MAX)
        return mull_fail(err, E2BIG, "%s: more than %u extents", image->path, VMDK_EXTENTS_MAX);
    if (!sectors || sectors > (MULL_IMAGE_SIZE_MAX - *at) / VMDK_SECTOR ||
        offset > MULL_IMAGE_SIZE_MAX / VMDK_SECTOR)
        return mull_fail(err, EINVAL, "%s: extent '%.100s' of %llu sectors", image->path, name,
                         sectors);
    struct vmdk_extent *grown = realloc(v->extents, (v->nextents + 1) * sizeof(*grown));
    if (!grown)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    v->extents = grown;
    struct vmdk_extent *e = &grown[v->nextents];
    memset(e, 0, sizeof(*e));
    size_t k = 0;
    while (k < sizeof(kinds) / sizeof(kinds[0]) && strcmp(kinds[k].name, kind))
        k++;
    if (k == sizeof(kinds) / sizeof(kinds[0]))
        return mull_fail(err, ENOTSUP, "%s: extent type '%s'", image->path, kind);
    e->kind = kinds[k].kind;
    e->start = *at;
    e->length = sectors * VMDK_SECTOR;
    e->flat_offset = offset * VMDK_SECTOR;
    *at += e->length;
    v->nextents++;
    if (e->kind == VMDK_ZERO)
        return 0;
    int ret = open_extent_file(image, e, name, o, err);
    return ret || e->kind == VMDK_FLAT ? ret : vmdk_open_sparse(image, e, o, err);
}

bool vmdk_is_extent_line(const char *line)
{
    return !strncmp(line, "RW ", 3) || !strncmp(line, "RDONLY ", 7) ||
           !strncmp(line, "NOACCESS ", 9);
}

int vmdk_parse_descriptor(struct mull_image *image, const struct mull_image_options *o,
                          struct mull_error *err)
{
    struct vmdk *v = image->state;
    char value[1024];
    uint64_t size = 0;
    int ret = 0;

    if (!vmdk_value(v->descriptor, "CID", value, sizeof(value)))
        return mull_fail(err, EINVAL, "%s: descriptor without CID", image->path);
    v->cid = (uint32_t)strtoul(value, NULL, 16);
    v->parent_cid = VMDK_NO_PARENT;
    if (vmdk_value(v->descriptor, "parentCID", value, sizeof(value)))
        v->parent_cid = (uint32_t)strtoul(value, NULL, 16);
    v->commit_cid = v->parent_cid;
    if (vmdk_value(v->descriptor, COMMIT_CID, value, sizeof(value)) && strlen(value) == 8)
        v->commit_cid = (uint32_t)strtoul(value, NULL, 16);
    vmdk_value(v->descriptor, "createType", v->create_type, sizeof(v->create_type));
    if (v->parent_cid != VMDK_NO_PARENT) {
        if (!vmdk_value(v->descriptor, "parentFileNameHint", value, sizeof(value)) || !*value)
            return mull_fail(err, EINVAL, "%s: has a parent CID but no parentFileNameHint",
                             image->path);
        image->backing_path = strdup(value);
        image->backing_format = strdup("vmdk");
        if (!image->backing_path || !image->backing_format)
            return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    }
    for (const char *line = v->descriptor; line && !ret; line = strchr(line, '\n')) {
        line += *line == '\n';
        line += strspn(line, " \t");
        if (vmdk_is_extent_line(line))
            ret = vmdk_add_extent(image, line, &size, o, err);
    }
    if (!ret && !v->nextents)
        return mull_fail(err, EINVAL, "%s: descriptor without extents", image->path);
    image->size = size;
    return ret;
}

static int write_text(struct mull_image *image, const char *from, size_t length)
{
    struct vmdk *v = image->state;
    return mull_file_write(image->file, from, length,
                           v->descriptor_at + (uint64_t)(from - v->descriptor));
}

/* Where the digits of a content ID are in the text, and how many; 0: it has none that we know. */
static size_t find_cid(struct vmdk *v, const char *name, char **digits)
{
    *digits = (char *)(uintptr_t)find_value(v->descriptor, name);
    size_t n = *digits ? strspn(*digits, "0123456789abcdefABCDEF") : 0;
    return n <= 8 ? n : 0;
}

static uint32_t new_cid(struct vmdk *v)
{
    char *digits;
    size_t n = find_cid(v, "CID", &digits);
    uint32_t cid, mask = n && n < 8 ? (1u << 4 * n) - 1 : UINT32_MAX;

    /* 0xffffffff says "no parent", 0xfffffffe "never written". */
    do
        (void)!getrandom(&cid, sizeof(cid), 0);
    while (!(cid &= mask) || cid >= 0xfffffffe || cid == v->cid);
    return cid;
}

static int put_cid(struct mull_image *image, const char *name, uint32_t cid)
{
    char *p, digits[16];
    size_t n = find_cid(image->state, name, &p);

    if (!n)
        return 0;
    snprintf(digits, sizeof(digits), "%08x", cid);
    memcpy(p, digits + 8 - n, n);
    return write_text(image, p, n);
}

int vmdk_change_cid(struct mull_image *image)
{
    struct vmdk *v = image->state;
    int ret = 0;

    if (!v->descriptor)
        return 0;
    pthread_mutex_lock(&v->cid_lock);
    if (!atomic_load(&v->cid_changed)) {
        uint32_t cid = v->next_cid ? v->next_cid : new_cid(v);
        ret = put_cid(image, "CID", cid);
        v->cid = ret ? v->cid : cid;
        v->cid_failed = ret;
        /* A change-tracking file that does not hear of our writes would lie: VMware makes a new
         * one, in which everything has changed, where the descriptor names none. */
        const char *ctk = find_value(v->descriptor, "changeTrackPath");
        if (ctk && !ret) {
            char *line = (char *)(uintptr_t)ctk;
            while (line > v->descriptor && line[-1] != '\n')
                line--;
            char first = *line;
            *line = '#';
            ret = write_text(image, line, 1);
            if (ret)
                *line = first;
            /* Virtual Disk Programming Guide, "VMDK versions": 3 says no more than that. */
            char *version = (char *)(uintptr_t)find_value(v->descriptor, "version");
            if (!ret && version && *version == '3') {
                *version = '1';
                ret = write_text(image, version, 1);
            }
        }
        atomic_store(&v->cid_changed, !ret); /* else with the next write */
    }
    pthread_mutex_unlock(&v->cid_lock);
    return ret;
}

char *vmdk_build_descriptor(const struct mull_create_options *o, const char *create_type,
                            uint32_t cid, uint32_t parent_cid, const char *extents)
{
    uint64_t sectors = o->size / VMDK_SECTOR;
    uint64_t cylinders = sectors / (255 * 63);
    char *hint = NULL, *text = NULL;

    if (cylinders > 65535)
        cylinders = 65535;
    if (o->backing && asprintf(&hint, "parentFileNameHint=\"%s\"\n", o->backing) < 0)
        return NULL;
    if (asprintf(&text,
                 "# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n"
                 "%s\n# Extent description\n%s\n# The Disk Data Base\n#DDB\n\n"
                 "ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"%llu\"\n"
                 "ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\n"
                 "ddb.adapterType = \"lsilogic\"\n",
                 cid, parent_cid, create_type, hint ? hint : "", extents,
                 (unsigned long long)cylinders) < 0)
        text = NULL;
    free(hint);
    return text;
}

/* The text without the line of @name. */
static void drop_line(char *text, const char *name)
{
    const char *p = find_value(text, name);
    if (!p)
        return;
    char *line = (char *)(uintptr_t)p;
    while (line > text && line[-1] != '\n')
        line--;
    char *end = strchr(line, '\n');
    if (end)
        memmove(line, end + 1, strlen(end + 1) + 1);
    else
        *line = 0;
}

int vmdk_rebase(struct mull_image *image, const char *path, const char *format,
                struct mull_error *err)
{
    struct vmdk *v = image->state;
    uint32_t parent_cid = VMDK_NO_PARENT;
    char *text = v->descriptor ? malloc(strlen(v->descriptor) + 4096) : NULL;
    char add[2048] = "";
    int ret = 0;

    if (!text)
        return mull_fail(err, v->descriptor ? ENOMEM : ENOTSUP, "%s: has no descriptor",
                         image->path);
    if (path) {
        char *full = mull_image_relative_path(image->path, path);
        struct mull_image_options o = {
            .path = full, .format = "vmdk", .readonly = true, .no_backing = true, .no_lock = true};
        struct mull_image *parent;
        ret = full ? mull_image_open(&o, &parent, err) : mull_fail(err, EINVAL, "%s", path);
        free(full);
        if (ret) {
            free(text);
            return ret;
        }
        parent_cid = ((struct vmdk *)parent->state)->cid;
        mull_image_close(parent);
        snprintf(add, sizeof(add), "parentFileNameHint=\"%s\"\n", path);
    }
    strcpy(text, v->descriptor);
    drop_line(text, "parentFileNameHint");
    drop_line(text, "parentCID");
    char *after = strstr(text, "CID=");
    after = after ? strchr(after, '\n') : NULL;
    if (!after) {
        free(text);
        return mull_fail(err, EINVAL, "%s: descriptor without CID line", image->path);
    }
    char line[2100];
    int n = snprintf(line, sizeof(line), "parentCID=%08x\n%s", parent_cid, add);
    memmove(after + 1 + n, after + 1, strlen(after + 1) + 1);
    memcpy(after + 1, line, (size_t)n);
    uint64_t length = strlen(text), old = strlen(v->descriptor);
    if (v->descriptor_room && length > v->descriptor_room) {
        free(text);
        return mull_fail(err, ENAMETOOLONG, "%s: no room in the descriptor", image->path);
    }
    /* Embedded, the rest of its sectors is zeroes; a file of its own is as long as the text. */
    char *padded = calloc(1, (length > old ? length : old) + 1);
    if (padded)
        memcpy(padded, text, length);
    ret = padded
              ? mull_file_write(image->file, padded, length > old ? length : old, v->descriptor_at)
              : -ENOMEM;
    free(padded);
    if (!ret && !v->descriptor_room)
        ret = mull_file_truncate(image->file, length);
    if (!ret)
        ret = mull_file_flush(image->file);
    free(v->descriptor);
    v->descriptor = text;
    if (ret)
        return mull_fail(err, -ret, "%s: cannot write the descriptor", image->path);
    free(image->backing_path);
    image->backing_path = path ? strdup(path) : NULL;
    v->parent_cid = parent_cid;
    return 0;
}

/* A line that nobody reads, at the end: torn, it harms nothing. */
static int put_commit_cid(struct mull_image *image, uint32_t cid, struct mull_error *err)
{
    struct vmdk *v = image->state;
    char line[64];
    size_t old = strlen(v->descriptor);
    bool ends = old && v->descriptor[old - 1] == '\n';
    size_t n =
        (size_t)snprintf(line, sizeof(line), "%s" COMMIT_CID "=%08x\n", ends ? "" : "\n", cid);

    if (v->descriptor_room && old + n > v->descriptor_room)
        return mull_fail(err, ENAMETOOLONG, "%s: no room in the descriptor", image->path);
    char *text = realloc(v->descriptor, old + n + 1);
    if (!text)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    v->descriptor = text;
    memcpy(text + old, line, n + 1);
    int ret = write_text(image, text + old, n);
    return ret ? mull_fail(err, -ret, "%s: cannot write the descriptor", image->path) : 0;
}

static int drop_commit_cid(struct mull_image *image)
{
    struct vmdk *v = image->state;
    char *line = strstr(v->descriptor, COMMIT_CID "=");

    if (!line)
        return 0;
    /* Ours is the last line; what others have put behind it stays, and the line is overwritten. */
    size_t n = strcspn(line, "\n"), rest = strlen(line + n);
    memset(line, rest <= 1 ? 0 : '#', rest <= 1 ? n + rest : n);
    int ret = mull_file_write(image->file, line, rest <= 1 ? n + rest : n,
                              v->descriptor_at + (uint64_t)(line - v->descriptor));
    if (!ret && rest <= 1 && !v->descriptor_room)
        ret = mull_file_truncate(image->file, v->descriptor_at + (uint64_t)(line - v->descriptor));
    return ret;
}

int vmdk_expect_parent(struct mull_image *image, struct mull_image *parent, bool done,
                       struct mull_error *err)
{
    struct vmdk *v = image->state, *p = parent->state;
    int ret = 0;

    if (!v->descriptor || !p->descriptor)
        return 0;
    if (p->cid_failed)
        return mull_fail(err, EIO, "%s: its content ID could not be written", parent->path);
    /* What a commit that was cut off has left is put in order first. */
    ret = put_cid(image, "parentCID", p->cid);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret)
        ret = drop_commit_cid(image);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret)
        v->parent_cid = v->commit_cid = p->cid;
    if (!ret && !done) {
        v->commit_cid = p->next_cid = new_cid(p);
        ret = put_commit_cid(image, p->next_cid, err);
        if (ret)
            return ret;
        ret = mull_file_flush(image->file);
    }
    return ret ? mull_fail(err, -ret, "%s: cannot write the descriptor: %s", image->path,
                           strerror(-ret))
               : 0;
}
