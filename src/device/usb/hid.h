/*
 * USB HID devices (HID 1.11): a tablet, which tells where the pointer is, and a keyboard. Both are
 * full-speed devices with a control endpoint and one for reports; knows USB's requests and no host
 * controller. The caller's lock protects it all.
 */
#ifndef MULL_DEVICE_USB_HID_H
#define MULL_DEVICE_USB_HID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fields.h"

enum mull_hid_kind { MULL_HID_NONE, MULL_HID_TABLET, MULL_HID_KEYBOARD };

#define MULL_HID_REPORT_MAX 8u
#define MULL_HID_QUEUE 64u

/** What has happened and was not yet told. */
struct mull_hid_event {
    uint16_t x, y; /* of the pointer; a key's usage in x, whether it went down in y */
    int8_t wheel;
    uint8_t buttons;
};

struct mull_hid {
    enum mull_hid_kind kind; /* fixed */
    uint8_t configuration, protocol, idle, leds;
    bool listens;               /* the guest waits for reports */
    uint8_t modifiers, keys[6]; /* that are down, as told */
    struct mull_hid_event last; /* as told */
    uint8_t first, count;
    struct mull_hid_event queue[MULL_HID_QUEUE];
};

extern const struct mull_state_desc mull_hid_desc;

/** A bus reset. */
void mull_hid_reset(struct mull_hid *h);

/**
 * A control request.
 *
 * @param setup  its 8 bytes (USB 2.0, 9.3)
 * @param data   IN: room for @len bytes; OUT: @len bytes
 * @return bytes put there (IN) or 0; -1: stall
 */
int mull_hid_control(struct mull_hid *h, const uint8_t setup[8], uint8_t *data, unsigned len);

/** The next report. @return its bytes, 0: nothing has happened */
unsigned mull_hid_report(struct mull_hid *h, uint8_t report[MULL_HID_REPORT_MAX]);

/** @param key  as struct mull_i8042's codes */
void mull_hid_key(struct mull_hid *h, unsigned key, bool down);
/** Places from 0 to 32767. */
void mull_hid_place(struct mull_hid *h, unsigned x, unsigned y, int wheel, unsigned buttons);

#endif
