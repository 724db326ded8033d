/*
 * Runs a case on the host's CPU, in this process: a trap into a signal handler, which returns with
 * the case's registers and vector state instead of ours; the exception that ends the case brings us
 * back the same way. 32-bit cases run in the host's compatibility mode.
 */
#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "diff.h"

#define STACK_SIZE (64u << 10)
#define ARITH_AND_DF 0xcd5ull

static const int caught[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};
#define CAUGHT (sizeof(caught) / sizeof(caught[0]))

static struct sigaction ours[CAUGHT], theirs[CAUGHT];
static uint8_t *alt_stack;
static unsigned xsave_size;

/* One run; the handler is told through these. */
static volatile bool running;
static const struct diff_case *current;
static struct diff_result *result;
static gregset_t home;
static uint8_t home_xsave[DIFF_XSAVE] __attribute__((aligned(64)));
static uint64_t home_fs, home_gs;

static inline uint64_t read_fs(void)
{
    uint64_t v;
    __asm__ volatile("rdfsbase %0" : "=r"(v));
    return v;
}

static inline void write_bases(uint64_t fs, uint64_t gs)
{
    __asm__ volatile("wrfsbase %0\n\twrgsbase %1" : : "r"(fs), "r"(gs));
}

static const uint8_t gpr_at[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                   REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                   REG_R12, REG_R13, REG_R14, REG_R15};

/* memcpy may use what it likes, but must not depend on FS: keep to a string instruction. */
static inline void copy(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

/* The kernel's own words in the frame stay: bytes 464 to 511 of the area. */
static inline void copy_xsave(void *to, const void *from)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    copy(t, f, 464);
    copy(t + 512, f + 512, xsave_size - 512);
}

__attribute__((optimize("no-stack-protector"), no_sanitize("address", "undefined"))) static void
enter(ucontext_t *uc)
{
    greg_t *g = uc->uc_mcontext.gregs;
    copy(home, g, sizeof(home));
    copy_xsave(home_xsave, uc->uc_mcontext.fpregs);
    for (unsigned i = 0; i < 16; i++)
        g[gpr_at[i]] = (greg_t)current->gpr[i];
    g[REG_RIP] = (greg_t)(DIFF_CODE + current->offset - diff_code_base(current));
    g[REG_EFL] = (greg_t)(0x202 | (current->rflags & ARITH_AND_DF));
    if (current->bits != 64)
        g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | (!current->based       ? 0x23
                                                       : current->bits == 32 ? DIFF_CS32
                                                                             : DIFF_CS16);
    copy_xsave(uc->uc_mcontext.fpregs, current->xsave);
    running = true;
    write_bases(DIFF_FS_BASE, DIFF_GS_BASE);
}

__attribute__((optimize("no-stack-protector"), no_sanitize("address", "undefined"))) static void
leave(int signo, ucontext_t *uc)
{
    greg_t *g = uc->uc_mcontext.gregs;
    running = false;
    for (unsigned i = 0; i < 16; i++)
        result->gpr[i] = (uint64_t)g[gpr_at[i]];
    result->rip = (uint64_t)g[REG_RIP];
    result->rflags = (uint64_t)g[REG_EFL];
    result->vector = signo == SIGVTALRM ? -1 : (int)g[REG_TRAPNO];
    result->error = (uint32_t)g[REG_ERR];
    result->cr2 = (uint64_t)g[REG_CR2];
    copy(result->xsave, uc->uc_mcontext.fpregs, 464);
    copy(result->xsave + 512, (uint8_t *)uc->uc_mcontext.fpregs + 512, xsave_size - 512);
    copy(g, home, sizeof(home));
    copy_xsave(uc->uc_mcontext.fpregs, home_xsave);
}

__attribute__((optimize("no-stack-protector"), no_sanitize("address", "undefined"))) static void
on_signal(int signo, siginfo_t *info, void *context)
{
    (void)info;
    if (running) {
        write_bases(home_fs, home_gs);
        leave(signo, context);
    } else if (signo == SIGTRAP) {
        enter(context);
    } else if (signo != SIGVTALRM) {
        signal(signo, SIG_DFL); /* a bug of the test itself: fault again, visibly */
    }
}

static uint8_t *map(uint64_t at, unsigned pages, int prot)
{
    void *p = mmap((void *)(uintptr_t)at, (size_t)pages * DIFF_PAGE, prot,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED || p != (void *)(uintptr_t)at) {
        fprintf(stderr, "test_diff: cannot map %#llx: %s\n", (unsigned long long)at,
                strerror(errno));
        return NULL;
    }
    return p;
}

/* The code window, mapped a second time to write it. */
static uint8_t *code_window;

static bool map_code(void)
{
    int fd = memfd_create("diff-code", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, DIFF_CODE_PAGES * DIFF_PAGE))
        return false;
    void *rx = mmap((void *)(uintptr_t)DIFF_CODE, DIFF_CODE_PAGES * DIFF_PAGE,
                    PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, 0);
    code_window =
        mmap(NULL, DIFF_CODE_PAGES * DIFF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return rx == (void *)(uintptr_t)DIFF_CODE && code_window != MAP_FAILED;
}

