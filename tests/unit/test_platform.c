/* Unit tests of the platform as a whole, over engines that only remember what they are told:
 * wiring, resets and power, and that every controller survives save, load and reset. */
#include "platform_world.h"

#include <errno.h>
#include <pthread.h>

#include "platform/hpet.h"
#include "platform/platform.h"
#include "state/state.h"

#define CPUS 2

static struct world world;
static struct mull_platform *platform;
static _Atomic unsigned signals[CPUS];
static uint64_t eoi_vectors[4];
static struct {
    unsigned poweroff, reset, panic;
    bool crash_kernel;
} events;

struct mull_vcpu {
    unsigned index;
};

static int fake_cpuid(struct mull_cpuid *table, struct mull_error *err)
{
    table->count = 1;
    table->entry[0] = (struct mull_cpuid_entry){.leaf = 1};
    return 0;
}

static void fake_signal(struct mull_vcpu *vcpu, enum mull_signal signal, unsigned arg)
{
    signals[vcpu->index] |= signal;
}

static int fake_msi(struct mull_vm *vm, uint64_t address, uint32_t data)
{
    world_msi(&world, address, data);
    return 0;
}

static void fake_eoi_vectors(struct mull_vm *vm, const uint64_t vectors[4])
{
    memcpy(eoi_vectors, vectors, sizeof(eoi_vectors));
}

static const struct mull_engine soft = {
    .name = "soft", .cpuid = fake_cpuid, .vcpu_signal = fake_signal};
static const struct mull_engine hard = {
    .name = "hard",
    .has_lapic = true,
    .cpuid = fake_cpuid,
    .vcpu_signal = fake_signal,
    .msi = fake_msi,
    .eoi_vectors = fake_eoi_vectors,
};

static void on_poweroff(void *opaque)
{
    events.poweroff++;
}

static void on_reset(void *opaque)
{
    events.reset++;
}

static void on_panic(void *opaque, bool crash_kernel)
{
    events.panic++;
    events.crash_kernel = crash_kernel;
}

static void make(const struct mull_engine *engine)
{
    static struct mull_vcpu vcpu[CPUS] = {{0}, {1}};
    struct mull_vcpu *const vcpus[CPUS] = {&vcpu[0], &vcpu[1]};
    struct mull_platform_config config = {
        .engine = engine,
        .cpus = CPUS,
        .ram_low = 64 << 20,
        .com_ports = 1,
        .events = {.poweroff = on_poweroff, .reset = on_reset, .panic = on_panic},
    };

    world_make(&world);
    signals[0] = signals[1] = 0;
    memset(&events, 0, sizeof(events));
    config.memory = world.env.memory;
    config.loop = world.env.loop;
    config.clock = world.env.clock;
    assert_int_equal(mull_memory_add_ram(world.env.memory, 0, config.ram_low, false, NULL), 0);
    assert_int_equal(mull_platform_create(&config, &platform, NULL), 0);
    mull_platform_connect(platform, NULL, vcpus);
}

static int setup_soft(void **state)
{
    make(&soft);
    *state = &world;
    return 0;
}

static int setup_hard(void **state)
{
    make(&hard);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    mull_platform_destroy(platform);
    world_free(&world);
    return 0;
}

static void ioapic_entry(struct world *w, unsigned pin, uint32_t value)
{
    world_write(w, MULL_IOAPIC_BASE, 4, 0x10 + 2 * pin);
    world_write(w, MULL_IOAPIC_BASE + 0x10, 4, value);
}

static void pulse(unsigned gsi)
{
    struct mull_irq irq = mull_platform_irq(platform, gsi);

    mull_irq_set(&irq, true);
    mull_irq_set(&irq, false);
}

static void init_pics(struct world *w)
{
    static const uint16_t out[][2] = {{0x20, 0x11}, {0x21, 0x30}, {0x21, 4}, {0x21, 1}, {0x21, 0},
                                      {0xa0, 0x11}, {0xa1, 0x38}, {0xa1, 2}, {0xa1, 1}, {0xa1, 0}};

    for (unsigned i = 0; i < sizeof(out) / sizeof(out[0]); i++)
        world_out(w, out[i][0], 1, out[i][1]);
}

