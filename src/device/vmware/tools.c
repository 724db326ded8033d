/*
 * The backdoor: an IN of 32 bits from port 5658h with the magic number in EAX and a command in CX,
 * from any privilege; answers come in registers. Command 30 carries messages of GuestRPC over one
 * of eight channels, four bytes a call. See tools.h.
 */
#include "device/vmware/tools.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "device/vmware/guest_rpc.h"
#include "device/vmware/relay.h"
#include "engine/cpu_state.h"

/* backdoor_def.h */
enum {
    CMD_GET_MHZ = 1,
    CMD_GET_VERSION = 10,
    CMD_GET_HW_VERSION = 17,
    CMD_GET_UUID = 19,
    CMD_GET_MEMORY = 20,
    CMD_GET_TIME = 23,
    CMD_MESSAGE = 30,
    CMD_IS_MOUSE_ABSOLUTE = 36,
    CMD_GET_HZ = 45,
    CMD_GET_TIME_FULL = 46,
    CMD_GET_TIME_FULL_LAG = 55,
    CMD_GET_VCPU_INFO = 68,
};
#define PROTOCOL_VERSION 6u
#define PRODUCT_SERVER 2u    /* "ESX": what server guests expect */
#define HARDWARE_VERSION 13u /* the oldest whose guests may have all our devices */
#define MAX_LAG_US 1000000u
#define VCPU_LEGACY_X2APIC (1u << 3)
#define UNKNOWN UINT32_MAX

/* guest_msg_def.h */
enum { OPEN, SEND_SIZE, SEND_PAYLOAD, RECEIVE_SIZE, RECEIVE_PAYLOAD, RECEIVE_STATUS, CLOSE };
enum { STATUS_SUCCESS = 1, STATUS_DO_RECEIVE = 2, STATUS_CLOSED = 4 };
#define CHANNELS 8
#define MESSAGE_MAX MULL_TOOLS_MESSAGE
#define FLAG_COOKIE 0x80000000u
#define PROTOCOL_RPCI 0x49435052u
#define PROTOCOL_TCLO 0x4f4c4354u
#define SILENT_NS 30000000000ull /* tools that have not asked for so long do not run */

struct channel {
    uint32_t protocol; /* 0: closed */
    uint32_t cookie[2];
    uint8_t *in;
    uint32_t in_size, in_have;
    char text[GUEST_RPC_ANSWER]; /* of our own */
    uint8_t *relayed;            /* the host's message; or NULL */
    size_t relayed_size;
    uint32_t relayed_id; /* whose answer is awaited; 0: none */
    const void *out;     /* one of the two */
    uint32_t out_size, out_at;
    bool out_pending;
    uint64_t asked_ns; /* when the guest last asked for a message */
    struct guest_tclo tclo;
};

