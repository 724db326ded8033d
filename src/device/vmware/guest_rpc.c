/* See guest_rpc.h. The commands: open-vm-tools, lib/include/vmware/guestrpc and services/plugins.
 */
#include "device/vmware/guest_rpc.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* GuestInfoType: open-vm-tools, lib/include/vmware/tools/guestInfo (guestInfoInt.h). */
enum { INFO_DNS_NAME = 1, INFO_OS_NAME_FULL = 5, INFO_IPADDRESS_V2 = 9, INFO_IPADDRESS_V3 = 10 };

static bool begins(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

/* Words of a stranger, to be shown. */
static void keep_text(char *out, size_t room, const char *text)
{
    size_t n = 0;
    for (; text[n] && n + 1 < room; n++)
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = '\0';
}

static size_t say(char answer[GUEST_RPC_ANSWER], bool good, const char *text)
{
    int n = snprintf(answer, GUEST_RPC_ANSWER, "%d %s", good, text);
    return n < GUEST_RPC_ANSWER ? (size_t)n : GUEST_RPC_ANSWER - 1;
}

/* ---- "guestinfo" variables ---- */

static int find_pair(const struct guest_rpc *g, const char *key)
{
    for (unsigned i = 0; i < g->pairs; i++)
        if (!strcmp(g->pair[i].key, key))
            return (int)i;
    return -1;
}

static size_t info_get(struct guest_rpc *g, const char *key, char answer[GUEST_RPC_ANSWER])
{
    int i = find_pair(g, key);
    return i < 0 ? say(answer, false, "No value found") : say(answer, true, g->pair[i].value);
}

/* "guestinfo.KEY VALUE" */
static size_t info_set(struct guest_rpc *g, char *text, char answer[GUEST_RPC_ANSWER])
{
    char *value = strchr(text, ' ');
    if (!value || !begins(text, "guestinfo."))
        return say(answer, false, "Unknown variable");
    *value++ = '\0';
    if (strlen(text) >= GUEST_RPC_KEY || strlen(value) >= GUEST_RPC_VALUE)
        return say(answer, false, "Value too long");
    int i = find_pair(g, text);
    if (i < 0 && g->pairs == GUEST_RPC_PAIRS)
        return say(answer, false, "Too many variables");
    if (i < 0)
        i = (int)g->pairs++;
    keep_text(g->pair[i].key, GUEST_RPC_KEY, text);
    keep_text(g->pair[i].value, GUEST_RPC_VALUE, value);
    return say(answer, true, "");
}

bool guest_rpc_address(const struct guest_rpc *g, char out[46])
{
    int i = find_pair(g, "guestinfo.ip");
    uint8_t bytes[16];
    if (i < 0 || strlen(g->pair[i].value) >= 46 ||
        (inet_pton(AF_INET, g->pair[i].value, bytes) != 1 &&
         inet_pton(AF_INET6, g->pair[i].value, bytes) != 1))
        return false;
    snprintf(out, 46, "%s", g->pair[i].value);
    return true;
}

/* "  TYPE VALUE", the value binary for some */
static size_t set_guest_info(struct guest_rpc *g, const char *text, size_t size,
                             char answer[GUEST_RPC_ANSWER])
{
    char *value;
    unsigned long type = strtoul(text, &value, 10);
    if (*value == ' ')
        value++;
    size_t left = size - (size_t)(value - text);
    if (type == INFO_DNS_NAME) {
        keep_text(g->info.hostname, sizeof(g->info.hostname), value);
    } else if (type == INFO_OS_NAME_FULL) {
        keep_text(g->info.os, sizeof(g->info.os), value);
    } else if (type == INFO_IPADDRESS_V2 || type == INFO_IPADDRESS_V3) {
        char found[MULL_TOOLS_ADDRESSES][46];
        int n = mull_tools_addresses((const uint8_t *)value, left, found);
        if (n < 0)
            return say(answer, false, "Invalid NIC information");
        memcpy(g->info.address, found, (size_t)n * sizeof(found[0]));
        g->info.address_count = (unsigned)n;
    }
    /* What is not understood is refused, so that the guest says it in an older way: the system's
     * name in place of INFO_OS_DETAILED. */
    bool known = type <= INFO_IPADDRESS_V3;
    return say(answer, known, known ? "" : "Unknown type");
}

/* ---- RPCI ---- */

size_t guest_rpc_answer(struct guest_rpc *g, const uint8_t *message, size_t size,
                        char answer[GUEST_RPC_ANSWER])
{
    static const char *const accepted[] = {"log ",
                                           "tools.capability.",
                                           "tools.os.statechange.status ",
                                           "tools.set.versiontype ",
                                           "vmx.capability.",
                                           "toolbox.",
                                           "f ",
                                           "disk.wiper"};
    char *text = malloc(size + 1);
    if (!text)
        return say(answer, false, "No memory");
    if (size) /* an empty message has no bytes anywhere */
        memcpy(text, message, size);
    text[size] = '\0';
    size_t n = 0;
    for (unsigned i = 0; i < sizeof(accepted) / sizeof(accepted[0]) && !n; i++)
        if (begins(text, accepted[i]))
            n = say(answer, true, "");
    if (begins(text, "tools.set.versiontype ")) {
        unsigned long version = strtoul(text + 22, NULL, 10);
        g->info.version = version < 1u << 20 ? (unsigned)version : 0;
    } else if (begins(text, "tools.set.version ")) {
        unsigned long version = strtoul(text + 18, NULL, 10);
        g->info.version = version < 1u << 20 ? (unsigned)version : 0;
        n = say(answer, true, "");
    } else if (begins(text, "SetGuestInfo ")) {
        n = set_guest_info(g, text + 13, size - 13, answer);
    } else if (begins(text, "info-set ")) {
        n = info_set(g, text + 9, answer);
    } else if (begins(text, "info-get ")) {
        n = info_get(g, text + 9, answer);
    }
    free(text);
    return n ? n : say(answer, false, "Unknown command");
}

/* ---- TCLO ---- */

bool guest_tclo_push(struct guest_tclo *t, const char *command)
{
    if (t->count == GUEST_RPC_QUEUE)
        return false;
    t->queue[(t->first + t->count++) % GUEST_RPC_QUEUE] = command;
    return true;
}

const char *guest_tclo_pop(struct guest_tclo *t)
{
    if (!t->count)
        return NULL;
    const char *command = t->queue[t->first];
    t->first = (t->first + 1) % GUEST_RPC_QUEUE;
    t->count--;
    t->sent = command;
    return command;
}

void guest_tclo_open(struct guest_tclo *t)
{
    *t = (struct guest_tclo){0};
    guest_tclo_push(t, "reset");
}

void guest_tclo_result(struct guest_rpc *g, struct guest_tclo *t, const uint8_t *message,
                       size_t size, uint64_t now_ns)
{
    static const char registered[] = "OK ATR toolbox";
    /* The service of the tools names itself so; a user's session "toolbox-dnd", for one. */
    if (size >= sizeof(registered) - 1 && !memcmp(message, registered, sizeof(registered) - 1) &&
        (size == sizeof(registered) - 1 || message[sizeof(registered) - 1] == '\0')) {
        t->toolbox = true;
        g->registered = true;
        guest_tclo_push(t, "Capabilities_Register");
        guest_tclo_push(t, "Set_Option broadcastIP 1");
        if (g->asked) /* on a channel that is no more */
            guest_tclo_push(t, g->asked);
    }
    if (t->sent && t->sent == g->asked && size >= 2 && !memcmp(message, "OK", 2))
        g->asked = NULL;
    if (t->toolbox)
        g->heartbeat_ns = now_ns;
}
