/* Partition tables: UEFI Specification 2.10, chapter 5, for both. See partition.h. */
#include "image/partition.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define SECTOR 512u
#define LOGICAL_MAX 128
#define ENTRY_MIN 128u
#define ENTRIES_BYTES_MAX (1u << 20)

static int read_at(struct mull_image *image, uint64_t offset, void *buf, uint64_t length)
{
    if (offset > image->size || length > image->size - offset) {
        memset(buf, 0, length);
        return 0;
    }
    return mull_image_read(image, buf, length, offset);
}

/* File systems and the like, by a magic number at a place. */
static const struct {
    const char *name;
    uint32_t offset, length;
    const char *magic;
} contents[] = {
    {"xfs", 0, 4, "XFSB"},
    {"ntfs", 3, 8, "NTFS    "},
    {"exfat", 3, 8, "EXFAT   "},
    {"vfat", 82, 5, "FAT32"},
    {"vfat", 54, 3, "FAT"},
    {"luks", 0, 6, "LUKS\xba\xbe"},
    {"squashfs", 0, 4, "hsqs"},
    {"lvm2", 536, 8, "LVM2 001"},
    {"swap", 4086, 10, "SWAPSPACE2"},
    {"iso9660", 32769, 5, "CD001"},
    {"btrfs", 65600, 8, "_BHRfS_M"},
};

static const char *content_of(struct mull_image *image, uint64_t start, uint64_t length)
{
    uint8_t buf[128];

    for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++)
        if (contents[i].offset + contents[i].length <= length &&
            !read_at(image, start + contents[i].offset, buf, contents[i].length) &&
            !memcmp(buf, contents[i].magic, contents[i].length))
            return contents[i].name;
    /* ext2: a superblock at 1024; what it must be able to do tells its younger brothers. */
    if (length < 2048 || read_at(image, start + 1024, buf, sizeof(buf)) ||
        mull_le16(buf + 56) != 0xef53)
        return NULL;
    return mull_le32(buf + 96) & 0x2c0 ? "ext4" : mull_le32(buf + 92) & 4 ? "ext3" : "ext2";
}

static struct mull_partition *add(struct mull_image *image, struct mull_partition_table *t,
                                  uint32_t number, uint64_t start, uint64_t length)
{
    if (t->count == MULL_PARTITIONS_MAX || !length || start >= image->size)
        return NULL;
    struct mull_partition *p = &t->partitions[t->count++];
    *p = (struct mull_partition){.number = number, .start = start};
    p->length = length < image->size - start ? length : image->size - start;
    p->content = content_of(image, p->start, p->length);
    return p;
}

