/* Changed-block bitmaps in memory: marking, asking, combining. See bitmap.h. */
#include "image/bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t bits_for(uint64_t size, uint32_t granularity_bits)
{
    return (size + (UINT64_C(1) << granularity_bits) - 1) >> granularity_bits;
}

static bool is_set(const struct mull_bitmap *b, uint64_t bit)
{
    return __atomic_load_n(&b->bits[bit / 8], __ATOMIC_RELAXED) >> (bit % 8) & 1;
}

/* Loop threads and workers mark at once: each byte is changed atomically, most need no change. */
static void set_range(struct mull_bitmap *b, uint64_t first, uint64_t end)
{
    while (first < end) {
        if (first % 8 == 0 && end - first >= 8) {
            __atomic_store_n(&b->bits[first / 8], 0xff, __ATOMIC_RELAXED);
            first += 8;
            continue;
        }
        if (!is_set(b, first))
            __atomic_fetch_or(&b->bits[first / 8], (uint8_t)(1u << (first % 8)), __ATOMIC_RELAXED);
        first++;
    }
}

void mull_bitmaps_mark(struct mull_image *image, uint64_t offset, uint64_t length)
{
    if (!length)
        return;
    pthread_rwlock_rdlock(&image->bitmaps->lock);
    for (struct mull_bitmap *b = image->bitmaps->first; b; b = b->next) {
        if (!b->recording || !b->bits || offset >> b->granularity_bits >= b->nbits)
            continue;
        uint64_t last = (offset + length - 1) >> b->granularity_bits;
        set_range(b, offset >> b->granularity_bits, last < b->nbits ? last + 1 : b->nbits);
    }
    pthread_rwlock_unlock(&image->bitmaps->lock);
}

int mull_bitmaps_create(struct mull_image *image, const struct mull_bitmap_store *store)
{
    image->bitmaps = calloc(1, sizeof(*image->bitmaps));
    if (!image->bitmaps)
        return -ENOMEM;
    image->bitmaps->store = store;
    pthread_rwlock_init(&image->bitmaps->lock, NULL);
    return 0;
}

/* The list and its bitmaps' bits change with both: whoever writes metadata walks it with the
 * image's lock, whoever marks with the other. */
static void lock_list(struct mull_image *image)
{
    pthread_mutex_lock(&image->lock);
    pthread_rwlock_wrlock(&image->bitmaps->lock);
}

static void unlock_list(struct mull_image *image)
{
    pthread_rwlock_unlock(&image->bitmaps->lock);
    pthread_mutex_unlock(&image->lock);
}

struct mull_bitmap *mull_bitmaps_append(struct mull_image *image, const char *name,
                                        size_t name_length, uint32_t granularity_bits)
{
    struct mull_bitmap *b = calloc(1, sizeof(*b)), **link = &image->bitmaps->first;

    if (!b || !(b->name = strndup(name, name_length))) {
        free(b);
        return NULL;
    }
    b->granularity_bits = granularity_bits;
    b->nbits = bits_for(image->size, granularity_bits);
    while (*link)
        link = &(*link)->next;
    *link = b;
    return b;
}

static void free_bitmap(struct mull_image *image, struct mull_bitmap *b, bool removed)
{
    if (b->own)
        image->bitmaps->store->drop(image, b, removed);
    free(b->name);
    free(b->bits);
    free(b);
}

static void remove_bitmap(struct mull_image *image, struct mull_bitmap *b, bool on_disk)
{
    lock_list(image);
    struct mull_bitmap **link = &image->bitmaps->first;
    while (*link != b)
        link = &(*link)->next;
    *link = b->next;
    free_bitmap(image, b, on_disk);
    unlock_list(image);
}

void mull_bitmaps_free(struct mull_image *image)
{
    struct mull_bitmap_set *set = image->bitmaps;
    if (!set)
        return;
    while (set->first) {
        struct mull_bitmap *b = set->first;
        set->first = b->next;
        free_bitmap(image, b, false);
    }
    if (set->store->close)
        set->store->close(image);
    pthread_rwlock_destroy(&set->lock);
    free(set);
    image->bitmaps = NULL;
    image->marking = false;
}

/* Zeroed bits, as far as all of the image's bitmaps together may take. */
static int make_bits(struct mull_image *image, struct mull_bitmap *b)
{
    uint64_t total = b->nbits / 8;
    for (const struct mull_bitmap *other = image->bitmaps->first; other; other = other->next)
        if (other->bits)
            total += other->nbits / 8;
    if (total > MULL_BITMAP_BITS_MAX)
        return -EFBIG;
    b->bits = calloc(1, b->nbits / 8 + 1);
    return b->bits ? 0 : -ENOMEM;
}

