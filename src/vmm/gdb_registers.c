/*
 * The table of registers. Names and order of the standard features are the GDB manual's (G.5.7,
 * i386 features); system registers have a feature of our own.
 */
#include "vmm/gdb_registers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Offsets in the XSAVE area (SDM volume 1, 13.4). */
#define X_FCW 0
#define X_FSW 2
#define X_FTW 4
#define X_FOP 6
#define X_FIP 8
#define X_FDP 16
#define X_MXCSR 24
#define X_ST 32
#define X_XMM 160
#define X_BV 512
#define X_YMM 576
#define BV_X87 1u
#define BV_SSE 2u
#define BV_AVX 4u

#define RFLAGS_WRITABLE 0x254dd5ull /* CF PF AF ZF SF TF DF OF NT RF AC ID; not IF, IOPL, VM */
#define RFLAGS_IF 0x200ull

enum kind {
    GPR, /* index: number */
    RIP,
    RFLAGS,
    SELECTOR, /* index: segment */
    BASE,     /* index: segment */
    ST,
    X87, /* index: enum x87 */
    XMM,
    MXCSR,
    YMMH,
    SYSTEM, /* index: offset in struct mull_cpu_state */
};

enum x87 { FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP };

struct reg {
    const char *name, *type;
    uint8_t kind, bytes;
    uint16_t index;
};

#define G64(name, number)                                                                          \
    {                                                                                              \
        name, "int64", GPR, 8, number                                                              \
    }
#define SEL(name, number)                                                                          \
    {                                                                                              \
        name, "int32", SELECTOR, 4, number                                                         \
    }
#define FP(name, number)                                                                           \
    {                                                                                              \
        name, "int", X87, 4, number                                                                \
    }
#define SYS(name, field)                                                                           \
    {                                                                                              \
        name, "uint64", SYSTEM, (uint8_t)sizeof(((struct mull_cpu_state *)0)->field),              \
            (uint16_t)offsetof(struct mull_cpu_state, field)                                       \
    }

static const struct reg core[] = {
    G64("rax", MULL_RAX),
    G64("rbx", MULL_RBX),
    G64("rcx", MULL_RCX),
    G64("rdx", MULL_RDX),
    G64("rsi", MULL_RSI),
    G64("rdi", MULL_RDI),
    {"rbp", "data_ptr", GPR, 8, MULL_RBP},
    {"rsp", "data_ptr", GPR, 8, MULL_RSP},
    G64("r8", MULL_R8),
    G64("r9", MULL_R9),
    G64("r10", MULL_R10),
    G64("r11", MULL_R11),
    G64("r12", MULL_R12),
    G64("r13", MULL_R13),
    G64("r14", MULL_R14),
    G64("r15", MULL_R15),
    {"rip", "code_ptr", RIP, 8, 0},
    {"eflags", "x86_eflags", RFLAGS, 4, 0},
    SEL("cs", MULL_CS),
    SEL("ss", MULL_SS),
    SEL("ds", MULL_DS),
    SEL("es", MULL_ES),
    SEL("fs", MULL_FS),
    SEL("gs", MULL_GS),
    {"st0", "i387_ext", ST, 10, 0},
    {"st1", "i387_ext", ST, 10, 1},
    {"st2", "i387_ext", ST, 10, 2},
    {"st3", "i387_ext", ST, 10, 3},
    {"st4", "i387_ext", ST, 10, 4},
    {"st5", "i387_ext", ST, 10, 5},
    {"st6", "i387_ext", ST, 10, 6},
    {"st7", "i387_ext", ST, 10, 7},
    FP("fctrl", FCTRL),
    FP("fstat", FSTAT),
    FP("ftag", FTAG),
    FP("fiseg", FISEG),
    FP("fioff", FIOFF),
    FP("foseg", FOSEG),
    FP("fooff", FOOFF),
    FP("fop", FOP),
};

static const struct reg sse[] = {
    {"xmm0", "vec128", XMM, 16, 0},      {"xmm1", "vec128", XMM, 16, 1},
    {"xmm2", "vec128", XMM, 16, 2},      {"xmm3", "vec128", XMM, 16, 3},
    {"xmm4", "vec128", XMM, 16, 4},      {"xmm5", "vec128", XMM, 16, 5},
    {"xmm6", "vec128", XMM, 16, 6},      {"xmm7", "vec128", XMM, 16, 7},
    {"xmm8", "vec128", XMM, 16, 8},      {"xmm9", "vec128", XMM, 16, 9},
    {"xmm10", "vec128", XMM, 16, 10},    {"xmm11", "vec128", XMM, 16, 11},
    {"xmm12", "vec128", XMM, 16, 12},    {"xmm13", "vec128", XMM, 16, 13},
    {"xmm14", "vec128", XMM, 16, 14},    {"xmm15", "vec128", XMM, 16, 15},
    {"mxcsr", "x86_mxcsr", MXCSR, 4, 0},
};

