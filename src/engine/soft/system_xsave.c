/*
 * The XSAVE and FXSAVE families (SDM volume 1, chapter 13 and 10.5). The host's own instructions do
 * the work, on guest RAM in place where that is safe and on a copy where it is not: restoring
 * always works from a checked copy, because the guest could change its memory meanwhile and a
 * malformed image would make the host fault.
 */
#include "engine/soft/system.h"

#include <Zydis/Zydis.h>

#define LEGACY_SIZE 512u
#define HEADER_SIZE 64u
#define AREA_MIN (LEGACY_SIZE + HEADER_SIZE)
#define AREA_MAX 4096u
#define MXCSR_OFFSET 24u
#define COMPACTED (1ull << 63)

struct area {
    uint8_t bytes[AREA_MAX];
} __attribute__((aligned(64)));

static uint64_t get64(const uint8_t *at)
{
    return *(const uint64_t *)(const void *)at;
}

static uint32_t get32(const uint8_t *at)
{
    return *(const uint32_t *)(const void *)at;
}

/* ---- The host's instructions ---- */

#define WITH_AREA(insn)                                                                            \
    __asm__ volatile(insn " (%0)"                                                                  \
                     :                                                                             \
                     : "r"(area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))                 \
                     : "memory")

static void host_xsave(uint8_t *area, uint64_t mask, bool compacted, bool wide)
{
    if (compacted && wide)
        WITH_AREA("xsavec64");
    else if (compacted)
        WITH_AREA("xsavec");
    else if (wide)
        WITH_AREA("xsave64");
    else
        WITH_AREA("xsave");
}

static void host_xrstor(const uint8_t *area, uint64_t mask, bool wide)
{
    if (wide)
        WITH_AREA("xrstor64");
    else
        WITH_AREA("xrstor");
}

static void host_fxsave(uint8_t *area, bool wide)
{
    if (wide)
        __asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
    else
        __asm__ volatile("fxsave (%0)" : : "r"(area) : "memory");
}

static void host_fxrstor(const uint8_t *area, bool wide)
{
    if (wide)
        __asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
    else
        __asm__ volatile("fxrstor (%0)" : : "r"(area) : "memory");
}

/* ---- Layout ---- */

/* Where component @i (2 to 7) lies, if it is in the area; @present: the components that take room
 * in the compacted format. */
static uint32_t component_offset(const struct soft_features *f, unsigned i, bool compacted,
                                 uint64_t present)
{
    uint32_t offset = AREA_MIN;

    if (!compacted)
        return f->xsave_offset[i];
    for (unsigned k = 2; k <= i; k++) {
        if (!(present >> k & 1))
            continue;
        if (f->xsave_align >> k & 1)
            offset = (offset + 63) & ~63u;
        if (k < i)
            offset += f->xsave_size[k];
    }
    return offset;
}

/* The first byte behind the components of @mask. */
static uint32_t area_end(const struct soft_features *f, uint64_t mask, bool compacted,
                         uint64_t present)
{
    uint32_t end = AREA_MIN;

    for (unsigned i = 2; i < 8; i++) {
        if (!(mask >> i & 1))
            continue;
        uint32_t last = component_offset(f, i, compacted, present) + f->xsave_size[i];
        end = last > end ? last : end;
    }
    return end > AREA_MAX ? AREA_MAX : end;
}

/* ---- Addresses and availability ---- */

static enum soft_result area_address(struct soft_cpu *cpu, const struct soft_insn *in,
                                     uint32_t size, unsigned access, unsigned align, uint64_t *va)
{
    enum soft_result r = soft_linear(cpu, in->op[0].seg,
                                     soft_operand_offset(cpu, in, &in->op[0], 0), size, access, va);
    if (r == SOFT_NEXT && (*va & (align - 1)))
        return soft_raise_error(cpu, SOFT_GP, 0);
    return r;
}

