/*
 * The save stream: what is written comes back; other versions by the rules; nothing damaged, cut
 * off or foreign is ever taken for good.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/cpu_state.h"
#include "state/internal.h"

/* ---- A device with a bit of everything, in three versions ---- */

struct queue {
    uint16_t size;
    uint64_t address;
};

struct device {
    uint8_t status;
    bool enabled, flags[3];
    uint32_t word;
    uint64_t numbers[4];
    uint8_t mac[6];
    struct queue queue[2];
    unsigned saved, loaded;
    uint32_t loaded_version;
};

static const struct mull_field queue_fields[] = {
    MULL_FIELD(struct queue, size),
    MULL_FIELD(struct queue, address),
    MULL_FIELDS_END,
};
static const struct mull_state_desc queue_desc = {
    .name = "queue", .version = 1, .oldest = 1, .fields = queue_fields};

static void before_save(void *object)
{
    ((struct device *)object)->saved++;
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct device *d = object;

    d->loaded++;
    d->loaded_version = version;
    return d->status == 0xff ? mull_fail(err, 22, "status %#x is impossible", d->status) : 0;
}

#define COMMON_FIELDS                                                                              \
    MULL_FIELD(struct device, status), MULL_FIELD(struct device, enabled),                         \
        MULL_FIELD_ARRAY(struct device, flags), MULL_FIELD(struct device, word),                   \
        MULL_FIELD_ARRAY(struct device, numbers), MULL_FIELD_BLOB(struct device, mac)

