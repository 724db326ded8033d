/*
 * Inside the translator: one decoded guest instruction on its way to host code, and the state of
 * the block being made. translate.c walks the block, rewrite.c re-encodes copied instructions,
 * lower.c emits the memory checks and control flow.
 */
#ifndef MULL_SOFT_TRANSLATE_H
#define MULL_SOFT_TRANSLATE_H

#include <Zydis/Zydis.h>

#include "engine/soft/cache.h"
#include "engine/soft/emit.h"

/* How an instruction is translated. */
enum tr_kind {
    TR_EXEC,     /* in C, through a site */
    TR_EXEC_END, /* in C, and the block ends: it always goes elsewhere */
    TR_COPY,     /* re-encoded */
    TR_LEA,
    TR_BIT, /* BT, BTS, BTR, BTC of a bit string in memory */
    TR_NOP,
    TR_PUSH,
    TR_POP_REG,
    TR_LEAVE,
    TR_JMP,
    TR_JCC,
    TR_LOOP, /* LOOP, LOOPE, LOOPNE, JCXZ */
    TR_CALL,
    TR_JMP_INDIRECT,
    TR_CALL_INDIRECT,
    TR_RET,
};

/* One access off one base register, and its place in a shared window (coalesce.c). */
struct tr_access {
    int base;  /* guest register, -1: not such an access */
    int index; /* -1: none */
    unsigned scale;
    int64_t offset;
    unsigned size;
    bool write;
    int window;        /* index of the instruction that checks the window, -1: none */
    int32_t in_window; /* offset from the window's start */
    int32_t low;       /* of the first: the window's start off the base, and its extent */
    uint8_t width;
    bool any_write;
    bool early;    /* of the first: its check is in front of another instruction */
    bool saved;    /* of the first: others use R10 in between, so it is kept in memory */
    unsigned last; /* of the first: the last member's instruction */
    int hoisted;   /* of any instruction: the window whose check is in front of it, -1: none */
};

struct tr_insn {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[15];
    enum tr_kind kind;
    const ZydisDecodedOperand *memory; /* the explicit memory operand, or NULL */
    uint64_t rip;
    uint32_t flags_read;    /* arithmetic flags the instruction depends on */
    uint32_t flags_written; /* flags it surely overwrites */
    bool ends_block;
    bool followed;          /* a jump, call or return: the next instruction is where it leads */
    uint64_t back;          /* a followed return: where, unless somebody changed the address */
    bool flags_live;        /* some flag must survive until the instruction has executed */
    bool flags_live_behind; /* some flag must survive the instruction itself */
    struct tr_access access;
};

/* Where the slow path of a check gets the address from. */
struct tr_ea {
    enum {
        TR_EA_RCX,     /* the check keeps it in RCX */
        TR_EA_THERE,   /* it is still in R10 */
        TR_EA_BASE,    /* guest register + index * scale + disp */
        TR_EA_OPERAND, /* the instruction's memory operand, its segment flat */
    } kind;
    unsigned base;
    unsigned index, scale; /* scale 0: no index */
    int32_t disp;
    const struct tr_insn *in;
};

/* A forward jump to code at the end of the block. */
struct tr_slow {
    uint8_t *from;  /* writable address of the rel32 */
    uint8_t *retry; /* executable address; R10 = the address */
    uint32_t info;  /* size | SOFT_MISS_* */
    int cell;       /* -1: none */
    bool leaves;    /* a window: where it crosses a page the plain copy at leave_rip goes on */
    uint64_t leave_rip;
    struct tr_ea ea;
};

#define TR_MAX_SLOW (SOFT_BLOCK_MAX_INSNS * 4)

/* Jumps inside a page that a block goes on behind, in its first instructions. */
#define TR_FOLLOWS 3
#define TR_FOLLOW_BEFORE 24

/* Conditional jumps forward that a block goes on behind: its side exits. */
#define TR_SIDE_EXITS 5
#define TR_MAX_EDGES (TR_SIDE_EXITS + 2)

/* Rounds of a hot loop in one block. */
#define TR_ROUNDS 4

