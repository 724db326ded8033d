/*
 * The translator: one block, decoded with Zydis, at once. Walks guest code from RIP, along some
 * jumps inside the page, to a control transfer or the end of the page, finds which accesses must
 * keep the flags, and emits. Runs under the cache's lock with the vectors parked.
 */
#include <string.h>

#include "engine/soft/decode.h"
#include "engine/soft/translate.h"

/* No block is larger: 48 instructions of at most two checks, a copy and their slow paths each. */
#define BLOCK_MAX_CODE 24576

/* @exits: side exits so far. */
static bool ends_block(const struct tr_insn *in, unsigned *exits)
{
    switch (in->kind) {
    case TR_JCC:
        return in->op[0].imm.value.s < 0 || (*exits)++ == TR_SIDE_EXITS;
    case TR_EXEC_END:
    case TR_JMP:
    case TR_LOOP:
    case TR_CALL:
    case TR_JMP_INDIRECT:
    case TR_CALL_INDIRECT:
    case TR_RET:
        return true;
    default:
        return false;
    }
}

/* Where the block goes on behind an instruction. */
static uint64_t next_rip(const struct translation *t, const struct tr_insn *in)
{
    if (in->kind == TR_RET && in->followed)
        return in->back;
    if (in->kind == TR_JMP || in->kind == TR_CALL || (in->kind == TR_JCC && in->followed))
        return tr_target(t, in);
    return tr_next_rip(t, in);
}

/* Offset of @rip in t->code. @return false: it is not there, or may go on in the next page. */
static bool in_code(const struct translation *t, uint64_t rip, unsigned *at)
{
    uint64_t offset = rip - t->rip + t->code_start;

    *at = (unsigned)offset;
    return t->only > 1 && offset <= MULL_PAGE_SIZE - 15;
}

static bool was_there(const struct translation *t, uint64_t rip)
{
    uint64_t gpa = t->gpa + (rip - t->rip);

    return soft_block_find(t->cache, gpa, t->space + rip, t->mode & ~SOFT_BLOCK_PLAIN) != NULL;
}

/* Go on where a return leads? Where its call, which is in this block, was made; the emitted code
 * makes sure of that. */
static bool follow_return(struct translation *t, struct tr_insn *in, unsigned *at)
{
    if (!t->backs || in->z.operand_width != tr_code_bits(t) || tr_code_bits(t) == 16 ||
        (t->mode & SOFT_MODE_CODE_64K))
        return false;
    in->back = t->back[--t->backs];
    if (!in_code(t, in->back, at))
        return false;
    /* If it goes elsewhere, what is there may need the flags. */
    in->flags_read = (uint32_t)SOFT_ARITH_FLAGS;
    return true;
}

/* Go on at the target of a jump inside the page? Of a conditional one if the guest has been there,
 * but not behind it. */
static bool follow(struct translation *t, struct tr_insn *in, unsigned *exits, unsigned *at)
{
    unsigned target;

    if (in->kind == TR_RET)
        return follow_return(t, in, at);
    if ((in->kind != TR_JMP && in->kind != TR_CALL && in->kind != TR_JCC) ||
        t->follows == TR_FOLLOWS || t->count >= TR_FOLLOW_BEFORE ||
        !in_code(t, tr_target(t, in), &target))
        return false;
    if (in->kind == TR_JCC) {
        if (*exits == TR_SIDE_EXITS || !was_there(t, tr_target(t, in)) ||
            was_there(t, tr_next_rip(t, in)))
            return false;
        (*exits)++;
    }
    if (in->kind == TR_CALL)
        t->back[t->backs++] = tr_next_rip(t, in);
    t->follows++;
    *at = target;
    return true;
}

/* Go on with another round of a hot loop? */
static bool again(struct translation *t, const struct tr_insn *in, unsigned *exits, unsigned *at)
{
    if (!t->hot || in->kind != TR_JCC || tr_target(t, in) != t->rip)
        return false;
    if (!t->rounds++) {
        t->body = t->count;
        t->exits = *exits;
    }
    if (t->rounds == TR_ROUNDS || t->count + t->body > SOFT_BLOCK_MAX_INSNS ||
        *exits + 1 + t->exits > TR_SIDE_EXITS)
        return false;
    (*exits)++;
    *at = t->code_start;
    return true;
}

/* The block depends on [from, to) of the code. */
static void depend(struct translation *t, unsigned from, unsigned to)
{
    if (from < t->low)
        t->low = from;
    if (to > t->high)
        t->high = to;
}

/* Decode to the end of the block. @return false: not even the first instruction; *straddles:
 * because it goes on behind the code there is. */
