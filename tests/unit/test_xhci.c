/* The xHCI and its HID devices, driven as a guest's driver would: rings, slots, control transfers,
 * reports, and what a driver should not do. */
#include "virtio_driver.h"

#include "device/usb/xhci.h"
#include "state/state.h"

#define OPERATIONAL 0x40u
#define PORTSC(n) (0x440u + 16 * (n))
#define INTERRUPTER 0x1020u
#define DOORBELL(n) (0x2000u + 4 * (n))

/* Where the driver keeps things. */
#define COMMANDS 0x10000u
#define EVENTS 0x11000u
#define EVENT_COUNT 16u
#define TABLE 0x12000u
#define DCBAA 0x13000u
#define OUTPUT(slot) (0x14000u + 0x1000u * (slot))
#define INPUT 0x20000u
#define RING(slot, index) (0x30000u + 0x10000u * (slot) + 0x1000u * (index))
#define BUFFER 0x60000u

enum { SUCCESS = 1, STALL = 6, SHORT = 13 };

struct trb {
    uint64_t parameter;
    uint32_t status, control;
};

struct fixture {
    struct drv drv; /* must be first */
    struct mull_input input;
    uint64_t bar;
    unsigned commands; /* blocks put so far */
    unsigned event, cycle;
    unsigned used[3][32]; /* blocks put into each transfer ring */
};

static uint32_t get(struct fixture *f, unsigned offset)
{
    return drv_read(&f->drv, f->bar + offset, 4);
}

static void set(struct fixture *f, unsigned offset, uint32_t value)
{
    drv_write(&f->drv, f->bar + offset, 4, value);
}

static void start(struct fixture *f)
{
    const uint64_t entry[2] = {EVENTS, EVENT_COUNT};

    set(f, OPERATIONAL, 2);
    assert_int_equal(get(f, OPERATIONAL) & 2, 0);
    assert_int_equal(get(f, OPERATIONAL + 4) & 0x801, 1); /* halted, ready */
    set(f, OPERATIONAL + 0x38, 8);
    set(f, OPERATIONAL + 0x30, DCBAA);
    set(f, OPERATIONAL + 0x34, 0);
    set(f, OPERATIONAL + 0x18, COMMANDS | 1);
    set(f, OPERATIONAL + 0x1c, 0);
    mull_mem_write(f->drv.memory, TABLE, entry, sizeof(entry));
    set(f, INTERRUPTER + 0x08, 1);
    set(f, INTERRUPTER + 0x18, EVENTS);
    set(f, INTERRUPTER + 0x1c, 0);
    set(f, INTERRUPTER + 0x10, TABLE);
    set(f, INTERRUPTER + 0x14, 0);
    set(f, INTERRUPTER, 2);
    f->event = f->commands = 0;
    f->cycle = 1;
    memset(f->used, 0, sizeof(f->used));
    mull_mem_set(f->drv.memory, COMMANDS, 0, 0x80000);
    mull_mem_write(f->drv.memory, TABLE, entry, sizeof(entry));
    set(f, OPERATIONAL, 5);
}

static void make(struct fixture *f)
{
    const struct mull_xhci_config cfg = {.name = "xhci",
                                         .port = {MULL_HID_TABLET, MULL_HID_KEYBOARD}};
    struct mull_error err = {0};

    drv_init(&f->drv);
    mull_input_init(&f->input);
    assert_int_equal(
        mull_xhci_create(&f->drv.env, f->drv.bus, &cfg, &f->input, &f->drv.device, &err), 0);
    assert_int_equal(mull_pci_bus_assign(f->drv.bus, &err), 0);
    f->drv.slot = 1;
    assert_int_equal(drv_config_read(&f->drv, 8, 4) >> 8, 0x0c0330);
    f->bar = drv_config_read(&f->drv, 0x10, 4) & ~15u;
    f->bar |= (uint64_t)drv_config_read(&f->drv, 0x14, 4) << 32;
    drv_config_write(&f->drv, 4, 2, 6);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    make(f);
    start(f);
    *state = f;
    return 0;
}

