/*
 * Tar archives as OVA uses them (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar's long
 * names and large sizes): an index of the members over the archive's file, and writing. What is
 * read comes from strangers: a member that is not a plain file below the archive's own folder
 * refuses the whole archive. Knows bytes, never appliances.
 */
#ifndef MULL_IMAGE_OVF_TAR_H
#define MULL_IMAGE_OVF_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MULL_TAR_MEMBERS_MAX 4096u
#define MULL_TAR_NAME_MAX 1024u

struct mull_tar_member {
    char *name;
    uint64_t offset, size; /* of its bytes in the archive */
};

struct mull_tar {
    int fd; /* of the archive; belongs to whoever opened it */
    uint32_t count;
    struct mull_tar_member *member;
};

/** Whether a name from a stranger stays where it is put: relative, no "..", no empty part. */
bool mull_tar_name_is_safe(const char *name);

/** Read the index. @param what  the archive's name, for messages */
int mull_tar_open(int fd, const char *what, struct mull_tar *out, struct mull_error *err);
void mull_tar_close(struct mull_tar *tar);

/** The member of that name, or NULL. */
const struct mull_tar_member *mull_tar_find(const struct mull_tar *tar, const char *name);

/** Append a header for @size bytes, which the caller then writes, followed by mull_tar_pad(). */
int mull_tar_put_header(int fd, const char *name, uint64_t size, uint64_t mtime);
int mull_tar_pad(int fd, uint64_t size);
/** The end of the archive. */
int mull_tar_finish(int fd);

#endif