static bool decode_block(struct translation *t, bool *straddles)
{
    const struct soft_debug *debug = &t->cpu->vm->debug;
    ZydisDecoder decoder;
    unsigned at = t->code_start, exits = 0;

    soft_decoder_init(&decoder, tr_code_bits(t));
    while (t->count < t->only && at < t->code_size) {
        if (t->count && debug->execs &&
            soft_debug_breaks(debug,
                              soft_key_linear(t->mode, t->space + t->rip + at - t->code_start)))
            break;
        struct tr_insn *in = &t->insn[t->count];
        unsigned n = t->code_size - at < 15 ? t->code_size - at : 15;

        /* Another vCPU may be writing these bytes: decode and copy the same ones. */
        memcpy(in->bytes, t->code + at, n);
        ZyanStatus status = soft_zydis_decode(&decoder, in->bytes, n, &in->z, in->op);
        if (!ZYAN_SUCCESS(status)) {
            *straddles = t->count == 0 && n < 15 && status == ZYDIS_STATUS_NO_MORE_DATA;
            break;
        }
        in->rip = t->rip + at - t->code_start;
        tr_classify(t, in);
        depend(t, at, at + in->z.length);
        at += in->z.length;
        t->count++;
        in->followed = again(t, in, &exits, &at) || follow(t, in, &exits, &at);
        in->ends_block = !in->followed && ends_block(in, &exits);
        if (in->ends_block)
            break;
    }
    return t->count > 0;
}

#define LOOK_AHEAD 8

/* Does the code at @rip overwrite all flags before anything reads them? The block then depends on
 * that code, too. */
static bool flags_die_at(struct translation *t, uint64_t rip)
{
    uint32_t live = (uint32_t)SOFT_ARITH_FLAGS;
    unsigned low = t->low, high = t->high, at;
    struct tr_insn in;
    ZydisDecoder decoder;

    soft_decoder_init(&decoder, tr_code_bits(t));
    for (unsigned i = 0; i < LOOK_AHEAD && live; i++) {
        if (!in_code(t, rip, &at))
            break;
        memcpy(in.bytes, t->code + at, 15);
        if (!ZYAN_SUCCESS(soft_zydis_decode(&decoder, in.bytes, 15, &in.z, in.op)))
            break;
        in.rip = rip;
        in.followed = false;
        tr_classify(t, &in);
        depend(t, at, at + in.z.length);
        if (in.flags_read & live)
            break;
        live &= ~in.flags_written;
        if (in.kind == TR_RET || in.kind == TR_JMP_INDIRECT || in.kind == TR_CALL_INDIRECT)
            break;
        rip = next_rip(t, &in);
    }
    if (live) {
        t->low = low;
        t->high = high;
    }
    return !live;
}

/* Is there an access that would like to know whether the flags behind the block are dead? */
static bool asks_for_flags(const struct translation *t)
{
    for (unsigned i = t->count; i-- > 0;) {
        const struct tr_insn *in = &t->insn[i];
        if (in->memory || in->kind == TR_PUSH || in->kind == TR_POP_REG || in->kind == TR_CALL ||
            in->kind == TR_LEAVE)
            return true;
        if (in->flags_read || in->flags_written == SOFT_ARITH_FLAGS)
            return false;
    }
    return false;
}

/* Backward over the block: which flags must survive the check in front of each access? */
static void find_live_flags(struct translation *t)
{
    const struct tr_insn *last = &t->insn[t->count - 1];
    bool direct = !last->ends_block || last->kind == TR_JMP || last->kind == TR_CALL;
    uint32_t live = (uint32_t)SOFT_ARITH_FLAGS;

    if (direct && asks_for_flags(t) && flags_die_at(t, next_rip(t, last)))
        live = 0;
    for (unsigned i = t->count; i-- > 0;) {
        struct tr_insn *in = &t->insn[i];
        in->flags_live_behind = live != 0;
        live = (live & ~in->flags_written) | in->flags_read;
        in->flags_live = live != 0;
    }
}

/* The three entries: verify the address (indirect jumps), poll for events, or neither. */
static void emit_entries(struct translation *t)
{
    struct emit *e = &t->e;
    struct soft_block *b = t->block;

    uint8_t *leave = e->p;
    emit_mov_imm(e, H_R10, t->space + t->rip);
    emit_jmp(e, t->cache->glue.poll);

    /* The address is ours and nobody wants us to leave, if all this adds up to zero. Flags stay as
     * they are even where this block overwrites them: if it is not our address, another block needs
     * them. */
    b->indirect = emit_here(e);
    uint64_t minus = 0 - (t->space + t->rip);
    emit_load_gs(e, H_RCX, TR_OFF(leave));
    if ((int64_t)minus == (int32_t)minus) {
        emit_lea(e, H_RCX, H_RCX, H_R10, 1, (int32_t)minus);
    } else {
        emit_mov_imm(e, H_R11, minus);
        emit_lea(e, H_RCX, H_RCX, H_R10, 1, 0);
        emit_lea(e, H_RCX, H_RCX, H_R11, 1, 0);
    }
    uint8_t *same = emit_jrcxz(e);
    emit_jmp(e, t->cache->glue.jump);

    b->polled = emit_here(e);
    emit_load_gs(e, H_RCX, TR_OFF(run_ok));
    uint8_t *out = emit_jrcxz(e);
    if (!e->overflow)
        *out = (uint8_t)(leave - (out + 1));
    emit_patch8(e, same);
    b->body = emit_here(e);
}

