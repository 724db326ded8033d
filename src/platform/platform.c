/*
 * The platform: creates the controllers of one machine, routes interrupts between them, and is the
 * bus that engines see. What differs between an engine with and one without its own local APICs is
 * decided here and nowhere else.
 */
#include "platform/platform.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "platform/acpi.h"
#include "platform/acpi_pm.h"
#include "platform/cpuid.h"
#include "platform/hpet.h"
#include "platform/ioapic.h"
#include "platform/kvmpv.h"
#include "platform/lapic.h"
#include "platform/lpc.h"
#include "platform/pic.h"
#include "platform/pit.h"
#include "platform/ports.h"
#include "platform/rtc.h"
#include "platform/vmgenid.h"

#define SCI_IRQ 9u
#define PCI_GSI 16u
#define RESET_PORT 0xcf9u /* a full reset: pci_bus.c */
#define RESET_VALUE 0x0eu
#define PCI_IO_BASE 0xc000u
#define PCI_IO_SIZE 0x3000u
#define MMIO64_SIZE (16ull << 30)

struct mull_platform {
    struct mull_device chipset; /* what belongs to no controller: wiring, local APICs, kvmclock */
    struct mull_device pci_device;
    struct mull_platform_config config;
    struct mull_engine_bus bus;
    void (*call)(void *opaque, uint64_t gpr[16]); /* mull_platform_set_call() */
    void *call_opaque;
    struct mull_vm *vm;
    struct mull_vcpu *vcpu[MULL_MAX_CPUS];
    atomic_bool connected;
    _Atomic uint8_t hpet_legacy; /* the HPET has taken IRQ 0 and IRQ 8 */
    uint64_t level_vectors[4];
    uint64_t mmio64_base;
    uint32_t hotplug_slots;

    struct mull_lapics *lapics; /* NULL: the engine has its own */
    struct mull_kvmpv *kvmpv;
    struct mull_pic *pic;
    struct mull_ioapic *ioapic;
    struct mull_pit *pit;
    struct mull_rtc *rtc;
    struct mull_hpet *hpet;
    struct mull_acpi_pm *pm;
    struct mull_hotplug *hotplug;
    struct mull_vmgenid *vmgenid;
    struct mull_ports *ports;
    struct mull_pci_bus *pci;
    struct mull_lpc *lpc; /* NULL: no firmware */
};

/* ---- Wires ---- */

static void signal(void *opaque, unsigned cpu, enum mull_signal what, unsigned arg)
{
    struct mull_platform *p = opaque;

    if (atomic_load_explicit(&p->connected, memory_order_acquire))
        p->config.engine->vcpu_signal(p->vcpu[cpu], what, arg);
}

static void msi(void *opaque, uint64_t address, uint32_t data)
{
    struct mull_platform *p = opaque;

    if (p->lapics)
        mull_lapics_msi(p->lapics, address, data);
    else if (atomic_load_explicit(&p->connected, memory_order_acquire))
        p->config.engine->msi(p->vm, address, data);
}

static void pic_output(void *opaque, bool level)
{
    struct mull_platform *p = opaque;

    if (p->lapics)
        mull_lapics_lint0(p->lapics, level);
    else if (level)
        signal(p, 0, MULL_SIGNAL_IRQ, 0);
}

static int extint_pending(void *opaque)
{
    return mull_pic_pending(((struct mull_platform *)opaque)->pic);
}

static int extint_accept(void *opaque)
{
    return mull_pic_accept(((struct mull_platform *)opaque)->pic);
}

/* The I/O APIC's set of level-triggered vectors: engines with a local APIC report only their EOIs.
 */
static void level_vectors(void *opaque, const uint64_t vectors[4])
{
    struct mull_platform *p = opaque;

    for (unsigned i = 0; i < 4; i++)
        p->level_vectors[i] = vectors[i];
    if (p->config.engine->eoi_vectors && atomic_load(&p->connected))
        p->config.engine->eoi_vectors(p->vm, p->level_vectors);
}

static void set_pin(void *opaque, unsigned line, bool level)
{
    mull_ioapic_set(((struct mull_platform *)opaque)->ioapic, line, level);
}

/* A PCI line: an I/O APIC pin, and what the ISA bridge routes it to. */
static void set_pci(void *opaque, unsigned line, bool level)
{
    struct mull_platform *p = opaque;

    mull_ioapic_set(p->ioapic, PCI_GSI + line, level);
    if (p->lpc)
        mull_lpc_set(p->lpc, line, level);
}

