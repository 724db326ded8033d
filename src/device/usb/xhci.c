/*
 * The xHCI's registers, its event ring and its life (xHCI 1.2, chapter 5 and 4.9.4). Root ports 1
 * to 4 are USB 2, the others USB 3 and empty. One interrupter. What guest memory does not have
 * stops the controller, which says so; events that the guest has no room for wait, and work with
 * them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "device/usb/xhci_internal.h"

/* Where registers are in the BAR. */
#define CAP_LENGTH 0x40u
#define EXTENDED 0x20u /* capabilities, behind the capability registers */
#define PORTS_AT (CAP_LENGTH + 0x400u)
#define RUNTIME 0x1000u
#define INTERRUPTER (RUNTIME + 0x20u)
#define DOORBELLS 0x2000u
#define BAR_SIZE 0x4000u

/* USBCMD (5.4.1). */
#define CMD_RUN 0x01u
#define CMD_RESET 0x02u
#define CMD_INTERRUPTS 0x04u
#define CMD_KEPT (CMD_RUN | CMD_INTERRUPTS | 0x08u | 0x400u)

/* USBSTS (5.4.2). */
#define STS_HALTED 0x01u
#define STS_HOST_ERROR 0x04u
#define STS_EVENT 0x08u
#define STS_PORT 0x10u
#define STS_CONTROLLER_ERROR 0x1000u
#define STS_CLEARED (STS_HOST_ERROR | STS_EVENT | STS_PORT | 0x400u) /* by writing 1 */

/* PORTSC (5.4.8). */
#define PORT_CONNECTED 0x1u
#define PORT_ENABLED 0x2u
#define PORT_RESET 0x10u
#define PORT_LINK(state) ((uint32_t)(state) << 5)
#define PORT_LINK_MASK PORT_LINK(15)
#define PORT_POWER 0x200u
#define PORT_FULL_SPEED (1u << 10)
#define PORT_SPEED_MASK (15u << 10)
#define PORT_LINK_STROBE (1u << 16)
#define PORT_CONNECT_CHANGE (1u << 17)
#define PORT_RESET_CHANGE (1u << 21)
#define PORT_CHANGES (0x7fu << 17)
#define PORT_WAKE (7u << 25)
#define PORT_WARM_RESET (1u << 31)
enum { LINK_U0 = 0, LINK_U3 = 3, LINK_RX_DETECT = 5, LINK_POLLING = 7, LINK_RESUME = 15 };

#define IMAN_PENDING 1u
#define IMAN_ENABLE 2u
#define ERDP_BUSY 8ull

#define LINKS_MAX 8u /* in a row */

bool xhci_running(const struct xhci *x)
{
    return (x->command & CMD_RUN) && !(x->status & (STS_HOST_ERROR | STS_CONTROLLER_ERROR));
}

void xhci_host_error(struct xhci *x)
{
    x->status |= STS_HOST_ERROR | STS_HALTED;
    x->command &= ~CMD_RUN;
}

/* ---- Events ---- */

static void update_line(struct xhci *x)
{
    bool on = (x->management & IMAN_PENDING) && (x->management & IMAN_ENABLE) &&
              (x->command & CMD_INTERRUPTS);

    if (!mull_pci_msix_enabled(&x->pci)) {
        mull_pci_intx(&x->pci, on);
    } else if (on) {
        x->management &= ~IMAN_PENDING; /* 4.17.3: a message clears it */
        mull_pci_msix_send(&x->pci, 0);
    }
}

static void interrupt(struct xhci *x)
{
    if (x->event_dequeue & ERDP_BUSY)
        return;
    x->event_dequeue |= ERDP_BUSY;
    x->management |= IMAN_PENDING;
    x->status |= STS_EVENT;
    update_line(x);
}

/* A segment of the event ring. @return false: there is none */
static bool segment_of(struct xhci *x, unsigned index, uint64_t *base, uint32_t *size)
{
    struct {
        uint64_t base;
        uint32_t size, reserved;
    } entry;

    if (index >= x->segments ||
        mull_mem_read(x->memory, x->segment_table + 16ull * index, &entry, sizeof(entry)))
        return false;
    *base = entry.base & ~63ull;
    *size = entry.size & 0xffff;
    return *size >= 16 && *size <= 4096 && *base < 1ull << 52;
}

