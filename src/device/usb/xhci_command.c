/*
 * The xHCI's commands (xHCI 1.2, 4.6): slots, the addresses of devices, endpoints. A command that
 * makes no sense is answered with its completion code; structures outside memory stop the
 * controller.
 */
#include <string.h>

#include "device/usb/xhci_internal.h"

#define COMMANDS_MAX 256u /* handled for one ring of the bell */
#define CONTEXT 32u
#define FLAG_SLOT 1u
#define FLAG_CONTROL 2u
#define BLOCK_ADDRESS (1u << 9) /* of Address Device; deconfigure, of Configure Endpoint */

struct context {
    uint32_t word[8];
};

/* ---- Contexts (6.2) ---- */

static bool read_context(struct xhci *x, uint64_t base, unsigned index, struct context *c)
{
    return base < 1ull << 52 &&
           !mull_mem_read(x->memory, base + (uint64_t)index * CONTEXT, c, sizeof(*c));
}

static void write_context(struct xhci *x, const struct slot *s, unsigned index,
                          const struct context *c)
{
    if (s->context >> 52 ||
        mull_mem_write(x->memory, s->context + (uint64_t)index * CONTEXT, c, sizeof(*c)))
        xhci_host_error(x);
}

static void write_slot_state(struct xhci *x, struct slot *s)
{
    struct context c;

    if (!read_context(x, s->context, 0, &c)) {
        xhci_host_error(x);
        return;
    }
    c.word[3] = (c.word[3] & 0x07ffffff) | (uint32_t)s->state << 27;
    write_context(x, s, 0, &c);
}

void xhci_write_endpoint(struct xhci *x, struct slot *s, unsigned index)
{
    const struct endpoint *e = &s->endpoint[index];
    struct context c;

    if (!read_context(x, s->context, index, &c)) {
        xhci_host_error(x);
        return;
    }
    c.word[0] = (c.word[0] & ~7u) | e->state;
    c.word[2] = (uint32_t)(e->ring.dequeue & ~15ull) | e->ring.cycle;
    c.word[3] = (uint32_t)(e->ring.dequeue >> 32);
    write_context(x, s, index, &c);
}

struct mull_hid *xhci_hid(struct xhci *x, const struct slot *s)
{
    if (!s->port || s->port > MULL_XHCI_PORTS || x->hid[s->port - 1].kind == MULL_HID_NONE)
        return NULL;
    return &x->hid[s->port - 1];
}

/* Start an endpoint as the guest's context describes it. */
static void start_endpoint(struct endpoint *e, const struct context *c)
{
    *e = (struct endpoint){.state = EP_RUNNING};
    e->ring.dequeue = ((uint64_t)c->word[3] << 32 | c->word[2]) & ~15ull;
    e->ring.cycle = c->word[2] & 1;
}

static void stop_listening(struct xhci *x, struct slot *s, unsigned index)
{
    struct mull_hid *h = xhci_hid(x, s);

    if (h && index == 3)
        h->listens = false;
}

static void disable_endpoints(struct xhci *x, struct slot *s)
{
    stop_listening(x, s, 3);
    memset(&s->endpoint[2], 0, sizeof(s->endpoint) - 2 * sizeof(s->endpoint[0]));
}

/* ---- Slots ---- */

static unsigned enable_slot(struct xhci *x, unsigned *slot)
{
    unsigned most = x->configure < XHCI_SLOTS ? x->configure : XHCI_SLOTS;

    for (unsigned i = 0; i < most; i++) {
        if (x->slot[i].enabled)
            continue;
        memset(&x->slot[i], 0, sizeof(x->slot[i]));
        x->slot[i].enabled = true;
        *slot = i + 1;
        return CC_SUCCESS;
    }
    return CC_NO_SLOTS;
}

static unsigned disable_slot(struct xhci *x, struct slot *s)
{
    stop_listening(x, s, 3);
    s->state = SLOT_ENABLED;
    if (s->context)
        write_slot_state(x, s);
    memset(s, 0, sizeof(*s));
    return CC_SUCCESS;
}

/* Another slot must not have the port. */
static bool port_free(const struct xhci *x, const struct slot *s, unsigned port)
{
    for (unsigned i = 0; i < XHCI_SLOTS; i++)
        if (&x->slot[i] != s && x->slot[i].enabled && x->slot[i].port == port)
            return false;
    return true;
}

