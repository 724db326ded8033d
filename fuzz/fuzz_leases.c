/* A leases file that dnsmasq, or whoever has taken it over, has written: each lease that is told is
 * one. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/dnsmasq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(void *opaque, const struct net_lease *lease)
{
    size_t *left = opaque;
    struct in6_addr address;

    /* "0 MAC ADDRESS NAME" has more bytes than its address and its name. */
    size_t bytes = strlen(lease->address) + strlen(lease->name);
    if (bytes > *left ||
        inet_pton(lease->is6 ? AF_INET6 : AF_INET, lease->address, &address) != 1 ||
        lease->has_mac == lease->is6 || !(lease->expires >= 0 && lease->expires < 1e12) ||
        (*lease->name && (!net_domain_valid(lease->name) || strchr(lease->name, '.'))))
        abort();
    *left -= bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t left = size;

    net_leases_parse((const char *)data, size, look, &left);
    return 0;
}