static int write_trb(struct xhci *x, uint64_t at, struct trb trb)
{
    /* The cycle bit comes last. */
    const uint32_t words[3] = {(uint32_t)trb.parameter, (uint32_t)(trb.parameter >> 32),
                               trb.status};

    return mull_mem_write(x->memory, at, words, sizeof(words)) ||
           mull_mem_write32(x->memory, at + 12, trb.control);
}

/* Put one into the ring. @return 1: done, 0: it is full, -1: it leads nowhere */
static int put_event(struct xhci *x, struct trb event)
{
    uint64_t base, next;
    uint32_t size;
    unsigned segment = x->segment, place = x->place + 1u;

    if (!segment_of(x, x->segment, &base, &size) || x->place >= size)
        return -1;
    uint64_t at = base + 16ull * x->place;
    if (place == size) {
        place = 0;
        segment = (segment + 1) % x->segments;
        if (!segment_of(x, segment, &next, &size))
            return -1;
    } else {
        next = base;
    }
    if (next + 16ull * place == (x->event_dequeue & ~15ull))
        return 0;
    event.control |= x->event_cycle ? TRB_CYCLE : 0;
    if (write_trb(x, at, event))
        return -1;
    if (!place && !segment)
        x->event_cycle = !x->event_cycle;
    x->segment = (uint16_t)segment;
    x->place = (uint16_t)place;
    return 1;
}

/* @return false: the ring is full, or it leads nowhere */
static bool deliver(struct xhci *x, struct trb event)
{
    int ret = put_event(x, event);

    if (ret < 0)
        xhci_host_error(x);
    return ret > 0;
}

void xhci_event(struct xhci *x, struct trb event)
{
    if (!xhci_running(x))
        return;
    if (!x->pending_count && deliver(x, event)) {
        interrupt(x);
        return;
    }
    if (x->pending_count < XHCI_PENDING)
        x->pending[(x->pending_first + x->pending_count++) % XHCI_PENDING] = event;
}

static void kick_all(struct xhci *x)
{
    xhci_run_commands(x);
    for (unsigned i = 0; i < XHCI_SLOTS; i++)
        for (unsigned j = 1; x->slot[i].enabled && j < XHCI_ENDPOINTS; j++)
            if (x->slot[i].endpoint[j].state == EP_RUNNING)
                xhci_run_endpoint(x, i + 1, j);
}

/* The guest has made room. */
static void event_room(struct xhci *x)
{
    bool waited = x->pending_count != 0, put = false;

    while (x->pending_count && xhci_running(x) && deliver(x, x->pending[x->pending_first])) {
        x->pending_first = (x->pending_first + 1) % XHCI_PENDING;
        x->pending_count--;
        put = true;
    }
    if (put)
        interrupt(x);
    if (waited && !x->pending_count)
        kick_all(x);
}

static void port_event(struct xhci *x, unsigned port)
{
    x->status |= STS_PORT;
    xhci_event(x, (struct trb){(uint64_t)(port + 1) << 24, CC_SUCCESS << 24, TRB_PORT_EVENT << 10});
}

/* ---- Rings ---- */

int xhci_next(struct xhci *x, struct ring *ring, struct trb *trb, uint64_t *at)
{
    for (unsigned links = 0; links <= LINKS_MAX; links++) {
        if (ring->dequeue >> 52 || mull_mem_read(x->memory, ring->dequeue, trb, sizeof(*trb)))
            return -1;
        if ((trb->control & TRB_CYCLE) != ring->cycle)
            return 0;
        if (TRB_TYPE(trb->control) != TRB_LINK) {
            *at = ring->dequeue;
            return 1;
        }
        ring->dequeue = trb->parameter & ~15ull;
        if (trb->control & TRB_TOGGLE)
            ring->cycle = !ring->cycle;
    }
    return -1;
}

/* ---- Ports ---- */

static bool usb2(unsigned port)
{
    return port < MULL_XHCI_PORTS;
}

static bool plugged(const struct xhci *x, unsigned port)
{
    return usb2(port) && x->hid[port].kind != MULL_HID_NONE;
}

