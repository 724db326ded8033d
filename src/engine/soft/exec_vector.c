/*
 * Vector instructions whose memory operand is not one block: opmasks and vector masks (a masked-off
 * element must not fault), gathers and scatters (element by element, restartable), and the
 * byte-masked stores. Works on copies of single registers, made with thunks. Built without vector
 * instructions.
 */
#include <Zydis/Zydis.h>

#include "engine/soft/exec.h"
#include "engine/soft/thunk.h"

static unsigned vector_number(uint16_t reg)
{
    if (reg >= ZYDIS_REGISTER_ZMM0)
        return reg - ZYDIS_REGISTER_ZMM0;
    if (reg >= ZYDIS_REGISTER_YMM0)
        return reg - ZYDIS_REGISTER_YMM0;
    if (reg >= ZYDIS_REGISTER_XMM0)
        return reg - ZYDIS_REGISTER_XMM0;
    return reg - ZYDIS_REGISTER_MM0;
}

/* All 64 bits of an opmask register, or 16 where the host has no AVX512BW. */
static enum soft_result opmask_move(struct soft_cpu *cpu, bool load, unsigned reg, uint64_t *mask)
{
    enum soft_result r = soft_thunk_opmask(cpu, load, reg, 64, mask);
    if (r == SOFT_FAULT)
        r = soft_thunk_opmask(cpu, load, reg, 16, mask);
    return r;
}

/* ---- Masked loads and stores ---- */

/* Which elements of the memory operand does @in access? Bit i: the i-th in memory. */
static enum soft_result accessed_elements(struct soft_cpu *cpu, const struct soft_insn *in,
                                          const struct soft_operand *op, uint64_t *elements)
{
    unsigned count = op->size / in->native.element;
    uint64_t mask = 0;
    enum soft_result r = opmask_move(cpu, false, in->native.mask, &mask);
    if (r)
        return r;
    uint64_t all = count >= 64 ? ~0ull : (1ull << count) - 1;
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDW:
    case ZYDIS_MNEMONIC_VPEXPANDD:
    case ZYDIS_MNEMONIC_VPEXPANDQ:
    case ZYDIS_MNEMONIC_VEXPANDPD:
    case ZYDIS_MNEMONIC_VEXPANDPS: { /* as many as there are bits, from the first on */
        unsigned bits = (unsigned)__builtin_popcountll(mask & all);
        *elements = bits >= 64 ? ~0ull : (1ull << bits) - 1;
        return SOFT_NEXT;
    }
    default:
        break;
    }
    *elements = mask & all;
    /* A repeated operand is accessed if any of its repetitions is. */
    for (unsigned i = count; i < in->native.broadcast; i++)
        *elements |= (mask >> i & 1) << i % count;
    return SOFT_NEXT;
}

/* A memory operand of @count elements, and which of them are accessed. */
struct elements {
    const struct soft_operand *op;
    uint64_t offset; /* of the first, in the segment */
    unsigned count, size;
    uint64_t which;
    uint64_t va[64];
};

/* Where are the elements, and may they be accessed? The others may be anywhere. */
static enum soft_result find_elements(struct soft_cpu *cpu, struct elements *e)
{
    unsigned access = e->op->access == SOFT_READ ? SOFT_READ : SOFT_WRITE;
    enum soft_result r = SOFT_NEXT;
    for (unsigned i = 0; !r && i < e->count; i++) {
        if (!(e->which >> i & 1))
            continue;
        uint64_t offset = e->offset + i * e->size; /* does not wrap inside an operand */
        r = soft_linear(cpu, e->op->seg, offset, e->size, access, &e->va[i]);
        if (!r && access == SOFT_WRITE)
            r = soft_probe(cpu, e->va[i], e->size, SOFT_WRITE);
    }
    return r;
}

static enum soft_result copy_elements(struct soft_cpu *cpu, struct elements *e, uint8_t *copy)
{
    enum soft_result r = SOFT_NEXT;
    for (unsigned i = 0; !r && i < e->count; i++) {
        if (!(e->which >> i & 1))
            continue;
        uint8_t *at = copy + i * e->size;
        if (e->op->access == SOFT_READ)
            r = soft_read(cpu, e->va[i], at, e->size, SOFT_READ);
        else
            r = soft_write(cpu, e->va[i], at, e->size, SOFT_WRITE);
    }
    return r;
}

static enum soft_result run_elements(struct soft_cpu *cpu, const struct soft_insn *in,
                                     struct elements *e)
{
    uint8_t *copy = cpu->thunks->bounce + (e->offset & 63);
    enum soft_result r = find_elements(cpu, e);

    if (!r && e->op->access == SOFT_READ)
        r = copy_elements(cpu, e, copy);
    if (!r)
        r = soft_thunk_run(cpu, in, copy);
    if (!r && e->op->access != SOFT_READ)
        r = copy_elements(cpu, e, copy);
    return r;
}

