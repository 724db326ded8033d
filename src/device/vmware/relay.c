/* See relay.h. */
#include "device/vmware/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void guest_relay_wipe(void *data, size_t size)
{
    if (data)
        explicit_bzero(data, size);
    free(data);
}

static void release(struct guest_relay_message *m)
{
    guest_relay_wipe(m->data, m->size);
    *m = (struct guest_relay_message){0};
}

static struct guest_relay_message *find(struct guest_relay *r, uint32_t id)
{
    for (unsigned i = 0; i < GUEST_RELAY_MESSAGES; i++)
        if (r->message[i].state != GUEST_RELAY_FREE && r->message[i].id == id)
            return &r->message[i];
    return NULL;
}

/* The oldest in a state: ids grow, and begin again after 2^32. */
static struct guest_relay_message *oldest(struct guest_relay *r, enum guest_relay_state state)
{
    struct guest_relay_message *found = NULL;
    for (unsigned i = 0; i < GUEST_RELAY_MESSAGES; i++) {
        struct guest_relay_message *m = &r->message[i];
        if (m->state == state && (!found || (int32_t)(m->id - found->id) < 0))
            found = m;
    }
    return found;
}

int guest_relay_push(struct guest_relay *r, const void *data, size_t size, uint32_t *id)
{
    struct guest_relay_message *m = oldest(r, GUEST_RELAY_FREE);
    if (!size || size > GUEST_RELAY_SIZE)
        return -EMSGSIZE;
    if (!m)
        m = oldest(r, GUEST_RELAY_LOST);
    if (!m)
        m = oldest(r, GUEST_RELAY_ANSWERED);
    if (!m)
        return -EBUSY;
    uint8_t *copy = malloc(size);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, size);
    release(m);
    if (!++r->last_id)
        r->last_id = 1;
    *m = (struct guest_relay_message){
        .state = GUEST_RELAY_QUEUED, .id = r->last_id, .data = copy, .size = size};
    *id = m->id;
    return 0;
}

bool guest_relay_pop(struct guest_relay *r, uint32_t *id, uint8_t **data, size_t *size)
{
    struct guest_relay_message *m = oldest(r, GUEST_RELAY_QUEUED);
    if (!m)
        return false;
    *id = m->id;
    *data = m->data;
    *size = m->size;
    m->state = GUEST_RELAY_SENT;
    m->data = NULL;
    m->size = 0;
    return true;
}

void guest_relay_answer(struct guest_relay *r, uint32_t id, const void *data, size_t size)
{
    struct guest_relay_message *m = find(r, id);
    if (!m || m->state != GUEST_RELAY_SENT)
        return;
    m->data = malloc(size + 1); /* never of nothing */
    m->state = m->data ? GUEST_RELAY_ANSWERED : GUEST_RELAY_LOST;
    m->size = m->data ? size : 0;
    if (m->size)
        memcpy(m->data, data, size);
}

void guest_relay_lose(struct guest_relay *r, uint32_t id)
{
    struct guest_relay_message *m = find(r, id);
    if (m && m->state == GUEST_RELAY_SENT)
        m->state = GUEST_RELAY_LOST;
}

int guest_relay_take(struct guest_relay *r, uint32_t id, uint8_t **data, size_t *size)
{
    struct guest_relay_message *m = find(r, id);
    if (!m)
        return -ENOENT;
    if (m->state == GUEST_RELAY_LOST) {
        release(m);
        return -ECONNRESET;
    }
    if (m->state != GUEST_RELAY_ANSWERED)
        return -EAGAIN;
    *data = m->data;
    *size = m->size;
    *m = (struct guest_relay_message){0};
    return 0;
}

void guest_relay_drop(struct guest_relay *r, uint32_t id)
{
    struct guest_relay_message *m = find(r, id);
    if (m)
        release(m);
}

void guest_relay_clear(struct guest_relay *r)
{
    for (unsigned i = 0; i < GUEST_RELAY_MESSAGES; i++)
        release(&r->message[i]);
}