static int load(struct mull_image *image, struct mull_bitmap *b)
{
    int ret = b->bits ? 0 : make_bits(image, b);
    if (!ret && !b->changed && !b->unknown && image->bitmaps->store->load) {
        ret = image->bitmaps->store->load(image, b);
        if (ret) {
            free(b->bits);
            b->bits = NULL;
        }
    }
    return ret;
}

int mull_bitmap_load(struct mull_image *image, struct mull_bitmap *b, struct mull_error *err)
{
    if (b->bits)
        return 0;
    pthread_mutex_lock(&image->lock);
    int ret = load(image, b);
    pthread_mutex_unlock(&image->lock);
    return ret ? mull_fail(err, -ret, "%s: cannot load bitmap '%s': %s", image->path, b->name,
                           strerror(-ret))
               : 0;
}

int mull_bitmaps_start(struct mull_image *image, struct mull_error *err)
{
    struct mull_bitmap_set *set = image->bitmaps;
    bool any = false;

    for (struct mull_bitmap *b = set->first; b; b = b->next) {
        if (!b->recording && !set->store->one_mark)
            continue;
        int ret = load(image, b);
        if (ret)
            return mull_fail(err, -ret, "%s: cannot load bitmap '%s': %s", image->path, b->name,
                             strerror(-ret));
        b->changed = any = true;
    }
    if (!any)
        return 0;
    int ret = set->store->begin(image);
    if (ret)
        return mull_fail(err, -ret,
                         "%s: cannot mark its bitmaps in use: %s; what is written would go "
                         "unnoticed",
                         image->path, strerror(-ret));
    set->in_use = image->marking = true;
    return 0;
}

int mull_bitmaps_get(struct mull_image *image, struct mull_error *err)
{
    return image->bitmaps ? 0 : mull_bitmap_file_open(image, err);
}

struct mull_bitmap *mull_bitmap_find(struct mull_image *image, const char *name)
{
    struct mull_bitmap *b = image->bitmaps ? image->bitmaps->first : NULL;
    while (b && strcmp(b->name, name))
        b = b->next;
    return b;
}

/* The disk does not tell the truth any more about @b. */
static int begin(struct mull_image *image, struct mull_bitmap *b, struct mull_error *err)
{
    struct mull_bitmap_set *set = image->bitmaps;

    if (b)
        b->changed = true;
    pthread_mutex_lock(&image->lock);
    int ret = set->store->begin(image);
    pthread_mutex_unlock(&image->lock);
    if (ret == -EOPNOTSUPP)
        return mull_fail(err, EOPNOTSUPP,
                         "%s: is a block device: bitmaps are kept beside files, and nothing would "
                         "tell here of another writer; use QCOW2 on it, which keeps them inside",
                         image->path);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot mark its bitmaps in use: %s", image->path,
                         strerror(-ret));
    set->in_use = true;
    return 0;
}

static int for_writing(struct mull_image *image, struct mull_error *err)
{
    if (image->readonly)
        return mull_fail(err, EROFS, "%s: is open read-only", image->path);
    return mull_bitmaps_get(image, err);
}

static int find_for_writing(struct mull_image *image, const char *name, struct mull_bitmap **out,
                            struct mull_error *err)
{
    int ret = for_writing(image, err);
    if (ret)
        return ret;
    *out = mull_bitmap_find(image, name);
    return *out ? 0 : mull_fail(err, ENOENT, "%s: has no bitmap '%s'", image->path, name);
}

int mull_bitmap_add(struct mull_image *image, const char *name, uint32_t granularity,
                    struct mull_error *err)
{
    int ret = for_writing(image, err);

    granularity = granularity ? granularity : MULL_BITMAP_GRANULARITY;
    if (ret)
        return ret;
    if (!*name || strlen(name) > MULL_BITMAP_NAME_MAX)
        return mull_fail(err, EINVAL, "%s: a bitmap's name has 1 to %u bytes", image->path,
                         MULL_BITMAP_NAME_MAX);
    if (granularity < 512 || granularity & (granularity - 1))
        return mull_fail(err, EINVAL, "%s: granularity %u is not a power of two from 512",
                         image->path, granularity);
    if (mull_bitmap_find(image, name))
        return mull_fail(err, EEXIST, "%s: has a bitmap '%s' already", image->path, name);
    lock_list(image);
    struct mull_bitmap *b =
        mull_bitmaps_append(image, name, strlen(name), (uint32_t)__builtin_ctz(granularity));
    if (b) {
        b->changed = b->recording = true;
        ret = make_bits(image, b);
    }
    unlock_list(image);
    if (!b)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    if (ret)
        mull_fail(err, -ret, "%s: bits of bitmap '%s': %s", image->path, name, strerror(-ret));
    else
        ret = begin(image, b, err);
    if (ret) {
        remove_bitmap(image, b, false);
        return ret;
    }
    image->bitmaps->changed = image->marking = true;
    return 0;
}