static void unmake(struct fixture *f)
{
    drv_fini(&f->drv);
    mull_input_fini(&f->input);
}

static int teardown(void **state)
{
    unmake(*state);
    free(*state);
    return 0;
}

/* The next event. @return false: there is none */
static bool next_event(struct fixture *f, struct trb *event)
{
    mull_mem_read(f->drv.memory, EVENTS + 16 * f->event, event, sizeof(*event));
    if ((event->control & 1) != f->cycle)
        return false;
    f->event = (f->event + 1) % EVENT_COUNT;
    f->cycle ^= !f->event;
    return true;
}

/* We have seen all up to here. */
static void acknowledge(struct fixture *f)
{
    set(f, INTERRUPTER + 0x18, (EVENTS + 16 * f->event) | 8);
    set(f, INTERRUPTER + 0x1c, 0);
}

static struct trb expect_event(struct fixture *f, unsigned type, unsigned code)
{
    struct trb event = {0};
    assert_true(next_event(f, &event));
    assert_int_equal(event.control >> 10 & 63, type);
    assert_int_equal(event.status >> 24, code);
    acknowledge(f);
    return event;
}

static void expect_quiet(struct fixture *f)
{
    struct trb event;
    assert_false(next_event(f, &event));
}

static void put_command(struct fixture *f, uint64_t parameter, uint32_t control)
{
    const struct trb trb = {parameter, 0, control | 1};
    mull_mem_write(f->drv.memory, COMMANDS + 16 * f->commands++, &trb, sizeof(trb));
}

/* @return the slot in the event */
static unsigned command(struct fixture *f, uint64_t parameter, uint32_t control, unsigned code)
{
    put_command(f, parameter, control);
    set(f, DOORBELL(0), 0);
    struct trb event = expect_event(f, 33, code);
    assert_int_equal(event.parameter, COMMANDS + 16 * (f->commands - 1));
    return event.control >> 24;
}

#define TYPE(n) ((uint32_t)(n) << 10)
#define SLOT(n) ((uint32_t)(n) << 24)
#define ENDPOINT(n) ((uint32_t)(n) << 16)

static void put_words(struct fixture *f, uint64_t at, uint32_t a, uint32_t b, uint32_t c,
                      uint32_t d)
{
    const uint32_t words[8] = {a, b, c, d};
    mull_mem_write(f->drv.memory, at, words, sizeof(words));
}

static uint32_t word(struct fixture *f, uint64_t at)
{
    uint32_t value = 0;
    mull_mem_read(f->drv.memory, at, &value, 4);
    return value;
}

static void reset_ports(struct fixture *f)
{
    assert_int_equal(get(f, PORTSC(0)) & 0x20e03, 0x20601);
    assert_int_equal(get(f, PORTSC(2)) & 1, 0);
    for (unsigned port = 0; port < 2; port++) {
        assert_int_equal(expect_event(f, 34, SUCCESS).parameter, (uint64_t)(port + 1) << 24);
        set(f, PORTSC(port), 0x200 | 0x20000);
    }
    for (unsigned port = 0; port < 2; port++) {
        set(f, PORTSC(port), 0x200 | 0x10);
        expect_event(f, 34, SUCCESS);
        assert_int_equal(get(f, PORTSC(port)) & 0x220013, 0x200003); /* enabled, reset changed */
        set(f, PORTSC(port), 0x200 | 0x200000);
        assert_int_equal(get(f, PORTSC(port)) & 0x200000, 0);
    }
}

/* Slot @port gets the device in that port. */
static void address(struct fixture *f, unsigned port)
{
    unsigned slot = command(f, 0, TYPE(9), SUCCESS);

    assert_int_equal(slot, port);
    const uint64_t output = OUTPUT(slot);
    mull_mem_write(f->drv.memory, DCBAA + 8 * slot, &output, 8);
    put_words(f, INPUT, 0, 3, 0, 0);
    put_words(f, INPUT + 32, 1u << 27 | 1u << 20, port << 16, 0, 0);
    put_words(f, INPUT + 64, 0, 4u << 3 | 64u << 16, RING(slot, 1) | 1, 0);
    command(f, INPUT, TYPE(11) | SLOT(slot), SUCCESS);
    assert_int_equal(word(f, OUTPUT(slot) + 12), 2u << 27 | slot);
    assert_int_equal(word(f, OUTPUT(slot) + 32) & 7, 1);
}