static enum soft_result xsave_available(struct soft_cpu *cpu, bool supervisor)
{
    if (!(cpu->s.cr4 & SOFT_CR4_OSXSAVE))
        return soft_raise(cpu, SOFT_UD);
    if (cpu->s.cr0 & SOFT_CR0_TS)
        return soft_raise(cpu, SOFT_NM);
    if (supervisor)
        return soft_need_cpl0(cpu);
    return SOFT_NEXT;
}

/* A restored XCR0 could have more than the features. */
static uint64_t enabled(const struct soft_cpu *cpu)
{
    return cpu->s.xcr0 & cpu->features.xcr0;
}

static uint64_t requested(const struct soft_cpu *cpu)
{
    const struct mull_cpu_state *s = &cpu->s;
    uint64_t mask = (uint32_t)s->gpr[MULL_RAX] | s->gpr[MULL_RDX] << 32;

    return mask & enabled(cpu); /* XSS offers nothing */
}

static bool is_wide(const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVES64:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XRSTORS64:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return true;
    default:
        return false;
    }
}

/* ---- XSAVE, XSAVEOPT, XSAVEC, XSAVES ---- */

enum soft_result soft_sys_xsave(struct soft_cpu *cpu, const struct soft_insn *in)
{
    const bool supervisor =
        in->mnemonic == ZYDIS_MNEMONIC_XSAVES || in->mnemonic == ZYDIS_MNEMONIC_XSAVES64;
    const bool compacted = supervisor || in->mnemonic == ZYDIS_MNEMONIC_XSAVEC ||
                           in->mnemonic == ZYDIS_MNEMONIC_XSAVEC64;
    const bool wide = is_wide(in);
    uint64_t va;

    enum soft_result r = xsave_available(cpu, supervisor);
    if (r != SOFT_NEXT)
        return r;
    uint64_t mask = requested(cpu);
    uint32_t size = area_end(&cpu->features, mask, compacted, mask);
    r = area_address(cpu, in, size, SOFT_WRITE, 64, &va);
    if (r != SOFT_NEXT)
        return r;

    uint8_t *direct = soft_direct(cpu, va, size, SOFT_WRITE);
    if (direct) {
        soft_vectors_load(cpu);
        host_xsave(direct, mask, compacted, wide);
        return soft_done(cpu, in);
    }
    /* What is not saved stays as it is. */
    struct area area;
    r = soft_probe(cpu, va, size, SOFT_WRITE);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va, area.bytes, size, SOFT_READ);
    if (r != SOFT_NEXT)
        return r;
    soft_vectors_load(cpu);
    host_xsave(area.bytes, mask, compacted, wide);
    r = soft_write(cpu, va, area.bytes, size, SOFT_WRITE);
    return r == SOFT_NEXT ? soft_done(cpu, in) : r;
}

/* ---- XRSTOR, XRSTORS ---- */

/* SDM volume 1, 13.8.1 and 13.8.2. */
static bool valid_header(const struct soft_cpu *cpu, const uint8_t *area, bool supervisor)
{
    uint64_t bv = get64(area + LEGACY_SIZE), comp = get64(area + LEGACY_SIZE + 8);

    if (bv & ~enabled(cpu))
        return false;
    if (comp & COMPACTED) {
        uint64_t present = comp & ~COMPACTED;
        if ((present & ~enabled(cpu)) || (bv & ~present))
            return false;
    } else if (supervisor || comp) {
        return false;
    }
    unsigned from = comp & COMPACTED ? 16 : 8;
    unsigned to = comp & COMPACTED ? HEADER_SIZE : 24;
    for (unsigned i = from; i < to; i += 8)
        if (get64(area + LEGACY_SIZE + i))
            return false;
    return true;
}

static bool loads_mxcsr(uint64_t mask, uint64_t bv, bool compacted)
{
    return compacted ? (mask & bv & 2) : (mask & 6);
}

enum soft_result soft_sys_xrstor(struct soft_cpu *cpu, const struct soft_insn *in)
{
    const bool supervisor =
        in->mnemonic == ZYDIS_MNEMONIC_XRSTORS || in->mnemonic == ZYDIS_MNEMONIC_XRSTORS64;
    struct area area;
    uint64_t va;

