/*
 * Receive-side scaling of the virtio NIC (virtio 1.2, 5.1.6.4.3 and 5.1.6.5.6): what the driver has
 * configured, the Toeplitz hash of a frame, and the queue pair that this leads to. Knows frames and
 * the bytes of commands, neither rings nor devices.
 */
#ifndef MULL_DEVICE_VIRTIO_NET_RSS_H
#define MULL_DEVICE_VIRTIO_NET_RSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fields.h"

#define MULL_RSS_TABLE 128   /* entries of the indirection table */
#define MULL_RSS_KEY 40      /* bytes: what IPv6 addresses and ports take */
#define MULL_RSS_TYPES 0x3fu /* VIRTIO_NET_RSS_HASH_TYPE_*: without those of extension headers */
/** The longest body of a command, behind its class and number. */
#define MULL_RSS_COMMAND_MAX (8 + 2 * MULL_RSS_TABLE + 3 + MULL_RSS_KEY)

/** What the driver has set. Zeroed: no hash, no steering by it. */
struct mull_rss {
    bool steering; /* by the table; else only hashes are reported */
    uint32_t types;
    uint16_t mask; /* of the table's index */
    uint16_t unclassified;
    uint16_t table[MULL_RSS_TABLE]; /* queue pairs */
    uint8_t key[MULL_RSS_KEY];
};

/**
 * VIRTIO_NET_CTRL_MQ_RSS_CONFIG.
 *
 * @param body       the command behind class and number; @len  bytes of it
 * @param max_pairs  queue pairs that there are
 * @param pairs      how many the driver uses from now on
 * @return false: it makes no sense, and nothing has changed
 */
bool mull_rss_configure(struct mull_rss *rss, const uint8_t *body, size_t len, uint16_t max_pairs,
                        uint16_t *pairs);

/** VIRTIO_NET_CTRL_MQ_HASH_CONFIG: hashes for reports, no steering. As mull_rss_configure(). */
bool mull_rss_configure_hash(struct mull_rss *rss, const uint8_t *body, size_t len);

/** The hash of a frame's headers. @return VIRTIO_NET_HASH_REPORT_*; NONE: *hash is 0 */
uint16_t mull_rss_hash(const struct mull_rss *rss, const uint8_t *frame, uint32_t len,
                       uint32_t *hash);

/** The queue pair for a frame with this report and hash. */
unsigned mull_rss_pair(const struct mull_rss *rss, uint16_t report, uint32_t hash);

/** Of a struct mull_rss; what is loaded is checked, but for the pairs: mull_rss_fits(). */
extern const struct mull_state_desc mull_rss_desc;

/** Does it lead to none but the first @pairs pairs? */
bool mull_rss_fits(const struct mull_rss *rss, uint16_t pairs);

#endif
