/*
 * What the translator emits itself: guest addresses, the software TLB check in front of each
 * access, the stack, control flow, and the cold code behind a block. Knows which scratch registers
 * live how long; see glue.c for the register map.
 */
#include "engine/soft/decode.h"
#include "engine/soft/translate.h"

#define WINDOW_OFF(member) ((uint32_t)offsetof(struct soft_window, member))

void tr_emit_get(struct translation *t, unsigned host, unsigned guest)
{
    if (tr_host_of[guest] >= 0)
        emit_mov_reg(&t->e, host, (unsigned)tr_host_of[guest]);
    else
        emit_load_gs(&t->e, host, TR_OFF(s.gpr) + 8 * guest);
}

void tr_emit_put(struct translation *t, unsigned guest, unsigned host)
{
    if (tr_host_of[guest] >= 0)
        emit_mov_reg(&t->e, (unsigned)tr_host_of[guest], host);
    else
        emit_store_gs(&t->e, TR_OFF(s.gpr) + 8 * guest, host);
}

/* The host register that holds a guest register, loading a parked one into @scratch. */
static unsigned in_register(struct translation *t, unsigned guest, unsigned scratch)
{
    if (tr_host_of[guest] >= 0)
        return (unsigned)tr_host_of[guest];
    emit_load_gs(&t->e, scratch, TR_OFF(s.gpr) + 8 * guest);
    return scratch;
}

static int segment_with_base(const ZydisDecodedOperand *op)
{
    if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
        return -1;
    if (op->mem.segment == ZYDIS_REGISTER_FS)
        return MULL_FS;
    if (op->mem.segment == ZYDIS_REGISTER_GS)
        return MULL_GS;
    return -1;
}

void tr_emit_address(struct translation *t, const struct tr_insn *in, const ZydisDecodedOperand *op)
{
    const ZydisDecodedOperandMem *m = &op->mem;
    bool wide = in->z.address_width == 64;
    t->window = -1;
    if (!tr_code64(t)) {
        tr_emit_offset(t, in, op);
        return;
    }
    int seg = segment_with_base(op);
    int base = tr_gpr(m->base, NULL), index = tr_gpr(m->index, NULL);

    if (base < 0 && index < 0) {
        uint64_t address = (uint64_t)m->disp.value;
        if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
            address += in->rip + in->z.length;
        emit_mov_imm(&t->e, H_R10, wide ? address : (uint32_t)address);
    } else {
        int b = base < 0 ? H_NONE : (int)in_register(t, (unsigned)base, H_R10);
        int x = index < 0 ? H_NONE : (int)in_register(t, (unsigned)index, H_R11);
        emit_op_mem(&t->e, 0, wide, 0x8d, H_R10, b, x, m->scale ? m->scale : 1,
                    (int32_t)m->disp.value);
    }
    if (seg >= 0) {
        emit_load_gs(&t->e, H_RCX,
                     TR_OFF(s.seg) + (uint32_t)seg * (uint32_t)sizeof(struct mull_segment) +
                         (uint32_t)offsetof(struct mull_segment, base));
        emit_lea(&t->e, H_R10, H_R10, H_RCX, 1, 0);
    }
}

/* Note the slow path of a check. @ea: where R10's address can be had from again. */
static struct tr_slow *note_slow(struct translation *t, const struct tr_ea *ea, unsigned size,
                                 bool write)
{
    struct tr_slow *slow = &t->slow[t->slow_count++];

    slow->retry = emit_here(&t->e);
    slow->info = size | (write ? SOFT_MISS_WRITE : 0);
    slow->ea = *ea;
    slow->cell = -1;
    slow->leaves = false;
    return slow;
}

/* jrcxz over a jump to the slow path */
static void emit_slow_unless_zero(struct emit *e, struct tr_slow *slow)
{
    uint8_t *hit = emit_jrcxz(e);
    emit_jmp(e, emit_here(e));
    slow->from = e->p - 4;
    emit_patch8(e, hit);
}

