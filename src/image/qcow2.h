/*
 * What the files of the QCOW2 format share. "Spec" in them is "The QCOW2 image format"
 * (QEMU's docs/interop/qcow2.txt), cited by section title. Private to src/image/qcow2*.c.
 */
#ifndef MULL_IMAGE_QCOW2_H
#define MULL_IMAGE_QCOW2_H

#include "image/compress.h"
#include "image/formats.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_COPIED (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED (UINT64_C(1) << 62)
#define QCOW2_ZERO UINT64_C(1)
#define QCOW2_OFFSET UINT64_C(0x00fffffffffffe00)

/* Feature bits (Spec, "Header"). */
#define QCOW2_INCOMPAT_DIRTY (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_KNOWN UINT64_C(0x1f)
#define QCOW2_COMPAT_LAZY (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_RAW_DATA (UINT64_C(1) << 1)

/* Header extensions. */
#define QCOW2_EXT_END 0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURES 0x6803f857u
#define QCOW2_EXT_BITMAPS 0x23852875u
#define QCOW2_EXT_LUKS 0x0537be77u
#define QCOW2_EXT_DATA_FILE 0x44415441u

/* What a hostile header may make us allocate. */
#define QCOW2_L1_MAX (32u << 20)      /* bytes */
#define QCOW2_REFTABLE_MAX (8u << 20) /* bytes */
#define QCOW2_SNAPSHOTS_MAX 65536u
#define QCOW2_SNAPSHOT_TABLE_MAX (64u << 20)
#define QCOW2_DIRTY_MAX (8u << 20)

/* The order in which metadata reaches the file; see meta.h. */
enum qcow2_stage {
    QCOW2_STAGE_REFCOUNT, /* refcounts, in old blocks and new ones */
    QCOW2_STAGE_REFTABLE, /* pointers to new refcount blocks */
    QCOW2_STAGE_L2,       /* pointers to data */
    QCOW2_STAGE_L1,       /* pointers to new L2 tables */
};

struct qcow2_snap {
    struct mull_snapshot info;
    uint64_t l1_offset;
    uint32_t l1_size;
    uint64_t disk_size;
    uint64_t icount;
    bool has_icount;
};

struct qcow2_free {
    uint64_t cluster, count;
};

struct qcow2_bitmap;

struct qcow2 {
    uint32_t version, cluster_bits, header_length;
    uint64_t cluster_size;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    enum mull_codec codec;
    bool extended; /* 16-byte L2 entries with subclusters */
    uint32_t entry_size;
    uint32_t l2_bits;    /* log2 of the entries in an L2 table */
    uint64_t subcluster; /* bytes; the cluster where there are none */

    uint64_t l1_offset;
    uint32_t l1_size;
    uint64_t *l1; /* the active one, or the snapshot's that is being read */
    bool reading_snapshot;

    uint64_t rt_offset;
    uint32_t rt_clusters;
    uint64_t *rt;
    uint64_t rt_entries;
    uint32_t block_bits; /* log2 of the refcounts in a block */
    uint64_t top;        /* clusters from here on have no refcount */
    uint64_t hint;       /* no free cluster below */
    uint64_t fresh;      /* clusters from here on were never written */

    struct qcow2_free *frees; /* dropped references, counted down after the next commit */
    size_t nfrees, frees_room;
    bool punch; /* return freed clusters to the host */

    uint64_t pack_at; /* next byte for a compressed cluster, 0: none */

    bool encrypted; /* with LUKS, whose header is at */
    uint64_t luks_header;
    struct mull_file *clear; /* a view of what holds the data, decrypted; or NULL */
    struct mull_file *data_file;
    char *data_file_name;
    bool data_file_raw;
    struct mull_packer *packer;

    uint32_t nsnapshots;
    uint64_t snapshots_offset, snapshots_length;
    struct qcow2_snap *snapshots;

    uint32_t nbitmaps;
    uint64_t bitmap_dir_offset, bitmap_dir_length;
    uint32_t bitmap_ext_at; /* where the extension's data is in the header, 0: none */
};

