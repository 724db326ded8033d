/*
 * The 8042 as in the PS/2 (IBM PS/2 Hardware Interface Technical Reference, keyboard and auxiliary
 * device controller) with a 101/102-key keyboard and a wheel mouse. Each device has a queue of
 * bytes for the guest; the controller takes one at a time into its output buffer.
 */
#include "device/legacy/i8042.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_FULL 0x01u
#define STATUS_SYSTEM 0x04u
#define STATUS_COMMAND 0x08u
#define STATUS_UNLOCKED 0x10u
#define STATUS_AUX 0x20u

#define CONFIG_IRQ1 0x01u
#define CONFIG_IRQ12 0x02u
#define CONFIG_SYSTEM 0x04u
#define CONFIG_KEYBOARD_OFF 0x10u
#define CONFIG_AUX_OFF 0x20u
#define CONFIG_TRANSLATE 0x40u

#define OUTPUT_NOT_RESET 0x01u
#define OUTPUT_A20 0x02u

#define QUEUE_SIZE 64u
#define ACK 0xfau
#define RESEND 0xfeu

struct queue {
    uint8_t bytes[QUEUE_SIZE];
    uint8_t first, count;
};

struct mull_i8042 {
    struct mull_device device;
    struct mull_memory *memory;
    struct mull_i8042_config cfg;
    pthread_mutex_t lock;
    uint8_t status, config, data, pending;
    uint8_t output_port; /* without A20, which is the memory's: port 92h moves it, too */
    struct queue keyboard, mouse, controller;
    /* Keyboard. */
    uint8_t key_pending, key_set, key_scanning, key_leds;
    /* Mouse. */
    uint8_t mouse_pending, mouse_id, mouse_reporting, mouse_remote, mouse_scaling;
    uint8_t mouse_rate, mouse_resolution, mouse_buttons, mouse_last_rates[2];
    int16_t mouse_dx, mouse_dy, mouse_dz;
    struct mull_region *region[2];
};

/* ---- Queues ---- */

static bool put(struct queue *q, uint8_t byte)
{
    if (q->count == QUEUE_SIZE)
        return false;
    q->bytes[(q->first + q->count++) % QUEUE_SIZE] = byte;
    return true;
}

static uint8_t take(struct queue *q)
{
    uint8_t byte = q->bytes[q->first];

    q->first = (q->first + 1) % QUEUE_SIZE;
    q->count--;
    return byte;
}

/* Bytes that belong together: all or none. */
static void put_all(struct queue *q, const uint8_t *bytes, unsigned n)
{
    if (QUEUE_SIZE - q->count < n)
        return;
    for (unsigned i = 0; i < n; i++)
        put(q, bytes[i]);
}

/* Fill the output buffer if it is empty, and set the interrupt lines. */
static void update(struct mull_i8042 *k)
{
    if (!(k->status & STATUS_FULL)) {
        bool aux = false, have = true;
        if (k->controller.count)
            k->data = take(&k->controller);
        else if (k->keyboard.count && !(k->config & CONFIG_KEYBOARD_OFF))
            k->data = take(&k->keyboard);
        else if (k->mouse.count && !(k->config & CONFIG_AUX_OFF))
            k->data = take(&k->mouse), aux = true;
        else
            have = false;
        k->status &= (uint8_t) ~(STATUS_AUX | STATUS_FULL);
        if (have)
            k->status |= STATUS_FULL | (aux ? STATUS_AUX : 0);
    }
    bool full = k->status & STATUS_FULL, aux = k->status & STATUS_AUX;
    mull_irq_set(&k->cfg.keyboard, full && !aux && (k->config & CONFIG_IRQ1));
    mull_irq_set(&k->cfg.mouse, full && aux && (k->config & CONFIG_IRQ12));
}

/* ---- The keyboard ---- */

/* Scan code set 2 by the codes of set 1. */
static const uint8_t set2[0x59] = {
    0,    0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66,
    0x0d, 0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14,
    0x1c, 0x1b, 0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a,
    0x22, 0x21, 0x2a, 0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05,
    0x06, 0x04, 0x0c, 0x03, 0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b,
    0x6b, 0x73, 0x74, 0x79, 0x69, 0x72, 0x7a, 0x70, 0x71, 0,    0,    0x61, 0x78, 0x07};

/* Does the guest see set 1, by choice or because the controller translates? */
static bool sees_set1(const struct mull_i8042 *k)
{
    return k->key_set == 1 || (k->key_set == 2 && (k->config & CONFIG_TRANSLATE));
}

