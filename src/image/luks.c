/*
 * Files encrypted as a whole, or whose clusters are, with LUKS version 1 (LUKS On-Disk Format
 * Specification 1.2.3), shown in clear. Key slots are tried with the passphrase of a file; the
 * ciphers are GnuTLS's: AES in XTS or CBC mode with plain sector numbers.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/image.h"
#include "image/source.h"

#define SECTOR 512u
#define HEADER 592u
#define SLOTS 8
#define SLOT_ACTIVE 0x00ac71f3u
#define STRIPES_MAX 4096u
#define KEY_MAX 64u
#define DIGEST 20u
#define PASSPHRASE_MAX 4096u
/* PBKDF2 rounds that a header may make us do: some tens of seconds. */
#define ROUNDS_MAX 50000000u
#define CLEAR_CHUNK (1u << 20)

struct luks {
    struct mull_file *below;
    bool borrowed;              /* below stays its owner's */
    struct mull_file *material; /* the header and key slots are there, from */
    uint64_t header;
    gnutls_cipher_algorithm_t cipher;
    gnutls_mac_algorithm_t mac;
    gnutls_digest_algorithm_t digest;
    uint64_t payload; /* bytes */
    uint32_t key_length;
    bool short_numbers; /* "plain": 32 bits of the sector's number */
    uint8_t key[KEY_MAX];
};

static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

bool mull_source_encrypted(struct mull_file *file)
{
    uint8_t head[6];
    return atomic_load(&file->size) >= HEADER && !mull_file_read(file, head, sizeof(head), 0) &&
           !memcmp(head, magic, sizeof(magic));
}

/* Decrypt whole sectors in place; @first: the number of the first one. */
static int decrypt(const struct luks *l, const uint8_t *key, uint64_t first, uint8_t *buf,
                   uint64_t length)
{
    gnutls_datum_t k = {(unsigned char *)(uintptr_t)key, l->key_length};
    gnutls_cipher_hd_t cipher;
    uint8_t iv[16] = {0};
    gnutls_datum_t v = {iv, sizeof(iv)};

    if (gnutls_cipher_init(&cipher, l->cipher, &k, &v) < 0)
        return -ENOTSUP;
    int ret = 0;
    for (uint64_t at = 0; at < length && ret >= 0; at += SECTOR) {
        uint64_t number = first + at / SECTOR;
        mull_put_le64(iv, l->short_numbers ? (uint32_t)number : number);
        gnutls_cipher_set_iv(cipher, iv, sizeof(iv));
        ret = gnutls_cipher_decrypt2(cipher, buf + at, SECTOR, buf + at, SECTOR);
    }
    gnutls_cipher_deinit(cipher);
    return ret < 0 ? -EIO : 0;
}

/* "AF-Splitter": diffuse one block with the header's hash. */
static int diffuse(const struct luks *l, uint8_t *block)
{
    unsigned size = gnutls_hash_get_len(l->digest);
    uint8_t in[4 + 64], out[64];

    for (uint32_t at = 0, i = 0; at < l->key_length; at += size, i++) {
        uint32_t n = l->key_length - at < size ? l->key_length - at : size;
        mull_put_be32(in, i);
        memcpy(in + 4, block + at, n);
        if (gnutls_hash_fast(l->digest, in, 4 + n, out) < 0)
            return -EIO;
        memcpy(block + at, out, n);
    }
    return 0;
}

static int merge(const struct luks *l, const uint8_t *material, uint32_t stripes, uint8_t *key)
{
    int ret = 0;

    memset(key, 0, l->key_length);
    for (uint32_t i = 0; i < stripes && !ret; i++) {
        for (uint32_t j = 0; j < l->key_length; j++)
            key[j] ^= material[(size_t)i * l->key_length + j];
        if (i + 1 < stripes)
            ret = diffuse(l, key);
    }
    return ret;
}

static int derive(const struct luks *l, const void *secret, size_t length, const uint8_t *salt,
                  uint32_t rounds, uint8_t *out, size_t room)
{
    gnutls_datum_t s = {(unsigned char *)(uintptr_t)secret, (unsigned)length};
    gnutls_datum_t t = {(unsigned char *)(uintptr_t)salt, 32};

    if (!rounds || rounds > ROUNDS_MAX)
        return -EINVAL;
    return gnutls_pbkdf2(l->mac, &s, &t, rounds, out, room) < 0 ? -EIO : 0;
}