static void put(struct fixture *f, unsigned slot, unsigned index, uint64_t parameter,
                uint32_t status, uint32_t control)
{
    const struct trb trb = {parameter, status, control | 1};
    mull_mem_write(f->drv.memory, RING(slot, index) + 16 * f->used[slot][index]++, &trb,
                   sizeof(trb));
}

static uint64_t request(unsigned type, unsigned number, unsigned value, unsigned index,
                        unsigned length)
{
    return type | (uint64_t)number << 8 | (uint64_t)value << 16 | (uint64_t)index << 32 |
           (uint64_t)length << 48;
}

/* A control transfer with data from the device. @return bytes that came */
static unsigned control_in(struct fixture *f, unsigned slot, uint64_t setup_packet, unsigned code)
{
    unsigned length = (unsigned)(setup_packet >> 48);

    put(f, slot, 1, setup_packet, 8, TYPE(2) | 1u << 6 | 3u << 16);
    put(f, slot, 1, BUFFER, length, TYPE(3) | 1u << 16 | 1u << 2);
    put(f, slot, 1, 0, 0, TYPE(4) | 1u << 5);
    set(f, DOORBELL(slot), 1);
    struct trb event = {0};
    assert_true(next_event(f, &event));
    acknowledge(f);
    unsigned residue = 0;
    if (event.status >> 24 == SHORT) {
        residue = event.status & 0xffffff;
        event = expect_event(f, 32, SUCCESS);
    }
    assert_int_equal(event.status >> 24, code);
    assert_int_equal(event.control >> 24, slot);
    assert_int_equal(event.control >> 16 & 31, 1);
    return length - residue;
}

static void control_out(struct fixture *f, unsigned slot, uint64_t setup_packet, unsigned code)
{
    unsigned length = (unsigned)(setup_packet >> 48);

    put(f, slot, 1, setup_packet, 8, TYPE(2) | 1u << 6 | (length ? 2u << 16 : 0));
    if (length)
        put(f, slot, 1, BUFFER, length, TYPE(3));
    put(f, slot, 1, 0, 0, TYPE(4) | 1u << 5 | 1u << 16);
    set(f, DOORBELL(slot), 1);
    expect_event(f, 32, code);
}

static void configure(struct fixture *f, unsigned slot)
{
    put_words(f, INPUT, 0, 1u << 3 | 1, 0, 0);
    put_words(f, INPUT + 32, 3u << 27 | 1u << 20, slot << 16, 0, 0);
    put_words(f, INPUT + 32 * 4, 5u << 16, 7u << 3 | 8u << 16, RING(slot, 3) | 1, 0);
    command(f, INPUT, TYPE(12) | SLOT(slot), SUCCESS);
    assert_int_equal(word(f, OUTPUT(slot) + 12) >> 27, 3);
    control_out(f, slot, request(0, 9, 1, 0, 0), SUCCESS);
}

static void put_reads(struct fixture *f, unsigned slot, unsigned n)
{
    while (n--)
        put(f, slot, 3, BUFFER, 8, TYPE(1) | 1u << 5 | 1u << 2);
    set(f, DOORBELL(slot), 3);
}

static void expect_report(struct fixture *f, unsigned slot, const void *bytes, unsigned size)
{
    uint8_t report[8];
    struct trb event = expect_event(f, 32, size < 8 ? SHORT : SUCCESS);

    assert_int_equal(event.status & 0xffffff, 8 - size);
    assert_int_equal(event.control >> 24, slot);
    assert_int_equal(event.control >> 16 & 31, 3);
    mull_mem_read(f->drv.memory, BUFFER, report, 8);
    assert_memory_equal(report, bytes, size);
}

