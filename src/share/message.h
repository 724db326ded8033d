/*
 * What goes over the socket between a machine's process and mullion-share: requests and answers of
 * a protocol that the machine's process does not look into, each behind this header, in the host's
 * byte order. The first message, from mullion-share, is empty and says that it has locked itself
 * in. Knows no protocol.
 */
#ifndef MULL_SHARE_MESSAGE_H
#define MULL_SHARE_MESSAGE_H

#include <stdint.h>

/** The longest request and answer, header not included: a transfer of 1 MiB and what is around. */
#define SHARE_MESSAGE_MAX ((1u << 20) + 8192u)

struct share_message {
    uint32_t len;  /* bytes that follow */
    uint32_t tag;  /* the answer has the request's */
    uint32_t room; /* request: the longest answer; 0: none is wanted */
};

#endif
