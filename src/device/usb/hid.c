/*
 * See hid.h. USB 2.0, chapter 9; HID 1.11, 7 and appendix B; HID Usage Tables 1.12.
 */
#include "device/usb/hid.h"

#include <string.h>

#include "device/legacy/i8042.h"

/* Requests: bmRequestType << 8 | bRequest. */
enum {
    GET_STATUS_DEVICE = 0x8000,
    GET_STATUS_INTERFACE = 0x8100,
    GET_STATUS_ENDPOINT = 0x8200,
    CLEAR_FEATURE_DEVICE = 0x0001,
    CLEAR_FEATURE_INTERFACE = 0x0101,
    CLEAR_FEATURE_ENDPOINT = 0x0201,
    SET_FEATURE_DEVICE = 0x0003,
    SET_ADDRESS = 0x0005,
    GET_DESCRIPTOR = 0x8006,
    GET_CONFIGURATION = 0x8008,
    SET_CONFIGURATION = 0x0009,
    GET_DESCRIPTOR_INTERFACE = 0x8106,
    GET_INTERFACE = 0x810a,
    SET_INTERFACE = 0x010b,
    GET_REPORT = 0xa101,
    GET_IDLE = 0xa102,
    GET_PROTOCOL = 0xa103,
    SET_REPORT = 0x2109,
    SET_IDLE = 0x210a,
    SET_PROTOCOL = 0x210b,
};
enum { DEVICE = 1, CONFIGURATION = 2, STRING = 3, HID = 0x21, REPORT = 0x22 };

/* ---- Descriptors ---- */

static const uint8_t tablet_report[] = {
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, /* a mouse, */
    0x05, 0x09, 0x19, 0x01, 0x29, 0x03, 0x15, 0x00, 0x25, 0x01, /* with three buttons, */
    0x95, 0x03, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x05, 0x81, 0x01,
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, /* absolute X and Y, */
    0x35, 0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02, 0x09,
    0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, /* and a wheel */
    0x75, 0x08, 0x95, 0x01, 0x81, 0x06, 0xc0, 0xc0,
};

static const uint8_t keyboard_report[] =
    {
        0x05, 0x01, 0x09, 0x06, 0xa1, 0x01,                         /* a keyboard: */
        0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, /* a bit a modifier, */
        0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01,
        0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, /* lights, */
        0x95, 0x01, 0x75, 0x03, 0x91, 0x01, 0x95, 0x06, 0x75, 0x08, 0x15, 0x00,
        0x26, 0xff, 0x00, /* and six keys */
        0x05, 0x07, 0x19, 0x00, 0x2a, 0xff, 0x00, 0x81, 0x00, 0xc0,
};

/* Test PIDs of pid.codes: nobody has a driver by these numbers, all have one by the class. */
#define VENDOR 0x1209u

static unsigned device_descriptor(const struct mull_hid *h, uint8_t *to)
{
    const uint8_t d[18] = {18,          DEVICE,           0x00, 0x02, 0,    0, 0, 64, VENDOR & 0xff,
                           VENDOR >> 8, (uint8_t)h->kind, 0,    0x00, 0x01, 1, 2, 3,  1};

    memcpy(to, d, sizeof(d));
    return sizeof(d);
}

static unsigned report_size(const struct mull_hid *h)
{
    return h->kind == MULL_HID_TABLET ? sizeof(tablet_report) : sizeof(keyboard_report);
}

static unsigned hid_descriptor(const struct mull_hid *h, uint8_t *to)
{
    const uint8_t d[9] = {9, HID, 0x11, 0x01, 0, 1, REPORT, (uint8_t)report_size(h), 0};

    memcpy(to, d, sizeof(d));
    return sizeof(d);
}

/* Configuration, interface (the keyboard can be a BIOS's), HID, endpoint 81h every 4 ms. */
static unsigned configuration_descriptor(const struct mull_hid *h, uint8_t *to)
{
    const uint8_t boot = h->kind == MULL_HID_KEYBOARD;
    const uint8_t head[18] = {9, CONFIGURATION, 34,   0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 1,
                              3, boot,          boot, 0};
    const uint8_t endpoint[7] = {7, 5, 0x81, 3, MULL_HID_REPORT_MAX, 0, 4};

    memcpy(to, head, sizeof(head));
    hid_descriptor(h, to + 18);
    memcpy(to + 27, endpoint, sizeof(endpoint));
    return 34;
}

/* @return 0: there is no such string */
static unsigned string_descriptor(const struct mull_hid *h, unsigned index, uint8_t *to)
{
    const char *const texts[] = {
        "", "Mullion", h->kind == MULL_HID_TABLET ? "Tablet" : "Keyboard", "1"};
    unsigned n = 2;

    if (index >= sizeof(texts) / sizeof(texts[0]))
        return 0;
    if (!index) { /* English */
        to[n++] = 0x09;
        to[n++] = 0x04;
    }
    for (const char *p = texts[index]; *p; p++) {
        to[n++] = (uint8_t)*p;
        to[n++] = 0;
    }
    to[0] = (uint8_t)n;
    to[1] = STRING;
    return n;
}

