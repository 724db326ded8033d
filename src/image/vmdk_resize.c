/*
 * Another size for a VMDK: of its one extent, or of the last ones of a split disk. Growing, the
 * extent comes first and the descriptor, which says the size, last; shrinking, the other way round:
 * a cut between leaves an extent that is larger than its line says. Spec: see vmdk.h.
 */
#include "image/vmdk.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GT_BYTES(e) ((e)->gt_entries * UINT64_C(4))

static bool is_split(const struct vmdk *v)
{
    return !strncasecmp(v->create_type, "twoGb", 5);
}

int vmdk_may_resize(struct mull_image *image, uint64_t size, struct mull_error *err)
{
    const struct vmdk *v = image->state;
    const struct vmdk_extent *last = &v->extents[v->nextents - 1];

    if (image->backing_path)
        return mull_fail(err, ENOTSUP, "%s: a delta keeps its parent's size", image->path);
    if (!size || size % VMDK_SECTOR)
        return mull_fail(err, EINVAL, "%s: size %llu is not sectors of 512 bytes", image->path,
                         (unsigned long long)size);
    for (uint32_t i = 0; i < v->nextents; i++)
        if (v->extents[i].kind != last->kind || v->extents[i].compressed || v->extents[i].stream)
            return mull_fail(err, ENOTSUP, "%s: extents of several kinds", image->path);
    if (last->kind != VMDK_FLAT && last->kind != VMDK_SPARSE && last->kind != VMDK_COWD)
        return mull_fail(err, ENOTSUP, "%s: extents of this kind keep their size", image->path);
    if (v->nextents > 1 && !is_split(v))
        return mull_fail(err, ENOTSUP, "%s: has %u extents, and is not split in 2 GiB parts",
                         image->path, v->nextents);
    if (last->file->fixed_size)
        return mull_fail(err, ENOTSUP, "%s: lies on a block device", image->path);
    uint64_t sectors = size / VMDK_SECTOR;
    if (last->kind != VMDK_FLAT && !is_split(v) &&
        sectors + sectors / last->gt_entries > UINT32_MAX - (1u << 20))
        return mull_fail(err, EFBIG, "%s: a sparse extent holds 2 TiB at most", image->path);
    if (is_split(v) && sectors / VMDK_SPLIT_SECTORS >= VMDK_EXTENTS_MAX)
        return mull_fail(err, EFBIG, "%s: more than %u extents", image->path, VMDK_EXTENTS_MAX);
    return 0;
}

/* A directory of @entries at @at: the old one's entries, then tables of its own behind it. @end:
 * the byte behind all of it. */
static int copy_directory(struct vmdk_extent *e, uint64_t from, uint64_t entries, uint64_t at,
                          uint64_t *end)
{
    uint64_t bytes = (entries * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR * VMDK_SECTOR;
    uint64_t gt = (GT_BYTES(e) + VMDK_SECTOR - 1) / VMDK_SECTOR * VMDK_SECTOR;
    uint8_t *gd = calloc(1, bytes), *empty = calloc(1, gt);
    int ret = gd && empty ? mull_file_read(e->file, gd, e->gd_entries * 4, from) : -ENOMEM;

    *end = at + bytes;
    for (uint64_t i = e->gd_entries; i < entries && !ret && e->kind == VMDK_SPARSE; i++) {
        /* Hosted extents have all their tables (Spec, "Hosted Sparse Extent Metadata"). */
        mull_put_le32(gd + i * 4, (uint32_t)(*end / VMDK_SECTOR));
        ret = mull_file_write(e->file, empty, gt, *end);
        *end += gt;
    }
    if (!ret)
        ret = mull_file_write(e->file, gd, bytes, at);
    free(gd);
    free(empty);
    return ret;
}

/* The fields that a resize changes: all in the header's first sector. */
static int write_header(struct vmdk_extent *e, uint64_t length, uint64_t entries)
{
    uint8_t head[512];
    int ret = mull_file_read(e->file, head, sizeof(head), 0);

    if (e->kind == VMDK_SPARSE) {
        mull_put_le64(head + 12, length / VMDK_SECTOR);
        mull_put_le64(head + 48, e->rgd / VMDK_SECTOR);
        mull_put_le64(head + 56, e->gd / VMDK_SECTOR);
    } else {
        mull_put_le32(head + 12, (uint32_t)(length / VMDK_SECTOR));
        mull_put_le32(head + 20, (uint32_t)(e->gd / VMDK_SECTOR));
        mull_put_le32(head + 24, (uint32_t)entries);
        mull_put_le32(head + 28, (uint32_t)(e->end / VMDK_SECTOR));
    }
    if (!ret)
        ret = mull_file_write(e->file, head, sizeof(head), 0);
    mull_meta_forget(e->meta, 0, VMDK_SECTOR);
    return ret ? ret : mull_file_flush(e->file);
}

static int grow_sparse(struct vmdk_extent *e, uint64_t length)
{
    uint64_t covered = e->grain * e->gt_entries, entries = (length + covered - 1) / covered;
    uint64_t at = (e->end + VMDK_SECTOR - 1) / VMDK_SECTOR * VMDK_SECTOR, end = at, rgd = 0;
    int ret = 0;

    if (entries != e->gd_entries) {
        if (at + entries * (GT_BYTES(e) + 8) * 2 > UINT32_MAX * VMDK_SECTOR)
            return -EFBIG;
        if (e->rgd) {
            rgd = at;
            ret = copy_directory(e, e->rgd, entries, rgd, &end);
        }
        at = end;
        if (!ret)
            ret = copy_directory(e, e->gd, entries, at, &end);
        if (!ret)
            ret = mull_file_flush(e->file);
        if (ret)
            return ret;
        e->gd = at;
        e->rgd = rgd;
        e->end = (end + e->grain - 1) / e->grain * e->grain;
    }
    ret = write_header(e, length, entries);
    if (!ret) {
        e->length = length;
        e->gd_entries = entries;
    }
    return ret;
}

static int resize_extent(struct vmdk_extent *e, uint64_t length)
{
    uint64_t covered = e->grain * e->gt_entries;
    int ret;

    if (e->kind == VMDK_FLAT) {
        /* What lies behind the old end is nobody's. */
        ret = length > e->length ? mull_file_truncate(e->file, e->flat_offset + e->length) : 0;
        if (!ret)
            ret = mull_file_truncate(e->file, e->flat_offset + length);
        if (!ret)
            ret = mull_file_flush(e->file);
        e->length = ret ? e->length : length;
        return ret;
    }
    if (length > e->length)
        return grow_sparse(e, length);
    uint64_t entries = (length + covered - 1) / covered;
    ret = write_header(e, length, entries);
    if (!ret) {
        e->length = length;
        e->gd_entries = entries;
    }
    return ret;
}

/* The extent's line number @index in the text, NULL: there is none. */
static char *extent_line(char *text, uint32_t index)
{
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        char *p = line + strspn(line, " \t");
        if (vmdk_is_extent_line(p) && !index--)
            return p;
    }
    return NULL;
}

