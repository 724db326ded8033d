/*
 * Segmentation: linear addresses, descriptors, loads of segment registers, stacks of the TSS
 * (SDM volume 3, chapters 3, 5 and 7).
 */
#include "engine/soft/system.h"

/* ---- Linear addresses ---- */

static enum soft_result segment_fault(struct soft_cpu *cpu, unsigned seg)
{
    return soft_raise_error(cpu, seg == MULL_SS ? SOFT_SS : SOFT_GP, 0);
}

/* May a segment of this type be accessed so? (SDM volume 3, 5.5) */
static bool type_allows(uint32_t attr, unsigned access)
{
    unsigned kind = access & 3u;

    if (kind == SOFT_EXEC)
        return true;
    if (attr & SOFT_TYPE_CODE)
        return kind == SOFT_READ && (attr & SOFT_TYPE_READ);
    return kind == SOFT_READ || (attr & SOFT_TYPE_WRITE);
}

static bool in_limit(const struct mull_segment *seg, uint64_t offset, unsigned size)
{
    uint64_t last = offset + (size ? size - 1 : 0);

    if ((seg->attr & (SOFT_TYPE_CODE | SOFT_TYPE_DOWN)) != SOFT_TYPE_DOWN)
        return last <= seg->limit && last >= offset;
    uint64_t top = seg->attr & MULL_SEG_DB ? 0xffffffffu : 0xffffu;
    return offset > seg->limit && last <= top && last >= offset;
}

/* Watches, the guest's and those of a debugger outside. */
static void note_access(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access)
{
    if (cpu->s.dr[7] & 0xff)
        soft_debug_access(cpu, va, size, access);
    if (cpu->vm->debug.watches)
        soft_debug_touch(cpu, va, size, access);
}

enum soft_result soft_linear(struct soft_cpu *cpu, unsigned seg, uint64_t offset, unsigned size,
                             unsigned access, uint64_t *va)
{
    const struct mull_segment *s = &cpu->s.seg[seg];

    if (soft_code64(cpu)) {
        uint64_t linear = offset + (seg == MULL_FS || seg == MULL_GS ? s->base : 0);
        if (!soft_canonical(linear) || (size > 1 && !soft_canonical(linear + size - 1)))
            return segment_fault(cpu, seg);
        note_access(cpu, linear, size, access);
        *va = linear;
        return SOFT_NEXT;
    }
    if ((s->attr & MULL_SEG_UNUSABLE) || !in_limit(s, offset, size))
        return segment_fault(cpu, seg);
    if (!soft_real_segments(cpu) && !type_allows(s->attr, access))
        return segment_fault(cpu, seg);
    *va = (s->base + offset) & 0xffffffffu;
    note_access(cpu, *va, size, access);
    return SOFT_NEXT;
}

/* ---- Stacks ---- */