void mull_i8042_key(struct mull_i8042 *k, unsigned key, bool down)
{
    uint8_t code = key & 0x7f, bytes[8];
    unsigned n = 0;

    pthread_mutex_lock(&k->lock);
    bool set1 = sees_set1(k);
    if (key == MULL_KEY_PAUSE) {
        static const uint8_t one[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
        static const uint8_t two[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
        n = !down ? 0 : set1 ? sizeof(one) : sizeof(two);
        memcpy(bytes, set1 ? one : two, n);
    } else if (set1 || (code < sizeof(set2) && set2[code])) {
        if (key & MULL_KEY_EXTENDED)
            bytes[n++] = 0xe0;
        if (!set1 && !down)
            bytes[n++] = 0xf0;
        bytes[n++] = set1 ? (uint8_t)(code | (down ? 0 : 0x80)) : set2[code];
    }
    if (k->key_scanning)
        put_all(&k->keyboard, bytes, n);
    update(k);
    pthread_mutex_unlock(&k->lock);
}

unsigned mull_i8042_leds(struct mull_i8042 *k)
{
    pthread_mutex_lock(&k->lock);
    unsigned leds = k->key_leds;
    pthread_mutex_unlock(&k->lock);
    return leds;
}

bool mull_i8042_idle(struct mull_i8042 *k)
{
    pthread_mutex_lock(&k->lock);
    bool idle = !k->keyboard.count;
    pthread_mutex_unlock(&k->lock);
    return idle;
}

static void keyboard_defaults(struct mull_i8042 *k)
{
    k->key_set = 2;
    k->key_scanning = 1;
    k->key_leds = k->key_pending = 0;
}

static void keyboard_argument(struct mull_i8042 *k, uint8_t command, uint8_t value)
{
    put(&k->keyboard, ACK);
    if (command == 0xed) {
        k->key_leds = value & 7;
    } else if (command == 0xf0) {
        /* The answer is translated like everything else. */
        if (value == 0)
            put(&k->keyboard, k->config & CONFIG_TRANSLATE ? (k->key_set == 1   ? 0x43
                                                              : k->key_set == 2 ? 0x41
                                                                                : 0x3f)
                                                           : k->key_set);
        else if (value <= 2)
            k->key_set = value;
    }
}

static void keyboard_command(struct mull_i8042 *k, uint8_t value)
{
    uint8_t pending = k->key_pending;

    k->key_pending = 0;
    if (pending && value < 0xed) {
        keyboard_argument(k, pending, value);
        return;
    }
    switch (value) {
    case 0xed: /* LEDs, scan code set, typematic rate */
    case 0xf0:
    case 0xf3:
        k->key_pending = value;
        put(&k->keyboard, ACK);
        break;
    case 0xee: /* echo */
        put(&k->keyboard, 0xee);
        break;
    case 0xf2: /* identify */
        put(&k->keyboard, ACK);
        put(&k->keyboard, 0xab);
        put(&k->keyboard, k->config & CONFIG_TRANSLATE ? 0x41 : 0x83);
        break;
    case 0xf4:
        k->key_scanning = 1;
        put(&k->keyboard, ACK);
        break;
    case 0xf5:
    case 0xf6:
        keyboard_defaults(k);
        k->key_scanning = value == 0xf6;
        put(&k->keyboard, ACK);
        break;
    case 0xff: /* reset, self-test passed */
        keyboard_defaults(k);
        k->keyboard.count = 0;
        put(&k->keyboard, ACK);
        put(&k->keyboard, 0xaa);
        break;
    default:
        put(&k->keyboard, RESEND);
    }
}

/* ---- The mouse ---- */

static int16_t clamp(int value, int low, int high)
{
    return (int16_t)(value < low ? low : value > high ? high : value);
}

static void mouse_packet(struct mull_i8042 *k)
{
    int dx = clamp(k->mouse_dx, -255, 255), dy = clamp(k->mouse_dy, -255, 255);
    int dz = clamp(k->mouse_dz, -8, 7);
    const uint8_t bytes[4] = {
        (uint8_t)(k->mouse_buttons | 0x08 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)), (uint8_t)dx,
        (uint8_t)dy, (uint8_t)dz};

    if (QUEUE_SIZE - k->mouse.count < 16)
        return; /* the guest is slow: what it missed comes later */
    put_all(&k->mouse, bytes, k->mouse_id == 3 ? 4 : 3);
    k->mouse_dx = (int16_t)(k->mouse_dx - dx);
    k->mouse_dy = (int16_t)(k->mouse_dy - dy);
    k->mouse_dz = (int16_t)(k->mouse_dz - dz);
}

void mull_i8042_mouse(struct mull_i8042 *k, int dx, int dy, int wheel, unsigned buttons)
{
    pthread_mutex_lock(&k->lock);
    bool pressed = (buttons & 7) != k->mouse_buttons;
    k->mouse_dx = clamp(k->mouse_dx + clamp(dx, -4096, 4096), -4096, 4096);
    k->mouse_dy = clamp(k->mouse_dy - clamp(dy, -4096, 4096), -4096, 4096); /* up is positive */
    k->mouse_dz = clamp(k->mouse_dz + clamp(wheel, -64, 64), -64, 64);
    k->mouse_buttons = buttons & 7;
    if (k->mouse_reporting && !k->mouse_remote) {
        if (pressed)
            mouse_packet(k);
        for (unsigned i = 0; i < 4 && (k->mouse_dx || k->mouse_dy || k->mouse_dz); i++)
            mouse_packet(k);
    }
    update(k);
    pthread_mutex_unlock(&k->lock);
}

static void mouse_defaults(struct mull_i8042 *k)
{
    k->mouse_reporting = k->mouse_remote = k->mouse_scaling = k->mouse_pending = 0;
    k->mouse_rate = 100;
    k->mouse_resolution = 2;
    k->mouse_dx = k->mouse_dy = k->mouse_dz = 0;
}

static void mouse_argument(struct mull_i8042 *k, uint8_t command, uint8_t value)
{
    put(&k->mouse, ACK);
    if (command == 0xe8) {
        k->mouse_resolution = value & 3;
        return;
    }
    /* Rates 200, 100, 80 in a row ask for a wheel. */
    if (value == 80 && k->mouse_last_rates[0] == 200 && k->mouse_last_rates[1] == 100)
        k->mouse_id = 3;
    k->mouse_last_rates[0] = k->mouse_last_rates[1];
    k->mouse_last_rates[1] = value;
    k->mouse_rate = value;
}

static void mouse_status(struct mull_i8042 *k)
{
    put(&k->mouse, (uint8_t)((k->mouse_remote ? 0x40 : 0) | (k->mouse_reporting ? 0x20 : 0) |
                             (k->mouse_scaling ? 0x10 : 0) | k->mouse_buttons));
    put(&k->mouse, k->mouse_resolution);
    put(&k->mouse, k->mouse_rate);
}

static void mouse_command(struct mull_i8042 *k, uint8_t value)
{
    uint8_t pending = k->mouse_pending;

    k->mouse_pending = 0;
    if (pending) {
        mouse_argument(k, pending, value);
        return;
    }
    if (value >= 0xe6 && value != 0xff && value != 0xef && value != 0xf1)
        put(&k->mouse, ACK);
    switch (value) {
    case 0xe6:
    case 0xe7:
        k->mouse_scaling = value & 1;
        break;
    case 0xe8:
    case 0xf3:
        k->mouse_pending = value;
        break;
    case 0xe9:
        mouse_status(k);
        break;
    case 0xea:
    case 0xf0:
        k->mouse_remote = value == 0xf0;
        break;
    case 0xeb:
        mouse_packet(k);
        break;
    case 0xf2:
        put(&k->mouse, k->mouse_id);
        break;
    case 0xf4:
    case 0xf5: /* where it went meanwhile is forgotten */
        k->mouse_reporting = value == 0xf4;
        k->mouse_dx = k->mouse_dy = k->mouse_dz = 0;
        break;
    case 0xf6:
        mouse_defaults(k);
        break;
    case 0xff:
        mouse_defaults(k);
        k->mouse_id = 0;
        k->mouse.count = 0;
        put(&k->mouse, ACK);
        put(&k->mouse, 0xaa);
        put(&k->mouse, 0);
        break;
    default:
        if (value < 0xe6 || value == 0xef || value == 0xf1)
            put(&k->mouse, RESEND);
    }
}

/* ---- The controller ---- */

static void reset_machine(struct mull_i8042 *k)
{
    if (k->cfg.reset)
        k->cfg.reset(k->cfg.opaque);
}

/* As if from a device, also from one that is switched off. */
static void output_now(struct mull_i8042 *k, uint8_t value, bool aux)
{
    k->data = value;
    k->status = (uint8_t)((k->status & ~STATUS_AUX) | STATUS_FULL | (aux ? STATUS_AUX : 0));
}

static void controller_argument(struct mull_i8042 *k, uint8_t command, uint8_t value)
{
    switch (command) {
    case 0x60:
        k->config = value;
        break;
    case 0xd1:
        k->output_port = (value | OUTPUT_NOT_RESET) & (uint8_t)~OUTPUT_A20;
        mull_memory_set_a20(k->memory, value & OUTPUT_A20);
        if (!(value & OUTPUT_NOT_RESET))
            reset_machine(k);
        break;
    case 0xd2:
    case 0xd3:
        output_now(k, value, command == 0xd3);
        break;
    case 0xd4:
        k->config &= (uint8_t)~CONFIG_AUX_OFF;
        if (!k->cfg.bare)
            mouse_command(k, value);
        break;
    default:
        break;
    }
}

static void controller_command(struct mull_i8042 *k, uint8_t value)
{
    k->pending = 0;
    switch (value) {
    case 0x20:
        put(&k->controller, k->config);
        break;
    case 0x60:
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        k->pending = value;
        break;
    case 0xa7:
        k->config |= CONFIG_AUX_OFF;
        break;
    case 0xa8:
        k->config &= (uint8_t)~CONFIG_AUX_OFF;
        break;
    case 0xa9: /* both ports are well */
    case 0xab:
        put(&k->controller, 0);
        break;
    case 0xaa:
        k->status |= STATUS_SYSTEM;
        put(&k->controller, 0x55);
        break;
    case 0xad:
        k->config |= CONFIG_KEYBOARD_OFF;
        break;
    case 0xae:
        k->config &= (uint8_t)~CONFIG_KEYBOARD_OFF;
        break;
    case 0xc0:
        put(&k->controller, 0x80);
        break;
    case 0xd0:
        put(&k->controller,
            (uint8_t)(k->output_port | (mull_memory_a20(k->memory) ? OUTPUT_A20 : 0)));
        break;
    case 0xdd: /* what many have beside D1h: A20 off, on */
    case 0xdf:
        mull_memory_set_a20(k->memory, value & OUTPUT_A20);
        break;
    default:
        if (value >= 0xf0 && !(value & 1))
            reset_machine(k);
    }
}

static uint64_t data_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_i8042 *k = opaque;

    pthread_mutex_lock(&k->lock);
    uint8_t value = k->data;
    if (k->status & STATUS_FULL) {
        k->status &= (uint8_t)~STATUS_FULL;
        /* The line must fall before the next byte raises it: an edge each. */
        mull_irq_set(&k->cfg.keyboard, false);
        mull_irq_set(&k->cfg.mouse, false);
        update(k);
    }
    pthread_mutex_unlock(&k->lock);
    return value;
}

