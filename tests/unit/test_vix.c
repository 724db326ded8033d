/*
 * Guest operations of open-vm-tools (src/host/vix.c, vix_wire.c) against a guest of our own, which
 * takes each request apart by vixCommands.h and hgfsProto.h, does it in memory, and answers as
 * open-vm-tools 12.2 do; and against guests that lie.
 */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/vix.h"

#define FILES 8
#define FOLDER "/tmp/vmware-ann_1-2/mullion-vmware0"

struct file {
    char path[128];
    char *data;
    size_t size;
};

struct guest {
    struct file file[FILES];
    bool no_plugin, silent, folder_gone, never_ends, dies, terminated;
    const char *says; /* to every request but the log-in: a lie */
    size_t says_size;
    unsigned calls;
    const char *output, *errors; /* of the command */
    const char *shell_folder;
};

static uint32_t get32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static struct file *find(struct guest *g, const char *path, bool make)
{
    for (unsigned i = 0; i < FILES; i++)
        if (!strcmp(g->file[i].path, path))
            return &g->file[i];
    for (unsigned i = 0; make && i < FILES; i++)
        if (!*g->file[i].path) {
            snprintf(g->file[i].path, sizeof(g->file[i].path), "%s", path);
            return &g->file[i];
        }
    return NULL;
}

static void set(struct guest *g, const char *path, const void *data, size_t size)
{
    struct file *f = find(g, path, true);
    free(f->data);
    f->data = malloc(size + 1);
    memcpy(f->data, data, size);
    f->size = size;
}

static void set_text(struct guest *g, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", FOLDER, name);
    set(g, path, text, strlen(text));
}

static size_t say(char *answer, const char *text)
{
    memcpy(answer, text, strlen(text) + 1);
    return strlen(text) + 1; /* the 0 comes, too */
}

/* "ann" with "pass:word"; whoever else is unknown. */
static bool right_user(const uint8_t *credential, uint32_t size)
{
    gnutls_datum_t in = {(unsigned char *)credential + 8, 0}, out;
    assert_true(size > 9 && credential[size - 1] == 0);
    in.size = (unsigned)strlen((const char *)in.data);
    assert_int_equal(in.size, size - 9);
    assert_int_equal(gnutls_base64_decode2(&in, &out), 0);
    assert_int_equal(out.size, get32(credential) + get32(credential + 4) + 2);
    bool right = out.size == 14 && !memcmp(out.data, "ann\0pass:word", 14);
    gnutls_free(out.data);
    return right;
}

static void put32(char *to, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        to[i] = (char)(value >> 8 * i);
}

/* Files are handles: their number. */
static size_t do_hgfs(struct guest *g, const uint8_t *packet, uint32_t size, char *answer)
{
    uint32_t op = get32(packet + 4);
    const uint8_t *body = packet + 8;
    char *reply = answer + sprintf(answer, "OK 0 0 #");
    size_t n = 0;
    memset(reply, 0, 64);
    put32(reply, get32(packet));
    if (op == 24) {
        char path[128] = "";
        const uint8_t *name = body + 64;
        uint32_t length = get32(name), mode = get32(body + 8), flags = get32(body + 12);
        assert_true(length < 100 && !memcmp(name + 16, "root", 5));
        assert_int_equal(size, 8 + 64 + 16 + length + 1);
        for (uint32_t at = 4; at < length; at++)
            path[at - 4] = name[16 + at] ? (char)name[16 + at] : '/';
        assert_int_equal(flags, mode ? 4 : 0);
        struct file *f = find(g, path, mode == 1);
        if (!f) {
            put32(reply + 4, 1);
            return (size_t)(reply - answer) + 8;
        }
        if (mode)
            f->size = 0;
        put32(reply + 8, (uint32_t)(f - g->file));
        n = 16;
    } else if (op == 25 || op == 26) {
        struct file *f = &g->file[get32(body)];
        unsigned gap = op == 26; /* a byte of flags */
        uint32_t offset = get32(body + 4 + gap), wanted = get32(body + 12 + gap);
        assert_true(get32(body) < FILES && wanted <= VIX_PIECE);
        if (op == 25) {
            wanted = offset >= f->size ? 0 : wanted > f->size - offset ? f->size - offset : wanted;
            if (wanted) /* an empty file has no bytes anywhere */
                memcpy(reply + 8 + 12, f->data + offset, wanted);
            n = 12 + wanted;
        } else {
            assert_int_equal(size, 8 + 25 + wanted);
            assert_int_equal(offset, f->size);
            f->data = realloc(f->data, f->size + wanted + 1);
            memcpy(f->data + f->size, body + 25, wanted);
            f->size += wanted;
            n = 12;
        }
        put32(reply + 8, wanted);
    } else {
        assert_int_equal(op, 27);
        n = 8;
    }
    return (size_t)(reply - answer) + 8 + n + 3; /* sizeof '#', as in foundryToolsDaemon.c */
}

