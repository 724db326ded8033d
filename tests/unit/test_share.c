/* The servers of shared folders: 9P and FUSE requests as a guest would send them, the hostile ones
 * above all, and the devices that carry them. */
#include "virtio_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share/message.h"
#include "share/server.h"

struct world {
    char folder[64], outside[64];
    struct share_tree tree;
    struct share_p9 *p9;
    struct share_fuse *fuse;
    uint8_t request[8192], answer[8192];
    size_t len, got;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void put_file(const char *folder, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct world *make_world(bool readonly, unsigned nodes)
{
    struct world *w = calloc(1, sizeof(*w));
    char path[128];
    strcpy(w->folder, "/tmp/mull-share-XXXXXX");
    strcpy(w->outside, "/tmp/mull-outside-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    assert_non_null(mkdtemp(w->outside));
    put_file(w->folder, "file", "hello");
    put_file(w->outside, "secret", "SECRET");
    snprintf(path, sizeof(path), "%s/dir", w->folder);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof(path), "%s/escape", w->folder);
    assert_int_equal(symlink(w->outside, path), 0);
    snprintf(path, sizeof(path), "%s/pipe", w->folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(chdir("/proc/self/fd"), 0);
    int fd = open(w->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(share_tree_init(&w->tree, fd, readonly, nodes), 0);
    w->p9 = share_p9_create(&w->tree);
    w->fuse = share_fuse_create(&w->tree);
    return w;
}

static int setup(void **state)
{
    *state = make_world(false, 64);
    return 0;
}

static int setup_readonly(void **state)
{
    *state = make_world(true, 64);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    share_p9_destroy(w->p9);
    share_fuse_destroy(w->fuse);
    share_tree_fini(&w->tree);
    assert_int_equal(chdir("/"), 0);
    nftw(w->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    nftw(w->outside, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(w);
    return 0;
}

/* ---- 9P: "1", "2", "4", "8": numbers of so many bytes; "s": a string; "d": length and bytes ----
 */

enum { LERROR = 7 };

static void p9_put(struct world *w, uint64_t value, unsigned bytes)
{
    memcpy(w->request + w->len, &value, bytes);
    w->len += bytes;
}

/* @return the error, 0: none */
static int p9(struct world *w, uint8_t type, const char *format, ...)
{
    va_list args;
    w->len = 4;
    p9_put(w, type, 1);
    p9_put(w, 0x1234, 2);
    va_start(args, format);
    for (const char *f = format; *f; f++) {
        if (*f == 's') {
            const char *text = va_arg(args, const char *);
            p9_put(w, strlen(text), 2);
            memcpy(w->request + w->len, text, strlen(text));
            w->len += strlen(text);
        } else {
            uint64_t value = *f == '8' ? va_arg(args, uint64_t) : va_arg(args, unsigned);
            p9_put(w, value, (unsigned)(*f - '0'));
        }
    }
    va_end(args);
    uint32_t size = (uint32_t)w->len, code = 0;
    memcpy(w->request, &size, 4);
    w->got = share_p9_handle(w->p9, w->request, w->len, w->answer, sizeof(w->answer));
    assert_true(w->got >= 7);
    memcpy(&size, w->answer, 4);
    assert_int_equal(size, w->got);
    assert_int_equal(w->answer[5] | w->answer[6] << 8, 0x1234);
    if (w->answer[4] != LERROR) {
        assert_int_equal(w->answer[4], type + 1);
        return 0;
    }
    memcpy(&code, w->answer + 7, 4);
    return (int)code;
}

static void p9_start(struct world *w)
{
    assert_int_equal(p9(w, 100, "4s", 65536, "9P2000.L"), 0);
    assert_int_equal(p9(w, 104, "44ss4", 0, ~0u, "root", "", 0), 0);
}

static int p9_walk(struct world *w, unsigned from, unsigned to, const char *name)
{
    return p9(w, 110, "442s", from, to, 1, name);
}

static void test_p9_reads_and_writes(void **state)
{
    struct world *w = *state;
    p9_start(w);
    assert_int_equal(p9_walk(w, 0, 1, "file"), 0);
    assert_int_equal(p9(w, 116, "484", 1, (uint64_t)0, 100), EBADF); /* not open */
    assert_int_equal(p9(w, 12, "44", 1, O_RDWR), 0);
    assert_int_equal(p9(w, 116, "484", 1, (uint64_t)1, 100), 0);
    assert_int_equal(w->got, 11 + 4);
    assert_memory_equal(w->answer + 11, "ello", 4);
    assert_int_equal(p9(w, 118, "484111", 1, (uint64_t)5, 3, 'a', 'b', 'c'), 0);
    assert_int_equal(p9(w, 118, "484111", 1, (uint64_t)5, 4, 'a', 'b', 'c'), EINVAL);
    assert_int_equal(p9(w, 118, "4841", 1, ~(uint64_t)0, 1, 'a'), EINVAL);
    assert_int_equal(p9(w, 50, "44", 1, 0), 0);
    assert_int_equal(p9(w, 24, "48", 1, (uint64_t)0x7ff), 0);
    assert_int_equal(w->answer[7 + 8 + 13 + 4 + 8 + 8 + 8], 8); /* size */
    /* A lock is the file's; another fid sees it. */
    assert_int_equal(p9_walk(w, 0, 2, "file"), 0);
    assert_int_equal(p9(w, 12, "44", 2, O_RDWR), 0);
    assert_int_equal(p9(w, 52, "414884s", 1, 1, 0, (uint64_t)0, (uint64_t)0, 1, "me"), 0);
    assert_int_equal(w->answer[7], 0);
    assert_int_equal(p9(w, 52, "414884s", 2, 1, 0, (uint64_t)0, (uint64_t)0, 1, "me"), 0);
    assert_int_equal(w->answer[7], 1); /* blocked */
    assert_int_equal(p9(w, 120, "4", 1), 0);
    assert_int_equal(p9(w, 120, "4", 1), EBADF);
}

static void test_p9_names(void **state)
{
    struct world *w = *state;
    p9_start(w);
    assert_int_equal(p9(w, 72, "4s44", 0, "made", 0755, 0), 0);
    assert_int_equal(p9(w, 16, "4ss4", 0, "sym", "/etc/passwd", 0), 0);
    assert_int_equal(p9_walk(w, 0, 1, "sym"), 0);
    assert_int_equal(p9(w, 22, "4", 1), 0);
    assert_memory_equal(w->answer + 9, "/etc/passwd", 11);
    assert_int_equal(p9(w, 12, "44", 1, O_RDONLY), ELOOP);
    assert_int_equal(p9(w, 110, "442", 0, 2, 0), 0);
    assert_int_equal(p9(w, 14, "4s444", 2, "new", O_RDWR | O_CREAT | O_EXCL, 04755, 0), 0);
    struct stat st;
    char path[128];
    snprintf(path, sizeof(path), "%s/new", w->folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07000, 0); /* no set-user-ID program for the host */
    assert_int_equal(p9(w, 26,
                        "444448"
                        "8888",
                        2, 1, 04755, 0, 0, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                        (uint64_t)0),
                     EPERM);
    assert_int_equal(p9(w, 70, "44s", 0, 2, "hard"), 0);
    assert_int_equal(p9(w, 74, "4s4s", 0, "hard", 0, "harder"), 0);
    assert_int_equal(p9(w, 76, "4s4", 0, "harder", 0), 0);
    assert_int_equal(p9(w, 20, "44s", 2, 0, "newer"), 0);
    assert_int_equal(p9(w, 122, "4", 2), 0);
    assert_int_equal(p9_walk(w, 0, 3, "newer"), ENOENT);
    assert_int_equal(p9(w, 18, "4s4444", 0, "dev", S_IFCHR | 0666, 1, 5, 0), EPERM);
    assert_int_equal(p9(w, 110, "442", 0, 4, 0), 0);
    assert_int_equal(p9(w, 12, "44", 4, 0), 0);
    assert_int_equal(p9(w, 40, "484", 4, (uint64_t)0, 8000), 0);
    assert_true(w->got > 100);
    assert_int_equal(p9(w, 40, "484", 4, (uint64_t)0, 10), 0); /* no room for one */
    assert_int_equal(w->got, 11);
}

static void test_p9_keeps_inside(void **state)
{
    struct world *w = *state;
    struct stat root, here;
    p9_start(w);
    /* ".." of the root is the root, through a folder, too. */
    assert_int_equal(p9(w, 110, "442sss", 0, 1, 3, "dir", "..", ".."), 0);
    assert_int_equal(fstat(w->tree.root->fd, &root), 0);
    memcpy(&here.st_ino, w->answer + 7 + 2 + 2 * 13 + 5, 8);
    assert_int_equal(here.st_ino, root.st_ino);
    assert_int_equal(p9_walk(w, 0, 2, "dir/../.."), EINVAL);
    assert_int_equal(p9_walk(w, 0, 2, "/etc"), EINVAL);
    assert_int_equal(p9_walk(w, 0, 2, ""), EINVAL);
    assert_int_equal(p9(w, 110, "442ss", 0, 2, 2, "escape", "secret"), 0); /* as far as it goes */
    assert_int_equal(w->answer[7], 1);
    assert_int_equal(p9(w, 24, "48", 2, (uint64_t)0), EBADF);
    assert_int_equal(p9(w, 74, "4s4s", 0, "file", 0, "../stolen"), EINVAL);
    assert_int_equal(p9(w, 76, "4s4", 0, "..", 0x200), EINVAL);
    assert_int_equal(p9(w, 72, "4s44", 0, "..", 0755, 0), EINVAL);
    assert_int_equal(p9_walk(w, 0, 3, "pipe"), 0);
    assert_int_equal(p9(w, 12, "44", 3, O_RDONLY), EACCES);
    assert_int_equal(p9(w, 14, "4s444", 0, "escape", O_RDWR, 0644, 0), ELOOP);
    /* A folder that somebody puts a link in the place of. */
    char path[128];
    assert_int_equal(p9_walk(w, 0, 5, "dir"), 0);
    snprintf(path, sizeof(path), "%s/dir", w->folder);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink(w->outside, path), 0);
    assert_int_equal(p9_walk(w, 5, 6, "secret"), ENOENT);
}

static void test_p9_limits(void **state)
{
    struct world *w = *state;
    assert_int_equal(p9(w, 104, "44ss4", 0, ~0u, "", "", 0), EPROTO); /* no version yet */
    assert_int_equal(p9(w, 100, "4s", 16, "9P2000.L"), EINVAL);
    p9_start(w);
    assert_int_equal(p9_walk(w, 0, 0, "file"), 0);
    assert_int_equal(p9_walk(w, 0, 0, "file"), ENOTDIR);
    p9_start(w);
    assert_int_equal(p9(w, 110, "442", 0, ~0u, 0), EBADF);
    assert_int_equal(p9(w, 110, "442", 0, 1, 17), EINVAL);
    assert_int_equal(p9(w, 250, ""), EOPNOTSUPP);
    /* Fids: as many as there may be and no more. */
    for (unsigned i = 1; i < SHARE_HANDLES; i++)
        assert_int_equal(p9(w, 110, "442", 0, i, 0), 0);
    assert_int_equal(p9(w, 110, "442", 0, SHARE_HANDLES, 0), ENFILE);
    p9_start(w);
    /* Nodes, too: each is a descriptor. */
    int result = 0;
    unsigned made;
    for (made = 0; made < 100 && !result; made++) {
        char name[16];
        snprintf(name, sizeof(name), "d%u", made);
        result = p9(w, 72, "4s44", 0, name, 0755, 0);
        if (!result)
            result = p9_walk(w, 0, made + 1, name);
    }
    assert_int_equal(result, ENFILE);
    assert_true(made > 50);
    p9_start(w);
    assert_int_equal(p9_walk(w, 0, 1, "d1"), 0);
    /* Requests that end too soon, at every length, and answers without room. */
    w->len = 0;
    assert_int_equal(p9(w, 20, "44s", 1, 0, "again"), 0);
    for (size_t len = 0; len < w->len; len++) {
        uint32_t size = (uint32_t)len;
        memcpy(w->request, &size, 4);
        size_t n = share_p9_handle(w->p9, w->request, len, w->answer, sizeof(w->answer));
        assert_true(n == 11 && w->answer[4] == LERROR);
    }
    for (size_t room = 0; room < 200; room++) {
        uint32_t size = (uint32_t)w->len;
        memcpy(w->request, &size, 4);
        w->request[4] = 24;
        assert_true(share_p9_handle(w->p9, w->request, w->len, w->answer, room) <= room);
    }
}

static void test_p9_xattrs(void **state)
{
    struct world *w = *state;
    p9_start(w);
    assert_int_equal(p9_walk(w, 0, 1, "file"), 0);
    assert_int_equal(p9(w, 32, "4s84", 1, "trusted.x", (uint64_t)1, 0), 0);
    assert_int_equal(p9(w, 118, "4841", 1, (uint64_t)0, 1, 'x'), 0);
    assert_int_equal(p9(w, 120, "4", 1), EOPNOTSUPP);
    assert_int_equal(p9_walk(w, 0, 1, "file"), 0);
    assert_int_equal(p9(w, 32, "4s84", 1, "user.x", (uint64_t)2, 0), 0);
    assert_int_equal(p9(w, 118, "484111", 1, (uint64_t)0, 3, 'x', 'y', 'z'), ENOSPC);
    assert_int_equal(p9(w, 118, "48411", 1, (uint64_t)0, 2, 'x', 'y'), 0);
    int result = p9(w, 120, "4", 1);
    if (result == EOPNOTSUPP)
        return; /* /tmp has no attributes here */
    assert_int_equal(result, 0);
    assert_int_equal(p9_walk(w, 0, 1, "file"), 0);
    assert_int_equal(p9(w, 30, "44s", 1, 2, "user.x"), 0);
    assert_int_equal(p9(w, 116, "484", 2, (uint64_t)0, 100), 0);
    assert_memory_equal(w->answer + 11, "xy", 2);
    assert_int_equal(p9(w, 30, "44s", 1, 3, ""), 0);
    assert_int_equal(p9(w, 116, "484", 3, (uint64_t)0, 100), 0);
    assert_memory_equal(w->answer + 11, "user.x", 7);
}

static void test_readonly(void **state)
{
    struct world *w = *state;
    p9_start(w);
    assert_int_equal(p9_walk(w, 0, 1, "file"), 0);
    assert_int_equal(p9(w, 12, "44", 1, O_RDWR), EROFS);
    assert_int_equal(p9(w, 12, "44", 1, O_RDONLY | O_TRUNC), EROFS);
    assert_int_equal(p9(w, 12, "44", 1, O_RDONLY), 0);
    assert_int_equal(p9(w, 72, "4s44", 0, "made", 0755, 0), EROFS);
    assert_int_equal(p9(w, 76, "4s4", 0, "file", 0), EROFS);
    assert_int_equal(p9(w, 74, "4s4s", 0, "file", 0, "other"), EROFS);
    assert_int_equal(p9(w, 26,
                        "444448"
                        "8888",
                        1, 1, 0600, 0, 0, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                        (uint64_t)0),
                     EROFS);
}

/* ---- FUSE ---- */

/* @return the error, 0: none; the answer's body is in w->answer + 16, w->got - 16 bytes */
static int fuse(struct world *w, uint32_t opcode, uint64_t node, const void *body, size_t size,
                const char *name)
{
    struct fuse_in_header in = {.opcode = opcode, .unique = 77, .nodeid = node};
    struct fuse_out_header out;
    size_t text = name ? strlen(name) + 1 : 0;
    in.len = (uint32_t)(sizeof(in) + size + text);
    memcpy(w->request, &in, sizeof(in));
    if (size)
        memcpy(w->request + sizeof(in), body, size);
    if (text)
        memcpy(w->request + sizeof(in) + size, name, text);
    w->len = in.len;
    w->got = share_fuse_handle(w->fuse, w->request, w->len, w->answer, sizeof(w->answer));
    if (!w->got)
        return 0;
    memcpy(&out, w->answer, sizeof(out));
    assert_int_equal(out.len, w->got);
    assert_int_equal(out.unique, 77);
    return -out.error;
}

static uint64_t fuse_entry(struct world *w)
{
    struct fuse_entry_out entry;
    assert_true(w->got >= sizeof(struct fuse_out_header) + sizeof(entry));
    memcpy(&entry, w->answer + sizeof(struct fuse_out_header), sizeof(entry));
    return entry.nodeid;
}

static void fuse_start(struct world *w)
{
    const struct fuse_init_in in = {.major = 7, .minor = 36, .flags = ~0u};
    assert_int_equal(fuse(w, FUSE_INIT, 0, &in, sizeof(in), NULL), 0);
}

static void test_fuse_files(void **state)
{
    struct world *w = *state;
    struct fuse_open_out opened;
    assert_int_equal(fuse(w, FUSE_LOOKUP, 1, NULL, 0, "file"), EPROTO);
    fuse_start(w);
    const struct fuse_create_in create = {.flags = O_RDWR | O_CREAT, .mode = 04777, .umask = 022};
    assert_int_equal(fuse(w, FUSE_CREATE, 1, &create, sizeof(create), "new"), 0);
    uint64_t node = fuse_entry(w);
    memcpy(&opened, w->answer + 16 + sizeof(struct fuse_entry_out), sizeof(opened));
    struct {
        struct fuse_write_in in;
        char data[4];
    } write = {{.fh = opened.fh, .offset = 2, .size = 4}, "data"};
    assert_int_equal(fuse(w, FUSE_WRITE, node, &write, sizeof(write.in) + 4, NULL), 0);
    write.in.size = 400;
    assert_int_equal(fuse(w, FUSE_WRITE, node, &write, sizeof(write.in) + 4, NULL), EINVAL);
    struct fuse_read_in read = {.fh = opened.fh, .size = 100};
    assert_int_equal(fuse(w, FUSE_READ, node, &read, sizeof(read), NULL), 0);
    assert_int_equal(w->got, 16 + 6);
    assert_memory_equal(w->answer + 16, "\0\0data", 6);
    assert_int_equal(fuse(w, FUSE_GETATTR, node, &(struct fuse_getattr_in){0},
                          sizeof(struct fuse_getattr_in), NULL),
                     0);
    struct fuse_attr_out attr;
    memcpy(&attr, w->answer + 16, sizeof(attr));
    assert_int_equal(attr.attr.mode, S_IFREG | 0755);
    struct fuse_setattr_in set = {.valid = FATTR_SIZE, .size = 3};
    assert_int_equal(fuse(w, FUSE_SETATTR, node, &set, sizeof(set), NULL), 0);
    const struct fuse_release_in release = {.fh = opened.fh};
    assert_int_equal(fuse(w, FUSE_RELEASE, node, &release, sizeof(release), NULL), 0);
    assert_int_equal(fuse(w, FUSE_RELEASE, node, &release, sizeof(release), NULL), EBADF);
    read.fh = UINT64_MAX;
    assert_int_equal(fuse(w, FUSE_READ, node, &read, sizeof(read), NULL), EBADF);
    const struct fuse_open_in open_in = {0};
    assert_int_equal(fuse(w, FUSE_OPENDIR, 1, &open_in, sizeof(open_in), NULL), 0);
    memcpy(&opened, w->answer + 16, sizeof(opened));
    read = (struct fuse_read_in){.fh = opened.fh, .size = 4096};
    assert_int_equal(fuse(w, FUSE_READDIR, 1, &read, sizeof(read), NULL), 0);
    assert_true(w->got > 16 + 7 * 24);
    assert_int_equal(fuse(w, FUSE_OPEN, 1, &open_in, sizeof(open_in), NULL), EISDIR);
    assert_int_equal(fuse(w, FUSE_LOOKUP, 1, NULL, 0, "pipe"), 0);
    assert_int_equal(fuse(w, FUSE_OPEN, fuse_entry(w), &open_in, sizeof(open_in), NULL), EACCES);
}

static void test_fuse_keeps_inside(void **state)
{
    struct world *w = *state;
    fuse_start(w);
    assert_int_equal(fuse(w, FUSE_LOOKUP, 1, NULL, 0, ".."), EINVAL);
    assert_int_equal(fuse(w, FUSE_LOOKUP, 1, NULL, 0, "."), EINVAL);
    assert_int_equal(fuse(w, FUSE_LOOKUP, 1, NULL, 0, "dir/.."), EINVAL);
    assert_int_equal(fuse(w, FUSE_LOOKUP, 1, NULL, 0, "escape"), 0);
    uint64_t link = fuse_entry(w);
    assert_int_equal(fuse(w, FUSE_LOOKUP, link, NULL, 0, "secret"), ENOTDIR);
    const struct fuse_open_in open_in = {0};
    assert_int_equal(fuse(w, FUSE_OPEN, link, &open_in, sizeof(open_in), NULL), ELOOP);
    const struct fuse_mknod_in mknod_in = {.mode = S_IFBLK | 0666};
    assert_int_equal(fuse(w, FUSE_MKNOD, 1, &mknod_in, sizeof(mknod_in), "disk"), EPERM);
    const struct fuse_rename2_in rename_in = {.newdir = 99};
    assert_int_equal(fuse(w, FUSE_RENAME2, 1, &rename_in, sizeof(rename_in), "file"), EINVAL);
    assert_int_equal(fuse(w, FUSE_LOOKUP, 12345, NULL, 0, "file"), ESTALE);
    assert_int_equal(fuse(w, 9999, 1, NULL, 0, NULL), ENOSYS);
}

static void test_fuse_forgets(void **state)
{
    struct world *w = *state;
    fuse_start(w);
    assert_int_equal(fuse(w, FUSE_LOOKUP, 1, NULL, 0, "dir"), 0);
    uint64_t dir = fuse_entry(w);
    const struct fuse_mkdir_in mkdir_in = {.mode = 0755};
    assert_int_equal(fuse(w, FUSE_MKDIR, dir, &mkdir_in, sizeof(mkdir_in), "sub"), 0);
    uint64_t sub = fuse_entry(w);
    const struct fuse_forget_in all = {.nlookup = UINT64_MAX};
    /* A parent stays as long as its child is known; nobody can drop what is not theirs. */
    fuse(w, FUSE_FORGET, dir, &all, sizeof(all), NULL);
    fuse(w, FUSE_FORGET, dir, &all, sizeof(all), NULL);
    fuse(w, FUSE_FORGET, 1, &all, sizeof(all), NULL);
    assert_int_equal(w->got, 0);
    assert_non_null(share_node_by_id(&w->tree, dir));
    assert_non_null(share_node_by_id(&w->tree, 1));
    fuse(w, FUSE_FORGET, sub, &all, sizeof(all), NULL);
    assert_null(share_node_by_id(&w->tree, sub));
    assert_null(share_node_by_id(&w->tree, dir));
    assert_int_equal(fuse(w, FUSE_LOOKUP, dir, NULL, 0, "sub"), ESTALE);
    for (unsigned i = 0; i < 1000; i++) { /* 64 nodes are enough for a guest that forgets */
        char name[16];
        snprintf(name, sizeof(name), "m%u", i);
        assert_int_equal(fuse(w, FUSE_MKDIR, 1, &mkdir_in, sizeof(mkdir_in), name), 0);
        fuse(w, FUSE_FORGET, fuse_entry(w), &all, sizeof(all), NULL);
    }
    fuse_start(w);
    for (size_t len = 0; len < 200; len++) /* whatever comes, nothing but an answer goes out */
        share_fuse_handle(w->fuse, w->answer, len, w->answer + 4096, len);
}

/* ---- The devices ---- */

struct carrier {
    struct drv drv; /* must be first */
    int peer;
};

static struct carrier *make_device(enum mull_share_type type)
{
    struct carrier *c = calloc(1, sizeof(*c));
    struct mull_error err = {0};
    int pair[2];
    drv_init(&c->drv);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    c->peer = pair[1];
    const struct mull_virtio_share_config cfg = {
        .name = "virtio-share.0", .devfn = -1, .type = type, .tag = "work", .socket = pair[0]};
    assert_int_equal(mull_virtio_share_create(&c->drv.env, c->drv.bus, &cfg, &c->drv.device, &err),
                     0);
    drv_find(&c->drv);
    return c;
}

static int setup_p9_device(void **state)
{
    *state = make_device(MULL_SHARE_9P);
    return 0;
}

static int setup_fs_device(void **state)
{
    *state = make_device(MULL_SHARE_VIRTIOFS);
    return 0;
}

static int teardown_device(void **state)
{
    struct carrier *c = *state;
    close(c->peer);
    c->drv.device->ops->destroy(c->drv.device);
    c->drv.device = NULL;
    drv_fini(&c->drv);
    free(c);
    return 0;
}

static void test_device_carries(void **state)
{
    struct carrier *c = *state;
    struct drv *d = &c->drv;
    const struct drv_seg segs[3] = {
        {DRV_DATA, 7, false}, {DRV_DATA + 0x1000, 3, false}, {DRV_DATA + 0x2000, 100, true}};
    struct share_message m;
    char text[16], got[8];
    uint32_t id, len;
    drv_start(d, ~0ull, 1, 16);
    assert_int_equal(drv_read(d, d->config, 2), 4);
    assert_int_equal(drv_read(d, d->config + 2, 1), 'w');
    mull_mem_write(d->memory, DRV_DATA, "request", 7);
    mull_mem_write(d->memory, DRV_DATA + 0x1000, "end", 3);
    uint16_t head = drv_add(d, 0, segs, 3);
    drv_kick(d, 0);
    assert_int_equal(read(c->peer, &m, sizeof(m)), sizeof(m));
    assert_int_equal(m.len, 10);
    assert_int_equal(m.room, 100);
    assert_int_equal(read(c->peer, text, 10), 10);
    assert_memory_equal(text, "requestend", 10);
    /* The answer in pieces. */
    m.len = 6;
    assert_int_equal(write(c->peer, &m, 5), 5);
    drv_turn(d);
    assert_int_equal(write(c->peer, (char *)&m + 5, sizeof(m) - 5), (ssize_t)sizeof(m) - 5);
    assert_int_equal(write(c->peer, "ans", 3), 3);
    drv_turn(d);
    assert_false(drv_used(d, 0, &id, &len));
    assert_int_equal(write(c->peer, "wer", 3), 3);
    drv_wait_used(d, 0, &id, &len);
    assert_int_equal(id, head);
    assert_int_equal(len, 6);
    mull_mem_read(d->memory, DRV_DATA + 0x2000, got, 6);
    assert_memory_equal(got, "answer", 6);
}

/* The process dies, or answers nonsense: errors for what waits, and for what comes. */
static void test_device_without_peer(void **state)
{
    struct carrier *c = *state;
    struct drv *d = &c->drv;
    const struct drv_seg segs[2] = {{DRV_DATA, 40, false}, {DRV_DATA + 0x2000, 100, true}};
    uint8_t got[16];
    uint32_t id, len;
    drv_start(d, ~0ull, 2, 16);
    memset(got, 0x5a, sizeof(got));
    mull_mem_write(d->memory, DRV_DATA, got, sizeof(got));
    drv_add(d, 1, segs, 2);
    drv_kick(d, 1);
    const struct share_message wrong = {.len = 4, .tag = 12345};
    assert_int_equal(write(c->peer, &wrong, sizeof(wrong)), sizeof(wrong));
    drv_wait_used(d, 1, &id, &len);
    assert_int_equal(len, 16);
    mull_mem_read(d->memory, DRV_DATA + 0x2000, got, 16);
    assert_int_equal(got[0], 16);
    assert_int_equal((int8_t)got[4], -EIO);
    assert_int_equal(got[8], 0x5a);
    drv_add(d, 1, segs, 2);
    drv_kick(d, 1);
    drv_wait_used(d, 1, &id, &len);
    assert_int_equal(len, 16);
    drv_assert_fine(d);
    d->device->ops->reset(d->device);
}

static void test_device_forgets_without_answer(void **state)
{
    struct carrier *c = *state;
    struct drv *d = &c->drv;
    const struct drv_seg seg = {DRV_DATA, 48, false};
    struct share_message m;
    uint32_t id, len;
    drv_start(d, ~0ull, 2, 16);
    drv_add(d, 0, &seg, 1);
    drv_kick(d, 0);
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(len, 0);
    assert_int_equal(read(c->peer, &m, sizeof(m)), sizeof(m));
    assert_true(m.len == 48 && !m.room);
}

/* More than the socket holds: nothing is lost, and nothing waits for ever. */
static void test_device_fills_the_socket(void **state)
{
    struct carrier *c = *state;
    struct drv *d = &c->drv;
    struct drv_seg segs[2] = {{DRV_DATA, 1 << 20, false}, {DRV_DATA + (4 << 20), 16, true}};
    static uint8_t big[sizeof(struct share_message) + (1 << 20)];
    uint32_t id, len;
    drv_start(d, ~0ull, 2, 16);
    for (unsigned i = 0; i < 3; i++)
        drv_add(d, 1, segs, 2);
    drv_notify(d, 1);
    assert_int_equal(fcntl(c->peer, F_SETFL, O_NONBLOCK), 0);
    for (unsigned i = 0; i < 3; i++) {
        struct share_message m;
        for (size_t have = 0; have < sizeof(big);) {
            ssize_t n = read(c->peer, big + have, sizeof(big) - have);
            if (n > 0)
                have += (size_t)n;
            drv_turn(d);
        }
        memcpy(&m, big, sizeof(m));
        assert_int_equal(m.len, 1 << 20);
        m.len = 0;
        assert_int_equal(write(c->peer, &m, sizeof(m)), sizeof(m));
        drv_wait_used(d, 1, &id, &len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_p9_reads_and_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_p9_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_p9_keeps_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_p9_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_p9_xattrs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readonly, setup_readonly, teardown),
        cmocka_unit_test_setup_teardown(test_fuse_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuse_keeps_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuse_forgets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_carries, setup_p9_device, teardown_device),
        cmocka_unit_test_setup_teardown(test_device_without_peer, setup_fs_device, teardown_device),
        cmocka_unit_test_setup_teardown(test_device_forgets_without_answer, setup_fs_device,
                                        teardown_device),
        cmocka_unit_test_setup_teardown(test_device_fills_the_socket, setup_fs_device,
                                        teardown_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