enum soft_result soft_tss_stack(struct soft_cpu *cpu, unsigned level, uint32_t ext, uint16_t *ss,
                                uint64_t *rsp)
{
    const struct mull_segment *tr = &cpu->s.seg[MULL_TR];
    unsigned type = tr->attr & MULL_SEG_TYPE;
    bool wide = type & 8;
    uint32_t offset, size;
    uint8_t bytes[8] = {0};

    if (soft_long_mode(cpu)) { /* RSP0..2 at 4, IST1..7 at 36 (figure 7-11) */
        offset = level < 3 ? 4 + level * 8 : 36 + (level - 4) * 8;
        size = 8;
    } else {
        offset = wide ? 4 + level * 8 : 2 + level * 4;
        size = wide ? 6 : 4;
    }
    if ((tr->attr & MULL_SEG_UNUSABLE) || offset + size - 1 > tr->limit)
        return soft_raise_error(cpu, SOFT_TS, (tr->selector & 0xfffcu) | ext);
    enum soft_result r = soft_read(cpu, tr->base + offset, bytes, size, SOFT_READ | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;
    uint64_t value = *(const uint64_t *)(const void *)bytes;
    if (soft_long_mode(cpu)) {
        *rsp = value;
        *ss = 0;
    } else {
        *rsp = wide ? value & 0xffffffffu : value & 0xffffu;
        *ss = (uint16_t)(wide ? value >> 32 : value >> 16);
    }
    return SOFT_NEXT;
}

enum soft_result soft_check_new_stack(struct soft_cpu *cpu, uint16_t selector, unsigned cpl,
                                      uint32_t ext, struct mull_segment *ss)
{
    uint32_t error = (selector & 0xfffcu) | ext;
    struct soft_desc desc;

    if (!(selector & 0xfffc) || (selector & 3u) != cpl)
        return soft_raise_error(cpu, SOFT_TS, error);
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_TS, ext, &desc);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(desc.hi);
    if (!(desc.hi & SOFT_DESC_S) || (type & SOFT_TYPE_CODE) || !(type & SOFT_TYPE_WRITE) ||
        SOFT_DESC_DPL(desc.hi) != cpl)
        return soft_raise_error(cpu, SOFT_TS, error);
    if (!(desc.hi & SOFT_DESC_P))
        return soft_raise_error(cpu, SOFT_SS, error);
    r = soft_set_accessed(cpu, &desc);
    if (r == SOFT_NEXT)
        soft_desc_to_segment(&desc, selector, ss);
    return r;
}

/* ---- Descriptors ---- */

static enum soft_result read_desc(struct soft_cpu *cpu, uint16_t selector, unsigned size,
                                  uint8_t vector, uint32_t ext, struct soft_desc *desc)
{
    const struct mull_cpu_state *s = &cpu->s;
    uint64_t base = s->gdt.base;
    uint64_t limit = s->gdt.limit;
    uint32_t offset = selector & 0xfff8u;

    if (selector & 4) {
        base = s->seg[MULL_LDTR].base;
        limit = s->seg[MULL_LDTR].limit;
    }
    if (((selector & 4) && (s->seg[MULL_LDTR].attr & MULL_SEG_UNUSABLE)) ||
        offset + size - 1 > limit)
        return soft_raise_error(cpu, vector, (selector & 0xfffcu) | ext);
    desc->va = base + offset;
    if (!soft_long_mode(cpu))
        desc->va &= 0xffffffffu;
    uint32_t words[4] = {0};
    enum soft_result r = soft_read(cpu, desc->va, words, size, SOFT_READ | SOFT_SYSTEM);
    desc->lo = words[0];
    desc->hi = words[1];
    desc->base_high = words[2];
    desc->reserved = words[3];
    return r;
}

enum soft_result soft_read_desc(struct soft_cpu *cpu, uint16_t selector, uint8_t vector,
                                uint32_t ext, struct soft_desc *desc)
{
    return read_desc(cpu, selector, 8, vector, ext, desc);
}

enum soft_result soft_read_system_desc(struct soft_cpu *cpu, uint16_t selector, uint8_t vector,
                                       uint32_t ext, struct soft_desc *desc)
{
    return read_desc(cpu, selector, soft_long_mode(cpu) ? 16 : 8, vector, ext, desc);
}

enum soft_result soft_set_accessed(struct soft_cpu *cpu, struct soft_desc *desc)
{
    if (desc->hi & (SOFT_TYPE_ACCESSED << 8))
        return SOFT_NEXT;
    desc->hi |= SOFT_TYPE_ACCESSED << 8;
    uint8_t type = (uint8_t)(desc->hi >> 8);
    return soft_write(cpu, desc->va + 5, &type, 1, SOFT_WRITE | SOFT_SYSTEM);
}

