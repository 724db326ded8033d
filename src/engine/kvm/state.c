/*
 * The kernel's vCPU in the engine-neutral form, in and out (api.rst: KVM_GET_REGS and its family).
 * The state may come from a file that somebody else made: what the kernel refuses becomes an error
 * that names the part it refused.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static int failed(struct mull_vcpu *vcpu, const char *what, struct mull_error *err)
{
    int code = errno;

    return mull_fail(err, code, "kvm: vCPU %u: %s: %s", vcpu->index, what, strerror(code));
}

/* ---- General and segment registers, control registers ---- */

static void segment_out(struct mull_segment *to, const struct kvm_segment *from)
{
    *to = (struct mull_segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->selector,
        .attr = (from->type & 0xfu) | (from->s ? MULL_SEG_S : 0) |
                (from->dpl & 3u) << MULL_SEG_DPL_SHIFT | (from->present ? MULL_SEG_P : 0) |
                (from->avl ? MULL_SEG_AVL : 0) | (from->l ? MULL_SEG_L : 0) |
                (from->db ? MULL_SEG_DB : 0) | (from->g ? MULL_SEG_G : 0) |
                (from->unusable ? MULL_SEG_UNUSABLE : 0),
    };
}

static void segment_in(struct kvm_segment *to, const struct mull_segment *from)
{
    *to = (struct kvm_segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->selector,
        .type = from->attr & MULL_SEG_TYPE,
        .present = !!(from->attr & MULL_SEG_P),
        .dpl = (from->attr & MULL_SEG_DPL) >> MULL_SEG_DPL_SHIFT,
        .db = !!(from->attr & MULL_SEG_DB),
        .s = !!(from->attr & MULL_SEG_S),
        .l = !!(from->attr & MULL_SEG_L),
        .g = !!(from->attr & MULL_SEG_G),
        .avl = !!(from->attr & MULL_SEG_AVL),
        .unusable = !!(from->attr & MULL_SEG_UNUSABLE),
    };
}

/* Where each segment of the canonical state is in struct kvm_sregs. */
static const size_t segment_offset[MULL_SEG_COUNT] = {
    [MULL_ES] = offsetof(struct kvm_sregs, es),    [MULL_CS] = offsetof(struct kvm_sregs, cs),
    [MULL_SS] = offsetof(struct kvm_sregs, ss),    [MULL_DS] = offsetof(struct kvm_sregs, ds),
    [MULL_FS] = offsetof(struct kvm_sregs, fs),    [MULL_GS] = offsetof(struct kvm_sregs, gs),
    [MULL_LDTR] = offsetof(struct kvm_sregs, ldt), [MULL_TR] = offsetof(struct kvm_sregs, tr),
};

/* Where each general register is in struct kvm_regs. */
static const size_t gpr_offset[16] = {
    [MULL_RAX] = offsetof(struct kvm_regs, rax), [MULL_RCX] = offsetof(struct kvm_regs, rcx),
    [MULL_RDX] = offsetof(struct kvm_regs, rdx), [MULL_RBX] = offsetof(struct kvm_regs, rbx),
    [MULL_RSP] = offsetof(struct kvm_regs, rsp), [MULL_RBP] = offsetof(struct kvm_regs, rbp),
    [MULL_RSI] = offsetof(struct kvm_regs, rsi), [MULL_RDI] = offsetof(struct kvm_regs, rdi),
    [MULL_R8] = offsetof(struct kvm_regs, r8),   [MULL_R9] = offsetof(struct kvm_regs, r9),
    [MULL_R10] = offsetof(struct kvm_regs, r10), [MULL_R11] = offsetof(struct kvm_regs, r11),
    [MULL_R12] = offsetof(struct kvm_regs, r12), [MULL_R13] = offsetof(struct kvm_regs, r13),
    [MULL_R14] = offsetof(struct kvm_regs, r14), [MULL_R15] = offsetof(struct kvm_regs, r15),
};

