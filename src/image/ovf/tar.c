/* Tar archives: the index and the writer. See tar.h. */
#include "image/ovf/tar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define BLOCK 512u
#define PAX_MAX (64u << 10)
#define OCTAL_SIZE_MAX 077777777777ull

/* Offsets in a header block (ustar Interchange Format). */
enum {
    NAME = 0,
    MODE = 100,
    UID = 108,
    GID = 116,
    SIZE = 124,
    MTIME = 136,
    CHECKSUM = 148,
    TYPE = 156,
    MAGIC = 257,
    VERSION = 263,
    UNAME = 265,
    GNAME = 297,
    PREFIX = 345,
};

struct reader {
    struct mull_tar *tar;
    const char *what;
    uint64_t at, end;
    char *long_name;    /* of the next member, from a GNU 'L' or a pax header */
    uint64_t long_size; /* from a pax header */
    bool has_size;
    struct mull_error *err;
};

bool mull_tar_name_is_safe(const char *name)
{
    if (!*name || *name == '/' || strlen(name) > MULL_TAR_NAME_MAX || strchr(name, '\\'))
        return false;
    for (const char *p = name;;) {
        size_t n = strcspn(p, "/");
        if (!n || (n == 2 && !memcmp(p, "..", 2)) || (n == 1 && *p == '.'))
            return false;
        if (!p[n])
            return true;
        p += n + 1;
    }
}

static int bad(struct reader *r, const char *what)
{
    return mull_fail(r->err, EINVAL, "%s: byte %llu: %s", r->what, (unsigned long long)r->at, what);
}

static int read_at(struct reader *r, void *buf, size_t length, uint64_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = pread(r->tar->fd, (char *)buf + done, length - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mull_fail(r->err, errno, "%s: %s", r->what, strerror(errno));
        if (n == 0)
            return bad(r, "the archive ends in the middle of a member");
        done += (size_t)n;
    }
    return 0;
}

/* A number in octal, or in base 256 where the first bit is set (GNU). */
static bool number(const uint8_t *field, unsigned width, uint64_t *out)
{
    uint64_t n = 0;
    if (*field & 0x80) {
        if (*field != 0x80)
            return false; /* negative, or beyond 64 bits */
        for (unsigned i = 1; i < width; i++) {
            if (n >> 56)
                return false;
            n = n << 8 | field[i];
        }
        *out = n;
        return true;
    }
    unsigned i = 0;
    while (i < width && field[i] == ' ')
        i++;
    for (; i < width && field[i] && field[i] != ' '; i++) {
        if (field[i] < '0' || field[i] > '7')
            return false;
        n = n << 3 | (uint64_t)(field[i] - '0'); /* 12 digits at most */
    }
    *out = n;
    return true;
}

static bool checksum_fits(const uint8_t *h)
{
    uint64_t said;
    uint32_t sum = 0;
    int32_t signed_sum = 0; /* as some old writers did */
    for (unsigned i = 0; i < BLOCK; i++) {
        uint8_t b = i >= CHECKSUM && i < CHECKSUM + 8 ? ' ' : h[i];
        sum += b;
        signed_sum += (int8_t)b;
    }
    return number(h + CHECKSUM, 8, &said) && (said == sum || (int64_t)said == signed_sum);
}

static char *header_name(const uint8_t *h)
{
    char name[257] = "";
    size_t len = 0;
    if (!memcmp(h + MAGIC, "ustar", 6) && h[PREFIX]) {
        len = strnlen((const char *)h + PREFIX, 155);
        memcpy(name, h + PREFIX, len);
        name[len++] = '/';
    }
    size_t n = strnlen((const char *)h + NAME, 100);
    memcpy(name + len, h + NAME, n);
    name[len + n] = '\0';
    return strdup(name);
}

static char *read_text(struct reader *r, uint64_t offset, uint64_t size)
{
    char *text = size <= PAX_MAX ? calloc(1, size + 1) : NULL;
    if (!text) {
        bad(r, "an extended header of more than 64 KiB");
        return NULL;
    }
    if (read_at(r, text, size, offset)) {
        free(text);
        return NULL;
    }
    return text;
}

static int set_name(struct reader *r, const char *name, size_t len)
{
    free(r->long_name);
    r->long_name = strndup(name, len);
    return r->long_name ? 0 : mull_fail(r->err, ENOMEM, "%s: out of memory", r->what);
}