static void set_isa(void *opaque, unsigned line, bool level)
{
    struct mull_platform *p = opaque;

    if (line == 2) /* the cascade */
        return;
    mull_pic_set(p->pic, line, level);
    mull_ioapic_set(p->ioapic, line == 0 ? 2 : line, level);
}

/* IRQ 0 of the 8254 and IRQ 8 of the RTC, unless the HPET has taken them. */
static void set_timer(void *opaque, unsigned line, bool level)
{
    struct mull_platform *p = opaque;

    if (!atomic_load_explicit(&p->hpet_legacy, memory_order_relaxed))
        set_isa(p, line, level);
}

static void hpet_legacy_mode(void *opaque, bool on)
{
    atomic_store(&((struct mull_platform *)opaque)->hpet_legacy, on);
}

static struct mull_irq wire(struct mull_platform *p, void (*set)(void *, unsigned, bool),
                            unsigned line)
{
    return (struct mull_irq){.set = set, .opaque = p, .line = line};
}

struct mull_irq mull_platform_irq(struct mull_platform *p, unsigned gsi)
{
    if (gsi >= MULL_GSI_COUNT)
        return (struct mull_irq){0};
    return wire(p, gsi < MULL_ISA_IRQS ? set_isa : set_pin, gsi);
}

struct mull_msi_sink mull_platform_msi(struct mull_platform *p)
{
    return (struct mull_msi_sink){.send = msi, .opaque = p};
}

struct mull_pci_bus *mull_platform_pci(struct mull_platform *p)
{
    return p->pci;
}

/* ---- The bus, for an engine without local APICs ---- */

static int soft_irq_pending(void *opaque, unsigned cpu)
{
    return mull_lapic_pending(((struct mull_platform *)opaque)->lapics, cpu);
}

static int soft_irq_accept(void *opaque, unsigned cpu)
{
    struct mull_platform *p = opaque;

    mull_kvmpv_tick(p->kvmpv, cpu);
    return mull_lapic_accept(p->lapics, cpu);
}

static uint8_t soft_cr8_read(void *opaque, unsigned cpu)
{
    return mull_lapic_cr8(((struct mull_platform *)opaque)->lapics, cpu);
}

static void soft_cr8_write(void *opaque, unsigned cpu, uint8_t value)
{
    mull_lapic_set_cr8(((struct mull_platform *)opaque)->lapics, cpu, value);
}

static int soft_msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *value)
{
    struct mull_platform *p = opaque;

    if (mull_lapic_msr_read(p->lapics, cpu, msr, value) == 0)
        return 0;
    return mull_kvmpv_msr_read(p->kvmpv, cpu, msr, value);
}

static int soft_msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    struct mull_platform *p = opaque;

    if (mull_lapic_msr_write(p->lapics, cpu, msr, value) == 0)
        return 0;
    return mull_kvmpv_msr_write(p->kvmpv, cpu, msr, value);
}

static void eoi(void *opaque, uint8_t vector)
{
    mull_ioapic_eoi(((struct mull_platform *)opaque)->ioapic, vector);
}

static void soft_resumed(void *opaque, unsigned cpu)
{
    mull_kvmpv_tick(((struct mull_platform *)opaque)->kvmpv, cpu);
}

static void soft_state_get(void *opaque, unsigned cpu, struct mull_cpu_state *s)
{
    struct mull_platform *p = opaque;

    mull_lapic_state_get(p->lapics, cpu, s);
    mull_kvmpv_state_get(p->kvmpv, cpu, s);
}

static void soft_state_set(void *opaque, unsigned cpu, const struct mull_cpu_state *s)
{
    struct mull_platform *p = opaque;

    mull_lapic_state_set(p->lapics, cpu, s);
    mull_kvmpv_state_set(p->kvmpv, cpu, s);
}

static void soft_cpu_init(void *opaque, unsigned cpu)
{
    struct mull_platform *p = opaque;

    mull_lapic_init(p->lapics, cpu);
    mull_kvmpv_reset(p->kvmpv, cpu);
}

static void soft_tsc_offset(void *opaque, unsigned cpu, uint64_t offset)
{
    struct mull_platform *p = opaque;

    mull_lapic_tsc_offset(p->lapics, cpu, offset);
    mull_kvmpv_tsc_offset(p->kvmpv, cpu, offset);
}

