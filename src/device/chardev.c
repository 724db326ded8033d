/*
 * The calls every character device has in common, and the two back ends that reach nothing
 * outside: the one that swallows everything and the one in memory for tests.
 */
#include "device/chardev.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

size_t mull_chardev_write(struct mull_chardev *chardev, const uint8_t *bytes, size_t len)
{
    return len ? chardev->ops->write(chardev, bytes, len) : 0;
}

void mull_chardev_attach(struct mull_chardev *chardev, const struct mull_chardev_frontend *frontend)
{
    chardev->ops->attach(chardev, frontend);
}

void mull_chardev_resume(struct mull_chardev *chardev)
{
    chardev->ops->resume(chardev);
}

bool mull_chardev_connected(struct mull_chardev *chardev)
{
    return chardev->ops->connected(chardev);
}

void mull_chardev_destroy(struct mull_chardev *chardev)
{
    if (chardev)
        chardev->ops->destroy(chardev);
}

/* ---- Nothing ---- */

static size_t null_write(struct mull_chardev *chardev, const uint8_t *bytes, size_t len)
{
    return len;
}

static void null_attach(struct mull_chardev *chardev, const struct mull_chardev_frontend *frontend)
{
}

static void null_resume(struct mull_chardev *chardev) {}

static bool null_connected(struct mull_chardev *chardev)
{
    return false;
}

static void null_destroy(struct mull_chardev *chardev)
{
    free(chardev);
}

static const struct mull_chardev_ops null_ops = {.write = null_write,
                                                 .attach = null_attach,
                                                 .resume = null_resume,
                                                 .connected = null_connected,
                                                 .destroy = null_destroy};

int mull_chardev_null_create(struct mull_chardev **out, struct mull_error *err)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return mull_fail(err, ENOMEM, "console: out of memory");
    (*out)->ops = &null_ops;
    return 0;
}

/* ---- Memory ---- */

struct memory_chardev {
    struct mull_chardev base;
    pthread_mutex_t lock; /* the buffer */
    struct mull_chardev_frontend frontend;
    size_t capacity, len;
    bool starved; /* a write was short */
    uint8_t buffer[];
};

static size_t memory_write(struct mull_chardev *chardev, const uint8_t *bytes, size_t len)
{
    struct memory_chardev *m = (struct memory_chardev *)chardev;
    pthread_mutex_lock(&m->lock);
    size_t room = m->capacity - m->len;
    if (len > room) {
        len = room;
        m->starved = true;
    }
    memcpy(m->buffer + m->len, bytes, len);
    m->len += len;
    pthread_mutex_unlock(&m->lock);
    return len;
}

static void memory_attach(struct mull_chardev *chardev,
                          const struct mull_chardev_frontend *frontend)
{
    struct memory_chardev *m = (struct memory_chardev *)chardev;
    m->frontend = frontend ? *frontend : (struct mull_chardev_frontend){0};
}

static bool memory_connected(struct mull_chardev *chardev)
{
    return true;
}

static void memory_destroy(struct mull_chardev *chardev)
{
    struct memory_chardev *m = (struct memory_chardev *)chardev;
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static const struct mull_chardev_ops memory_ops = {.write = memory_write,
                                                   .attach = memory_attach,
                                                   .resume = null_resume,
                                                   .connected = memory_connected,
                                                   .destroy = memory_destroy};

int mull_chardev_memory_create(size_t capacity, struct mull_chardev **out, struct mull_error *err)
{
    struct memory_chardev *m = calloc(1, sizeof(*m) + capacity);
    if (!m)
        return mull_fail(err, ENOMEM, "console buffer of %zu bytes: out of memory", capacity);
    m->base.ops = &memory_ops;
    m->capacity = capacity;
    pthread_mutex_init(&m->lock, NULL);
    *out = &m->base;
    return 0;
}

size_t mull_chardev_memory_take(struct mull_chardev *chardev, void *buf, size_t len)
{
    struct memory_chardev *m = (struct memory_chardev *)chardev;
    pthread_mutex_lock(&m->lock);
    if (len > m->len)
        len = m->len;
    memcpy(buf, m->buffer, len);
    memmove(m->buffer, m->buffer + len, m->len - len);
    m->len -= len;
    bool tell = m->starved && len;
    if (tell)
        m->starved = false;
    pthread_mutex_unlock(&m->lock);
    if (tell && m->frontend.writable)
        m->frontend.writable(m->frontend.opaque);
    return len;
}

size_t mull_chardev_memory_give(struct mull_chardev *chardev, const void *buf, size_t len)
{
    struct memory_chardev *m = (struct memory_chardev *)chardev;
    size_t given = 0;
    while (m->frontend.receive && given < len) {
        size_t room = m->frontend.can_receive(m->frontend.opaque);
        size_t n = len - given < room ? len - given : room;
        if (!n)
            break;
        m->frontend.receive(m->frontend.opaque, (const uint8_t *)buf + given, n);
        given += n;
    }
    return given;
}
