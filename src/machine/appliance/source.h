/*
 * A package that is being imported: what it is, where its files are, whether they are what its
 * manifest says. Private to src/machine/appliance/.
 */
#ifndef MULL_MACHINE_APPLIANCE_SOURCE_H
#define MULL_MACHINE_APPLIANCE_SOURCE_H

#include "image/ovf/tar.h"
#include "machine/appliance/package.h"

enum package_kind { KIND_NONE, KIND_OVA, KIND_OVF, KIND_VMX, KIND_LIBVIRT, KIND_DISK };

/* Where the files of a package are: a folder, or members of an archive. */
struct package {
    struct mull_import *import;
    enum package_kind kind;
    char *path;    /* the description, or the archive */
    char *folder;  /* real path of the folder it is in */
    char *member;  /* OVA: the descriptor's name */
    char *fetched; /* folder of what was brought from a URL */
    struct mull_tar tar;
    int tar_fd;
    struct mull_error *err;
};

/* A file of the package, as it can be opened. `path` is to be freed, also after an error. */
struct part {
    char *path;
    uint64_t offset, size;
    bool inside; /* of an archive */
};

/** Find out what the source is, fetching it first where it is a server's; open an archive.
 *  package_close() also after an error. */
int package_open(struct package *p);
void package_close(struct package *p);

/** A file by the name that the package gives it. -ENOENT: it is not there. */
int package_find(struct package *p, const char *name, struct part *out);
/** A name as a file of the host; it may not lead out of the package's folder. */
int package_file(struct package *p, const char *name, struct part *out);
/** Read a file of at most @max bytes. @return malloc'ed, or NULL with the error filled in */
char *package_read(struct package *p, const char *name, size_t max, size_t *size);

/** Compare every file with the manifest, and the manifest with its signature (verify.c). */
int package_check_manifest(struct package *p, const struct mull_ovf *ovf, const char *descriptor);

/** Put disk @i of the appliance into the machine's folder (import_disk.c). */
int package_make_disk(struct package *p, unsigned i, const char *folder);

/** Does a name end so, in any case? */
bool package_ends_with(const char *name, const char *end);

/** -ENOMEM, said. */
int package_no_memory(struct package *p);

#endif