static int pax_record(struct reader *r, const char *key, size_t key_len, const char *value,
                      size_t value_len)
{
    if (key_len == 4 && !memcmp(key, "path", 4)) {
        if (memchr(value, 0, value_len))
            return bad(r, "a name with a zero byte");
        return set_name(r, value, value_len);
    }
    if (key_len == 4 && !memcmp(key, "size", 4)) {
        char text[24], *end;
        if (!value_len || value_len >= sizeof(text) || *value < '0' || *value > '9')
            return bad(r, "a size that is no number");
        memcpy(text, value, value_len);
        text[value_len] = '\0';
        errno = 0;
        r->long_size = strtoull(text, &end, 10);
        r->has_size = true;
        return errno || *end ? bad(r, "a size that is no number") : 0;
    }
    if (key_len > 10 && !memcmp(key, "GNU.sparse", 10))
        return bad(r, "a sparse member (GNU); write the archive without --sparse");
    return 0;
}

/* "25 path=some/name\n"... (pax Extended Header). */
static int read_pax(struct reader *r, uint64_t offset, uint64_t size)
{
    char *text = read_text(r, offset, size);
    if (!text)
        return r->err && r->err->code ? -r->err->code : -EINVAL;
    int ret = 0;
    for (uint64_t at = 0; at < size && !ret;) {
        char *end;
        unsigned long long length = strtoull(text + at, &end, 10);
        uint64_t digits = (uint64_t)(end - (text + at));
        const char *equals = NULL;
        if (digits && *end == ' ' && length > digits + 1 && length <= size - at &&
            text[at + length - 1] == '\n')
            equals = memchr(end + 1, '=', length - digits - 1);
        if (!equals) {
            ret = bad(r, "an extended header that is none");
            break;
        }
        const char *last = text + at + length - 1;
        ret = pax_record(r, end + 1, (size_t)(equals - end - 1), equals + 1,
                         (size_t)(last - equals - 1));
        at += length;
    }
    free(text);
    return ret;
}

static int add_member(struct reader *r, char *name, uint64_t offset, uint64_t size)
{
    struct mull_tar *tar = r->tar;
    char *use = name;
    while (!strncmp(use, "./", 2))
        use += 2;
    if (!mull_tar_name_is_safe(use))
        return mull_fail(r->err, EPERM,
                         "%s: member '%.200s' would lie outside its folder; the archive is refused",
                         r->what, name);
    if (mull_tar_find(tar, use))
        return mull_fail(r->err, EEXIST, "%s: two members are called '%.200s'", r->what, use);
    if (tar->count == MULL_TAR_MEMBERS_MAX)
        return mull_fail(r->err, E2BIG, "%s: more than %u members", r->what, MULL_TAR_MEMBERS_MAX);
    struct mull_tar_member *grown = realloc(tar->member, (tar->count + 1) * sizeof(*grown));
    if (!grown)
        return mull_fail(r->err, ENOMEM, "%s: out of memory", r->what);
    tar->member = grown;
    char *copy = strdup(use);
    if (!copy)
        return mull_fail(r->err, ENOMEM, "%s: out of memory", r->what);
    tar->member[tar->count++] = (struct mull_tar_member){copy, offset, size};
    return 0;
}

/* A plain file, or what must not be there. */
static int read_member(struct reader *r, const uint8_t *h, uint64_t offset, uint64_t size)
{
    char *name = r->long_name ? r->long_name : header_name(h);
    r->long_name = NULL;
    int ret = 0;
    if (!name)
        ret = mull_fail(r->err, ENOMEM, "%s: out of memory", r->what);
    else if (h[TYPE] == '0' || h[TYPE] == '\0' || h[TYPE] == '7')
        ret = add_member(r, name, offset, size);
    else if (h[TYPE] == '5')
        ret = 0; /* a folder: what is in it says so by its name */
    else if (h[TYPE] == '1' || h[TYPE] == '2')
        ret = mull_fail(r->err, EPERM, "%s: member '%.200s' is a link; the archive is refused",
                        r->what, name);
    else
        ret = mull_fail(r->err, EPERM,
                        "%s: member '%.200s' is of type '%c', not a file; the archive is refused",
                        r->what, name, h[TYPE] >= ' ' && h[TYPE] < 127 ? h[TYPE] : '?');
    free(name);
    return ret;
}

static int read_one(struct reader *r, const uint8_t *h, bool *extended)
{
    uint64_t size;
    if (!checksum_fits(h))
        return bad(r, "no tar header; is this an OVA?");
    if (!number(h + SIZE, 12, &size))
        return bad(r, "a size that is no number");
    char type = (char)h[TYPE];
    *extended = type == 'x' || type == 'g' || type == 'L' || type == 'K';
    if (!*extended && r->has_size)
        size = r->long_size;
    if (type == '5')
        size = 0;
    uint64_t offset = r->at + BLOCK;
    if (size > r->end - offset)
        return bad(r, "a member is larger than the archive");
    int ret = 0;
    if (type == 'x') {
        ret = read_pax(r, offset, size);
    } else if (type == 'L') {
        char *text = read_text(r, offset, size);
        ret = text ? set_name(r, text, strlen(text)) : -EINVAL;
        free(text);
    } else if (!*extended) {
        ret = read_member(r, h, offset, size);
        r->has_size = false;
    }
    r->at = offset + (size + BLOCK - 1) / BLOCK * BLOCK;
    return ret;
}

