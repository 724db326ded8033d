/*
 * A debugger outside of the guest, through KVM_SET_GUEST_DEBUG (api.rst 4.87). Watches and hardware
 * breakpoints take the four debug registers, which the guest's own then have to wait for; software
 * breakpoints take what is left of them, and then INT3 in the guest's memory, there only while vCPUs
 * run.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define INT3 0xcc
#define DR6_BS (1u << 14)

#define EXCEPTION_DB 1
#define EXCEPTION_BP 3

bool mull_kvm_vcpu_translate(struct mull_vcpu *vcpu, uint64_t va, uint64_t *gpa)
{
    struct kvm_translation t = {.linear_address = va};

    if (ioctl(vcpu->fd, KVM_TRANSLATE, &t) || !t.valid)
        return false;
    *gpa = t.physical_address;
    return true;
}

/* ---- Software breakpoints: of the VM ---- */

static void unpatch(struct mull_vm *vm)
{
    for (unsigned i = vm->patches; i-- > 0;)
        mull_mem_write(vm->config.memory, vm->patch[i].gpa, &vm->patch[i].byte, 1);
    vm->patches = 0;
}

static bool patch(struct mull_vcpu *vcpu, uint64_t va)
{
    struct mull_vm *vm = vcpu->vm;
    struct mull_kvm_patch p = {.va = va};
    uint8_t int3 = INT3;

    for (unsigned i = 0; i < vm->patches; i++)
        if (vm->patch[i].va == va)
            return true;
    if (vm->patches == MULL_DEBUG_POINTS || !mull_kvm_vcpu_translate(vcpu, va, &p.gpa) ||
        mull_mem_read(vm->config.memory, p.gpa, &p.byte, 1) ||
        mull_mem_write(vm->config.memory, p.gpa, &int3, 1))
        return false;
    vm->patch[vm->patches++] = p;
    return true;
}

/* ---- Debug registers: of each vCPU ---- */

/* SDM volume 3, 18.2.4: R/W and LEN of a breakpoint. */
static unsigned control_bits(enum mull_debug_kind kind, unsigned length)
{
    unsigned rw = kind == MULL_DEBUG_EXEC ? 0 : kind == MULL_DEBUG_WRITE ? 1 : 3;
    unsigned len = length == 8 ? 2 : length - 1;

    return len << 2 | rw;
}

/* Cover the point with registers from *used on. @return false: there are too few */
static bool use_registers(struct mull_vcpu *vcpu, struct kvm_guest_debug *debug, unsigned *used,
                          const struct mull_debug_point *p)
{
    uint64_t at = p->address, end = at + (p->kind == MULL_DEBUG_EXEC ? 1 : p->length);

    while (at < end) {
        unsigned size = 8;

        while (size > 1 && (at & (size - 1) || at + size > end))
            size /= 2;
        if (*used == 4)
            return false;
        debug->arch.debugreg[*used] = at;
        debug->arch.debugreg[7] |= 2ull << (2 * *used); /* globally enabled */
        debug->arch.debugreg[7] |= (uint64_t)control_bits(p->kind, size) << (16 + 4 * *used);
        vcpu->debug_point[*used] = *p;
        ++*used;
        at += size;
    }
    return true;
}

int mull_kvm_vcpu_debug(struct mull_vcpu *vcpu, const struct mull_debug *want,
                        struct mull_error *err)
{
    struct kvm_guest_debug debug = {.arch.debugreg[7] = 0x400};
    unsigned used = 0;

    if (!want)
        unpatch(vcpu->vm);
    /* What needs a debug register first; a software breakpoint takes what is left, then INT3. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; want && i < want->count; i++) {
            const struct mull_debug_point *p = &want->point[i];
            bool soft = p->kind == MULL_DEBUG_EXEC && !p->hardware;

            if (soft != (pass == 1) || use_registers(vcpu, &debug, &used, p) ||
                (soft && patch(vcpu, p->address)))
                continue;
            unpatch(vcpu->vm);
            return mull_fail(err, ENOSPC, "kvm: the processor has four debug registers");
        }
    }
    if (want) {
        debug.control = KVM_GUESTDBG_ENABLE;
        debug.control |= used ? KVM_GUESTDBG_USE_HW_BP : 0;
        debug.control |= vcpu->vm->patches ? KVM_GUESTDBG_USE_SW_BP : 0;
        debug.control |= want->step ? KVM_GUESTDBG_SINGLESTEP : 0;
#ifdef KVM_GUESTDBG_BLOCKIRQ
        if (want->step)
            debug.control |= vcpu->vm->host.debug_controls & KVM_GUESTDBG_BLOCKIRQ;
#endif
    }
    if (ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &debug))
        return mull_fail(err, errno, "kvm: vCPU %u: KVM_SET_GUEST_DEBUG: %s", vcpu->index,
                         strerror(errno));
    return 0;
}

/* ---- What happened ---- */

static bool patched(const struct mull_vm *vm, uint64_t va)
{
    for (unsigned i = 0; i < vm->patches; i++)
        if (vm->patch[i].va == va)
            return true;
    return false;
}

/* The guest's own exception: it gets it. */
static void give_to_guest(struct mull_vcpu *vcpu, uint8_t vector)
{
    struct kvm_vcpu_events events;

    if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events))
        return;
    events.exception.injected = 1;
    events.exception.nr = vector;
    events.exception.has_error_code = 0;
    ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events);
}

bool mull_kvm_debug_exit(struct mull_vcpu *vcpu, struct mull_debug_hit *hit)
{
    const struct kvm_debug_exit_arch *arch = &vcpu->run->debug.arch;

    memset(hit, 0, sizeof(*hit));
    if (arch->exception == EXCEPTION_BP) {
        if (!patched(vcpu->vm, arch->pc)) {
            give_to_guest(vcpu, EXCEPTION_BP);
            return false;
        }
        hit->point =
            (struct mull_debug_point){.kind = MULL_DEBUG_EXEC, .address = arch->pc, .length = 1};
        return true;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (!(arch->dr6 >> i & 1))
            continue;
        hit->point = vcpu->debug_point[i];
        return true;
    }
    hit->step = true;
    return true;
}
