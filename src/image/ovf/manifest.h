/*
 * Manifests (.mf) and their certificates (.cert) of OVF packages: DSP0243 2.1.1, 6.4 and 6.5. Which
 * digest each file must have, and who signed the list. Knows digests, never appliances.
 */
#ifndef MULL_IMAGE_OVF_MANIFEST_H
#define MULL_IMAGE_OVF_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MULL_MANIFEST_BYTES_MAX (1u << 20)
#define MULL_MANIFEST_ENTRIES_MAX 4096u
#define MULL_DIGEST_MAX 64u

enum mull_digest { MULL_SHA1, MULL_SHA256, MULL_SHA512 };

struct mull_manifest_entry {
    char *name;
    enum mull_digest digest;
    uint8_t value[MULL_DIGEST_MAX];
};

struct mull_manifest {
    uint32_t count;
    struct mull_manifest_entry *entry;
};

const char *mull_digest_name(enum mull_digest digest);
unsigned mull_digest_size(enum mull_digest digest);
/** "SHA1", "SHA256", "SHA512", in any case. @return whether it is one */
bool mull_digest_find(const char *name, size_t length, enum mull_digest *out);

/** Read "SHA256(name)= hex" lines. @param what  its name, for messages */
int mull_manifest_parse(const char *what, const char *text, size_t length,
                        struct mull_manifest *out, struct mull_error *err);
void mull_manifest_free(struct mull_manifest *manifest);
const struct mull_manifest_entry *mull_manifest_find(const struct mull_manifest *manifest,
                                                     const char *name);

/* ---- Digests ---- */

struct mull_hasher;

int mull_hasher_create(enum mull_digest digest, struct mull_hasher **out, struct mull_error *err);
void mull_hasher_update(struct mull_hasher *hasher, const void *data, size_t length);
/** The digest; the hasher is gone. @p out NULL: only free it. */
void mull_hasher_finish(struct mull_hasher *hasher, uint8_t *out);

/* ---- Signatures ---- */

struct mull_signer {
    char name[256]; /* the certificate's subject */
    bool trusted;   /* a certificate authority of the host, or of the file given, vouches for it */
    char why[128];  /* why it is not trusted */
};

/**
 * Check the signature of a manifest.
 *
 * @param what      the certificate file's name, for messages
 * @param cert      its text: a line "SHA256(x.mf)= hex" and a PEM certificate with its chain
 * @param name      the manifest's name, which that line must have
 * @param manifest  the manifest's bytes
 * @param ca_file   PEM file of authorities to trust; NULL: the host's
 * @return 0: @out's owner signed these bytes (trusted or not); -EKEYREJECTED: nobody did
 */
int mull_manifest_verify(const char *what, const char *cert, size_t cert_length, const char *name,
                         const void *manifest, size_t length, const char *ca_file,
                         struct mull_signer *out, struct mull_error *err);

/**
 * Sign a manifest with a PEM key and certificate.
 *
 * @param out  the .cert file's text, malloc'ed
 */
int mull_manifest_sign(const char *name, const void *manifest, size_t length,
                       enum mull_digest digest, const char *key_file, const char *cert_file,
                       char **out, struct mull_error *err);

#endif
