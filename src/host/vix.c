/*
 * See vix.h. A command's output goes to files in a folder that the guest makes for it, from where
 * it is fetched: VIX starts programs and says when they end, nothing more. The folder belongs to
 * the user alone and goes in the end.
 */
#include "host/vix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CALL_MS 30000          /* a wrong password is answered after some seconds */
#define FILE_MS (15 * 60000)   /* for one file, however slowly it comes */
#define OUTPUT_MAX (16u << 20) /* of each of a command's outputs */
#define FOLDER_PREFIX "mullion-"
#define SMALL_MAX 64 /* of the files that hold a number */
#define POLL_FIRST_MS 10
#define POLL_MOST_MS 250
#define LIST_MS 1000 /* how often it is asked whether the command's shell still is */
#define END_MS 15000 /* open-vm-tools wait 5 s between SIGTERM and SIGKILL */

struct vix {
    struct vix_channel channel;
    char name[VIX_NAME_MAX + 1], password[VIX_NAME_MAX + 1];
    struct vix_user user;
    struct vix_message message;
    char answer[VIX_MESSAGE_MAX];
};

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static int lied(const char *what, struct mull_error *err)
{
    return mull_fail(err, EPROTO, "%s: open-vm-tools in the guest answer nonsense", what);
}

static int errno_of(uint32_t error)
{
    switch (error) {
    case 4:
        return ENOENT;
    case 13:
    case 3015:
    case 3050:
    case 3051:
        return EACCES;
    case 3025:
        return ENOSYS;
    }
    return EIO;
}

/* Send the request that has been made. @param what  for errors */
static int ask(struct vix *v, bool binary, const char *what, struct vix_answer *a,
               struct mull_error *err)
{
    size_t size = 0;
    if (v->message.bad)
        return mull_fail(err, EINVAL, "%s: too long, or no whole path in the guest", what);
    int ret = v->channel.call(v->channel.opaque, v->message.data, v->message.size, CALL_MS,
                              v->answer, &size, err);
    explicit_bzero(v->message.data, v->message.size);
    if (ret)
        return ret;
    if (vix_parse(v->answer, size, binary, a))
        return lied(what, err);
    if (a->unknown)
        return mull_fail(err, ENOSYS,
                         "%s: open-vm-tools in the guest have no guest operations (their plugin "
                         "\"vix\")",
                         what);
    if (a->error)
        return mull_fail(err, errno_of(a->error), "%s: %s (VIX error %u)", what,
                         vix_error_text(a->error), a->error);
    return 0;
}

/* ---- A session ---- */

int vix_open(const struct vix_channel *channel, const struct vix_user *user, struct vix **out,
             struct mull_error *err)
{
    struct vix_answer a;
    *out = NULL;
    if (!*user->name || strlen(user->name) > VIX_NAME_MAX || strlen(user->password) > VIX_NAME_MAX)
        return mull_fail(err, EINVAL, "a user of the guest and its password have %u bytes at most",
                         VIX_NAME_MAX);
    struct vix *v = calloc(1, sizeof(*v));
    if (!v)
        return mull_fail(err, ENOMEM, "no memory");
    v->channel = *channel;
    strcpy(v->name, user->name);
    strcpy(v->password, user->password);
    v->user = (struct vix_user){v->name, v->password};
    vix_validate(&v->message, &v->user);
    int ret = ask(v, false, "log-in to the guest", &a, err);
    if (ret) {
        vix_close(v);
        return ret;
    }
    *out = v;
    return 0;
}

void vix_close(struct vix *v)
{
    if (v)
        explicit_bzero(v, sizeof(*v));
    free(v);
}

/* ---- Files ---- */

/* @param status  what HGFS says; @a is what comes behind it, where that is 0 */
static int ask_hgfs(struct vix *v, const char *path, uint32_t *status, struct vix_answer *a,
                    struct mull_error *err)
{
    struct vix_answer packet;
    int ret = ask(v, true, path, &packet, err);
    if (!ret && hgfs_parse(&packet, status, a))
        ret = lied(path, err);
    return ret;
}

static int hgfs_failed(const char *path, uint32_t status, struct mull_error *err)
{
    int code = status == 1 ? ENOENT : status == 3 || status == 8 ? EACCES : EIO;
    return mull_fail(err, code, "%s: %s", path, hgfs_status_text(status));
}