static size_t do_command(struct guest *g, uint32_t opcode, const uint8_t *body, uint32_t size,
                         char *answer)
{
    char text[512];
    switch (opcode) {
    case VIX_VALIDATE_CREDENTIALS:
        return say(answer, "OK 0 0 ");
    case VIX_CREATE_TEMPORARY_DIRECTORY:
        assert_int_equal(size, 20 + get32(body + 4) + 3);
        return say(answer, "OK 0 2 " FOLDER);
    case VIX_DELETE_DIRECTORY:
        assert_string_equal((const char *)body + 13, FOLDER);
        g->folder_gone = true;
        return say(answer, "OK 0 0 ");
    case VIX_START_PROGRAM:
        assert_string_equal((const char *)body + 21, "/bin/sh");
        assert_string_equal((const char *)body + 21 + 8, FOLDER "/run");
        set_text(g, "pid", "4711\n");
        if (!g->dies) {
            set_text(g, "out", g->output ? g->output : "");
            set_text(g, "err", g->errors ? g->errors : "");
        }
        if (!g->never_ends && !g->dies)
            set_text(g, "status", "3\n");
        return say(answer, "OK 0 0 4710");
    case VIX_LIST_PROCESSES:
        assert_int_equal(get32(body + 12), 4710);
        snprintf(text, sizeof(text),
                 "OK 0 0 <proc><cmd>sh</cmd><name>&quot;</name><pid>4710</pid><user>ann</user>"
                 "<start>1</start><eCode>%d</eCode><eTime>%d</eTime></proc>",
                 g->dies ? -1 : 0, g->dies ? 1700000000 : 0);
        return say(answer, text);
    case VIX_TERMINATE_PROCESS:
        assert_int_equal(get32(body), 4711);
        g->terminated = true;
        set_text(g, "status", "143\n");
        return say(answer, "OK 0 0 ");
    case VIX_HGFS:
        assert_int_equal(get32(body), size - 8);
        return do_hgfs(g, body + 8, size - 8, answer);
    }
    return say(answer, "OK 3025 0 ");
}

static int call(void *opaque, const void *message, size_t size, int timeout_ms, void *answer,
                size_t *answer_size, struct mull_error *err)
{
    struct guest *g = opaque;
    const char *prefix = "Vix_1_Relayed_Command \"1\"";
    const uint8_t *m = (const uint8_t *)message + strlen(prefix) + 1;
    g->calls++;
    assert_true(size <= VIX_MESSAGE_MAX && size > strlen(prefix) + 52);
    assert_string_equal((const char *)message, prefix);
    assert_int_equal(get32(m), 0xd00d0001);
    uint32_t total = get32(m + 6), header = get32(m + 10), body = get32(m + 14);
    uint32_t credential = get32(m + 18), opcode = get32(m + 23);
    assert_int_equal(total, size - strlen(prefix) - 1);
    assert_int_equal(header, 51);
    assert_int_equal(total, header + body + credential);
    assert_int_equal(get32(m + 47), 1);
    assert_int_equal(m[22] & 0x80, opcode == VIX_HGFS ? 0x80 : 0);
    if (g->silent)
        return mull_fail(err, ETIMEDOUT, "silence");
    if (g->no_plugin)
        *answer_size = say(answer, "ERROR Unknown Command");
    else if (!right_user(m + header + body, credential))
        *answer_size = say(answer, "OK 3050 0 ");
    else if (g->says && opcode != VIX_VALIDATE_CREDENTIALS) {
        memcpy(answer, g->says, g->says_size);
        *answer_size = g->says_size;
    } else
        *answer_size = do_command(g, opcode, m + header, body, answer);
    return 0;
}