static void ports_power_on(struct xhci *x)
{
    for (unsigned i = 0; i < XHCI_ALL_PORTS; i++) {
        x->portsc[i] = PORT_POWER | PORT_LINK(LINK_RX_DETECT);
        if (plugged(x, i))
            x->portsc[i] = PORT_POWER | PORT_CONNECTED | PORT_CONNECT_CHANGE | PORT_FULL_SPEED |
                           PORT_LINK(LINK_POLLING);
    }
}

static void reset_port(struct xhci *x, unsigned port)
{
    if (!plugged(x, port))
        return;
    mull_hid_reset(&x->hid[port]);
    x->portsc[port] &= ~PORT_LINK_MASK;
    x->portsc[port] |= PORT_ENABLED | PORT_LINK(LINK_U0) | PORT_RESET_CHANGE;
    port_event(x, port);
}

static void write_portsc(struct xhci *x, unsigned port, uint32_t value)
{
    uint32_t *p = &x->portsc[port];

    *p &= ~(value & PORT_CHANGES);
    *p = (*p & ~PORT_WAKE) | (value & PORT_WAKE);
    if (value & (PORT_RESET | PORT_WARM_RESET)) {
        reset_port(x, port);
        return;
    }
    if ((value & PORT_ENABLED) && (*p & PORT_ENABLED)) /* writing 1 disables */
        *p = (*p & ~(PORT_ENABLED | PORT_LINK_MASK)) | PORT_LINK(LINK_POLLING);
    if ((value & PORT_LINK_STROBE) && (*p & PORT_ENABLED)) {
        unsigned link = value >> 5 & 15;
        if (link == LINK_U0 || link == LINK_U3 || link == LINK_RESUME)
            *p = (*p & ~PORT_LINK_MASK) | PORT_LINK(link);
    }
}

/* ---- Registers ---- */

static void controller_reset(struct xhci *x)
{
    x->command = 0;
    x->status = STS_HALTED;
    x->notification = x->configure = 0;
    x->contexts = 0;
    x->commands = (struct ring){0, true};
    x->management = 0;
    x->moderation = 4000;
    x->segments = 0;
    x->segment_table = x->event_dequeue = 0;
    x->segment = x->place = 0;
    x->event_cycle = true;
    x->pending_first = x->pending_count = 0;
    memset(x->slot, 0, sizeof(x->slot));
    for (unsigned i = 0; i < MULL_XHCI_PORTS; i++)
        mull_hid_reset(&x->hid[i]);
    ports_power_on(x);
    update_line(x);
}

/* The extended capabilities: which ports speak what (7.2). */
static uint32_t read_extended(unsigned offset)
{
    static const uint32_t words[] = {
        2 | 4u << 8 | 0x0200u << 16,
        0x20425355,
        1 | MULL_XHCI_PORTS << 8,
        0,
        2 | 0u << 8 | 0x0300u << 16,
        0x20425355,
        (1 + MULL_XHCI_PORTS) | MULL_XHCI_PORTS << 8,
        0,
    };

    return offset / 4 < sizeof(words) / sizeof(words[0]) ? words[offset / 4] : 0;
}

static uint32_t read_capability(unsigned offset)
{
    switch (offset) {
    case 0x00:
        return CAP_LENGTH | 0x0100u << 16; /* version 1.0 */
    case 0x04:
        return XHCI_SLOTS | 1u << 8 | XHCI_ALL_PORTS << 24;
    case 0x08:
        return 4u << 4; /* 16 segments of the event ring; no scratchpads */
    case 0x10:
        return 1u | EXTENDED / 4 << 16; /* 64-bit addresses, contexts of 32 bytes */
    case 0x14:
        return DOORBELLS;
    case 0x18:
        return RUNTIME;
    default:
        return 0;
    }
}

static uint32_t read_operational(struct xhci *x, unsigned offset)
{
    switch (offset) {
    case 0x00:
        return x->command;
    case 0x04:
        return x->status;
    case 0x08:
        return 1; /* pages of 4 KiB */
    case 0x14:
        return x->notification;
    case 0x30:
        return (uint32_t)x->contexts;
    case 0x34:
        return (uint32_t)(x->contexts >> 32);
    case 0x38:
        return x->configure;
    default: /* CRCR reads as 0: the ring stands still whenever anybody can look */
        return 0;
    }
}

