/*
 * GuestRPC: the messages of open-vm-tools over a channel. RPCI: the guest asks, we answer; TCLO:
 * the guest fetches what it is to do, and sends what came of it. Knows words, not registers. The
 * caller serializes.
 */
#ifndef MULL_DEVICE_VMWARE_GUEST_RPC_H
#define MULL_DEVICE_VMWARE_GUEST_RPC_H

#include "device/vmware/tools.h"

#define GUEST_RPC_PAIRS 32
#define GUEST_RPC_KEY 64
#define GUEST_RPC_VALUE 1024
#define GUEST_RPC_QUEUE 8
#define GUEST_RPC_ANSWER (GUEST_RPC_VALUE + 16)

/** What a guest has said, until it is reset. */
struct guest_rpc {
    struct mull_tools_info info;
    bool registered;
    uint64_t heartbeat_ns; /* of the host's clock; 0: never */
    const char *asked;     /* to halt or to reboot, and it has not said that it will; or NULL */
    unsigned pairs;
    struct {
        char key[GUEST_RPC_KEY], value[GUEST_RPC_VALUE];
    } pair[GUEST_RPC_PAIRS]; /* "guestinfo.*" */
};

/** One TCLO channel's: what the guest is to do. */
struct guest_tclo {
    bool toolbox;     /* it is the tools' own service, not a user's session */
    const char *sent; /* the last command */
    unsigned first, count;
    const char *queue[GUEST_RPC_QUEUE]; /* constant strings */
};

/** Answer a message (RPCI). @return the answer's length in @answer */
size_t guest_rpc_answer(struct guest_rpc *g, const uint8_t *message, size_t size,
                        char answer[GUEST_RPC_ANSWER]);

/** The one address that a guest broadcasts before it tells of its cards. @return false: it has not
 */
bool guest_rpc_address(const struct guest_rpc *g, char out[46]);

/** A new TCLO channel. */
void guest_tclo_open(struct guest_tclo *t);
/** What came of the last command, empty: nothing was asked. @param now_ns  the host's clock */
void guest_tclo_result(struct guest_rpc *g, struct guest_tclo *t, const uint8_t *message,
                       size_t size, uint64_t now_ns);
/** @return false: too much is waiting */
bool guest_tclo_push(struct guest_tclo *t, const char *command);
/** The next command, or NULL. */
const char *guest_tclo_pop(struct guest_tclo *t);

#endif
