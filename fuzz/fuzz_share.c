/* Fuzzes the 9P and the FUSE server over a folder of their own: the input is a list of requests,
 * each behind its length. */
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share/server.h"

#define ROOM 8192
#define MAX_REQUESTS 64

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void prepare(void)
{
    /* What is written is small, whatever offset it is written at. */
    const struct rlimit limit = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_IGN);
    if (chdir("/proc/self/fd"))
        abort();
}

static void make_files(int folder)
{
    int fd = openat(folder, "file", O_CREAT | O_WRONLY, 0644);
    if (fd < 0 || write(fd, "hello", 5) != 5 || mkdirat(folder, "dir", 0755) ||
        symlinkat("/etc", folder, "link"))
        abort();
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool prepared;
    static uint8_t answer[ROOM];
    char path[] = "/tmp/mull-fuzz-XXXXXX";
    struct share_tree tree;

    if (!size)
        return 0;
    if (!prepared)
        prepare();
    prepared = true;
    if (!mkdtemp(path))
        return 0;
    int folder = open(path, O_PATH | O_DIRECTORY);
    if (folder < 0)
        abort();
    make_files(folder);
    bool fuse = data[0] & 1;
    size_t room = data[0] & 4 ? ROOM : (size_t)data[0] * 4;
    if (share_tree_init(&tree, folder, data[0] & 2, 64))
        abort();
    struct share_p9 *p9 = share_p9_create(&tree);
    struct share_fuse *fs = share_fuse_create(&tree);
    if (!p9 || !fs)
        abort();
    data++;
    size--;
    for (unsigned i = 0; i < MAX_REQUESTS && size >= 2; i++) {
        size_t len = data[0] | data[1] << 8;
        data += 2;
        size -= 2;
        if (len > size)
            len = size;
        size_t got = fuse ? share_fuse_handle(fs, data, len, answer, room)
                          : share_p9_handle(p9, data, len, answer, room);
        if (got > room)
            abort();
        data += len;
        size -= len;
    }
    share_p9_destroy(p9);
    share_fuse_destroy(fs);
    if (tree.root->refs != 1)
        abort(); /* somebody kept, or dropped, what was not theirs */
    share_tree_fini(&tree);
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
