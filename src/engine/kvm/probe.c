/*
 * How fast is /dev/kvm really? Some hosts offer one without hardware behind it, which emulates
 * guest kernel code a thousand times slower than it should run. A micro-guest of a few hundred
 * microseconds tells, under a timer that ends it should it hang.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define GUEST_SIZE 0x10000u
#define PML4 0x1000u
#define PDPT 0x2000u
#define PD 0x3000u
#define CODE 0x4000u
#define DATA 0x5000u
#define COUNT_OFFSET (DATA + 8)

#define PTE_PRESENT_WRITE_USER 0x7ull
#define PDE_LARGE 0x80ull

/* The guest is given up after so much of this thread's time, or of anybody's: a busy host must not
 * look like a slow KVM. */
#define CPU_LIMIT_NS 12000000
#define WALL_LIMIT_NS 60000000
#define LONG_ENOUGH_NS 2e5 /* a measurement of this length is believed */
#define REPEATS 3          /* the best counts: the host may be busy */
#define EXITS 16

/* RCX rounds of a counted loop over memory, then a port exit after which the next number of rounds
 * is read from memory; none: another exit. RBX: data, RSI: the address of the first instruction.
 *
 *      cli; sti; swapgs; swapgs                       (kernel mode only)
 *      mov edx, 16
 *  1:  mov [rbx], rax; add rax, [rbx]; lea rax, [rax+rcx*2]; dec edx; jnz 1b
 *      dec rcx; jz 2f; jmp rsi
 *  2:  out 0x10, al; mov rcx, [rbx+8]; test rcx, rcx; jz 2b; jmp rsi
 */
static const uint8_t code[] = {
    0xfa, 0xfb, 0x0f, 0x01, 0xf8, 0x0f, 0x01, 0xf8, 0xba, 0x10, 0x00, 0x00, 0x00, 0x48, 0x89, 0x03,
    0x48, 0x03, 0x03, 0x48, 0x8d, 0x04, 0x48, 0xff, 0xca, 0x75, 0xf2, 0x48, 0xff, 0xc9, 0x74, 0x02,
    0xff, 0xe6, 0xe6, 0x10, 0x48, 0x8b, 0x4b, 0x08, 0x48, 0x85, 0xc9, 0x74, 0xf5, 0xff, 0xe6,
};
#define USER_ENTRY 8u /* past the privileged instructions */
#define KERNEL_ROUND (4 + 1 + 16 * 5 + 3)
#define USER_ROUND (1 + 16 * 5 + 3)

struct probe {
    struct mull_kvm_host host;
    int vm, vcpu;
    uint8_t *ram;
    struct kvm_run *run;
    timer_t timer[2];
    unsigned timers;
    char why[200];
};

static bool fail(struct probe *p, const char *what)
{
    snprintf(p->why, sizeof(p->why), "/dev/kvm: %s: %s", what, strerror(errno));
    return false;
}

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static bool arm_limit(struct probe *p)
{
    static const struct {
        clockid_t clock;
        long ns;
    } limits[] = {{CLOCK_THREAD_CPUTIME_ID, CPU_LIMIT_NS}, {CLOCK_MONOTONIC, WALL_LIMIT_NS}};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = MULL_KVM_KICK};

    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    for (unsigned i = 0; i < 2; i++) {
        /* Again and again: a signal that comes outside of KVM_RUN must not be the only one. */
        const struct itimerspec when = {.it_value = {.tv_nsec = limits[i].ns},
                                        .it_interval = {.tv_nsec = 1000000}};

        if (timer_create(limits[i].clock, &event, &p->timer[p->timers]))
            return fail(p, "timer_create");
        p->timers++;
        if (timer_settime(p->timer[i], 0, &when, NULL))
            return fail(p, "timer_settime");
    }
    return true;
}

static void drop_limit(struct probe *p)
{
    while (p->timers)
        timer_delete(p->timer[--p->timers]);
}

static bool make_vm(struct probe *p)
{
    struct kvm_userspace_memory_region region = {.memory_size = GUEST_SIZE};
    uint64_t entry;

    p->ram = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->ram == MAP_FAILED)
        return fail(p, "mmap");
    memcpy(p->ram + CODE, code, sizeof(code));
    entry = PDPT | PTE_PRESENT_WRITE_USER;
    memcpy(p->ram + PML4, &entry, sizeof(entry));
    entry = PD | PTE_PRESENT_WRITE_USER;
    memcpy(p->ram + PDPT, &entry, sizeof(entry));
    entry = 0 | PTE_PRESENT_WRITE_USER | PDE_LARGE;
    memcpy(p->ram + PD, &entry, sizeof(entry));

    p->vm = ioctl(p->host.fd, KVM_CREATE_VM, 0);
    if (p->vm < 0)
        return fail(p, "KVM_CREATE_VM");
    region.userspace_addr = (uint64_t)(uintptr_t)p->ram;
    if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region))
        return fail(p, "KVM_SET_USER_MEMORY_REGION");
    p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
    if (p->vcpu < 0)
        return fail(p, "KVM_CREATE_VCPU");
    p->run = mmap(NULL, p->host.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
    return p->run != MAP_FAILED || fail(p, "mmap of the vCPU");
}

static bool set_cpuid(struct probe *p)
{
    struct mull_cpuid *cpuid = malloc(sizeof(*cpuid));
    struct mull_error err = {0};
    bool ok = cpuid && !mull_kvm_supported_cpuid(&p->host, cpuid, &err) &&
              !mull_kvm_set_cpuid(p->vcpu, cpuid, &err);

    if (!ok)
        snprintf(p->why, sizeof(p->why), "/dev/kvm: %.150s", err.message);
    free(cpuid);
    return ok;
}