static struct vix *log_in(struct guest *g)
{
    const struct vix_channel channel = {call, g};
    struct vix *v;
    struct mull_error err = {0};
    assert_int_equal(vix_open(&channel, &(struct vix_user){"ann", "pass:word"}, &v, &err), 0);
    return v;
}

static void finish(struct guest *g, struct vix *v)
{
    vix_close(v);
    for (unsigned i = 0; i < FILES; i++)
        free(g->file[i].data);
}

static json_t *words(const char *a, const char *b)
{
    return json_pack("[s, s]", a, b);
}

/* ---- Tests ---- */

static void refuses_a_wrong_password_once(void **state)
{
    struct guest g = {0};
    const struct vix_channel channel = {call, &g};
    struct vix *v;
    struct mull_error err = {0};
    char name[VIX_NAME_MAX + 2];

    assert_int_equal(vix_open(&channel, &(struct vix_user){"ann", "word"}, &v, &err), -EACCES);
    assert_non_null(strstr(err.message, "no such user, or the password is wrong"));
    assert_null(strstr(err.message, "word\""));
    assert_null(v);
    assert_int_equal(g.calls, 1);
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(vix_open(&channel, &(struct vix_user){name, ""}, &v, &err), -EINVAL);
    assert_int_equal(vix_open(&channel, &(struct vix_user){"a", name}, &v, &err), -EINVAL);
    assert_int_equal(vix_open(&channel, &(struct vix_user){"", "x"}, &v, &err), -EINVAL);
    assert_int_equal(g.calls, 1);
    g.no_plugin = true;
    assert_int_equal(vix_open(&channel, &(struct vix_user){"ann", "x"}, &v, &err), -ENOSYS);
    g.silent = true;
    assert_int_equal(vix_open(&channel, &(struct vix_user){"ann", "x"}, &v, &err), -ETIMEDOUT);
}

static void runs_a_command(void **state)
{
    struct guest g = {.output = "out\n", .errors = "err\n"};
    struct vix *v = log_in(&g);
    struct host_agent_result r;
    struct mull_error err = {0};
    json_t *command = words("it's", "a b\n$x");

    assert_int_equal(vix_exec(v, command, "in\0put", 6, 10000, &r, &err), 0);
    assert_int_equal(r.status, 3);
    assert_string_equal(r.output, "out\n");
    assert_string_equal(r.errors, "err\n");
    assert_false(r.truncated);
    host_agent_result_free(&r);
    assert_true(g.folder_gone);
    struct file *f = find(&g, FOLDER "/in", false);
    assert_int_equal(f->size, 6);
    assert_memory_equal(f->data, "in\0put", 6);
    f = find(&g, FOLDER "/run", false);
    f->data[f->size] = '\0';
    assert_string_equal(f->data, "/bin/sh -c 'echo $$ >" FOLDER
                                 "/pid; exec \"$@\"' sh 'it'\\''s' 'a b\n$x' <" FOLDER
                                 "/in >" FOLDER "/out 2>" FOLDER "/err\n"
                                 "echo $? >" FOLDER "/status\n");
    json_decref(command);
    command = json_pack("[s%]", "a\0b", (size_t)3);
    assert_int_equal(vix_exec(v, command, NULL, 0, 10000, &r, &err), -EINVAL);
    json_decref(command);
    finish(&g, v);
}