static const struct reg segments[] = {
    {"fs_base", "int64", BASE, 8, MULL_FS},
    {"gs_base", "int64", BASE, 8, MULL_GS},
};

static const struct reg avx[] = {
    {"ymm0h", "uint128", YMMH, 16, 0},   {"ymm1h", "uint128", YMMH, 16, 1},
    {"ymm2h", "uint128", YMMH, 16, 2},   {"ymm3h", "uint128", YMMH, 16, 3},
    {"ymm4h", "uint128", YMMH, 16, 4},   {"ymm5h", "uint128", YMMH, 16, 5},
    {"ymm6h", "uint128", YMMH, 16, 6},   {"ymm7h", "uint128", YMMH, 16, 7},
    {"ymm8h", "uint128", YMMH, 16, 8},   {"ymm9h", "uint128", YMMH, 16, 9},
    {"ymm10h", "uint128", YMMH, 16, 10}, {"ymm11h", "uint128", YMMH, 16, 11},
    {"ymm12h", "uint128", YMMH, 16, 12}, {"ymm13h", "uint128", YMMH, 16, 13},
    {"ymm14h", "uint128", YMMH, 16, 14}, {"ymm15h", "uint128", YMMH, 16, 15},
};

static const struct reg system_registers[] = {
    SYS("cr0", cr0),
    SYS("cr2", cr2),
    SYS("cr3", cr3),
    SYS("cr4", cr4),
    SYS("cr8", cr8),
    SYS("efer", efer),
    SYS("xcr0", xcr0),
    SYS("k_gs_base", kernel_gs_base),
    SYS("dr0", dr[0]),
    SYS("dr1", dr[1]),
    SYS("dr2", dr[2]),
    SYS("dr3", dr[3]),
    SYS("dr6", dr[6]),
    SYS("dr7", dr[7]),
    SYS("gdtr_base", gdt.base),
    SYS("gdtr_limit", gdt.limit),
    SYS("idtr_base", idt.base),
    SYS("idtr_limit", idt.limit),
    SYS("ldtr", seg[MULL_LDTR].selector),
    SYS("ldtr_base", seg[MULL_LDTR].base),
    SYS("tr", seg[MULL_TR].selector),
    SYS("tr_base", seg[MULL_TR].base),
    SYS("cs_base", seg[MULL_CS].base),
    SYS("star", star),
    SYS("lstar", lstar),
    SYS("cstar", cstar),
    SYS("sfmask", sfmask),
    SYS("pat", pat),
};

static const struct feature {
    const char *name;
    const char *types; /* what its registers' types are */
    const struct reg *reg;
    unsigned count;
} features[] = {
    {"org.gnu.gdb.i386.core",
     "<flags id=\"x86_eflags\" size=\"4\">"
     "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
     "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
     "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
     "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
     "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
     "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
     "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>"
     "<field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>"
     "<field name=\"ID\" start=\"21\" end=\"21\"/></flags>",
     core, sizeof(core) / sizeof(core[0])},
    {"org.gnu.gdb.i386.sse",
     "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
     "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
     "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
     "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
     "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
     "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
     "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
     "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
     "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
     "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>"
     "<flags id=\"x86_mxcsr\" size=\"4\">"
     "<field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" end=\"1\"/>"
     "<field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/>"
     "<field name=\"UE\" start=\"4\" end=\"4\"/><field name=\"PE\" start=\"5\" end=\"5\"/>"
     "<field name=\"DAZ\" start=\"6\" end=\"6\"/><field name=\"IM\" start=\"7\" end=\"7\"/>"
     "<field name=\"DM\" start=\"8\" end=\"8\"/><field name=\"ZM\" start=\"9\" end=\"9\"/>"
     "<field name=\"OM\" start=\"10\" end=\"10\"/><field name=\"UM\" start=\"11\" end=\"11\"/>"
     "<field name=\"PM\" start=\"12\" end=\"12\"/><field name=\"FZ\" start=\"15\" end=\"15\"/>"
     "</flags>",
     sse, sizeof(sse) / sizeof(sse[0])},
    {"org.gnu.gdb.i386.segments", "", segments, sizeof(segments) / sizeof(segments[0])},
    {"org.gnu.gdb.i386.avx", "", avx, sizeof(avx) / sizeof(avx[0])},
    {"org.mullion.x86.system", "", system_registers,
     sizeof(system_registers) / sizeof(system_registers[0])},
};
#define FEATURES (sizeof(features) / sizeof(features[0]))