struct translation {
    struct soft_cpu *cpu;
    struct soft_cache *cache;
    struct emit e;
    struct soft_block *block;
    uint64_t rip;   /* of the block; EIP outside 64-bit mode */
    uint64_t space; /* RIP or EIP + this: see soft_code_key() */
    uint64_t gpa;
    uint32_t mode;
    /* The guest's bytes: of the page of rip, or 15 across two pages. */
    const uint8_t *code;
    unsigned code_size, code_start; /* offset of rip in them */
    unsigned low, high;             /* which of them the block depends on */
    unsigned follows;               /* jumps followed */
    uint64_t back[TR_FOLLOWS];      /* behind the calls among them that have not returned */
    unsigned backs;
    unsigned only;                /* instructions the block may have */
    bool hot;                     /* a hot loop begins here */
    unsigned rounds, body, exits; /* of it: rounds so far; instructions and side exits of one */
    unsigned count;
    struct tr_insn insn[SOFT_BLOCK_MAX_INSNS];
    unsigned slow_count;
    struct tr_slow slow[TR_MAX_SLOW];
    unsigned edge_count;
    struct soft_edge *edge[TR_MAX_EDGES + SOFT_BLOCK_MAX_INSNS];
    unsigned far_count; /* Jcc out of the page */
    struct {
        uint8_t *from;
        uint64_t rip;
    } far[TR_MAX_EDGES];
    bool cells;            /* accesses of the instruction being emitted have cells */
    int window;            /* whose window R10 holds, -1: none */
    bool window_used;      /* an instruction has accessed it: no later one can fault */
    int32_t sp_lag;        /* the guest's stack pointer minus the host's: see tr_settle_sp() */
    int saved[SOFT_SAVED]; /* windows whose host address is in soft_cpu.saved, -1: none */
    int kept;  /* the guest register without a host register that R11 holds as well, -1: none */
    bool full; /* the arena is full */
};

/* Guest general register -> host register, H_NONE: in memory. */
extern const int8_t tr_host_of[16];

/** GPR number of a Zydis register, -1: not one. @high: AH, CH, DH or BH. */
int tr_gpr(ZydisRegister reg, bool *high);

/** Decide how to translate (sets kind, memory, flags). */
void tr_classify(const struct translation *t, struct tr_insn *in);

/** Emit a TR_COPY instruction, its memory operand checked first. @return false: it cannot be
 *  copied (nothing was emitted): execute it in C. */
bool tr_emit_copy(struct translation *t, const struct tr_insn *in);

/** Emit TR_BIT. */
bool tr_emit_bit(struct translation *t, const struct tr_insn *in);

/** Emit LEA. */
bool tr_emit_lea(struct translation *t, const struct tr_insn *in);

/** Bytes that the memory operand may touch. */
unsigned tr_access_size(const struct tr_insn *in);

/** Will tr_emit_lea() leave R10 alone? */
bool tr_lea_is_direct(const struct tr_insn *in);

/* ---- coalesce.c ---- */

/** Find the accesses that can share a check. */
void tr_plan_windows(struct translation *t);

/** Emit the check of a window that begins behind this instruction, where the flags live. */
void tr_emit_hoisted(struct translation *t, const struct tr_insn *in);

/** Is the host address of the instruction's window in R10 or in memory already? */
bool tr_has_window(const struct translation *t, const struct tr_insn *in);

/** The instruction may have been executed in C: addresses that were checked before it are old. */
void tr_forget_windows(struct translation *t);

/** May R10 be lost in it, or may control leave the block and come back behind it? */
bool tr_loses_window(const struct tr_insn *in);

/** R10 = host address of the instruction's window, checked by its first member.
 *  @return the access's displacement from R10, or -1: it must be checked by itself. */
int32_t tr_emit_window(struct translation *t, const struct tr_insn *in);

/* ---- lower.c ---- */

/** R10 = host address of the instruction's only access, @size bytes at @base register + @disp.
 *  @return the displacement to add to R10. */
int32_t tr_emit_access(struct translation *t, const struct tr_insn *in, unsigned base, int32_t disp,
                       unsigned size, bool write);

/** R10 = linear address of a memory operand; outside 64-bit mode its offset in the segment.
 *  Clobbers RCX, R11; leaves flags alone. */
void tr_emit_address(struct translation *t, const struct tr_insn *in,
                     const ZydisDecodedOperand *op);

/** R10 = host address of @size bytes at in->memory, checked. */
void tr_emit_memory(struct translation *t, const struct tr_insn *in, unsigned size, bool write);

/** R10 = linear address -> R10 = host address, or the slow path. Clobbers RCX, R11, and the flags
 *  unless @flags_live. */
void tr_emit_check(struct translation *t, unsigned size, bool write, bool flags_live);

/** The same for an address that the slow path can compute again. */
void tr_emit_check_of(struct translation *t, const struct tr_ea *ea, unsigned size, bool write,
                      bool flags_live);

/** R10 = guest register + disp. Leaves flags alone. */
void tr_emit_base(struct translation *t, unsigned base, int32_t disp);

/** The same of a TR_EA_BASE. Clobbers R11 if it has an index. */
void tr_emit_ea(struct translation *t, const struct tr_ea *ea);

/** Load or store a guest register by number, wherever it lives. Flags untouched. */
void tr_emit_get(struct translation *t, unsigned host, unsigned guest);
void tr_emit_put(struct translation *t, unsigned guest, unsigned host);

/** Emit an instruction that is executed in C. */
void tr_emit_exec(struct translation *t, const struct tr_insn *in);

