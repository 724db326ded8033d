/*
 * Disks that are not plain files of this host: exports of NBD servers and files of web servers, by
 * URL, and files that were compressed whole. Each stands in for a host file (file.h). Knows bytes,
 * never formats.
 */
#ifndef MULL_IMAGE_SOURCE_H
#define MULL_IMAGE_SOURCE_H

#include "image/file.h"

/** Bytes a compressed file may unpack to where nobody says otherwise. */
#define MULL_SOURCE_MAX_SIZE (UINT64_C(2) << 40)

/** What opening such a source may need; all may be NULL or 0. */
struct mull_source_options {
    const char *ca_file;  /* https: authorities to trust (PEM) instead of the system's */
    const char *tls_dir;  /* nbds: ca-cert.pem; client-cert.pem and client-key.pem if asked for */
    const char *psk_file; /* nbds: "user:hexkey" lines instead of certificates */
    uint64_t max_size;    /* bytes a compressed file may unpack to; 0: MULL_SOURCE_MAX_SIZE */
    const char *key_file; /* LUKS: the passphrase, all of the file */
};

/** Whether a path is a URL of a scheme we open (nbd, nbds, nbd+unix, nbds+unix, http, https). */
bool mull_source_is_url(const char *path);

/** Whether what lies behind this URL is a disk's content, so that its format is raw unless somebody
 *  says otherwise: a guest may have written any header into it. */
bool mull_source_is_disk(const char *path);

/** Open a URL. What it can do to the server's disk, and how long it may block, is the scheme's. */
int mull_source_open(const struct mull_file_options *options, struct mull_file **out,
                     struct mull_error *err);

/** The compression that a file with these first bytes has, or NULL. */
const char *mull_source_packed(const uint8_t *head, size_t length);

/** Put an unpacked view over @below if its content is gzip, xz, zstd or bzip2 (it then belongs to
 *  the view); leave *out NULL if it is not. May read all of it, to learn its size. */
int mull_source_unpack(const struct mull_file_options *options, struct mull_file *below,
                       struct mull_file **out, struct mull_error *err);

/** Whether a file begins as LUKS does. */
bool mull_source_encrypted(struct mull_file *file);

/** Put a clear view over an encrypted @below, which then belongs to it. Needs the key_file of
 *  options->source, else -ENOKEY. */
int mull_source_decrypt(const struct mull_file_options *options, struct mull_file *below,
                        struct mull_file **out, struct mull_error *err);

/** A clear view of all of @below, which stays its owner's and must outlive the view: its sectors
 *  are numbered from its start. @material has the LUKS header from @header on. */
int mull_source_decrypt_clusters(const struct mull_file_options *options,
                                 struct mull_file *material, uint64_t header,
                                 struct mull_file *below, struct mull_file **out,
                                 struct mull_error *err);

#endif
