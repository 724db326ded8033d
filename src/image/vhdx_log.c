/*
 * The VHDX log (2.3): replaying what a crash left in it, and writing metadata through it. Each of
 * our entries is a sequence of its own: when one is begun, all that the one before it holds is
 * durable in its place.
 */
#include "image/vhdx.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_MAX (UINT64_C(256) << 20)
#define ZERO_MAX (UINT64_C(64) << 20) /* of zeroes kept in memory for a read-only image */

static uint32_t checksum_without(uint8_t *data, uint64_t length, uint32_t at)
{
    uint8_t old[4];
    memcpy(old, data + at, 4);
    memset(data + at, 0, 4);
    uint32_t crc = mull_crc32c(data, length);
    memcpy(data + at, old, 4);
    return crc;
}

struct log {
    uint8_t *data;
    uint64_t length;
    uint64_t budget; /* bytes that may still be summed: entries that claim to overlap cost time */
};

/* An entry, in one piece even where it wraps around the end of the log. NULL: none there. */
static uint8_t *entry_at(struct log *l, const struct vhdx *v, uint64_t at)
{
    const uint8_t *h = l->data + at;
    if (memcmp(h, "loge", 4))
        return NULL;
    uint32_t length = mull_le32(h + 8), tail = mull_le32(h + 12), count = mull_le32(h + 24);
    uint64_t sequence = mull_le64(h + 16);
    if (!length || length % VHDX_SECTOR || length > l->length || tail % VHDX_SECTOR ||
        tail >= l->length || !sequence || memcmp(h + 32, v->header.log_guid, 16) ||
        count > length / 32 || length > l->budget)
        return NULL;
    l->budget -= length;
    uint8_t *e = malloc(length);
    if (!e)
        return NULL;
    uint64_t first = l->length - at < length ? l->length - at : length;
    memcpy(e, h, first);
    memcpy(e + first, l->data, length - first);
    if (checksum_without(e, length, 4) != mull_le32(e + 4)) {
        free(e);
        return NULL;
    }
    return e;
}

struct sequence {
    uint64_t first, head, last_sequence, count;
};

/* Follow the entries from one place on. @seen: places that are part of a longer run already. */
static bool follow(struct log *l, const struct vhdx *v, uint64_t at, uint8_t *seen,
                   struct sequence *out)
{
    uint64_t expected = 0, total = 0;
    uint64_t *places = calloc(l->length / VHDX_SECTOR, sizeof(*places));
    uint32_t tail = 0;
    bool valid = false;

    memset(out, 0, sizeof(*out));
    while (places) {
        uint8_t *e = entry_at(l, v, at);
        if (!e)
            break;
        uint64_t sequence = mull_le64(e + 16);
        uint32_t length = mull_le32(e + 8);
        total += length;
        if ((expected && sequence != expected) || total > l->length) {
            free(e);
            break;
        }
        tail = mull_le32(e + 12);
        free(e);
        seen[at / VHDX_SECTOR] = 1;
        places[out->count++] = at;
        out->head = at;
        out->last_sequence = sequence;
        expected = sequence + 1;
        at = (at + length) % l->length;
    }
    for (uint64_t i = 0; i < out->count && !valid; i++)
        if (places[i] == tail) {
            out->first = tail;
            out->count -= i;
            valid = true;
        }
    free(places);
    return valid;
}

static int zero_range(struct mull_image *image, uint64_t offset, uint64_t length)
{
    uint64_t size = (atomic_load(&image->file->size) + VHDX_SECTOR - 1) & ~(VHDX_SECTOR - 1ull);
    /* Nothing behind the end of the file needs space to be zeroes. */
    if (offset >= size)
        return 0;
    length = length < size - offset ? length : size - offset;
    if (!image->readonly)
        return mull_file_zero(image->file, offset, length, false);
    if (length > ZERO_MAX || length % VHDX_SECTOR)
        return -EFBIG;
    return mull_meta_clear(image->meta, offset, length, 0);
}

/* One descriptor (2.3.1.2, 2.3.1.3) with its data sector. */
static int apply_one(struct mull_image *image, const uint8_t *d, const uint8_t *sector,
                     uint64_t sequence)
{
    uint64_t offset = mull_le64(d + 16);
    uint8_t page[VHDX_SECTOR];

    if (mull_le64(d + 24) != sequence || offset % VHDX_SECTOR || offset > INT64_MAX / 2)
        return -EINVAL;
    if (!memcmp(d, "zero", 4)) {
        uint64_t length = mull_le64(d + 8);
        if (length % VHDX_SECTOR || length > INT64_MAX / 2)
            return -EINVAL;
        return zero_range(image, offset, length);
    }
    if (memcmp(d, "desc", 4) || !sector || memcmp(sector, "data", 4) ||
        mull_le32(sector + 4) != sequence >> 32 ||
        mull_le32(sector + 4092) != (sequence & UINT32_MAX))
        return -EINVAL;
    memcpy(page, d + 8, 8);
    memcpy(page + 8, sector + 8, 4084);
    memcpy(page + 4092, d + 4, 4);
    return image->readonly ? mull_meta_write(image->meta, offset, page, sizeof(page), 0)
                           : mull_file_write(image->file, page, sizeof(page), offset);
}

