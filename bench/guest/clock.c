/* Time a command: clock NAME COMMAND...; it must end with status 0. */
#include <sys/wait.h>

#include "bench.h"

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    double start = bench_now();
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return bench_done(argv[1], start, WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
