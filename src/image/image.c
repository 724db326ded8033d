/*
 * What all formats share once they are open: transfers through a chain, copy-on-write, zeroes and
 * the ranges that requests hold. See image.h. Knows extents and places, never a format's tables.
 */
#include "image/image.h"
#include "image/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"

#define ZERO_CHUNK (1u << 20)
#define COW_GAP 16384u /* read in vain rather than in two parts */

static bool overlaps(const struct mull_range *a, uint64_t start, uint64_t end, bool exclusive)
{
    return a->start < end && start < a->end && (exclusive || a->exclusive);
}

static bool range_busy(struct mull_image *image, uint64_t start, uint64_t end, bool exclusive)
{
    for (struct mull_range *r = image->ranges; r; r = r->next)
        if (overlaps(r, start, end, exclusive))
            return true;
    return false;
}

static void range_round(const struct mull_image *image, uint64_t offset, uint64_t length,
                        uint64_t *start, uint64_t *end)
{
    uint64_t unit = image->lock_unit ? image->lock_unit : 1;
    *start = offset - offset % unit;
    *end = offset + length;
    if (*end % unit)
        *end += unit - *end % unit;
}

static void range_add(struct mull_image *image, struct mull_range *range)
{
    range->next = image->ranges;
    range->link = &image->ranges;
    if (range->next)
        range->next->link = &range->next;
    image->ranges = range;
}

int mull_range_try(struct mull_image *image, struct mull_range *range, uint64_t offset,
                   uint64_t length, bool exclusive)
{
    int ret = 0;
    range_round(image, offset, length, &range->start, &range->end);
    range->exclusive = exclusive;
    pthread_mutex_lock(&image->range_lock);
    if (range_busy(image, range->start, range->end, exclusive))
        ret = -EAGAIN;
    else
        range_add(image, range);
    pthread_mutex_unlock(&image->range_lock);
    return ret;
}

void mull_range_release(struct mull_image *image, struct mull_range *range)
{
    pthread_mutex_lock(&image->range_lock);
    *range->link = range->next;
    if (range->next)
        range->next->link = range->link;
    pthread_mutex_unlock(&image->range_lock);
}

/* One image's answer, cut to its size. */
static int map_one(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                   struct mull_extent *out)
{
    memset(out, 0, sizeof(*out));
    if (offset >= image->size) {
        out->kind = MULL_EXTENT_ZERO;
        out->length = length;
        return 0;
    }
    if (length > image->size - offset)
        length = image->size - offset;
    if (cached) {
        if (pthread_mutex_trylock(&image->lock))
            return -EAGAIN;
    } else {
        pthread_mutex_lock(&image->lock);
    }
    int ret = image->format->map(image, offset, length, cached, out);
    pthread_mutex_unlock(&image->lock);
    if (!ret && (!out->length || (out->length > length && out->kind != MULL_EXTENT_PACKED)))
        out->length = out->length ? length : 1;
    return ret;
}

int mull_image_locate(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                      struct mull_extent *out, struct mull_image **owner, int *depth)
{
    int level = 0;
    uint64_t most = length;

    for (struct mull_image *at = image; at; at = at->backing, level++) {
        int ret = map_one(at, offset, most, cached, out);
        if (ret)
            return ret;
        if (out->length > most)
            out->length = most;
        most = out->length;
        /* Only the top of a chain is ever written. */
        out->writable = out->writable && level == 0;
        if (owner)
            *owner = at;
        if (depth)
            *depth = level;
        if (out->kind != MULL_EXTENT_HOLE)
            return 0;
    }
    out->kind = MULL_EXTENT_ZERO;
    out->allocated = false;
    if (owner)
        *owner = image;
    if (depth)
        *depth = 0;
    return 0;
}

/* Where [skip, +length) of an iov is in one piece. */
static void *contiguous(const struct iovec *iov, int niov, uint64_t skip, uint64_t length)
{
    struct iovec part;
    return mull_iov_slice(iov, niov, skip, length, &part, 1) == 1 && part.iov_len == length
               ? part.iov_base
               : NULL;
}

