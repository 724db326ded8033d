/*
 * What the host asks the tools' service of a guest in messages that it makes itself (open-vm-tools:
 * services/plugins/vix), and the answers, until they are fetched. Bytes here; knows neither
 * registers nor what they mean. Messages may hold a password: all memory of them is wiped. The
 * caller serializes.
 */
#ifndef MULL_DEVICE_VMWARE_RELAY_H
#define MULL_DEVICE_VMWARE_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_RELAY_MESSAGES 4
#define GUEST_RELAY_SIZE (64u << 10)

enum guest_relay_state {
    GUEST_RELAY_FREE,
    GUEST_RELAY_QUEUED,
    GUEST_RELAY_SENT,
    GUEST_RELAY_ANSWERED,
    GUEST_RELAY_LOST, /* the service went without an answer */
};

struct guest_relay {
    uint32_t last_id;
    struct guest_relay_message {
        enum guest_relay_state state;
        uint32_t id;
        uint8_t *data; /* what is to be sent, later the answer; malloc'ed */
        size_t size;
    } message[GUEST_RELAY_MESSAGES];
};

/** Queue a copy of a message. An answer that nobody has fetched makes room.
 *  @return 0; -EMSGSIZE: it is empty or too long; -EBUSY: too much is under way; -ENOMEM */
int guest_relay_push(struct guest_relay *r, const void *data, size_t size, uint32_t *id);

/** The oldest message that is queued. @param data  the caller's, for guest_relay_wipe() */
bool guest_relay_pop(struct guest_relay *r, uint32_t *id, uint8_t **data, size_t *size);

/** What the guest has answered; copied. Nobody may want it any more. */
void guest_relay_answer(struct guest_relay *r, uint32_t id, const void *data, size_t size);

/** No answer will come. */
void guest_relay_lose(struct guest_relay *r, uint32_t id);

/** Fetch an answer; it is forgotten then. @param data  the caller's, for guest_relay_wipe()
 *  @return 0; -EAGAIN: not yet; -ECONNRESET: none will come; -ENOENT: no such message */
int guest_relay_take(struct guest_relay *r, uint32_t id, uint8_t **data, size_t *size);

/** Forget a message, wherever it is. */
void guest_relay_drop(struct guest_relay *r, uint32_t id);

/** Forget all. */
void guest_relay_clear(struct guest_relay *r);

/** Overwrite and free. NULL is allowed. */
void guest_relay_wipe(void *data, size_t size);

#endif
