/* See vix_wire.h. All numbers are little endian, structures without gaps. */
#include "host/vix_wire.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* vixCommands.h: VixMsgHeader, VixCommandRequestHeader */
#define MAGIC 0xd00d0001u
#define VERSION 5
#define HEADER 51 /* bytes of both */
#define AT_TOTAL 6
#define AT_BODY 14
#define AT_CREDENTIAL 18
#define AT_FLAGS 22
#define NO_TIMEOUT UINT32_MAX
enum { REQUEST = 1, FORWARD_TO_GUEST = 4, RETURNS_BINARY = 0x80 };
enum { CREDENTIAL_NAME_PASSWORD = 1 };

/* hgfsProto.h: HgfsOp */
enum { HGFS_OPEN_V3 = 24, HGFS_READ_V3, HGFS_WRITE_V3, HGFS_CLOSE_V3 };
/* HgfsOpenValid: mode, flags, all four permissions, the name */
#define OPEN_VALID (1u << 0 | 1u << 1 | 15u << 2 | 1u << 11)
enum { MODE_READ, MODE_WRITE };
enum { FLAGS_OPEN = 0, FLAGS_CREATE_EMPTY = 4 };
#define NO_HANDLE UINT32_MAX
#define SHARE "root" /* the guest's whole tree */
#define HGFS_HEADER 8

/* ---- Writing ---- */

static void put(struct vix_message *m, const void *data, size_t size)
{
    if (m->bad || size > sizeof(m->data) - m->size) {
        m->bad = true;
        return;
    }
    if (size)
        memcpy(m->data + m->size, data, size);
    m->size += size;
}

static void put_number(struct vix_message *m, uint64_t value, size_t bytes)
{
    uint8_t out[8];
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> 8 * i);
    put(m, out, bytes);
}

static void put8(struct vix_message *m, uint8_t value)
{
    put_number(m, value, 1);
}

static void put32(struct vix_message *m, size_t value)
{
    m->bad |= value > UINT32_MAX;
    put_number(m, value, 4);
}

static void put64(struct vix_message *m, uint64_t value)
{
    put_number(m, value, 8);
}

/* With its 0. */
static void put_text(struct vix_message *m, const char *text)
{
    put(m, text, strlen(text) + 1);
}

static void set32(struct vix_message *m, size_t at, size_t value)
{
    for (size_t i = 0; i < 4; i++)
        m->data[at + i] = (uint8_t)(value >> 8 * i);
}

/* The command of GuestRPC with the request's name, which nobody looks at, and the header. Lengths
 * come when they are known. */
static void begin(struct vix_message *m, enum vix_command command, unsigned flags)
{
    m->bad = false;
    m->size = 0;
    put_text(m, "Vix_1_Relayed_Command \"1\"");
    m->body_at = m->size;
    put32(m, MAGIC);
    put_number(m, VERSION, 2);
    put32(m, 0); /* all, header, body, credential */
    put32(m, HEADER);
    put32(m, 0);
    put32(m, 0);
    put8(m, (uint8_t)(REQUEST | FORWARD_TO_GUEST | flags));
    put32(m, command);
    put32(m, 0); /* request flags */
    put32(m, NO_TIMEOUT);
    put64(m, 1); /* cookie */
    put32(m, 0); /* client's handle */
    put32(m, CREDENTIAL_NAME_PASSWORD);
}

/* VixCommandNamePassword and "name\0password\0" in base64, which foundryMsg.c calls obfuscated. */
static void put_credential(struct vix_message *m, const struct vix_user *user)
{
    uint8_t plain[2 * VIX_NAME_MAX + 2];
    size_t name = strlen(user->name), password = strlen(user->password);
    gnutls_datum_t out = {0};
    if (name > VIX_NAME_MAX || password > VIX_NAME_MAX) {
        m->bad = true;
        return;
    }
    memcpy(plain, user->name, name + 1);
    memcpy(plain + name + 1, user->password, password + 1);
    gnutls_datum_t in = {plain, (unsigned)(name + password + 2)};
    m->bad |= gnutls_base64_encode2(&in, &out) != 0;
    put32(m, name);
    put32(m, password);
    put(m, out.data, out.size);
    put8(m, 0);
    if (out.data)
        explicit_bzero(out.data, out.size);
    gnutls_free(out.data);
    explicit_bzero(plain, sizeof(plain));
}

