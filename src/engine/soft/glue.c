/*
 * The glue between C and translated code: entering it, and the few ways out of it. Generated once
 * into the start of the code cache, because it moves guest registers between the host's registers
 * and struct soft_cpu by offsets that C knows.
 *
 * Register use inside translated code: guest RCX lives in host R9; guest R9, R10 and R11 live in
 * memory; RCX, R10 and R11 are scratch; all other guest registers live in the host register of the
 * same name, RSP included. So nothing may be pushed: a way out is a jump, arguments are in the
 * scratch registers, and the first thing done is to store everything and switch stacks.
 */
#include "engine/soft/cache.h"
#include "engine/soft/emit.h"
#include "engine/soft/run.h"

#define OFF(member) ((uint32_t)offsetof(struct soft_cpu, member))
#define GPR(n) (OFF(s.gpr) + 8 * (n))

/* host register -> guest register it carries, -1: scratch */
static const int8_t carries[16] = {
    MULL_RAX, -1,       MULL_RDX, MULL_RBX, MULL_RSP, MULL_RBP, MULL_RSI, MULL_RDI,
    MULL_R8,  MULL_RCX, -1,       -1,       MULL_R12, MULL_R13, MULL_R14, MULL_R15,
};

/* Store guest registers, flags and the three scratch registers; then RDI = cpu, host stack. */
static void emit_save(struct emit *e)
{
    emit_store_gs(e, OFF(spill[0]), H_R10);
    emit_store_gs(e, OFF(spill[1]), H_R11);
    emit_store_gs(e, OFF(spill[2]), H_RCX);
    for (unsigned h = 0; h < 16; h++) {
        if (carries[h] >= 0)
            emit_store_gs(e, GPR((unsigned)carries[h]), h);
    }
    /* seto al; lahf: AH = SF ZF - AF - PF - CF, AL = OF. No push is needed. */
    emit8(e, 0x0f), emit8(e, 0x90), emit8(e, 0xc0);
    emit8(e, 0x9f);
    emit_op_mem(e, 0x65, false, 0x89, H_RAX, H_NONE, H_NONE, 1, (int32_t)OFF(spill[3]));
    emit_load_gs(e, H_RDI, OFF(self));
    emit_op_mem(e, 0, true, 0x8b, H_RSP, H_RDI, H_NONE, 1, (int32_t)OFF(host_rsp));
}

/* RDI = cpu: load everything and go to cpu->resume. */
static void emit_restore(struct emit *e)
{
    /* wrgsbase [gs_base] */
    emit_op_mem(e, 0, true, 0x8b, H_RAX, H_RDI, H_NONE, 1, (int32_t)OFF(gs_base));
    emit8(e, 0xf3), emit8(e, 0x48), emit8(e, 0x0f), emit8(e, 0xae), emit8(e, 0xd8);
    /* spill[3] holds AH and AL as saved: add al, 0x7f sets OF from AL; sahf the others. */
    emit_op_mem(e, 0, false, 0x8b, H_RAX, H_RDI, H_NONE, 1, (int32_t)OFF(spill[3]));
    emit8(e, 0x04), emit8(e, 0x7f);
    emit8(e, 0x9e);
    for (unsigned h = 0; h < 16; h++) {
        if (carries[h] >= 0)
            emit_load_gs(e, h, GPR((unsigned)carries[h]));
    }
    emit_load_gs(e, H_R10, OFF(spill[0])); /* a retried access wants its address again */
    emit_load_gs(e, H_R11, OFF(spill[1])); /* what an instruction behind C wants kept */
    emit_jmp_gs(e, H_NONE, OFF(resume));
}

/* One way out: save, call @handler, go on where it says or leave. */
static uint8_t *emit_way_out(struct emit *e, const uint8_t *leave, const uint8_t *restore,
                             void *(*handler)(struct soft_cpu *))
{
    while ((uintptr_t)e->p & 15)
        emit8(e, 0x90);
    uint8_t *start = emit_here(e);

    emit_save(e);
    emit_mov_imm(e, H_RAX, (uintptr_t)handler);
    emit_mov_reg(e, H_RBX, H_RDI);
    emit8(e, 0xff), emit8(e, 0xd0); /* call rax */
    emit_mov_reg(e, H_RDI, H_RBX);
    emit_op_reg(e, true, 0x85, H_RAX, H_RAX);
    emit_jcc(e, 4, leave);
    emit_op_mem(e, 0, true, 0x89, H_RAX, H_RDI, H_NONE, 1, (int32_t)OFF(resume));
    emit_jmp(e, restore);
    return start;
}

/* The displacement of a member of cell [RCX / 2], which RCX * 8 is added to. */
#define CELL(member) ((int32_t)offsetof(struct soft_window, cell[0].member))
#define WINDOW(member) ((int32_t)offsetof(struct soft_window, member))