/* @return bytes of it in @to (256), 0: there is none */
static unsigned descriptor(const struct mull_hid *h, unsigned type, unsigned index, uint8_t *to)
{
    switch (type) {
    case DEVICE:
        return device_descriptor(h, to);
    case CONFIGURATION:
        return index ? 0 : configuration_descriptor(h, to);
    case STRING:
        return string_descriptor(h, index, to);
    case HID:
        return hid_descriptor(h, to);
    case REPORT:
        memcpy(to, h->kind == MULL_HID_TABLET ? tablet_report : keyboard_report, report_size(h));
        return report_size(h);
    default:
        return 0;
    }
}

/* ---- Reports ---- */

static unsigned tablet_state(const struct mull_hid_event *e, uint8_t *r)
{
    r[0] = e->buttons;
    r[1] = (uint8_t)e->x;
    r[2] = (uint8_t)(e->x >> 8);
    r[3] = (uint8_t)e->y;
    r[4] = (uint8_t)(e->y >> 8);
    r[5] = (uint8_t)e->wheel;
    return 6;
}

static unsigned keyboard_state(const struct mull_hid *h, uint8_t *r)
{
    r[0] = h->modifiers;
    r[1] = 0;
    memcpy(r + 2, h->keys, 6);
    return 8;
}

/* A key goes down or up. A seventh one is not seen. */
static void apply_key(struct mull_hid *h, uint8_t usage, bool down)
{
    unsigned i = 0;

    if (usage >= 0xe0) {
        uint8_t bit = (uint8_t)(1u << (usage & 7));
        h->modifiers = (uint8_t)(down ? h->modifiers | bit : h->modifiers & ~bit);
        return;
    }
    while (i < 6 && h->keys[i] != usage)
        i++;
    if (i < 6 && !down) {
        memmove(h->keys + i, h->keys + i + 1, 5 - i);
        h->keys[5] = 0;
    } else if (i == 6 && down) {
        for (i = 0; i < 6 && h->keys[i]; i++)
            ;
        if (i < 6)
            h->keys[i] = usage;
    }
}

unsigned mull_hid_report(struct mull_hid *h, uint8_t report[MULL_HID_REPORT_MAX])
{
    if (!h->count || !h->configuration)
        return 0;
    h->last = h->queue[h->first];
    h->first = (h->first + 1) % MULL_HID_QUEUE;
    h->count--;
    if (h->kind == MULL_HID_TABLET)
        return tablet_state(&h->last, report);
    apply_key(h, (uint8_t)h->last.x, h->last.y);
    return keyboard_state(h, report);
}

static unsigned current(const struct mull_hid *h, uint8_t *to)
{
    struct mull_hid_event e = h->last;

    e.wheel = 0;
    return h->kind == MULL_HID_TABLET ? tablet_state(&e, to) : keyboard_state(h, to);
}

/* ---- Events ---- */

static struct mull_hid_event *newest(struct mull_hid *h)
{
    return h->count ? &h->queue[(h->first + h->count - 1u) % MULL_HID_QUEUE] : NULL;
}

static void put(struct mull_hid *h, struct mull_hid_event e)
{
    if (h->count == MULL_HID_QUEUE)
        return; /* the guest does not listen */
    h->queue[(h->first + h->count++) % MULL_HID_QUEUE] = e;
}

void mull_hid_place(struct mull_hid *h, unsigned x, unsigned y, int wheel, unsigned buttons)
{
    struct mull_hid_event *old = newest(h);
    const struct mull_hid_event e = {.x = (uint16_t)(x & 0x7fff),
                                     .y = (uint16_t)(y & 0x7fff),
                                     .wheel = (int8_t)(wheel > 0   ? -1
                                                       : wheel < 0 ? 1
                                                                   : 0),
                                     .buttons = buttons & 7};

    /* Only where the pointer ends up counts, but each turn and each click does. */
    if (old && old->buttons == e.buttons && !old->wheel && !e.wheel)
        *old = e;
    else
        put(h, e);
}

/* HID Usage Tables, 10, by the codes of set 1; what comes after E0h separately. */
static const uint8_t usages[0x80] = {
    0,    0x29, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2d, 0x2e, 0x2a, 0x2b,
    0x14, 0x1a, 0x08, 0x15, 0x17, 0x1c, 0x18, 0x0c, 0x12, 0x13, 0x2f, 0x30, 0x28, 0xe0, 0x04, 0x16,
    0x07, 0x09, 0x0a, 0x0b, 0x0d, 0x0e, 0x0f, 0x33, 0x34, 0x35, 0xe1, 0x31, 0x1d, 0x1b, 0x06, 0x19,
    0x05, 0x11, 0x10, 0x36, 0x37, 0x38, 0xe5, 0x55, 0xe2, 0x2c, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e,
    0x3f, 0x40, 0x41, 0x42, 0x43, 0x53, 0x47, 0x5f, 0x60, 0x61, 0x56, 0x5c, 0x5d, 0x5e, 0x57, 0x59,
    0x5a, 0x5b, 0x62, 0x63, 0,    0,    0x64, 0x44, 0x45, 0,    0,    0,    0,    0,    0,    0,
    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
    0x88, 0,    0,    0x87, 0,    0,    0,    0,    0,    0x8a, 0,    0x8b, 0,    0x89, 0,    0,
};