static void end(struct vix_message *m, const struct vix_user *user)
{
    size_t body_end = m->size;
    put_credential(m, user);
    if (m->bad) {
        explicit_bzero(m->data, sizeof(m->data));
        m->size = 0;
        return;
    }
    set32(m, m->body_at + AT_TOTAL, m->size - m->body_at);
    set32(m, m->body_at + AT_BODY, body_end - m->body_at - HEADER);
    set32(m, m->body_at + AT_CREDENTIAL, m->size - body_end);
}

void vix_validate(struct vix_message *m, const struct vix_user *user)
{
    begin(m, VIX_VALIDATE_CREDENTIALS, 0);
    end(m, user);
}

/* VixMsgCreateTempFileRequestEx; where no folder is named the guest takes its own for such. */
void vix_make_folder(struct vix_message *m, const struct vix_user *user, const char *prefix)
{
    begin(m, VIX_CREATE_TEMPORARY_DIRECTORY, 0);
    put32(m, 0);
    put32(m, strlen(prefix));
    put32(m, 0); /* suffix, folder, properties */
    put32(m, 0);
    put32(m, 0);
    put_text(m, prefix);
    put_text(m, "");
    put_text(m, "");
    end(m, user);
}

/* VixMsgDeleteDirectoryRequest */
void vix_delete_folder(struct vix_message *m, const struct vix_user *user, const char *path)
{
    begin(m, VIX_DELETE_DIRECTORY, 0);
    put32(m, 0);
    put32(m, strlen(path));
    put32(m, 0);
    put8(m, 1); /* with what is in it */
    put_text(m, path);
    end(m, user);
}

/* VixMsgStartProgramRequest, whose lengths count the 0. */
void vix_start(struct vix_message *m, const struct vix_user *user, const char *program,
               const char *arguments)
{
    begin(m, VIX_START_PROGRAM, 0);
    put8(m, 0);
    put32(m, strlen(program) + 1);
    put32(m, strlen(arguments) + 1);
    put32(m, 0); /* folder: the user's home */
    put32(m, 0); /* environment: as it is */
    put32(m, 0);
    put_text(m, program);
    put_text(m, arguments);
    end(m, user);
}

/* VixMsgListProcessesExRequest */
void vix_list_process(struct vix_message *m, const struct vix_user *user, uint64_t pid)
{
    begin(m, VIX_LIST_PROCESSES, 0);
    put32(m, 0);
    put32(m, 0);
    put32(m, 1);
    put64(m, pid);
    end(m, user);
}

/* VixCommandKillProcessRequest */
void vix_terminate(struct vix_message *m, const struct vix_user *user, uint64_t pid)
{
    begin(m, VIX_TERMINATE_PROCESS, 0);
    put64(m, pid);
    put32(m, 0);
    end(m, user);
}

/* ---- HGFS ---- */

static size_t begin_hgfs(struct vix_message *m, uint32_t op)
{
    begin(m, VIX_HGFS, RETURNS_BINARY);
    size_t at = m->size;
    put32(m, 0); /* the packet's size, when it is known */
    put32(m, 0);
    put32(m, 1); /* its id */
    put32(m, op);
    return at;
}

static void end_hgfs(struct vix_message *m, const struct vix_user *user, size_t at)
{
    if (!m->bad)
        set32(m, at, m->size - at - 8);
    end(m, user);
}

/* A cross-platform name: components with a 0 between them (hgfsProto.h, HgfsFileName). */
static void put_path(struct vix_message *m, const char *path)
{
    char name[sizeof(SHARE) + VIX_PATH_MAX] = SHARE;
    size_t size = sizeof(SHARE) - 1;
    m->bad |= *path != '/' || strlen(path) >= VIX_PATH_MAX;
    for (const char *at = path; !m->bad && *at;) {
        size_t part;
        at += strspn(at, "/");
        part = strcspn(at, "/");
        if (!part)
            break;
        name[size++] = '\0';
        memcpy(name + size, at, part);
        size += part;
        at += part;
    }
    put32(m, size);
    put32(m, 0); /* flags; case as the guest has it; no handle */
    put32(m, 0);
    put32(m, NO_HANDLE);
    put(m, name, size);
    put8(m, 0);
}