/* ---- The bus, for an engine with local APICs: all of that state is the engine's ---- */

static int hard_irq_pending(void *opaque, unsigned cpu)
{
    return cpu == 0 ? extint_pending(opaque) : -1;
}

static int hard_irq_accept(void *opaque, unsigned cpu)
{
    return cpu == 0 ? extint_accept(opaque) : -1;
}

static uint8_t hard_cr8_read(void *opaque, unsigned cpu)
{
    return 0;
}

static void hard_cr8_write(void *opaque, unsigned cpu, uint8_t value) {}

static int hard_msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *value)
{
    return mull_kvmpv_msr_read(((struct mull_platform *)opaque)->kvmpv, cpu, msr, value);
}

static int hard_msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    return mull_kvmpv_msr_write(((struct mull_platform *)opaque)->kvmpv, cpu, msr, value);
}

static void hard_state_get(void *opaque, unsigned cpu, struct mull_cpu_state *s) {}

static void hard_state_set(void *opaque, unsigned cpu, const struct mull_cpu_state *s) {}

static void hard_cpu_init(void *opaque, unsigned cpu)
{
    mull_kvmpv_reset(((struct mull_platform *)opaque)->kvmpv, cpu);
}

static void hard_tsc_offset(void *opaque, unsigned cpu, uint64_t offset)
{
    mull_kvmpv_tsc_offset(((struct mull_platform *)opaque)->kvmpv, cpu, offset);
}

static struct mull_engine_bus make_bus(struct mull_platform *p)
{
    if (p->lapics)
        return (struct mull_engine_bus){
            .opaque = p,
            .irq_pending = soft_irq_pending,
            .irq_accept = soft_irq_accept,
            .cr8_read = soft_cr8_read,
            .cr8_write = soft_cr8_write,
            .msr_read = soft_msr_read,
            .msr_write = soft_msr_write,
            .eoi = eoi,
            .resumed = soft_resumed,
            .state_get = soft_state_get,
            .state_set = soft_state_set,
            .cpu_init = soft_cpu_init,
            .tsc_offset = soft_tsc_offset,
        };
    return (struct mull_engine_bus){
        .opaque = p,
        .irq_pending = hard_irq_pending,
        .irq_accept = hard_irq_accept,
        .cr8_read = hard_cr8_read,
        .cr8_write = hard_cr8_write,
        .msr_read = hard_msr_read,
        .msr_write = hard_msr_write,
        .eoi = eoi,
        .state_get = hard_state_get,
        .state_set = hard_state_set,
        .cpu_init = hard_cpu_init,
        .tsc_offset = hard_tsc_offset,
    };
}

static void bus_call(void *opaque, unsigned cpu, uint64_t gpr[16])
{
    struct mull_platform *p = opaque;
    p->call(p->call_opaque, gpr);
}

void mull_platform_set_call(struct mull_platform *p, uint16_t port, uint32_t magic,
                            void (*call)(void *opaque, uint64_t gpr[16]), void *opaque)
{
    p->call = call;
    p->call_opaque = opaque;
    p->bus.call_port = port;
    p->bus.call_magic = magic;
    p->bus.call = bus_call;
}

const struct mull_engine_bus *mull_platform_bus(struct mull_platform *p)
{
    return &p->bus;
}

void mull_platform_connect(struct mull_platform *p, struct mull_vm *vm,
                           struct mull_vcpu *const *vcpus)
{
    p->vm = vm;
    for (unsigned i = 0; i < p->config.cpus; i++)
        p->vcpu[i] = vcpus[i];
    atomic_store_explicit(&p->connected, true, memory_order_release);
    if (p->config.engine->eoi_vectors)
        p->config.engine->eoi_vectors(vm, p->level_vectors);
}

int mull_platform_cpuid(struct mull_platform *p, unsigned index, struct mull_cpuid *out,
                        struct mull_error *err)
{
    const struct mull_cpuid_policy policy = {
        .cpus = p->config.cpus,
        .has_lapic = p->config.engine->has_lapic,
        .tsc_hz = mull_clock_tsc_hz(p->config.clock),
        .address_end = p->mmio64_base + MMIO64_SIZE,
        .kvm_features = MULL_KVMPV_FEATURES,
        .vmware = p->config.vmware,
    };
    int code = p->config.engine->cpuid(out, err);