/* RCX = twice the cell, R11 = TLB slot: copy the entry, log the cell if it is not. Clobbers R10. */
static void emit_fill_cell(struct emit *e, int32_t tag)
{
    emit_op_mem(e, 0x65, true, 0x8b, H_R10, H_NONE, H_R11, 8, WINDOW(page));
    emit_op_mem(e, 0x65, true, 0x89, H_R10, H_NONE, H_RCX, 8, CELL(page));
    emit_op_mem(e, 0x65, true, 0x8b, H_R10, H_NONE, H_R11, 8, tag);
    emit_op_mem(e, 0x65, true, 0x89, H_R10, H_NONE, H_RCX, 8, CELL(tag));
    /* mov byte [cell_slot + r11], 1 */
    emit_op_mem(e, 0x65, false, 0xc6, 0, H_NONE, H_R11, 1, WINDOW(cell_slot));
    emit8(e, 1);
    /* cmp word [cell_logged + cell * 2], 0; jne */
    emit_op_mem2(e, 0x65, 0x66, 0x83, 7, H_RCX, 1, WINDOW(cell_logged));
    emit8(e, 0);
    emit_jcc(e, 5, emit_here(e));
    uint8_t *logged = e->p - 4;
    emit_op_mem2(e, 0x65, 0x66, 0xc7, 0, H_RCX, 1, WINDOW(cell_logged));
    emit8(e, 1), emit8(e, 0);
    emit_op_mem(e, 0x65, false, 0x8b, H_R10, H_NONE, H_NONE, 1, WINDOW(cell_count));
    emit_op_mem2(e, 0x65, 0x66, 0x89, H_RCX, H_R10, 2, WINDOW(cell_log));
    emit_lea(e, H_R10, H_R10, H_NONE, 1, 1);
    emit_op_mem(e, 0x65, false, 0x89, H_R10, H_NONE, H_NONE, 1, WINDOW(cell_count));
    emit_patch32(e, logged);
}

/* A cell does not have an access's page: if the TLB does, copy the entry, and retry; else C. */
static uint8_t *emit_cell_miss(struct emit *e, const uint8_t *miss, bool write)
{
    const int32_t tag = write ? WINDOW(write_tag) : WINDOW(read_tag);

    while ((uintptr_t)e->p & 15)
        emit8(e, 0x90);
    uint8_t *start = emit_here(e);
    emit_store_gs(e, OFF(spill[0]), H_R10);
    emit_store_gs(e, OFF(spill[1]), H_R11);
    emit_store_gs(e, OFF(spill[2]), H_RCX);
    emit_pext_gs(e, H_R11, H_R10, OFF(tlb_index_mask));
    emit_op_mem(e, 0x65, true, 0x03, H_R10, H_NONE, H_R11, 8, tag);
    emit8(e, 0x0f), emit8(e, 0xb6), emit8(e, 0xc9);                /* movzx ecx, cl: size */
    emit_op_reg(e, false, 0xf7, 3, H_RCX);                         /* neg ecx */
    emit_lea(e, H_RCX, H_RCX, H_NONE, 1, (int32_t)MULL_PAGE_SIZE); /* modulo 2^32: */
    emit_op_reg(e, false, 0x89, H_RCX, H_RCX);                     /* mov ecx, ecx */
    emit_op_reg(e, true, 0x39, H_RCX, H_R10);                      /* cmp r10, rcx */
    emit_jcc(e, 7, emit_here(e));                                  /* ja */
    uint8_t *absent = e->p - 4;

    emit_op_mem(e, 0x65, false, 0x8b, H_RCX, H_NONE, H_NONE, 1, (int32_t)OFF(spill[2]));
    emit8(e, 0xc1), emit8(e, 0xe9), emit8(e, SOFT_MISS_CELL - 1); /* shr ecx, 15 */
    emit8(e, 0x83), emit8(e, 0xe1), emit8(e, 0xfe);               /* and ecx, -2 */
    /* An empty cell is filled for nothing: cmp byte [tag + 7], upper byte of SOFT_CELL_INVALID */
    emit_op_mem(e, 0x65, false, 0x80, 7, H_NONE, H_RCX, 8, CELL(tag) + 7);
    emit8(e, SOFT_CELL_INVALID >> 56);
    emit_jcc(e, 4, emit_here(e));
    uint8_t *empty = e->p - 4;
    emit_op_mem(e, 0x65, false, 0x83, 5, H_NONE, H_RCX, 2, WINDOW(cell_left)); /* sub, 1; js */
    emit8(e, 1);
    emit_jcc(e, 8, emit_here(e));
    uint8_t *roams = e->p - 4;
    emit_patch32(e, empty);
    emit_fill_cell(e, tag);
    /* soft_cells_protect() and its like may not have seen it, if its tag is gone meanwhile. */
    emit8(e, 0x0f), emit8(e, 0xae), emit8(e, 0xf0); /* mfence */
    emit_op_mem(e, 0x65, true, 0x8b, H_R10, H_NONE, H_R11, 8, tag);
    emit_op_mem(e, 0x65, true, 0x3b, H_R10, H_NONE, H_RCX, 8, CELL(tag));
    emit_jcc(e, 5, emit_here(e));
    uint8_t *taken_back = e->p - 4;
    emit_load_gs(e, H_R10, OFF(spill[0]));
    emit_jmp_gs(e, H_NONE, OFF(spill[1]));

    emit_patch32(e, taken_back);
    emit_mov_imm(e, H_R10, SOFT_CELL_POISON);
    emit_op_mem(e, 0x65, true, 0x89, H_R10, H_NONE, H_RCX, 8, CELL(page));
    emit_mov_imm(e, H_R10, SOFT_CELL_INVALID);
    emit_op_mem(e, 0x65, true, 0x89, H_R10, H_NONE, H_RCX, 8, CELL(tag));
    emit_patch32(e, absent);
    emit_load_gs(e, H_R10, OFF(spill[0]));
    emit_load_gs(e, H_R11, OFF(spill[1]));
    emit_load_gs(e, H_RCX, OFF(spill[2]));
    emit_jmp(e, miss);

    emit_patch32(e, roams);
    emit_load_gs(e, H_R10, OFF(spill[0]));
    emit_load_gs(e, H_R11, OFF(spill[1]));
    emit_load_gs(e, H_RCX, OFF(spill[2]));
    emit_lea(e, H_RCX, H_RCX, H_NONE, 1, SOFT_MISS_ROAMS); /* the bit is clear */
    emit_jmp(e, miss);
    return start;
}

