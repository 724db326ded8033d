/*
 * The kvm engine beyond what the micro-guests show: the dirty log, ROM, stopping, refusals, and
 * what is said where there is no usable /dev/kvm. Skipped where there is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "engine/engine.h"

#define RAM_SIZE 0x100000u
#define ROM 0xf0000000u
#define STOP_PORT 0x10

struct fixture {
    struct mull_memory *memory;
    struct mull_clock *clock;
    struct mull_engine_bus bus;
    struct mull_log log;
    struct mull_vm *vm;
    struct mull_vcpu *vcpu;
    struct mull_cpuid cpuid;
    unsigned stops;
};

static const struct mull_engine *const kvm = &mull_engine_kvm;

static bool kvm_here(void)
{
    struct mull_engine_report report;

    kvm->probe(false, &report);
    if (!report.available)
        print_message("SKIPPED: %s\n", report.why);
    return report.available;
}

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return 0;
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct fixture *f = opaque;

    f->stops++;
    kvm->vcpu_signal(f->vcpu, MULL_SIGNAL_STOP, 0);
}

static const struct mull_region_ops port_ops = {port_read, port_write, 1, 4};

static int no_irq(void *opaque, unsigned cpu)
{
    return -1;
}

/* 64-bit kernel mode at 4000h, 4 GiB identity-mapped in large pages, with this code. */
static void start(struct fixture *f, const uint8_t *code, size_t size)
{
    struct mull_cpu_state *s = calloc(1, sizeof(*s));
    struct mull_error err = {0};

    mull_cpu_state_reset(s, 0, true);
    for (unsigned i = 0; i < 6; i++)
        s->seg[i] = (struct mull_segment){.limit = ~0u, .attr = 0xc093, .selector = 0x10};
    s->seg[MULL_CS] = (struct mull_segment){.limit = ~0u, .attr = 0xa09b, .selector = 8};
    s->cr0 = 0x80000033;
    s->cr3 = 0x1000;
    s->cr4 = 0x20;
    s->efer = 0x500;
    s->rip = 0x4000;
    s->gpr[MULL_RSP] = 0x9000;
    assert_int_equal(mull_mem_write64(f->memory, 0x1000, 0x2007), 0);
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(mull_mem_write64(f->memory, 0x2000 + 8 * i, 0xa007 + 0x1000 * i), 0);
    for (uint64_t i = 0; i < 2048; i++)
        assert_int_equal(mull_mem_write64(f->memory, 0xa000 + 8 * i, i << 21 | 0xe7), 0);
    assert_int_equal(mull_mem_write(f->memory, 0x4000, code, size), 0);
    if (kvm->vcpu_set(f->vcpu, s, &err))
        fail_msg("%s", err.message);
    free(s);
}

static struct fixture *make(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_error err = {0};

    f->bus = (struct mull_engine_bus){.opaque = f, .irq_pending = no_irq, .irq_accept = no_irq};
    f->log.level = MULL_LOG_WARN;
    assert_int_equal(mull_memory_create(&f->log, &f->memory, &err), 0);
    assert_int_equal(mull_memory_add_ram(f->memory, 0, RAM_SIZE, false, &err), 0);
    assert_int_equal(mull_memory_add_ram(f->memory, ROM, 0x10000, true, &err), 0);
    assert_int_equal(
        mull_region_add(f->memory, MULL_SPACE_PORT, STOP_PORT, 1, &port_ops, f, "stop", NULL, &err),
        0);
    assert_int_equal(mull_clock_create(&f->clock, &err), 0);
    const struct mull_vm_config config = {
        .memory = f->memory, .clock = f->clock, .bus = &f->bus, .log = &f->log, .cpus = 1};
    if (kvm->cpuid(&f->cpuid, &err) || kvm->vm_create(&config, &f->vm, &err) ||
        kvm->vcpu_create(f->vm, 0, &f->cpuid, &f->vcpu, &err))
        fail_msg("%s", err.message);
    return f;
}

static void destroy(struct fixture *f)
{
    kvm->vcpu_destroy(f->vcpu);
    kvm->vm_destroy(f->vm);
    mull_clock_destroy(f->clock);
    mull_memory_destroy(f->memory);
    free(f);
}

static void run_to_stop(struct fixture *f)
{
    struct mull_exit exit;
    unsigned before = f->stops;

    kvm->vcpu_run(f->vcpu, &exit);
    if (exit.reason != MULL_EXIT_STOPPED)
        fail_msg("exit reason %d: %s", exit.reason, exit.error.message);
    assert_int_equal(f->stops, before + 1);
}

/* ---- */

