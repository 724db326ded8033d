/*
 * Host faults in translated code. The host CPU checks for us what an instruction copied into the
 * cache may raise (#DE, #MF, #XM, #UD, #GP for alignment): it arrives as a signal and becomes the
 * guest's exception. The handlers are the process's; each thread knows its vCPU.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "engine/soft/cache.h"
#include "engine/soft/run.h"
#include "engine/soft/thunk.h"

static const int fault_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
#define FAULT_SIGNALS (sizeof(fault_signals) / sizeof(fault_signals[0]))

static struct sigaction previous[FAULT_SIGNALS];
static pthread_mutex_t handlers_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct soft_cpu *current;

/* Vectors of the host's trap number (REG_TRAPNO). */
static uint8_t guest_vector(const struct soft_cpu *cpu, const ucontext_t *uc)
{
    switch (uc->uc_mcontext.gregs[REG_TRAPNO]) {
    case SOFT_DE:
        return SOFT_DE;
    case SOFT_UD:
        return SOFT_UD;
    case SOFT_MF:
        return SOFT_MF;
    case SOFT_XM:
        return cpu->s.cr4 & SOFT_CR4_OSXMMEXCPT ? SOFT_XM : SOFT_UD;
    default:
        return SOFT_GP;
    }
}

/* Store the guest's registers out of the signal frame, as the glue would have. */
static void store_registers(struct soft_cpu *cpu, const ucontext_t *uc)
{
    const greg_t *g = uc->uc_mcontext.gregs;
    uint64_t *gpr = cpu->s.gpr;

    gpr[MULL_RAX] = (uint64_t)g[REG_RAX];
    gpr[MULL_RDX] = (uint64_t)g[REG_RDX];
    gpr[MULL_RBX] = (uint64_t)g[REG_RBX];
    gpr[MULL_RSP] = (uint64_t)g[REG_RSP];
    gpr[MULL_RBP] = (uint64_t)g[REG_RBP];
    gpr[MULL_RSI] = (uint64_t)g[REG_RSI];
    gpr[MULL_RDI] = (uint64_t)g[REG_RDI];
    gpr[MULL_R8] = (uint64_t)g[REG_R8];
    gpr[MULL_RCX] = (uint64_t)g[REG_R9];
    gpr[MULL_R12] = (uint64_t)g[REG_R12];
    gpr[MULL_R13] = (uint64_t)g[REG_R13];
    gpr[MULL_R14] = (uint64_t)g[REG_R14];
    gpr[MULL_R15] = (uint64_t)g[REG_R15];
    cpu->s.rflags = (cpu->s.rflags & ~SOFT_ARITH_FLAGS) | ((uint64_t)g[REG_EFL] & SOFT_ARITH_FLAGS);
}

static bool from_translated_code(int signo, ucontext_t *uc)
{
    struct soft_cpu *cpu = current;
    if (!cpu)
        return false;
    if (soft_thunk_signal(cpu, signo, uc))
        return true;

    const struct soft_cache *cache = cpu->vm->cache;
    const uint8_t *host = (const uint8_t *)uc->uc_mcontext.gregs[REG_RIP];
    unsigned index;
    if (host < cache->rx + cache->code_start || host >= cache->rx + cache->size)
        return false;
    struct soft_block *b = soft_block_at(cpu->vm->cache, host, &index);
    if (!b)
        return false;

    store_registers(cpu, uc);
    cpu->s.rip = soft_block_rip(b, index);
    /* Every access was checked and goes to RAM, which is there: the engine is wrong. The machine
     * must not run on, and nobody should take this for a fault of the guest's. */
    if (uc->uc_mcontext.gregs[REG_TRAPNO] == SOFT_PFV) {
        mull_fail(&cpu->error, EFAULT,
                  "soft engine: translated code of RIP %#llx touched host address %#llx, which is "
                  "not the guest's",
                  (unsigned long long)cpu->s.rip,
                  (unsigned long long)uc->uc_mcontext.gregs[REG_CR2]);
        __atomic_store_n(&cpu->run_ok, 0, __ATOMIC_SEQ_CST);
    }
    uint64_t at = (uint64_t)uc->uc_mcontext.gregs[REG_R10] - SOFT_CELL_POISON;
    if (uc->uc_mcontext.gregs[REG_TRAPNO] == SOFT_GP && at < MULL_PAGE_SIZE) {
        /* It hit an empty cell, or one that was just taken back. */
        cpu->fault_again = host;
        soft_flags_to_glue(cpu);
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)cache->glue.fault;
        return true;
    }
    uint8_t vector = guest_vector(cpu, uc);
    if (vector == SOFT_GP)
        soft_raise_error(cpu, vector, 0);
    else
        soft_raise(cpu, vector);
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)cache->glue.fault;
    return true;
}

static void on_signal(int signo, siginfo_t *info, void *context)
{
    if (from_translated_code(signo, context))
        return;

    /* Not ours: whoever was there before, or the default action when the instruction repeats. */
    for (unsigned i = 0; i < FAULT_SIGNALS; i++) {
        if (fault_signals[i] != signo)
            continue;
        if (previous[i].sa_flags & SA_SIGINFO)
            previous[i].sa_sigaction(signo, info, context);
        else if (previous[i].sa_handler != SIG_DFL && previous[i].sa_handler != SIG_IGN)
            previous[i].sa_handler(signo);
        else
            sigaction(signo, &previous[i], NULL);
    }
}

/* Install our handlers where somebody else's are: the program around the library may have set its
 * own since the last time. @return 0 or a negative errno. */
static int install(void)
{
    struct sigaction sa, now;
    int r = 0;

    memset(&sa, 0, sizeof(sa));
    sa.sa_sigaction = on_signal;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&sa.sa_mask);
    pthread_mutex_lock(&handlers_lock);
    for (unsigned i = 0; r == 0 && i < FAULT_SIGNALS; i++) {
        if (sigaction(fault_signals[i], NULL, &now) < 0)
            r = -errno;
        else if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_signal)
            continue;
        else if (sigaction(fault_signals[i], &sa, &previous[i]) < 0)
            r = -errno;
    }
    pthread_mutex_unlock(&handlers_lock);
    return r;
}

int soft_fault_enter(struct soft_cpu *cpu, struct mull_error *err)
{
    stack_t ss = {.ss_sp = cpu->signal_stack, .ss_size = SOFT_SIGNAL_STACK};

    int r = install();
    if (r < 0)
        return mull_fail(err, -r, "soft engine: installing fault handlers: %s", strerror(-r));
    if (sigaltstack(&ss, &cpu->signal_stack_before) < 0)
        return mull_fail(err, errno, "soft engine: signal stack: %s", strerror(errno));
    current = cpu;
    return 0;
}

void soft_fault_leave(struct soft_cpu *cpu)
{
    current = NULL;
    sigaltstack(&cpu->signal_stack_before, NULL);
}
