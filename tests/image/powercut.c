/*
 * Power cuts: a workload runs on an image while every write, hole, truncation and flush below the
 * format is recorded. Then the disk is rebuilt as a power cut could have left it after any of them:
 * what was flushed is there, and of what was not any part, torn at sector boundaries. Each such
 * image must open, pass the check, and hold every byte that a flush had promised; its bitmap of
 * changed blocks must name every change, or say that it does not know.
 *
 * usage: powercut [-n CUTS] [-s SEED] [-q EVERY] [NAME...]    -q: also qemu-img check on every
 * EVERYth
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/bitmap.h"
#include "image/chain.h"
#include "image/image.h"

#define SECTOR 512u
#define FILES 16
#define BASE_TAG 0x80000000u
#define OTHER_TAG 0x80000001u
#define GRANULARITY 4096u

static uint64_t rng;

static uint32_t rnd(uint32_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return below ? (uint32_t)((rng >> 11) % below) : 0;
}

/* What the recorder saw. */
struct event {
    enum mull_file_event kind;
    int file;
    uint64_t offset, length;
    uint8_t *data;
};

/* A file as it is at some moment. */
struct content {
    uint8_t *data;
    uint64_t size, room;
};

/* What the guest did, and at which event. */
struct guest_op {
    enum { OP_FILL, OP_FLUSH, OP_RESIZE, OP_RESTORE } kind;
    uint32_t first, count, tag; /* sectors; RESIZE: count is the new size */
    uint32_t *restored;         /* RESTORE: the tags that come back */
    size_t issued, finished;    /* events before it began, and when it had ended */
};

struct test {
    const char *name, *format;
    struct mull_create_options create;
    bool backing; /* on a raw image */
    bool chain;   /* on an image of the same format */
    bool snapshots, resize, discard, commit, rebase;
    const char *qemu; /* format for qemu-img check, or NULL */
};

static struct {
    struct event *events;
    size_t nevents, room;
    char *paths[FILES];
    int npaths;
    struct content base[FILES];
    struct timespec before[FILES], after[FILES]; /* when each was changed */
    struct guest_op *ops;
    size_t nops;
    bool recording;
} rec;

static char dir[256];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void put(struct content *c, uint64_t offset, const void *data, uint64_t length)
{
    uint64_t end = offset + length;
    if (end > c->room) {
        c->data = realloc(c->data, end * 2);
        memset(c->data + c->room, 0, end * 2 - c->room);
        c->room = end * 2;
    }
    if (data)
        memcpy(c->data + offset, data, length);
    if (end > c->size)
        c->size = end;
}

static void load(const char *path, struct content *c)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st))
        die(path);
    if (st.st_size) {
        put(c, 0, NULL, (uint64_t)st.st_size);
        if (read(fd, c->data, (size_t)st.st_size) != st.st_size)
            die(path);
    }
    close(fd);
}

static struct timespec changed_at(const char *path)
{
    struct stat st;
    return stat(path, &st) ? (struct timespec){0} : st.st_mtim;
}

static int file_index(const char *path)
{
    for (int i = 0; i < rec.npaths; i++)
        if (!strcmp(rec.paths[i], path))
            return i;
    rec.paths[rec.npaths] = strdup(path);
    return rec.npaths++;
}

static int observe(void *opaque, const struct mull_file *file, enum mull_file_event kind,
                   uint64_t offset, uint64_t length, const struct iovec *iov, int niov)
{
    if (kind == MULL_FILE_READ || !rec.recording)
        return 0;
    if (rec.nevents == rec.room) {
        rec.room = rec.room ? rec.room * 2 : 4096;
        rec.events = realloc(rec.events, rec.room * sizeof(*rec.events));
    }
    struct event *e = &rec.events[rec.nevents++];
    *e = (struct event){kind, file_index(file->path), offset, length, NULL};
    if (kind == MULL_FILE_WRITE) {
        e->data = malloc(length);
        mull_iov_copy(iov, niov, 0, e->data, length);
    }
    return 0;
}

static const struct mull_file_observer observer = {observe, NULL};

/* The content of a sector for a tag: 0 is zeroes. */
static void fill(uint8_t *out, uint32_t sector, uint32_t tag)
{
    uint32_t *w = (uint32_t *)(void *)out;
    for (uint32_t i = 0; i < SECTOR / 4; i++)
        w[i] = tag ? tag * 2654435761u ^ sector * 40503u ^ 0x5bd1e995u : 0;
}

