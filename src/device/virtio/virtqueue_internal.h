/*
 * What the two layouts of a virtqueue share: chains are checked alike, and either may be what a
 * queue has. Internal to virtqueue*.c; each function is the one of virtqueue.h for a packed ring.
 */
#ifndef MULL_DEVICE_VIRTIO_VIRTQUEUE_INTERNAL_H
#define MULL_DEVICE_VIRTIO_VIRTQUEUE_INTERNAL_H

#include <linux/virtio_ring.h>

#include "device/virtio/virtqueue.h"

/** Append one descriptor's buffer. @return NULL, or what is wrong with it */
const char *virtqueue_add_segment(struct mull_chain *chain, uint64_t gpa, uint32_t len,
                                  uint16_t flags);

/** The driver broke the rules. @return 0 */
int virtqueue_broken(struct mull_virtqueue *queue, const char *why);

/** May the ring be written? A paused device still completes what was in flight. */
bool virtqueue_may_complete(const struct mull_virtqueue *queue);

bool virtqueue_range_ok(uint64_t gpa, uint64_t align, uint64_t len);

bool packed_enable(struct mull_virtqueue *queue);
int packed_pop(struct mull_virtqueue *queue, struct mull_chain *chain);
void packed_unpop(struct mull_virtqueue *queue);
void packed_fill(struct mull_virtqueue *queue, unsigned index, uint16_t head, uint32_t written);
void packed_publish(struct mull_virtqueue *queue, unsigned count);
bool packed_wants_interrupt(struct mull_virtqueue *queue);
void packed_quiet(struct mull_virtqueue *queue);
bool packed_listen(struct mull_virtqueue *queue, unsigned seen);

/** After a load: are the saved positions inside the ring? */
bool packed_positions_ok(const struct mull_virtqueue *queue);

#endif
