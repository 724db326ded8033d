/*
 * What the xHCI's endpoints do (xHCI 1.2, 4.10 and 4.11): control transfers on endpoint 0, reports
 * on the interrupt endpoint 81h of a HID device (Device Context Index 3). There are no other
 * endpoints: one that a guest makes up answers with an error.
 */
#include <string.h>

#include "device/usb/xhci_internal.h"

#define BLOCKS_MAX 1024u /* handled for one ring of the bell */
#define CONTROL_INDEX 1u
#define REPORT_INDEX 3u
#define DIRECTION_IN (1u << 16)

struct transfer {
    struct xhci *x;
    struct slot *s;
    struct endpoint *e;
    unsigned slot, index;
    struct trb trb;
    uint64_t at;
};

static void event(struct transfer *t, unsigned code, uint32_t length)
{
    xhci_event(t->x, (struct trb){t->at, (length & 0xffffff) | code << 24,
                                  TRB_TRANSFER_EVENT << 10 | t->index << 16 | t->slot << 24});
}

/* 4.11.5.2: the guest's own words, with the bytes that the transfer has moved. */
static void event_data(struct transfer *t)
{
    unsigned code = t->e->last_code ? t->e->last_code : CC_SUCCESS;

    xhci_event(t->x, (struct trb){t->trb.parameter, (t->e->moved & 0xffffff) | code << 24,
                                  TRB_TRANSFER_EVENT << 10 | t->index << 16 | t->slot << 24 | 4});
    t->e->moved = 0;
}

static void halt(struct transfer *t, unsigned code)
{
    event(t, code, t->trb.status & 0x1ffff);
    t->e->state = EP_HALTED;
    t->s->setup_there = false;
    xhci_write_endpoint(t->x, t->s, t->index);
}

/* A block is done: @residue bytes of it were not moved. */
static void complete(struct transfer *t, unsigned moved, unsigned residue)
{
    unsigned code = residue ? CC_SHORT_PACKET : CC_SUCCESS;

    t->e->moved += moved;
    t->e->last_code = (uint8_t)code;
    if ((t->trb.control & TRB_IOC) || (residue && (t->trb.control & TRB_ISP)))
        event(t, code, residue);
}

/* ---- Control transfers ---- */

static void setup_stage(struct transfer *t)
{
    struct slot *s = t->s;
    struct mull_hid *h = xhci_hid(t->x, s);
    unsigned length;

    memcpy(s->setup, &t->trb.parameter, 8);
    length = s->setup[6] | (unsigned)s->setup[7] << 8;
    s->setup_there = true;
    s->stalled = !h;
    s->data_at = 0;
    s->data_len = (uint16_t)(length < XHCI_CONTROL_MAX ? length : XHCI_CONTROL_MAX);
    memset(s->data, 0, sizeof(s->data));
    if (h && (s->setup[0] & 0x80)) {
        int ret = mull_hid_control(h, s->setup, s->data, s->data_len);
        s->stalled = ret < 0;
        s->data_len = (uint16_t)(ret < 0 ? 0 : ret);
    }
    t->e->moved = 0;
    t->e->last_code = 0;
    if (t->trb.control & TRB_IOC)
        event(t, CC_SUCCESS, 0);
}

/* @return false: it is no use going on */
static bool data_stage(struct transfer *t)
{
    struct slot *s = t->s;
    unsigned size = t->trb.status & 0x1ffff, left = s->data_len - s->data_at;
    unsigned part = size < left ? size : left;
    bool in = s->setup[0] & 0x80;

    if (!s->setup_there || s->stalled) {
        halt(t, s->setup_there ? CC_STALL : CC_TRB);
        return false;
    }
    if (t->trb.control & TRB_IDT) { /* OUT, the data is in the block itself */
        part = part < 8 ? part : 8;
        if (!in)
            memcpy(s->data + s->data_at, &t->trb.parameter, part);
    } else if (part &&
               (in ? mull_mem_write(t->x->memory, t->trb.parameter, s->data + s->data_at, part)
                   : mull_mem_read(t->x->memory, t->trb.parameter, s->data + s->data_at, part))) {
        halt(t, CC_DATA_BUFFER);
        return false;
    }
    s->data_at = (uint16_t)(s->data_at + part);
    complete(t, part, size - part);
    return true;
}

