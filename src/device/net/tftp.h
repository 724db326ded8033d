/*
 * A read-only TFTP server (RFC 1350; options of RFC 2347, 2348 and 2349) without its network:
 * packets come in and go out by calls, files are opened by whoever owns it. Everything is bounded;
 * what a client sends is not trusted. Loop's thread.
 */
#ifndef MULL_DEVICE_NET_TFTP_H
#define MULL_DEVICE_NET_TFTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MULL_TFTP_PORT 69
#define MULL_TFTP_SESSIONS 8
#define MULL_TFTP_NAME_MAX 255
/** The first port that transfers come from; as many follow as there are sessions, four times, so
 *  that a late packet of the one before does not hit the next. */
#define MULL_TFTP_FIRST_PORT 50000
#define MULL_TFTP_PORTS (MULL_TFTP_SESSIONS * 4)
/** The largest block: what fits into an Ethernet frame of 1500 bytes (RFC 2348). */
#define MULL_TFTP_BLOCK_MAX 1468
#define MULL_TFTP_PACKET_MAX (4 + MULL_TFTP_BLOCK_MAX)

/** Who talks to whom. Addresses in network order, ports in the host's. */
struct mull_tftp_peer {
    uint8_t client_mac[6], server_mac[6];
    uint8_t client_ip[4], server_ip[4];
    uint16_t client_port, server_port;
};

struct mull_tftp_ops {
    /* A packet for the client. */
    void (*send)(void *opaque, const struct mull_tftp_peer *peer, const uint8_t *data, size_t len);
    /* Open a file below the root; answer with mull_tftp_opened(), then or later. @return false:
     * that is not possible now */
    bool (*open)(void *opaque, uint32_t id, const char *name);
};

struct mull_tftp;

/** @return NULL: no memory */
struct mull_tftp *mull_tftp_create(const struct mull_tftp_ops *ops, void *opaque);
void mull_tftp_destroy(struct mull_tftp *t);

/** A packet came to @peer->server_port: MULL_TFTP_PORT or a transfer's. @param now  mull_now_ns()
 */
void mull_tftp_receive(struct mull_tftp *t, const struct mull_tftp_peer *peer, const uint8_t *data,
                       size_t len, uint64_t now);

/** Answer to ops->open. @param fd  becomes the server's; a negative errno: it cannot be opened */
void mull_tftp_opened(struct mull_tftp *t, uint32_t id, int fd, uint64_t size, uint64_t now);

/** Send again what was not acknowledged in time, and give up on clients that are gone.
 *  @return when to call this next, 0: not before something else happens */
uint64_t mull_tftp_tick(struct mull_tftp *t, uint64_t now);

#endif