static unsigned address_device(struct xhci *x, unsigned number, const struct trb *trb)
{
    struct slot *s = &x->slot[number - 1];
    uint64_t input = trb->parameter & ~15ull;
    struct context control, slot, ep0;
    bool blocked = trb->control & BLOCK_ADDRESS;

    if (!read_context(x, input, 0, &control) || !read_context(x, input, 1, &slot) ||
        !read_context(x, input, 2, &ep0) || x->contexts >> 52 ||
        mull_mem_read64(x->memory, x->contexts + 8ull * number, &s->context)) {
        xhci_host_error(x);
        return CC_TRB;
    }
    unsigned port = slot.word[1] >> 16 & 0xff;
    if ((control.word[1] & 3) != (FLAG_SLOT | FLAG_CONTROL) || !port || port > XHCI_ALL_PORTS)
        return CC_PARAMETER;
    if (s->state > SLOT_DEFAULT || (blocked && s->state == SLOT_DEFAULT))
        return CC_CONTEXT_STATE;
    s->context &= ~63ull;
    s->port = (uint8_t)port;
    if (!xhci_hid(x, s) || !(x->portsc[port - 1] & 2) || !port_free(x, s, port)) {
        s->port = 0;
        return CC_TRANSACTION;
    }
    s->state = blocked ? SLOT_DEFAULT : SLOT_ADDRESSED;
    start_endpoint(&s->endpoint[1], &ep0);
    slot.word[3] = (uint32_t)s->state << 27 | (blocked ? 0 : number);
    ep0.word[0] = (ep0.word[0] & ~7u) | EP_RUNNING;
    write_context(x, s, 0, &slot);
    write_context(x, s, 1, &ep0);
    return CC_SUCCESS;
}

static unsigned configure_endpoint(struct xhci *x, struct slot *s, const struct trb *trb)
{
    uint64_t input = trb->parameter & ~15ull;
    struct context control, slot, c;

    if (s->state < SLOT_ADDRESSED)
        return CC_CONTEXT_STATE;
    if (trb->control & BLOCK_ADDRESS) { /* deconfigure */
        disable_endpoints(x, s);
        s->state = SLOT_ADDRESSED;
        write_slot_state(x, s);
        return CC_SUCCESS;
    }
    if (!read_context(x, input, 0, &control) || !read_context(x, input, 1, &slot)) {
        xhci_host_error(x);
        return CC_TRB;
    }
    if ((control.word[0] & 3) || (control.word[1] & 3) != FLAG_SLOT)
        return CC_PARAMETER;
    for (unsigned i = 2; i < XHCI_ENDPOINTS; i++) {
        struct endpoint *e = &s->endpoint[i];
        if (control.word[0] >> i & 1) {
            stop_listening(x, s, i);
            *e = (struct endpoint){0};
        }
        if (control.word[1] >> i & 1) {
            if (!read_context(x, input, i + 1, &c)) {
                xhci_host_error(x);
                return CC_TRB;
            }
            start_endpoint(e, &c);
            c.word[0] = (c.word[0] & ~7u) | EP_RUNNING;
            write_context(x, s, i, &c);
        } else if (control.word[0] >> i & 1) {
            xhci_write_endpoint(x, s, i);
        }
    }
    s->state = SLOT_CONFIGURED;
    if (read_context(x, s->context, 0, &c)) {
        c.word[0] = (c.word[0] & 0x07ffffff) | (slot.word[0] & 0xf8000000); /* context entries */
        write_context(x, s, 0, &c);
    }
    write_slot_state(x, s);
    return CC_SUCCESS;
}

/* The size of packets on endpoint 0, and the latency and interrupter of the slot. */
static unsigned evaluate_context(struct xhci *x, struct slot *s, const struct trb *trb)
{
    uint64_t input = trb->parameter & ~15ull;
    struct context control, in, out;

    if (s->state < SLOT_DEFAULT)
        return CC_CONTEXT_STATE;
    if (!read_context(x, input, 0, &control)) {
        xhci_host_error(x);
        return CC_TRB;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (!(control.word[1] >> i & 1))
            continue;
        if (!read_context(x, input, i + 1, &in) || !read_context(x, s->context, i, &out)) {
            xhci_host_error(x);
            return CC_TRB;
        }
        if (i) {
            out.word[1] = (out.word[1] & 0xffff) | (in.word[1] & 0xffff0000);
        } else {
            out.word[1] = (out.word[1] & 0xffff0000) | (in.word[1] & 0xffff);
            out.word[2] = (out.word[2] & 0x003fffff) | (in.word[2] & 0xffc00000);
        }
        write_context(x, s, i, &out);
    }
    return CC_SUCCESS;
}