struct tools {
    struct mull_device device;
    struct mull_clock *clock;
    struct mull_tools_config config;
    pthread_mutex_t lock;
    struct guest_rpc rpc;
    struct guest_relay relay;
    struct channel channel[CHANNELS];
    uint32_t present; /* the state's one field: channels do not survive, tools open them again */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Registers ---- */

static uint32_t get(const uint64_t gpr[16], unsigned reg)
{
    return (uint32_t)gpr[reg];
}

/* As any instruction that writes 32 bits. */
static void set(uint64_t gpr[16], unsigned reg, uint32_t value)
{
    gpr[reg] = value;
}

static void set_high(uint64_t gpr[16], unsigned reg, uint32_t high)
{
    gpr[reg] = (uint32_t)(high << 16) | (gpr[reg] & 0xffff);
}

/* ---- Messages ---- */

static void forget_relayed(struct channel *c)
{
    guest_relay_wipe(c->relayed, c->relayed_size);
    c->relayed = NULL;
    c->relayed_size = 0;
    c->out_pending = false;
}

static void close_channel(struct tools *t, struct channel *c)
{
    if (c->relayed_id)
        guest_relay_lose(&t->relay, c->relayed_id);
    forget_relayed(c);
    free(c->in);
    memset(c, 0, sizeof(*c));
}

static void offer(struct channel *c, const void *out, size_t size)
{
    c->out = out;
    c->out_size = (uint32_t)size;
    c->out_at = 0;
    c->out_pending = true;
}

static void take_message(struct tools *t, struct channel *c)
{
    if (c->protocol == PROTOCOL_RPCI) {
        offer(c, c->text, guest_rpc_answer(&t->rpc, c->in, c->in_size, c->text));
    } else if (c->relayed_id) {
        guest_relay_answer(&t->relay, c->relayed_id, c->in, c->in_size);
        c->relayed_id = 0;
        forget_relayed(c);
        guest_tclo_result(&t->rpc, &c->tclo, NULL, 0, now_ns()); /* a sign of life */
    } else {
        guest_tclo_result(&t->rpc, &c->tclo, c->in, c->in_size, now_ns());
    }
    free(c->in);
    c->in = NULL;
    c->in_size = c->in_have = 0;
}

static bool open_channel(struct tools *t, uint64_t gpr[16])
{
    uint32_t wanted = get(gpr, MULL_RBX), protocol = wanted & ~FLAG_COOKIE;
    if (protocol != PROTOCOL_RPCI && protocol != PROTOCOL_TCLO)
        return false;
    for (unsigned i = 0; i < CHANNELS; i++) {
        struct channel *c = &t->channel[i];
        if (c->protocol)
            continue;
        close_channel(t, c);
        c->protocol = protocol;
        /* Keeps programs of the guest from taking another's channel by its number. */
        if ((wanted & FLAG_COOKIE) &&
            getrandom(c->cookie, sizeof(c->cookie), GRND_NONBLOCK) != sizeof(c->cookie))
            memset(c->cookie, 0, sizeof(c->cookie));
        if (protocol == PROTOCOL_TCLO)
            guest_tclo_open(&c->tclo);
        set_high(gpr, MULL_RDX, i);
        set(gpr, MULL_RSI, c->cookie[0]);
        set(gpr, MULL_RDI, c->cookie[1]);
        return true;
    }
    return false;
}

static unsigned begin_message(struct tools *t, struct channel *c, uint32_t size)
{
    free(c->in);
    c->in = size && size <= MESSAGE_MAX ? malloc(size) : NULL;
    c->in_size = c->in ? size : 0;
    c->in_have = 0;
    if (size && !c->in)
        return 0;
    if (!size)
        take_message(t, c);
    return STATUS_SUCCESS;
}

static unsigned add_to_message(struct tools *t, struct channel *c, uint32_t data)
{
    if (!c->in)
        return 0;
    for (unsigned i = 0; i < 4 && c->in_have < c->in_size; i++)
        c->in[c->in_have++] = (uint8_t)(data >> 8 * i);
    if (c->in_have == c->in_size)
        take_message(t, c);
    return STATUS_SUCCESS;
}

/* Programs that say that they are the tools' service and still ask for work. The lock is held. */
static unsigned services(const struct tools *t)
{
    unsigned count = 0;
    for (unsigned i = 0; i < CHANNELS; i++) {
        const struct channel *c = &t->channel[i];
        count +=
            c->protocol == PROTOCOL_TCLO && c->tclo.toolbox && now_ns() - c->asked_ns < SILENT_NS;
    }
    return count;
}

/* What the guest is to do next: what it is told by ourselves first. */
static void offer_next(struct tools *t, struct channel *c)
{
    const char *command = guest_tclo_pop(&c->tclo);
    c->asked_ns = now_ns();
    if (command) {
        offer(c, command, strlen(command));
    } else if (c->tclo.toolbox && !c->relayed_id) {
        forget_relayed(c);
        if (services(t) == 1 &&
            guest_relay_pop(&t->relay, &c->relayed_id, &c->relayed, &c->relayed_size)) {
            c->tclo.sent = NULL;
            offer(c, c->relayed, c->relayed_size);
        }
    }
}

static unsigned receive_size(struct tools *t, struct channel *c, uint64_t gpr[16])
{
    if (!c->out_pending && c->protocol == PROTOCOL_TCLO)
        offer_next(t, c);
    if (!c->out_pending)
        return STATUS_SUCCESS;
    c->out_at = 0; /* asked again, it begins again */
    set_high(gpr, MULL_RDX, SEND_SIZE);
    set(gpr, MULL_RBX, c->out_size);
    return STATUS_SUCCESS | STATUS_DO_RECEIVE;
}

static unsigned receive_payload(struct channel *c, uint64_t gpr[16])
{
    uint32_t data = 0;
    if (!c->out_pending || !(get(gpr, MULL_RBX) & STATUS_SUCCESS) || c->out_at >= c->out_size) {
        c->out_pending = false; /* the guest gives up */
        return 0;
    }
    for (unsigned i = 0; i < 4 && c->out_at < c->out_size; i++)
        data |= (uint32_t)((const uint8_t *)c->out)[c->out_at++] << 8 * i;
    set_high(gpr, MULL_RDX, SEND_PAYLOAD);
    set(gpr, MULL_RBX, data);
    return STATUS_SUCCESS;
}

static unsigned on_channel(struct tools *t, unsigned type, uint64_t gpr[16])
{
    unsigned id = get(gpr, MULL_RDX) >> 16;
    struct channel *c = id < CHANNELS ? &t->channel[id] : NULL;
    if (!c || !c->protocol || c->cookie[0] != get(gpr, MULL_RSI) ||
        c->cookie[1] != get(gpr, MULL_RDI))
        return STATUS_CLOSED;
    switch (type) {
    case SEND_SIZE:
        return begin_message(t, c, get(gpr, MULL_RBX));
    case SEND_PAYLOAD:
        return add_to_message(t, c, get(gpr, MULL_RBX));
    case RECEIVE_SIZE:
        return receive_size(t, c, gpr);
    case RECEIVE_PAYLOAD:
        return receive_payload(c, gpr);
    case RECEIVE_STATUS:
        c->out_pending = false;
        return STATUS_SUCCESS;
    case CLOSE:
        close_channel(t, c);
        return STATUS_SUCCESS;
    }
    return 0;
}

static void message(struct tools *t, uint64_t gpr[16])
{
    unsigned type = get(gpr, MULL_RCX) >> 16;
    unsigned status = type == OPEN ? open_channel(t, gpr) : on_channel(t, type, gpr);
    set_high(gpr, MULL_RCX, status);
}

/* ---- Commands ---- */

static void get_hz(struct tools *t, uint64_t gpr[16])
{
    uint64_t hz = mull_clock_tsc_hz(t->clock);
    set(gpr, MULL_RAX, (uint32_t)hz);
    set(gpr, MULL_RBX, (uint32_t)(hz >> 32));
    set(gpr, MULL_RCX, t->config.lapic_hz);
}

static void get_time(uint64_t gpr[16], bool full)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    set(gpr, MULL_RAX, full ? MULL_BACKDOOR_MAGIC : (uint32_t)now.tv_sec);
    set(gpr, MULL_RBX, (uint32_t)(now.tv_nsec / 1000));
    set(gpr, MULL_RCX, MAX_LAG_US);
    if (!full)
        return;
    set(gpr, MULL_RSI, (uint32_t)((uint64_t)now.tv_sec >> 32));
    set(gpr, MULL_RDX, (uint32_t)now.tv_sec);
}