int mull_tar_open(int fd, const char *what, struct mull_tar *out, struct mull_error *err)
{
    struct stat st;
    *out = (struct mull_tar){.fd = fd};
    struct reader r = {.tar = out, .what = what, .err = err};
    if (fstat(fd, &st) < 0)
        return mull_fail(err, errno, "%s: %s", what, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return mull_fail(err, EINVAL, "%s: is not a regular file", what);
    r.end = (uint64_t)st.st_size;
    unsigned extended_run = 0;
    int ret = 0;
    while (!ret && r.at + BLOCK <= r.end) {
        uint8_t h[BLOCK];
        static const uint8_t zeroes[BLOCK];
        bool extended = false;
        ret = read_at(&r, h, BLOCK, r.at);
        if (!ret && !memcmp(h, zeroes, BLOCK))
            break;
        if (!ret)
            ret = read_one(&r, h, &extended);
        extended_run = extended ? extended_run + 1 : 0;
        if (!ret && extended_run > 16)
            ret = bad(&r, "headers without a member");
    }
    if (!ret && !out->count)
        ret = mull_fail(err, EINVAL, "%s: no tar archive, or an empty one", what);
    free(r.long_name);
    if (ret)
        mull_tar_close(out);
    return ret;
}

void mull_tar_close(struct mull_tar *tar)
{
    for (uint32_t i = 0; i < tar->count; i++)
        free(tar->member[i].name);
    free(tar->member);
    tar->member = NULL;
    tar->count = 0;
}

const struct mull_tar_member *mull_tar_find(const struct mull_tar *tar, const char *name)
{
    for (uint32_t i = 0; i < tar->count; i++)
        if (!strcmp(tar->member[i].name, name))
            return &tar->member[i];
    return NULL;
}

/* ---- Writing ---- */

static int write_block(int fd, const char *name, char type, uint64_t size, uint64_t mtime)
{
    char h[BLOCK] = {0};
    memcpy(h + NAME, name, strnlen(name, 100));
    memcpy(h + MODE, "0000644", 8);
    memcpy(h + UID, "0000000", 8);
    memcpy(h + GID, "0000000", 8);
    snprintf(h + SIZE, 12, "%011llo", (unsigned long long)(size > OCTAL_SIZE_MAX ? 0 : size));
    snprintf(h + MTIME, 12, "%011llo", (unsigned long long)(mtime & OCTAL_SIZE_MAX));
    memset(h + CHECKSUM, ' ', 8);
    h[TYPE] = type;
    memcpy(h + MAGIC, "ustar", 6);
    memcpy(h + VERSION, "00", 2);
    memcpy(h + UNAME, "root", 5);
    memcpy(h + GNAME, "root", 5);
    unsigned sum = 0;
    for (unsigned i = 0; i < BLOCK; i++)
        sum += (uint8_t)h[i];
    snprintf(h + CHECKSUM, 7, "%06o", sum);
    return mull_write_all(fd, h, BLOCK);
}

/* One record "length key=value\n"; the length counts its own digits. */
static size_t put_record(char *out, size_t room, const char *key, const char *value)
{
    size_t rest = strlen(key) + strlen(value) + 3, total = rest + 1;
    char digits[24];
    while ((size_t)snprintf(digits, sizeof(digits), "%zu", total) + rest != total)
        total++;
    return (size_t)snprintf(out, room, "%s %s=%s\n", digits, key, value);
}

int mull_tar_put_header(int fd, const char *name, uint64_t size, uint64_t mtime)
{
    char pax[MULL_TAR_NAME_MAX + 256], number_text[24];
    size_t len = 0;
    if (!mull_tar_name_is_safe(name))
        return -EINVAL;
    if (strlen(name) > 100)
        len += put_record(pax, sizeof(pax), "path", name);
    if (size > OCTAL_SIZE_MAX) {
        snprintf(number_text, sizeof(number_text), "%llu", (unsigned long long)size);
        len += put_record(pax + len, sizeof(pax) - len, "size", number_text);
    }
    int ret = len ? write_block(fd, "pax_header", 'x', len, mtime) : 0;
    if (!ret && len)
        ret = mull_write_all(fd, pax, len);
    if (!ret && len)
        ret = mull_tar_pad(fd, len);
    return ret ? ret : write_block(fd, name, '0', size, mtime);
}

int mull_tar_pad(int fd, uint64_t size)
{
    static const char zeroes[BLOCK];
    return size % BLOCK ? mull_write_all(fd, zeroes, BLOCK - size % BLOCK) : 0;
}

int mull_tar_finish(int fd)
{
    static const char zeroes[2 * BLOCK];
    return mull_write_all(fd, zeroes, sizeof(zeroes));
}