static struct guest_op *guest(int kind, uint32_t first, uint32_t count, uint32_t tag)
{
    rec.ops = realloc(rec.ops, (rec.nops + 1) * sizeof(*rec.ops));
    struct guest_op *op = &rec.ops[rec.nops++];
    *op = (struct guest_op){
        .kind = kind, .first = first, .count = count, .tag = tag, .issued = rec.nevents};
    return op;
}

/* What the disk held before: above a parent its content, else zeroes. */
static uint32_t first_tag(const struct test *t)
{
    return t->backing || t->chain ? BASE_TAG : 0;
}

static void must(int ret, const char *what)
{
    if (!ret)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(-ret));
    exit(1);
}

static void write_op(struct mull_image *image, uint32_t *now, uint32_t sectors, uint32_t tag)
{
    static const uint32_t lengths[] = {1, 1, 3, 8, 8, 16, 40, 130};
    uint32_t n = lengths[rnd(8)], first = rnd(sectors);
    if (rnd(3))
        first = rnd(sectors < 512 ? sectors : 512) & ~7u; /* a hot corner */
    if (n > sectors - first)
        n = sectors - first;
    uint8_t *buf = malloc(n * SECTOR);
    uint32_t kind = rnd(10);
    if (kind >= 8)
        tag = 0;
    struct guest_op *op = guest(OP_FILL, first, n, tag);
    for (uint32_t i = 0; i < n; i++) {
        fill(buf + i * SECTOR, first + i, tag);
        now[first + i] = tag;
    }
    int ret = kind < 8 ? mull_image_write(image, buf, n * SECTOR, (uint64_t)first * SECTOR)
                       : mull_image_zero(image, (uint64_t)first * SECTOR, n * SECTOR, kind == 9);
    must(ret, "write");
    op->finished = rec.nevents;
    free(buf);
}

static void discard_op(struct mull_image *image, const struct test *t, uint32_t *now,
                       uint32_t sectors, uint32_t most)
{
    /* Whole units are forgotten, the edges stay as they are. */
    uint32_t unit = image->unit > SECTOR ? image->unit / SECTOR : 1;
    uint32_t first = rnd(sectors) / unit * unit, n = (1 + rnd(4)) * unit;
    if (n > sectors - first)
        n = (sectors - first) / unit * unit;
    if (!t->discard || !n)
        return;
    /* Each sector is zeroes now or what it was, as the format could do it. */
    size_t i = (size_t)(guest(OP_RESTORE, 0, most, 0) - rec.ops);
    must(mull_image_discard(image, (uint64_t)first * SECTOR, (uint64_t)n * SECTOR), "discard");
    for (uint32_t s = first; s < first + n; s++) {
        uint8_t buf[SECTOR], zero[SECTOR] = {0}, old[SECTOR];
        must(mull_image_read(image, buf, SECTOR, (uint64_t)s * SECTOR), "read");
        fill(old, s, now[s]);
        if (!memcmp(buf, zero, SECTOR))
            now[s] = 0;
        else if (memcmp(buf, old, SECTOR))
            must(-EIO, "a discarded sector is neither zeroes nor as it was");
    }
    rec.ops[i].restored = malloc(most * sizeof(*now));
    memcpy(rec.ops[i].restored, now, most * sizeof(*now));
    rec.ops[i].finished = rec.nevents;
}

static void flush_op(struct mull_image *image)
{
    size_t i = (size_t)(guest(OP_FLUSH, 0, 0, 0) - rec.ops);
    must(mull_image_flush(image), "flush");
    rec.ops[i].finished = rec.nevents;
}

struct saved {
    char name[16];
    uint32_t *tags, sectors;
};

static void snapshot_op(struct mull_image *image, uint32_t *now, uint32_t *sectors, uint32_t most,
                        struct saved *saved, int *nsaved, int step)
{
    struct mull_error err = {0};
    uint32_t what = rnd(3);
    int ret;

