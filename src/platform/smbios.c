/*
 * SMBIOS structures (DSP0134, chapter 7), one after the other: a formatted area, then its strings.
 */
#include "platform/smbios.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define STRINGS_MAX 6

struct builder {
    struct mull_smbios *out;
    uint8_t area[128];
    unsigned size;
    const char *string[STRINGS_MAX];
    unsigned strings;
    uint16_t count, largest;
    bool failed;
};

static void put(struct builder *b, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes && b->size < sizeof(b->area); i++)
        b->area[b->size++] = (uint8_t)(value >> 8 * i);
}

/* A string's number in its structure; 0: none. */
static void put_string(struct builder *b, const char *text)
{
    if (*text && b->strings < STRINGS_MAX) {
        b->string[b->strings++] = text;
        put(b, b->strings, 1);
    } else {
        put(b, 0, 1);
    }
}

static void begin(struct builder *b, uint8_t type, uint16_t handle)
{
    b->size = b->strings = 0;
    put(b, type, 1);
    put(b, 0, 1);
    put(b, handle, 2);
}

static void append(struct builder *b, const void *data, size_t size)
{
    if (size > sizeof(b->out->tables) - b->out->size) {
        b->failed = true;
        return;
    }
    memcpy(b->out->tables + b->out->size, data, size);
    b->out->size += size;
}

static void end(struct builder *b)
{
    size_t start = b->out->size;

    b->area[1] = (uint8_t)b->size;
    append(b, b->area, b->size);
    for (unsigned i = 0; i < b->strings; i++)
        append(b, b->string[i], strlen(b->string[i]) + 1);
    append(b, "\0", b->strings ? 1 : 2);
    b->count++;
    if (b->out->size - start > b->largest)
        b->largest = (uint16_t)(b->out->size - start);
}

static void bios(struct builder *b)
{
    begin(b, 0, 0);
    put_string(b, "Mullion");
    put_string(b, MULLION_VERSION);
    put(b, 0xe800, 2);
    put_string(b, "01/01/2026");
    put(b, 0, 1);
    put(b, 1u << 3, 8); /* characteristics are not given */
    put(b, 0, 1);
    put(b, 1u << 4, 1); /* a virtual machine */
    put(b, 0xffffffff, 4);
    end(b);
}

static void system_information(struct builder *b, const struct mull_smbios_config *c)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

    begin(b, 1, 0x100);
    put_string(b, "Mullion");
    put_string(b, "Virtual Machine");
    put_string(b, c->name);
    put_string(b, c->serial);
    for (unsigned i = 0; i < 16; i++) /* the first three fields are little-endian: 7.2.1 */
        put(b, c->uuid[order[i]], 1);
    put(b, 6, 1); /* woken by the power switch */
    put(b, 0, 1);
    put(b, 0, 1);
    end(b);
}

static void chassis(struct builder *b, const struct mull_smbios_config *c)
{
    begin(b, 3, 0x300);
    put_string(b, "Mullion");
    put(b, 1, 1); /* other */
    put(b, 0, 1);
    put_string(b, c->serial);
    put(b, 0, 1);
    put(b, 0x03030303, 4); /* states: safe; security: none */
    put(b, 0, 4);
    put(b, 0, 4);
    put(b, 0, 1);
    end(b);
}

static void processor(struct builder *b, unsigned index)
{
    begin(b, 4, (uint16_t)(0x400 + index));
    put_string(b, "CPU");
    put(b, 3, 1); /* central processor */
    put(b, 1, 1); /* family: other */
    put_string(b, "Mullion");
    put(b, 0, 8);
    put(b, 0, 1);
    put(b, 0, 1);
    put(b, 0, 2);
    put(b, 0, 2);
    put(b, 0, 2);
    put(b, 0x41, 1); /* populated, enabled */
    put(b, 1, 1);
    put(b, 0xffff, 2);
    put(b, 0xffff, 2);
    put(b, 0xffff, 2);
    put(b, 0, 3);
    put(b, 1, 1);
    put(b, 1, 1);
    put(b, 1, 1);
    put(b, 0x04, 2); /* 64-bit capable */
    put(b, 1, 2);
    end(b);
}

static void memory(struct builder *b, const struct mull_smbios_config *c)
{
    uint64_t mib = c->memory >> 20, kib = c->memory >> 10;

    begin(b, 16, 0x1000); /* physical memory array */
    put(b, 1, 1);
    put(b, 3, 1);
    put(b, 6, 1); /* multi-bit error correction */
    put(b, kib < 0x80000000 ? kib : 0x80000000, 4);
    put(b, 0xfffe, 2);
    put(b, 1, 2);
    put(b, kib < 0x80000000 ? 0 : c->memory, 8);
    end(b);

    begin(b, 17, 0x1100); /* memory device */
    put(b, 0x1000, 2);
    put(b, 0xfffe, 2);
    put(b, 0xffff, 2);
    put(b, 0xffff, 2);
    put(b, mib < 0x7fff ? mib : 0x7fff, 2);
    put(b, 9, 1); /* DIMM */
    put(b, 0, 1);
    put_string(b, "DIMM 0");
    put(b, 0, 1);
    put(b, 7, 1); /* RAM */
    put(b, 2, 2);
    put(b, 0, 2);
    put_string(b, "Mullion");
    put(b, 0, 3);
    put(b, 0, 1);
    put(b, mib < 0x7fff ? 0 : mib, 4);
    put(b, 0, 8);
    end(b);

    begin(b, 19, 0x1300); /* mapped address */
    put(b, 0, 4);
    put(b, kib - 1 < 0xffffffff ? kib - 1 : 0xffffffff, 4);
    put(b, 0x1000, 2);
    put(b, 1, 1);
    put(b, 0, 8);
    put(b, kib - 1 < 0xffffffff ? 0 : c->memory - 1, 8);
    end(b);
}

/* The 32-bit entry point (5.2.1). */
static void anchor(struct builder *b)
{
    uint8_t *a = b->out->anchor;
    uint16_t size = (uint16_t)b->out->size;

    memset(a, 0, sizeof(b->out->anchor));
    memcpy(a, "_SM_", 4);
    a[5] = sizeof(b->out->anchor);
    a[6] = 2;
    a[7] = 8;
    memcpy(a + 8, &b->largest, 2);
    memcpy(a + 16, "_DMI_", 5);
    memcpy(a + 22, &size, 2);
    memcpy(a + 28, &b->count, 2);
    a[30] = 0x28;
}

int mull_smbios_build(const struct mull_smbios_config *config, struct mull_smbios *out,
                      struct mull_error *err)
{
    struct builder b = {.out = out};

    out->size = 0;
    bios(&b);
    system_information(&b, config);
    chassis(&b, config);
    for (unsigned i = 0; i < config->cpus; i++)
        processor(&b, i);
    memory(&b, config);
    begin(&b, 32, 0x2000); /* system boot information */
    put(&b, 0, 7);
    end(&b);
    begin(&b, 127, 0x7f00); /* end of table */
    end(&b);
    if (b.failed)
        return mull_fail(err, ENOSPC, "SMBIOS tables: larger than %u bytes", MULL_SMBIOS_MAX);
    anchor(&b);
    return 0;
}
