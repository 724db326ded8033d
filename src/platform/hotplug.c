/*
 * The registers of hot plug: see hotplug.h. Knows numbers of slots, vCPUs and DIMMs, not what is
 * behind them.
 */
#include "platform/hotplug.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define WORDS 8u /* of 32 bits: 256 things a class */

/* Notifications that a device gets (ACPI 6.4, table 5.196). */
#define NOTIFY_EJECT_REQUEST 3u

struct dimm {
    uint64_t base, size;
};

struct class
{
    uint32_t present[WORDS], come[WORDS], go[WORDS];
    uint32_t asked[WORDS], refused[WORDS];
    uint8_t status[32 * WORDS]; /* of refusals */
};

struct mull_hotplug {
    struct mull_device device;
    struct mull_hotplug_config config;
    struct mull_region *region;
    pthread_mutex_t lock; /* all below */
    struct class class[MULL_HOTPLUG_CLASSES];
    struct dimm dimm[MULL_HOTPLUG_DIMM_SLOTS];
};

static const unsigned things[MULL_HOTPLUG_CLASSES] = {
    [MULL_HOTPLUG_PCI] = MULL_HOTPLUG_PCI_SLOTS,
    [MULL_HOTPLUG_CPU] = MULL_MAX_CPUS,
    [MULL_HOTPLUG_DIMM] = MULL_HOTPLUG_DIMM_SLOTS,
};

static bool test(const uint32_t *bits, unsigned i)
{
    return bits[i / 32] >> (i % 32) & 1;
}

static void set(uint32_t *bits, unsigned i, bool on)
{
    if (on)
        bits[i / 32] |= 1u << (i % 32);
    else
        bits[i / 32] &= ~(1u << (i % 32));
}

/* ---- The guest's side ---- */

static uint32_t read_dimm(const struct mull_hotplug *h, unsigned offset)
{
    unsigned slot = offset / 32, field = offset % 32 / 8;
    if (slot >= MULL_HOTPLUG_DIMM_SLOTS || field > 2)
        return 0;
    const struct dimm *d = &h->dimm[slot];
    const uint64_t values[3] = {d->base, d->base + d->size - 1, d->size};
    return (uint32_t)(values[field] >> (offset & 4 ? 32 : 0));
}

static uint64_t read_register(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_hotplug *h = opaque;
    unsigned at = (unsigned)offset & ~3u, class = at / MULL_HOTPLUG_CLASS_SIZE,
             reg = at % MULL_HOTPLUG_CLASS_SIZE, word = reg / 4 % WORDS;
    uint32_t value = 0;

    pthread_mutex_lock(&h->lock);
    if (at >= MULL_HOTPLUG_DIMMS)
        value = read_dimm(h, at - MULL_HOTPLUG_DIMMS);
    else if (class < MULL_HOTPLUG_CLASSES && reg < MULL_HOTPLUG_COME)
        value = h->class[class].present[word];
    else if (class < MULL_HOTPLUG_CLASSES && reg < MULL_HOTPLUG_GO)
        value = h->class[class].come[word];
    else if (class < MULL_HOTPLUG_CLASSES && reg < MULL_HOTPLUG_EJECT)
        value = h->class[class].go[word];
    pthread_mutex_unlock(&h->lock);
    return value;
}

/* What may go is what was asked for. @return the bits of @value that do */
static uint32_t eject(struct mull_hotplug *h, unsigned class, unsigned word, uint32_t value)
{
    value &= h->class[class].present[word] & h->class[class].asked[word];
    h->class[class].present[word] &= ~value;
    h->class[class].asked[word] &= ~value;
    h->class[class].refused[word] &= ~value;
    h->class[class].come[word] &= ~value;
    h->class[class].go[word] &= ~value;
    return value;
}

static void write_status(struct mull_hotplug *h, uint32_t value)
{
    unsigned class = value >> 24, index = value >> 16 & 0xff;
    uint8_t event = (uint8_t)(value >> 8), status = (uint8_t)value;

    if (class >= MULL_HOTPLUG_CLASSES || event != NOTIFY_EJECT_REQUEST ||
        !test(h->class[class].asked, index))
        return;
    /* 0: success; 84h: ejection is in progress (table 6.50). */
    if (status && status != 0x84) {
        set(h->class[class].refused, index, true);
        h->class[class].status[index] = status;
    }
}