void soft_desc_to_segment(const struct soft_desc *desc, uint16_t selector, struct mull_segment *seg)
{
    uint32_t limit = (desc->lo & 0xffffu) | (desc->hi & 0xf0000u);

    seg->attr = (desc->hi >> 8) & 0xf0ffu;
    if (seg->attr & MULL_SEG_G)
        limit = limit << 12 | 0xfff;
    seg->limit = limit;
    seg->base = desc->lo >> 16 | (desc->hi & 0xffu) << 16 | (desc->hi & 0xff000000u);
    seg->selector = selector;
}

void soft_null_segment(struct mull_segment *seg, uint16_t selector)
{
    seg->base = 0;
    seg->limit = 0;
    seg->attr = MULL_SEG_UNUSABLE;
    seg->selector = selector;
}

void soft_real_segment(struct soft_cpu *cpu, unsigned seg, uint16_t selector)
{
    struct mull_segment *s = &cpu->s.seg[seg];

    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    if (cpu->mode & SOFT_MODE_VM86) {
        s->limit = 0xffff;
        s->attr = 3 | MULL_SEG_S | MULL_SEG_DPL | MULL_SEG_P;
        return;
    }
    /* Real mode keeps the limit that protected mode left. */
    if (s->attr & MULL_SEG_UNUSABLE)
        s->limit = 0xffff;
    if (seg == MULL_CS || (s->attr & MULL_SEG_UNUSABLE))
        s->attr = 3 | MULL_SEG_S | MULL_SEG_P | (s->attr & MULL_SEG_DB);
}

/* ---- Loads ---- */

static enum soft_result load_null(struct soft_cpu *cpu, unsigned seg, uint16_t selector)
{
    struct mull_segment *s = &cpu->s.seg[seg];

    if (seg != MULL_SS) {
        soft_null_segment(s, selector);
        return SOFT_NEXT;
    }
    /* SS may be null in 64-bit mode below CPL 3, with RPL = CPL. */
    unsigned cpl = soft_cpl(cpu);
    if (!soft_code64(cpu) || cpl == 3 || (selector & 3u) != cpl)
        return soft_raise_error(cpu, SOFT_GP, 0);
    soft_null_stack(s, cpl);
    s->selector = selector;
    return SOFT_NEXT;
}

enum soft_result soft_load_segment(struct soft_cpu *cpu, unsigned seg, uint16_t selector)
{
    uint32_t error = selector & 0xfffcu;
    unsigned cpl = soft_cpl(cpu), rpl = selector & 3u;
    struct soft_desc desc;

    if (soft_real_segments(cpu)) {
        soft_real_segment(cpu, seg, selector);
        soft_level_changed(cpu);
        return SOFT_NEXT;
    }
    if (!error) {
        enum soft_result r = load_null(cpu, seg, selector);
        if (r == SOFT_NEXT)
            soft_level_changed(cpu);
        return r;
    }
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_GP, 0, &desc);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(desc.hi), dpl = SOFT_DESC_DPL(desc.hi);
    bool code = type & SOFT_TYPE_CODE;
    if (!(desc.hi & SOFT_DESC_S))
        return soft_raise_error(cpu, SOFT_GP, error);
    if (seg == MULL_SS) {
        if (code || !(type & SOFT_TYPE_WRITE) || dpl != cpl || rpl != cpl)
            return soft_raise_error(cpu, SOFT_GP, error);
    } else {
        if (code && !(type & SOFT_TYPE_READ))
            return soft_raise_error(cpu, SOFT_GP, error);
        if ((!code || !(type & SOFT_TYPE_CONFORMING)) && (rpl > dpl || cpl > dpl))
            return soft_raise_error(cpu, SOFT_GP, error);
    }
    if (!(desc.hi & SOFT_DESC_P))
        return soft_raise_error(cpu, seg == MULL_SS ? SOFT_SS : SOFT_NP, error);
    r = soft_set_accessed(cpu, &desc);
    if (r != SOFT_NEXT)
        return r;
    soft_desc_to_segment(&desc, selector, &cpu->s.seg[seg]);
    soft_level_changed(cpu);
    return SOFT_NEXT;
}
