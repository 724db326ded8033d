/*
 * The engine interface: what runs vCPUs. One implementation uses /dev/kvm, one translates; both
 * load from and store to struct mull_cpu_state. An engine knows guest memory and CPUs; what lies
 * around a CPU (interrupt controllers, machine-specific MSRs) it reaches through struct
 * mull_engine_bus, which the platform provides.
 */
#ifndef MULL_ENGINE_ENGINE_H
#define MULL_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "engine/clock.h"
#include "engine/cpu_state.h"
#include "memory/memory.h"

#define MULL_MAX_CPUS 64

struct mull_vm;   /* an engine's side of one machine */
struct mull_vcpu; /* an engine's vCPU */

/** What the platform gives an engine. Called from vCPU threads unless said otherwise. */
struct mull_engine_bus {
    void *opaque;

    /* Engines without a local APIC of their own (soft) use these four; an engine with one (kvm)
     * uses irq_pending/irq_accept for the 8259's ExtINT only. */

    /* The vector that would be delivered now (priority and TPR considered, RFLAGS.IF not), or -1.
     * Changes nothing; cheap: no lock, no system call. */
    int (*irq_pending)(void *opaque, unsigned cpu);
    /* The interrupt acknowledge: take the vector (IRR to ISR, or the 8259's INTA); -1: gone. */
    int (*irq_accept)(void *opaque, unsigned cpu);
    uint8_t (*cr8_read)(void *opaque, unsigned cpu);
    void (*cr8_write)(void *opaque, unsigned cpu, uint8_t value);

    /* MSRs that the engine does not implement itself: APIC base, x2APIC, TSC deadline, KVM
     * paravirtual. @return 0, or -1: the guest gets #GP. */
    int (*msr_read)(void *opaque, unsigned cpu, uint32_t msr, uint64_t *value);
    int (*msr_write)(void *opaque, unsigned cpu, uint32_t msr, uint64_t value);

    /* An engine with its own local APIC reports an EOI that I/O APICs must see. */
    void (*eoi)(void *opaque, uint8_t vector);

    /* Before a vCPU resumes after it did not run (steal time, pvclock update); may be NULL. */
    void (*resumed)(void *opaque, unsigned cpu);

    /* Canonical state that lives in the platform (lapic[], apic_base, cr8, tsc_deadline, kvm_*):
     * called by vcpu_get (store into *s) and vcpu_set (load from it). */
    void (*state_get)(void *opaque, unsigned cpu, struct mull_cpu_state *s);
    void (*state_set)(void *opaque, unsigned cpu, const struct mull_cpu_state *s);
    /* INIT reached this CPU: reset the platform's part of it. */
    void (*cpu_init)(void *opaque, unsigned cpu);
    /* The guest wrote TSC or TSC_ADJUST: this CPU's tsc_offset is new (TSC deadlines, pvclock). From
     * the vCPU's own thread; not needed after state_set. */
    void (*tsc_offset)(void *opaque, unsigned cpu, uint64_t offset);

    /* Calls by VMware's convention (device/vmware/tools.h): an IN of 32 bits from call_port with
     * call_magic in EAX, from any privilege, changes the general registers (by MULL_RAX, ...).
     * NULL: there are none, it is a port like others. */
    uint16_t call_port;
    uint32_t call_magic;
    void (*call)(void *opaque, unsigned cpu, uint64_t gpr[16]);
};

/** One CPUID leaf. `subleaf` counts where `indexed`. */
struct mull_cpuid_entry {
    uint32_t leaf, subleaf;
    bool indexed;
    uint32_t eax, ebx, ecx, edx;
};
#define MULL_CPUID_MAX 128
struct mull_cpuid {
    unsigned count;
    struct mull_cpuid_entry entry[MULL_CPUID_MAX];
};

/** Who wants to know where translated code is: for profilers. */
struct mull_code_trace {
    void *opaque;
    /** Translated code of the guest code at the linear address @guest, or of nothing in the guest
     *  (UINT64_MAX), is in [host, host + size) from now on. @kind: a word for it. vCPU threads, one
     *  at a time. */
    void (*translated)(void *opaque, const void *host, size_t size, uint64_t guest,
                       const char *kind);
};

struct mull_vm_config {
    struct mull_memory *memory;
    struct mull_clock *clock;
    const struct mull_engine_bus *bus; /* must outlive the VM */
    const struct mull_log *log;
    unsigned cpus;
    uint64_t code_cache; /* soft: bytes for translations; 0: the engine's choice */
    const struct mull_code_trace *trace; /* soft; NULL: nobody; else must outlive the VM */
};

/** Why vcpu_run() came back. */
enum mull_exit_reason {
    MULL_EXIT_STOPPED,  /* MULL_SIGNAL_STOP */
    MULL_EXIT_SHUTDOWN, /* triple fault: the machine resets or stops */
    MULL_EXIT_DEBUG,    /* a debugger's breakpoint or step */
    MULL_EXIT_FAILED,   /* the engine cannot go on: message says why */
};

/* ---- For a debugger outside of the guest ---- */

#define MULL_DEBUG_POINTS 64

enum mull_debug_kind {
    MULL_DEBUG_EXEC,   /* before the instruction at the address */
    MULL_DEBUG_WRITE,  /* after an instruction that wrote there */
    MULL_DEBUG_READ,   /* ... that read */
    MULL_DEBUG_ACCESS, /* ... that did either */
};