static void data_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_i8042 *k = opaque;

    pthread_mutex_lock(&k->lock);
    uint8_t pending = k->pending;
    k->pending = 0;
    k->status &= (uint8_t)~STATUS_COMMAND;
    if (pending) {
        controller_argument(k, pending, (uint8_t)value);
    } else {
        k->config &= (uint8_t)~CONFIG_KEYBOARD_OFF;
        if (!k->cfg.bare)
            keyboard_command(k, (uint8_t)value);
    }
    update(k);
    pthread_mutex_unlock(&k->lock);
}

static uint64_t status_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_i8042 *k = opaque;

    pthread_mutex_lock(&k->lock);
    uint8_t value = k->status;
    pthread_mutex_unlock(&k->lock);
    return value;
}

static void command_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct mull_i8042 *k = opaque;

    pthread_mutex_lock(&k->lock);
    k->status |= STATUS_COMMAND;
    controller_command(k, (uint8_t)value);
    update(k);
    pthread_mutex_unlock(&k->lock);
}

static const struct mull_region_ops data_ops = {data_read, data_write, 1, 1};
static const struct mull_region_ops command_ops = {status_read, command_write, 1, 1};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct mull_i8042 *k = (struct mull_i8042 *)device;

    pthread_mutex_lock(&k->lock);
    k->status = STATUS_SYSTEM | STATUS_UNLOCKED;
    k->config = k->cfg.bare ? CONFIG_SYSTEM | CONFIG_KEYBOARD_OFF | CONFIG_AUX_OFF
                            : CONFIG_IRQ1 | CONFIG_SYSTEM | CONFIG_TRANSLATE;
    k->output_port = OUTPUT_NOT_RESET;
    k->data = k->pending = 0;
    memset(&k->keyboard, 0, sizeof(k->keyboard));
    memset(&k->mouse, 0, sizeof(k->mouse));
    memset(&k->controller, 0, sizeof(k->controller));
    memset(k->mouse_last_rates, 0, sizeof(k->mouse_last_rates));
    k->mouse_id = k->mouse_buttons = 0;
    keyboard_defaults(k);
    mouse_defaults(k);
    update(k);
    pthread_mutex_unlock(&k->lock);
}

