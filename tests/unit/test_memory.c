/* Guest memory: bounds, ranges, watchers, dirty tracking, and the region map. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory/memory.h"

#define LOW_SIZE 0x100000ull
#define ROM_GPA 0x200000ull
#define HIGH_GPA 0x100000000ull

static struct mull_memory *make(void)
{
    struct mull_memory *mem;
    struct mull_error err = {0};
    assert_int_equal(mull_memory_create(NULL, &mem, &err), 0);
    assert_int_equal(mull_memory_add_ram(mem, HIGH_GPA, 0x4000, false, &err), 0);
    assert_int_equal(mull_memory_add_ram(mem, 0, LOW_SIZE, false, &err), 0);
    assert_int_equal(mull_memory_add_ram(mem, ROM_GPA, 0x2000, true, &err), 0);
    assert_int_equal(mull_memory_add_ram(mem, LOW_SIZE, 0x1000, false, &err), 0);
    return mem;
}

static void test_ranges(void **state)
{
    struct mull_memory *mem = make();
    struct mull_error err = {0};
    unsigned count;
    const struct mull_ram *ram = mull_memory_ram(mem, &count);
    assert_int_equal(count, 4);
    for (unsigned i = 1; i < count; i++)
        assert_true(ram[i - 1].gpa + ram[i - 1].size <= ram[i].gpa);
    assert_null(mull_memory_find_ram(mem, ROM_GPA - 1));
    assert_ptr_equal(mull_memory_find_ram(mem, HIGH_GPA + 0x3fff), &ram[3]);
    assert_null(mull_memory_find_ram(mem, HIGH_GPA + 0x4000));

    assert_int_equal(mull_memory_add_ram(mem, 0xff000, 0x1000, false, &err), -EEXIST);
    assert_int_equal(mull_memory_add_ram(mem, ROM_GPA - 0x1000, 0x2000, false, &err), -EEXIST);
    assert_int_equal(mull_memory_add_ram(mem, 0x300001, 0x1000, false, &err), -EINVAL);
    assert_int_equal(mull_memory_add_ram(mem, 0x300000, 0, false, &err), -EINVAL);
    assert_int_equal(mull_memory_add_ram(mem, UINT64_MAX & MULL_PAGE_MASK, 0x2000, false, &err),
                     -EINVAL);
    mull_memory_destroy(mem);
}

static void test_access(void **state)
{
    struct mull_memory *mem = make();
    uint8_t data[0x3000], back[0x3000];
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + 1);

    /* Across two ranges that touch. */
    assert_int_equal(mull_mem_write(mem, LOW_SIZE - 0x800, data, 0x1000), 0);
    assert_int_equal(mull_mem_read(mem, LOW_SIZE - 0x800, back, 0x1000), 0);
    assert_memory_equal(data, back, 0x1000);

    /* Over the end of RAM: nothing is written or read. */
    memset(back, 0xaa, sizeof(back));
    assert_int_equal(mull_mem_write(mem, LOW_SIZE + 0xff0, data, 0x20), -EFAULT);
    assert_int_equal(mull_mem_read(mem, LOW_SIZE + 0xff0, back, 0x20), -EFAULT);
    assert_int_equal(back[0], 0xaa);
    assert_int_equal(mull_mem_read(mem, LOW_SIZE + 0xff0, back, 0x10), 0);
    assert_int_equal(back[0], 0);
    assert_int_equal(mull_mem_read(mem, UINT64_MAX - 4, back, 16), -EFAULT);
    assert_int_equal(mull_mem_read(mem, 0, back, UINT64_MAX), -EFAULT);
    assert_int_equal(mull_mem_read(mem, ROM_GPA - 1, back, 0), 0);

    /* ROM: loaders only. */
    assert_int_equal(mull_mem_write(mem, ROM_GPA, data, 4), -EFAULT);
    assert_int_equal(mull_mem_load(mem, ROM_GPA, data, 4), 0);
    assert_int_equal(mull_mem_read(mem, ROM_GPA, back, 4), 0);
    assert_memory_equal(data, back, 4);

    assert_int_equal(mull_mem_set(mem, 0x10, 0x5a, 0x2000), 0);
    assert_int_equal(mull_mem_read(mem, 0xf, back, 0x2002), 0);
    assert_int_equal(back[0], 0);
    assert_int_equal(back[1], 0x5a);
    assert_int_equal(back[0x2000], 0x5a);
    assert_int_equal(back[0x2001], 0);

    uint16_t v16 = 1;
    uint32_t v32 = 1;
    uint64_t v64 = 1;
    assert_int_equal(mull_mem_write64(mem, 8, 0x1122334455667788ull), 0);
    assert_int_equal(mull_mem_read64(mem, 8, &v64), 0);
    assert_true(v64 == 0x1122334455667788ull);
    assert_int_equal(mull_mem_read32(mem, 12, &v32), 0);
    assert_int_equal(v32, 0x11223344);
    assert_int_equal(mull_mem_read16(mem, 10, &v16), 0);
    assert_int_equal(v16, 0x5566);
    assert_int_equal(mull_mem_read64(mem, 4, &v64), -EFAULT);
    assert_true(v64 == 0);
    assert_int_equal(mull_mem_write16(mem, ROM_GPA, 1), -EFAULT);
    assert_int_equal(mull_mem_write32(mem, LOW_SIZE + 0x1000, 1), -EFAULT);
    assert_int_equal(mull_mem_write32(mem, 2, 1), -EFAULT);

    struct iovec iov[4];
    assert_int_equal(mull_mem_iov(mem, LOW_SIZE - 16, 32, true, iov, 4), 2);
    assert_int_equal(iov[0].iov_len, 16);
    assert_int_equal(iov[1].iov_len, 16);
    assert_int_equal(mull_mem_iov(mem, LOW_SIZE - 16, 32, true, iov, 1), -E2BIG);
    assert_int_equal(mull_mem_iov(mem, ROM_GPA, 32, true, iov, 4), -EFAULT);
    assert_int_equal(mull_mem_iov(mem, ROM_GPA, 32, false, iov, 4), 1);
    mull_memory_destroy(mem);
}