static void write_register(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                           uint64_t value)
{
    struct mull_hotplug *h = opaque;
    unsigned class = (unsigned)offset / MULL_HOTPLUG_CLASS_SIZE,
             reg = (unsigned)offset % MULL_HOTPLUG_CLASS_SIZE, word = reg / 4 % WORDS;
    uint32_t gone = 0;

    if (offset & 3)
        return;
    pthread_mutex_lock(&h->lock);
    if (offset == MULL_HOTPLUG_OST)
        write_status(h, (uint32_t)value);
    else if (class >= MULL_HOTPLUG_CLASSES || reg < MULL_HOTPLUG_COME)
        ;
    else if (reg < MULL_HOTPLUG_GO)
        h->class[class].come[word] &= ~(uint32_t)value;
    else if (reg < MULL_HOTPLUG_EJECT)
        h->class[class].go[word] &= ~(uint32_t)value;
    else if (reg < MULL_HOTPLUG_OST)
        gone = eject(h, class, word, (uint32_t)value);
    pthread_mutex_unlock(&h->lock);
    for (; gone; gone &= gone - 1)
        h->config.eject(h->config.opaque, (enum mull_hotplug_class) class,
                        32 * word + (unsigned)__builtin_ctz(gone));
}

static const struct mull_region_ops region_ops = {read_register, write_register, 4, 4};

/* ---- The machine's side ---- */

void mull_hotplug_there(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index)
{
    pthread_mutex_lock(&h->lock);
    if (index < things[class])
        set(h->class[class].present, index, true);
    pthread_mutex_unlock(&h->lock);
}

void mull_hotplug_come(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index)
{
    pthread_mutex_lock(&h->lock);
    if (index < things[class]) {
        set(h->class[class].present, index, true);
        set(h->class[class].come, index, true);
        set(h->class[class].asked, index, false);
        set(h->class[class].refused, index, false);
    }
    pthread_mutex_unlock(&h->lock);
    mull_acpi_pm_event(h->config.pm, MULL_HOTPLUG_EVENT + class);
}

void mull_hotplug_ask(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index)
{
    pthread_mutex_lock(&h->lock);
    if (index < things[class] && test(h->class[class].present, index)) {
        set(h->class[class].go, index, true);
        set(h->class[class].asked, index, true);
        set(h->class[class].refused, index, false);
    }
    pthread_mutex_unlock(&h->lock);
    mull_acpi_pm_event(h->config.pm, MULL_HOTPLUG_EVENT + class);
}

void mull_hotplug_gone(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index)
{
    pthread_mutex_lock(&h->lock);
    if (index < things[class]) {
        set(h->class[class].present, index, false);
        set(h->class[class].asked, index, false);
        set(h->class[class].refused, index, false);
        set(h->class[class].come, index, false);
        set(h->class[class].go, index, false);
    }
    pthread_mutex_unlock(&h->lock);
}

bool mull_hotplug_present(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index)
{
    pthread_mutex_lock(&h->lock);
    bool there = index < things[class] && test(h->class[class].present, index);
    pthread_mutex_unlock(&h->lock);
    return there;
}

enum mull_hotplug_asked mull_hotplug_asked(struct mull_hotplug *h, enum mull_hotplug_class class,
                                           unsigned index, unsigned *status)
{
    enum mull_hotplug_asked asked = MULL_HOTPLUG_IDLE;

    pthread_mutex_lock(&h->lock);
    if (index < things[class] && test(h->class[class].asked, index))
        asked = test(h->class[class].refused, index) ? MULL_HOTPLUG_REFUSED : MULL_HOTPLUG_ASKED;
    if (status)
        *status = asked == MULL_HOTPLUG_REFUSED ? h->class[class].status[index] : 0;
    pthread_mutex_unlock(&h->lock);
    return asked;
}

