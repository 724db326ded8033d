/*
 * Small chipset ports. The keyboard controller (Intel 8042 as in the PC/AT) answers its own
 * commands and lets the guest reset the machine; nothing is plugged into it, so bytes for a
 * keyboard get no answer, as on a board without one. pvpanic is QEMU's (docs/specs/pvpanic.rst).
 */
#include "platform/ports.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define STATUS_OUTPUT_FULL 0x01u
#define STATUS_SYSTEM 0x04u
#define STATUS_COMMAND 0x08u
#define STATUS_UNLOCKED 0x10u

#define OUTPUT_NOT_RESET 0x01u
#define OUTPUT_A20 0x02u

#define PANICKED 0x01u
#define CRASH_LOADED 0x02u

struct mull_ports {
    struct mull_device device;
    struct mull_ports_events events;
    pthread_mutex_t lock;
    uint8_t status, config, output_port;
    uint8_t pending_command; /* one whose data byte comes through port 60h */
    uint8_t data;            /* what port 60h gives */
    uint8_t port92;
    uint8_t post; /* the last POST code */
    struct mull_region *region[5];
};

static void reset_machine(struct mull_ports *p)
{
    if (p->events.reset)
        p->events.reset(p->events.opaque);
}

/* ---- Keyboard controller ---- */

static void answer(struct mull_ports *p, uint8_t value)
{
    p->data = value;
    p->status |= STATUS_OUTPUT_FULL;
}

static void set_output_port(struct mull_ports *p, uint8_t value)
{
    p->output_port = value | OUTPUT_NOT_RESET;
    if (!(value & OUTPUT_NOT_RESET))
        reset_machine(p);
}

static void command(struct mull_ports *p, uint8_t value)
{
    p->pending_command = 0;
    switch (value) {
    case 0x20: /* read the configuration byte */
        answer(p, p->config);
        break;
    case 0x60: /* write it */
    case 0xd1: /* write the output port */
    case 0xd2: /* write to the output buffer: as if from the keyboard */
    case 0xd3: /* ... from the auxiliary device */
    case 0xd4: /* write to the auxiliary device */
        p->pending_command = value;
        break;
    case 0xa7: /* disable, enable, test the auxiliary port */
        p->config |= 0x20;
        break;
    case 0xa8:
        p->config &= (uint8_t)~0x20;
        break;
    case 0xa9:
        answer(p, 0);
        break;
    case 0xaa: /* self-test */
        p->status |= STATUS_SYSTEM;
        answer(p, 0x55);
        break;
    case 0xab: /* test the keyboard port */
        answer(p, 0);
        break;
    case 0xad: /* disable, enable the keyboard port */
        p->config |= 0x10;
        break;
    case 0xae:
        p->config &= (uint8_t)~0x10;
        break;
    case 0xc0: /* input port: not inhibited */
        answer(p, 0x80);
        break;
    case 0xd0:
        answer(p, p->output_port);
        break;
    case 0xdd: /* A20 off, on: it is always on, as on processors of today */
        p->output_port &= (uint8_t)~OUTPUT_A20;
        break;
    case 0xdf:
        p->output_port |= OUTPUT_A20;
        break;
    default:
        if (value >= 0xf0 && !(value & 1)) /* pulse the output lines whose bit is 0 */
            reset_machine(p);
    }
}

static void data_written(struct mull_ports *p, uint8_t value)
{
    switch (p->pending_command) {
    case 0x60:
        p->config = value;
        break;
    case 0xd1:
        set_output_port(p, value);
        break;
    case 0xd2:
    case 0xd3:
        answer(p, value);
        break;
    default: /* for a keyboard or mouse: nobody there */
        break;
    }
    p->pending_command = 0;
}

static uint64_t data_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_ports *p = opaque;

    pthread_mutex_lock(&p->lock);
    uint8_t value = p->data;
    p->status &= (uint8_t)~STATUS_OUTPUT_FULL;
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void data_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_ports *p = opaque;

    pthread_mutex_lock(&p->lock);
    p->status &= (uint8_t)~STATUS_COMMAND;
    data_written(p, (uint8_t)value);
    pthread_mutex_unlock(&p->lock);
}