/* HgfsRequestOpenV3 */
void vix_open_file(struct vix_message *m, const struct vix_user *user, const char *path, bool write)
{
    size_t at = begin_hgfs(m, HGFS_OPEN_V3);
    put64(m, OPEN_VALID);
    put32(m, write ? MODE_WRITE : MODE_READ);
    put32(m, write ? FLAGS_CREATE_EMPTY : FLAGS_OPEN);
    put8(m, 0); /* special, owner, group, others: -rw-r--r-- */
    put8(m, 6);
    put8(m, 4);
    put8(m, 4);
    put64(m, 0); /* attributes, size */
    put64(m, 0);
    put32(m, 0); /* access, sharing, lock: not said to be valid */
    put32(m, 0);
    put32(m, 0);
    put64(m, 0);
    put64(m, 0);
    put_path(m, path);
    end_hgfs(m, user, at);
}

/* HgfsRequestReadV3 */
void vix_read(struct vix_message *m, const struct vix_user *user, uint32_t file, uint64_t offset,
              uint32_t size)
{
    size_t at = begin_hgfs(m, HGFS_READ_V3);
    put32(m, file);
    put64(m, offset);
    put32(m, size);
    put64(m, 0);
    end_hgfs(m, user, at);
}

/* HgfsRequestWriteV3 */
void vix_write(struct vix_message *m, const struct vix_user *user, uint32_t file, uint64_t offset,
               const void *data, uint32_t size)
{
    size_t at = begin_hgfs(m, HGFS_WRITE_V3);
    put32(m, file);
    put8(m, 0);
    put64(m, offset);
    put32(m, size);
    put64(m, 0);
    put(m, data, size);
    end_hgfs(m, user, at);
}

/* HgfsRequestCloseV3 */
void vix_close_file(struct vix_message *m, const struct vix_user *user, uint32_t file)
{
    size_t at = begin_hgfs(m, HGFS_CLOSE_V3);
    put32(m, file);
    put64(m, 0);
    end_hgfs(m, user, at);
}

/* ---- Reading ---- */

static bool take_word(const char **at, const char *end, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(end - *at) < n || memcmp(*at, word, n) != 0)
        return false;
    *at += n;
    return true;
}

/* Decimal; @return false: there is none, or it is larger than @most. */
static bool take_number(const char **at, const char *end, uint64_t most, uint64_t *out)
{
    const char *begin = *at;
    *out = 0;
    for (; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        unsigned digit = (unsigned)(**at - '0');
        if (*out > (most - digit) / 10)
            return false;
        *out = *out * 10 + digit;
    }
    return *at > begin;
}

int vix_parse(const void *data, size_t size, bool binary, struct vix_answer *out)
{
    const char *at = data, *end = at + size;
    uint64_t error, number;
    *out = (struct vix_answer){0};
    if (size && take_word(&at, end, "ERROR")) {
        out->unknown = true;
        return 0;
    }
    if (!size || !take_word(&at, end, "OK ") || !take_number(&at, end, INT64_MAX, &error) ||
        !take_word(&at, end, " "))
        return -EPROTO;
    take_word(&at, end, "-"); /* its errno means nothing here */
    if (!take_number(&at, end, UINT32_MAX, &number))
        return -EPROTO;
    out->error = (uint32_t)error & 0xffff; /* vix.h: VIX_ERROR_CODE */
    if (!out->error && error)
        return -EPROTO;
    while (at < end && *at == ' ')
        at++;
    if (binary && !out->error && !take_word(&at, end, "#"))
        return -EPROTO;
    out->data = at;
    out->size = (size_t)(end - at);
    if (!binary) /* with a 0, and what was behind it */
        out->size = strnlen(at, out->size);
    return 0;
}

int vix_parse_pid(const struct vix_answer *a, uint64_t *pid)
{
    const char *at = a->data, *end = at + a->size;
    return a->size && take_number(&at, end, INT32_MAX, pid) && at == end && *pid > 1 ? 0 : -EPROTO;
}

int vix_parse_path(const struct vix_answer *a, char out[VIX_PATH_MAX])
{
    if (!a->size || a->size >= VIX_PATH_MAX / 2 || *a->data != '/')
        return -EPROTO;
    for (size_t i = 0; i < a->size; i++) {
        unsigned char c = (unsigned char)a->data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            !strchr("/-_.+", c))
            return -EPROTO;
    }
    memcpy(out, a->data, a->size);
    out[a->size] = '\0';
    return 0;
}

/* What is between <NAME> and </NAME>, from *at on. */
static bool take_element(const char **at, const char *end, const char *name, const char **value)
{
    char open[16], close[16];
    int n = snprintf(open, sizeof(open), "<%s>", name);
    snprintf(close, sizeof(close), "</%s>", name);
    const char *from = memmem(*at, (size_t)(end - *at), open, (size_t)n);
    if (!from)
        return false;
    from += n;
    const char *to = memmem(from, (size_t)(end - from), close, (size_t)n + 1);
    if (!to)
        return false;
    *value = from;
    *at = to;
    return true;
}

