/* Manifests, digests and signatures, through GnuTLS. See manifest.h. */
#include "image/ovf/manifest.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHAIN_MAX 16u
#define SIGNATURE_MAX 2048u

static const struct {
    const char *name;
    unsigned size;
    gnutls_digest_algorithm_t algorithm;
} digests[] = {
    [MULL_SHA1] = {"SHA1", 20, GNUTLS_DIG_SHA1},
    [MULL_SHA256] = {"SHA256", 32, GNUTLS_DIG_SHA256},
    [MULL_SHA512] = {"SHA512", 64, GNUTLS_DIG_SHA512},
};

const char *mull_digest_name(enum mull_digest digest)
{
    return digests[digest].name;
}

unsigned mull_digest_size(enum mull_digest digest)
{
    return digests[digest].size;
}

bool mull_digest_find(const char *name, size_t length, enum mull_digest *out)
{
    for (unsigned i = 0; i < sizeof(digests) / sizeof(digests[0]); i++)
        if (strlen(digests[i].name) == length && !strncasecmp(digests[i].name, name, length)) {
            *out = (enum mull_digest)i;
            return true;
        }
    return false;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* @return bytes, 0: not hexadecimal, or more than @room */
static size_t from_hex(const char *text, size_t length, uint8_t *out, size_t room)
{
    if (length % 2 || length / 2 > room)
        return 0;
    for (size_t i = 0; i < length / 2; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return 0;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return length / 2;
}

/* ---- Lines: algorithm "(" file ")" "=" hex, with blanks where writers put them ---- */

struct line {
    enum mull_digest digest;
    const char *name, *hex;
    size_t name_length, hex_length;
};

static bool parse_line(const char *p, size_t length, struct line *out)
{
    const char *end = p + length;
    while (end > p && (end[-1] == ' ' || end[-1] == '\r' || end[-1] == '\t'))
        end--;
    const char *open = memchr(p, '(', (size_t)(end - p));
    if (!open)
        return false;
    const char *word = open;
    while (word > p && word[-1] == ' ')
        word--;
    if (!mull_digest_find(p, (size_t)(word - p), &out->digest))
        return false;
    const char *close = end; /* the last ")": a file's name may have one */
    while (close > open && *--close != ')')
        ;
    if (close == open)
        return false;
    out->name = open + 1;
    out->name_length = (size_t)(close - out->name);
    const char *at = close + 1;
    while (at < end && *at == ' ')
        at++;
    if (at == end || *at++ != '=')
        return false;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    out->hex = at;
    out->hex_length = (size_t)(end - at);
    return out->name_length > 0 && out->name_length <= 1024 && out->hex_length > 0 &&
           !memchr(out->name, 0, out->name_length);
}

static int add_entry(const char *what, struct mull_manifest *m, const struct line *line,
                     struct mull_error *err)
{
    struct mull_manifest_entry e = {.digest = line->digest};
    if (from_hex(line->hex, line->hex_length, e.value, sizeof(e.value)) !=
        mull_digest_size(line->digest))
        return mull_fail(err, EINVAL, "%s: the digest of '%.*s' is not %s", what,
                         (int)(line->name_length < 200 ? line->name_length : 200), line->name,
                         mull_digest_name(line->digest));
    if (m->count == MULL_MANIFEST_ENTRIES_MAX)
        return mull_fail(err, E2BIG, "%s: more than %u files", what, MULL_MANIFEST_ENTRIES_MAX);
    struct mull_manifest_entry *grown = realloc(m->entry, (m->count + 1) * sizeof(*grown));
    if (!grown)
        return mull_fail(err, ENOMEM, "%s: out of memory", what);
    m->entry = grown;
    e.name = strndup(line->name, line->name_length);
    if (!e.name)
        return mull_fail(err, ENOMEM, "%s: out of memory", what);
    if (mull_manifest_find(m, e.name)) {
        mull_fail(err, EEXIST, "%s: '%.200s' is there twice", what, e.name);
        free(e.name);
        return -EEXIST;
    }
    m->entry[m->count++] = e;
    return 0;
}

int mull_manifest_parse(const char *what, const char *text, size_t length,
                        struct mull_manifest *out, struct mull_error *err)
{
    *out = (struct mull_manifest){0};
    int ret = 0;
    if (length > MULL_MANIFEST_BYTES_MAX)
        return mull_fail(err, E2BIG, "%s: more than 1 MiB", what);
    unsigned number = 0;
    for (size_t at = 0; at < length && !ret;) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t n = newline ? (size_t)(newline - (text + at)) : length - at;
        struct line line;
        number++;
        size_t blank = 0;
        while (blank < n && strchr(" \t\r", text[at + blank]) && text[at + blank])
            blank++;
        if (blank < n)
            ret = parse_line(text + at, n, &line)
                      ? add_entry(what, out, &line, err)
                      : mull_fail(err, EINVAL, "%s: line %u is not 'SHA256(file)= digest'", what,
                                  number);
        at += n + 1;
    }
    if (!ret && !out->count)
        ret = mull_fail(err, EINVAL, "%s: an empty manifest", what);
    if (ret)
        mull_manifest_free(out);
    return ret;
}

void mull_manifest_free(struct mull_manifest *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        free(m->entry[i].name);
    free(m->entry);
    *m = (struct mull_manifest){0};
}

const struct mull_manifest_entry *mull_manifest_find(const struct mull_manifest *m,
                                                     const char *name)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (!strcmp(m->entry[i].name, name))
            return &m->entry[i];
    return NULL;
}