static uint64_t command_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_ports *p = opaque;

    pthread_mutex_lock(&p->lock);
    uint8_t value = p->status;
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void command_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct mull_ports *p = opaque;

    pthread_mutex_lock(&p->lock);
    p->status |= STATUS_COMMAND;
    command(p, (uint8_t)value);
    pthread_mutex_unlock(&p->lock);
}

/* ---- Port 92h: bit 0 resets, bit 1 is A20 ---- */

static uint64_t port92_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_ports *p = opaque;

    pthread_mutex_lock(&p->lock);
    uint8_t value = p->port92;
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void port92_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_ports *p = opaque;

    pthread_mutex_lock(&p->lock);
    bool rising = (value & 1) && !(p->port92 & 1);
    p->port92 = value & 3;
    if (rising)
        reset_machine(p);
    pthread_mutex_unlock(&p->lock);
}

/* ---- Port 80h: POST codes; guests also write it to wait a microsecond ---- */

static uint64_t post_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return __atomic_load_n(&((struct mull_ports *)opaque)->post, __ATOMIC_RELAXED);
}

static void post_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    __atomic_store_n(&((struct mull_ports *)opaque)->post, (uint8_t)value, __ATOMIC_RELAXED);
}

/* ---- pvpanic ---- */

static uint64_t panic_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return PANICKED | CRASH_LOADED; /* the events we know */
}

static void panic_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_ports *p = opaque;

    if ((value & (PANICKED | CRASH_LOADED)) && p->events.panic)
        p->events.panic(p->events.opaque, !(value & PANICKED));
}

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct mull_ports *p = device->object;

    pthread_mutex_lock(&p->lock);
    p->status = STATUS_SYSTEM | STATUS_UNLOCKED;
    p->config = 0x30; /* both ports disabled */
    p->output_port = OUTPUT_NOT_RESET | OUTPUT_A20;
    p->pending_command = p->data = 0;
    p->port92 = 2;
    p->post = 0;
    pthread_mutex_unlock(&p->lock);
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_ports, status),      MULL_FIELD(struct mull_ports, config),
    MULL_FIELD(struct mull_ports, output_port), MULL_FIELD(struct mull_ports, pending_command),
    MULL_FIELD(struct mull_ports, data),        MULL_FIELD(struct mull_ports, port92),
    MULL_FIELD(struct mull_ports, post),        MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "ports", .version = 1, .oldest = 1, .fields = fields};

static void destroy(struct mull_device *device)
{
    struct mull_ports *p = device->object;

    for (unsigned i = 0; i < sizeof(p->region) / sizeof(p->region[0]); i++)
        mull_region_remove(p->region[i]);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

struct mull_device *mull_ports_device(struct mull_ports *p)
{
    return &p->device;
}

int mull_ports_create(const struct mull_device_env *env, const struct mull_ports_events *events,
                      struct mull_ports **out, struct mull_error *err)
{
    static const struct {
        uint16_t port;
        const char *name;
        struct mull_region_ops ops;
    } map[] = {
        {0x60, "keyboard data", {data_read, data_write, 1, 1}},
        {0x64, "keyboard command", {command_read, command_write, 1, 1}},
        {0x92, "port 92h", {port92_read, port92_write, 1, 1}},
        {0x80, "POST code", {post_read, post_write, 1, 1}},
        {MULL_PVPANIC_PORT, "pvpanic", {panic_read, panic_write, 1, 1}},
    };
    struct mull_ports *p = calloc(1, sizeof(*p));
    int code = 0;

    *out = NULL;
    if (!p)
        return mull_fail(err, ENOMEM, "chipset ports: no memory");
    p->device = (struct mull_device){.ops = &ops, .name = "ports", .object = p};
    p->events = *events;
    pthread_mutex_init(&p->lock, NULL);
    reset(&p->device);
    for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]) && code == 0; i++)
        code = mull_region_add(env->memory, MULL_SPACE_PORT, map[i].port, 1, &map[i].ops, p,
                               map[i].name, &p->region[i], err);
    if (code < 0) {
        destroy(&p->device);
        return code;
    }
    *out = p;
    return 0;
}