/* Try one key slot. @return 0: the key is right, -EKEYREJECTED, or another error */
static int try_slot(struct luks *l, const uint8_t *h, int index, const void *passphrase,
                    size_t length)
{
    const uint8_t *slot = h + 208 + 48 * index;
    uint64_t offset = (uint64_t)mull_be32(slot + 40) * SECTOR;
    uint32_t stripes = mull_be32(slot + 44);
    uint8_t key[KEY_MAX], digest[DIGEST];

    if (!stripes || stripes > STRIPES_MAX)
        return -EINVAL;
    uint64_t size = ((uint64_t)stripes * l->key_length + SECTOR - 1) / SECTOR * SECTOR;
    uint8_t *material = malloc(size);
    int ret = material
                  ? derive(l, passphrase, length, slot + 8, mull_be32(slot + 4), key, l->key_length)
                  : -ENOMEM;
    if (!ret)
        ret = mull_file_read(l->material, material, size, l->header + offset);
    if (!ret)
        ret = decrypt(l, key, 0, material, size);
    if (!ret)
        ret = merge(l, material, stripes, l->key);
    if (!ret)
        ret = derive(l, l->key, l->key_length, h + 132, mull_be32(h + 164), digest, DIGEST);
    if (!ret && gnutls_memcmp(digest, h + 112, DIGEST))
        ret = -EKEYREJECTED;
    gnutls_memset(key, 0, sizeof(key));
    if (material)
        gnutls_memset(material, 0, size);
    free(material);
    return ret;
}

/* What the header says of cipher and hash. */
static int choose(struct luks *l, const uint8_t *h, struct mull_error *err)
{
    char name[33] = "", mode[33] = "", hash[33] = "";

    memcpy(name, h + 8, 32);
    memcpy(mode, h + 40, 32);
    memcpy(hash, h + 72, 32);
    l->key_length = mull_be32(h + 108);
    l->payload = (uint64_t)mull_be32(h + 104) * SECTOR;
    bool xts = !strncmp(mode, "xts-plain", 9), cbc = !strncmp(mode, "cbc-plain", 9);
    l->short_numbers = (xts || cbc) && !mode[9];
    if (!strcmp(name, "aes") && (xts || cbc) && (!mode[9] || !strcmp(mode + 9, "64")))
        l->cipher = xts && l->key_length == 64   ? GNUTLS_CIPHER_AES_256_XTS
                    : xts && l->key_length == 32 ? GNUTLS_CIPHER_AES_128_XTS
                    : cbc && l->key_length == 32 ? GNUTLS_CIPHER_AES_256_CBC
                    : cbc && l->key_length == 16 ? GNUTLS_CIPHER_AES_128_CBC
                                                 : GNUTLS_CIPHER_UNKNOWN;
    l->mac = !strcmp(hash, "sha256")   ? GNUTLS_MAC_SHA256
             : !strcmp(hash, "sha512") ? GNUTLS_MAC_SHA512
             : !strcmp(hash, "sha1")   ? GNUTLS_MAC_SHA1
                                       : GNUTLS_MAC_UNKNOWN;
    l->digest = (gnutls_digest_algorithm_t)l->mac;
    if (l->cipher == GNUTLS_CIPHER_UNKNOWN || l->mac == GNUTLS_MAC_UNKNOWN)
        return mull_fail(err, ENOTSUP,
                         "%s: encrypted with %.32s-%.32s, %u bytes of key, hash %.32s, which we do "
                         "not know: unlock it with cryptsetup",
                         l->below->path, name, mode, l->key_length, hash);
    if (l->borrowed)
        l->payload = 0; /* data is all over the file */
    else if (l->payload < HEADER || l->payload > atomic_load(&l->below->size))
        return mull_fail(err, EINVAL, "%s: LUKS header: payload offset is %llu", l->below->path,
                         (unsigned long long)l->payload);
    return 0;
}