enum soft_result soft_run_masked(struct soft_cpu *cpu, const struct soft_insn *in,
                                 const struct soft_operand *op)
{
    struct elements e = {.op = op, .size = in->native.element};
    if (!e.size || op->size % e.size || op->size > 64)
        return soft_raise(cpu, SOFT_UD);
    e.offset = soft_operand_offset(cpu, in, op, 0);
    e.count = op->size / e.size;
    enum soft_result r = SOFT_NEXT;
    if (in->native.mask_faults) {
        uint64_t va;
        r = soft_operand_address(cpu, in, op, SOFT_WRITE, &va);
        if (!r)
            r = soft_probe(cpu, va, op->size, SOFT_WRITE);
    }
    if (!r)
        r = accessed_elements(cpu, in, op, &e.which);
    if (!r && e.which && !soft_operand_aligned(cpu, in, op))
        r = soft_raise_error(cpu, SOFT_GP, 0);
    return r ? r : run_elements(cpu, in, &e);
}

/* VMASKMOVPS, VPMASKMOVD...: the sign bits of the second operand are the mask. */
enum soft_result soft_exec_mask_move(struct soft_cpu *cpu, const struct soft_insn *in)
{
    const struct soft_operand *op = &in->op[in->native.memory - 1];
    unsigned size =
        in->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || in->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ ? 8
                                                                                               : 4;
    uint8_t mask[64] __attribute__((aligned(64)));
    struct elements e = {.op = op, .size = size, .count = op->size / size};
    uint64_t va;

    enum soft_result r = soft_check_unit(cpu, in);
    if (r)
        return r;
    if (!soft_operand_address(cpu, in, op, op->access, &va)) {
        void *host =
            soft_direct(cpu, va, op->size, op->access == SOFT_READ ? SOFT_READ : SOFT_WRITE);
        if (host) {
            r = soft_thunk_run(cpu, in, host);
            return r ? r : soft_done(cpu, in);
        }
    }
    r = soft_thunk_vector(cpu, false, vector_number(in->op[1].reg), op->size, mask);
    if (r)
        return r;
    for (unsigned i = 0; i < e.count; i++)
        e.which |= (uint64_t)(mask[i * size + size - 1] >> 7) << i;
    e.offset = soft_operand_offset(cpu, in, op, 0);
    r = run_elements(cpu, in, &e);
    return r ? r : soft_done(cpu, in);
}

/* MASKMOVQ, MASKMOVDQU: bytes of the first register to DS:rDI where the second's sign is set. */
enum soft_result soft_exec_mask_bytes(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint8_t value[64] __attribute__((aligned(64))), mask[64] __attribute__((aligned(64)));
    const struct soft_operand *op = &in->op[in->operands - 1];
    unsigned size = in->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16;
    uint64_t va;

    enum soft_result r = soft_check_unit(cpu, in);
    if (!r && op->kind != SOFT_OP_MEM)
        r = soft_raise(cpu, SOFT_UD);
    if (!r)
        r = soft_thunk_vector(cpu, false, vector_number(in->op[0].reg), size, value);
    if (!r)
        r = soft_thunk_vector(cpu, false, vector_number(in->op[1].reg), size, mask);
    if (!r)
        r = soft_linear(cpu, op->seg, soft_operand_offset(cpu, in, op, 0), size, SOFT_WRITE, &va);
    if (!r) /* the operand as a whole must be writable, whatever the mask */
        r = soft_probe(cpu, va, size, SOFT_WRITE);
    for (unsigned i = 0; !r && i < size; i++)
        if (mask[i] & 0x80)
            r = soft_write(cpu, va + i, value + i, 1, SOFT_WRITE);
    return r ? r : soft_done(cpu, in);
}

/* ---- Gathers and scatters ---- */

struct gather {
    const struct soft_operand *memory;
    unsigned data_reg, index_reg;
    unsigned mask_reg;
    bool evex, scatter;
    unsigned data_size, index_size, count;
    uint8_t data[64] __attribute__((aligned(64)));
    uint8_t index[64] __attribute__((aligned(64)));
    uint8_t vmask[64] __attribute__((aligned(64)));
    uint64_t mask; /* elements still to do */
    uint64_t done; /* elements passed, with or without an access */
    bool accessed; /* one of them was */
};

static bool gather_index_is_long(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
        return true;
    default:
        return false;
    }
}

static unsigned register_bytes(uint16_t reg)
{
    return reg >= ZYDIS_REGISTER_ZMM0 ? 64 : reg >= ZYDIS_REGISTER_YMM0 ? 32 : 16;
}

static unsigned whole_register(const struct soft_cpu *cpu)
{
    return (cpu->s.xcr0 & 0xe6) == 0xe6 ? 64 : 32;
}

static enum soft_result gather_begin(struct soft_cpu *cpu, const struct soft_insn *in,
                                     struct gather *g)
{
    g->evex = in->native.encoding == SOFT_ENC_EVEX;
    g->scatter = in->native.memory == 1;
    g->memory = &in->op[in->native.memory - 1];
    const struct soft_operand *data = g->scatter ? &in->op[2] : &in->op[0];
    const struct soft_operand *mask = g->evex ? &in->op[1] : &in->op[2];
    g->data_reg = vector_number(data->reg);
    g->index_reg = vector_number(g->memory->reg);
    g->data_size = g->memory->size;
    g->done = 0;
    g->accessed = false;
    g->index_size = gather_index_is_long(in->mnemonic) ? 8 : 4;
    unsigned wide = g->index_size > g->data_size ? g->index_size : g->data_size;
    g->count = in->native.vector / wide;
    if (g->data_size != 4 && g->data_size != 8)
        return soft_raise(cpu, SOFT_UD);

