/*
 * Bitmaps in a file beside the image, for formats that have no place for them: FILE.cbt, laid out
 * as docs/images.md says. While an image is open for writing the file says "in use"; a clean close
 * writes the bits and, last, what the image's files look like. Whoever finds "in use", or an image
 * that looks otherwise, knows that changes may be missing. Knows no format but through image.h.
 */
#include "image/bitmap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/crc32c.h"

#define SECTOR 512u
#define ALIGN 4096u
#define VERSION 1u
#define BITMAPS_MAX 128u
#define ENTRY 32u
#define DIRECTORY_MAX (BITMAPS_MAX * (ENTRY + MULL_BITMAP_NAME_MAX + 1))

enum { STATE_CLEAN = 1, STATE_IN_USE = 2 };
enum { FLAG_RECORDING = 1, FLAG_UNKNOWN = 2 };

/* Fields of the header, all little-endian. */
enum {
    AT_VERSION = 8,
    AT_STATE = 12,
    AT_SIZE = 16,
    AT_COUNT = 24,
    AT_FILES = 28,
    AT_BYTES = 32,
    AT_STAMPS = 40,
    AT_GENERATION = 48,
    AT_DIRECTORY = 56,
    AT_DIRECTORY_SUM = 60,
    AT_SUM = SECTOR - 4,
};

static const char magic[8] = {'M', 'U', 'L', 'L', '-', 'C', 'B', 'T'};

struct beside {
    char *path;
    struct mull_file *file; /* NULL: there is none yet */
    bool foreign;           /* somebody else's file has that name */
};

/* What tells one moment of an image from another. */
struct identity {
    uint64_t bytes, stamps, generation;
    uint32_t files;
    struct timespec newest;
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    for (int i = 0; i < 8; i++, value >>= 8)
        hash = (hash ^ (value & 0xff)) * UINT64_C(0x100000001b3); /* FNV-1a */
    return hash;
}

static int add_file(struct identity *id, const struct mull_file *file, bool durable)
{
    struct stat st;
    /* fdatasync() may leave out the time of modification. */
    if ((durable && fsync(file->fd)) || fstat(file->fd, &st))
        return -errno;
    id->files++;
    id->bytes += (uint64_t)st.st_size;
    id->stamps = mix(id->stamps, (uint64_t)st.st_size);
    id->stamps = mix(id->stamps, (uint64_t)st.st_mtim.tv_sec);
    id->stamps = mix(id->stamps, (uint64_t)st.st_mtim.tv_nsec);
    if (st.st_mtim.tv_sec > id->newest.tv_sec ||
        (st.st_mtim.tv_sec == id->newest.tv_sec && st.st_mtim.tv_nsec > id->newest.tv_nsec))
        id->newest = st.st_mtim;
    return 0;
}

static int look(struct mull_image *image, struct identity *id, bool durable)
{
    memset(id, 0, sizeof(*id));
    id->stamps = UINT64_C(0xcbf29ce484222325);
    int ret = add_file(id, image->file, durable);
    for (uint32_t i = 0; image->format->part && !ret; i++) {
        const struct mull_file *part = image->format->part(image, i);
        if (!part)
            break;
        ret = add_file(id, part, durable);
    }
    if (image->format->generation)
        id->generation = image->format->generation(image);
    return ret;
}

/* A later write must not have the same time: file systems count in ticks, some in two seconds. */
static void outlast(const struct identity *id)
{
    const struct timespec nap = {0, 2000000};
    bool coarse = !id->newest.tv_nsec;

    for (int i = 0; i < (coarse ? 1100 : 25); i++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
        if (now.tv_sec > id->newest.tv_sec + (coarse ? 1 : 0) ||
            (!coarse && now.tv_sec == id->newest.tv_sec && now.tv_nsec > id->newest.tv_nsec))
            return;
        nanosleep(&nap, NULL);
    }
}

static int write_header(struct mull_image *image, uint32_t state, uint32_t count,
                        const uint8_t *directory, uint32_t length)
{
    struct beside *s = image->bitmaps->state;
    uint8_t h[SECTOR] = {0};
    struct identity id = {0};
    int ret = 0;

    if (state == STATE_CLEAN) {
        ret = look(image, &id, true);
        outlast(&id);
    }
    memcpy(h, magic, sizeof(magic));
    mull_put_le32(h + AT_VERSION, VERSION);
    mull_put_le32(h + AT_STATE, state);
    mull_put_le64(h + AT_SIZE, image->size);
    mull_put_le32(h + AT_COUNT, count);
    mull_put_le32(h + AT_FILES, id.files);
    mull_put_le64(h + AT_BYTES, id.bytes);
    mull_put_le64(h + AT_STAMPS, id.stamps);
    mull_put_le64(h + AT_GENERATION, id.generation);
    mull_put_le32(h + AT_DIRECTORY, length);
    mull_put_le32(h + AT_DIRECTORY_SUM, mull_crc32c(directory, length));
    mull_put_le32(h + AT_SUM, mull_crc32c(h, AT_SUM));
    if (!ret)
        ret = mull_file_write(s->file, h, sizeof(h), 0);
    return ret ? ret : mull_file_flush(s->file);
}

