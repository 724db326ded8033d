/*
 * Runs a case on the soft engine, in a small VM: long mode, the windows mapped as in this process,
 * an IDT whose handlers report the vector and stop. The exec tier executes instruction by
 * instruction with soft_exec(); the translate tier goes through the engine interface.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "diff.h"
#include "engine/engine.h"
#include "engine/soft/run.h"
#include "step.h"

#define ARITH_AND_DF 0xcd5ull

/* Guest physical layout. */
#define GPA_PML4 0x1000u
#define GPA_PDPT 0x2000u
#define GPA_PD 0x3000u
#define GPA_PT_CODE 0x4000u
#define GPA_PT_DATA 0x5000u
#define GPA_PT_STACK 0x6000u
#define GPA_PT_SYSTEM 0x7000u
#define GPA_PDPT_SYSTEM 0x8000u
#define GPA_PD_SYSTEM 0x9000u
#define GPA_CODE 0x10000u
#define GPA_DATA 0x20000u
#define GPA_STACK 0x30000u
#define GPA_SYSTEM 0x40000u

/* The supervisor's pages: handlers, tables, their stack. Where no case strays to. */
#define SYSTEM 0xffffab1255600000ull
#define SYS_HANDLERS 0x0000u
#define SYS_IDT 0x1000u
#define SYS_GDT 0x2000u
#define SYS_TSS 0x2100u
#define SYS_STACK 0x4000u /* top */
#define SYS_PAGES 4u
#define HANDLER_SIZE 16u
#define EXIT_PORT 0xf4u

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_NX (1ull << 63)

static struct mull_memory *memory;
static struct mull_clock *guest_clock;
static struct mull_vm *vm;
static struct mull_vcpu *vcpu;
static struct mull_cpuid cpuid;

/* ---- RAM: each piece somewhere, and nothing around it ---- */

#define RAM_PIECES (sizeof(ram_pieces) / sizeof(ram_pieces[0]))
#define GUARD (1u << 20)

/* Guest memory, in pieces of a few pages: the data's pages one by one, because instructions reach
 * over their ends. */
static const struct {
    uint32_t gpa, size;
} ram_pieces[] = {
    {0, 0x10000},
    {GPA_CODE, DIFF_CODE_PAGES *DIFF_PAGE},
    {GPA_DATA, DIFF_PAGE},
    {GPA_DATA + DIFF_PAGE, DIFF_PAGE},
    {GPA_DATA + DIFF_READONLY * DIFF_PAGE, DIFF_PAGE},
    {GPA_DATA + 4 * DIFF_PAGE, DIFF_PAGE},
    {GPA_STACK, DIFF_PAGE},
    {GPA_SYSTEM, SYS_PAGES *DIFF_PAGE},
};

static uint8_t *at(uint64_t gpa)
{
    const struct mull_ram *ram = mull_memory_find_ram(memory, gpa);

    return ram->host + (gpa - ram->gpa);
}

/* Move a piece to a random host address between two stretches that are not mapped: an access that
 * leaves it faults on the host, which the engine reports as its own failure (signal.c). */
static bool scatter(struct mull_ram *ram, struct diff_random *r)
{
    size_t room = ram->size + 2 * GUARD;
    uint64_t page = diff_random(r) >> 8 & 0x3ffffffffull; /* below 2^46, above what is used */
    uint8_t *hint = (uint8_t *)(uintptr_t)(0x100000000000ull + page * DIFF_PAGE);
    uint8_t *area = mmap(hint, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (area == MAP_FAILED)
        return false;
    uint8_t *to =
        mremap(ram->host, ram->size, ram->size, MREMAP_MAYMOVE | MREMAP_FIXED, area + GUARD);
    if (to == MAP_FAILED)
        return false;
    ram->host = to;
    return true;
}
/* user 64, user 32, kernel 64, user 16, user 32 with bases */
static struct mull_cpu_state base[5];

/* ---- The bus: no interrupts, one port ---- */

static int irq_pending(void *opaque, unsigned cpu)
{
    return -1;
}
static int irq_accept(void *opaque, unsigned cpu)
{
    return -1;
}
static uint8_t cr8_read(void *opaque, unsigned cpu)
{
    return 0;
}
static void cr8_write(void *opaque, unsigned cpu, uint8_t value) {}
static int msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *value)
{
    return -1;
}
static int msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    return -1;
}