/** A place to stop at. The guest does not see it. */
struct mull_debug_point {
    enum mull_debug_kind kind;
    bool hardware;    /* EXEC: with a debug register where the engine distinguishes */
    uint64_t address; /* linear */
    uint32_t length;  /* bytes; EXEC: ignored */
};

/** What a vCPU must stop for. */
struct mull_debug {
    bool step; /* after one instruction; no interrupt is taken before it unless it waits for one */
    unsigned count;
    struct mull_debug_point point[MULL_DEBUG_POINTS];
};

/** What a vCPU has stopped for (MULL_EXIT_DEBUG). */
struct mull_debug_hit {
    bool step;                     /* one instruction is done; else: */
    struct mull_debug_point point; /* this point was met */
};

struct mull_exit {
    enum mull_exit_reason reason;
    struct mull_error error;
    struct mull_debug_hit debug;
};

/** Asynchronous events for a vCPU; any thread may send them, at any time. */
enum mull_signal {
    MULL_SIGNAL_IRQ = 1,  /* irq_pending() may have changed: look again */
    MULL_SIGNAL_NMI = 2,
    MULL_SIGNAL_INIT = 4, /* reset the CPU into wait-for-SIPI */
    MULL_SIGNAL_SIPI = 8, /* arg: the vector; ignored unless the CPU waits for it */
    MULL_SIGNAL_STOP = 16, /* come back from vcpu_run() */
};

/** What an engine can say of itself without making a machine. */
struct mull_engine_report {
    bool available;
    char why[256];        /* why not, or what is special here */
    double kernel_mips;   /* measured kernel-mode speed, 0: not measured */
    double user_mips;     /* measured user-mode speed, 0: not measured */
    double exit_us;       /* measured cost of one exit to the host */
};

struct mull_engine {
    const char *name;    /* "soft", "kvm" */
    bool has_lapic;      /* the engine emulates local APICs itself */

    /** Is it there, and how fast is it? @measure runs a micro-guest of at most a few ms. */
    void (*probe)(bool measure, struct mull_engine_report *report);

    /** The CPUID leaves that the engine can stand behind, before topology and hypervisor leaves
     *  are put in by the platform. */
    int (*cpuid)(struct mull_cpuid *table, struct mull_error *err);

    int (*vm_create)(const struct mull_vm_config *config, struct mull_vm **out,
                     struct mull_error *err);
    void (*vm_destroy)(struct mull_vm *vm);

    /** Engines with a local APIC: deliver a message-signalled interrupt. Others: NULL. */
    int (*msi)(struct mull_vm *vm, uint64_t address, uint32_t data);
    /** Engines with a local APIC: what the I/O APIC must know of EOIs: vectors of level-triggered
     *  entries. NULL where not needed. @vectors: 256 bits. */
    void (*eoi_vectors)(struct mull_vm *vm, const uint64_t vectors[4]);

    int (*vcpu_create)(struct mull_vm *vm, unsigned index, const struct mull_cpuid *cpuid,
                       struct mull_vcpu **out, struct mull_error *err);
    void (*vcpu_destroy)(struct mull_vcpu *vcpu);

    /** Run until *exit says why not. Halting, MMIO, port I/O and interrupts happen inside. Always
     *  from the same thread, the vCPU's own. */
    void (*vcpu_run)(struct mull_vcpu *vcpu, struct mull_exit *exit);
    void (*vcpu_signal)(struct mull_vcpu *vcpu, enum mull_signal signal, unsigned arg);

    /** State in and out. From the vCPU's thread, or while it is not in vcpu_run(). */
    int (*vcpu_get)(struct mull_vcpu *vcpu, struct mull_cpu_state *state, struct mull_error *err);
    int (*vcpu_set)(struct mull_vcpu *vcpu, const struct mull_cpu_state *state,
                    struct mull_error *err);

    /** Stop at these places from the next vcpu_run() on, instead of those given before (NULL: none).
     *  All vCPUs of a VM must get the same points, while none of them is in vcpu_run(). A vCPU that
     *  is at an EXEC point when it is told to run reports it at once.
     *  @return 0; -ENOSPC: more points than the engine has; or another negative errno */
    int (*vcpu_debug)(struct mull_vcpu *vcpu, const struct mull_debug *debug,
                      struct mull_error *err);

    /** The physical address behind a linear one, by the vCPU's page tables, without side effects.
     *  While it is not in vcpu_run(). @return false: not mapped */
    bool (*vcpu_translate)(struct mull_vcpu *vcpu, uint64_t va, uint64_t *gpa);

    /** Numbers for `mullion stats` and benches: name and value pairs until name is NULL. */
    unsigned (*vcpu_stats)(struct mull_vcpu *vcpu, const char **names, uint64_t *values,
                           unsigned max);
};

extern const struct mull_engine mull_engine_soft;
extern const struct mull_engine mull_engine_kvm;

/** All engines of this build, NULL at the end; the preferred one first. */
extern const struct mull_engine *const mull_engines[];

/**
 * Find an engine by name. "auto" measures each and takes KVM where it is really fast.
 *
 * @param why  what was chosen and why, one line; may be NULL
 * @return the engine, or NULL with *err
 */
const struct mull_engine *mull_engine_find(const char *name, char *why, size_t why_size,
                                           struct mull_error *err);

#endif