struct watch {
    unsigned codes, protects;
    uint64_t gpa[8], len[8];
};

static void code_written(void *opaque, uint64_t gpa, uint64_t len)
{
    struct watch *w = opaque;
    assert_true(w->codes < 8);
    w->gpa[w->codes] = gpa;
    w->len[w->codes++] = len;
}

static void protect(void *opaque)
{
    struct watch *w = opaque;
    w->protects++;
}

static void test_watch_and_dirty(void **state)
{
    struct mull_memory *mem = make();
    struct watch w = {0};
    uint8_t bitmap[LOW_SIZE / 4096 / 8], data[0x2000] = {0};
    unsigned count;
    const struct mull_ram *ram = mull_memory_ram(mem, &count);
    mull_memory_set_watch(mem, &(struct mull_memory_watch){&w, code_written, protect});

    ram[0].flags[1] |= MULL_PAGE_CODE;
    mull_mem_write(mem, 0xff0, data, 0x20);
    assert_int_equal(w.codes, 1);
    assert_true(w.gpa[0] == 0x1000 && w.len[0] == 0x10);
    mull_mem_write32(mem, 0x1ffc, 1);
    assert_int_equal(w.codes, 2);
    assert_true(w.gpa[1] == 0x1ffc && w.len[1] == 4);
    mull_mem_wrote(mem, 0x0, 0x3000);
    assert_int_equal(w.codes, 3);
    assert_true(w.gpa[2] == 0x1000 && w.len[2] == 0x1000);

    mull_memory_dirty_start(mem);
    assert_int_equal(w.protects, 1);
    mull_memory_dirty_fetch(mem, &ram[0], bitmap);
    for (unsigned i = 0; i < sizeof(bitmap); i++)
        assert_int_equal(bitmap[i], 0);
    assert_int_equal(w.protects, 1);
    mull_mem_write(mem, 0x9fff, data, 2);
    mull_memory_mark_dirty(&ram[0], LOW_SIZE - 1);
    mull_memory_mark_dirty(&ram[0], LOW_SIZE); /* not in this range: ignored */
    mull_memory_dirty_fetch(mem, &ram[0], bitmap);
    assert_int_equal(bitmap[1], 0x06);
    assert_int_equal(bitmap[sizeof(bitmap) - 1], 0x80);
    assert_int_equal(bitmap[0], 0);
    assert_int_equal(w.protects, 2);
    assert_int_equal(ram[0].flags[9], MULL_PAGE_CLEAN);
    mull_memory_dirty_fetch(mem, &ram[0], bitmap);
    assert_int_equal(bitmap[1], 0);
    mull_memory_dirty_stop(mem);
    assert_int_equal(ram[0].flags[9], 0);
    assert_int_equal(ram[0].flags[1], MULL_PAGE_CODE);
    mull_memory_destroy(mem);
}

struct call {
    uint64_t offset, value;
    unsigned size, cpu;
    bool write;
};
struct device {
    struct call call[16];
    unsigned calls;
    uint8_t id;
    struct mull_region *region; /* moved away by its own callback when set */
};