static int open_file(struct vix *v, const char *path, bool write, uint32_t *file,
                     struct mull_error *err)
{
    struct vix_answer a;
    uint32_t status;
    vix_open_file(&v->message, &v->user, path, write);
    int ret = ask_hgfs(v, path, &status, &a, err);
    if (!ret && status)
        ret = hgfs_failed(path, status, err);
    if (!ret && hgfs_parse_open(&a, file))
        ret = lied(path, err);
    return ret;
}

static int close_file(struct vix *v, const char *path, uint32_t file, struct mull_error *err)
{
    struct vix_answer a;
    uint32_t status;
    vix_close_file(&v->message, &v->user, file);
    int ret = ask_hgfs(v, path, &status, &a, err);
    return !ret && status ? hgfs_failed(path, status, err) : ret;
}

static int in_time(const char *path, long long deadline, struct mull_error *err)
{
    return now_ms() < deadline ? 0
                               : mull_fail(err, ETIMEDOUT, "%s: the guest takes too long", path);
}

static int read_pieces(struct vix *v, const char *path, uint32_t file,
                       int (*piece)(void *opaque, const void *data, size_t length), void *opaque,
                       struct mull_error *err)
{
    long long deadline = now_ms() + FILE_MS;
    for (uint64_t offset = 0;;) {
        struct vix_answer a;
        const void *data;
        uint32_t status, size;
        vix_read(&v->message, &v->user, file, offset, VIX_PIECE);
        int ret = ask_hgfs(v, path, &status, &a, err);
        if (!ret && status)
            ret = hgfs_failed(path, status, err);
        if (!ret && hgfs_parse_read(&a, VIX_PIECE, &data, &size))
            ret = lied(path, err);
        if (!ret)
            ret = in_time(path, deadline, err);
        if (ret || !size)
            return ret;
        ret = piece(opaque, data, size);
        if (ret)
            return mull_fail(err, -ret, "%s: %s", path, strerror(-ret));
        offset += size;
    }
}

int vix_read_file(struct vix *v, const char *path,
                  int (*piece)(void *opaque, const void *data, size_t length), void *opaque,
                  struct mull_error *err)
{
    struct mull_error ignored;
    uint32_t file;
    int ret = open_file(v, path, false, &file, err);
    if (ret)
        return ret;
    ret = read_pieces(v, path, file, piece, opaque, err);
    close_file(v, path, file, &ignored);
    return ret;
}

static int write_pieces(struct vix *v, const char *path, uint32_t file, const char *data,
                        size_t length, struct mull_error *err)
{
    long long deadline = now_ms() + FILE_MS;
    for (uint64_t offset = 0; offset < length;) {
        struct vix_answer a;
        uint32_t piece = length - offset < VIX_PIECE ? (uint32_t)(length - offset) : VIX_PIECE;
        uint32_t status, done;
        vix_write(&v->message, &v->user, file, offset, data + offset, piece);
        int ret = ask_hgfs(v, path, &status, &a, err);
        if (!ret && status)
            ret = hgfs_failed(path, status, err);
        if (!ret && hgfs_parse_write(&a, piece, &done))
            ret = lied(path, err);
        if (!ret)
            ret = in_time(path, deadline, err);
        if (ret)
            return ret;
        offset += done;
    }
    return 0;
}

int vix_write_file(struct vix *v, const char *path, const void *data, size_t length,
                   struct mull_error *err)
{
    struct mull_error ignored;
    uint32_t file;
    int ret = open_file(v, path, true, &file, err);
    if (ret)
        return ret;
    ret = write_pieces(v, path, file, data, length, err);
    if (ret)
        close_file(v, path, file, &ignored);
    else
        ret = close_file(v, path, file, err); /* what is not written then is an error too */
    return ret;
}

/* ---- Bytes that are kept ---- */

struct buffer {
    char *data;
    size_t length, most;
    bool full; /* there was more */
};

static int keep(void *opaque, const void *data, size_t length)
{
    struct buffer *b = opaque;
    if (length > b->most - b->length) {
        length = b->most - b->length;
        b->full = true;
    }
    char *grown = realloc(b->data, b->length + length + 1);
    if (!grown)
        return -ENOMEM;
    b->data = grown;
    memcpy(b->data + b->length, data, length);
    b->length += length;
    b->data[b->length] = '\0';
    return b->full ? -EFBIG : 0;
}