static int get_registers(struct mull_vcpu *vcpu, struct mull_cpu_state *s, struct mull_error *err)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debug;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs))
        return failed(vcpu, "KVM_GET_REGS", err);
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
        return failed(vcpu, "KVM_GET_SREGS", err);
    if (ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug))
        return failed(vcpu, "KVM_GET_DEBUGREGS", err);
    for (unsigned i = 0; i < 16; i++)
        memcpy(&s->gpr[i], (uint8_t *)&regs + gpr_offset[i], sizeof(uint64_t));
    s->rip = regs.rip;
    s->rflags = regs.rflags;
    for (unsigned i = 0; i < MULL_SEG_COUNT; i++)
        segment_out(&s->seg[i],
                    (const struct kvm_segment *)((uint8_t *)&sregs + segment_offset[i]));
    s->gdt = (struct mull_table){.base = sregs.gdt.base, .limit = sregs.gdt.limit};
    s->idt = (struct mull_table){.base = sregs.idt.base, .limit = sregs.idt.limit};
    s->cr0 = sregs.cr0;
    s->cr2 = sregs.cr2;
    s->cr3 = sregs.cr3;
    s->cr4 = sregs.cr4;
    s->cr8 = sregs.cr8;
    s->efer = sregs.efer;
    s->apic_base = sregs.apic_base;
    for (unsigned i = 0; i < 4; i++)
        s->dr[i] = debug.db[i];
    s->dr[6] = debug.dr6;
    s->dr[7] = debug.dr7;
    return 0;
}

static int set_registers(struct mull_vcpu *vcpu, const struct mull_cpu_state *s,
                         struct mull_error *err)
{
    struct kvm_regs regs = {.rip = s->rip, .rflags = s->rflags};
    struct kvm_sregs sregs = {
        .gdt = {.base = s->gdt.base, .limit = s->gdt.limit},
        .idt = {.base = s->idt.base, .limit = s->idt.limit},
        .cr0 = s->cr0,
        .cr2 = s->cr2,
        .cr3 = s->cr3,
        .cr4 = s->cr4,
        .cr8 = s->cr8,
        .efer = s->efer,
        .apic_base = s->apic_base,
    };
    struct kvm_debugregs debug = {.dr6 = s->dr[6], .dr7 = s->dr[7]};

    for (unsigned i = 0; i < 16; i++)
        memcpy((uint8_t *)&regs + gpr_offset[i], &s->gpr[i], sizeof(uint64_t));
    for (unsigned i = 0; i < MULL_SEG_COUNT; i++)
        segment_in((struct kvm_segment *)((uint8_t *)&sregs + segment_offset[i]), &s->seg[i]);
    for (unsigned i = 0; i < 4; i++)
        debug.db[i] = s->dr[i];
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs))
        return failed(vcpu, "the kernel refuses the control or segment registers (KVM_SET_SREGS)",
                      err);
    if (ioctl(vcpu->fd, KVM_SET_REGS, &regs))
        return failed(vcpu, "KVM_SET_REGS", err);
    if (ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug))
        return failed(vcpu, "the kernel refuses DR6 or DR7 (KVM_SET_DEBUGREGS)", err);
    return 0;
}

/* ---- x87 and vector state ---- */

static int get_extended(struct mull_vcpu *vcpu, struct mull_cpu_state *s, struct mull_error *err)
{
    s->xcr0 = 1;
    if (vcpu->vm->host.xcrs) {
        struct kvm_xcrs xcrs = {0};

        if (ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs))
            return failed(vcpu, "KVM_GET_XCRS", err);
        for (unsigned i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
            if (!xcrs.xcrs[i].xcr)
                s->xcr0 = xcrs.xcrs[i].value;
    }
    if (vcpu->vm->host.xsave) {
        void *area = calloc(1, vcpu->vm->xsave_size);
        int r = 0;

        if (!area)
            return mull_fail(err, ENOMEM, "kvm: no memory for the XSAVE area");
        if (ioctl(vcpu->fd,
                  vcpu->vm->xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE,
                  area))
            r = failed(vcpu, "KVM_GET_XSAVE", err);
        else
            memcpy(s->xsave, area, MULL_XSAVE_SIZE);
        memset(s->xsave + 464, 0, 48); /* software's part of the FXSAVE image: the kernel's notes */
        free(area);
        return r;
    }
    return mull_fail(err, ENOTSUP, "kvm: this kernel has no KVM_CAP_XSAVE");
}

