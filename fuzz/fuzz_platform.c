/*
 * Fuzz the register blocks of the platform: random accesses to every controller from two vCPUs,
 * with interrupts taken, time passing, timers firing, resets and saved states in between. Time is a
 * paused clock that the input moves, so that a run is the same each time.
 */
#include <stdlib.h>
#include <string.h>

#include "platform/platform.h"

#define CPUS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct mull_vcpu {
    unsigned index;
};

static int fake_cpuid(struct mull_cpuid *table, struct mull_error *err)
{
    table->count = 0;
    return 0;
}

static void fake_signal(struct mull_vcpu *vcpu, enum mull_signal signal, unsigned arg)
{
    if (vcpu->index >= CPUS)
        abort();
}

static int fake_msi(struct mull_vm *vm, uint64_t address, uint32_t data)
{
    return 0;
}

static void fake_eoi_vectors(struct mull_vm *vm, const uint64_t vectors[4]) {}

static const struct mull_engine engines[2] = {
    {.name = "soft", .cpuid = fake_cpuid, .vcpu_signal = fake_signal},
    {.name = "hard",
     .has_lapic = true,
     .cpuid = fake_cpuid,
     .vcpu_signal = fake_signal,
     .msi = fake_msi,
     .eoi_vectors = fake_eoi_vectors},
};

static const uint16_t ports[] = {
    0x20, 0x21, 0xa0, 0xa1,  0x4d0, 0x4d1, 0x40,  0x41,  0x42,  0x43,  0x61,  0x70,  0x71,  0x60,
    0x64, 0x92, 0x80, 0x505, 0x600, 0x602, 0x604, 0x608, 0x620, 0x622, 0xcf8, 0xcf9, 0xcfc, 0xcfe};
static const uint64_t pages[] = {MULL_LAPIC_BASE, MULL_IOAPIC_BASE, MULL_HPET_BASE, MULL_ECAM_BASE};
static const uint32_t msrs[] = {0x1b, 0x6e0, 0x4b564d00, 0x4b564d01, 0x4b564d03, 0x11, 0x12};

struct run {
    struct mull_memory *memory;
    struct mull_loop *loop;
    struct mull_clock *clock;
    struct mull_platform *platform;
    uint64_t now;
};

static void stop(void *opaque)
{
    mull_loop_stop(opaque);
}

static void each(struct run *r, bool reset)
{
    for (struct mull_device *d = mull_platform_devices(r->platform); d; d = d->next) {
        if (reset)
            d->ops->reset(d);
        else if (d->ops->resume)
            d->ops->resume(d);
    }
}

/* Time passes, and what is due fires. */
static void advance(struct run *r, uint64_t ns)
{
    struct mull_timer *last = mull_timer_create(r->loop, stop, r->loop);

    r->now = (r->now + ns) & ((1ull << 62) - 1); /* also back, as a restore may */
    mull_clock_set(r->clock, r->now, r->now * 3);
    each(r, false);
    mull_timer_arm(last, mull_now_ns());
    mull_loop_run(r->loop);
    mull_timer_destroy(last);
}

/* Overwrite a byte of a device's saved fields and load it. */
static void load(struct run *r, unsigned which, uint32_t at, uint8_t value)
{
    struct mull_device *d = mull_platform_devices(r->platform);

    while (which-- && d->next)
        d = d->next;
    for (const struct mull_field *f = d->ops->state->fields; f->name; f++) {
        size_t bytes = (size_t)f->size * f->count;
        if (at >= bytes) {
            at -= (uint32_t)bytes;
            continue;
        }
        /* Not a structure with pointers in it: those are loaded by their own fields. */
        if (f->kind != MULL_FIELD_STRUCT)
            ((uint8_t *)d->object)[f->offset + at] = value;
        break;
    }
    if (d->ops->state->after_load && d->ops->state->after_load(d->object, 1, NULL))
        d->ops->reset(d);
}

/* The canonical state from nowhere, through the bus. */
static void load_cpu(struct run *r, unsigned cpu, uint64_t value, unsigned at)
{
    static struct mull_cpu_state s;
    const struct mull_engine_bus *bus = mull_platform_bus(r->platform);

    memset(&s, 0, sizeof(s));
    bus->state_get(bus->opaque, cpu, &s);
    memcpy(s.lapic + at % (MULL_LAPIC_SIZE - 8), &value, 8);
    if (at & 0x8000)
        s.kvm_system_time = s.kvm_steal_time = value;
    if (at & 0x4000)
        s.apic_base = value;
    s.tsc_deadline = value >> 13;
    bus->state_set(bus->opaque, cpu, &s);
}