static const struct mull_engine_bus bus = {
    .irq_pending = irq_pending,
    .irq_accept = irq_accept,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .msr_read = msr_read,
    .msr_write = msr_write,
};

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return ~0ull;
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    mull_engine_soft.vcpu_signal(vcpu, MULL_SIGNAL_STOP, 0);
}

static const struct mull_region_ops exit_ops = {.read = port_read, .write = port_write};

/* ---- Tables ---- */

static void put64(uint64_t gpa, uint64_t value)
{
    memcpy(at(gpa), &value, 8);
}

static void map_page(unsigned table, unsigned index, uint64_t gpa, uint64_t flags)
{
    put64(table + index * 8, gpa | flags | PTE_P);
}

static void make_page_tables(void)
{
    put64(GPA_PML4, GPA_PDPT | PTE_P | PTE_W | PTE_U);
    put64(GPA_PDPT, GPA_PD | PTE_P | PTE_W | PTE_U);
    put64(GPA_PD + (DIFF_CODE >> 21) * 8, GPA_PT_CODE | PTE_P | PTE_W | PTE_U);
    put64(GPA_PD + (DIFF_DATA >> 21) * 8, GPA_PT_DATA | PTE_P | PTE_W | PTE_U);
    put64(GPA_PD + (DIFF_STACK >> 21) * 8, GPA_PT_STACK | PTE_P | PTE_W | PTE_U);
    put64(GPA_PML4 + (SYSTEM >> 39 & 511) * 8, GPA_PDPT_SYSTEM | PTE_P | PTE_W);
    put64(GPA_PDPT_SYSTEM + (SYSTEM >> 30 & 511) * 8, GPA_PD_SYSTEM | PTE_P | PTE_W);
    put64(GPA_PD_SYSTEM + (SYSTEM >> 21 & 511) * 8, GPA_PT_SYSTEM | PTE_P | PTE_W);
    for (unsigned i = 0; i < DIFF_CODE_PAGES; i++)
        map_page(GPA_PT_CODE, i, GPA_CODE + i * DIFF_PAGE, PTE_U | PTE_W);
    for (unsigned i = 0; i < DIFF_DATA_PAGES; i++) {
        uint64_t writable = i == DIFF_READONLY ? 0 : PTE_W;
        if (i != DIFF_HOLE)
            map_page(GPA_PT_DATA, i, GPA_DATA + i * DIFF_PAGE, PTE_U | PTE_NX | writable);
    }
    map_page(GPA_PT_STACK, 0, GPA_STACK, PTE_U | PTE_W | PTE_NX);
    for (unsigned i = 0; i < SYS_PAGES; i++)
        map_page(GPA_PT_SYSTEM, i, GPA_SYSTEM + i * DIFF_PAGE, PTE_W);
}

static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

static void make_idt(void)
{
    for (unsigned v = 0; v < 32; v++) {
        uint8_t handler[HANDLER_SIZE] = {0};
        unsigned n = 0;
        if (!has_error_code(v)) {
            handler[n++] = 0x6a; /* push 0 */
            handler[n++] = 0;
        }
        handler[n++] = 0x6a; /* push vector */
        handler[n++] = (uint8_t)v;
        handler[n++] = 0xe6; /* out EXIT_PORT, al */
        handler[n++] = EXIT_PORT;
        handler[n++] = 0xf4; /* hlt */
        handler[n++] = 0xeb; /* jmp to it */
        handler[n++] = 0xfd;
        memcpy(at(GPA_SYSTEM + SYS_HANDLERS + v * HANDLER_SIZE), handler, sizeof(handler));

        uint64_t at = SYSTEM + SYS_HANDLERS + v * HANDLER_SIZE;
        uint64_t gate =
            (at & 0xffff) | 0x10ull << 16 | 1ull << 32 | 0xeeull << 40 | (at >> 16 & 0xffff) << 48;
        put64(GPA_SYSTEM + SYS_IDT + v * 16, gate);
        put64(GPA_SYSTEM + SYS_IDT + v * 16 + 8, at >> 32);
    }
}