/* A file, or as much of it as there may be. @param b  its data is to be freed */
static int read_whole(struct vix *v, const char *path, struct buffer *b, struct mull_error *err)
{
    int ret = keep(b, "", 0);
    if (!ret)
        ret = vix_read_file(v, path, keep, b, err);
    return b->full ? 0 : ret;
}

/* A file that holds a number and a newline. @return 0; -EAGAIN: it does not yet, or is not there */
static int read_number(struct vix *v, const char *path, long *out, struct mull_error *err)
{
    struct buffer b = {.most = SMALL_MAX};
    char *end = NULL;
    int ret = read_whole(v, path, &b, err);
    if (ret == -ENOENT || (!ret && !b.length))
        ret = -EAGAIN;
    if (!ret) {
        *out = strtol(b.data, &end, 10);
        if (*end != '\n' || end == b.data)
            ret = *end ? lied(path, err) : -EAGAIN;
    }
    free(b.data);
    return ret;
}

/* ---- Commands ---- */

struct run {
    char folder[VIX_PATH_MAX];
    uint64_t pid; /* the shell's */
};

static const char *in_folder(const struct run *r, const char *name, char out[VIX_PATH_MAX])
{
    snprintf(out, VIX_PATH_MAX, "%.*s/%s", VIX_PATH_MAX / 2, r->folder, name);
    return out;
}

static int make_folder(struct vix *v, struct run *r, struct mull_error *err)
{
    struct vix_answer a;
    vix_make_folder(&v->message, &v->user, FOLDER_PREFIX);
    int ret = ask(v, false, "a folder for the command in the guest", &a, err);
    /* It will be deleted with all that is in it: it has to be one that was asked for. */
    if (!ret && (vix_parse_path(&a, r->folder) ||
                 strncmp(strrchr(r->folder, '/') + 1, FOLDER_PREFIX, strlen(FOLDER_PREFIX)) != 0))
        ret = lied("a folder for the command in the guest", err);
    return ret;
}

static void delete_folder(struct vix *v, struct run *r)
{
    struct mull_error ignored;
    struct vix_answer a;
    vix_delete_folder(&v->message, &v->user, r->folder);
    ask(v, false, r->folder, &a, &ignored);
}

/* A word for a shell. */
static void put_word(FILE *out, const char *word)
{
    putc('\'', out);
    for (; *word; word++)
        if (*word == '\'')
            fputs("'\\''", out);
        else
            putc(*word, out);
    putc('\'', out);
}

/* What the guest's shell runs. A shell of its own says its process and becomes the command: what
 * ends that process ends the command, and how it ended is known. */
static int write_script(struct vix *v, const struct run *r, const json_t *command, bool input,
                        struct mull_error *err)
{
    char path[VIX_PATH_MAX], *text = NULL;
    size_t size = 0, i;
    const json_t *word;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return mull_fail(err, ENOMEM, "no memory");
    fprintf(out, "/bin/sh -c 'echo $$ >%s/pid; exec \"$@\"' sh", r->folder);
    json_array_foreach(command, i, word)
    {
        putc(' ', out);
        put_word(out, json_string_value(word));
    }
    if (input)
        fprintf(out, " <%s/in", r->folder);
    else
        fputs(" </dev/null", out);
    fprintf(out, " >%s/out 2>%s/err\necho $? >%s/status\n", r->folder, r->folder, r->folder);
    int ret = fclose(out) ? mull_fail(err, ENOMEM, "no memory") : 0;
    if (!ret)
        ret = vix_write_file(v, in_folder(r, "run", path), text, size, err);
    free(text);
    return ret;
}

static int start(struct vix *v, struct run *r, struct mull_error *err)
{
    struct vix_answer a;
    char path[VIX_PATH_MAX];
    vix_start(&v->message, &v->user, "/bin/sh", in_folder(r, "run", path));
    int ret = ask(v, false, "/bin/sh in the guest", &a, err);
    if (!ret && vix_parse_pid(&a, &r->pid))
        ret = lied("/bin/sh in the guest", err);
    return ret;
}

/* Has the shell itself ended, before it could say how the command did? @return 0: it has */
static int look_for_shell(struct vix *v, const struct run *r, int *status, struct mull_error *err)
{
    struct vix_answer a;
    bool ended = true;
    vix_list_process(&v->message, &v->user, r->pid);
    int ret = ask(v, false, "the command in the guest", &a, err);
    if (ret)
        return ret;
    ret = vix_parse_process(&a, r->pid, &ended, status);
    if (ret == -ENOENT)
        return mull_fail(err, ESRCH, "the guest has lost the command's process %llu",
                         (unsigned long long)r->pid);
    if (ret)
        return lied("the command in the guest", err);
    return ended ? 0 : -EAGAIN;
}

