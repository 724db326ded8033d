/*
 * The kvm engine's inside: what its files share. A vCPU is a thread in KVM_RUN; local APICs live in
 * the kernel, the other interrupt controllers in the platform (KVM_CAP_SPLIT_IRQCHIP). The
 * interface is the kernel's Documentation/virt/kvm/api.rst; sections are named in comments.
 */
#ifndef MULL_KVM_KVM_H
#define MULL_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"

/* Gets a thread out of KVM_RUN. It is blocked whenever such a thread is outside of KVM_RUN, so that
 * nobody ever needs a handler for it and the process's signal dispositions stay the caller's. */
#define MULL_KVM_KICK SIGRTMIN

#define MULL_KVM_MAX_MSRS 256

/** An open /dev/kvm and what it can do. */
struct mull_kvm_host {
    int fd;
    size_t run_size;      /* of the mapping of struct kvm_run */
    bool xcrs, xsave;     /* KVM_CAP_XCRS, KVM_CAP_XSAVE */
    bool readonly_memory; /* KVM_CAP_READONLY_MEM */
    bool tsc_control;     /* KVM_CAP_TSC_CONTROL: another frequency than the host's */
    bool user_msrs;       /* KVM_CAP_X86_USER_SPACE_MSR */
    bool tsc_deadline;    /* KVM_CAP_TSC_DEADLINE_TIMER */
    uint32_t debug_controls; /* KVM_CAP_SET_GUEST_DEBUG2 */
    bool ioeventfd;          /* KVM_CAP_IOEVENTFD, of any access size */
    unsigned max_cpus;
};

/** A byte of the guest's in whose place there is an INT3. */
struct mull_kvm_patch {
    uint64_t va, gpa;
    uint8_t byte;
};

struct mull_vm {
    struct mull_kvm_host host;
    int fd;
    struct mull_vm_config config;
    struct mull_memory_watch watch;
    const struct mull_ram *ram; /* memory slot i is ram[i] */
    unsigned ram_count;
    size_t xsave_size; /* KVM_CAP_XSAVE2, or 4096 */
    unsigned reserved_gsis;
    unsigned patches; /* debug.c; changes while no vCPU runs */
    struct mull_kvm_patch patch[MULL_DEBUG_POINTS];
    pthread_mutex_t lock;
    bool dirty_log;       /* under lock: the slots log dirty pages */
    int64_t clock_offset; /* under lock: mull_clock_tsc_offset() when kvmclock was last set */
};

struct mull_kvm_stats {
    uint64_t exits, pio, mmio, msrs, irq_windows, extints, eois, kicks;
};

struct mull_vcpu {
    struct mull_vm *vm;
    unsigned index;
    int fd;
    struct kvm_run *run;

    pthread_mutex_t lock;
    bool in_run; /* under lock: `thread` is in vcpu_run() */
    pthread_t thread;
    _Atomic uint32_t signals; /* enum mull_signal bits not yet looked at */

    /* Only the vCPU's thread, or while it is not in vcpu_run(). */
    bool shutdown;        /* a triple fault ended the last run */
    bool flags_stale;     /* run->ready_for_interrupt_injection is not of the current state */
    bool tsc_attr;        /* KVM_VCPU_TSC_CTRL is there */
    bool tsc_told;        /* that the TSC offset is without effect */
    int64_t clock_offset; /* the part of the kernel's TSC offset that is the machine clock's */
    bool has_xsave;       /* the guest's CPUID has XSAVE */
    struct mull_kvm_stats stats;
    struct mull_debug_point debug_point[4]; /* what each debug register stands for */
};

/* ---- host.c ---- */

/** Open /dev/kvm and learn what it can do. The error says what the user can do about it. */
int mull_kvm_open(struct mull_kvm_host *host, struct mull_error *err);
void mull_kvm_close(struct mull_kvm_host *host);

/** Block MULL_KVM_KICK in this thread (and say what was before), and make KVM_RUN on @vcpu_fd
 *  unblock it (api.rst 4.23 KVM_SET_SIGNAL_MASK). @return 0 or a negative errno. */
int mull_kvm_block_kick(int vcpu_fd, sigset_t *before);

/** Take a pending MULL_KVM_KICK away from this thread. */
void mull_kvm_drain_kick(void);

/* ---- cpuid.c ---- */

/** engine.h: cpuid. */
int mull_kvm_cpuid(struct mull_cpuid *table, struct mull_error *err);

/** KVM_GET_SUPPORTED_CPUID in the engine's form. */
int mull_kvm_supported_cpuid(const struct mull_kvm_host *host, struct mull_cpuid *table,
                             struct mull_error *err);

/** KVM_SET_CPUID2. */
int mull_kvm_set_cpuid(int vcpu_fd, const struct mull_cpuid *table, struct mull_error *err);

/* ---- vcpu.c ---- */

int mull_kvm_vcpu_create(struct mull_vm *vm, unsigned index, const struct mull_cpuid *cpuid,
                         struct mull_vcpu **out, struct mull_error *err);
void mull_kvm_vcpu_destroy(struct mull_vcpu *vcpu);
void mull_kvm_vcpu_run(struct mull_vcpu *vcpu, struct mull_exit *exit);
void mull_kvm_vcpu_signal(struct mull_vcpu *vcpu, enum mull_signal signal, unsigned arg);
unsigned mull_kvm_vcpu_stats(struct mull_vcpu *vcpu, const char **names, uint64_t *values,
                             unsigned max);

/** Have the kernel turn into state what is under way in it, such as a timer that has expired but
 * whose interrupt is nowhere yet. As mull_kvm_vcpu_run(), but (almost) without the guest. */
void mull_kvm_settle(struct mull_vcpu *vcpu);

/* ---- debug.c ---- */

int mull_kvm_vcpu_debug(struct mull_vcpu *vcpu, const struct mull_debug *debug,
                        struct mull_error *err);
bool mull_kvm_vcpu_translate(struct mull_vcpu *vcpu, uint64_t va, uint64_t *gpa);

/** KVM_EXIT_DEBUG: what was it? @return false: the guest's own, and it has it now */
bool mull_kvm_debug_exit(struct mull_vcpu *vcpu, struct mull_debug_hit *hit);

/* ---- state.c ---- */

int mull_kvm_vcpu_get(struct mull_vcpu *vcpu, struct mull_cpu_state *state, struct mull_error *err);
int mull_kvm_vcpu_set(struct mull_vcpu *vcpu, const struct mull_cpu_state *state,
                      struct mull_error *err);

/** What the kernel adds to the host's TSC for this vCPU. */
int mull_kvm_tsc_offset_get(struct mull_vcpu *vcpu, int64_t *offset);
int mull_kvm_tsc_offset_set(struct mull_vcpu *vcpu, int64_t offset);

/** Follow the machine's clock after a pause: this vCPU's TSC and the VM's kvmclock. */
void mull_kvm_sync_clock(struct mull_vcpu *vcpu);

/* ---- probe.c ---- */

/** engine.h: probe. */
void mull_kvm_probe(bool measure, struct mull_engine_report *report);

#endif
