/* Multiboot kernels of both versions: what is loaded, what they are told, and headers that must be
 * refused. */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "boot/boot.h"

#define MIB (1ull << 20)
#define SIZE 8192u

static struct mull_memory *mem;
static struct mull_error err;
static struct mull_cpu_state cpu;
static const struct mull_boot_map map = {
    .count = 3,
    .range = {{0, 0x9fc00, MULL_BOOT_RAM},
              {0x9fc00, 0x60400, MULL_BOOT_RESERVED},
              {0x100000, 31 * MIB, MULL_BOOT_RAM}},
};
static uint8_t image[SIZE];

static int setup(void **state)
{
    memset(image, 0, sizeof(image));
    memset(&err, 0, sizeof(err));
    assert_int_equal(mull_memory_create(NULL, &mem, NULL), 0);
    return mull_memory_add_ram(mem, 0, 32 * MIB, false, NULL);
}

static int teardown(void **state)
{
    mull_memory_destroy(mem);
    return 0;
}

static void put(unsigned at, const uint32_t *words, unsigned count)
{
    memcpy(image + at, words, 4 * count);
}

static uint32_t word(uint64_t at)
{
    uint32_t value;
    assert_int_equal(mull_mem_read(mem, at, &value, 4), 0);
    return value;
}

static void expect_text(uint64_t at, const char *want)
{
    char text[64] = "";
    assert_int_equal(mull_mem_read(mem, at, text, strlen(want) + 1), 0);
    assert_string_equal(text, want);
}

/* Open the image with one module of four bytes, and load it. */
static int boot(const char *cmdline)
{
    struct mull_boot *b;
    int ret = mull_boot_open_bytes(image, sizeof(image), NULL, 0, cmdline, &b, &err);

    if (ret)
        return ret;
    assert_int_equal(mull_boot_kind(b), MULL_BOOT_MULTIBOOT);
    assert_int_equal(mull_boot_add_module_bytes(b, "dom0", 4, "x=1,2", &err), 0);
    assert_int_equal(mull_mem_write32(mem, 0xe0000, 0x20445352), 0); /* "RSD " */
    ret = mull_boot_load(b, mem, &map, 0xe0000, &cpu, &err);
    mull_boot_close(b);
    return ret;
}

static void expect_entry(uint32_t magic, uint32_t entry)
{
    assert_int_equal(cpu.gpr[MULL_RAX], magic);
    assert_int_equal(cpu.rip, entry);
    assert_int_equal(cpu.cr0 & 0x80000001, 1);
    assert_int_equal(cpu.rflags & 0x20200, 0);
    assert_int_equal(cpu.seg[MULL_CS].limit, 0xffffffff);
    assert_int_equal(cpu.seg[MULL_DS].base, 0);
    assert_true(cpu.seg[MULL_CS].attr & MULL_SEG_DB);
    /* What a BIOS would have left of low memory. */
    assert_int_equal(word(0x40c) >> 16, 0x9fc0);
    assert_int_equal(word(0x413) & 0xffff, 639);
}

/* "a.out kludge": the header at 1000h says where all of it goes. */
static void test_1_addresses(void **state)
{
    const uint32_t flags = 0x10003;
    put(0x1000,
        (uint32_t[]){0x1badb002, flags, 0 - 0x1badb002 - flags, 0x200100, 0x200000, 0x200800,
                     0x201000, 0x200010},
        8);
    memcpy(image + 0xf00, "start", 5);
    memset(image + 0xf00 + 0x800, 0xaa, 16);
    assert_int_equal(mull_mem_set(mem, 0x200000, 0xff, 0x2000), 0);
    assert_int_equal(boot("a b"), 0);
    expect_entry(0x2badb002, 0x200010);
    expect_text(0x200000, "start");
    assert_int_equal(word(0x200800), 0); /* BSS */
    assert_int_equal(word(0x200ffc), 0);
    assert_int_equal(word(0x201004), 0xffffffff);

    uint64_t info = cpu.gpr[MULL_RBX];
    assert_int_equal(word(info), 0x24d);
    assert_int_equal(word(info + 4), 639);
    assert_int_equal(word(info + 8), 31 * 1024);
    expect_text(word(info + 16), "kernel a b");
    expect_text(word(info + 64), "Mullion");
    assert_int_equal(word(info + 44), 3 * 24);
    uint64_t e = word(info + 48);
    assert_int_equal(word(e), 20);
    assert_int_equal(word(e + 24 + 4), 0x9fc00);
    assert_int_equal(word(e + 24 + 20), MULL_BOOT_RESERVED);
    assert_int_equal(word(info + 20), 1);
    uint64_t module = word(info + 24);
    assert_int_equal(word(module) % 4096, 0);
    assert_true(word(module) >= 0x201000);
    assert_int_equal(word(module + 4) - word(module), 4);
    assert_int_equal(word(word(module)), 0x306d6f64);
    expect_text(word(module + 8), "module x=1,2");
}