/* One bitmap of the directory. What its bits do not prove is unknown. */
static int read_entry(struct mull_image *image, const uint8_t *directory, uint32_t length,
                      uint32_t *at, bool trusted)
{
    struct beside *s = image->bitmaps->state;
    const uint8_t *e = directory + *at;

    if (length - *at < ENTRY)
        return -EINVAL;
    uint32_t flags = mull_le32(e), bits = mull_le32(e + 4), name = mull_le32(e + 28);
    uint64_t offset = mull_le64(e + 8), bytes = mull_le64(e + 16), total = 0;
    if (!name || name > MULL_BITMAP_NAME_MAX || name > length - *at - ENTRY || bits < 9 ||
        bits > 31 || memchr(e + ENTRY, 0, name))
        return -EINVAL;
    *at += ENTRY + name;
    struct mull_bitmap *b = mull_bitmaps_append(image, (const char *)e + ENTRY, name, bits);
    if (!b)
        return -ENOMEM;
    b->recording = flags & FLAG_RECORDING;
    b->unknown = !trusted || flags & FLAG_UNKNOWN || bytes != b->nbits / 8 + 1 ||
                 bytes > MULL_BITMAP_BITS_MAX || offset > INT64_MAX - bytes;
    for (const struct mull_bitmap *other = image->bitmaps->first; other; other = other->next)
        total += other->bits ? other->nbits / 8 : 0;
    if (b->unknown)
        return 0;
    if (total + bytes > MULL_BITMAP_BITS_MAX)
        return -EFBIG;
    b->bits = calloc(1, bytes);
    if (!b->bits)
        return -ENOMEM;
    int ret = mull_file_read(s->file, b->bits, bytes, offset);
    b->unknown = ret || mull_crc32c(b->bits, bytes) != mull_le32(e + 24);
    return 0;
}

/* Read the whole file. What is wrong with it makes bitmaps unknown or lets go of them; it is never
 * a reason not to open the image. */
static int read_all(struct mull_image *image)
{
    struct beside *s = image->bitmaps->state;
    uint8_t h[SECTOR];
    struct identity id;
    int ret = mull_file_read(s->file, h, sizeof(h), 0);

    s->foreign = !ret && atomic_load(&s->file->size) && memcmp(h, magic, sizeof(magic));
    if (ret || memcmp(h, magic, sizeof(magic)) || mull_le32(h + AT_SUM) != mull_crc32c(h, AT_SUM) ||
        mull_le32(h + AT_VERSION) != VERSION) {
        mull_log(image->log, MULL_LOG_WARN, "%s: is torn or no bitmap file of version %u: ignored",
                 s->path, VERSION);
        return 0;
    }
    uint32_t count = mull_le32(h + AT_COUNT), length = mull_le32(h + AT_DIRECTORY), at = 0;
    ret = look(image, &id, false);
    bool trusted = !ret && mull_le32(h + AT_STATE) == STATE_CLEAN &&
                   mull_le64(h + AT_SIZE) == image->size && mull_le32(h + AT_FILES) == id.files &&
                   mull_le64(h + AT_BYTES) == id.bytes && mull_le64(h + AT_STAMPS) == id.stamps &&
                   mull_le64(h + AT_GENERATION) == id.generation;
    uint8_t *directory = length <= DIRECTORY_MAX ? malloc(length + 1u) : NULL;
    ret = directory ? mull_file_read(s->file, directory, length, SECTOR) : -ENOMEM;
    if (!ret && mull_crc32c(directory, length) != mull_le32(h + AT_DIRECTORY_SUM))
        ret = -EINVAL;
    for (uint32_t i = 0; i < count && i < BITMAPS_MAX && !ret; i++)
        ret = read_entry(image, directory, length, &at, trusted);
    free(directory);
    if (ret)
        mull_log(image->log, MULL_LOG_WARN, "%s: its directory is damaged: bitmaps are missing",
                 s->path);
    else if (!trusted && count)
        mull_log(image->log, MULL_LOG_WARN,
                 "%s: was not closed, or the image has been changed by others: all of it counts as "
                 "changed",
                 s->path);
    return 0;
}

static int beside_begin(struct mull_image *image)
{
    struct beside *s = image->bitmaps->state;
    struct mull_error err = {0};
    bool fresh = !s->file;

    if (image->bitmaps->in_use)
        return 0;
    if (image->file->block_device)
        return -EOPNOTSUPP; /* nothing would tell of other writers */
    if (s->foreign)
        return -EEXIST;
    if (fresh) {
        struct mull_file_options fo = {
            .path = s->path, .create = true, .observer = image->file->observer};
        int ret = mull_file_open(&fo, &s->file, &err);
        if (ret)
            return ret;
    }
    /* The directory stays readable, for the names in it. */
    uint32_t count = 0, length = 0;
    uint8_t h[SECTOR], *directory = NULL;
    int ret = mull_file_read(s->file, h, sizeof(h), 0);
    if (!ret && !memcmp(h, magic, sizeof(magic)) &&
        mull_le32(h + AT_SUM) == mull_crc32c(h, AT_SUM) &&
        mull_le32(h + AT_DIRECTORY) <= DIRECTORY_MAX) {
        count = mull_le32(h + AT_COUNT);
        length = mull_le32(h + AT_DIRECTORY);
        directory = malloc(length + 1u);
        ret = directory ? mull_file_read(s->file, directory, length, SECTOR) : -ENOMEM;
    }
    if (!ret)
        ret = write_header(image, STATE_IN_USE, count, directory, length);
    free(directory);
    return ret || !fresh ? ret : mull_file_sync_folder(s->path);
}

