/* The NVMe controller, driven as a driver would: admin commands, several queues, data by PRPs and
 * PRP lists, errors, events, a saved state. */
#include "storage_world.h"

#include "device/storage/nvme.h"

#define ASQ 0x10000ull
#define ACQ 0x11000ull
#define SQ 0x12000ull
#define CQ 0x13000ull
#define LIST 0x14000ull
#define DATA 0x20000ull
#define ENTRIES 8u

static unsigned sq_tail[2], cq_head[2], phase[2];

static uint32_t reg(unsigned offset)
{
    return (uint32_t)world_read(&world, STORAGE_BARS + offset, 4);
}

static void set(unsigned offset, uint32_t value)
{
    world_write(&world, STORAGE_BARS + offset, 4, value);
}

static void enable(void)
{
    set(0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    set(0x28, (uint32_t)ASQ);
    set(0x2c, 0);
    set(0x30, (uint32_t)ACQ);
    set(0x34, 0);
    assert_int_equal(mull_mem_set(world.env.memory, ACQ, 0, 0x1000), 0);
    set(0x14, 0x00460001);
    assert_int_equal(reg(0x1c), 1);
    memset(sq_tail, 0, sizeof(sq_tail));
    memset(cq_head, 0, sizeof(cq_head));
    phase[0] = phase[1] = 1;
}

static int setup(void **state)
{
    struct mull_nvme_config cfg = {.name = "nvme.0"};

    storage_make();
    cfg.drive = (struct mull_drive){.present = true, .block = disk, .serial = "SN1"};
    assert_int_equal(mull_nvme_create(&world.env, bus, &cfg, &device, NULL), 0);
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    enable();
    return 0;
}

static int teardown(void **state)
{
    storage_free();
    return 0;
}

struct command {
    uint32_t dw0, nsid;
    uint64_t reserved, metadata, prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13, dw14, dw15;
};

static void submit(unsigned q, struct command c)
{
    const uint64_t base[] = {ASQ, SQ};

    c.dw0 |= (sq_tail[q] + 0x100) << 16;
    assert_int_equal(mull_mem_write(world.env.memory, base[q] + 64ull * sq_tail[q], &c, 64), 0);
    sq_tail[q] = (sq_tail[q] + 1) % ENTRIES;
    set(0x1000 + 8 * q, sq_tail[q]);
    settle();
}

/* The next completion's status; -1: there is none. */
static int completion(unsigned q, uint32_t *result)
{
    const uint64_t base[] = {ACQ, CQ};
    uint32_t entry[4];

    assert_int_equal(mull_mem_read(world.env.memory, base[q] + 16ull * cq_head[q], entry, 16), 0);
    if ((entry[3] >> 16 & 1) != phase[q])
        return -1;
    cq_head[q] = (cq_head[q] + 1) % ENTRIES;
    phase[q] ^= !cq_head[q];
    set(0x1004 + 8 * q, cq_head[q]);
    if (result)
        *result = entry[0];
    return (int)(entry[3] >> 17 & 0x7ff);
}

static int run(unsigned q, struct command c)
{
    submit(q, c);
    int status = completion(q, NULL);
    assert_int_equal(completion(q, NULL), -1);
    return status;
}

static void make_queues(void)
{
    assert_int_equal(mull_mem_set(world.env.memory, CQ, 0, 0x1000), 0);
    assert_int_equal(
        run(0, (struct command){.dw0 = 5, .prp1 = CQ, .dw10 = (ENTRIES - 1) << 16 | 1, .dw11 = 3}),
        0);
    assert_int_equal(run(0, (struct command){.dw0 = 1,
                                             .prp1 = SQ,
                                             .dw10 = (ENTRIES - 1) << 16 | 1,
                                             .dw11 = 1 << 16 | 1}),
                     0);
}

static struct command transfer(unsigned opcode, uint32_t lba, unsigned count, uint64_t prp1,
                               uint64_t prp2)
{
    return (struct command){
        .dw0 = opcode, .nsid = 1, .prp1 = prp1, .prp2 = prp2, .dw10 = lba, .dw12 = count - 1};
}

static void test_identify(void **state)
{
    assert_int_equal(reg(8), 0x10400);
    assert_int_equal(reg(0) & 0xffff, 1023);
    assert_int_equal(run(0, (struct command){.dw0 = 6, .prp1 = DATA, .dw10 = 1}), 0);
    assert_int_equal(byte_at(DATA + 4), 'S');
    assert_int_equal(byte_at(DATA + 516), 1);
    assert_int_equal(run(0, (struct command){.dw0 = 6, .nsid = 1, .prp1 = DATA}), 0);
    assert_int_equal(byte_at(DATA + 1), STORAGE_SECTORS >> 8);
    assert_int_equal(byte_at(DATA + 130), 9);
    assert_int_equal(run(0, (struct command){.dw0 = 6, .prp1 = DATA, .dw10 = 2}), 0);
    assert_int_equal(byte_at(DATA), 1);
    assert_int_equal(run(0, (struct command){.dw0 = 6, .nsid = 1, .prp1 = DATA, .dw10 = 3}), 0);
    assert_int_equal(byte_at(DATA), 3);
    assert_int_equal(run(0, (struct command){.dw0 = 6, .nsid = 7, .prp1 = DATA}), 0x0b);
    assert_int_equal(run(0, (struct command){.dw0 = 6, .prp1 = DATA, .dw10 = 0x77}), 2);
    assert_int_equal(run(0, (struct command){.dw0 = 0x77}), 1);
    /* The log of errors has the last three, the newest first; it names the command. */
    assert_int_equal(run(0, (struct command){.dw0 = 2, .prp1 = DATA, .dw10 = 127u << 16 | 1}), 0);
    assert_int_equal(byte_at(DATA), 3);
    assert_int_equal(byte_at(DATA + 64), 2);
    assert_int_equal(run(0, (struct command){.dw0 = 2, .prp1 = DATA, .dw10 = 127u << 16 | 2}), 0);
    assert_int_equal(byte_at(DATA + 3), 100);
    assert_int_equal(run(0, (struct command){.dw0 = 2, .prp1 = DATA, .dw10 = 127u << 16 | 9}),
                     0x109);
}

static void test_transfers(void **state)
{
    make_queues();
    assert_int_equal(run(1, transfer(2, 100, 1, DATA, 0)), 0);
    assert_int_equal(byte_at(DATA), 100);
    assert_int_equal(byte_at(DATA + 511), 100);
    assert_int_equal(byte_at(DATA + 512), 0);
    /* Two pages, the first from its middle on. */
    assert_int_equal(run(1, transfer(2, 10, 8, DATA + 0x800, DATA + 0x2000)), 0);
    assert_int_equal(byte_at(DATA + 0x800), 10);
    assert_int_equal(byte_at(DATA + 0xfff), 13);
    assert_int_equal(byte_at(DATA + 0x2000), 14);
    assert_int_equal(byte_at(DATA + 0x27ff), 17);
    /* A list, whose end lies on another page. */
    const uint64_t first[] = {DATA + 0x5000, LIST + 0x1000},
                   second[] = {DATA + 0x3000, DATA + 0x4000};
    mull_mem_write(world.env.memory, LIST + 0xff0, first, sizeof(first));
    mull_mem_write(world.env.memory, LIST + 0x1000, second, sizeof(second));
    assert_int_equal(run(1, transfer(2, 32, 32, DATA + 0x6000, LIST + 0xff0)), 0);
    assert_int_equal(byte_at(DATA + 0x6000), 32);
    assert_int_equal(byte_at(DATA + 0x5000), 40);
    assert_int_equal(byte_at(DATA + 0x3000), 48);
    assert_int_equal(byte_at(DATA + 0x4fff), 63);
    /* Written, flushed, read again. */
    mull_mem_set(world.env.memory, DATA, 0xee, 512);
    struct command write = transfer(1, 200, 1, DATA, 0);
    write.dw12 |= 0x40000000; /* FUA */
    assert_int_equal(run(1, write), 0);
    assert_int_equal(run(1, (struct command){.dw0 = 0, .nsid = 0xffffffff}), 0);
    mull_mem_set(world.env.memory, DATA, 0, 512);
    assert_int_equal(run(1, transfer(2, 200, 1, DATA, 0)), 0);
    assert_int_equal(byte_at(DATA + 511), 0xee);
    assert_int_equal(run(1, transfer(8, 200, 1, 0, 0)), 0); /* Write Zeroes */
    assert_int_equal(run(1, transfer(2, 200, 2, DATA, 0)), 0);
    assert_int_equal(byte_at(DATA), 0);
    assert_int_equal(byte_at(DATA + 512), 201);
    const uint32_t range[4] = {0, 8, 208, 0};
    mull_mem_write(world.env.memory, DATA, range, sizeof(range));
    assert_int_equal(run(1, (struct command){.dw0 = 9, .nsid = 1, .prp1 = DATA, .dw11 = 4}), 0);
    assert_int_equal(run(1, transfer(2, 208, 1, DATA, 0)), 0);
    assert_int_equal(byte_at(DATA), 0);
}

static void test_errors(void **state)
{
    make_queues();
    assert_int_equal(run(1, transfer(2, STORAGE_SECTORS, 1, DATA, 0)), 0x80);
    assert_int_equal(run(1, transfer(2, STORAGE_SECTORS - 1, 2, DATA, 0)), 0x80);
    assert_int_equal(run(1, transfer(2, 0, 1, 0xf0000000, 0)), 4);      /* not RAM */
    assert_int_equal(run(1, transfer(2, 0, 16, DATA, DATA + 8)), 0x13); /* not a page */
    assert_int_equal(run(1, transfer(2, 0, 32, DATA, 0xf0000000)), 4);
    assert_int_equal(run(1, transfer(0x7f, 0, 1, DATA, 0)), 1);
    struct command c = transfer(2, 0, 1, DATA, 0);
    c.nsid = 2;
    assert_int_equal(run(1, c), 0x0b);
    c = transfer(2, 0, 1, DATA, 0);
    c.dw0 |= 0x4000; /* SGLs */
    assert_int_equal(run(1, c), 2);
    /* Queues that cannot be. */
    assert_int_equal(
        run(0, (struct command){.dw0 = 5, .prp1 = CQ, .dw10 = 7u << 16 | 17, .dw11 = 1}), 0x101);
    assert_int_equal(
        run(0, (struct command){.dw0 = 5, .prp1 = CQ, .dw10 = 7u << 16 | 1, .dw11 = 1}), 0x101);
    assert_int_equal(run(0, (struct command){.dw0 = 5, .prp1 = CQ, .dw10 = 2, .dw11 = 1}), 0x102);
    assert_int_equal(
        run(0, (struct command){.dw0 = 1, .prp1 = SQ, .dw10 = 7u << 16 | 2, .dw11 = 5u << 16 | 1}),
        0x100);
    assert_int_equal(run(0, (struct command){.dw0 = 4, .dw10 = 1}), 0x10c); /* still in use */
    assert_int_equal(run(0, (struct command){.dw0 = 0, .dw10 = 1}), 0);
    assert_int_equal(run(0, (struct command){.dw0 = 4, .dw10 = 1}), 0);
    assert_int_equal(run(0, (struct command){.dw0 = 4, .dw10 = 1}), 0x101);
}

static void test_events(void **state)
{
    uint32_t result;

    submit(0, (struct command){.dw0 = 0x0c});
    assert_int_equal(completion(0, NULL), -1);
    set(0x1000 + 8 * 9, 1); /* a queue that is not there */
    settle();
    assert_int_equal(completion(0, &result), 0);
    assert_int_equal(result, 0x010000);
    /* Another is told when the log has been read. */
    submit(0, (struct command){.dw0 = 0x0c});
    set(0x1000, 100); /* beyond the queue */
    settle();
    assert_int_equal(completion(0, NULL), -1);
    submit(0, (struct command){.dw0 = 2, .prp1 = DATA, .dw10 = 15u << 16 | 1});
    assert_int_equal(completion(0, NULL), 0);
    assert_int_equal(completion(0, &result), 0);
    assert_int_equal(result, 0x010100);
    /* A request that waits can be aborted. */
    submit(0, (struct command){.dw0 = 0x0c});
    uint32_t id = 0x100 + (sq_tail[0] + ENTRIES - 1) % ENTRIES;
    submit(0, (struct command){.dw0 = 8, .dw10 = id << 16});
    assert_int_equal(completion(0, NULL), 7);
    assert_int_equal(completion(0, &result), 0);
    assert_int_equal(result, 0);
}

static void test_features(void **state)
{
    uint32_t result;

    submit(0, (struct command){.dw0 = 9, .dw10 = 7, .dw11 = 0x00ff00ff});
    assert_int_equal(completion(0, &result), 0);
    assert_int_equal(result, 0x000f000f); /* 16 of each */
    submit(0, (struct command){.dw0 = 9, .dw10 = 6, .dw11 = 0});
    assert_int_equal(completion(0, NULL), 0);
    submit(0, (struct command){.dw0 = 10, .dw10 = 6});
    assert_int_equal(completion(0, &result), 0);
    assert_int_equal(result, 0);
    submit(0, (struct command){.dw0 = 10, .dw10 = 6 | 1 << 8});
    assert_int_equal(completion(0, &result), 0);
    assert_int_equal(result, 1); /* the default */
    submit(0, (struct command){.dw0 = 10, .dw10 = 3});
    assert_int_equal(completion(0, &result), 2);
    submit(0, (struct command){.dw0 = 9, .dw10 = 0x77});
    assert_int_equal(completion(0, &result), 2);
}

static void test_registers(void **state)
{
    assert_true(world.line[17] == false);
    submit(0, (struct command){.dw0 = 6, .prp1 = DATA, .dw10 = 1});
    assert_true(world.line[17]); /* slot 1, INTA */
    set(0x0c, 1);
    assert_false(world.line[17]);
    set(0x10, 1);
    assert_true(world.line[17]);
    assert_int_equal(completion(0, NULL), 0);
    settle();
    assert_false(world.line[17]);
    set(0x14, 0x00464001); /* a normal shutdown */
    settle();
    assert_int_equal(reg(0x1c), 9);
    set(0x14, 0);
    assert_int_equal(reg(0x1c) & 1, 0);
    set(0x14, 0x00460081); /* a page size that there is not */
    assert_int_equal(reg(0x1c) & 3, 2);
    set(0x14, 0);
    enable();
    assert_int_equal(run(0, (struct command){.dw0 = 6, .prp1 = DATA, .dw10 = 1}), 0);
    set(0x14, 0);
    set(0x28, 0xf0000000); /* a queue that is nowhere */
    set(0x14, 0x00460001);
    set(0x1000, 1);
    settle();
    assert_int_equal(reg(0x1c) & 2, 2);
}

/* More commands than their completion queue has room for: the rest waits, nothing is lost. */
static void test_full(void **state)
{
    make_queues();
    for (unsigned i = 0; i < ENTRIES - 1; i++)
        submit(1, transfer(2, i, 1, DATA, 0));
    unsigned extra = 3;
    for (unsigned i = 0; i < extra; i++)
        submit(1, transfer(2, i, 1, DATA, 0));
    unsigned got = 0;
    for (unsigned i = 0; i < ENTRIES + extra; i++) {
        got += completion(1, NULL) == 0;
        settle();
    }
    assert_int_equal(got, ENTRIES - 1 + extra);
}

static void test_state(void **state)
{
    make_queues();
    submit(0, (struct command){.dw0 = 0x0c});
    submit(1, transfer(2, 77, 1, DATA, 0));
    save_and_load();
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    assert_int_equal(completion(1, NULL), 0);
    assert_int_equal(run(1, transfer(2, 78, 1, DATA, 0)), 0);
    assert_int_equal(byte_at(DATA), 78);
    set(0x1000 + 8 * 9, 1);
    settle();
    assert_int_equal(completion(0, NULL), 0); /* the event */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_identify), T(test_transfers), T(test_errors),
                                       T(test_events),   T(test_features),  T(test_registers),
                                       T(test_full),     T(test_state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