static int apply_entry(struct mull_image *image, const uint8_t *e)
{
    uint32_t length = mull_le32(e + 8), count = mull_le32(e + 24);
    uint64_t sequence = mull_le64(e + 16), flushed = mull_le64(e + 48), last = mull_le64(e + 56);
    uint64_t sector = (64 + count * UINT64_C(32) + VHDX_SECTOR - 1) / VHDX_SECTOR * VHDX_SECTOR;
    uint64_t size = atomic_load(&image->file->size);
    int ret = 0;

    if (size < flushed || last > VHDX_SIZE_MAX + VHDX_SIZE_MAX / 8)
        return -EUCLEAN; /* the file lost its end */
    if (!image->readonly && size < last)
        ret = mull_file_truncate(image->file, last);
    for (uint32_t i = 0; i < count && !ret; i++) {
        const uint8_t *d = e + 64 + i * UINT64_C(32), *data = NULL;
        if (!memcmp(d, "desc", 4)) {
            if (sector + VHDX_SECTOR > length)
                return -EINVAL;
            data = e + sector;
            sector += VHDX_SECTOR;
        }
        ret = apply_one(image, d, data, sequence);
    }
    return ret;
}

/* Find the sequence to replay (2.3.3) and replay it. */
static int replay(struct mull_image *image, struct log *l, uint8_t *seen)
{
    struct vhdx *v = image->state;
    struct sequence best = {0}, s;
    int ret = 0;

    for (uint64_t at = 0; at < l->length; at += VHDX_SECTOR)
        if (!seen[at / VHDX_SECTOR] && follow(l, v, at, seen, &s) &&
            s.last_sequence > best.last_sequence)
            best = s;
    /* A run that wraps was perhaps begun in its middle: look again from its own tail. */
    uint64_t at = best.first;
    for (uint64_t i = 0; i < best.count && !ret; i++) {
        uint8_t *e = entry_at(l, v, at);
        if (!e)
            return -EIO;
        ret = apply_entry(image, e);
        at = (at + mull_le32(e + 8)) % l->length;
        free(e);
    }
    return ret;
}

int vhdx_log_replay(struct mull_image *image, struct mull_error *err)
{
    static const uint8_t none[16];
    struct vhdx *v = image->state;
    struct log l = {.length = v->header.log_length, .budget = v->header.log_length * UINT64_C(16)};
    uint64_t offset = v->header.log_offset;

    if (l.length > LOG_MAX || !l.length || l.length % VHDX_MB || offset % VHDX_MB ||
        offset < VHDX_MB || offset > INT64_MAX / 2)
        return mull_fail(err, EINVAL, "%s: VHDX header: log of %llu bytes at %#llx", image->path,
                         (unsigned long long)l.length, (unsigned long long)offset);
    if (!memcmp(v->header.log_guid, none, 16))
        return 0;
    l.data = malloc(l.length);
    uint8_t *seen = calloc(l.length / VHDX_SECTOR, 1);
    int ret = l.data && seen ? mull_file_read(image->file, l.data, l.length, offset) : -ENOMEM;
    if (!ret)
        ret = replay(image, &l, seen);
    free(l.data);
    free(seen);
    if (!ret && !image->readonly) {
        ret = mull_file_flush(image->file);
        memset(v->header.log_guid, 0, 16);
        if (!ret)
            ret = vhdx_write_header(image);
    }
    return ret ? mull_fail(err, -ret, "%s: cannot replay its log: %s", image->path, strerror(-ret))
               : 0;
}

uint32_t vhdx_log_most(const struct vhdx *v)
{
    /* Never more than half of the log: the entry before stays whole until this one is durable. */
    uint32_t sectors = v->header.log_length / 2 / VHDX_SECTOR;
    return sectors - 2 < 120 ? sectors - 2 : 120;
}

int vhdx_log_write(void *opaque, const struct mull_meta_page *pages, uint32_t count)
{
    struct mull_image *image = opaque;
    struct vhdx *v = image->state;
    uint32_t length = (1 + count) * VHDX_SECTOR; /* 126 descriptors fit into the first sector */
    uint64_t size = atomic_load(&image->file->size);
    uint8_t *e = calloc(1, length);

    if (!e)
        return -ENOMEM;
    if (v->log_at + length > v->header.log_length)
        v->log_at = 0;
    v->log_sequence++;
    memcpy(e, "loge", 4);
    mull_put_le32(e + 8, length);
    mull_put_le32(e + 12, (uint32_t)v->log_at);
    mull_put_le64(e + 16, v->log_sequence);
    mull_put_le32(e + 24, count);
    memcpy(e + 32, v->header.log_guid, 16);
    mull_put_le64(e + 48, size);
    mull_put_le64(e + 56, size);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *d = e + 64 + i * UINT64_C(32), *s = e + (1 + i) * (uint64_t)VHDX_SECTOR;
        memcpy(d, "desc", 4);
        memcpy(d + 4, pages[i].data + 4092, 4);
        memcpy(d + 8, pages[i].data, 8);
        mull_put_le64(d + 16, pages[i].offset);
        mull_put_le64(d + 24, v->log_sequence);
        memcpy(s, "data", 4);
        mull_put_le32(s + 4, (uint32_t)(v->log_sequence >> 32));
        memcpy(s + 8, pages[i].data + 8, 4084);
        mull_put_le32(s + 4092, (uint32_t)v->log_sequence);
    }
    mull_put_le32(e + 4, mull_crc32c(e, length));
    int ret = mull_file_write(image->file, e, length, v->header.log_offset + v->log_at);
    free(e);
    if (!ret)
        ret = mull_file_flush(image->file);
    v->log_at += length;
    return ret;
}
