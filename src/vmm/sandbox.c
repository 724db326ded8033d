/*
 * The sandbox of a machine's process: no new privileges, capabilities dropped, Landlock, seccomp.
 * What is missing in the host's kernel is left out and logged, because the next wall still stands;
 * docs/threat-model.md says what is promised.
 */
#include "vmm/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/threads.h"

#define THREAD_PATIENCE_S 30

/* ---- What each thread has of its own: privileges, capabilities, Landlock ---- */

/* Landlock and capset(2) work on the calling thread, and disks have started theirs already: each of
 * these is interrupted by a signal and does it for itself. Signal handlers have no argument. */
static struct {
    int ruleset; /* Landlock's, -1: none */
    sem_t done;
    atomic_int failed; /* errno of a thread that could not */
} each;

/* Async-signal-safe. @return 0, or errno */
static int lock_thread(int ruleset)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return errno;
    if (ruleset >= 0 && syscall(SYS_landlock_restrict_self, ruleset, 0))
        return errno;
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap); /* not allowed to a normal user, who has none */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    return syscall(SYS_capset, &header, data) ? errno : 0;
}

static void lock_this_thread(int signal)
{
    int saved = errno, ret = lock_thread(each.ruleset);
    if (ret)
        atomic_store(&each.failed, ret);
    sem_post(&each.done);
    errno = saved;
}

/* @return 0, or errno */
static int interrupt_thread(pid_t tid)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += THREAD_PATIENCE_S;
    if (syscall(SYS_tgkill, getpid(), tid, MULL_EVERY_THREAD))
        return errno == ESRCH ? 0 : errno; /* it has ended */
    while (sem_timedwait(&each.done, &end))
        if (errno != EINTR)
            return errno;
    return atomic_load(&each.failed);
}

static int lock_threads(int ruleset, struct mull_error *err)
{
    const struct sigaction action = {.sa_handler = lock_this_thread, .sa_flags = SA_RESTART};
    int ret = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks || sigaction(MULL_EVERY_THREAD, &action, NULL))
        ret = errno;
    each.ruleset = ruleset;
    sem_init(&each.done, 0, 0);
    for (struct dirent *entry; !ret && (entry = readdir(tasks));) {
        pid_t tid = atoi(entry->d_name);
        if (tid > 0 && tid != gettid())
            ret = interrupt_thread(tid);
    }
    if (tasks)
        closedir(tasks);
    signal(MULL_EVERY_THREAD, SIG_IGN);
    if (!ret)
        ret = lock_thread(ruleset); /* last: then no file can be opened */
    if (ret)
        return mull_fail(err, ret, "sandbox: cannot drop a thread's privileges: %s", strerror(ret));
    return 0;
}

/* ---- Landlock: linux/landlock.h; no file system ---- */

/* @return the rules, for each thread to take; -1: none */
static int file_rules(const struct mull_log *log)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1) {
        mull_log(log, MULL_LOG_INFO, "sandbox: this kernel has no Landlock; going without");
        return -1;
    }
    /* All rights of ABI 1, execute (bit 0) to make_sym (bit 12). */
    struct landlock_ruleset_attr attr = {.handled_access_fs = (1ull << 13) - 1};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (ruleset < 0)
        mull_log(log, MULL_LOG_WARN, "sandbox: Landlock: %s; going without", strerror(errno));
    return ruleset;
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
    SCMP_SYS(set_robust_list),
    SCMP_SYS(set_tid_address),
    SCMP_SYS(rseq),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(getppid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigpending),
    SCMP_SYS(rt_sigtimedwait),
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

/* Only the low 32 bits of such an argument are looked at by the kernel. */
#define LOW 0xffffffffu

/* Flags of clone(2) that make something else than a thread: all namespaces, a tracer. */
#define CLONE_KIND                                                                                 \
    (CLONE_THREAD | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |  \
     CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE | CLONE_PIDFD | CLONE_PARENT)