static void test_enumerate(void **state)
{
    struct fixture *f = *state;
    uint8_t data[256];

    reset_ports(f);
    address(f, 1);
    address(f, 2);
    for (unsigned slot = 1; slot < 3; slot++) {
        assert_int_equal(control_in(f, slot, request(0x80, 6, 0x100, 0, 8), SUCCESS), 8);
        assert_int_equal(control_in(f, slot, request(0x80, 6, 0x100, 0, 64), SUCCESS), 18);
        mull_mem_read(f->drv.memory, BUFFER, data, 18);
        assert_int_equal(data[0], 18);
        assert_int_equal(data[7], 64);
        assert_int_equal(control_in(f, slot, request(0x80, 6, 0x200, 0, 255), SUCCESS), 34);
        mull_mem_read(f->drv.memory, BUFFER, data, 34);
        unsigned report = data[18 + 7];
        assert_int_equal(data[29], 0x81);
        assert_int_equal(control_in(f, slot, request(0x81, 6, 0x2200, 0, 255), SUCCESS), report);
        assert_int_equal(control_in(f, slot, request(0x80, 6, 0x302, 9, 255), SUCCESS),
                         slot == 1 ? 14 : 18);
        configure(f, slot);
        assert_int_equal(control_in(f, slot, request(0x80, 8, 0, 0, 1), SUCCESS), 1);
        mull_mem_read(f->drv.memory, BUFFER, data, 1);
        assert_int_equal(data[0], 1);
    }
    expect_quiet(f);
}

static void test_reports(void **state)
{
    struct fixture *f = *state;
    uint8_t lights = 2;

    reset_ports(f);
    address(f, 1);
    address(f, 2);
    configure(f, 1);
    configure(f, 2);
    mull_input_pointer(&f->input, 5, 5, 100, 100, 0, 0); /* nobody listens yet */
    mull_input_key(&f->input, 0x1e, true);
    put_reads(f, 1, 3);
    put_reads(f, 2, 5);
    expect_quiet(f);
    mull_input_pointer(&f->input, 99, 0, 100, 100, 0, 1);
    expect_report(f, 1, "\1\xff\x7f\0\0\0", 6);
    mull_input_pointer(&f->input, 99, 99, 100, 100, 1, 0);
    expect_report(f, 1, "\0\xff\x7f\xff\x7f\xff", 6);
    mull_input_key(&f->input, 0x2a, true);
    expect_report(f, 2, "\2\0\0\0\0\0\0\0", 8);
    mull_input_key(&f->input, 0x148, true);
    expect_report(f, 2, "\2\0\x52\0\0\0\0\0", 8);
    mull_input_key(&f->input, 0x1e, true);
    expect_report(f, 2, "\2\0\x52\4\0\0\0\0", 8);
    mull_input_key(&f->input, 0x148, false);
    expect_report(f, 2, "\2\0\4\0\0\0\0\0", 8);
    /* More than the guest has asked for waits for it; places alone come together. */
    mull_input_pointer(&f->input, 1, 1, 100, 100, 0, 0);
    expect_report(f, 1, "\0\x4b\1\x4b\1\0", 6);
    for (unsigned i = 0; i < 1000; i++)
        mull_input_pointer(&f->input, i % 100, 0, 100, 100, 0, 0);
    expect_quiet(f);
    put_reads(f, 1, 2);
    expect_report(f, 1, "\0\xff\x7f\0\0\0", 6);
    expect_quiet(f);
    /* Lights, which are ours in another order. */
    mull_mem_write(f->drv.memory, BUFFER, &lights, 1);
    control_out(f, 2, request(0x21, 9, 0x200, 0, 1), SUCCESS);
    assert_int_equal(mull_input_leds(&f->input), MULL_LED_CAPS);
    /* A stopped endpoint does not listen, and goes on where it is told to. */
    command(f, 0, TYPE(15) | SLOT(1) | ENDPOINT(3), SUCCESS);
    assert_int_equal(word(f, OUTPUT(1) + 32 * 3) & 7, 3);
    command(f, 0, TYPE(15) | SLOT(1) | ENDPOINT(3), 19);
    mull_input_pointer(&f->input, 7, 7, 100, 100, 0, 0);
    expect_quiet(f);
    f->used[1][3] = 100;
    command(f, (RING(1, 3) + 1600) | 1, TYPE(16) | SLOT(1) | ENDPOINT(3), SUCCESS);
    put_reads(f, 1, 1);
    mull_input_pointer(&f->input, 0, 0, 100, 100, 0, 0);
    expect_report(f, 1, "\0\0\0\0\0\0", 6);
}

