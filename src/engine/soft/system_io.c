/*
 * I/O ports: IN, OUT, INS, OUTS, and who may use which port (SDM volume 1, 19.5).
 */
#include "engine/soft/system.h"

/* Check the I/O permission bitmap of the TSS. */
static enum soft_result check_bitmap(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    const struct mull_segment *tr = &cpu->s.seg[MULL_TR];
    unsigned type = tr->attr & MULL_SEG_TYPE;
    uint16_t map, bits;

    if ((tr->attr & MULL_SEG_UNUSABLE) || (type != 9 && type != 11) || tr->limit < 103)
        return soft_raise_error(cpu, SOFT_GP, 0);
    enum soft_result r = soft_read(cpu, tr->base + 102, &map, 2, SOFT_READ | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;
    uint32_t at = (uint32_t)map + port / 8;
    if (at + 1 > tr->limit)
        return soft_raise_error(cpu, SOFT_GP, 0);
    r = soft_read(cpu, tr->base + at, &bits, 2, SOFT_READ | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;
    if (bits >> (port & 7) & ((1u << size) - 1))
        return soft_raise_error(cpu, SOFT_GP, 0);
    return SOFT_NEXT;
}

static enum soft_result check_port(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    if (!(cpu->mode & SOFT_MODE_PROTECTED))
        return SOFT_NEXT;
    unsigned iopl = (cpu->s.rflags & SOFT_IOPL) >> 12;
    if (!(cpu->mode & SOFT_MODE_VM86) && soft_cpl(cpu) <= iopl)
        return SOFT_NEXT;
    return check_bitmap(cpu, port, size);
}

static uint32_t port_read(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    if (cpu->s.dr[7] & 0xff)
        soft_debug_port(cpu, port, size);
    soft_vectors_park(cpu);
    cpu->stats.pio++;
    return (uint32_t)mull_space_read(cpu->vm->memory, MULL_SPACE_PORT, cpu->index, port, size);
}

static void port_write(struct soft_cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    if (cpu->s.dr[7] & 0xff)
        soft_debug_port(cpu, port, size);
    soft_vectors_park(cpu);
    cpu->stats.pio++;
    mull_space_write(cpu->vm->memory, MULL_SPACE_PORT, cpu->index, port, size, value);
}

static uint16_t port_operand(const struct soft_cpu *cpu, const struct soft_operand *op)
{
    return op->kind == SOFT_OP_IMM ? (uint8_t)op->value : (uint16_t)cpu->s.gpr[MULL_RDX];
}

/* A device may have asked this CPU to stop, or sent it an interrupt: look before going on. */
static enum soft_result io_done(struct soft_cpu *cpu, const struct soft_insn *in)
{
    soft_done(cpu, in);
    return __atomic_load_n(&cpu->run_ok, __ATOMIC_RELAXED) ? SOFT_NEXT : SOFT_JUMP;
}

static bool is_call(const struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    const struct mull_engine_bus *bus = cpu->vm->bus;
    return bus->call && port == bus->call_port && size == 4 &&
           (uint32_t)cpu->s.gpr[MULL_RAX] == bus->call_magic;
}

enum soft_result soft_sys_in(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint16_t port = port_operand(cpu, &in->op[1]);
    unsigned size = in->op[0].size;

    if (is_call(cpu, port, size)) {
        soft_vectors_park(cpu);
        cpu->stats.pio++;
        cpu->vm->bus->call(cpu->vm->bus->opaque, cpu->index, cpu->s.gpr);
        return io_done(cpu, in);
    }
    enum soft_result r = check_port(cpu, port, size);

    if (r != SOFT_NEXT)
        return r;
    soft_reg_write(cpu, in->op[0].reg, port_read(cpu, port, size));
    return io_done(cpu, in);
}

enum soft_result soft_sys_out(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint16_t port = port_operand(cpu, &in->op[0]);
    unsigned size = in->op[1].size;
    enum soft_result r = check_port(cpu, port, size);

    if (r != SOFT_NEXT)
        return r;
    port_write(cpu, port, size, (uint32_t)soft_reg_read(cpu, in->op[1].reg));
    return io_done(cpu, in);
}

/* ---- Strings ---- */

static const struct soft_operand *memory_operand(const struct soft_insn *in)
{
    for (unsigned i = 0; i < in->operands; i++)
        if (in->op[i].kind == SOFT_OP_MEM)
            return &in->op[i];
    return NULL;
}

/* Write an index or count register in the width of the address size. */
static void set_address_reg(struct soft_cpu *cpu, const struct soft_insn *in, unsigned reg,
                            uint64_t value)
{
    uint64_t *gpr = &cpu->s.gpr[reg];

    if (in->address_size == 2)
        *gpr = (*gpr & ~0xffffull) | (value & 0xffff);
    else
        *gpr = value & soft_size_mask(in->address_size);
}

static enum soft_result one_in(struct soft_cpu *cpu, const struct soft_operand *op, uint64_t offset)
{
    uint16_t port = (uint16_t)cpu->s.gpr[MULL_RDX];
    uint64_t va;

    enum soft_result r = soft_linear(cpu, op->seg, offset, op->size, SOFT_WRITE, &va);
    if (r == SOFT_NEXT) /* nothing may be taken from the port that cannot be stored */
        r = soft_probe(cpu, va, op->size, SOFT_WRITE);
    if (r != SOFT_NEXT)
        return r;
    uint32_t value = port_read(cpu, port, op->size);
    return soft_write(cpu, va, &value, op->size, SOFT_WRITE);
}

static enum soft_result one_out(struct soft_cpu *cpu, const struct soft_operand *op,
                                uint64_t offset)
{
    uint16_t port = (uint16_t)cpu->s.gpr[MULL_RDX];
    uint32_t value = 0;
    uint64_t va;

    enum soft_result r = soft_linear(cpu, op->seg, offset, op->size, SOFT_READ, &va);
    if (r == SOFT_NEXT)
        r = soft_read(cpu, va, &value, op->size, SOFT_READ);
    if (r == SOFT_NEXT)
        port_write(cpu, port, op->size, value);
    return r;
}

/* INS and OUTS. A fault leaves the registers at the element that faulted; an interrupt is let in
 * between two elements. */
static enum soft_result io_string(struct soft_cpu *cpu, const struct soft_insn *in, bool input)
{
    const struct soft_operand *op = memory_operand(in);
    unsigned index = input ? MULL_RDI : MULL_RSI;
    uint64_t mask = soft_size_mask(in->address_size);
    bool rep = in->prefixes & (SOFT_PREFIX_REP | SOFT_PREFIX_REPNE);

    if (!op || op->size > 4)
        return soft_raise(cpu, SOFT_UD);
    if (rep && !(cpu->s.gpr[MULL_RCX] & mask))
        return soft_done(cpu, in);
    enum soft_result r = check_port(cpu, (uint16_t)cpu->s.gpr[MULL_RDX], op->size);
    if (r != SOFT_NEXT)
        return r;
    uint64_t step = cpu->s.rflags & SOFT_DF ? -(uint64_t)op->size : op->size;
    for (;;) {
        uint64_t offset = cpu->s.gpr[index] & mask;
        r = input ? one_in(cpu, op, offset) : one_out(cpu, op, offset);
        if (r != SOFT_NEXT)
            return r;
        set_address_reg(cpu, in, index, offset + step);
        if (!rep)
            return soft_done(cpu, in);
        uint64_t left = (cpu->s.gpr[MULL_RCX] & mask) - 1;
        set_address_reg(cpu, in, MULL_RCX, left);
        if (!left)
            return soft_done(cpu, in);
        if (!__atomic_load_n(&cpu->run_ok, __ATOMIC_RELAXED) || cpu->debug_hits)
            return SOFT_JUMP;
    }
}

enum soft_result soft_sys_ins(struct soft_cpu *cpu, const struct soft_insn *in)
{
    return io_string(cpu, in, true);
}

enum soft_result soft_sys_outs(struct soft_cpu *cpu, const struct soft_insn *in)
{
    return io_string(cpu, in, false);
}