static uint32_t put_entry(const struct mull_bitmap *b, uint8_t *e, uint64_t offset)
{
    uint32_t name = (uint32_t)strlen(b->name);
    mull_put_le32(e, (b->recording ? FLAG_RECORDING : 0) | (b->unknown ? FLAG_UNKNOWN : 0));
    mull_put_le32(e + 4, b->granularity_bits);
    if (b->bits) {
        mull_put_le64(e + 8, offset);
        mull_put_le64(e + 16, b->nbits / 8 + 1);
        mull_put_le32(e + 24, mull_crc32c(b->bits, b->nbits / 8 + 1));
    }
    mull_put_le32(e + 28, name);
    memcpy(e + ENTRY, b->name, name);
    return ENTRY + name;
}

static int beside_save(struct mull_image *image)
{
    struct beside *s = image->bitmaps->state;
    uint8_t *directory = calloc(1, DIRECTORY_MAX);
    uint32_t length = 0, count = 0;
    uint64_t end = (SECTOR + DIRECTORY_MAX + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
    int ret = directory ? 0 : -ENOMEM;

    for (struct mull_bitmap *b = image->bitmaps->first; b && !ret; b = b->next) {
        if (count++ == BITMAPS_MAX)
            ret = -E2BIG;
        if (!ret && b->bits)
            ret = mull_file_write(s->file, b->bits, b->nbits / 8 + 1, end);
        if (ret)
            break;
        length += put_entry(b, directory + length, end);
        if (b->bits)
            end = (end + b->nbits / 8 + ALIGN) & ~(uint64_t)(ALIGN - 1);
    }
    if (!ret && length)
        ret = mull_file_write(s->file, directory, length, SECTOR);
    if (!ret)
        ret = mull_file_truncate(s->file, end);
    if (!ret)
        ret = mull_file_flush(s->file);
    if (!ret)
        ret = write_header(image, STATE_CLEAN, count, directory, length);
    free(directory);
    return ret;
}

static void beside_drop(struct mull_image *image, struct mull_bitmap *bitmap, bool removed) {}

static void beside_close(struct mull_image *image)
{
    struct beside *s = image->bitmaps->state;
    if (s) {
        mull_file_close(s->file);
        free(s->path);
    }
    free(s);
}

static const struct mull_bitmap_store beside_store = {
    .one_mark = true,
    .begin = beside_begin,
    .save = beside_save,
    .drop = beside_drop,
    .close = beside_close,
};

int mull_bitmap_file_open(struct mull_image *image, struct mull_error *err)
{
    int ret = mull_bitmaps_create(image, &beside_store);
    struct beside *s = ret ? NULL : calloc(1, sizeof(*s));

    if (s)
        image->bitmaps->state = s;
    if (!s || asprintf(&s->path, "%s.cbt", image->path) < 0) {
        if (s)
            s->path = NULL;
        mull_bitmaps_free(image);
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    }
    if (image->file->ops) /* nothing lies beside a URL */
        return 0;
    struct mull_file_options fo = {
        .path = s->path, .readonly = image->readonly, .observer = image->file->observer,
        .given = image->file->given};
    struct mull_error why = {0};
    struct stat st;
    /* The name must not lead elsewhere. */
    ret = !lstat(s->path, &st) && !S_ISREG(st.st_mode)
              ? mull_fail(&why, EPERM, "%s: is not a regular file", s->path)
              : mull_file_open(&fo, &s->file, &why);
    if (ret == -ENOENT || ret == -ENOTDIR || ret == -ENAMETOOLONG)
        return 0;
    if (ret) {
        mull_bitmaps_free(image);
        mull_fail(err, -ret, "%s", why.message);
        return image->readonly ? ret
                               : mull_fail_in(err, "changes of %s would go unnoticed", image->path);
    }
    ret = read_all(image);
    if (!ret && !image->readonly)
        ret = mull_bitmaps_start(image, err);
    if (ret)
        mull_bitmaps_free(image);
    return ret;
}

int mull_bitmap_file_close(struct mull_image *image)
{
    struct mull_bitmap_set *set = image->bitmaps;

    if (!set || set->store != &beside_store || !set->in_use)
        return 0;
    struct beside *s = set->state;
    if (set->first)
        return beside_save(image);
    return unlink(s->path) ? -errno : 0;
}