/* Read part of a compressed unit; the last unit unpacked is kept. */
static int read_packed(struct mull_image *image, const struct mull_extent *e,
                       const struct iovec *iov, int niov, uint64_t skip, uint64_t offset,
                       uint64_t length)
{
    int ret = 0;

    if (offset == e->unit_start && length == e->unit_length) {
        /* All of it: to where it goes, while others do the same. */
        void *whole = contiguous(iov, niov, skip, length);
        if (whole)
            return image->format->unpack(image, e, whole);
    }
    pthread_mutex_lock(&image->unpack_lock);
    if (image->unpacked_at != e->unit_start || image->unpacked_from != e->offset) {
        image->unpacked_at = UINT64_MAX;
        if (image->unpacked_room < e->unit_length) {
            free(image->unpacked);
            image->unpacked = malloc(e->unit_length);
            image->unpacked_room = image->unpacked ? e->unit_length : 0;
        }
        ret = image->unpacked ? image->format->unpack(image, e, image->unpacked) : -ENOMEM;
        if (!ret) {
            image->unpacked_at = e->unit_start;
            image->unpacked_from = e->offset;
        }
    }
    if (!ret)
        mull_iov_fill(iov, niov, skip, image->unpacked + (offset - e->unit_start), length);
    pthread_mutex_unlock(&image->unpack_lock);
    return ret;
}

int mull_image_readv(struct mull_image *image, const struct iovec *iov, int niov, uint64_t offset,
                     uint64_t length)
{
    uint64_t at = 0;
    while (at < length) {
        struct mull_extent e;
        struct mull_image *owner;
        int ret = mull_image_locate(image, offset + at, length - at, false, &e, &owner, NULL);
        if (ret)
            return ret;
        if (e.kind == MULL_EXTENT_DATA) {
            struct iovec part[MULL_FILE_IOV];
            int n = mull_iov_slice(iov, niov, at, e.length, part, MULL_FILE_IOV);
            e.length = mull_iov_length(part, n);
            ret = mull_file_readv(e.file, part, n, e.offset, e.length);
        } else if (e.kind == MULL_EXTENT_PACKED) {
            uint64_t in_unit = e.unit_start + e.unit_length - (offset + at);
            if (e.length > in_unit)
                e.length = in_unit;
            ret = read_packed(owner, &e, iov, niov, at, offset + at, e.length);
        } else {
            mull_iov_zero(iov, niov, at, e.length);
        }
        if (ret)
            return ret;
        at += e.length;
    }
    return 0;
}

int mull_image_read(struct mull_image *image, void *buf, uint64_t length, uint64_t offset)
{
    struct iovec iov = {buf, length};
    return mull_image_readv(image, &iov, 1, offset, length);
}

/* Whether the range reads as zeroes, as far as the metadata says. */
static bool known_zero(struct mull_image *image, uint64_t offset, uint64_t length)
{
    while (length) {
        struct mull_extent e;
        if (mull_image_locate(image, offset, length, false, &e, NULL, NULL) ||
            e.kind != MULL_EXTENT_ZERO)
            return false;
        offset += e.length;
        length -= e.length;
    }
    return true;
}

/* Write the data, with what was around it before, to a new place. */
static int fill_place(struct mull_image *image, const struct mull_place *place,
                      const struct iovec *iov, int niov, uint64_t skip, uint64_t offset,
                      uint64_t length)
{
    uint64_t head = offset - place->start, tail = place->length - head - length;
    uint8_t *buf = NULL;
    int ret = 0;

    if (place->fresh) {
        if (head && known_zero(image, place->start, head))
            head = 0;
        if (tail && known_zero(image, offset + length, tail))
            tail = 0;
    }
    struct iovec part[MULL_FILE_IOV + 2];
    int n = 0;
    /* A small write inside a unit: what is around it in one read, with what it will cover. */
    uint64_t gap = head && tail && length <= COW_GAP ? length : 0, room = head + gap + tail;
    if (head + tail) {
        if (room > SIZE_MAX / 2 || posix_memalign((void **)&buf, 4096, room))
            return -ENOMEM;
        if (head)
            ret = mull_image_read(image, buf, gap ? room : head, offset - head);
        if (tail && !gap && !ret)
            ret = mull_image_read(image, buf + head, tail, offset + length);
    }
    if (head)
        part[n++] = (struct iovec){buf, head};
    n += mull_iov_slice(iov, niov, skip, length, part + n, MULL_FILE_IOV);
    if (tail)
        part[n++] = (struct iovec){buf + head + gap, tail};
    if (!ret)
        ret = mull_file_writev(place->file, part, n, place->offset + (offset - head - place->start),
                               head + length + tail);
    free(buf);
    return ret;
}