    pthread_mutex_lock(&image->lock);
    if (*nsaved < 3 && (what == 0 || !*nsaved)) {
        struct saved *s = &saved[(*nsaved)++];
        snprintf(s->name, sizeof(s->name), "s%d", step);
        s->tags = malloc(most * sizeof(*now));
        memcpy(s->tags, now, most * sizeof(*now));
        s->sectors = *sectors;
        ret = image->format->snapshot_create(image, s->name, &err);
    } else {
        int i = (int)rnd((uint32_t)*nsaved);
        if (what == 1) {
            size_t at = (size_t)(guest(OP_RESTORE, 0, most, 0) - rec.ops);
            rec.ops[at].restored = malloc(most * sizeof(*now));
            memcpy(rec.ops[at].restored, saved[i].tags, most * sizeof(*now));
            memcpy(now, saved[i].tags, most * sizeof(*now));
            size_t size = (size_t)(guest(OP_RESIZE, 0, saved[i].sectors, 0) - rec.ops);
            *sectors = saved[i].sectors;
            ret = image->format->snapshot_apply(image, saved[i].name, &err);
            rec.ops[at].finished = rec.ops[size].finished = rec.nevents;
        } else {
            ret = image->format->snapshot_delete(image, saved[i].name, &err);
            free(saved[i].tags);
            saved[i] = saved[--*nsaved];
        }
    }
    pthread_mutex_unlock(&image->lock);
    if (ret) {
        fprintf(stderr, "snapshot: %s\n", err.message);
        exit(1);
    }
}

static void resize_op(struct mull_image *image, uint32_t *now, uint32_t *sectors, uint32_t most)
{
    struct mull_error err = {0};
    uint32_t to = rnd(4) ? *sectors + rnd(512) * 8 : *sectors - rnd(*sectors / 8) / 8 * 8;
    if (to > most)
        to = most;
    size_t zero = (size_t)(guest(OP_FILL, to < *sectors ? to : *sectors,
                                 to < *sectors ? *sectors - to : to - *sectors, 0) -
                           rec.ops);
    size_t i = (size_t)(guest(OP_RESIZE, 0, to, 0) - rec.ops);
    if (to < *sectors)
        memset(now + to, 0, (*sectors - to) * sizeof(*now));
    if (mull_image_resize(image, (uint64_t)to * SECTOR, &err)) {
        fprintf(stderr, "resize: %s\n", err.message);
        exit(1);
    }
    rec.ops[zero].finished = rec.ops[i].finished = rec.nevents;
    *sectors = to;
}

static void done_or_die(int ret, const struct mull_error *err, const char *what)
{
    if (!ret)
        return;
    fprintf(stderr, "%s: %s\n", what, err->message);
    exit(1);
}

/* Copy what the image holds into the one below, or put it on the other one that could be below. The
 * disk reads as before all the while. */
static void chain_op(const struct test *t, const struct mull_image_options *o,
                     struct mull_image **image)
{
    static const char *const names[] = {"base", "other"};
    struct mull_error err = {0};
    size_t flush = (size_t)(guest(OP_FLUSH, 0, 0, 0) - rec.ops);
    bool commit = t->commit && (!t->rebase || rnd(2));

    must(mull_image_close(*image), "close");
    rec.ops[flush].finished = rec.nevents;
    size_t op = (size_t)(guest(OP_FLUSH, 0, 0, 0) - rec.ops);
    if (commit) {
        done_or_die(mull_image_commit(o, 1, NULL, NULL, &err), &err, "commit");
    } else {
        const char *format = t->chain ? t->format : "raw";
        char name[64];
        snprintf(name, sizeof(name), "%s.%s", names[rnd(2)], format);
        done_or_die(mull_image_rebase(o, name, format, false, &err), &err, "rebase");
    }
    rec.ops[op].finished = rec.nevents;
    done_or_die(mull_image_open(o, image, &err), &err, "open");
}

/* Between two openings the bitmap is sure of itself. */
static void reopen_op(const struct mull_image_options *o, struct mull_image **image)
{
    struct mull_error err = {0};
    size_t flush = (size_t)(guest(OP_FLUSH, 0, 0, 0) - rec.ops);
    must(mull_image_close(*image), "close");
    rec.ops[flush].finished = rec.nevents;
    done_or_die(mull_image_open(o, image, &err), &err, "open");
}

