/*
 * The partition table of a disk: MBR with logical partitions, or GPT. Read only, from an untrusted
 * disk. Knows tables, and file systems by their magic numbers alone.
 */
#ifndef MULL_IMAGE_PARTITION_H
#define MULL_IMAGE_PARTITION_H

#include "image/image.h"

#define MULL_PARTITIONS_MAX 256

struct mull_partition {
    uint32_t number;        /* as the operating systems count: logical ones from 5 on */
    uint64_t start, length; /* bytes */
    char type[40];          /* MBR: "0x83"; GPT: the type's GUID */
    char name[128];         /* GPT, UTF-8 */
    bool bootable;
    const char *content; /* "ext4", "xfs", ...; NULL: nothing that we know */
};

struct mull_partition_table {
    const char *kind; /* "gpt", "mbr", "none" */
    bool backup;      /* GPT: the first copy is damaged; this is the one at the end */
    uint32_t sector;  /* bytes */
    uint32_t count;
    const char *content; /* kind "none": what the whole disk is */
    struct mull_partition partitions[MULL_PARTITIONS_MAX];
};

/** Read a disk's table. What makes no sense in it is left out. @return 0 or -errno (reading) */
int mull_partitions_read(struct mull_image *image, struct mull_partition_table *out);

#endif
