/*
 * What makes vCPUs and memory a PC: one object that owns the interrupt controllers, timers, clocks,
 * PCI root, ACPI and reset logic of one machine, and wires them together. The machine creates it
 * first, gives its bus to the engine, connects the vCPUs, plugs devices in and lets it finish.
 *
 * Order of a machine's making:
 *   mull_platform_create()                  after the memory has its RAM
 *   engine->vm_create() with mull_platform_bus()
 *   engine->vcpu_create() with mull_platform_cpuid() for each vCPU
 *   mull_platform_connect()                 now interrupts can reach the vCPUs
 *   devices: mull_platform_irq(), mull_platform_pci() + mull_pci_bus_attach()
 *   mull_platform_finish()                  BARs assigned, ACPI tables in guest memory
 * and of its end: vCPU threads joined, loop stopped, devices destroyed, mull_platform_destroy(),
 * vCPUs and VM destroyed, loop destroyed.
 */
#ifndef MULL_PLATFORM_PLATFORM_H
#define MULL_PLATFORM_PLATFORM_H

#include <stdint.h>

#include "base/log.h"
#include "base/loop.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "memory/memory.h"
#include "platform/acpi.h"
#include "platform/device.h"
#include "platform/hotplug.h"
#include "platform/irq.h"
#include "platform/pci.h"

/* The map of guest-physical addresses. RAM below 4 GiB ends at MULL_MMIO32_BASE at the latest; the
 * rest of it goes to MULL_RAM_HIGH_BASE. */
#define MULL_ACPI_AREA_BASE 0xe0000ull /* ACPI tables: reserved in the guest's memory map */
#define MULL_ACPI_AREA_SIZE 0x20000ull
#define MULL_RAM_LOW_MAX 0xc0000000ull
/* Firmware for Q35 puts the configuration space at B0000000h: with as much RAM as would come near
 * it, RAM below 4 GiB ends at 2 GiB. */
#define MULL_FIRMWARE_LOW_LIMIT 0xb0000000ull
#define MULL_FIRMWARE_LOW_MAX 0x80000000ull
#define MULL_MMIO32_BASE 0xc0000000ull /* 32-bit BARs */
#define MULL_MMIO32_SIZE 0x20000000ull
#define MULL_ECAM_BASE 0xe0000000ull /* PCI Express configuration space, buses 0..255 */
#define MULL_ECAM_SIZE 0x10000000ull
#define MULL_IOAPIC_BASE 0xfec00000ull
#define MULL_HPET_BASE 0xfed00000ull
#define MULL_LAPIC_BASE 0xfee00000ull
#define MULL_RAM_HIGH_BASE 0x100000000ull

#define MULL_SHADOW_BASE 0xc0000ull /* with firmware: shadow RAM */
#define MULL_SHADOW_SIZE 0x40000ull
#define MULL_FW_CFG_PORT 0x510u

#define MULL_GSI_COUNT 24
#define MULL_ISA_IRQS 16

struct mull_platform;

/** What the guest does to the whole machine. Called from vCPU threads or the loop's thread, with
 *  locks of the platform held: only note it and wake somebody up (mull_loop_post); NULL: ignored.
 */
struct mull_platform_events {
    void *opaque;
    void (*poweroff)(void *opaque); /* ACPI S5 */
    void (*reset)(void *opaque);    /* reset register, keyboard controller, port 92h */
    /* pvpanic: the guest's kernel has crashed; @crash_kernel: it will dump itself and go on. */
    void (*panic)(void *opaque, bool crash_kernel);
    /* The guest has let go of what it was asked for: see struct mull_hotplug_config. */
    void (*eject)(void *opaque, enum mull_hotplug_class class, unsigned index);
};

struct mull_platform_config {
    struct mull_memory *memory;
    struct mull_loop *loop;
    struct mull_clock *clock;
    const struct mull_log *log;
    const struct mull_engine *engine;
    unsigned cpus;      /* 1 to MULL_MAX_CPUS, with those that may come later */
    unsigned cpus_now;  /* how many of them are there at first; 0: all */
    uint64_t dimms;     /* bytes of address space for memory that may come later */
    uint64_t ram_low;   /* bytes of RAM at 0, at most MULL_RAM_LOW_MAX */
    uint64_t ram_high;  /* bytes of RAM at MULL_RAM_HIGH_BASE */
    unsigned com_ports; /* bit i: ACPI says that COM(i + 1) is there; bits 0 and 1 */
    bool firmware;      /* firmware runs first: it assigns BARs and gets the ACPI tables from
                           mull_platform_acpi() */
    bool screen;        /* there are a VGA and a keyboard controller; with firmware always */
    bool tpm;           /* there is a TPM: the ACPI tables say so */
    bool vmware;        /* CPUID names VMware as the hypervisor: for guests with its tools */
    struct mull_platform_events events;
};