static void record(const struct test *t, const char *path, int steps)
{
    struct mull_image_options o = {.path = path, .format = t->format, .observer = &observer};
    struct mull_error err = {0};
    struct mull_image *image;
    struct saved saved[4];
    int nsaved = 0;

    done_or_die(mull_image_open(&o, &image, &err), &err, "open");
    uint32_t sectors = (uint32_t)(image->size / SECTOR), most = sectors * 2;
    uint32_t *now = calloc(most, sizeof(*now));
    for (uint32_t i = 0; i < sectors; i++)
        now[i] = first_tag(t);
    for (int step = 0; step < steps; step++) {
        uint32_t what = rnd(100);
        if (what < 68)
            write_op(image, now, sectors, (uint32_t)step + 1);
        else if (what < 80)
            discard_op(image, t, now, sectors, most);
        else if (what < 96)
            flush_op(image);
        else if (what == 99)
            reopen_op(&o, &image);
        else if (what < 98 && t->snapshots)
            snapshot_op(image, now, &sectors, most, saved, &nsaved, step);
        else if (what < 98 && (t->commit || t->rebase))
            chain_op(t, &o, &image);
        else if (t->resize)
            resize_op(image, now, &sectors, most);
    }
    size_t i = (size_t)(guest(OP_FLUSH, 0, 0, 0) - rec.ops);
    must(mull_image_close(image), "close");
    rec.ops[i].finished = rec.nevents;
    while (nsaved)
        free(saved[--nsaved].tags);
    free(now);
}

/* One recorded event, whole or a part of it as a cut may leave it. */
static void apply(struct content *c, const struct event *e, bool torn)
{
    uint32_t how = torn ? rnd(4) : 3;
    if (how == 0)
        return;
    switch (e->kind) {
    case MULL_FILE_WRITE:
        if (how == 3) {
            put(c, e->offset, e->data, e->length);
            break;
        }
        uint64_t stop = how == 1 ? rnd((uint32_t)e->length) & ~(SECTOR - 1) : e->length;
        for (uint64_t at = 0; at < stop; at += SECTOR - (e->offset + at) % SECTOR) {
            uint64_t n = SECTOR - (e->offset + at) % SECTOR;
            if (how == 1 || rnd(2))
                put(c, e->offset + at, e->data + at, n < e->length - at ? n : e->length - at);
        }
        break;
    case MULL_FILE_PUNCH:
    case MULL_FILE_ZERO:
        if (e->offset < c->size) {
            uint64_t n = e->length < c->size - e->offset ? e->length : c->size - e->offset;
            memset(c->data + e->offset, 0, n);
        }
        break;
    case MULL_FILE_TRUNCATE:
        if (e->offset > c->size)
            put(c, e->offset, NULL, 0);
        else
            memset(c->data + e->offset, 0, c->size - e->offset);
        c->size = e->offset;
        break;
    default:
        break;
    }
}

static void save(const char *path, const struct content *c)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)c->size))
        die(path);
    for (uint64_t at = 0; at < c->size; at += 65536) {
        uint64_t n = c->size - at < 65536 ? c->size - at : 65536;
        if ((c->data[at] || memcmp(c->data + at, c->data + at + 1, n - 1)) &&
            pwrite(fd, c->data + at, n, (off_t)at) != (ssize_t)n)
            die(path);
    }
    close(fd);
}

/* Whether a sector holds what it may hold: what was last flushed, or anything written since. */
static bool allowed(uint32_t sector, const uint8_t *data, uint32_t durable, size_t window,
                    size_t cut)
{
    uint8_t want[SECTOR];
    fill(want, sector, durable);
    if (!memcmp(want, data, SECTOR))
        return true;
    for (size_t i = window; i < rec.nops && rec.ops[i].issued <= cut; i++) {
        const struct guest_op *op = &rec.ops[i];
        if ((op->kind != OP_FILL && op->kind != OP_RESTORE) || sector - op->first >= op->count)
            continue;
        fill(want, sector, op->kind == OP_RESTORE ? op->restored[sector] : op->tag);
        if (!memcmp(want, data, SECTOR))
            return true;
    }
    return false;
}

struct model {
    uint32_t *durable, sectors;
    size_t window; /* guest operations from here on are not flushed */
};

/* Bring the model up to the flushes that had finished by the cut. */
static void advance(struct model *m, size_t cut)
{
    for (size_t i = m->window; i < rec.nops && rec.ops[i].issued <= cut; i++) {
        if (rec.ops[i].kind != OP_FLUSH || rec.ops[i].finished > cut)
            continue;
        for (; m->window <= i; m->window++) {
            const struct guest_op *op = &rec.ops[m->window];
            if (op->kind == OP_RESIZE)
                m->sectors = op->count;
            else if (op->kind == OP_RESTORE)
                memcpy(m->durable, op->restored, op->count * sizeof(uint32_t));
            for (uint32_t s = 0; s < op->count && op->kind == OP_FILL; s++)
                m->durable[op->first + s] = op->tag;
        }
    }
}