    enum soft_result r;
    r = soft_thunk_vector(cpu, false, g->index_reg, register_bytes(g->memory->reg), g->index);
    if (!r)
        r = soft_thunk_vector(cpu, false, g->data_reg, whole_register(cpu), g->data);
    if (r)
        return r;
    if (g->evex) {
        g->mask_reg = mask->reg - ZYDIS_REGISTER_K0;
        g->mask = 0;
        return opmask_move(cpu, false, g->mask_reg, &g->mask);
    }
    g->mask_reg = vector_number(mask->reg);
    r = soft_thunk_vector(cpu, false, g->mask_reg, whole_register(cpu), g->vmask);
    g->mask = 0;
    for (unsigned i = 0; i < g->count; i++)
        g->mask |= (uint64_t)(g->vmask[(i + 1) * g->data_size - 1] >> 7) << i;
    return r;
}

static enum soft_result gather_element(struct soft_cpu *cpu, const struct soft_insn *in,
                                       struct gather *g, unsigned i)
{
    int64_t index;
    uint64_t va;
    if (g->index_size == 8) {
        __builtin_memcpy(&index, g->index + i * 8, 8);
    } else {
        int32_t narrow;
        __builtin_memcpy(&narrow, g->index + i * 4, 4);
        index = narrow;
    }
    uint64_t offset = soft_operand_offset(cpu, in, g->memory, (uint64_t)index * g->memory->scale);
    unsigned access = g->scatter ? SOFT_WRITE : SOFT_READ;
    enum soft_result r = soft_linear(cpu, g->memory->seg, offset, g->data_size, access, &va);
    if (r)
        return r;
    if (g->scatter)
        return soft_write(cpu, va, g->data + i * g->data_size, g->data_size, SOFT_WRITE);
    return soft_read(cpu, va, g->data + i * g->data_size, g->data_size, SOFT_READ);
}

/* Put back what was done. At the end what is above the elements is cleared, and with VEX the whole
 * mask. After a fault only the elements done have changed, but that EVEX has already cleared what
 * is above the vector length (as Zen 5 does it; the manuals leave it open). */
static enum soft_result gather_end(struct soft_cpu *cpu, struct gather *g, unsigned vector,
                                   bool finished)
{
    unsigned bytes = g->count * g->data_size;
    enum soft_result r = SOFT_NEXT;

    if (!g->done && !finished)
        return SOFT_NEXT;
    for (unsigned i = 0; i < 64; i++) {
        bool element_done = i < bytes && g->done >> (i / g->data_size) & 1;
        if (i >= (finished ? bytes : g->evex && g->accessed ? vector : 64))
            g->data[i] = 0;
        if (finished || element_done)
            g->vmask[i] = 0;
    }
    if (!g->scatter)
        r = soft_thunk_vector(cpu, true, g->data_reg, whole_register(cpu), g->data);
    if (r)
        return r;
    if (finished)
        g->mask = 0;
    if (g->evex)
        return opmask_move(cpu, true, g->mask_reg, &g->mask);
    return soft_thunk_vector(cpu, true, g->mask_reg, whole_register(cpu), g->vmask);
}

enum soft_result soft_exec_gather(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct gather g;
    enum soft_result r = soft_check_unit(cpu, in);
    if (!r)
        r = gather_begin(cpu, in, &g);
    if (r)
        return r;
    for (unsigned i = 0; i < g.count; i++) {
        bool access = g.mask >> i & 1;
        if (access)
            r = gather_element(cpu, in, &g, i);
        if (r)
            break;
        g.accessed |= access;
        g.mask &= ~(1ull << i);
        g.done |= 1ull << i;
    }
    struct soft_fault fault = cpu->fault;
    enum soft_result end = gather_end(cpu, &g, in->native.vector, r == SOFT_NEXT);
    if (end)
        return end;
    cpu->fault = fault;
    return r ? r : soft_done(cpu, in);
}

/* VZEROALL and VZEROUPPER outside 64-bit mode leave registers 8 to 15 alone. */
enum soft_result soft_exec_zero_vectors(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint8_t saved[8][64] __attribute__((aligned(64)));
    unsigned width = whole_register(cpu);
    enum soft_result r = soft_check_unit(cpu, in);

    for (unsigned i = 0; !r && i < 8; i++)
        r = soft_thunk_vector(cpu, false, i + 8, width, saved[i]);
    if (!r)
        r = soft_thunk_run(cpu, in, NULL);
    for (unsigned i = 0; !r && i < 8; i++)
        r = soft_thunk_vector(cpu, true, i + 8, width, saved[i]);
    return r ? r : soft_done(cpu, in);
}