static void test_dirty_log(void **state)
{
    /* mov [rdi], eax; out 10h, al; jmp back */
    static const uint8_t code[] = {0x89, 0x07, 0xe6, STOP_PORT, 0xeb, 0xfa};
    uint8_t bitmap[RAM_SIZE / 4096 / 8];
    struct mull_cpu_state *s = calloc(1, sizeof(*s));
    unsigned count;

    if (!kvm_here())
        skip();
    struct fixture *f = make();
    const struct mull_ram *ram = mull_memory_ram(f->memory, &count);

    start(f, code, sizeof(code));
    run_to_stop(f); /* the page tables' accessed bits are set now */
    mull_memory_dirty_start(f->memory);
    mull_memory_dirty_fetch(f->memory, ram, bitmap);
    const unsigned pages[] = {0x20, 0x20, 0x77, 0xff};
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(kvm->vcpu_get(f->vcpu, s, NULL), 0);
        s->gpr[MULL_RDI] = pages[i] * 0x1000 + 0x10;
        assert_int_equal(kvm->vcpu_set(f->vcpu, s, NULL), 0);
        run_to_stop(f);
        if (i == 2) /* a device's write counts, too */
            assert_int_equal(mull_mem_write(f->memory, 0x66000, "x", 1), 0);
        mull_memory_dirty_fetch(f->memory, ram, bitmap);
        for (unsigned page = 0x10; page < RAM_SIZE / 4096; page++) {
            bool want = page == pages[i] || (i == 2 && page == 0x66);
            if ((bitmap[page / 8] >> (page % 8) & 1) != want)
                fail_msg("round %u: page %#x is %s", i, page, want ? "clean" : "dirty");
        }
    }
    mull_memory_dirty_stop(f->memory);
    run_to_stop(f);
    mull_memory_dirty_fetch(f->memory, ram, bitmap);
    for (unsigned i = 0; i < sizeof(bitmap); i++)
        assert_int_equal(bitmap[i], 0);
    free(s);
    destroy(f);
}

static void test_rom(void **state)
{
    /* mov ebx, ROM; mov ecx, [rbx]; mov dword [rbx], 5; mov edx, [rbx]; out 10h, al */
    static const uint8_t code[] = {0xbb, 0, 0, 0, 0xf0, 0x8b, 0x0b, 0xc7,     0x03,
                                   5,    0, 0, 0, 0x8b, 0x13, 0xe6, STOP_PORT};
    struct mull_cpu_state *s = calloc(1, sizeof(*s));

    if (!kvm_here())
        skip();
    struct fixture *f = make();
    assert_int_equal(mull_mem_load(f->memory, ROM, "\x11\x22\x33\x44", 4), 0);
    start(f, code, sizeof(code));
    run_to_stop(f);
    assert_int_equal(kvm->vcpu_get(f->vcpu, s, NULL), 0);
    assert_int_equal(s->gpr[MULL_RCX], 0x44332211);
    assert_int_equal(s->gpr[MULL_RDX], 0x44332211);
    free(s);
    destroy(f);
}

static void *stop_later(void *opaque)
{
    struct fixture *f = opaque;
    const struct timespec wait = {.tv_nsec = 5000000};

    nanosleep(&wait, NULL);
    kvm->vcpu_signal(f->vcpu, MULL_SIGNAL_STOP, 0);
    return NULL;
}

static void test_stop(void **state)
{
    static const uint8_t loop[] = {0xeb, 0xfe}, halt[] = {0xf4, 0xeb, 0xfd};
    struct mull_exit exit;
    struct mull_cpu_state *s = calloc(1, sizeof(*s));
    pthread_t thread;

    if (!kvm_here())
        skip();
    struct fixture *f = make();
    /* Out of an endless loop, many times, from another thread at an unknown moment. */
    start(f, loop, sizeof(loop));
    for (unsigned i = 0; i < 20; i++) {
        pthread_create(&thread, NULL, stop_later, f);
        kvm->vcpu_run(f->vcpu, &exit);
        assert_int_equal(exit.reason, MULL_EXIT_STOPPED);
        pthread_join(thread, NULL);
    }
    /* Before it runs: it does not start. */
    kvm->vcpu_signal(f->vcpu, MULL_SIGNAL_STOP, 0);
    kvm->vcpu_run(f->vcpu, &exit);
    assert_int_equal(exit.reason, MULL_EXIT_STOPPED);
    /* Out of HLT with interrupts off. */
    start(f, halt, sizeof(halt));
    /* On a busy host the stop may come before the guest has got that far: let it go on. */
    for (unsigned i = 0; i < 100 && s->mp_state != MULL_CPU_HALTED; i++) {
        pthread_create(&thread, NULL, stop_later, f);
        kvm->vcpu_run(f->vcpu, &exit);
        pthread_join(thread, NULL);
        assert_int_equal(exit.reason, MULL_EXIT_STOPPED);
        assert_int_equal(kvm->vcpu_get(f->vcpu, s, NULL), 0);
    }
    assert_int_equal(s->mp_state, MULL_CPU_HALTED);
    assert_int_equal(s->rip, 0x4001);
    free(s);
    destroy(f);
}