/* 64-bit mode at the entry of the loop, in ring 0, or in ring 3 with leave to use ports. */
static bool enter(struct probe *p, bool user)
{
    const uint8_t dpl = user ? 3 : 0;
    const uint64_t start = CODE + (user ? USER_ENTRY : 0);
    struct kvm_segment data = {.limit = 0xffffffff,
                               .selector = 0x10 | dpl,
                               .type = 3,
                               .present = 1,
                               .dpl = dpl,
                               .db = 1,
                               .s = 1,
                               .g = 1};
    struct kvm_segment cs = {.limit = 0xffffffff,
                             .selector = 0x8 | dpl,
                             .type = 11,
                             .present = 1,
                             .dpl = dpl,
                             .s = 1,
                             .l = 1,
                             .g = 1};
    struct kvm_regs regs = {
        .rip = start, .rflags = user ? 0x3002 : 0x2, .rbx = DATA, .rsi = start, .rcx = 1};
    struct kvm_sregs sregs;

    if (ioctl(p->vcpu, KVM_GET_SREGS, &sregs))
        return fail(p, "KVM_GET_SREGS");
    sregs.cs = cs;
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.cr0 = 0x80000033; /* PG NE ET MP PE */
    sregs.cr3 = PML4;
    sregs.cr4 = 0x20;   /* PAE */
    sregs.efer = 0x500; /* LMA LME */
    if (ioctl(p->vcpu, KVM_SET_SREGS, &sregs))
        return fail(p, "KVM_SET_SREGS");
    return !ioctl(p->vcpu, KVM_SET_REGS, &regs) || fail(p, "KVM_SET_REGS");
}

/* Until the guest's next port exit. */
static bool run(struct probe *p)
{
    if (ioctl(p->vcpu, KVM_RUN, 0)) {
        if (errno != EINTR)
            return fail(p, "KVM_RUN");
        snprintf(p->why, sizeof(p->why),
                 "/dev/kvm: a guest of a few hundred instructions did not end in %d ms",
                 CPU_LIMIT_NS / 1000000);
        return false;
    }
    if (p->run->exit_reason == KVM_EXIT_IO)
        return true;
    snprintf(p->why, sizeof(p->why), "/dev/kvm: does not run a simple 64-bit guest (exit %u)",
             p->run->exit_reason);
    return false;
}

static bool time_rounds(struct probe *p, uint64_t rounds, double *ns)
{
    double start;

    __atomic_store_n((uint64_t *)(p->ram + COUNT_OFFSET), rounds, __ATOMIC_RELAXED);
    start = now_ns();
    if (!run(p))
        return false;
    *ns = now_ns() - start;
    return true;
}

/* Million instructions a second of one privilege level: ever more rounds, until the best of a few
 * tries takes long enough. A single long one may only have been interrupted. */
static bool measure_mips(struct probe *p, bool user, double exit_ns, double *mips)
{
    double best = 0, ns;

    for (uint64_t rounds = 2; rounds < 1u << 20 && best < LONG_ENOUGH_NS; rounds *= 4) {
        for (unsigned i = 0; i < REPEATS; i++) {
            if (!time_rounds(p, rounds, &ns))
                return false;
            if (!i || ns < best)
                best = ns;
            if (best < LONG_ENOUGH_NS)
                break;
        }
        ns = best > 2 * exit_ns ? best - exit_ns : best;
        *mips = (double)rounds * (user ? USER_ROUND : KERNEL_ROUND) / ns * 1e3;
    }
    return true;
}

static bool measure(struct probe *p, struct mull_engine_report *report)
{
    double exit_ns = 1e9, ns;

    if (!set_cpuid(p) || !enter(p, false) || !run(p))
        return false;
    for (unsigned i = 0; i < EXITS; i++) {
        if (!time_rounds(p, 0, &ns))
            return false;
        if (ns < exit_ns)
            exit_ns = ns;
    }
    report->exit_us = exit_ns / 1e3;
    if (!measure_mips(p, false, exit_ns, &report->kernel_mips))
        return false;
    /* The user half is for information only: without it the kernel's number stands. */
    if (enter(p, true) && run(p))
        measure_mips(p, true, exit_ns, &report->user_mips);
    return true;
}

static void probe_end(struct probe *p)
{
    if (p->run != MAP_FAILED)
        munmap(p->run, p->host.run_size);
    if (p->vcpu >= 0)
        close(p->vcpu);
    if (p->vm >= 0)
        close(p->vm);
    if (p->ram != MAP_FAILED)
        munmap(p->ram, GUEST_SIZE);
}

void mull_kvm_probe(bool measured, struct mull_engine_report *report)
{
    struct probe p = {.vm = -1, .vcpu = -1, .ram = MAP_FAILED, .run = MAP_FAILED};
    struct mull_error err = {0};
    sigset_t before;
    int r;

    memset(report, 0, sizeof(*report));
    if (mull_kvm_open(&p.host, &err)) {
        snprintf(report->why, sizeof(report->why), "%.250s", err.message);
        return;
    }
    report->available = true;
    if (measured) {
        if (make_vm(&p)) {
            r = mull_kvm_block_kick(p.vcpu, &before);
            if (r) {
                errno = -r;
                fail(&p, "KVM_SET_SIGNAL_MASK");
            } else {
                if (arm_limit(&p))
                    measure(&p, report);
                drop_limit(&p);
                mull_kvm_drain_kick();
                pthread_sigmask(SIG_SETMASK, &before, NULL);
            }
        } else {
            report->available = false; /* not even a virtual machine */
        }
        if (!report->kernel_mips)
            snprintf(report->why, sizeof(report->why), "%s", p.why);
        probe_end(&p);
    }
    mull_kvm_close(&p.host);
}
