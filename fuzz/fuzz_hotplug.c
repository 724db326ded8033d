/*
 * Fuzz hot plug: a guest's accesses to its registers and to the general-purpose events, between
 * what the host asks for. Only what was asked for may ever be ejected, and once.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "platform/hotplug.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct hot {
    struct mull_device_env env;
    struct mull_acpi_pm *pm;
    struct mull_hotplug *h;
    uint64_t asked[MULL_HOTPLUG_CLASSES]; /* bit i: i may be ejected */
};

static void on_eject(void *opaque, enum mull_hotplug_class class, unsigned index)
{
    struct hot *t = opaque;

    if (index > 63 || !(t->asked[class] >> index & 1) || mull_hotplug_present(t->h, class, index))
        abort();
    t->asked[class] &= ~(1ull << index);
}

static void no_line(void *opaque, unsigned line, bool level) {}

static void host(struct hot *t, unsigned what, unsigned class_number, unsigned index)
{
    enum mull_hotplug_class class = (enum mull_hotplug_class)(class_number % MULL_HOTPLUG_CLASSES);
    unsigned status;

    switch (what) {
    case 0:
        mull_hotplug_come(t->h, class, index);
        if (index < 64)
            t->asked[class] &= ~(1ull << index);
        break;
    case 1:
        if (index < 64 && mull_hotplug_present(t->h, class, index))
            t->asked[class] |= 1ull << index;
        mull_hotplug_ask(t->h, class, index);
        break;
    case 2:
        if (index < 64)
            t->asked[class] &= ~(1ull << index);
        mull_hotplug_gone(t->h, class, index);
        break;
    default:
        mull_hotplug_set_dimm(t->h, index, (uint64_t)index << 27, (uint64_t) class << 27);
        mull_hotplug_asked(t->h, class, index, &status);
    }
}

static void guest(struct hot *t, bool write, unsigned offset, unsigned size, uint32_t value)
{
    enum mull_space space = offset & 0x8000 ? MULL_SPACE_PORT : MULL_SPACE_MMIO;
    uint64_t at = space == MULL_SPACE_PORT ? MULL_PM_GPE0_PORT + (offset & 3)
                                           : MULL_HOTPLUG_BASE + (offset & 0xfff);

    if (space == MULL_SPACE_PORT && size > 4)
        size = 4;
    if (write)
        mull_space_write(t->env.memory, space, 0, at, size, value * 0x100000001ull);
    else
        mull_space_read(t->env.memory, space, 0, at, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_clock *clock; /* made once: it measures the host's */
    struct hot t = {0};
    struct mull_hotplug_config config = {.opaque = &t, .eject = on_eject};

    if (mull_memory_create(NULL, &t.env.memory, NULL) || mull_loop_create(&t.env.loop, NULL) ||
        (!clock && mull_clock_create(&clock, NULL)))
        abort();
    t.env.clock = clock;
    if (mull_acpi_pm_create(&t.env, (struct mull_irq){.set = no_line}, NULL, NULL, &t.pm, NULL))
        abort();
    config.pm = t.pm;
    if (mull_hotplug_create(&t.env, &config, &t.h, NULL))
        abort();
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t value;
        memcpy(&value, data + 4, 4);
        if (data[0] & 4)
            host(&t, data[0] & 3, data[1], data[2]);
        else
            guest(&t, data[0] & 1, data[1] | (unsigned)data[2] << 8, 1u << (data[3] & 3), value);
    }
    mull_hotplug_device(t.h)->ops->reset(mull_hotplug_device(t.h));
    mull_hotplug_device(t.h)->ops->destroy(mull_hotplug_device(t.h));
    mull_acpi_pm_device(t.pm)->ops->destroy(mull_acpi_pm_device(t.pm));
    mull_loop_destroy(t.env.loop);
    mull_memory_destroy(t.env.memory);
    return 0;
}