static int write_new(struct mull_image *image, const struct iovec *iov, int niov, uint64_t skip,
                     uint64_t offset, uint64_t *length)
{
    struct mull_place place = {0};

    if (!image->format->place)
        return -EROFS;
    pthread_mutex_lock(&image->lock);
    int ret = image->failed ? -EIO : image->format->place(image, offset, *length, &place);
    pthread_mutex_unlock(&image->lock);
    if (ret)
        return ret;
    if (*length > place.start + place.length - offset)
        *length = place.start + place.length - offset;
    ret = fill_place(image, &place, iov, niov, skip, offset, *length);
    pthread_mutex_lock(&image->lock);
    if (!ret)
        ret = image->format->link(image, &place);
    if (ret)
        image->format->unplace(image, &place);
    pthread_mutex_unlock(&image->lock);
    return ret;
}

int mull_image_writev(struct mull_image *image, const struct iovec *iov, int niov, uint64_t offset,
                      uint64_t length)
{
    uint64_t at = 0;

    if (image->readonly)
        return -EROFS;
    if (image->raw_guessed) {
        int ret = mull_image_guard(image, iov, niov, offset, length);
        if (ret)
            return ret;
    }
    mull_image_track(image, offset, length);
    while (at < length) {
        struct mull_extent e;
        struct iovec part[MULL_FILE_IOV];
        int ret = map_one(image, offset + at, length - at, false, &e);
        if (ret)
            return ret;
        uint64_t n = length - at;
        int count = mull_iov_slice(iov, niov, at, n, part, MULL_FILE_IOV);
        n = mull_iov_length(part, count);
        if (e.kind == MULL_EXTENT_DATA && e.writable) {
            if (n > e.length) {
                n = e.length;
                count = mull_iov_slice(iov, niov, at, n, part, MULL_FILE_IOV);
            }
            ret = mull_file_writev(e.file, part, count, e.offset, n);
        } else {
            ret = write_new(image, part, count, 0, offset + at, &n);
        }
        if (ret)
            return ret;
        at += n;
    }
    return 0;
}

int mull_image_write(struct mull_image *image, const void *buf, uint64_t length, uint64_t offset)
{
    struct iovec iov = {(void *)(uintptr_t)buf, length};
    return mull_image_writev(image, &iov, 1, offset, length);
}

/* Zeroes as data, only where the range does not read so already. */
static int write_zeroes(struct mull_image *image, uint64_t offset, uint64_t length)
{
    void *zeroes = NULL;
    int ret = 0;

    while (length && !ret) {
        struct mull_extent e;
        ret = mull_image_locate(image, offset, length, false, &e, NULL, NULL);
        if (ret)
            break;
        uint64_t n = e.length < ZERO_CHUNK ? e.length : ZERO_CHUNK;
        if (e.kind != MULL_EXTENT_ZERO) {
            if (!zeroes && posix_memalign(&zeroes, 4096, ZERO_CHUNK))
                return -ENOMEM;
            memset(zeroes, 0, n);
            ret = mull_image_write(image, zeroes, n, offset);
        } else {
            n = e.length;
        }
        offset += n;
        length -= n;
    }
    free(zeroes);
    return ret;
}