static const struct reg *find(unsigned number)
{
    for (unsigned i = 0; i < FEATURES; i++) {
        if (number < features[i].count)
            return &features[i].reg[number];
        number -= features[i].count;
    }
    return NULL;
}

unsigned gdb_register_count(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < FEATURES; i++)
        count += features[i].count;
    return count;
}

unsigned gdb_register_size(unsigned number)
{
    const struct reg *r = find(number);

    return r ? r->bytes : 0;
}

/* ---- The XSAVE area: a component that is not in XSTATE_BV is in its initial state ---- */

static bool has(const struct mull_cpu_state *s, uint8_t component)
{
    return s->xsave[X_BV] & component;
}

static void put16(uint8_t *to, uint16_t value)
{
    memcpy(to, &value, sizeof(value));
}

static uint16_t get16(const uint8_t *from)
{
    uint16_t value;

    memcpy(&value, from, sizeof(value));
    return value;
}

/* Before a part of a component is written: what is left of it must be the initial state. */
static void make_present(struct mull_cpu_state *s, uint8_t component)
{
    if (has(s, component))
        return;
    if (component == BV_X87) {
        memset(s->xsave, 0, X_MXCSR);
        memset(s->xsave + X_ST, 0, X_XMM - X_ST);
        put16(s->xsave + X_FCW, 0x37f);
    } else if (component == BV_SSE) {
        memset(s->xsave + X_XMM, 0, 256);
    } else {
        memset(s->xsave + X_YMM, 0, 256);
    }
    s->xsave[X_BV] |= component;
}

/* The tag word as FSTENV shows it (SDM volume 1, 8.1.7), from the abridged one. */
static uint16_t full_tags(const struct mull_cpu_state *s)
{
    unsigned top = get16(s->xsave + X_FSW) >> 11 & 7, tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *st = s->xsave + X_ST + ((i - top) & 7) * 16;
        uint16_t exponent = get16(st + 8) & 0x7fff;
        uint64_t mantissa;
        unsigned tag;

        memcpy(&mantissa, st, sizeof(mantissa));
        if (!(s->xsave[X_FTW] >> i & 1))
            tag = 3;
        else if (!exponent && !mantissa)
            tag = 1;
        else
            tag = !exponent || exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
        tags |= tag << (2 * i);
    }
    return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
    uint8_t valid = 0;

    for (unsigned i = 0; i < 8; i++)
        if ((tags >> (2 * i) & 3) != 3)
            valid |= (uint8_t)(1u << i);
    return valid;
}

static uint32_t get_x87(const struct mull_cpu_state *s, unsigned index)
{
    uint32_t value = 0;

    if (!has(s, BV_X87))
        return index == FCTRL ? 0x37f : index == FTAG ? 0xffff : 0;
    switch (index) {
    case FCTRL:
        return get16(s->xsave + X_FCW);
    case FSTAT:
        return get16(s->xsave + X_FSW);
    case FTAG:
        return full_tags(s);
    case FOP:
        return get16(s->xsave + X_FOP);
    case FIOFF:
        memcpy(&value, s->xsave + X_FIP, 4);
        return value;
    case FISEG:
        return get16(s->xsave + X_FIP + 4);
    case FOOFF:
        memcpy(&value, s->xsave + X_FDP, 4);
        return value;
    default:
        return get16(s->xsave + X_FDP + 4);
    }
}

static void set_x87(struct mull_cpu_state *s, unsigned index, uint32_t value)
{
    make_present(s, BV_X87);
    switch (index) {
    case FCTRL:
        put16(s->xsave + X_FCW, (uint16_t)value);
        break;
    case FSTAT:
        put16(s->xsave + X_FSW, (uint16_t)value);
        break;
    case FTAG:
        s->xsave[X_FTW] = abridged_tags((uint16_t)value);
        break;
    case FOP:
        put16(s->xsave + X_FOP, value & 0x7ff);
        break;
    case FIOFF:
        memcpy(s->xsave + X_FIP, &value, 4);
        break;
    case FISEG:
        put16(s->xsave + X_FIP + 4, (uint16_t)value);
        break;
    case FOOFF:
        memcpy(s->xsave + X_FDP, &value, 4);
        break;
    default:
        put16(s->xsave + X_FDP + 4, (uint16_t)value);
        break;
    }
}

