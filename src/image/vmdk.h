/*
 * What the files of the VMDK format share. "Spec" in them is VMware's "Virtual Disk Format 5.0"
 * (and 1.1 before it), cited by section title. Private to src/image/vmdk*.c.
 */
#ifndef MULL_IMAGE_VMDK_H
#define MULL_IMAGE_VMDK_H

#include "image/compress.h"
#include "image/formats.h"

#define VMDK_SECTOR UINT64_C(512)
#define VMDK_EXTENTS_MAX 4096u
#define VMDK_SPLIT_SECTORS UINT64_C(4192256) /* a little under 2 GiB, as VMware splits */
#define VMDK_DESCRIPTOR_MAX (1u << 20)
#define VMDK_GD_AT_END UINT64_MAX
#define VMDK_NO_PARENT 0xffffffffu

/* SparseExtentHeader.flags */
#define VMDK_FLAG_NEWLINE 0x1u
#define VMDK_FLAG_REDUNDANT 0x2u
#define VMDK_FLAG_ZEROED 0x4u
#define VMDK_FLAG_COMPRESSED 0x10000u
#define VMDK_FLAG_MARKERS 0x20000u

enum { VMDK_MARKER_EOS, VMDK_MARKER_GT, VMDK_MARKER_GD, VMDK_MARKER_FOOTER };

/* What is written when; see meta.h. */
enum { VMDK_STAGE_FREE, VMDK_STAGE_GT, VMDK_STAGE_GD };

enum vmdk_kind {
    VMDK_FLAT,
    VMDK_ZERO,
    VMDK_SPARSE,   /* hosted sparse extent, "KDMV" */
    VMDK_COWD,     /* ESX sparse extent */
    VMDK_SESPARSE, /* ESX space-efficient sparse extent, read only */
};

struct vmdk_extent {
    enum vmdk_kind kind;
    uint64_t start, length; /* bytes of the disk */
    struct mull_file *file; /* the image's own where it is the main file */
    bool own_file;
    struct mull_meta *meta;
    uint64_t flat_offset;
    uint64_t grain; /* bytes */
    uint32_t gt_entries;
    uint64_t gd_entries;
    uint64_t gd, rgd; /* bytes; rgd 0: none */
    uint32_t flags;
    bool compressed;
    uint64_t end;               /* next free byte of the file */
    bool marked;                /* uncleanShutdown is set on the disk */
    bool suspect;               /* a change of tables failed half way: it stays set */
    uint64_t gts, grains;       /* SESPARSE: where tables and grains begin */
    struct vmdk_stream *stream; /* being written as a stream */
};

struct vmdk {
    char *descriptor;       /* text */
    uint64_t descriptor_at; /* in the main file */
    uint64_t descriptor_room;
    uint32_t cid, parent_cid;
    uint32_t commit_cid; /* the parent's after a commit that was cut off; else parent_cid */
    uint32_t next_cid;   /* what cid becomes with the first write; 0: any */
    char create_type[32];
    struct vmdk_extent *extents;
    uint32_t nextents;
    struct mull_packer *packer;
    atomic_bool cid_changed;
    bool cid_failed; /* it could not be written: the file may say the old or the new one */
    pthread_mutex_t cid_lock;
};

/* vmdk_descriptor.c */
/** Value of "name = value" without quotes, cut to @room. @return false: not there. */
bool vmdk_value(const char *text, const char *name, char *out, size_t room);
/** Parse the fields and extent lines; opens the extents' files. */
int vmdk_parse_descriptor(struct mull_image *image, const struct mull_image_options *options,
                          struct mull_error *err);
/** Open the extent that a line names; *at: its start, then its end. */
int vmdk_add_extent(struct mull_image *image, const char *line, uint64_t *at,
                    const struct mull_image_options *options, struct mull_error *err);
bool vmdk_is_extent_line(const char *line);
/** First write: a new content ID, and no more trust in a change-tracking file. */
int vmdk_change_cid(struct mull_image *image);
/** The text of a new descriptor. */
char *vmdk_build_descriptor(const struct mull_create_options *options, const char *create_type,
                            uint32_t cid, uint32_t parent_cid, const char *extents);
int vmdk_expect_parent(struct mull_image *image, struct mull_image *parent, bool done,
                       struct mull_error *err);
int vmdk_rebase(struct mull_image *image, const char *path, const char *format,
                struct mull_error *err);

/* vmdk.c */
/** Read a sparse extent's header from its file. */
int vmdk_open_sparse(struct mull_image *image, struct vmdk_extent *extent,
                     const struct mull_image_options *options, struct mull_error *err);
int vmdk_read32(struct vmdk_extent *extent, uint64_t offset, uint64_t ahead, bool cached,
                uint32_t *out);

/* vmdk_create.c */
int vmdk_create(const struct mull_create_options *options, struct mull_error *err);
/** Make extent @number of options->subformat in a file of its own; its line is added to @lines. */
int vmdk_make_extent(const struct mull_create_options *options, uint32_t number, uint64_t sectors,
                     FILE *lines, struct mull_error *err);
/** Fill in a sparse extent's header. */
void vmdk_put_header(uint8_t *head, uint32_t version, uint32_t flags, uint64_t capacity,
                     uint64_t grain, uint64_t descriptor_size, uint64_t rgd, uint64_t gd,
                     uint64_t overhead);

/* vmdk_stream.c */
int vmdk_stream_begin(struct mull_image *image, struct vmdk_extent *extent);
int vmdk_stream_write(struct vmdk_extent *extent, uint64_t offset, const void *packed,
                      uint32_t length);
int vmdk_stream_end(struct vmdk_extent *extent);
void vmdk_stream_free(struct vmdk_extent *extent);

/* vmdk_check.c */
int vmdk_check(struct mull_image *image, struct mull_check *check, struct mull_error *err);
/** Make the redundant grain tables equal to the others. */
int vmdk_mirror(struct mull_image *image, struct vmdk_extent *extent, struct mull_check *check);

/* vmdk_resize.c */
int vmdk_may_resize(struct mull_image *image, uint64_t size, struct mull_error *err);
int vmdk_resize(struct mull_image *image, uint64_t size, bool preallocate, struct mull_error *err);

#endif
