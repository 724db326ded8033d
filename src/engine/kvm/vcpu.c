/*
 * A vCPU: its thread's loop around KVM_RUN, what the kernel leaves to user space (I/O, MMIO,
 * unknown MSRs, the 8259's interrupts), and the signals that reach it from other threads.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- Signals from other threads ---- */

static void set_immediate_exit(struct mull_vcpu *vcpu, bool on)
{
    __atomic_store_n(&vcpu->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

/* Get the vCPU's thread out of KVM_RUN, or keep it from going in: immediate_exit covers the moment
 * between its last look at `signals` and the system call (api.rst 5, kvm_run). */
static void kick(struct mull_vcpu *vcpu)
{
    set_immediate_exit(vcpu, true);
    pthread_mutex_lock(&vcpu->lock);
    if (vcpu->in_run && !pthread_equal(vcpu->thread, pthread_self()))
        pthread_kill(vcpu->thread, MULL_KVM_KICK);
    pthread_mutex_unlock(&vcpu->lock);
}

/* INIT and SIPI go the way of the guest's own: as messages to the kernel's local APIC (SDM volume
 * 3, 11.11.1 and 11.11.2), which knows what state they meet. APIC IDs are vCPU indexes. */
static void send_ipi(struct mull_vcpu *vcpu, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = 0xfee00000u | vcpu->index << 12,
        .data = data,
    };

    if (ioctl(vcpu->vm->fd, KVM_SIGNAL_MSI, &msi) < 0)
        mull_log(vcpu->vm->config.log, MULL_LOG_WARN, "kvm: vCPU %u: IPI %#x: %s", vcpu->index,
                 data, strerror(errno));
}

void mull_kvm_vcpu_signal(struct mull_vcpu *vcpu, enum mull_signal signal, unsigned arg)
{
    switch (signal) {
    case MULL_SIGNAL_INIT:
        send_ipi(vcpu, 5u << 8 | 1u << 14);
        break;
    case MULL_SIGNAL_SIPI:
        send_ipi(vcpu, 6u << 8 | (arg & 0xff));
        break;
    case MULL_SIGNAL_IRQ:
    case MULL_SIGNAL_NMI:
    case MULL_SIGNAL_STOP:
        atomic_fetch_or(&vcpu->signals, (uint32_t)signal);
        kick(vcpu);
        break;
    }
}

/* ---- Exits ---- */

static struct mull_memory *memory(struct mull_vcpu *vcpu)
{
    return vcpu->vm->config.memory;
}

/* A call with registers; KVM itself puts EAX in when the vCPU goes on. @return false: it is none */
static bool exit_call(struct mull_vcpu *vcpu, uint8_t *data)
{
    static const unsigned order[] = {MULL_RAX, MULL_RBX, MULL_RCX, MULL_RDX,
                                     MULL_RSI, MULL_RDI, MULL_RBP};
    const struct mull_engine_bus *bus = vcpu->vm->config.bus;
    struct kvm_run *run = vcpu->run;
    struct kvm_regs regs;

    if (!bus->call || run->io.port != bus->call_port || run->io.size != 4 || run->io.count != 1 ||
        run->io.direction != KVM_EXIT_IO_IN || ioctl(vcpu->fd, KVM_GET_REGS, &regs) ||
        (uint32_t)regs.rax != bus->call_magic)
        return false;
    __u64 *const at[] = {&regs.rax, &regs.rbx, &regs.rcx, &regs.rdx,
                         &regs.rsi, &regs.rdi, &regs.rbp};
    uint64_t gpr[16] = {0};
    for (unsigned i = 0; i < 7; i++)
        gpr[order[i]] = *at[i];
    bus->call(bus->opaque, vcpu->index, gpr);
    for (unsigned i = 0; i < 7; i++)
        *at[i] = gpr[order[i]];
    uint32_t eax = (uint32_t)gpr[MULL_RAX];
    memcpy(data, &eax, 4);
    ioctl(vcpu->fd, KVM_SET_REGS, &regs);
    return true;
}

static void exit_io(struct mull_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    unsigned size = run->io.size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    vcpu->stats.pio++;
    if (exit_call(vcpu, data))
        return;
    if (size != 1 && size != 2 && size != 4)
        return;
    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        uint64_t value = 0;

        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, size);
            mull_space_write(memory(vcpu), MULL_SPACE_PORT, vcpu->index, run->io.port, size, value);
        } else {
            value = mull_space_read(memory(vcpu), MULL_SPACE_PORT, vcpu->index, run->io.port, size);
            memcpy(data, &value, size);
        }
    }
}