static void make_gdt(void)
{
    put64(GPA_SYSTEM + SYS_GDT + 0x10, 0x00af9b000000ffffull); /* kernel code */
    put64(GPA_SYSTEM + SYS_GDT + 0x18, 0x00cf93000000ffffull); /* kernel data */
    put64(GPA_SYSTEM + SYS_GDT + 0x20, 0x00cffb000000ffffull); /* 32-bit user code */
    put64(GPA_SYSTEM + SYS_GDT + 0x28, 0x00cff3000000ffffull); /* user data */
    put64(GPA_SYSTEM + SYS_GDT + 0x30, 0x00affb000000ffffull); /* 64-bit user code */
    put64(GPA_SYSTEM + SYS_TSS + 0x04, SYSTEM + SYS_STACK);    /* RSP0 */
    put64(GPA_SYSTEM + SYS_TSS + 0x24, SYSTEM + SYS_STACK);    /* IST1 */
}

/* ---- State ---- */

static struct mull_segment segment(uint16_t selector, uint32_t attr)
{
    struct mull_segment s = {.limit = 0xffffffffu, .attr = attr, .selector = selector};
    return s;
}

static void make_state(struct mull_cpu_state *s, bool kernel, unsigned bits)
{
    uint32_t dpl = kernel ? 0 : MULL_SEG_DPL;
    uint32_t code =
        0xb | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G | dpl | (bits == 64 ? MULL_SEG_L : MULL_SEG_DB);
    uint32_t data = 3 | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G | MULL_SEG_DB | dpl;

    mull_cpu_state_reset(s, 0, true);
    s->seg[MULL_CS] = segment(kernel ? 0x10 : bits == 64 ? 0x33 : 0x23, code);
    for (unsigned i = 0; i < 6; i++)
        if (i != MULL_CS)
            s->seg[i] = segment(kernel ? 0x18 : 0x2b, data);
    s->seg[MULL_FS].base = DIFF_FS_BASE;
    s->seg[MULL_GS].base = DIFF_GS_BASE;
    s->seg[MULL_TR] = segment(0x40, 0xb | MULL_SEG_P);
    s->seg[MULL_TR].base = SYSTEM + SYS_TSS;
    s->seg[MULL_TR].limit = 0x67;
    s->gdt.base = SYSTEM + SYS_GDT;
    s->gdt.limit = 0xff;
    s->idt.base = SYSTEM + SYS_IDT;
    s->idt.limit = 32 * 16 - 1;
    s->cr0 = SOFT_CR0_PE | SOFT_CR0_MP | SOFT_CR0_ET | SOFT_CR0_NE | SOFT_CR0_WP | SOFT_CR0_PG;
    s->cr3 = GPA_PML4;
    s->cr4 =
        SOFT_CR4_PAE | SOFT_CR4_OSFXSR | SOFT_CR4_OSXMMEXCPT | SOFT_CR4_OSXSAVE | SOFT_CR4_FSGSBASE;
    s->efer = SOFT_EFER_LME | SOFT_EFER_LMA | SOFT_EFER_SCE | SOFT_EFER_NXE;
    s->xcr0 = 3 | (diff_xsave_offset(2) ? 4 : 0) | (diff_xsave_offset(5) ? 0xe0 : 0);
}

static void make_based(struct mull_cpu_state *s, unsigned bits)
{
    *s = base[1];
    s->seg[MULL_CS].base = DIFF_CODE;
    s->seg[MULL_CS].limit = DIFF_CS_LIMIT;
    s->seg[MULL_CS].attr &= ~(MULL_SEG_G | (bits == 16 ? MULL_SEG_DB : 0));
    s->seg[MULL_CS].selector = bits == 16 ? DIFF_CS16 : DIFF_CS32;
    s->seg[MULL_DS].base = DIFF_DATA;
    s->seg[MULL_DS].limit = DIFF_DS_LIMIT;
    s->seg[MULL_DS].attr &= ~(MULL_SEG_DB | MULL_SEG_G);
    s->seg[MULL_DS].selector = DIFF_DS16;
    s->seg[MULL_ES] = s->seg[MULL_DS];
}

static int complain(const struct mull_error *err)
{
    fprintf(stderr, "test_diff: %s\n", err->message);
    return -1;
}