static int unlock(struct luks *l, const char *key_file, struct mull_error *err)
{
    uint8_t h[HEADER];
    char passphrase[PASSPHRASE_MAX];
    int ret = mull_file_read(l->material, h, sizeof(h), l->header);

    if (!ret && memcmp(h, magic, sizeof(magic)))
        return mull_fail(err, EINVAL, "%s: LUKS header: no magic number", l->below->path);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot read its LUKS header", l->below->path);
    if (mull_be16(h + 6) != 1)
        return mull_fail(err, ENOTSUP, "%s: LUKS version %u: unlock it with cryptsetup",
                         l->below->path, mull_be16(h + 6));
    ret = choose(l, h, err);
    if (ret)
        return ret;
    int fd = open(key_file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, passphrase, sizeof(passphrase));
    int code = errno;
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return mull_fail(err, n < 0 ? code : EINVAL, "%s: %s", key_file,
                         n < 0 ? strerror(code) : "is empty");
    ret = -EKEYREJECTED;
    for (int i = 0; i < SLOTS && ret == -EKEYREJECTED; i++)
        if (mull_be32(h + 208 + 48 * i) == SLOT_ACTIVE)
            ret = try_slot(l, h, i, passphrase, (size_t)n);
    gnutls_memset(passphrase, 0, sizeof(passphrase));
    return ret ? mull_fail(err, -ret, "%s: %s", l->below->path,
                           ret == -EKEYREJECTED ? "the key in --key-file opens no key slot"
                           : ret == -EINVAL     ? "a LUKS key slot makes no sense"
                                                : strerror(-ret))
               : 0;
}

static int luks_readv(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                      uint64_t length)
{
    struct luks *l = file->opaque;
    uint64_t start = offset - offset % SECTOR, end = offset + length, skip = 0;
    uint8_t *buf = malloc(CLEAR_CHUNK);
    int ret = buf ? 0 : -ENOMEM;

    end += SECTOR - 1 - (end + SECTOR - 1) % SECTOR;
    while (start < end && !ret) {
        uint64_t n = end - start < CLEAR_CHUNK ? end - start : CLEAR_CHUNK;
        ret = mull_file_read(l->below, buf, n, l->payload + start);
        if (!ret)
            ret = decrypt(l, l->key, start / SECTOR, buf, n);
        uint64_t from = offset > start ? offset - start : 0;
        uint64_t part = n - from < length - skip ? n - from : length - skip;
        if (!ret)
            mull_iov_fill(iov, niov, skip, buf + from, part);
        skip += part;
        start += n;
    }
    free(buf);
    return ret;
}

static int luks_identity(struct mull_file *file, char *out, size_t room)
{
    struct luks *l = file->opaque;
    return mull_file_identity(l->below, out, room);
}

static void luks_free(struct luks *l)
{
    if (!l->borrowed)
        mull_file_close(l->below);
    gnutls_memset(l->key, 0, sizeof(l->key));
    free(l);
}

static void luks_close(struct mull_file *file)
{
    luks_free(file->opaque);
}

static const struct mull_file_ops luks_ops = {
    .readv = luks_readv,
    .identity = luks_identity,
    .close = luks_close,
};

int mull_source_decrypt(const struct mull_file_options *o, struct mull_file *below,
                        struct mull_file **out, struct mull_error *err)
{
    const char *key_file = o->source ? o->source->key_file : NULL;

    if (!key_file)
        return mull_fail(err, ENOKEY,
                         "%s: is encrypted (LUKS): give the key with --key-file, or take it as it "
                         "is with --from raw",
                         o->path);
    struct luks *l = calloc(1, sizeof(*l));
    if (!l)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    l->below = l->material = below;
    int ret = unlock(l, key_file, err);
    if (!ret) {
        uint64_t size = (atomic_load(&below->size) - l->payload) / SECTOR * SECTOR;
        return mull_file_stand_in(o, &luks_ops, l, size, out, err);
    }
    l->below = NULL; /* stays the caller's */
    luks_free(l);
    return ret;
}

int mull_source_decrypt_clusters(const struct mull_file_options *o, struct mull_file *material,
                                 uint64_t header, struct mull_file *below, struct mull_file **out,
                                 struct mull_error *err)
{
    const char *key_file = o->source ? o->source->key_file : NULL;

    if (!key_file)
        return mull_fail(err, ENOKEY, "%s: is encrypted (LUKS): give the key with --key-file",
                         o->path);
    struct luks *l = calloc(1, sizeof(*l));
    if (!l)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    *l = (struct luks){.below = below, .borrowed = true, .material = material, .header = header};
    int ret = unlock(l, key_file, err);
    if (!ret)
        return mull_file_stand_in(o, &luks_ops, l, atomic_load(&below->size), out, err);
    luks_free(l);
    return ret;
}