static int set_extended(struct mull_vcpu *vcpu, const struct mull_cpu_state *s,
                        struct mull_error *err)
{
    void *area;
    int r = 0;

    if (vcpu->vm->host.xcrs && vcpu->has_xsave) {
        struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = s->xcr0 | 1}}};

        if (ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs))
            return mull_fail(err, errno,
                             "kvm: vCPU %u: XCR0 %#llx: this host does not have all of these "
                             "vector registers",
                             vcpu->index, (unsigned long long)s->xcr0);
    }
    area = calloc(1, vcpu->vm->xsave_size);
    if (!area)
        return mull_fail(err, ENOMEM, "kvm: no memory for the XSAVE area");
    memcpy(area, s->xsave, MULL_XSAVE_SIZE);
    if (ioctl(vcpu->fd, KVM_SET_XSAVE, area))
        r = failed(vcpu, "the kernel refuses the x87 and vector state (KVM_SET_XSAVE)", err);
    free(area);
    return r;
}

/* ---- MSRs ---- */

struct msr_field {
    uint32_t index;
    uint16_t count; /* consecutive in the state */
    uint16_t step;  /* of the index from one to the next */
    size_t offset;
};

#define MSR(msr, member)                                                                           \
    {                                                                                              \
        msr, 1, 0, offsetof(struct mull_cpu_state, member)                                         \
    }
#define MSRS(msr, n, by, member)                                                                   \
    {                                                                                              \
        msr, n, by, offsetof(struct mull_cpu_state, member)                                        \
    }

/* Every MSR of the state that the kernel keeps (SDM volume 4, APM volume 2 appendix A). */
static const struct msr_field msr_fields[] = {
    MSR(0xc0000081, star),
    MSR(0xc0000082, lstar),
    MSR(0xc0000083, cstar),
    MSR(0xc0000084, sfmask),
    MSR(0xc0000102, kernel_gs_base),
    MSR(0xc0000103, tsc_aux),
    MSR(0x174, sysenter_cs),
    MSR(0x175, sysenter_esp),
    MSR(0x176, sysenter_eip),
    MSR(0x277, pat),
    MSR(0x03b, tsc_adjust),
    MSR(0x1a0, misc_enable),
    MSR(0x048, spec_ctrl),
    MSR(0xda0, xss),
    MSR(0x2ff, mtrr_def_type),
    MSR(0x250, mtrr_fixed[0]),
    MSRS(0x258, 2, 1, mtrr_fixed[1]),
    MSRS(0x268, 8, 1, mtrr_fixed[3]),
    MSRS(0x200, 8, 2, mtrr_base[0]),
    MSRS(0x201, 8, 2, mtrr_mask[0]),
    MSR(0x17a, mcg_status),
    MSR(0x17b, mcg_ctl),
    MSRS(0x400, 128, 1, mc_banks[0]),
    /* Documentation/virt/kvm/x86/msr.rst */
    MSR(0x4b564d00, kvm_wall_clock),
    MSR(0x4b564d01, kvm_system_time),
    MSR(0x4b564d02, kvm_async_pf),
    MSR(0x4b564d03, kvm_steal_time),
    MSR(0x4b564d04, kvm_pv_eoi),
    MSR(0x4b564d05, kvm_poll_control),
};

