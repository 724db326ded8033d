/*
 * One check for several accesses: instructions that reach memory off the same base register, by
 * constants, with nothing between them that loses the base, share the check of one window. The
 * first emits it and leaves the window's host address in R10; the others use it. Where the window
 * cannot be had (it crosses a page, or a part may not be written) the block is left for a plain
 * copy of it, in which every access has its own check, so that faults stay exact.
 *
 * In a hot loop, of which several rounds are one block, accesses may have an index, too, and
 * several windows are in use in turn: R10 has the one used last, struct soft_cpu the others. So an
 * array that a loop goes through is checked once for all rounds of the block.
 */
#include "engine/soft/translate.h"

#define WINDOW_MAX 120 /* displacements fit a signed byte */

static bool simple_place(const struct translation *t, const struct tr_insn *in,
                         const ZydisDecodedOperand *op, struct tr_access *a)
{
    const ZydisDecodedOperandMem *m = &op->mem;

    if (!tr_code64(t) && !tr_is_flat(t, tr_segment(op)))
        return false;
    if (in->z.address_width != (tr_code64(t) ? 64 : 32) ||
        (m->index != ZYDIS_REGISTER_NONE && !t->hot) || m->segment == ZYDIS_REGISTER_FS ||
        m->segment == ZYDIS_REGISTER_GS)
        return false;
    a->base = tr_gpr(m->base, NULL);
    a->index = tr_gpr(m->index, NULL);
    a->scale = m->scale;
    if (m->index != ZYDIS_REGISTER_NONE && a->index < 0)
        a->base = -1;
    return a->base >= 0;
}

static bool same_place(const struct tr_access *a, const struct tr_access *b)
{
    return a->base == b->base && a->index == b->index && (a->index < 0 || a->scale == b->scale);
}

/* Sets in->access if the instruction makes one access off one register, or one and an index. */
static void find_access(const struct translation *t, struct tr_insn *in)
{
    struct tr_access *a = &in->access;
    const unsigned size = tr_stack_size(in);
    const bool stack = tr_code64(t) || ((t->mode & SOFT_MODE_STACK32) && tr_is_flat(t, MULL_SS));

    a->base = a->index = -1;
    if (in->kind != TR_COPY && !stack)
        return;
    switch (in->kind) {
    case TR_COPY:
        if (!in->memory || !simple_place(t, in, in->memory, a))
            return;
        a->offset = in->memory->mem.disp.value;
        a->size = tr_access_size(in);
        a->write = in->memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        break;
    case TR_PUSH:
        if (in->memory)
            return;
        /* fall through */
    case TR_CALL:
        a->base = MULL_RSP;
        a->offset = -(int64_t)size;
        a->size = size;
        a->write = true;
        break;
    case TR_POP_REG:
    case TR_RET:
        a->base = MULL_RSP;
        a->offset = 0;
        a->size = size;
        a->write = false;
        break;
    case TR_LEAVE:
        a->base = MULL_RBP;
        a->offset = 0;
        a->size = size;
        a->write = false;
        break;
    default:
        break;
    }
}

bool tr_loses_window(const struct tr_insn *in)
{
    if (in->followed && in->kind != TR_CALL && in->kind != TR_RET)
        return false;
    switch (in->kind) {
    case TR_NOP:
    case TR_JCC: /* a side exit does not come back */
        return false;
    case TR_COPY:
        return in->memory && in->access.base < 0;
    case TR_PUSH:
        return in->access.base < 0;
    case TR_LEA:
        return !tr_lea_is_direct(in);
    case TR_POP_REG:
    case TR_LEAVE:
    case TR_CALL:
    case TR_RET:
        return in->access.base < 0;
    default:
        return true;
    }
}