static void get_uuid(const struct tools *t, uint64_t gpr[16])
{
    static const unsigned regs[] = {MULL_RAX, MULL_RBX, MULL_RCX, MULL_RDX};
    for (unsigned i = 0; i < 4; i++) {
        uint32_t word;
        memcpy(&word, t->config.uuid + 4 * i, 4);
        set(gpr, regs[i], word);
    }
}

void mull_tools_call(struct mull_device *device, uint64_t gpr[16])
{
    struct tools *t = (struct tools *)device;

    pthread_mutex_lock(&t->lock);
    switch (get(gpr, MULL_RCX) & 0xffff) {
    case CMD_GET_MHZ:
        set(gpr, MULL_RAX, (uint32_t)(mull_clock_tsc_hz(t->clock) / 1000000));
        break;
    case CMD_GET_VERSION:
        set(gpr, MULL_RAX, PROTOCOL_VERSION);
        set(gpr, MULL_RBX, MULL_BACKDOOR_MAGIC);
        set(gpr, MULL_RCX, PRODUCT_SERVER);
        break;
    case CMD_GET_HW_VERSION:
        set(gpr, MULL_RAX, HARDWARE_VERSION);
        break;
    case CMD_GET_UUID:
        get_uuid(t, gpr);
        break;
    case CMD_GET_MEMORY:
        set(gpr, MULL_RAX, (uint32_t)(t->config.memory >> 20));
        break;
    case CMD_GET_TIME:
        get_time(gpr, false);
        break;
    case CMD_GET_TIME_FULL_LAG:
        set(gpr, MULL_RDI, 0); /* no timer interrupt is late */
        get_time(gpr, true);
        break;
    case CMD_GET_TIME_FULL:
        get_time(gpr, true);
        break;
    case CMD_MESSAGE:
        message(t, gpr);
        break;
    case CMD_IS_MOUSE_ABSOLUTE:
        set(gpr, MULL_RAX, 0);
        break;
    case CMD_GET_HZ:
        get_hz(t, gpr);
        break;
    case CMD_GET_VCPU_INFO:
        set(gpr, MULL_RAX, VCPU_LEGACY_X2APIC);
        break;
    default:
        set(gpr, MULL_RAX, UNKNOWN);
    }
    pthread_mutex_unlock(&t->lock);
}