/* A cell of its own, as long as there are any. */
static unsigned take_cell(struct soft_cache *cache, bool write)
{
    uint32_t n = cache->next_cell[write]++;
    return write ? n % SOFT_CELLS_WRITE : SOFT_CELLS_WRITE + n % (SOFT_CELLS - SOFT_CELLS_WRITE);
}

void tr_emit_check_of(struct translation *t, const struct tr_ea *ea, unsigned size, bool write,
                      bool flags_live)
{
    struct emit *e = &t->e;
    int32_t tag = (int32_t)(write ? WINDOW_OFF(write_tag) : WINDOW_OFF(read_tag));
    struct tr_slow *slow = note_slow(t, ea, size, write);

    /* Address + tag is the offset in the page, if it is that page's. */
    if (flags_live) {
        slow->ea.kind = TR_EA_THERE;
        emit_pext_gs(e, H_R11, H_R10, TR_OFF(tlb_index_mask));
        emit_op_mem(e, 0x65, true, 0x8b, H_RCX, H_NONE, H_R11, 8, tag);
        emit_lea(e, H_RCX, H_RCX, H_R10, 1, (int32_t)size - 1);
        emit_pext_gs(e, H_RCX, H_RCX, TR_OFF(page_mask));
        emit_slow_unless_zero(e, slow);
        emit_pext_gs(e, H_R10, H_R10, TR_OFF(offset_mask));
        emit_op_mem(e, 0x65, true, 0x8b, H_RCX, H_NONE, H_R11, 8, (int32_t)WINDOW_OFF(page));
        emit_lea(e, H_R10, H_R10, H_RCX, 1, 0);
        return;
    }
    int index = H_R11;
    int32_t page = (int32_t)WINDOW_OFF(page);
    if (ea->kind == TR_EA_RCX)
        emit_mov_reg(e, H_RCX, H_R10);
    if (t->cells) {
        slow->cell = (int)take_cell(t->cache, write);
        tag = (int32_t)WINDOW_OFF(cell[slow->cell].tag);
        page = (int32_t)WINDOW_OFF(cell[slow->cell].page);
        index = H_NONE;
    } else {
        emit_pext_gs(e, H_R11, H_R10, TR_OFF(tlb_index_mask));
    }
    emit_op_mem(e, 0x65, true, 0x03, H_R10, H_NONE, index, 8, tag);
    /* cmp r10, 4096 - size; ja */
    emit8(e, 0x49), emit8(e, 0x81), emit8(e, 0xfa);
    emit32(e, (uint32_t)MULL_PAGE_SIZE - size);
    emit_jcc(e, 7, emit_here(e));
    slow->from = e->p - 4;
    emit_op_mem(e, 0x65, true, 0x03, H_R10, H_NONE, index, 8, page);
}

void tr_emit_check(struct translation *t, unsigned size, bool write, bool flags_live)
{
    const struct tr_ea ea = {.kind = TR_EA_RCX};

    tr_emit_check_of(t, &ea, size, write, flags_live);
}

void tr_emit_base(struct translation *t, unsigned base, int32_t disp)
{
    int host = tr_host_of[base];

    if (host == H_NONE) {
        tr_emit_get(t, H_R10, base);
        host = H_R10;
    }
    emit_op_mem(&t->e, 0, tr_code64(t), 0x8d, H_R10, host, H_NONE, 1, disp);
}

void tr_emit_ea(struct translation *t, const struct tr_ea *ea)
{
    if (!ea->scale) {
        tr_emit_base(t, ea->base, ea->disp);
        return;
    }
    unsigned base = in_register(t, ea->base, H_R10), index = in_register(t, ea->index, H_R11);
    emit_lea(&t->e, H_R10, (int)base, (int)index, ea->scale, ea->disp);
}

/* R10 = the address whose check failed, as glue.c wants it. */
static void emit_address_again(struct translation *t, const struct tr_ea *ea)
{
    switch (ea->kind) {
    case TR_EA_THERE:
        break;
    case TR_EA_RCX:
        emit_mov_reg(&t->e, H_R10, H_RCX);
        break;
    case TR_EA_BASE:
        tr_emit_ea(t, ea);
        break;
    case TR_EA_OPERAND:
        tr_emit_address(t, ea->in, ea->in->memory);
        break;
    }
}