/* ---- Digests ---- */

struct mull_hasher {
    gnutls_hash_hd_t handle;
};

int mull_hasher_create(enum mull_digest digest, struct mull_hasher **out, struct mull_error *err)
{
    struct mull_hasher *h = calloc(1, sizeof(*h));
    int ret = h ? gnutls_hash_init(&h->handle, digests[digest].algorithm) : GNUTLS_E_MEMORY_ERROR;
    if (ret < 0) {
        free(h);
        return mull_fail(err, EIO, "%s: %s", mull_digest_name(digest), gnutls_strerror(ret));
    }
    *out = h;
    return 0;
}

void mull_hasher_update(struct mull_hasher *h, const void *data, size_t length)
{
    gnutls_hash(h->handle, data, length);
}

void mull_hasher_finish(struct mull_hasher *h, uint8_t *out)
{
    if (!h)
        return;
    gnutls_hash_deinit(h->handle, out);
    free(h);
}

/* ---- Signatures ---- */

static int crypto_fail(struct mull_error *err, const char *what, const char *part, int code)
{
    return mull_fail(err, EINVAL, "%s: %s: %s", what, part, gnutls_strerror(code));
}

/* The signature's line and its bytes. */
static int find_signature(const char *what, const char *cert, size_t length, const char *name,
                          enum mull_digest *digest, uint8_t *out, size_t *size,
                          struct mull_error *err)
{
    struct line line;
    for (size_t at = 0; at < length;) {
        const char *newline = memchr(cert + at, '\n', length - at);
        size_t n = newline ? (size_t)(newline - (cert + at)) : length - at;
        if (parse_line(cert + at, n, &line)) {
            if (line.name_length != strlen(name) || memcmp(line.name, name, line.name_length))
                return mull_fail(err, EKEYREJECTED, "%s: signs another file than %s", what, name);
            *digest = line.digest;
            *size = from_hex(line.hex, line.hex_length, out, SIGNATURE_MAX);
            if (*size)
                return 0;
            break;
        }
        at += n + 1;
    }
    return mull_fail(err, EKEYREJECTED, "%s: has no signature of %s", what, name);
}

/* Whether somebody the host trusts vouches for the chain. */
static void judge(gnutls_x509_crt_t *chain, unsigned count, const char *ca_file,
                  struct mull_signer *out)
{
    gnutls_x509_trust_list_t trust;
    unsigned status = 0;
    snprintf(out->why, sizeof(out->why), "there are no authorities to ask");
    if (gnutls_x509_trust_list_init(&trust, 0) < 0)
        return;
    int known = ca_file ? gnutls_x509_trust_list_add_trust_file(trust, ca_file, NULL,
                                                                GNUTLS_X509_FMT_PEM, 0, 0)
                        : gnutls_x509_trust_list_add_system_trust(trust, 0, 0);
    if (known > 0 &&
        gnutls_x509_trust_list_verify_crt(trust, chain, count, 0, &status, NULL) >= 0) {
        out->trusted = !status;
        gnutls_datum_t text;
        if (status &&
            !gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0)) {
            snprintf(out->why, sizeof(out->why), "%.*s", (int)text.size, text.data);
            gnutls_free(text.data);
        }
    }
    if (out->trusted)
        *out->why = '\0';
    gnutls_x509_trust_list_deinit(trust, 1);
}