static void make_elf(uint32_t header_at)
{
    Elf32_Ehdr *e = (Elf32_Ehdr *)(void *)image;
    Elf32_Phdr *p = (Elf32_Phdr *)(void *)(image + sizeof(*e));

    memcpy(e->e_ident, ELFMAG, SELFMAG);
    e->e_ident[EI_CLASS] = ELFCLASS32;
    e->e_ident[EI_DATA] = ELFDATA2LSB;
    e->e_machine = EM_386;
    e->e_phoff = sizeof(*e);
    e->e_phentsize = sizeof(*p);
    e->e_phnum = 1;
    e->e_entry = 0xc0000020; /* virtual */
    *p = (Elf32_Phdr){.p_type = PT_LOAD,
                      .p_offset = header_at,
                      .p_filesz = 0x400,
                      .p_memsz = 0x1000,
                      .p_paddr = 0x100000,
                      .p_vaddr = 0xc0000000};
}

/* The tag of @type in the information; 0: none. */
static uint64_t tag(uint32_t type)
{
    uint64_t info = cpu.gpr[MULL_RBX], at = info + 8, end = info + word(info);

    while (at + 8 <= end && word(at) != type && word(at)) {
        assert_true(word(at + 4) >= 8);
        at += (word(at + 4) + 7) & ~7u;
    }
    assert_true(at + 8 <= end);
    return word(at) == type ? at : 0;
}

static void test_2_elf(void **state)
{
    make_elf(0x1000);
    const uint32_t length = 48;
    put(0x1000,
        (uint32_t[]){0xe85250d6, 0, length, 0 - 0xe85250d6 - length, /* information: */ 1, 16, 6,
                     15, /* framebuffer, optional: */ 5 | 1 << 16, 16, 0, 0},
        12);
    assert_int_equal(boot("quiet"), 0);
    expect_entry(0x36d76289, 0x100020);
    assert_int_equal(word(0x100000), 0xe85250d6);
    assert_int_equal(cpu.gpr[MULL_RBX] % 8, 0);
    expect_text(tag(1) + 8, "kernel quiet");
    expect_text(tag(2) + 8, "Mullion");
    assert_int_equal(word(tag(3) + 12) - word(tag(3) + 8), 4);
    expect_text(tag(3) + 16, "module x=1,2");
    assert_int_equal(word(tag(4) + 8), 639);
    assert_int_equal(word(tag(6) + 4), 16 + 3 * 24);
    assert_int_equal(word(tag(6) + 16 + 24), 0x9fc00);
    assert_int_equal(word(tag(15) + 8), 0x20445352);
    assert_int_equal(word(tag(21) + 8), 0x100000);
    assert_int_equal(tag(8), 0);
}

static void refused(int code, const char *part)
{
    assert_int_equal(boot(NULL), code);
    if (!strstr(err.message, part))
        fail_msg("'%s' lacks '%s'", err.message, part);
}