    return code < 0 ? code : mull_cpuid_apply(&policy, index, out, err);
}

/* ---- Life ---- */

static void chipset_reset(struct mull_device *device)
{
    struct mull_platform *p = device->object;

    for (unsigned i = 0; i < p->config.cpus; i++) {
        if (p->lapics)
            mull_lapic_reset(p->lapics, i);
        mull_kvmpv_reset(p->kvmpv, i);
    }
}

static void chipset_resume(struct mull_device *device)
{
    struct mull_platform *p = device->object;

    if (p->lapics) {
        mull_lapics_resume(p->lapics);
        mull_kvmpv_resume(p->kvmpv);
    }
}

static const struct mull_field chipset_fields[] = {
    MULL_FIELD(struct mull_platform, hpet_legacy),
    MULL_FIELDS_END,
};
static const struct mull_state_desc chipset_desc = {
    .name = "chipset", .version = 1, .oldest = 1, .fields = chipset_fields};
static const struct mull_device_ops chipset_ops = {
    .state = &chipset_desc, .reset = chipset_reset, .resume = chipset_resume};

static struct mull_platform *from_pci_device(struct mull_device *device)
{
    return (struct mull_platform *)((char *)device - offsetof(struct mull_platform, pci_device));
}

static void pci_reset(struct mull_device *device)
{
    mull_pci_bus_reset(from_pci_device(device)->pci);
}

static const struct mull_device_ops pci_ops = {.state = &mull_pci_bus_desc, .reset = pci_reset};

struct mull_device *mull_platform_devices(struct mull_platform *p)
{
    return &p->chipset;
}

void mull_platform_power_button(struct mull_platform *p)
{
    mull_acpi_pm_power_button(p->pm);
}

static void call_poweroff(void *opaque)
{
    const struct mull_platform_events *e = &((struct mull_platform *)opaque)->config.events;

    if (e->poweroff)
        e->poweroff(e->opaque);
}

static void call_reset(void *opaque)
{
    const struct mull_platform_events *e = &((struct mull_platform *)opaque)->config.events;

    if (e->reset)
        e->reset(e->opaque);
}

static void call_panic(void *opaque, bool crash_kernel)
{
    const struct mull_platform_events *e = &((struct mull_platform *)opaque)->config.events;

    if (e->panic)
        e->panic(e->opaque, crash_kernel);
}

static void call_eject(void *opaque, enum mull_hotplug_class class, unsigned index)
{
    const struct mull_platform_events *e = &((struct mull_platform *)opaque)->config.events;

    if (e->eject)
        e->eject(e->opaque, class, index);
}

struct mull_hotplug *mull_platform_hotplug(struct mull_platform *p)
{
    return p->hotplug;
}

void mull_platform_set_slots(struct mull_platform *p, uint32_t slots)
{
    p->hotplug_slots = slots;
}

static uint64_t align_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) & ~(to - 1);
}

uint64_t mull_platform_dimm_base(const struct mull_platform *p)
{
    return align_up(MULL_RAM_HIGH_BASE + p->config.ram_high, 1ull << 30);
}

/* Where memory ends, also that which may come. */
static uint64_t memory_end(const struct mull_platform *p)
{
    return p->config.dimms ? mull_platform_dimm_base(p) + p->config.dimms
                           : MULL_RAM_HIGH_BASE + p->config.ram_high;
}

/* vCPUs that are there; firmware waits for so many. */
static unsigned count_cpus(struct mull_platform *p, uint64_t *absent)
{
    unsigned count = 0;

    *absent = 0;
    for (unsigned i = 0; i < p->config.cpus; i++) {
        if (mull_hotplug_present(p->hotplug, MULL_HOTPLUG_CPU, i))
            count++;
        else
            *absent |= 1ull << i;
    }
    return count;
}