/* One step: 12 bytes. */
static void step(struct run *r, const uint8_t *in)
{
    const struct mull_engine_bus *bus = mull_platform_bus(r->platform);
    unsigned cpu = in[1] & 1, width = 1u << (in[1] >> 1 & 3);
    uint16_t at;
    uint64_t value;

    memcpy(&at, in + 2, 2);
    memcpy(&value, in + 4, 8);
    uint16_t port = ports[at % (sizeof(ports) / sizeof(ports[0]))];
    uint64_t address = pages[in[1] >> 4 & 3] + (at & 0xfff);
    uint32_t msr = at & 0x100 ? 0x800 | (at & 0xff) : msrs[at % (sizeof(msrs) / sizeof(msrs[0]))];
    switch (in[0] % 16) {
    case 0:
    case 1:
        mull_space_write(r->memory, MULL_SPACE_PORT, cpu, port, width > 4 ? 4 : width, value);
        break;
    case 2:
        mull_space_read(r->memory, MULL_SPACE_PORT, cpu, port, width > 4 ? 4 : width);
        break;
    case 3:
    case 4:
        mull_space_write(r->memory, MULL_SPACE_MMIO, cpu, address, width, value);
        break;
    case 5:
        mull_space_read(r->memory, MULL_SPACE_MMIO, cpu, address, width);
        break;
    case 6:
    case 7:
        bus->msr_write(bus->opaque, cpu, msr, value);
        break;
    case 8:
        bus->msr_read(bus->opaque, cpu, msr, &value);
        break;
    case 9: {
        int vector = bus->irq_pending(bus->opaque, cpu);
        int taken = bus->irq_accept(bus->opaque, cpu);
        if (vector > 255 || taken > 255 || (vector >= 0 && taken < 0))
            abort(); /* one thread: what was pending can be taken */
        break;
    }
    case 10:
        bus->cr8_write(bus->opaque, cpu, (uint8_t)value);
        bus->eoi(bus->opaque, (uint8_t)(value >> 8));
        break;
    case 11: {
        struct mull_irq irq = mull_platform_irq(r->platform, at & 31);
        mull_irq_set(&irq, value & 1);
        break;
    }
    case 12: {
        struct mull_msi_sink msi = mull_platform_msi(r->platform);
        msi.send(msi.opaque, at & 1 ? value : 0xfee00000 | (value & 0xff00c),
                 (uint32_t)(value >> 32));
        break;
    }
    case 13:
        advance(r, value >> (in[1] & 63));
        break;
    case 14:
        if (value & 1)
            load(r, in[1] >> 4, at, (uint8_t)(value >> 8));
        else
            load_cpu(r, cpu, value >> 1, at);
        break;
    default:
        if (at & 1)
            each(r, true);
        else if (at & 2)
            bus->cpu_init(bus->opaque, cpu);
        else
            bus->tsc_offset(bus->opaque, cpu, value);
        mull_platform_power_button(r->platform);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_clock *clock; /* making one takes 10 ms */
    static struct mull_vcpu vcpu[CPUS] = {{0}, {1}};
    struct mull_vcpu *const vcpus[CPUS] = {&vcpu[0], &vcpu[1]};
    struct mull_platform_config config = {.cpus = CPUS, .ram_low = 2 << 20, .com_ports = 1};
    struct run r = {0};

    if (!clock) {
        if (mull_clock_create(&clock, NULL))
            abort();
        mull_clock_pause(clock);
    }
    if (size < 1 || mull_memory_create(NULL, &r.memory, NULL))
        return 0;
    r.clock = clock;
    mull_clock_set(clock, 0, 0);
    if (mull_loop_create(&r.loop, NULL) ||
        mull_memory_add_ram(r.memory, 0, config.ram_low, false, NULL))
        abort();
    config.memory = r.memory;
    config.loop = r.loop;
    config.clock = clock;
    config.engine = &engines[data[0] & 1];
    if (mull_platform_create(&config, &r.platform, NULL))
        abort();
    mull_platform_connect(r.platform, NULL, vcpus);
    data++;
    size--;
    for (unsigned n = 0; size >= 12 && n < 300; n++, data += 12, size -= 12)
        step(&r, data);
    mull_platform_destroy(r.platform);
    mull_loop_destroy(r.loop);
    mull_memory_destroy(r.memory);
    return 0;
}