static bool is_extended(uint8_t type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

static void add_mbr(struct mull_image *image, struct mull_partition_table *t, uint32_t number,
                    const uint8_t *entry, uint64_t base)
{
    struct mull_partition *p = add(image, t, number, (base + mull_le32(entry + 8)) * SECTOR,
                                   (uint64_t)mull_le32(entry + 12) * SECTOR);
    if (!p)
        return;
    snprintf(p->type, sizeof(p->type), "0x%02x", entry[4]);
    p->bootable = entry[0] == 0x80;
}

/* Logical partitions: each table holds one, and where the next table is. */
static int read_logical(struct mull_image *image, struct mull_partition_table *t, uint64_t extended)
{
    uint64_t at = extended;
    uint8_t s[SECTOR];

    for (uint32_t i = 0; i < LOGICAL_MAX; i++) {
        int ret = read_at(image, at * SECTOR, s, sizeof(s));
        if (ret || mull_le16(s + 510) != 0xaa55)
            return ret;
        if (s[446 + 4] && !is_extended(s[446 + 4]))
            add_mbr(image, t, 5 + i, s + 446, at);
        if (!is_extended(s[462 + 4]) || !mull_le32(s + 462 + 8))
            return 0;
        at = extended + mull_le32(s + 462 + 8);
    }
    return 0;
}

static int read_mbr(struct mull_image *image, const uint8_t *s, struct mull_partition_table *t)
{
    uint32_t entries = 0;
    int ret = 0;

    t->kind = "mbr";
    for (uint32_t i = 0; i < 4 && !ret; i++) {
        const uint8_t *e = s + 446 + 16 * (size_t)i;
        /* A boot sector of a file system ends in 55AAh too: its "entries" are code. */
        if (e[0] != 0 && e[0] != 0x80)
            return t->count = 0, t->kind = "none", 0;
        if (!e[4])
            continue;
        entries++;
        add_mbr(image, t, i + 1, e, 0);
        if (is_extended(e[4]))
            ret = read_logical(image, t, mull_le32(e + 8));
    }
    if (!entries)
        t->kind = "none";
    return ret;
}

static void guid_text(const uint8_t *g, char *out, size_t room)
{
    snprintf(out, room, "%08X-%04X-%04X-%02X%02X-%02X%02X%02X%02X%02X%02X", mull_le32(g),
             mull_le16(g + 4), mull_le16(g + 6), g[8], g[9], g[10], g[11], g[12], g[13], g[14],
             g[15]);
}

/* UTF-16 of an entry's name; what has no place in a line becomes '?'. */
static void name_text(const uint8_t *from, char *out)
{
    for (int i = 0; i < 36 && mull_le16(from + 2 * i); i++) {
        uint16_t c = mull_le16(from + 2 * i);
        if (c < 0x20 || c == 0x7f || (c >= 0xd800 && c < 0xe000))
            c = '?';
        if (c < 0x80) {
            *out++ = (char)c;
        } else if (c < 0x800) {
            *out++ = (char)(0xc0 | c >> 6);
            *out++ = (char)(0x80 | (c & 0x3f));
        } else {
            *out++ = (char)(0xe0 | c >> 12);
            *out++ = (char)(0x80 | (c >> 6 & 0x3f));
            *out++ = (char)(0x80 | (c & 0x3f));
        }
    }
    *out = 0;
}

static uint32_t crc_of(const uint8_t *data, uint32_t length)
{
    return (uint32_t)crc32(0, data, length);
}

/* One copy of the GPT (5.3.2). @return 1: it is there and whole, 0: not, or -errno */
static int read_gpt(struct mull_image *image, uint64_t lba, uint32_t sector,
                    struct mull_partition_table *t)
{
    uint8_t h[4096], *entries;
    int ret = read_at(image, lba * sector, h, sector);

    if (ret || memcmp(h, "EFI PART", 8))
        return ret;
    uint32_t length = mull_le32(h + 12), crc = mull_le32(h + 16);
    uint32_t count = mull_le32(h + 80), size = mull_le32(h + 84);
    mull_put_le32(h + 16, 0);
    if (length < 92 || length > sector || crc_of(h, length) != crc || mull_le64(h + 24) != lba ||
        size < ENTRY_MIN || size > 4096 || count > ENTRIES_BYTES_MAX / size ||
        mull_le64(h + 72) > image->size / sector)
        return 0;
    entries = malloc((size_t)count * size + 1);
    if (!entries)
        return -ENOMEM;
    ret = read_at(image, mull_le64(h + 72) * sector, entries, (uint64_t)count * size);
    if (!ret && crc_of(entries, count * size) == mull_le32(h + 88)) {
        static const uint8_t unused[16];
        t->kind = "gpt";
        t->sector = sector;
        t->count = 0;
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *e = entries + (size_t)i * size;
            uint64_t first = mull_le64(e + 32), last = mull_le64(e + 40);
            if (!memcmp(e, unused, 16) || last < first || last >= image->size / sector)
                continue;
            struct mull_partition *p =
                add(image, t, i + 1, first * sector, (last - first + 1) * sector);
            if (!p)
                continue;
            guid_text(e, p->type, sizeof(p->type));
            name_text(e + 56, p->name);
            p->bootable = e[48] & 4; /* legacy BIOS bootable */
        }
        ret = 1;
    }
    free(entries);
    return ret;
}

int mull_partitions_read(struct mull_image *image, struct mull_partition_table *t)
{
    static const uint32_t sectors[] = {512, 4096};
    uint8_t s[SECTOR];
    int ret = read_at(image, 0, s, sizeof(s));

    memset(t, 0, sizeof(*t));
    t->kind = "none";
    t->sector = SECTOR;
    if (ret)
        return ret;
    for (int i = 0; i < 2; i++) {
        ret = read_gpt(image, 1, sectors[i], t);
        if (!ret && image->size >= 2 * sectors[i]) {
            ret = read_gpt(image, image->size / sectors[i] - 1, sectors[i], t);
            t->backup = ret == 1;
        }
        if (ret)
            return ret < 0 ? ret : 0;
    }
    ret = mull_le16(s + 510) == 0xaa55 ? read_mbr(image, s, t) : 0;
    if (!strcmp(t->kind, "none"))
        t->content = content_of(image, 0, image->size);
    return ret;
}
