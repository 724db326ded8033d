/*
 * Direct boot: what the loaders write into guest memory and the state they give the boot processor;
 * and that each kind of broken file is refused with a message that names it.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <asm/bootparam.h>

#include "boot/boot.h"

#define SETUP_SECTS 4
#define SETUP_SIZE ((SETUP_SECTS + 1) * 512)
#define CODE_SIZE 0x4000
#define IMAGE_SIZE (SETUP_SIZE + CODE_SIZE)
#define MIB (1ull << 20)

struct fixture {
    struct mull_memory *mem;
    struct mull_boot_map map;
    uint8_t image[IMAGE_SIZE];
    struct mull_error err;
};

static struct setup_header *header(struct fixture *f)
{
    return (struct setup_header *)(void *)(f->image + 0x1f1);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    assert_int_equal(mull_memory_create(NULL, &f->mem, &f->err), 0);
    assert_int_equal(mull_memory_add_ram(f->mem, 0, 64 * MIB, false, &f->err), 0);
    f->map = (struct mull_boot_map){
        .count = 3,
        .range = {{0, 0x9fc00, MULL_BOOT_RAM},
                  {0x9fc00, 0x100000 - 0x9fc00, MULL_BOOT_RESERVED},
                  {0x100000, 63 * MIB, MULL_BOOT_RAM}},
    };
    for (unsigned i = 0; i < CODE_SIZE; i++)
        f->image[SETUP_SIZE + i] = (uint8_t)(i * 7 + 1);
    f->image[0x200] = 0xeb;
    f->image[0x201] = 0x6a;
    struct setup_header *h = header(f);
    h->setup_sects = SETUP_SECTS;
    h->syssize = CODE_SIZE / 16;
    h->boot_flag = 0xaa55;
    memcpy(&h->header, "HdrS", 4);
    h->version = 0x20f;
    h->loadflags = LOADED_HIGH | CAN_USE_HEAP;
    h->xloadflags = XLF_KERNEL_64;
    h->initrd_addr_max = 0x7fffffff;
    h->kernel_alignment = 0x200000;
    h->relocatable_kernel = 1;
    h->cmdline_size = 2047;
    h->pref_address = 16 * MIB;
    h->init_size = 8 * MIB;
    h->kernel_version = 0x100;
    strcpy((char *)f->image + 0x300, "6.99-test #1\n");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mull_memory_destroy(f->mem);
    free(f);
    return 0;
}

static int load(struct fixture *f, const void *initrd, size_t initrd_size, const char *cmdline,
                struct mull_cpu_state *s)
{
    struct mull_boot *boot = NULL;
    int ret = mull_boot_open_bytes(f->image, sizeof(f->image), initrd, initrd_size, cmdline, &boot,
                                   &f->err);
    if (ret)
        return ret;
    assert_int_equal(mull_boot_kind(boot), MULL_BOOT_LINUX);
    assert_string_equal(mull_boot_version(boot), "6.99-test #1");
    ret = mull_boot_load(boot, f->mem, &f->map, 0xe0000, s, &f->err);
    mull_boot_close(boot);
    return ret;
}

/* A kernel without a 64-bit entry: the 32-bit entry state of the boot protocol. */
static void test_linux_load_32(void **state)
{
    struct fixture *f = *state;
    static struct mull_cpu_state s;
    uint64_t code;

    header(f)->xloadflags = 0;
    mull_cpu_state_reset(&s, 0, true);
    assert_int_equal(load(f, NULL, 0, "quiet", &s), 0);
    assert_int_equal(s.rip, 16 * MIB);
    assert_int_equal(s.gpr[MULL_RSI], MULL_BOOT_PARAMS);
    assert_int_equal(s.gpr[MULL_RBP] | s.gpr[MULL_RDI] | s.gpr[MULL_RBX], 0);
    assert_int_equal(s.efer, 0);
    assert_int_equal(s.cr0 & 0x80000001, 1);
    assert_int_equal(s.seg[MULL_CS].selector, 0x10);
    assert_int_equal(s.seg[MULL_CS].attr & (MULL_SEG_L | MULL_SEG_DB), MULL_SEG_DB);
    assert_int_equal(s.seg[MULL_DS].selector, 0x18);
    assert_false(s.rflags & 0x200);
    assert_int_equal(mull_mem_read(f->mem, s.gdt.base + 0x10, &code, sizeof(code)), 0);
    assert_int_equal(code, 0x00cf9b000000ffff);
}

