/* A cache in pieces. See pieces.h. */
#include "image/pieces.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "image/file.h"

#define FETCHES_MAX 64

struct slot {
    uint64_t index; /* UINT64_MAX: empty */
    uint64_t used;  /* when */
    uint32_t length;
    uint8_t *data;
};

struct mull_pieces {
    uint32_t size, count;
    uint64_t clock;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct slot *slots;
    struct {
        uint64_t first, end; /* empty: first == end */
    } fetches[FETCHES_MAX];
};

struct mull_pieces *mull_pieces_create(uint32_t size, uint32_t count)
{
    struct mull_pieces *p = calloc(1, sizeof(*p));

    if (!p || !(p->slots = calloc(count, sizeof(*p->slots)))) {
        free(p);
        return NULL;
    }
    p->size = size;
    p->count = count;
    for (uint32_t i = 0; i < count; i++)
        p->slots[i].index = UINT64_MAX;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    return p;
}

void mull_pieces_destroy(struct mull_pieces *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->count; i++)
        free(p->slots[i].data);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p->slots);
    free(p);
}

static struct slot *find(struct mull_pieces *p, uint64_t index)
{
    for (uint32_t i = 0; i < p->count; i++)
        if (p->slots[i].index == index)
            return &p->slots[i];
    return NULL;
}

uint64_t mull_pieces_get(struct mull_pieces *p, uint64_t offset, const struct iovec *iov, int niov,
                         uint64_t skip, uint64_t length)
{
    uint32_t within = (uint32_t)(offset % p->size);
    uint64_t n = 0;

    pthread_mutex_lock(&p->lock);
    struct slot *slot = find(p, offset / p->size);
    if (slot && within < slot->length) {
        n = slot->length - within < length ? slot->length - within : length;
        mull_iov_fill(iov, niov, skip, slot->data + within, n);
        slot->used = ++p->clock;
    }
    pthread_mutex_unlock(&p->lock);
    return n;
}

int mull_pieces_put(struct mull_pieces *p, uint64_t index, const void *data, uint32_t length)
{
    int ret = 0;

    pthread_mutex_lock(&p->lock);
    struct slot *slot = find(p, index);
    if (!slot) {
        slot = &p->slots[0];
        for (uint32_t i = 1; i < p->count; i++)
            if (p->slots[i].used < slot->used)
                slot = &p->slots[i];
    }
    if (!slot->data && !(slot->data = malloc(p->size))) {
        ret = -ENOMEM;
    } else {
        slot->index = index;
        slot->length = length < p->size ? length : p->size;
        slot->used = ++p->clock;
        memcpy(slot->data, data, slot->length);
    }
    pthread_mutex_unlock(&p->lock);
    return ret;
}

static bool fetched(const struct mull_pieces *p, uint64_t index)
{
    for (int i = 0; i < FETCHES_MAX; i++)
        if (index >= p->fetches[i].first && index < p->fetches[i].end)
            return true;
    return false;
}

static int free_fetch(const struct mull_pieces *p)
{
    for (int i = 0; i < FETCHES_MAX; i++)
        if (p->fetches[i].first == p->fetches[i].end)
            return i;
    return -1;
}

uint32_t mull_pieces_begin(struct mull_pieces *p, uint64_t index, uint32_t most)
{
    uint32_t n = 0;

    pthread_mutex_lock(&p->lock);
    while (!find(p, index)) {
        int at = free_fetch(p);
        if (at < 0 || fetched(p, index)) {
            pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        for (n = 1; n < most && !find(p, index + n) && !fetched(p, index + n); n++)
            ;
        p->fetches[at].first = index;
        p->fetches[at].end = index + n;
        break;
    }
    pthread_mutex_unlock(&p->lock);
    return n;
}

void mull_pieces_end(struct mull_pieces *p, uint64_t index, uint32_t count)
{
    pthread_mutex_lock(&p->lock);
    for (int i = 0; i < FETCHES_MAX; i++)
        if (count && p->fetches[i].first == index && p->fetches[i].end == index + count)
            p->fetches[i].first = p->fetches[i].end = 0;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}