/* The memory operand's address is a constant, and the access inside one page. */
static bool constant_address(const struct translation *t, const struct tr_insn *in, unsigned size,
                             uint64_t *address)
{
    const ZydisDecodedOperandMem *m = &in->memory->mem;

    if (!tr_code64(t) || in->z.address_width != 64 || segment_with_base(in->memory) >= 0 ||
        m->index != ZYDIS_REGISTER_NONE ||
        (m->base != ZYDIS_REGISTER_NONE && m->base != ZYDIS_REGISTER_RIP))
        return false;
    *address = (uint64_t)m->disp.value;
    if (m->base == ZYDIS_REGISTER_RIP)
        *address += in->rip + in->z.length;
    return ((*address ^ (*address + size - 1)) & MULL_PAGE_MASK) == 0;
}

/* The same check where page and index are known. */
static void emit_constant_check(struct translation *t, const struct tr_insn *in, uint64_t address,
                                unsigned size, bool write)
{
    struct emit *e = &t->e;
    const struct tr_ea ea = {.kind = TR_EA_OPERAND, .in = in};
    uint32_t slot = 8 * soft_tlb_index(address);
    uint32_t tag = (write ? WINDOW_OFF(write_tag) : WINDOW_OFF(read_tag)) + slot;
    struct tr_slow *slow = note_slow(t, &ea, size, write);

    t->window = -1;
    emit_mov_imm(e, H_RCX, address & MULL_PAGE_MASK);
    if (in->flags_live) {
        emit_load_gs(e, H_R11, tag);
        emit_lea(e, H_RCX, H_RCX, H_R11, 1, 0);
        emit_slow_unless_zero(e, slow);
    } else {
        emit_op_mem(e, 0x65, true, 0x03, H_RCX, H_NONE, H_NONE, 1, (int32_t)tag);
        emit_jcc(e, 5, emit_here(e));
        slow->from = e->p - 4;
    }
    emit_load_gs(e, H_R10, WINDOW_OFF(page) + slot);
    emit_lea(e, H_R10, H_R10, H_NONE, 1, (int32_t)(address & ~MULL_PAGE_MASK));
}

void tr_emit_memory(struct translation *t, const struct tr_insn *in, unsigned size, bool write)
{
    uint64_t address;

    if (constant_address(t, in, size, &address)) {
        emit_constant_check(t, in, address, size, write);
        return;
    }
    tr_emit_address(t, in, in->memory);
    if (tr_code64(t) || tr_is_flat(t, tr_segment(in->memory))) {
        const struct tr_ea ea = {.kind = TR_EA_OPERAND, .in = in};
        tr_emit_check_of(t, &ea, size, write, in->flags_live);
    } else {
        tr_emit_segment(t, tr_segment(in->memory), size, write, in->flags_live);
        tr_emit_check(t, size, write, in->flags_live);
    }
}

/* ---- In C ---- */

void tr_emit_exec(struct translation *t, const struct tr_insn *in)
{
    struct soft_site *site = soft_cache_alloc(t->cache, sizeof(*site));
    t->window = -1;
    tr_settle_sp(t);
    if (!site) {
        t->full = true;
        return;
    }
    soft_insn_from_zydis(&site->insn, &in->z, in->op, in->bytes, tr_code_bits(t));
    site->block = t->block;
    site->rip = in->rip;
    site->next_host = NULL;
    emit_mov_imm(&t->e, H_R10, (uintptr_t)site);
    emit_jmp(&t->e, t->cache->glue.exec);
    if (in->kind != TR_EXEC_END)
        site->next_host = emit_here(&t->e);
}

/* ---- The stack ---- */

/* As far as the host's stack pointer may lag behind. */
#define MAX_LAG 0x10000