static uint64_t device_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct device *d = opaque;
    assert_true(d->calls < 16);
    d->call[d->calls++] = (struct call){offset, 0, size, cpu, false};
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)(uint8_t)(d->id + offset + i) << (8 * i);
    if (d->region)
        mull_region_move(d->region, 0x9000, true);
    return value;
}

static void device_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct device *d = opaque;
    assert_true(d->calls < 16);
    d->call[d->calls++] = (struct call){offset, value, size, cpu, true};
}

static const struct mull_region_ops any_ops = {device_read, device_write, 0, 0};
static const struct mull_region_ops dword_ops = {device_read, device_write, 4, 4};

static void test_regions(void **state)
{
    struct mull_memory *mem = make();
    struct mull_error err = {0};
    struct device a = {.id = 0x10}, b = {.id = 0x80}, p = {.id = 0x40};
    struct mull_region *ra, *rb;

    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, 0xfee00000, 4) == 0xffffffff);
    assert_int_equal(
        mull_region_add(mem, MULL_SPACE_MMIO, 0x1000, 0x1000, &any_ops, &a, "a", &ra, &err), 0);
    assert_int_equal(
        mull_region_add(mem, MULL_SPACE_MMIO, 0x1100, 0x10, &dword_ops, &b, "b", &rb, &err), 0);
    assert_int_equal(mull_region_add(mem, MULL_SPACE_PORT, 0x60, 1, &any_ops, &p, "p", NULL, &err),
                     0);

    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 3, 0x1000, 8) == 0x1716151413121110ull);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.call[0].size, 8);
    assert_int_equal(a.call[0].cpu, 3);
    /* The newer region covers the older one; an access over both is split. */
    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x1100, 4) == 0x83828180u);
    a.calls = b.calls = 0;
    uint64_t v = mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x10fc, 8);
    assert_int_equal(a.calls, 1);
    assert_int_equal(b.calls, 1);
    assert_true(v == 0x838281800f0e0d0cull);
    /* Misaligned: naturally aligned pieces. */
    a.calls = 0;
    v = mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x1001, 4);
    assert_true(v == 0x14131211);
    assert_int_equal(a.calls, 3);
    assert_int_equal(a.call[1].size, 2);
    /* Narrower than the device takes: widened. */
    b.calls = 0;
    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x1106, 1) == 0x86);
    assert_int_equal(b.call[0].size, 4);
    assert_int_equal(b.call[0].offset, 4);
    mull_space_write(mem, MULL_SPACE_MMIO, 0, 0x1105, 1, 0xfff12);
    assert_true(b.call[1].value == 0x1200 && b.call[1].offset == 4 && b.call[1].size == 4);
    /* Wider: split. */
    b.calls = 0;
    mull_space_write(mem, MULL_SPACE_MMIO, 0, 0x1108, 8, 0x1122334455667788ull);
    assert_int_equal(b.calls, 2);
    assert_true(b.call[0].value == 0x55667788 && b.call[1].value == 0x11223344);

    /* Ports: one byte is there, the next is not. */
    assert_true(mull_space_read(mem, MULL_SPACE_PORT, 0, 0x60, 2) == 0xff40);
    assert_true(mull_space_read(mem, MULL_SPACE_PORT, 0, 0xffff, 4) == 0xffffffff);

    /* Moving and hiding. */
    mull_region_move(rb, 0x5000, true);
    a.calls = 0;
    mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x1100, 4);
    assert_int_equal(a.calls, 1);
    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x5000, 4) == 0x83828180u);
    mull_region_move(rb, 0x5000, false);
    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x5000, 4) == 0xffffffff);
    mull_region_move(rb, UINT64_MAX - 1, true); /* beyond the end: not there, and no harm */
    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, UINT64_MAX - 1, 2) == 0xffff);
    mull_region_move(rb, UINT64_MAX - 15, true);
    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, UINT64_MAX - 3, 4) == 0x8f8e8d8cu);

    /* A callback may move its own region. */
    a.region = ra;
    mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x1000, 1);
    a.region = NULL;
    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x9000, 1) == 0x10);
    mull_region_remove(ra);
    assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, 0x9000, 1) == 0xff);

    assert_int_equal(
        mull_region_add(mem, MULL_SPACE_PORT, 0xfff0, 0x11, &any_ops, &p, "p", NULL, &err),
        -EINVAL);
    assert_int_equal(mull_region_add(mem, MULL_SPACE_MMIO, 0, 0, &any_ops, &p, "p", NULL, &err),
                     -EINVAL);
    mull_memory_destroy(mem);
}