/* The whole units inside a range. The end of the disk ends a unit. */
static bool inner_units(const struct mull_image *image, uint64_t offset, uint64_t length,
                        uint64_t *start, uint64_t *end)
{
    uint64_t unit = image->unit ? image->unit : 1;
    *start = offset % unit ? offset + (unit - offset % unit) : offset;
    *end = offset + length;
    if (*end != image->size)
        *end -= *end % unit;
    return *start < *end;
}

static int with_lock(struct mull_image *image, bool discard, uint64_t offset, uint64_t length,
                     bool may_unmap)
{
    int ret = -EOPNOTSUPP;
    pthread_mutex_lock(&image->lock);
    if (image->failed)
        ret = -EIO;
    else if (discard && image->format->discard)
        ret = image->format->discard(image, offset, length);
    else if (!discard && image->format->zero)
        ret = image->format->zero(image, offset, length, may_unmap);
    pthread_mutex_unlock(&image->lock);
    return ret;
}

int mull_image_zero(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap)
{
    uint64_t start, end;
    int ret;

    if (image->readonly)
        return -EROFS;
    mull_image_track(image, offset, length);
    if (!inner_units(image, offset, length, &start, &end))
        return write_zeroes(image, offset, length);
    ret = with_lock(image, false, start, end - start, may_unmap);
    if (ret == -EOPNOTSUPP)
        return write_zeroes(image, offset, length);
    if (!ret && start > offset)
        ret = write_zeroes(image, offset, start - offset);
    if (!ret && end < offset + length)
        ret = write_zeroes(image, end, offset + length - end);
    return ret;
}

int mull_image_zero_fast(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap)
{
    uint64_t start, end;

    if (image->readonly)
        return -EROFS;
    if (!inner_units(image, offset, length, &start, &end) || start != offset ||
        end != offset + length || atomic_load(&image->file->no_punch) ||
        atomic_load(&image->file->no_zero))
        return -EOPNOTSUPP;
    mull_image_track(image, offset, length);
    return with_lock(image, false, offset, length, may_unmap);
}

int mull_image_discard(struct mull_image *image, uint64_t offset, uint64_t length)
{
    uint64_t start, end;
    int ret;

    if (image->readonly)
        return -EROFS;
    mull_image_track(image, offset, length);
    if (!inner_units(image, offset, length, &start, &end))
        return 0;
    ret = with_lock(image, true, start, end - start, true);
    return ret == -EOPNOTSUPP ? 0 : ret;
}

int mull_image_write_packed(struct mull_image *image, uint64_t offset, const void *packed,
                            uint32_t length)
{
    if (image->readonly || !image->format->write_packed)
        return -EROFS;
    mull_image_track(image, offset, image->unit);
    pthread_mutex_lock(&image->lock);
    int ret = image->failed ? -EIO : image->format->write_packed(image, offset, packed, length);
    pthread_mutex_unlock(&image->lock);
    pthread_mutex_lock(&image->unpack_lock);
    image->unpacked_at = UINT64_MAX;
    pthread_mutex_unlock(&image->unpack_lock);
    return ret;
}

int mull_image_flush(struct mull_image *image)
{
    int ret;

    if (image->readonly)
        return 0;
    pthread_mutex_lock(&image->lock);
    if (image->failed)
        ret = -EIO;
    else if (image->format->flush)
        ret = image->format->flush(image);
    else
        ret = mull_file_flush(image->file);
    /* After a failed flush nobody knows what reached the disk: pointing at it would be a lie. */
    if (ret == -EIO)
        image->failed = true;
    pthread_mutex_unlock(&image->lock);
    return ret;
}

bool mull_image_flush_is_plain(struct mull_image *image, struct mull_file **file)
{
    *file = image->file;
    if (image->file->observer || image->file->ops || image->unsafe)
        return false;
    if (!image->format->flush)
        return true;
    if (!image->meta || pthread_mutex_trylock(&image->lock))
        return false;
    bool plain = !image->failed && mull_meta_is_plain(image->meta);
    pthread_mutex_unlock(&image->lock);
    return plain;
}

