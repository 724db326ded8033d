/*
 * The inside of the xHCI, shared by xhci.c (registers, events, life), xhci_command.c (slots and
 * endpoints) and xhci_transfer.c (what endpoints do). Everything is under the lock; sections are
 * those of the xHCI specification 1.2.
 */
#ifndef MULL_DEVICE_USB_XHCI_INTERNAL_H
#define MULL_DEVICE_USB_XHCI_INTERNAL_H

#include <pthread.h>

#include "device/usb/xhci.h"

#define XHCI_SLOTS 8u
#define XHCI_ENDPOINTS 32u                   /* by Device Context Index; 0 is none */
#define XHCI_ALL_PORTS (2 * MULL_XHCI_PORTS) /* USB 2 ports, and as many USB 3 ones, empty */
#define XHCI_PENDING 64u
#define XHCI_CONTROL_MAX 512u
#define XHCI_SEGMENTS 16u

/* Transfer Request Blocks (6.4). */
struct trb {
    uint64_t parameter;
    uint32_t status, control;
};

#define TRB_CYCLE 1u
#define TRB_TOGGLE 2u /* of a link */
#define TRB_ISP (1u << 2)
#define TRB_CHAIN (1u << 4)
#define TRB_IOC (1u << 5)
#define TRB_IDT (1u << 6)
#define TRB_TYPE(control) ((control) >> 10 & 63)

enum {
    TRB_NORMAL = 1,
    TRB_SETUP = 2,
    TRB_DATA = 3,
    TRB_STATUS = 4,
    TRB_LINK = 6,
    TRB_EVENT_DATA = 7,
    TRB_NOOP = 8,
    TRB_ENABLE_SLOT = 9,
    TRB_DISABLE_SLOT = 10,
    TRB_ADDRESS_DEVICE = 11,
    TRB_CONFIGURE_ENDPOINT = 12,
    TRB_EVALUATE_CONTEXT = 13,
    TRB_RESET_ENDPOINT = 14,
    TRB_STOP_ENDPOINT = 15,
    TRB_SET_DEQUEUE = 16,
    TRB_RESET_DEVICE = 17,
    TRB_NOOP_COMMAND = 23,
    TRB_TRANSFER_EVENT = 32,
    TRB_COMMAND_EVENT = 33,
    TRB_PORT_EVENT = 34,
};

/* Completion codes (6.4.5). */
enum {
    CC_SUCCESS = 1,
    CC_DATA_BUFFER = 2,
    CC_TRANSACTION = 4,
    CC_TRB = 5,
    CC_STALL = 6,
    CC_NO_SLOTS = 9,
    CC_SLOT_NOT_ENABLED = 11,
    CC_ENDPOINT_NOT_ENABLED = 12,
    CC_SHORT_PACKET = 13,
    CC_PARAMETER = 17,
    CC_CONTEXT_STATE = 19,
};

/* Endpoint states (6.2.3). */
enum { EP_DISABLED, EP_RUNNING, EP_HALTED, EP_STOPPED, EP_ERROR };

/* Slot states (6.2.2). */
enum { SLOT_ENABLED, SLOT_DEFAULT, SLOT_ADDRESSED, SLOT_CONFIGURED };

struct ring {
    uint64_t dequeue;
    bool cycle;
};

struct endpoint {
    uint8_t state;
    bool skipping;     /* the rest of a transfer that ended early */
    uint8_t last_code; /* of the transfer that runs */
    uint32_t moved;    /* bytes of it, for event data */
    struct ring ring;
};

struct slot {
    bool enabled;
    uint8_t state;
    uint8_t port;     /* from 1 on; 0: none */
    uint64_t context; /* the guest's copy */
    struct endpoint endpoint[XHCI_ENDPOINTS];
    /* The control transfer that runs. */
    bool setup_there, stalled;
    uint8_t setup[8];
    uint16_t data_len, data_at;
    uint8_t data[XHCI_CONTROL_MAX];
};

struct xhci {
    struct mull_device device;
    struct mull_pci_function pci;
    struct mull_memory *memory;
    struct mull_input *input;
    pthread_mutex_t lock;
    uint32_t command, status, notification, configure;
    uint64_t contexts; /* DCBAAP */
    struct ring commands;
    uint32_t portsc[XHCI_ALL_PORTS];
    /* The interrupter. */
    uint32_t management, moderation, segments;
    uint64_t segment_table, event_dequeue;
    uint16_t segment, place; /* where the next event goes */
    bool event_cycle;
    uint8_t pending_first, pending_count;
    struct trb pending[XHCI_PENDING]; /* events that the guest has no room for */
    struct slot slot[XHCI_SLOTS];
    struct mull_hid hid[MULL_XHCI_PORTS];
    struct hid_sink {
        struct xhci *xhci;
        unsigned port;
    } sink[MULL_XHCI_PORTS];
};

/* ---- xhci.c ---- */

/** Tell the guest of something. */
void xhci_event(struct xhci *x, struct trb event);

/** The guest's structures lead nowhere: stop (4.24.1). */
void xhci_host_error(struct xhci *x);

bool xhci_running(const struct xhci *x);

/** The next block of a ring, links followed. @return 1: it is in *trb, which is at *at; 0: none;
 * -1: the ring leads nowhere */
int xhci_next(struct xhci *x, struct ring *ring, struct trb *trb, uint64_t *at);

/* ---- xhci_command.c ---- */

void xhci_run_commands(struct xhci *x);

/** An endpoint's state and place, for the guest to see. */
void xhci_write_endpoint(struct xhci *x, struct slot *s, unsigned index);

/** What is plugged into a slot's port; NULL: nothing. */
struct mull_hid *xhci_hid(struct xhci *x, const struct slot *s);

/* ---- xhci_transfer.c ---- */

/** An endpoint may have work: a doorbell, or its device has something. */
void xhci_run_endpoint(struct xhci *x, unsigned slot, unsigned index);

#endif