    enum soft_result r = xsave_available(cpu, supervisor);
    if (r == SOFT_NEXT)
        r = area_address(cpu, in, AREA_MIN, SOFT_READ, 64, &va);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va, area.bytes, AREA_MIN, SOFT_READ);
    if (r != SOFT_NEXT)
        return r;
    if (!valid_header(cpu, area.bytes, supervisor))
        return soft_raise_error(cpu, SOFT_GP, 0);
    uint64_t mask = requested(cpu);
    uint64_t bv = get64(area.bytes + LEGACY_SIZE), comp = get64(area.bytes + LEGACY_SIZE + 8);
    bool compacted = comp & COMPACTED;
    uint32_t mxcsr = get32(area.bytes + MXCSR_OFFSET);
    if (loads_mxcsr(mask, bv, compacted) && (mxcsr & ~cpu->features.mxcsr))
        return soft_raise_error(cpu, SOFT_GP, 0);

    uint32_t size = area_end(&cpu->features, mask & bv, compacted, comp);
    if (size > AREA_MIN) {
        r = area_address(cpu, in, size, SOFT_READ, 64, &va);
        if (r == SOFT_NEXT)
            r = soft_read(cpu, va + AREA_MIN, area.bytes + AREA_MIN, size - AREA_MIN, SOFT_READ);
        if (r != SOFT_NEXT)
            return r;
    }
    if (!compacted) /* bytes that the processor does not check in this format */
        soft_zero(area.bytes + LEGACY_SIZE + 24, HEADER_SIZE - 24);
    if (!cpu->vectors_live && mask == cpu->xsave_mask)
        cpu->vectors_live = true; /* everything is replaced */
    else
        soft_vectors_load(cpu);
    host_xrstor(area.bytes, mask, is_wide(in));
    return soft_done(cpu, in);
}

/* ---- FXSAVE, FXRSTOR ---- */

static enum soft_result fxsave_available(struct soft_cpu *cpu)
{
    if (cpu->s.cr0 & (SOFT_CR0_EM | SOFT_CR0_TS))
        return soft_raise(cpu, SOFT_NM);
    return SOFT_NEXT;
}

enum soft_result soft_sys_fxsave(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct area area;
    uint64_t va;

    enum soft_result r = fxsave_available(cpu);
    if (r == SOFT_NEXT)
        r = area_address(cpu, in, LEGACY_SIZE, SOFT_WRITE, 16, &va);
    if (r != SOFT_NEXT)
        return r;
    uint8_t *direct = soft_direct(cpu, va, LEGACY_SIZE, SOFT_WRITE);
    if (direct) {
        soft_vectors_load(cpu);
        host_fxsave(direct, is_wide(in));
        return soft_done(cpu, in);
    }
    r = soft_probe(cpu, va, LEGACY_SIZE, SOFT_WRITE);
    if (r == SOFT_NEXT) /* the last 48 bytes are software's */
        r = soft_read(cpu, va, area.bytes, LEGACY_SIZE, SOFT_READ);
    if (r != SOFT_NEXT)
        return r;
    soft_vectors_load(cpu);
    host_fxsave(area.bytes, is_wide(in));
    r = soft_write(cpu, va, area.bytes, LEGACY_SIZE, SOFT_WRITE);
    return r == SOFT_NEXT ? soft_done(cpu, in) : r;
}

enum soft_result soft_sys_fxrstor(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct area area;
    uint64_t va;

    enum soft_result r = fxsave_available(cpu);
    if (r == SOFT_NEXT)
        r = area_address(cpu, in, LEGACY_SIZE, SOFT_READ, 16, &va);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va, area.bytes, LEGACY_SIZE, SOFT_READ);
    if (r != SOFT_NEXT)
        return r;
    if (get32(area.bytes + MXCSR_OFFSET) & ~cpu->features.mxcsr)
        return soft_raise_error(cpu, SOFT_GP, 0);
    soft_vectors_load(cpu);
    host_fxrstor(area.bytes, is_wide(in));
    return soft_done(cpu, in);
}