static void test_1_refused(void **state)
{
    const uint32_t flags = 0x10000;
    uint32_t h[8] = {0x1badb002, flags, 0 - 0x1badb002 - flags, 0x200000, 0x200000, 0, 0, 0x200000};

    put(0, (uint32_t[]){0x1badb002, 0x8000, 0 - 0x1badb002 - 0x8000}, 3);
    refused(-ENOTSUP, "nobody knows");
    put(0, h, 8);
    assert_int_equal(boot(NULL), 0);
    h[4] = 0x200100; /* begins behind the header */
    put(0, h, 8);
    refused(-ENOTSUP, "before what it says");
    h[4] = 0x200000;
    h[5] = 0x300000; /* more than the file has */
    put(0, h, 8);
    refused(-ENOTSUP, "truncated");
    h[5] = 0x1fffff;
    put(0, h, 8);
    refused(-ENOTSUP, "truncated");
    h[5] = 0;
    h[6] = 0x200001;
    put(0, h, 8);
    refused(-ENOTSUP, "BSS");
    h[6] = 0xfffffff0; /* more memory than there is */
    put(0, h, 8);
    refused(-ENOSPC, "--memory");
    h[3] = h[4] = 0x1000; /* where the loader is */
    h[6] = 0;
    put(0, h, 8);
    refused(-EINVAL, "1 MiB");
    memset(image, 0, sizeof(image));
    put(SIZE - 12, h, 3); /* cut off */
    refused(-ENOTSUP, "cut off");
}

static void test_2_refused(void **state)
{
    static const struct {
        uint32_t tag[4];
        const char *part;
    } bad[] = {
        {{1, 12, 99, 0}, "told something"},
        {{5, 16, 0, 0}, "framebuffer"},
        {{77, 8, 0, 0}, "nobody knows"},
        {{3, 0x7fffffff, 0, 0}, "longer"},
        {{3, 4, 0, 0}, "longer"},
        {{2, 8, 0, 0}, "short"},
        {{3, 8, 0, 0}, "short"},
    };

    make_elf(0x1000);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put(0x1000, (uint32_t[]){0xe85250d6, 0, 32, 0 - 0xe85250d6 - 32}, 4);
        put(0x1010, bad[i].tag, 4);
        refused(-ENOTSUP, bad[i].part);
    }
    put(0x1000, (uint32_t[]){0xe85250d6, 4, 16, 0 - 0xe85250d6 - 20}, 4); /* MIPS */
    refused(-ENOTSUP, "another processor");
    put(0x1000, (uint32_t[]){0xe85250d6, 0, 0x8000, 0 - 0xe85250d6 - 0x8000}, 4);
    refused(-ENOTSUP, "cut off");
}

static void test_modules(void **state)
{
    struct mull_boot *b;

    make_elf(0x1000);
    put(0x1000, (uint32_t[]){0xe85250d6, 0, 16, 0 - 0xe85250d6 - 16}, 4);
    /* An initrd is the first module. */
    assert_int_equal(mull_boot_open_bytes(image, SIZE, "initrd", 6, NULL, &b, &err), 0);
    for (unsigned i = 1; i < 16; i++)
        assert_int_equal(mull_boot_add_module_bytes(b, "x", 1, NULL, &err), 0);
    assert_int_equal(mull_boot_add_module_bytes(b, "x", 1, NULL, &err), -ENOSPC);
    assert_int_equal(mull_boot_load(b, mem, &map, 0, &cpu, &err), 0);
    assert_int_equal(word(word(tag(3) + 8)), 0x74696e69);
    mull_boot_close(b);
    /* Too much to be told. */
    static char words[0x80000];
    memset(words, 'x', sizeof(words) - 1);
    assert_int_equal(mull_boot_open_bytes(image, SIZE, NULL, 0, words, &b, &err), 0);
    assert_int_equal(mull_boot_load(b, mem, &map, 0, &cpu, &err), -E2BIG);
    mull_boot_close(b);
    /* A module that does not fit. */
    assert_int_equal(mull_boot_open_bytes(image, SIZE, NULL, 0, NULL, &b, &err), 0);
    static uint8_t large[31 * 1024 * 1024];
    assert_int_equal(mull_boot_add_module_bytes(b, large, sizeof(large), NULL, &err), 0);
    assert_int_equal(mull_boot_load(b, mem, &map, 0, &cpu, &err), -ENOSPC);
    mull_boot_close(b);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_1_addresses), T(test_2_elf), T(test_1_refused), T(test_2_refused), T(test_modules),
    };
    return cmocka_run_group_tests_name("multiboot", tests, NULL, NULL);
}