static void keeps_so_much_of_an_output(void **state)
{
    struct guest g = {0};
    struct vix *v = log_in(&g);
    struct host_agent_result r;
    struct mull_error err = {0};
    json_t *command = words("yes", "");
    size_t size = (16u << 20) + 5;
    char *much = malloc(size + 1);
    memset(much, 'y', size);
    much[size] = '\0';
    g.output = much;

    assert_int_equal(vix_exec(v, command, NULL, 0, 10000, &r, &err), 0);
    assert_true(r.truncated);
    assert_int_equal(r.output_length, 16u << 20);
    assert_int_equal(r.errors_length, 0);
    host_agent_result_free(&r);
    json_decref(command);
    free(much);
    finish(&g, v);
}

static void ends_a_command_whose_time_is_over(void **state)
{
    struct guest g = {.never_ends = true};
    struct vix *v = log_in(&g);
    struct host_agent_result r;
    struct mull_error err = {0};
    json_t *command = words("sleep", "100");

    assert_int_equal(vix_exec(v, command, NULL, 0, 50, &r, &err), -ETIMEDOUT);
    assert_true(g.terminated);
    assert_true(g.folder_gone);
    json_decref(command);
    finish(&g, v);
}

static void sees_a_shell_that_died(void **state)
{
    struct guest g = {.dies = true};
    struct vix *v = log_in(&g);
    struct host_agent_result r;
    struct mull_error err = {0};
    json_t *command = words("true", "");

    assert_int_equal(vix_exec(v, command, NULL, 0, 60000, &r, &err), -ENOENT); /* no output */
    assert_true(g.folder_gone);
    json_decref(command);
    finish(&g, v);
}

static int append(void *opaque, const void *data, size_t length)
{
    struct file *f = opaque;
    f->data = realloc(f->data, f->size + length);
    memcpy(f->data + f->size, data, length);
    f->size += length;
    return f->size > 2u << 20 ? -EFBIG : 0;
}

static void copies_files_both_ways(void **state)
{
    struct guest g = {0};
    struct vix *v = log_in(&g);
    struct mull_error err = {0};
    struct file back = {0};
    size_t size = (1u << 20) + 7;
    char *data = malloc(size), long_path[VIX_PATH_MAX + 8];

    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 31 + i / 4096);
    assert_int_equal(vix_write_file(v, "/srv//a/b", data, size, &err), 0);
    assert_non_null(find(&g, "/srv/a/b", false));
    assert_int_equal(vix_read_file(v, "/srv/a/b", append, &back, &err), 0);
    assert_int_equal(back.size, size);
    assert_memory_equal(back.data, data, size);
    assert_int_equal(vix_write_file(v, "/empty", "", 0, &err), 0);
    back.size = 0;
    assert_int_equal(vix_read_file(v, "/empty", append, &back, &err), 0);
    assert_int_equal(back.size, 0);
    assert_int_equal(vix_read_file(v, "/none", append, &back, &err), -ENOENT);
    assert_non_null(strstr(err.message, "/none: no such file"));
    assert_int_equal(vix_read_file(v, "none", append, &back, &err), -EINVAL);
    memset(long_path, '/', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = '\0';
    assert_int_equal(vix_read_file(v, long_path, append, &back, &err), -EINVAL);
    free(back.data);
    free(data);
    finish(&g, v);
}

#define LIE(text)                                                                                  \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }

