/*
 * The canonical CPU state's description (what saves and restores it) and its value after reset.
 * Knows no engine.
 */
#include "engine/cpu_state.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define CPU(member) MULL_FIELD(struct mull_cpu_state, member)
#define CPU_ARRAY(member) MULL_FIELD_ARRAY(struct mull_cpu_state, member)

static const struct mull_field segment_fields[] = {
    MULL_FIELD(struct mull_segment, base),
    MULL_FIELD(struct mull_segment, limit),
    MULL_FIELD(struct mull_segment, attr),
    MULL_FIELD(struct mull_segment, selector),
    MULL_FIELDS_END,
};
static const struct mull_state_desc segment_desc = {
    .name = "cpu-segment",
    .version = 1,
    .oldest = 1,
    .fields = segment_fields,
};

static const struct mull_field table_fields[] = {
    MULL_FIELD(struct mull_table, base),
    MULL_FIELD(struct mull_table, limit),
    MULL_FIELDS_END,
};
static const struct mull_state_desc table_desc = {
    .name = "cpu-table",
    .version = 1,
    .oldest = 1,
    .fields = table_fields,
};

static const struct mull_field cpu_fields[] = {
    CPU_ARRAY(gpr),
    CPU(rip),
    CPU(rflags),
    MULL_FIELD_NESTED_ARRAY(struct mull_cpu_state, seg, &segment_desc),
    MULL_FIELD_NESTED(struct mull_cpu_state, gdt, &table_desc),
    MULL_FIELD_NESTED(struct mull_cpu_state, idt, &table_desc),
    CPU(cr0),
    CPU(cr2),
    CPU(cr3),
    CPU(cr4),
    CPU(cr8),
    CPU_ARRAY(dr),
    CPU(efer),
    CPU(xcr0),
    CPU(star),
    CPU(lstar),
    CPU(cstar),
    CPU(sfmask),
    CPU(kernel_gs_base),
    CPU(sysenter_cs),
    CPU(sysenter_esp),
    CPU(sysenter_eip),
    CPU(pat),
    CPU(tsc_offset),
    CPU(tsc_aux),
    CPU(tsc_adjust),
    CPU(tsc_deadline),
    CPU(apic_base),
    CPU(misc_enable),
    CPU(spec_ctrl),
    CPU(xss),
    CPU(mtrr_def_type),
    CPU_ARRAY(mtrr_fixed),
    CPU_ARRAY(mtrr_base),
    CPU_ARRAY(mtrr_mask),
    CPU(mcg_status),
    CPU(mcg_ctl),
    CPU_ARRAY(mc_banks),
    CPU(kvm_wall_clock),
    CPU(kvm_system_time),
    CPU(kvm_async_pf),
    CPU(kvm_steal_time),
    CPU(kvm_pv_eoi),
    CPU(kvm_poll_control),
    CPU(mp_state),
    CPU(interrupt_shadow),
    CPU(nmi_blocked),
    CPU(nmi_pending),
    CPU(sipi_vector),
    CPU(sipi_pending),
    CPU(exception_pending),
    CPU(exception_vector),
    CPU(exception_has_error),
    CPU(interrupt_injected),
    CPU(interrupt_vector),
    CPU(interrupt_soft),
    CPU(exception_error),
    MULL_FIELD_BLOB(struct mull_cpu_state, lapic),
    MULL_FIELD_BLOB(struct mull_cpu_state, xsave),
    MULL_FIELDS_END,
};

/* A loaded state is untrusted: refuse what no processor could be in and an engine would index or
 * branch by. What else is odd only makes the guest fault. */
static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_cpu_state *s = object;
    if (s->mp_state > MULL_CPU_SHUTDOWN)
        return mull_fail(err, EINVAL, "CPU state: mp_state %u is unknown", s->mp_state);
    if (s->exception_pending && s->exception_vector > 31)
        return mull_fail(err, EINVAL, "CPU state: pending exception %u is none",
                         s->exception_vector);
    if ((s->cr0 >> 32) || (s->cr4 >> 32) || (s->efer >> 32) || s->cr8 > 15)
        return mull_fail(err, EINVAL,
                         "CPU state: control registers have reserved bits: CR0 0x%" PRIx64
                         " CR4 0x%" PRIx64 " EFER 0x%" PRIx64,
                         s->cr0, s->cr4, s->efer);
    if ((s->cr0 & 0x80000000u) && !(s->cr0 & 1))
        return mull_fail(err, EINVAL, "CPU state: paging without protected mode");
    if (!(s->xcr0 & 1) || (s->xcr0 >> 62))
        return mull_fail(err, EINVAL, "CPU state: XCR0 0x%" PRIx64 " is not valid", s->xcr0);
    for (unsigned i = 0; i < MULL_SEG_COUNT; i++)
        if (s->seg[i].attr & ~0x1f0ffu)
            return mull_fail(err, EINVAL, "CPU state: segment %u has unknown attributes 0x%x", i,
                             s->seg[i].attr);
    s->rflags = (s->rflags & 0x3f7fd5u) | 2;
    return 0;
}

