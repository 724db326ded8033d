/*
 * See iso.h. Sections are those of ECMA-119 (4th edition, 2019); the second tree follows the Joliet
 * specification (Microsoft, 1995): the same structures with names in UCS-2.
 *
 *     sector 16 volume descriptor   20 path tables of both trees, little and big endian
 *            17 Joliet's             24 root folder, 28 Joliet's root folder
 *            18 end of descriptors   32 files, each from a sector on
 */
#include "image/iso.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#define SECTOR 2048u
#define DESCRIPTOR_SECTOR 16u
#define TABLE_SECTOR 20u /* four path tables, a sector each */
#define ROOT_SECTOR 24u  /* a folder has FOLDER_SECTORS */
#define JOLIET_SECTOR 28u
#define FOLDER_SECTORS 4u
#define DATA_SECTOR 32u
#define RECORD_HEAD 33u /* of a directory record, before its name (9.1) */

struct iso {
    uint8_t *image;
    size_t length;
    const struct mull_iso_file *files;
    unsigned count;
    uint32_t at[MULL_ISO_FILES]; /* first sector of each file */
};

/* ---- Numbers: both byte orders, one after the other (7.2.3, 7.3.3) ---- */

static void put16(uint8_t *p, unsigned v)
{
    p[0] = p[3] = (uint8_t)v;
    p[1] = p[2] = (uint8_t)(v >> 8);
}