int diff_native_init(void)
{
    xsave_size = diff_xsave_size();
    alt_stack = malloc(STACK_SIZE);
    if (!alt_stack || !map_code() || !map(DIFF_DATA, DIFF_DATA_PAGES, PROT_READ | PROT_WRITE) ||
        !map(DIFF_STACK, 1, PROT_READ | PROT_WRITE))
        return -1;
    if (munmap((void *)(uintptr_t)(DIFF_DATA + DIFF_HOLE * DIFF_PAGE), DIFF_PAGE))
        return -1;
    uint8_t *readonly = (uint8_t *)(uintptr_t)(DIFF_DATA + DIFF_READONLY * DIFF_PAGE);
    memcpy(readonly, diff_fill(0) + DIFF_READONLY * DIFF_PAGE, DIFF_PAGE);
    if (mprotect(readonly, DIFF_PAGE, PROT_READ))
        return -1;
    for (unsigned i = 0; i < CAUGHT; i++) {
        ours[i].sa_sigaction = on_signal;
        ours[i].sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigfillset(&ours[i].sa_mask);
    }
    __asm__ volatile("rdgsbase %0" : "=r"(home_gs));
    return 0;
}

/* 64-bit code does not look at DS and ES; other code cannot do without. */
static void load_data_segments(unsigned selector)
{
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(selector));
}

static bool add_segment(unsigned selector, uint64_t base, uint32_t limit, bool code, bool wide)
{
    struct user_desc d = {
        .entry_number = selector >> 3,
        .base_addr = (unsigned)base,
        .limit = limit,
        .seg_32bit = wide,
        .contents = code ? MODIFY_LDT_CONTENTS_CODE : MODIFY_LDT_CONTENTS_DATA,
        .useable = 1,
    };
    return !syscall(SYS_modify_ldt, 0x11, &d, sizeof(d));
}

bool diff_native_init_segments(void)
{
    return add_segment(DIFF_CS16, DIFF_CODE, DIFF_CS_LIMIT, true, false) &&
           add_segment(DIFF_DS16, DIFF_DATA, DIFF_DS_LIMIT, false, false) &&
           add_segment(DIFF_CS32, DIFF_CODE, DIFF_CS_LIMIT, true, true);
}

static void copy_memory(bool to_windows, uint8_t *copy_of, const uint8_t *from)
{
    for (unsigned p = 0; p < DIFF_MEMORY_PAGES; p++) {
        uint8_t *window = (uint8_t *)(uintptr_t)diff_page_address(p);
        if (!diff_page_writable(p) || (to_windows && p > DIFF_DATA_PAGES))
            continue;
        if (to_windows)
            memcpy(window, from + (size_t)p * DIFF_PAGE, DIFF_PAGE);
        else
            memcpy(copy_of + (size_t)p * DIFF_PAGE, window, DIFF_PAGE);
    }
}

void diff_native_run(const struct diff_case *c, struct diff_result *out)
{
    stack_t ss = {.ss_sp = alt_stack, .ss_size = STACK_SIZE}, before;
    struct itimerval limit = {.it_value = {.tv_usec = 20000}}, none = {0};

    memset(code_window, 0xcc, DIFF_CODE_PAGES * DIFF_PAGE);
    memcpy(code_window + c->offset, c->code, c->size);
    copy_memory(true, NULL, diff_fill(c->fill));
    current = c;
    result = out;
    memset(out, 0, sizeof(*out));
    sigaltstack(&ss, &before);
    for (unsigned i = 0; i < CAUGHT; i++)
        sigaction(caught[i], &ours[i], &theirs[i]);
    setitimer(ITIMER_VIRTUAL, &limit, NULL);
    load_data_segments(c->based ? DIFF_DS16 : 0x2b);
    home_fs = read_fs();
    __asm__ volatile("int3" : : : "memory");
    load_data_segments(0x2b);
    setitimer(ITIMER_VIRTUAL, &none, NULL);
    for (unsigned i = 0; i < CAUGHT; i++)
        sigaction(caught[i], &theirs[i], NULL);
    sigaltstack(&before, NULL);
    copy_memory(false, out->memory, NULL);
}

bool diff_native_knows(const uint8_t *code, unsigned size, unsigned bits)
{
    static struct diff_case c;
    static struct diff_result r;
    memset(&c, 0, sizeof(c));
    c.bits = bits;
    c.based = bits == 16;
    c.size = size;
    memcpy(c.code, code, size);
    for (unsigned i = 0; i < 16; i++)
        c.gpr[i] = DIFF_DATA + 0x800;
    c.gpr[4] = DIFF_STACK + 0x800;
    diff_fill_xsave(c.xsave, 1);
    diff_native_run(&c, &r);
    return r.vector != 6;
}