int diff_guest_init(void)
{
    struct mull_error err = {0};
    struct mull_vm_config config = {.bus = &bus, .cpus = 1};

    if (mull_clock_create(&guest_clock, &err) || mull_memory_create(NULL, &memory, &err) ||
        mull_region_add(memory, MULL_SPACE_PORT, EXIT_PORT, 1, &exit_ops, NULL, "exit", NULL, &err))
        return complain(&err);
    struct diff_random where = {(uint64_t)getpid() << 32 | (uint64_t)time(NULL) | 1};
    for (unsigned i = 0; i < RAM_PIECES; i++) {
        if (mull_memory_add_ram(memory, ram_pieces[i].gpa, ram_pieces[i].size, false, &err))
            return complain(&err);
        if (!scatter((struct mull_ram *)mull_memory_find_ram(memory, ram_pieces[i].gpa), &where)) {
            perror("test_diff: scattering memory");
            return -1;
        }
    }
    make_page_tables();
    make_idt();
    make_gdt();
    memset(at(GPA_CODE), 0xcc, DIFF_CODE_PAGES * DIFF_PAGE);
    memcpy(at(GPA_DATA + DIFF_READONLY * DIFF_PAGE), diff_fill(0) + DIFF_READONLY * DIFF_PAGE,
           DIFF_PAGE);
    config.memory = memory;
    config.clock = guest_clock;
    if (mull_engine_soft.vm_create(&config, &vm, &err) || mull_engine_soft.cpuid(&cpuid, &err) ||
        mull_engine_soft.vcpu_create(vm, 0, &cpuid, &vcpu, &err))
        return complain(&err);
    make_state(&base[0], false, 64);
    make_state(&base[1], false, 32);
    make_state(&base[2], true, 64);
    /* As in a 64-bit process that goes to 32-bit code. */
    base[1].seg[MULL_FS].attr = base[1].seg[MULL_GS].attr = MULL_SEG_UNUSABLE;
    base[1].seg[MULL_FS].selector = base[1].seg[MULL_GS].selector = 0;
    make_based(&base[3], 16);
    make_based(&base[4], 32);
    return 0;
}

void diff_guest_fini(void)
{
    mull_engine_soft.vcpu_destroy(vcpu);
    mull_engine_soft.vm_destroy(vm);
    mull_memory_destroy(memory);
    mull_clock_destroy(guest_clock);
}

/* Page @p of struct diff_result.memory. */
static uint8_t *page_at(unsigned p)
{
    if (p < DIFF_DATA_PAGES)
        return at(GPA_DATA + p * DIFF_PAGE);
    return p == DIFF_DATA_PAGES ? at(GPA_STACK)
                                : at(GPA_CODE + (p - DIFF_DATA_PAGES - 1) * DIFF_PAGE);
}

static void put_case(const struct diff_case *c)
{
    static uint8_t window[DIFF_CODE_PAGES * DIFF_PAGE];
    const uint8_t *code = at(GPA_CODE);
    unsigned first = 0, last = sizeof(window);

    memset(window, 0xcc, sizeof(window));
    memcpy(window + c->offset, c->code, c->size);
    /* Write what is different only: the same code keeps its translations. */
    while (first < last && !memcmp(code + first, window + first, 64))
        first += 64;
    while (first < last && !memcmp(code + last - 64, window + last - 64, 64))
        last -= 64;
    if (first < last)
        mull_mem_write(memory, GPA_CODE + first, window + first, last - first);
    for (unsigned p = 0; p <= DIFF_DATA_PAGES; p++)
        if (diff_page_writable(p))
            memcpy(page_at(p), diff_fill(c->fill) + p * DIFF_PAGE, DIFF_PAGE);
}

static void get_memory(struct diff_result *out)
{
    for (unsigned p = 0; p < DIFF_MEMORY_PAGES; p++)
        if (diff_page_writable(p))
            memcpy(out->memory + p * DIFF_PAGE, page_at(p), DIFF_PAGE);
}

static void set_state(const struct diff_case *c, bool kernel)
{
    static struct mull_cpu_state s;
    struct mull_error err;

    s = base[c->bits == 16 ? 3 : c->based ? 4 : c->bits == 32 ? 1 : kernel ? 2 : 0];
    memcpy(s.gpr, c->gpr, sizeof(s.gpr));
    s.rip = DIFF_CODE + c->offset - diff_code_base(c);
    s.rflags = 0x202 | (c->rflags & ARITH_AND_DF);
    if (kernel)
        s.rflags &= ~0x200ull;
    memcpy(s.xsave, c->xsave, sizeof(s.xsave));
    mull_engine_soft.vcpu_set(vcpu, &s, &err);
}