/* Another number of sectors in a line, without moving what follows: a longer number takes its room
 * from the comment before, so that only bytes of one sector of the file change. */
static int set_count(struct mull_image *image, char *line, uint64_t sectors)
{
    struct vmdk *v = image->state;
    char number[32], *at = line + strcspn(line, " \t"), *first = at;
    at += strspn(at, " \t");
    size_t have = strspn(at, "0123456789"), room = have + strspn(at + have, " \t") - 1;
    size_t n = (size_t)snprintf(number, sizeof(number), "%llu", (unsigned long long)sectors);

    if (n > room) {
        size_t more = n - room;
        char *end = line;
        while (end > v->descriptor && end[-1] == '\n')
            end--;
        char *start = end;
        while (start > v->descriptor && start[-1] != '\n')
            start--;
        if (*start != '#' || start == v->descriptor || (size_t)(end - start) < more + 1)
            return -ENOSPC;
        memmove(end - more, end, (size_t)(at - end));
        at -= more;
        first = end - more;
        room += more;
    }
    memset(at, ' ', room);
    memcpy(at, number, n);
    size_t from = (size_t)(first - v->descriptor);
    size_t length = (size_t)(at + room - first);
    int ret = mull_file_write(image->file, first, length, v->descriptor_at + from);
    return ret ? ret : mull_file_flush(image->file);
}

/* A whole new text. In one sector it is written in place; a longer one goes to a new file that
 * takes the old one's name, and its place below us. */
static int replace_text(struct mull_image *image, char *text)
{
    struct vmdk *v = image->state;
    size_t length = strlen(text), old = strlen(v->descriptor);
    struct mull_file *fresh = NULL;
    struct mull_error err = {0};
    char *path = NULL;
    int ret;

    if (v->descriptor_room)
        return -EOPNOTSUPP; /* embedded ones have one extent */
    if (length <= VMDK_SECTOR && old <= VMDK_SECTOR) {
        char sector[VMDK_SECTOR];
        memset(sector, '\n', sizeof(sector));
        memcpy(sector, text, length);
        ret = mull_file_write(image->file, sector, length > old ? length : old, 0);
        return ret ? ret : mull_file_flush(image->file);
    }
    if (asprintf(&path, "%s.new", image->path) < 0)
        return -ENOMEM;
    struct mull_file_options fo = {.path = path, .create = true, .observer = image->file->observer};
    ret = mull_file_open(&fo, &fresh, &err);
    if (!ret)
        ret = mull_file_write(fresh, text, length, 0);
    if (!ret)
        ret = mull_file_flush(fresh);
    if (!ret && rename(path, image->path))
        ret = -errno;
    if (!ret && dup2(fresh->fd, image->file->fd) < 0)
        ret = -errno;
    if (!ret) {
        atomic_store(&image->file->size, length);
        image->file->ino = fresh->ino;
        ret = mull_file_sync_folder(image->path);
    }
    mull_file_close(fresh);
    free(path);
    return ret;
}