void mull_hotplug_set_dimm(struct mull_hotplug *h, unsigned slot, uint64_t base, uint64_t size)
{
    pthread_mutex_lock(&h->lock);
    if (slot < MULL_HOTPLUG_DIMM_SLOTS)
        h->dimm[slot] = (struct dimm){base, size};
    pthread_mutex_unlock(&h->lock);
}

void mull_hotplug_dimm(struct mull_hotplug *h, unsigned slot, uint64_t *base, uint64_t *size)
{
    pthread_mutex_lock(&h->lock);
    *base = slot < MULL_HOTPLUG_DIMM_SLOTS ? h->dimm[slot].base : 0;
    *size = slot < MULL_HOTPLUG_DIMM_SLOTS ? h->dimm[slot].size : 0;
    pthread_mutex_unlock(&h->lock);
}

/* ---- Life ---- */

/* What is there stays there; a guest that starts anew finds it without events. */
static void reset(struct mull_device *device)
{
    struct mull_hotplug *h = device->object;

    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < MULL_HOTPLUG_CLASSES; i++) {
        memset(h->class[i].come, 0, sizeof(h->class[i].come));
        memset(h->class[i].go, 0, sizeof(h->class[i].go));
        memset(h->class[i].asked, 0, sizeof(h->class[i].asked));
        memset(h->class[i].refused, 0, sizeof(h->class[i].refused));
    }
    pthread_mutex_unlock(&h->lock);
}

/* What a saved state says of things that this machine cannot have is not taken over. */
static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_hotplug *h = object;

    for (unsigned class = 0; class < MULL_HOTPLUG_CLASSES; class ++) {
        uint32_t *const all[] = {h->class[class].present, h->class[class].come, h->class[class].go,
                                 h->class[class].asked, h->class[class].refused};
        for (unsigned k = 0; k < sizeof(all) / sizeof(all[0]); k++)
            for (unsigned i = things[class]; i < 32 * WORDS; i++)
                set(all[k], i, false);
    }
    return 0;
}

static const struct mull_field class_fields[] = {
    MULL_FIELD_ARRAY(struct class, present),
    MULL_FIELD_ARRAY(struct class, come),
    MULL_FIELD_ARRAY(struct class, go),
    MULL_FIELD_ARRAY(struct class, asked),
    MULL_FIELD_ARRAY(struct class, refused),
    MULL_FIELD_BLOB(struct class, status),
    MULL_FIELDS_END,
};
static const struct mull_state_desc class_desc = {
    .name = "hotplug-class", .version = 1, .oldest = 1, .fields = class_fields};

static const struct mull_field dimm_fields[] = {
    MULL_FIELD(struct dimm, base),
    MULL_FIELD(struct dimm, size),
    MULL_FIELDS_END,
};
static const struct mull_state_desc dimm_desc = {
    .name = "dimm", .version = 1, .oldest = 1, .fields = dimm_fields};

static const struct mull_field fields[] = {
    MULL_FIELD_NESTED_ARRAY(struct mull_hotplug, class, &class_desc),
    MULL_FIELD_NESTED_ARRAY(struct mull_hotplug, dimm, &dimm_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "hotplug", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};

static void destroy(struct mull_device *device)
{
    struct mull_hotplug *h = device->object;

    mull_region_remove(h->region);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

struct mull_device *mull_hotplug_device(struct mull_hotplug *h)
{
    return &h->device;
}

int mull_hotplug_create(const struct mull_device_env *env, const struct mull_hotplug_config *config,
                        struct mull_hotplug **out, struct mull_error *err)
{
    struct mull_hotplug *h = calloc(1, sizeof(*h));

    *out = NULL;
    if (!h)
        return mull_fail(err, ENOMEM, "hot plug: no memory");
    h->device = (struct mull_device){.ops = &ops, .name = "hotplug", .object = h};
    h->config = *config;
    pthread_mutex_init(&h->lock, NULL);
    int code = mull_region_add(env->memory, MULL_SPACE_MMIO, MULL_HOTPLUG_BASE, MULL_HOTPLUG_SIZE,
                               &region_ops, h, "hot plug", &h->region, err);
    if (code < 0) {
        destroy(&h->device);
        return code;
    }
    *out = h;
    return 0;
}