/* What happens to register @base? @return false: it is not base + *delta afterwards. */
static bool track_base(const struct translation *t, const struct tr_insn *in, int base,
                       int64_t *delta)
{
    const int64_t size = tr_stack_size(in);
    const unsigned width = tr_code64(t) ? 64 : 32;

    *delta = 0;
    if (in->kind == TR_PUSH || in->kind == TR_CALL || in->kind == TR_RET) {
        if (base == MULL_RSP)
            *delta = in->kind == TR_RET ? (int64_t)tr_return_pops(in) : -size;
        return true;
    }
    if (in->kind == TR_POP_REG) {
        if (base == MULL_RSP)
            *delta = size;
        return tr_gpr(in->op[0].reg.value, NULL) != base;
    }
    if (in->kind == TR_LEAVE)
        return base != MULL_RSP && base != MULL_RBP;

    if ((in->z.mnemonic == ZYDIS_MNEMONIC_ADD || in->z.mnemonic == ZYDIS_MNEMONIC_SUB) &&
        in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && in->op[0].size == width &&
        tr_gpr(in->op[0].reg.value, NULL) == base &&
        in->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        *delta =
            in->z.mnemonic == ZYDIS_MNEMONIC_ADD ? in->op[1].imm.value.s : -in->op[1].imm.value.s;
        return true;
    }
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && tr_gpr(op->reg.value, NULL) == base)
            return false;
    }
    return true;
}

/* The same of base + index * scale. */
static bool track_place(const struct translation *t, const struct tr_insn *in,
                        const struct tr_access *a, int64_t *delta)
{
    int64_t index = 0;

    if (!track_base(t, in, a->base, delta) ||
        (a->index >= 0 && !track_base(t, in, a->index, &index)))
        return false;
    *delta += index * (int64_t)a->scale;
    return true;
}

/* Where the flags live at the window's first access, make its check in front of an instruction
 * before it where they are dead: the one that writes them. */
static bool hoist(struct translation *t, unsigned first)
{
    struct tr_access *a = &t->insn[first].access;
    int64_t moved = 0, change;

    if (!t->insn[first].flags_live)
        return false;
    for (unsigned i = first; i-- > 0;) {
        struct tr_insn *in = &t->insn[i];
        if (tr_loses_window(in) || in->access.window >= 0 || in->access.hoisted >= 0 ||
            in->access.base >= 0 || !track_place(t, in, a, &change))
            return false;
        moved += change;
        if (!in->flags_live) {
            int64_t low = a->low + moved;
            if (low != (int32_t)low)
                return false;
            a->low = (int32_t)low;
            a->early = true;
            in->access.hoisted = (int)first;
            return true;
        }
    }
    return false;
}

/* Is the instruction between two of one window? Then its access must not be executed in C by
 * itself: who checks the window first relies on nothing happening until the last has used it. */
static bool is_between(const struct translation *t, unsigned insn)
{
    for (unsigned i = 0; i < insn; i++)
        if (t->insn[i].access.window == (int)i && t->insn[i].access.last > insn)
            return true;
    return false;
}

/* Try to make a window that begins with the access of instruction @first. */
static void plan_window(struct translation *t, unsigned first)
{
    const struct tr_access *place = &t->insn[first].access;
    int64_t moved = 0, low = 0, high = 0, change;
    bool write = false, others = false, saved = false, exited = false;
    unsigned members = 0, last = first;

    for (unsigned i = first; i < t->count; i++) {
        struct tr_insn *in = &t->insn[i];
        const struct tr_access *a = &in->access;

        if (tr_loses_window(in) || (a->base >= 0 && !same_place(a, place) && !t->hot))
            break;
        exited |= in->kind == TR_JCC;
        others |= a->base >= 0 && !same_place(a, place);
        if (a->base >= 0 && same_place(a, place)) {
            int64_t from = moved + a->offset, to = from + a->size;
            int64_t l = members && low < from ? low : from;
            int64_t h = members && high > to ? high : to;
            if (h - l > WINDOW_MAX || l < -0x70000000ll || h > 0x70000000ll)
                break;
            /* A loop that looks for something to write may look at pages that it cannot. */
            if (t->hot && exited && a->write && !write)
                break;
            saved |= others;
            low = l;
            high = h;
            write |= a->write;
            in->access.window = first;
            in->access.in_window = (int32_t)from;
            members++;
            last = i;
        }
        if (!track_place(t, in, place, &change))
            break;
        moved += change;
    }
    if (!members)
        return;
    t->insn[first].access.low = (int32_t)low;
    t->insn[first].access.width = (uint8_t)(high - low);
    t->insn[first].access.any_write = write;
    t->insn[first].access.saved = saved;
    t->insn[first].access.last = last;
    if (!hoist(t, first) && members < 2 && !is_between(t, first)) {
        t->insn[first].access.window = -1;
        return;
    }
    for (unsigned i = first; i <= last; i++) {
        struct tr_access *a = &t->insn[i].access;
        if (a->window == (int)first)
            a->in_window -= (int32_t)low;
    }
}