static void emit_insn(struct translation *t, const struct tr_insn *in)
{
    /* These know what they do to R11. */
    if (in->kind == TR_COPY && tr_emit_copy(t, in))
        return;
    if (in->kind != TR_NOP && in->kind != TR_JCC)
        t->kept = -1;
    switch (in->kind) {
    case TR_NOP:
        return;
    case TR_COPY:
        break;
    case TR_LEA:
        if (tr_emit_lea(t, in))
            return;
        break;
    case TR_BIT:
        if (tr_emit_bit(t, in))
            return;
        break;
    case TR_PUSH:
    case TR_POP_REG:
    case TR_LEAVE:
        tr_emit_stack(t, in);
        return;
    case TR_EXEC:
        if (tr_emit_system(t, in, in == &t->insn[t->count - 1]) || tr_emit_string(t, in))
            return;
        break;
    case TR_EXEC_END:
        break;
    case TR_JMP:
        if (!in->followed)
            tr_emit_control(t, in);
        return;
    default:
        tr_emit_control(t, in);
        return;
    }
    tr_emit_exec(t, in);
}

/* In user code of 64 bits, or of 32 in flat segments, unless the accesses go from page to page. */
static bool has_cells(const struct translation *t, const struct tr_insn *in)
{
    const uint32_t flat = SOFT_MODE_CODE32 | SOFT_MODE_FLAT;

    return (tr_code64(t) || (t->mode & flat) == flat) && (t->mode & SOFT_MODE_CPL3) &&
           !soft_insn_roams(t->cache, t->gpa + (in->rip - t->rip));
}

/* Not where a mask may leave nothing of the access. */
static bool surely_accesses(const struct tr_insn *in)
{
    return in->kind != TR_COPY || in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
}

static void emit_in_turn(struct translation *t, const struct tr_insn *in)
{
    int32_t delta;

    t->cells = has_cells(t, in);
    if (in->access.hoisted >= 0 || !tr_sp_may_lag(t, in))
        tr_settle_sp(t);
    tr_emit_hoisted(t, in);
    if (tr_adds_to_sp(t, in, &delta))
        t->sp_lag += delta;
    else
        emit_insn(t, in);
    if (t->window >= 0 && t->window == in->access.window && surely_accesses(in))
        t->window_used = true;
}

/* Would several rounds of it in one block share checks? */
static bool is_loop(const struct translation *t)
{
    const struct tr_insn *last = &t->insn[t->count - 1];

    if (t->hot || t->count > SOFT_BLOCK_MAX_INSNS / 2 || !tr_code64(t) ||
        (t->mode & SOFT_BLOCK_PLAIN) || last->kind != TR_JCC || tr_target(t, last) != t->rip)
        return false;
    for (unsigned i = 0; i < t->count; i++)
        if (t->insn[i].kind == TR_COPY && t->insn[i].memory)
            return true;
    return false;
}

/* Behind an instruction with slow paths from @slow on: whether C may have executed it. */
static bool may_have_left(const struct translation *t, const struct tr_insn *in, unsigned slow)
{
    bool left = tr_loses_window(in);

    for (; slow < t->slow_count; slow++)
        left |= !(t->slow[slow].info & SOFT_MISS_WINDOW);
    return left;
}

static void emit_block(struct translation *t)
{
    struct soft_block *b = t->block;

    b->start = emit_here(&t->e);
    emit_entries(t);
    for (unsigned i = 0; i < t->count && !t->full; i++) {
        b->map[i].guest = (int16_t)(t->insn[i].rip - t->rip);
        b->map[i].host = (uint16_t)(emit_here(&t->e) - b->start);
        if (t->insn[i].access.hoisted >= 0)
            t->kept = -1;
        b->map[i].kept = t->kept < 0 ? SOFT_NOT_KEPT : (uint8_t)t->kept;
        const unsigned slow = t->slow_count;
        emit_in_turn(t, &t->insn[i]);
        if (may_have_left(t, &t->insn[i], slow))
            tr_forget_windows(t);
    }
    const struct tr_insn *last = &t->insn[t->count - 1];
    tr_settle_sp(t);
    if (!last->ends_block && !t->full)
        tr_emit_goto(t, next_rip(t, last));
    if (!t->full)
        tr_emit_cold(t);
    b->end = emit_here(&t->e);
}

