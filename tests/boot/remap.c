/*
 * Runs in a guest with several CPUs: one thread puts new pages where others execute and read, and
 * a timer's signals come in between. A thread that begins when page N was there may see N or a
 * later one, never an earlier one and never anything else; and a signal leaves its registers alone.
 * usage: remap SECONDS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define THREADS 3

static uint8_t *code, *data;
static _Atomic uint32_t number; /* of the page that is mapped by now */
static _Atomic bool stop;
static _Atomic unsigned long calls, signals;
static _Atomic int failed;

static void fail(const char *what, uint32_t got, uint32_t before, uint32_t after)
{
    if (!atomic_exchange(&failed, 1))
        printf("check: failed remap: %s %u, between %u and %u\n", what, got, before, after);
    atomic_store(&stop, true);
}

static void on_signal(int signo)
{
    atomic_fetch_add(&signals, 1);
}

static void *execute(void *opaque)
{
    uint32_t (*function)(void) = (uint32_t(*)(void))(uintptr_t)code;

    while (!atomic_load(&stop)) {
        uint32_t before = atomic_load(&number);
        uint32_t got = function();
        uint32_t read = *(volatile uint32_t *)(data + 64);
        uint32_t after = atomic_load(&number) + 1; /* it may be mapped, and not yet told */
        if (got < before || got > after)
            fail("executed page", got, before, after);
        if (read < before || read > after)
            fail("read page", read, before, after);
        atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    }
    return opaque;
}

/* Registers that hold the same thing over and over, general and vector ones, under signals. */
static void *compute(void *opaque)
{
    while (!atomic_load(&stop)) {
        uint64_t bad;
        __asm__ volatile("mov $0x1234567, %%r8\n\t"
                         "mov %%r8, %%r9\n\t"
                         "mov %%r8, %%r10\n\t"
                         "mov %%r8, %%r11\n\t"
                         "movq %%r8, %%xmm7\n\t"
                         "mov $100000, %%ecx\n"
                         "1:\n\t"
                         "inc %%r8\n\t"
                         "inc %%r9\n\t"
                         "inc %%r10\n\t"
                         "inc %%r11\n\t"
                         "dec %%ecx\n\t"
                         "jnz 1b\n\t"
                         "movq %%xmm7, %0\n\t"
                         "add $100000, %0\n\t"
                         "xor %%r8, %0\n\t"
                         "xor %%r9, %%r8\n\t"
                         "or %%r8, %0\n\t"
                         "xor %%r10, %%r9\n\t"
                         "or %%r9, %0\n\t"
                         "xor %%r11, %%r10\n\t"
                         "or %%r10, %0\n\t"
                         : "=&r"(bad)
                         :
                         : "rcx", "r8", "r9", "r10", "r11", "xmm7", "cc");
        if (bad)
            fail("registers", (uint32_t)bad, 0, 0);
    }
    return opaque;
}

int main(int argc, char **argv)
{
    enum { PAGES = 512 };
    double seconds = argc > 1 ? atof(argv[1]) : 2;
    int fd = memfd_create("pages", 0);
    pthread_t thread[THREADS];
    struct timespec begin, now;

    if (fd < 0 || ftruncate(fd, (off_t)PAGES * PAGE))
        return 1;
    uint8_t *all = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    code = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    data = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (all == MAP_FAILED || code == MAP_FAILED || data == MAP_FAILED)
        return 1;
    /* Each page: mov $number, %eax; ret, and the number again as data. */
    for (uint32_t i = 0; i < PAGES; i++) {
        all[i * PAGE] = 0xb8;
        all[i * PAGE + 5] = 0xc3;
    }
    signal(SIGALRM, on_signal);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec often = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &often, NULL))
        return 1;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, i ? execute : compute, NULL);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    unsigned long maps = 0;
    do {
        uint32_t next = atomic_load(&number) + 1;
        /* A page that was mapped long ago gets a new number, through its other mapping. */
        uint8_t *page = all + (size_t)(next % PAGES) * PAGE;
        memcpy(page + 1, &next, 4);
        memcpy(page + 64, &next, 4);
        off_t at = (off_t)(next % PAGES) * PAGE;
        /* The data first: who sees the new code may see no older data. */
        if (mmap(data, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, at) != data ||
            mmap(code, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, at) != code)
            break;
        atomic_store(&number, next);
        maps++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (!atomic_load(&stop) &&
             (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9 <
                 seconds);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    printf("check: remap %lu pages mapped, %lu calls, %lu signals\n", maps, atomic_load(&calls),
           atomic_load(&signals));
    return atomic_load(&failed) || !maps || !atomic_load(&calls) || !atomic_load(&signals);
}
