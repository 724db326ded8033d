/*
 * Executes data instructions: registers, operands, and everything that is not control flow, stack,
 * string or system. The work itself is done by the host's CPU through thunks; here it is decided
 * what the instruction needs, where its memory operand lies, and how to keep its access atomic and
 * restartable. Built without vector instructions.
 */
#include "engine/soft/exec.h"

#include <Zydis/Zydis.h>

#include "engine/soft/thunk.h"

/* ---- Registers ---- */

struct reg_place {
    uint8_t gpr, shift, bytes;
};

static struct reg_place place_of(uint16_t reg)
{
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        return (struct reg_place){(uint8_t)(reg - ZYDIS_REGISTER_RAX), 0, 8};
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        return (struct reg_place){(uint8_t)(reg - ZYDIS_REGISTER_EAX), 0, 4};
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
        return (struct reg_place){(uint8_t)(reg - ZYDIS_REGISTER_AX), 0, 2};
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
        return (struct reg_place){(uint8_t)(reg - ZYDIS_REGISTER_AL), 0, 1};
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return (struct reg_place){(uint8_t)(reg - ZYDIS_REGISTER_AH), 8, 1};
    if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
        return (struct reg_place){(uint8_t)(reg - ZYDIS_REGISTER_SPL + 4), 0, 1};
    return (struct reg_place){0, 0, 0};
}

uint64_t soft_reg_read(const struct soft_cpu *cpu, uint16_t reg)
{
    struct reg_place p = place_of(reg);
    return p.bytes ? cpu->s.gpr[p.gpr] >> p.shift & soft_size_mask(p.bytes) : 0;
}

void soft_reg_write(struct soft_cpu *cpu, uint16_t reg, uint64_t value)
{
    struct reg_place p = place_of(reg);
    if (!p.bytes)
        return;
    uint64_t mask = soft_size_mask(p.bytes);
    if (p.bytes == 4)
        cpu->s.gpr[p.gpr] = (uint32_t)value;
    else
        cpu->s.gpr[p.gpr] = (cpu->s.gpr[p.gpr] & ~(mask << p.shift)) | (value & mask) << p.shift;
}

/* ---- Operands ---- */

uint64_t soft_operand_offset(const struct soft_cpu *cpu, const struct soft_insn *in,
                             const struct soft_operand *op, uint64_t extra)
{
    uint64_t offset = (uint64_t)op->value + extra;
    if (op->base == 16)
        offset += cpu->s.rip + in->length;
    else if (op->base >= 0)
        offset += cpu->s.gpr[op->base];
    if (op->index >= 0)
        offset += cpu->s.gpr[op->index] * op->scale;
    return offset & soft_size_mask(in->address_size);
}

enum soft_result soft_operand_address(struct soft_cpu *cpu, const struct soft_insn *in,
                                      const struct soft_operand *op, unsigned access, uint64_t *va)
{
    return soft_linear(cpu, op->seg, soft_operand_offset(cpu, in, op, 0), op->size, access, va);
}

enum soft_result soft_operand_read(struct soft_cpu *cpu, const struct soft_insn *in,
                                   const struct soft_operand *op, uint64_t *value)
{
    uint64_t va;
    *value = 0;
    if (op->kind == SOFT_OP_REG) {
        *value = soft_reg_read(cpu, op->reg);
        return SOFT_NEXT;
    }
    if (op->kind != SOFT_OP_MEM) {
        *value = (uint64_t)op->value;
        return SOFT_NEXT;
    }
    if (op->size > 8)
        return soft_raise(cpu, SOFT_UD);
    enum soft_result r = soft_operand_address(cpu, in, op, SOFT_READ, &va);
    return r ? r : soft_read(cpu, va, value, op->size, SOFT_READ);
}

enum soft_result soft_operand_write(struct soft_cpu *cpu, const struct soft_insn *in,
                                    const struct soft_operand *op, uint64_t value)
{
    uint64_t va;
    if (op->kind == SOFT_OP_REG) {
        soft_reg_write(cpu, op->reg, value);
        return SOFT_NEXT;
    }
    if (op->kind != SOFT_OP_MEM || op->size > 8)
        return soft_raise(cpu, SOFT_UD);
    enum soft_result r = soft_operand_address(cpu, in, op, SOFT_WRITE, &va);
    return r ? r : soft_write(cpu, va, &value, op->size, SOFT_WRITE);
}

/* ---- Availability ---- */