static const struct mull_field fields_2[] = {
    COMMON_FIELDS,
    MULL_FIELD_NESTED_ARRAY(struct device, queue, &queue_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc_2 = {.name = "device",
                                              .version = 2,
                                              .oldest = 1,
                                              .fields = fields_2,
                                              .before_save = before_save,
                                              .after_load = after_load};

/* Version 1 had a field that went, and not yet the queues. */
static const struct mull_field fields_1[] = {
    COMMON_FIELDS,
    {.name = "gone",
     .kind = MULL_FIELD_UINT,
     .offset = offsetof(struct device, word),
     .size = 4,
     .count = 1,
     .since = 1},
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc_1 = {
    .name = "device", .version = 1, .oldest = 1, .fields = fields_1};

/* Version 2's reader of version 1's data: the queues came with 2. */
static const struct mull_field fields_2_since[] = {
    COMMON_FIELDS,
    {.name = "queue",
     .kind = MULL_FIELD_STRUCT,
     .offset = offsetof(struct device, queue),
     .size = sizeof(struct queue),
     .count = 2,
     .since = 2,
     .nested = &queue_desc},
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc_2_since = {
    .name = "device", .version = 2, .oldest = 1, .fields = fields_2_since};

static const struct mull_state_desc desc_3 = {
    .name = "device", .version = 3, .oldest = 3, .fields = fields_2};

static struct device sample(void)
{
    return (struct device){
        .status = 7,
        .enabled = true,
        .flags = {false, true, true},
        .word = 0xdeadbeef,
        .numbers = {1, 0x1122334455667788, 0, UINT64_MAX},
        .mac = {2, 3, 4, 5, 6, 7},
        .queue = {{256, 0x10000}, {128, 0xfffffffff000}},
    };
}

/* ---- Helpers ---- */

static struct mull_state_writer *writer(void)
{
    struct mull_state_writer *w;

    assert_int_equal(mull_state_writer_buffer(&w, NULL), 0);
    return w;
}

static struct mull_state_reader *reader(struct mull_state_writer *w)
{
    struct mull_state_reader *r;
    size_t size;
    const uint8_t *data = mull_state_writer_data(w, &size);

    assert_int_equal(mull_state_reader_buffer(data, size, &r, NULL), 0);
    return r;
}

/* Save with one description, load with another. @return mull_state_read()'s. */
static int convert(const struct mull_state_desc *from, struct device *in,
                   const struct mull_state_desc *to, struct device *out, struct mull_error *err)
{
    struct mull_state_writer *w = writer();
    struct mull_state_section section;
    struct mull_state_reader *r;
    int code;

    assert_int_equal(mull_state_write(w, "device.0", 3, from, in, NULL), 0);
    assert_int_equal(mull_state_write_end(w, NULL), 0);
    r = reader(w);
    assert_int_equal(mull_state_next(r, &section, NULL), 1);
    assert_int_equal(section.kind, MULL_STATE_OBJECT);
    assert_string_equal(section.name, "device.0");
    assert_string_equal(section.desc, from->name);
    assert_int_equal(section.id, 3);
    assert_int_equal(section.version, from->version);
    code = mull_state_read(r, to, out, err);
    assert_int_equal(mull_state_next(r, &section, NULL), 0);
    mull_state_reader_destroy(r);
    mull_state_writer_destroy(w);
    return code;
}

static void assert_refused(const struct mull_state_desc *from, struct device *in,
                           const struct mull_state_desc *to, const char *message)
{
    struct device out = {.status = 0x55}, before = out;
    struct mull_error err = {0};

    assert_true(convert(from, in, to, &out, &err) < 0);
    assert_non_null(strstr(err.message, message));
    assert_memory_equal(&out, &before, sizeof(out)); /* untouched */
}

/* ---- Objects ---- */

static void test_round_trip(void **state)
{
    struct device in = sample(), out = {0};

    assert_int_equal(convert(&desc_2, &in, &desc_2, &out, NULL), 0);
    assert_int_equal(in.saved, 1);
    assert_int_equal(out.loaded, 1);
    assert_int_equal(out.loaded_version, 2);
    in.saved = out.loaded = out.loaded_version = 0;
    assert_memory_equal(&in, &out, sizeof(in));
}

static void test_versions(void **state)
{
    struct device in = sample(), out = {.queue = {{9, 9}, {8, 8}}};

    /* 1 read by 2: "gone" is skipped, the queues keep their defaults. */
    assert_int_equal(convert(&desc_1, &in, &desc_2_since, &out, NULL), 0);
    assert_int_equal(out.word, 0xdeadbeef);
    assert_int_equal(out.queue[0].size, 9);
    /* Where the description does not say that they came later, they are missing. */
    assert_refused(&desc_1, &in, &desc_2, "device.queue is missing");
    assert_refused(&desc_2, &in, &desc_1, "newer");
    assert_refused(&desc_2, &in, &desc_3, "reads 3 and newer");
    assert_refused(&desc_2, &in, &mull_cpu_state_desc, "device was saved where cpu");
}

static void test_widths(void **state)
{
    static const struct mull_field narrow[] = {{.name = "word",
                                                .kind = MULL_FIELD_UINT,
                                                .offset = offsetof(struct device, word),
                                                .size = 2,
                                                .count = 1,
                                                .since = 1},
                                               MULL_FIELDS_END};
    static const struct mull_field wide[] = {{.name = "word",
                                              .kind = MULL_FIELD_UINT,
                                              .offset = offsetof(struct device, numbers),
                                              .size = 8,
                                              .count = 1,
                                              .since = 1},
                                             MULL_FIELDS_END};
    static const struct mull_field two[] = {{.name = "word",
                                             .kind = MULL_FIELD_UINT,
                                             .offset = offsetof(struct device, numbers),
                                             .size = 8,
                                             .count = 2,
                                             .since = 1},
                                            MULL_FIELDS_END};
    static const struct mull_field bytes[] = {{.name = "word",
                                               .kind = MULL_FIELD_BYTES,
                                               .offset = offsetof(struct device, word),
                                               .size = 4,
                                               .count = 1,
                                               .since = 1},
                                              MULL_FIELDS_END};
    static const struct mull_field boolean[] = {{.name = "word",
                                                 .kind = MULL_FIELD_BOOL,
                                                 .offset = offsetof(struct device, enabled),
                                                 .size = 1,
                                                 .count = 1,
                                                 .since = 1},
                                                MULL_FIELDS_END};
    const struct mull_state_desc narrow_desc = {"device", 2, 1, narrow, NULL, NULL},
                                 wide_desc = {"device", 2, 1, wide, NULL, NULL},
                                 two_desc = {"device", 2, 1, two, NULL, NULL},
                                 bytes_desc = {"device", 2, 1, bytes, NULL, NULL},
                                 bool_desc = {"device", 2, 1, boolean, NULL, NULL};
    struct device in = sample(), out = {0};

    assert_int_equal(convert(&desc_2, &in, &wide_desc, &out, NULL), 0);
    assert_int_equal(out.numbers[0], 0xdeadbeef);
    assert_refused(&desc_2, &in, &narrow_desc, "does not fit");
    assert_refused(&desc_2, &in, &bool_desc, "does not fit");
    assert_refused(&desc_2, &in, &two_desc, "expected");
    assert_refused(&desc_2, &in, &bytes_desc, "expected");
    in.word = 0xffff;
    assert_int_equal(convert(&desc_2, &in, &narrow_desc, &out, NULL), 0);
    assert_int_equal(out.word, 0xffff);
    in.word = 1;
    assert_int_equal(convert(&desc_2, &in, &bool_desc, &out, NULL), 0);
    assert_true(out.enabled);
}

static void test_after_load(void **state)
{
    struct device in = sample(), out = {0};
    struct mull_error err = {0};

    in.status = 0xff;
    assert_int_equal(convert(&desc_2, &in, &desc_2, &out, &err), -22);
    assert_string_equal(err.message, "status 0xff is impossible");
}

static void test_cpu(void **state)
{
    struct mull_state_writer *w = writer();
    struct mull_state_section section;
    struct mull_cpu_state *in = calloc(1, sizeof(*in)), *out = calloc(1, sizeof(*out));
    struct mull_state_reader *r;

    mull_cpu_state_reset(in, 1, false);
    for (unsigned i = 0; i < 16; i++)
        in->gpr[i] = 0x0101010101010101ull * i;
    in->kvm_steal_time = 0x1001;
    for (unsigned i = 0; i < sizeof(in->xsave); i++)
        in->xsave[i] = (uint8_t)(i * 7);
    assert_int_equal(mull_state_write(w, "cpu", 1, &mull_cpu_state_desc, in, NULL), 0);
    assert_int_equal(mull_state_write_end(w, NULL), 0);
    r = reader(w);
    assert_int_equal(mull_state_next(r, &section, NULL), 1);
    assert_int_equal(mull_state_read(r, &mull_cpu_state_desc, out, NULL), 0);
    assert_memory_equal(in, out, sizeof(*in));
    mull_state_reader_destroy(r);
    mull_state_writer_destroy(w);
    free(in);
    free(out);
}

/* ---- Damage ---- */

static struct mull_memory *memory(uint64_t size)
{
    struct mull_memory *m;

    assert_int_equal(mull_memory_create(NULL, &m, NULL), 0);
    assert_int_equal(mull_memory_add_ram(m, 0, size, false, NULL), 0);
    assert_int_equal(mull_memory_add_ram(m, 0x100000000, 0x10000, true, NULL), 0);
    return m;
}

/* Read all of a stream. @return 0 if it was whole and good. */
static int read_all(const uint8_t *data, size_t size, struct mull_memory *m)
{
    struct mull_state_reader *r;
    struct mull_state_section section;
    struct device d = {0};
    size_t blob;
    int code = mull_state_reader_buffer(data, size, &r, NULL);

    if (code)
        return code;
    while ((code = mull_state_next(r, &section, NULL)) > 0) {
        if (section.kind == MULL_STATE_OBJECT)
            code = mull_state_read(r, &desc_2, &d, NULL);
        else if (section.kind == MULL_STATE_BLOB)
            mull_state_blob(r, &blob);
        else if (m)
            code = mull_state_read_ram(r, m, NULL);
        if (code < 0)
            break;
    }
    mull_state_reader_destroy(r);
    return code;
}

static struct mull_state_writer *small_stream(void)
{
    struct mull_state_writer *w = writer();
    struct device in = sample();

    assert_int_equal(mull_state_write_blob(w, "config", "{\"a\": 1}\n", 9, NULL), 0);
    assert_int_equal(mull_state_write(w, "device.0", 0, &desc_2, &in, NULL), 0);
    assert_int_equal(mull_state_write(w, "device.1", 0, &desc_2, &in, NULL), 0);
    assert_int_equal(mull_state_write_end(w, NULL), 0);
    return w;
}

static void test_truncation(void **state)
{
    struct mull_state_writer *w = small_stream();
    size_t size;
    const uint8_t *data = mull_state_writer_data(w, &size);

    assert_int_equal(read_all(data, size, NULL), 0);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1); /* of its exact size: ASan sees a step too far */

        memcpy(copy, data, cut);
        assert_true(read_all(copy, cut, NULL) < 0);
        free(copy);
    }
    mull_state_writer_destroy(w);
}

static void test_bit_flips(void **state)
{
    struct mull_state_writer *w = small_stream();
    size_t size;
    const uint8_t *data = mull_state_writer_data(w, &size);
    uint8_t *copy = malloc(size);

    for (size_t bit = 0; bit < size * 8; bit++) {
        memcpy(copy, data, size);
        copy[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_true(read_all(copy, size, NULL) < 0);
    }
    free(copy);
    mull_state_writer_destroy(w);
}

/* Damage that the checksum does not see: whoever makes the stream can make that, too. */
static void test_hostile(void **state)
{
    struct mull_state_writer *w = small_stream();
    size_t size;
    const uint8_t *data = mull_state_writer_data(w, &size);
    const size_t first = STATE_MAGIC_SIZE + 4;
    unsigned good = 0, bad = 0;

    for (size_t at = first; at < size; at++) {
        for (unsigned change = 1; change < 256; change += 37) {
            uint8_t *copy = malloc(size);
            uint32_t length, crc;

            memcpy(copy, data, size);
            copy[at] = (uint8_t)(copy[at] + change);
            for (size_t s = first; s + 12 <= size; s += 12 + length) {
                memcpy(&length, copy + s + 4, 4);
                if (length > size - s - 12)
                    break;
                crc = mull_state_crc32c(0, copy + s, 8 + length);
                memcpy(copy + s + 8 + length, &crc, 4);
            }
            if (read_all(copy, size, NULL))
                bad++;
            else
                good++;
            free(copy);
        }
    }
    assert_true(good > 100 && bad > 100); /* changed values load, changed structure does not */
    mull_state_writer_destroy(w);
}

static void test_lost_section(void **state)
{
    struct mull_state_writer *w = small_stream();
    size_t size;
    const uint8_t *data = mull_state_writer_data(w, &size);
    uint8_t *copy = malloc(size);
    uint32_t length;

    memcpy(&length, data + STATE_MAGIC_SIZE + 4 + 4, 4);
    length += 12;
    memcpy(copy, data, STATE_MAGIC_SIZE + 4);
    memcpy(copy + STATE_MAGIC_SIZE + 4, data + STATE_MAGIC_SIZE + 4 + length,
           size - STATE_MAGIC_SIZE - 4 - length);
    assert_true(read_all(copy, size - length, NULL) < 0);
    free(copy);
    mull_state_writer_destroy(w);
}

static void test_foreign(void **state)
{
    struct mull_state_reader *r;
    struct mull_error err = {0};
    uint8_t newer[12] = STATE_MAGIC "\x02";

    assert_true(mull_state_reader_buffer("this is just some text", 22, &r, &err) < 0);
    assert_non_null(strstr(err.message, "not a saved machine"));
    assert_true(mull_state_reader_buffer(newer, 12, &r, &err) < 0);
    assert_non_null(strstr(err.message, "version 2"));
    assert_true(mull_state_reader_buffer(NULL, 0, &r, &err) < 0);
}

/* ---- RAM ---- */

static void test_ram(void **state)
{
    struct mull_memory *from = memory(8 << 20), *to = memory(8 << 20), *other = memory(4 << 20);
    struct mull_state_writer *w = writer();
    uint8_t page[4096], got[4096];
    size_t size;

    for (unsigned i = 0; i < sizeof(page); i++)
        page[i] = (uint8_t)(i * 3 + 1);
    assert_int_equal(mull_mem_write(from, 0x3000, page, sizeof(page)), 0);
    assert_int_equal(mull_mem_write(from, (8 << 20) - 4096, page, sizeof(page)), 0);
    assert_int_equal(mull_mem_load(from, 0x100000000, page, sizeof(page)), 0);
    assert_int_equal(mull_mem_set(from, 0x5000, 0, 4096), 0);
    assert_int_equal(mull_mem_set(to, 0x9000, 0xaa, 4096), 0); /* must be gone */
    assert_int_equal(mull_state_write_ram(w, from, NULL), 0);
    assert_int_equal(mull_state_write_end(w, NULL), 0);
    const uint8_t *data = mull_state_writer_data(w, &size);
    assert_true(size < 5 * 4096); /* zero pages are left out */
    assert_int_equal(read_all(data, size, to), 0);
    assert_int_equal(mull_mem_read(to, 0x3000, got, sizeof(got)), 0);
    assert_memory_equal(page, got, sizeof(page));
    assert_int_equal(mull_mem_read(to, (8 << 20) - 4096, got, sizeof(got)), 0);
    assert_memory_equal(page, got, sizeof(page));
    assert_int_equal(mull_mem_read(to, 0x100000000, got, sizeof(got)), 0);
    assert_memory_equal(page, got, sizeof(page));
    assert_int_equal(mull_mem_read(to, 0x9000, got, sizeof(got)), 0);
    memset(page, 0, sizeof(page));
    assert_memory_equal(page, got, sizeof(page));
    assert_true(read_all(data, size, other) < 0);
    mull_state_writer_destroy(w);
    mull_memory_destroy(from);
    mull_memory_destroy(to);
    mull_memory_destroy(other);
}

static void test_dirty_pages(void **state)
{
    struct mull_memory *from = memory(4 << 20), *to = memory(4 << 20);
    struct mull_state_writer *w = writer();
    unsigned count;
    const struct mull_ram *ram = mull_memory_ram(from, &count);
    uint8_t bitmap[128], got[2];
    uint64_t pages = 0;
    size_t size;

    assert_int_equal(mull_mem_set(from, 0x1000, 1, 0x2000), 0);
    assert_int_equal(mull_state_write_ram(w, from, NULL), 0);
    mull_memory_dirty_start(from);
    assert_int_equal(mull_mem_set(from, 0x1000, 0, 0x1000), 0); /* became zero: must be said */
    assert_int_equal(mull_mem_set(from, 0x300000, 9, 1), 0);
    mull_memory_dirty_fetch(from, ram, bitmap);
    assert_int_equal(mull_state_write_pages(w, from, ram, bitmap, &pages, NULL), 0);
    assert_int_equal(pages, 2);
    assert_int_equal(mull_state_write_end(w, NULL), 0);
    const uint8_t *data = mull_state_writer_data(w, &size);
    assert_int_equal(read_all(data, size, to), 0);
    assert_int_equal(mull_mem_read(to, 0x1000, got, 1), 0);
    assert_int_equal(got[0], 0);
    assert_int_equal(mull_mem_read(to, 0x2000, got, 1), 0);
    assert_int_equal(got[0], 1);
    assert_int_equal(mull_mem_read(to, 0x300000, got, 2), 0);
    assert_int_equal(got[0], 9);
    assert_int_equal(got[1], 0);
    mull_state_writer_destroy(w);
    mull_memory_destroy(from);
    mull_memory_destroy(to);
}

/* ---- Descriptors, and looking at it ---- */

static void test_descriptors(void **state)
{
    FILE *file = tmpfile();
    struct mull_state_writer *w;
    struct mull_state_reader *r;
    struct mull_state_section section;
    struct device in = sample(), out = {0};
    struct mull_error err = {0};
    int full = fileno(fopen("/dev/full", "w"));

    assert_int_equal(mull_state_writer_fd(fileno(file), &w, NULL), 0);
    assert_int_equal(mull_state_write(w, "x", 0, &desc_2, &in, NULL), 0);
    assert_int_equal(mull_state_write_end(w, NULL), 0);
    mull_state_writer_destroy(w);
    lseek(fileno(file), 0, SEEK_SET);
    assert_int_equal(mull_state_reader_fd(fileno(file), &r, NULL), 0);
    assert_int_equal(mull_state_next(r, &section, NULL), 1);
    assert_int_equal(mull_state_read(r, &desc_2, &out, NULL), 0);
    assert_int_equal(mull_state_next(r, &section, NULL), 0);
    assert_int_equal(mull_state_next(r, &section, NULL), 0);
    mull_state_reader_destroy(r);
    fclose(file);
    assert_true(mull_state_writer_fd(full, &w, &err) < 0);
    assert_non_null(strstr(err.message, "No space left"));
    close(full);
}

static void test_dump(void **state)
{
    struct mull_state_writer *w = small_stream();
    struct mull_state_reader *r = reader(w);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    json_error_t where;

    assert_int_equal(mull_state_dump(r, out, NULL), 0);
    fclose(out);
    json_t *root = json_loads(text, 0, &where);
    if (!root)
        fail_msg("%s in line %d:\n%s", where.text, where.line, text);
    const json_t *sections = json_object_get(root, "sections");
    assert_int_equal(json_array_size(sections), 3);
    const json_t *device = json_object_get(json_array_get(sections, 1), "value");
    assert_int_equal(json_integer_value(json_object_get(device, "word")), 0xdeadbeef);
    assert_string_equal(json_string_value(json_object_get(device, "mac")), "020304050607");
    assert_string_equal(json_string_value(json_array_get(json_object_get(device, "numbers"), 3)),
                        "0xffffffffffffffff");
    const json_t *queue = json_array_get(json_object_get(device, "queue"), 1);
    assert_int_equal(json_integer_value(json_object_get(queue, "size")), 128);
    assert_true(json_is_true(json_object_get(root, "complete")));
    json_decref(root);
    free(text);
    mull_state_reader_destroy(r);
    mull_state_writer_destroy(w);
}

static void test_crc32c(void **state)
{
    uint8_t bytes[32];

    /* RFC 3720, B.4. */
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(mull_state_crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(mull_state_crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(mull_state_crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
    assert_int_equal(mull_state_crc32c(mull_state_crc32c(0, bytes, 5), bytes + 5, 27), 0x46dd794e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c),      cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_versions),    cmocka_unit_test(test_widths),
        cmocka_unit_test(test_after_load),  cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_truncation),  cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_hostile),     cmocka_unit_test(test_lost_section),
        cmocka_unit_test(test_foreign),     cmocka_unit_test(test_ram),
        cmocka_unit_test(test_dirty_pages), cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_dump),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