static void test_wiring_soft(void **state)
{
    struct world *w = *state;
    const struct mull_engine_bus *bus = mull_platform_bus(platform);
    void *o = bus->opaque;

    /* The 8259A reaches the boot processor until LINT0 is masked. */
    init_pics(w);
    pulse(4);
    assert_int_equal(signals[0], MULL_SIGNAL_IRQ);
    assert_int_equal(signals[1], 0);
    assert_int_equal(bus->irq_pending(o, 0), 0x34);
    assert_int_equal(bus->irq_pending(o, 1), -1);
    assert_int_equal(bus->irq_accept(o, 0), 0x34);
    world_out(w, 0x20, 1, 0x20);
    world_out(w, 0x21, 1, 0xff);
    world_out(w, 0xa1, 1, 0xff);

    /* The I/O APIC: ISA lines, IRQ 0 on pin 2, pins 16 and up. */
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, MULL_LAPIC_BASE + 0xf0, 4, 0x1ff);
    ioapic_entry(w, 4, 0x44);
    ioapic_entry(w, 2, 0x42);
    ioapic_entry(w, 17, 0x8051);
    pulse(4);
    assert_int_equal(bus->irq_accept(o, 0), 0x44);
    pulse(2);
    assert_int_equal(bus->irq_pending(o, 0), -1); /* ISA 2 is the cascade */
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, MULL_LAPIC_BASE + 0xb0, 4, 0);
    struct mull_irq level = mull_platform_irq(platform, 17);
    mull_irq_set(&level, true);
    assert_int_equal(bus->irq_accept(o, 0), 0x51);
    assert_int_equal(bus->irq_pending(o, 0), -1);
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, MULL_LAPIC_BASE + 0xb0, 4, 0);
    assert_int_equal(bus->irq_accept(o, 0), 0x51); /* the EOI went to the I/O APIC */
    mull_irq_set(&level, false);
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, MULL_LAPIC_BASE + 0xb0, 4, 0);
    struct mull_irq none = mull_platform_irq(platform, 24);
    mull_irq_set(&none, true);

    struct mull_msi_sink msi = mull_platform_msi(platform);
    msi.send(msi.opaque, 0xfee00000, 0x61);
    assert_int_equal(bus->irq_accept(o, 0), 0x61);
    bus->cr8_write(o, 0, 9);
    assert_int_equal(bus->cr8_read(o, 0), 9);

    uint64_t value;
    assert_int_equal(bus->msr_read(o, 1, 0x1b, &value), 0);
    assert_int_equal(value, 0xfee00800);
    assert_int_equal(bus->msr_read(o, 0, 0x4b564d01, &value), 0);
    assert_int_equal(bus->msr_read(o, 0, 0x12345, &value), -1);
}

static void test_wiring_hard(void **state)
{
    struct world *w = *state;
    const struct mull_engine_bus *bus = mull_platform_bus(platform);

    init_pics(w);
    pulse(4);
    assert_int_equal(signals[0], MULL_SIGNAL_IRQ);
    assert_int_equal(bus->irq_pending(bus->opaque, 1), -1);
    assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x34);
    ioapic_entry(w, 17, 0x8051);
    assert_true(eoi_vectors[1] == 1ull << 17);
    struct mull_irq level = mull_platform_irq(platform, 17);
    mull_irq_set(&level, true);
    assert_int_equal(w->msis, 1);
    assert_true(w->msi_address == 0xfee00000 && w->msi_data == 0xc051);
    bus->eoi(bus->opaque, 0x51);
    assert_int_equal(w->msis, 2);
}

/* The HPET takes IRQ 0 from the 8254 and gives it back. */
static void test_legacy_replacement(void **state)
{
    struct world *w = *state;
    const struct mull_engine_bus *bus = mull_platform_bus(platform);
    struct mull_device *pit = NULL, *hpet = NULL;

    for (struct mull_device *d = mull_platform_devices(platform); d; d = d->next) {
        pit = strcmp(d->name, "pit") == 0 ? d : pit;
        hpet = strcmp(d->name, "hpet") == 0 ? d : hpet;
    }
    init_pics(w);
    world_write(w, MULL_HPET_BASE + 0x10, 4, 2);
    world_out(w, 0x43, 1, 0x34); /* 1000 Hz */
    world_out(w, 0x40, 1, 1193 & 0xff);
    world_out(w, 0x40, 1, 1193 >> 8);
    world_advance(w, pit, 1100000);
    assert_int_equal(bus->irq_pending(bus->opaque, 0), -1);
    world_write(w, MULL_HPET_BASE + 0x100, 4, 4);
    world_write(w, MULL_HPET_BASE + 0x108, 8, 100);
    world_write(w, MULL_HPET_BASE + 0x10, 4, 3);
    world_advance(w, hpet, 1101000);
    assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x30);
    world_out(w, 0x20, 1, 0x20);
    world_write(w, MULL_HPET_BASE + 0x10, 4, 0);
    world_advance(w, pit, 3000000);
    assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x30);
}