static void resume(struct mull_device *device)
{
    struct mull_i8042 *k = (struct mull_i8042 *)device;

    pthread_mutex_lock(&k->lock);
    update(k);
    pthread_mutex_unlock(&k->lock);
}

static void destroy(struct mull_device *device)
{
    struct mull_i8042 *k = (struct mull_i8042 *)device;

    for (unsigned i = 0; i < 2; i++)
        mull_region_remove(k->region[i]);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

static int queue_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct queue *q = object;

    if (q->first >= QUEUE_SIZE || q->count > QUEUE_SIZE)
        return mull_fail(err, EINVAL, "keyboard controller: a saved queue is not valid");
    return 0;
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_i8042 *k = object;

    if (k->key_set != 1)
        k->key_set = 2;
    return 0;
}

static const struct mull_field queue_fields[] = {
    MULL_FIELD_BLOB(struct queue, bytes),
    MULL_FIELD(struct queue, first),
    MULL_FIELD(struct queue, count),
    MULL_FIELDS_END,
};
static const struct mull_state_desc queue_desc = {.name = "i8042-queue",
                                                  .version = 1,
                                                  .oldest = 1,
                                                  .fields = queue_fields,
                                                  .after_load = queue_loaded};
/* Motion that the guest has not been told is let go. */
static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_i8042, status),
    MULL_FIELD(struct mull_i8042, config),
    MULL_FIELD(struct mull_i8042, output_port),
    MULL_FIELD(struct mull_i8042, data),
    MULL_FIELD(struct mull_i8042, pending),
    MULL_FIELD_NESTED(struct mull_i8042, keyboard, &queue_desc),
    MULL_FIELD_NESTED(struct mull_i8042, mouse, &queue_desc),
    MULL_FIELD_NESTED(struct mull_i8042, controller, &queue_desc),
    MULL_FIELD(struct mull_i8042, key_pending),
    MULL_FIELD(struct mull_i8042, key_set),
    MULL_FIELD(struct mull_i8042, key_scanning),
    MULL_FIELD(struct mull_i8042, key_leds),
    MULL_FIELD(struct mull_i8042, mouse_pending),
    MULL_FIELD(struct mull_i8042, mouse_id),
    MULL_FIELD(struct mull_i8042, mouse_reporting),
    MULL_FIELD(struct mull_i8042, mouse_remote),
    MULL_FIELD(struct mull_i8042, mouse_scaling),
    MULL_FIELD(struct mull_i8042, mouse_rate),
    MULL_FIELD(struct mull_i8042, mouse_resolution),
    MULL_FIELD(struct mull_i8042, mouse_buttons),
    MULL_FIELD_BLOB(struct mull_i8042, mouse_last_rates),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "i8042", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};
static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .resume = resume, .destroy = destroy};

struct mull_device *mull_i8042_device(struct mull_i8042 *k)
{
    return &k->device;
}

int mull_i8042_create(const struct mull_device_env *env, const struct mull_i8042_config *cfg,
                      struct mull_i8042 **out, struct mull_error *err)
{
    struct mull_i8042 *k = calloc(1, sizeof(*k));
    int code;

    *out = NULL;
    if (!k)
        return mull_fail(err, ENOMEM, "keyboard controller: no memory");
    k->device = (struct mull_device){.ops = &ops, .name = "i8042", .object = k};
    k->memory = env->memory;
    k->cfg = *cfg;
    pthread_mutex_init(&k->lock, NULL);
    reset(&k->device);
    if ((code = mull_region_add(env->memory, MULL_SPACE_PORT, 0x60, 1, &data_ops, k,
                                "keyboard data", &k->region[0], err)) < 0 ||
        (code = mull_region_add(env->memory, MULL_SPACE_PORT, 0x64, 1, &command_ops, k,
                                "keyboard command", &k->region[1], err)) < 0) {
        destroy(&k->device);
        return code;
    }
    *out = k;
    return 0;
}
