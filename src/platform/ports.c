/*
 * Small chipset ports: 92h (Intel I/O Controller Hub 9 data sheet, 13.7.3), POST codes, pvpanic
 * (QEMU's docs/specs/pvpanic.rst). Knows nothing of the keyboard controller, which is a device.
 */
#include "platform/ports.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define PANICKED 0x01u
#define CRASH_LOADED 0x02u

struct mull_ports {
    struct mull_device device;
    struct mull_ports_events events;
    struct mull_memory *memory;
    pthread_mutex_t lock;
    uint8_t port92; /* bit 1 is the memory's: the keyboard controller moves the gate, too */
    uint8_t post;   /* the last POST code */
    bool a20;       /* the gate as it was saved */
    struct mull_region *region[3];
};

static void reset_machine(struct mull_ports *p)
{
    if (p->events.reset)
        p->events.reset(p->events.opaque);
}

/* ---- Port 92h: bit 0 resets, bit 1 is A20 ---- */

static uint64_t port92_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_ports *p = opaque;

    pthread_mutex_lock(&p->lock);
    uint8_t value = (uint8_t)(p->port92 | mull_memory_a20(p->memory) << 1);
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void port92_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_ports *p = opaque;

    pthread_mutex_lock(&p->lock);
    bool rising = (value & 1) && !(p->port92 & 1);
    p->port92 = value & 1;
    mull_memory_set_a20(p->memory, value & 2);
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
    p->port92 = 0;
    mull_memory_set_a20(p->memory, true);
    p->post = 0;
    pthread_mutex_unlock(&p->lock);
}

static void before_save(void *object)
{
    struct mull_ports *p = object;

    p->a20 = mull_memory_a20(p->memory);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_ports *p = object;

    p->port92 &= 1;
    mull_memory_set_a20(p->memory, version < 2 || p->a20);
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_ports, port92),
    MULL_FIELD(struct mull_ports, post),
    MULL_FIELD_SINCE(2, struct mull_ports, a20),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {.name = "ports",
                                            .version = 2,
                                            .oldest = 1,
                                            .fields = fields,
                                            .before_save = before_save,
                                            .after_load = after_load};

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
    p->memory = env->memory;
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