static void exit_mmio(struct mull_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    unsigned size = run->mmio.len;
    uint64_t address = run->mmio.phys_addr, value = 0;

    vcpu->stats.mmio++;
    if (!size || size > 8)
        return;
    if (run->mmio.is_write) {
        if (mull_memory_find_ram(memory(vcpu), address))
            return; /* ROM */
        memcpy(&value, run->mmio.data, size);
        mull_space_write(memory(vcpu), MULL_SPACE_MMIO, vcpu->index, address, size, value);
    } else {
        value = mull_space_read(memory(vcpu), MULL_SPACE_MMIO, vcpu->index, address, size);
        memcpy(run->mmio.data, &value, size);
    }
}

static void exit_msr(struct mull_vcpu *vcpu, bool write)
{
    const struct mull_engine_bus *bus = vcpu->vm->config.bus;
    struct kvm_run *run = vcpu->run;
    uint64_t value = run->msr.data;
    int r = -1;

    vcpu->stats.msrs++;
    if (write && bus->msr_write)
        r = bus->msr_write(bus->opaque, vcpu->index, run->msr.index, value);
    else if (!write && bus->msr_read)
        r = bus->msr_read(bus->opaque, vcpu->index, run->msr.index, &value);
    if (!r && !write)
        run->msr.data = value;
    run->msr.error = r != 0; /* #GP */
}

/* The processor fetches an instruction from where there is no memory. The bus floats: all bytes
 * are FFh, which is no instruction (FF /7), so #UD. The kernel gives up instead. */
static bool fetched_from_nowhere(struct mull_vcpu *vcpu)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_translation translation = {0};
    struct kvm_vcpu_events events;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
        return false;
    translation.linear_address = regs.rip + (sregs.cs.l ? 0 : sregs.cs.base);
    if (ioctl(vcpu->fd, KVM_TRANSLATE, &translation) || !translation.valid ||
        mull_memory_find_ram(memory(vcpu), translation.physical_address))
        return false;
    if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) || events.exception.injected)
        return false;
    events.exception.injected = 1;
    events.exception.nr = 6;
    events.exception.has_error_code = 0;
    return !ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events);
}

static uint64_t rip_of(struct mull_vcpu *vcpu)
{
    struct kvm_regs regs = {0};

    ioctl(vcpu->fd, KVM_GET_REGS, &regs);
    return regs.rip;
}

static void describe_internal_error(struct mull_vcpu *vcpu, struct mull_error *err)
{
    const struct kvm_run *run = vcpu->run;
    char bytes[15 * 3 + 1] = "";

    if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
        mull_fail(err, EIO, "kvm: vCPU %u: internal error %u of the kernel at RIP %#llx",
                  vcpu->index, run->internal.suberror, (unsigned long long)rip_of(vcpu));
        return;
    }
    if (run->emulation_failure.ndata >= 3 &&
        run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
        for (unsigned i = 0; i < 15 && i < run->emulation_failure.insn_size; i++)
            snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
    mull_fail(err, EIO,
              "kvm: vCPU %u: the kernel cannot emulate the instruction%s%s at RIP %#llx; "
              "--engine soft may",
              vcpu->index, bytes[0] ? ":" : "", bytes, (unsigned long long)rip_of(vcpu));
}