/* @return 0, -ETIME: it goes on, or another -errno */
static int wait_for(struct vix *v, const struct run *r, long long deadline, int *status,
                    struct mull_error *err)
{
    long long look = now_ms() + LIST_MS;
    char path[VIX_PATH_MAX];
    in_folder(r, "status", path);
    for (long pause = POLL_FIRST_MS;;) {
        long number;
        int ret = read_number(v, path, &number, err);
        if (!ret) {
            *status = (int)(number & 255);
            return 0;
        }
        if (ret == -EAGAIN && now_ms() >= look) {
            ret = look_for_shell(v, r, status, err);
            /* Between the two looks it may have said it. */
            if (!ret && !read_number(v, path, &number, err))
                *status = (int)(number & 255);
            look = now_ms() + LIST_MS;
        }
        if (ret != -EAGAIN)
            return ret;
        if (now_ms() >= deadline)
            return -ETIME;
        sleep_ms(pause);
        pause = pause * 2 < POLL_MOST_MS ? pause * 2 : POLL_MOST_MS;
    }
}

/* Its time is over. */
static void terminate(struct vix *v, const struct run *r)
{
    struct mull_error ignored;
    struct vix_answer a;
    char path[VIX_PATH_MAX];
    long pid;
    int status;
    if (read_number(v, in_folder(r, "pid", path), &pid, &ignored) || pid <= 1)
        pid = (long)r->pid;
    vix_terminate(&v->message, &v->user, (uint64_t)pid);
    if (!ask(v, false, "the command in the guest", &a, &ignored))
        wait_for(v, r, now_ms() + END_MS, &status, &ignored);
}

static int take_outputs(struct vix *v, const struct run *r, struct host_agent_result *out,
                        struct mull_error *err)
{
    struct buffer output = {.most = OUTPUT_MAX}, errors = {.most = OUTPUT_MAX};
    char path[VIX_PATH_MAX];
    int ret = read_whole(v, in_folder(r, "out", path), &output, err);
    if (!ret)
        ret = read_whole(v, in_folder(r, "err", path), &errors, err);
    out->output = output.data;
    out->output_length = output.length;
    out->errors = errors.data;
    out->errors_length = errors.length;
    out->truncated = output.full || errors.full;
    if (ret)
        host_agent_result_free(out);
    return ret;
}

static int run(struct vix *v, struct run *r, const json_t *command, const void *input,
               size_t input_length, int timeout_ms, struct host_agent_result *out,
               struct mull_error *err)
{
    char path[VIX_PATH_MAX];
    int ret = write_script(v, r, command, input != NULL, err);
    if (!ret && input)
        ret = vix_write_file(v, in_folder(r, "in", path), input, input_length, err);
    if (!ret)
        ret = start(v, r, err);
    if (!ret)
        ret = wait_for(v, r, now_ms() + timeout_ms, &out->status, err);
    if (ret == -ETIME) {
        terminate(v, r);
        return mull_fail(err, ETIMEDOUT, "the command took longer than %d s and was ended",
                         timeout_ms / 1000);
    }
    return ret ? ret : take_outputs(v, r, out, err);
}

int vix_exec(struct vix *v, const json_t *command, const void *input, size_t input_length,
             int timeout_ms, struct host_agent_result *out, struct mull_error *err)
{
    struct run *r = calloc(1, sizeof(*r));
    const json_t *word;
    size_t i;
    memset(out, 0, sizeof(*out));
    if (!r)
        return mull_fail(err, ENOMEM, "no memory");
    int ret = json_array_size(command) ? 0 : mull_fail(err, EINVAL, "no command");
    json_array_foreach(command, i, word)
    {
        const char *text = json_string_value(word);
        if (!text || strlen(text) != json_string_length(word))
            ret = mull_fail(err, EINVAL, "the command's word %zu is no text", i);
    }
    if (!ret)
        ret = make_folder(v, r, err);
    if (!ret) {
        ret = run(v, r, command, input, input_length, timeout_ms, out, err);
        delete_folder(v, r);
    }
    free(r);
    return ret;
}