bool mull_image_guarded(const struct mull_image *image, uint64_t offset, uint64_t length)
{
    return image->raw_guessed &&
           (offset < MULL_PROBE_HEAD || offset + length > image->size - MULL_PROBE_TAIL ||
            image->size < MULL_PROBE_TAIL);
}

/* Put the part of a write that falls into a window of the disk over it. */
static void overlay(uint8_t *window, uint64_t start, uint64_t size, const struct iovec *iov,
                    int niov, uint64_t offset, uint64_t length)
{
    uint64_t from = offset > start ? offset : start;
    uint64_t to = offset + length < start + size ? offset + length : start + size;
    if (from < to)
        mull_iov_copy(iov, niov, from - offset, window + (from - start), to - from);
}

int mull_image_guard(struct mull_image *image, const struct iovec *iov, int niov, uint64_t offset,
                     uint64_t length)
{
    uint8_t head[MULL_PROBE_HEAD], tail[MULL_PROBE_TAIL];

    if (!mull_image_guarded(image, offset, length))
        return 0;
    uint64_t end = image->size > sizeof(tail) ? image->size - sizeof(tail) : 0;
    int ret = mull_file_read(image->file, head, sizeof(head), 0);
    if (!ret)
        ret = mull_file_read(image->file, tail, sizeof(tail), end);
    if (ret)
        return ret;
    overlay(head, 0, sizeof(head), iov, niov, offset, length);
    overlay(tail, end, sizeof(tail), iov, niov, offset, length);
    return mull_format_of(head, sizeof(head), tail, NULL) || mull_source_packed(head, sizeof(head))
               ? -EPERM
               : 0;
}

int mull_image_resize(struct mull_image *image, uint64_t size, struct mull_error *err)
{
    uint64_t old = image->size;
    int ret = 0;

    if (image->readonly || !image->format->resize)
        return mull_fail(err, image->readonly ? EROFS : ENOTSUP,
                         "%s: format %s cannot be resized%s", image->path, image->format->name,
                         image->readonly ? " read-only" : "");
    if (image->failed)
        return mull_fail(err, EIO, "%s: an earlier change failed; close it first", image->path);
    if (size > MULL_IMAGE_SIZE_MAX)
        return mull_fail(err, EFBIG, "%s: larger than the largest disk (1 EiB)", image->path);
    if (size == old)
        return 0;
    if (image->format->may_resize && (ret = image->format->may_resize(image, size, err)))
        return ret;
    pthread_mutex_lock(&image->lock);
    ret = mull_bitmaps_fit(image, size > old ? size : old);
    pthread_mutex_unlock(&image->lock);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot fit its bitmaps: %s", image->path, strerror(-ret));
    if (size > old)
        mull_image_track(image, old, size - old);
    if (size < old && image->format->place) {
        ret = mull_image_discard(image, size, old - size);
        if (!ret)
            ret = mull_image_flush(image);
    } else if (size > old && image->format->place && old % image->lock_unit) {
        /* The rest of the last unit was never the disk's. */
        image->size = old + image->lock_unit - old % image->lock_unit;
        if (image->size > size)
            image->size = size;
        ret = write_zeroes(image, old, image->size - old);
        image->size = old;
    }
    if (ret)
        return mull_fail(err, -ret, "%s: cannot resize: %s", image->path, strerror(-ret));
    pthread_mutex_lock(&image->lock);
    ret = image->format->resize(image, size, false, err);
    if (mull_bitmaps_fit(image, image->size) && !ret)
        ret = mull_fail(err, ENOMEM, "%s: cannot fit its bitmaps", image->path);
    pthread_mutex_unlock(&image->lock);
    if (ret || size <= old || !image->backing || image->backing->size <= old)
        return ret;
    uint64_t end = image->backing->size < size ? image->backing->size : size;
    ret = mull_image_zero(image, old, end - old, true);
    if (!ret)
        ret = mull_image_flush(image);
    return ret ? mull_fail(err, -ret, "%s: cannot zero what is new: %s", image->path,
                           strerror(-ret))
               : 0;
}