unsigned tr_return_pops(const struct tr_insn *in)
{
    unsigned pops = tr_stack_size(in);

    if (in->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        pops += in->op[0].imm.value.u & 0xffff;
    return pops;
}

/* Its access goes through the window in R10, to which another one has gone: it cannot fault. */
static bool in_used_window(const struct translation *t, const struct tr_insn *in)
{
    return in->access.window >= 0 && t->window == in->access.window && t->window_used;
}

static bool names_sp(const struct tr_insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count_visible; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && tr_gpr(op->reg.value, NULL) == MULL_RSP)
            return true;
    }
    return false;
}

/* A copied instruction on general registers that no operand makes fault. */
static bool is_tame(const struct tr_insn *in)
{
    if (in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        in->z.mnemonic == ZYDIS_MNEMONIC_DIV || in->z.mnemonic == ZYDIS_MNEMONIC_IDIV)
        return false;
    for (unsigned i = 0; i < in->z.operand_count_visible; i++)
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && tr_gpr(in->op[i].reg.value, NULL) < 0)
            return false;
    switch (in->z.meta.category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHIFT:
        return true;
    default:
        return false;
    }
}

bool tr_adds_to_sp(const struct translation *t, const struct tr_insn *in, int32_t *delta)
{
    const bool add = in->z.mnemonic == ZYDIS_MNEMONIC_ADD;

    if (in->kind != TR_COPY || in->flags_live_behind || in->memory ||
        (!add && in->z.mnemonic != ZYDIS_MNEMONIC_SUB) ||
        !(t->mode & (SOFT_MODE_CODE64 | SOFT_MODE_STACK32)) ||
        in->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        in->op[0].reg.value != (tr_code64(t) ? ZYDIS_REGISTER_RSP : ZYDIS_REGISTER_ESP) ||
        in->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || in->op[1].imm.value.s > MAX_LAG ||
        in->op[1].imm.value.s < -MAX_LAG)
        return false;
    *delta = (int32_t)(add ? in->op[1].imm.value.s : -in->op[1].imm.value.s);
    return true;
}

bool tr_sp_may_lag(const struct translation *t, const struct tr_insn *in)
{
    int32_t delta;

    if (t->sp_lag > MAX_LAG || t->sp_lag < -MAX_LAG)
        return false;
    switch (in->kind) {
    case TR_NOP:
        return true;
    case TR_JMP:
        return in->followed;
    case TR_PUSH:
    case TR_POP_REG:
        return in_used_window(t, in) && !names_sp(in);
    case TR_CALL:
    case TR_RET:
        return in_used_window(t, in);
    case TR_LEA:
        return tr_code64(t) && tr_lea_is_direct(in) && !names_sp(in) &&
               tr_gpr(in->op[1].mem.base, NULL) != MULL_RSP;
    case TR_COPY:
        if (tr_adds_to_sp(t, in, &delta))
            return true;
        return is_tame(in) && !names_sp(in) && (!in->memory || in_used_window(t, in));
    default:
        return false;
    }
}

void tr_settle_sp(struct translation *t)
{
    if (t->sp_lag)
        tr_emit_set_sp(t, H_RSP, t->sp_lag);
    t->sp_lag = 0;
}

void tr_move_sp(struct translation *t, const struct tr_insn *in, int32_t delta)
{
    if (in->access.window >= 0 && t->window == in->access.window)
        t->sp_lag += delta;
    else
        tr_emit_set_sp(t, H_RSP, delta);
}

int32_t tr_emit_access(struct translation *t, const struct tr_insn *in, unsigned base, int32_t disp,
                       unsigned size, bool write)
{
    int32_t at = tr_emit_window(t, in);
    if (at >= 0)
        return at;
    t->window = -1;
    tr_emit_stack_offset(t, base, disp);
    if (tr_code64(t) || ((t->mode & SOFT_MODE_STACK32) && tr_is_flat(t, MULL_SS))) {
        const struct tr_ea ea = {.kind = TR_EA_BASE, .base = base, .disp = disp};
        tr_emit_check_of(t, &ea, size, write, in->flags_live);
    } else {
        tr_emit_segment(t, MULL_SS, size, write, in->flags_live);
        tr_emit_check(t, size, write, in->flags_live);
    }
    return 0;
}