/* Sizes of memory where firmware looks for them. */
static void fill_cmos(struct mull_platform *p)
{
    uint64_t low = p->config.ram_low, high = p->config.ram_high;
    uint64_t kib = low > 1 << 20 ? (low - (1 << 20)) >> 10 : 0;
    uint64_t above_16m = low > 16 << 20 ? (low - (16 << 20)) >> 16 : 0;
    uint16_t extended = kib > 0xffff ? 0xffff : (uint16_t)kib;
    uint16_t chunks = above_16m > 0xffff ? 0xffff : (uint16_t)above_16m;

    mull_rtc_set_cmos(p->rtc, 0x15, 640 & 0xff); /* base memory, KiB */
    mull_rtc_set_cmos(p->rtc, 0x16, 640 >> 8);
    for (unsigned reg = 0x17; reg <= 0x30; reg += 0x30 - 0x17) { /* from 1 MiB on, KiB */
        mull_rtc_set_cmos(p->rtc, reg, (uint8_t)extended);
        mull_rtc_set_cmos(p->rtc, reg + 1, (uint8_t)(extended >> 8));
    }
    mull_rtc_set_cmos(p->rtc, 0x34, (uint8_t)chunks); /* from 16 MiB to 4 GiB, 64 KiB each */
    mull_rtc_set_cmos(p->rtc, 0x35, (uint8_t)(chunks >> 8));
    for (unsigned i = 0; i < 3; i++) /* above 4 GiB, 64 KiB each */
        mull_rtc_set_cmos(p->rtc, 0x5b + i, (uint8_t)(high >> (16 + 8 * i)));
}

static int create_timers(struct mull_platform *p, const struct mull_device_env *env,
                         struct mull_error *err)
{
    struct mull_hpet_config hpet = {
        .base = MULL_HPET_BASE,
        .legacy = {wire(p, set_isa, 0), wire(p, set_isa, 8)},
        .msi = mull_platform_msi(p),
        .opaque = p,
        .legacy_mode = hpet_legacy_mode,
    };
    int code;

    for (unsigned i = 0; i < MULL_GSI_COUNT; i++)
        hpet.irq[i] = wire(p, set_pin, i);
    if ((code = mull_pit_create(env, wire(p, set_timer, 0), &p->pit, err)) < 0 ||
        (code = mull_rtc_create(env, wire(p, set_timer, 8), &p->rtc, err)) < 0 ||
        (code = mull_hpet_create(env, &hpet, &p->hpet, err)) < 0)
        return code;
    fill_cmos(p);
    return mull_acpi_pm_create(env, wire(p, set_isa, SCI_IRQ), call_poweroff, p, &p->pm, err);
}

static int create_hotplug(struct mull_platform *p, const struct mull_device_env *env,
                          struct mull_error *err)
{
    const struct mull_hotplug_config config = {.pm = p->pm, .opaque = p, .eject = call_eject};
    unsigned cpus = p->config.cpus_now ? p->config.cpus_now : p->config.cpus;

    int code = mull_hotplug_create(env, &config, &p->hotplug, err);
    for (unsigned i = 0; !code && i < cpus; i++)
        mull_hotplug_there(p->hotplug, MULL_HOTPLUG_CPU, i);
    return code;
}

static int create_interrupts(struct mull_platform *p, struct mull_error *err)
{
    const struct mull_platform_config *c = &p->config;
    const struct mull_pic_config pic = {.memory = c->memory, .opaque = p, .output = pic_output};
    const struct mull_ioapic_config ioapic = {
        .memory = c->memory,
        .base = MULL_IOAPIC_BASE,
        .msi = mull_platform_msi(p),
        .opaque = p,
        .level_vectors = level_vectors,
    };
    const struct mull_lapics_config lapics = {
        .memory = c->memory,
        .loop = c->loop,
        .clock = c->clock,
        .cpus = c->cpus,
        .opaque = p,
        .signal = signal,
        .eoi = eoi,
        .extint_pending = extint_pending,
        .extint_accept = extint_accept,
    };
    int code = 0;

    if (!c->engine->has_lapic)
        code = mull_lapics_create(&lapics, &p->lapics, err);
    if (code < 0 || (code = mull_pic_create(&pic, &p->pic, err)) < 0 ||
        (code = mull_ioapic_create(&ioapic, &p->ioapic, err)) < 0)
        return code;
    return mull_kvmpv_create(c->memory, c->clock, c->cpus, &p->kvmpv, err);
}