static bool size_allowed(const struct model *m, uint64_t sectors, size_t cut)
{
    if (sectors == m->sectors)
        return true;
    for (size_t i = m->window; i < rec.nops && rec.ops[i].issued <= cut; i++)
        if (rec.ops[i].kind == OP_RESIZE && rec.ops[i].count == sectors)
            return true;
    return false;
}

static int open_it(const struct test *t, const char *path, bool readonly, struct mull_image **image)
{
    struct mull_image_options o = {.path = path, .format = t->format, .readonly = readonly};
    struct mull_error err = {0};
    int ret = mull_image_open(&o, image, &err);
    if (ret)
        fprintf(stderr, "does not open: %s\n", err.message);
    return ret;
}

static int check_it(struct mull_image *image)
{
    struct mull_check check = {0};
    struct mull_error err = {0};

    if (!image->format->check)
        return 0;
    pthread_mutex_lock(&image->lock);
    int ret = image->format->check(image, &check, &err);
    pthread_mutex_unlock(&image->lock);
    if (!ret && !check.corruptions)
        return 0;
    fprintf(stderr, "check of %s: %s, %llu corruptions\n", image->path, err.message,
            (unsigned long long)check.corruptions);
    return 1;
}

/* What the bitmap says has changed: a byte a block, NULL where it does not know. */
static uint8_t *claimed_changes(const struct test *t, const char *path)
{
    struct mull_image *image;
    struct mull_error err = {0};
    uint8_t *blocks = NULL;

    if (open_it(t, path, true, &image))
        return NULL; /* the caller will find out */
    struct mull_bitmap *b = mull_bitmaps_get(image, &err) ? NULL : mull_bitmap_find(image, "b");
    if (b && !b->unknown && !mull_bitmap_load(image, b, &err)) {
        blocks = calloc(image->size / GRANULARITY + 2, 1);
        for (uint64_t at = 0, start, end; mull_bitmap_next(image, b, at, &start, &end); at = end)
            memset(blocks + start / GRANULARITY, 1, (end - start + GRANULARITY - 1) / GRANULARITY);
    }
    mull_image_abandon(image);
    return blocks;
}

static unsigned known; /* cuts after which the bitmap was sure of itself */

/* Every sector that is not what it was is in a block that is claimed to have changed. */
static int verify_changes(const struct test *t, const uint8_t *blocks, const uint8_t *disk,
                          uint32_t sectors)
{
    uint32_t before = (uint32_t)(t->create.size / SECTOR);
    uint8_t old[SECTOR];

    for (uint32_t s = 0; s < sectors && blocks; s++) {
        fill(old, s, s < before ? first_tag(t) : 0);
        if (!memcmp(old, disk + (uint64_t)s * SECTOR, SECTOR) ||
            blocks[(uint64_t)s * SECTOR / GRANULARITY])
            continue;
        fprintf(stderr, "sector %u has changed, and the bitmap does not say so\n", s);
        return 1;
    }
    known += blocks != NULL;
    return 0;
}

static int verify(const struct test *t, const char *path, const struct model *m, size_t cut)
{
    struct mull_image *image;
    uint8_t *blocks = claimed_changes(t, path);
    char beside[310];

    /* Closing waits for the clock to tick, for the file of bitmaps: now and then is enough. */
    snprintf(beside, sizeof(beside), "%s.cbt", path);
    if (cut % 8)
        unlink(beside);
    if (open_it(t, path, false, &image))
        return 1;
    for (struct mull_image *at = image; at; at = at->backing)
        if (check_it(at))
            return 1;
    if (!size_allowed(m, image->size / SECTOR, cut)) {
        fprintf(stderr, "size is %llu sectors, was %u\n", (unsigned long long)image->size / SECTOR,
                m->sectors);
        return 1;
    }
    uint8_t *buf = malloc(image->size);
    must(mull_image_read(image, buf, image->size, 0), "read");
    for (uint32_t s = 0; s < image->size / SECTOR; s++)
        if (!allowed(s, buf + (uint64_t)s * SECTOR, m->durable[s], m->window, cut)) {
            uint32_t first;
            memcpy(&first, buf + (uint64_t)s * SECTOR, 4);
            fprintf(stderr, "sector %u is not what it may be (flushed: tag %u; found %#x)\n", s,
                    m->durable[s], first);
            return 1;
        }
    int bad = verify_changes(t, blocks, buf, (uint32_t)(image->size / SECTOR));
    free(blocks);
    free(buf);
    must(mull_image_close(image), "close");
    return bad;
}