static bool number_of(const char *value, const char *end, uint64_t most, uint64_t *out)
{
    return take_number(&value, end, most, out) && value == end;
}

/* "<proc><cmd>..</cmd><name>..</name><pid>..</pid><user>..</user><start>..</start>
 * <eCode>..</eCode><eTime>..</eTime></proc>"; eTime is 0 as long as it runs. */
int vix_parse_process(const struct vix_answer *a, uint64_t pid, bool *ended, int *status)
{
    const char *at = a->data, *end = at + a->size, *value;
    while (a->size && take_element(&at, end, "pid", &value)) {
        uint64_t number, code, when;
        if (!number_of(value, at, INT64_MAX, &number))
            return -EPROTO;
        if (number != pid)
            continue;
        if (!take_element(&at, end, "eCode", &value))
            return -EPROTO;
        bool signalled = *value == '-'; /* -1: the guest does not know it */
        if (signalled)
            code = 255;
        else if (!number_of(value, at, INT32_MAX, &code))
            return -EPROTO;
        if (!take_element(&at, end, "eTime", &value) || !number_of(value, at, INT64_MAX, &when))
            return -EPROTO;
        *ended = when != 0;
        *status = (int)(code & 255);
        return 0;
    }
    return -ENOENT;
}

static uint32_t get32(const char *at)
{
    const uint8_t *b = (const uint8_t *)at;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

int hgfs_parse(const struct vix_answer *a, uint32_t *status, struct vix_answer *out)
{
    if (a->size < HGFS_HEADER)
        return -EPROTO;
    *status = get32(a->data + 4);
    *out = (struct vix_answer){.data = a->data + HGFS_HEADER, .size = a->size - HGFS_HEADER};
    return 0;
}

/* HgfsReplyOpenV3 */
int hgfs_parse_open(const struct vix_answer *a, uint32_t *file)
{
    if (a->size < 16)
        return -EPROTO;
    *file = get32(a->data);
    return 0;
}

/* HgfsReplyReadV3 */
int hgfs_parse_read(const struct vix_answer *a, uint32_t wanted, const void **data, uint32_t *size)
{
    if (a->size < 12)
        return -EPROTO;
    *size = get32(a->data);
    *data = a->data + 12;
    return *size <= wanted && *size <= a->size - 12 ? 0 : -EPROTO;
}

/* HgfsReplyWriteV3 */
int hgfs_parse_write(const struct vix_answer *a, uint32_t wanted, uint32_t *size)
{
    if (a->size < 12)
        return -EPROTO;
    *size = get32(a->data);
    return *size && *size <= wanted ? 0 : -EPROTO;
}

/* ---- Words ---- */

const char *hgfs_status_text(uint32_t status)
{
    static const char *const text[] = {
        "success",
        "no such file or folder",
        "the guest has closed it",
        "operation not permitted",
        "it is a folder, or exists already",
        "not a folder",
        "the folder is not empty",
        "the guest does not understand the request",
        "permission denied",
        "a name that the guest does not accept",
        "it cannot be done in the guest",
        "another program uses it",
        "no space left in the guest",
        "the guest cannot do that",
        "the name is too long",
        "the guest does not understand the request",
        "not on one device",
    };
    return status < sizeof(text) / sizeof(text[0]) ? text[status] : "an unknown error";
}

const char *vix_error_text(uint32_t error)
{
    static const struct {
        uint32_t error;
        const char *text;
    } known[] = {
        {1, "it failed in the guest"},
        {2, "the guest has no memory left"},
        {3, "the guest does not understand the request"},
        {4, "no such file"},
        {5, "the guest is busy"},
        {6, "the guest's tools do not support it"},
        {12, "it exists already"},
        {13, "permission denied"},
        {20001, "not a file"},
        {20002, "not a folder"},
        {20003, "no such process"},
        {3004, "the program could not be started"},
        {3015, "the user may not do that in the guest"},
        {3017, "the guest forbids it: guestoperations in its tools.conf"},
        {3024, "the guest cannot check passwords: does VGAuthService run there?"},
        {3025, "the guest's tools do not know it: they are too old"},
        {3050, "the guest knows no such user, or the password is wrong"},
        {3051, "the guest does not allow passwords"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].error == error)
            return known[i].text;
    return "an error that has no name here";
}