static void tell_trace(const struct translation *t)
{
    const struct mull_code_trace *trace = t->cpu->vm->config.trace;
    const struct soft_block *b = t->block;

    trace->translated(trace->opaque, b->start, (size_t)(b->end - b->start),
                      soft_key_linear(t->mode, t->space + t->rip),
                      t->mode & SOFT_MODE_CPL3 ? "guest_user" : "guest_kernel");
}

static struct soft_block *translate(struct translation *t, const struct soft_page *page,
                                    const struct soft_page *next, bool *straddles)
{
    uint8_t across[15];
    struct soft_cache *c = t->cache;
    unsigned available = (unsigned)(MULL_PAGE_SIZE - (page->gpa & ~MULL_PAGE_MASK));

    if (c->size - c->used < BLOCK_MAX_CODE || c->blocks >= c->blocks_max)
        goto full;
    soft_watch_page(t->cpu->vm, page->ram, page->gpa);
    t->gpa = page->gpa;
    t->code_start = (unsigned)(page->gpa & ~MULL_PAGE_MASK);
    t->code = page->host - t->code_start;
    t->code_size = MULL_PAGE_SIZE;
    if (next) {
        soft_watch_page(t->cpu->vm, next->ram, next->gpa);
        memcpy(across, page->host, available < 15 ? available : 15);
        if (available < 15)
            memcpy(across + available, next->host, 15 - available);
        t->code = across;
        t->code_size = 15;
        t->code_start = 0;
        t->only = 1;
    }
    /* Behind the limit of CS there is nothing; what lies across it C refuses. */
    bool cut = (t->mode & SOFT_MODE_CODE_64K) && t->code_size - t->code_start > 0x10000 - t->rip;
    if (cut)
        t->code_size = t->code_start + (unsigned)(0x10000 - t->rip);
    t->hot = !next && tr_code64(t) && !(t->mode & SOFT_BLOCK_PLAIN) && soft_loop_is_hot(c, t->gpa);
    t->low = t->high = t->code_start;
    if (!decode_block(t, straddles)) {
        *straddles &= !cut;
        return NULL;
    }
    find_live_flags(t);
    tr_plan_windows(t);

    t->block = soft_cache_alloc(c, sizeof(*t->block) + t->count * sizeof(t->block->map[0]));
    if (!t->block)
        goto full;
    memset(t->block, 0, sizeof(*t->block));
    t->block->gpa = page->gpa;
    t->block->gpa_next = next ? next->gpa : 0;
    t->block->rip = t->space + t->rip;
    t->block->mode = t->mode;
    t->block->insns = (uint16_t)t->count;
    t->block->loops = !next && is_loop(t);
    unsigned base = next ? MULL_PAGE_SIZE - available : 0;
    t->block->low = (uint16_t)(base + t->low);
    t->block->high = (uint16_t)(base + t->high);

    t->e = (struct emit){.p = c->rw + c->used,
                         .limit = c->rw + c->used + BLOCK_MAX_CODE,
                         .rx = c->rx - c->rw,
                         .overflow = false};
    emit_block(t);
    if (t->full || t->e.overflow || !soft_block_publish(c, t->block))
        goto full;
    c->used = ((size_t)(t->e.p - c->rw) + 15) & ~(size_t)15;
    if (t->cpu->vm->config.trace)
        tell_trace(t);
    t->cpu->stats.blocks_translated++;
    t->cpu->stats.guest_insns_translated += t->count;
    return t->block;

full:
    atomic_store(&c->flush_wanted, 1);
    return NULL;
}

struct soft_block *soft_block_translate(struct soft_cpu *cpu, const struct soft_page *page,
                                        const struct soft_page *next, uint64_t key, uint32_t mode,
                                        bool *straddles)
{
    struct translation t;
    struct soft_cache *c = cpu->vm->cache;

    t.cpu = cpu;
    t.cache = c;
    t.rip = soft_key_rip(mode, key);
    t.space = key - t.rip;
    t.mode = mode;
    t.count = t.slow_count = t.edge_count = t.far_count = 0;
    t.only = SOFT_BLOCK_MAX_INSNS;
    t.follows = 0;
    t.full = false;
    *straddles = false;
    t.window_used = false;
    t.sp_lag = 0;
    t.backs = 0;
    t.window = t.kept = -1;
    t.rounds = 0;
    tr_forget_windows(&t);

    soft_cache_lock(c);
    struct soft_block *b = soft_block_find(c, page->gpa, key, mode);
    if (b && next && b->gpa_next != next->gpa)
        b = NULL;
    if (!b)
        b = translate(&t, page, next, straddles);
    soft_cache_unlock(c);
    return b;
}