static int qemu_check(const char *format, const char *path)
{
    char command[1024];
    snprintf(command, sizeof(command), "cd %s && qemu-img check -f %s %s >%s/check.log 2>&1", dir,
             format, path, dir);
    int status = system(command);
    status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (status == 0 || status == 3 || status == 63)
        return 0; /* leaks are what a cut may cost */
    fprintf(stderr, "qemu-img check: %d\n", status);
    snprintf(command, sizeof(command), "head -5 %s/check.log >&2", dir);
    (void)!system(command);
    return 1;
}

static int replay(const struct test *t, int cuts, int qemu_every, uint32_t sectors)
{
    struct content durable[FILES] = {0}, cut_state = {0};
    struct model m = {calloc(sectors * 2, sizeof(uint32_t)), sectors, 0};
    size_t done[FILES] = {0}; /* events of each file that are durable */
    int failures = 0, made = 0;

    known = 0;
    for (uint32_t i = 0; i < sectors; i++)
        m.durable[i] = first_tag(t);
    for (int f = 0; f < rec.npaths; f++)
        put(&durable[f], 0, rec.base[f].data, rec.base[f].size);
    size_t step = rec.nevents / (size_t)cuts + 1;
    for (size_t cut = rnd((uint32_t)step); cut <= rec.nevents && failures < 3; cut += step) {
        for (int variant = 0; variant < (step == 1 ? 1 + cuts / (int)(rec.nevents + 1) : 1);
             variant++) {
            advance(&m, cut);
            for (int f = 0; f < rec.npaths; f++) {
                for (size_t i = cut; i-- > done[f];) {
                    if (rec.events[i].file != f || rec.events[i].kind != MULL_FILE_FLUSH)
                        continue;
                    for (size_t j = done[f]; j < i; j++)
                        if (rec.events[j].file == f)
                            apply(&durable[f], &rec.events[j], false);
                    done[f] = i;
                    break;
                }
                cut_state.size = 0;
                if (cut_state.data)
                    memset(cut_state.data, 0, cut_state.room);
                put(&cut_state, 0, durable[f].data, durable[f].size);
                /* Every third cut keeps all that was written: a plain prefix. */
                for (size_t i = done[f]; i < cut; i++)
                    if (rec.events[i].file == f)
                        apply(&cut_state, &rec.events[i], made % 3 != 0);
                save(rec.paths[f], &cut_state);
                /* The worst time it may show: one that somebody has noted. */
                const struct timespec *when = made & 1 ? rec.after : rec.before;
                const struct timespec times[2] = {when[f], when[f]};
                if (utimensat(AT_FDCWD, rec.paths[f], times, 0))
                    die(rec.paths[f]);
            }
            int bad = verify(t, rec.paths[0], &m, cut);
            if (!bad && t->qemu && qemu_every && made % qemu_every == 0)
                bad = qemu_check(t->qemu, rec.paths[0]);
            made++;
            if (bad) {
                fprintf(stderr, "%s: cut after event %zu of %zu\n", t->name, cut, rec.nevents);
                failures++;
                break;
            }
        }
    }
    printf("%-20s %5d cuts of %5zu events, changes known after %4u: %s\n", t->name, made,
           rec.nevents, known, failures ? "FAILED" : "ok");
    fflush(stdout);
    free(m.durable);
    free(cut_state.data);
    for (int f = 0; f < FILES; f++)
        free(durable[f].data);
    return failures;
}

static void forget(void)
{
    for (size_t i = 0; i < rec.nevents; i++)
        free(rec.events[i].data);
    for (size_t i = 0; i < rec.nops; i++)
        free(rec.ops[i].restored);
    free(rec.events);
    free(rec.ops);
    for (int i = 0; i < rec.npaths; i++) {
        unlink(rec.paths[i]);
        free(rec.paths[i]);
        free(rec.base[i].data);
    }
    memset(&rec, 0, sizeof(rec));
}