static void test_power(void **state)
{
    struct world *w = *state;

    world_out(w, 0x604, 2, 5 << 10 | 1 << 13);
    assert_int_equal(events.poweroff, 1);
    world_out(w, 0xcf9, 1, 0x0e);
    assert_int_equal(events.reset, 1);
    world_out(w, 0x92, 1, 3);
    assert_int_equal(events.reset, 2);
    world_out(w, 0x92, 1, 3); /* no edge */
    assert_int_equal(events.reset, 2);
    assert_int_equal(world_in(w, 0x505, 1), 3);
    world_out(w, 0x505, 1, 0);
    assert_int_equal(events.panic, 0);
    world_out(w, 0x505, 1, 2);
    assert_true(events.panic == 1 && events.crash_kernel);
    world_out(w, 0x505, 1, 1);
    assert_true(events.panic == 2 && !events.crash_kernel);

    world_out(w, 0x80, 1, 0x42);
    assert_int_equal(world_in(w, 0x80, 1), 0x42);

    world_out(w, 0x602, 2, 0x100);
    ioapic_entry(w, 9, 0x8039);
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, MULL_LAPIC_BASE + 0xf0, 4, 0x1ff);
    mull_platform_power_button(platform);
    const struct mull_engine_bus *bus = mull_platform_bus(platform);
    assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x39);
}

static void test_finish(void **state)
{
    struct world *w = *state;
    struct mull_platform_tables tables;
    struct mull_cpuid cpuid;
    char signature[8];

    assert_int_equal(mull_platform_finish(platform, &tables, NULL), 0);
    assert_int_equal(mull_mem_read(w->env.memory, tables.rsdp, signature, 8), 0);
    assert_memory_equal(signature, "RSD PTR ", 8);
    assert_true(tables.rsdp >= tables.reserved_base &&
                tables.rsdp < tables.reserved_base + tables.reserved_size);
    assert_int_equal(world_read(w, MULL_ECAM_BASE, 4), 0x29c08086);
    assert_int_equal(mull_platform_cpuid(platform, 1, &cpuid, NULL), 0);
    assert_int_equal(cpuid.entry[0].ebx >> 24, 1);
    world_out(w, 0x70, 1, 0x34);
    assert_int_equal(world_in(w, 0x71, 1), 0); /* 48 MiB above 16 MiB: 300h chunks */
    world_out(w, 0x70, 1, 0x35);
    assert_int_equal(world_in(w, 0x71, 1), 3);
}

/* Each device: its fields described, unique by name, and able to be reset, resumed and loaded. */
static void test_devices(void **state)
{
    struct world *w = *state;
    unsigned count = 0;

    for (struct mull_device *d = mull_platform_devices(platform); d; d = d->next, count++) {
        assert_non_null(d->ops->state);
        assert_non_null(d->ops->reset);
        assert_true(d->name[0]);
        for (struct mull_device *e = d->next; e; e = e->next)
            assert_string_not_equal(d->name, e->name);
        d->ops->reset(d);
        if (d->ops->state->before_save)
            d->ops->state->before_save(d->object);
        if (d->ops->state->after_load)
            assert_int_equal(d->ops->state->after_load(d->object, 1, NULL), 0);
        if (d->ops->resume)
            d->ops->resume(d);
    }
    assert_int_equal(count, 11);
    world_drain(w);
}

static struct mull_state_writer *save_all(void)
{
    struct mull_state_writer *writer;

    assert_int_equal(mull_state_writer_buffer(&writer, NULL), 0);
    for (struct mull_device *d = mull_platform_devices(platform); d; d = d->next)
        assert_int_equal(mull_state_write(writer, d->name, 0, d->ops->state, d->object, NULL), 0);
    assert_int_equal(mull_state_write_end(writer, NULL), 0);
    return writer;
}