static void count_up(void *opaque)
{
    ++*(unsigned *)opaque;
}

static uint64_t read_zero(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return 0;
}

static void write_nothing(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
}

/* A device's memory is where its region is, as long as all of that can be seen. */
static void test_device_ram(void **state)
{
    static const struct mull_region_ops ops = {read_zero, write_nothing, 1, 8};
    static _Atomic uint8_t flags[4];
    struct mull_device_ram ram = {.ram = {.size = 0x4000, .flags = flags}}, more[4] = {{{0}}};
    struct mull_memory *mem = make();
    struct mull_region *region, *cover, *others[4];
    unsigned moved = 0;
    const struct mull_memory_watch watch = {.opaque = &moved, .moved = count_up};

    mull_memory_set_watch(mem, &watch);
    assert_int_equal(
        mull_region_add(mem, MULL_SPACE_MMIO, 0x80000000, 0x4000, &ops, NULL, "it", &region, NULL),
        0);
    assert_null(mull_memory_device_ram(mem)[0]);
    assert_int_equal(mull_region_set_ram(region, &ram), 0);
    assert_ptr_equal(mull_memory_device_ram(mem)[0], &ram);
    assert_int_equal(ram.gpa, 0x80000000);
    mull_region_move(region, 0x90000000, true);
    assert_int_equal(ram.gpa, 0x90000000);
    assert_int_equal(moved, 1);
    mull_region_move(region, 0x90000800, true); /* not whole pages */
    assert_int_equal(ram.gpa, MULL_NOWHERE);
    mull_region_move(region, 0x90000000, false);
    assert_int_equal(ram.gpa, MULL_NOWHERE);
    mull_region_move(region, 0x90000000, true);
    assert_int_equal(moved, 2);
    assert_int_equal(
        mull_region_add(mem, MULL_SPACE_MMIO, 0x90003ffc, 4, &ops, NULL, "cover", &cover, NULL), 0);
    assert_int_equal(ram.gpa, MULL_NOWHERE);
    mull_region_remove(cover);
    assert_int_equal(ram.gpa, 0x90000000);
    assert_int_equal(moved, 3);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(mull_region_add(mem, MULL_SPACE_MMIO, 0xa0000000 + 0x1000 * i, 0x1000,
                                         &ops, NULL, "another", &others[i], NULL),
                         0);
        assert_int_equal(mull_region_set_ram(others[i], &more[i]), i < 3 ? 0 : -ENOSPC);
    }
    mull_device_ram_remove(mem, &ram);
    assert_null(mull_memory_device_ram(mem)[0]);
    assert_int_equal(moved, 4);
    mull_region_move(region, 0xb0000000, true);
    assert_int_equal(ram.gpa, MULL_NOWHERE);
    mull_region_remove(others[1]);
    assert_null(mull_memory_device_ram(mem)[2]);
    mull_memory_destroy(mem);
}

/* What is written is seen once, and watched from then on. */
static void test_device_ram_written(void **state)
{
    static _Atomic uint8_t flags[4];
    struct mull_device_ram ram = {.ram = {.size = 0x4000, .flags = flags}};
    struct mull_memory *mem = make();
    unsigned protects = 0;
    const struct mull_memory_watch watch = {.opaque = &protects, .protect = count_up};

    mull_memory_set_watch(mem, &watch);
    assert_true(mull_device_ram_written(mem, &ram));
    assert_false(mull_device_ram_written(mem, &ram));
    assert_int_equal(protects, 1);
    flags[3] = 0; /* as an engine does */
    assert_true(mull_device_ram_written(mem, &ram));
    assert_false(mull_device_ram_written(mem, &ram));
    assert_int_equal(protects, 2);
    mull_memory_destroy(mem);
}

struct ringer {
    bool refuse;
    unsigned on, off;
    uint64_t at; /* of the first doorbell, 0: nowhere */
};

static bool note_bells(void *opaque, const struct mull_doorbells *bells, uint64_t gpa, bool on)
{
    struct ringer *r = opaque;

    assert_int_equal(bells->count, 3);
    if (on) {
        r->on++;
        assert_int_equal(r->at, 0);
        r->at = r->refuse ? 0 : gpa;
    } else {
        r->off++;
        assert_int_equal(gpa, r->at);
        r->at = 0;
    }
    return on && !r->refuse;
}