static void test_stall(void **state)
{
    struct fixture *f = *state;

    reset_ports(f);
    address(f, 1);
    control_in(f, 1, request(0x80, 6, 0x600, 0, 10), STALL); /* full speed: no qualifier */
    assert_int_equal(word(f, OUTPUT(1) + 32) & 7, 2);
    set(f, DOORBELL(1), 1);
    expect_quiet(f);
    command(f, 0, TYPE(14) | SLOT(1) | ENDPOINT(1), SUCCESS);
    f->used[1][1] += 5;
    command(f, (RING(1, 1) + 16ull * f->used[1][1]) | 1, TYPE(16) | SLOT(1) | ENDPOINT(1), SUCCESS);
    assert_int_equal(control_in(f, 1, request(0x80, 6, 0x100, 0, 18), SUCCESS), 18);
    control_out(f, 1, request(0, 9, 7, 0, 0), STALL);
}

/* Commands that make no sense. */
static void test_refused(void **state)
{
    struct fixture *f = *state;

    reset_ports(f);
    command(f, 0, TYPE(23), SUCCESS);
    command(f, INPUT, TYPE(11) | SLOT(1), 11);
    command(f, INPUT, TYPE(11) | SLOT(200), 11);
    command(f, 0, TYPE(9), SUCCESS);
    command(f, 0, TYPE(30) | SLOT(1), 5);
    command(f, INPUT, TYPE(12) | SLOT(1), 19); /* has no address */
    command(f, 0, TYPE(17) | SLOT(1), 19);
    command(f, 0, TYPE(15) | SLOT(1) | ENDPOINT(1), 12);
    command(f, 0, TYPE(15) | SLOT(1), 17);
    put_words(f, INPUT, 0, 3, 0, 0);
    put_words(f, INPUT + 32, 1u << 27, 4u << 16, 0, 0); /* an empty port */
    command(f, INPUT, TYPE(11) | SLOT(1), 4);
    put_words(f, INPUT + 32, 1u << 27, 99u << 16, 0, 0);
    command(f, INPUT, TYPE(11) | SLOT(1), 17);
    command(f, 0, TYPE(10) | SLOT(1), SUCCESS);
    address(f, 1);
    command(f, INPUT, TYPE(11) | SLOT(1), 19); /* twice */
    put_words(f, INPUT + 32, 1u << 27, 1u << 16, 0, 0);
    assert_int_equal(command(f, 0, TYPE(9), SUCCESS), 2);
    command(f, INPUT, TYPE(11) | SLOT(2), 4); /* another slot has the port */
    for (unsigned i = 3; i <= 8; i++)
        assert_int_equal(command(f, 0, TYPE(9), SUCCESS), i);
    command(f, 0, TYPE(9), 9);
    /* An endpoint that the device has not. */
    put_words(f, INPUT, 0, 1u << 5 | 1, 0, 0);
    put_words(f, INPUT + 32, 5u << 27, 1u << 16, 0, 0);
    put_words(f, INPUT + 32 * 6, 0, 7u << 3, RING(1, 5) | 1, 0);
    command(f, INPUT, TYPE(12) | SLOT(1), SUCCESS);
    put(f, 1, 5, BUFFER, 8, TYPE(1));
    set(f, DOORBELL(1), 5);
    expect_event(f, 32, 4);
}