static void load_all(const uint8_t *data, size_t size)
{
    struct mull_state_reader *reader;
    struct mull_state_section section;

    assert_int_equal(mull_state_reader_buffer(data, size, &reader, NULL), 0);
    for (struct mull_device *d = mull_platform_devices(platform); d; d = d->next) {
        assert_int_equal(mull_state_next(reader, &section, NULL), 1);
        assert_string_equal(section.name, d->name);
        struct mull_error err = {0};
        mull_state_read(reader, d->ops->state, d->object, &err);
        assert_string_equal(err.message, "");
    }
    mull_state_reader_destroy(reader);
    for (struct mull_device *d = mull_platform_devices(platform); d; d = d->next)
        if (d->ops->resume)
            d->ops->resume(d);
}

/* Busy controllers are saved; a fresh platform that loads them saves the same, and goes on: the
 * timers fire when they would have, interrupts in flight arrive. */
static void test_save_and_load(void **state)
{
    struct world *w = *state;
    size_t size, again_size;
    struct mull_cpu_state cpu = {0};

    world_set_time(w, 1000000);
    init_pics(w);
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, MULL_LAPIC_BASE + 0xf0, 4, 0x1ff);
    ioapic_entry(w, 17, 0x8051);
    ioapic_entry(w, 20, 0x61);
    struct mull_irq level = mull_platform_irq(platform, 17);
    mull_irq_set(&level, true);
    pulse(4);
    world_out(w, 0x43, 1, 0x34); /* 100 Hz */
    world_out(w, 0x40, 1, 11932 & 0xff);
    world_out(w, 0x40, 1, 11932 >> 8);
    world_out(w, 0x61, 1, 1);
    world_write(w, MULL_HPET_BASE + 0x120, 4, 20 << 9 | 4);
    world_write(w, MULL_HPET_BASE + 0x128, 8, 200000); /* 2 ms after the counter starts */
    world_write(w, MULL_HPET_BASE + 0x10, 4, 1);
    world_out(w, 0x70, 1, 0x8b);
    world_out(w, 0x602, 2, 0x101);
    world_out(w, 0x92, 1, 0); /* A20 off */
    world_out(w, 0xcf8, 4, 0x80000010);
    const struct mull_engine_bus *bus = mull_platform_bus(platform);
    bus->state_get(bus->opaque, 0, &cpu);
    struct mull_state_writer *writer = save_all();
    const uint8_t *data = mull_state_writer_data(writer, &size);

    teardown(state);
    make(&soft);
    world_set_time(w, 1000000);
    assert_true(mull_memory_a20(w->env.memory));
    load_all(data, size);
    assert_false(mull_memory_a20(w->env.memory));
    assert_int_equal(world_in(w, 0x92, 1), 0);
    /* One thing is new by design: the generation ID's event. */
    assert_int_equal(world_in(w, MULL_PM_GPE0_PORT + 1, 1), 1);
    world_out(w, MULL_PM_GPE0_PORT + 1, 1, 1);
    bus = mull_platform_bus(platform);
    bus->state_set(bus->opaque, 0, &cpu);
    struct mull_state_writer *again = save_all();
    const uint8_t *copy = mull_state_writer_data(again, &again_size);
    assert_int_equal(size, again_size);
    assert_memory_equal(data, copy, size);
    mull_state_writer_destroy(writer);
    mull_state_writer_destroy(again);

    assert_int_equal(world_in(w, 0xcf8, 4), 0x80000010);
    assert_int_equal(world_in(w, 0x70, 1), 0x8b);
    assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x30); /* the 8254's output went up */
    world_out(w, 0x20, 1, 0x20);
    assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x34); /* the 8259A's */
    assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x51); /* in the local APIC's IRR */
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, MULL_LAPIC_BASE + 0xb0, 4, 0);
    assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x51); /* the line is still up */
    level = mull_platform_irq(platform, 17);
    mull_irq_set(&level, false);
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, MULL_LAPIC_BASE + 0xb0, 4, 0);
    for (struct mull_device *d = mull_platform_devices(platform); d; d = d->next)
        if (strcmp(d->name, "hpet") == 0) {
            world_advance(w, d, 2999999);
            assert_int_equal(bus->irq_pending(bus->opaque, 0), -1);
            world_advance(w, d, 3000000);
            assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x61);
        }
    world_out(w, 0x20, 1, 0x20);
    for (struct mull_device *d = mull_platform_devices(platform); d; d = d->next)
        if (strcmp(d->name, "pit") == 0) {
            world_advance(w, d, 10900000);
            assert_int_equal(bus->irq_pending(bus->opaque, 0), -1);
            world_advance(w, d, 11100000);
            assert_int_equal(bus->irq_accept(bus->opaque, 0), 0x30);
        }
}