static void test_shutdown(void **state)
{
    static const uint8_t ud2[] = {0x0f, 0x0b}, stop[] = {0xe6, STOP_PORT};
    struct mull_cpu_state *s = calloc(1, sizeof(*s));
    struct mull_exit exit;

    if (!kvm_here())
        skip();
    struct fixture *f = make();
    start(f, ud2, sizeof(ud2));
    kvm->vcpu_run(f->vcpu, &exit);
    assert_int_equal(exit.reason, MULL_EXIT_SHUTDOWN);
    assert_int_equal(kvm->vcpu_get(f->vcpu, s, NULL), 0);
    assert_int_equal(s->mp_state, MULL_CPU_SHUTDOWN);
    kvm->vcpu_run(f->vcpu, &exit); /* stays so ... */
    assert_int_equal(exit.reason, MULL_EXIT_SHUTDOWN);
    start(f, stop, sizeof(stop)); /* ... until it is reset */
    run_to_stop(f);
    free(s);
    destroy(f);
}

static void test_refusals(void **state)
{
    struct mull_cpu_state *s = calloc(1, sizeof(*s));
    struct mull_error err = {0};

    if (!kvm_here())
        skip();
    struct fixture *f = make();
    mull_cpu_state_reset(s, 0, true);
    s->cr0 = 0x80000000; /* paging without protection */
    assert_true(kvm->vcpu_set(f->vcpu, s, &err) < 0);
    assert_non_null(strstr(err.message, "vCPU 0"));
    mull_cpu_state_reset(s, 0, true);
    s->lstar = 0x8000000000000000;
    assert_true(kvm->vcpu_set(f->vcpu, s, &err) < 0);
    assert_non_null(strstr(err.message, "MSR 0xc0000082"));
    mull_cpu_state_reset(s, 0, true);
    s->mp_state = 77;
    assert_true(kvm->vcpu_set(f->vcpu, s, &err) < 0);
    mull_cpu_state_reset(s, 0, true);
    assert_int_equal(kvm->vcpu_set(f->vcpu, s, &err), 0);
    free(s);
    destroy(f);
}

struct bar {
    unsigned writes;
    uint64_t offset;
};

static void bar_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct bar *bar = opaque;

    bar->writes++;
    bar->offset = offset;
}

