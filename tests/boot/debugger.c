/*
 * Runs in a guest: debugs a child of its own with ptrace as gdb does: single steps, breakpoints in
 * its code (INT3 written into it), breakpoints and watches by debug registers. Says "debugger:
 * right", or what was wrong. usage: debugger CPU
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 200 /* of the loop that breakpoints are set in: it is translated by then */

/* What the child runs: "steps" instruction by instruction, each of which is named; then a loop. */
void child_steps(void), child_loop(void), child_store(void);
extern volatile uint32_t child_word[2];
__asm__(
    ".text\n"
    ".globl child_steps, child_loop, child_store\n"
    "child_steps:\n"
    "    push %rbx\n"
    "    cld\n"
    "    int3\n"
    "s0: mov $2, %ebx\n"
    "s1: pushfq\n"
    "s2: pop %rdx\n" /* TF is in it: the debugger's */
    "s3: dec %ebx\n"
    "s4: jnz s3\n"
    "s5: mov $2, %ecx\n"
    "    lea child_word(%rip), %rdi\n"
    "s6: mov %rdi, %rsi\n"
    "s7: rep movsb\n" /* a step is one round (SDM volume 3, 17.3.1.4) */
    "s8: call s10\n"
    "s9: jmp s12\n"
    "s10: xor %edx, %edx\n"
    "s11: ret\n"
    "s12: mov $39, %eax\n" /* getpid: one step */
    "s13: syscall\n"
    "s14: int3\n"
    "    pop %rbx\n"
    "    ret\n"
    "child_loop:\n"
    "    mov $200, %ecx\n"
    "1:  incl child_word+4(%rip)\n"
    "child_store:\n"
    "    mov %ecx, child_word(%rip)\n"
    "    dec %ecx\n"
    "    jnz 1b\n"
    "    ret\n"
    ".data\n"
    ".balign 8\n"
    ".globl child_word\n"
    "child_word: .long 0, 0\n"
    ".section .rodata\n"
    ".balign 8\n"
    ".globl child_order, child_order_end\n"
    "child_order: .quad s0, s1, s2, s3, s4, s3, s4, s5, s5+5, s6, s7, s7, s8, s10, s11, s9, s12, "
    "s13, s14\n"
    "child_order_end:\n"
    ".text\n");
extern const uint64_t child_order[], child_order_end[];

static pid_t child;

static int wrong(const char *what, uint64_t got, uint64_t want)
{
    printf("debugger: %s: %#llx instead of %#llx\n", what, (unsigned long long)got,
           (unsigned long long)want);
    kill(child, 9);
    return 1;
}

static uint64_t peek(size_t offset)
{
    return (uint64_t)ptrace(PTRACE_PEEKUSER, child, offset, NULL);
}

static void poke(size_t offset, uint64_t value)
{
    ptrace(PTRACE_POKEUSER, child, offset, value);
}

#define RIP offsetof(struct user, regs.rip)
#define DR(n) (offsetof(struct user, u_debugreg) + (n) * sizeof(long))

/* @return the signal it stopped with, 0: it ended well, -1: otherwise */
static int stopped(void)
{
    int status;
    if (waitpid(child, &status, 0) != child)
        return -1;
    if (WIFSTOPPED(status))
        return WSTOPSIG(status);
    return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -1;
}

/* Let it go on until it stops again. */
static int go(int how)
{
    return ptrace(how, child, NULL, NULL) ? -1 : stopped();
}

static int single_steps(void)
{
    if (stopped() != 5)
        return wrong("no INT3", peek(RIP), child_order[0]);
    for (const uint64_t *at = child_order; at < child_order_end; at++) {
        if (peek(RIP) != *at)
            return wrong("a step led to", peek(RIP), *at);
        if (at + 1 < child_order_end && go(PTRACE_SINGLESTEP) != 5)
            return wrong("no trap behind", peek(RIP), *at);
        if (at + 1 < child_order_end && !(peek(DR(6)) & 1 << 14))
            return wrong("DR6 of a step", peek(DR(6)), 1 << 14);
    }
    return go(PTRACE_CONT) == 5 ? 0 : wrong("the second INT3", peek(RIP), 0);
}

/* INT3 in the code, as debuggers do: stop, put the byte back, step over it, write INT3 again. */
static int software_breakpoint(void)
{
    void *at = (void *)(uintptr_t)child_store;
    long before = ptrace(PTRACE_PEEKTEXT, child, at, NULL), with = (before & ~0xffl) | 0xcc;

    for (unsigned left = ROUNDS; left; left--) {
        ptrace(PTRACE_POKETEXT, child, at, with);
        if (go(PTRACE_CONT) != 5 || peek(RIP) != (uintptr_t)at + 1)
            return wrong("INT3 written", peek(RIP), (uintptr_t)at + 1);
        if (peek(offsetof(struct user, regs.rcx)) != left)
            return wrong("RCX", peek(offsetof(struct user, regs.rcx)), left);
        ptrace(PTRACE_POKETEXT, child, at, before);
        poke(RIP, (uintptr_t)at);
        if (go(PTRACE_SINGLESTEP) != 5 || peek(RIP) <= (uintptr_t)at)
            return wrong("the step over it", peek(RIP), (uintptr_t)at + 6);
    }
    return 0;
}

/* Debug registers: @kind 0: execute, 1: write (DR7's R/W0, with LEN0 of 4 bytes). */
static int hardware(unsigned kind)
{
    uint64_t at = kind ? (uintptr_t)child_word : (uintptr_t)child_store;

    poke(DR(0), at);
    poke(DR(7), kind ? 1 | 0xdull << 16 : 1);
    for (unsigned left = ROUNDS; left; left--) {
        if (go(PTRACE_CONT) != 5 || !(peek(DR(6)) & 1))
            return wrong(kind ? "no watch" : "no breakpoint", peek(DR(6)), 1);
        if (!kind && peek(RIP) != at)
            return wrong("stopped at", peek(RIP), at);
        uint32_t word = (uint32_t)ptrace(PTRACE_PEEKDATA, child, (void *)child_word, NULL);
        if (kind && word != left)
            return wrong("watched", word, left);
        poke(DR(6), 0);
    }
    poke(DR(7), 0);
    return 0;
}

int main(int argc, char **argv)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(argc > 1 ? atoi(argv[1]) : 0, &set);
    sched_setaffinity(0, sizeof(set), &set);
    child = fork();
    if (!child) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(1);
        child_steps();
        for (unsigned i = 0; i < 4; i++)
            child_loop(); /* with INT3, watched, by DR0, and with nothing set */
        _exit(child_word[1] == 4 * ROUNDS ? 0 : 2);
    }
    if (child < 0 || single_steps() || software_breakpoint() || hardware(1) || hardware(0))
        return 1;
    if (go(PTRACE_CONT))
        return wrong("its end", peek(RIP), 0);
    printf("debugger: right\n");
    return 0;
}