/* Several vCPUs, a device and the loop at once, on everything: for the sanitizers, and against
 * deadlocks. Each thread's accesses are the same in each run. */
static void *hammer(void *opaque)
{
    static const uint64_t pages[] = {MULL_LAPIC_BASE, MULL_IOAPIC_BASE, MULL_HPET_BASE};
    static const uint16_t ports[] = {0x20, 0x21, 0xa0,  0xa1,  0x40,  0x43,  0x61,  0x70,  0x71,
                                     0x64, 0x60, 0x600, 0x602, 0x608, 0xcf8, 0xcfc, 0x4d0, 0x620};
    unsigned cpu = (unsigned)(uintptr_t)opaque;
    const struct mull_engine_bus *bus = mull_platform_bus(platform);
    uint64_t seed = 88172645463325252u + cpu;
    uint64_t value;

    for (unsigned i = 0; i < 20000; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        uint64_t address = pages[seed % 3] + (seed >> 8 & 0x3f0);
        uint16_t port = ports[(seed >> 20) % 18];
        struct mull_irq irq = mull_platform_irq(platform, seed >> 30 & 31);
        struct mull_msi_sink msi = mull_platform_msi(platform);
        switch (seed >> 40 & 7) {
        case 0:
            mull_space_write(world.env.memory, MULL_SPACE_MMIO, cpu, address, 4, seed >> 32);
            break;
        case 1:
            mull_space_read(world.env.memory, MULL_SPACE_MMIO, cpu, address, 4);
            break;
        case 2:
            mull_space_write(world.env.memory, MULL_SPACE_PORT, cpu, port, 1, seed >> 32);
            break;
        case 3:
            mull_space_read(world.env.memory, MULL_SPACE_PORT, cpu, port, 1);
            break;
        case 4:
            mull_irq_set(&irq, seed >> 50 & 1);
            break;
        case 5:
            msi.send(msi.opaque, 0xfee00000 | (seed & 0xff00c), (uint32_t)(seed >> 32) & 0x1ff);
            break;
        case 6:
            if (bus->irq_pending(bus->opaque, cpu) >= 0)
                bus->irq_accept(bus->opaque, cpu);
            break;
        default:
            bus->msr_read(bus->opaque, cpu, 0x1b, &value);
            bus->msr_write(bus->opaque, cpu, 0x6e0, seed >> 20);
            bus->cr8_write(bus->opaque, cpu, seed >> 33 & 3);
        }
    }
    return NULL;
}

static void *run_loop(void *opaque)
{
    mull_loop_run(opaque);
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t cpu[CPUS], loop;

    mull_clock_resume(world.env.clock);
    assert_int_equal(pthread_create(&loop, NULL, run_loop, world.env.loop), 0);
    for (uintptr_t i = 0; i < CPUS; i++)
        assert_int_equal(pthread_create(&cpu[i], NULL, hammer, (void *)i), 0);
    for (unsigned i = 0; i < 2000; i++)
        mull_platform_power_button(platform);
    for (unsigned i = 0; i < CPUS; i++)
        pthread_join(cpu[i], NULL);
    mull_loop_stop(world.env.loop);
    pthread_join(loop, NULL);
    assert_int_equal(world_read(&world, MULL_ECAM_BASE, 4), 0x29c08086);
}

static void test_limits(void **state)
{
    struct mull_platform_config config = {.engine = &soft, .cpus = MULL_MAX_CPUS + 1};
    struct mull_platform *p;
    struct mull_error err = {0};

    assert_int_equal(mull_platform_create(&config, &p, &err), -EINVAL);
    assert_null(p);
    mull_platform_destroy(NULL);
}

int main(void)
{
#define T(name, with) cmocka_unit_test_setup_teardown(name, setup_##with, teardown)
    const struct CMUnitTest tests[] = {
        T(test_wiring_soft, soft), T(test_wiring_hard, hard),     T(test_legacy_replacement, soft),
        T(test_power, soft),       T(test_finish, soft),          T(test_finish, hard),
        T(test_devices, soft),     T(test_devices, hard),         T(test_save_and_load, soft),
        T(test_threads, soft),     cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests_name("platform", tests, NULL, NULL);
}