/* Only once the local APIC is in its place: the kernel ignores a deadline in other timer modes. */
static const struct msr_field msr_deadline[] = {MSR(0x6e0, tsc_deadline)};

struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[MULL_KVM_MAX_MSRS];
};

static unsigned gather(const struct msr_field *fields, unsigned count,
                       const struct mull_cpu_state *s, struct kvm_msr_entry *entries)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < fields[i].count && n < MULL_KVM_MAX_MSRS; j++, n++) {
            entries[n] = (struct kvm_msr_entry){.index = fields[i].index + j * fields[i].step};
            memcpy(&entries[n].data, (const uint8_t *)s + fields[i].offset + 8 * j, 8);
        }
    return n;
}

static void scatter(const struct msr_field *fields, unsigned count,
                    const struct kvm_msr_entry *entries, struct mull_cpu_state *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < fields[i].count && n < MULL_KVM_MAX_MSRS; j++, n++)
            memcpy((uint8_t *)s + fields[i].offset + 8 * j, &entries[n].data, 8);
}

/* Give each entry the kernel's value; one that it does not have reads as zero. */
static int read_msrs(struct mull_vcpu *vcpu, struct kvm_msr_entry *entries, unsigned count,
                     struct mull_error *err)
{
    struct msr_list list;

    for (unsigned done = 0; done < count;) {
        int r;

        memset(&list, 0, sizeof(list.head));
        list.head.nmsrs = count - done;
        memcpy(list.entries, entries + done, (count - done) * sizeof(*entries));
        r = ioctl(vcpu->fd, KVM_GET_MSRS, &list);
        if (r < 0)
            return failed(vcpu, "KVM_GET_MSRS", err);
        memcpy(entries + done, list.entries, (unsigned)r * sizeof(*entries));
        done += (unsigned)r;
        if (done < count) /* the kernel stops at the first that it does not have */
            entries[done++].data = 0;
    }
    return 0;
}

/* Is this what the kernel would show without our writing it? */
static bool has_value(struct mull_vcpu *vcpu, const struct kvm_msr_entry *entry)
{
    struct kvm_msr_entry now = {.index = entry->index};

    return !read_msrs(vcpu, &now, 1, NULL) && now.data == entry->data;
}

static int write_msrs(struct mull_vcpu *vcpu, const struct kvm_msr_entry *entries, unsigned count,
                      struct mull_error *err)
{
    struct msr_list list;

    for (unsigned done = 0; done < count;) {
        int r;

        memset(&list, 0, sizeof(list.head));
        list.head.nmsrs = count - done;
        memcpy(list.entries, entries + done, (count - done) * sizeof(*entries));
        r = ioctl(vcpu->fd, KVM_SET_MSRS, &list);
        if (r < 0)
            return failed(vcpu, "KVM_SET_MSRS", err);
        done += (unsigned)r;
        if (done == count)
            break;
        if (!has_value(vcpu, &entries[done]))
            return mull_fail(err, EINVAL, "kvm: vCPU %u: the kernel refuses %#llx for MSR %#x",
                             vcpu->index, (unsigned long long)entries[done].data,
                             entries[done].index);
        done++;
    }
    return 0;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int get_msrs(struct mull_vcpu *vcpu, const struct msr_field *fields, unsigned count,
                    struct mull_cpu_state *s, struct mull_error *err)
{
    struct kvm_msr_entry entries[MULL_KVM_MAX_MSRS];
    int r = read_msrs(vcpu, entries, gather(fields, count, s, entries), err);