static int create_pci(struct mull_platform *p, struct mull_error *err)
{
    struct mull_pci_config config = {
        .memory = p->config.memory,
        .ecam_base = MULL_ECAM_BASE,
        .mmio_base = MULL_MMIO32_BASE,
        .mmio_size = MULL_MMIO32_SIZE,
        .mmio64_base = p->mmio64_base,
        .mmio64_size = MMIO64_SIZE,
        .io_base = PCI_IO_BASE,
        .io_size = PCI_IO_SIZE,
        .msi = mull_platform_msi(p),
        .firmware = p->config.firmware,
        .reset = call_reset,
        .opaque = p,
    };

    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = wire(p, set_pci, i);
    if (p->config.firmware) { /* wherever it likes, outside RAM */
        config.mmio_base = align_up(p->config.ram_low, 1 << 20);
        config.mmio_size = MULL_IOAPIC_BASE - config.mmio_base;
        config.mmio64_base = memory_end(p);
        config.mmio64_size = (1ull << 52) - config.mmio64_base;
    }
    return mull_pci_bus_create(&config, &p->pci, err);
}

static int create_lpc(struct mull_platform *p, struct mull_error *err)
{
    struct mull_lpc_config config = {.memory = p->config.memory};

    for (unsigned i = 3; i < MULL_ISA_IRQS; i++)
        if (i != 8 && i != 13)
            config.isa[i] = wire(p, set_isa, i);
    return mull_lpc_create(&config, p->pci, &p->lpc, err);
}

static void link_devices(struct mull_platform *p)
{
    struct mull_device *const list[] = {
        mull_pic_device(p->pic),     mull_ioapic_device(p->ioapic),
        mull_pit_device(p->pit),     mull_rtc_device(p->rtc),
        mull_hpet_device(p->hpet),   mull_acpi_pm_device(p->pm),
        mull_ports_device(p->ports), &p->pci_device,          mull_hotplug_device(p->hotplug),
        mull_vmgenid_device(p->vmgenid),
    };
    struct mull_device *last = &p->chipset;

    p->chipset = (struct mull_device){.ops = &chipset_ops, .name = "chipset", .object = p};
    p->pci_device = (struct mull_device){.ops = &pci_ops, .name = "pci", .object = p->pci};
    for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        last->next = list[i];
        last = list[i];
    }
    if (p->lpc) {
        last->next = mull_lpc_device(p->lpc);
        last = last->next;
    }
    last->next = NULL;
}

static void destroy_device(struct mull_device *device)
{
    device->ops->destroy(device);
}

void mull_platform_destroy(struct mull_platform *p)
{
    if (!p)
        return;
    /* From the outside in: what drives lines goes before what has them. */
    atomic_store(&p->connected, false);
    if (p->lpc)
        destroy_device(mull_lpc_device(p->lpc));
    p->lpc = NULL;
    mull_pci_bus_destroy(p->pci);
    if (p->vmgenid)
        destroy_device(mull_vmgenid_device(p->vmgenid));
    if (p->hotplug)
        destroy_device(mull_hotplug_device(p->hotplug));
    if (p->ports)
        destroy_device(mull_ports_device(p->ports));
    if (p->pm)
        destroy_device(mull_acpi_pm_device(p->pm));
    if (p->hpet)
        destroy_device(mull_hpet_device(p->hpet));
    if (p->rtc)
        destroy_device(mull_rtc_device(p->rtc));
    if (p->pit)
        destroy_device(mull_pit_device(p->pit));
    if (p->ioapic)
        destroy_device(mull_ioapic_device(p->ioapic));
    if (p->pic)
        destroy_device(mull_pic_device(p->pic));
    mull_lapics_destroy(p->lapics);
    mull_kvmpv_destroy(p->kvmpv);
    free(p);
}

int mull_platform_create(const struct mull_platform_config *config, struct mull_platform **out,
                         struct mull_error *err)
{
    const struct mull_device_env env = {
        .memory = config->memory, .loop = config->loop, .clock = config->clock, .log = config->log};
    int code;

    *out = NULL;
    if (config->cpus < 1 || config->cpus > MULL_MAX_CPUS || config->ram_low > MULL_RAM_LOW_MAX ||
        config->ram_high > 1ull << 45)
        return mull_fail(err, EINVAL, "platform: %u vCPUs (1 to %u are possible), or too much RAM",
                         config->cpus, MULL_MAX_CPUS);
    struct mull_platform *p = calloc(1, sizeof(*p));
    if (!p)
        return mull_fail(err, ENOMEM, "platform: no memory");
    p->config = *config;
    p->mmio64_base = align_up(memory_end(p), 1ull << 30);
    const struct mull_ports_events events = {.opaque = p, .reset = call_reset, .panic = call_panic};
    if ((code = create_interrupts(p, err)) < 0 || (code = create_timers(p, &env, err)) < 0 ||
        (code = create_hotplug(p, &env, err)) < 0 ||
        (code = mull_vmgenid_create(&env, p->pm, &p->vmgenid, err)) < 0 ||
        (code = mull_ports_create(&env, &events, &p->ports, err)) < 0 ||
        (code = create_pci(p, err)) < 0 || (config->firmware && (code = create_lpc(p, err)) < 0)) {
        mull_platform_destroy(p);
        return code;
    }
    p->bus = make_bus(p);
    link_devices(p);
    *out = p;
    return 0;
}

