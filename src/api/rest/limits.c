/*
 * How often one address may ask: a bucket of requests that fills again with time, and a smaller one
 * of logins. The table is bounded; who has been silent longest makes room.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/rest.h"

#define ADDRESSES 1024u

struct bucket {
    char address[64];
    double requests, logins; /* left */
    uint64_t at;             /* when they were counted */
};

struct limits {
    pthread_mutex_t lock;
    double request_rate, request_room; /* a second; at once */
    double login_rate, login_room;
    struct bucket bucket[ADDRESSES];
};

struct limits *limits_open(const struct host_options *options)
{
    struct limits *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    pthread_mutex_init(&l->lock, NULL);
    l->request_rate = options->requests_per_second;
    l->request_room = 4.0 * options->requests_per_second;
    l->login_rate = options->logins_per_minute / 60.0;
    l->login_room = options->logins_per_minute;
    return l;
}

void limits_close(struct limits *l)
{
    if (l)
        pthread_mutex_destroy(&l->lock);
    free(l);
}

static struct bucket *find(struct limits *l, const char *address)
{
    unsigned hash = 5381, oldest;
    for (const char *c = address; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    /* Eight places for each address; the oldest of them is given away. */
    oldest = hash % ADDRESSES;
    for (unsigned i = 0; i < 8; i++) {
        struct bucket *b = &l->bucket[(hash + i) % ADDRESSES];
        if (!strcmp(b->address, address))
            return b;
        if (b->at < l->bucket[oldest].at)
            oldest = (hash + i) % ADDRESSES;
    }
    struct bucket *b = &l->bucket[oldest];
    snprintf(b->address, sizeof(b->address), "%s", address);
    b->requests = l->request_room;
    b->logins = l->login_room;
    b->at = mull_now_ns();
    return b;
}

static bool take(struct limits *l, const char *address, bool login, unsigned *wait)
{
    pthread_mutex_lock(&l->lock);
    struct bucket *b = find(l, address);
    uint64_t now = mull_now_ns();
    double passed = (double)(now - b->at) / 1e9;
    b->at = now;
    b->requests += passed * l->request_rate;
    b->logins += passed * l->login_rate;
    if (b->requests > l->request_room)
        b->requests = l->request_room;
    if (b->logins > l->login_room)
        b->logins = l->login_room;
    double *left = login ? &b->logins : &b->requests;
    bool good = *left >= 1;
    if (good)
        *left -= 1;
    *wait = login ? (unsigned)(1 / l->login_rate) + 1 : 1;
    pthread_mutex_unlock(&l->lock);
    return good;
}

bool limits_request(struct limits *l, const char *address, unsigned *wait)
{
    return take(l, address, false, wait);
}

bool limits_login(struct limits *l, const char *address, unsigned *wait)
{
    return take(l, address, true, wait);
}