/* qcow2.c */
int qcow2_read_entry(struct mull_image *image, uint64_t l2_offset, uint64_t index, bool cached,
                     uint64_t *entry, uint64_t *bitmap);
int qcow2_commit(struct mull_image *image, bool flush);
int qcow2_corrupt(struct mull_image *image, const char *what, uint64_t where);
/** Bits of a compressed L2 entry. */
void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length);
/** Whether an entry has a host cluster of its own (not compressed). */
static inline bool qcow2_has_cluster(const struct qcow2 *q, uint64_t entry)
{
    return !(entry & QCOW2_COMPRESSED) &&
           ((entry & QCOW2_OFFSET) || (q->data_file && (entry & QCOW2_COPIED)));
}

/* qcow2_refcount.c */
int qcow2_refcount_open(struct mull_image *image, struct mull_error *err);
int qcow2_refcount_get(struct mull_image *image, uint64_t cluster, uint64_t *out);
int qcow2_refcount_set(struct mull_image *image, uint64_t cluster, uint64_t value);
int qcow2_refcount_add(struct mull_image *image, uint64_t cluster, int64_t delta);
/** Get up to *count clusters in a row (all of them if @exact); *count tells how many. */
int qcow2_alloc(struct mull_image *image, uint64_t *count, bool exact, uint64_t *first,
                bool *fresh);
/** Give back what was allocated and never linked. */
void qcow2_alloc_undo(struct mull_image *image, uint64_t first, uint64_t count);
/** Drop a reference once nothing durable points there. */
int qcow2_free_later(struct mull_image *image, uint64_t cluster, uint64_t count);
/** Drop what an L2 entry refers to. */
int qcow2_free_entry(struct mull_image *image, uint64_t entry);
/** Count the frees down; the metadata that dropped them is durable. */
int qcow2_apply_frees(struct mull_image *image);

/* qcow2_header.c */
int qcow2_header_parse(struct mull_image *image, const struct mull_image_options *options,
                       struct mull_error *err);
/** Write the header sector from `q` and `image` : atomic, as it is one sector. */
int qcow2_header_write(struct mull_image *image);
/** Name another bitmap directory in the header (none: @count 0), in one write of its first sector.
 */
int qcow2_header_name_bitmaps(struct mull_image *image, uint32_t count, uint64_t offset,
                              uint64_t length);
int qcow2_set_dirty(struct mull_image *image, bool dirty);
int qcow2_create(const struct mull_create_options *options, struct mull_error *err);
int qcow2_rebase(struct mull_image *image, const char *path, const char *format,
                 struct mull_error *err);
int qcow2_resize(struct mull_image *image, uint64_t size, bool preallocate, struct mull_error *err);

/* qcow2_snapshot.c */
int qcow2_snapshots_read(struct mull_image *image, struct mull_error *err);
int qcow2_snapshot_list(struct mull_image *image, struct mull_snapshot **out, uint32_t *count);
int qcow2_snapshot_create(struct mull_image *image, const char *name, struct mull_error *err);
int qcow2_snapshot_apply(struct mull_image *image, const char *name, struct mull_error *err);
int qcow2_snapshot_delete(struct mull_image *image, const char *name, struct mull_error *err);
int qcow2_snapshot_load(struct mull_image *image, const char *name, struct mull_error *err);
/** Read an L1 table into host order. */
int qcow2_read_l1(struct mull_image *image, uint64_t offset, uint32_t size, uint64_t **out);

/* qcow2_check.c */
int qcow2_check(struct mull_image *image, struct mull_check *check, struct mull_error *err);

/* qcow2_bitmap.c */
int qcow2_bitmaps_read(struct mull_image *image, struct mull_error *err);
/** Store what was recorded; on a clean close. */
int qcow2_bitmaps_store(struct mull_image *image);
/** Call @fn for each run of clusters the bitmaps use. */
int qcow2_bitmaps_clusters(struct mull_image *image,
                           int (*fn)(void *opaque, uint64_t offset, uint64_t length), void *opaque);

#endif
