/*
 * What the files of the VHDX format share. "Spec" in them is [MS-VHDX], cited by section number.
 * Private to src/image/vhdx*.c.
 */
#ifndef MULL_IMAGE_VHDX_H
#define MULL_IMAGE_VHDX_H

#include "image/crc32c.h"
#include "image/formats.h"

#define VHDX_MB (UINT64_C(1) << 20)
#define VHDX_HEADER1 (64u << 10)
#define VHDX_HEADER2 (128u << 10)
#define VHDX_REGION1 (192u << 10)
#define VHDX_REGION2 (256u << 10)
#define VHDX_SECTOR 4096u /* of the log and of metadata pages */
#define VHDX_SIZE_MAX (UINT64_C(64) << 40)

/* BAT entries (2.5.1). */
enum {
    VHDX_NOT_PRESENT = 0,
    VHDX_UNDEFINED = 1,
    VHDX_ZERO = 2,
    VHDX_UNMAPPED = 3,
    VHDX_FULL = 6,
    VHDX_PARTIAL = 7,
};
#define VHDX_STATE(entry) ((entry)&7)
#define VHDX_OFFSET(entry) ((entry) & ~(VHDX_MB - 1))

struct vhdx_header {
    uint64_t sequence;
    uint8_t file_guid[16], data_guid[16], log_guid[16];
    uint32_t log_length;
    uint64_t log_offset;
};

struct vhdx {
    struct vhdx_header header;
    int current; /* which of the two headers */
    uint64_t bat, bat_length;
    uint64_t metadata, metadata_length;
    uint64_t size_at; /* where the virtual disk's size is */
    uint32_t block;   /* bytes */
    uint32_t sector;  /* logical */
    uint64_t ratio;   /* payload blocks between two bitmap entries */
    bool has_parent;
    char parent_linkage[64], parent_linkage2[64];
    uint64_t locator_entry_at;        /* of the parent locator, in the metadata table */
    uint32_t locator, locator_length; /* where it is, in the region */
    uint32_t items_end;               /* behind the last of the other items there */
    uint64_t end;                     /* next free byte of the file, MB-aligned */
    uint64_t log_at;                  /* where the next log entry goes, in the log */
    uint64_t log_sequence;
    bool opened;           /* headers say that we write */
    bool changed;          /* and that the data is another */
    uint8_t next_guid[16]; /* what data_guid becomes then; zeroes: any */
};

extern const uint8_t vhdx_guid_bat[16], vhdx_guid_metadata[16], vhdx_guid_file_parameters[16],
    vhdx_guid_disk_size[16], vhdx_guid_disk_id[16], vhdx_guid_logical[16], vhdx_guid_physical[16],
    vhdx_guid_parent_locator[16], vhdx_guid_locator_type[16];

void vhdx_new_guid(uint8_t *guid);
void vhdx_guid_text(const uint8_t *guid, char *out, size_t room);

/** Write the header that is not current, with the next sequence number. */
int vhdx_write_header(struct mull_image *image);

/* vhdx_log.c */
/** Replay the log if there is one to replay. Read-only images: into the metadata cache. */
int vhdx_log_replay(struct mull_image *image, struct mull_error *err);
/** Journal of the metadata cache. */
int vhdx_log_write(void *opaque, const struct mull_meta_page *pages, uint32_t count);
/** Pages that one entry takes. */
uint32_t vhdx_log_most(const struct vhdx *v);

/* vhdx_create.c */
int vhdx_create(const struct mull_create_options *options, struct mull_error *err);
int vhdx_rebase(struct mull_image *image, const char *path, const char *format,
                struct mull_error *err);
int vhdx_expect_parent(struct mull_image *image, struct mull_image *parent, bool done,
                       struct mull_error *err);

/* vhdx.c */
/** Tell all that look at the headers that the file is being written and, if @data, that what the
 *  disk holds changes. With the image's lock held. */
void vhdx_begin(struct mull_image *image, bool data);
/** The same, from outside. Takes the image's lock. */
void vhdx_track(struct mull_image *image, uint64_t offset, uint64_t length);

#endif