static uint8_t extended_usage(unsigned code)
{
    static const uint8_t pairs[][2] = {
        {0x1c, 0x58}, {0x1d, 0xe4}, {0x35, 0x54}, {0x37, 0x46}, {0x38, 0xe6},
        {0x45, 0x48}, {0x47, 0x4a}, {0x48, 0x52}, {0x49, 0x4b}, {0x4b, 0x50},
        {0x4d, 0x4f}, {0x4f, 0x4d}, {0x50, 0x51}, {0x51, 0x4e}, {0x52, 0x49},
        {0x53, 0x4c}, {0x5b, 0xe3}, {0x5c, 0xe7}, {0x5d, 0x65},
    };

    for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (pairs[i][0] == code)
            return pairs[i][1];
    return 0;
}

void mull_hid_key(struct mull_hid *h, unsigned key, bool down)
{
    uint8_t usage = key & MULL_KEY_EXTENDED ? extended_usage(key & 0x7f) : usages[key & 0x7f];

    if (usage)
        put(h, (struct mull_hid_event){.x = usage, .y = down});
}

/* ---- Requests ---- */

void mull_hid_reset(struct mull_hid *h)
{
    const enum mull_hid_kind kind = h->kind;

    memset(h, 0, sizeof(*h));
    h->kind = kind;
    h->protocol = 1; /* reports, not a BIOS's */
}

static int answer(const uint8_t *from, unsigned size, uint8_t *to, unsigned len)
{
    unsigned n = size < len ? size : len;

    memcpy(to, from, n);
    return (int)n;
}

static int get_request(const struct mull_hid *h, unsigned request, unsigned value, uint8_t *data,
                       unsigned len)
{
    uint8_t bytes[256] = {0};
    unsigned size = 1;

    switch (request) {
    case GET_STATUS_DEVICE:
    case GET_STATUS_INTERFACE:
    case GET_STATUS_ENDPOINT:
        size = 2;
        break;
    case GET_DESCRIPTOR:
    case GET_DESCRIPTOR_INTERFACE:
        size = descriptor(h, value >> 8, value & 0xff, bytes);
        if (!size)
            return -1;
        break;
    case GET_CONFIGURATION:
        bytes[0] = h->configuration;
        break;
    case GET_INTERFACE:
        break;
    case GET_REPORT:
        size = current(h, bytes);
        break;
    case GET_IDLE:
        bytes[0] = h->idle;
        break;
    case GET_PROTOCOL:
        bytes[0] = h->protocol;
        break;
    default:
        return -1;
    }
    return answer(bytes, size, data, len);
}

int mull_hid_control(struct mull_hid *h, const uint8_t setup[8], uint8_t *data, unsigned len)
{
    unsigned request = (unsigned)setup[0] << 8 | setup[1];
    unsigned value = setup[2] | (unsigned)setup[3] << 8;

    if (setup[0] & 0x80)
        return get_request(h, request, value, data, len);
    switch (request) {
    case CLEAR_FEATURE_DEVICE:
    case CLEAR_FEATURE_INTERFACE:
    case CLEAR_FEATURE_ENDPOINT:
    case SET_FEATURE_DEVICE:
    case SET_ADDRESS: /* the controller's matter */
        return 0;
    case SET_CONFIGURATION:
        if (value > 1)
            return -1;
        h->configuration = (uint8_t)value;
        return 0;
    case SET_INTERFACE:
        return value ? -1 : 0;
    case SET_REPORT:
        if (h->kind == MULL_HID_KEYBOARD && len)
            h->leds = data[0] & 31;
        return 0;
    case SET_IDLE:
        h->idle = (uint8_t)(value >> 8);
        return 0;
    case SET_PROTOCOL:
        h->protocol = value & 1;
        return 0;
    default:
        return -1;
    }
}

/* ---- State ---- */

static int loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_hid *h = object;

    h->first %= MULL_HID_QUEUE;
    if (h->count > MULL_HID_QUEUE)
        h->count = MULL_HID_QUEUE;
    if (h->configuration > 1)
        h->configuration = 1;
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_hid, configuration), MULL_FIELD(struct mull_hid, protocol),
    MULL_FIELD(struct mull_hid, idle),          MULL_FIELD(struct mull_hid, leds),
    MULL_FIELD(struct mull_hid, listens),       MULL_FIELD(struct mull_hid, modifiers),
    MULL_FIELD_BLOB(struct mull_hid, keys),     MULL_FIELD_BLOB(struct mull_hid, last),
    MULL_FIELD(struct mull_hid, first),         MULL_FIELD(struct mull_hid, count),
    MULL_FIELD_BLOB(struct mull_hid, queue),    MULL_FIELDS_END,
};
const struct mull_state_desc mull_hid_desc = {
    .name = "usb-hid", .version = 1, .oldest = 1, .fields = fields, .after_load = loaded};