static void survives_lies(void **state)
{
    static const struct {
        const char *text;
        size_t size;
    } lies[] = {
        LIE(""),
        LIE("OK"),
        LIE("OK "),
        LIE("OK 0"),
        LIE("OK 0 "),
        LIE("OK 0 x"),
        LIE("OK 0 0"),
        LIE("OK 0 0 "),
        LIE("OK 0 0 #"),
        LIE("OK 0 0 #1234567"),
        LIE("OK 0 0 #\1\0\0\0\0\0\0\0"),
        LIE("OK 99999999999999999999999 0 "),
        LIE("OK 65536 0 "),
        LIE("OK -1 0 "),
        LIE("OK 0 0 /"),
        LIE("OK 0 0 /home/ann"),
        LIE("OK 0 0 /tmp/$(reboot)"),
        LIE("OK 0 0 /tmp/a b"),
        LIE("OK 0 0 /tmp/a;b"),
        LIE("OK 0 0 -1"),
        LIE("OK 0 0 0"),
        LIE("OK 0 0 1"),
        LIE("OK 0 0 <proc><pid>4710</pid>"),
        /* Handles and sizes that were not asked for: 4 GiB read, 4 GiB written. */
        LIE("OK 0 0 #\1\0\0\0\0\0\0\0\377\377\377\377\0\0\0\0\0\0\0\0\0\0\0\0"),
        LIE("OK 0 0 #\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        LIE("ERROR"),
        LIE("OK 13 0 #"),
        LIE("OK 0 0 #\1\0\0\0\377\0\0\0"),
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct guest g = {0};
        struct vix *v = log_in(&g);
        struct host_agent_result r;
        struct mull_error err = {0};
        struct file back = {0};
        json_t *command = words("true", "");
        g.says = lies[i].text;
        g.says_size = lies[i].size;
        assert_true(vix_exec(v, command, "x", 1, 100, &r, &err) < 0);
        vix_read_file(v, "/f", append, &back, &err);
        assert_int_equal(back.size, 0);
        assert_true(vix_write_file(v, "/f", "data", 4, &err) < 0);
        assert_true(*err.message);
        json_decref(command);
        free(back.data);
        finish(&g, v);
    }
}

/* What follows the number of a read that gives too much never leaves the answer. */
static void reads_no_further_than_an_answer(void **state)
{
    struct vix_answer a, b;
    uint32_t status, size, file;
    const void *data;
    uint64_t pid;
    bool ended;
    int code;
    char path[VIX_PATH_MAX];
    static const char whole[] = "OK 0 0 #\1\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\0\0\0\0abcd";
    static const char list[] = "OK 0 0 <proc><name></pid>9</name><pid>7</pid><eCode>300</eCode>"
                               "<eTime>5</eTime></proc>";

    for (size_t n = 0; n < sizeof(whole); n++) {
        char *copy = malloc(n ? n : 1); /* so that a sanitizer sees its end */
        memcpy(copy, whole, n);
        if (!vix_parse(copy, n, true, &a) && !hgfs_parse(&a, &status, &b)) {
            assert_int_equal(hgfs_parse_read(&b, 4, &data, &size),
                             n >= sizeof(whole) - 1 ? 0 : -EPROTO);
            assert_int_equal(hgfs_parse_read(&b, 3, &data, &size), -EPROTO);
            hgfs_parse_open(&b, &file);
            hgfs_parse_write(&b, 4, &size);
        }
        free(copy);
    }
    for (size_t n = 0; n < sizeof(list); n++) {
        char *copy = malloc(n ? n : 1);
        memcpy(copy, list, n);
        if (!vix_parse(copy, n, false, &a)) {
            int ret = vix_parse_process(&a, 7, &ended, &code);
            assert_true(ret == (n >= sizeof(list) - 1 - 7 ? 0 : ret) && ret <= 0);
            assert_true(vix_parse_pid(&a, &pid) < 0);
            assert_true(vix_parse_path(&a, path) < 0);
        }
        free(copy);
    }
    assert_int_equal(vix_parse(list, sizeof(list) - 1, false, &a), 0);
    assert_int_equal(vix_parse_process(&a, 7, &ended, &code), 0);
    assert_true(ended);
    assert_int_equal(code, 300 & 255);
    assert_int_equal(vix_parse_process(&a, 8, &ended, &code), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_a_wrong_password_once),
        cmocka_unit_test(runs_a_command),
        cmocka_unit_test(keeps_so_much_of_an_output),
        cmocka_unit_test(ends_a_command_whose_time_is_over),
        cmocka_unit_test(sees_a_shell_that_died),
        cmocka_unit_test(copies_files_both_ways),
        cmocka_unit_test(survives_lies),
        cmocka_unit_test(reads_no_further_than_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
