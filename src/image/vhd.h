/*
 * What the files of the VHD format share. "Spec" in them is Microsoft's "Virtual Hard Disk Image
 * Format Specification", version 1.0. Private to src/image/vhd*.c.
 */
#ifndef MULL_IMAGE_VHD_H
#define MULL_IMAGE_VHD_H

#include "image/formats.h"

#define VHD_SECTOR 512u
#define VHD_UNUSED 0xffffffffu
#define VHD_BLOCK_DEFAULT (2u << 20)
#define VHD_SIZE_MAX (UINT64_C(2040) << 30)

enum { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

/* What is written when; see meta.h. */
enum { VHD_STAGE_NEW_BITMAP, VHD_STAGE_BITMAP, VHD_STAGE_BAT };

struct vhd {
    uint8_t footer[512];
    uint8_t parent_id[16];
    uint32_t type;
    uint64_t bat; /* bytes */
    uint32_t entries, block;
    uint32_t bitmap_length; /* of one block, whole sectors */
    uint64_t end;           /* next free byte of the file; the footer goes there */
    bool footer_due;        /* the one at the end has been overwritten */
};

/** Spec, "Checksum": ones' complement of the sum of all bytes but the checksum's. */
uint32_t vhd_checksum(const uint8_t *data, size_t length, size_t at);

/* vhd_create.c */
/** Spec, appendix "CHS Calculation": the footer's four bytes of geometry. */
void vhd_put_geometry(uint8_t *out, uint64_t sectors);
int vhd_create(const struct mull_create_options *options, struct mull_error *err);

/* vhd_resize.c */
int vhd_may_resize(struct mull_image *image, uint64_t size, struct mull_error *err);
int vhd_resize(struct mull_image *image, uint64_t size, bool preallocate, struct mull_error *err);

#endif