/* @return true: run on; false: *exit says why not. */
static bool handle_exit(struct mull_vcpu *vcpu, struct mull_exit *exit)
{
    const struct mull_engine_bus *bus = vcpu->vm->config.bus;
    const struct kvm_run *run = vcpu->run;

    vcpu->stats.exits++;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        exit_io(vcpu);
        return true;
    case KVM_EXIT_MMIO:
        exit_mmio(vcpu);
        return true;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        exit_msr(vcpu, run->exit_reason == KVM_EXIT_X86_WRMSR);
        return true;
    case KVM_EXIT_IOAPIC_EOI:
        vcpu->stats.eois++;
        if (bus->eoi)
            bus->eoi(bus->opaque, run->eoi.vector);
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        vcpu->stats.irq_windows++;
        return true;
    case KVM_EXIT_INTR:
    case KVM_EXIT_HLT:
        return true;
    case KVM_EXIT_SHUTDOWN:
        vcpu->shutdown = true;
        exit->reason = MULL_EXIT_SHUTDOWN;
        return false;
    case KVM_EXIT_DEBUG:
        if (!mull_kvm_debug_exit(vcpu, &exit->debug))
            return true;
        exit->reason = MULL_EXIT_DEBUG;
        return false;
    case KVM_EXIT_INTERNAL_ERROR:
        if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && fetched_from_nowhere(vcpu))
            return true;
        describe_internal_error(vcpu, &exit->error);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        mull_fail(&exit->error, EIO,
                  "kvm: vCPU %u: the processor refuses to enter the guest at RIP %#llx (reason "
                  "%#llx)",
                  vcpu->index, (unsigned long long)rip_of(vcpu),
                  (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        break;
    default:
        mull_fail(&exit->error, EIO, "kvm: vCPU %u: unexpected exit %u of the kernel at RIP %#llx",
                  vcpu->index, run->exit_reason, (unsigned long long)rip_of(vcpu));
    }
    exit->reason = MULL_EXIT_FAILED;
    return false;
}

/* ---- The 8259's interrupts (ExtINT) ---- */

/* KVM_RUN with immediate_exit only refreshes the flags in kvm_run. */
static void refresh_flags(struct mull_vcpu *vcpu)
{
    set_immediate_exit(vcpu, true);
    ioctl(vcpu->fd, KVM_RUN, 0);
    set_immediate_exit(vcpu, false);
}

/* KVM_INTERRUPT would do (api.rst 4.16), but between it and the delivery the vector is in none of
 * the state that the kernel gives out: a stop in that moment would lose it. */
static int queue_interrupt(struct mull_vcpu *vcpu, uint8_t vector)
{
    struct kvm_mp_state awake = {.mp_state = KVM_MP_STATE_RUNNABLE};
    struct kvm_vcpu_events events;

    if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events))
        return -1;
    events.interrupt.injected = 1;
    events.interrupt.nr = vector;
    events.interrupt.soft = 0;
    events.flags &= KVM_VCPUEVENT_VALID_SHADOW;
    if (ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events))
        return -1;
    return ioctl(vcpu->fd, KVM_SET_MP_STATE, &awake); /* out of HLT */
}

static void inject_extint(struct mull_vcpu *vcpu)
{
    const struct mull_engine_bus *bus = vcpu->vm->config.bus;
    struct kvm_run *run = vcpu->run;
    int vector;

    run->request_interrupt_window = 0;
    if (!bus->irq_pending || bus->irq_pending(bus->opaque, vcpu->index) < 0)
        return;
    if (vcpu->flags_stale) {
        refresh_flags(vcpu);
        vcpu->flags_stale = false;
    }
    if (!run->ready_for_interrupt_injection) {
        run->request_interrupt_window = 1;
        return;
    }
    vector = bus->irq_accept(bus->opaque, vcpu->index);
    if (vector >= 0) {
        vcpu->stats.extints++;
        if (queue_interrupt(vcpu, (uint8_t)vector))
            mull_log(vcpu->vm->config.log, MULL_LOG_WARN, "kvm: vCPU %u: interrupt %d lost: %s",
                     vcpu->index, vector, strerror(errno));
        else
            run->ready_for_interrupt_injection = 0;
    }
    if (bus->irq_pending(bus->opaque, vcpu->index) >= 0)
        run->request_interrupt_window = 1;
}