/* Store a constant of @size bytes at [R10 + at]. */
static void emit_store_imm(struct translation *t, uint64_t value, int32_t at, unsigned size)
{
    if (size == 2) {
        emit_op_mem(&t->e, 0x66, false, 0xc7, 0, H_R10, H_NONE, 1, at);
        emit8(&t->e, (uint8_t)value), emit8(&t->e, (uint8_t)(value >> 8));
    } else if (size == 4 || (int64_t)value == (int32_t)value) {
        /* mov qword [r10 + at], imm32 */
        emit_op_mem(&t->e, 0, size == 8, 0xc7, 0, H_R10, H_NONE, 1, at);
        emit32(&t->e, (uint32_t)value);
    } else {
        emit_mov_imm(&t->e, H_RCX, value);
        emit_op_mem(&t->e, 0, true, 0x89, H_RCX, H_R10, H_NONE, 1, at);
    }
}

/* R10 + result = host address of the bytes below RSP that the instruction pushes. */
static int32_t emit_push_address(struct translation *t, const struct tr_insn *in)
{
    unsigned size = tr_stack_size(in);
    return tr_emit_access(t, in, H_RSP, -(int32_t)size, size, true);
}

static void emit_push(struct translation *t, const struct tr_insn *in)
{
    const ZydisDecodedOperand *op = &in->op[0];
    unsigned size = tr_stack_size(in);

    if (in->memory) {
        tr_emit_memory(t, in, size, false);
        tr_emit_load(t, H_RCX, 0, size);
        emit_store_gs(&t->e, TR_OFF(spill[4]), H_RCX);
        int32_t at = emit_push_address(t, in);
        emit_load_gs(&t->e, H_RCX, TR_OFF(spill[4]));
        tr_emit_store(t, H_RCX, at, size);
    } else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        int32_t at = emit_push_address(t, in);
        unsigned src = in_register(t, (unsigned)tr_gpr(op->reg.value, NULL), H_RCX);
        tr_emit_store(t, src, at, size);
    } else {
        emit_store_imm(t, op->imm.value.u, emit_push_address(t, in), size);
    }
    tr_move_sp(t, in, -(int32_t)size);
}

static void emit_pop(struct translation *t, const struct tr_insn *in)
{
    unsigned guest = (unsigned)tr_gpr(in->op[0].reg.value, NULL);
    unsigned size = tr_stack_size(in);

    int32_t at = tr_emit_access(t, in, H_RSP, 0, size, false);
    int dst = tr_host_of[guest] >= 0 ? tr_host_of[guest] : H_RCX;
    tr_emit_load(t, (unsigned)dst, at, size);
    if (dst == H_RCX)
        tr_emit_put(t, guest, H_RCX);
    if (guest != MULL_RSP)
        tr_move_sp(t, in, (int32_t)size);
}

static void emit_leave(struct translation *t, const struct tr_insn *in)
{
    unsigned size = tr_stack_size(in);

    int32_t at = tr_emit_access(t, in, H_RBP, 0, size, false);
    tr_emit_set_sp(t, H_RBP, (int32_t)size);
    tr_emit_load(t, H_RBP, at, size);
}

void tr_emit_stack(struct translation *t, const struct tr_insn *in)
{
    if (in->kind == TR_PUSH)
        emit_push(t, in);
    else if (in->kind == TR_POP_REG)
        emit_pop(t, in);
    else
        emit_leave(t, in);
}

/* ---- Control flow ---- */

/* R10 = guest address (its key): go there through the jump table. */
static void emit_indirect(struct translation *t)
{
    emit_pext_gs(&t->e, H_R11, H_R10, TR_OFF(jump_index_mask));
    emit_jmp_gs(&t->e, H_R11, WINDOW_OFF(jump));
}

static void emit_far_goto(struct translation *t, uint64_t rip)
{
    uint64_t key = t->space + rip;
    emit_mov_imm(&t->e, H_R10, key);
    emit_jmp_gs(&t->e, H_NONE, WINDOW_OFF(jump) + 8 * soft_jump_index(key));
}

/* May the block at @rip be chained to? Not where it may lie across two pages, nor from a block that
 * does: then the physical address does not follow from ours. */