size_t soft_glue_make(struct soft_cache *cache)
{
    struct emit e = {
        .p = cache->rw, .limit = cache->rw + 16384, .rx = cache->rx - cache->rw, .overflow = false};
    static const uint8_t saved[] = {H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15};

    /* enter(cpu): callee-saved registers, host stack pointer (call sites keep it 16-aligned). */
    union {
        uint8_t *address;
        void (*function)(struct soft_cpu *cpu);
    } enter = {.address = emit_here(&e)};
    for (unsigned i = 0; i < sizeof(saved); i++) {
        if (saved[i] & 8)
            emit8(&e, 0x41);
        emit8(&e, (uint8_t)(0x50 | (saved[i] & 7)));
    }
    emit_lea(&e, H_RSP, H_RSP, H_NONE, 1, -8);
    emit_op_mem(&e, 0, true, 0x89, H_RSP, H_RDI, H_NONE, 1, (int32_t)OFF(host_rsp));
    const uint8_t *restore = emit_here(&e);
    emit_restore(&e);

    uint8_t *leave = emit_here(&e);
    emit_lea(&e, H_RSP, H_RSP, H_NONE, 1, 8);
    for (unsigned i = sizeof(saved); i-- > 0;) {
        if (saved[i] & 8)
            emit8(&e, 0x41);
        emit8(&e, (uint8_t)(0x58 | (saved[i] & 7)));
    }
    emit8(&e, 0xc3);

    cache->glue.enter = enter.function;
    cache->glue.leave = leave;
    cache->glue.miss = emit_way_out(&e, leave, restore, soft_on_miss);
    cache->glue.cell[0] = emit_cell_miss(&e, cache->glue.miss, false);
    cache->glue.cell[1] = emit_cell_miss(&e, cache->glue.miss, true);
    cache->glue.exec = emit_way_out(&e, leave, restore, soft_on_exec);
    cache->glue.jump = emit_way_out(&e, leave, restore, soft_on_jump);
    cache->glue.chain = emit_way_out(&e, leave, restore, soft_on_chain);
    cache->glue.poll = emit_way_out(&e, leave, restore, soft_on_poll);

    /* The signal handler has already stored the registers: do not store them again. */
    while ((uintptr_t)e.p & 15)
        emit8(&e, 0x90);
    cache->glue.fault = emit_here(&e);
    emit_load_gs(&e, H_RDI, OFF(self));
    emit_op_mem(&e, 0, true, 0x8b, H_RSP, H_RDI, H_NONE, 1, (int32_t)OFF(host_rsp));
    emit_mov_imm(&e, H_RAX, (uintptr_t)soft_on_fault);
    emit_mov_reg(&e, H_RBX, H_RDI);
    emit8(&e, 0xff), emit8(&e, 0xd0);
    emit_mov_reg(&e, H_RDI, H_RBX);
    emit_op_reg(&e, true, 0x85, H_RAX, H_RAX);
    emit_jcc(&e, 4, leave);
    emit_op_mem(&e, 0, true, 0x89, H_RAX, H_RDI, H_NONE, 1, (int32_t)OFF(resume));
    emit_jmp(&e, restore);

    return (size_t)(e.p - cache->rw);
}
