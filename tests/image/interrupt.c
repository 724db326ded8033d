/*
 * Preloaded into a program under test: raises a signal before its N-th write to a file, so that an
 * interruption comes at the same moment every time. INTERRUPT_AT=N, INTERRUPT_SIGNAL=number; with
 * INTERRUPT_COUNT=FILE the number of writes goes there at the end.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

typedef ssize_t (*writer)(int fd, const struct iovec *iov, int niov, off_t offset);

static atomic_long writes;

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("INTERRUPT_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;

    if (f) {
        fprintf(f, "%ld\n", atomic_load(&writes));
        fclose(f);
    }
}

/* With 64-bit offsets, as everything here is built, this is pwritev64 too. */
ssize_t pwritev(int fd, const struct iovec *iov, int niov, off_t offset)
{
    static _Atomic(writer) real;
    const char *at = getenv("INTERRUPT_AT"), *number = getenv("INTERRUPT_SIGNAL");

    if (!atomic_load(&real))
        atomic_store(&real, (writer)dlsym(RTLD_NEXT, "pwritev64"));
    long n = atomic_fetch_add(&writes, 1) + 1;
    if (at && number && n == atol(at))
        kill(getpid(), atoi(number));
    return atomic_load(&real)(fd, iov, niov, offset);
}