/* The content of a possible parent: the base's, or the other's, which agree in part. */
static void make_raw(const char *path, uint32_t sectors, bool other)
{
    struct content c = {0};
    put(&c, 0, NULL, (uint64_t)sectors * SECTOR);
    for (uint32_t i = 0; i < sectors; i++)
        fill(c.data + (uint64_t)i * SECTOR, i, other && i / 300 % 2 ? OTHER_TAG : BASE_TAG);
    save(path, &c);
    free(c.data);
}

static void make_parent(const struct test *t, const char *name, uint32_t sectors, bool other)
{
    const char *format = t->chain ? t->format : "raw";
    struct mull_create_options c = t->create;
    struct mull_error err = {0};
    struct mull_image *image;
    char path[300], raw[300];

    snprintf(path, sizeof(path), "%s/%s.%s", dir, name, format);
    snprintf(raw, sizeof(raw), "%s/%s.raw", dir, name);
    make_raw(raw, sectors, other);
    if (!t->chain)
        return;
    c.path = path;
    done_or_die(mull_format_find(format)->create(&c, &err), &err, path);
    struct mull_image_options o = {.path = path, .format = format};
    done_or_die(mull_image_open(&o, &image, &err), &err, path);
    struct content content = {0};
    load(raw, &content);
    must(mull_image_write(image, content.data, content.size, 0), "write");
    must(mull_image_close(image), "close");
    free(content.data);
    unlink(raw);
}

static void add_bitmap(const struct test *t, const char *path)
{
    struct mull_image_options o = {.path = path, .format = t->format};
    struct mull_error err = {0};
    struct mull_image *image;
    done_or_die(mull_image_open(&o, &image, &err), &err, "open");
    done_or_die(mull_bitmap_add(image, "b", GRANULARITY, &err), &err, "bitmap");
    must(mull_image_close(image), "close");
}

/* All files there are, the image itself first. */
static void find_files(const char *path)
{
    char name[600];
    struct dirent *entry;
    DIR *folder = opendir(dir);

    file_index(path);
    while (folder && (entry = readdir(folder))) {
        snprintf(name, sizeof(name), "%s/%s", dir, entry->d_name);
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "check.log"))
            file_index(name);
    }
    closedir(folder);
    for (int i = 0; i < rec.npaths; i++) {
        load(rec.paths[i], &rec.base[i]);
        rec.before[i] = changed_at(rec.paths[i]);
    }
}

static int run_test(const struct test *t, int cuts, int qemu_every, uint64_t seed)
{
    struct mull_create_options c = t->create;
    struct mull_error err = {0};
    char path[300], backing[64];

    rng = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    snprintf(path, sizeof(path), "%s/disk.%s", dir, t->format);
    c.path = path;
    uint32_t sectors = (uint32_t)(c.size / SECTOR);
    if (t->backing || t->chain) {
        make_parent(t, "base", sectors, false);
        if (t->rebase)
            make_parent(t, "other", sectors, true);
        c.backing_format = t->chain ? t->format : "raw";
        snprintf(backing, sizeof(backing), "base.%s", c.backing_format);
        c.backing = backing;
    }
    done_or_die(mull_format_find(t->format)->create(&c, &err), &err, t->name);
    add_bitmap(t, path);
    find_files(path);
    rec.recording = true;
    record(t, path, 400);
    for (int i = 0; i < rec.npaths; i++)
        rec.after[i] = changed_at(rec.paths[i]);
    int failures = replay(t, cuts, qemu_every, sectors);
    forget();
    return failures;
}