static int check_with(const char *what, gnutls_x509_crt_t crt, enum mull_digest digest,
                      const gnutls_datum_t *data, const gnutls_datum_t *signature,
                      struct mull_error *err)
{
    gnutls_pubkey_t key;
    int ret = gnutls_pubkey_init(&key);
    if (ret < 0)
        return crypto_fail(err, what, "public key", ret);
    ret = gnutls_pubkey_import_x509(key, crt, 0);
    if (ret >= 0) {
        gnutls_sign_algorithm_t algorithm =
            gnutls_pk_to_sign((gnutls_pk_algorithm_t)gnutls_pubkey_get_pk_algorithm(key, NULL),
                              digests[digest].algorithm);
        /* OVF 1.x signs with SHA-1: what it is worth is for the reader to say. */
        ret =
            gnutls_pubkey_verify_data2(key, algorithm, GNUTLS_VERIFY_ALLOW_BROKEN, data, signature);
    }
    gnutls_pubkey_deinit(key);
    if (ret < 0)
        return mull_fail(err, EKEYREJECTED, "%s: the signature does not fit the manifest (%s)",
                         what, gnutls_strerror(ret));
    return 0;
}

int mull_manifest_verify(const char *what, const char *cert, size_t cert_length, const char *name,
                         const void *manifest, size_t length, const char *ca_file,
                         struct mull_signer *out, struct mull_error *err)
{
    uint8_t bytes[SIGNATURE_MAX];
    size_t size = 0;
    enum mull_digest digest = MULL_SHA256;
    *out = (struct mull_signer){0};
    if (cert_length > MULL_MANIFEST_BYTES_MAX)
        return mull_fail(err, E2BIG, "%s: more than 1 MiB", what);
    int ret = find_signature(what, cert, cert_length, name, &digest, bytes, &size, err);
    if (ret)
        return ret;
    gnutls_datum_t pem = {(unsigned char *)(uintptr_t)cert, (unsigned)cert_length};
    gnutls_datum_t data = {(unsigned char *)(uintptr_t)manifest, (unsigned)length};
    gnutls_datum_t signature = {bytes, (unsigned)size};
    gnutls_x509_crt_t chain[CHAIN_MAX];
    unsigned count = CHAIN_MAX;
    int got = gnutls_x509_crt_list_import(chain, &count, &pem, GNUTLS_X509_FMT_PEM,
                                          GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    if (got <= 0)
        return mull_fail(err, EKEYREJECTED, "%s: has no certificate: %s", what,
                         gnutls_strerror(got));
    count = (unsigned)got;
    gnutls_datum_t subject;
    if (!gnutls_x509_crt_get_dn3(chain[0], &subject, 0)) {
        snprintf(out->name, sizeof(out->name), "%.*s", (int)subject.size, subject.data);
        gnutls_free(subject.data);
    }
    ret = check_with(what, chain[0], digest, &data, &signature, err);
    if (!ret)
        judge(chain, count, ca_file, out);
    for (unsigned i = 0; i < count; i++)
        gnutls_x509_crt_deinit(chain[i]);
    return ret;
}

/* The signature in hexadecimal, then the certificate: the text of a .cert file. */
static char *cert_text(enum mull_digest digest, const char *name, const gnutls_datum_t *signature,
                       const gnutls_datum_t *pem)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    fprintf(out, "%s(%s)= ", mull_digest_name(digest), name);
    for (unsigned i = 0; i < signature->size; i++)
        fprintf(out, "%02x", signature->data[i]);
    fprintf(out, "\n%.*s", (int)pem->size, pem->data);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

int mull_manifest_sign(const char *name, const void *manifest, size_t length,
                       enum mull_digest digest, const char *key_file, const char *cert_file,
                       char **out, struct mull_error *err)
{
    gnutls_datum_t key_pem = {0}, cert_pem = {0}, signature = {0};
    gnutls_datum_t data = {(unsigned char *)(uintptr_t)manifest, (unsigned)length};
    gnutls_privkey_t key = NULL;
    const char *where = key_file;
    int ret = gnutls_load_file(key_file, &key_pem);
    if (ret >= 0)
        ret = gnutls_privkey_init(&key);
    if (ret >= 0)
        ret = gnutls_privkey_import_x509_raw(key, &key_pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (ret >= 0)
        ret = gnutls_privkey_sign_data(key, digests[digest].algorithm, 0, &data, &signature);
    if (ret >= 0) {
        where = cert_file;
        ret = gnutls_load_file(cert_file, &cert_pem);
    }
    *out = ret >= 0 ? cert_text(digest, name, &signature, &cert_pem) : NULL;
    if (ret >= 0 && !*out)
        ret = GNUTLS_E_MEMORY_ERROR;
    if (key)
        gnutls_privkey_deinit(key);
    gnutls_free(key_pem.data);
    gnutls_free(cert_pem.data);
    gnutls_free(signature.data);
    return ret < 0 ? crypto_fail(err, where, "signing", ret) : 0;
}