/** Create all controllers, regions and the PCI root. @return 0 and *out, owned by the caller, which
 *  outlives the VM; or a negative errno. */
int mull_platform_create(const struct mull_platform_config *config, struct mull_platform **out,
                         struct mull_error *err);

/** Free it. No vCPU runs, the loop does not run. NULL is allowed. */
void mull_platform_destroy(struct mull_platform *p);

/** The bus for engine->vm_create(), valid as long as the platform. Its msr_read and msr_write know
 *  the APIC base, x2APIC, TSC-deadline and KVM paravirtual MSRs (the latter also where the engine
 *  has a local APIC, in case it does not do them itself). irq_pending, irq_accept, cr8_*: see
 *  engine.h. */
const struct mull_engine_bus *mull_platform_bus(struct mull_platform *p);

/** The CPUID table for vCPU @index: engine->cpuid() with APIC ids, topology, hypervisor and timing
 *  leaves put in. Before the vCPU is created. */
int mull_platform_cpuid(struct mull_platform *p, unsigned index, struct mull_cpuid *out,
                        struct mull_error *err);

/** Connect the engine's side: interrupts are signalled to @vcpus[0..cpus) from now on. Before any
 *  vCPU runs. @vm may be NULL for an engine without a local APIC of its own. */
void mull_platform_connect(struct mull_platform *p, struct mull_vm *vm,
                           struct mull_vcpu *const *vcpus);

/** Give calls through a port (engine.h, `call`) to @call; before any vCPU runs. */
void mull_platform_set_call(struct mull_platform *p, uint16_t port, uint32_t magic,
                            void (*call)(void *opaque, uint64_t gpr[16]), void *opaque);

/** A line by its number: 0..15 are the ISA interrupts (both 8259A and I/O APIC; IRQ 0 is pin 2
 *  there), 16..23 only I/O APIC pins. Beyond: an unconnected one. */
struct mull_irq mull_platform_irq(struct mull_platform *p, unsigned gsi);

/** Where message-signalled interrupts go. */
struct mull_msi_sink mull_platform_msi(struct mull_platform *p);

/** The PCI root. */
struct mull_pci_bus *mull_platform_pci(struct mull_platform *p);

/** What comes and goes: mull_hotplug_*(). */
struct mull_hotplug *mull_platform_hotplug(struct mull_platform *p);

/** In which of the PCI root's slots things may come and go (bit i: slot i); before the tables are
 *  written. None unless called. */
void mull_platform_set_slots(struct mull_platform *p, uint32_t slots);

/** Where memory that comes later is to be: p's config.dimms bytes from here on, 1 GiB aligned. */
uint64_t mull_platform_dimm_base(const struct mull_platform *p);

/** What boot code must know of the tables that mull_platform_finish() wrote. */
struct mull_platform_tables {
    uint64_t rsdp;                         /* guest-physical address of the ACPI root pointer */
    uint64_t reserved_base, reserved_size; /* to be reserved in the guest's memory map, with
                                              MULL_ECAM_BASE..+MULL_ECAM_SIZE */
};

/** All devices are there: assign BARs and write the ACPI tables. Also after each reset, because the
 *  guest may have overwritten them. */
int mull_platform_finish(struct mull_platform *p, struct mull_platform_tables *out,
                         struct mull_error *err);

/** With firmware: the ACPI tables for PCI as the firmware has set it up by now. Any thread. */
int mull_platform_acpi(struct mull_platform *p, struct mull_acpi_blobs *out,
                       struct mull_error *err);

/** Preset a byte of CMOS memory: mull_rtc_set_cmos(). Before the machine runs. */
void mull_platform_set_cmos(struct mull_platform *p, unsigned index, uint8_t value);

/** The platform's own devices, a list linked by `next`, for the machine to save, restore, reset,
 *  quiesce and resume with all others (but not to destroy: mull_platform_destroy() does). Local
 *  APICs and KVM paravirtual MSRs travel in struct mull_cpu_state instead. */
struct mull_device *mull_platform_devices(struct mull_platform *p);

/** Press the power button. Any thread. */
void mull_platform_power_button(struct mull_platform *p);

#endif