static void put32_le(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void put32_be(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void put32(uint8_t *p, uint32_t v)
{
    put32_le(p, v);
    put32_be(p + 4, v);
}

/* A text field padded with spaces; UCS-2, big endian, in Joliet. */
static void put_text(uint8_t *p, size_t room, const char *text, bool joliet)
{
    size_t n = strlen(text);

    if (joliet) {
        for (size_t i = 0; i + 1 < room; i += 2) {
            p[i] = 0;
            p[i + 1] = i / 2 < n ? (uint8_t)text[i / 2] : ' ';
        }
        return;
    }
    for (size_t i = 0; i < room; i++)
        p[i] = i < n ? (uint8_t)toupper((unsigned char)text[i]) : ' ';
}

/* ---- Names ---- */

static bool name_is_good(const char *name, size_t most)
{
    size_t n = strlen(name);

    return n && n <= most && name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

/* A name of the first tree: eight characters, a dot, three, a version (7.5.1, level 1: 10.1). The
 * file's number keeps names apart that are the same so far. */
static void short_name(const char *name, unsigned number, char out[16])
{
    const char *dot = strrchr(name, '.');
    char stem[9] = "", extension[4] = "";
    unsigned n = 0;

    for (const char *p = name; *p && p != dot && n < 5; p++)
        stem[n++] = (char)(isalnum((unsigned char)*p) ? toupper((unsigned char)*p) : '_');
    snprintf(stem + n, sizeof(stem) - n, "_%02u", number);
    n = 0;
    for (const char *p = dot ? dot + 1 : ""; *p && n < 3; p++)
        extension[n++] = (char)(isalnum((unsigned char)*p) ? toupper((unsigned char)*p) : '_');
    snprintf(out, 16, "%s.%s;1", stem, extension);
}

/* ---- Records ---- */

/* A directory record (9.1). @param name  its bytes. @return its length, even */
static size_t put_record(uint8_t *p, const uint8_t *name, size_t length, uint32_t sector,
                         uint32_t bytes, bool folder)
{
    size_t size = RECORD_HEAD + length + !(length & 1);

    memset(p, 0, size);
    p[0] = (uint8_t)size;
    put32(p + 2, sector);
    put32(p + 10, bytes);
    p[18] = 80; /* 1 January 1980: what is made of the same files is the same (9.1.5) */
    p[19] = p[20] = 1;
    p[25] = folder ? 2 : 0;
    put16(p + 28, 1);
    p[32] = (uint8_t)length;
    memcpy(p + RECORD_HEAD, name, length);
    return size;
}

/* Put the record of a file at *at of a folder; a record does not cross a sector's end (6.8.1.1). */
static int put_file(struct iso *iso, uint32_t folder, size_t *at, unsigned i, bool joliet)
{
    uint8_t name[2 * MULL_ISO_NAME], record[RECORD_HEAD + 2 * MULL_ISO_NAME + 1];
    char plain[16];
    size_t length;

    if (joliet) {
        length = 2 * strlen(iso->files[i].name);
        put_text(name, length, iso->files[i].name, true);
    } else {
        short_name(iso->files[i].name, i, plain);
        length = strlen(plain);
        memcpy(name, plain, length);
    }
    size_t size =
        put_record(record, name, length, iso->at[i], (uint32_t)iso->files[i].length, false);
    if (*at % SECTOR + size > SECTOR)
        *at += SECTOR - *at % SECTOR;
    if (*at + size > FOLDER_SECTORS * SECTOR)
        return -EFBIG;
    memcpy(iso->image + (size_t)folder * SECTOR + *at, record, size);
    *at += size;
    return 0;
}

/* Records are in the order of their names (9.3). */
static void sort_names(const struct iso *iso, bool joliet, unsigned order[MULL_ISO_FILES])
{
    char key[MULL_ISO_FILES][MULL_ISO_NAME + 1];

    for (unsigned i = 0; i < iso->count; i++) {
        unsigned at = i;

        if (joliet)
            snprintf(key[i], sizeof(key[i]), "%s", iso->files[i].name);
        else
            short_name(iso->files[i].name, i, key[i]);
        for (; at && strcmp(key[order[at - 1]], key[i]) > 0; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static int put_folder(struct iso *iso, uint32_t folder, bool joliet)
{
    static const uint8_t self = 0, parent = 1;
    unsigned order[MULL_ISO_FILES];
    uint8_t *p = iso->image + (size_t)folder * SECTOR;
    size_t at = put_record(p, &self, 1, folder, FOLDER_SECTORS * SECTOR, true);
    int ret = 0;

    at += put_record(p + at, &parent, 1, folder, FOLDER_SECTORS * SECTOR, true);
    sort_names(iso, joliet, order);
    for (unsigned i = 0; i < iso->count && !ret; i++)
        ret = put_file(iso, folder, &at, order[i], joliet);
    return ret;
}

/* ---- Descriptors ---- */

/* The path table of a tree with nothing but a root (9.4). */
static void put_table(struct iso *iso, uint32_t sector, uint32_t folder, bool big)
{
    uint8_t *p = iso->image + (size_t)sector * SECTOR;

    p[0] = 1;
    (big ? put32_be : put32_le)(p + 2, folder);
    p[big ? 7 : 6] = 1;
}

/* A volume descriptor (8.4; 8.5 with Joliet's escape sequence for UCS-2 level 3). */
static void put_descriptor(struct iso *iso, const char *volume, bool joliet)
{
    static const uint8_t self = 0;
    uint32_t folder = joliet ? JOLIET_SECTOR : ROOT_SECTOR;
    uint32_t table = TABLE_SECTOR + (joliet ? 2 : 0);
    uint8_t *p = iso->image + (size_t)(DESCRIPTOR_SECTOR + joliet) * SECTOR;

    p[0] = joliet ? 2 : 1;
    memcpy(p + 1, "CD001\1", 6);
    put_text(p + 8, 32, "", joliet);
    put_text(p + 40, 32, volume, joliet);
    put32(p + 80, (uint32_t)(iso->length / SECTOR));
    if (joliet)
        memcpy(p + 88, "%/E", 3);
    put16(p + 120, 1);
    put16(p + 124, 1);
    put16(p + 128, SECTOR);
    put32(p + 132, 10); /* a path table of one record */
    put32_le(p + 140, table);
    put32_be(p + 148, table + 1);
    put_record(p + 156, &self, 1, folder, FOLDER_SECTORS * SECTOR, true);
    put_text(p + 190, 128, "", joliet);
    put_text(p + 318, 128, "", joliet);
    put_text(p + 446, 128, "", joliet);
    put_text(p + 574, 128, "MULLION", joliet);
    put_text(p + 702, 36, "", joliet);
    put_text(p + 739, 36, "", joliet);
    put_text(p + 776, 36, "", joliet);
    for (unsigned i = 0; i < 4; i++) /* dates that are not specified (8.4.26.1) */
        memset(p + 813 + 17 * i, '0', 16);
    p[881] = 1;
    put_table(iso, table, folder, false);
    put_table(iso, table + 1, folder, true);
}

/* ---- The whole ---- */

static int lay_out(struct iso *iso, struct mull_error *err)
{
    size_t sector = DATA_SECTOR;

    for (unsigned i = 0; i < iso->count; i++) {
        const struct mull_iso_file *f = &iso->files[i];

        if (!name_is_good(f->name, MULL_ISO_NAME))
            return mull_fail(
                err, EINVAL,
                "'%.64s' can't be a file of an ISO image; use up to %d letters, digits, "
                "'-', '_' and '.'",
                f->name, MULL_ISO_NAME);
        iso->at[i] = (uint32_t)sector;
        if (f->length > MULL_ISO_DATA ||
            (sector += (f->length + SECTOR - 1) / SECTOR) > MULL_ISO_DATA / SECTOR)
            return mull_fail(err, EFBIG, "%s: more than %u MiB are too much for this ISO image",
                             f->name, MULL_ISO_DATA >> 20);
    }
    iso->length = sector * SECTOR;
    return 0;
}

int mull_iso_make(const char *volume, const struct mull_iso_file *files, unsigned count,
                  uint8_t **out, size_t *length, struct mull_error *err)
{
    struct iso iso = {.files = files, .count = count};

    *out = NULL;
    if (!name_is_good(volume, 16))
        return mull_fail(err, EINVAL, "'%.64s' can't be the label of an ISO image", volume);
    if (count > MULL_ISO_FILES)
        return mull_fail(err, EFBIG, "%u files: an ISO image takes %d", count, MULL_ISO_FILES);
    int ret = lay_out(&iso, err);
    if (ret)
        return ret;
    iso.image = calloc(1, iso.length);
    if (!iso.image)
        return mull_fail(err, ENOMEM, "no memory for an ISO image");
    put_descriptor(&iso, volume, false);
    put_descriptor(&iso, volume, true);
    memcpy(iso.image + (size_t)(DESCRIPTOR_SECTOR + 2) * SECTOR, "\377CD001\1", 7);
    ret = put_folder(&iso, ROOT_SECTOR, false);
    if (!ret)
        ret = put_folder(&iso, JOLIET_SECTOR, true);
    if (ret) {
        free(iso.image);
        return mull_fail(err, -ret, "the names of %u files do not fit a folder", count);
    }
    for (unsigned i = 0; i < count; i++)
        if (files[i].length)
            memcpy(iso.image + (size_t)iso.at[i] * SECTOR, files[i].data, files[i].length);
    *out = iso.image;
    *length = iso.length;
    return 0;
}

int mull_iso_write(const char *path, const char *volume, const struct mull_iso_file *files,
                   unsigned count, struct mull_error *err)
{
    uint8_t *image;
    size_t length;
    char *fresh = NULL;
    int ret = mull_iso_make(volume, files, count, &image, &length, err);

    if (ret)
        return ret;
    if (asprintf(&fresh, "%s.new", path) < 0) {
        free(image);
        return mull_fail(err, ENOMEM, "no memory");
    }
    unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ret = fd < 0 ? -errno : mull_write_all(fd, image, length);
    if (!ret && fsync(fd))
        ret = -errno;
    if (fd >= 0 && close(fd) && !ret)
        ret = -errno;
    if (!ret && rename(fresh, path))
        ret = -errno;
    if (ret) {
        unlink(fresh);
        mull_fail(err, -ret, "%s: %s", path, strerror(-ret));
    }
    free(fresh);
    free(image);
    return ret;
}