void tr_plan_windows(struct translation *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        t->insn[i].access.window = t->insn[i].access.hoisted = -1;
        t->insn[i].access.early = false;
        find_access(t, &t->insn[i]);
    }
    if (t->mode & SOFT_BLOCK_PLAIN)
        return;
    for (unsigned i = 0; i < t->count; i++) {
        if (t->insn[i].access.base >= 0 && t->insn[i].access.window < 0)
            plan_window(t, i);
    }
}

void tr_forget_windows(struct translation *t)
{
    for (unsigned k = 0; k < SOFT_SAVED; k++)
        t->saved[k] = -1;
}

/* R10 = host address of a window: keep it for its other members, if there is room. */
static void save_window(struct translation *t, unsigned window)
{
    for (unsigned k = 0; k < SOFT_SAVED; k++) {
        if (t->saved[k] < 0 || t->insn[t->saved[k]].access.last < window) {
            t->saved[k] = (int)window;
            emit_store_gs(&t->e, TR_OFF(saved) + 8 * k, H_R10);
            return;
        }
    }
}

static int find_saved(const struct translation *t, int window)
{
    for (unsigned k = 0; k < SOFT_SAVED; k++)
        if (t->saved[k] == window)
            return (int)k;
    return -1;
}

/* R10 = host address of a window, in front of instruction @in. */
static void emit_window_check(struct translation *t, unsigned window, const struct tr_insn *in)
{
    const struct tr_access *a = &t->insn[window].access;
    const struct tr_ea ea = {.kind = TR_EA_BASE,
                             .base = (unsigned)a->base,
                             .index = a->index < 0 ? 0 : (unsigned)a->index,
                             .scale = a->index < 0 ? 0 : a->scale,
                             .disp = a->low};

    tr_emit_ea(t, &ea);
    tr_emit_check_of(t, &ea, a->width, a->any_write, in->flags_live);
    struct tr_slow *slow = &t->slow[t->slow_count - 1];
    slow->info |= SOFT_MISS_WINDOW;
    slow->leaves = t->hot && !in->flags_live;
    slow->leave_rip = in->rip;
    t->window = (int)window;
    t->window_used = false;
    if (a->saved)
        save_window(t, window);
}

void tr_emit_hoisted(struct translation *t, const struct tr_insn *in)
{
    if (in->access.hoisted >= 0)
        emit_window_check(t, (unsigned)in->access.hoisted, in);
}

bool tr_has_window(const struct translation *t, const struct tr_insn *in)
{
    const struct tr_access *a = &in->access;

    return a->window >= 0 && (in != &t->insn[a->window] || a->early) &&
           (a->window == t->window || find_saved(t, a->window) >= 0);
}

int32_t tr_emit_window(struct translation *t, const struct tr_insn *in)
{
    const struct tr_access *a = &in->access;

    if (a->window < 0)
        return -1;
    if (in == &t->insn[a->window] && !a->early)
        emit_window_check(t, (unsigned)a->window, in);
    if (t->window != a->window) {
        int saved = find_saved(t, a->window);
        if (saved < 0) /* something between lost R10 after all */
            return -1;
        emit_load_gs(&t->e, H_R10, TR_OFF(saved) + 8 * (unsigned)saved);
        t->window = a->window;
        t->window_used = false;
    }
    return a->in_window;
}