/* An engine knows where doorbells are as long as all of their region can be seen. */
static void test_doorbells(void **state)
{
    static const struct mull_region_ops ops = {read_zero, write_nothing, 1, 8};
    struct mull_doorbells bells = {.fd = 77, .offset = 0x3000, .step = 4, .count = 3};
    struct mull_memory *mem = make();
    struct mull_region *region, *cover;
    struct ringer r = {0}, other = {.refuse = true};
    const struct mull_memory_watch watch = {.opaque = &r, .doorbells = note_bells},
                                   refusing = {.opaque = &other, .doorbells = note_bells};

    assert_int_equal(
        mull_region_add(mem, MULL_SPACE_MMIO, 0x80000000, 0x4000, &ops, NULL, "it", &region, NULL),
        0);
    mull_region_set_doorbells(region, &bells);
    assert_false(bells.armed); /* nobody is there */
    mull_memory_set_watch(mem, &watch);
    assert_true(bells.armed);
    assert_int_equal(r.at, 0x80003000);
    mull_region_move(region, 0x80000000, true);
    assert_int_equal(r.on, 1); /* nothing new */
    mull_region_move(region, 0x90000000, true);
    assert_int_equal(r.at, 0x90003000);
    mull_region_move(region, 0x90000000, false);
    assert_false(bells.armed);
    assert_int_equal(r.at, 0);
    mull_region_move(region, 0xa0000000, true);
    assert_int_equal(
        mull_region_add(mem, MULL_SPACE_MMIO, 0xa0001000, 4, &ops, NULL, "cover", &cover, NULL), 0);
    assert_int_equal(r.at, 0);
    mull_region_remove(cover);
    assert_int_equal(r.at, 0xa0003000);
    /* Another watcher, which cannot do it. */
    mull_memory_set_watch(mem, &refusing);
    assert_int_equal(r.at, 0);
    assert_false(bells.armed);
    assert_int_equal(other.on, 1);
    mull_region_move(region, 0x80000000, true);
    assert_int_equal(other.on, 2);
    assert_int_equal(other.off, 0);
    mull_memory_set_watch(mem, &watch);
    assert_int_equal(r.at, 0x80003000);
    mull_region_remove(region);
    assert_int_equal(r.at, 0);
    assert_false(bells.armed);
    assert_int_equal(r.on, r.off);
    mull_memory_destroy(mem);
}

/* The flattened map against the definition, over random adds, moves and removals. */
static void test_regions_random(void **state)
{
    enum { COUNT = 12, SPAN = 64 };
    struct mull_memory *mem = make();
    struct mull_error err = {0};
    struct device device[COUNT];
    struct mull_region *region[COUNT] = {0};
    uint64_t base[COUNT], size[COUNT], age[COUNT], now = 0;
    bool visible[COUNT];
    unsigned seed = 1;
    for (unsigned step = 0; step < 2000; step++) {
        unsigned i = (unsigned)rand_r(&seed) % COUNT;
        if (!region[i]) {
            base[i] = (unsigned)rand_r(&seed) % SPAN;
            size[i] = 1 + (unsigned)rand_r(&seed) % 16;
            visible[i] = true;
            age[i] = ++now;
            device[i] = (struct device){.id = (uint8_t)i};
            assert_int_equal(mull_region_add(mem, MULL_SPACE_MMIO, base[i], size[i], &any_ops,
                                             &device[i], "r", &region[i], &err),
                             0);
        } else if (rand_r(&seed) % 3 == 0) {
            mull_region_remove(region[i]);
            region[i] = NULL;
        } else {
            base[i] = (unsigned)rand_r(&seed) % SPAN;
            visible[i] = rand_r(&seed) % 4 != 0;
            mull_region_move(region[i], base[i], visible[i]);
        }
        for (uint64_t at = 0; at < SPAN + 20; at++) {
            unsigned owner = COUNT;
            for (unsigned k = 0; k < COUNT; k++) {
                device[k].calls = 0;
                if (region[k] && visible[k] && at - base[k] < size[k] &&
                    (owner == COUNT || age[k] > age[owner]))
                    owner = k;
            }
            uint64_t want = owner == COUNT ? 0xff : (uint8_t)(owner + at - base[owner]);
            assert_true(mull_space_read(mem, MULL_SPACE_MMIO, 0, at, 1) == want);
        }
    }
    mull_memory_destroy(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),          cmocka_unit_test(test_access),
        cmocka_unit_test(test_watch_and_dirty), cmocka_unit_test(test_regions),
        cmocka_unit_test(test_device_ram),      cmocka_unit_test(test_device_ram_written),
        cmocka_unit_test(test_doorbells),       cmocka_unit_test(test_regions_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