static bool in_page(const struct translation *t, uint64_t rip)
{
    uint64_t offset = (t->block->gpa & ~MULL_PAGE_MASK) + (rip - t->rip);
    return offset <= MULL_PAGE_SIZE - 15 && !t->block->gpa_next;
}

/* The rel32 just emitted is an edge to @rip. */
static void new_edge(struct translation *t, uint64_t rip, bool plain)
{
    struct soft_edge *edge = soft_cache_alloc(t->cache, sizeof(*edge));
    if (!edge) {
        t->full = true;
        return;
    }
    *edge = (struct soft_edge){.rip = t->space + rip,
                               .site = emit_here(&t->e) - 4,
                               .polled = rip <= t->rip,
                               .plain = plain,
                               .from = t->block};
    t->edge[t->edge_count++] = edge;
}

void tr_emit_goto(struct translation *t, uint64_t rip)
{
    if (!in_page(t, rip)) {
        emit_far_goto(t, rip);
        return;
    }
    emit_align_rel32(&t->e, 1);
    emit_jmp(&t->e, emit_here(&t->e));
    new_edge(t, rip, false);
}

static void emit_jcc_to(struct translation *t, unsigned cc, uint64_t rip)
{
    if (in_page(t, rip)) {
        emit_align_rel32(&t->e, 2);
        emit_jcc(&t->e, cc, emit_here(&t->e));
        new_edge(t, rip, false);
    } else {
        emit_jcc(&t->e, cc, emit_here(&t->e));
        t->far[t->far_count].from = t->e.p - 4;
        t->far[t->far_count].rip = rip;
        t->far_count++;
    }
}

static void emit_return(struct translation *t, const struct tr_insn *in)
{
    unsigned size = tr_stack_size(in);
    int32_t at = tr_emit_access(t, in, H_RSP, 0, size, false);

    tr_emit_load_zero(t, H_R10, at, size);
    tr_emit_target_check(t, in);
    tr_move_sp(t, in, (int32_t)tr_return_pops(in));
    tr_settle_sp(t);
    emit_indirect(t);
}

/* dst = src + @value; clobbers R11. */
static void emit_add_constant(struct emit *e, unsigned dst, unsigned src, uint64_t value)
{
    if ((int64_t)value == (int32_t)value) {
        emit_lea(e, dst, (int)src, H_NONE, 1, (int32_t)value);
    } else {
        emit_mov_imm(e, H_R11, value);
        emit_lea(e, dst, (int)src, H_R11, 1, 0);
    }
}

/* A return that the block goes on behind, if it returns to where its call was made. */
static void emit_followed_return(struct translation *t, const struct tr_insn *in)
{
    struct emit *e = &t->e;
    unsigned size = tr_stack_size(in);
    int32_t at = tr_emit_access(t, in, H_RSP, 0, size, false);
    const int32_t lag = t->sp_lag;

    tr_emit_load_zero(t, H_RCX, at, size);
    emit_add_constant(e, H_RCX, H_RCX, 0 - in->back);
    uint8_t *there = emit_jrcxz(e);
    emit_add_constant(e, H_R10, H_RCX, in->back);
    tr_emit_target_check(t, in);
    tr_emit_set_sp(t, H_RSP, lag + (int32_t)tr_return_pops(in));
    emit_indirect(t);
    emit_patch8(e, there);
    tr_move_sp(t, in, (int32_t)tr_return_pops(in));
}

/* R10 = target of an indirect jump or call. */
static void emit_target(struct translation *t, const struct tr_insn *in)
{
    if (in->memory) {
        tr_emit_memory(t, in, tr_stack_size(in), false);
        tr_emit_load_zero(t, H_R10, 0, tr_stack_size(in));
    } else {
        tr_emit_get(t, H_R10, (unsigned)tr_gpr(in->op[0].reg.value, NULL));
    }
    tr_emit_target_check(t, in);
}