/* Only thread creation may go through clone(2), prctl(2) may only name threads, and signals go to
 * threads of this process (children are ended by their pidfd, which nobody else's process can be
 * had by). clone3(2) hides its flags in memory: ENOSYS makes the C library use clone(2). */
static int allow_what_runs(scmp_filter_ctx ctx)
{
    int ret = 0;
    for (unsigned i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && !ret; i++)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    if (!ret)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_KIND, CLONE_THREAD));
    if (!ret)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (!ret)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                               SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    if (!ret)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, LOW, (scmp_datum_t)getpid()));
    return ret;
}

/* Ways out through what is allowed: each is refused where all of its bits are set as here. */
static const struct {
    int call;
    unsigned argument;
    scmp_datum_t mask, value;
} refused[] = {
    /* Typing into the terminal that we were given, for the shell that reads it after us. */
    {SCMP_SYS(ioctl), 1, LOW, TIOCSTI},
    {SCMP_SYS(ioctl), 1, LOW, TIOCLINUX},
    /* Signals to whoever is called the owner of a descriptor. */
    {SCMP_SYS(ioctl), 1, LOW, FIOSETOWN},
    {SCMP_SYS(ioctl), 1, LOW, SIOCSPGRP},
    {SCMP_SYS(fcntl), 1, LOW, F_SETOWN},
    {SCMP_SYS(fcntl), 1, LOW, F_SETOWN_EX},
    {SCMP_SYS(fcntl), 1, LOW, F_SETSIG},
    /* Descriptors of the processes that are connected to us. */
    {SCMP_SYS(getsockopt), 2, LOW, 77 /* SO_PEERPIDFD */},
    {SCMP_SYS(setsockopt), 2, LOW, 76 /* SO_PASSPIDFD */},
    /* Connecting a socket that listened, without connect(2). */
    {SCMP_SYS(sendto), 3, MSG_FASTOPEN, MSG_FASTOPEN},
    {SCMP_SYS(sendmsg), 2, MSG_FASTOPEN, MSG_FASTOPEN},
    {SCMP_SYS(sendmmsg), 3, MSG_FASTOPEN, MSG_FASTOPEN},
};

static int refuse_ways_out(scmp_filter_ctx ctx)
{
    int ret = 0;
    for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]) && !ret; i++)
        ret = seccomp_rule_add(
            ctx, SCMP_ACT_ERRNO(EPERM), refused[i].call, 1,
            SCMP_CMP(refused[i].argument, SCMP_CMP_MASKED_EQ, refused[i].mask, refused[i].value));
    return ret;
}

static int load_filter(uint32_t otherwise, int (*add)(scmp_filter_ctx ctx), struct mull_error *err)
{
    scmp_filter_ctx ctx = seccomp_init(otherwise);
    if (!ctx)
        return mull_fail(err, ENOMEM, "sandbox: seccomp: no memory");
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: the hot calls cost less */
    int ret = add(ctx);
    if (!ret)
        ret = seccomp_load(ctx);
    seccomp_release(ctx);
    if (ret)
        return mull_fail(err, -ret, "sandbox: seccomp: %s", strerror(-ret));
    return 0;
}

/* Two filters, of which the stricter decides: in one, libseccomp lets the rule without conditions
 * win. The second lets nobody load a third. */
static int restrict_system_calls(struct mull_error *err)
{
    int ret = load_filter(SCMP_ACT_ALLOW, refuse_ways_out, err);
    /* A library that probes for something (open of /sys, socket for syslog) gets an error, not a
     * death that loses the guest. */
    return ret ? ret : load_filter(SCMP_ACT_ERRNO(EPERM), allow_what_runs, err);
}

int vmm_sandbox_enter(const struct mull_log *log, struct mull_error *err)
{
    int ruleset = file_rules(log);
    int ret = lock_threads(ruleset, err);
    if (ruleset >= 0)
        close(ruleset);
    return ret ? ret : restrict_system_calls(err);
}
