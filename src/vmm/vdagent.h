/*
 * The clipboard's way to the guest: the protocol of spice-vdagent (the agent that distributions
 * have) on a channel of the virtio console. Bytes in, bytes out; knows neither the channel nor who
 * else has a clipboard. The guest is not trusted: everything is bounded.
 */
#ifndef MULL_VMM_VDAGENT_H
#define MULL_VMM_VDAGENT_H

#include "vmm/rfb_encode.h"

/** By this name the agent finds the channel. */
#define VMM_VDAGENT_CHANNEL "com.redhat.spice.0"

struct vmm_vdagent;

/** @param cut  the guest has a new clipboard (UTF-8, no NUL in it). @return NULL: no memory */
struct vmm_vdagent *vmm_vdagent_create(void (*cut)(void *opaque, const char *text, size_t len),
                                       void *opaque);
void vmm_vdagent_free(struct vmm_vdagent *a);

/** Bytes of the agent's have come. */
void vmm_vdagent_input(struct vmm_vdagent *a, const uint8_t *data, size_t size);

/** There is a new clipboard for the guest; it fetches it when somebody there wants it. */
void vmm_vdagent_cut(struct vmm_vdagent *a, const char *text, size_t len);

/** What is to be sent; the caller takes it away and sets size to 0. */
struct rfb_buffer *vmm_vdagent_out(struct vmm_vdagent *a);

#endif