    if (!r)
        scatter(fields, count, entries, s);
    return r;
}

static int set_msrs(struct mull_vcpu *vcpu, const struct msr_field *fields, unsigned count,
                    const struct mull_cpu_state *s, struct mull_error *err)
{
    struct kvm_msr_entry entries[MULL_KVM_MAX_MSRS];

    return write_msrs(vcpu, entries, gather(fields, count, s, entries), err);
}

/* ---- Time ---- */

int mull_kvm_tsc_offset_get(struct mull_vcpu *vcpu, int64_t *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uint64_t)(uintptr_t)offset,
    };
    struct kvm_msr_entry tsc = {.index = 0x10};
    int r;

    if (vcpu->tsc_attr)
        return ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) ? -errno : 0;
    r = read_msrs(vcpu, &tsc, 1, NULL);
    *offset = (int64_t)(tsc.data - mull_clock_tsc(vcpu->vm->config.clock)) +
              mull_clock_tsc_offset(vcpu->vm->config.clock);
    return r;
}

int mull_kvm_tsc_offset_set(struct mull_vcpu *vcpu, int64_t offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uint64_t)(uintptr_t)&offset,
    };
    struct kvm_msr_entry tsc = {.index = 0x10};
    int64_t wanted = offset;

    if (vcpu->tsc_attr) {
        if (ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr))
            return -errno;
        /* A paravirtual KVM lets the guest read the host's counter and says so only by this. */
        if (!vcpu->index && !vcpu->tsc_told && !ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) &&
            offset != wanted) {
            mull_log(vcpu->vm->config.log, MULL_LOG_INFO,
                     "kvm: this kernel shows the guest the host's TSC as it is");
            vcpu->tsc_told = true;
        }
        return 0;
    }
    tsc.data = mull_clock_tsc(vcpu->vm->config.clock) -
               (uint64_t)mull_clock_tsc_offset(vcpu->vm->config.clock) + (uint64_t)offset;
    return write_msrs(vcpu, &tsc, 1, NULL);
}

void mull_kvm_sync_clock(struct mull_vcpu *vcpu)
{
    struct mull_vm *vm = vcpu->vm;
    int64_t now = mull_clock_tsc_offset(vm->config.clock), offset;

    if (now != vcpu->clock_offset) {
        if (!mull_kvm_tsc_offset_get(vcpu, &offset))
            mull_kvm_tsc_offset_set(vcpu, offset + (now - vcpu->clock_offset));
        vcpu->clock_offset = now;
        /* The guest's watchdogs must not count the pause (api.rst 4.63). */
        ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
    }
    pthread_mutex_lock(&vm->lock);
    if (vm->clock_offset != now) {
        struct kvm_clock_data kvmclock = {.clock = mull_clock_now(vm->config.clock)};

        if (!ioctl(vm->fd, KVM_SET_CLOCK, &kvmclock))
            vm->clock_offset = now;
    }
    pthread_mutex_unlock(&vm->lock);
}

/* ---- Events and the local APIC ---- */

static int get_events(struct mull_vcpu *vcpu, struct mull_cpu_state *s, struct mull_error *err)
{
    struct kvm_vcpu_events e = {0};
    struct kvm_mp_state mp = {0};

    if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &mp)) /* first: it takes in INIT and SIPI */
        return failed(vcpu, "KVM_GET_MP_STATE", err);
    if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &e))
        return failed(vcpu, "KVM_GET_VCPU_EVENTS", err);
    switch (mp.mp_state) {
    case KVM_MP_STATE_HALTED:
        s->mp_state = MULL_CPU_HALTED;
        break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
        s->mp_state = MULL_CPU_WAIT_SIPI;
        break;
    case KVM_MP_STATE_SIPI_RECEIVED:
        s->mp_state = MULL_CPU_WAIT_SIPI;
        s->sipi_pending = 1;
        s->sipi_vector = (uint8_t)e.sipi_vector;
        break;
    default:
        s->mp_state = MULL_CPU_RUNNABLE;
    }
    if (vcpu->shutdown)
        s->mp_state = MULL_CPU_SHUTDOWN;
    if (e.interrupt.shadow & KVM_X86_SHADOW_INT_STI)
        s->interrupt_shadow = 1;
    else if (e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS)
        s->interrupt_shadow = 2;
    s->exception_pending = e.exception.injected || e.exception.pending;
    if (s->exception_pending) {
        s->exception_vector = e.exception.nr;
        s->exception_has_error = e.exception.has_error_code;
        s->exception_error = e.exception.error_code;
    }
    s->interrupt_injected = e.interrupt.injected;
    if (s->interrupt_injected) {
        s->interrupt_vector = e.interrupt.nr;
        s->interrupt_soft = e.interrupt.soft;
    }
    /* An NMI on its way in is pending here, and its handler does not run yet. */
    s->nmi_pending = e.nmi.injected || e.nmi.pending;
    s->nmi_blocked = e.nmi.masked && !e.nmi.injected;
    return 0;
}