static uint32_t read_runtime(struct xhci *x, unsigned offset)
{
    switch (offset) {
    case RUNTIME: /* microframes */
        return (uint32_t)(mull_now_ns() / 125000) & 0x3fff;
    case INTERRUPTER:
        return x->management;
    case INTERRUPTER + 0x04:
        return x->moderation;
    case INTERRUPTER + 0x08:
        return x->segments;
    case INTERRUPTER + 0x10:
        return (uint32_t)x->segment_table;
    case INTERRUPTER + 0x14:
        return (uint32_t)(x->segment_table >> 32);
    case INTERRUPTER + 0x18:
        return (uint32_t)x->event_dequeue;
    case INTERRUPTER + 0x1c:
        return (uint32_t)(x->event_dequeue >> 32);
    default:
        return 0;
    }
}

static uint32_t read_register(struct xhci *x, unsigned offset)
{
    if (offset >= EXTENDED && offset < CAP_LENGTH)
        return read_extended(offset - EXTENDED);
    if (offset < CAP_LENGTH)
        return read_capability(offset);
    if (offset >= PORTS_AT && offset < PORTS_AT + 16 * XHCI_ALL_PORTS)
        return offset & 15 ? 0 : x->portsc[(offset - PORTS_AT) / 16];
    return offset < RUNTIME ? read_operational(x, offset - CAP_LENGTH) : read_runtime(x, offset);
}

static uint64_t bar_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct xhci *x = opaque;

    pthread_mutex_lock(&x->lock);
    uint32_t value = read_register(x, (unsigned)offset & ~3u);
    pthread_mutex_unlock(&x->lock);
    return value >> 8 * (offset & 3) & (size == 4 ? ~0u : (1u << 8 * size) - 1);
}

static void write_command(struct xhci *x, uint32_t value)
{
    bool ran = x->command & CMD_RUN;

    if (value & CMD_RESET) {
        controller_reset(x);
        return;
    }
    x->command = value & CMD_KEPT;
    if (!(value & CMD_RUN)) {
        x->status |= STS_HALTED;
    } else if (!ran) {
        x->status &= ~STS_HALTED;
        for (unsigned i = 0; i < XHCI_ALL_PORTS; i++)
            if (x->portsc[i] & PORT_CHANGES)
                port_event(x, i);
    }
    update_line(x);
}

static void set_half(uint64_t *to, bool high, uint32_t value)
{
    *to = high ? (*to & 0xffffffffu) | (uint64_t)value << 32 : (*to & ~0xffffffffull) | value;
}

static void write_operational(struct xhci *x, unsigned offset, uint32_t value)
{
    switch (offset) {
    case 0x00:
        write_command(x, value);
        break;
    case 0x04:
        x->status &= ~(value & STS_CLEARED);
        break;
    case 0x14:
        x->notification = value & 0xffff;
        break;
    case 0x18: /* a ring that stands still is neither stopped nor aborted */
        set_half(&x->commands.dequeue, false, value & ~63u);
        x->commands.cycle = value & 1;
        break;
    case 0x1c:
        set_half(&x->commands.dequeue, true, value);
        break;
    case 0x30:
    case 0x34:
        set_half(&x->contexts, offset & 4, offset & 4 ? value : value & ~63u);
        break;
    case 0x38:
        x->configure = value & 0xff;
        break;
    default:
        break;
    }
}

static void write_runtime(struct xhci *x, unsigned offset, uint32_t value)
{
    switch (offset) {
    case INTERRUPTER:
        x->management = (x->management & IMAN_PENDING & ~value) | (value & IMAN_ENABLE);
        update_line(x);
        break;
    case INTERRUPTER + 0x04:
        x->moderation = value;
        break;
    case INTERRUPTER + 0x08:
        x->segments = (value & 0xffff) < XHCI_SEGMENTS ? value & 0xffff : XHCI_SEGMENTS;
        break;
    case INTERRUPTER + 0x10:
        set_half(&x->segment_table, false, value & ~63u);
        break;
    case INTERRUPTER + 0x14: /* 4.9.4: a new table starts the ring anew */
        set_half(&x->segment_table, true, value);
        x->segment = x->place = 0;
        x->event_cycle = true;
        break;
    case INTERRUPTER + 0x18: {
        uint64_t busy = value & ERDP_BUSY ? 0 : x->event_dequeue & ERDP_BUSY;
        set_half(&x->event_dequeue, false, (value & ~15u) | (uint32_t)busy);
        break;
    }
    case INTERRUPTER + 0x1c:
        set_half(&x->event_dequeue, true, value);
        event_room(x);
        break;
    default:
        break;
    }
}