/* Let the guest write to @address. @return how often that raised the eventfd */
static uint64_t ring(struct fixture *f, uint64_t address, int fd)
{
    /* mov [rdi], ax; out 10h, al */
    static const uint8_t code[] = {0x66, 0x89, 0x07, 0xe6, STOP_PORT};
    struct mull_cpu_state *s = calloc(1, sizeof(*s));
    uint64_t count = 0;

    start(f, code, sizeof(code));
    assert_int_equal(kvm->vcpu_get(f->vcpu, s, NULL), 0);
    s->gpr[MULL_RDI] = address;
    assert_int_equal(kvm->vcpu_set(f->vcpu, s, NULL), 0);
    run_to_stop(f);
    free(s);
    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* Doorbells are the kernel's where it has KVM_IOEVENTFD; everything beside them, and all where it
 * refuses, goes through the region's functions. */
static void test_doorbells(void **state)
{
    static const struct mull_region_ops ops = {port_read, bar_write, 1, 8};
    struct bar bar = {0};
    struct mull_region *region;

    if (!kvm_here())
        skip();
    struct fixture *f = make();
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct mull_doorbells bells = {.fd = fd, .offset = 0x3000, .step = 4, .count = 4};
    assert_int_equal(mull_region_add(f->memory, MULL_SPACE_MMIO, 0xc0000000, 0x4000, &ops, &bar,
                                     "bar", &region, NULL),
                     0);
    assert_int_equal(ring(f, 0xc0003004, fd), 0); /* none yet */
    assert_int_equal(bar.writes, 1);
    mull_region_set_doorbells(region, &bells);
    if (!bells.armed) {
        print_message("SKIPPED: this kernel has no KVM_IOEVENTFD\n");
    } else {
        assert_int_equal(ring(f, 0xc0003000, fd), 1);
        assert_int_equal(ring(f, 0xc000300c, fd), 1);
        assert_int_equal(bar.writes, 1);
        assert_int_equal(ring(f, 0xc0003010, fd), 0); /* behind the last */
        assert_int_equal(bar.writes, 2);
        mull_region_move(region, 0xd0000000, true);
        assert_int_equal(ring(f, 0xc0003000, fd), 0);
        assert_int_equal(bar.writes, 2);
        assert_int_equal(ring(f, 0xd0003008, fd), 1);
    }
    /* What the kernel refuses (here: a descriptor that is no eventfd) arrives all the same. */
    struct mull_doorbells bad = bells;
    mull_region_move(region, 0xd0000000, false);
    bad.fd = -1;
    mull_region_set_doorbells(region, &bad);
    mull_region_move(region, 0xd0000000, true);
    assert_false(bad.armed);
    bar.writes = 0;
    assert_int_equal(ring(f, 0xd0003008, fd), 0);
    assert_int_equal(bar.writes, 1);
    assert_int_equal(bar.offset, 0x3008);
    mull_region_remove(region);
    close(fd);
    destroy(f);
}

static void test_stats(void **state)
{
    static const uint8_t code[] = {0xe6, 0x80, 0xe6, 0x80, 0xe6, STOP_PORT};
    const char *names[32];
    uint64_t values[32];
    unsigned n, found = 0;

    if (!kvm_here())
        skip();
    struct fixture *f = make();
    start(f, code, sizeof(code));
    run_to_stop(f);
    n = kvm->vcpu_stats(f->vcpu, names, values, 32);
    for (unsigned i = 0; i < n; i++)
        if (!strcmp(names[i], "pio")) {
            assert_int_equal(values[i], 3);
            found++;
        }
    assert_int_equal(found, 1);
    assert_int_equal(kvm->vcpu_stats(f->vcpu, names, values, 1), 1);
    destroy(f);
}

/* ---- Choosing ---- */

static void test_probe_is_quick(void **state)
{
    struct mull_engine_report report;
    struct timespec a, b;
    double best = 1e9;

    if (!kvm_here())
        skip();
    for (unsigned i = 0; i < 5; i++) {
        /* Its own time: what others take of a busy host is not the probe's fault. */
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        kvm->probe(true, &report);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
        if (ms < best)
            best = ms;
    }
    assert_true(report.available);
    assert_true(report.kernel_mips > 0);
    assert_true(report.exit_us > 0);
    assert_true(best < 20);
}

static void test_find(void **state)
{
    struct mull_error err = {0};
    struct mull_engine_report report;
    char why[256] = "";

    assert_null(mull_engine_find("fast", why, sizeof(why), &err));
    assert_non_null(strstr(err.message, "use auto, soft or kvm"));
    assert_ptr_equal(mull_engine_find("soft", why, sizeof(why), &err), &mull_engine_soft);
    assert_non_null(strstr(why, "soft"));
    const struct mull_engine *chosen = mull_engine_find("auto", why, sizeof(why), &err);
    assert_non_null(chosen);
    assert_memory_equal(why, "engine ", 7);
    assert_memory_equal(why + 7, chosen->name, strlen(chosen->name));
    kvm->probe(true, &report);
    if (report.available && report.kernel_mips > 0 && report.kernel_mips < 100) {
        assert_ptr_equal(chosen, &mull_engine_soft);
        assert_non_null(strstr(why, "instructions a second"));
        assert_non_null(strstr(why, "--engine kvm"));
    }
    assert_ptr_equal(mull_engine_find("auto", NULL, 0, NULL), chosen);
}

/* What somebody without rights, or without the device, reads. In a child, which changes itself. */
static void in_child(bool (*check)(void))
{
    int status;
    pid_t pid = fork();

    if (!pid)
        _exit(check() ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static bool without_rights(void)
{
    struct mull_engine_report report;
    struct mull_error err = {0};
    char why[256];

    if (setgid(65534) || setuid(65534) || !access("/dev/kvm", R_OK | W_OK))
        return true; /* everybody may: nothing to see */
    kvm->probe(true, &report);
    return !report.available && strstr(report.why, "permission denied") &&
           strstr(report.why, "usermod") && !mull_engine_find("kvm", why, sizeof(why), &err) &&
           strstr(err.message, "permission denied") &&
           mull_engine_find("auto", why, sizeof(why), &err) == &mull_engine_soft &&
           strstr(why, "permission denied");
}

static char empty[] = "/tmp/mull-test-XXXXXX";

static bool without_device(void)
{
    struct mull_engine_report report;
    struct mull_cpuid cpuid;
    struct mull_error err = {0};

    if (chroot(empty)) /* not root */
        return true;
    kvm->probe(true, &report);
    return !report.available && strstr(report.why, "there is none") &&
           kvm->cpuid(&cpuid, &err) < 0 && strstr(err.message, "--engine soft");
}

static void test_not_available(void **state)
{
    in_child(without_rights);
    assert_non_null(mkdtemp(empty));
    in_child(without_device);
    rmdir(empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dirty_log),     cmocka_unit_test(test_rom),
        cmocka_unit_test(test_stop),          cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_stats),
        cmocka_unit_test(test_find),          cmocka_unit_test(test_probe_is_quick),
        cmocka_unit_test(test_not_available), cmocka_unit_test(test_doorbells),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
