/*
 * Files and folders for import and export: whole writes, temporary folders that become real at
 * once, copies, and converting disks. Private to src/machine/appliance/.
 */
#ifndef MULL_MACHINE_APPLIANCE_FOLDER_H
#define MULL_MACHINE_APPLIANCE_FOLDER_H

#include "image/file.h"
#include "machine/appliance/package.h"

/** Read a whole file of at most @max bytes; a zero byte follows. @return malloc'ed, or NULL */
char *folder_read(const char *path, uint64_t offset, uint64_t length, size_t max, size_t *size,
                  struct mull_error *err);

/** Make a folder and those above it. */
int folder_make(const char *path, struct mull_error *err);

/** "FOLDER/NAME", malloc'ed; NULL with @err filled in: no memory. */
char *folder_join(const char *folder, const char *name, struct mull_error *err);

/** A new folder beside what will be @target. @param out  malloc'ed */
int folder_temporary(const char *target, char **out, struct mull_error *err);

/** Give a folder or file its name, durably; -EEXIST: something of that name is there. */
int folder_commit(const char *temporary, const char *target, struct mull_error *err);

/** Remove a folder and what is in it. */
void folder_remove(const char *path);

/** Write a file durably. */
int folder_write(const char *path, const void *data, size_t size, struct mull_error *err);

struct folder_progress {
    mull_package_progress call;
    void *opaque;
    const char *what;
};

/** Copy part of a file into a new one, durably. */
int folder_copy(const char *from, uint64_t offset, uint64_t size, const char *to,
                const struct folder_progress *progress, struct mull_error *err);

/** Copy all of a file that may be a server's into a new one, durably. */
int folder_fetch(struct mull_file *from, const char *to, const struct folder_progress *progress,
                 struct mull_error *err);

/** Append part of a file to another one, which may be new. */
int folder_append(const char *from, uint64_t offset, uint64_t size, const char *to,
                  struct mull_error *err);

/** Unpack gzip into a new file of at most @max bytes. */
int folder_gunzip(const char *from, uint64_t offset, uint64_t size, const char *to, uint64_t max,
                  struct mull_error *err);

struct folder_disk {
    const char *from;        /* NULL: an empty disk */
    const char *from_format; /* NULL: detect */
    uint64_t offset, length; /* part of @from; length 0: all */
    bool no_backing;         /* it must stand alone */
    const char *to, *to_format, *subformat;
    uint64_t size; /* at least so large */
    struct folder_progress progress;
    const struct mull_log *log;
    uint64_t capacity; /* out: bytes of the disk */
};

/** Convert a disk into a new, durable file. */
int folder_convert(struct folder_disk *disk, struct mull_error *err);

#endif