static struct mull_acpi_config acpi_config(struct mull_platform *p)
{
    struct mull_acpi_config acpi = {
        .area_base = MULL_ACPI_AREA_BASE,
        .area_size = MULL_ACPI_AREA_SIZE,
        .cpus = p->config.cpus,
        .com_ports = p->config.com_ports,
        .sci = SCI_IRQ,
        .reset_port = RESET_PORT,
        .reset_value = RESET_VALUE,
        .pvpanic_port = MULL_PVPANIC_PORT,
        .vmgenid_base = MULL_VMGENID_BASE,
        .tpm = p->config.tpm,
        .ecam_base = MULL_ECAM_BASE,
        .mmio32_base = MULL_MMIO32_BASE,
        .mmio32_size = MULL_MMIO32_SIZE,
        .mmio64_base = p->mmio64_base,
        .mmio64_size = MMIO64_SIZE,
        .pc = p->config.screen,
        .hotplug = {.pci_slots = p->hotplug_slots,
                    .cpus = p->config.cpus_now && p->config.cpus_now < p->config.cpus,
                    .dimm_base = mull_platform_dimm_base(p),
                    .dimm_size = p->config.dimms,
                    .ram_low = p->config.ram_low,
                    .ram_high = p->config.ram_high},
    };

    for (unsigned i = 0; i < 4; i++)
        acpi.intx[i] = PCI_GSI + i;
    count_cpus(p, &acpi.hotplug.cpus_absent);
    return acpi;
}

int mull_platform_finish(struct mull_platform *p, struct mull_platform_tables *out,
                         struct mull_error *err)
{
    const struct mull_acpi_config acpi = acpi_config(p);
    uint64_t absent;

    mull_rtc_set_cmos(p->rtc, 0x5f, (uint8_t)(count_cpus(p, &absent) - 1));
    *out = (struct mull_platform_tables){.reserved_base = MULL_ACPI_AREA_BASE,
                                         .reserved_size = MULL_ACPI_AREA_SIZE};
    if (p->config.firmware)
        return 0;
    int code = mull_pci_bus_assign(p->pci, err);

    if (code == 0)
        code = mull_acpi_write(p->config.memory, &acpi, &out->rsdp, err);
    return code;
}

/* Windows for PCI: all between RAM and the I/O APIC but the configuration space, and above 4 GiB
 * what the firmware has used, in whole GiB. */
int mull_platform_acpi(struct mull_platform *p, struct mull_acpi_blobs *out, struct mull_error *err)
{
    struct mull_acpi_config acpi = acpi_config(p);
    uint64_t low = align_up(p->config.ram_low, 1 << 20), ecam = mull_pci_bus_ecam(p->pci);
    uint64_t first, last;

    acpi.pc = true;
    acpi.fw_cfg_port = MULL_FW_CFG_PORT;
    acpi.ecam_base = ecam;
    acpi.mmio32_base = low;
    acpi.mmio32_size = MULL_IOAPIC_BASE - low;
    if (ecam >= low && ecam + MULL_ECAM_SIZE <= MULL_IOAPIC_BASE) {
        acpi.mmio32_size = ecam - low;
        acpi.upper32_base = ecam + MULL_ECAM_SIZE;
        acpi.upper32_size = MULL_IOAPIC_BASE - acpi.upper32_base;
    }
    mull_pci_bus_span(p->pci, MULL_RAM_HIGH_BASE, &first, &last);
    acpi.mmio64_size = 0;
    if (first < last) {
        acpi.mmio64_base = first & ~((1ull << 30) - 1);
        acpi.mmio64_size = align_up(last + 1, 1ull << 30) - acpi.mmio64_base;
    }
    return mull_acpi_build(&acpi, out, err);
}

void mull_platform_set_cmos(struct mull_platform *p, unsigned index, uint8_t value)
{
    mull_rtc_set_cmos(p->rtc, index, value);
}
