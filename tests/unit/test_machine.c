/*
 * A machine's life on the soft engine, with kernels of a few instructions: start, pause, reset,
 * every way to end, calls from many threads, and that a machine which cannot be made leaves nothing
 * behind (the sanitizers look for leaks).
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine/internal.h"

static char kernel_path[] = "/tmp/mull-machine-XXXXXX";

/* 32-bit code at 2 MiB, entered by PVH. */
static const uint8_t code_halt[] = {0xfa, 0xf4, 0xeb, 0xfd};        /* cli; 1: hlt; jmp 1b */
static const uint8_t code_spin[] = {0xfa, 0xeb, 0xfe};              /* cli; 1: jmp 1b */
static const uint8_t code_fault[] = {0x0f, 0x0b};                   /* ud2 without an IDT */
static const uint8_t code_reset[] = {0x66, 0xba, 0xf9, 0x0c,        /* mov dx, 0xcf9 */
                                     0xb0, 0x06, 0xee, 0xeb, 0xfe}; /* mov al, 6; out; jmp . */
/* Count in memory that a reset does not clear: three resets, then halt. */
static const uint8_t code_count[] = {
    0xff, 0x05, 0x00, 0x00, 0x30, 0x00,                   /* inc dword [0x300000] */
    0x83, 0x3d, 0x00, 0x00, 0x30, 0x00, 0x04,             /* cmp dword [0x300000], 4 */
    0x73, 0x09,                                           /* jae halt */
    0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xfe, /* reset; jmp . */
    0xf4, 0xeb, 0xfd,                                     /* halt: hlt; jmp halt */
};

static void write_kernel(const uint8_t *code, size_t size)
{
    struct {
        Elf64_Ehdr e;
        Elf64_Phdr p[2];
        Elf64_Nhdr n;
        char owner[4];
        uint64_t entry;
        uint8_t code[64];
    } k = {
        .e = {.e_ident = ELFMAG "\2\1\1",
              .e_machine = EM_X86_64,
              .e_phoff = sizeof(Elf64_Ehdr),
              .e_phentsize = sizeof(Elf64_Phdr),
              .e_phnum = 2},
        .n = {.n_namesz = 4, .n_descsz = 8, .n_type = 18},
        .owner = "Xen",
        .entry = 0x200000,
    };
    k.p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                          .p_offset = (size_t)((char *)k.code - (char *)&k),
                          .p_paddr = 0x200000,
                          .p_filesz = sizeof(k.code),
                          .p_memsz = sizeof(k.code)};
    k.p[1] = (Elf64_Phdr){.p_type = PT_NOTE,
                          .p_offset = (size_t)((char *)&k.n - (char *)&k),
                          .p_filesz = sizeof(k.n) + 12};
    assert_true(size <= sizeof(k.code));
    memcpy(k.code, code, size);
    int fd = open(kernel_path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, &k, sizeof(k)), sizeof(k));
    close(fd);
}

static struct mull_machine *make(const char *more)
{
    char json[1024];
    snprintf(json, sizeof(json),
             "{\"kernel\": \"%s\", \"engine\": \"soft\", \"memory\": 33554432%s}", kernel_path,
             more);
    struct mull_machine_config config;
    struct mull_error err = {0};
    struct mull_machine *m = NULL;
    int ret = mull_machine_config_parse(json, &config, &err);
    if (!ret)
        ret = mull_machine_create(&config, NULL, &m, &err);
    mull_machine_config_free(&config);
    if (ret)
        fail_msg("%s", err.message);
    return m;
}

#define MAKE(code, more) (write_kernel(code, sizeof(code)), make(more))

static enum mull_machine_state state_of(struct mull_machine *m)
{
    struct mull_machine_info info;
    mull_machine_info(m, &info);
    return info.state;
}

