/* Control flow: a bytecode interpreter, recursive calls, code that writes code. */
#include <sys/mman.h>

#include "bench.h"

enum { PUSH, ADD, SUB, DUP, LOADI, STORE, LOAD, JNZ, HALT };

/* Sum 1..n by a loop of bytecode. */
static int interpreter(void)
{
    static const int32_t program[] = {
        PUSH, 0, STORE, 1,                /* sum = 0 */
        LOAD, 1, LOAD,  0, ADD, STORE, 1, /* 4: sum += i */
        LOAD, 0, PUSH,  1, SUB, DUP,   STORE, 0, JNZ, 4, LOAD, 1, HALT,
    };
    int64_t stack[64], variable[2] = {6000000, 0};
    int sp = 0, pc = 0;
    int64_t result = -1;
    double start = bench_now();
    for (;;) {
        switch (program[pc++]) {
        case PUSH:
            stack[sp++] = program[pc++];
            break;
        case ADD:
            sp--;
            stack[sp - 1] += stack[sp];
            break;
        case SUB:
            sp--;
            stack[sp - 1] -= stack[sp];
            break;
        case DUP:
            stack[sp] = stack[sp - 1];
            sp++;
            break;
        case STORE:
            variable[program[pc++]] = stack[--sp];
            break;
        case LOAD:
            stack[sp++] = variable[program[pc++]];
            break;
        case JNZ:
            pc = stack[--sp] ? program[pc] : pc + 1;
            break;
        case HALT:
            result = stack[--sp];
            return bench_done("interp", start, result == 6000000ll * 6000001 / 2);
        }
    }
}

static __attribute__((noinline)) int64_t fib(int64_t n)
{
    BENCH_HIDE(n);
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static int calls(void)
{
    double start = bench_now();
    return bench_done("calls", start, fib(35) == 9227465);
}

/* Write a small function anew each round and call it: mov eax, imm32; ret. */
static int selfmod(void)
{
    uint8_t *code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        return bench_done("selfmod", 0, 0);
    code[0] = 0xb8;
    code[5] = 0xc3;
    uint64_t sum = 0;
    double start = bench_now();
    for (uint32_t i = 0; i < 30000; i++) {
        memcpy(code + 1, &i, 4);
        __asm__ volatile("" ::: "memory");
        uint32_t (*fn)(void);
        memcpy(&fn, &code, sizeof(fn));
        sum += fn();
    }
    return bench_done("selfmod", start, sum == 30000ull * 29999 / 2);
}

int main(void)
{
    return interpreter() | calls() | selfmod();
}
