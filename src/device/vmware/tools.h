/*
 * VMware's interface for guests: the backdoor at port 5658h and GuestRPC over it, as open-vm-tools
 * speaks them (open-vm-tools: lib/include/backdoor_def.h, guest_msg_def.h, lib/message/message.c,
 * lib/rpcIn/rpcin.c). The guest says who it is, and is asked to halt or to reboot. Whoever runs in
 * the guest can speak it, unprivileged programs, too: all that comes is bounded, and means nothing
 * to the host but words to show.
 */
#ifndef MULL_DEVICE_VMWARE_TOOLS_H
#define MULL_DEVICE_VMWARE_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/device.h"

#define MULL_BACKDOOR_PORT 0x5658u
#define MULL_BACKDOOR_MAGIC 0x564d5868u

#define MULL_TOOLS_ADDRESSES 32
#define MULL_TOOLS_TEXT 128

struct mull_tools_config {
    uint64_t memory; /* bytes that the guest has */
    uint8_t uuid[16];
    uint32_t lapic_hz; /* the local APIC timer's */
};

int mull_tools_create(const struct mull_device_env *env, const struct mull_tools_config *cfg,
                      struct mull_device **out, struct mull_error *err);

/** A call by the backdoor: @gpr are a vCPU's registers by MULL_RAX, ..., of which 32 bits count.
 *  Any vCPU's thread. For struct mull_engine_bus. */
void mull_tools_call(struct mull_device *tools, uint64_t gpr[16]);

/** What the guest's tools have said. Text is printable ASCII. */
struct mull_tools_info {
    bool running;     /* they have registered themselves and still ask for work */
    double heartbeat; /* seconds since they last did */
    unsigned version; /* major << 10 | minor << 5 | base; 0: not said */
    char hostname[MULL_TOOLS_TEXT], os[MULL_TOOLS_TEXT];
    unsigned address_count;
    char address[MULL_TOOLS_ADDRESSES][46];
};

/** Any thread. */
void mull_tools_info(struct mull_device *tools, struct mull_tools_info *out);

enum mull_tools_power { MULL_TOOLS_HALT, MULL_TOOLS_REBOOT };
/** Ask for it. Any thread. @return 0, or -ENOTCONN: no tools run in the guest */
int mull_tools_power(struct mull_device *tools, enum mull_tools_power what);

/** Ask the tools' service for something, in a message of GuestRPC; its answer is fetched by @id.
 *  Only one program in the guest may say that it is the service: a message may hold a password.
 *  Any thread, as those below. @return 0; -ENOTCONN: no tools run; -EEXIST: several programs say
 *  that they are them; -EBUSY: too much is under way; -EMSGSIZE; -ENOMEM */
int mull_tools_send(struct mull_device *tools, const void *message, size_t size, uint32_t *id);

/** @param answer  bytes of a stranger, *@size of them, for mull_tools_wipe()
 *  @return 0; -EAGAIN: not yet; -ECONNRESET: none will come; -ENOENT: no such message */
int mull_tools_receive(struct mull_device *tools, uint32_t id, uint8_t **answer, size_t *size);

/** The answer is not wanted any more, nor need the message be sent. */
void mull_tools_drop(struct mull_device *tools, uint32_t id);

/** Overwrite and free an answer. NULL is allowed. */
void mull_tools_wipe(void *answer, size_t size);

#define MULL_TOOLS_MESSAGE (64u << 10) /* bytes of a message, either way */

/** The addresses in a `NicInfo` message of version 3 (open-vm-tools: lib/guestRpc/nicinfo.x; XDR,
 *  RFC 4506). @return how many there are in @out, or -EPROTO: it is no such message */
int mull_tools_addresses(const uint8_t *data, size_t size, char out[MULL_TOOLS_ADDRESSES][46]);

#endif