static void test_life(void **state)
{
    struct mull_machine *m = MAKE(code_spin, ", \"cpus\": 3");
    struct mull_error err = {0};
    assert_int_equal(state_of(m), MULL_MACHINE_CREATED);
    assert_int_equal(mull_machine_pause(m, &err), -EINVAL);
    assert_int_equal(mull_machine_start(m, &err), 0);
    assert_int_equal(mull_machine_start(m, &err), -EINVAL);
    assert_int_equal(state_of(m), MULL_MACHINE_RUNNING);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(mull_machine_pause(m, &err), 0);
        assert_int_equal(state_of(m), MULL_MACHINE_PAUSED);
        struct mull_machine_info before, after;
        mull_machine_info(m, &before);
        usleep(1000);
        mull_machine_info(m, &after);
        assert_int_equal(before.guest_ns, after.guest_ns);
        assert_int_equal(mull_machine_reset(m, &err), 0);
        assert_int_equal(state_of(m), MULL_MACHINE_PAUSED);
        assert_int_equal(mull_machine_resume(m, &err), 0);
        assert_int_equal(mull_machine_reset(m, &err), 0);
        assert_int_equal(state_of(m), MULL_MACHINE_RUNNING);
    }
    assert_int_equal(mull_machine_power_button(m, &err), 0);
    mull_machine_stop(m);
    assert_int_equal(mull_machine_wait(m, &err), MULL_END_STOPPED);
    assert_int_equal(state_of(m), MULL_MACHINE_ENDED);
    assert_int_equal(mull_machine_resume(m, &err), -EINVAL);
    assert_int_equal(mull_machine_reset(m, &err), -EINVAL);
    mull_machine_destroy(m);
}

static void test_never_started(void **state)
{
    struct mull_machine *m = MAKE(code_halt, ", \"consoles\": [{\"type\": \"none\"}]");
    mull_machine_destroy(m);
    m = MAKE(code_halt, "");
    mull_machine_stop(m);
    mull_machine_destroy(m);
    mull_machine_destroy(NULL);
}

static enum mull_machine_end run(struct mull_machine *m, unsigned *resets)
{
    struct mull_error err = {0};
    assert_int_equal(mull_machine_start(m, &err), 0);
    enum mull_machine_end end = mull_machine_wait(m, &err);
    struct mull_machine_info info;
    mull_machine_info(m, &info);
    if (resets)
        *resets = info.resets;
    mull_machine_destroy(m);
    return end;
}

static void test_ends(void **state)
{
    assert_int_equal(run(MAKE(code_fault, ""), NULL), MULL_END_SHUTDOWN);
    assert_int_equal(run(MAKE(code_fault, ", \"cpus\": 2"), NULL), MULL_END_SHUTDOWN);
    assert_int_equal(run(MAKE(code_reset, ", \"no_reboot\": true"), NULL), MULL_END_RESET);
}

static void test_guest_resets(void **state)
{
    struct mull_machine *m = MAKE(code_count, "");
    struct mull_machine_info info = {0};
    assert_int_equal(mull_machine_start(m, NULL), 0);
    for (int i = 0; i < 5000 && info.resets < 3; i++) {
        usleep(1000);
        mull_machine_info(m, &info);
    }
    assert_int_equal(info.resets, 3);
    usleep(20000);
    mull_machine_info(m, &info);
    assert_int_equal(info.resets, 3);
    mull_machine_destroy(m);
}

static void *pester(void *opaque)
{
    struct mull_machine *m = opaque;
    for (int i = 0; i < 30; i++) {
        mull_machine_pause(m, NULL);
        mull_machine_resume(m, NULL);
        mull_machine_reset(m, NULL);
        mull_machine_power_button(m, NULL);
        state_of(m);
    }
    return NULL;
}

static void test_many_callers(void **state)
{
    struct mull_machine *m = MAKE(code_halt, ", \"cpus\": 2");
    assert_int_equal(mull_machine_start(m, NULL), 0);
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, pester, m), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    mull_machine_destroy(m);
}