static const struct test tests[] = {
    {"raw", "raw", {.size = 2 << 20}, .resize = true, .discard = true},
    {"qcow2",
     "qcow2",
     {.size = 4 << 20},
     .snapshots = true,
     .resize = true,
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-small",
     "qcow2",
     {.size = 2 << 20, .unit = 512, .refcount_bits = 64},
     .snapshots = true,
     .resize = true,
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-4k",
     "qcow2",
     {.size = 4 << 20, .unit = 4096},
     .snapshots = true,
     .resize = true,
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-v2",
     "qcow2",
     {.size = 4 << 20, .unit = 4096, .version = "2"},
     .resize = true,
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-backing",
     "qcow2",
     {.size = 4 << 20, .unit = 8192},
     .backing = true,
     .snapshots = true,
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-extended",
     "qcow2",
     {.size = 4 << 20, .unit = 16384, .extended_l2 = true},
     .backing = true,
     .snapshots = true,
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-lazy",
     "qcow2",
     {.size = 4 << 20, .unit = 4096, .lazy_refcounts = true},
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-data",
     "qcow2",
     {.size = 4 << 20, .data_file = "disk.data"},
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-commit",
     "qcow2",
     {.size = 4 << 20, .unit = 16384},
     .backing = true,
     .commit = true,
     .rebase = true,
     .discard = true,
     .qemu = "qcow2"},
    {"qcow2-chain",
     "qcow2",
     {.size = 4 << 20, .unit = 4096},
     .chain = true,
     .commit = true,
     .rebase = true,
     .discard = true,
     .qemu = "qcow2"},
    {"vmdk", "vmdk", {.size = 4 << 20}, .discard = true, .resize = true, .qemu = "vmdk"},
    {"vmdk-chain",
     "vmdk",
     {.size = 4 << 20},
     .chain = true,
     .commit = true,
     .rebase = true,
     .discard = true,
     .qemu = "vmdk"},
    {"vmdk-vmfs-chain",
     "vmdk",
     {.size = 4 << 20, .subformat = "vmfsSparse"},
     .chain = true,
     .commit = true,
     .discard = true},
    {"vmdk-split",
     "vmdk",
     {.size = 4 << 20, .subformat = "twoGbMaxExtentSparse"},
     .discard = true,
     .resize = true,
     .qemu = "vmdk"},
    {"vhdx",
     "vhdx",
     {.size = 4 << 20, .unit = 1 << 20},
     .discard = true,
     .resize = true,
     .qemu = "vhdx"},
    {"vhdx-chain",
     "vhdx",
     {.size = 4 << 20, .unit = 1 << 20},
     .chain = true,
     .commit = true,
     .rebase = true,
     .discard = true},
    {"vhd", "vhd", {.size = 4 << 20, .unit = 65536}, .discard = true, .resize = true},
    {"vhd-chain",
     "vhd",
     {.size = 4 << 20, .unit = 65536},
     .chain = true,
     .commit = true,
     .discard = true},
    {"vhd-fixed", "vhd", {.size = 4 << 20, .subformat = "fixed"}, .discard = true, .resize = true},
    {"vdi", "vdi", {.size = 16 << 20}, .discard = true, .resize = true, .qemu = "vdi"},
    {"vdi-fixed",
     "vdi",
     {.size = 4 << 20, .subformat = "fixed"},
     .discard = true,
     .resize = true,
     .qemu = "vdi"},
    {"vmdk-flat",
     "vmdk",
     {.size = 4 << 20, .subformat = "monolithicFlat"},
     .discard = true,
     .resize = true},
    {"vmdk-split-flat",
     "vmdk",
     {.size = 4 << 20, .subformat = "twoGbMaxExtentFlat"},
     .discard = true,
     .resize = true},
    {"vmdk-vmfsSparse",
     "vmdk",
     {.size = 4 << 20, .subformat = "vmfsSparse"},
     .discard = true,
     .resize = true},
};

int main(int argc, char **argv)
{
    int cuts = 200, qemu_every = 0, opt, failures = 0;
    uint64_t seed = 1;

    while ((opt = getopt(argc, argv, "n:s:q:")) != -1) {
        if (opt == 'n')
            cuts = atoi(optarg);
        else if (opt == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (opt == 'q')
            qemu_every = atoi(optarg);
        else
            return 1;
    }
    if (qemu_every && system("command -v qemu-img >/dev/null")) {
        puts("no qemu-img: only our own check is asked");
        qemu_every = 0;
    }
    snprintf(dir, sizeof(dir), "%s/mull-powercut-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(dir))
        die(dir);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        bool wanted = optind >= argc;
        for (int a = optind; a < argc; a++)
            wanted |= !strncmp(tests[i].name, argv[a], strlen(argv[a]));
        if (i == 0)
            printf("seed %llu\n", (unsigned long long)seed);
        if (wanted)
            failures += run_test(&tests[i], cuts, qemu_every, seed);
    }
    char log[300];
    snprintf(log, sizeof(log), "%s/check.log", dir);
    unlink(log);
    rmdir(dir);
    return failures ? 1 : 0;
}