static unsigned reset_device(struct xhci *x, struct slot *s)
{
    struct context c;

    if (s->state < SLOT_ADDRESSED)
        return CC_CONTEXT_STATE;
    disable_endpoints(x, s);
    s->state = SLOT_DEFAULT;
    if (read_context(x, s->context, 0, &c)) {
        c.word[0] = (c.word[0] & 0x07ffffff) | 1u << 27;
        c.word[3] = (uint32_t)s->state << 27;
        write_context(x, s, 0, &c);
    }
    return CC_SUCCESS;
}

/* ---- Endpoints ---- */

static unsigned endpoint_command(struct xhci *x, struct slot *s, const struct trb *trb)
{
    unsigned index = trb->control >> 16 & 31, type = TRB_TYPE(trb->control);
    struct endpoint *e = &s->endpoint[index];

    if (!index)
        return CC_PARAMETER;
    if (e->state == EP_DISABLED)
        return CC_ENDPOINT_NOT_ENABLED;
    switch (type) {
    case TRB_RESET_ENDPOINT:
        if (e->state != EP_HALTED)
            return CC_CONTEXT_STATE;
        e->state = EP_STOPPED;
        break;
    case TRB_STOP_ENDPOINT:
        if (e->state != EP_RUNNING)
            return CC_CONTEXT_STATE;
        e->state = EP_STOPPED;
        stop_listening(x, s, index);
        break;
    default: /* Set TR Dequeue Pointer */
        if (e->state != EP_STOPPED && e->state != EP_ERROR)
            return CC_CONTEXT_STATE;
        e->state = EP_STOPPED;
        e->ring.dequeue = trb->parameter & ~15ull;
        e->ring.cycle = trb->parameter & 1;
    }
    e->skipping = false;
    if (index == 1 && type != TRB_STOP_ENDPOINT)
        s->setup_there = false;
    xhci_write_endpoint(x, s, index);
    return CC_SUCCESS;
}

/* ---- The ring ---- */

static unsigned slot_command(struct xhci *x, unsigned number, const struct trb *trb)
{
    struct slot *s = &x->slot[number - 1];

    switch (TRB_TYPE(trb->control)) {
    case TRB_DISABLE_SLOT:
        return disable_slot(x, s);
    case TRB_ADDRESS_DEVICE:
        return address_device(x, number, trb);
    case TRB_CONFIGURE_ENDPOINT:
        return configure_endpoint(x, s, trb);
    case TRB_EVALUATE_CONTEXT:
        return evaluate_context(x, s, trb);
    case TRB_RESET_DEVICE:
        return reset_device(x, s);
    case TRB_RESET_ENDPOINT:
    case TRB_STOP_ENDPOINT:
    case TRB_SET_DEQUEUE:
        return endpoint_command(x, s, trb);
    default:
        return CC_TRB;
    }
}

static void command(struct xhci *x, const struct trb *trb, uint64_t at)
{
    unsigned type = TRB_TYPE(trb->control), slot = trb->control >> 24, code;

    if (type == TRB_ENABLE_SLOT) {
        slot = 0;
        code = enable_slot(x, &slot);
    } else if (type == TRB_NOOP_COMMAND) {
        code = CC_SUCCESS;
    } else if (!slot || slot > XHCI_SLOTS || !x->slot[slot - 1].enabled) {
        code = CC_SLOT_NOT_ENABLED;
    } else {
        code = slot_command(x, slot, trb);
    }
    xhci_event(x, (struct trb){at, code << 24, TRB_COMMAND_EVENT << 10 | slot << 24});
}

void xhci_run_commands(struct xhci *x)
{
    struct trb trb;
    uint64_t at;

    for (unsigned i = 0; i < COMMANDS_MAX && xhci_running(x) && !x->pending_count; i++) {
        int ret = xhci_next(x, &x->commands, &trb, &at);
        if (ret < 0)
            xhci_host_error(x);
        if (ret <= 0)
            return;
        x->commands.dequeue += sizeof(trb);
        command(x, &trb, at);
    }
}