enum soft_result soft_check_unit(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint32_t mode = cpu->mode;
    unsigned unit = in->native.unit;
    bool undefined = false, off = false;

    if (unit == SOFT_UNIT_INTEGER)
        return SOFT_NEXT;
    if (unit == SOFT_UNIT_VEX_INTEGER || unit >= SOFT_UNIT_AVX)
        undefined = !(mode & SOFT_MODE_PROTECTED) || mode & SOFT_MODE_VM86;
    switch (unit) {
    case SOFT_UNIT_X87:
        off = mode & SOFT_MODE_NO_X87;
        break;
    case SOFT_UNIT_MMX:
        undefined = cpu->s.cr0 & SOFT_CR0_EM;
        off = mode & SOFT_MODE_NO_X87;
        break;
    case SOFT_UNIT_SSE:
        off = mode & SOFT_MODE_NO_SSE;
        undefined = off && (cpu->s.cr0 & SOFT_CR0_EM || !(cpu->s.cr4 & SOFT_CR4_OSFXSR));
        break;
    case SOFT_UNIT_AVX:
        off = mode & SOFT_MODE_NO_AVX;
        undefined |= off && (!(cpu->s.cr4 & SOFT_CR4_OSXSAVE) || (cpu->s.xcr0 & 6) != 6);
        break;
    case SOFT_UNIT_AVX512:
        off = mode & SOFT_MODE_NO_AVX512;
        undefined |= off && (!(cpu->s.cr4 & SOFT_CR4_OSXSAVE) || (cpu->s.xcr0 & 0xe6) != 0xe6);
        break;
    default:
        break;
    }
    if (undefined)
        return soft_raise(cpu, SOFT_UD);
    return off ? soft_raise(cpu, SOFT_NM) : SOFT_NEXT;
}

/* ---- Running ---- */

/* A copy of the operand with the guest's misalignment, so that the host's CPU sees it too. */
static uint8_t *bounce_at(struct soft_cpu *cpu, uint64_t va)
{
    return cpu->thunks->bounce + (va & 63);
}

static enum soft_result run_bounced(struct soft_cpu *cpu, const struct soft_insn *in,
                                    const struct soft_operand *op, uint64_t va)
{
    enum soft_result r = SOFT_NEXT;
    uint8_t *copy = bounce_at(cpu, va);
    if (op->access != SOFT_READ)
        r = soft_probe(cpu, va, op->size, op->access);
    /* An x87 store with an unmasked exception stores nothing, and faults only later. */
    if (!r && (op->access != SOFT_WRITE || in->native.unit == SOFT_UNIT_X87))
        r = soft_read(cpu, va, copy, op->size, SOFT_READ);
    if (!r)
        r = soft_thunk_run(cpu, in, copy);
    if (!r && op->access != SOFT_READ)
        r = soft_write(cpu, va, copy, op->size, SOFT_WRITE);
    return r;
}

static void split_lock(struct soft_vm *vm)
{
    while (atomic_exchange_explicit(&vm->split_lock, 1, memory_order_acquire))
        __builtin_ia32_pause();
}

static void split_unlock(struct soft_vm *vm)
{
    atomic_store_explicit(&vm->split_lock, 0, memory_order_release);
}

/* A locked access that soft_direct() refuses. Inside one page of RAM (a page with code, or clean
 * for dirty tracking) it is still done in place, so that it is atomic against every other access;
 * across pages and on MMIO it is atomic against others of its kind only. */
static enum soft_result run_locked(struct soft_cpu *cpu, const struct soft_insn *in,
                                   const struct soft_operand *op, uint64_t va)
{
    struct soft_page page;
    enum soft_result r;

    if ((va & ~MULL_PAGE_MASK) + op->size <= MULL_PAGE_SIZE) {
        r = soft_translate(cpu, va, SOFT_RMW, &page);
        if (r)
            return r;
        if (page.host && !page.ram->readonly) {
            uint64_t index = (page.gpa - page.ram->gpa) >> MULL_PAGE_SHIFT;
            uint8_t flags = atomic_load(&page.ram->flags[index]);
            if (flags & MULL_PAGE_ROM)
                return run_bounced(cpu, in, op, va);
            if (flags & MULL_PAGE_CLEAN)
                mull_memory_mark_dirty(page.ram, page.gpa);
            r = soft_thunk_run(cpu, in, page.host);
            if (!r && atomic_load(&page.ram->flags[index]) & MULL_PAGE_CODE)
                soft_code_written(cpu->vm, cpu, page.gpa, op->size);
            return r;
        }
    }
    split_lock(cpu->vm);
    r = run_bounced(cpu, in, op, va);
    split_unlock(cpu->vm);
    return r;
}