/* ---- The exec tier ---- */

static void run_exec(const struct diff_case *c, struct diff_result *out)
{
    struct soft_cpu *cpu = (struct soft_cpu *)vcpu;
    enum soft_result r = diff_step(cpu, c);

    soft_vectors_park(cpu);
    out->vector = r == SOFT_HALT ? 3 : -1;
    if (r == SOFT_FAULT) {
        out->vector = cpu->fault.vector;
        out->error = cpu->fault.has_error ? cpu->fault.error : 0;
        out->cr2 = cpu->fault.address;
    }
    memcpy(out->gpr, cpu->s.gpr, sizeof(out->gpr));
    out->rip = cpu->s.rip;
    out->rflags = cpu->s.rflags;
    memcpy(out->xsave, cpu->s.xsave, sizeof(out->xsave));
}

/* ---- The translate tier ---- */

static uint64_t frame_word(unsigned index)
{
    uint64_t v;
    memcpy(&v, at(GPA_SYSTEM + SYS_STACK - 8 * (index + 1)), 8);
    return v;
}

/* The code does not end, though on the host's CPU it did. */
static void on_timer(int signo)
{
    (void)signo;
    mull_engine_soft.vcpu_signal(vcpu, MULL_SIGNAL_STOP, 0);
}

static bool provoked; /* the engine's failure is wanted */

static void run_translate(struct diff_result *out)
{
    struct itimerval limit = {.it_value = {.tv_usec = 50000}}, none = {0};
    struct sigaction timer = {.sa_handler = on_timer, .sa_flags = SA_ONSTACK}, before;
    static struct mull_cpu_state s;
    struct mull_exit exit;
    struct mull_error err;

    memset(at(GPA_SYSTEM + SYS_STACK - 64), 0xff, 64);
    sigaction(SIGVTALRM, &timer, &before);
    setitimer(ITIMER_VIRTUAL, &limit, NULL);
    mull_engine_soft.vcpu_run(vcpu, &exit);
    setitimer(ITIMER_VIRTUAL, &none, NULL);
    sigaction(SIGVTALRM, &before, NULL);
    mull_engine_soft.vcpu_get(vcpu, &s, &err);
    memcpy(out->gpr, s.gpr, sizeof(out->gpr));
    memcpy(out->xsave, s.xsave, sizeof(out->xsave));
    if (exit.reason != MULL_EXIT_STOPPED || frame_word(6) == ~0ull) {
        out->vector = -1;
        out->rip = s.rip;
        if (exit.reason == MULL_EXIT_FAILED && !provoked)
            fprintf(stderr, "test_diff: engine failed: %s\n", exit.error.message);
        return;
    }
    out->gpr[MULL_RSP] = frame_word(1);
    out->rflags = frame_word(2);
    out->rip = frame_word(4);
    out->error = (uint32_t)frame_word(5);
    out->vector = (int)frame_word(6);
    out->cr2 = s.cr2;
}

void diff_guest_run(const struct diff_case *c, enum diff_tier tier, bool kernel,
                    struct diff_result *out)
{
    struct soft_cpu *cpu = (struct soft_cpu *)vcpu;
    struct mull_error err;

    memset(out, 0, sizeof(*out));
    put_case(c);
    set_state(c, kernel);
    if (tier == DIFF_EXEC) {
        if (soft_fault_enter(cpu, &err))
            return;
        run_exec(c, out);
        soft_fault_leave(cpu);
    } else {
        run_translate(out);
    }
    get_memory(out);
}

struct soft_cpu *diff_guest_cpu(void)
{
    return (struct soft_cpu *)vcpu;
}

void diff_guest_run_wild(const struct diff_case *c, uint8_t *host, struct diff_result *out)
{
    struct mull_ram *ram = (struct mull_ram *)mull_memory_find_ram(memory, GPA_DATA);
    uint8_t *right = ram->host;

    memset(out, 0, sizeof(*out));
    put_case(c);
    ram->host = host;
    set_state(c, false); /* empties the TLB */
    provoked = true;
    run_translate(out);
    provoked = false;
    ram->host = right;
}