static bool status_stage(struct transfer *t)
{
    struct slot *s = t->s;
    struct mull_hid *h = xhci_hid(t->x, s);

    if (!s->setup_there) {
        halt(t, CC_TRB);
        return false;
    }
    if (!s->stalled && !(s->setup[0] & 0x80))
        s->stalled = !h || mull_hid_control(h, s->setup, s->data, s->data_at) < 0;
    if (s->stalled) {
        halt(t, CC_STALL);
        return false;
    }
    s->setup_there = false;
    t->e->last_code = CC_SUCCESS;
    if (t->trb.control & TRB_IOC)
        event(t, CC_SUCCESS, 0);
    return true;
}

/* @return false: stop here, at this block */
static bool control_block(struct transfer *t)
{
    switch (TRB_TYPE(t->trb.control)) {
    case TRB_SETUP:
        setup_stage(t);
        return true;
    case TRB_DATA:
    case TRB_NORMAL: /* the rest of a data stage */
        return data_stage(t);
    case TRB_STATUS:
        return status_stage(t);
    case TRB_EVENT_DATA:
        event_data(t);
        return true;
    case TRB_NOOP:
        if (t->trb.control & TRB_IOC)
            event(t, CC_SUCCESS, 0);
        return true;
    default:
        halt(t, CC_TRB);
        return false;
    }
}

/* ---- Reports ---- */

static bool report_block(struct transfer *t)
{
    struct mull_hid *h = xhci_hid(t->x, t->s);
    uint8_t report[MULL_HID_REPORT_MAX];
    unsigned type = TRB_TYPE(t->trb.control), size = t->trb.status & 0x1ffff;

    if (type == TRB_EVENT_DATA) {
        event_data(t);
        t->e->skipping &= (t->trb.control & TRB_CHAIN) != 0;
        return true;
    }
    if (type == TRB_NOOP || (type == TRB_NORMAL && t->e->skipping)) {
        if (type == TRB_NOOP && (t->trb.control & TRB_IOC))
            event(t, CC_SUCCESS, 0);
        t->e->skipping &= (t->trb.control & TRB_CHAIN) != 0;
        return true;
    }
    if (type != TRB_NORMAL || !h) {
        halt(t, h ? CC_TRB : CC_TRANSACTION);
        return false;
    }
    h->listens = true;
    unsigned n = mull_hid_report(h, report);
    if (!n)
        return false; /* later */
    unsigned part = n < size ? n : size;
    if (part && mull_mem_write(t->x->memory, t->trb.parameter, report, part)) {
        halt(t, CC_DATA_BUFFER);
        return false;
    }
    complete(t, part, size - part);
    t->e->skipping = t->trb.control & TRB_CHAIN;
    return true;
}

static bool block(struct transfer *t)
{
    if (t->index == CONTROL_INDEX)
        return control_block(t);
    if (t->index == REPORT_INDEX)
        return report_block(t);
    halt(t, CC_TRANSACTION);
    return false;
}

void xhci_run_endpoint(struct xhci *x, unsigned slot, unsigned index)
{
    struct transfer t = {.x = x, .s = &x->slot[slot - 1], .slot = slot, .index = index};

    t.e = &t.s->endpoint[index];
    if (!t.s->enabled || t.e->state == EP_DISABLED || t.e->state == EP_HALTED)
        return;
    if (t.e->state == EP_STOPPED) { /* the bell starts it again */
        t.e->state = EP_RUNNING;
        xhci_write_endpoint(x, t.s, index);
    }
    for (unsigned i = 0; i < BLOCKS_MAX && xhci_running(x) && !x->pending_count; i++) {
        int ret = xhci_next(x, &t.e->ring, &t.trb, &t.at);
        if (ret < 0)
            xhci_host_error(x);
        if (ret <= 0 || !block(&t) || t.e->state != EP_RUNNING)
            return;
        t.e->ring.dequeue += sizeof(t.trb);
    }
}