static void test_linux_load(void **state)
{
    struct fixture *f = *state;
    static struct mull_cpu_state s;
    char initrd[5000];
    memset(initrd, 'i', sizeof(initrd));
    assert_int_equal(load(f, initrd, sizeof(initrd), "console=ttyS0 quiet", &s), 0);

    /* The 64-bit entry state of the boot protocol. */
    assert_int_equal(s.rip, 16 * MIB + 0x200);
    assert_int_equal(s.gpr[MULL_RSI], MULL_BOOT_PARAMS);
    assert_int_equal(s.efer, 0x500);
    assert_int_equal(s.cr0 & 0x80000001, 0x80000001);
    assert_int_equal(s.seg[MULL_CS].selector, 0x10);
    assert_true(s.seg[MULL_CS].attr & MULL_SEG_L);
    assert_int_equal(s.seg[MULL_SS].selector, 0x18);
    assert_false(s.rflags & 0x200);

    struct boot_params p;
    assert_int_equal(mull_mem_read(f->mem, MULL_BOOT_PARAMS, &p, sizeof(p)), 0);
    assert_int_equal(p.sentinel, 0);
    assert_int_equal(p.acpi_rsdp_addr, 0xe0000);
    assert_int_equal(p.e820_entries, 3);
    assert_int_equal(p.e820_table[2].size, 63 * MIB);
    assert_int_equal(p.hdr.boot_flag, 0xaa55);
    assert_int_equal(p.hdr.type_of_loader, 0xff);
    assert_false(p.hdr.loadflags & CAN_USE_HEAP);
    char text[20];
    assert_int_equal(mull_mem_read(f->mem, p.hdr.cmd_line_ptr, text, sizeof(text)), 0);
    assert_string_equal(text, "console=ttyS0 quiet");

    /* The initrd: page aligned, at the top of memory, whole. */
    assert_int_equal(p.hdr.ramdisk_size, sizeof(initrd));
    assert_int_equal(p.hdr.ramdisk_image, 64 * MIB - 8192);
    char back[sizeof(initrd)];
    assert_int_equal(mull_mem_read(f->mem, p.hdr.ramdisk_image, back, sizeof(back)), 0);
    assert_memory_equal(back, initrd, sizeof(initrd));

    static uint8_t code[CODE_SIZE];
    assert_int_equal(mull_mem_read(f->mem, 16 * MIB, code, sizeof(code)), 0);
    assert_memory_equal(code, f->image + SETUP_SIZE, CODE_SIZE);
}

static uint64_t walk(struct fixture *f, uint64_t cr3, uint64_t va)
{
    uint64_t entry = cr3;
    for (int shift = 39; shift >= 21; shift -= 9) {
        uint64_t at = (entry & 0xffffffffff000) + ((va >> shift) & 511) * 8;
        assert_int_equal(mull_mem_read64(f->mem, at, &entry), 0);
        assert_true(entry & 1);
        if (shift > 21)
            assert_false(entry & 0x80);
    }
    assert_true(entry & 0x80);
    return (entry & 0xfffffffe00000) | (va & 0x1fffff);
}

static void test_identity_map(void **state)
{
    struct fixture *f = *state;
    static struct mull_cpu_state s;
    assert_int_equal(load(f, NULL, 0, NULL, &s), 0);
    static const uint64_t at[] = {0, 0x8123, 16 * MIB, 0x7fffffff, 0xfee00000, 0xffffffff};
    for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++)
        assert_int_equal(walk(f, s.cr3, at[i]), at[i]);
}

static void expect(struct fixture *f, int ret, int want, const char *part)
{
    assert_int_equal(ret, want);
    if (!strstr(f->err.message, part))
        fail_msg("message '%s' lacks '%s'", f->err.message, part);
    assert_null(strchr(f->err.message, '\n'));
}