static void test_not_made(void **state)
{
    write_kernel(code_halt, sizeof(code_halt));
    static const char *const more[] = {
        ", \"disks\": [{\"path\": \"/nonexistent/disk\"}]",
        ", \"engine\": \"steam\"",
        ", \"networks\": [{\"type\": \"tap\", \"interface\": \"a-name-much-too-long-for-it\"}]",
        ", \"consoles\": [{\"type\": \"none\"}, {\"type\": \"unix\", \"path\": "
        "\"/nonexistent/s\"}]",
        ", \"initrd\": \"/nonexistent/initrd\"",
        ", \"initrd\": \"/etc\"",
    };
    for (unsigned i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
        char json[512];
        snprintf(json, sizeof(json), "{\"kernel\": \"%s\"%s%s}", kernel_path,
                 strstr(more[i], "engine") ? "" : ", \"engine\": \"soft\"", more[i]);
        struct mull_machine_config config;
        struct mull_error err = {0};
        struct mull_machine *m = NULL;
        assert_int_equal(mull_machine_config_parse(json, &config, &err), 0);
        int ret = mull_machine_create(&config, NULL, &m, &err);
        mull_machine_config_free(&config);
        assert_true(ret < 0 && !m);
        assert_true(*err.message);
    }
}

/* ---- Where drives are ---- */

static bool at_place(const struct mull_machine *m, enum mull_boot_device device, unsigned index,
                     const char *tail)
{
    for (unsigned i = 0; i < m->boot_paths; i++) {
        const struct machine_boot_path *p = &m->boot_path[i];
        size_t n = strlen(p->path), want = strlen(tail);
        if (p->device == device && p->index == index)
            return n > want && !strcmp(p->path + n - want, tail);
    }
    return false;
}

static void test_places(void **state)
{
    char drives[512];
    struct mull_error err = {0};
    struct mull_machine_config config;
    struct mull_machine *m;
    /* Places first, in any order; the others take what they leave, also where there is none. */
    snprintf(drives, sizeof(drives),
             ", \"disks\": [{\"path\": \"%s\", \"format\": \"raw\", \"readonly\": true,"
             " \"bus\": \"sata\", \"unit\": 4}],"
             " \"cdroms\": [{\"bus\": \"sata\"}, {\"bus\": \"sata\", \"unit\": 0},"
             " {\"bus\": \"ide\", \"controller\": 1, \"unit\": 1}, {\"bus\": \"ide\"},"
             " {\"bus\": \"scsi\", \"controller\": 2, \"unit\": 5},"
             " {\"bus\": \"sata\", \"unit\": 29}]",
             kernel_path);
    m = MAKE(code_halt, drives);
    assert_true(at_place(m, MULL_BOOT_DISK, 0, "/drive@4/disk@0"));
    assert_true(at_place(m, MULL_BOOT_CDROM, 0, "/drive@1/disk@0") ||
                at_place(m, MULL_BOOT_CDROM, 0, "/drive@2/disk@0"));
    assert_true(at_place(m, MULL_BOOT_CDROM, 1, "/drive@0/disk@0"));
    assert_true(at_place(m, MULL_BOOT_CDROM, 2, "/drive@1/disk@1"));
    assert_true(at_place(m, MULL_BOOT_CDROM, 3, "/drive@0/disk@0"));
    assert_true(at_place(m, MULL_BOOT_CDROM, 4, "/channel@0/disk@5,0"));
    for (unsigned i = 1, last = 0; i < m->boot_paths; i++)
        if (m->boot_path[i].device == MULL_BOOT_CDROM) {
            assert_true(m->boot_path[i].index >= last);
            last = m->boot_path[i].index;
        }
    mull_machine_destroy(m);
    snprintf(
        drives, sizeof(drives),
        "{\"kernel\": \"%s\", \"engine\": \"soft\", \"cdroms\": ["
        "{\"bus\": \"ide\", \"controller\": 0, \"unit\": 1}, {\"bus\": \"ide\", \"unit\": 1}]}",
        kernel_path);
    assert_int_equal(mull_machine_config_parse(drives, &config, &err), 0);
    assert_int_equal(mull_machine_create(&config, NULL, &m, &err), -EINVAL);
    assert_non_null(strstr(err.message, "ide 0:1"));
    mull_machine_config_free(&config);
}

static int setup(void **state)
{
    int fd = mkstemp(kernel_path);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int teardown(void **state)
{
    return unlink(kernel_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),         cmocka_unit_test(test_never_started),
        cmocka_unit_test(test_ends),         cmocka_unit_test(test_guest_resets),
        cmocka_unit_test(test_many_callers), cmocka_unit_test(test_not_made),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
