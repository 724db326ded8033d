/*
 * mullion-share: serves one folder to one machine, by 9P2000.L or FUSE, and can do nothing else. It
 * is started by the machine's process with one end of a socket, locks itself in and ends when that
 * closes. Knows neither rings nor guest memory: requests come as messages (share/message.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/message.h"
#include "share/server.h"

#define DESCRIPTORS_KEPT 64u /* for what is neither a node nor a handle */
#define NODES_MAX 1000000u

struct options {
    int fd;
    bool readonly, fuse;
    const char *folder;
};

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

/* ---- The walls: docs/threat-model.md ---- */

/* The shared folder and nothing else. A kernel without Landlock leaves the other walls. */
static int restrict_files(int folder, bool readonly)
{
    /* ABI 1: bits 0 (execute) to 12 (make symbolic links); 13: rename between folders (ABI 2);
     * 14: truncate (ABI 3). What is not handled is not restricted. */
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1)
        return 0;
    uint64_t all = (1ull << (abi == 1 ? 13 : abi == 2 ? 14 : 15)) - 1;
    uint64_t reading = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
    uint64_t refused =
        LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_CHAR;
    struct landlock_ruleset_attr attr = {.handled_access_fs = all};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (ruleset < 0)
        return fail("Landlock");
    struct landlock_path_beneath_attr rule = {.allowed_access = readonly ? reading : all & ~refused,
                                              .parent_fd = folder};
    int ret = 0;
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) ||
        syscall(SYS_landlock_restrict_self, ruleset, 0))
        ret = fail("Landlock");
    close(ruleset);
    return ret;
}

/* As root: a root folder of its own and no network. Anybody else has no right to it, and needs it
 * less. */
static int leave_host(int folder)
{
    if (geteuid())
        return 0;
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) && errno != EPERM)
        return fail("namespaces");
    /* The working directory stays /proc/self/fd. */
    char path[32];
    snprintf(path, sizeof(path), "%d", folder);
    return chroot(path) && errno != EPERM ? fail("chroot") : 0;
}

static int drop_capabilities(void)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    return syscall(SYS_capset, &header, data) ? fail("capabilities") : 0;
}

static const int allowed[] = {
    SCMP_SYS(openat),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statfs),
    SCMP_SYS(fstatfs),
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(lseek),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fallocate),
    SCMP_SYS(getdents64),
    SCMP_SYS(readlinkat),
    SCMP_SYS(mkdirat),
    SCMP_SYS(mknodat),
    SCMP_SYS(symlinkat),
    SCMP_SYS(linkat),
    SCMP_SYS(unlinkat),
    SCMP_SYS(renameat2),
    SCMP_SYS(renameat),
    SCMP_SYS(fchmodat),
    SCMP_SYS(fchownat),
    SCMP_SYS(utimensat),
    SCMP_SYS(getxattr),
    SCMP_SYS(setxattr),
    SCMP_SYS(listxattr),
    SCMP_SYS(removexattr),
    SCMP_SYS(copy_file_range),
    SCMP_SYS(fcntl),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(brk),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(getrandom),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(restart_syscall),
};

static int restrict_system_calls(void)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int ret = ctx ? 0 : -ENOMEM;
    for (unsigned i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && !ret; i++)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    if (!ret)
        ret = seccomp_load(ctx);
    seccomp_release(ctx);
    errno = -ret;
    return ret ? fail("seccomp") : 0;
}

static int lock_in(int folder, bool readonly)
{
    int ret = leave_host(folder);
    if (!ret && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        ret = fail("no_new_privs");
    if (!ret)
        ret = restrict_files(folder, readonly);
    if (!ret)
        ret = drop_capabilities();
    return ret ? ret : restrict_system_calls();
}

/* ---- Serving ---- */

static bool read_all(int fd, void *to, size_t len)
{
    for (size_t have = 0; have < len;) {
        ssize_t n = read(fd, (char *)to + have, len - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        have += (size_t)n;
    }
    return true;
}

static bool write_all(int fd, const void *from, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(fd, (const char *)from + sent, len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        sent += (size_t)n;
    }
    return true;
}

static int serve(const struct options *o, struct share_tree *tree)
{
    struct share_p9 *p9 = o->fuse ? NULL : share_p9_create(tree);
    struct share_fuse *fuse = o->fuse ? share_fuse_create(tree) : NULL;
    uint8_t *in = malloc(SHARE_MESSAGE_MAX),
            *out = malloc(sizeof(struct share_message) + SHARE_MESSAGE_MAX);
    if ((!p9 && !fuse) || !in || !out)
        return fail("memory");
    for (;;) {
        struct share_message m;
        if (!read_all(o->fd, &m, sizeof(m)))
            return 0; /* the machine has ended */
        if (m.len > SHARE_MESSAGE_MAX || m.room > SHARE_MESSAGE_MAX) {
            errno = EPROTO;
            return fail("message");
        }
        if (!read_all(o->fd, in, m.len))
            return 0;
        uint8_t *answer = out + sizeof(m);
        size_t len = p9 ? share_p9_handle(p9, in, m.len, answer, m.room)
                        : share_fuse_handle(fuse, in, m.len, answer, m.room);
        if (!m.room)
            continue;
        m.len = (uint32_t)len;
        memcpy(out, &m, sizeof(m));
        if (!write_all(o->fd, out, sizeof(m) + len))
            return 0;
    }
}

/* Room for as many nodes as the host lets us have descriptors. */
static unsigned most_nodes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return 256;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t kept = DESCRIPTORS_KEPT +
                  (limit.rlim_cur > 4 * SHARE_HANDLES ? SHARE_HANDLES : limit.rlim_cur / 4);
    rlim_t n = limit.rlim_cur > kept ? limit.rlim_cur - kept : 1;
    return n < NODES_MAX ? (unsigned)n : NODES_MAX;
}

static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {{"fd", required_argument, NULL, 'f'},
                                          {"type", required_argument, NULL, 't'},
                                          {"readonly", no_argument, NULL, 'r'},
                                          {0}};
    int c;
    *o = (struct options){.fd = -1};
    while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
        if (c == 'f')
            o->fd = atoi(optarg);
        else if (c == 't' && (!strcmp(optarg, "9p") || !strcmp(optarg, "virtiofs")))
            o->fuse = *optarg == 'v';
        else if (c == 'r')
            o->readonly = true;
        else
            return -1;
    }
    o->folder = argv[optind];
    return o->fd >= 0 && optind + 1 == argc ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct options o;
    struct share_tree tree;
    if (parse_options(argc, argv, &o)) {
        fputs("Usage: mullion-share --fd N --type 9p|virtiofs [--readonly] FOLDER\n"
              "Serves a folder to a machine; started by mullion-vmm(8).\n",
              stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    umask(0); /* the guest's own has been applied */
    int folder = open(o.folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return fail(o.folder);
    unsigned nodes = most_nodes();
    if (chdir("/proc/self/fd"))
        return fail("/proc/self/fd");
    if (lock_in(folder, o.readonly))
        return 1;
    errno = -share_tree_init(&tree, folder, o.readonly, nodes);
    if (errno)
        return fail(o.folder);
    /* From here on nothing but the folder can be reached: tell the machine. */
    const struct share_message ready = {0};
    return write_all(o.fd, &ready, sizeof(ready)) ? serve(&o, &tree) : 0;
}