static void test_linux_refused(void **state)
{
    struct fixture *f = *state;
    static struct mull_cpu_state s;
    struct fixture *keep = malloc(sizeof(*keep));
    *keep = *f;

    header(f)->syssize += 1;
    expect(f, load(f, NULL, 0, NULL, &s), -EINVAL, "truncated");
    *f = *keep;
    header(f)->header = 0;
    expect(f, load(f, NULL, 0, NULL, &s), -EINVAL, "not an x86 kernel");
    *f = *keep;
    header(f)->boot_flag = 0;
    expect(f, load(f, NULL, 0, NULL, &s), -EINVAL, "boot flag");
    *f = *keep;
    header(f)->version = 0x20b;
    expect(f, load(f, NULL, 0, NULL, &s), -ENOTSUP, "2.11");
    *f = *keep;
    header(f)->pref_address = 0x12345678901;
    expect(f, load(f, NULL, 0, NULL, &s), -EINVAL, "load address");
    *f = *keep;
    header(f)->init_size = 60 * MIB;
    expect(f, load(f, NULL, 0, NULL, &s), -ENOSPC, "--memory");
    *f = *keep;
    header(f)->cmdline_size = 5;
    expect(f, load(f, NULL, 0, "longer", &s), -E2BIG, "command line");
    *f = *keep;
    void *initrd = calloc(1, 45 * MIB);
    expect(f, load(f, initrd, 45 * MIB, NULL, &s), -ENOSPC, "initrd");
    free(initrd);
    free(keep);
}

static void test_file_errors(void **state)
{
    struct fixture *f = *state;
    struct mull_boot *boot;
    expect(f, mull_boot_open("/nonexistent/kernel", NULL, NULL, &boot, &f->err), -ENOENT,
           "/nonexistent/kernel: no such file");
    expect(f, mull_boot_open("/dev/null", NULL, NULL, &boot, &f->err), -EINVAL, "regular file");

    char path[] = "/tmp/mull-boot-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    expect(f, mull_boot_open(path, NULL, NULL, &boot, &f->err), -EINVAL, "truncated");
    assert_int_equal(write(fd, f->image, IMAGE_SIZE), IMAGE_SIZE);
    expect(f, mull_boot_open(path, "/nonexistent/initrd", NULL, &boot, &f->err), -ENOENT,
           "initrd /nonexistent/initrd");
    assert_int_equal(mull_boot_open(path, path, NULL, &boot, &f->err), 0);

    /* The file shrinks between opening and loading: an error, not a fault. */
    static struct mull_cpu_state s;
    assert_int_equal(ftruncate(fd, SETUP_SIZE + 100), 0);
    expect(f, mull_boot_load(boot, f->mem, &f->map, 0, &s, &f->err), -EIO, "shorter");
    mull_boot_close(boot);
    expect(f, mull_boot_open(path, NULL, NULL, &boot, &f->err), -EINVAL, "truncated");
    close(fd);
    unlink(path);
}

/* ---- PVH ---- */

struct pvh_file {
    Elf64_Ehdr e;
    Elf64_Phdr p[2];
    Elf64_Nhdr n;
    char owner[4];
    uint64_t entry;
    uint8_t code[256];
};

static void make_pvh(struct pvh_file *k)
{
    memset(k, 0, sizeof(*k));
    memcpy(k->e.e_ident, ELFMAG, SELFMAG);
    k->e.e_ident[EI_CLASS] = ELFCLASS64;
    k->e.e_ident[EI_DATA] = ELFDATA2LSB;
    k->e.e_machine = EM_X86_64;
    k->e.e_phoff = offsetof(struct pvh_file, p);
    k->e.e_phentsize = sizeof(Elf64_Phdr);
    k->e.e_phnum = 2;
    k->p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                           .p_offset = offsetof(struct pvh_file, code),
                           .p_paddr = 2 * MIB,
                           .p_filesz = sizeof(k->code),
                           .p_memsz = 8192};
    k->p[1] = (Elf64_Phdr){.p_type = PT_NOTE,
                           .p_offset = offsetof(struct pvh_file, n),
                           .p_filesz = sizeof(k->n) + 4 + 8};
    k->n = (Elf64_Nhdr){.n_namesz = 4, .n_descsz = 8, .n_type = 18};
    memcpy(k->owner, "Xen", 4);
    k->entry = 2 * MIB + 0x10;
    memset(k->code, 0x90, sizeof(k->code));
}