/* Has the guest left events in the ring when it said it was done? Then it hears of them again. */
static void look_again(struct xhci *x)
{
    uint64_t base;
    uint32_t size;

    if (xhci_running(x) && !(x->event_dequeue & ERDP_BUSY) &&
        segment_of(x, x->segment, &base, &size) &&
        (x->event_dequeue & ~15ull) != base + 16ull * x->place)
        interrupt(x);
}

static void ring_doorbell(struct xhci *x, unsigned slot, uint32_t value)
{
    if (!xhci_running(x))
        return;
    if (!slot)
        xhci_run_commands(x);
    else if (slot <= XHCI_SLOTS && (value & 0xff) && (value & 0xff) < XHCI_ENDPOINTS)
        xhci_run_endpoint(x, slot, value & 0xff);
}

static void write_register(struct xhci *x, unsigned offset, uint32_t value)
{
    if (offset < CAP_LENGTH)
        return;
    if (offset >= DOORBELLS) {
        ring_doorbell(x, (offset - DOORBELLS) / 4, value);
    } else if (offset >= RUNTIME) {
        write_runtime(x, offset, value);
        if (offset == INTERRUPTER + 0x1c)
            look_again(x);
    } else if (offset >= PORTS_AT) {
        if (offset < PORTS_AT + 16 * XHCI_ALL_PORTS && !(offset & 15))
            write_portsc(x, (offset - PORTS_AT) / 16, value);
    } else {
        write_operational(x, offset - CAP_LENGTH, value);
    }
}

static void bar_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct xhci *x = opaque;

    if (offset & 3 || size < 4)
        return; /* 5.1: whole registers only */
    pthread_mutex_lock(&x->lock);
    write_register(x, (unsigned)offset, (uint32_t)value);
    if (size == 8)
        write_register(x, (unsigned)offset + 4, (uint32_t)(value >> 32));
    pthread_mutex_unlock(&x->lock);
}

/* Wide ones, so that a driver may write an address at once; reads are of 4 bytes at most. */
static uint64_t bar_read_any(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    if (size < 8)
        return bar_read(opaque, cpu, offset, size);
    return bar_read(opaque, cpu, offset, 4) | bar_read(opaque, cpu, offset + 4, 4) << 32;
}

static const struct mull_region_ops bar_ops = {bar_read_any, bar_write, 1, 8};

/* ---- Input ---- */

static bool sink_listens(void *opaque)
{
    const struct hid_sink *s = opaque;

    pthread_mutex_lock(&s->xhci->lock);
    bool listens = s->xhci->hid[s->port].listens && s->xhci->hid[s->port].configuration;
    pthread_mutex_unlock(&s->xhci->lock);
    return listens;
}

/* The device has something to say: to whichever slot the guest has put it into. */
static void wake(struct xhci *x, unsigned port)
{
    for (unsigned i = 0; i < XHCI_SLOTS; i++)
        if (x->slot[i].enabled && x->slot[i].port == port + 1 && xhci_running(x))
            xhci_run_endpoint(x, i + 1, 3);
}

static void sink_key(void *opaque, unsigned key, bool down)
{
    const struct hid_sink *s = opaque;

    pthread_mutex_lock(&s->xhci->lock);
    mull_hid_key(&s->xhci->hid[s->port], key, down);
    wake(s->xhci, s->port);
    pthread_mutex_unlock(&s->xhci->lock);
}