static int set_events(struct mull_vcpu *vcpu, const struct mull_cpu_state *s,
                      struct mull_error *err)
{
    static const uint32_t mp_states[] = {
        [MULL_CPU_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
        [MULL_CPU_HALTED] = KVM_MP_STATE_HALTED,
        [MULL_CPU_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
        [MULL_CPU_SHUTDOWN] = KVM_MP_STATE_RUNNABLE,
    };
    struct kvm_vcpu_events e = {
        .exception = {.injected = s->exception_pending,
                      .nr = s->exception_vector,
                      .has_error_code = s->exception_has_error,
                      .error_code = s->exception_error},
        .interrupt = {.injected = s->interrupt_injected,
                      .nr = s->interrupt_vector,
                      .soft = s->interrupt_soft,
                      .shadow = s->interrupt_shadow == 1   ? KVM_X86_SHADOW_INT_STI
                                : s->interrupt_shadow == 2 ? KVM_X86_SHADOW_INT_MOV_SS
                                                           : 0},
        .nmi = {.pending = s->nmi_pending, .masked = s->nmi_blocked},
        .sipi_vector = s->sipi_vector,
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
                 KVM_VCPUEVENT_VALID_SIPI_VECTOR,
    };
    struct kvm_mp_state mp;

    if (s->mp_state >= COUNT(mp_states))
        return mull_fail(err, EINVAL, "kvm: vCPU %u: unknown state %u", vcpu->index, s->mp_state);
    mp.mp_state = mp_states[s->mp_state];
    if (s->mp_state == MULL_CPU_WAIT_SIPI && s->sipi_pending)
        mp.mp_state = KVM_MP_STATE_SIPI_RECEIVED;
    if (ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &e))
        return failed(vcpu, "KVM_SET_VCPU_EVENTS", err);
    if (ioctl(vcpu->fd, KVM_SET_MP_STATE, &mp))
        return failed(vcpu, "KVM_SET_MP_STATE", err);
    vcpu->shutdown = s->mp_state == MULL_CPU_SHUTDOWN;
    return 0;
}

#define LAPIC_LVT_TIMER 0x320
#define LAPIC_INITIAL_COUNT 0x380
#define LAPIC_CURRENT_COUNT 0x390
#define LVT_MASKED_OR_MODE 0x70000u /* zero: an unmasked one-shot timer */

/* Has a one-shot timer run out? */
static bool timer_expired(const void *page)
{
    uint32_t lvt, initial, current;

    memcpy(&lvt, (const uint8_t *)page + LAPIC_LVT_TIMER, sizeof(lvt));
    memcpy(&initial, (const uint8_t *)page + LAPIC_INITIAL_COUNT, sizeof(initial));
    memcpy(&current, (const uint8_t *)page + LAPIC_CURRENT_COUNT, sizeof(current));
    return !(lvt & LVT_MASKED_OR_MODE) && initial && !current;
}

static int get_lapic(struct mull_vcpu *vcpu, struct mull_cpu_state *s, struct mull_error *err)
{
    struct kvm_lapic_state lapic;

    _Static_assert(sizeof(lapic.regs) == MULL_LAPIC_SIZE, "both are the APIC page's first KiB");
    if (ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic))
        return failed(vcpu, "KVM_GET_LAPIC", err);
    memcpy(s->lapic, lapic.regs, MULL_LAPIC_SIZE);
    return 0;
}