static bool is_locked(const struct soft_insn *in)
{
    return in->prefixes & SOFT_PREFIX_LOCK || in->mnemonic == ZYDIS_MNEMONIC_XCHG;
}

enum soft_result soft_run_memory(struct soft_cpu *cpu, const struct soft_insn *in,
                                 const struct soft_operand *op, uint64_t va)
{
    void *host = soft_direct(cpu, va, op->size, op->access == SOFT_READ ? SOFT_READ : SOFT_WRITE);
    if (host)
        return soft_thunk_run(cpu, in, host);
    if (in->native.mask)
        return soft_run_masked(cpu, in, op);
    if (is_locked(in))
        return run_locked(cpu, in, op, va);
    return run_bounced(cpu, in, op, va);
}

/* Alignment comes before every other check of the address. */
bool soft_operand_aligned(const struct soft_cpu *cpu, const struct soft_insn *in,
                          const struct soft_operand *op)
{
    if (!in->native.align)
        return true;
    uint64_t address = soft_operand_offset(cpu, in, op, 0);
    if (!(cpu->mode & SOFT_MODE_CODE64) || op->seg >= MULL_FS)
        address += cpu->s.seg[op->seg].base;
    return !(address & (in->native.align - 1u));
}

/* A pending x87 exception comes before a fault of the memory operand; the instructions that do not
 * wait for it are FNSTCW, FNSTSW, FNSTENV and FNSAVE. */
static bool x87_error_pending(const struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint16_t status;
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
        return false;
    default:
        break;
    }
    if (cpu->vectors_live)
        __asm__ volatile("fnstsw %0" : "=a"(status));
    else if (cpu->s.xsave[512] & 1)
        status = (uint16_t)(cpu->s.xsave[2] | cpu->s.xsave[3] << 8);
    else
        return false;
    return status & 0x80;
}

enum soft_result soft_exec_data(struct soft_cpu *cpu, const struct soft_insn *in)
{
    enum soft_result r = soft_check_unit(cpu, in);
    if (r)
        return r;
    if (in->native.constant) {
        soft_reg_write(cpu, in->op[0].reg, (uint64_t)in->op[1].value);
    } else if (!in->native.memory) {
        r = soft_thunk_run(cpu, in, NULL);
    } else {
        const struct soft_operand *op = &in->op[in->native.memory - 1];
        uint64_t va;
        if ((in->native.unit == SOFT_UNIT_X87 || in->native.unit == SOFT_UNIT_MMX) &&
            x87_error_pending(cpu, in))
            return soft_raise(cpu, SOFT_MF);
        if (!in->native.mask && !soft_operand_aligned(cpu, in, op))
            return soft_raise_error(cpu, SOFT_GP, 0);
        r = soft_operand_address(cpu, in, op, op->access, &va);
        if (!r)
            r = soft_run_memory(cpu, in, op, va);
        else if (in->native.mask) /* what is masked off may be anywhere */
            r = soft_run_masked(cpu, in, op);
    }
    return r ? r : soft_done(cpu, in);
}

/* BT, BTS, BTR, BTC of memory by a register: the register's upper bits move the operand (SDM
 * volume 2, "Bit(BitBase, BitOffset)"). The native instruction then sees only the lower ones. */
enum soft_result soft_exec_bit(struct soft_cpu *cpu, const struct soft_insn *in)
{
    const struct soft_operand *op = &in->op[0];
    struct reg_place p = place_of(in->op[1].reg);
    unsigned bits = op->size * 8;
    if (!bits || bits > 64)
        return soft_raise(cpu, SOFT_UD);
    int64_t bit = soft_sign_extend(soft_reg_read(cpu, in->op[1].reg), op->size);
    int64_t skip = (bit & -(int64_t)bits) / 8;
    uint64_t va;

    enum soft_result r = soft_linear(cpu, op->seg, soft_operand_offset(cpu, in, op, (uint64_t)skip),
                                     op->size, op->access, &va);
    if (r)
        return r;
    uint64_t saved = cpu->s.gpr[p.gpr];
    cpu->s.gpr[p.gpr] = (uint64_t)bit & (bits - 1);
    r = soft_run_memory(cpu, in, op, va);
    cpu->s.gpr[p.gpr] = saved;
    return r ? r : soft_done(cpu, in);
}
