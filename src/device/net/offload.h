/*
 * What network cards do to frames for their drivers: checksums and TCP segmentation going out,
 * verified checksums coming in. Works on a frame in host memory, read from the guest once. Knows
 * Ethernet, IP, TCP and UDP headers; neither cards nor back ends.
 */
#ifndef MULL_DEVICE_NET_OFFLOAD_H
#define MULL_DEVICE_NET_OFFLOAD_H

#include <stdbool.h>
#include <stdint.h>

#define MULL_ETH_HEADER 14

/** What is known of a frame's headers. Offsets are from the frame's start and inside it. */
struct mull_net_headers {
    uint16_t l3, l4;  /* 0: there is none of those known here */
    uint16_t payload; /* behind the TCP or UDP header */
    uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP or 0 */
    bool ipv4, ipv6;
    bool fragment;
    bool vlan;    /* a tag is in front of the EtherType */
    uint16_t tci; /* that tag */
    uint32_t end; /* of the IP packet; what is behind it is padding */
};

/** Look at a frame's headers. Whatever is too short or unknown is left out. */
void mull_net_parse(const uint8_t *frame, uint32_t len, struct mull_net_headers *out);

/** The Internet checksum (RFC 1071) of @len bytes on top of @sum, not folded.  */
uint64_t mull_net_sum(const void *data, uint32_t len, uint64_t sum);

/** Fold and complement: the value as it stands in a header, in memory order. */
uint16_t mull_net_fold(uint64_t sum);

/** The sum of the pseudo header of a TCP or UDP packet (RFC 793, 3.1; RFC 8200, 8.1). */
uint64_t mull_net_pseudo(const uint8_t *frame, const struct mull_net_headers *h);

/** Sum [start, end) into the 16 bits at @at, which hold the pseudo header's sum or zero. Anything
 *  outside the frame is left alone. */
void mull_net_insert_sum(uint8_t *frame, uint32_t len, uint32_t start, uint32_t end, uint32_t at);

/** Is the IPv4 header's checksum right? */
bool mull_net_ip_sum_good(const uint8_t *frame, const struct mull_net_headers *h);

/** Is the TCP or UDP checksum right? Not for fragments. A UDP packet over IPv4 without one is. */
bool mull_net_l4_sum_good(const uint8_t *frame, const struct mull_net_headers *h);

/** Make the lengths and the checksum of the header of a TCP packet to be segmented what a packet
 *  of that size would have; the TCP checksum is left as the pseudo header's sum. */
void mull_net_prepare_tcp(uint8_t *frame, uint32_t len, const struct mull_net_headers *h);

/** How many segments of at most @mss bytes a prepared TCP packet makes. */
uint32_t mull_net_segments(uint32_t len, const struct mull_net_headers *h, uint32_t mss);

/**
 * Write segment @index of a prepared TCP packet (RFC 793; IDs count up, PSH and FIN only on the
 * last one, CWR only on the first), with its checksums.
 *
 * @param out  room for the headers and @mss bytes
 * @return its length
 */
uint32_t mull_net_segment(const uint8_t *frame, uint32_t len, const struct mull_net_headers *h,
                          uint32_t mss, uint32_t index, uint8_t *out);

#endif