/* ---- The loop ---- */

static bool begin_run(struct mull_vcpu *vcpu, sigset_t *before, struct mull_exit *exit)
{
    int r = mull_kvm_block_kick(vcpu->fd, before);

    if (r) {
        exit->reason = MULL_EXIT_FAILED;
        mull_fail(&exit->error, -r, "kvm: vCPU %u: KVM_SET_SIGNAL_MASK: %s", vcpu->index,
                  strerror(-r));
        return false;
    }
    pthread_mutex_lock(&vcpu->lock);
    vcpu->thread = pthread_self();
    vcpu->in_run = true;
    pthread_mutex_unlock(&vcpu->lock);
    mull_kvm_sync_clock(vcpu);
    vcpu->flags_stale = true;
    return true;
}

static void end_run(struct mull_vcpu *vcpu, const sigset_t *before)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->in_run = false;
    pthread_mutex_unlock(&vcpu->lock);
    mull_kvm_drain_kick();
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* Look at what other threads want. @return the bits of enum mull_signal that were set. */
static uint32_t take_signals(struct mull_vcpu *vcpu)
{
    uint32_t signals;

    set_immediate_exit(vcpu, false);
    signals = atomic_exchange(&vcpu->signals, 0);
    if (signals)
        vcpu->stats.kicks++;
    if (signals & MULL_SIGNAL_NMI)
        ioctl(vcpu->fd, KVM_NMI, 0);
    return signals;
}

/* One KVM_RUN and what follows from it. @return 1: go on; 0: a signal ended it, and no instruction
 * is half done; -1: *exit says why not. */
static int run_once(struct mull_vcpu *vcpu, struct mull_exit *exit)
{
    int r = ioctl(vcpu->fd, KVM_RUN, 0);

    vcpu->flags_stale = false;
    if (!r)
        return handle_exit(vcpu, exit) ? 1 : -1;
    if (errno == EINTR || errno == EAGAIN) {
        mull_kvm_drain_kick();
        return 0;
    }
    exit->reason = MULL_EXIT_FAILED;
    mull_fail(&exit->error, errno, "kvm: vCPU %u: KVM_RUN at RIP %#llx: %s", vcpu->index,
              (unsigned long long)rip_of(vcpu), strerror(errno));
    return -1;
}

static void run_guest(struct mull_vcpu *vcpu, struct mull_exit *exit)
{
    bool stop = false;
    int r;

    do {
        stop |= take_signals(vcpu) & MULL_SIGNAL_STOP;
        if (stop)
            /* Not before the instruction that did I/O is complete: KVM_RUN does that first, and
             * only then looks at immediate_exit (api.rst 5, kvm_run). */
            set_immediate_exit(vcpu, true);
        else
            inject_extint(vcpu);
        r = run_once(vcpu, exit);
    } while (r > 0 || (r == 0 && !stop));
}

/* A pending signal gets KVM_RUN once around in the kernel, but not into the guest: a timer that has
 * expired becomes an interrupt. The wishes of other threads are left for the next run. */
static void run_settle(struct mull_vcpu *vcpu, struct mull_exit *exit)
{
    int r;

    set_immediate_exit(vcpu, false);
    pthread_kill(pthread_self(), MULL_KVM_KICK);
    r = run_once(vcpu, exit);
    while (r > 0) { /* it was in the guest after all: complete what it did */
        set_immediate_exit(vcpu, true);
        r = run_once(vcpu, exit);
    }
}

static void run(struct mull_vcpu *vcpu, bool settle, struct mull_exit *exit)
{
    sigset_t before;

    memset(exit, 0, sizeof(*exit));
    exit->reason = MULL_EXIT_STOPPED;
    if (vcpu->shutdown) {
        exit->reason = MULL_EXIT_SHUTDOWN;
        return;
    }
    if (!begin_run(vcpu, &before, exit))
        return;
    if (settle)
        run_settle(vcpu, exit);
    else
        run_guest(vcpu, exit);
    end_run(vcpu, &before);
}