static int load_pvh(struct fixture *f, const struct pvh_file *k, struct mull_cpu_state *s)
{
    struct mull_boot *boot;
    int ret = mull_boot_open_bytes(k, sizeof(*k), "ramdisk", 7, "a=b", &boot, &f->err);
    if (ret)
        return ret;
    assert_int_equal(mull_boot_kind(boot), MULL_BOOT_PVH);
    ret = mull_boot_load(boot, f->mem, &f->map, 0xf0000, s, &f->err);
    mull_boot_close(boot);
    return ret;
}

static void test_pvh_load(void **state)
{
    struct fixture *f = *state;
    static struct mull_cpu_state s;
    struct pvh_file k;
    make_pvh(&k);
    /* Memory behind the file's part must become zero. */
    assert_int_equal(mull_mem_set(f->mem, 2 * MIB, 0xee, 8192), 0);
    assert_int_equal(load_pvh(f, &k, &s), 0);
    assert_int_equal(s.rip, 2 * MIB + 0x10);
    assert_int_equal(s.cr0 & 0x80000001, 1);
    assert_int_equal(s.efer, 0);
    assert_true(s.seg[MULL_CS].attr & MULL_SEG_DB);
    assert_false(s.seg[MULL_CS].attr & MULL_SEG_L);

    uint32_t info[14];
    assert_int_equal(mull_mem_read(f->mem, s.gpr[MULL_RBX], info, sizeof(info)), 0);
    assert_int_equal(info[0], 0x336ec578);
    assert_int_equal(info[1], 1);
    assert_int_equal(info[3], 1);       /* modules */
    assert_int_equal(info[8], 0xf0000); /* RSDP */
    assert_int_equal(info[12], 3);      /* memory map */
    uint64_t module[2];
    assert_int_equal(mull_mem_read(f->mem, info[4], module, sizeof(module)), 0);
    char text[8] = {0};
    assert_int_equal(module[1], 7);
    assert_int_equal(mull_mem_read(f->mem, module[0], text, 7), 0);
    assert_string_equal(text, "ramdisk");
    uint8_t code[8192];
    assert_int_equal(mull_mem_read(f->mem, 2 * MIB, code, sizeof(code)), 0);
    assert_int_equal(code[255], 0x90);
    assert_int_equal(code[256], 0);
    assert_int_equal(code[8191], 0);
}

static void test_pvh_refused(void **state)
{
    struct fixture *f = *state;
    static struct mull_cpu_state s;
    struct pvh_file k;
    make_pvh(&k);
    k.n.n_type = 17;
    expect(f, load_pvh(f, &k, &s), -EINVAL, "without a PVH entry");
    make_pvh(&k);
    k.e.e_machine = EM_AARCH64;
    expect(f, load_pvh(f, &k, &s), -EINVAL, "not for x86");
    make_pvh(&k);
    k.p[0].p_paddr = 0x8000;
    expect(f, load_pvh(f, &k, &s), -EINVAL, "wants to be at");
    make_pvh(&k);
    k.p[0].p_memsz = UINT64_MAX;
    expect(f, load_pvh(f, &k, &s), -EINVAL, "wants to be at");
    make_pvh(&k);
    k.p[0].p_memsz = 100 * MIB;
    expect(f, load_pvh(f, &k, &s), -ENOSPC, "--memory");
    make_pvh(&k);
    k.p[0].p_offset = UINT64_MAX - 10;
    expect(f, load_pvh(f, &k, &s), -EINVAL, "truncated");
    make_pvh(&k);
    k.e.e_phoff = 1 << 20;
    expect(f, load_pvh(f, &k, &s), -EINVAL, "truncated");
    make_pvh(&k);
    k.e.e_phnum = 0;
    expect(f, load_pvh(f, &k, &s), -EINVAL, "without program headers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_linux_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_linux_load_32, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_linux_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pvh_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pvh_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
