/*
 * swtpm(8) and its control channel. See swtpm.h. All numbers on it are big-endian.
 */
#include "device/legacy/swtpm.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#define ANSWER_S 10 /* a TPM that makes itself anew works for a while */
#define END_MS 2000

enum command {
    CMD_INIT = 2,
    CMD_SHUTDOWN = 3,
    CMD_GET_STATEBLOB = 12,
    CMD_SET_STATEBLOB = 13,
    CMD_STOP = 14,
    CMD_SET_DATAFD = 16,
    CMD_SET_BUFFERSIZE = 17,
};

static int fail(struct mull_error *err, const char *what, int code)
{
    return mull_fail(err, code, "swtpm: %s: %s", what, strerror(code));
}

/* Send all of a request. */
static int put(struct mull_swtpm *t, const void *from, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(t->control, (const char *)from + sent, len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return -errno;
        sent += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int get(struct mull_swtpm *t, void *to, size_t len)
{
    for (size_t have = 0; have < len;) {
        ssize_t n = recv(t->control, (char *)to + have, len - have, 0);
        if (n < 0 && errno != EINTR)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        if (!n)
            return -EPIPE;
        have += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* A command with words behind it; the answer begins with a result, which must be 0.
 * @param answer  what follows that: @words of it */
static int call(struct mull_swtpm *t, enum command command, const uint32_t *args, unsigned nargs,
                uint32_t *answer, unsigned words)
{
    uint32_t out[8] = {htobe32(command)}, result;
    for (unsigned i = 0; i < nargs; i++)
        out[i + 1] = htobe32(args[i]);
    int ret = put(t, out, 4 * (nargs + 1));
    if (!ret)
        ret = get(t, &result, 4);
    if (!ret && words)
        ret = get(t, answer, 4 * words);
    for (unsigned i = 0; i < words && !ret; i++)
        answer[i] = be32toh(answer[i]);
    return ret ? ret : result ? -EREMOTEIO : 0;
}

static int give_data_socket(struct mull_swtpm *t, int fd)
{
    uint32_t command = htobe32(CMD_SET_DATAFD), result;
    struct iovec iov = {&command, sizeof(command)};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    if (sendmsg(t->control, &msg, MSG_NOSIGNAL) != sizeof(command))
        return -errno;
    int ret = get(t, &result, 4);
    return ret ? ret : result ? -EREMOTEIO : 0;
}

static int init(struct mull_swtpm *t, uint32_t buffer, struct mull_error *err)
{
    uint32_t flags = 0, sizes[3] = {0};
    int ret = call(t, CMD_SET_BUFFERSIZE, &buffer, 1, sizes, 3);
    if (!ret && sizes[0] > buffer)
        ret = -EMSGSIZE; /* its answers would not fit */
    if (!ret)
        ret = call(t, CMD_INIT, &flags, 1, NULL, 0);
    return ret ? fail(err, "it does not initialize its TPM", -ret) : 0;
}

int mull_swtpm_adopt(struct mull_swtpm *t, int control, int data, uint32_t buffer,
                     struct mull_error *err)
{
    const struct timeval patience = {.tv_sec = ANSWER_S};
    *t = (struct mull_swtpm){
        .child = {.pidfd = -1, .messages = -1}, .control = control, .data = data};
    if (setsockopt(control, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
        fcntl(data, F_SETFL, O_NONBLOCK))
        return fail(err, "its sockets", errno);
    return init(t, buffer, err);
}

static int start_program(struct mull_swtpm *t, const char *folder, int control,
                         struct mull_error *err)
{
    char state[PATH_MAX + 32];
    if (mkdir(folder, 0700) && errno != EEXIST)
        return mull_fail(err, errno, "--tpm %s: %s; give a folder", folder, strerror(errno));
    /* A comma would begin another option of its own. */
    if (strchr(folder, ',') ||
        snprintf(state, sizeof(state), "dir=%s,mode=0600", folder) >= (int)sizeof(state))
        return mull_fail(err, EINVAL, "--tpm %s: a name without a comma, please", folder);
    const char *argv[] = {"swtpm",      "socket", "--tpm2", "--ctrl", "type=unixio,clientfd=3",
                          "--tpmstate", state,    NULL};
    return mull_child_start(argv, control, "install swtpm, or leave --tpm out", &t->child, err);
}

int mull_swtpm_start(struct mull_swtpm *t, const char *folder, uint32_t buffer,
                     struct mull_error *err)
{
    struct mull_child child;
    char line[256] = "";
    int control[2] = {-1, -1}, data[2] = {-1, -1};

    *t = (struct mull_swtpm){.child = {.pidfd = -1, .messages = -1}, .control = -1, .data = -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control))
        return fail(err, "no socket", errno);
    t->control = control[0];
    int ret = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, data)
                  ? fail(err, "no socket", errno)
                  : start_program(t, folder, control[1], err);
    t->data = data[0];
    close(control[1]);
    child = t->child;
    if (!ret) {
        const struct timeval patience = {.tv_sec = ANSWER_S};
        setsockopt(t->control, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        ret = give_data_socket(t, data[1]);
        if (ret) {
            mull_child_messages(&t->child, NULL, line, sizeof(line));
            ret = mull_fail(err, -ret, "swtpm: %s", *line ? line : "it does not answer");
        }
    }
    if (data[1] >= 0)
        close(data[1]);
    if (!ret)
        ret = mull_swtpm_adopt(t, t->control, t->data, buffer, err);
    t->child = child;
    return ret;
}

int mull_swtpm_reset(struct mull_swtpm *t, uint32_t buffer, struct mull_error *err)
{
    int ret = call(t, CMD_STOP, NULL, 0, NULL, 0);
    return ret ? fail(err, "it does not stop its TPM", -ret) : init(t, buffer, err);
}

/* ---- State ---- */

int mull_swtpm_save(struct mull_swtpm *t, struct mull_swtpm_blob *blobs, struct mull_error *err)
{
    for (unsigned i = 0; i < MULL_SWTPM_BLOBS; i++) {
        const uint32_t args[3] = {0, i + 1, 0};
        uint32_t answer[3]; /* flags, the blob's length, that of what follows: all of it */
        int ret = call(t, CMD_GET_STATEBLOB, args, 3, answer, 3);
        if (!ret && (answer[1] > MULL_SWTPM_BLOB_MAX || answer[2] != answer[1]))
            ret = -EFBIG;
        if (!ret)
            ret = get(t, blobs[i].data, answer[2]);
        if (ret)
            return fail(err, "its state", -ret);
        blobs[i].flags = answer[0];
        blobs[i].length = answer[2];
    }
    return 0;
}

int mull_swtpm_load(struct mull_swtpm *t, const struct mull_swtpm_blob *blobs, uint32_t buffer,
                    struct mull_error *err)
{
    int ret = call(t, CMD_STOP, NULL, 0, NULL, 0);
    for (unsigned i = 0; i < MULL_SWTPM_BLOBS && !ret; i++) {
        const uint32_t head[4] = {htobe32(CMD_SET_STATEBLOB), htobe32(blobs[i].flags),
                                  htobe32(i + 1), htobe32(blobs[i].length)};
        uint32_t result = 0;
        if (!blobs[i].length)
            continue;
        ret = put(t, head, sizeof(head));
        if (!ret)
            ret = put(t, blobs[i].data, blobs[i].length);
        if (!ret)
            ret = get(t, &result, sizeof(result));
        if (!ret && result)
            ret = -EREMOTEIO;
    }
    return ret ? fail(err, "it does not take the saved state", -ret) : init(t, buffer, err);
}

void mull_swtpm_stop(struct mull_swtpm *t)
{
    if (t->control >= 0) {
        if (t->child.pid)
            call(t, CMD_SHUTDOWN, NULL, 0, NULL, 0);
        close(t->control);
    }
    if (t->data >= 0)
        close(t->data);
    t->control = t->data = -1;
    mull_child_stop(&t->child, END_MS);
}
