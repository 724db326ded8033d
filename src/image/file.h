/*
 * One host file (or block device) below a disk format: opening, locking, whole transfers, flush,
 * holes. Every byte a format moves passes here, so that a test can record or fail any of it.
 * Knows files, never formats.
 */
#ifndef MULL_IMAGE_FILE_H
#define MULL_IMAGE_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/error.h"

struct mull_file;
struct mull_source_options;

/** Entries of one transfer's iov. */
#define MULL_FILE_IOV 260

/** What happens to a file, told before it happens. */
enum mull_file_event {
    MULL_FILE_WRITE,
    MULL_FILE_PUNCH, /* the range becomes zeroes, deallocated */
    MULL_FILE_ZERO,  /* the range becomes zeroes */
    MULL_FILE_TRUNCATE,
    MULL_FILE_FLUSH,
    MULL_FILE_READ,
};

/** Watches a file from below the format: for power-cut and fault tests. Called from any thread. */
struct mull_file_observer {
    /* @offset is the new size for TRUNCATE. @iov is NULL except for WRITE. Non-zero (-errno) makes
     * the operation fail with it. */
    int (*event)(void *opaque, const struct mull_file *file, enum mull_file_event event,
                 uint64_t offset, uint64_t length, const struct iovec *iov, int niov);
    void *opaque;
};

#define MULL_GIVEN_MAX 16

/** Files that somebody else has opened for a process that may not open any. */
struct mull_given_files {
    unsigned count;
    struct {
        char *path; /* what it is asked for by */
        int fd;
    } file[MULL_GIVEN_MAX];
};

struct mull_file_options {
    const char *path;
    const struct mull_given_files *given; /* the only files there are; NULL: the file system's.
                                             Must outlive the file */
    bool readonly;
    bool direct; /* O_DIRECT, with bounce buffers where a transfer is not aligned */
    bool no_lock;
    bool create; /* make a new file, or empty an existing one once it is locked */
    bool unsafe; /* flush does nothing: for tools whose result is worthless until they finish */
    bool bulk;   /* much will be written: take the file system's space before writing into it */
    const struct mull_file_observer *observer;
    const struct mull_source_options *source; /* for URLs; may be NULL (source.h) */
};

/**
 * What stands in for a host file: a server's export, or bytes unpacked on the way. All calls block,
 * may come from any thread, and stay inside the file's size.
 */
struct mull_file_ops {
    int (*readv)(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                 uint64_t length);
    /* The rest may be NULL: it cannot be written, nothing is known of holes, ... */
    int (*writev)(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                  uint64_t length);
    int (*flush)(struct mull_file *file);
    int (*discard)(struct mull_file *file, uint64_t offset, uint64_t length);
    /* -EOPNOTSUPP: zeroes must be written. */
    int (*zero)(struct mull_file *file, uint64_t offset, uint64_t length, bool may_unmap);
    int (*next_data)(struct mull_file *file, uint64_t offset, uint64_t *start, uint64_t *end);
    /* Some words that change when the content does. -EOPNOTSUPP: cannot tell. */
    int (*identity)(struct mull_file *file, char *out, size_t room);
    void (*close)(struct mull_file *file);
};

struct mull_file {
    int fd; /* -1 where there are ops */
    char *path;
    const struct mull_given_files *given;
    bool readonly;
    bool direct;
    bool block_device;
    bool fixed_size; /* neither grows nor starts out as zeroes: a device, an export */
    bool unsafe;
    const struct mull_file_ops *ops; /* NULL: a host file */
    void *opaque;                    /* theirs */
    uint32_t align;                  /* transfers must be aligned to this; 1 unless direct */
    dev_t dev;
    ino_t ino;
    _Atomic uint64_t size; /* end of file, grown by our own writes */
    atomic_bool dirty;     /* written since the last flush */
    atomic_bool no_punch;  /* the file system does not know holes */
    atomic_bool no_zero;   /* nor ZERO_RANGE */
    atomic_bool bulk;
    const struct mull_file_observer *observer;
};

/** Open and lock. A regular file or block device, nothing else. -EAGAIN: somebody holds it. */
int mull_file_open(const struct mull_file_options *options, struct mull_file **out,
                   struct mull_error *err);

/** A file that @ops stands in for; closing it calls ops->close, also where this fails. */
int mull_file_stand_in(const struct mull_file_options *options, const struct mull_file_ops *ops,
                       void *opaque, uint64_t size, struct mull_file **out, struct mull_error *err);

/** Words that change when the file's content does (inode, size and times; an ETag). The words hold
 *  no blank. -EOPNOTSUPP: nothing tells. */
int mull_file_identity(struct mull_file *file, char *out, size_t room);

/** Close without flushing. NULL is allowed. */
void mull_file_close(struct mull_file *file);

/** Read all of it; what lies behind the end of file reads as zeroes. @return 0 or -errno. */
int mull_file_readv(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                    uint64_t length);
int mull_file_read(struct mull_file *file, void *buf, uint64_t length, uint64_t offset);

/** Write all of it. @return 0 or -errno. */
int mull_file_writev(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                     uint64_t length);
int mull_file_write(struct mull_file *file, const void *buf, uint64_t length, uint64_t offset);

/** Make all completed writes durable. */
int mull_file_flush(struct mull_file *file);

/** Give the range's space back. Where the file system cannot, nothing happens: 0. */
int mull_file_discard(struct mull_file *file, uint64_t offset, uint64_t length);

/** Make the range read as zeroes, as a hole if @may_unmap. Falls back to writing zeroes. */
int mull_file_zero(struct mull_file *file, uint64_t offset, uint64_t length, bool may_unmap);

/** Set the file's size (regular files only). */
int mull_file_truncate(struct mull_file *file, uint64_t size);

/** Tell that somebody else (the asynchronous engine) has written up to @end. */
void mull_file_written(struct mull_file *file, uint64_t end);

/** Next range with data at or after @offset. @return 0 with [*start, *end), or -ENXIO: none;
 *  a file system that does not know says everything is data. */
int mull_file_next_data(struct mull_file *file, uint64_t offset, uint64_t *start, uint64_t *end);

/** Make the names in the folder of @path durable. */
int mull_file_sync_folder(const char *path);

/** Copy [@skip, @skip + @length) of an iov into @out. @return the number of entries in @out. */
int mull_iov_slice(const struct iovec *iov, int niov, uint64_t skip, uint64_t length,
                   struct iovec *out, int max);
/** Fill [@skip, +@length) of an iov with zeroes, or from a buffer. */
void mull_iov_zero(const struct iovec *iov, int niov, uint64_t skip, uint64_t length);
void mull_iov_fill(const struct iovec *iov, int niov, uint64_t skip, const void *buf,
                   uint64_t length);
/** Copy [@skip, +@length) of an iov out to a buffer. */
void mull_iov_copy(const struct iovec *iov, int niov, uint64_t skip, void *buf, uint64_t length);
/** Sum of an iov's lengths; UINT64_MAX on overflow. */
uint64_t mull_iov_length(const struct iovec *iov, int niov);

#endif