static int set_lapic(struct mull_vcpu *vcpu, const struct mull_cpu_state *s, struct mull_error *err)
{
    struct kvm_lapic_state lapic;

    memcpy(lapic.regs, s->lapic, MULL_LAPIC_SIZE);
    /* The kernel would let an expired one-shot timer expire again. Without a count there is none.
     */
    if (timer_expired(lapic.regs))
        memset(lapic.regs + LAPIC_INITIAL_COUNT, 0, sizeof(uint32_t));
    if (ioctl(vcpu->fd, KVM_SET_LAPIC, &lapic))
        return failed(vcpu, "the kernel refuses the local APIC (KVM_SET_LAPIC)", err);
    return 0;
}

/* ---- All of it ---- */

static int get_all(struct mull_vcpu *vcpu, struct mull_cpu_state *s, struct mull_error *err)
{
    int64_t offset;
    int r;

    memset(s, 0, sizeof(*s));
    /* One that came after the vCPU had stopped belongs to its state, too. */
    if (atomic_fetch_and(&vcpu->signals, ~(uint32_t)MULL_SIGNAL_NMI) & MULL_SIGNAL_NMI)
        ioctl(vcpu->fd, KVM_NMI, 0);
    r = get_events(vcpu, s, err);
    if (!r)
        r = get_registers(vcpu, s, err);
    if (!r)
        r = get_extended(vcpu, s, err);
    if (!r)
        r = get_msrs(vcpu, msr_fields, COUNT(msr_fields), s, err);
    if (!r)
        r = get_lapic(vcpu, s, err);
    if (!r)
        r = get_msrs(vcpu, msr_deadline, COUNT(msr_deadline), s, err);
    if (r)
        return r;
    r = mull_kvm_tsc_offset_get(vcpu, &offset);
    if (r)
        return mull_fail(err, -r, "kvm: vCPU %u: TSC offset: %s", vcpu->index, strerror(-r));
    s->tsc_offset = (uint64_t)(offset - vcpu->clock_offset);
    return 0;
}

int mull_kvm_vcpu_get(struct mull_vcpu *vcpu, struct mull_cpu_state *s, struct mull_error *err)
{
    struct kvm_lapic_state lapic;
    bool expired;
    int r;

    /* A timer that has just expired may have its interrupt only in the kernel's head: let it become
     * one. If it expires between this and the end, then once more. */
    do {
        if (ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic))
            return failed(vcpu, "KVM_GET_LAPIC", err);
        expired = timer_expired(lapic.regs);
        if (expired)
            mull_kvm_settle(vcpu);
        r = get_all(vcpu, s, err);
    } while (!r && !expired && timer_expired(s->lapic));
    return r;
}

int mull_kvm_vcpu_set(struct mull_vcpu *vcpu, const struct mull_cpu_state *s,
                      struct mull_error *err)
{
    int r = set_registers(vcpu, s, err);

    atomic_fetch_and(&vcpu->signals, ~(uint32_t)MULL_SIGNAL_NMI); /* of the state before */
    if (!r)
        r = set_extended(vcpu, s, err);
    if (!r)
        r = set_msrs(vcpu, msr_fields, COUNT(msr_fields), s, err);
    if (r)
        return r;
    vcpu->clock_offset = mull_clock_tsc_offset(vcpu->vm->config.clock);
    r = mull_kvm_tsc_offset_set(vcpu, vcpu->clock_offset + (int64_t)s->tsc_offset);
    if (r)
        return mull_fail(err, -r, "kvm: vCPU %u: TSC offset: %s", vcpu->index, strerror(-r));
    r = set_lapic(vcpu, s, err);
    if (!r)
        r = set_msrs(vcpu, msr_deadline, COUNT(msr_deadline), s, err);
    if (!r)
        r = set_events(vcpu, s, err);
    return r;
}