/** Emit a TR_EXEC instruction without C. @return false: nothing was emitted.
 *  @last: it is the last of its block. */
bool tr_emit_system(struct translation *t, const struct tr_insn *in, bool last);

/** Emit a string instruction without C. @return false: nothing was emitted. */
bool tr_emit_string(struct translation *t, const struct tr_insn *in);

/** May the host's stack pointer lag behind while this instruction executes? */
bool tr_sp_may_lag(const struct translation *t, const struct tr_insn *in);

/** Is it an addition to the stack pointer that need not be done yet? Then @delta is it. */
bool tr_adds_to_sp(const struct translation *t, const struct tr_insn *in, int32_t *delta);

/** Stack pointer += @delta: at once, or later if the instruction's access went through a window,
 *  so that pushes and pops in a row move it once. */
void tr_move_sp(struct translation *t, const struct tr_insn *in, int32_t delta);

/** Bring the host's stack pointer up to date: before everything that may leave the block, fault, or
 *  read it. */
void tr_settle_sp(struct translation *t);

/** Bytes that a return takes off the stack. */
unsigned tr_return_pops(const struct tr_insn *in);

/** Emit the other kinds. */
void tr_emit_stack(struct translation *t, const struct tr_insn *in);
void tr_emit_control(struct translation *t, const struct tr_insn *in);

/** Jump to guest address @rip: chained inside the page, through the jump table outside. */
void tr_emit_goto(struct translation *t, uint64_t rip);

/** The cold code behind the block: slow paths, unchained edges. */
void tr_emit_cold(struct translation *t);

/* ---- code32.c: what is different outside 64-bit mode ---- */

static inline bool tr_code64(const struct translation *t)
{
    return t->mode & SOFT_MODE_CODE64;
}

static inline unsigned tr_code_bits(const struct translation *t)
{
    return t->mode & SOFT_MODE_CODE64 ? 64 : t->mode & SOFT_MODE_CODE32 ? 32 : 16;
}

/** The RIP of the instruction behind @in. */
uint64_t tr_next_rip(const struct translation *t, const struct tr_insn *in);

/** Where a direct jump or call goes. */
uint64_t tr_target(const struct translation *t, const struct tr_insn *in);

/** What tr_classify() has chosen, outside 64-bit mode: take back what cannot be done so, and make
 *  the bytes to copy mean in 64-bit mode what they mean here. */
void tr_restrict(const struct translation *t, struct tr_insn *in);

/** The operand-size prefix that the copy needs, outside 64-bit mode. */
bool tr_needs_66(const struct translation *t, const struct tr_insn *in);

/** Zero-extend the low 16 bits of a host register. */
void tr_emit_cut_16(struct emit *e, unsigned reg);

/** R10 = offset of a memory operand, cut to the address size. */
void tr_emit_offset(struct translation *t, const struct tr_insn *in, const ZydisDecodedOperand *op);

/** R10 = offset in a segment -> R10 = linear address, its limit checked for @size bytes. Clobbers
 *  RCX, and R11 if @flags_live, else the flags. Nothing to do in 64-bit mode. */
void tr_emit_segment(struct translation *t, unsigned seg, unsigned size, bool write,
                     bool flags_live);

/** MULL_ES.. of a memory operand. */
unsigned tr_segment(const ZydisDecodedOperand *op);

/** Accesses to this segment have neither base nor limit. */
bool tr_is_flat(const struct translation *t, unsigned seg);

/** Bytes that a push, pop, call or return moves. */
static inline unsigned tr_stack_size(const struct tr_insn *in)
{
    return in->z.operand_width / 8u;
}

/** dst = @size bytes at [R10 + at], zero-extended from 4; of 2 the rest of dst stays. */
void tr_emit_load(struct translation *t, unsigned dst, int32_t at, unsigned size);
/** The same, zero-extended from any size. */
void tr_emit_load_zero(struct translation *t, unsigned dst, int32_t at, unsigned size);
void tr_emit_store(struct translation *t, unsigned src, int32_t at, unsigned size);

/** Stack pointer = register @base + @delta, as wide as the stack pointer is. */
void tr_emit_set_sp(struct translation *t, unsigned base, int32_t delta);

/** R10 = register @base + @disp, as wide as the stack pointer. */
void tr_emit_stack_offset(struct translation *t, unsigned base, int32_t disp);

/** R10 = target of an indirect jump: look at CS's limit, and make it a key. */
void tr_emit_target_check(struct translation *t, const struct tr_insn *in);

/** LEA outside 64-bit mode. */
void tr_emit_lea32(struct translation *t, const struct tr_insn *in);

/** TR_LOOP. */
void tr_emit_loop(struct translation *t, const struct tr_insn *in);

#define TR_OFF(member) ((uint32_t)offsetof(struct soft_cpu, member))

#endif