void mull_kvm_vcpu_run(struct mull_vcpu *vcpu, struct mull_exit *exit)
{
    run(vcpu, false, exit);
}

void mull_kvm_settle(struct mull_vcpu *vcpu)
{
    struct mull_exit exit;

    run(vcpu, true, &exit);
}

/* ---- Life ---- */

/* The guest's TSC runs at the host's frequency; say so only where the kernel would use another. */
static void set_tsc_frequency(struct mull_vcpu *vcpu)
{
    uint64_t khz = mull_clock_tsc_hz(vcpu->vm->config.clock) / 1000;
    int kernel_khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
    uint64_t difference;

    if (kernel_khz <= 0)
        return;
    difference =
        khz > (uint64_t)kernel_khz ? khz - (uint64_t)kernel_khz : (uint64_t)kernel_khz - khz;
    if (difference * 4000 > khz && vcpu->vm->host.tsc_control)
        ioctl(vcpu->fd, KVM_SET_TSC_KHZ, khz);
}

static bool cpuid_has_xsave(const struct mull_cpuid *cpuid)
{
    for (unsigned i = 0; i < cpuid->count; i++)
        if (cpuid->entry[i].leaf == 1)
            return cpuid->entry[i].ecx & (1u << 26);
    return false;
}

int mull_kvm_vcpu_create(struct mull_vm *vm, unsigned index, const struct mull_cpuid *cpuid,
                         struct mull_vcpu **out, struct mull_error *err)
{
    struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};
    struct mull_vcpu *vcpu = calloc(1, sizeof(*vcpu));
    int r;

    if (!vcpu)
        return mull_fail(err, ENOMEM, "kvm: no memory for a vCPU");
    vcpu->vm = vm;
    vcpu->index = index;
    vcpu->has_xsave = cpuid_has_xsave(cpuid);
    vcpu->run = MAP_FAILED;
    pthread_mutex_init(&vcpu->lock, NULL);
    vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, index);
    if (vcpu->fd < 0) {
        r = mull_fail(err, errno, "kvm: vCPU %u: KVM_CREATE_VCPU: %s", index, strerror(errno));
        mull_kvm_vcpu_destroy(vcpu);
        return r;
    }
    vcpu->run = mmap(NULL, vm->host.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED)
        r = mull_fail(err, errno, "kvm: vCPU %u: mmap: %s", index, strerror(errno));
    else
        r = mull_kvm_set_cpuid(vcpu->fd, cpuid, err);
    if (r) {
        mull_kvm_vcpu_destroy(vcpu);
        return r;
    }
    set_tsc_frequency(vcpu);
    vcpu->tsc_attr = !ioctl(vcpu->fd, KVM_HAS_DEVICE_ATTR, &attr);
    vcpu->clock_offset = mull_clock_tsc_offset(vm->config.clock);
    mull_kvm_tsc_offset_set(vcpu, vcpu->clock_offset);
    *out = vcpu;
    return 0;
}

void mull_kvm_vcpu_destroy(struct mull_vcpu *vcpu)
{
    if (!vcpu)
        return;
    if (vcpu->run != MAP_FAILED)
        munmap(vcpu->run, vcpu->vm->host.run_size);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    pthread_mutex_destroy(&vcpu->lock);
    free(vcpu);
}

unsigned mull_kvm_vcpu_stats(struct mull_vcpu *vcpu, const char **names, uint64_t *values,
                             unsigned max)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {
        {"exits", vcpu->stats.exits},
        {"pio", vcpu->stats.pio},
        {"mmio", vcpu->stats.mmio},
        {"msrs", vcpu->stats.msrs},
        {"irq_windows", vcpu->stats.irq_windows},
        {"extints", vcpu->stats.extints},
        {"eois", vcpu->stats.eois},
        {"kicks", vcpu->stats.kicks},
    };
    unsigned n = 0;

    for (; n < max && n < sizeof(all) / sizeof(all[0]); n++) {
        names[n] = all[n].name;
        values[n] = all[n].value;
    }
    return n;
}