const struct mull_state_desc mull_cpu_state_desc = {
    .name = "cpu",
    .version = 1,
    .oldest = 1,
    .fields = cpu_fields,
    .after_load = after_load,
};

static struct mull_segment real_mode_segment(uint16_t selector, uint32_t type)
{
    return (struct mull_segment){
        .base = (uint64_t)selector << 4,
        .limit = 0xffff,
        .attr = type | MULL_SEG_S | MULL_SEG_P,
        .selector = selector,
    };
}

static struct mull_segment system_segment(uint32_t type)
{
    return (struct mull_segment){.limit = 0xffff, .attr = type | MULL_SEG_P};
}

void mull_cpu_state_reset(struct mull_cpu_state *s, unsigned index, bool bsp)
{
    memset(s, 0, sizeof(*s));
    s->rip = 0xfff0;
    s->rflags = 2;
    s->gpr[MULL_RDX] = 0x600; /* the processor's signature; what software finds is in CPUID 1 */
    for (unsigned i = 0; i < 6; i++)
        s->seg[i] = real_mode_segment(0, 3);
    s->seg[MULL_CS] = real_mode_segment(0xf000, 0xb);
    s->seg[MULL_CS].base = 0xffff0000;
    s->seg[MULL_LDTR] = system_segment(2);
    s->seg[MULL_TR] = system_segment(11);
    s->gdt.limit = s->idt.limit = 0xffff;
    s->cr0 = 0x60000010;
    s->dr[6] = 0xffff0ff0;
    s->dr[7] = 0x400;
    s->xcr0 = 1;
    s->pat = 0x0007040600070406ull;
    s->apic_base = 0xfee00800 | (bsp ? 0x100 : 0);
    s->misc_enable = 1; /* fast strings */
    s->kvm_poll_control = 1; /* the host may poll: Documentation/virt/kvm/x86/msr.rst */
    s->mp_state = bsp ? MULL_CPU_RUNNABLE : MULL_CPU_WAIT_SIPI;

    /* XSAVE area: FCW, MXCSR; XSTATE_BV says that x87 and SSE are in it. */
    const uint16_t fcw = 0x37f;
    const uint32_t mxcsr = 0x1f80;
    const uint64_t xstate_bv = 3;
    memcpy(s->xsave, &fcw, sizeof(fcw));
    memcpy(s->xsave + 24, &mxcsr, sizeof(mxcsr));
    memcpy(s->xsave + 512, &xstate_bv, sizeof(xstate_bv));

    /* Local APIC (SDM volume 3, 11.4.7.1): ID, version 0x14 with 6 LVT entries, DFR, SVR, and the
     * LVT entries masked. */
    static const struct {
        uint16_t offset;
        uint32_t value;
    } lapic[] = {
        {0x030, 0x00050014}, {0x0e0, 0xffffffff}, {0x0f0, 0xff},
        {0x320, 0x10000},    {0x330, 0x10000},    {0x340, 0x10000},
        {0x350, 0x10000},    {0x360, 0x10000},    {0x370, 0x10000},
    };
    const uint32_t id = index << 24;
    memcpy(s->lapic + 0x20, &id, sizeof(id));
    for (unsigned i = 0; i < sizeof(lapic) / sizeof(lapic[0]); i++)
        memcpy(s->lapic + lapic[i].offset, &lapic[i].value, sizeof(uint32_t));
    /* As firmware leaves the boot processor: LINT0 passes the 8259A through ("virtual wire"). */
    const uint32_t extint = 0x700;
    if (bsp)
        memcpy(s->lapic + 0x350, &extint, sizeof(extint));
}
