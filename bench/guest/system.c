/* The kernel's part: system calls, pipes between processes, fork, exec, files. With an argument it
 * is the program that fork+exec starts. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "bench.h"

static int getppid_loop(void)
{
    double start = bench_now();
    long parent = syscall(SYS_getppid);
    int right = 1;
    for (int i = 0; i < 1000000; i++)
        right &= syscall(SYS_getppid) == parent;
    return bench_done("getppid", start, right);
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* A byte goes back and forth between two processes on the given CPUs. */
static int ping_pong(const char *name, int rounds, int here, int there)
{
    int go[2], back[2];
    char byte = 'x';
    if (pipe(go) || pipe(back))
        return bench_done(name, 0, 0);
    pid_t child = fork();
    if (child == 0) {
        pin(there);
        for (int i = 0; i < rounds; i++)
            if (read(go[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1)
                _exit(1);
        _exit(0);
    }
    pin(here);
    int right = child > 0;
    double start = bench_now();
    for (int i = 0; i < rounds && right; i++)
        right = write(go[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1;
    int status, ret = bench_done(name, start, right);
    waitpid(child, &status, 0);
    close(go[0]), close(go[1]), close(back[0]), close(back[1]);
    return ret;
}

static int fork_exit(void)
{
    double start = bench_now();
    int right = 1;
    for (int i = 0; i < 1000; i++) {
        int status;
        pid_t child = fork();
        if (child == 0)
            _exit(7);
        right &= waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7;
    }
    return bench_done("fork", start, right);
}

static int fork_exec(const char *self)
{
    double start = bench_now();
    int right = 1;
    for (int i = 0; i < 400; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            execl(self, self, "child", (char *)NULL);
            _exit(1);
        }
        right &= waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 9;
    }
    return bench_done("exec", start, right);
}

static int files(void)
{
    double start = bench_now();
    int right = 1;
    mkdir("/tmp/bench", 0700);
    for (int r = 0; r < 10; r++) {
        char name[64], text[512] = "some bytes";
        for (int i = 0; i < 500; i++) {
            snprintf(name, sizeof(name), "/tmp/bench/file%d", i);
            int fd = open(name, O_CREAT | O_RDWR, 0600);
            right &= write(fd, text, sizeof(text)) == sizeof(text);
            close(fd);
        }
        for (int i = 0; i < 500; i++) {
            struct stat st;
            snprintf(name, sizeof(name), "/tmp/bench/file%d", i);
            right &= !stat(name, &st) && st.st_size == sizeof(text) && !unlink(name);
        }
    }
    return bench_done("files", start, right);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return 9;
    int ret = getppid_loop() | fork_exit() | fork_exec(argv[0]) | files();
    ret |= ping_pong("pipe1", 30000, 0, 0);
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
        ret |= ping_pong("pipe2", 10000, 0, 1);
    return ret;
}