/* ---- In and out ---- */

unsigned gdb_register_get(const struct mull_cpu_state *s, unsigned number,
                          uint8_t bytes[GDB_REGISTER_BYTES])
{
    const struct reg *r = find(number);
    uint64_t value = 0;

    if (!r)
        return 0;
    memset(bytes, 0, GDB_REGISTER_BYTES);
    switch (r->kind) {
    case GPR:
        value = s->gpr[r->index];
        break;
    case RIP:
        value = s->rip;
        break;
    case RFLAGS:
        value = s->rflags;
        break;
    case SELECTOR:
        value = s->seg[r->index].selector;
        break;
    case BASE:
        value = s->seg[r->index].base;
        break;
    case X87:
        value = get_x87(s, r->index);
        break;
    case MXCSR: /* counts whatever XSTATE_BV says (SDM volume 1, 13.8.1) */
        memcpy(&value, s->xsave + X_MXCSR, 4);
        break;
    case ST:
        if (has(s, BV_X87))
            memcpy(bytes, s->xsave + X_ST + r->index * 16, 10);
        return r->bytes;
    case XMM:
        if (has(s, BV_SSE))
            memcpy(bytes, s->xsave + X_XMM + r->index * 16, 16);
        return r->bytes;
    case YMMH:
        if (has(s, BV_AVX))
            memcpy(bytes, s->xsave + X_YMM + r->index * 16, 16);
        return r->bytes;
    default:
        memcpy(&value, (const uint8_t *)s + r->index, r->bytes);
        break;
    }
    memcpy(bytes, &value, sizeof(value));
    return r->bytes;
}

static bool canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

bool gdb_register_set(struct mull_cpu_state *s, unsigned number,
                      const uint8_t bytes[GDB_REGISTER_BYTES])
{
    const struct reg *r = find(number);
    uint64_t value = 0;

    if (!r)
        return false;
    memcpy(&value, bytes, r->bytes < 8 ? r->bytes : 8);
    switch (r->kind) {
    case GPR:
        s->gpr[r->index] = value;
        return true;
    case RIP:
        if (!canonical(value))
            return false;
        s->rip = value;
        return true;
    case RFLAGS:
        s->rflags = (s->rflags & ~(RFLAGS_WRITABLE | RFLAGS_IF)) |
                    (value & (RFLAGS_WRITABLE | RFLAGS_IF)) | 2;
        return true;
    case BASE:
        if (!canonical(value))
            return false;
        s->seg[r->index].base = value;
        return true;
    case X87:
        set_x87(s, r->index, (uint32_t)value);
        return true;
    case MXCSR:
        value &= 0xffff;
        memcpy(s->xsave + X_MXCSR, &value, 4);
        return true;
    case ST:
        make_present(s, BV_X87);
        memcpy(s->xsave + X_ST + r->index * 16, bytes, 10);
        return true;
    case XMM:
        make_present(s, BV_SSE);
        memcpy(s->xsave + X_XMM + r->index * 16, bytes, 16);
        return true;
    case YMMH:
        if (!(s->xcr0 & BV_AVX))
            return false;
        make_present(s, BV_AVX);
        memcpy(s->xsave + X_YMM + r->index * 16, bytes, 16);
        return true;
    default:
        return false;
    }
}

/* ---- The description ---- */

char *gdb_target_description(void)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    if (!f)
        return NULL;
    fputs("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
          "<architecture>i386:x86-64</architecture>",
          f);
    for (unsigned i = 0; i < FEATURES; i++) {
        fprintf(f, "<feature name=\"%s\">%s", features[i].name, features[i].types);
        for (unsigned k = 0; k < features[i].count; k++) {
            const struct reg *r = &features[i].reg[k];
            const char *type = r->kind == SYSTEM && r->bytes < 8 ? "uint16" : r->type;
            fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"%s/>", r->name, r->bytes * 8u,
                    type,
                    r->kind == X87      ? " group=\"float\""
                    : r->kind == SYSTEM ? " group=\"system\""
                                        : "");
        }
        fputs("</feature>", f);
    }
    fputs("</target>", f);
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