static void sink_place(void *opaque, unsigned at_x, unsigned at_y, int wheel, unsigned buttons)
{
    const struct hid_sink *s = opaque;

    pthread_mutex_lock(&s->xhci->lock);
    mull_hid_place(&s->xhci->hid[s->port], at_x, at_y, wheel, buttons);
    wake(s->xhci, s->port);
    pthread_mutex_unlock(&s->xhci->lock);
}

/* HID's lights in our order. */
static unsigned sink_leds(void *opaque)
{
    const struct hid_sink *s = opaque;

    pthread_mutex_lock(&s->xhci->lock);
    unsigned leds = s->xhci->hid[s->port].leds;
    pthread_mutex_unlock(&s->xhci->lock);
    return (leds & 1 ? MULL_LED_NUM : 0) | (leds & 2 ? MULL_LED_CAPS : 0) |
           (leds & 4 ? MULL_LED_SCROLL : 0);
}

static bool sink_ready(void *opaque)
{
    const struct hid_sink *s = opaque;

    pthread_mutex_lock(&s->xhci->lock);
    bool ready = !s->xhci->hid[s->port].count;
    pthread_mutex_unlock(&s->xhci->lock);
    return ready;
}

static int add_sinks(struct xhci *x, struct mull_input *input, struct mull_error *err)
{
    for (unsigned i = 0; i < MULL_XHCI_PORTS; i++) {
        struct mull_input_sink sink = {.listens = sink_listens, .opaque = &x->sink[i]};
        x->sink[i] = (struct hid_sink){x, i};
        if (x->hid[i].kind == MULL_HID_TABLET) {
            sink.place = sink_place;
        } else if (x->hid[i].kind == MULL_HID_KEYBOARD) {
            sink.key = sink_key;
            sink.leds = sink_leds;
            sink.ready = sink_ready;
        } else {
            continue;
        }
        if (mull_input_add(input, &sink))
            return mull_fail(err, ENOSPC, "USB: too many keyboards and tablets");
    }
    return 0;
}

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct xhci *x = (struct xhci *)device;

    mull_pci_function_reset(&x->pci);
    pthread_mutex_lock(&x->lock);
    controller_reset(x);
    pthread_mutex_unlock(&x->lock);
}

static void resume(struct mull_device *device)
{
    struct xhci *x = (struct xhci *)device;

    pthread_mutex_lock(&x->lock);
    update_line(x);
    pthread_mutex_unlock(&x->lock);
}

static void destroy(struct mull_device *device)
{
    struct xhci *x = (struct xhci *)device;

    mull_pci_function_fini(&x->pci);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

static int slot_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct slot *s = object;

    if (s->port > XHCI_ALL_PORTS || s->state > SLOT_CONFIGURED || s->data_len > XHCI_CONTROL_MAX ||
        s->data_at > s->data_len)
        return mull_fail(err, EINVAL, "xHCI: a saved slot is not valid");
    return 0;
}

static int loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct xhci *x = object;

    if (x->segments > XHCI_SEGMENTS || x->pending_count > XHCI_PENDING)
        return mull_fail(err, EINVAL, "xHCI: a saved event ring is not valid");
    x->pending_first %= XHCI_PENDING;
    return 0;
}

static const struct mull_field ring_fields[] = {MULL_FIELD(struct ring, dequeue),
                                                MULL_FIELD(struct ring, cycle), MULL_FIELDS_END};
static const struct mull_state_desc ring_desc = {
    .name = "xhci-ring", .version = 1, .oldest = 1, .fields = ring_fields};
static const struct mull_field trb_fields[] = {MULL_FIELD(struct trb, parameter),
                                               MULL_FIELD(struct trb, status),
                                               MULL_FIELD(struct trb, control), MULL_FIELDS_END};
static const struct mull_state_desc trb_desc = {
    .name = "xhci-trb", .version = 1, .oldest = 1, .fields = trb_fields};
static const struct mull_field endpoint_fields[] = {
    MULL_FIELD(struct endpoint, state),
    MULL_FIELD(struct endpoint, skipping),
    MULL_FIELD(struct endpoint, last_code),
    MULL_FIELD(struct endpoint, moved),
    MULL_FIELD_NESTED(struct endpoint, ring, &ring_desc),
    MULL_FIELDS_END};