int mull_bitmap_remove(struct mull_image *image, const char *name, struct mull_error *err)
{
    struct mull_bitmap *b;
    int ret = find_for_writing(image, name, &b, err);
    if (!ret)
        ret = begin(image, b, err);
    if (ret)
        return ret;
    remove_bitmap(image, b, true);
    image->bitmaps->changed = true;
    return 0;
}

int mull_bitmap_clear(struct mull_image *image, const char *name, struct mull_error *err)
{
    struct mull_bitmap *b;
    int ret = find_for_writing(image, name, &b, err);
    if (!ret)
        ret = begin(image, b, err);
    if (ret)
        return ret;
    if (!b->bits && (ret = make_bits(image, b)))
        return mull_fail(err, -ret, "%s: bits of bitmap '%s': %s", image->path, name,
                         strerror(-ret));
    memset(b->bits, 0, b->nbits / 8 + 1);
    b->unknown = false;
    image->marking = image->marking || b->recording;
    return 0;
}

int mull_bitmap_merge(struct mull_image *image, const char *into, const char *from,
                      struct mull_error *err)
{
    struct mull_bitmap *to, *b;
    int ret = find_for_writing(image, into, &to, err);

    if (!ret && !(b = mull_bitmap_find(image, from)))
        ret = mull_fail(err, ENOENT, "%s: has no bitmap '%s'", image->path, from);
    if (!ret)
        ret = mull_bitmap_load(image, b, err);
    if (!ret)
        ret = mull_bitmap_load(image, to, err);
    if (!ret)
        ret = begin(image, to, err);
    if (ret)
        return ret;
    to->unknown = to->unknown || b->unknown;
    for (uint64_t at = 0, start, end; mull_bitmap_next(image, b, at, &start, &end); at = end)
        set_range(to, start >> to->granularity_bits, bits_for(end, to->granularity_bits));
    return 0;
}

/* The first bit from @bit on that has not the value. */
static uint64_t skip(const struct mull_bitmap *b, uint64_t bit, bool value)
{
    while (bit < b->nbits && is_set(b, bit) == value)
        bit += bit % 8 == 0 && b->bits[bit / 8] == (value ? 0xff : 0) ? 8 : 1;
    return bit < b->nbits ? bit : b->nbits;
}

bool mull_bitmap_next(const struct mull_image *image, const struct mull_bitmap *b, uint64_t offset,
                      uint64_t *start, uint64_t *end)
{
    if (offset >= image->size)
        return false;
    *start = offset;
    *end = image->size;
    if (b->unknown || !b->bits)
        return true;
    uint64_t bit = skip(b, offset >> b->granularity_bits, false);
    if (bit >= b->nbits)
        return false;
    if (bit << b->granularity_bits > offset)
        *start = bit << b->granularity_bits;
    bit = skip(b, bit, true);
    if (bit << b->granularity_bits < *end)
        *end = bit << b->granularity_bits;
    return true;
}

uint64_t mull_bitmap_count(const struct mull_image *image, const struct mull_bitmap *b)
{
    uint64_t total = 0;
    for (uint64_t at = 0, start, end; mull_bitmap_next(image, b, at, &start, &end); at = end)
        total += end - start;
    return total;
}

/* Another number of bits; what lies behind the last one is zero. */
static int fit(struct mull_bitmap *b, uint64_t nbits)
{
    uint8_t *bits = realloc(b->bits, nbits / 8 + 1);
    if (!bits)
        return -ENOMEM;
    if (nbits > b->nbits)
        memset(bits + b->nbits / 8 + 1, 0, nbits / 8 - b->nbits / 8);
    else
        bits[nbits / 8] &= (uint8_t)((1u << (nbits % 8)) - 1);
    b->bits = bits;
    b->nbits = nbits;
    return 0;
}

int mull_bitmaps_fit(struct mull_image *image, uint64_t size)
{
    struct mull_bitmap_set *set = image->bitmaps;
    int ret = 0;

    if (!set || !set->first)
        return 0;
    for (struct mull_bitmap *b = set->first; b && !ret; b = b->next) {
        ret = load(image, b);
        b->changed = true;
    }
    if (!ret)
        ret = set->store->begin(image);
    if (!ret)
        set->in_use = true;
    pthread_rwlock_wrlock(&set->lock);
    for (struct mull_bitmap *b = set->first; b && !ret; b = b->next)
        ret = fit(b, bits_for(size, b->granularity_bits));
    pthread_rwlock_unlock(&set->lock);
    return ret;
}