/* The text with @keep extents' lines and then @lines. @return malloc'ed */
static char *compose(const struct vmdk *v, uint32_t keep, const char *lines)
{
    char *text = malloc(strlen(v->descriptor) + strlen(lines) + 2), *out = text;
    uint32_t seen = 0;

    for (const char *line = v->descriptor; text && *line;) {
        size_t n = strcspn(line, "\n");
        n += line[n] == '\n';
        bool extent = vmdk_is_extent_line(line + strspn(line, " \t"));
        if (!extent || seen < keep) {
            memcpy(out, line, n);
            out += n;
        }
        if (extent && ++seen == v->nextents) {
            strcpy(out, lines);
            out += strlen(lines);
        }
        line += n;
    }
    if (text)
        *out = 0;
    return text;
}

static int set_text(struct mull_image *image, char *text)
{
    struct vmdk *v = image->state;
    int ret = text ? replace_text(image, text) : -ENOMEM;
    if (ret) {
        free(text);
        return ret;
    }
    free(v->descriptor);
    v->descriptor = text;
    return 0;
}

/* Further extents of a split disk, for @bytes. */
static int add_extents(struct mull_image *image, uint64_t bytes, struct mull_error *err)
{
    struct vmdk *v = image->state;
    struct mull_create_options c = {.path = image->path,
                                    .subformat = v->extents[0].kind == VMDK_FLAT
                                                     ? "twoGbMaxExtentFlat"
                                                     : "twoGbMaxExtentSparse",
                                    .observer = image->file->observer};
    struct mull_image_options o = {.observer = image->file->observer};
    uint64_t left = bytes / VMDK_SECTOR, at = image->size;
    uint32_t keep = v->nextents, number = keep + 1;
    char *lines = NULL;
    size_t unused;
    FILE *out = open_memstream(&lines, &unused);
    int ret = out ? 0 : -ENOMEM;

    while (left && !ret) {
        uint64_t n = left < VMDK_SPLIT_SECTORS ? left : VMDK_SPLIT_SECTORS;
        ret = vmdk_make_extent(&c, number++, n, out, err);
        left -= n;
    }
    if (out)
        fclose(out);
    if (!ret)
        ret = set_text(image, compose(v, keep, lines));
    for (const char *line = ret ? NULL : lines; line && *line && !ret;) {
        ret = vmdk_add_extent(image, line, &at, &o, err);
        line = strchr(line, '\n');
        line += line && *line == '\n';
    }
    free(lines);
    return ret;
}

/* Extents that lie behind the new end. */
static int drop_extents(struct mull_image *image, uint32_t keep)
{
    struct vmdk *v = image->state;
    int ret = set_text(image, compose(v, keep, ""));

    while (!ret && v->nextents > keep) {
        struct vmdk_extent *e = &v->extents[--v->nextents];
        mull_meta_destroy(e->meta);
        if (e->own_file) {
            unlink(e->file->path);
            mull_file_close(e->file);
        }
    }
    return ret;
}

/* The new length of the last extent that stays, in it and in its line. */
static int resize_last(struct mull_image *image, uint64_t length)
{
    struct vmdk *v = image->state;
    struct vmdk_extent *e = &v->extents[v->nextents - 1];
    char *line = v->descriptor ? extent_line(v->descriptor, v->nextents - 1) : NULL;
    bool grow = length > e->length;
    int ret = 0;

    if (v->descriptor && !line)
        return -EINVAL;
    if (length == e->length)
        return 0;
    if (grow)
        ret = resize_extent(e, length);
    if (!ret && line)
        ret = set_count(image, line, length / VMDK_SECTOR);
    if (!ret && !grow)
        ret = resize_extent(e, length);
    return ret;
}

int vmdk_resize(struct mull_image *image, uint64_t size, bool preallocate, struct mull_error *err)
{
    struct vmdk *v = image->state;
    const uint64_t most = VMDK_SPLIT_SECTORS * VMDK_SECTOR;
    int ret = image->format->flush(image);

    uint32_t keep = v->nextents;
    while (keep > 1 && v->extents[keep - 1].start >= size)
        keep--;
    if (!ret && keep < v->nextents)
        ret = drop_extents(image, keep);
    struct vmdk_extent *last = &v->extents[v->nextents - 1];
    uint64_t length = size - last->start;
    if (is_split(v) && length > most)
        length = last->length > most ? last->length : most;
    if (!ret)
        ret = resize_last(image, length);
    if (!ret) {
        last = &v->extents[v->nextents - 1];
        image->size = last->start + last->length;
        if (image->size < size)
            ret = add_extents(image, size - image->size, err);
    }
    if (ret) {
        image->failed = true; /* which size the files say is not known */
        return mull_fail(err, -ret, "%s: cannot resize: %s", image->path, strerror(-ret));
    }
    image->size = size;
    return 0;
}