/* More events than there is room for, with ports' before them. */
static void test_full_ring(void **state)
{
    struct fixture *f = *state;
    struct trb event;
    unsigned seen = 0;

    for (unsigned i = 0; i < 40; i++)
        put_command(f, 0, TYPE(23));
    set(f, DOORBELL(0), 0);
    for (unsigned turn = 0; turn < 20; turn++) {
        while (next_event(f, &event))
            seen += (event.control >> 10 & 63) == 33;
        acknowledge(f);
    }
    assert_int_equal(seen, 40);
    assert_int_equal(get(f, OPERATIONAL + 4) & 4, 0);
}

static void expect_host_error(struct fixture *f)
{
    assert_int_equal(get(f, OPERATIONAL + 4) & 5, 5);
    start(f);
    assert_int_equal(get(f, OPERATIONAL + 4) & 5, 0);
    reset_ports(f);
}

/* Structures that lead out of memory, or round in a circle. */
static void test_nowhere(void **state)
{
    struct fixture *f = *state;
    struct trb trb = {COMMANDS, 0, TYPE(6) | 1};

    reset_ports(f);
    mull_mem_write(f->drv.memory, COMMANDS, &trb, sizeof(trb));
    set(f, DOORBELL(0), 0);
    expect_host_error(f);
    set(f, OPERATIONAL + 0x1c, 0x7fffffff);
    set(f, DOORBELL(0), 0);
    expect_host_error(f);
    set(f, INTERRUPTER + 0x14, 0x7fffffff);
    put_command(f, 0, TYPE(23));
    set(f, DOORBELL(0), 0);
    expect_host_error(f);
    command(f, 0, TYPE(9), SUCCESS);
    put_command(f, 1ull << 60, TYPE(11) | SLOT(1));
    set(f, DOORBELL(0), 0);
    expect_host_error(f);
    address(f, 1);
    put(f, 1, 1, 1ull << 60, 0, TYPE(6));
    set(f, DOORBELL(1), 1);
    expect_host_error(f);
    /* Data outside memory is the transfer's error alone. */
    address(f, 1);
    put(f, 1, 1, request(0x80, 6, 0x100, 0, 18), 8, TYPE(2) | 1u << 6);
    put(f, 1, 1, DRV_RAM - 4, 18, TYPE(3) | 1u << 16);
    set(f, DOORBELL(1), 1);
    expect_event(f, 32, 2);
    assert_int_equal(get(f, OPERATIONAL + 4) & 4, 0);
    for (unsigned i = 0; i < 256; i++)
        set(f, DOORBELL(i), i * 3);
}

/* Saved between a report that was asked for and the one that comes. */
static void test_state(void **state)
{
    struct fixture *f = *state, to = {0};
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    struct mull_error err = {0};
    size_t size;

    make(&to);
    reset_ports(f);
    address(f, 1);
    configure(f, 1);
    put_reads(f, 1, 2);
    assert_int_equal(mull_state_writer_buffer(&writer, &err), 0);
    assert_int_equal(mull_state_write_ram(writer, f->drv.memory, &err), 0);
    assert_int_equal(
        mull_state_write(writer, "xhci", 0, f->drv.device->ops->state, f->drv.device->object, &err),
        0);
    assert_int_equal(mull_state_write_end(writer, &err), 0);
    const uint8_t *data = mull_state_writer_data(writer, &size);
    assert_int_equal(mull_state_reader_buffer(data, size, &reader, &err), 0);
    while (mull_state_next(reader, &section, &err) == 1) {
        if (section.kind == MULL_STATE_RAM)
            assert_int_equal(mull_state_read_ram(reader, to.drv.memory, &err), 0);
        else
            assert_int_equal(
                mull_state_read(reader, to.drv.device->ops->state, to.drv.device->object, &err), 0);
    }
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(writer);
    to.drv.device->ops->resume(to.drv.device);
    to.event = f->event;
    to.cycle = f->cycle;
    mull_input_pointer(&to.input, 99, 99, 100, 100, 0, 2);
    expect_report(&to, 1, "\2\xff\x7f\xff\x7f\0", 6);
    unmake(&to);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_enumerate), T(test_reports), T(test_stall), T(test_refused),
        T(test_full_ring), T(test_nowhere), T(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
