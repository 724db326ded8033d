/*
 * The sandbox of a machine's process: no new privileges, capabilities dropped, Landlock, seccomp.
 * What is missing in the host's kernel is left out and logged, because the next wall still stands;
 * docs/threat-model.md says what is promised.
 */
#include "vmm/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Capabilities ---- */

static int drop_capabilities(struct mull_error *err)
{
    /* capset(2) works on one thread: the threads that run already hold none that matter after
     * seccomp; the bounding set and no_new_privs keep them from coming back. */
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap); /* not allowed to a normal user, who has none */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    if (syscall(SYS_capset, &header, data))
        return mull_fail(err, errno, "sandbox: cannot drop capabilities: %s", strerror(errno));
    return 0;
}

/* ---- Landlock: linux/landlock.h; no file system but the removal of our own sockets ---- */

static int allow_removal(int ruleset, const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -1;
    struct landlock_path_beneath_attr rule = {
        .allowed_access = LANDLOCK_ACCESS_FS_REMOVE_FILE,
        .parent_fd = open(dirname(copy), O_PATH | O_CLOEXEC | O_DIRECTORY),
    };
    int ret = -1;
    if (rule.parent_fd >= 0) {
        ret = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
        close(rule.parent_fd);
    }
    free(copy);
    return ret;
}

static void restrict_files(const struct mull_machine_config *config, const char *const sockets[],
                           unsigned count, const struct mull_log *log)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1) {
        mull_log(log, MULL_LOG_INFO, "sandbox: this kernel has no Landlock; going without");
        return;
    }
    /* All rights of ABI 1, execute (bit 0) to make_sym (bit 12). */
    struct landlock_ruleset_attr attr = {.handled_access_fs = (1ull << 13) - 1};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (ruleset < 0) {
        mull_log(log, MULL_LOG_WARN, "sandbox: Landlock: %s; going without", strerror(errno));
        return;
    }
    int ret = 0;
    for (unsigned i = 0; i < count && !ret; i++)
        if (sockets[i])
            ret = allow_removal(ruleset, sockets[i]);
    for (unsigned i = 0; i < config->console_count && !ret; i++)
        if (config->console[i].kind == MULL_CONSOLE_UNIX)
            ret = allow_removal(ruleset, config->console[i].path);
    if (!ret && config->vsock_path)
        ret = allow_removal(ruleset, config->vsock_path);
    if (ret || syscall(SYS_landlock_restrict_self, ruleset, 0))
        mull_log(log, MULL_LOG_WARN, "sandbox: Landlock: %s; going without", strerror(errno));
    close(ruleset);
}

/* ---- seccomp ---- */

/* What a running machine needs: memory, threads, its open descriptors, time. No opening of files,
 * no new sockets but accept4 (control and console peers), no processes. */
static const int allowed[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(preadv),
    SCMP_SYS(pwritev),
    SCMP_SYS(preadv2),
    SCMP_SYS(pwritev2),
    SCMP_SYS(lseek),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(fallocate),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(close),
    SCMP_SYS(dup),
    SCMP_SYS(fcntl),
    SCMP_SYS(flock),
    SCMP_SYS(ioctl),
    SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),
    /* Sockets that are open. */
    SCMP_SYS(accept4),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvmmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendmmsg),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    /* Waiting. */
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime),
    SCMP_SYS(futex),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(eventfd2),
    SCMP_SYS(timer_create),
    SCMP_SYS(timer_settime),
    SCMP_SYS(timer_delete),
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(wait4),
    SCMP_SYS(waitid),
    SCMP_SYS(pidfd_send_signal),
    /* Memory. */
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mprotect),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(membarrier),
    SCMP_SYS(mincore),
    SCMP_SYS(msync),
    /* Threads and signals. */
    SCMP_SYS(clone),
    SCMP_SYS(clone3),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(get_robust_list),
    SCMP_SYS(set_tid_address),
    SCMP_SYS(rseq),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(getppid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(tgkill),
    SCMP_SYS(tkill),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigpending),
    SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(rt_sigqueueinfo),
    SCMP_SYS(rt_tgsigqueueinfo),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(arch_prctl),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(getcpu),
    SCMP_SYS(getrandom),
    SCMP_SYS(getrusage),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(sysinfo),
    SCMP_SYS(uname),
};

/* Sockets stay what they are: only thread creation may go through clone(2), and prctl(2) may only
 * name threads. clone3(2) hides its flags in memory: ENOSYS makes the C library use clone(2). */
static int add_rules(scmp_filter_ctx ctx)
{
    int ret = 0;
    for (unsigned i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && !ret; i++) {
        if (allowed[i] == SCMP_SYS(clone) || allowed[i] == SCMP_SYS(clone3))
            continue;
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    }
    const scmp_datum_t thread = 0x10000; /* CLONE_THREAD */
    if (!ret)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, thread, thread));
    if (!ret)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (!ret)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                               SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    /* A child (passt) may be told to go; nobody else can be hit without privileges. */
    if (!ret)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(kill), 0);
    return ret;
}

static int restrict_system_calls(struct mull_error *err)
{
    /* A library that probes for something (open of /sys, socket for syslog) gets an error, not a
     * death that loses the guest. */
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!ctx)
        return mull_fail(err, ENOMEM, "sandbox: seccomp: no memory");
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: the hot calls cost less */
    int ret = add_rules(ctx);
    if (!ret)
        ret = seccomp_load(ctx);
    seccomp_release(ctx);
    if (ret)
        return mull_fail(err, -ret, "sandbox: seccomp: %s", strerror(-ret));
    return 0;
}

int vmm_sandbox_enter(const struct mull_machine_config *config, const char *const sockets[],
                      unsigned count, const struct mull_log *log, struct mull_error *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return mull_fail(err, errno, "sandbox: no_new_privs: %s", strerror(errno));
    restrict_files(config, sockets, count, log);
    int ret = drop_capabilities(err);
    return ret ? ret : restrict_system_calls(err);
}