void tr_emit_control(struct translation *t, const struct tr_insn *in)
{
    uint64_t next = tr_next_rip(t, in);
    uint64_t target = tr_target(t, in);

    switch (in->kind) {
    case TR_JMP:
        tr_emit_goto(t, target);
        break;
    case TR_JCC:
        if (in->followed)
            emit_jcc_to(t, (in->z.opcode & 15) ^ 1, next);
        else
            emit_jcc_to(t, in->z.opcode & 15, target);
        if (in->ends_block)
            tr_emit_goto(t, next);
        break;
    case TR_LOOP:
        tr_emit_loop(t, in);
        break;
    case TR_CALL:
        emit_store_imm(t, next, emit_push_address(t, in), tr_stack_size(in));
        tr_move_sp(t, in, -(int32_t)tr_stack_size(in));
        if (!in->followed) {
            tr_settle_sp(t);
            tr_emit_goto(t, target);
        }
        break;
    case TR_JMP_INDIRECT:
        emit_target(t, in);
        emit_indirect(t);
        break;
    case TR_CALL_INDIRECT:
        emit_target(t, in);
        emit_store_gs(&t->e, TR_OFF(spill[4]), H_R10);
        t->window = -1;
        emit_store_imm(t, next, emit_push_address(t, in), tr_stack_size(in));
        emit_load_gs(&t->e, H_R10, TR_OFF(spill[4]));
        tr_emit_set_sp(t, H_RSP, -(int32_t)tr_stack_size(in));
        emit_indirect(t);
        break;
    case TR_RET:
        if (in->followed)
            emit_followed_return(t, in);
        else
            emit_return(t, in);
        break;
    default:
        break;
    }
}

/* ---- Cold code ---- */

/* R10 = a window's address: if it crosses a page, go on in the plain copy without asking C. */
static void emit_leave_window(struct translation *t, const struct tr_slow *slow)
{
    struct emit *e = &t->e;

    emit8(e, 0x44), emit8(e, 0x89), emit8(e, 0xd1); /* mov ecx, r10d */
    emit8(e, 0x81), emit8(e, 0xe1);                 /* and ecx, 4095 */
    emit32(e, (uint32_t)MULL_PAGE_SIZE - 1);
    emit8(e, 0x81), emit8(e, 0xf9); /* cmp ecx, 4096 - size */
    emit32(e, (uint32_t)MULL_PAGE_SIZE - (slow->info & 0xff));
    emit8(e, 0x76), emit8(e, 0); /* jbe */
    uint8_t *inside = e->p - 1;
    emit_align_rel32(e, 1);
    emit_jmp(e, emit_here(e));
    new_edge(t, slow->leave_rip, true);
    emit_patch8(e, inside);
}

void tr_emit_cold(struct translation *t)
{
    struct emit *e = &t->e;

    for (unsigned i = 0; i < t->slow_count; i++) {
        emit_patch32(e, t->slow[i].from);
        emit_address_again(t, &t->slow[i].ea);
        if (t->slow[i].leaves)
            emit_leave_window(t, &t->slow[i]);
        uint8_t *miss = t->cache->glue.miss;
        uint32_t info = t->slow[i].info;
        if (t->slow[i].cell >= 0) {
            miss = t->cache->glue.cell[info & SOFT_MISS_WRITE ? 1 : 0];
            info |= (uint32_t)t->slow[i].cell << SOFT_MISS_CELL;
        }
        emit_mov_imm(e, H_RCX, info);
        /* lea r11, [rip + retry] */
        emit8(e, 0x4c), emit8(e, 0x8d), emit8(e, 0x1d);
        emit32(e, (uint32_t)(t->slow[i].retry - (emit_here(e) + 4)));
        emit_jmp(e, miss);
    }
    for (unsigned i = 0; i < t->far_count; i++) {
        emit_patch32(e, t->far[i].from);
        emit_far_goto(t, t->far[i].rip);
    }
    for (unsigned i = 0; i < t->edge_count; i++) {
        struct soft_edge *edge = t->edge[i];
        edge->stub = emit_here(e);
        emit_patch32(e, soft_cache_rw(t->cache, edge->site));
        emit_mov_imm(e, H_R10, (uintptr_t)edge);
        emit_jmp(e, t->cache->glue.chain);
    }
}