/* ---- For the host ---- */

/* The lock is held. */
static bool runs(const struct tools *t)
{
    return t->rpc.registered && now_ns() - t->rpc.heartbeat_ns < SILENT_NS;
}

void mull_tools_info(struct mull_device *device, struct mull_tools_info *out)
{
    struct tools *t = (struct tools *)device;

    pthread_mutex_lock(&t->lock);
    *out = t->rpc.info;
    if (!out->address_count && guest_rpc_address(&t->rpc, out->address[0]))
        out->address_count = 1;
    out->running = runs(t);
    out->heartbeat = t->rpc.heartbeat_ns ? (double)(now_ns() - t->rpc.heartbeat_ns) / 1e9 : 0;
    pthread_mutex_unlock(&t->lock);
}

int mull_tools_power(struct mull_device *device, enum mull_tools_power what)
{
    struct tools *t = (struct tools *)device;
    const char *command = what == MULL_TOOLS_HALT ? "OS_Halt" : "OS_Reboot";
    int ret = -ENOTCONN;

    pthread_mutex_lock(&t->lock);
    t->rpc.asked = t->rpc.registered ? command : NULL;
    if (t->rpc.registered)
        ret = 0; /* without a channel now: when it is opened again */
    for (unsigned i = 0; i < CHANNELS && t->rpc.registered; i++)
        if (t->channel[i].protocol == PROTOCOL_TCLO && t->channel[i].tclo.toolbox)
            ret = guest_tclo_push(&t->channel[i].tclo, command) ? 0 : -EBUSY;
    pthread_mutex_unlock(&t->lock);
    return ret;
}

int mull_tools_send(struct mull_device *device, const void *message, size_t size, uint32_t *id)
{
    struct tools *t = (struct tools *)device;

    pthread_mutex_lock(&t->lock);
    unsigned there = services(t);
    int ret = there == 1  ? guest_relay_push(&t->relay, message, size, id)
              : there > 1 ? -EEXIST
                          : -ENOTCONN;
    pthread_mutex_unlock(&t->lock);
    return ret;
}

int mull_tools_receive(struct mull_device *device, uint32_t id, uint8_t **answer, size_t *size)
{
    struct tools *t = (struct tools *)device;

    pthread_mutex_lock(&t->lock);
    int ret = guest_relay_take(&t->relay, id, answer, size);
    pthread_mutex_unlock(&t->lock);
    return ret;
}

void mull_tools_drop(struct mull_device *device, uint32_t id)
{
    struct tools *t = (struct tools *)device;

    pthread_mutex_lock(&t->lock);
    guest_relay_drop(&t->relay, id);
    pthread_mutex_unlock(&t->lock);
}

void mull_tools_wipe(void *answer, size_t size)
{
    guest_relay_wipe(answer, size);
}

/* ---- The device ---- */

static void forget(struct tools *t)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        close_channel(t, &t->channel[i]);
    guest_relay_clear(&t->relay);
    memset(&t->rpc, 0, sizeof(t->rpc));
}

static void reset(struct mull_device *device)
{
    struct tools *t = (struct tools *)device;

    pthread_mutex_lock(&t->lock);
    forget(t);
    pthread_mutex_unlock(&t->lock);
}

static void destroy(struct mull_device *device)
{
    struct tools *t = (struct tools *)device;

    forget(t);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* A guest whose channel is gone opens it again and says everything again. */
static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    forget(object);
    return 0;
}

static const struct mull_field fields[] = {MULL_FIELD(struct tools, present), MULL_FIELDS_END};
static const struct mull_state_desc desc = {
    .name = "vmware-tools", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};
static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

int mull_tools_create(const struct mull_device_env *env, const struct mull_tools_config *cfg,
                      struct mull_device **out, struct mull_error *err)
{
    struct tools *t = calloc(1, sizeof(*t));

    if (!t)
        return mull_fail(err, ENOMEM, "VMware tools: no memory");
    t->device = (struct mull_device){.ops = &ops, .name = "vmware-tools", .object = t};
    t->clock = env->clock;
    t->config = *cfg;
    t->present = 1;
    pthread_mutex_init(&t->lock, NULL);
    *out = &t->device;
    return 0;
}