static const struct mull_state_desc endpoint_desc = {
    .name = "xhci-endpoint", .version = 1, .oldest = 1, .fields = endpoint_fields};
static const struct mull_field slot_fields[] = {
    MULL_FIELD(struct slot, enabled),
    MULL_FIELD(struct slot, state),
    MULL_FIELD(struct slot, port),
    MULL_FIELD(struct slot, context),
    MULL_FIELD_NESTED_ARRAY(struct slot, endpoint, &endpoint_desc),
    MULL_FIELD(struct slot, setup_there),
    MULL_FIELD(struct slot, stalled),
    MULL_FIELD_BLOB(struct slot, setup),
    MULL_FIELD(struct slot, data_len),
    MULL_FIELD(struct slot, data_at),
    MULL_FIELD_BLOB(struct slot, data),
    MULL_FIELDS_END,
};
static const struct mull_state_desc slot_desc = {.name = "xhci-slot",
                                                 .version = 1,
                                                 .oldest = 1,
                                                 .fields = slot_fields,
                                                 .after_load = slot_loaded};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct xhci, pci, &mull_pci_function_desc),
    MULL_FIELD(struct xhci, command),
    MULL_FIELD(struct xhci, status),
    MULL_FIELD(struct xhci, notification),
    MULL_FIELD(struct xhci, configure),
    MULL_FIELD(struct xhci, contexts),
    MULL_FIELD_NESTED(struct xhci, commands, &ring_desc),
    MULL_FIELD_ARRAY(struct xhci, portsc),
    MULL_FIELD(struct xhci, management),
    MULL_FIELD(struct xhci, moderation),
    MULL_FIELD(struct xhci, segments),
    MULL_FIELD(struct xhci, segment_table),
    MULL_FIELD(struct xhci, event_dequeue),
    MULL_FIELD(struct xhci, segment),
    MULL_FIELD(struct xhci, place),
    MULL_FIELD(struct xhci, event_cycle),
    MULL_FIELD(struct xhci, pending_first),
    MULL_FIELD(struct xhci, pending_count),
    MULL_FIELD_NESTED_ARRAY(struct xhci, pending, &trb_desc),
    MULL_FIELD_NESTED_ARRAY(struct xhci, slot, &slot_desc),
    MULL_FIELD_NESTED_ARRAY(struct xhci, hid, &mull_hid_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "xhci", .version = 1, .oldest = 1, .fields = fields, .after_load = loaded};
static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .resume = resume, .destroy = destroy};

/* By its class (0c0330h) every system has a driver; the numbers are those guests know from QEMU. */
static int attach(struct xhci *x, struct mull_pci_bus *bus, struct mull_error *err)
{
    mull_pci_function_init(&x->pci, NULL, 0x1b36, 0x000d, 0x1af4, 0x1100, 0x0c0330, 1);
    x->pci.intx_pin = 1;
    x->pci.config[0x60] = 0x30; /* serial bus release: USB 3.0 (5.2.3) */
    x->pci.config[0x61] = 0x20; /* frame length */
    int code = mull_pci_add_bar(&x->pci, 0, BAR_SIZE, false, true, false, &bar_ops, x, "xHCI",
                                x->memory, err);
    if (!code)
        code = mull_pci_add_msix(&x->pci, 2, 1, x->memory, err);
    return code ? code : mull_pci_bus_attach(bus, &x->pci, -1, err);
}

int mull_xhci_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                     const struct mull_xhci_config *cfg, struct mull_input *input,
                     struct mull_device **out, struct mull_error *err)
{
    struct xhci *x = calloc(1, sizeof(*x));

    if (!x)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    x->device = (struct mull_device){.ops = &ops, .object = x};
    snprintf(x->device.name, sizeof(x->device.name), "%s", cfg->name);
    x->memory = env->memory;
    pthread_mutex_init(&x->lock, NULL);
    for (unsigned i = 0; i < MULL_XHCI_PORTS; i++)
        x->hid[i].kind = cfg->port[i];
    int code = attach(x, bus, err);
    if (!code) {
        controller_reset(x);
        code = add_sinks(x, input, err);
    }
    if (code) {
        destroy(&x->device);
        return code;
    }
    *out = &x->device;
    return 0;
}
